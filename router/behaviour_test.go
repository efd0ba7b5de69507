// SPDX-License-Identifier: Apache-2.0

package router

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/neigh"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
	"sluice/trace"
)

func (l *lab) said(want ...string) {
	l.t.Helper()
	if diff := cmp.Diff(want, l.sink.take()); diff != "" {
		l.t.Errorf("sent (-want +got):\n%s", diff)
	}
}

func (l *lab) tick(now neigh.Tick) { l.r.Tick(now, int64(now)*1e9, l.sink) }

// A packet waits for its next hop, and goes when that answers.
func TestPacketWaitsForItsNeighbour(t *testing.T) {
	l := newLab(t, "")
	l.input(from4("10.2.0.77", 64, 100))
	l.sink.take()
	l.sink.answer()
	l.said("2 02:00:00:aa:00:02: ipv4 10.1.0.2:40000 > 10.2.0.77:80 udp ttl 63")
	if got := words(l.input(from4("10.2.0.77", 64, 100))); got != "forward 2 02:00:00:aa:00:02" {
		t.Error(got)
	}
}

// What the router makes of a packet has what rules said of that: one that waits for its
// neighbour or for the first fragment, and pieces.
func TestLabelsStay(t *testing.T) {
	l := newLab(t, "route add 10.9.0.0/16 via 10.2.0.3 mtu 600\nroute add default via 10.2.0.4\nroute add default via 10.2.0.3 table 7\nrule add dport 53 lookup 7")
	labelled := func(mark uint32, b []byte) Verdict {
		f := pt.Frame(b)
		f.Label = packet.Label{Mark: mark, Priority: 0x10020}
		return l.inputAs(f, Packet{Device: 1, Port: 100})
	}
	udp := func(h pt.IPv4Hdr, more ...pt.Layer) []byte {
		h.Src, h.Proto = pt.IP("10.1.0.2"), new(uint8(packet.ProtoUDP))
		return pt.Build(append([]pt.Layer{toA(), h}, more...)...)
	}
	labelled(1, from4("10.2.0.77", 64, 100))
	l.sink.take()
	l.sink.answer()
	l.said("2 02:00:00:aa:00:02: ipv4 10.1.0.2:40000 > 10.2.0.77:80 udp ttl 63 mark 1 priority 0x10020")

	labelled(2, udp(pt.IPv4Hdr{Dst: pt.IP("10.9.0.1")}, pt.UDPHdr{}, pt.Bytes(600)))
	l.said("2 02:00:00:00:02:03: ipv4 10.1.0.2:40000 > 10.9.0.1:80 udp ttl 63 fragment 0+576 mark 2 priority 0x10020",
		"2 02:00:00:00:02:03: ipv4 10.1.0.2 > 10.9.0.1 proto 17 ttl 63 fragment 576+32 mark 2 priority 0x10020")

	labelled(3, udp(pt.IPv4Hdr{Dst: pt.IP("10.8.0.1"), ID: 2, Offset: 104}, pt.Bytes(100)))
	labelled(4, udp(pt.IPv4Hdr{Dst: pt.IP("10.8.0.1"), ID: 2, MF: true},
		pt.UDPHdr{DstPort: 53, Len: new(uint16(204)), Checksum: new(uint16(0))}, pt.Bytes(96)))
	l.said("2 02:00:00:00:02:03: ipv4 10.1.0.2 > 10.8.0.1 proto 17 ttl 63 fragment 104+100 mark 3 priority 0x10020")
}

