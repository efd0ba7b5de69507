// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"fmt"
	"math"
	"net/netip"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

const serviceID = 5

func backends(n int) []nat.Backend {
	var all []nat.Backend
	for i := range n {
		all = append(all, nat.Backend{
			Bind: conntrack.Bind{ID: uint16(100 + i), Gen: 1}, Port: 8080,
			Addr: netip.AddrFrom4([4]byte{10, 2, byte(i / 200), byte(2 + i%200)}),
		})
	}
	return all
}

func balanced(t *testing.T, s nat.Service) *world {
	t.Helper()
	s.ID = serviceID
	w := newWorld(t, nat.ZoneConfig{}, nat.Rule{
		Hook: nat.Prerouting, Kind: nat.DNAT, Map: &nat.Map{By: nat.ByDstAddr | nat.ByDstPort | nat.ByProto, Elements: map[nat.MapKey]nat.Target{
			{Addr: netip.MustParseAddr("198.51.100.10"), Port: 80, Proto: packet.ProtoTCP}: {Service: serviceID},
		}},
	})
	if err := w.n.SetService(s); err != nil {
		t.Fatal(err)
	}
	return w
}

// spread is which backend each of n connections would go to; nothing is confirmed.
func spread(w *world, n int) []netip.Addr {
	var to []netip.Addr
	for i := range n {
		f, v := w.begin(tuple(packet.ProtoTCP, fmt.Sprintf("10.1.%d.%d:%d", 1+i/250%250, 1+i%250, 1024+i%60000), "198.51.100.10:80"))
		if v.Reason != trace.None {
			w.tb.Fatal(v.Reason)
		}
		to = append(to, f.Pending.Out().Dst)
	}
	return to
}

func count(of []netip.Addr) map[netip.Addr]int {
	n := map[netip.Addr]int{}
	for _, a := range of {
		n[a]++
	}
	return n
}

func TestBackendsShareConnections(t *testing.T) {
	b := backends(10)
	b[3].Weight, b[4].Weight = 1, 1
	for i := range b {
		if i != 3 && i != 4 {
			b[i].Weight = 3
		}
	}
	w := balanced(t, nat.Service{Backends: b})
	const n = 13_000
	got := count(spread(w, n))
	for i := range b {
		want := float64(n) * float64(b[i].Weight) / 26
		if x := float64(got[b[i].Addr]); math.Abs(x-want) > 5*math.Sqrt(want)+0.03*want {
			t.Errorf("backend %d: %v connections, want %v", i, x, want)
		}
	}
	if _, dst := w.tcp("10.1.0.2:4000", "198.51.100.10:80"); port(dst) != 8080 {
		t.Errorf("port: %s", dst)
	}
}

// TestFewFlowsMove: what the paper calls disruption, here without the moves that
// nobody can avoid.
func TestFewFlowsMove(t *testing.T) {
	w := balanced(t, nat.Service{Backends: backends(20)})
	before := spread(w, 5000)
	fewer := append(backends(20)[:7], backends(20)[8:]...)
	if err := w.n.SetService(nat.Service{ID: serviceID, Backends: fewer}); err != nil {
		t.Fatal(err)
	}
	after := spread(w, 5000)
	gone, moved := backends(20)[7].Addr, 0
	for i := range before {
		switch {
		case after[i] == gone:
			t.Fatal("a flow goes to who is gone")
		case before[i] != gone && before[i] != after[i]:
			moved++
		}
	}
	if moved > 5000*4/100 {
		t.Errorf("%d of 5000 flows moved for nothing", moved)
	}
	// The order of the list says nothing.
	back := backends(20)
	back[0], back[19] = back[19], back[0]
	if err := w.n.SetService(nat.Service{ID: serviceID, Backends: back}); err != nil {
		t.Fatal(err)
	}
	for i, a := range spread(w, 500) {
		if a != before[i] {
			t.Fatal("another order moves flows")
		}
	}
}

