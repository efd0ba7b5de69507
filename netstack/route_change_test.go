// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
	"sluice/trace"
)

// answer is what a station says when it is asked for its MAC.
func (s party) answer(mac packet.MAC, a netip.Addr) []byte {
	return pt.ARPReply(pt.Packet{SrcMAC: mac, DstMAC: gate(s.site).mac(), Src: a, Dst: gate(s.site).addr4()})
}

// TestKnownFlowFollowsChanges: each of what a decision rests upon ends it at once.
func TestKnownFlowFollowsChanges(t *testing.T) {
	other, third := party{2, 2}, party{2, 3}
	to := func(l *lab, at party) {
		l.send(alice.port(), pt.UDP4(alice.to(bob)))
		l.arrived(at, pt.IPv4(pt.TTL(63), pt.Dst(bob.addr4())))
		l.silent(11, 12, 21, 22, 23)
	}
	refused := func(kind, code uint8) func(*lab) {
		return func(l *lab) {
			l.send(alice.port(), pt.UDP4(alice.to(bob)))
			l.arrived(alice, pt.ICMP(pt.ICMPType(kind, code)))
			l.silent(11, 12)
		}
	}
	for name, tc := range map[string]struct {
		change func(l *lab)
		after  func(l *lab)
	}{
		"route": {func(l *lab) {
			l.snap.Namespaces[0].Routing.Routes = []routing.Route{via(bob.addr4().String()+"/32", "site2", other.addr4())}
			l.apply()
		}, func(l *lab) { to(l, other) }},
		"route that refuses": {func(l *lab) {
			l.snap.Namespaces[0].Routing.Routes = []routing.Route{{Prefix: netip.PrefixFrom(bob.addr4(), 32), Type: routing.Prohibit}}
			l.apply()
		}, refused(3, 13)},
		"neighbour": {func(l *lab) {
			l.portOf(bob).Addresses, l.portOf(other).Addresses = nil, []netip.Addr{bob.addr4()}
			l.apply()
		}, func(l *lab) { to(l, other) }},
		"MAC of the station": {func(l *lab) {
			l.portOf(bob).MAC, l.portOf(third).MAC = third.mac(), bob.mac()
			l.apply()
		}, func(l *lab) {
			l.send(alice.port(), pt.UDP4(alice.to(bob)))
			pt.Check(t, l.got(bob.port()), pt.EtherDst(third.mac()))
		}},
		"MTU of its port": {func(l *lab) {
			l.portOf(bob).MTU = 68
			l.apply()
		}, func(l *lab) {
			l.send(alice.port(), df(alice.to(bob), 41))
			l.arrived(alice, pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(68)))
		}},
		"MTU of the device": {func(l *lab) {
			l.network(2).Bridge.MTU = 1300
			l.apply()
		}, func(l *lab) {
			l.send(alice.port(), df(alice.to(bob), 1400))
			l.arrived(alice, pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(1300)))
		}},
		"forwarding": {func(l *lab) {
			l.network(1).Device.NoForward = true
			l.apply()
		}, func(l *lab) {
			l.send(alice.port(), pt.UDP4(alice.to(bob)))
			if l.silent(11, 21); l.drops(alice.port(), trace.NoForward) != 1 {
				t.Error("the frame was not dropped")
			}
		}},
		"network is gone": {func(l *lab) {
			l.snap.Namespaces[0].Networks = l.snap.Namespaces[0].Networks[:1]
			l.apply()
		}, refused(3, 0)},
		"address is the gateway's": {func(l *lab) {
			l.portOf(bob).Addresses = nil
			l.network(2).Addresses = append(l.network(2).Addresses, netip.PrefixFrom(bob.addr4(), 24))
			l.apply()
		}, refused(3, 3)}, // nobody listens there
	} {
		t.Run(name, func(t *testing.T) {
			l := stillSites(t, sites("lab", site(1, 2), site(2, 3)))
			hits := l.hits(alice)
			to(l, bob)
			to(l, bob)
			if hits() != 1 {
				t.Error("the second frame is no hit")
			}
			tc.change(l)
			tc.after(l)
		})
	}
}

