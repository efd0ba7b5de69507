// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/log"

	"sluice/bridge"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

func TestBucketGivesItsRate(t *testing.T) {
	c := clock{read: true}
	var b bucket
	taken := 0
	for c.now = 0; c.now <= 10*time.Second; c.now += 7 * time.Microsecond {
		for b.take(3, &c) {
			taken += 3
		}
	}
	if want := 10 * localRate; taken < want-10 || taken > want+localBurst {
		t.Errorf("%d tokens in ten seconds, want %d", taken, want)
	}
	c.now += time.Hour
	taken = 0
	for b.take(1, &c) {
		taken++
	}
	if taken < localBurst || taken > localBurst+2 { // and what was left before
		t.Errorf("%d tokens after an hour, want the burst of %d", taken, localBurst)
	}
}

func TestPriceOfAFrame(t *testing.T) {
	to := pt.Packet{DstMAC: gatewayMAC(), Dst: gateway4(), Payload: pt.Bytes(40)}
	syn := func(flags uint8) *packet.Frame {
		return pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{Flags: flags}))
	}
	for name, tc := range map[string]struct {
		f    *packet.Frame
		want int
	}{
		"64 KB of TCP":          {pt.GSO(segment(1, 2, 64_000), 1448), costSegment},
		"SYN":                   {syn(pt.SYN), costReply},
		"SYN with ECN":          {syn(pt.SYN | pt.ECE | pt.CWR), costReply},
		"SYN and ACK":           {syn(pt.SYN | pt.ACK), costSegment},
		"datagram":              {pt.Frame(pt.UDP4(to)), costDatagram},
		"train of ten":          {pt.GSO(pt.UDP4(to), 4), 10 * costDatagram},
		"ping":                  {pt.Frame(pt.Ping4(to)), costReply},
		"ARP":                   {pt.Frame(pt.ARPRequest(to)), costReply},
		"neighbour, of a guess": {pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ICMPHdr{V6: true, Type: 135}, pt.Bytes(16))), costReply},
	} {
		if got := price(tc.f); got != tc.want {
			t.Errorf("%s costs %d, want %d", name, got, tc.want)
		}
	}
}

// TestPriceAtASocketUplink: datagrams of flows and what begins connections are bounded by
// the work of a turn, and all else that the uplink stack keeps or answers by the ration.
func TestPriceAtASocketUplink(t *testing.T) {
	to := pt.Packet{DstMAC: gatewayMAC(), Dst: pt.IP("192.0.2.2"), Payload: pt.Bytes(40)}
	frame := func(layers ...pt.Layer) *packet.Frame { return pt.Frame(pt.Build(layers...)) }
	uplink, gateway := &port{outside: &outside{}}, &port{}
	for name, tc := range map[string]struct {
		f       *packet.Frame
		out, in int
	}{
		"datagram":       {pt.Frame(pt.UDP4(to)), 0, costDatagram},
		"train of ten":   {pt.GSO(pt.UDP4(to), 4), 0, 10 * costDatagram},
		"first fragment": {frame(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.UDPHdr{}, pt.Bytes(40)), costDatagram, costDatagram},
		"later fragment": {frame(pt.EtherHdr{}, pt.IPv4Hdr{Offset: 48}, pt.UDPHdr{}, pt.Bytes(40)), costDatagram, costDatagram},
		"segment":        {pt.Frame(segment(1, 2, 100)), costSegment, costSegment},
		"SYN":            {frame(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{Flags: pt.SYN}), costSegment, costReply},
		"SYN, in pieces": {frame(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.TCPHdr{Flags: pt.SYN}), costReply, costReply},
		"ping":           {pt.Frame(pt.Ping4(to)), costReply, costReply},
	} {
		if out, in := priceAt(uplink, tc.f), priceAt(gateway, tc.f); out != tc.out || in != tc.in {
			t.Errorf("%s costs %d at an uplink and %d at a gateway, want %d and %d", name, out, in, tc.out, tc.in)
		}
		if begins := name == "SYN"; (work(tc.f, uplink)-work(tc.f, gateway) == dialWork) != begins {
			t.Errorf("%s is %d of work at an uplink, and %d at a gateway", name, work(tc.f, uplink), work(tc.f, gateway))
		}
	}
}

