// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

func TestMasqueradeKeepsThePortIfItCan(t *testing.T) {
	w := newWorld(t, nat.ZoneConfig{}, masquerade())
	if src, dst := w.udp("10.1.0.2:5000", "192.0.2.1:53"); src != "203.0.113.1:5000" || dst != "192.0.2.1:53" {
		t.Errorf("first: %s > %s", src, dst)
	}
	// Another host, same port: the port stays as long as the server is another.
	if src, _ := w.udp("10.1.0.3:5000", "192.0.2.2:53"); src != "203.0.113.1:5000" {
		t.Errorf("other server: %s", src)
	}
	clash, _ := w.udp("10.1.0.3:5000", "192.0.2.1:53")
	if host(clash) != "203.0.113.1" || port(clash) == 5000 || port(clash) < 1024 {
		t.Errorf("clash: %s", clash)
	}
	// find_appropriate_src: the next one has what the source has already.
	if again, _ := w.udp("10.1.0.3:5000", "192.0.2.77:53"); again != clash {
		t.Errorf("got %s, want %s as before", again, clash)
	}
}

func TestPortsStayInTheirClass(t *testing.T) {
	for _, tc := range []struct{ port, min, max uint16 }{{80, 1, 511}, {511, 1, 511}, {512, 600, 1023}, {700, 600, 1023}, {1023, 600, 1023}, {1024, 1024, 65535}, {60000, 1024, 65535}} {
		w := newWorld(t, nat.ZoneConfig{}, masquerade())
		for i := range 300 {
			src, _ := w.tcp(fmt.Sprintf("10.1.%d.%d:%d", 1+i/200, 1+i%200, tc.port), "192.0.2.1:80")
			if p := port(src); i > 0 && (p < tc.min || p > tc.max) || i == 0 && p != tc.port {
				t.Fatalf("port %d became %d", tc.port, p)
			}
		}
	}
}

// TestExhaustion: where the kernel searches 128 ports and then some, a small range
// is used up to the last; the packet is dropped, and in the RFC profile its sender
// is told (RFC 5508 REQ-8).
func TestExhaustion(t *testing.T) {
	for name, tc := range map[string]struct {
		profile nat.Profile
		reject  nat.Reject
	}{"kernel": {nat.Kernel, nat.Silent}, "rfc": {nat.RFC, nat.Prohibited}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nat.ZoneConfig{Profile: tc.profile}, snat("203.0.113.5", "203.0.113.5", nat.PortRange{Min: 2000, Max: 2099}))
			seen := map[string]bool{}
			for i := range 100 {
				src, _ := w.udp(fmt.Sprintf("10.1.0.2:%d", 3000+i), "192.0.2.1:53")
				if seen[src] || port(src) < 2000 || port(src) > 2099 {
					t.Fatalf("connection %d: %s", i, src)
				}
				seen[src] = true
			}
			_, v := w.connect(tuple(packet.ProtoUDP, "10.1.0.2:9", "192.0.2.1:53"))
			if v.Reason != trace.NATExhausted || v.Reject != tc.reject {
				t.Errorf("got %v, want exhausted", v)
			}
			if s := w.n.Stats(); s.Exhausted != 1 {
				t.Errorf("%d counted", s.Exhausted)
			}
			w.end(packet.ProtoUDP, "10.1.0.2:3007", "192.0.2.1:53")
			w.pass(3)
			w.udp("10.1.0.2:9", "192.0.2.1:53")
			if tc.profile == nat.Kernel {
				// Another server has all the ports once more.
				w.udp("10.1.0.2:10", "192.0.2.2:53")
			}
		})
	}
}

func TestRandomIsRandom(t *testing.T) {
	r := masquerade()
	r.Random = true
	w := newWorld(t, nat.ZoneConfig{}, r)
	kept, low := 0, 0
	for i := range 500 {
		src, _ := w.udp(fmt.Sprintf("10.1.0.2:%d", 20000+i), "192.0.2.1:53")
		if int(port(src)) == 20000+i {
			kept++
		}
		if port(src) < 32768 {
			low++
		}
	}
	if kept > 5 || low < 150 || low > 350 {
		t.Errorf("%d kept, %d in the lower half", kept, low)
	}
}

