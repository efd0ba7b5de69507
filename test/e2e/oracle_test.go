// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
)

// How much TestRouteGet compares. Ten times as much, without the daemon between, is
// what routing's own test against the kernel does (make oracle).
const (
	oracleRoutes  = 4000 // of both families
	oracleRules   = 24
	oracleQueries = 4000
)

// tables makes random routes, rules and questions about them.
type tables struct {
	*rand.Rand
	seen     map[string]bool
	prefixes []netip.Prefix
}

// prefix is one of many that lie in each other.
func (r *tables) prefix() netip.Prefix {
	pick := func() byte { return []byte{0, 1, 2, 64, 128, 255}[r.IntN(6)] }
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(r.IntN(3)), pick(), pick(), byte(r.IntN(256))}), 6+r.IntN(27))
	if r.IntN(2) == 0 {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, pick(), pick(), pick(), byte(r.IntN(256)), 15: pick()}
		p = netip.PrefixFrom(netip.AddrFrom16(a), []int{28 + r.IntN(40), 128}[r.IntN(8)/7])
	}
	return p.Masked()
}

// near is an address in a prefix that has a route, mostly.
func (r *tables) near() netip.Addr {
	p := r.prefixes[r.IntN(len(r.prefixes))]
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] ^= byte(r.IntN(2)) << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

var oracleTables = []string{"main", "main", "main", "100", "101", "102"}

// route is a line of a batch without the verb; "" if it would be there twice.
func (r *tables) route() string {
	p := r.prefix()
	table := oracleTables[r.IntN(len(oracleTables))]
	metric := 1 + r.IntN(3)
	key := fmt.Sprint(p, table, metric)
	if r.seen[key] {
		return ""
	}
	r.seen[key] = true
	r.prefixes = append(r.prefixes, p)
	rest := fmt.Sprintf("%v table %s metric %d", p, table, metric)
	hosts := []string{"10.80.0.%d", "10.81.0.%d"}
	if p.Addr().Is6() {
		hosts = []string{"fd80::%x", "fd81::%x"}
	}
	at := r.IntN(2)
	via := fmt.Sprintf(hosts[at], 16+r.IntN(9))
	switch r.IntN(16) {
	case 0:
		return "blackhole " + rest
	case 1:
		return "unreachable " + rest
	case 2:
		return "prohibit " + rest
	case 3:
		return "throw " + rest
	case 4:
		return fmt.Sprintf("%s dev n%d", rest, at)
	case 5: // both next hops are for this alone
		return fmt.Sprintf("%s nexthop via %s weight %d nexthop via %s", rest, fmt.Sprintf(hosts[0], 40), 1+r.IntN(4), fmt.Sprintf(hosts[1], 40))
	case 6:
		return fmt.Sprintf("%s via %s mtu 1400", rest, via)
	case 7:
		return fmt.Sprintf("%s via %s src %s", rest, via, fmt.Sprintf(hosts[1-at], 1))
	}
	return rest + " via " + via
}

// rule is a line of a batch without the verb.
func (r *tables) rule(pref int) string {
	p := r.prefix()
	sel := "from " + p.String()
	switch r.IntN(6) {
	case 0:
		sel = "to " + p.String()
	case 1:
		sel = fmt.Sprintf("from all iif n%d", r.IntN(2))
	case 2:
		sel = "not to " + p.String()
	case 3:
		sel = "from all ipproto udp dport 53"
	case 4:
		sel += " tos 0x10"
	}
	if p.Addr().Is6() {
		sel = "-6 " + sel
	}
	action := "lookup " + oracleTables[3+r.IntN(3)]
	switch r.IntN(8) {
	case 0:
		action = "prohibit"
	case 1:
		action = "lookup main suppress_prefixlength 8"
	}
	return fmt.Sprintf("%s %s pref %d", sel, action, pref)
}

// question is what stands behind `route get`.
func (r *tables) question() string {
	a := r.near()
	from := []string{"10.80.0.77", "10.81.0.77", "20.1.1.1"}
	if a.Is6() {
		from = []string{"fd80::77", "fd81::77", "2001:db8:1::1"}
	}
	q := a.String()
	switch r.IntN(5) {
	case 0, 1:
		n := r.IntN(3)
		q += fmt.Sprintf(" from %s iif n%d", from[n], n&1)
	case 2:
		q += " ipproto udp dport 53"
	case 3:
		q += " tos 0x10"
	}
	return q
}