func TestAffinity(t *testing.T) {
	w := balanced(t, nat.Service{Backends: backends(10), Affinity: 30})
	to := func(p int) string {
		_, dst := w.tcp(fmt.Sprintf("10.1.0.2:%d", p), "198.51.100.10:80")
		return host(dst)
	}
	first := to(4000)
	for i := range 20 {
		w.pass(20) // each connection renews it
		if got := to(4001 + i); got != first {
			t.Fatalf("connection %d goes to %s, before to %s", i, got, first)
		}
	}
	// Its backend is gone: it gets another, and stays there when the first is back.
	var fewer []nat.Backend
	for _, b := range backends(10) {
		if b.Addr.String() != first {
			fewer = append(fewer, b)
		}
	}
	set := func(b []nat.Backend) {
		if err := w.n.SetService(nat.Service{ID: serviceID, Backends: b, Affinity: 30}); err != nil {
			t.Fatal(err)
		}
	}
	set(fewer)
	second := to(5000)
	if second == first {
		t.Fatal("goes to who is gone")
	}
	set(backends(10))
	if got := to(5001); got != second {
		t.Errorf("moved back to %s", got)
	}
	w.pass(31)
	if got := to(5002); got != first {
		t.Errorf("after its time the hash decides: %s, want %s", got, first)
	}
	if s := w.n.Stats(); s.Clients != 1 {
		t.Errorf("%d clients", s.Clients)
	}
	w.pass(31)
	if s := w.n.Stats(); s.Clients != 0 {
		t.Errorf("%d clients after their time", s.Clients)
	}
}

func TestAnotherGenerationIsAnotherBackend(t *testing.T) {
	w := balanced(t, nat.Service{Backends: backends(1), Affinity: 30})
	f, _ := w.begin(tuple(packet.ProtoTCP, "10.1.0.2:4000", "198.51.100.10:80"))
	if f.Pending.Backend != (conntrack.Bind{ID: 100, Gen: 1}) {
		t.Errorf("connection dies with %+v", f.Pending.Backend)
	}
	b := backends(1)
	b[0].Bind.Gen = 2
	_ = w.n.SetService(nat.Service{ID: serviceID, Backends: b, Affinity: 30})
	if f, _ = w.begin(tuple(packet.ProtoTCP, "10.1.0.2:4001", "198.51.100.10:80")); f.Pending.Backend.Gen != 2 {
		t.Errorf("connection dies with %+v", f.Pending.Backend)
	}
}

// TestConnectionsDieWithTheirBackend: at their next packet, without a sweep.
func TestConnectionsDieWithTheirBackend(t *testing.T) {
	w := balanced(t, nat.Service{Backends: backends(1)})
	w.table.SetBackend(100, 1)
	tu := tuple(packet.ProtoTCP, "10.1.0.2:4000", "198.51.100.10:80")
	w.must(packet.ProtoTCP, "10.1.0.2:4000", "198.51.100.10:80")
	c := w.conns[tu]
	if s := c.Packet(conntrack.Original, firstPacket(tu), w.now); s == conntrack.Gone {
		t.Fatal("gone too early")
	}
	w.table.SetBackend(100, conntrack.Never)
	if s := c.Packet(conntrack.Original, firstPacket(tu), w.now); s != conntrack.Gone {
		t.Errorf("still %v", s)
	}
}

