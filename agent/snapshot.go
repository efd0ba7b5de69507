// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"

	"sluice/api"
	"sluice/bridge/snoop"
	"sluice/config"
	"sluice/iproute"
	"sluice/netstack"
	"sluice/routing"
)

// snapshot is what the dataplane has to forward by: every namespace, its networks
// with their ready attachments, and the one with the identifier also, which is about
// to become ready. Empty: none.
func (s *state) snapshot(also string) *netstack.Snapshot {
	out := &netstack.Snapshot{Generation: s.generation, Shares: s.node.Shares}
	for _, name := range s.spaces() {
		out.Namespaces = append(out.Namespaces, s.namespaceSpec(name, also))
	}
	return out
}

// forwards reports whether an attachment is part of a snapshot.
func (a *attachmentRecord) forwards(also string) bool {
	return a.State == api.StateReady || a.ID == also
}

func (s *state) namespaceSpec(name, also string) netstack.NamespaceSpec {
	rec := s.namespace(name)
	spec := netstack.NamespaceSpec{Name: name, Routing: s.routingSpec(rec, also), Connections: s.connectionsSpec(rec, also), DNS: s.dnsSpec(name), Rules: rec.NFT}
	devices := s.portDevices(name)
	for _, n := range s.in(name) {
		if n.bySocket() {
			spec.Sockets = append(spec.Sockets, socketSpec(n))
			continue
		}
		spec.Networks = append(spec.Networks, s.networkSpec(n, devices, also))
	}
	for _, l := range rec.Links {
		spec.Links = append(spec.Links, s.linkSpec(&l))
	}
	for _, v := range rec.VRFs {
		spec.VRFs = append(spec.VRFs, netstack.VRFSpec{Name: v.Name, Index: v.Index, Table: v.Table})
	}
	s.share(&spec, rec)
	return spec
}

func (s *state) linkSpec(l *linkRecord) netstack.LinkSpec {
	spec := netstack.LinkSpec{
		Name: l.Name, Index: l.Index, Addresses: l.Addresses, MTU: l.MTU, Device: deviceSpec(l.Device, routing.ReverseOff), VRF: l.VRF,
		Egress: l.Queue.spec(),
	}
	if ns := s.namespace(l.PeerNamespace); ns != nil {
		if peer := ns.link(l.Peer); peer != nil {
			spec.Peer = peer.Index
		}
	}
	return spec
}

// deviceSpec is what was said of a device, with the reverse path check that it has
// if nothing was said of that.
func deviceSpec(d iproute.Settings, reverse routing.ReverseMode) netstack.DeviceSpec {
	switch d["rp_filter"] {
	case "off":
		reverse = routing.ReverseOff
	case "strict":
		reverse = routing.ReverseStrict
	case "loose":
		reverse = routing.ReverseLoose
	}
	return netstack.DeviceSpec{
		NoForward: d["forwarding"] == "off", NoRedirects: d["redirects"] == "off",
		ReversePath: reverse, ClampMSS: d.MSS(),
	}
}

func (s *state) networkSpec(n *networkRecord, devices map[string]string, also string) netstack.NetworkSpec {
	spec := netstack.NetworkSpec{
		Name:     n.Name,
		Echo:     n.Echo,
		DNS:      s.answersDNS(n),
		VRF:      n.VRF,
		Egress:   n.Queue.spec(),
		Device:   deviceSpec(n.Device, routing.ReverseStrict),
		Autoconf: s.services(n),
		Learn:    n.learnSpec(),
		Bridge: netstack.BridgeSpec{
			Index: n.Port, MAC: n.MAC, MTU: n.MTU,
			AgeingSeconds: n.AgeingSeconds, MaxEntries: n.FDBMax, MaxPerPort: n.FDBMaxPerPort,
			VLAN: n.VLAN.Bridge(), Snooping: snooping(n.Snooping),
		},
	}
	for i, g := range n.Gateways {
		spec.Addresses = append(spec.Addresses, netip.PrefixFrom(g, n.Subnets[i].Bits()))
	}
	ports := map[string]uint16{n.Name: n.Port}
	for _, a := range s.of(n.Name) {
		if a.forwards(also) {
			ports[a.Name] = a.Port
		}
	}
	limits := s.portLimits(n)
	for _, a := range s.of(n.Name) {
		if a.forwards(also) {
			port := a.portSpec(n, devices[a.ID], ports)
			port.Connections, port.Tenure = limits, a.tenure()
			spec.Ports = append(spec.Ports, port)
		}
	}
	spec.Bridge.Static, spec.Bridge.Groups = s.entries(n, ports)
	if n.Snooping == nil { // the members wait for it
		spec.Bridge.Groups = nil
	}
	return spec
}

