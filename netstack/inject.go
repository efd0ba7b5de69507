// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/binary"
	"slices"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"sluice/bridge"
	"sluice/packet"
	"sluice/trace"
)

// headerView is the size of the first view of a packet for the stack: Ethernet,
// IP and TCP headers with options. gVisor pulls headers up, and would otherwise
// copy a shared chunk of 64 KB for it. The rest of the longest frame fits into
// the largest chunk that gVisor pools.
const headerView = 128

// wants reports whether the host stack has a use for a frame: ARP and IP that
// come, when this is done to their tag, without a VLAN. A tag with VID 0 carries
// only a priority (802.1Q §9.6).
func wants(v *packet.View, tag bridge.Tag) bool {
	if !v.Is(packet.ViewARP | packet.ViewIP) {
		return false
	}
	left := v.TCI[:v.Tags]
	switch {
	case tag.Op == bridge.TagPop && len(left) > 0:
		left = left[1:]
	case tag.Op != bridge.TagKeep:
		return false
	}
	return len(left) == 0 || len(left) == 1 && left[0]&0xfff == 0
}

// deliver copies a frame into the host stack. ARP, ICMP, ND and datagrams are
// handled, and answered, before it returns; a TCP segment is queued for a
// goroutine of its connection. It gives trace.None or why the frame was dropped; it may complete the
// frame's checksum in place.
//
// The packet goes to the network endpoint directly, which is all that
// DeliverNetworkPacket of the NIC would do, except that this one overwrites
// RXChecksumValidated with a capability of the whole NIC. Here each packet
// carries its own: a partial or verified sum is vouched for, a fragment is not,
// and the stack sums it once it is whole.
//
// A tag that is to be taken off, and any other, goes with the link header, which
// the stack does not look at.
//
// Preconditions: the frame passed inspect; no lock of the stack is held, so it
// is not called from within WritePackets.
func (l *hostLink) deliver(f *packet.Frame, tag bridge.Tag) trace.Reason {
	ep := l.entrance(&f.View, tag)
	if ep == nil || l.asksEverybody(f) {
		return trace.LocalProtocol
	}
	summed, ok := vouch(f)
	switch {
	case !ok:
		return trace.LocalChecksum
	case l.proxy != nil: // it has bounds of its own
	case opens(f) && !l.host.census.admit(f):
		return trace.LocalQuota
	case l.host.inboxes.full(f):
		return trace.LocalSocket
	}
	pkt := packetOf(f)
	pkt.PktType = l.packetType(f.DstMAC())
	pkt.RXChecksumValidated = summed
	if l.proxy != nil {
		l.enter(ep, pkt, f)
	} else {
		ep.HandlePacket(pkt)
	}
	pkt.DecRef()
	return trace.None
}

// trainOf is the length of the datagrams that a frame is a train of; 0: it is none.
func trainOf(f *packet.Frame) uint16 {
	if f.Vnet.GSOType == packet.GSOUDPL4 {
		return f.Vnet.GSOSize
	}
	return 0
}

// asksEverybody reports an echo request to a broadcast address, which gVisor would
// answer and a host had better not (icmp_echo_ignore_broadcasts; RFC 1122
// §3.2.2.6 leaves it open).
func (l *hostLink) asksEverybody(f *packet.Frame) bool {
	v := &f.View
	if v.Proto != packet.ProtoICMP || !v.Is(packet.ViewHasL4) || f.Bytes()[v.L4] != 8 {
		return false
	}
	dst := v.DstAddr(f.Bytes())
	return dst.IsMulticast() || slices.Contains(*l.broadcasts.Load(), tcpip.AddrFromSlice(dst.AsSlice()))
}

// hand delivers a frame from a port to the host stack behind local port p, and
// counts what became of it: what the sender may not is counted at its port.
func (l *hostLink) hand(from, p *port, f *packet.Frame, tag bridge.Tag, sum *tally) {
	switch reason := l.deliver(f, tag); reason {
	case trace.None:
		sum.frame(f)
	case trace.LocalQuota:
		drop(from, reason, 1)
	default:
		drop(p, reason, 1)
	}
}

