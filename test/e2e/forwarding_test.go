// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// routedPair starts a daemon with two networks in one namespace and a container on
// each. More is added to the namespace, and to both networks.
//
//	red -- left 10.70.0.0/24 -- core -- right 10.71.0.0/24 -- green
func routedPair(t *testing.T, space, net string, args ...string) (d *lab.Daemon, red, green *lab.NS) {
	t.Helper()
	l := lab.New(t)
	d = l.Daemon("namespaces:\n  - name: core\n" + space + `networks:
  - name: right
    namespace: core
    subnets: [10.71.0.0/24, "fd71::/64"]
` + net + `  - name: left
    namespace: core
    subnets: [10.70.0.0/24, "fd70::/64"]
` + net)
	red = l.NS("red").Attach(append([]string{"--network", "left", "--ip", "10.70.0.10", "--ip6", "fd70::10"}, args...)...)
	green = l.NS("green").Attach(append([]string{"--network", "right", "--ip", "10.71.0.10", "--ip6", "fd71::10"}, args...)...)
	return d, red, green
}

// TestRouted transfers between two networks, with all that changes the form of a
// frame.
func TestRouted(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		d, red, green := routedPair(t, "", fmt.Sprintf("    mtu: %d\n", mtu))
		for _, f := range both() {
			red.Ping(green.IP(f))
			caps := []*lab.Capture{red.Capture(), green.Capture()}
			lab.TCP(red, green, f, 16<<20)
			lab.UDP(red, green, f, lab.Datagrams{Bytes: 2 << 20, Size: 1400})
			lab.UDP(red, green, f, lab.Datagrams{Bytes: 2 << 20, Size: 1400, GSO: true})
			lab.UDP(red, green, f, lab.Datagrams{Bytes: 1 << 20, Size: 6000}) // in fragments
			for _, c := range caps {
				c.ExpectClean()
			}
		}
		for _, l := range d.Links() {
			if l.Stats.FlowHits < l.Stats.FlowMisses { // fragments are not in it
				t.Errorf("MTU %d: %s: %d hits of the flow cache, %d misses", mtu, l.Name, l.Stats.FlowHits, l.Stats.FlowMisses)
			}
		}
	}
}

// fragmentsOf is a datagram from red to green in three fragments.
func fragmentsOf(d *lab.Daemon, f lab.Family, red, green *lab.NS, id int) [][]byte {
	eth := pt.EtherHdr{Src: pt.HW(red.MAC()), Dst: pt.HW(gatewayOf(d, "left"))}
	data := pt.Bytes(1992)
	whole := pt.Build(pt.IPv4Hdr{Src: red.IP(lab.V4), Dst: green.IP(lab.V4)}, pt.UDPHdr{DstPort: 7000}, data)[20:]
	if f == lab.V6 {
		whole = pt.Build(pt.IPv6Hdr{Src: red.IP(lab.V6), Dst: green.IP(lab.V6)}, pt.UDPHdr{DstPort: 7000}, data)[40:]
	}
	var out [][]byte
	for at := 0; at < len(whole); at += 800 {
		part, more := pt.Payload(whole[at:min(at+800, len(whole))]), at+800 < len(whole)
		if f == lab.V4 {
			out = append(out, pt.Build(eth, pt.IPv4Hdr{Src: red.IP(f), Dst: green.IP(f), ID: uint16(id), MF: more, Offset: uint16(at), Proto: new(uint8(17))}, part))
		} else {
			out = append(out, pt.Build(eth, pt.IPv6Hdr{Src: red.IP(f), Dst: green.IP(f)}, pt.FragHdr{Offset: uint16(at), More: more, ID: uint32(id), Next: new(uint8(17))}, part))
		}
	}
	return out
}

func gatewayOf(d *lab.Daemon, network string) string {
	for _, n := range d.Networks() {
		if n.Name == network {
			return n.MAC
		}
	}
	return ""
}

// isFragment reports a fragment of UDP with an identification.
func isFragment(id int) func([]byte) bool {
	return func(b []byte) bool {
		switch {
		case len(b) < 62:
			return false
		case b[12] == 8 && b[13] == 0:
			return b[23] == 17 && int(binary.BigEndian.Uint16(b[18:])) == id && binary.BigEndian.Uint16(b[20:])&0x3fff != 0
		}
		return b[12] == 0x86 && b[20] == packet.ProtoFragment && int(binary.BigEndian.Uint32(b[58:])) == id
	}
}

