// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	kt "sluice/test/kerneltest"
)

// longEnv, set to anything, makes the comparisons with the kernel long: 10,000
// prefixes of each family and 100,000 look-ups.
const longEnv = "SLUICE_LONG"

// scale is how much of a comparison to do.
func scale(short, long int) int {
	if os.Getenv(longEnv) != "" {
		return long
	}
	return short
}

// maker makes random routes, rules and queries that have much to do with each
// other, in the words of ip(8).
type maker struct {
	*rand.Rand
	v6       bool
	prefixes []netip.Prefix
}

// addr is an address out of few, so that prefixes lie in each other.
func (m *maker) addr() netip.Addr {
	pick := func() byte { return []byte{0, 1, 2, 3, 64, 127, 128, 255}[m.IntN(8)] }
	if m.v6 {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, pick(), pick(), pick(), byte(m.IntN(256))}
		a[15] = pick()
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{20 + pick()&3, pick(), pick(), byte(m.IntN(256))})
}

func (m *maker) prefix() netip.Prefix {
	bits := 5 + m.IntN(28)
	if m.v6 {
		bits = 28 + m.IntN(40)
		if m.IntN(10) == 0 {
			bits = 128
		}
	}
	if m.IntN(200) == 0 {
		bits = 0
	}
	p := netip.PrefixFrom(m.addr(), bits).Masked()
	m.prefixes = append(m.prefixes, p)
	return p
}

// known is a prefix that was made before.
func (m *maker) known() netip.Prefix {
	if len(m.prefixes) == 0 || m.IntN(8) == 0 {
		return m.prefix()
	}
	return m.prefixes[m.IntN(len(m.prefixes))]
}

// near is an address in or beside a known prefix.
func (m *maker) near() netip.Addr {
	p := m.known()
	a := p.Addr()
	if m.IntN(2) == 0 { // somewhere in it
		b, r := a.AsSlice(), m.addr().AsSlice()
		for i := range b {
			keep := min(8, max(0, p.Bits()-8*i))
			mask := byte(0xff) << (8 - keep)
			b[i] = b[i]&mask | r[i]&^mask
		}
		a, _ = netip.AddrFromSlice(b)
	}
	if m.IntN(6) == 0 {
		a = a.Prev()
	}
	if !m.v6 && (!a.IsValid() || a.As4()[0] < 16 || a.As4()[0] > 31) || m.v6 && !a.IsGlobalUnicast() {
		return m.addr()
	}
	return a
}

func (m *maker) gateway() (via, dev string) {
	n := 1 + m.IntN(kernelDevices)
	if m.v6 {
		return fmt.Sprintf("fd64:%d::%x", n, 2+m.IntN(8)), fmt.Sprintf("slt-d%d", n)
	}
	return fmt.Sprintf("10.64.%d.%d", n, 2+m.IntN(8)), fmt.Sprintf("slt-d%d", n)
}

func (m *maker) table() string {
	return []string{"main", "main", "main", "100", "101", "102"}[m.IntN(6)]
}

// way is what a route does.
func (m *maker) way(p netip.Prefix) string {
	via, dev := m.gateway()
	switch m.IntN(20) {
	case 0:
		return "blackhole " + p.String()
	case 1:
		return "unreachable " + p.String()
	case 2:
		return "prohibit " + p.String()
	case 3, 4:
		return "throw " + p.String()
	case 5, 6:
		return fmt.Sprintf("%v dev %s", p, dev)
	case 7:
		return fmt.Sprintf("%v via %s dev %s onlink", p, via, dev)
	case 8:
		return fmt.Sprintf("%v via %s mtu 1400 advmss 1300", p, via)
	}
	return fmt.Sprintf("%v via %s", p, via)
}

