// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// partial is datagram k of a flow from container i to j, its sum left to offload.
func partial(i, j, k int, payload string) *packet.Frame {
	return pt.Partial(pt.UDP4(pt.Packet{
		SrcMAC: mac(i), DstMAC: mac(j), Src: addr4(i), Dst: addr4(j), ID: uint16(k), Payload: []byte(payload),
	}))
}

// inject queues frames for the still worker, which then finds them in one turn.
func (l *lab) inject(from uint16, frames ...*packet.Frame) {
	for _, f := range frames {
		l.wires[from].Inject(f.Vnet, f.Bytes())
	}
	l.round()
}

// TestDatagramsOfAFlowTravelTogether, once the flow is known: the first of them
// takes the slow path alone.
func TestDatagramsOfAFlowTravelTogether(t *testing.T) {
	l := stillLab(t, blue(2))
	l.inject(1, partial(1, 2, 0, "0000"))
	l.inject(1, partial(1, 2, 1, "aaaa"), partial(1, 2, 2, "bbbb"), partial(1, 2, 3, "cc"), partial(1, 2, 4, "dddd"))
	var got []string
	for f := l.got(2); f != nil; f = l.got(2) {
		if fault := f.View.Parse(f.Bytes()); fault != packet.FaultNone || !f.CheckVnet() || !packet.PartialOK(f) {
			t.Errorf("a kernel would refuse %v %+v", fault, f.Vnet)
		}
		got = append(got, fmt.Sprintf("%d:%s", f.Vnet.GSOSize, f.Bytes()[f.View.L4+packet.UDPLen:]))
	}
	if want := "[0:0000 4:aaaabbbbcc 0:dddd]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if s := l.stats(1); s.RxPackets != 5 {
		t.Errorf("%d packets received, want 5", s.RxPackets)
	}
	if s := l.stats(2); s.TxPackets != 5 {
		t.Errorf("%d packets sent, want 5", s.TxPackets)
	}
}

// TestDatagramsForPortWithoutOffload leave as they came.
func TestDatagramsForPortWithoutOffload(t *testing.T) {
	s := blue(2)
	s.Ports[1].Offload = false
	l := stillLab(t, s)
	l.inject(1, partial(1, 2, 0, "0000"))
	l.inject(1, partial(1, 2, 1, "aaaa"), partial(1, 2, 2, "bbbb"))
	for _, want := range []string{"0000", "aaaa", "bbbb"} {
		pt.Check(t, l.got(2), pt.UDP(), pt.Data(want))
	}
}

// TestTrainToTheGatewayIsTakenApart: the host stack gets every datagram.
func TestTrainToTheGatewayIsTakenApart(t *testing.T) {
	l := stillLab(t, echoing())
	f := pt.GSO(pt.UDP4(pt.Packet{
		SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4(), DstPort: 7, Payload: []byte("aaaabbbbcc"),
	}), 4)
	l.inject(1, f)
	for _, want := range []string{"aaaa", "bbbb", "cc"} {
		var answer *packet.Frame
		eventually(t, want, func() bool { l.round(); answer = l.got(1); return answer != nil })
		pt.Check(t, answer, pt.UDP(), pt.Data(want))
	}
}

// TestTrainNeverJoinsALostFrame: what follows a datagram that was too big has a
// fate of its own, and each loss is counted.
func TestTrainNeverJoinsALostFrame(t *testing.T) {
	s := blue(2)
	s.Ports[1].MTU = 1400
	l := stillLab(t, s)
	datagram := func(n int, df bool) *packet.Frame {
		return pt.Partial(pt.Build(
			pt.EtherHdr{Src: mac(1), Dst: mac(2)}, pt.IPv4Hdr{Src: addr4(1), Dst: addr4(2), DF: df},
			pt.UDPHdr{SrcPort: 1000, DstPort: 2000}, pt.Bytes(n)))
	}
	l.inject(1, datagram(4, true))
	l.got(2)
	l.inject(1, datagram(1450, true), datagram(1450, true), datagram(5, true))
	pt.Check(t, l.got(2), pt.UDP(), pt.Data(pt.Bytes(5)))
	l.silent(2)
	if n := l.drops(1, trace.TooBig); n != 2 {
		t.Errorf("%d frames dropped as too big, want 2", n)
	}
	// What may be fragmented is, and in its order.
	l.inject(1, datagram(1450, false), datagram(1450, false), datagram(5, false))
	for range 2 {
		pt.Check(t, l.got(2), pt.Len(14+1396), pt.IPv4(pt.Flags(packet.ViewFragFirst)))
		pt.Check(t, l.got(2), pt.Len(14+20+1458-1376), pt.IPv4(pt.Flags(packet.ViewFragLater)))
	}
	pt.Check(t, l.got(2), pt.UDP(), pt.Data(pt.Bytes(5)))
	l.silent(2)
}
