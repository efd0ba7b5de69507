// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/bridge"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
	"sluice/trace"
)

var (
	alice = party{1, 1}
	bob   = party{2, 1}
)

func twoSites() NamespaceSpec { return sites("lab", site(1, 2), site(2, 2)) }

func TestRoutesBetweenNetworks(t *testing.T) {
	l := stillSites(t, twoSites())
	hits := l.hits(alice)
	for n := range 3 { // a miss, then hits
		p := alice.to(bob)
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(bob, pt.IPv4(pt.TTL(63), pt.Src(p.Src), pt.Dst(p.Dst)), pt.UDP(), pt.Data(p.Payload))
		p = alice.to6(bob)
		l.send(alice.port(), pt.TCP6(p))
		l.arrived(bob, pt.IPv6(pt.TTL(63), pt.Src(p.Src), pt.Dst(p.Dst)), pt.TCP(), pt.Data(p.Payload))
		l.silent(11, 12, 21, 22)
		if got := hits(); got != min(n, 1)*2 {
			t.Errorf("round %d: %d hits", n, got)
		}
	}
	if s := l.stats(bob.port()); s.TxPackets != 6 || l.stats(alice.port()).Dropped() != 0 {
		t.Errorf("port %d has %+v", bob.port(), s)
	}
}

func TestRoutedHitAllocatesNothing(t *testing.T) {
	plain := party{2, 2}
	for name, frame := range map[string]*packet.Frame{
		"UDP":           pt.Frame(pt.UDP4(alice.to(bob))),
		"IPv6":          pt.Frame(pt.TCP6(alice.to6(bob))),
		"offload":       big(alice.to(bob), 64_000, 1448),
		"to no offload": big(alice.to(plain), 64_000, 1448),
		"slow path":     pt.Frame(pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}, pt.IPv4Hdr{Src: alice.addr4(), Dst: bob.addr4(), Options: []byte{1, 1, 1, 1}}, pt.UDPHdr{})),
	} {
		t.Run(name, func(t *testing.T) {
			l := stillSites(t, twoSites())
			l.portOf(plain).Offload = false
			l.apply()
			far := l.pairs()
			w, msg, buf := l.n.workers[0], frame.Wire(), make([]byte, packet.BufLen)
			turn := func() {
				if _, err := unix.Write(far[alice.port()], msg); err != nil {
					t.Fatal(err)
				}
				w.round(w.poll.now())
				drain(far[bob.port()], buf)
				drain(far[plain.port()], buf)
			}
			turn()
			if got := testing.AllocsPerRun(200, turn); got != 0 && !raceEnabled {
				t.Errorf("%v allocations for a turn, want 0", got)
			}
			if st := l.stats(alice.port()); st.RxTurns < 200 || st.Dropped() != 0 {
				t.Errorf("the frames did not pass: %+v", st)
			}
		})
	}
}

// big is TCP over offload.
func big(p pt.Packet, n, size int) *packet.Frame {
	p.Payload = pt.Bytes(n)
	return pt.GSO(pt.TCP4(p), size)
}

// A flow that is known still has the router look at what it must not let pass.
func TestKnownFlowAtTheEndOfItsHops(t *testing.T) {
	l := stillSites(t, twoSites())
	for _, v6 := range []bool{false, true} {
		p := alice.to(bob)
		send := func(ttl uint8) {
			p.TTL = ttl
			if v6 {
				l.send(alice.port(), pt.UDP6(p))
			} else {
				l.send(alice.port(), pt.UDP4(p))
			}
		}
		if v6 {
			p = alice.to6(bob)
		}
		for _, ttl := range []uint8{64, 64, 2, 1, 64, 1, 2} {
			send(ttl)
			switch {
			case ttl > 1 && v6:
				l.arrived(bob, pt.IPv6(pt.TTL(ttl-1)))
			case ttl > 1:
				l.arrived(bob, pt.IPv4(pt.TTL(ttl-1)))
			case v6:
				l.arrived(alice, pt.IPv6(pt.Src(gate(1).addr6())), pt.ICMPv6(pt.ICMPType(3, 0)))
			default:
				l.arrived(alice, pt.IPv4(pt.Src(gate(1).addr4())), pt.ICMP(pt.ICMPType(11, 0)))
			}
			l.silent(11, 12, 21, 22)
		}
	}
	if got := l.drops(alice.port(), trace.TTLExceeded); got != 4 {
		t.Errorf("%d drops, want 4", got)
	}
}

