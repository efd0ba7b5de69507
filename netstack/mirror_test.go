// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"testing"

	"sluice/bridge"
	"sluice/bridge/guard"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// watched is a network of four containers in which 4 watches what comes from 1,
// and what goes to 2.
func watched() NetworkSpec {
	s := blue(4)
	s.Ports[0].MirrorIn, s.Ports[1].MirrorOut = 4, 4
	return s
}

func TestMirror(t *testing.T) {
	l := stillLab(t, watched())
	for n := range 3 { // a miss, then hits
		there, back := datagram(1, 3, "from 1"), datagram(3, 2, "to 2")
		l.send(1, there)
		l.same(3, there)
		l.same(4, there)
		l.send(3, back)
		l.same(2, back)
		l.same(4, back)
		l.send(2, datagram(2, 3, "from 2 to 3: nobody's business"))
		pt.Check(t, l.got(3), pt.IPv4())
		both := datagram(1, 2, "both")
		l.send(1, both)
		l.same(2, both)
		pt.Check(t, l.got(4), pt.Data("both"))
		pt.Check(t, l.got(4), pt.Data("both"))
		l.silent(1, 2, 3, 4)
		if got := l.stats(1); int(got.FlowHits) != 2*n {
			t.Errorf("%d hits, want %d", got.FlowHits, 2*n)
		}
	}
	all := pt.UDP4(pt.Packet{SrcMAC: mac(3), DstMAC: packet.Broadcast()})
	l.send(3, all)
	l.same(1, all)
	l.same(2, all)
	for range 2 { // its own, and the copy of what went to 2
		pt.Check(t, l.got(4), pt.EtherDst(packet.Broadcast()))
	}
	l.silent(1, 2, 3, 4)
}

// Whoever watches a port sees what is dropped on the way, too.
func TestMirrorOfWhatIsDropped(t *testing.T) {
	s := watched()
	s.Ports[0].Guard, s.Ports[0].Flags = guard.MAC, bridge.Isolated
	s.Ports[1].Flags = bridge.Isolated
	l := stillLab(t, s)
	for range 2 {
		l.send(1, datagram(3, 2, "forged"))
		pt.Check(t, l.got(4), pt.Data("forged"))
		l.send(1, datagram(1, 2, "isolated"))
		pt.Check(t, l.got(4), pt.Data("isolated"))
		l.silent(1, 2, 3, 4)
	}
	if got := l.stats(1); got.Drops["guard_mac"] != 2 || got.Drops["isolated"] != 2 || got.FlowHits != 1 {
		t.Errorf("%+v", got)
	}
}

// The copy has the tag that the frame left with, or came with.
func TestMirrorOfTags(t *testing.T) {
	s := vlans()
	s.Ports[1].MirrorOut, s.Ports[0].MirrorIn = 4, 4
	l := stillLab(t, s)
	f := pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: packet.Broadcast()})
	l.send(1, f)
	l.same(3, f)
	l.same(2, retagged(f, push(packet.EtherTypeVLAN, 10)))
	if got := l.got(4); got == nil || !bytes.Equal(got.Bytes(), f) {
		t.Errorf("as it came: %s", described(got))
	}
	l.same(4, retagged(f, push(packet.EtherTypeVLAN, 10)))

	// To the host stack the tag is taken off in the buffer: after the copy has left.
	s.Ports[1].MirrorOut, s.Ports[1].MirrorIn = 0, 4
	l = stillLab(t, s)
	ping := pt.Ping4(pt.Packet{SrcMAC: mac(2), DstMAC: gatewayMAC(), Src: addr4(2), Dst: gateway4(), Tags: tag(10)})
	for range 2 {
		l.inject(2, pt.Frame(ping), pt.Frame(ping))
		for range 2 {
			if got := l.got(4); got == nil || !bytes.Equal(got.Bytes(), ping) {
				t.Errorf("as it came: %s", described(got))
			}
		}
		l.silent(4)
	}
	if got := l.stats(hostPort); got.TxPackets != 4 {
		t.Errorf("the host stack got %d frames, want 4", got.TxPackets)
	}
}

// Trains and offload frames are copied as a whole; a watcher without offload gets
// them cut, and one with a small MTU loses them, at its own expense.
func TestMirrorOfOffloadFrames(t *testing.T) {
	s := watched()
	s.Ports[3].Offload = false
	l := stillLab(t, s)
	l.inject(1, partial(1, 3, 0, "0000"))
	l.inject(1, partial(1, 3, 1, "aaaa"), partial(1, 3, 2, "bbbb"))
	for _, want := range []string{"0000", "aaaa", "bbbb"} {
		pt.Check(t, l.got(4), pt.UDP(), pt.Data(want))
	}
	l.sendFrame(1, pt.GSO(segment(1, 3, 4000), 1000))
	for range 4 {
		pt.Check(t, l.got(4), pt.TCP())
	}
	l.silent(4)

	s.Ports[3].MTU = 100
	l = stillLab(t, s)
	l.send(1, datagram(1, 3, string(pt.Bytes(200))))
	if l.got(3) == nil || l.drops(4, trace.TooBig) != 1 || l.stats(1).Dropped() != 0 {
		t.Errorf("drops %v at the watcher, %v at the port", l.stats(4).Drops, l.stats(1).Drops)
	}
	l.silent(4)
}