func TestPersistentSourcesKeepTheirAddress(t *testing.T) {
	for _, persistent := range []bool{false, true} {
		r := snat("203.0.113.16", "203.0.113.31", nat.PortRange{})
		r.Persistent = persistent
		w := newWorld(t, nat.ZoneConfig{}, r)
		seen, pool := map[string]bool{}, map[string]bool{}
		for i := range 200 {
			src, _ := w.udp(fmt.Sprintf("10.1.0.2:%d", 2000+i), fmt.Sprintf("192.0.2.%d:53", 1+i))
			seen[host(src)] = true
			src, _ = w.udp(fmt.Sprintf("10.1.1.%d:2000", 1+i), "192.0.2.1:53")
			pool[host(src)] = true
		}
		if (len(seen) == 1) != persistent {
			t.Errorf("persistent %v: %d addresses", persistent, len(seen))
		}
		if len(pool) != 16 {
			t.Errorf("persistent %v: %d of the pool's 16 addresses are used", persistent, len(pool))
		}
		// The same again after a restart.
		w.n = nil
		src, _ := newWorld(t, nat.ZoneConfig{}, r).udp("10.1.0.2:2000", "192.0.2.1:53")
		if persistent && !seen[host(src)] {
			t.Error("another address after a restart")
		}
	}
}

func TestRules(t *testing.T) {
	addr := func(s string) nat.Target { return nat.Target{Addrs: nat.One(netip.MustParseAddr(s))} }
	tcp := []uint8{packet.ProtoTCP}
	published := nat.Rule{Hook: nat.Prerouting, Kind: nat.DNAT, Match: nat.Match{Own: nat.Yes, Protos: tcp}, Map: &nat.Map{
		By: nat.ByDstPort | nat.ByProto,
		Elements: map[nat.MapKey]nat.Target{
			{Port: 8080, Proto: packet.ProtoTCP}: {Addrs: nat.One(netip.MustParseAddr("10.1.0.2")), Ports: nat.PortRange{Min: 80, Max: 80}},
		},
	}}
	for name, tc := range map[string]struct {
		rules              []nat.Rule
		src, dst           string
		wantSrc, wantDst   string
		wantSrcNot, reason string
	}{
		"published port": {
			[]nat.Rule{published, masquerade()},
			"192.0.2.1:4000", "203.0.113.1:8080", "192.0.2.1:4000", "10.1.0.2:80", "", "",
		},
		"published port that isn't": {
			[]nat.Rule{published}, "192.0.2.1:4000", "203.0.113.1:8081", "192.0.2.1:4000", "203.0.113.1:8081", "", "",
		},
		"hairpin": {
			[]nat.Rule{published, {Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Hairpin: nat.Yes}}},
			"10.1.0.3:4000", "203.0.113.1:8080", "10.1.0.1:4000", "10.1.0.2:80", "", "",
		},
		"from another network, no hairpin": {
			[]nat.Rule{published, {Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Hairpin: nat.Yes}}},
			"10.2.0.3:4000", "203.0.113.1:8080", "10.2.0.3:4000", "10.1.0.2:80", "", "",
		},
		"dnat by map of address and port": {
			[]nat.Rule{{Hook: nat.Prerouting, Kind: nat.DNAT, Map: &nat.Map{By: nat.ByDstAddr | nat.ByDstPort, Elements: map[nat.MapKey]nat.Target{
				{Addr: netip.MustParseAddr("203.0.113.1"), Port: 443}: {Addrs: nat.One(netip.MustParseAddr("10.1.0.4")), Ports: nat.PortRange{Min: 8443, Max: 8443}},
			}}}},
			"192.0.2.1:4000", "203.0.113.1:443", "192.0.2.1:4000", "10.1.0.4:8443", "", "",
		},
		"shifted range": {
			[]nat.Rule{{
				Hook: nat.Prerouting, Kind: nat.DNAT, Shift: true, Match: nat.Match{Protos: tcp, DstPorts: []nat.PortRange{{Min: 5000, Max: 5099}}},
				Target: nat.Target{Addrs: nat.One(netip.MustParseAddr("10.1.0.4")), Ports: nat.PortRange{Min: 6000, Max: 6099}},
			}},
			"192.0.2.1:4000", "203.0.113.1:5042", "192.0.2.1:4000", "10.1.0.4:6042", "", "",
		},
		"redirect": {
			[]nat.Rule{{
				Hook: nat.Prerouting, Kind: nat.Redirect, Match: nat.Match{Protos: tcp, DstPorts: []nat.PortRange{{Min: 80, Max: 80}}},
				Target: nat.Target{Ports: nat.PortRange{Min: 3128, Max: 3128}},
			}},
			"10.1.0.2:4000", "192.0.2.1:80", "10.1.0.2:4000", "10.1.0.1:3128", "", "",
		},
		"port only": {
			[]nat.Rule{{Hook: nat.Prerouting, Kind: nat.DNAT, Target: nat.Target{Ports: nat.PortRange{Min: 81, Max: 81}}}},
			"10.1.0.2:4000", "192.0.2.1:80", "10.1.0.2:4000", "192.0.2.1:81", "", "",
		},
		"netmap out": {
			[]nat.Rule{{Hook: nat.Postrouting, Kind: nat.Netmap, Prefix: netip.MustParsePrefix("198.51.100.0/24"), Match: nat.Match{Out: []uint16{outside}}}},
			"10.1.0.77:4000", "192.0.2.1:80", "198.51.100.77:4000", "192.0.2.1:80", "", "",
		},
		"netmap in": {
			[]nat.Rule{{Hook: nat.Prerouting, Kind: nat.Netmap, Prefix: netip.MustParsePrefix("10.1.0.0/20"), Match: nat.Match{Dst: []netip.Prefix{netip.MustParsePrefix("198.51.96.0/20")}}}},
			"192.0.2.1:4000", "198.51.100.77:80", "192.0.2.1:4000", "10.1.4.77:80", "", "",
		},
		"the first rule decides": {
			[]nat.Rule{{Hook: nat.Postrouting, Kind: nat.Accept, Match: nat.Match{Dst: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}, masquerade()},
			"10.1.0.2:4000", "192.0.2.1:80", "10.1.0.2:4000", "192.0.2.1:80", "", "",
		},
		"not to": {
			[]nat.Rule{{Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{NotDst: true, Dst: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}},
			"10.1.0.2:4000", "10.2.0.1:80", "10.1.0.2:4000", "10.2.0.1:80", "", "",
		},
		"of the other family": {
			[]nat.Rule{{Hook: nat.Prerouting, Kind: nat.DNAT, Target: addr("fd44::9")}},
			"10.1.0.2:4000", "192.0.2.1:80", "10.1.0.2:4000", "192.0.2.1:80", "", "",
		},
		"ipv6": {
			[]nat.Rule{masquerade()}, "[fd44::5]:4000", "[2001:db8:9::1]:80", "[2001:db8::1]:4000", "[2001:db8:9::1]:80", "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nat.ZoneConfig{}, tc.rules...)
			src, dst := w.tcp(tc.src, tc.dst)
			if src != tc.wantSrc || dst != tc.wantDst {
				t.Errorf("got %s > %s, want %s > %s", src, dst, tc.wantSrc, tc.wantDst)
			}
		})
	}
}

