// SPDX-License-Identifier: Apache-2.0

package router

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/neigh"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
)

// lab is a router of two networks and a link:
//
//	container c1, port 100 --- a (1, MTU 1500)   10.1.0.1/24 fd01::1/64 fe80::1/64
//	                           b (2, MTU 1400)   10.2.0.1/24 fd02::1/64 fe80::1/64
//	                           l (3, MTU 1400)   10.3.0.1/24 fd03::1/64, point to point
//
// On a and b, hosts .2 to .9 are known.
type lab struct {
	t    testing.TB
	r    *Router
	sink *recorder
	conf Config
	spec Spec
}

func labDevices() []Device {
	var devs []Device
	for n, name := range []string{"a", "b", "l"} {
		d := Device{Name: name, Index: uint16(n + 1), MAC: packet.MAC{2, 0, 0, 0, 0, byte(n + 1)}, MTU: []int{1500, 1400, 1400}[n], PointToPoint: n == 2}
		for _, p := range []string{"10.%d.0.1/24", "fd0%d::1/64"} {
			d.Addrs = append(d.Addrs, netip.MustParsePrefix(fmt.Sprintf(p, n+1)))
		}
		if n < 2 {
			d.Addrs = append(d.Addrs, netip.MustParsePrefix("fe80::1/64"))
		}
		devs = append(devs, d)
	}
	return devs
}

// newLab makes it with lines of routes and rules, after a change to the devices.
func newLab(t testing.TB, text string, change ...func(*lab)) *lab {
	t.Helper()
	l := &lab{t: t, r: New(Limits{}), spec: Spec{Devices: labDevices(), Ports: []Port{{Index: 100, Name: "c1"}}}}
	l.sink = &recorder{r: l.r}
	l.conf.ICMP.Off = true
	for n := range 2 {
		for host := 2; host < 10; host++ {
			for _, a := range []string{fmt.Sprintf("10.%d.0.%d", n+1, host), fmt.Sprintf("fd0%d::%d", n+1, host), fmt.Sprintf("fe80::%d", host)} {
				l.conf.Neighbours = append(l.conf.Neighbours, neigh.Static{Device: uint16(n + 1), Addr: pt.IP(a), MAC: host2mac(n+1, host)})
			}
		}
	}
	for _, c := range change {
		c(l)
	}
	l.configure(text)
	return l
}

func host2mac(dev, host int) packet.MAC { return packet.MAC{2, 0, 0, 0, byte(dev), byte(host)} }

// configure builds the set anew and swaps it in.
func (l *lab) configure(text string) {
	l.t.Helper()
	set, err := BuildSet(&l.spec)
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		c, err := (*routing.Names)(nil).Parse(line)
		if err == nil {
			set, err = set.Apply([]routing.Change{c})
		}
		if err != nil {
			l.t.Fatalf("%s: %v", line, err)
		}
	}
	l.conf.Devices, l.conf.Set = l.spec.Devices, set
	l.r.Prepare(&l.conf).Commit()
}

// input gives a frame that came in by a, from c1, to the router.
func (l *lab) input(b []byte) Verdict { return l.inputAs(pt.Frame(b), Packet{Device: 1, Port: 100}) }

func (l *lab) inputAs(f *packet.Frame, p Packet) Verdict {
	l.t.Helper()
	p.Frame = f
	before := slices.Clone(f.Bytes())
	v := l.r.Input(&p, l.sink)
	if !slices.Equal(before, f.Bytes()) {
		l.t.Error("the frame was changed")
	}
	return v
}

// words are a verdict in a few words.
func words(v Verdict) string {
	switch v.Action {
	case Drop:
		return "drop " + v.Reason.String()
	case Deliver:
		return fmt.Sprintf("deliver %d", v.Device)
	case Forward:
		if v.Link {
			return fmt.Sprintf("link %d", v.Device)
		}
		return fmt.Sprintf("forward %d %v", v.Device, v.Dst)
	}
	return v.Action.String()
}

// from4 is a UDP datagram of c1, which comes with the gateway's MAC.
func from4(dst string, ttl uint8, size int, more ...func(*pt.IPv4Hdr)) []byte {
	h := pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP(dst), TTL: ttl, DF: true}
	for _, m := range more {
		m(&h)
	}
	return pt.Build(toA(), h, pt.UDPHdr{}, pt.Bytes(size-28-len(h.Options)))
}

