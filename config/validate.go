// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"sluice/iproute"
)

// validator turns raw values into checked ones. It keeps the first fault and
// goes on, so that the code below reads as the list of rules.
type validator struct {
	file     *ast.File
	err      *Error
	rulesets func(name string) (*Ruleset, error)
}

// fault records the first fault, with the line on which field stands. A field
// that is not in the file is looked for one level up.
func (v *validator) fault(field, format string, args ...any) {
	if v.err != nil {
		return
	}
	v.err = &Error{Field: field, Message: fmt.Sprintf(format, args...)}
	for at := field; at != "" && v.err.Line == 0; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		v.err.Line = v.line(at)
	}
}

func (v *validator) line(field string) int {
	p, err := yaml.PathString("$." + field)
	if err != nil {
		return 0
	}
	n, err := p.FilterFile(v.file)
	if err != nil || n == nil || n.GetToken() == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

func (v *validator) config(raw *rawFile) *Config {
	c := new(Config)
	if raw.Networks == nil {
		v.fault("networks", "missing; an empty list (networks: []) declares that there are none")
		return c
	}
	if n := len(*raw.Networks); n > MaxNetworks {
		v.fault("networks", "%d networks; at most %d are supported", n, MaxNetworks)
		return c
	}
	var scopes map[string]*scope
	c.Node.Shares = v.shares("node.tree", raw.Node.Shares)
	c.Namespaces, scopes = v.namespaces(raw)
	seen := make(map[string]int)
	for i := range *raw.Networks {
		field := fmt.Sprintf("networks[%d]", i)
		n := v.network(field, &(*raw.Networks)[i])
		if s := scopes[n.Namespace]; s != nil {
			n.VRF = s.vrfOf[n.Name]
		}
		if first, dup := seen[n.Name]; dup {
			v.fault(field+".name", "%q is already the name of networks[%d]", n.Name, first)
		}
		seen[n.Name] = i
		v.partOf(field+".ports.tree", n.Namespace, n.Queueing.Shares, c)
		c.Networks = append(c.Networks, n)
	}
	v.uplinks(raw, c, scopes)
	v.owners(c)
	v.disjoint(c)
	return c
}

// owners wants each address of a gateway or link to be of one device of its namespace,
// and of no static neighbour.
func (v *validator) owners(c *Config) {
	type key struct {
		namespace string
		addr      netip.Addr
	}
	own := make(map[key]string)
	claim := func(namespace, field, device string, a netip.Addr) {
		k := key{namespace, a}
		if other := own[k]; other != "" {
			v.fault(field, "%s is the address of %s already", a, other)
		}
		own[k] = device
	}
	for i := range c.Networks {
		n := &c.Networks[i]
		for _, g := range n.Gateways {
			claim(n.Namespace, fmt.Sprintf("networks[%d].gateways", i), n.Name, g)
		}
	}
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		for j := range n.Links {
			for _, p := range n.Links[j].Addresses {
				claim(n.Name, fmt.Sprintf("namespaces[%d].links[%d].addresses", i, j), n.Links[j].Name, p.Addr())
			}
		}
		for j, nb := range n.Neighbours {
			if other := own[key{n.Name, nb.Addr}]; other != "" {
				v.fault(fmt.Sprintf("namespaces[%d].neighbours[%d]", i, j), "%s is the address of %s itself", nb.Addr, other)
			}
		}
	}
}

// disjoint wants the subnets of a namespace's networks not to overlap, but in different
// VRFs: a container in the greater one would take those in the other for its neighbours,
// and reach none of them.
func (v *validator) disjoint(c *Config) {
	for i := range c.Networks {
		n := &c.Networks[i]
		for j := range c.Networks[:i] {
			if o := &c.Networks[j]; o.Namespace == n.Namespace && o.VRF == n.VRF {
				v.overlap(fmt.Sprintf("networks[%d].subnets", i), n, o)
			}
		}
	}
}

func (v *validator) overlap(field string, n, o *Network) {
	for i, p := range n.Subnets {
		for _, q := range o.Subnets {
			if p.Overlaps(q) {
				v.fault(fmt.Sprintf("%s[%d]", field, i), "%s overlaps %s of network %s in namespace %s", p, q, o.Name, n.Namespace)
			}
		}
	}
}

