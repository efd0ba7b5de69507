// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/policy/journal"
	"sluice/policy/nft"
	"sluice/policy/policytest"
)

// Random rulesets, with chains at all hooks and of type nat, are loaded by the kernel's
// router and by Sluice's; packets of a few dialogues, to hosts and to the router itself,
// go through both. What comes out is compared after each, what rules have counted,
// elements and connections after the last one.

// ruledOracle compares the routers.
type ruledOracle struct {
	*oracle
	nft   *policytest.Session
	cases int // that were compared to their end
}

func newRuledOracle(t *testing.T) *ruledOracle {
	t.Helper()
	k := bareKernelRouter(t)
	s := k.between()
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			s.Networks[i].Ports[j].Tenure = 1
		}
	}
	k.open(s)
	o := &ruledOracle{oracle: &oracle{kernelRouter: k, allowed: map[string]int{}}, nft: policytest.NewSession(t)}
	o.settle()
	// Connections are tracked here, whatever rules ask for.
	o.nft.Do("table inet tracks { chain c { type filter hook prerouting priority -400; ct state new; }; chain n { type nat hook prerouting priority 0; }; }")
	return o
}

// settle waits until the kernel has said what it says of itself about the groups that
// its devices are in.
func (o *ruledOracle) settle() {
	o.t.Helper()
	defer o.nft.Do("delete table ip6 t")
	o.nft.Do("table ip6 t { chain c { type filter hook postrouting priority 0; counter; }; }")
	for was, still := "", 0; still < 2; {
		time.Sleep(1200 * time.Millisecond)
		is := o.nft.Do("list table ip6 t")
		if still++; is != was {
			was, still = is, 0
		}
	}
}

// ruledCase is a ruleset, and the packets that a seed makes.
type ruledCase struct {
	seed   uint64
	family string
	text   string
	skip   map[int]bool // packets that are made, but not sent
}

func newRuledCase(seed uint64) *ruledCase {
	r := rand.New(rand.NewPCG(seed, 9))
	g := &policytest.Gen{R: r, Family: []string{"ip", "ip6", "inet"}[r.IntN(3)], Kernel: true, Whole: true, Counts: r.IntN(4) > 0, Long: r.IntN(16) == 0}
	names := strings.NewReplacer("10.0.0.", "10.71.1.", "10.0.1.", "10.71.2.", "fd00:0::", "fd71:1::", "fd00:1::", "fd71:2::", "fd00::", "fd71:1::",
		`"m0"`, `"r1"`, `"m1"`, `"r2"`, `"m*"`, `"r*"`, `"m2"`, `"r9"`)
	return &ruledCase{seed, g.Family, names.Replace(g.Ruleset()), map[int]bool{}}
}

// play is one case; it returns the first difference. Where the machine has stood still for so
// long that the kernel takes datagrams for a stream, for which our clock would have to go
// on, the case is played again.
func (o *ruledOracle) play(c *ruledCase) string {
	o.t.Helper()
	const stream = 2 * time.Second
	for range 3 {
		began := time.Now()
		difference := o.playOnce(c)
		if difference == "" || time.Since(began) < stream {
			return difference
		}
		o.allowed[stoodStill]++
	}
	return o.playOnce(c)
}

func (o *ruledOracle) playOnce(c *ruledCase) string {
	o.t.Helper()
	if out := o.nft.Try(c.text); strings.Contains(out, "Error: ") {
		if len(c.skip) == 0 {
			o.t.Fatalf("%s\n%s", out, c.text)
		}
		return "" // what is left of a ruleset is none
	}
	table := "table " + c.family + " t"
	defer o.nft.Do("delete " + table)
	o.load(&journal.Journal{Steps: []journal.Step{{Text: c.text}}})
	defer o.load(nil)
	o.r = rand.New(rand.NewPCG(c.seed, 10))
	o.lab.pass(7) // the accounts of errors are full again
	x := &trial{o: o.oracle, ruled: true, entered: map[conntrack.Tuple]bool{}, refused: map[netip.Addr]int{}, rejects: strings.Contains(c.text, "reject")}
	defer x.clean()
	if !x.talk(c) || x.blurred || !x.sameState() || x.blurred {
		return x.failed
	}
	ours, err := o.lab.n.Namespace("same").RuleList(&RuleQuery{Text: "list " + table})
	demand(o.t, "list", err)
	if what := differentCounts(o.t, ours, o.nft.Do("list "+table)); what != "" {
		x.fail("%s", what)
	}
	o.cases++
	return x.failed
}