// Nobody answers: who sent the packet hears of it, and its port has a drop more.
func TestNeighbourThatDoesNotAnswer(t *testing.T) {
	l := newLab(t, "")
	l.input(from4("10.2.0.77", 64, 100))
	l.input(from6("fd02::77", 64, 100))
	for now := neigh.Tick(1); now < 6; now++ {
		l.tick(now)
	}
	said := slices.DeleteFunc(l.sink.take(), func(s string) bool { return strings.Contains(s, "arp") || strings.Contains(s, "type 135") })
	slices.Sort(said)
	want := []string{
		toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 1 ttl 64",
		toC1 + "ipv6 fd01::1 > fd01::2 icmp type 1 code 3 ttl 64",
		"lost 1 of 100: neigh_failed", "lost 1 of 100: neigh_failed",
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

// Of two gateways one fails: its flows, and only they, move, and return with it.
func TestNextHopThatFails(t *testing.T) {
	l := newLab(t, "route add 10.9.0.0/16 nexthop via 10.2.0.50 nexthop via 10.2.0.3")
	ways := func() (all []string) {
		for port := range uint16(64) {
			f := pt.Frame(pt.Build(toA(), pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP("10.9.0.1")}, pt.UDPHdr{SrcPort: 1000 + port}))
			all = append(all, words(l.inputAs(f, Packet{Device: 1, Port: 100})))
		}
		return all
	}
	known := ways()
	l.sink.answer()
	before := ways()
	if n := count(before, "forward 2 02:00:00:aa:00:02"); n == 0 || n != count(known, "consumed") {
		t.Fatalf("%d flows by the gateway that answered, %v", n, before)
	}
	l.r.Neigh().Flush(0, netip.Addr{})
	v := l.input(from4("10.9.0.1", 64, 100))
	ways()
	for now := neigh.Tick(1); now < 6; now++ {
		l.tick(now)
	}
	if v.Epoch.Valid() {
		t.Error("the decision of before is valid though a next hop died")
	}
	after := ways()
	if n := count(after, "forward 2 02:00:00:00:02:03"); n != len(after) {
		t.Errorf("%d of %d flows by the gateway that is left", n, len(after))
	}
	for i := range before {
		if before[i] != after[i] && known[i] != "consumed" {
			t.Error("a flow of the living gateway moved")
		}
	}
	l.sink.asked, l.sink.devs = nil, nil
	for now := neigh.Tick(6); now < 12; now++ {
		l.tick(now)
	}
	if len(l.sink.asked) == 0 {
		t.Fatal("the dead gateway is not asked for")
	}
	l.sink.answer()
	l.tick(12)
	if diff := cmp.Diff(before, ways()); diff != "" {
		t.Errorf("flows (-before +when it is back):\n%s", diff)
	}
}

func count(list []string, s string) (n int) {
	for _, e := range list {
		if e == s {
			n++
		}
	}
	return n
}

// With no other way a packet is still tried where all next hops are dead.
func TestAllNextHopsFail(t *testing.T) {
	l := newLab(t, "route add 10.9.0.0/16 nexthop via 10.2.0.50 nexthop via 10.2.0.51")
	for range 2 {
		for port := range uint16(16) {
			l.inputAs(pt.Frame(pt.Build(toA(), pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP("10.9.0.1")}, pt.UDPHdr{SrcPort: 1000 + port})), Packet{Device: 1, Port: 100})
		}
		for now := neigh.Tick(1); now < 6; now++ {
			l.tick(now)
		}
	}
	if n := len(l.r.state.Load().dead); n != 2 {
		t.Fatalf("%d dead", n)
	}
	if got := words(l.input(from4("10.9.0.1", 64, 100))); got != "consumed" {
		t.Error(got)
	}
}

// TestFragmentsThatAreAskedAboutTwice, since the port behind their next hop has a
// smaller MTU than its network, are followed once.
func TestFragmentsThatAreAskedAboutTwice(t *testing.T) {
	l := newLab(t, "route add 10.9.0.0/16 nexthop via 10.2.0.3 nexthop via 10.2.0.4")
	for _, tt := range []struct {
		offset uint16
		more   bool
	}{{0, true}, {800, false}} {
		h := pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP("10.9.0.1"), ID: 7, Offset: tt.offset, MF: tt.more, Proto: new(uint8(17))}
		b := pt.Build(toA(), h, pt.Bytes(800))
		if tt.offset == 0 {
			b = pt.Build(toA(), h, pt.UDPHdr{}, pt.Bytes(792))
		}
		v := l.input(b)
		if v.Action != Forward {
			t.Fatal("the first time:", words(v))
		}
		again := l.inputAs(pt.Frame(b), Packet{Device: 1, Port: 100, Limit: 700, Ports: v.Ports})
		if got := words(again); got != "consumed" {
			t.Errorf("offset %d: the second time: %s", tt.offset, got)
		}
		if said := l.sink.take(); len(said) != 2 || !strings.Contains(said[0], v.Dst.String()) {
			t.Errorf("offset %d: sent %v", tt.offset, said)
		}
	}
	if c := l.r.fragments.Counts(); c.Datagrams != 0 {
		t.Errorf("left: %+v", c)
	}
}

