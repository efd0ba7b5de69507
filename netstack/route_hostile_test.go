// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"sluice/neigh"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
	"sluice/trace"
)

// assaults are what a container sends to make the router work: frame n of each.
func assaults() map[string]func(n int) *packet.Frame {
	mallory, gone := party{1, 2}, party{2, 9}
	return map[string]func(n int) *packet.Frame{
		"hosts that are not there": func(n int) *packet.Frame {
			p := mallory.to(gone)
			p.Dst = netip.AddrFrom4([4]byte{10, 44, 2, byte(20 + n%200)})
			return pt.Frame(pt.UDP4(p))
		},
		"hosts of IPv6 that are not there": func(n int) *packet.Frame {
			p := mallory.to6(gone)
			p.Dst = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x44, 3: 2, 8: 1, 14: byte(n >> 8), 15: byte(n)})
			p.Payload = pt.Bytes(1000)
			return pt.Frame(pt.UDP6(p))
		},
		"packets at their end": func(n int) *packet.Frame {
			p := mallory.to(bob)
			p.TTL, p.SrcPort = 1, uint16(n)
			return pt.Frame(pt.UDP4(p))
		},
		"packets to fragment": func(int) *packet.Frame {
			p := mallory.to(bob)
			p.Dst, p.Payload = party{2, 2}.addr4(), pt.Bytes(1400)
			return pt.Frame(pt.UDP4(p))
		},
		"offload to fragment": func(int) *packet.Frame {
			p := mallory.to(bob)
			p.Dst = party{2, 2}.addr4()
			return big(p, 60_000, 1400)
		},
		"packets that are too big": func(int) *packet.Frame {
			p := mallory.to(party{2, 2})
			return pt.Frame(df(p, 1400))
		},
		"packets that are too big on the bridge": func(n int) *packet.Frame {
			p := mallory.to(mallory)
			p.Dst, p.DstMAC = party{1, 3}.addr4(), party{1, 3}.mac()
			return pt.Frame(df(p, 1400))
		},
		"fragments without a first one": func(n int) *packet.Frame {
			return pt.Frame(pt.Build(pt.EtherHdr{Src: mallory.mac(), Dst: gate(1).mac()},
				pt.IPv4Hdr{Src: mallory.addr4(), Dst: pt.IP("10.77.0.1"), ID: uint16(n), Offset: 64, Proto: new(uint8(17))}, pt.Bytes(1000)))
		},
		"flows": func(n int) *packet.Frame {
			p := mallory.to(bob)
			p.SrcPort, p.Dst = uint16(n), party{2, 2}.addr4()
			return pt.Frame(pt.UDP4(p))
		},
	}
}

// besieged is a laboratory in which station {1, 2} may flood.
func besieged(t testing.TB) *lab {
	t.Helper()
	s := sites("lab", site(1, 3), site(2, 2))
	s.Networks[1].Ports[1].MTU, s.Networks[0].Ports[2].MTU = 600, 600
	s.Routing.Routes = []routing.Route{via("10.77.0.0/16", "site2", bob.addr4(), party{2, 2}.addr4())}
	return stillSites(t, s)
}

// TestFloodHarmsNobodyElse: while one container floods, another one's flows pass, and
// it gets errors, fragments and neighbours as if it were alone.
func TestFloodHarmsNobodyElse(t *testing.T) {
	for name, flood := range assaults() {
		t.Run(name, func(t *testing.T) {
			l := besieged(t)
			mallory := party{1, 2}
			for n := range 200 {
				for range 8 {
					f := flood(n)
					l.wires[mallory.port()].Inject(f.Vnet, f.Bytes())
				}
				if n%40 == 39 {
					l.needs(n/40, flood) // in the same round as the flood
				} else {
					l.wires[alice.port()].Inject(packet.Vnet{}, pt.TCP4(alice.to(bob)))
				}
				l.round()
				l.expect(bob, func(f *packet.Frame) bool { return f.View.Proto == packet.ProtoTCP }, n%40 != 39)
				for _, p := range []party{alice, mallory, {1, 3}, {2, 2}} {
					l.expect(p, nil, false)
				}
				if n%100 == 99 {
					l.pass(1)
				}
			}
			if d := l.stats(alice.port()).Drops; len(d) > 1 || len(d) == 1 && d["ttl_exceeded"] != 5 {
				t.Errorf("the other container lost frames: %v", d)
			}
			l.bounded()
		})
	}
}