func (o *ruledOracle) load(j *journal.Journal) {
	o.lab.snap.Namespaces[0].Rules = j
	o.lab.apply()
	o.unlimited()
}

const mostPackets = 180 // of a case

// talk lets packets through both; false if something differs.
func (x *trial) talk(c *ruledCase) bool {
	r := x.o.r
	for range 4 + r.IntN(8) {
		x.talks = append(x.talks, ruledDialogue(r, c.family))
	}
	steps := make([]int, len(x.talks))
	for n := range mostPackets - r.IntN(120) {
		i := r.IntN(len(x.talks))
		e, step := x.talks[i], steps[i]
		steps[i]++
		d := conntrack.Dir(step % 2)
		if step > 2 || r.IntN(5) == 0 {
			d = conntrack.Dir(r.IntN(2))
		}
		if d == conntrack.Reply && ofRouter(e.orig.Dst) && !e.seen {
			d = conntrack.Original
		}
		frames, what := [2][]byte{}, ""
		from, ok := e.sides[d], false
		if r.IntN(12) == 0 {
			frames, what, ok = e.complaint(d)
			from = e.sides[1-d]
		}
		if !ok {
			from = e.sides[d]
			frames, what = e.packet(d, step)
		}
		if !c.skip[n] && !x.through(e, d, from, [][2][]byte{frames}, what) {
			return false
		}
		if x.blurred {
			break
		}
	}
	return true
}

// ruledDialogue is a dialogue of the few hosts and ports that rules are about. Who
// answers, and where, shows when the first packet has arrived.
func ruledDialogue(r *rand.Rand, family string) *dialogue {
	x := &dialogue{r: r, v6: family == "ip6" || family == "inet" && r.IntN(2) == 0, next: [2]uint32{r.Uint32(), r.Uint32()}, plain: true}
	x.proto = pick[uint8](r, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoUDP, packet.ProtoICMP)
	n := r.IntN(2)
	x.sides = [2]int{n, 1 - n}
	x.orig = conntrack.Tuple{
		Proto: x.proto, Src: at(x.v6, n, 2+r.IntN(4)), Dst: at(x.v6, 1-n, 2+r.IntN(4)),
		SrcPort: uint16(2000 + r.IntN(4)), DstPort: pick[uint16](r, 22, 53, 80, 1000),
	}
	if r.IntN(4) == 0 {
		x.orig.Dst = at(x.v6, r.IntN(2), 1)
	}
	if x.proto == packet.ProtoICMP {
		x.orig.DstPort = 8 << 8
		if x.v6 {
			x.proto, x.orig.Proto, x.orig.DstPort = packet.ProtoICMPv6, packet.ProtoICMPv6, 128<<8
		}
	}
	return x
}

// TestRulesetsAreTheKernel plays random rulesets: NFT_PACKETS says how many packets there
// are, NFT_SEED with which ruleset they begin.
func TestRulesetsAreTheKernel(t *testing.T) {
	most, first := number(t, "NFT_PACKETS", 4000), number(t, "NFT_SEED", 0)
	o := newRuledOracle(t)
	began, told := time.Now(), time.Now()
	rulesets := 0
	for seed := uint64(first); o.packets < most; seed++ {
		c := newRuledCase(seed)
		if difference := o.play(c); difference != "" {
			o.shrink(c, difference)
			return
		}
		rulesets++
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			t.Logf("ruleset %d: %d packets, %.0f a second", seed, o.packets, float64(o.packets)/time.Since(began).Seconds())
		}
	}
	hits := o.lab.stats(11).FlowHits + o.lab.stats(21).FlowHits
	t.Logf("%d rulesets from %d on, %d packets, %d of known flows, %.0f a second: no difference", rulesets, first, o.packets, hits, float64(o.packets)/time.Since(began).Seconds())
	for _, name := range slices.Sorted(maps.Keys(o.allowed)) {
		t.Logf("%8d times %s", o.allowed[name], name)
	}
	if rulesets > 20 && (o.cases*10 < rulesets*8 || hits*20 < uint64(o.packets)) {
		t.Errorf("%d of %d rulesets were compared to the end, with %d hits", o.cases, rulesets, hits)
	}
}