// Fragments are decided upon by the ports of their flow, in whatever order they come.
func TestFragmentsHaveThePortsOfTheirFlow(t *testing.T) {
	fragment := func(id uint16, offset uint16, more bool) *packet.Frame {
		layers := []pt.Layer{toA(), pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP("10.9.0.1"), ID: id, MF: more, Offset: offset, Proto: new(uint8(17))}}
		if offset == 0 {
			return pt.Frame(pt.Build(append(layers, pt.UDPHdr{DstPort: 53, Len: new(uint16(204)), Checksum: new(uint16(0))}, pt.Bytes(96))...))
		}
		return pt.Frame(pt.Build(append(layers, pt.Bytes(100))...))
	}
	in := Packet{Device: 1, Port: 100}
	l := newLab(t, "route add default via 10.2.0.3\nroute add default via 10.2.0.4 table 7\nrule add dport 53 lookup 7")
	const byRule = "forward 2 02:00:00:00:02:04"
	if got := words(l.inputAs(fragment(1, 0, true), in)); got != byRule {
		t.Error("first:", got)
	}
	if got := words(l.inputAs(fragment(1, 104, false), in)); got != byRule {
		t.Error("later:", got)
	}
	if got := words(l.inputAs(fragment(2, 104, false), in)); got != "consumed" {
		t.Error("later before the first:", got)
	}
	l.said()
	if got := words(l.inputAs(fragment(2, 0, true), in)); got != byRule {
		t.Error("first after the later one:", got)
	}
	l.said("2 02:00:00:00:02:04: ipv4 10.1.0.2 > 10.9.0.1 proto 17 ttl 63 fragment 104+100")
	l.inputAs(fragment(3, 104, false), in)
	l.tick(100)
	l.said("lost 1 of 100: frag_limit")

	plain := newLab(t, "route add default via 10.2.0.3")
	if got := words(plain.inputAs(fragment(4, 104, false), in)); got != "forward 2 02:00:00:00:02:03" {
		t.Error("ports make no difference, but a later fragment is:", got)
	}
}

// What the own stack sends keeps its hop limit, and hears of errors itself.
func TestOwnStackSends(t *testing.T) {
	own := Packet{Device: 2, Local: true}
	at := func(src, dst string, size int, df bool) *packet.Frame {
		return pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: pt.IP(src), Dst: pt.IP(dst), TTL: 1, DF: df}, pt.UDPHdr{}, pt.Bytes(size-28)))
	}
	l := newLab(t, "route add prohibit 10.9.0.0/16\nrule add iif lo to 10.8.0.0/16 blackhole")
	v := l.inputAs(at("10.1.0.1", "10.2.0.2", 100, true), own)
	if words(v) != "forward 2 02:00:00:00:02:02" || v.TTL {
		t.Errorf("%s, takes from the hop limit: %v", words(v), v.TTL)
	}
	for _, tc := range []struct {
		frame *packet.Frame
		want  string
		said  []string
	}{
		{at("10.1.0.1", "10.9.0.1", 100, true), "drop prohibit", []string{"local 1: ipv4 10.9.0.1 > 10.1.0.1 icmp type 3 code 13 ttl 64"}},
		{at("10.2.0.1", "8.8.8.8", 100, true), "drop no_route", []string{"local 2: ipv4 8.8.8.8 > 10.2.0.1 icmp type 3 code 0 ttl 64"}},
		{at("10.2.0.1", "10.2.0.2", 1401, true), "drop frag_needed", []string{"local 2: ipv4 10.2.0.2 > 10.2.0.1 icmp type 3 code 4 ttl 64 info 0x578"}},
		{at("10.2.0.1", "10.2.0.2", 1404, false), "consumed", []string{
			"2 02:00:00:00:02:02: ipv4 10.2.0.1:40000 > 10.2.0.2:80 udp ttl 1 fragment 0+1376",
			"2 02:00:00:00:02:02: ipv4 10.2.0.1 > 10.2.0.2 proto 17 ttl 1 fragment 1376+8",
		}},
		{at("10.2.0.1", "10.8.0.1", 100, true), "drop blackhole", nil},
		{at("10.2.0.1", "10.1.0.1", 100, true), "deliver 1", nil},
	} {
		if got := words(l.inputAs(tc.frame, own)); got != tc.want {
			t.Errorf("%s, want %s", got, tc.want)
		}
		l.said(tc.said...)
	}
	l.inputAs(at("10.1.0.1", "10.2.0.88", 100, true), own)
	for now := neigh.Tick(1); now < 6; now++ {
		l.tick(now)
	}
	said := slices.DeleteFunc(l.sink.take(), func(s string) bool { return strings.Contains(s, "arp") })
	if diff := cmp.Diff([]string{"local 1: ipv4 10.2.0.88 > 10.1.0.1 icmp type 3 code 1 ttl 64", "lost 1 of 0: neigh_failed"}, said); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