// expect takes all that a container got, and checks that the wanted was among it.
func (l *lab) expect(at party, wanted func(*packet.Frame) bool, must bool) {
	l.t.Helper()
	found := false
	for f := l.got(at.port()); f != nil; f = l.got(at.port()) {
		found = found || wanted != nil && wanted(f)
	}
	if must && !found {
		l.t.Errorf("%v did not get its frame", at)
	}
}

// needs checks that the router has time for alice in the midst of a flood: an error,
// and a neighbour that must be asked for.
func (l *lab) needs(n int, flood func(int) *packet.Frame) {
	l.t.Helper()
	pressed := func(from uint16, frame []byte) {
		for i := range 40 {
			f := flood(1000*n + i)
			l.wires[party{1, 2}.port()].Inject(f.Vnet, f.Bytes())
		}
		l.n.view.Load().socket(party{1, 2}.port()).debt = 0 // so that it is first
		l.send(from, frame)
	}
	p := alice.to(bob)
	p.TTL = 1
	pressed(alice.port(), pt.UDP4(p))
	l.expect(alice, func(f *packet.Frame) bool { return f.View.Proto == packet.ProtoICMP }, true)
	guest := party{2, 210 + n}
	pressed(alice.port(), pt.UDP4(alice.to(guest)))
	l.expect(bob, func(f *packet.Frame) bool { return f.View.Is(packet.ViewARP) }, true)
	pressed(bob.port(), bob.answer(guest.mac(), guest.addr4()))
	l.expect(bob, func(f *packet.Frame) bool { return f.DstMAC() == guest.mac() }, true)
}

// bounded checks that what the flood left behind is within the bounds.
func (l *lab) bounded() {
	l.t.Helper()
	incomplete := 0
	for _, e := range l.n.Namespace("lab").Neighbours("") {
		if e.State == neigh.Incomplete || e.State == neigh.Failed {
			incomplete++
		}
	}
	if incomplete > neigh.DefaultUnresolvedPerPort {
		l.t.Errorf("%d neighbours are asked for", incomplete)
	}
}

// TestRoutingWhileEverythingChanges is for the race detector: workers route, while
// snapshots are applied and time passes.
func TestRoutingWhileEverythingChanges(t *testing.T) {
	spaces := chain(2)
	spaces[0].Networks = append(spaces[0].Networks, site(3, 1))
	w := newWorld(t, spaces...)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	u, err := w.inside[bob].ListenPacket("udp", "10.44.2.11:9")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for from, to := range map[party]string{alice: "10.44.2.11:9", {3, 1}: "10.44.1.11:9", bob: "10.44.3.99:9"} {
		c, err := w.inside[from].DialContext(within(t), "udp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = c.Write(make([]byte, 100))
				}
			}
		})
	}
	for i := range 50 {
		spaces[i%2].Networks[0].Ports[0].MTU = 1400 + i
		spaces[0].Links[0].MTU = 1500 - i
		if i%10 == 0 {
			spaces[1].Routing.Routes = append(spaces[1].Routing.Routes, via("10."+strconv.Itoa(100+i)+".0.0/16", "to1"))
		}
		if err := w.outside.Apply(&Snapshot{Namespaces: spaces}, nil); err != nil {
			t.Fatal(err)
		}
		w.outside.everySecond()
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	c, err := w.inside[alice].DialContext(within(t), "udp", "10.44.2.11:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u.SetDeadline(time.Now().Add(patience))
	for b := make([]byte, 200); ; {
		_, _ = c.Write([]byte("still there?"))
		n, _, err := u.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if string(b[:n]) == "still there?" {
			return
		}
	}
}

// TestRationOverLinks: what the router sends over a link itself, since it records its
// route or was fragmented, is rationed before the host stack behind it like the rest.
func TestRationOverLinks(t *testing.T) {
	l := stillSites(t, chain(2)...)
	l.n.view.Load().port(linkIndex(1, 2)).link.released = bucket{tokens: 5 * costReply, at: time.Hour} // no more for now
	for range 8 {
		h := pt.IPv4Hdr{Src: alice.addr4(), Dst: gate(2).addr4(), Options: []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0}}
		l.send(alice.port(), pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}, h, pt.ICMPHdr{Type: 8}))
	}
	for range 5 {
		l.arrived(alice, pt.ICMP(pt.ICMPType(0, 0)))
	}
	l.silent(alice.port())
	if got := l.drops(linkIndex(1, 2), trace.LocalRate); got != 3 {
		t.Errorf("%d dropped, want 3", got)
	}
}
