// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// conf is a network configuration, as the runtime hands it over. What is named as in
// the reference plugins bridge, tuning, portmap and bandwidth means the same.
type conf struct {
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	Type          string          `json:"type"`
	Capabilities  map[string]bool `json:"capabilities"`
	DNS           types.DNS       `json:"dns"`
	IPAM          *ipamConf       `json:"ipam"`
	RuntimeConfig runtimeConf     `json:"runtimeConfig"`
	Args          argsConf        `json:"args"`
	PrevResult    json.RawMessage `json:"prevResult"`
	// Lists, of which null is an empty one: libcni sends that.
	Valid       json.RawMessage `json:"cni.dev/valid-attachments"`
	Attachments json.RawMessage `json:"cni.dev/attachments"`

	// Socket and StateDir are where the daemon is; empty: where it usually is.
	Socket   string `json:"socket"`
	StateDir string `json:"stateDir"`
	// Network is one that the daemon's file declares. Empty: this configuration
	// declares one, by name of Bridge, or Name.
	Network string `json:"network"`
	// Namespace is the routing domain of a network that this configuration declares;
	// empty: one of its own. Uplink is its way out: "host" (or empty) or "none".
	Namespace string `json:"namespace"`
	Uplink    string `json:"uplink"`
	// Table is the routing table of what the container sends. Guard are the guards of
	// its port, as `guard` of `sluice link set`. Offload: frames of up to 64 KB.
	Table   string `json:"table"`
	Guard   string `json:"guard"`
	Offload *bool  `json:"offload"`
	// HoldPorts: published ports are held by sockets of the daemon; false for runtimes that
	// hold them themselves, as podman and nerdctl do. Absent is true.
	HoldPorts *bool `json:"holdPorts"`

	// Of the reference plugin bridge.
	Bridge              string  `json:"bridge"`
	IsGateway           *bool   `json:"isGateway"`
	IsDefaultGateway    *bool   `json:"isDefaultGateway"`
	ForceAddress        bool    `json:"forceAddress"`
	IPMasq              bool    `json:"ipMasq"`
	IPMasqBackend       string  `json:"ipMasqBackend"`
	MTU                 int     `json:"mtu"`
	HairpinMode         bool    `json:"hairpinMode"`
	PromiscMode         bool    `json:"promiscMode"`
	VLAN                int     `json:"vlan"`
	VLANTrunk           []trunk `json:"vlanTrunk"`
	PreserveDefaultVLAN *bool   `json:"preserveDefaultVlan"`
	MACSpoofChk         *bool   `json:"macspoofchk"`
	PortIsolation       bool    `json:"portIsolation"`
	EnableDAD           bool    `json:"enabledad"`
	DisableInterface    bool    `json:"disableContainerInterface"`
	// Of the reference plugin tuning.
	MAC string `json:"mac"`
	// Of the reference plugin bandwidth.
	bandwidth
}

// trunk is one VLAN, or a range of them.
type trunk struct {
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
	ID    *int `json:"id"`
}

// ipamConf is the part about addresses. Other types than sluice have options of their
// own, which are not ours to judge.
type ipamConf struct {
	Type   string      `json:"type"`
	Subnet string      `json:"subnet"`
	Ranges [][]ipRange `json:"ranges"`
	Routes []ipRoute   `json:"routes"`
	// Exclude are addresses, prefixes and ranges (A-B) that are not given out.
	Exclude []string `json:"exclude"`
	ipRange
}

// ipRange is a part of a subnet, as host-local has it.
type ipRange struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

// ipRoute is a route inside the container.
type ipRoute struct {
	Dst      string `json:"dst"`
	GW       string `json:"gw"`
	MTU      int    `json:"mtu"`
	AdvMSS   int    `json:"advmss"`
	Priority int    `json:"priority"`
	Table    *int   `json:"table"`
	Scope    *int   `json:"scope"`
}

// runtimeConf are the capabilities that the runtime filled in.
type runtimeConf struct {
	PortMappings []portMapping     `json:"portMappings"`
	IPs          []string          `json:"ips"`
	MAC          string            `json:"mac"`
	DNS          *types.DNS        `json:"dns"`
	Aliases      aliases           `json:"aliases"`
	IPRanges     [][]ipRange       `json:"ipRanges"`
	Bandwidth    *bandwidth        `json:"bandwidth"`
	Annotations  map[string]string `json:"io.kubernetes.cri.pod-annotations"`
}

type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// aliases are names of the container: a list, or a list for each network.
type aliases struct {
	all   []string
	named map[string][]string
}