func TestKnownFlowThatIsTooLong(t *testing.T) {
	l := stillSites(t, twoSites())
	l.portOf(bob).MTU = 1300 // less than the device's
	l.apply()
	small, large := alice.to(bob), alice.to(bob)
	large.Payload = pt.Bytes(1400)
	for range 2 {
		l.send(alice.port(), pt.UDP4(small))
		l.arrived(bob, pt.UDP())
		l.send(alice.port(), df(small, 1400))
		l.arrived(alice, pt.IPv4(pt.Src(gate(1).addr4())), pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(1300)))
		l.send(alice.port(), pt.UDP4(large))
		l.arrived(bob, pt.Len(14+20+1280), pt.IPv4(pt.TTL(63), pt.Flags(packet.ViewFragFirst)))
		l.arrived(bob, pt.Len(14+20+1408-1280), pt.IPv4(pt.TTL(63), pt.Flags(packet.ViewFragLater)))
		p := alice.to6(bob)
		l.send(alice.port(), pt.UDP6(p))
		l.arrived(bob, pt.UDP())
		p.Payload = pt.Bytes(1400)
		l.send(alice.port(), pt.UDP6(p))
		l.arrived(alice, pt.IPv6(pt.Src(gate(1).addr6())), pt.ICMPv6(pt.ICMPType(2, 0), pt.NextMTU(1300)))
		l.silent(11, 12, 21, 22)
	}
	if got := l.drops(alice.port(), trace.FragNeeded); got != 4 {
		t.Errorf("%d frames needed fragmentation, want 4", got)
	}
}

// TestOffloadFramesAreRoutedWhole, and cut behind the router for who needs it.
func TestOffloadFramesAreRoutedWhole(t *testing.T) {
	l := stillSites(t, twoSites())
	plain := party{2, 2}
	l.portOf(plain).Offload = false
	l.apply()
	for range 2 {
		for _, build := range []func(pt.Packet) []byte{pt.TCP4, pt.UDP4} {
			p := alice.to(bob)
			p.Payload = pt.Bytes(50_000)
			f := pt.GSO(build(p), 1400)
			l.sendFrame(alice.port(), f)
			got := l.got(bob.port())
			if got == nil || got.Vnet != f.Vnet || got.Len() != f.Len() || got.HopLimit() != 63 || !got.CheckVnet() {
				t.Fatalf("got %s, want the same as %s", described(got), described(f))
			}
			pt.Check(t, got, pt.IPv4(), pt.Data(p.Payload))
			p.Dst = plain.addr4()
			l.sendFrame(alice.port(), pt.GSO(build(p), 1400))
			var data []byte
			for range 36 {
				got = l.got(plain.port())
				pt.Check(t, got, pt.EtherDst(plain.mac()), pt.IPv4(pt.TTL(63)))
				data = append(data, got.Bytes()[got.View.End-min(1400, 50_000-len(data)):got.View.End]...)
			}
			if !bytes.Equal(data, p.Payload) {
				t.Error("the segments together are not the frame")
			}
		}
	}
	l.silent(11, 12, 21, 22)
}

// TestOffloadFramesAreFragmentedBehindARouter, each of their segments.
func TestOffloadFramesAreFragmentedBehindARouter(t *testing.T) {
	l := stillSites(t, twoSites())
	l.portOf(bob).MTU = 1000
	l.apply()
	f := big(alice.to(bob), 2800, 1400)
	for range 2 {
		l.sendFrame(alice.port(), f)
		for range 2 {
			l.arrived(bob, pt.Len(14+20+976), pt.IPv4(pt.Flags(packet.ViewFragFirst)))
			l.arrived(bob, pt.Len(14+20+1420-976), pt.IPv4(pt.Flags(packet.ViewFragLater)))
		}
	}
	l.silent(11, 12, 21, 22)
}