// route is one line that may be refused. Lines with next hops end the words.
func (m *maker) route(op string) string {
	p := m.prefix()
	if op != "add" {
		p = m.known()
	}
	key := " table " + m.table()
	if m.IntN(3) == 0 {
		key += fmt.Sprintf(" metric %d", 10*m.IntN(3))
	}
	if m.IntN(8) == 0 {
		key += " proto static"
	}
	if op != "del" && m.IntN(8) == 0 {
		a, _ := m.gateway()
		b, dev := m.gateway()
		if a == b {
			return m.route(op)
		}
		return fmt.Sprintf("route %s %v%s nexthop via %s weight %d nexthop via %s dev %s", op, p, key, a, 1+m.IntN(9), b, dev)
	}
	if op == "del" && m.IntN(2) == 0 {
		return fmt.Sprintf("route del %v%s", p, key)
	}
	way := m.way(p)
	// Linux leaves out of a dump what stands between gateways of one key.
	for m.v6 && (op == "append" || op == "prepend") && !strings.Contains(way, "via") {
		way = m.way(p)
	}
	if op == "del" && m.v6 { // where Linux doesn't look at the type
		_, rest, _ := strings.Cut(way, p.String())
		way = p.String() + rest
	}
	return "route " + op + " " + way + key
}

// rule is one line for a rule. IPv6 has no input device here: the kernel's answer
// to a question with one is bound to it (inet6_rtm_getroute).
func (m *maker) rule(priority int) string {
	l := fmt.Sprintf("rule add pref %d", priority)
	not := m.IntN(5) == 0
	if not {
		l += " not"
	}
	final := !not && m.IntN(4) == 0 // no answer for half of the world
	if final || m.IntN(2) == 0 {
		l += fmt.Sprintf(" from %v", m.known())
	} else {
		l += " from " + map[bool]string{false: "0.0.0.0/0", true: "::/0"}[m.v6]
	}
	if m.IntN(3) == 0 {
		l += fmt.Sprintf(" to %v", m.known())
	}
	if m.IntN(4) == 0 {
		l += []string{" fwmark 1", " fwmark 2/0x3", " fwmark 0/0x1"}[m.IntN(3)]
	}
	if m.IntN(5) == 0 && !m.v6 {
		l += []string{" iif slt-d1", " iif slt-d2", " iif slt-none"}[m.IntN(3)]
	}
	if m.IntN(4) == 0 {
		l += []string{" ipproto tcp", " ipproto 17", " dport 53", " sport 1000-2000", " ipproto udp dport 50-60"}[m.IntN(5)]
	}
	if m.IntN(8) == 0 {
		l += " tos 0x10"
	}
	if final {
		return l + []string{" blackhole", " unreachable", " prohibit"}[m.IntN(3)]
	}
	switch m.IntN(10) {
	case 0:
		return l + " nop"
	case 1, 2:
		return l + fmt.Sprintf(" goto %d", priority+1+m.IntN(40))
	case 3, 4:
		return l + fmt.Sprintf(" lookup main suppress_prefixlength %d", []int{0, 8, 12, 32}[m.IntN(4)])
	}
	return l + " lookup " + []string{"100", "101", "102", "103"}[m.IntN(4)]
}

func (m *maker) query(devs map[string]uint16) *Query {
	q := &Query{Dst: m.near(), Mark: uint32(m.IntN(4)), Proto: []uint8{6, 17}[m.IntN(2)]}
	q.Sport, q.Dport = uint16([]int{1000, 1500, 2001}[m.IntN(3)]), uint16([]int{53, 60, 80}[m.IntN(3)])
	if m.IntN(4) == 0 {
		q.TOS = []uint8{0x10, 0x12, 0xd0}[m.IntN(3)]
	}
	if m.v6 {
		q.Src = m.near()
		return q
	}
	if m.IntN(4) > 0 { // a source that is not ours needs an input device
		q.Src, q.IIF = m.near(), devs[fmt.Sprintf("slt-d%d", 1+m.IntN(kernelDevices))]
	} else if m.IntN(3) == 0 {
		q.OIF = devs[fmt.Sprintf("slt-d%d", 1+m.IntN(kernelDevices))]
	}
	return q
}

