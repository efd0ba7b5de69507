// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/bridge"
	"sluice/bridge/guard"
	"sluice/bridge/snoop"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// bridge_port_isolation: the frame of a known flow is dropped from the cache.
func TestIsolatedPorts(t *testing.T) {
	s := blue(3)
	s.Ports[0].Flags, s.Ports[1].Flags = bridge.Isolated, bridge.Isolated
	l := stillLab(t, s)
	for range 3 {
		l.send(1, datagram(1, 2, "isolated"))
		l.send(1, datagram(1, 3, "not isolated"))
		pt.Check(t, l.got(3), pt.Data("not isolated"))
		l.send(3, datagram(3, 1, "back"))
		pt.Check(t, l.got(1), pt.Data("back"))
		l.silent(1, 2, 3)
	}
	l.send(1, pt.ARPRequest(pt.Packet{SrcMAC: mac(1), Src: addr4(1), Dst: addr4(2)}))
	pt.Check(t, l.got(3), pt.ARP())
	l.silent(1, 2, 3)
	if got := l.stats(1); got.Drops["isolated"] != 3 || got.FlowHits != 4 {
		t.Errorf("%d hits, drops %v", got.FlowHits, got.Drops)
	}
}

func TestHairpinAndFloodControl(t *testing.T) {
	s := blue(3)
	s.Ports[0].Flags = bridge.Hairpin
	s.Ports[2].Flags = bridge.NoUnicastFlood | bridge.NoBroadcastFlood
	l := stillLab(t, s)
	for range 2 {
		l.send(1, datagram(1, 1, "to itself"))
		pt.Check(t, l.got(1), pt.Data("to itself"))
	}
	for _, dst := range []packet.MAC{packet.Broadcast(), pt.HW("02:00:00:00:09:09")} {
		l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: dst}))
		if l.got(1) == nil || l.got(2) == nil {
			t.Errorf("%v was not flooded", dst)
		}
		l.silent(1, 2, 3)
	}
}

// A question for a container or for the gateway is answered by the bridge, and
// nobody else hears of it.
func TestSuppressedQuestions(t *testing.T) {
	s := blue(3)
	s.Ports[0].Flags = bridge.Suppress
	l := stillLab(t, s)
	for dst, want := range map[netip.Addr]packet.MAC{addr4(2): mac(2), gateway4(): gatewayMAC()} {
		l.send(1, pt.ARPRequest(pt.Packet{SrcMAC: mac(1), Src: addr4(1), Dst: dst}))
		pt.Check(t, l.got(1), pt.EtherDst(mac(1)), pt.ARP(pt.Op(2), pt.SenderMAC(want), pt.Src(dst), pt.Dst(addr4(1))))
		l.silent(1, 2, 3)
	}
	solicit := pt.Build(pt.EtherHdr{Src: mac(1), Dst: packet.MAC{0x33, 0x33, 0xff, 0, 0, 0x0c}},
		pt.IPv6Hdr{Src: addr6(1), Dst: pt.IP("ff02::1:ff00:c"), HopLimit: 255},
		pt.ICMPHdr{V6: true, Type: packet.NDNeighbourSol}, pt.Payload(addr6(2).AsSlice()))
	l.send(1, solicit)
	pt.Check(t, l.got(1), pt.IPv6(pt.Src(addr6(2)), pt.Dst(addr6(1))), pt.ICMPv6(pt.ICMPType(packet.NDNeighbourAdvert, 0)))
	if got := l.stats(1); got.Drops["suppressed"] != 3 || got.TxPackets != 3 || l.stats(hostPort).TxPackets != 0 {
		t.Errorf("%+v", got)
	}
	l.send(1, pt.ARPRequest(pt.Packet{SrcMAC: mac(1), Src: addr4(1), Dst: addr4(77)}))
	if l.got(2) == nil || l.got(3) == nil {
		t.Error("a question for a stranger is not asked")
	}
	l.silent(1)

	l.snap.Namespaces[0].Networks[0].Ports[0].Flags = 0
	l.apply()
	l.send(1, pt.ARPRequest(pt.Packet{SrcMAC: mac(1), Src: addr4(1), Dst: addr4(2)}))
	if l.got(2) == nil || l.got(3) == nil {
		t.Error("without the flag, a question is not asked")
	}
}