func snooping(c *config.Snooping) *snoop.Config {
	if c == nil {
		return nil
	}
	return &snoop.Config{
		Querier: c.Querier, Version4: c.IGMPVersion, Version6: c.MLDVersion, QueryInterval: c.QueryInterval,
		ResponseInterval: c.ResponseInterval, LastMember: c.LastMember, Robustness: c.Robustness,
		MaxGroups: c.MaxGroups, MaxPerPort: c.MaxPerPort,
	}
}

// entries are the static ones of a network's tables: those of its attachments, and
// those that were declared for a port by its name, as far as it is there.
func (s *state) entries(n *networkRecord, ports map[string]uint16) (static []netstack.StationSpec, groups []netstack.GroupSpec) {
	taken := s.macTaken(n.Name)
	gateway := n.Port
	seen := make(map[iproute.Station]bool)
	put := func(e iproute.Station, port uint16) {
		e.Dev = ""
		if port != 0 && port != gateway && !seen[e] && !taken(e.MAC) {
			seen[e] = true
			static = append(static, netstack.StationSpec{MAC: e.MAC, VLAN: e.VLAN, Port: port})
		}
	}
	join := func(g iproute.Group, port uint16) {
		if e := (netstack.GroupSpec{Group: g.Group, VLAN: g.VLAN, Port: port}); port != 0 && !slices.Contains(groups, e) {
			groups = append(groups, e)
		}
	}
	for _, a := range s.of(n.Name) {
		for _, e := range a.Stations {
			put(e, ports[a.Name])
		}
		for _, g := range a.Groups {
			join(g, ports[a.Name])
		}
	}
	for _, e := range n.Stations {
		put(e, ports[e.Dev])
	}
	for _, g := range n.Groups {
		join(g, ports[g.Port])
	}
	return static, groups
}

// settings are those in force: the network's, and over them the attachment's.
func (a *attachmentRecord) settings(n *networkRecord) iproute.Settings {
	return n.Settings.With(a.Settings)
}

// vlan is the port's part in VLAN filtering.
func (a *attachmentRecord) vlan(n *networkRecord) *iproute.VLAN {
	if a.VLAN != nil {
		return a.VLAN
	}
	return n.PortVLAN
}

// portSpec is the port of an attachment; ports are those of its network by name.
func (a *attachmentRecord) portSpec(n *networkRecord, device string, ports map[string]uint16) netstack.PortSpec {
	set := a.settings(n)
	return netstack.PortSpec{
		Index: a.Port, Name: a.Name, Aliases: a.aliases(), Device: device, MAC: a.MAC, MTU: a.MTU, Offload: a.Offload, Addresses: a.addrs(),
		Flags: set.Flags(), VLAN: a.vlan(n).Bridge(), Storm: set.Storm(), Router: set.Router(),
		Guard: set.Guard(), GuardAddrs: append(set.Allowed(), a.selfMade(n)...), ClampMSS: set.MSS(),
		MirrorIn: mirror(a, n, ports, "mirror_in"), MirrorOut: mirror(a, n, ports, "mirror_out"),
		Egress: a.queueing(n, false), Ingress: a.queueing(n, true), Rules: a.rules(n),
	}
}

// selfMade are the addresses that a container may make itself of its MAC (RFC 4862),
// if it configures itself.
func (a *attachmentRecord) selfMade(n *networkRecord) (out []netip.Prefix) {
	if !a.Bare {
		return nil
	}
	for _, s := range n.Subnets {
		if !s.Addr().Is6() || s.Bits() != 64 {
			continue
		}
		b, m := s.Addr().As16(), a.MAC
		copy(b[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(b), 128))
	}
	return out
}

// mirror is the container's port that gets copies; 0 if it isn't there, or is the
// port itself.
func mirror(a *attachmentRecord, n *networkRecord, ports map[string]uint16, word string) uint16 {
	if port := ports[a.settings(n).Mirror(word)]; port != a.Port && port != n.Port {
		return port
	}
	return 0
}

// portsOf returns the container ports of a snapshot, by number.
func portsOf(s *netstack.Snapshot) map[uint16]netstack.PortSpec {
	out := make(map[uint16]netstack.PortSpec)
	if s == nil {
		return out
	}
	for p := range s.Ports() {
		out[p.Index] = *p
	}
	return out
}

// portSet returns the numbers of a snapshot's container ports.
func portSet(s *netstack.Snapshot) map[uint16]bool {
	out := make(map[uint16]bool)
	for port := range portsOf(s) {
		out[port] = true
	}
	return out
}

// without returns a copy of a snapshot that lacks some ports.
func without(s *netstack.Snapshot, ports map[uint16]bool) *netstack.Snapshot {
	out := &netstack.Snapshot{Generation: s.Generation, Shares: s.Shares}
	for _, ns := range s.Namespaces {
		ns.Networks = slices.Clone(ns.Networks)
		for i := range ns.Networks {
			n := &ns.Networks[i]
			n.Ports = slices.DeleteFunc(slices.Clone(n.Ports), func(p netstack.PortSpec) bool { return ports[p.Index] })
		}
		out.Namespaces = append(out.Namespaces, ns)
	}
	return out
}