// TestFloodToTheGatewayIsAtItsOwnExpense: what one container sends beyond its
// ration is dropped and counted at its port, and the others get every answer.
func TestFloodToTheGatewayIsAtItsOwnExpense(t *testing.T) {
	l := stillLab(t, blue(3))
	ping := func(i int) []byte {
		return pt.Ping4(pt.Packet{SrcMAC: mac(i), DstMAC: gatewayMAC(), Src: addr4(i), Dst: gateway4()})
	}
	w := l.n.workers[0]
	answered := map[uint16]int{}
	const rounds = 300
	for range rounds {
		for range budget {
			l.wires[1].Inject(packet.Vnet{}, ping(1))
		}
		l.wires[2].Inject(packet.Vnet{}, ping(2))
		w.round(w.poll.now())
		for _, i := range []uint16{1, 2} {
			for l.got(i) != nil {
				answered[i]++
			}
		}
	}
	l.round()
	for l.got(2) != nil {
		answered[2]++
	}
	if answered[2] != rounds {
		t.Errorf("%d of %d pings answered beside a flood", answered[2], rounds)
	}
	if d := l.stats(hostPort).Drops; len(d) != 0 {
		t.Errorf("the local port dropped %v", d)
	}
	if lost := l.drops(1, trace.LocalRate); answered[1] < localBurst/costReply || uint64(answered[1])+lost > rounds*budget {
		t.Errorf("the flood got %d answers, and lost %d frames", answered[1], lost)
	}
	if l.drops(2, trace.LocalRate) != 0 {
		t.Error("a container that does not flood lost frames")
	}
}

// TestRingKeepsRoomForConnections: replies that can be had at will fill their own
// part of the ring, and the same holds for datagrams and resets.
func TestRingKeepsRoomForConnections(t *testing.T) {
	l := stillLab(t, blue(1))
	link := l.n.Namespace("blue").host.links[0]
	f := pt.Frame(pt.Ping4(pt.Packet{SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4()}))
	reset := pt.Frame(pt.TCP4(pt.Packet{SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4(), DstPort: 99}))
	for range 2 * ringSize {
		link.deliver(f, bridge.Tag{})
		link.deliver(reset, bridge.Tag{})
	}
	c, err := l.n.Namespace("blue").DialContext(t.Context(), "udp", "10.44.0.11:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 * ringSize {
		_, _ = c.Write([]byte("x"))
	}
	link.mu.Lock()
	got := link.kinds
	link.mu.Unlock()
	if want := [numKinds]int{0, kindDatagram.room(), kindReply.room(), kindReset.room()}; got != want {
		t.Errorf("the ring has %v, want %v", got, want)
	}
	if sum := kindTCP.room() + kindDatagram.room() + kindReply.room() + kindReset.room() + kindFrame.room(); sum != ringSize {
		t.Errorf("rooms of %d in a ring of %d", sum, ringSize)
	}
	l.round()
	if l.n.Namespace("blue").host.links[0].queued() != 0 {
		t.Error("the ring was not emptied")
	}
}

// TestShutLinkCountsNothing: gVisor may still send when its namespace is gone.
func TestShutLinkCountsNothing(t *testing.T) {
	l := stillLab(t, blue(1))
	c, err := l.n.Namespace("blue").DialContext(t.Context(), "udp", "10.44.0.11:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.n.Namespace("blue").host.links[0].shut()
	_, _ = c.Write([]byte("too late"))
	if got := l.stats(hostPort).Drops; len(got) != 0 {
		t.Errorf("counted %v", got)
	}
}

func TestQuietStackWritesNothing(t *testing.T) {
	before := log.Log().Emitter
	defer log.SetTarget(before)
	QuietStack()
	if e, ok := log.Log().Emitter.(*log.MultiEmitter); !ok || len(*e) != 0 {
		t.Errorf("gVisor's log goes to %#v", log.Log().Emitter)
	}
}