// Each guard has its reason, and the neighbours notice nothing. What the container
// may do passes, and a known flow is a hit.
func TestGuards(t *testing.T) {
	s := blue(3)
	s.Ports[0].Guard = guard.All
	s.Ports[0].GuardAddrs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	l := stillLab(t, s)
	icmp6 := func(typ uint8, src netip.Addr, body []byte) []byte {
		return pt.Build(pt.EtherHdr{Src: mac(1), Dst: packet.MAC{0x33, 0x33, 0, 0, 0, 1}},
			pt.IPv6Hdr{Src: src, Dst: pt.IP("ff02::1"), HopLimit: 255}, pt.ICMPHdr{V6: true, Type: typ}, pt.Payload(body))
	}
	udp := func(src netip.Addr, from, to uint16) []byte {
		p := pt.Packet{SrcMAC: mac(1), DstMAC: mac(2), Src: src, SrcPort: from, DstPort: to}
		if src.Is6() {
			p.Dst = addr6(2)
			return pt.UDP6(p)
		}
		p.Dst = addr4(2)
		return pt.UDP4(p)
	}
	for want, f := range map[trace.Reason][]byte{
		trace.GuardMAC:   datagram(3, 2, "forged"),
		trace.GuardIP:    udp(addr4(3), 1, 2),
		trace.GuardARP:   pt.ARPRequest(pt.Packet{SrcMAC: mac(1), Src: addr4(3), Dst: addr4(2)}),
		trace.GuardND:    icmp6(packet.NDNeighbourAdvert, addr6(1), addr6(3).AsSlice()),
		trace.GuardRA:    icmp6(packet.NDRouterAdvert, pt.IP("fe80::ff:fe00:101"), make([]byte, 8)),
		trace.GuardDHCP:  udp(addr4(1), 67, 68),
		trace.GuardDHCP6: udp(addr6(1), 547, 546),
	} {
		for range 2 {
			l.send(1, f)
			l.silent(1, 2, 3)
		}
		if got := l.drops(1, want); got != 2 {
			t.Errorf("%v: %d drops, want 2: %v", want, got, l.stats(1).Drops)
		}
	}
	before := l.stats(1).FlowHits
	for range 2 {
		for _, f := range [][]byte{datagram(1, 2, "its own"), udp(addr6(1), 1, 2), udp(pt.IP("192.0.2.7"), 1, 2)} {
			l.send(1, f)
			l.same(2, f)
		}
	}
	if got := l.stats(1).FlowHits - before; got != 3 {
		t.Errorf("%d hits, want 3", got)
	}
}

// A burst passes, then what the rate allows; other kinds are not touched.
//
// +checklocksignore: the worker stands still.
func TestStorm(t *testing.T) {
	s := blue(2)
	s.Ports[0].Storm.Broadcast = bridge.Rate{PPS: 100, Burst: 10}
	l := stillLab(t, s)
	clock := &l.n.workers[0].turn.out.clock
	burst := func() (passed int) {
		for range budget {
			l.wires[1].Inject(packet.Vnet{}, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: packet.Broadcast()}))
		}
		l.round()
		for l.got(2) != nil {
			passed++
		}
		return passed
	}
	if got := burst(); got != 10 {
		t.Errorf("%d frames of a burst have passed, want 10", got)
	}
	clock.start = clock.start.Add(-50 * time.Millisecond)
	if got := burst(); got < 5 || got > 10 {
		t.Errorf("%d frames have passed after 50 ms, want 5 and what the test took", got)
	}
	if got := l.drops(1, trace.Storm); got < 2*budget-20 {
		t.Errorf("%d drops", got)
	}
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: pt.HW("01:00:5e:01:01:01")}))
	if l.got(2) == nil {
		t.Error("a group is limited as broadcast is")
	}
}

// seconds lets the housekeeping of so many seconds pass, but for the waiting.
func (l *lab) seconds(n uint32) {
	for range n {
		l.n.tick.Add(1)
		for _, s := range l.n.view.Load().spaces {
			for _, net := range s.networks {
				net.question()
			}
		}
		l.round()
	}
}