func TestDatagramsTravelTogetherOverARouter(t *testing.T) {
	l := stillSites(t, twoSites())
	part := func(id uint16, payload string) *packet.Frame {
		p := alice.to(bob)
		p.ID, p.Payload = id, []byte(payload)
		return pt.Partial(pt.UDP4(p))
	}
	l.inject(alice.port(), part(0, "0000"))
	l.arrived(bob, pt.Data("0000"))
	l.inject(alice.port(), part(1, "aaaa"), part(2, "bbbb"), part(3, "cc"), part(4, "dddd"))
	got := l.got(bob.port())
	if got == nil || got.Vnet.GSOSize != 4 || !got.CheckVnet() || !packet.PartialOK(got) {
		t.Fatalf("got %s", described(got))
	}
	pt.Check(t, got, pt.EtherDst(bob.mac()), pt.IPv4(pt.TTL(63)), pt.Data("aaaabbbbcc"))
	l.arrived(bob, pt.Data("dddd"))
	l.silent(11, 12, 21, 22)
}

// TestTrainNeverJoinsWhatWentAnotherWay: in the middle of a turn, a flow's next hop
// moves.
func TestTrainNeverJoinsWhatWentAnotherWay(t *testing.T) {
	l := stillSites(t, twoSites())
	part := func(id uint16) *packet.Frame {
		p := alice.to(bob)
		p.ID = id
		return pt.Partial(pt.UDP4(p))
	}
	l.inject(alice.port(), part(0))
	l.arrived(bob)
	in := l.n.view.Load().port(alice.port())
	c, err := in.space.routerConfig()
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Neighbours {
		if c.Neighbours[i].Addr == bob.addr4() {
			c.Neighbours[i].MAC = party{2, 2}.mac()
		}
	}
	frames := []packet.Frame{*part(1), *part(2), *part(3)}
	w := l.n.workers[0]
	w.round(0)
	w.mu.Lock()
	x := &w.turn
	x.begin(in, frames)
	x.judge(in, 0)
	in.space.router.Prepare(c).Commit()
	x.judge(in, 1)
	x.judge(in, 2)
	x.end(in)
	w.mu.Unlock()
	l.arrived(bob, pt.Data(pt.Bytes(20)))
	l.silent(bob.port())
	l.arrived(party{2, 2}, pt.Data(pt.Bytes(20)))
	l.arrived(party{2, 2}, pt.Data(pt.Bytes(20)))
}

// TestRoutesBetweenVLANs: the gateways are in VLANs 10 and 20, the stations on trunks.
func TestRoutesBetweenVLANs(t *testing.T) {
	one, two := site(1, 2), site(2, 2)
	one.Bridge.VLAN.PVID, two.Bridge.VLAN.PVID = 10, 20
	one.Ports[0].VLAN.Tagged = []bridge.VIDRange{{First: 10, Last: 10}}
	one.Ports[1].VLAN.PVID = 10
	two.Ports[0].VLAN.Tagged = []bridge.VIDRange{{First: 20, Last: 20}}
	two.Ports[1].VLAN.PVID = 20
	l := stillSites(t, sites("lab", one, two))
	access, inside := party{1, 2}, party{2, 2}
	// Which of its VLANs a trunk's station is in, it says itself.
	for _, s := range []party{alice, bob} {
		p := s.to(s)
		p.Tags = tag(uint16(10 * s.site))
		p.Dst, p.DstMAC = gate(s.site).addr4(), packet.MAC{}
		l.send(s.port(), pt.ARPRequest(p))
		l.arrived(s, pt.ARP(pt.Op(2)))
	}
	l.got(12)
	l.got(22)
	hits := l.hits(alice)
	for n := range 3 {
		p := alice.to(bob)
		p.Tags = tag(10)
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(bob, pt.VLAN(20), pt.IPv4(pt.TTL(63)), pt.Data(p.Payload))
		p.Dst = inside.addr4()
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(inside, pt.VLAN(), pt.IPv4(pt.TTL(63)), pt.Data(p.Payload))
		l.send(access.port(), pt.UDP4(access.to(bob)))
		l.arrived(bob, pt.VLAN(20), pt.IPv4(pt.TTL(63)))
		p.Tags = tag(11)
		l.send(alice.port(), pt.UDP4(p)) // no VLAN of the port
		p.Tags, p.Dst = tag(10), gate(2).addr4()
		l.send(alice.port(), pt.Ping4(p))
		l.arrived(alice, pt.VLAN(10), pt.ICMP(pt.ICMPType(0, 0)))
		l.silent(11, 12, 21, 22)
		if got := hits(); got != min(n, 1)*3 {
			t.Errorf("round %d: %d hits", n, got)
		}
	}
}

