// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/qdisc"
	"sluice/trace"
)

// pfifo lets everything go at once.
func pfifo() *qdisc.Spec {
	return &qdisc.Spec{Qdiscs: []qdisc.Qdisc{{Kind: "pfifo", Handle: 1 << 16, Parent: qdisc.Root}}}
}

// queuedAt is what the discipline of a device has sent so far.
func (l *lab) queuedAt(index uint16) qdisc.Stats {
	l.t.Helper()
	reports, _, err := l.n.Queue(index, false)
	if err != nil {
		l.t.Fatal(err)
	}
	return reports[0].Stats
}

// What is routed by a link, and into a network, goes through the queues of both devices:
// of known flows and of new ones, of the host stack's own, and what routers say. All that
// is behind the queue is as without it.
func TestQueuesOfDevices(t *testing.T) {
	spaces := chain(3)
	spaces[0].Links[0].Egress, spaces[2].Networks[0].Egress = pfifo(), pfifo()
	l := stillSites(t, spaces...)
	last := party{3, 1}
	hits := l.hits(alice)
	for n := range 3 {
		l.send(alice.port(), pt.UDP4(alice.to(last)))
		l.arrived(last, pt.IPv4(pt.TTL(61), pt.Src(alice.addr4())), pt.UDP(), pt.Data(pt.Bytes(20)))
		l.sendFrame(alice.port(), big(alice.to(last), 4000, 1000))
		if f := l.got(last.port()); f == nil || f.Vnet.GSOSize != 1000 || f.HopLimit() != 61 {
			t.Errorf("round %d: a super-frame came as %+v", n, f)
		}
		l.send(alice.port(), pt.TCP6(alice.to6(last)))
		l.arrived(last, pt.IPv6(pt.TTL(61)), pt.TCP())
		if got := hits(); n > 0 && got != 3 {
			t.Errorf("round %d: %d hits, want 3", n, got)
		}
	}
	link, network := l.queuedAt(linkIndex(1, 2)), l.queuedAt(gate(3).port())
	if link.Packets != 3*(1+4+1) || network != link {
		t.Errorf("sent by the link %+v, into the network %+v", link, network)
	}
	for k := 1; k < 3; k++ { // counted as ever
		out, in := l.stats(linkIndex(k, k+1)), l.stats(linkIndex(k+1, k))
		if out.TxPackets != 18 || in.RxPackets != 18 || out.RxPackets+in.TxPackets != 0 || in.RxBytes != out.TxBytes {
			t.Errorf("link %d has %+v, the other end %+v", k, out, in)
		}
	}
	// An error comes back past the queues; a ping of the far gateway goes by the link.
	p := alice.to(last)
	p.TTL = 2
	l.send(alice.port(), pt.UDP4(p))
	l.arrived(alice, pt.IPv4(pt.Src(netip.MustParseAddr("10.99.12.2"))), pt.ICMP(pt.ICMPType(11, 0)))
	p = alice.to(last)
	p.Dst = gate(3).addr4()
	l.send(alice.port(), pt.Ping4(p))
	l.arrived(alice, pt.IPv4(pt.Src(gate(3).addr4())), pt.ICMP(pt.ICMPType(0, 0)))
	// And what a router sends of itself into its network: an error about the way back.
	p = last.to(alice)
	p.TTL = 1
	l.send(last.port(), pt.UDP4(p))
	l.arrived(last, pt.IPv4(pt.Src(gate(3).addr4())), pt.ICMP(pt.ICMPType(11, 0)))
	if got := l.queuedAt(linkIndex(1, 2)).Packets - link.Packets; got != 2 {
		t.Errorf("%d more by the link, want 2", got)
	}
	if got := l.queuedAt(gate(3).port()).Packets - network.Packets; got != 1 {
		t.Errorf("%d more into the network, want 1", got)
	}
}

// What rules say chooses the class of a device, and after it that of the port behind it.
func TestQueuesOfDevicesHearTheRules(t *testing.T) {
	s := classing()
	for i := range s.Networks {
		if s.Networks[i].Bridge.Index == gate(2).port() {
			s.Networks[i].Egress = s.Networks[i].Ports[0].Egress
		}
	}
	l := stillSites(t, s)
	guest := party{2, 9}
	for range 2 { // the first ones wait for the neighbour, and then for the queue
		for _, port := range []uint16{2000, 2001, 2002} {
			p := alice.to(guest)
			p.DstPort = port
			l.send(alice.port(), pt.UDP4(p))
		}
		l.send(bob.port(), bob.answer(guest.mac(), guest.addr4()))
	}
	for _, index := range []uint16{bob.port(), gate(2).port()} {
		reports, _, err := l.n.Queue(index, false)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range reports[0].Classes {
			if got := c.Stats.Packets; got != 2 && (i < 2 || got < 2) {
				t.Errorf("port %d: class %v has sent %d packets, want 2", index, c.Handle, got)
			}
		}
	}
}