// TestRouteGet loads the same random tables into the kernel by `ip -batch`, into
// one namespace of Sluice's by `sluice -batch`, and into another one by the file,
// and asks all of them the same questions.
func TestRouteGet(t *testing.T) {
	l := lab.New(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := &tables{Rand: rand.New(rand.NewPCG(seed, 1)), seen: map[string]bool{}}
	p := &lab.Plan{Spaces: []lab.Space{{Name: "core", Nets: []lab.Net{
		{Name: "n0", Subnets: []string{"10.80.0.0/24", "fd80::/64"}},
		{Name: "n1", Subnets: []string{"10.81.0.0/24", "fd81::/64"}},
	}}}}
	for len(p.Spaces[0].Routes) < oracleRoutes {
		if line := r.route(); line != "" {
			p.Spaces[0].Routes = append(p.Spaces[0].Routes, line)
		}
	}
	for i := range oracleRules {
		p.Spaces[0].Rules = append(p.Spaces[0].Rules, r.rule(100+i))
	}
	both := &lab.Plan{Spaces: []lab.Space{p.Spaces[0], renamed(p.Spaces[0])}}
	both.Spaces[0].Routes, both.Spaces[0].Rules = nil, nil
	start := time.Now()
	ours := l.Sluice(both)
	t.Logf("apply of %d routes: %v", oracleRoutes, time.Since(start))
	theirs := l.Kernel(p, ours)
	start = time.Now()
	ours.Daemon.Batch("core", lab.Adds(&p.Spaces[0])...)
	t.Logf("batch: %v", time.Since(start))
	var lines []string
	for range oracleQueries {
		lines = append(lines, "route get "+r.question())
	}
	want := answers(theirs.Routers["core"].TryBatch(lines...), lines)
	for space, rename := range map[string]*strings.Replacer{"core": renaming("n", "n"), "filed": renaming("n", "m")} {
		var asked []string
		for _, line := range lines {
			asked = append(asked, rename.Replace(line))
		}
		got := answers(ours.Daemon.TryBatch(space, asked...), asked)
		compareRoutes(t, space, lines, got, want)
	}
}

// renamed is the space under other names: a network is the only one of its name.
func renamed(s lab.Space) lab.Space {
	out := lab.Space{Name: "filed"}
	r := renaming("n", "m")
	for _, n := range s.Nets {
		n.Name = strings.Replace(n.Name, "n", "m", 1)
		out.Nets = append(out.Nets, n)
	}
	for _, line := range s.Routes {
		out.Routes = append(out.Routes, r.Replace(line))
	}
	for _, line := range s.Rules {
		out.Rules = append(out.Rules, r.Replace(line))
	}
	return out
}

func renaming(from, to string) *strings.Replacer {
	return strings.NewReplacer("dev "+from, "dev "+to, "iif "+from, "iif "+to)
}

var (
	failedLine = regexp.MustCompile(`(?m)^(.*)\nCommand failed [^\n]*:(\d+)$`)
	answerWord = regexp.MustCompile(`\b(via|dev|src|table|mtu) (\S+)`)
	shared     = regexp.MustCompile(`via (10\.8[01]\.0\.40|fd8[01]::28) dev [nm][01] ?`)
)

// answers is one for each line: what decides, or the error.
func answers(r lab.Result, asked []string) []string {
	out := make([]string, len(asked))
	failed := make(map[int]bool)
	for _, m := range failedLine.FindAllStringSubmatch(r.Err, -1) {
		var n int
		fmt.Sscan(m[2], &n)
		out[n-1], failed[n-1] = m[1], true
	}
	i := 0
	for line := range strings.Lines(r.Out) {
		first, _, _ := strings.Cut(line, "\\")
		head, _, isRefusal := strings.Cut(first, " ")
		if isRefusal && strings.Contains("unreachable blackhole prohibit", head) && len(failed) > 0 {
			continue // told as an error too
		}
		for i < len(asked) && failed[i] {
			i++
		}
		if i < len(asked) {
			out[i] = answer(first)
		}
		i++
	}
	return out
}

// answer keeps what the kernel tells too, in order.
func answer(line string) string {
	line = shared.ReplaceAllString(strings.ReplaceAll(line, " dev m", " dev n"), "via SHARED ")
	var words []string
	if head, _, _ := strings.Cut(line, " "); head == "local" || head == "broadcast" {
		return head
	}
	isShared := strings.Contains(line, "SHARED")
	for _, m := range answerWord.FindAllStringSubmatch(line, -1) {
		if m[1] == "table" && m[2] == "main" || m[1] == "mtu" || isShared && m[1] == "src" {
			continue
		}
		words = append(words, m[0])
	}
	return strings.Join(words, " ")
}

func compareRoutes(t *testing.T, space string, asked, got, want []string) {
	t.Helper()
	differ, kinds := 0, make(map[string]int)
	for i := range asked {
		kinds[kindOfAnswer(want[i])]++
		if got[i] != want[i] {
			if differ++; differ <= 10 {
				t.Errorf("%s: %s: %q, the kernel says %q", space, asked[i], got[i], want[i])
			}
		}
	}
	t.Logf("%s: %d of %d answers differ; the kernel's: %v", space, differ, len(asked), kinds)
	for _, kind := range []string{"via", "dev", "RTNETLINK answers: No route to host", "RTNETLINK answers: Permission denied"} {
		if kinds[kind] == 0 {
			t.Errorf("no answer of the kernel was %q: %v", kind, kinds)
		}
	}
}

func kindOfAnswer(s string) string {
	if strings.HasPrefix(s, "RTNETLINK") {
		return s
	}
	kind, _, _ := strings.Cut(s, " ")
	return kind
}