func (v *validator) network(field string, r *rawNetwork) Network {
	n := Network{Name: r.Name, Echo: r.Echo, DNS: r.DNS, Namespace: orElse(r.Namespace, r.Name), Device: iproute.Settings{}}
	v.name(field+".name", r.Name)
	n.Subnets = v.subnets(field+".subnets", r.Subnets)
	n.Gateways = v.gateways(field+".gateways", r.Gateways, n.Subnets)
	n.MTU = v.mtu(field+".mtu", r.MTU, n.Subnets)
	n.Ageing = v.ageing(field+".ageing", r.Ageing)
	n.FDBMax, n.FDBMaxPerPort = v.fdb(field+".fdb", r.FDB)
	v.routed(field, r.Forwarding, r.RPFilter, r.Redirects, r.ClampMSS, n.Device)
	n.Ports, n.PortVLAN = v.ports(field+".ports", &r.Ports)
	n.Routed = v.routedQueueing(field+".qdisc", r.Qdisc)
	n.Queueing, n.PortNFT = v.queueing(field+".ports.qdisc", r.Ports.Qdisc), r.Ports.NFT
	n.Queueing.Shares = v.shares(field+".ports.tree", r.Ports.Shares)
	if n.VLAN = v.vlan(field+".vlan", r.VLAN); n.VLAN.Aware() && n.VLAN.PVID == 0 {
		v.fault(field+".vlan", "needs a pvid, since the gateway knows no tags")
	}
	n.Snooping = v.snooping(field+".snooping", r.Snooping)
	n.Stations = v.stations(field+".fdb.static", r.FDB.Static)
	n.Groups = v.groups(field+".mdb.static", r.MDB.Static)
	if len(n.Groups) > 0 && n.Snooping == nil {
		v.fault(field+".mdb.static", "needs snooping, which is off")
	}
	for i, s := range n.Stations {
		if s.Dev == n.Name {
			v.fault(fmt.Sprintf("%s.fdb.static[%d]", field, i), "the gateway has one address")
		}
	}
	n.Leases = v.leases(field+".leases", r.Leases, n.Subnets)
	n.Services = v.services(field, r, &n)
	return n
}

func (v *validator) name(field, name string) {
	switch {
	case name == "":
		v.fault(field, "missing")
	case name == "lo":
		v.fault(field, "\"lo\" is the name of every namespace's own device")
	case !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`).MatchString(name):
		v.fault(field, "%q: 1 to 32 of a-z, 0-9 and -, not beginning with -", name)
	}
}

func (v *validator) mtu(field string, raw *int, subnets []netip.Prefix) int {
	if raw == nil {
		return DefaultMTU
	}
	low, why := MinMTU, ""
	for _, s := range subnets {
		if s.Addr().Is6() {
			low, why = MinMTU6, " (IPv6)"
		}
	}
	if *raw < low || *raw > MaxMTU {
		v.fault(field, "%d is out of range; expected %d to %d%s", *raw, low, MaxMTU, why)
	}
	return *raw
}

func (v *validator) ageing(field string, raw *string) time.Duration {
	if raw == nil {
		return DefaultAgeing
	}
	d, err := time.ParseDuration(*raw)
	if err != nil {
		v.fault(field, "%q is not a duration, as 300s or 5m", *raw)
		return DefaultAgeing
	}
	if d < MinAgeing || d > MaxAgeing || d%time.Second != 0 {
		v.fault(field, "%s is out of range; expected whole seconds, %s to %s", *raw, MinAgeing, MaxAgeing)
	}
	return d
}

func (v *validator) fdb(field string, raw rawFDB) (entries, perPort int) {
	entries = DefaultFDBMax
	if raw.Max != nil {
		entries = *raw.Max
	}
	if entries < MinFDBMax || entries > MaxFDBMax {
		v.fault(field+".max", "%d is out of range; expected %d to %d", entries, MinFDBMax, MaxFDBMax)
	}
	perPort = min(DefaultFDBMaxPerPort, entries)
	if raw.MaxPerPort != nil {
		perPort = *raw.MaxPerPort
	}
	if perPort < 1 || perPort > entries {
		v.fault(field+".maxPerPort", "%d is out of range; expected 1 to %d, which is fdb.max", perPort, entries)
	}
	return entries, perPort
}