// TestMirrorsOfRoutedFrames show them as the port does that they watch.
func TestMirrorsOfRoutedFrames(t *testing.T) {
	one, two := site(1, 3), site(2, 3)
	one.Ports[0].MirrorIn, two.Ports[0].MirrorOut = party{1, 3}.port(), party{2, 3}.port()
	l := stillSites(t, sites("lab", one, two))
	for range 3 {
		f := pt.UDP4(alice.to(bob))
		l.send(alice.port(), f)
		l.arrived(bob, pt.IPv4(pt.TTL(63)))
		l.same(party{1, 3}.port(), f)
		pt.Check(t, l.got(party{2, 3}.port()), pt.EtherSrc(gate(2).mac()), pt.EtherDst(bob.mac()), pt.IPv4(pt.TTL(63)))
		l.send(party{1, 2}.port(), pt.UDP4(party{1, 2}.to(bob))) // not watched where it comes in
		l.arrived(bob, pt.IPv4(pt.TTL(63)))
		pt.Check(t, l.got(party{2, 3}.port()), pt.IPv4(pt.TTL(63)))
		l.silent(11, 12, 13, 21, 22, 23)
	}
	if l.stats(party{1, 2}.port()).FlowHits != 2 {
		t.Error("what is watched where it leaves is no hit")
	}
}

// TestTablesOfContainers: a rule may say whose packets it is about.
func TestTablesOfContainers(t *testing.T) {
	s := sites("lab", site(1, 2), site(2, 2))
	s.Networks[0].Ports[0].Device = "alice"
	s.Routing.Rules = usualRules()
	s.Routing.Rules = append(s.Routing.Rules, routing.Rule{Family: routing.IPv4, Priority: 100, PrioritySet: true, IIF: "alice", Table: 100})
	r := routing.Route{Prefix: netip.MustParsePrefix("10.44.2.0/24"), Type: routing.Prohibit, Table: 100}
	s.Routing.Routes = []routing.Route{r}
	l := stillSites(t, s)
	other := party{1, 2}
	for range 2 {
		l.send(other.port(), pt.UDP4(other.to(bob)))
		l.arrived(bob)
		l.send(alice.port(), pt.UDP4(alice.to(bob)))
		l.arrived(alice, pt.ICMP(pt.ICMPType(3, 13)))
		l.silent(11, 12, 21, 22)
	}
}

func TestVRFsAreApart(t *testing.T) {
	s := sites("lab", site(1, 1), site(2, 1), site(3, 1), site(4, 1))
	s.VRFs = []VRFSpec{{Name: "red", Index: 300, Table: 10}}
	s.Networks[2].VRF, s.Networks[3].VRF = "red", "red"
	// Without it, what the table of a VRF does not know is looked up in the next one.
	s.Routing.Routes = []routing.Route{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Type: routing.Unreachable, Table: 10}}
	l := stillSites(t, s)
	carol, dave := party{3, 1}, party{4, 1}
	for range 2 {
		l.send(alice.port(), pt.UDP4(alice.to(bob)))
		l.arrived(bob)
		l.send(carol.port(), pt.UDP4(carol.to(dave)))
		l.arrived(dave)
		l.send(alice.port(), pt.UDP4(alice.to(carol)))
		l.arrived(alice, pt.ICMP(pt.ICMPType(3, 0)))
		l.send(carol.port(), pt.UDP4(carol.to(bob)))
		l.arrived(carol, pt.ICMP(pt.ICMPType(3, 1)))
		p := carol.to(dave)
		p.Dst = gate(4).addr4()
		l.send(carol.port(), pt.Ping4(p))
		l.arrived(carol, pt.IPv4(pt.Src(gate(4).addr4())), pt.ICMP(pt.ICMPType(0, 0)))
		l.silent(11, 21, 31, 41)
	}
}