// entrance returns the stack's endpoint for a frame, nil if it has none.
func (l *hostLink) entrance(v *packet.View, tag bridge.Tag) stack.NetworkEndpoint {
	switch {
	case !wants(v, tag):
		return nil
	case v.Is(packet.ViewIPv4):
		return l.ipv4
	case v.Is(packet.ViewIPv6):
		return l.ipv6
	}
	return l.arp
}

// vouch reports whether the frame's checksums may be believed by the stack, and
// false if one is wrong. A partial sum is one that the sender left to the
// hardware: there is none on a veth, and nothing to verify. gVisor believes no
// sum of ICMP, so that one is completed.
func vouch(f *packet.Frame) (summed, ok bool) {
	v := &f.View
	if !packet.VerifyL3(f.Bytes(), v) {
		return false, false
	}
	if f.Vnet.NeedsCsum() {
		if int(f.Vnet.CsumStart) == v.L4 && (v.Proto == packet.ProtoTCP || v.Proto == packet.ProtoUDP) {
			return true, true
		}
		packet.CompleteChecksum(f)
	}
	if !v.Is(packet.ViewHasL4) || v.Is(packet.ViewFrag|packet.ViewRouted) {
		return false, true
	}
	ok = packet.VerifyL4(f.Bytes(), v)
	return ok, ok
}

// packetOf copies a frame, up to the end of its packet, into a packet of the
// stack, whose link header is consumed.
func packetOf(f *packet.Frame) *stack.PacketBuffer {
	b := f.Bytes()[:f.View.End]
	n := min(len(b), headerView)
	data := buffer.MakeWithView(buffer.NewViewWithData(b[:n]))
	if n < len(b) {
		_ = data.Append(buffer.NewViewWithData(b[n:]))
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: data})
	pkt.LinkHeader().Consume(f.View.L3)
	return pkt
}

func (l *hostLink) packetType(dst packet.MAC) tcpip.PacketType {
	switch {
	case dst.IsBroadcast():
		return tcpip.PacketBroadcast
	case dst.IsMulticast():
		return tcpip.PacketMulticast
	}
	return tcpip.PacketHost
}

// hostTurns gives a turn to each host link that has packets now. A link that has
// more afterwards waits for the next round.
func (t *turn) hostTurns() {
	t.out.handed = 0
	for range t.mail.waiting.Load() {
		if l := t.mail.take(); l != nil {
			t.hostTurn(l)
		}
	}
}

// hostTurn carries into the bridge all that a host stack has queued so far, or as
// much as a turn's work allows: less than was put in meanwhile would fill the
// ring.
func (t *turn) hostTurn(l *hostLink) {
	t.queries(l)
	spent := 0
	for left := l.queued(); left > 0 && spent < maxWork; left -= hostSlice {
		t.hostFrames(l, min(left, hostSlice))
		spent += t.tally.work
	}
	l.rest()
}

// hostFrames carries up to n packets of a host stack into the bridge, as frames
// that come from its local port.
func (t *turn) hostFrames(l *hostLink, n int) {
	var taken [hostSlice]waiting
	n = l.take(taken[:n])
	frames := t.host.Frames[:n]
	for i := range frames {
		taken[i].fill(&frames[i])
		taken[i].release()
	}
	if l.proxy != nil {
		n = joinEnds(taken[:n], frames)
		frames = frames[:n]
	}
	p := t.view.port(l.index)
	if p == nil || p.link != l {
		l.counters.Drop(trace.PortRemoved, uint64(n))
		return
	}
	if n > 0 {
		t.begin(p, frames)
		for i := range frames {
			t.dispatch(p, &taken[i], i)
		}
		t.end(p)
	}
}

// dispatch takes frame i, which is what waited in a ring, to where it goes.
func (t *turn) dispatch(p *port, w *waiting, i int) {
	switch w.to {
	case toPort:
		t.direct(p, w, i)
	case toStack:
		t.reflect(p, i)
	case toRouter:
		t.resume(p, w, i)
	case toHooks:
		t.say(p, w, i)
	default:
		switch {
		case w.kind == kindFrame && p.queues[egress] != nil:
			t.detain(p, i)
		case w.kind == kindFrame && p.bridge == nil:
			t.release(p, i)
		default:
			t.judge(p, i)
		}
	}
}