// igmp is an IGMPv2 message of container i about 239.1.1.1.
func igmp(i int, typ uint8) []byte {
	body := append([]byte{typ, 0, 0, 0}, 239, 1, 1, 1)
	sum := ^packet.Sum(body, 0)
	body[2], body[3] = byte(sum>>8), byte(sum)
	return pt.Build(pt.EtherHdr{Src: mac(i), Dst: pt.HW("01:00:5e:01:01:01")},
		pt.IPv4Hdr{Src: addr4(i), Dst: pt.IP("239.1.1.1"), Proto: new(uint8(2))}, pt.Payload(body))
}

func stream(i int) []byte {
	return pt.UDP4(pt.Packet{SrcMAC: mac(i), DstMAC: pt.HW("01:00:5e:01:01:01"), Src: addr4(i), Dst: pt.IP("239.1.1.1")})
}

// The worker sends the queries, and only members get a group.
func TestSnooping(t *testing.T) {
	s := blue(4)
	s.Bridge.Snooping = &snoop.Config{Querier: true}
	s.Bridge.Groups = []GroupSpec{{Group: pt.IP("239.1.1.1"), Port: 4}}
	l := stillLab(t, s)
	l.seconds(1)
	for at := range l.wires {
		for range 2 { // of IGMP and of MLD
			pt.Check(t, l.got(at), pt.EtherSrc(gatewayMAC()))
		}
		l.silent(at)
	}
	l.seconds(15)
	l.send(2, igmp(2, 0x16))
	l.silent(1, 2, 3, 4)
	l.send(1, stream(1))
	l.same(2, stream(1))
	l.same(4, stream(1))
	l.silent(1, 3)

	// A leave is asked about at once, and what stays is the static member.
	l.send(2, igmp(2, 0x17))
	pt.Check(t, l.got(2), pt.EtherSrc(gatewayMAC()), pt.IPv4(pt.Dst("239.1.1.1")))
	l.silent(1, 2, 3, 4)
	l.seconds(3)
	for l.got(2) != nil {
	}
	l.send(1, stream(1))
	l.same(4, stream(1))
	l.silent(1, 2, 3)
	members, routers := l.n.Namespace("blue").Groups("blue")
	want := []snoop.Entry{{Group: pt.IP("239.1.1.1"), Port: 4, Permanent: true}}
	if diff := cmp.Diff(want, members, cmp.Comparer(func(a, b snoop.Entry) bool { return a == b })); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if !slices.Contains(routers, snoop.Entry{Port: hostPort, Permanent: true}) {
		t.Errorf("routers %v", routers)
	}

	// Another snapshot with the same snooping keeps what was learned.
	l.send(3, igmp(3, 0x16))
	l.snap.Namespaces[0].Networks[0].Bridge.Groups = nil
	l.apply()
	l.send(1, stream(1))
	l.same(3, stream(1))
	l.silent(1, 2, 4)
	l.snap.Namespaces[0].Networks[0].Bridge.Snooping = nil
	l.apply()
	l.send(1, stream(1))
	for _, at := range []uint16{2, 3, 4} {
		l.same(at, stream(1))
	}
	if members, _ := l.n.Namespace("blue").Groups("blue"); members != nil {
		t.Errorf("without snooping: %v", members)
	}
}

// TestQueriesWakeTheWorker, which sleeps in a network where nothing happens.
func TestQueriesWakeTheWorker(t *testing.T) {
	s := blue(2)
	s.Bridge.Snooping = &snoop.Config{Querier: true}
	l := newLab(t, Options{Workers: 2}, s)
	for range 2 {
		if got := l.await(1, patience); got == nil || got.SrcMAC() != gatewayMAC() {
			t.Fatalf("got %s, want a query", described(got))
		}
	}
}