// TestFragments sends fragments in each order through a router whose rules ask for
// ports, so that all have to wait for the first; and such as overlap.
func TestFragments(t *testing.T) {
	d, red, green := routedPair(t, "    rules: [ipproto udp dport 9 prohibit pref 100, -6 ipproto udp dport 9 prohibit pref 100]\n", "")
	for _, f := range both() {
		red.Ping(green.IP(f))
		rec := green.Record()
		for i, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {2, 0, 1}} {
			frames := fragmentsOf(d, f, red, green, 7000+i)
			for _, n := range order {
				red.Send(frames[n])
			}
			rec.Expect(fmt.Sprintf("%v fragments in the order %v", f, order), 3, isFragment(7000+i))
		}
		frames := fragmentsOf(d, f, red, green, 7100)
		before := drops(d, red.Name(), "frag_overlap")
		overlap := append([]byte{}, frames[1]...)
		if f == lab.V4 {
			binary.BigEndian.PutUint16(overlap[20:], 0x2000|90)
			binary.BigEndian.PutUint16(overlap[24:], 0)
			binary.BigEndian.PutUint16(overlap[24:], ^packet.Sum(overlap[14:34], 0))
		} else {
			binary.BigEndian.PutUint16(overlap[56:], 90<<3|1)
		}
		red.Send(frames[0], overlap, frames[1], frames[2])
		rec.Expect("fragments until one overlaps", 1, isFragment(7100))
		if drops(d, red.Name(), "frag_overlap") < before+2 {
			t.Errorf("%v: overlap is not counted: %+v", f, d.Links())
		}
		rec.Stop()
	}
}

// mssOf is the MSS option of a SYN, 0 without.
func mssOf(b []byte) int {
	var v packet.View
	if v.Parse(b) != packet.FaultNone || v.Proto != packet.ProtoTCP || !v.Is(packet.ViewHasL4) || b[v.L4+13]&2 == 0 {
		return 0
	}
	for o := b[v.L4+20 : v.L4+int(b[v.L4+12]>>4)*4]; len(o) > 3; o = o[max(1, int(o[1])):] {
		if o[0] == 2 {
			return int(binary.BigEndian.Uint16(o[2:]))
		}
	}
	return 0
}

// TestMSSClamp looks at the SYN of a connection, both of them, on the wire: to what
// the way has room for, and to a number.
func TestMSSClamp(t *testing.T) {
	d, red, green := routedPair(t, "    routes: [10.71.0.10/32 dev right mtu 1300, fd71::10/128 dev right mtu 1300]\n", "    clampMSS: pmtu\n")
	check := func(what string, want map[lab.Family]int) {
		t.Helper()
		for _, f := range both() {
			rec := green.Record()
			lab.TCP(red, green, f, 1<<16)
			rec.Expect(fmt.Sprintf("%s: %v SYN with MSS %d", what, f, want[f]), 1, func(b []byte) bool { return mssOf(b) == want[f] })
			rec.Stop()
		}
	}
	check("pmtu", map[lab.Family]int{lab.V4: 1260, lab.V6: 1240})
	d.Batch("core", "link set left clamp_mss 1000", "link set right clamp_mss off")
	check("1000", map[lab.Family]int{lab.V4: 1000, lab.V6: 1000})
	d.Batch("core", "link set left clamp_mss off")
	check("off", map[lab.Family]int{lab.V4: 1460, lab.V6: 1440})
}

// TestMixedMTU: containers of different MTUs on one bridge, and behind a router:
// nothing is lost without a word, and transfers end.
func TestMixedMTU(t *testing.T) {
	d, red, green := routedPair(t, "", "")
	small := d.Lab().NS("small").Attach("--network", "left", "--mtu", "1300", "--ip", "10.70.0.30", "--ip6", "fd70::30")
	for _, from := range []*lab.NS{red, green} {
		for _, f := range both() {
			from.Ping(small.IP(f))
			r := from.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", "-M", "do", "-s", "1400", small.IP(f).String())
			if !strings.Contains(r.Out+r.Err, "mtu = 1300") && !strings.Contains(r.Out+r.Err, "mtu=1300") && !strings.Contains(r.Out+r.Err, "mtu: 1300") {
				t.Errorf("%s to the small one, %v, hears of no MTU:\n%s%s", from.Name(), f, r.Out, r.Err)
			}
			lab.TCP(from, small, f, 4<<20)
			lab.UDP(from, small, f, lab.Datagrams{Bytes: 1 << 20, Size: 1400}) // in fragments once the MTU is known
		}
		from.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", "-M", "dont", "-s", "1400", small.IP(lab.V4).String()).Expect(0)
	}
}