// TestSynsAreClamped by devices, by routes, and by the ports of containers.
func TestSynsAreClamped(t *testing.T) {
	for name, tc := range map[string]struct {
		change     func(*NamespaceSpec)
		want, back int // of IPv6 20 less unless the limit is a number
		fixed      bool
	}{
		"not":                      {func(*NamespaceSpec) {}, 1460, 1460, true},
		"device it comes by":       {func(s *NamespaceSpec) { s.Networks[0].Device.ClampMSS = 1200 }, 1200, 1200, true},
		"device it leaves by":      {func(s *NamespaceSpec) { s.Networks[1].Device.ClampMSS = 1200 }, 1200, 1200, true},
		"device, what fits":        {func(s *NamespaceSpec) { s.Networks[1].Device.ClampMSS = 1; s.Networks[1].Bridge.MTU = 1400 }, 1360, 1360, false},
		"device, what fits a port": {func(s *NamespaceSpec) { s.Networks[1].Device.ClampMSS = 1; s.Networks[1].Ports[0].MTU = 1400 }, 1360, 1360, false},
		"port it comes by":         {func(s *NamespaceSpec) { s.Networks[0].Ports[0].ClampMSS = 1100 }, 1100, 1100, true},
		"port it leaves by":        {func(s *NamespaceSpec) { s.Networks[1].Ports[0].ClampMSS = 1100 }, 1100, 1100, true},
		"another port":             {func(s *NamespaceSpec) { s.Networks[1].Ports[1].ClampMSS = 1100 }, 1460, 1460, true},
		"the lower one":            {func(s *NamespaceSpec) { s.Networks[0].Ports[0].ClampMSS = 1100; s.Networks[1].Ports[0].ClampMSS = 1300 }, 1100, 1100, true},
		"port, what fits":          {func(s *NamespaceSpec) { s.Networks[0].Ports[0].ClampMSS = 1; s.Networks[1].Ports[0].MTU = 1350 }, 1310, 1310, false},
		"port, what fits the way":  {func(s *NamespaceSpec) { s.Networks[0].Ports[0].ClampMSS = 1; s.Networks[0].Ports[0].MTU = 1350 }, 1310, 1310, false},
		"never upwards":            {func(s *NamespaceSpec) { s.Networks[0].Ports[0].ClampMSS = 9000 }, 1460, 1460, true},
		"route": {func(s *NamespaceSpec) {
			r := via("10.44.2.0/25", "site2")
			r.AdvMSS = 1000
			r6 := via("fd44:2::/96", "site2")
			r6.AdvMSS = 1000
			s.Routing.Routes = []routing.Route{r, r6}
		}, 1000, 1460, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := twoSites()
			tc.change(&s)
			l := stillSites(t, s)
			for range 2 {
				for _, v6 := range []bool{false, true} {
					want, back := tc.want, tc.back
					if v6 && !tc.fixed {
						want, back = want-20, back-20
					}
					l.send(alice.port(), syn(alice, bob, v6, pt.SYN))
					l.clamped(bob, want)
					l.send(bob.port(), syn(bob, alice, v6, pt.SYN|pt.ACK))
					l.clamped(alice, back)
					l.send(alice.port(), syn(alice, bob, v6, pt.ACK)) // options of what is no SYN stay
					l.clamped(bob, 1460)
				}
			}
		})
	}
}

// syn is a segment with the MSS option of 1460.
func syn(from, to party, v6 bool, flags uint8) []byte {
	p := from.to(to)
	eth, tcp := pt.EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC}, pt.TCPHdr{SrcPort: 1, DstPort: 2, Flags: flags, Options: []byte{2, 4, 1460 >> 8, 1460 & 0xff}}
	if v6 {
		return pt.Build(eth, pt.IPv6Hdr{Src: from.addr6(), Dst: to.addr6()}, tcp)
	}
	return pt.Build(eth, pt.IPv4Hdr{Src: from.addr4(), Dst: to.addr4()}, tcp)
}

// clamped checks the MSS of a segment that arrived, whose sums are right.
func (l *lab) clamped(at party, want int) {
	l.t.Helper()
	f := l.got(at.port())
	if f == nil {
		l.t.Errorf("%v got nothing", at)
		return
	}
	pt.Check(l.t, f, pt.EtherDst(at.mac()), pt.TCP())
	if o := f.Bytes()[f.View.L4+packet.TCPMinLen:]; int(o[2])<<8|int(o[3]) != want {
		l.t.Errorf("MSS %d, want %d", int(o[2])<<8|int(o[3]), want)
	}
}

// usualRules are those of a new namespace.
func usualRules() (all []routing.Rule) {
	for _, f := range []routing.Family{routing.IPv4, routing.IPv6} {
		for _, r := range routing.New(routing.Limits{}).Rules(f) {
			all = append(all, *r)
		}
	}
	return all
}