// An error goes over a link as it goes anywhere, without MAC addresses.
func TestErrorOverALink(t *testing.T) {
	l := newLab(t, "")
	b := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: pt.IP("10.3.0.9"), Dst: pt.IP("8.8.8.8")}, pt.UDPHdr{})
	if got := words(l.inputAs(pt.Frame(b), Packet{Device: 3})); got != "drop no_route" {
		t.Error(got)
	}
	l.said("3 00:00:00:00:00:00: ipv4 10.3.0.1 > 10.3.0.9 icmp type 3 code 0 ttl 64")
}

// Two networks with the same addresses, each in its VRF, do not see each other.
func TestVRFs(t *testing.T) {
	same := func(l *lab) {
		l.spec.Devices[1].Addrs = slices.Clone(l.spec.Devices[0].Addrs)
		l.spec.Devices[0].VRF, l.spec.Devices[1].VRF = 10, 11
		for i := range l.conf.Neighbours {
			if n := &l.conf.Neighbours[i]; n.Device == 2 {
				n.Addr = netip.MustParseAddr(strings.NewReplacer("10.2.", "10.1.", "fd02", "fd01").Replace(n.Addr.String()))
			}
		}
	}
	l := newLab(t, "route add 10.9.0.0/16 via 10.1.0.3 dev b table 11", same)
	for dev, want := range map[uint16]string{1: "drop no_route", 2: "forward 2 02:00:00:00:02:03"} {
		if got := words(l.inputAs(pt.Frame(from4("10.9.0.1", 64, 100)), Packet{Device: dev})); got != want {
			t.Errorf("device %d: %s", dev, got)
		}
		if got := words(l.inputAs(pt.Frame(from4("10.1.0.1", 64, 100)), Packet{Device: dev})); got != map[uint16]string{1: "deliver 1", 2: "deliver 2"}[dev] {
			t.Errorf("device %d, own address: %s", dev, got)
		}
	}
	// The error and the redirect go back into the VRF that the packet came from.
	l.sink.take()
	l.inputAs(pt.Frame(from4("8.8.8.8", 64, 100)), Packet{Device: 2})
	l.said("2 02:00:00:00:02:02: ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 0 ttl 64")
}