// TestKnownFlowFollowsANeighbour that is not in the snapshot: its MAC, its port, and
// its silence.
func TestKnownFlowFollowsANeighbour(t *testing.T) {
	l := stillSites(t, twoSites())
	other, guest := party{2, 2}, party{2, 9}
	to := func(at uint16, mac packet.MAC) {
		t.Helper()
		l.send(alice.port(), pt.UDP4(alice.to(guest)))
		pt.Check(t, l.got(at), pt.EtherDst(mac), pt.IPv4(pt.TTL(63)))
		l.silent(11, 12, 21, 22)
	}
	asked := func() {
		t.Helper()
		for _, at := range []party{bob, other} {
			l.arrivedAll(at, pt.ARP(pt.Op(1), pt.Dst(guest.addr4()), pt.Src(gate(2).addr4())))
		}
	}
	l.send(alice.port(), pt.UDP4(alice.to(guest)))
	asked()
	l.silent(11, 12, 21, 22)
	l.send(bob.port(), bob.answer(guest.mac(), guest.addr4()))
	pt.Check(t, l.got(bob.port()), pt.EtherDst(guest.mac()), pt.IPv4(pt.TTL(63))) // what was held
	to(bob.port(), guest.mac())
	to(bob.port(), guest.mac())
	if l.stats(alice.port()).FlowHits == 0 {
		t.Error("no hits")
	}
	// It moves to another port.
	l.send(other.port(), pt.UDP4(pt.Packet{SrcMAC: guest.mac(), DstMAC: gate(2).mac(), Dst: gate(2).addr4(), Src: guest.addr4()}))
	l.arrivedAll(other, pt.ICMP(pt.ICMPType(3, 3)))
	to(other.port(), guest.mac())
	to(other.port(), guest.mac())
	// It gets another MAC.
	l.pass(2)
	l.send(bob.port(), bob.answer(party{2, 8}.mac(), guest.addr4()))
	to(bob.port(), party{2, 8}.mac())
	to(bob.port(), party{2, 8}.mac())
	// It says nothing more: after it was asked in vain it is unreachable.
	l.n.Namespace("lab").FlushNeighbours(0, netip.Addr{})
	l.send(alice.port(), pt.UDP4(alice.to(guest)))
	asked()
	for range 2 {
		l.pass(1)
		asked()
	}
	l.silent(11)
	l.pass(1)
	l.arrived(alice, pt.IPv4(pt.Src(gate(1).addr4())), pt.ICMP(pt.ICMPType(3, 1)))
	l.silent(11, 12, 21, 22)
	if l.drops(alice.port(), trace.NeighFailed) != 1 {
		t.Errorf("drops %v", l.stats(alice.port()).Drops)
	}
}

// arrivedAll is arrived for what may be for others too.
func (l *lab) arrivedAll(at party, more ...pt.Checker) {
	l.t.Helper()
	f := l.got(at.port())
	if f == nil {
		l.t.Errorf("%v got nothing", at)
		return
	}
	pt.Check(l.t, f, more...)
}

// TestHeldPacketsArriveInOrder, and no more than a neighbour may make wait.
func TestHeldPacketsArriveInOrder(t *testing.T) {
	l := stillSites(t, twoSites())
	guest := party{2, 9}
	for i := range 5 {
		p := alice.to6(guest)
		p.Payload = fmt.Append(nil, i)
		l.send(alice.port(), pt.UDP6(p))
	}
	l.arrivedAll(bob, pt.ICMPv6(pt.ICMPType(135, 0)))
	target, m := guest.addr6().As16(), guest.mac()
	l.send(bob.port(), pt.Build(
		pt.EtherHdr{Src: guest.mac(), Dst: gate(2).mac()},
		pt.IPv6Hdr{Src: guest.addr6(), Dst: linkLocal(gate(2).mac()).Addr(), HopLimit: 255},
		pt.ICMPHdr{V6: true, Type: 136, ID: 0x6000}, pt.Payload(append(target[:], append([]byte{2, 1}, m[:]...)...))))
	for i := range 5 {
		l.arrivedAll(bob, pt.EtherDst(guest.mac()), pt.IPv6(pt.TTL(63)), pt.Data(fmt.Append(nil, i)))
	}
	l.silent(11, 12, 21)
}

