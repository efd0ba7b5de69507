// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"fmt"
	"net/netip"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// rfcZone is the RFC profile with a filtering.
func rfcZone(f nat.Filtering) nat.ZoneConfig {
	return nat.ZoneConfig{Profile: nat.RFC, Filtering: f, Linger: 120}
}

// TestRequirements is the table of what RFC 4787, 5382 and 5508 want of the choice
// and life of mappings, and which profile does it.
func TestRequirements(t *testing.T) {
	for _, tc := range []struct {
		name        string
		kernel, rfc bool
		holds       func(w *world) bool
	}{
		{"RFC 4787 REQ-1: endpoint-independent mapping", false, true, func(w *world) bool {
			w.udp("10.1.0.9:5000", "192.0.2.1:53") // takes the port for this server
			a, _ := w.udp("10.1.0.2:5000", "192.0.2.2:53")
			b, _ := w.udp("10.1.0.2:5000", "192.0.2.2:54")
			c, _ := w.udp("10.1.0.2:5000", "192.0.2.1:53")
			return a == b && b == c
		}},
		{"RFC 4787 REQ-2: paired pooling", false, true, func(w *world) bool {
			hosts := map[string]bool{}
			for i := range 50 {
				src, _ := w.udp(fmt.Sprintf("10.1.0.2:%d", 5000+i), fmt.Sprintf("192.0.2.%d:53", i))
				hosts[host(src)] = true
			}
			return len(hosts) == 1
		}},
		{"RFC 4787 REQ-3: no port overloading", false, true, func(w *world) bool {
			seen := map[string]bool{}
			for i := range 20 {
				src, _ := w.udp(fmt.Sprintf("10.1.0.%d:5000", 2+i), fmt.Sprintf("192.0.2.%d:53", i))
				seen[src] = true
			}
			return len(seen) == 20
		}},
		{"RFC 4787 REQ-3a: system ports stay such", true, true, func(w *world) bool {
			for i := range 40 {
				low, _ := w.udp(fmt.Sprintf("10.1.0.%d:500", 2+i), "192.0.2.1:53")
				high, _ := w.udp(fmt.Sprintf("10.1.0.%d:5000", 2+i), "192.0.2.1:53")
				if port(low) >= 1024 || port(high) < 1024 {
					return false
				}
			}
			return true
		}},
		{"RFC 4787 REQ-4: parity", false, true, func(w *world) bool {
			for i := range 40 {
				even, _ := w.udp(fmt.Sprintf("10.1.0.%d:5000", 2+i), "192.0.2.1:53")
				odd, _ := w.udp(fmt.Sprintf("10.1.0.%d:5003", 2+i), "192.0.2.1:53")
				if port(even)%2 != 0 || port(odd)%2 != 1 {
					return false
				}
			}
			return true
		}},
		{"RFC 4787 §4.2.3: contiguity", false, true, func(w *world) bool {
			for i := range 40 {
				rtp, _ := w.udp(fmt.Sprintf("10.1.0.%d:5000", 2+i), "192.0.2.1:53")
				rtcp, _ := w.udp(fmt.Sprintf("10.1.0.%d:5001", 2+i), "192.0.2.1:54")
				if port(rtcp) != port(rtp)+1 || host(rtp) != host(rtcp) {
					return false
				}
			}
			return true
		}},
		{"RFC 4787 REQ-9: hairpin, without a rule for it", false, true, func(w *world) bool { return hairpins(w, packet.ProtoUDP) }},
		{"RFC 5382 REQ-8: hairpin of TCP", false, true, func(w *world) bool { return hairpins(w, packet.ProtoTCP) }},
		{"RFC 4787 REQ-11: deterministic", false, true, func(w *world) bool {
			before, _ := w.udp("10.1.0.2:5000", "192.0.2.1:53")
			for i := range 40 { // clashes
				w.udp(fmt.Sprintf("10.1.0.%d:5000", 3+i), "192.0.2.99:53")
			}
			after, _ := w.udp("10.1.0.2:5000", "192.0.2.99:53")
			return before == after
		}},
		{"RFC 5382 REQ-1: endpoint-independent mapping of TCP", false, true, func(w *world) bool {
			w.tcp("10.1.0.9:5000", "192.0.2.1:80")
			a, _ := w.tcp("10.1.0.2:5000", "192.0.2.2:80")
			b, _ := w.tcp("10.1.0.2:5000", "192.0.2.1:80")
			return a == b
		}},
		{"RFC 5382 REQ-7: no overloading of TCP", false, true, func(w *world) bool {
			a, _ := w.tcp("10.1.0.2:5000", "192.0.2.2:80")
			b, _ := w.tcp("10.1.0.3:5000", "192.0.2.1:80")
			return a != b
		}},
		{"RFC 5508 REQ-1a: endpoint-independent mapping of identifiers", false, true, func(w *world) bool {
			w.ping("10.1.0.9:7", "192.0.2.1:7")
			a, b := w.ping("10.1.0.2:7", "192.0.2.2:7"), w.ping("10.1.0.2:7", "192.0.2.1:7")
			return a == b
		}},
		{"RFC 7857 §3: sources share a port if their destinations differ", true, false, func(w *world) bool {
			a, _ := w.tcp("10.1.0.2:5000", "192.0.2.2:80")
			b, _ := w.tcp("10.1.0.3:5000", "192.0.2.1:80")
			return a == b
		}},
		{"RFC 7857 §9: a port that is chosen is not the next one", true, true, func(w *world) bool {
			neighbours, last := 0, 0
			for i := range 40 {
				src, _ := w.udp(fmt.Sprintf("10.1.0.%d:5000", 2+i), "192.0.2.1:53")
				if d := int(port(src)) - last; -3 < d && d < 3 {
					neighbours++
				}
				last = int(port(src))
			}
			return neighbours < 10
		}},
		{"RFC 7857 §5: UDP and TCP have mappings of their own", true, true, func(w *world) bool {
			w.tcp("10.1.0.3:5000", "192.0.2.1:80")
			udp, _ := w.udp("10.1.0.2:5000", "192.0.2.1:80")
			return port(udp) == 5000
		}},
		{"RFC 6888 REQ-8: a port rests before it is another's", false, true, func(w *world) bool {
			a, _ := w.udp("10.1.0.2:5000", "192.0.2.1:53")
			w.end(packet.ProtoUDP, "10.1.0.2:5000", "192.0.2.1:53")
			w.pass(110)
			b, _ := w.udp("10.1.0.3:5000", "192.0.2.1:53")
			w.pass(20)
			c, _ := w.udp("10.1.0.4:5000", "192.0.2.1:53")
			return a != b && c == a
		}},
	} {
		for profile, want := range map[nat.Profile]bool{nat.Kernel: tc.kernel, nat.RFC: tc.rfc} {
			z := nat.ZoneConfig{Profile: profile, Filtering: nat.Endpoint, Linger: 120}
			pool := snat("203.0.113.1", "203.0.113.1", nat.PortRange{})
			if tc.name == "RFC 4787 REQ-2: paired pooling" {
				pool = snat("203.0.113.16", "203.0.113.17", nat.PortRange{})
			}
			if got := tc.holds(newWorld(t, z, pool)); got != want {
				t.Errorf("%s: profile %d: %v, want %v", tc.name, profile, got, want)
			}
		}
	}
}