// release lets frame i, which the router had kept, over a link.
func (t *turn) release(p *port, i int) {
	f := &t.frames[i]
	f.InPort = p.index
	if reason := inspect(f); reason != trace.None {
		drop(p, reason, 1)
		return
	}
	t.framing.begin(t)
	t.over(&crossing{in: p, ration: &p.link.released}, p, i)
}

// direct sends frame i to one port, past the bridge.
func (t *turn) direct(p *port, w *waiting, i int) {
	f := &t.frames[i]
	f.InPort = p.index
	if reason := inspect(f); reason != trace.None {
		drop(p, reason, 1)
		return
	}
	t.tally.frame(f)
	out, tag := t.view.port(w.port), w.tag
	if reason := t.emits(p, out, &tag, f); reason != trace.None {
		drop(p, reason, 1)
		return
	}
	t.sendAs(p, out, tag, i)
}

// reflect gives frame i back to the host stack behind p: it is about what that
// has sent.
func (t *turn) reflect(p *port, i int) {
	f := &t.frames[i]
	reason := inspect(f)
	if reason == trace.None {
		plainUnreachable(f)
		reason = p.link.deliver(f, bridge.Tag{})
	}
	if reason != trace.None {
		drop(p, reason, 1)
	}
}

// plainUnreachable makes of every ICMPv6 error that says that a destination is not
// to be reached, but for that of a port, the one kind that gVisor listens to: that
// there is no route.
func plainUnreachable(f *packet.Frame) {
	v := &f.View
	if v.Proto != packet.ProtoICMPv6 || !v.Is(packet.ViewHasL4) || v.SrcPort>>8 != packet.ICMP6Unreach {
		return
	}
	if code := v.SrcPort & 0xff; code != packet.ICMP6NoRoute && code != packet.ICMP6PortUnreach {
		b := f.Bytes()[v.L4:]
		b[1] = packet.ICMP6NoRoute
		sum := uint32(binary.BigEndian.Uint16(b[2:])) + uint32(code)
		binary.BigEndian.PutUint16(b[2:], uint16(sum+sum>>16)) // RFC 1624
	}
}

// fill makes a frame of what waited.
func (w *waiting) fill(f *packet.Frame) {
	if w.pkt != nil {
		fill(f, w.pkt)
		return
	}
	f.Reset(packet.Headroom, len(w.frame))
	copy(f.Bytes(), w.frame)
	f.Vnet, f.Label = w.vnet, w.label
}

// fill makes a frame of a packet that the stack sends; an empty one, which
// inspect refuses, of a packet that is longer than any frame.
func fill(f *packet.Frame, pkt *stack.PacketBuffer) {
	n := pkt.Size()
	if n > packet.MaxFrame {
		f.Reset(packet.Headroom, 0)
		return
	}
	f.Reset(packet.Headroom, n)
	b := f.Bytes()
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		s := v.AsSlice()
		k := min(skip, len(s))
		skip -= k
		b = b[copy(b, s[k:]):]
	}
	f.Vnet = vnetOf(pkt)
}

// vnetOf translates gVisor's segmentation metadata. A packet of one segment has
// no type: the kernel refuses a segment size that is not less than the payload.
func vnetOf(pkt *stack.PacketBuffer) (v packet.Vnet) {
	g := &pkt.GSOOptions
	if g.Type == stack.GSONone || !g.NeedsCsum {
		return v
	}
	v.Flags = packet.FlagNeedsCsum
	v.CsumStart = packet.EthernetLen + g.L3HdrLen
	v.CsumOffset = g.CsumOffset
	if pkt.Data().Size() <= int(g.MSS) {
		return v
	}
	v.GSOSize = g.MSS
	v.HdrLen = uint16(pkt.HeaderSize())
	v.GSOType = packet.GSOTCP4
	if g.Type == stack.GSOTCPv6 {
		v.GSOType = packet.GSOTCP6
	}
	return v
}

// heard reports whether a frame may teach the router about neighbours: ARP, or
// neighbour discovery.
func heard(v *packet.View) bool {
	const first, last = 133, 137 // RFC 4861 §4: router solicitation to redirect
	if v.Is(packet.ViewARP) {
		return true
	}
	kind := v.SrcPort >> 8
	return v.Proto == packet.ProtoICMPv6 && v.Is(packet.ViewHasL4) && kind >= first && kind <= last
}