// rivals are the kernel and a Set, which get the same lines.
type rivals struct {
	t      *testing.T
	k      *kernel
	s      *Set
	family string
}

func newRivals(t *testing.T, v6 bool) *rivals {
	t.Helper()
	k := newKernel(t)
	return &rivals{t: t, k: k, s: k.mirror(), family: map[bool]string{false: "-4", true: "-6"}[v6]}
}

// batch gives the lines to both and compares which are refused.
func (r *rivals) batch(lines []string) {
	r.t.Helper()
	refused := r.k.try(r.family, lines)
	for i, l := range lines {
		c, err := (*Names)(nil).Parse(r.family + " " + l)
		if err != nil {
			r.t.Fatalf("%s: %v", l, err)
		}
		n, err := r.s.Apply([]Change{c})
		if (err != nil) != refused[i+1] {
			r.t.Errorf("%s: the kernel refused: %v; we: %v", l, refused[i+1], err)
		}
		if err == nil {
			r.s = n
		}
	}
}

// compareRoutes compares what both show, but what the kernel made by itself.
func (r *rivals) compareRoutes() {
	r.t.Helper()
	var ours []string
	for route := range r.s.Routes(0) {
		if route.is6() == (r.family == "-6") {
			ours = append(ours, route.String())
		}
	}
	if diff := cmp.Diff(configured(r.k.routes(r.family)), configured(ours)); diff != "" {
		r.t.Fatalf("routes (-kernel +set):\n%.3000s", diff)
	}
}

// configured are the routes that no address brought, sorted; hops of a route too,
// since IPv6 shows them in no order that means anything.
func configured(routes []string) []string {
	routes = slices.DeleteFunc(slices.Clone(routes), func(l string) bool { return strings.Contains(l, "proto kernel") })
	for i, l := range routes {
		if head, hops, several := strings.Cut(l, "\n"); several {
			sorted := strings.Split(hops, "\n")
			slices.Sort(sorted)
			routes[i] = head + "\n" + strings.Join(sorted, "\n")
		}
	}
	slices.Sort(routes)
	return routes
}

// compareRules compares what both show of the rules.
func (r *rivals) compareRules() {
	r.t.Helper()
	var ours, theirs []string
	for _, rule := range r.s.Rules(map[string]Family{"-4": IPv4, "-6": IPv6}[r.family]) {
		ours = append(ours, rule.String())
	}
	for l := range strings.Lines(kt.Run(r.t, "ip", r.family, "rule", "show")) {
		l = strings.NewReplacer(" [detached]", "", " [unresolved]", "").Replace(l)
		theirs = append(theirs, strings.TrimRight(l, " \n"))
	}
	if diff := cmp.Diff(theirs, ours); diff != "" {
		r.t.Fatalf("rules (-kernel +set):\n%s", diff)
	}
}

// compareAnswers asks both the same questions.
func (r *rivals) compareAnswers(m *maker, questions int) {
	r.t.Helper()
	devs := map[string]uint16{}
	for _, d := range r.s.Devices() {
		devs[d.Name] = d.Index
	}
	kinds := map[string]int{}
	for range questions {
		q := m.query(devs)
		want, errno := r.k.lookup(q)
		res := r.s.Lookup(q)
		got, ours := ourAnswer(&res)
		if ours != 0 && q.OIF != 0 {
			ours = unix.EHOSTUNREACH // Linux assumes then that the destination is on the link
		}
		if got != want || ours != errno {
			r.t.Fatalf("%+v:\nkernel %q %v\nset    %q %v\n%s", *q, want, errno, got, ours, (*Names)(nil).Decision(&Question{Query: *q}, &res, netip.Addr{}))
		}
		kinds[res.Type.String()]++
	}
	r.t.Logf("%d routes, %d questions, answers %v", r.s.Len(), questions, kinds)
}