// TestNeighbours goes through the states of a next hop that is no container's: found,
// shown, gone and reported as unreachable, and set by hand.
func TestNeighbours(t *testing.T) {
	d, red, green := routedPair(t, "", "", "--set", "guard off")
	l := d.Lab()
	green.Run("ip", "addr", "add", "10.71.0.99/24", "dev", "eth0")
	red.Ping(netip.MustParseAddr("10.71.0.99"))
	d.CLI("-n", "core", "neigh", "show", "dev", "right").Expect(0, "10.71.0.99 dev right lladdr "+green.MAC()+" REACHABLE")
	var pings [2]*lab.Proc
	for i, to := range []string{"10.71.0.200", "fd71::200"} {
		pings[i] = red.Start("ping", "-n", "-c", "2", "-i", "0.2", "-W", "6", to)
	}
	d.CLI("-n", "core", "neigh", "add", "10.71.0.201", "lladdr", green.MAC(), "dev", "right").Expect(0)
	rec := green.Record()
	red.Try("ping", "-n", "-c", "1", "-W", "0.3", "10.71.0.201")
	rec.Expect("ping for a static neighbour", 1, func(b []byte) bool {
		return len(b) > 34 && b[12] == 8 && b[13] == 0 && netip.AddrFrom4([4]byte(b[30:34])) == netip.MustParseAddr("10.71.0.201")
	})
	d.CLI("-n", "core", "neigh", "show").Expect(0, "10.71.0.201 dev right lladdr "+green.MAC()+" PERMANENT")
	for i, want := range []string{"From 10.70.0.1 icmp_seq=1 Destination Host Unreachable", "From fd70::1 icmp_seq=1 Destination unreachable: Address unreachable"} {
		r := pings[i].Wait(patience)
		if !strings.Contains(r.Out, want) {
			t.Errorf("no %q:\n%s", want, r.Out)
		}
	}
	d.CLI("-n", "core", "neigh", "show", "dev", "right").Expect(0, "10.71.0.200 dev right FAILED")
	if drops(d, red.Name(), "neigh_failed") == 0 {
		t.Error("neigh_failed is not counted")
	}
	// It comes after all.
	green.Run("ip", "addr", "add", "10.71.0.200/24", "dev", "eth0")
	l.Eventually("the failed one is found", patience, func() bool {
		return red.Try("ping", "-n", "-c", "1", "-W", "0.5", "10.71.0.200").Code == 0
	})
}

// TestECMP spreads flows over two next hops, keeps each flow where it is, and moves
// those, and only those, whose next hop has gone.
//
//	          .-- up1 --.
//	red -- core         192.0.2.1 on both
//	          `-- up2 --'
func TestECMP(t *testing.T) {
	d, red, _ := routedPair(t, "", "    rpFilter: \"off\"\n")
	l := d.Lab()
	var ups []*lab.NS
	for i, name := range []string{"up1", "up2"} {
		n := l.NS(name).Attach("--network", "right", "--ip", fmt.Sprintf("10.71.0.2%d", i), "--ip6", fmt.Sprintf("fd71::2%d", i), "--set", "guard off")
		n.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
		ups = append(ups, n)
	}
	d.Batch("core", "route add 192.0.2.0/24 nexthop via 10.71.0.20 weight 1 nexthop via 10.71.0.21 weight 1")
	var flows [][]byte
	const count = 200
	for i := range count {
		flows = append(flows, pt.UDP4(pt.Packet{
			SrcMAC: pt.HW(red.MAC()), DstMAC: pt.HW(gatewayOf(d, "left")), Src: red.IP(lab.V4), Dst: pt.IP("192.0.2.1"), SrcPort: uint16(20000 + i), DstPort: 53,
		}))
	}
	first := whichWay(red, ups, flows)
	n := [3]int{}
	for _, way := range first {
		n[way]++
	}
	if n[0] < count/4 || n[1] < count/4 || n[2] > 0 {
		t.Errorf("of %d flows %d took the one way and %d the other, %d none", count, n[0], n[1], n[2])
	}
	if again := whichWay(red, ups, flows); !same(first, again, func(int) bool { return true }) {
		t.Error("flows don't keep their way")
	}
	ups[1].Detach()
	alive := []*lab.NS{ups[0]}
	var after []int
	l.Eventually("all flows take the way that is left", patience, func() bool {
		after = whichWay(red, alive, flows)
		for _, way := range after {
			if way != 0 {
				return false
			}
		}
		return true
	})
	if !same(first, after, func(i int) bool { return first[i] == 0 }) {
		t.Error("flows of the next hop that stayed have moved")
	}
}

