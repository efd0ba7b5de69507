// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// twin is the slow Set: it looks at every route and every rule for each packet,
// with no tries, nothing prepared, obviously right.
type twin struct {
	routes []*Route
	rules  []*Rule
	devs   map[string]Device
}

func newTwin(s *Set, f Family) *twin {
	w := &twin{routes: slices.Collect(s.Routes(0)), rules: s.Rules(f), devs: map[string]Device{"lo": {Name: "lo"}}}
	for _, d := range s.Devices() {
		w.devs[d.Name] = d
	}
	// As Routes yields them, so that the first of equals stays the first.
	slices.SortStableFunc(w.routes, func(a, b *Route) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	return w
}

func (w *twin) find(table TableID, q *Query) (*Route, []*NextHop) {
	for _, r := range w.routes {
		if r.Table != table || !r.Prefix.Contains(q.Dst) {
			continue
		}
		var hops []*NextHop
		for i := range r.NextHops {
			h := &r.NextHops[i]
			if d := w.devs[h.Dev]; !d.Down && (q.OIF == 0 || d.Index == q.OIF) {
				hops = append(hops, h)
			}
		}
		if len(hops) > 0 || len(r.NextHops) == 0 {
			return r, hops
		}
	}
	return nil, nil
}

func (w *twin) selects(r *Rule, q *Query) bool {
	yes := true
	is := func(b bool) { yes = yes && b }
	if r.From.IsValid() {
		is(r.From.Contains(q.Src))
	}
	if r.To.IsValid() {
		is(r.To.Contains(q.Dst))
	}
	if r.IIF != "" {
		d, ok := w.devs[r.IIF]
		is(ok && d.Index == q.IIF)
	}
	if r.OIF != "" {
		d, ok := w.devs[r.OIF]
		is(ok && q.OIF != 0 && d.Index == q.OIF)
	}
	is(q.Mark&r.Mask == r.Mark)
	if r.TOS != 0 {
		is(r.TOS == q.TOS&map[bool]uint8{false: 0x1c, true: 0xfc}[q.Dst.Is6()])
	}
	if r.Proto != 0 {
		is(r.Proto == q.Proto)
	}
	if r.Sport.To != 0 {
		is(q.Sport >= r.Sport.From && q.Sport <= r.Sport.To)
	}
	if r.Dport.To != 0 {
		is(q.Dport >= r.Dport.From && q.Dport <= r.Dport.To)
	}
	return yes != r.Not
}

// vrf is the table of the devices of a query.
func (w *twin) vrf(q *Query) TableID {
	for _, index := range []uint16{q.OIF, q.IIF} {
		for _, d := range w.devs {
			if index != 0 && d.Index == index && d.Table != 0 {
				return d.Table
			}
		}
	}
	return 0
}

// lookup answers with the type, the rule, the route and the next hops that may be
// taken.
func (w *twin) lookup(q *Query) (Type, *Rule, *Route, []*NextHop) {
	from := uint32(0) // rules below this priority are jumped over
	for _, r := range w.rules {
		if r.Priority < from || !w.selects(r, q) {
			continue
		}
		switch r.Action {
		case ActionNop:
		case ActionGoto:
			if slices.ContainsFunc(w.rules, func(o *Rule) bool { return o.Priority == r.Goto }) {
				from = r.Goto
			}
		case ActionLookup:
			id := r.Table
			if r.L3mdev {
				id = w.vrf(q)
			}
			route, hops := w.find(id, q)
			if route == nil || route.Type == Throw || r.Suppress && !route.Type.refuses() && route.Prefix.Bits() <= int(r.SuppressLen) {
				continue
			}
			return route.Type, r, route, hops
		default:
			return r.Action.resultType(), r, nil, nil
		}
	}
	return TypeNone, nil, nil, nil
}

// compare asks both.
func (w *twin) compare(t *testing.T, s *Set, q *Query) Type {
	t.Helper()
	kind, rule, route, hops := w.lookup(q)
	got := s.Lookup(q)
	ok := kind == got.Type && rule == got.Rule && route == got.Route
	if got.NextHop == nil {
		ok = ok && len(hops) == 0
	} else {
		ok = ok && slices.Contains(hops, got.NextHop)
		for _, h := range hops {
			ok = ok && !h.beats(got.NextHop, q.Hash)
		}
	}
	if !ok {
		t.Fatalf("%+v:\ntwin %v %v %v %v\nset  %+v", *q, kind, rule, route, hops, got)
	}
	return kind
}

// twinWorld is the kernel's one without a kernel.
func twinWorld(t testing.TB) *Set {
	t.Helper()
	var list []Change
	var text strings.Builder
	for n := 1; n <= kernelDevices; n++ {
		list = append(list, Change{Device: &Device{Name: fmt.Sprintf("slt-d%d", n), Index: uint16(n), Table: TableID(99 + n)}})
		fmt.Fprintf(&text, "add local 10.64.%d.1 dev slt-d%d\nadd local fd64:%d::1 dev slt-d%d\n", n, n, n, n)
		fmt.Fprintf(&text, "add 10.64.%d.0/24 dev slt-d%d\nadd fd64:%d::/64 dev slt-d%d\n", n, n, n, n)
	}
	s, err := New(Limits{}).Apply(list)
	if err != nil {
		t.Fatal(err)
	}
	return must(t, s, text.String())
}

// Random tables, rules, dead links and VRFs give the same answers in the slow
// Set, also where the kernel can't be asked.
func TestSameAsTheTwin(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		t.Run(family(f == IPv6), func(t *testing.T) {
			s := twinWorld(t)
			m := &maker{Rand: rand.New(rand.NewPCG(31, uint64(f))), v6: f == IPv6}
			prefix := map[Family]string{IPv4: "-4 ", IPv6: "-6 "}[f]
			kinds := map[Type]int{}
			ops := []string{"add", "add", "add", "replace", "append", "del"}
			for n := range 12 {
				var lines []string
				for range 60 {
					lines = append(lines, m.route(ops[m.IntN(len(ops))]))
				}
				for i := range 3 {
					lines = append(lines, m.rule(100+10*n+3*i))
				}
				lines = append(lines, fmt.Sprintf("rule add pref %d l3mdev not from %v", 95+10*n, m.known()))
				for _, l := range lines {
					c, err := (*Names)(nil).Parse(prefix + l)
					if err != nil {
						t.Fatal(l, err)
					}
					if next, err := s.Apply([]Change{c}); err == nil {
						s = next
					}
				}
				down := uint16(m.IntN(2 * kernelDevices))
				for _, d := range s.Devices() {
					d.Down = d.Index == down
					s, _ = s.Apply([]Change{{Op: OpReplace, Device: &d}})
				}
				w := newTwin(s, f)
				for range 300 {
					q := m.query(map[string]uint16{"slt-d1": 1, "slt-d2": 2, "slt-d3": 3})
					q.IIF, q.Hash = uint16(m.IntN(kernelDevices+2)), m.Uint64()
					if m.IntN(4) == 0 {
						q.OIF = uint16(1 + m.IntN(kernelDevices))
					}
					kinds[w.compare(t, s, q)]++
				}
			}
			t.Logf("%d routes; answers %v", s.Len(), kinds)
		})
	}
}

// A transaction of many changes makes the same Set as as many of one.
func TestOneTransactionOrMany(t *testing.T) {
	m := &maker{Rand: rand.New(rand.NewPCG(33, 34))}
	ops := []string{"add", "add", "append", "replace", "del"}
	one := twinWorld(t)
	var good []Change
	for range 3000 {
		c, err := (*Names)(nil).Parse(m.route(ops[m.IntN(len(ops))]))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := one.Apply([]Change{c}); err == nil {
			one, good = n, append(good, c)
		}
	}
	all, err := twinWorld(t).Apply(good)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := shown(one, 0), shown(all, 0); !slices.Equal(a, b) {
		t.Errorf("%d routes one by one, %d at once", len(a), len(b))
	}
}
