// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/ipam"
	"sluice/iproute"
	"sluice/packet"
	"sluice/routing"
)

// defaultIfName is what a container calls its first interface.
const defaultIfName = "eth0"

// decide turns a request into a complete record, or says what is wrong with it.
// It is pure: it looks at the state, asks nobody and changes nothing but n.Last
// of the network, for the caller to put back.
func decide(st *state, r *api.AttachRequest, ns nsIdentity, id string, cni *cniRecord) (*attachmentRecord, *networkRecord, error) {
	n, err := decideNetwork(st, r.Network)
	if err != nil {
		return nil, nil, err
	}
	rec := &attachmentRecord{
		ID: id, Network: n.Name, NS: ns,
		IfName: r.IfName, MTU: r.MTU, Offload: r.Offload == nil || *r.Offload, State: api.StateCreating, CNI: cni,
	}
	if r.Netns != "" {
		rec.Netns = netnsPlace(r.Netns)
	}
	steps := []func() error{
		func() error { return decideIfName(st, rec) },
		func() error { return decideName(st, r, rec) },
		func() error { return decideAliases(r, rec) },
		func() error { return decideMTU(n, rec) },
		func() error { return decideMAC(st, r, rec) },
		func() error { return decideAddresses(st, r, n, rec) },
		func() error { return decidePort(st, rec) },
		func() error { return decideRouting(st, r, n, rec) },
		func() error { return decideTap(r, rec) },
		func() error { return decideBridge(r, rec) },
		func() error { return decideQueueing(r, rec) },
		func() error { return st.decideShares(r, rec) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	return rec, n, nil
}

func refuse(code api.Code, field, format string, args ...any) error {
	return &api.Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

// decideNetwork returns a copy, whose Last may be written.
func decideNetwork(st *state, name string) (*networkRecord, error) {
	if name == "" {
		all := st.attachable()
		switch len(all) {
		case 0:
			return nil, refuse(api.CodeNotFound, "network", "no network is declared; apply a file first")
		case 1:
			name = all[0]
		default:
			return nil, refuse(api.CodeInvalid, "network", "there are %d networks; say which one", len(all))
		}
	}
	n := st.network(name)
	if n == nil || n.Uplink != nil {
		return nil, refuse(api.CodeNotFound, "network", "no network %q", name)
	}
	c := *n
	c.Last = append([]netip.Addr(nil), n.Last...)
	return &c, nil
}

// decideIfName checks the name as the kernel does, to name the field, and more
// strictly; whether it is taken in the container for another reason is seen when
// the pair is made.
func decideIfName(st *state, rec *attachmentRecord) error {
	if rec.IfName == "" {
		rec.IfName = defaultIfName
	}
	if !isIfName(rec.IfName) {
		return refuse(api.CodeInvalid, "ifname",
			"%q is not an interface name: 1 to 15 printable ASCII characters without space, /, : and %%, not ., .., all or default", rec.IfName)
	}
	twin := st.find(func(a *attachmentRecord) bool { return a.NS == rec.NS && a.IfName == rec.IfName })
	if twin != nil {
		return refuse(api.CodeExists, "ifname", "%s in %s is attached already, as %s", rec.IfName, rec.place(), twin.Name)
	}
	return nil
}

// isIfName says whether a name is one that everything in a container copes with.
// all and default are directories of net.ipv4.conf, which the kernel does not give
// to an interface; other than ASCII it would take, and a terminal would not.
func isIfName(s string) bool {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:%", r) }
	switch s {
	case "", ".", "..", "all", "default":
		return false
	}
	return len(s) <= 15 && !strings.ContainsFunc(s, odd)
}

// decideName takes the wished name or makes one from namespace and interface.
func decideName(st *state, r *api.AttachRequest, rec *attachmentRecord) error {
	taken := func(name string) bool {
		return st.find(func(a *attachmentRecord) bool { return a.Name == name || a.ID == name }) != nil
	}
	rec.Name = r.Name
	if rec.Name == "" {
		rec.Name = plainName(filepath.Base(rec.Netns))
		if r.Tap != nil {
			rec.Name = plainName(rec.IfName)
		}
		if r.Tap == nil && (taken(rec.Name) || rec.IfName != defaultIfName) {
			rec.Name += "-" + plainName(rec.IfName)
		}
	}
	switch {
	case !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`).MatchString(rec.Name):
		return refuse(api.CodeInvalid, "name", "%q: 1 to 128 of A-Z, a-z, 0-9, ., _ and -, beginning with a letter or digit", rec.Name)
	case taken(rec.Name):
		return refuse(api.CodeExists, "name", "the name %q is taken", rec.Name)
	}
	return nil
}

// plainName replaces what a name may not have.
func plainName(s string) string {
	return strings.Trim(regexp.MustCompile(`[^A-Za-z0-9._-]+`).ReplaceAllString(s, "-"), "._-")
}

func decideMTU(n *networkRecord, rec *attachmentRecord) error {
	low := config.MinMTU
	if n.hasIPv6() {
		low = config.MinMTU6
	}
	if rec.MTU == 0 {
		rec.MTU = n.MTU
	}
	if rec.MTU < low || rec.MTU > n.MTU {
		return refuse(api.CodeOutOfRange, "mtu", "%d is out of range; network %s allows %d to %d", rec.MTU, n.Name, low, n.MTU)
	}
	return nil
}

func decideMAC(st *state, r *api.AttachRequest, rec *attachmentRecord) (err error) {
	taken := st.macTaken(rec.Network)
	if r.MAC == "" {
		rec.MAC, err = ipam.MAC(rec.Network, rec.ID, taken)
		return ipamError("mac", err)
	}
	rec.MAC, err = packet.ParseMAC(r.MAC)
	switch {
	case err != nil || rec.MAC.IsMulticast() || rec.MAC.IsZero():
		return refuse(api.CodeInvalid, "mac", "%q is not a unicast MAC address, as 02:00:00:00:00:01", r.MAC)
	case taken(rec.MAC):
		return refuse(api.CodeInUse, "mac", "%s is in use in network %s", rec.MAC, rec.Network)
	}
	return nil
}

// decideAddresses leases one address of each family that the network has.
func decideAddresses(st *state, r *api.AttachRequest, n *networkRecord, rec *attachmentRecord) error {
	wish4, wish6, err := wishes(r, n)
	if err != nil {
		return err
	}
	used := n.taken(st.holder(n.Name), st.now)
	for i, subnet := range n.Subnets {
		wish, field := wish4, "ip"
		if subnet.Addr().Is6() {
			wish, field = wish6, "ip6"
		}
		if !wish.IsValid() && rec.CNI.fixed() {
			continue
		}
		addr := wish
		if wish.IsValid() {
			err = n.pool(i).Check(wish, used)
		} else {
			addr, err = n.pool(i).Next(n.Last[i], used)
			n.Last[i] = addr
		}
		if err != nil {
			return ipamError(field, err)
		}
		rec.Addresses = append(rec.Addresses, netip.PrefixFrom(addr, subnet.Bits()))
	}
	return nil
}

// wishes checks the families of the wished addresses.
func wishes(r *api.AttachRequest, n *networkRecord) (wish4, wish6 netip.Addr, err error) {
	has4 := len(n.Subnets) > 1 || !n.hasIPv6()
	switch {
	case r.IP.IsValid() && !r.IP.Is4():
		err = refuse(api.CodeInvalid, "ip", "%s is not an IPv4 address", r.IP)
	case r.IP6.IsValid() && (!r.IP6.Is6() || r.IP6.Is4In6()):
		err = refuse(api.CodeInvalid, "ip6", "%s is not an IPv6 address", r.IP6)
	case r.IP.IsValid() && !has4:
		err = refuse(api.CodeOutOfRange, "ip", "network %s has no IPv4 subnet", n.Name)
	case r.IP6.IsValid() && !n.hasIPv6():
		err = refuse(api.CodeOutOfRange, "ip6", "network %s has no IPv6 subnet", n.Name)
	}
	return r.IP, r.IP6, err
}

// ipamError gives an error of ipam its code and field. Nil stays nil.
func ipamError(field string, err error) error {
	codes := []struct {
		kind error
		code api.Code
	}{
		{ipam.ErrOutside, api.CodeOutOfRange},
		{ipam.ErrReserved, api.CodeOutOfRange},
		{ipam.ErrGateway, api.CodeInUse},
		{ipam.ErrInUse, api.CodeInUse},
		{ipam.ErrExhausted, api.CodeExhausted},
	}
	for _, c := range codes {
		if errors.Is(err, c.kind) {
			return refuse(c.code, field, "%s", err.Error())
		}
	}
	return err
}

// decideRouting takes the settings of the port, and how the container is configured.
func decideRouting(st *state, r *api.AttachRequest, n *networkRecord, rec *attachmentRecord) (err error) {
	names := st.namespace(n.space()).names()
	if rec.Settings, err = iproute.ParseSettings(iproute.OfPort, r.Set, names); err != nil {
		return refuse(api.CodeInvalid, "set", "%s", err)
	}
	if err := decideMirrors(st, n, rec); err != nil {
		return err
	}
	if r.Table != "" {
		if err := rec.Settings.Check(iproute.OfPort, "table", r.Table, names); err != nil {
			return refuse(api.CodeInvalid, "table", "%s", err)
		}
	}
	rec.Settings = rec.Settings.With(nil)
	return decideConfigure(r, rec)
}

// decideMirrors wants the ports that get copies to be there.
func decideMirrors(st *state, n *networkRecord, rec *attachmentRecord) error {
	for _, word := range []string{"mirror_in", "mirror_out"} {
		to := rec.Settings.Mirror(word)
		if a := st.find(func(a *attachmentRecord) bool { return a.Name == to }); to != "" && (a == nil || a.Network != n.Name) {
			return refuse(api.CodeNotFound, "set", "%s: no port %q in network %s", word, to, n.Name)
		}
	}
	return nil
}

// decideConfigure takes how the container gets addresses and routes.
func decideConfigure(r *api.AttachRequest, rec *attachmentRecord) error {
	rec.RouteTable = r.RouteTable
	switch {
	case r.RouteTable >= uint32(routing.TableDefault) && r.RouteTable <= uint32(routing.TableLocal):
		return refuse(api.CodeInvalid, "route_table", "%d is one of the tables default, main and local", r.RouteTable)
	case r.Configure != "" && r.Configure != "static" && r.Configure != "none":
		return refuse(api.CodeInvalid, "configure", "%q: want static or none", r.Configure)
	case r.Configure == "none" && r.RouteTable != 0:
		return refuse(api.CodeInvalid, "route_table", "the container makes its routes itself")
	}
	rec.Bare = r.Configure == "none"
	return nil
}

// decideBridge takes the VLANs and the static entries of the port.
func decideBridge(r *api.AttachRequest, rec *attachmentRecord) error {
	if n := len(r.VLAN) + len(r.FDB) + len(r.MDB); n > config.MaxEntries {
		return refuse(api.CodeInvalid, "", "%d VLANs and entries; at most %d are supported", n, config.MaxEntries)
	}
	for _, text := range r.VLAN {
		c, err := iproute.ParseMembership(strings.Fields(text))
		if err == nil && c.Dev != "" {
			err = errors.New("the port is known")
		}
		if err == nil {
			rec.VLAN, err = rec.VLAN.With(c)
		}
		if err != nil {
			return refuse(api.CodeInvalid, "vlan", "%q: %s", text, err)
		}
	}
	for _, text := range r.FDB {
		s, err := iproute.ParseStation(strings.Fields(text))
		if err != nil || s.Dev != "" {
			return refuse(api.CodeInvalid, "fdb", "%q: want MAC [vlan V]", text)
		}
		rec.Stations = append(rec.Stations, s)
	}
	for _, text := range r.MDB {
		g, err := iproute.ParseGroup(strings.Fields(text))
		if err != nil || g.Port != "" {
			return refuse(api.CodeInvalid, "mdb", "%q: want GROUP [vid V]", text)
		}
		rec.Groups = append(rec.Groups, g)
	}
	return nil
}

func decidePort(st *state, rec *attachmentRecord) error {
	rec.Port = st.freePort()
	if rec.Port == 0 {
		return errNoPort()
	}
	return nil
}