func from6(dst string, ttl uint8, size int, more ...func(*pt.IPv6Hdr)) []byte {
	h := pt.IPv6Hdr{Src: pt.IP("fd01::2"), Dst: pt.IP(dst), HopLimit: ttl}
	for _, m := range more {
		m(&h)
	}
	return pt.Build(toA(), h, pt.UDPHdr{}, pt.Bytes(size-48))
}

func toA() pt.EtherHdr { return pt.EtherHdr{Src: host2mac(1, 2), Dst: packet.MAC{2, 0, 0, 0, 0, 1}} }

func src4(a string) func(*pt.IPv4Hdr) { return func(h *pt.IPv4Hdr) { h.Src = pt.IP(a) } }
func src6(a string) func(*pt.IPv6Hdr) { return func(h *pt.IPv6Hdr) { h.Src = pt.IP(a) } }
func mayFragment(h *pt.IPv4Hdr)       { h.DF = false }

func options(o ...byte) func(*pt.IPv4Hdr) { return func(h *pt.IPv4Hdr) { h.Options = o } }

// step is one case of the table: what the router says, and what it sends.
type step struct {
	name  string
	conf  string
	edit  func(*lab)
	frame []byte
	want  string
	said  []string
}

const toC1 = "1 02:00:00:00:01:02: "