// UnmarshalJSON takes both forms.
func (a *aliases) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &a.all) == nil {
		return nil
	}
	return json.Unmarshal(b, &a.named)
}

// of are those in a network.
func (a *aliases) of(network string) []string {
	return append(slices.Clone(a.all), a.named[network]...)
}

// argsConf is what of `args` is meant for plugins.
type argsConf struct {
	CNI struct {
		IPs    []string `json:"ips"`
		MAC    string   `json:"mac"`
		Labels []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"labels"`
	} `json:"cni"`
}

// parseConf reads a configuration. An option that is not known is refused, unless its
// name has a slash, as those have that are meant for others (cni.dev/…).
func parseConf(text []byte) (*conf, error) {
	c := new(conf)
	if err := refuseUnknown(text, "", reflect.TypeFor[conf]()); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, typeFault(err)
	}
	if c.IPAM == nil {
		c.IPAM = &ipamConf{Type: "sluice"}
	}
	if c.embedded() {
		if err := refuseUnknown(part(text, "ipam"), "ipam.", reflect.TypeFor[ipamConf]()); err != nil {
			return nil, err
		}
	}
	return c, c.validate()
}

// parseLenient reads what of a configuration is needed to take away what it made. What
// ADD refused, or would refuse by now, must not keep a runtime from that.
func parseLenient(text []byte) (*conf, error) {
	var few struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
		IPAM       *struct {
			Type string `json:"type"`
		} `json:"ipam"`
		Socket   string `json:"socket"`
		StateDir string `json:"stateDir"`
	}
	if err := json.Unmarshal(text, &few); err != nil {
		return nil, typeFault(err)
	}
	c := &conf{CNIVersion: few.CNIVersion, Name: few.Name, IPAM: new(ipamConf), Socket: few.Socket, StateDir: few.StateDir}
	if few.IPAM != nil {
		c.IPAM.Type = few.IPAM.Type
	}
	return c, nil
}

// embedded says whether the daemon leases the addresses.
func (c *conf) embedded() bool { return c.IPAM.Type == "sluice" || c.IPAM.Type == "" }

// typeFault names the option whose value is of another type.
func typeFault(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return refuse(types.ErrDecodingFailure, t.Field, fmt.Sprintf("a %s where %s is expected", t.Value, typeWord(t.Type)))
	}
	return refuse(types.ErrDecodingFailure, "", err.Error())
}

func typeWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Uint64:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "text"
	default:
		return "an object"
	}
}

// part is the text of one option, null if it is not there.
func part(text []byte, name string) json.RawMessage {
	var all map[string]json.RawMessage
	if json.Unmarshal(text, &all) != nil || all[name] == nil {
		return json.RawMessage("null")
	}
	return all[name]
}

// refuseUnknown names the first option that is none.
func refuseUnknown(text []byte, prefix string, of reflect.Type) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return refuse(types.ErrDecodingFailure, strings.TrimSuffix(prefix, "."), "an object is expected")
	}
	known := optionNames(of)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t, there := known[name]
		if !strings.Contains(name, "/") && !there {
			return refuse(types.ErrInvalidNetworkConfig, prefix+name, "no such option; there are "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if there && ours(t) {
			if err := refuseWithin(all[name], prefix+name, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// ours says whether a value is a list of structures of our own, and not what runtimes
// and others put there.
func ours(t reflect.Type) bool {
	list := t.Kind() == reflect.Slice
	for t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return list && t.Kind() == reflect.Struct
}

// refuseWithin is refuseUnknown for the elements of lists. What is not a list is refused
// when it is read.
func refuseWithin(text []byte, at string, of reflect.Type) error {
	if of.Kind() == reflect.Struct {
		return refuseUnknown(text, at+".", of)
	}
	var all []json.RawMessage
	if json.Unmarshal(text, &all) != nil {
		return nil //nolint:nilerr // see above
	}
	for i, one := range all {
		if err := refuseWithin(one, fmt.Sprintf("%s[%d]", at, i), of.Elem()); err != nil {
			return err
		}
	}
	return nil
}

// optionNames are the options of a structure, with the types of their values.
func optionNames(of reflect.Type) map[string]reflect.Type {
	names := make(map[string]reflect.Type)
	for f := range of.Fields() {
		name := f.Tag.Get("json")
		if f.Anonymous {
			maps.Copy(names, optionNames(f.Type))
		} else if !strings.Contains(name, "/") {
			names[name] = f.Type
		}
	}
	return names
}

// validate refuses what contradicts itself, or is not there in Sluice.
func (c *conf) validate() error {
	for _, check := range []struct {
		wrong         bool
		field, reason string
	}{
		{c.Uplink != "" && c.Uplink != "host" && c.Uplink != "none", "uplink", fmt.Sprintf("%q: want host or none", c.Uplink)},
		{c.IPMasq && c.Uplink == "none", "ipMasq", "there is nothing to masquerade to without an uplink"},
		{c.Network != "" && c.Bridge != "", "bridge", "network names one that is declared already; leave one of the two out"},
		{c.Network != "" && c.IPMasq, "ipMasq", "the network is declared by the daemon's file, and so is its uplink"},
		{c.Network != "" && c.Uplink+c.Namespace != "", "uplink", "the network is declared by the daemon's file, and so are uplink and namespace"},
		{c.Network != "" && c.embedded() && c.IPAM.declares(), "ipam", "the network is declared by the daemon's file, and so are its subnets; only routes may stand here"},
		{c.ForceAddress, "forceAddress", "not supported: the gateway's address is the network's"},
		{c.EnableDAD, "enabledad", "not supported: addresses are unique by construction, and nobody waits"},
		{c.DisableInterface, "disableContainerInterface", "not supported"},
		{c.MTU < 0 || c.MTU > 65535, "mtu", "want 0 (the network's) to 65535"},
		{c.IPMasqBackend != "" && c.IPMasqBackend != "nftables", "ipMasqBackend", "want nftables, or nothing"},
	} {
		if check.wrong {
			return refuse(types.ErrInvalidNetworkConfig, check.field, check.reason)
		}
	}
	return cmp.Or(c.validateBandwidth(), c.validateVLAN())
}

// declares says whether there are subnets.
func (i *ipamConf) declares() bool {
	return len(i.Ranges) > 0 || i.Subnet != "" || i.ipRange != (ipRange{})
}

// validateVLAN checks numbers of VLANs.
func (c *conf) validateVLAN() error {
	if c.VLAN < 0 || c.VLAN > 4094 {
		return refuse(types.ErrInvalidNetworkConfig, "vlan", fmt.Sprintf("%d: want 1 to 4094, or 0 for none", c.VLAN))
	}
	for i, t := range c.VLANTrunk {
		low, high, ok := t.bounds()
		if !ok || low < 1 || high > 4094 || low > high {
			return refuse(types.ErrInvalidNetworkConfig, fmt.Sprintf("vlanTrunk[%d]", i), "want id, or minID and maxID, of 1 to 4094")
		}
	}
	return nil
}

// bounds are the first and the last VLAN.
func (t *trunk) bounds() (low, high int, ok bool) {
	switch {
	case t.ID != nil && t.MinID == nil && t.MaxID == nil:
		return *t.ID, *t.ID, true
	case t.ID == nil && t.MinID != nil && t.MaxID != nil:
		return *t.MinID, *t.MaxID, true
	}
	return 0, 0, false
}

// network is the name of the network that the container is to be attached to.
func (c *conf) network() string {
	switch {
	case c.Network != "":
		return c.Network
	case c.Bridge != "":
		return c.Bridge
	}
	return c.Name
}

// wishes are the addresses that runtime, args and environment ask for, in this order;
// a length is allowed and not used.
func (c *conf) wishes(env *environment) (out []netip.Addr, err error) {
	ips, field := c.RuntimeConfig.IPs, "runtimeConfig.ips"
	if len(ips) == 0 {
		ips, field = c.Args.CNI.IPs, "args.cni.ips"
	}
	if len(ips) == 0 {
		ips, field = env.ips, "CNI_ARGS IP"
	}
	for _, text := range ips {
		bare, _, _ := strings.Cut(strings.TrimSpace(text), "/")
		a, err := netip.ParseAddr(bare)
		if err != nil || a.Zone() != "" {
			return nil, refuse(types.ErrInvalidNetworkConfig, field, fmt.Sprintf("%q is not an IP address", text))
		}
		a = a.Unmap()
		if slices.ContainsFunc(out, func(b netip.Addr) bool { return b.Is4() == a.Is4() }) {
			return nil, refuse(types.ErrInvalidNetworkConfig, field, "at most one address of each family")
		}
		out = append(out, a)
	}
	return out, nil
}

// mac is the MAC address that is asked for: by the runtime, args, environment or the file.
func (c *conf) mac(env *environment) string {
	for _, m := range []string{c.RuntimeConfig.MAC, c.Args.CNI.MAC, env.mac} {
		if m != "" {
			return m
		}
	}
	return c.MAC
}

// compact is a text without its spaces, for messages.
func compact(b json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, b) != nil {
		return string(b)
	}
	return out.String()
}