func TestMarksAreMatched(t *testing.T) {
	r := masquerade()
	r.Match.Mark, r.Match.MarkMask = 0x10, 0xf0
	w := newWorld(t, nat.ZoneConfig{}, r)
	for mark, want := range map[uint32]string{0x11: "203.0.113.1", 0x21: "10.1.0.2"} {
		w.mark = mark
		if src, _ := w.udp(fmt.Sprintf("10.1.0.2:%d", 4000+mark), "192.0.2.1:80"); host(src) != want {
			t.Errorf("mark %#x: %s", mark, src)
		}
	}
}

// TestNullBinding: without any rule, a connection whose reply can't be told from
// another's gets another source port, as with Linux.
func TestNullBinding(t *testing.T) {
	w := newWorld(t, nat.ZoneConfig{}, nat.Rule{
		Hook: nat.Prerouting, Kind: nat.DNAT, Match: nat.Match{Dst: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32")}},
		Target: nat.Target{Addrs: nat.One(netip.MustParseAddr("10.1.0.2"))},
	})
	w.tcp("10.2.0.5:4000", "10.1.0.2:80")
	src, dst := w.tcp("10.2.0.5:4000", "203.0.113.1:80")
	if dst != "10.1.0.2:80" || host(src) != "10.2.0.5" || port(src) == 4000 {
		t.Errorf("got %s > %s", src, dst)
	}
}

func TestMasqueradeWithoutAnAddress(t *testing.T) {
	w := newWorld(t, nat.ZoneConfig{}, masquerade())
	tu := tuple(packet.ProtoUDP, "10.1.0.2:1", "192.0.2.1:2")
	reply, _ := tu.Inverse()
	f := &nat.Flow{Pending: &conntrack.Pending{Original: tu, Reply: reply, Zone: zone}, In: inside, Out: outside}
	if v := w.n.Translate(nat.Postrouting, f); v.Reason != trace.NATAddress {
		t.Errorf("got %v", v.Reason)
	}
	if f.Pending.Zone++; w.n.Translate(nat.Postrouting, f) != (nat.Verdict{}) {
		t.Error("a zone without rules translates")
	}
}

func TestMasqueradeRemembersItsDevice(t *testing.T) {
	w := newWorld(t, nat.ZoneConfig{}, masquerade())
	f, _ := w.begin(tuple(packet.ProtoUDP, "10.1.0.2:1", "192.0.2.1:2"))
	if f.Pending.OutDevice != outside {
		t.Errorf("device %d", f.Pending.OutDevice)
	}
}

func TestCompileRefuses(t *testing.T) {
	a := netip.MustParseAddr
	one := nat.Target{Addrs: nat.One(a("10.0.0.1"))}
	for name, r := range map[string]nat.Rule{
		"snat before routing":       {Hook: nat.Prerouting, Kind: nat.SNAT, Target: one},
		"dnat after routing":        {Hook: nat.Postrouting, Kind: nat.DNAT, Target: one},
		"masquerade in input":       {Hook: nat.Input, Kind: nat.Masquerade},
		"redirect after routing":    {Hook: nat.Postrouting, Kind: nat.Redirect},
		"snat to nothing":           {Hook: nat.Postrouting, Kind: nat.SNAT},
		"masquerade to an address":  {Hook: nat.Postrouting, Kind: nat.Masquerade, Target: one},
		"addresses in wrong order":  {Hook: nat.Postrouting, Kind: nat.SNAT, Target: nat.Target{Addrs: nat.AddrRange{Min: a("10.0.0.2"), Max: a("10.0.0.1")}}},
		"addresses of two families": {Hook: nat.Postrouting, Kind: nat.SNAT, Target: nat.Target{Addrs: nat.AddrRange{Min: a("10.0.0.2"), Max: a("fd44::1")}}},
		"half a range":              {Hook: nat.Postrouting, Kind: nat.SNAT, Target: nat.Target{Addrs: nat.AddrRange{Min: a("10.0.0.2")}}},
		"ports in wrong order":      {Hook: nat.Postrouting, Kind: nat.SNAT, Target: nat.Target{Addrs: one.Addrs, Ports: nat.PortRange{Min: 9, Max: 8}}},
		"port zero":                 {Hook: nat.Postrouting, Kind: nat.SNAT, Target: nat.Target{Addrs: one.Addrs, Ports: nat.PortRange{Max: 8}}},
		"matched ports":             {Hook: nat.Postrouting, Kind: nat.SNAT, Target: one, Match: nat.Match{DstPorts: []nat.PortRange{{Min: 9, Max: 8}}}},
		"shift of nothing":          {Hook: nat.Prerouting, Kind: nat.DNAT, Target: one, Shift: true},
		"netmap without prefix":     {Hook: nat.Prerouting, Kind: nat.Netmap},
		"netmap with host bits":     {Hook: nat.Prerouting, Kind: nat.Netmap, Prefix: netip.MustParsePrefix("10.0.0.1/24")},
		"prefix of a dnat":          {Hook: nat.Prerouting, Kind: nat.DNAT, Target: one, Prefix: netip.MustParsePrefix("10.0.0.0/24")},
		"nat64 of 90 bits":          {Hook: nat.Prerouting, Kind: nat.NAT64, Target: one, Prefix: netip.MustParsePrefix("64:ff9b::/90")},
		"nat64 to ipv6":             {Hook: nat.Prerouting, Kind: nat.NAT64, Target: nat.Target{Addrs: nat.One(a("fd44::1"))}, Prefix: netip.MustParsePrefix("64:ff9b::/96")},
		"map without key":           {Hook: nat.Prerouting, Kind: nat.DNAT, Map: &nat.Map{}},
		"map of two ports":          {Hook: nat.Prerouting, Kind: nat.DNAT, Map: &nat.Map{By: nat.BySrcPort | nat.ByDstPort}},
		"map to nowhere":            {Hook: nat.Prerouting, Kind: nat.DNAT, Map: &nat.Map{By: nat.ByDstPort, Elements: map[nat.MapKey]nat.Target{{Port: 1}: {}}}},
		"service as a source":       {Hook: nat.Postrouting, Kind: nat.SNAT, Target: nat.Target{Service: 1}},
		"mark outside its mask":     {Hook: nat.Postrouting, Kind: nat.Accept, Match: nat.Match{Mark: 1}},
		"hook that isn't":           {Hook: 9},
	} {
		if _, err := nat.Compile([]nat.Rule{r}); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
}

// TestNoTwoConnectionsLookTheSame: whatever is asked for, no two connections have
// the same reply, and each translates back to what it came from.
func TestNoTwoConnectionsLookTheSame(t *testing.T) {
	for _, profile := range []nat.Profile{nat.Kernel, nat.RFC} {
		r := rand.New(rand.NewPCG(5, uint64(profile)))
		random := snat("203.0.113.20", "203.0.113.22", nat.PortRange{Min: 30000, Max: 30400})
		random.Match.Protos, random.Random = []uint8{packet.ProtoTCP}, true
		w := newWorld(t, nat.ZoneConfig{Profile: profile, Filtering: nat.Endpoint}, random,
			snat("203.0.113.10", "203.0.113.12", nat.PortRange{}),
		)
		n := 0
		for range 8000 {
			proto := []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoSCTP}[r.IntN(4)]
			tu := tuple(proto, fmt.Sprintf("10.1.0.%d:%d", 2+r.IntN(8), 1+r.IntN(2000)), fmt.Sprintf("192.0.2.%d:%d", r.IntN(3), 80+r.IntN(3)))
			if _, known := w.conns[tu]; known {
				if r.IntN(2) == 0 {
					w.conns[tu].Delete(w.now)
					delete(w.conns, tu)
				}
				continue
			}
			out, v := w.connect(tu)
			if v.Reason != trace.None {
				continue
			}
			n++
			reply, _ := out.Inverse()
			c, d := w.table.Find(zone, reply)
			if c != w.conns[tu] || d != conntrack.Reply {
				t.Fatalf("profile %d: %+v leaves as %+v, whose answer is another's", profile, tu, out)
			}
		}
		if n < 4000 {
			t.Errorf("profile %d: only %d connections", profile, n)
		}
		checkBindings(t, w, profile == nat.RFC)
	}
}

// checkBindings compares the mappings with the connections. alone: each outside end is
// one source's.
func checkBindings(t *testing.T, w *world, alone bool) {
	t.Helper()
	owner := map[string]netip.AddrPort{}
	refs := 0
	for _, b := range w.n.Bindings() {
		key := fmt.Sprint(b.Proto, b.Outside)
		if other, taken := owner[key]; taken && alone {
			t.Errorf("%v is %v's and %v's", b.Outside, other, b.Inside)
		}
		owner[key] = b.Inside
		refs += b.Connections
	}
	if refs > len(w.conns) {
		t.Errorf("%d references of %d connections", refs, len(w.conns))
	}
	for _, c := range w.conns {
		c.Delete(w.now)
	}
	w.pass(3)
	if left := w.n.Bindings(); len(left) != 0 {
		t.Errorf("%d mappings are left without connections: %+v", len(left), left[:min(3, len(left))])
	}
}

// TestManyAtOnce has several workers translate, confirm and end connections that
// want the same ports, while rules change and time passes.
func TestManyAtOnce(t *testing.T) {
	for _, profile := range []nat.Profile{nat.Kernel, nat.RFC} {
		z := nat.ZoneConfig{Profile: profile, Filtering: nat.Address}
		rule := snat("203.0.113.1", "203.0.113.2", nat.PortRange{Min: 1024, Max: 1424})
		w := newWorld(t, z, rule)
		compiled, _ := nat.Compile([]nat.Rule{rule})
		z.Rules = compiled
		var group sync.WaitGroup
		var confirmed atomic.Int64
		for worker := range 4 {
			group.Go(func() {
				r := rand.New(rand.NewPCG(uint64(worker), 8))
				for i := range 1500 {
					tu := tuple(packet.ProtoUDP, fmt.Sprintf("10.1.%d.%d:%d", worker, 1+r.IntN(4), 1000+r.IntN(40)), fmt.Sprintf("192.0.2.%d:53", r.IntN(3)))
					f := &nat.Flow{Pending: new(conntrack.Pending), In: inside, Out: outside, Now: w.now}
					v := w.table.Look(&conntrack.Packet{Frame: firstPacket(tu), Zone: zone, Now: w.now}, f.Pending)
					switch {
					case v.Conn.Valid() && r.IntN(3) == 0:
						v.Conn.Delete(w.now)
						confirmed.Add(-1)
					case !v.Conn.Valid() && w.n.Translate(nat.Postrouting, f) == (nat.Verdict{}):
						if c, v := w.n.Confirm(f); v.Reason == trace.None && c.Valid() {
							confirmed.Add(1)
						}
					}
					if i%100 == 0 {
						w.n.SetZone(zone, z)
						w.n.Expire(w.now)
					}
				}
			})
		}
		group.Wait()
		if int(confirmed.Load()) != w.table.Len() {
			t.Errorf("%d confirmed, %d there", confirmed.Load(), w.table.Len())
		}
		replies := map[conntrack.Tuple]bool{}
		w.table.Entries(&conntrack.Filter{}, w.now, func(e *conntrack.Entry) bool {
			if replies[e.Reply] {
				t.Errorf("twice: %+v", e.Reply)
			}
			replies[e.Reply] = true
			w.conns[e.Original] = e.Conn
			return true
		})
		checkBindings(t, w, profile == nat.RFC)
	}
}

// TestClosedConnectionsGiveWay: a range of ports is not used up by TCP connections that
// are closed and wait for their timeout, as in Linux (nf_nat_used_tuple_harder), nor by
// one whose sender begins behind it; one that is open keeps its port.
func TestClosedConnectionsGiveWay(t *testing.T) {
	w := newWorld(t, nat.ZoneConfig{}, snat("203.0.113.5", "203.0.113.5", nat.PortRange{Min: 2000, Max: 2001}))
	server := "192.0.2.1:80"
	syn := func(src string, seq uint32) trace.Reason {
		t.Helper()
		first := tuple(packet.ProtoTCP, src, server)
		f := &nat.Flow{Pending: new(conntrack.Pending), In: inside, Out: outside, Now: w.now}
		frame := pt.Frame(pt.TCP4(pt.Packet{Src: first.Src, Dst: first.Dst, SrcPort: first.SrcPort, DstPort: first.DstPort, Flags: pt.SYN, Seq: seq}))
		w.table.Look(&conntrack.Packet{Frame: frame, Zone: zone, Now: w.now}, f.Pending)
		v := w.n.Translate(nat.Postrouting, f)
		if v.Reason == trace.None {
			_, v = w.n.Confirm(f)
		}
		return v.Reason
	}
	if a, b := syn("10.1.0.2:3000", 1000), syn("10.1.0.2:3001", 1000); a != trace.None || b != trace.None {
		t.Fatal(a, b)
	}
	if r := syn("10.1.0.2:3002", 5000); r != trace.NATExhausted {
		t.Errorf("two open connections have the two ports: %v", r)
	}
	closed := tuple(packet.ProtoTCP, "10.1.0.2:3001", server)
	c, _ := w.table.Find(zone, closed)
	out := c.Out(conntrack.Original)
	for _, p := range []pt.Packet{
		{Src: out.Dst, Dst: out.Src, SrcPort: out.DstPort, DstPort: out.SrcPort, Flags: pt.SYN | pt.ACK, Seq: 70, Ack: 1001},
		{Src: closed.Src, Dst: closed.Dst, SrcPort: closed.SrcPort, DstPort: closed.DstPort, Flags: pt.RST, Seq: 1001},
	} {
		w.table.Look(&conntrack.Packet{Frame: pt.Frame(pt.TCP4(p)), Zone: zone, Now: w.now}, new(conntrack.Pending))
	}
	if r := syn("10.1.0.2:3002", 900); r != trace.NATExhausted {
		t.Errorf("a sender that is behind the closed one: %v", r)
	}
	if r := syn("10.1.0.2:3002", 5000); r != trace.None {
		t.Errorf("a closed connection keeps its port: %v", r)
	}
	if c.Valid() {
		t.Error("two connections have one reply")
	}
}

// TestExpiryIsBounded: a turn of housekeeping holds the lock for few mappings at a time.
func TestExpiryIsBounded(t *testing.T) {
	w := newWorld(t, nat.ZoneConfig{Profile: nat.RFC, Linger: 1}, snat("203.0.113.5", "203.0.113.9", nat.PortRange{}))
	const many = 1000
	for i := range many {
		w.udp(fmt.Sprintf("10.1.%d.%d:%d", i/200, 1+i%200, 3000), "192.0.2.1:53")
	}
	for i := range many {
		w.end(packet.ProtoUDP, fmt.Sprintf("10.1.%d.%d:%d", i/200, 1+i%200, 3000), "192.0.2.1:53")
	}
	w.pass(2)
	if n := w.n.Stats().Bindings; n != many {
		t.Errorf("%d mappings rest, want %d", n, many)
	}
	w.pass(1)
	if n := w.n.Stats().Bindings; n != 0 {
		t.Errorf("%d mappings are left", n)
	}
}