func family(v6 bool) string { return "IPv" + strconv.Itoa(4+2*b2i(v6)) }

// The same lines make the same routes, or are refused by both.
func TestSameRoutesAsTheKernel(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(family(v6), func(t *testing.T) {
			r := newRivals(t, v6)
			m := &maker{Rand: rand.New(rand.NewPCG(21, 22)), v6: v6}
			ops := []string{"add", "add", "add", "replace", "change", "append", "prepend", "del", "del"}
			for range scale(20, 200) {
				var lines []string
				for range 50 {
					lines = append(lines, m.route(ops[m.IntN(len(ops))]))
				}
				r.batch(lines)
				r.compareRoutes()
			}
			t.Logf("%d routes", r.s.Len())
		})
	}
}

// The same routes and rules give the same answers to random questions.
func TestSameAnswersAsTheKernel(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(family(v6), func(t *testing.T) {
			r := newRivals(t, v6)
			m := &maker{Rand: rand.New(rand.NewPCG(23, 24)), v6: v6}
			var lines []string
			for range scale(1500, 26000) {
				lines = append(lines, m.route("add"))
			}
			r.batch(lines)
			for n := range scale(4, 20) {
				r.compareAnswers(m, scale(150, 500))
				lines = nil
				for i := range 6 {
					lines = append(lines, m.rule(100+6*n+i))
				}
				r.batch(lines)
				r.compareRules()
			}
			r.compareAnswers(m, scale(1500, 45000))
		})
	}
}

// What comes in by a device is let in, or not, as the kernel's rp_filter does.
func TestSameReversePathAsTheKernel(t *testing.T) {
	r := newRivals(t, false)
	m := &maker{Rand: rand.New(rand.NewPCG(25, 26))}
	var lines []string
	for range 400 {
		lines = append(lines, m.route("add"))
	}
	for n := range 8 {
		lines = append(lines, m.rule(100+n))
	}
	// The answer comes in where the question goes out, with the ports the other way.
	lines = append(lines,
		fmt.Sprintf("rule add pref 90 from %v iif slt-d1 lookup 101", m.known()),
		fmt.Sprintf("rule add pref 91 to %v ipproto udp sport 1000 dport 53 lookup 102", m.known()))
	// Every destination has a route, so that only the source decides.
	lines = append(lines, "rule add pref 1 to 30.0.0.0/8 lookup 200", "route add 30.0.0.0/8 dev slt-d1 table 200")
	r.batch(lines)
	devs := map[string]uint16{}
	for _, d := range r.s.Devices() {
		devs[d.Name] = d.Index
	}
	for mode := ReverseOff; mode <= ReverseLoose; mode++ {
		kt.Sysctl(r.t, fmt.Sprintf("ipv4/conf/all/rp_filter=%d", mode))
		passed := 0
		for range scale(700, 10000) {
			dev := fmt.Sprintf("slt-d%d", 1+m.IntN(kernelDevices))
			q := &Query{Src: m.near(), Dst: netip.AddrFrom4([4]byte{30, 0, 0, 1}), IIF: devs[dev], Proto: 17, Sport: 53, Dport: 1000}
			_, errno := r.k.lookup(q)
			q.OIF = devs["slt-d1"]
			// Linux 6.14 and later say EINVAL for whatever is wrong with a source.
			if errno != 0 && errno != unix.EXDEV && errno != unix.EINVAL {
				t.Fatalf("%+v: %v", *q, errno)
			}
			got := r.s.ReversePath(q, mode)
			if got != (errno == 0) {
				res := r.s.Lookup(&Query{Src: q.Dst, Dst: q.Src})
				t.Fatalf("mode %d, %v from %s: %v, the kernel %v\n%+v", mode, q.Src, dev, got, errno, res.Route)
			}
			passed += b2i(got)
		}
		t.Logf("mode %d: %d passed", mode, passed)
	}
}