// hairpins reports whether what A sends to the mapping of B gets there, from an outside
// address.
func hairpins(w *world, proto uint8) bool {
	b, _ := w.must(proto, "10.1.0.3:6000", "192.0.2.1:53")
	src, dst := w.must(proto, "10.1.0.2:5000", b)
	return dst == "10.1.0.3:6000" && !isInside(netip.MustParseAddr(host(src)))
}

// TestFiltering: RFC 4787 REQ-8 and RFC 5382 REQ-3.
func TestFiltering(t *testing.T) {
	type filtered struct{ answer, otherPort, stranger bool }
	for name, tc := range map[string]struct {
		zone nat.ZoneConfig
		want filtered
	}{
		"rfc, endpoint":         {rfcZone(nat.Endpoint), filtered{true, true, true}},
		"rfc, address":          {rfcZone(nat.Address), filtered{true, true, false}},
		"rfc, address and port": {rfcZone(nat.AddressAndPort), filtered{true, false, false}},
		"kernel":                {nat.ZoneConfig{}, filtered{true, false, false}},
	} {
		for _, proto := range []uint8{packet.ProtoUDP, packet.ProtoTCP} {
			w, want := newWorld(t, tc.zone, masquerade()), tc.want
			w.must(proto, "10.1.0.9:5000", "192.0.2.1:53") // takes the port
			src, _ := w.must(proto, "10.1.0.2:5000", "192.0.2.1:53")
			passes := func(from string) bool {
				out, v := w.connect(tuple(proto, from, src))
				return v.Reason == trace.None && netip.AddrPortFrom(out.Dst, out.DstPort).String() == "10.1.0.2:5000"
			}
			reply := tuple(proto, "192.0.2.1:53", src)
			c, d := w.table.Find(zone, reply)
			got := filtered{c.Valid() && d == conntrack.Reply, passes("192.0.2.1:54"), passes("192.0.2.2:53")}
			if got != want {
				t.Errorf("%s, protocol %d: got %+v, want %+v", name, proto, got, want)
			}
		}
	}
}