func same(a, b []int, where func(int) bool) bool {
	for i := range a {
		if where(i) && a[i] != b[i] {
			return false
		}
	}
	return true
}

// whichWay sends all flows and returns at which of the hosts each arrived; one more
// than there are means at none.
func whichWay(from *lab.NS, hosts []*lab.NS, flows [][]byte) []int {
	var recs []*lab.Recording
	for _, h := range hosts {
		recs = append(recs, h.Record())
	}
	from.Send(flows...)
	heard := func() (n int) {
		for _, r := range recs {
			n += len(r.Frames())
		}
		return n
	}
	for end := time.Now().Add(time.Second); heard() < len(flows) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	lab.Settle(100*time.Millisecond, recs...)
	ways := make([]int, len(flows))
	for i := range ways {
		ways[i] = len(hosts)
	}
	for at, r := range recs {
		for _, b := range r.Stop() {
			if len(b) >= 42 && b[12] == 8 && b[13] == 0 && b[23] == 17 {
				if i := int(binary.BigEndian.Uint16(b[34:])) - 20000; i >= 0 && i < len(ways) {
					ways[i] = at
				}
			}
		}
	}
	return ways
}

// TestRoutesOutlive kills the dataplane, the agent and both while a transfer passes
// a router whose way was given on the command line, by tables and rules.
func TestRoutesOutlive(t *testing.T) {
	d, red, green := routedPair(t, "    tables: {way: 100}\n", "")
	for _, n := range []*lab.NS{red, green} {
		n.Ping(d.Gateway(map[bool]lab.Family{true: lab.V4, false: lab.V6}[n == red]))
	}
	d.Batch("core",
		"route add 10.71.0.0/24 dev right table way", "route add fd71::/64 dev right table way",
		"rule add from 10.70.0.0/24 to 10.71.0.0/24 lookup way pref 100", "-6 rule add from fd70::/64 lookup way pref 100",
		"rule add from 10.70.0.0/24 prohibit pref 200", "route add 192.0.2.0/24 via 10.71.0.10")
	shown := func() string {
		return d.CLI("-n", "core", "route", "show", "table", "all").Out + d.CLI("-n", "core", "-6", "route", "show", "table", "all").Out +
			d.CLI("-n", "core", "rule").Out + d.CLI("-n", "core", "-6", "rule").Out
	}
	before := shown()
	red.Ping(green.IP(lab.V4))
	control := d.Lab().Control()
	x := &transfer{d, red, green, lab.StartTCP(red, green, lab.V4, "-seconds", "4"), lab.Probe(red, green, lab.V4), control}
	time.Sleep(300 * time.Millisecond)
	d.AwaitDataplane(d.KillDataplane())
	time.Sleep(300 * time.Millisecond)
	d.KillAgent()
	time.Sleep(300 * time.Millisecond)
	d.Start()
	time.Sleep(300 * time.Millisecond)
	d.KillBoth()
	d.Start()
	x.survives(t, 5000)
	if after := shown(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	red.Try("ping", "-n", "-c", "1", "-W", "1", "8.8.8.8").Expect(1, "Packet filtered")
}

// TestApplyUnderTraffic changes routes, rules and networks, hundreds of times, while
// a transfer passes that none of it concerns.
func TestApplyUnderTraffic(t *testing.T) {
	d, red, green := routedPair(t, "", "")
	red.Ping(green.IP(lab.V4))
	probe, control := lab.Probe(red, green, lab.V4), d.Lab().Control()
	tcp := lab.StartTCP(red, green, lab.V4, "-seconds", "3")
	applied := 0
	for i := 0; !tcp.Ended(); i++ {
		var lines []string
		verb := []string{"add", "del"}[i%2]
		for n := range 200 {
			lines = append(lines, fmt.Sprintf("route %s 10.%d.%d.0/24 via 10.71.0.10", verb, 100+n/200, n))
		}
		lines = append(lines, fmt.Sprintf("rule %s from 172.16.0.0/12 lookup 100 pref 500", verb))
		d.Batch("core", lines...)
		applied++
	}
	r := lab.Report[report.Stream](tcp, time.Minute)
	p, c := probe.Stop(), control.Stop()
	t.Logf("%d changes of 200 routes: %.1f Gbit/s, longest gap %.0f ms (control %.0f ms)", applied, r.Gbps(), p.MaxGapMS, c.MaxGapMS)
	if !r.OK || applied < 10 || p.MaxGapMS > 250+c.MaxGapMS {
		t.Errorf("transfer %+v, prober %+v, control %+v", r, p, c)
	}
}
