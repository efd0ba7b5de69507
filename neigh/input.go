// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"

	"sluice/packet"
)

// Input takes up what an ARP message, or one of neighbour discovery, that a device
// heard says of its sender or its target; any other frame says nothing. own tells
// the namespace's own addresses. Who speaks to us gets an entry; of others only
// what is known already is kept up to date. What was waiting for it goes to sink.
//
// Preconditions: f.View was parsed without fault. f.InPort is the container's port.
func (t *Table) Input(dev uint16, f *packet.Frame, own func(netip.Addr) bool, now Tick, sink Sink) {
	h := heard{t: t, f: f, own: own, now: now}
	h.d = t.conf.Load().devices[dev]
	if h.d == nil || !h.forUs() {
		return
	}
	switch {
	case f.View.Is(packet.ViewARP):
		h.arp()
	case f.View.IsND() && h.d.speaks6():
		h.nd()
	}
	h.out.send(sink)
}

// heard is one message on its way into the table.
type heard struct {
	t   *Table
	d   *device
	f   *packet.Frame
	own func(netip.Addr) bool
	now Tick
	out outbox
}

// forUs reports whether the frame is for the device, alone or with others, and not
// one that was flooded in search of somebody else (PACKET_OTHERHOST).
func (h *heard) forUs() bool {
	dst := h.f.DstMAC()
	return dst.IsMulticast() || dst == h.d.MAC
}

// speaks reports whether somebody may be at the address and have the MAC.
func (h *heard) speaks(a netip.Addr, mac packet.MAC) bool {
	return h.d.mayHave(a) && !h.own(a) && h.linkable(mac)
}

// linkable reports whether a neighbour may have the MAC. Not a group, with which
// one packet would become many, and not our own, with which it would come back.
func (h *heard) linkable(mac packet.MAC) bool {
	return !mac.IsMulticast() && !mac.IsZero() && mac != h.d.MAC
}

// arp is for ARP: RFC 826, and arp_process of Linux with its default settings
// (arp_accept 0).
func (h *heard) arp() {
	m, ok := h.f.View.ARP(h.f.Bytes())
	if !ok || m.Op != packet.ARPOpRequest && m.Op != packet.ARPOpReply {
		return
	}
	if m.Target.IsMulticast() || m.Target.IsLoopback() || !h.speaks(m.Sender, m.SenderMAC) {
		return
	}
	n := news{mac: m.SenderMAC, hasMAC: true, state: Stale, override: true}
	switch {
	case m.Op == packet.ARPOpRequest && h.own(m.Target):
		n.create = true
	case m.Op == packet.ARPOpReply && !h.f.DstMAC().IsMulticast():
		n.state, n.locked = Reachable, !gratuitous(m)
	default:
		n.locked = !gratuitous(m)
	}
	h.tell(m.Sender, n)
}

// gratuitous reports whether a message announces its sender to everybody.
func gratuitous(m packet.ARP) bool {
	return m.Sender == m.Target && (m.Op == packet.ARPOpRequest || m.SenderMAC == m.TargetMAC)
}

// tell updates the dynamic entry of an address. Nothing that is heard changes a
// permanent one.
func (h *heard) tell(a netip.Addr, n news) {
	t, k := h.t, keyOf(h.d.Index, a)
	n.port = h.f.InPort
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.conf.Load()
	d := c.devices[k.dev]
	if d == nil || c.static[k] != nil {
		return
	}
	e := t.index.find(k)
	if e == nil && n.create && n.hasMAC {
		e = t.create(k, debt{learned, h.f.InPort}, h.now)
	}
	if e == nil || n.living && e.state() == Failed {
		return
	}
	if n.locked && h.now.since(e.updated) <= lockTime {
		n.override = false
	}
	t.update(d, e, n, h.now, &h.out)
}

// nd is for neighbour discovery: RFC 4861 §7.2.3 and §7.2.5 of neighbours, §6.2.6
// of who solicits routers, §6.3.4 of routers. A redirect says nothing to a router
// (§8.2).
func (h *heard) nd() {
	b, v := h.f.Bytes(), &h.f.View
	m, ok := v.ND(b)
	if !ok || !genuine(b, v) || !h.addressed(v.DstAddr(b)) {
		return
	}
	src := v.SrcAddr(b)
	switch m.Type {
	case packet.NDNeighbourSol:
		if h.own(m.Target) {
			h.source(src, m, news{})
		}
	case packet.NDRouterSolicit:
		h.source(src, m, news{tellsRouter: true})
	case packet.NDRouterAdvert:
		if src.IsLinkLocalUnicast() {
			h.source(src, m, news{tellsRouter: true, router: true})
		}
	case packet.NDNeighbourAdvert:
		h.advert(m, v.DstAddr(b))
	}
}

// genuine reports whether a message is valid (RFC 4861 §6.1, §7.1) and not in a
// fragment (RFC 6980): it came from the link itself, and whole.
func genuine(b []byte, v *packet.View) bool {
	return !v.Is(packet.ViewFrag) && b[v.L3+7] == 255 && v.SrcPort&0xff == 0 && packet.VerifyL4(b, v)
}

// addressed reports whether a message is to a group or to us.
func (h *heard) addressed(dst netip.Addr) bool { return dst.IsMulticast() || h.own(dst) }

// source is for what a message says of its sender in the source link-layer address
// option. Probes for duplicate addresses speak for nobody.
func (h *heard) source(src netip.Addr, m packet.ND, n news) {
	n.mac, n.hasMAC = m.Link, m.LinkOpts&packet.NDSourceLink != 0
	if !h.d.mayHave(src) || h.own(src) || n.hasMAC && !h.linkable(n.mac) {
		return
	}
	n.state, n.override, n.weak, n.create = Stale, true, true, true
	h.tell(src, n)
}

// advert is for a neighbour advertisement, RFC 4861 §7.2.5. One that answers is
// never to a group.
func (h *heard) advert(m packet.ND, dst netip.Addr) {
	n := news{
		mac: m.Link, hasMAC: m.LinkOpts&packet.NDTargetLink != 0, state: Stale,
		override: m.Flags&packet.NAFlagOverride != 0, weak: true,
		tellsRouter: true, router: m.Flags&packet.NAFlagRouter != 0, living: true,
	}
	solicited := m.Flags&packet.NAFlagSolicited != 0
	if solicited {
		n.state = Reachable
	}
	if solicited && dst.IsMulticast() || !h.d.mayHave(m.Target) || h.own(m.Target) || n.hasMAC && !h.linkable(n.mac) {
		return
	}
	h.tell(m.Target, n)
}