// TestFilteringForgets: an address may come in as long as there is a connection to
// it, and no longer.
func TestFilteringForgets(t *testing.T) {
	w := newWorld(t, rfcZone(nat.Address), masquerade())
	src, _ := w.udp("10.1.0.2:5000", "192.0.2.1:53")
	w.udp("10.1.0.2:5000", "192.0.2.2:53")
	w.end(packet.ProtoUDP, "10.1.0.2:5000", "192.0.2.1:53")
	if _, dst := w.udp("192.0.2.1:99", src); dst != src {
		t.Errorf("came in to %s", dst)
	}
	if _, dst := w.udp("192.0.2.2:99", src); dst != "10.1.0.2:5000" {
		t.Errorf("the other went to %s", dst)
	}
}

// TestHairpin: RFC 4787 REQ-9 and 9a, RFC 5382 REQ-8, RFC 5508 REQ-7: what A sends
// to the mapping of B arrives from the mapping of A, and errors find their way.
func TestHairpin(t *testing.T) {
	for name, rule := range map[string]nat.Rule{"masquerade": masquerade(), "pool": snat("203.0.113.1", "203.0.113.4", nat.PortRange{})} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, rfcZone(nat.Endpoint), rule)
			b, _ := w.udp("10.1.0.3:6000", "192.0.2.1:53")
			for _, first := range []bool{true, false} { // A has a mapping, or not yet
				a := "10.2.0.2:5000"
				var want string
				if first {
					want, _ = w.udp(a, "192.0.2.1:53")
				} else {
					a = "10.1.0.4:5000"
				}
				src, dst := w.udp(a, b)
				if dst != "10.1.0.3:6000" || want != "" && src != want || isInside(netip.MustParseAddr(host(src))) {
					t.Fatalf("got %s > %s, want %s", src, dst, want)
				}
				if after, _ := w.udp(a, "192.0.2.7:53"); after != src {
					t.Errorf("mapping is %s, hairpin %s", after, src)
				}
				hairpinError(t, w, a, b)
			}
		})
	}
}

// hairpinError has B answer with an error.
func hairpinError(t *testing.T, w *world, a, b string) {
	t.Helper()
	c := w.conns[tuple(packet.ProtoUDP, a, b)]
	out := c.Out(conntrack.Original)
	arrived := pt.UDP4(pt.Packet{Src: out.Src, Dst: out.Dst, SrcPort: out.SrcPort, DstPort: out.DstPort})
	e := pt.Frame(errorAbout(arrived, out.Dst, 28))
	back := nat.Of(c.Tuple(conntrack.Reply), c.Out(conntrack.Reply))
	if !back.ApplyError(e, true) {
		t.Fatal("refused")
	}
	o := c.Tuple(conntrack.Original)
	q := pt.Frame(quoted(e))
	if q.View.SrcAddr(q.Bytes()) != o.Src || q.View.DstAddr(q.Bytes()) != o.Dst || q.View.SrcPort != o.SrcPort || q.View.DstPort != o.DstPort {
		t.Errorf("error quotes %s, want %+v", pt.Describe(q.Bytes()), o)
	}
	if e.View.DstAddr(e.Bytes()) != o.Src || e.View.SrcAddr(e.Bytes()) != o.Dst {
		t.Errorf("error goes %s", pt.Describe(e.Bytes()))
	}
}