// A rate holds for a link, whoever sends by it; with one worker and with several, and when
// it is changed and taken away under way nothing is lost.
func TestQueuesOfDevicesHoldTheRate(t *testing.T) {
	const frames, rate = 200, 1_000_000
	for _, workers := range []int{1, 3} {
		for _, what := range []string{"link", "network"} {
			n, err := New(Options{Workers: workers, FlowEntries: 64})
			if err != nil {
				t.Fatal(err)
			}
			l := open(t, n, nil)
			l.snap.Namespaces = chain(2)
			index := linkIndex(1, 2)
			spec := &l.snap.Namespaces[0].Links[0].Egress
			if what == "network" {
				index, spec = gate(2).port(), &l.snap.Namespaces[1].Networks[0].Egress
			}
			*spec = shaped(rate)
			l.apply()
			send := func() time.Time {
				start := time.Now()
				p := alice.to(bob)
				p.Payload = make([]byte, 1000-42)
				for range frames {
					p.ID++
					l.wires[alice.port()].Inject(packet.Vnet{}, pt.UDP4(p))
				}
				return start
			}
			arrive := func() {
				for i := range frames {
					if f := l.await(bob.port(), patience); f == nil || int(binary.BigEndian.Uint16(f.Bytes()[18:])) != i+1 {
						t.Fatalf("%s, %d workers: frame %d did not come, or not in its turn", what, workers, i)
					}
				}
			}
			start := send()
			arrive()
			least := time.Duration(frames*1000-10_000) * time.Second / rate
			if took := time.Since(start); took < least {
				t.Errorf("%s, %d workers: it took %v, want at least %v", what, workers, took, least)
			}
			if st := l.queuedAt(index); st.Bytes != frames*1000 || st.Packets != frames || st.Qlen != 0 || st.Overlimits == 0 {
				t.Errorf("%s, %d workers: statistics %+v", what, workers, st)
			}
			*spec = shaped(10_000) // twenty seconds
			l.apply()
			send()
			time.Sleep(10 * time.Millisecond)
			*spec = shaped(100_000)
			l.apply()
			time.Sleep(10 * time.Millisecond)
			*spec = nil
			l.apply()
			arrive()
			if _, _, err := l.n.Queue(index, false); err == nil {
				t.Errorf("%s: there is still a queue", what)
			}
		}
	}
}

// A device that goes takes what waits with it.
func TestQueueOfADeviceThatGoes(t *testing.T) {
	spaces := chain(2)
	spaces[0].Links[0].Egress = shaped(1)
	l := stillSites(t, spaces...)
	p := alice.to(bob)
	p.Payload = make([]byte, 1000-42)
	for range 20 {
		l.send(alice.port(), pt.UDP4(p))
	}
	if n := l.queuedAt(linkIndex(1, 2)).Qlen; n != 10 {
		t.Errorf("%d packets wait, want 10", n)
	}
	for i := range l.snap.Namespaces {
		l.snap.Namespaces[i].Links = nil
		l.snap.Namespaces[i].Routing.Routes = nil
	}
	l.apply()
	l.round()
	if n := l.drops(linkIndex(1, 2), trace.QdiscRemoved); n != 10 {
		t.Errorf("%d packets were counted as lost, want 10", n)
	}
}

// TestQueuesOfDevicesAllocateNothing for a flow that is known, on either side of a queue.
func TestQueuesOfDevicesAllocateNothing(t *testing.T) {
	for name, frame := range map[string]*packet.Frame{
		"plain": pt.Frame(pt.UDP4(alice.to(bob))),
		"gso":   big(alice.to(bob), 30_000, 1400),
	} {
		t.Run(name, func(t *testing.T) {
			spaces := chain(2)
			spaces[0].Links[0].Egress, spaces[1].Networks[0].Egress = pfifo(), pfifo()
			l := stillSites(t, spaces...)
			far := l.pairs()
			w, msg, buf := l.n.workers[0], frame.Wire(), make([]byte, packet.BufLen)
			turn := func() {
				if _, err := unix.Write(far[alice.port()], msg); err != nil {
					t.Fatal(err)
				}
				w.settle()
				drain(far[bob.port()], buf)
			}
			turn()
			if got := testing.AllocsPerRun(200, turn); got != 0 && !raceEnabled {
				t.Errorf("%v allocations for a turn, want 0", got)
			}
			if n := l.queuedAt(gate(2).port()).Packets; n < 200 {
				t.Errorf("%d packets passed", n)
			}
		})
	}
}
