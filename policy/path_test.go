// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"sluice/conntrack"
	pt "sluice/packet/packettest"
	"sluice/policy/nft"
)

// manyCounters is a ruleset of n rules that count what goes to a port in which they have
// a bit, and one more behind them.
func manyCounters(n int) string {
	var b strings.Builder
	b.WriteString("table ip t {\ncounter all { }\nset seen { type ipv4_addr; flags dynamic,timeout; timeout 1h; counter; }\nchain f {\ntype filter hook forward priority 0; policy accept;\n")
	for i := range n {
		fmt.Fprintf(&b, "udp dport & %d != 0 counter\n", 1<<(i%16))
	}
	return b.String() + "last counter name all add @seen { ip saddr }\nmeta mark set 5\n}\n}\n"
}

// pathOf is the path of a packet to a port, and its record.
func pathOf(t *testing.T, ev *Evaluator, port uint16) (*Path, *Record, Packet) {
	t.Helper()
	f := pt.Frame(pt.UDP4(pt.Packet{DstPort: port}))
	var r Record
	if forward(ev, f, &r); !r.Cacheable() {
		t.Fatalf("volatile by %b", r.Volatile)
	}
	ev.Pin()
	defer ev.Unpin()
	return ev.Path(&r, Mark{}, r.Mark()), &r, Packet{Frame: f, Now: 1, Tracked: true, State: conntrack.New}
}

// packetsOf are the packets that a rule, or an object, has counted.
func packetsOf(t *testing.T, e *Engine, s nft.Stmt) uint64 {
	t.Helper()
	v, known := e.States(5).Of(s)
	if !known {
		t.Fatal("a counter is unknown")
	}
	return v.Packets
}

// TestPaths: flows that pass the same rules share a path, whose packets all of these rules
// have counted when somebody looks.
func TestPaths(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, manyCounters(64))
	ev := e.Evaluator()
	all, r, pkt := pathOf(t, ev, 0xffff)
	again, _, _ := pathOf(t, ev, 0xffff)
	other, _, _ := pathOf(t, ev, 0x8001)
	if all == nil || all != again || other == nil || other == all {
		t.Fatalf("paths %p %p %p", all, again, other)
	}
	if r.Len() <= Few || !all.Hold(&pkt) {
		t.Fatalf("%d actions, which don't hold", r.Len())
	}
	if n := testing.AllocsPerRun(100, func() { all.Replay(&pkt, 1, 100) }); n != 0 || pkt.Mark != 5 {
		t.Errorf("%v allocations, mark %d", n, pkt.Mark)
	}
	other.Replay(&pkt, 3, 300)
	rules, table := rs.Tables[0].Chains[0].Rules, rs.Tables[0]
	for i, want := range map[int]uint64{0: 107, 1: 103, 15: 107, 16: 107, 62: 103, 63: 107} {
		if n := packetsOf(t, e, last(rules[i])); n != want {
			t.Errorf("rule %d has counted %d packets, want %d", i, n, want)
		}
	}
	if n := packetsOf(t, e, table.Objects[0].Stmt); n != 107 {
		t.Errorf("the object has counted %d packets", n)
	}
	for x := range e.Elements(table.Handle, "seen", 5) {
		if x.States[0].Packets != 107 {
			t.Errorf("the element has counted %d packets", x.States[0].Packets)
		}
	}
	saved := e.Export(5)
	for key, v := range saved.Tables[0].States {
		if v.Kind == LastState && v.Age != 4 {
			t.Errorf("%s: last %d ns ago", key, v.Age)
		}
	}
}

// TestPathsEnd: with the ruleset, when an element goes, when there is no room for another,
// and with the evaluator. What they have counted stays.
func TestPathsEnd(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, manyCounters(4000))
	ev := e.Evaluator()
	first, _, pkt := pathOf(t, ev, 0xffff)
	first.Replay(&pkt, 7, 700)
	for port := uint16(1); first.Hold(&pkt); port++ {
		if pathOf(t, ev, port); port > 1000 {
			t.Fatal("there is always room for another")
		}
	}
	object := rs.Tables[0].Objects[0].Stmt
	before := packetsOf(t, e, object)
	second, _, _ := pathOf(t, ev, 0xffff)
	second.Replay(&pkt, 5, 500)
	rs = commit(t, e, rs, "reset counters") // which is another object's statement
	fresh := rs.Tables[0].Objects[0].Stmt
	if n := packetsOf(t, e, fresh); n != 0 || before < 7 {
		t.Errorf("%d before, %d when it is reset", before, n)
	}
	second.Replay(&pkt, 2, 200) // by who has not seen it yet
	third, _, _ := pathOf(t, ev, 0xffff)
	if second.Hold(&pkt) || third == nil || !third.Hold(&pkt) {
		t.Error("a path of another ruleset holds")
	}
	if n := packetsOf(t, e, fresh); n != 3 {
		t.Errorf("%d packets are counted since, want 3", n)
	}
	third.Replay(&pkt, 4, 400)
	ev.Close()
	if n := packetsOf(t, e, fresh); n != 7 || third.Hold(&pkt) {
		t.Errorf("%d packets are counted at the end, want 7", n)
	}
}