// TestNextHopThatDiesIsPassedOver by the flows that are known, too.
func TestNextHopThatDiesIsPassedOver(t *testing.T) {
	s := twoSites()
	one, two := party{2, 8}, party{2, 9} // gateways behind bob's and the other's port
	s.Routing.Routes = []routing.Route{via("10.77.0.0/16", "site2", one.addr4(), two.addr4())}
	l := stillSites(t, s)
	flows := func() (at [2]int) {
		for i := range 40 {
			p := alice.to(bob)
			p.Dst, p.SrcPort = netip.AddrFrom4([4]byte{10, 77, 0, byte(i)}), uint16(2000+i)
			l.send(alice.port(), pt.UDP4(p))
			for n, s := range []party{bob, {2, 2}} {
				for f := l.got(s.port()); f != nil; f = l.got(s.port()) {
					if f.View.Is(packet.ViewIPv4) {
						at[n]++
					}
				}
			}
		}
		return at
	}
	flows()
	l.send(bob.port(), bob.answer(one.mac(), one.addr4()))
	l.send(party{2, 2}.port(), bob.answer(two.mac(), two.addr4()))
	flows()
	if at := flows(); at[0]+at[1] != 40 || at[0] < 8 || at[1] < 8 {
		t.Fatalf("flows to %v, want some to both", at)
	}
	// The second falls silent: it is probed when it was not heard for a while.
	for i := range 90 {
		if i%10 == 0 {
			l.send(bob.port(), bob.answer(one.mac(), one.addr4()))
			flows()
		}
		l.pass(1)
	}
	if at := flows(); at[0] != 40 || at[1] != 0 {
		t.Errorf("flows to %v, want all to the first", at)
	}
	for range 4 { // both answer, as often as they may be asked
		l.send(bob.port(), bob.answer(one.mac(), one.addr4()))
		l.send(party{2, 2}.port(), bob.answer(two.mac(), two.addr4()))
		l.pass(3)
	}
	l.send(bob.port(), bob.answer(one.mac(), one.addr4()))
	l.send(party{2, 2}.port(), bob.answer(two.mac(), two.addr4()))
	l.pass(1)
	if at := flows(); at[0] == 40 || at[0]+at[1] != 40 {
		t.Errorf("flows to %v, want some to both again", at)
	}
}

// TestFragmentsTakeTheWayOfTheirFlow, also those that come before the first.
func TestFragmentsTakeTheWayOfTheirFlow(t *testing.T) {
	s := twoSites()
	one, two := party{2, 1}, party{2, 2}
	s.Routing.Routes = []routing.Route{via("10.77.0.0/16", "site2", one.addr4(), two.addr4())}
	l := stillSites(t, s)
	ways := map[uint16]int{}
	for i := range 16 {
		p := alice.to(bob)
		p.Dst, p.SrcPort = pt.IP("10.77.0.1"), uint16(2000+i)
		l.send(alice.port(), pt.UDP4(p))
		at := one.port()
		if l.got(at) == nil {
			at = two.port()
			l.arrivedAll(two, pt.EtherDst(two.mac()))
		}
		ways[at]++
		head := pt.Build(pt.EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC},
			pt.IPv4Hdr{Src: p.Src, Dst: p.Dst, ID: uint16(i), MF: true}, pt.UDPHdr{SrcPort: p.SrcPort, DstPort: p.DstPort, Len: new(uint16(72))}, pt.Bytes(56))
		tail := pt.Build(pt.EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC},
			pt.IPv4Hdr{Src: p.Src, Dst: p.Dst, ID: uint16(i), Offset: 64, Proto: new(uint8(17))}, pt.Bytes(8))
		first, second := head, tail
		if i%2 == 1 {
			first, second = tail, head
		}
		l.send(alice.port(), first)
		if i%2 == 1 {
			l.silent(one.port(), two.port())
		}
		l.send(alice.port(), second)
		for range 2 {
			pt.Check(t, l.got(at), pt.IPv4(pt.TTL(63), pt.ID(uint16(i))))
		}
		l.silent(11, 12, 21, 22)
	}
	if len(ways) != 2 {
		t.Errorf("flows to %v, want both", ways)
	}
}

// TestPortThatChangesHandsOwesNothing: its next owner has credit for errors of its
// own.
//
// +checklocksignore: the worker stands still.
func TestPortThatChangesHandsOwesNothing(t *testing.T) {
	l := stillSites(t, twoSites())
	for i := range 100 { // addresses have limits of their own
		l.portOf(alice).Addresses = append(l.portOf(alice).Addresses, netip.AddrFrom4([4]byte{10, 44, 1, byte(100 + i)}))
	}
	l.apply()
	errors := func() (n int) {
		for i := range 100 {
			p := alice.to(bob)
			p.TTL, p.Src = 1, netip.AddrFrom4([4]byte{10, 44, 1, byte(100 + i)})
			l.send(alice.port(), pt.UDP4(p))
			for l.got(alice.port()) != nil {
				n++
			}
		}
		return n
	}
	later := func() { // the namespace has its credit again, a port a part of it
		l.n.start = l.n.start.Add(-50 * time.Millisecond)
		l.n.workers[0].turn.out.clock.start = l.n.start
	}
	if n := errors(); n < 30 {
		t.Errorf("%d errors, want some 50", n)
	}
	later()
	before := errors()
	delete(l.wires, alice.port())
	l.apply()
	later()
	if n := errors(); n < before+10 {
		t.Errorf("%d errors before, %d after the port changed hands", before, n)
	}
}