func TestMSS(t *testing.T) {
	syn := func(dst string) []byte {
		return pt.Build(toA(), pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP(dst)}, pt.TCPHdr{Flags: pt.SYN, Options: []byte{2, 4, 5, 180}})
	}
	syn6 := pt.Build(toA(), pt.IPv6Hdr{Src: pt.IP("fd01::2"), Dst: pt.IP("fd02::2")}, pt.TCPHdr{Flags: pt.SYN})
	for _, tc := range []struct {
		name, conf string
		a, b       uint16
		frame      []byte
		want       uint16
	}{
		{"off", "", 0, 0, syn("10.2.0.2"), 0},
		{"to the MTU", "", 0, 1, syn("10.2.0.2"), 1360},
		{"to the MTU, IPv6", "", 1, 0, syn6, 1340},
		{"to the route's MTU", "route add 10.9.0.0/16 via 10.2.0.2 mtu 1000", 1, 0, syn("10.9.0.1"), 960},
		{"to the MTU of the way back", "route add 10.1.0.2/32 dev a mtu 900", 1, 0, syn("10.2.0.2"), 860},
		{"to a number", "", 1300, 1, syn("10.2.0.2"), 1300},
		{"a datagram", "", 1300, 1300, from4("10.2.0.2", 64, 100), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t, tc.conf, func(l *lab) { l.spec.Devices[0].ClampMSS, l.spec.Devices[1].ClampMSS = tc.a, tc.b })
			if v := l.input(tc.frame); v.MSS != tc.want || v.Action != Forward {
				t.Errorf("%s, MSS %d, want %d", words(v), v.MSS, tc.want)
			}
		})
	}
	l := newLab(t, "", func(l *lab) { l.spec.Devices[1].ClampMSS = 1200 })
	l.input(syn("10.2.0.77"))
	l.sink.answer()
	if len(l.sink.events) != 1 || !strings.Contains(l.sink.events[0], "02 04 04 b0") {
		t.Error("a SYN that waited is not clamped:", l.sink.events)
	}
}

// What is behind a port of a bridge may be smaller than the bridge.
func TestTooBigForAPort(t *testing.T) {
	for _, tc := range []struct {
		name  string
		edit  func(*lab)
		frame []byte
		done  bool
		said  []string
	}{
		{"IPv4", nil, from4("10.1.0.3", 64, 1400), true, []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 4 ttl 64 info 0x3e8"}},
		{"that may be fragmented", nil, from4("10.1.0.3", 64, 1400, mayFragment), false, nil},
		{"IPv6", nil, from6("fd01::3", 64, 1400), true, []string{toC1 + "ipv6 fd01::1 > fd01::2 icmp type 2 code 0 ttl 64 info 0x500"}},
		{"a gateway without an address", func(l *lab) { l.spec.Devices = []Device{{Index: 1, Name: "a", MTU: 1500}} }, from4("10.1.0.3", 64, 1400), true, []string{toC1 + "ipv4 192.0.0.8 > 10.1.0.2 icmp type 3 code 4 ttl 64 info 0x3e8"}},
		{"a gateway without an address, IPv6", func(l *lab) { l.spec.Devices = []Device{{Index: 1, Name: "a", MTU: 1500}} }, from6("fd01::3", 64, 1400), true, nil},
		{"about an error", nil, pt.Build(toA(), pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP("10.1.0.3"), DF: true}, pt.ICMPHdr{Type: 3}, pt.Bytes(1300)), true, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var edits []func(*lab)
			if tc.edit != nil {
				edits = append(edits, tc.edit)
			}
			l := newLab(t, "", edits...)
			if done := l.r.TooBig(&Packet{Frame: pt.Frame(tc.frame), Device: 1, Port: 100}, 1000, l.sink); done != tc.done {
				t.Errorf("done: %v", done)
			}
			l.said(tc.said...)
		})
	}
}

// A train of datagrams that are too big is cut into datagrams, and each of them
// into fragments.
func TestTrainThatDoesNotFit(t *testing.T) {
	l := newLab(t, "route add 10.9.0.0/16 via 10.2.0.3 mtu 600")
	b := pt.Build(toA(), pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP("10.9.0.1"), DF: false}, pt.UDPHdr{}, pt.Bytes(2000))
	if got := words(l.inputAs(pt.GSO(b, 1000), Packet{Device: 1, Port: 100})); got != "consumed" {
		t.Error(got)
	}
	said := l.sink.take()
	if len(said) != 4 {
		t.Errorf("%d fragments: %v", len(said), said)
	}
	b = pt.Build(toA(), pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP("10.9.0.1"), DF: true}, pt.TCPHdr{}, pt.Bytes(4000))
	if got := words(l.inputAs(pt.GSO(b, 1000), Packet{Device: 1, Port: 100})); got != "drop frag_needed" {
		t.Error(got)
	}
	if got := words(l.inputAs(pt.GSO(b, 500), Packet{Device: 1, Port: 100})); got != "forward 2 02:00:00:00:02:03" {
		t.Error("segments that fit:", got)
	}
}