// TestPathsTooLong: of what has more actions than a record holds, nothing is remembered.
func TestPathsTooLong(t *testing.T) {
	e := New([2]uint64{1, 2})
	commit(t, e, &nft.Ruleset{}, manyCounters(2*MaxActions))
	var r Record
	if forward(e.Evaluator(), pt.Frame(pt.UDP4(pt.Packet{DstPort: 0xffff})), &r); r.Cacheable() || r.Volatile != ByTooMuch {
		t.Errorf("volatile by %b, %d actions", r.Volatile, r.Len())
	}
}

// TestPathsInParts: what is recorded before and after a mark are two paths, of which each
// has its own.
func TestPathsInParts(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, manyCounters(100))
	ev := e.Evaluator()
	f := pt.Frame(pt.UDP4(pt.Packet{DstPort: 0xffff}))
	p := Packet{Frame: f, Now: 1, Tracked: true, State: conntrack.New, Pending: &conntrack.Pending{}}
	var r Record
	var marks [3]Mark
	ev.Pin()
	defer ev.Unpin()
	ev.Begin(&r)
	for i := range 2 {
		ev.Hook(&p, nft.FamilyIP, nft.HookForward, -1, 1)
		marks[i+1] = r.Mark()
	}
	for i, times := range []uint64{10, 1000} {
		ev.Path(&r, marks[i], marks[i+1]).Replay(&p, times, times)
	}
	for _, i := range []int{0, 30, 99} {
		if n := packetsOf(t, e, last(rs.Tables[0].Chains[0].Rules[i])); n != 1012 {
			t.Errorf("rule %d has counted %d packets, want 1012", i, n)
		}
	}
}

// TestPathsAreListedMeanwhile: nothing is lost, and nothing counted twice, by who looks
// while packets pass.
func TestPathsAreListedMeanwhile(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, manyCounters(64))
	object := rs.Tables[0].Objects[0].Stmt
	const each = 20_000
	var wg sync.WaitGroup
	for range 2 {
		ev := e.Evaluator()
		wg.Go(func() {
			path, _, pkt := pathOf(t, ev, 0xffff)
			for range each {
				path.Replay(&pkt, 1, 10)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for last := uint64(0); last < 2*each+2; {
			n := packetsOf(t, e, object)
			if n < last {
				t.Errorf("%d packets, and before %d", n, last)
				return
			}
			last = n
		}
	}()
	wg.Wait()
	<-done
	if v, _ := e.States(5).Of(object); v.Packets != 2*each+2 || v.Bytes != 2*each*10+2*28 {
		t.Errorf("%d packets of %d bytes", v.Packets, v.Bytes)
	}
}

// TestStatesAreAskedOnce, however many rules ask.
func TestStatesAreAskedOnce(t *testing.T) {
	e := New([2]uint64{1, 2})
	commit(t, e, &nft.Ruleset{}, "table ip t { chain f { type filter hook forward priority 0; "+strings.Repeat("ct state established ct mark 3 accept; ct state new ct mark 4 drop; ", 100)+"}; }")
	var r Record
	forward(e.Evaluator(), pt.Frame(pt.UDP4(pt.Packet{})), &r)
	if r.Len() != 1 {
		t.Errorf("%d actions, want 1", r.Len())
	}
	f := pt.Frame(pt.UDP4(pt.Packet{}))
	if !Hold(r.Actions(), &Packet{Frame: f, Tracked: true, State: conntrack.New}) || Hold(r.Actions(), &Packet{Frame: f, Tracked: true, State: conntrack.Established}) {
		t.Error("it doesn't hold, or always does")
	}
}

// last is a rule's last statement.
func last(r *nft.Rule) nft.Stmt { return r.Stmts[len(r.Stmts)-1] }