// TestFromOutsideIsNoHairpin: a stranger's source stays.
func TestFromOutsideIsNoHairpin(t *testing.T) {
	for _, rule := range []nat.Rule{masquerade(), snat("203.0.113.4", "203.0.113.4", nat.PortRange{})} {
		w := newWorld(t, rfcZone(nat.Endpoint), rule)
		b, _ := w.udp("10.1.0.3:6000", "192.0.2.1:53")
		if src, dst := w.udp("198.51.100.1:5", b); src != "198.51.100.1:5" || dst != "10.1.0.3:6000" {
			t.Errorf("got %s > %s", src, dst)
		}
	}
}

// TestPublishedPortsAreNoMappings: a connection that began at a published port
// would lose what comes for its mapping.
func TestPublishedPortsAreNoMappings(t *testing.T) {
	publish := nat.Rule{
		Hook: nat.Prerouting, Kind: nat.DNAT, Match: nat.Match{Own: nat.Yes, Protos: []uint8{packet.ProtoTCP}, DstPorts: []nat.PortRange{{Min: 8000, Max: 8099}}},
		Target: nat.Target{Addrs: nat.One(netip.MustParseAddr("10.1.0.9"))},
	}
	w := newWorld(t, rfcZone(nat.Endpoint), publish, masquerade())
	if src, _ := w.tcp("10.1.0.2:8080", "192.0.2.1:80"); port(src) >= 8000 && port(src) < 8100 {
		t.Errorf("got %s", src)
	}
	if src, _ := w.udp("10.1.0.2:8080", "192.0.2.1:80"); port(src) != 8080 {
		t.Errorf("UDP is not published, but got %s", src)
	}
}

// TestMappingsOutliveTheProcess: they are made again of the connections.
func TestMappingsOutliveTheProcess(t *testing.T) {
	w := newWorld(t, rfcZone(nat.Endpoint), masquerade())
	w.udp("10.1.0.9:5000", "192.0.2.1:53")
	src, _ := w.udp("10.1.0.2:5000", "192.0.2.1:53")
	w.restart(rfcZone(nat.Endpoint), w.table, masquerade())
	if again, _ := w.udp("10.1.0.2:5000", "192.0.2.2:53"); again != src {
		t.Errorf("got %s after the restart, want %s", again, src)
	}
	if _, dst := w.udp("192.0.2.99:1", src); dst != "10.1.0.2:5000" {
		t.Errorf("inbound goes to %s", dst)
	}
	if other, _ := w.udp("10.1.0.3:5000", "192.0.2.3:53"); other == src {
		t.Error("the port is given to another")
	}
}

func TestBindingsAreBounded(t *testing.T) {
	w := newWorld(t, rfcZone(nat.Endpoint), masquerade())
	w.n = nat.New(nat.Config{Bindings: 10})
	compiled, _ := nat.Compile([]nat.Rule{masquerade()})
	w.n.SetZone(zone, nat.ZoneConfig{Rules: compiled, Profile: nat.RFC})
	w.n.Attach(w.table, w.now)
	for i := range 10 {
		w.udp(fmt.Sprintf("10.1.0.2:%d", 5000+i), "192.0.2.1:53")
	}
	if _, v := w.connect(tuple(packet.ProtoUDP, "10.1.0.2:9", "192.0.2.1:53")); v.Reason != trace.NATExhausted {
		t.Errorf("got %v", v.Reason)
	}
	if s := w.n.Stats(); s.Bindings != 10 || s.Forgotten != 1 {
		t.Errorf("%+v", s)
	}
}

