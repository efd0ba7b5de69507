// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// probe is a SYN of alice's from a port.
func probe(port uint16) []byte {
	p := alice.to(bob)
	p.SrcPort, p.Flags, p.Payload = port, pt.SYN, nil
	return pt.TCP4(p)
}

// TestScannerDoesNotDelayItsNeighbour: who begins connections has a slice of its frames
// carried, and then others have their turn; in the long run as much work as they.
func TestScannerDoesNotDelayItsNeighbour(t *testing.T) {
	l := stillSites(t, translating(2))
	w := l.n.workers[0]
	neighbour := party{1, 2}
	for i := range uint16(4 * slice) {
		l.wires[alice.port()].Inject(packet.Vnet{}, probe(3000+i))
	}
	for round := range 4 {
		l.wires[neighbour.port()].Inject(packet.Vnet{}, pt.UDP4(neighbour.to(bob)))
		w.round(w.poll.now())
		if scanned, other := l.stats(alice.port()).RxPackets, l.stats(neighbour.port()).RxPackets; scanned != uint64(slice*(round+1)) || other != uint64(round+1) {
			t.Fatalf("round %d: %d frames of the scanner and %d of its neighbour were taken, want %d and %d", round, scanned, other, slice*(round+1), round+1)
		}
	}
	for range 4 * slice { // of a flow that is known now
		l.wires[alice.port()].Inject(packet.Vnet{}, probe(3000+4*slice-1))
	}
	before := l.stats(alice.port())
	w.round(w.poll.now())
	if got := l.stats(alice.port()); got.RxPackets-before.RxPackets != budget || got.RxTurns-before.RxTurns != 1 {
		t.Errorf("%d frames of known flows in a turn, want %d", got.RxPackets-before.RxPackets, budget)
	}
}

// TestWorkOfAFrame: what is counted for one, by what is done for it.
func TestWorkOfAFrame(t *testing.T) {
	s := scanned(1)
	l := stillSites(t, s)
	l.converse(100)
	w := l.n.workers[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	x := &w.turn
	for _, tc := range []struct {
		name string
		from party
		want int
	}{
		{"finds its port's quota met", alice, missWork + routeWork + beginWork},
		{"is refused", alice, missWork + routeWork},
		{"is refused again", alice, missWork + routeWork},
		{"begins a connection", party{1, 2}, missWork + routeWork + beginWork + 1},
		{"is of a known one", party{1, 2}, 1},
	} {
		p := tc.from.to(bob)
		p.Flags, p.Payload = pt.SYN, nil
		x.begin(x.view.port(tc.from.port()), []packet.Frame{*pt.Frame(pt.TCP4(p))})
		x.judge(x.view.port(tc.from.port()), 0)
		if x.tally.work != tc.want {
			t.Errorf("a frame that %s is work for %d, want %d", tc.name, x.tally.work, tc.want)
		}
		x.end(x.view.port(tc.from.port()))
	}
}

// TestPortThatHasItsQuotaIsRefused at once and without garbage, until it has less; its
// connections go on.
func TestPortThatHasItsQuotaIsRefused(t *testing.T) {
	l := stillSites(t, scanned(2))
	l.converse(100)
	l.converse(101)
	for i := range uint16(5) {
		l.send(alice.port(), probe(3000+i))
	}
	if got := l.drops(alice.port(), trace.CTQuota); got != 5 {
		t.Errorf("%d probes were dropped for the quota, want 5", got)
	}
	l.silent(bob.port())
	data := alice.to(bob)
	data.SrcPort, data.Flags, data.Seq, data.Ack = 100, pt.ACK|pt.PSH, 101, 501
	l.send(alice.port(), pt.TCP4(data))
	l.arrived(bob, pt.IPv4(), pt.TCP(pt.SrcPort(100)))
	w := l.n.workers[0]
	w.mu.Lock()
	x, n := &w.turn, uint16(0)
	frames := []packet.Frame{*pt.Frame(probe(5000))}
	raw := probe(5000)
	if allocs := testing.AllocsPerRun(100, func() {
		n++
		frames[0].Reset(packet.Headroom, len(raw))
		copy(frames[0].Bytes(), raw)
		frames[0].Bytes()[36] = byte(n) // its destination port; nobody looks at the sum
		frames[0].Vnet.Flags = packet.FlagDataValid
		x.begin(x.view.port(alice.port()), frames)
		x.judge(x.view.port(alice.port()), 0)
		x.end(x.view.port(alice.port()))
	}); allocs != 0 {
		t.Errorf("%v allocations for a probe that is refused", allocs)
	}
	w.mu.Unlock()
	c := l.n.Connections()
	for _, port := range []uint16{100, 101} { // reset, and over
		rst := alice.to(bob)
		rst.SrcPort, rst.Flags, rst.Seq = port, pt.RST, 101
		if port == 100 {
			rst.Seq += uint32(len(data.Payload))
		}
		l.send(alice.port(), pt.TCP4(rst))
		l.arrived(bob, pt.IPv4(), pt.TCP(pt.TCPFlags(pt.RST)))
	}
	c.Table().Expire(c.Now())
	l.send(alice.port(), probe(4000))
	l.arrived(bob, pt.IPv4(), pt.TCP(pt.SrcPort(4000)))
}

// TestRulesetIsAskedBeforeTheQuota: it may have an answer for what begins nothing.
func TestRulesetIsAskedBeforeTheQuota(t *testing.T) {
	s := ruledSites(`table inet no {
	chain forward {
		type filter hook forward priority filter; policy accept;
		tcp dport 2001 reject with tcp reset
	}
}
`)
	s.Networks[0].Ports[0].Connections = scanned(1).Networks[0].Ports[0].Connections
	l := stillSites(t, s)
	l.converse(100)
	for range 2 { // the second one as the first, though it is known by then
		l.send(alice.port(), probe(3000))
		p := alice.to(bob)
		p.SrcPort, p.DstPort, p.Flags, p.Payload = 3001, 2001, pt.SYN, nil
		l.send(alice.port(), pt.TCP4(p))
		l.arrived(alice, pt.IPv4(pt.Src(bob.addr4())), pt.TCP(pt.TCPFlags(pt.RST|pt.ACK)))
	}
	if got := l.drops(alice.port(), trace.CTQuota); got != 2 {
		t.Errorf("%d probes were dropped for the quota, want 2", got)
	}
}