func TestDraining(t *testing.T) {
	b := backends(3)
	b[1].State = nat.Draining
	w := balanced(t, nat.Service{Backends: b})
	if n := count(spread(w, 1000)); n[b[1].Addr] != 0 || len(n) != 2 {
		t.Errorf("new connections: %v", n)
	}
	for i := range b {
		b[i].State = nat.Draining
	}
	_ = w.n.SetService(nat.Service{ID: serviceID, Backends: b})
	if n := count(spread(w, 1000)); len(n) != 3 {
		t.Errorf("with no other, those that drain serve: %v", n)
	}
	_ = w.n.SetService(nat.Service{ID: serviceID})
	if _, v := w.begin(tuple(packet.ProtoTCP, "10.1.0.2:4000", "198.51.100.10:80")); v.Reason != trace.NATBackend || v.Reject != nat.PortUnreachable {
		t.Errorf("without backends: %+v", v)
	}
	w.n.RemoveService(serviceID)
	if _, v := w.begin(tuple(packet.ProtoTCP, "10.1.0.2:4000", "198.51.100.10:80")); v.Reason != trace.NATBackend {
		t.Errorf("without service: %+v", v)
	}
	if s := w.n.Stats(); s.NoBackend != 2 {
		t.Errorf("%d counted", s.NoBackend)
	}
}