func steps() []step {
	return []step{
		{name: "to a neighbour", frame: from4("10.2.0.2", 64, 100), want: "forward 2 02:00:00:00:02:02"},
		{name: "to a neighbour, IPv6", frame: from6("fd02::2", 64, 100), want: "forward 2 02:00:00:00:02:02"},
		{name: "to a gateway", conf: "route add default via 10.2.0.3", frame: from4("8.8.8.8", 64, 100), want: "forward 2 02:00:00:00:02:03"},
		{name: "over a link", conf: "route add default dev l", frame: from4("8.8.8.8", 64, 100), want: "link 3"},
		{name: "gateway of IPv6 for IPv4", conf: "route add default via inet6 fe80::4 dev b", frame: from4("8.8.8.8", 64, 100), want: "forward 2 02:00:00:00:02:04"},

		{name: "own address", frame: from4("10.1.0.1", 1, 100), want: "deliver 1"},
		{name: "own address of another device", frame: from4("10.2.0.1", 1, 100), want: "deliver 2"},
		{name: "own IPv6 address of another device", frame: from6("fd02::1", 1, 100), want: "deliver 2"},
		{name: "anycast address of the subnet's routers", frame: from6("fd02::", 1, 100), want: "deliver 2"},
		{name: "a local route", conf: "route add local 10.9.0.0/16 dev lo", frame: from4("10.9.1.1", 64, 100), want: "deliver 1"},
		{name: "broadcast of a subnet", frame: from4("10.2.0.255", 64, 100), want: "deliver 2"},
		{name: "group", frame: from4("224.0.0.5", 1, 100), want: "deliver 1"},
		{name: "group of IPv6", frame: from6("ff02::5", 1, 100), want: "deliver 1"},
		{name: "link-local address of this link", frame: from6("fe80::1", 1, 100), want: "deliver 1"},

		{name: "no route", frame: from4("8.8.8.8", 64, 100), want: "drop no_route", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 0 ttl 64"}},
		{name: "no route, IPv6", frame: from6("2001:db8::1", 64, 100), want: "drop no_route", said: []string{toC1 + "ipv6 fd01::1 > fd01::2 icmp type 1 code 0 ttl 64"}},
		{name: "blackhole", conf: "route add blackhole 10.9.0.0/16", frame: from4("10.9.0.1", 64, 100), want: "drop blackhole"},
		{name: "unreachable", conf: "route add unreachable 10.9.0.0/16", frame: from4("10.9.0.1", 64, 100), want: "drop unreachable", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 1 ttl 64"}},
		{name: "prohibit", conf: "route add prohibit 10.9.0.0/16", frame: from4("10.9.0.1", 64, 100), want: "drop prohibit", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 13 ttl 64"}},
		{name: "prohibit, IPv6", conf: "route add prohibit 2001:db8::/32", frame: from6("2001:db8::1", 64, 100), want: "drop prohibit", said: []string{toC1 + "ipv6 fd01::1 > fd01::2 icmp type 1 code 1 ttl 64"}},
		{name: "rule says unreachable", conf: "rule add from 10.1.0.0/24 pref 9 unreachable", frame: from4("10.2.0.2", 64, 100), want: "drop no_route", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 0 ttl 64"}},
		{name: "rule of the container's port", conf: "rule add iif c1 pref 9 prohibit", frame: from4("10.2.0.2", 64, 100), want: "drop prohibit", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 13 ttl 64"}},
		{name: "over lo", conf: "route add 10.9.0.0/16 dev lo", frame: from4("10.9.0.1", 64, 100), want: "drop no_route"},

		{name: "last hop", frame: from4("10.2.0.2", 1, 100), want: "drop ttl_exceeded", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 11 code 0 ttl 64"}},
		{name: "last hop, IPv6", frame: from6("fd02::2", 1, 100), want: "drop ttl_exceeded", said: []string{toC1 + "ipv6 fd01::1 > fd01::2 icmp type 3 code 0 ttl 64"}},
		{name: "no forwarding", edit: func(l *lab) { l.spec.Devices[0].NoForward = true }, frame: from4("10.2.0.2", 64, 100), want: "drop no_forward"},
		{name: "no forwarding and no route", edit: func(l *lab) { l.spec.Devices[0].NoForward = true }, frame: from4("8.8.8.8", 64, 100), want: "drop no_forward"},

		{name: "too big", frame: from4("10.2.0.2", 64, 1401), want: "drop frag_needed", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 4 ttl 64 info 0x578"}},
		{name: "too big, IPv6", frame: from6("fd02::2", 64, 1401), want: "drop frag_needed", said: []string{toC1 + "ipv6 fd01::1 > fd01::2 icmp type 2 code 0 ttl 64 info 0x578"}},
		{name: "too big for the route", conf: "route add 10.9.0.0/16 via 10.2.0.3 mtu 1000", frame: from4("10.9.0.1", 64, 1001), want: "drop frag_needed", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 4 ttl 64 info 0x3e8"}},
		{name: "a route's MTU beyond the device's", conf: "route add 10.9.0.0/16 via 10.2.0.3 mtu 9000", frame: from4("10.9.0.1", 64, 1401), want: "drop frag_needed", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 3 code 4 ttl 64 info 0x578"}},
		{name: "IPv6 never hears of less than 1280", conf: "route add 2001:db8::/32 via fd02::3 mtu 1000", frame: from6("2001:db8::1", 64, 1300), want: "drop frag_needed", said: []string{toC1 + "ipv6 fd01::1 > fd01::2 icmp type 2 code 0 ttl 64 info 0x500"}},
		{name: "fragmented", frame: from4("10.2.0.2", 64, 1500, mayFragment), want: "consumed", said: []string{
			"2 02:00:00:00:02:02: ipv4 10.1.0.2:40000 > 10.2.0.2:80 udp ttl 63 fragment 0+1376",
			"2 02:00:00:00:02:02: ipv4 10.1.0.2 > 10.2.0.2 proto 17 ttl 63 fragment 1376+104",
		}},

		{name: "shorter way", conf: "route add 10.9.0.0/16 via 10.1.0.3", frame: from4("10.9.0.1", 64, 100), want: "forward 1 02:00:00:00:01:03", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 5 code 1 ttl 64 info 0xa010003"}},
		{name: "shorter way, IPv6", conf: "route add 2001:db8::/32 via fe80::3 dev a", frame: from6("2001:db8::1", 64, 100), want: "forward 1 02:00:00:00:01:03", said: []string{toC1 + "ipv6 fe80::1 > fd01::2 icmp type 137 code 0 ttl 255"}},
		{name: "shorter way, which is told to nobody", edit: func(l *lab) { l.spec.Devices[0].NoRedirects = true }, conf: "route add 10.9.0.0/16 via 10.1.0.3", frame: from4("10.9.0.1", 64, 100), want: "forward 1 02:00:00:00:01:03"},

		{name: "own source", frame: from4("10.2.0.2", 64, 100, src4("10.2.0.1")), want: "drop martian_source"},
		{name: "source is a broadcast address", frame: from4("10.2.0.2", 64, 100, src4("10.1.0.255")), want: "drop martian_source"},
		{name: "source is a group", frame: from4("10.2.0.2", 64, 100, src4("224.0.0.1")), want: "drop martian_source"},
		{name: "source is loopback, IPv6", frame: from6("fd02::2", 64, 100, src6("::1")), want: "drop martian_source"},
		{name: "to loopback", frame: from4("127.0.0.1", 64, 100), want: "drop martian_destination"},
		{name: "source of another network", frame: from4("10.2.0.2", 64, 100, src4("10.2.0.3")), want: "forward 2 02:00:00:00:02:02"},
		{name: "strict reverse path", edit: strict, frame: from4("10.2.0.2", 64, 100, src4("10.2.0.3")), want: "drop rp_filter"},
		{name: "strict reverse path, IPv6", edit: strict, frame: from6("fd02::2", 64, 100, src6("fd02::3")), want: "drop rp_filter"},
		{name: "strict reverse path to an own address", edit: strict, frame: from4("10.1.0.1", 64, 100, src4("10.2.0.3")), want: "drop rp_filter"},
		{name: "strict reverse path that is right", edit: strict, frame: from4("10.2.0.2", 64, 100), want: "forward 2 02:00:00:00:02:02"},
		{name: "link-local source under strict reverse path", edit: strict, frame: from6("fd01::1", 64, 100, src6("fe80::2")), want: "deliver 1"},
		{name: "link-local source beyond its link", frame: from6("fd02::2", 64, 100, src6("fe80::2")), want: "drop link_scope", said: []string{toC1 + "ipv6 fe80::1 > fe80::2 icmp type 1 code 2 ttl 64"}},
		{name: "link-local IPv4 source", conf: "route add 169.254.0.0/16 dev a", frame: from4("10.2.0.2", 64, 100, src4("169.254.7.7")), want: "drop link_scope"},

		{name: "wrong checksum", frame: from4("10.2.0.2", 64, 100, func(h *pt.IPv4Hdr) { h.Checksum = new(uint16(1)) }), want: "drop ip_checksum"},
		{name: "source route", frame: from4("10.2.0.2", 64, 100, options(131, 7, 4, 10, 9, 9, 9)), want: "drop source_route"},
		{name: "source route to the router itself", frame: from4("10.1.0.1", 64, 100, options(137, 7, 4, 10, 9, 9, 9)), want: "drop source_route"},
		{name: "router alert", frame: from4("10.2.0.2", 64, 100, options(148, 4, 0, 0)), want: "forward 2 02:00:00:00:02:02"},
		{name: "option cut short", frame: from4("10.2.0.2", 64, 100, options(1, 7, 40)), want: "drop malformed_option", said: []string{toC1 + "ipv4 10.1.0.1 > 10.1.0.2 icmp type 12 code 0 ttl 64 info 0x15000000"}},
		{name: "record route", frame: from4("10.2.0.2", 64, 100, options(7, 7, 4, 0, 0, 0, 0)), want: "consumed", said: []string{"2 02:00:00:00:02:02: ipv4 10.1.0.2:40000 > 10.2.0.2:80 udp ttl 63"}},
		{name: "hop-by-hop option to be known", frame: hopByHop(0xc1), want: "drop malformed_option", said: []string{toC1 + "ipv6 fd01::1 > fd01::2 icmp type 4 code 2 ttl 64 info 0x2a"}},
		{name: "hop-by-hop option that doesn't matter", frame: hopByHop(0x01), want: "forward 2 02:00:00:00:02:02"},
		{name: "hop-by-hop option to drop for", frame: hopByHop(0x41), want: "drop malformed_option"},

		{name: "no error about an error", frame: pt.Build(toA(), pt.IPv4Hdr{Src: pt.IP("10.1.0.2"), Dst: pt.IP("8.8.8.8")}, pt.ICMPHdr{Type: 3}, pt.Bytes(40)), want: "drop no_route"},
		{name: "unknown neighbour", frame: from4("10.2.0.77", 64, 100), want: "consumed", said: []string{"2 ff:ff:ff:ff:ff:ff: arp 10.2.0.1 > 10.2.0.77"}},
		{name: "no such device", edit: func(l *lab) { l.spec.Devices = l.spec.Devices[1:] }, frame: from4("10.2.0.2", 64, 100), want: "drop port_removed"},
	}
}

func strict(l *lab) { l.spec.Devices[0].ReversePath = routing.ReverseStrict }

func hopByHop(option byte) []byte {
	return pt.Build(toA(), pt.IPv6Hdr{Src: pt.IP("fd01::2"), Dst: pt.IP("fd02::2")}, pt.ExtHdr{Body: []byte{option, 4, 0, 0, 0, 0}}, pt.UDPHdr{}, pt.Bytes(40))
}

func TestSteps(t *testing.T) {
	for _, s := range steps() {
		t.Run(s.name, func(t *testing.T) {
			var edits []func(*lab)
			if s.edit != nil {
				edits = append(edits, s.edit)
			}
			l := newLab(t, s.conf, edits...)
			if got := words(l.input(s.frame)); got != s.want {
				t.Errorf("%s, want %s", got, s.want)
			}
			if diff := cmp.Diff(s.said, l.sink.take()); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}