// TestUnsolicitedSYN: RFC 5382 REQ-4.
func TestUnsolicitedSYN(t *testing.T) {
	w := newWorld(t, rfcZone(nat.AddressAndPort), masquerade())
	src, _ := w.tcp("10.1.0.2:5000", "192.0.2.1:80")
	told := map[string]int{}
	wait := func(seconds int) {
		for range seconds {
			w.pass(1)
			w.n.Unanswered(w.now, func(s nat.HeldSYN) {
				var v packet.View
				v.Parse(s.Frame)
				told[v.SrcAddr(s.Frame).String()]++
				if s.Zone != zone || s.In != outside {
					t.Errorf("held %+v", s)
				}
			})
		}
	}
	hold := func(from string) bool {
		f, _ := w.begin(tuple(packet.ProtoTCP, from, src))
		return w.n.Hold(f, firstPacket(f.Pending.Original))
	}
	if !hold("192.0.2.8:81") || !hold("192.0.2.9:81") || !hold("192.0.2.8:81") {
		t.Fatal("not held")
	}
	wait(5)
	if len(told) > 0 {
		t.Errorf("after 5 seconds: %v", told)
	}
	w.tcp("10.1.0.2:5000", "192.0.2.9:81") // crosses
	wait(2)
	if len(told) != 1 || told["192.0.2.8"] != 1 {
		t.Errorf("after 7 seconds: %v", told)
	}
	if wait(20); len(told) != 1 {
		t.Errorf("at the end: %v", told)
	}
	k := newWorld(t, nat.ZoneConfig{}, masquerade())
	f, _ := k.begin(tuple(packet.ProtoTCP, "192.0.2.8:81", "203.0.113.1:80"))
	if k.n.Hold(f, firstPacket(f.Pending.Original)) {
		t.Error("the kernel's profile holds none")
	}
}

// TestErrorsFromAnyone: RFC 4787 REQ-12a, RFC 5508 REQ-4 and REQ-6: whoever reports
// it, an error about a mapping's packet arrives, and the mapping stays.
func TestErrorsFromAnyone(t *testing.T) {
	for _, z := range []nat.ZoneConfig{{}, rfcZone(nat.AddressAndPort)} {
		w := newWorld(t, z, masquerade())
		w.udp("10.1.0.9:5000", "192.0.2.1:53")
		src, _ := w.udp("10.1.0.2:5000", "192.0.2.1:53")
		c := w.conns[tuple(packet.ProtoUDP, "10.1.0.2:5000", "192.0.2.1:53")]
		out := c.Out(conntrack.Original)
		left := pt.UDP4(pt.Packet{Src: out.Src, Dst: out.Dst, SrcPort: out.SrcPort, DstPort: out.DstPort})
		e := pt.Frame(errorAbout(left, pt.IP("198.51.100.7"), 28))
		v := w.table.Look(&conntrack.Packet{Frame: e, Zone: zone, Now: w.now}, new(conntrack.Pending))
		back := nat.Of(c.Tuple(v.Dir), c.Out(v.Dir))
		if v.Conn != c || !v.Error || !back.ApplyError(e, false) || e.View.DstAddr(e.Bytes()) != pt.IP("10.1.0.2") {
			t.Fatalf("%+v, %s", v, pt.Describe(e.Bytes()))
		}
		if again, _ := w.udp("10.1.0.2:5000", "192.0.2.99:53"); again != src {
			t.Errorf("after the error the mapping is %s", again)
		}
	}
}

// TestMappingsOfOneHostAreBounded: RFC 6888 REQ-4.
func TestMappingsOfOneHostAreBounded(t *testing.T) {
	z := rfcZone(nat.Endpoint)
	z.PerHost = 10
	w := newWorld(t, z, masquerade())
	for i := range 10 {
		w.udp(fmt.Sprintf("10.1.0.2:%d", 5000+i), "192.0.2.1:53")
	}
	if _, v := w.connect(tuple(packet.ProtoTCP, "10.1.0.2:9", "192.0.2.1:53")); v.Reason != trace.NATExhausted || v.Reject != nat.Prohibited {
		t.Errorf("got %+v", v)
	}
	w.udp("10.1.0.2:5003", "192.0.2.2:53") // a mapping that is there
	w.udp("10.1.0.3:5000", "192.0.2.1:53") // another host
	w.end(packet.ProtoUDP, "10.1.0.2:5009", "192.0.2.1:53")
	w.pass(130)
	w.tcp("10.1.0.2:9", "192.0.2.1:53")
}