// A decision holds until the configuration changes.
func TestEpoch(t *testing.T) {
	l := newLab(t, "")
	v := l.input(from4("10.2.0.2", 64, 100))
	if !v.Cacheable || !v.Epoch.Valid() || !v.Neigh.Valid() || !v.TTL || v.MTU != 1400 {
		t.Errorf("%+v", v)
	}
	change := l.r.Prepare(&l.conf)
	if !v.Epoch.Valid() {
		t.Error("Prepare had an effect")
	}
	change.Commit()
	if v.Epoch.Valid() || !l.input(from4("10.2.0.2", 64, 100)).Epoch.Valid() {
		t.Error("the epoch did not change with the configuration")
	}
	if (Epoch{}).Valid() {
		t.Error("no epoch is valid")
	}
	if d := l.input(from4("10.1.0.1", 64, 100)); !d.Cacheable || !d.Epoch.Valid() {
		t.Errorf("%+v", d)
	}
	for name, v := range map[string]Verdict{
		"options":         l.input(from4("10.2.0.2", 64, 100, options(148, 4, 0, 0))),
		"redirect":        newLab(t, "route add 10.9.0.0/16 via 10.1.0.3").input(from4("10.9.0.1", 64, 100)),
		"type of service": newLab(t, "rule add tos 0x10 lookup 7").input(from4("10.2.0.2", 64, 100)),
	} {
		if v.Cacheable || v.Action != Forward {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestAsk(t *testing.T) {
	l := newLab(t, "route add 10.9.0.0/16 via 10.2.0.3 mtu 1000\nroute add blackhole 10.8.0.0/16\nroute add 2001:db8::/32 via fe80::4 dev b", strict)
	for _, tc := range []struct {
		line, text string
		reason     trace.Reason
		src        string
		mtu        int
		state      neigh.State
	}{
		{"10.9.0.1", "10.9.0.1 via 10.2.0.3 dev b table main src 10.2.0.1 mtu 1000", 0, "10.2.0.1", 1000, neigh.Permanent},
		{"2001:db8::1", "2001:db8::1 via fe80::4 dev b table main src fd02::1", 0, "fd02::1", 1400, neigh.Permanent},
		{"10.2.0.99 from 10.1.0.5 iif a", "10.2.0.99 from 10.1.0.5 iif a dev b table main", 0, "", 1400, neigh.None},
		{"10.1.0.99 from 10.1.0.5 iif a", "10.1.0.99 from 10.1.0.5 iif a dev a table main", 0, "", 1500, neigh.None}, // a redirect
		{"10.2.0.99 from 10.2.0.5 iif a", "10.2.0.99 from 10.2.0.5 iif a dev b table main", trace.ReversePath, "", 1400, neigh.None},
		{"10.2.0.99 from 127.0.0.1 iif a", "10.2.0.99 from 127.0.0.1 iif a dev b table main", trace.MartianSource, "", 1400, neigh.None},
		{"10.8.0.1", "blackhole 10.8.0.1 table main", trace.Blackhole, "", 0, neigh.None},
		{"8.8.8.8", "unreachable 8.8.8.8", trace.NoRoute, "", 0, neigh.None},
		{"10.2.0.1", "local 10.2.0.1 dev b table local src 10.2.0.1", 0, "10.2.0.1", 1400, neigh.None},
	} {
		q, err := routing.ParseQuestion(tc.line)
		if err != nil {
			t.Fatal(err)
		}
		a, err := l.r.Ask(q)
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(a.Text(nil, q), "\n")
		src := ""
		if a.Src.IsValid() {
			src = a.Src.String()
		}
		if text != tc.text || a.Reason != tc.reason || src != tc.src || a.MTU != tc.mtu || a.Neighbour != tc.state {
			t.Errorf("%s: %q, %v, source %v, MTU %d, neighbour %v", tc.line, text, a.Reason, src, a.MTU, a.Neighbour)
		}
	}
	if _, err := l.r.Ask(&routing.Question{Query: routing.Query{Dst: pt.IP("10.9.0.1")}, From: "nobody"}); !errors.Is(err, routing.ErrDevice) {
		t.Error(err)
	}
}

func TestWhatASetCannotBe(t *testing.T) {
	route := func(l string) routing.Route {
		c, err := routing.ParseRoute("add " + l)
		if err != nil {
			t.Fatal(err)
		}
		return *c.Route
	}
	_, err := BuildSet(&Spec{Devices: labDevices(), Routes: []routing.Route{route("10.9.0.0/16 via 10.1.0.2"), route("10.8.0.0/16 via 10.9.9.9")}})
	r, ok := errors.AsType[*RouteError](err)
	if !ok || r.Index != 1 || !errors.Is(err, routing.ErrGateway) || !strings.Contains(err.Error(), "10.8.0.0/16 via 10.9.9.9") {
		t.Error(err)
	}
	_, err = BuildSet(&Spec{Devices: labDevices(), Rules: []routing.Rule{{Table: routing.TableLocal}, {TOS: 3}}})
	if r, ok := errors.AsType[*RuleError](err); !ok || r.Index != 1 {
		t.Error(err)
	}
	twice := labDevices()
	twice[1].Index = 1
	if _, err = BuildSet(&Spec{Devices: twice}); !errors.Is(err, routing.ErrExist) || !strings.Contains(err.Error(), `device "b"`) {
		t.Error(err)
	}
	s, err := BuildSet(&Spec{Devices: labDevices(), Rules: []routing.Rule{}})
	if err != nil || len(s.Rules(routing.IPv4))+len(s.Rules(routing.IPv6)) != 0 {
		t.Error("no rules at all:", err)
	}
}

// The namespace takes the source that RFC 6724 says.
func TestSource6(t *testing.T) {
	dev := func(index uint16, addrs ...string) Device {
		d := Device{Index: index, MTU: 1500}
		for _, a := range addrs {
			d.Addrs = append(d.Addrs, netip.MustParsePrefix(a))
		}
		return d
	}
	for _, tc := range []struct {
		name, dst, want string
		devs            []Device
	}{
		{"smallest scope that is enough", "2001:db8::9", "2001:db8:1::1", []Device{dev(1, "fe80::1/64", "2001:db8:1::1/64")}},
		{"link-local for link-local", "fe80::9", "fe80::1", []Device{dev(1, "2001:db8:1::1/64", "fe80::1/64")}},
		{"only a link-local one", "2001:db8::9", "fe80::1", []Device{dev(1, "fe80::1/64")}},
		{"none at all", "2001:db8::9", "invalid IP", []Device{dev(1)}},
		{"the output device's", "2001:db8:2::9", "2001:db8:1::1", []Device{dev(1, "2001:db8:1::1/64"), dev(2, "2001:db8:2::1/64")}},
		{"another device's before a link-local one", "2001:db8:2::9", "2001:db8:2::1", []Device{dev(1, "fe80::1/64"), dev(2, "2001:db8:2::1/64")}},
		{"the same label", "fd00::9", "fd00:1::1", []Device{dev(1, "2001:db8:1::1/64", "fd00:1::1/64", "2001:db8:2::1/64")}},
		{"the longest prefix", "2001:db8:2::9", "2001:db8:2::1", []Device{dev(1, "2001:db8:2::1/64", "2001:db8:1::1/64")}},
		{"the newest of equals", "2001:db8:2::9", "2001:db8:2::2", []Device{dev(1, "2001:db8:2::1/64", "2001:db8:2::2/64")}},
	} {
		st := &state{devices: newDevices(tc.devs)}
		if got := st.source6(st.byIndex[1], pt.IP(tc.dst)); got.String() != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