func TestStaticStations(t *testing.T) {
	guest := pt.HW("02:00:00:00:09:09")
	s := vlans()
	s.Bridge.Static = []StationSpec{{MAC: guest, VLAN: 10, Port: 2}}
	l := stillLab(t, s)
	f := pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: guest})
	for range 2 {
		l.send(1, f)
		l.same(2, retagged(f, push(packet.EtherTypeVLAN, 10)))
		l.silent(1, 3, 5)
	}
	var got []string
	for _, e := range l.n.Namespace("blue").FDB("blue") {
		got = append(got, fmt.Sprintf("%s %d %d %s", e.MAC, e.VLAN, e.Port, e.Kind))
	}
	slices.Sort(got)
	want := []string{
		"02:00:00:00:00:01 0 100 own", "02:00:00:00:00:01 10 100 own",
		"02:00:00:00:01:01 10 1 static", "02:00:00:00:01:02 0 2 static", "02:00:00:00:01:03 10 3 static",
		"02:00:00:00:01:04 20 4 static", "02:00:00:00:01:05 0 5 static", "02:00:00:00:09:09 10 2 static",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestValidateBridging(t *testing.T) {
	group := func(g string, port uint16) func(*NetworkSpec) {
		return func(s *NetworkSpec) {
			s.Bridge.Snooping = &snoop.Config{}
			s.Bridge.Groups = append(s.Bridge.Groups, GroupSpec{Group: pt.IP(g), Port: port})
		}
	}
	static := func(e StationSpec) func(*NetworkSpec) {
		return func(s *NetworkSpec) { s.Bridge.Static = append(s.Bridge.Static, e) }
	}
	guest := pt.HW("02:00:00:00:09:09")
	for want, change := range map[string]func(*NetworkSpec){
		"port 1 (c): vlan: pvid 4095":            func(s *NetworkSpec) { s.Ports[0].VLAN.PVID = 4095 },
		"port 1 (c): vlan: vid 5-4":              func(s *NetworkSpec) { s.Ports[0].VLAN.Tagged = []bridge.VIDRange{{First: 5, Last: 4}} },
		"port 1 (c): flags: there is no flag":    func(s *NetworkSpec) { s.Ports[0].Flags = 1 << 15 },
		"port 1 (c): router: there is no mode 3": func(s *NetworkSpec) { s.Ports[0].Router = 3 },
		"port 2 (c): guardAddrs:":                func(s *NetworkSpec) { s.Ports[1].GuardAddrs = make([]netip.Prefix, 1) },
		"mirrorIn: a port can't be its own":      func(s *NetworkSpec) { s.Ports[0].MirrorIn = 1 },
		"mirrorOut: 100 is not a container's":    func(s *NetworkSpec) { s.Ports[0].MirrorOut = hostPort },
		"bridge: vlan: the gateway needs a pvid": func(s *NetworkSpec) { s.Bridge.VLAN.Tagged = []bridge.VIDRange{{First: 1, Last: 4}} },
		"bridge: vlan: vid 0-1":                  func(s *NetworkSpec) { s.Bridge.VLAN.Untagged = []bridge.VIDRange{{Last: 1}} },
		"bridge: snooping: robustness":           func(s *NetworkSpec) { s.Bridge.Snooping = &snoop.Config{Robustness: 8} },
		"bridge: snooping: addr4":                func(s *NetworkSpec) { s.Bridge.Snooping = &snoop.Config{Addr4: gateway6()} },
		"bridge: groups: snooping is off":        func(s *NetworkSpec) { s.Bridge.Groups = make([]GroupSpec, 1) },
		`bridge: groups: group "224.0.0.1"`:      group("224.0.0.1", 1),
		"bridge: groups: 239.1.1.1: 7 is not":    group("239.1.1.1", 7),
		"bridge: groups: port 1 is in":           func(s *NetworkSpec) { group("239.1.1.1", 1)(s); group("239.1.1.1", 1)(s) },
		"bridge: static: MAC ff:":                static(StationSpec{MAC: packet.Broadcast(), Port: 1}),
		"is the bridge's own":                    static(StationSpec{MAC: gatewayMAC(), VLAN: 7, Port: 1}),
		"vlan 4095 is not":                       static(StationSpec{MAC: guest, VLAN: 4095, Port: 1}),
		"7 is not a container's port":            static(StationSpec{MAC: guest, Port: 7}),
		"there is an entry of 02:00:00:00:01:02": static(StationSpec{MAC: mac(2), Port: 1}),
		"": func(s *NetworkSpec) {
			group("239.1.1.1", hostPort)(s)
			group("ff05::1", 2)(s)
			static(StationSpec{MAC: guest, Port: 1})(s)
			static(StationSpec{MAC: mac(2), VLAN: 5, Port: 1})(s)
			s.Bridge.VLAN.PVID = 3
			s.Ports[0].Flags, s.Ports[0].MirrorIn = bridge.AllFlags, 2
		},
	} {
		t.Run(want, func(t *testing.T) {
			s := blue(2)
			change(&s)
			err := (&Snapshot{Namespaces: []NamespaceSpec{alone(s)}}).Validate()
			if want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		})
	}
}