// shrink leaves out packets and rules as long as there is a difference, and reports what
// is left.
func (o *ruledOracle) shrink(c *ruledCase, difference string) {
	o.t.Helper()
	until := time.Now().Add(2 * time.Minute)
	differs := func(x *ruledCase) bool {
		if time.Now().After(until) || !loads(x.text) {
			return false
		}
		d := o.play(x)
		if d != "" {
			difference, c = d, x
		}
		return d != ""
	}
	for n := mostPackets / 2; n > 0; n /= 2 {
		for i := 0; i < mostPackets; i += n {
			x := &ruledCase{c.seed, c.family, c.text, maps.Clone(c.skip)}
			for j := range n {
				x.skip[i+j] = true
			}
			differs(x)
		}
	}
	lines := strings.Split(c.text, "\n")
	for n := len(lines) / 2; n > 0; n /= 2 {
		for i := len(lines) - n; i >= 0; i -= n {
			less := slices.Delete(slices.Clone(lines), i, i+n)
			if differs(&ruledCase{c.seed, c.family, strings.Join(less, "\n"), c.skip}) {
				lines = less
			}
		}
	}
	o.t.Fatalf("NFT_SEED=%d, what is left of the ruleset:\n%s\n%s", c.seed, c.text, difference)
}

// alikeByRules reports whether two choices are of one range: what policytest's rules let
// be chosen freely. That a port is of the range that a rule names, TestTranslationAgreesWithKernel
// sees: here another one may be of it by chance.
func alikeByRules(_ *dialogue, _ uint16, a, b conntrack.Tuple) bool {
	class := func(port uint16) int {
		n, _ := slices.BinarySearch([]uint16{512, 1024}, port+1)
		return n
	}
	pool := func(t netip.Addr) bool {
		return slices.ContainsFunc([]int{near, far}, func(n int) bool { return t == at(t.Is6(), n, 20) || t == at(t.Is6(), n, 21) })
	}
	ports := func(p, q uint16) bool { return p == q || isICMP(a.Proto) || class(p) == class(q) }
	addrs := func(p, q netip.Addr) bool { return p == q || pool(p) && pool(q) }
	return addrs(a.Src, b.Src) && addrs(a.Dst, b.Dst) && ports(a.SrcPort, b.SrcPort) && ports(a.DstPort, b.DstPort)
}

// differentCounts is what two listings of a ruleset differ in: what was counted, and
// elements.
func differentCounts(t *testing.T, ours, theirs string) string {
	t.Helper()
	if ours == theirs {
		return ""
	}
	var trees [2]*nft.Ruleset
	for i, text := range []string{ours, theirs} {
		state, _, err := (&journal.Journal{Steps: []journal.Step{{Text: text}}}).Follow(nil)
		demand(t, "a listing", err)
		trees[i] = state.Ruleset
	}
	var found []string
	differ := func(what string, a, b []string) {
		if x, y := strings.Join(a, "; "), strings.Join(b, "; "); x != y {
			found = append(found, fmt.Sprintf("%s: we have %s; the kernel %s", what, x, y))
		}
	}
	a, b := trees[0].Tables[0], trees[1].Tables[0]
	for i, c := range a.Chains {
		for j, r := range c.Rules {
			differ(fmt.Sprintf("%s rule %d", c.Name, j+1), counted(r.Stmts...), counted(b.Chains[i].Rules[j].Stmts...))
		}
	}
	for i, o := range a.Objects {
		differ(o.Name, counted(o.Stmt), counted(b.Objects[i].Stmt))
	}
	for i, s := range a.Sets {
		differ("set "+s.Name, elementsOf(s), elementsOf(b.Sets[i]))
	}
	return strings.Join(found, "\n")
}

func counted(stmts ...nft.Stmt) (all []string) {
	for _, s := range stmts {
		switch s := s.(type) {
		case *nft.Counter:
			all = append(all, fmt.Sprintf("counter packets %d bytes %d", s.Packets, s.Bytes))
		case *nft.Quota:
			all = append(all, fmt.Sprintf("quota used %d", s.Used))
		}
	}
	return all
}

// elementsOf are those of a set. A port that may have been chosen freely is any such.
func elementsOf(s *nft.Set) (all []string) {
	for e := range s.Elems.All() {
		key := []byte(e.Key)
		if s.Name == "dynt" && (key[len(key)-2] != 0 || key[len(key)-1] != 0) && (int(key[len(key)-2])<<8|int(key[len(key)-1])) >= 1024 {
			key[len(key)-2], key[len(key)-1] = 4, 0
		}
		all = append(all, fmt.Sprintf("%x %v", key, counted(e.Stmts...)))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ofRouter reports whether an address is one of the router's.
func ofRouter(a netip.Addr) bool { return a == at(a.Is6(), near, 1) || a == at(a.Is6(), far, 1) }
