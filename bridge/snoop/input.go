// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"net/netip"

	"sluice/packet"
)

// Target is where a multicast frame goes. Zero: it is flooded like any other.
type Target struct {
	Members []uint16 // ports that joined the group; not to be changed
	Routers []uint16 // ports of multicast routers; not to be changed
	Limited bool     // only to these; a port may be in both
	Due     bool     // Poll has something to send that shouldn't wait
}

// Input takes up what the multicast frame f from a port says, and returns where
// it goes. ok is false if it is a message that must not be believed; it is to be
// dropped. It allocates only for a join that is new.
//
// Preconditions: the destination MAC is a group other than broadcast; f.View was
// parsed.
func (t *Table) Input(port, vlan uint16, f *packet.Frame, now uint32) (to Target, ok bool) {
	v := &f.View
	if !v.Is(packet.ViewIP) {
		return Target{}, true
	}
	dst := v.DstAddr(f.Bytes())
	if !dst.IsMulticast() {
		return Target{}, true
	}
	m, ok := parse(f)
	if !ok || m.meaning == data {
		return t.target(dst, vlan, now), ok
	}
	return t.message(port, vlan, &m, now), true
}

// message takes up a message. Reports and leaves go to routers only: a host that
// hears another's report would keep its own to itself.
func (t *Table) message(port, vlan uint16, m *message, now uint32) Target {
	soon := t.take(port, vlan, m, now)
	if m.meaning == query || m.meaning == router {
		return Target{Due: soon}
	}
	fam := t.active(vlan, m.v6)
	if fam == nil {
		return Target{Due: soon}
	}
	return Target{Routers: fam.routerPorts(), Limited: true, Due: soon}
}

// active is the family of a VLAN if a querier is there; else nil.
func (t *Table) active(vlan uint16, v6 bool) *family {
	v := t.vlans[vlan&0xfff].Load()
	if v == nil {
		return nil
	}
	if fam := v.family(v6); fam.active.Load() {
		return fam
	}
	return nil
}

// target is where data for a group goes.
func (t *Table) target(dst netip.Addr, vlan uint16, now uint32) Target {
	fam := t.active(vlan, dst.Is6())
	if fam == nil || unlisted(dst) {
		return Target{}
	}
	if g := t.find(dst, vlan); g != nil {
		return Target{Members: *g.ports.Load(), Routers: fam.routerPorts(), Limited: true}
	}
	if dst.IsLinkLocalMulticast() {
		return Target{}
	}
	if until := t.overflow.Load(); until != 0 && !due(until, now) {
		return Target{}
	}
	return Target{Routers: fam.routerPorts(), Limited: true}
}

// unlisted reports whether a group is one that no host reports: 224.0.0.0/24
// (RFC 4541 §2.1.2), ff02::1 and what does not leave the host (RFC 2710 §5).
func unlisted(a netip.Addr) bool {
	if a.Is4() {
		return a.IsLinkLocalMulticast()
	}
	return a.IsInterfaceLocalMulticast() || a == netip.IPv6LinkLocalAllNodes() || a.As16()[1]&0xf == 0
}