func TestServicesAreRefused(t *testing.T) {
	n := nat.New(nat.Config{})
	twice := append(backends(2), backends(1)...)
	for name, s := range map[string]nat.Service{
		"no number": {Backends: backends(1)}, "size": {ID: 1, Table: 4094}, "too small": {ID: 1, Table: 251, Backends: backends(252)},
		"no address": {ID: 1, Backends: []nat.Backend{{}}}, "twice": {ID: 1, Backends: twice},
	} {
		if n.SetService(s) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestClientsAreBounded(t *testing.T) {
	w := balanced(t, nat.Service{Backends: backends(10), Affinity: 300})
	rules, _ := nat.Compile([]nat.Rule{{Hook: nat.Prerouting, Kind: nat.DNAT, Target: nat.Target{Service: serviceID}}})
	w.n = nat.New(nat.Config{Clients: 50})
	w.n.SetZone(zone, nat.ZoneConfig{Rules: rules})
	w.n.Attach(w.table, w.now)
	_ = w.n.SetService(nat.Service{ID: serviceID, Backends: backends(10), Affinity: 300})
	spread(w, 300)
	if s := w.n.Stats(); s.Clients != 50 {
		t.Errorf("%d clients", s.Clients)
	}
}

// TestNAT64Connections: the binding of RFC 6146, through conntrack.
func TestNAT64Connections(t *testing.T) {
	rule := nat.Rule{Hook: nat.Prerouting, Kind: nat.NAT64, Prefix: prefix64(), Target: nat.Target{Addrs: nat.One(pt.IP(pool4))}}
	w := newWorld(t, nat.ZoneConfig{Profile: nat.RFC, Filtering: nat.Endpoint}, rule)
	src, dst := w.udp("[fd44::5]:4000", "[64:ff9b::192.0.2.33]:80")
	if src != "203.0.113.1:4000" || dst != "192.0.2.33:80" {
		t.Fatalf("got %s > %s", src, dst)
	}
	other, _ := w.udp("[fd44::6]:4000", "[64:ff9b::192.0.2.34]:80")
	again, _ := w.udp("[fd44::6]:4000", "[64:ff9b::192.0.2.35]:80")
	if other == src || again != other {
		t.Errorf("mappings are %s, and %s and %s", src, other, again)
	}
	ping, _ := w.must(packet.ProtoICMPv6, "[fd44::5]:7", "[64:ff9b::192.0.2.33]:7")
	if ping != "203.0.113.1:7" {
		t.Errorf("ping leaves as %s", ping)
	}
	for proto6, proto4 := range map[uint8]uint8{packet.ProtoUDP: packet.ProtoUDP, packet.ProtoICMPv6: packet.ProtoICMP} {
		there := map[uint8]conntrack.Tuple{
			packet.ProtoUDP:    tuple(packet.ProtoUDP, "[fd44::5]:4000", "[64:ff9b::192.0.2.33]:80"),
			packet.ProtoICMPv6: tuple(packet.ProtoICMPv6, "[fd44::5]:7", "[64:ff9b::192.0.2.33]:7"),
		}[proto6]
		answered(t, w, there, proto4)
	}
	for _, bad := range []string{"[64:ff9b::127.0.0.1]:80", "[64:ff9b::224.0.0.1]:80", "[64:ff9b::]:80"} {
		if _, v := w.begin(tuple(packet.ProtoUDP, "[fd44::5]:9", bad)); v.Reason != trace.NATUntranslatable {
			t.Errorf("%s: %v", bad, v)
		}
	}
	w.restart(nat.ZoneConfig{}, w.table, rule) // in the kernel's profile, too
	if again, _ = w.udp("[fd44::6]:4000", "[64:ff9b::192.0.2.36]:80"); again != other {
		t.Errorf("mapping is %s after a restart, was %s", again, other)
	}
	if p := w.n.Prefix64(zone, pt.IP(server6)); p != prefix64() {
		t.Errorf("prefix is %v", p)
	}
	if dst, _ := w.udp("[fd44::5]:4000", "[fd44:2::1]:80"); dst != "[fd44::5]:4000" {
		t.Errorf("beside the prefix: %s", dst)
	}
}

// answered sends the first packet of a connection through and its answer back.
func answered(t *testing.T, w *world, there conntrack.Tuple, proto4 uint8) {
	t.Helper()
	c := w.conns[there]
	out, back := nat.Of(there, c.Out(conntrack.Original)), nat.Of(c.Tuple(conntrack.Reply), c.Out(conntrack.Reply))
	f := firstPacket(there)
	if !out.Translate(f, 1) || f.View.Proto != proto4 {
		t.Fatalf("refused: %s", pt.Describe(f.Bytes()))
	}
	reply := pt.Frame(replyTo(nil, f.Bytes()))
	v := w.table.Look(&conntrack.Packet{Frame: reply, Zone: zone, Now: w.now}, new(conntrack.Pending))
	if v.Conn != c || v.Dir != conntrack.Reply {
		t.Fatalf("answer %s is %+v", pt.Describe(reply.Bytes()), v)
	}
	if !back.Translate(reply, 1) || reply.View.DstAddr(reply.Bytes()) != there.Src || reply.View.SrcAddr(reply.Bytes()) != there.Dst {
		t.Fatalf("answer arrives as %s", pt.Describe(reply.Bytes()))
	}
	e := pt.Frame(errorAbout(f.Bytes(), pt.IP("198.51.100.9"), 100))
	v = w.table.Look(&conntrack.Packet{Frame: e, Zone: zone, Now: w.now}, new(conntrack.Pending))
	if v.Conn != c || !v.Error || v.Dir != conntrack.Reply {
		t.Fatalf("error %s is %+v", pt.Describe(e.Bytes()), v)
	}
	if !back.TranslateError(e, nat.Border{Prefix: prefix64()}, 0) || e.View.DstAddr(e.Bytes()) != there.Src {
		t.Fatalf("error arrives as %s", pt.Describe(e.Bytes()))
	}
}

func BenchmarkBegin(b *testing.B) {
	for name, z := range map[string]nat.ZoneConfig{"kernel": {}, "rfc": {Profile: nat.RFC}} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, z, masquerade())
			f := &nat.Flow{Pending: new(conntrack.Pending), In: inside, Out: outside, InAddr: own(inside, false), OutAddr: own(outside, false), Now: w.now}
			frame := firstPacket(tuple(packet.ProtoUDP, "10.1.0.2:4000", "192.0.2.1:53"))
			b.ReportAllocs()
			for b.Loop() {
				w.table.Look(&conntrack.Packet{Frame: frame, Zone: zone, Now: w.now}, f.Pending)
				w.n.Translate(nat.Prerouting, f)
				w.n.Translate(nat.Postrouting, f)
			}
		})
	}
}

func BenchmarkService(b *testing.B) {
	n := nat.New(nat.Config{})
	for b.Loop() { // a table of 65521
		if err := n.SetService(nat.Service{ID: 1, Backends: backends(200)}); err != nil {
			b.Fatal(err)
		}
	}
}
