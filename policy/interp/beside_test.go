// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/nft"
)

// canonical is an outcome as both sides can tell it.
func canonical(o outcome, sent []byte) outcome {
	f := pt.Frame(sent)
	if o.what == resetSent && mute(sent) || strings.HasPrefix(o.what, "reject") && !packet.VerifyL4(f.Bytes(), &f.View) {
		o.what = "drop" // nobody answers a reset, or what may be from another
	}
	return outcome{what: o.what, out: o.out}
}

// mute reports whether a packet is a TCP reset.
func mute(b []byte) bool {
	f := pt.Frame(b)
	return f.View.Proto == packet.ProtoTCP && f.Bytes()[f.View.L4+13]&pt.RST != 0
}

// beside compares counters, quotas and sets with what the kernel lists.
func (b *both) beside(t testing.TB, listing string) (found []string) {
	t.Helper()
	theirs := load(t, listing)
	states := b.engine.States(b.ours.now)
	bad := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for i, table := range b.rs.Tables {
		other := theirs.Tables[i]
		for j, c := range table.Chains {
			for n, r := range c.Rules {
				sameCounts(states, r.Stmts, other.Chains[j].Rules[n].Stmts, func(what string) { bad("%s rule %d: %s", c.Name, n+1, what) })
			}
		}
		for j, o := range table.Objects {
			sameCounts(states, []nft.Stmt{o.Stmt}, []nft.Stmt{other.Objects[j].Stmt}, func(what string) { bad("%s: %s", o.Name, what) })
		}
		for j, s := range table.Sets {
			if what := sameElements(b, table, s, other.Sets[j]); what != "" {
				bad("set %s: %s", s.Name, what)
			}
		}
	}
	return found
}

// sameCounts compares the counters and quotas of two rules.
func sameCounts(states *policy.States, ours, theirs []nft.Stmt, bad func(string)) {
	var mine, his []string
	for _, s := range ours {
		v, _ := states.Of(s)
		switch s.(type) {
		case *nft.Counter:
			mine = append(mine, fmt.Sprintf("counter packets %d bytes %d", v.Packets, v.Bytes))
		case *nft.Quota:
			mine = append(mine, fmt.Sprintf("quota used %d", v.Bytes))
		}
	}
	for _, s := range theirs {
		switch s := s.(type) {
		case *nft.Counter:
			his = append(his, fmt.Sprintf("counter packets %d bytes %d", s.Packets, s.Bytes))
		case *nft.Quota:
			his = append(his, fmt.Sprintf("quota used %d", s.Used))
		}
	}
	if x, y := strings.Join(mine, "; "), strings.Join(his, "; "); x != y {
		bad(fmt.Sprintf("engine has %s; kernel %s", x, y))
	}
}

// sameElements compares a set, with the counters of its elements.
func sameElements(b *both, table *nft.Table, s, theirs *nft.Set) string {
	n := 0
	for e := range b.engine.Elements(table.Handle, s.Name, b.ours.now) {
		if e.Default {
			continue
		}
		n++
		x := theirs.Elems.Find(e.Key)
		if x == nil {
			return fmt.Sprintf("the kernel's has no %x", e.Key)
		}
		for i, st := range x.Stmts {
			c, counts := st.(*nft.Counter)
			if counts && i < len(e.States) && (c.Packets != e.States[i].Packets || c.Bytes != e.States[i].Bytes) {
				return fmt.Sprintf("element %x: engine %v, kernel %v", e.Key, e.States[i], *c)
			}
		}
	}
	if m := theirs.Elems.Len(); m != n {
		return fmt.Sprintf("%d elements, the kernel's has %d", n, m)
	}
	return ""
}
