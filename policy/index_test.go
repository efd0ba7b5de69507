// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pt "sluice/packet/packettest"
	"sluice/policy/nft"
)

// alike is a chain of n rules that ask for the same field.
func alike(n int, rule func(i int) string) string {
	var b strings.Builder
	b.WriteString("table ip t { chain f { type filter hook forward priority 0; policy accept;\n")
	for i := range n {
		b.WriteString(rule(i) + "\n")
	}
	b.WriteString("}; }\n")
	return b.String()
}

// listed is the ruleset with what was counted.
func listed(e *Engine, rs *nft.Ruleset) string {
	var b strings.Builder
	rs.List(&b, &nft.ListOptions{State: e.States(2)})
	return b.String()
}

// TestRulesAreFoundByWhatTheyAsk: in a long chain only the rule with the packet's port
// is evaluated, and counts.
func TestRulesAreFoundByWhatTheyAsk(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, alike(700, func(i int) string { return fmt.Sprintf("tcp dport %d counter", i+1) }))
	ev := e.Evaluator()
	for _, port := range []uint16{1, 80, 256, 257, 700, 701} {
		forward(ev, pt.Frame(pt.TCP4(pt.Packet{DstPort: port})), nil)
	}
	got := listed(e, rs)
	for i := range 700 {
		want := 0
		if strings.Contains(" 1 80 256 257 700 ", fmt.Sprintf(" %d ", i+1)) {
			want = 1
		}
		if line := fmt.Sprintf("tcp dport %d counter packets %d bytes", i+1, want); !strings.Contains(got, line) {
			t.Errorf("no %q", line)
		}
	}
	if c := e.current.Load().chains(nft.FamilyIP, nft.HookForward)[0].chain.code.Load(); len(c.indexes) != 3 {
		t.Errorf("%d indexes, want 3", len(c.indexes))
	}
}

// TestCountsComeFirst: a rule that counts before it asks is in no index, and a number
// that is drawn by turns is drawn for each packet.
func TestCountsComeFirst(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, alike(40, func(i int) string {
		switch i % 4 {
		case 0:
			return fmt.Sprintf("counter tcp dport %d", i+1)
		case 1:
			return fmt.Sprintf("numgen inc mod 2 == 0 tcp dport %d", i+1)
		}
		return fmt.Sprintf("tcp dport %d counter", i+1)
	}))
	ev := e.Evaluator()
	for range 3 {
		forward(ev, pt.Frame(pt.TCP4(pt.Packet{DstPort: 999})), nil)
	}
	got := listed(e, rs)
	if n := strings.Count(got, "counter packets 3 bytes 120 tcp dport"); n != 10 {
		t.Errorf("%d rules counted:\n%s", n, got)
	}
	c := e.current.Load().chains(nft.FamilyIP, nft.HookForward)[0].chain.code.Load()
	if len(c.counts) != 10 {
		t.Fatalf("%d numbers", len(c.counts))
	}
	for i, n := range c.counts {
		if n.Load() != 3 {
			t.Errorf("number %d was drawn %d times", i, n.Load())
		}
	}
}

// TestLogsOfIndexedRules: what is logged is known to be of its rule.
func TestLogsOfIndexedRules(t *testing.T) {
	e := New([2]uint64{1, 2})
	commit(t, e, &nft.Ruleset{}, alike(60, func(i int) string { return fmt.Sprintf("tcp dport %d log prefix \"p%d\"", i+1, i+1) }))
	ev := e.Evaluator()
	for _, port := range []uint16{1, 33, 60} {
		p := Packet{Frame: pt.Frame(pt.TCP4(pt.Packet{DstPort: port})), Now: 1}
		ev.Pin()
		ev.Begin(nil)
		ev.Hook(&p, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32)
		logs := ev.Logs()
		if len(logs) != 1 || logs[0].Log.Prefix != fmt.Sprintf("p%d", port) || logs[0].Why.Rule.Pos.Line != int(port)+1 {
			t.Errorf("port %d: %+v", port, logs)
		}
		ev.Unpin()
	}
}

// policies are n chains that a map leads to, between a rule that sets a mark and one
// that counts what has another: both are of the same ruleset.
func policies(n int, mark uint32) string {
	var b strings.Builder
	b.WriteString("flush ruleset\ntable ip t {\n")
	for i := range n {
		fmt.Fprintf(&b, "chain p%d { ip saddr 10.44.0.0/16 tcp dport { 80, %d } return; drop; }\n", i, mark%1000+1000)
	}
	b.WriteString("map m { type ipv4_addr : verdict; elements = { ")
	for i := range n {
		fmt.Fprintf(&b, "10.44.%d.%d : jump p%d,\n", i/256, i%256, i)
	}
	fmt.Fprintf(&b, "} }\nchain p { type filter hook prerouting priority 0; meta mark set %d; }\n", mark)
	fmt.Fprintf(&b, "chain f { type filter hook forward priority 0; ip daddr vmap @m; meta mark != %d drop; }\n}\n", mark)
	return b.String()
}

// TestReplaceUnderTraffic replaces 1,000 policies again and again while packets are
// judged: each of them by one of the rulesets, whole.
func TestReplaceUnderTraffic(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, policies(1000, 1))
	var wg sync.WaitGroup
	var judged, mixed atomic.Int64
	done := make(chan struct{})
	for worker := range 2 {
		wg.Go(func() {
			ev := e.Evaluator()
			defer ev.Close()
			f := pt.Frame(pt.TCP4(pt.Packet{Dst: pt.IP(fmt.Sprintf("10.44.0.%d", 20+worker)), DstPort: 80}))
			for {
				select {
				case <-done:
					return
				default:
				}
				p := Packet{Frame: f, Now: 1}
				ev.Pin()
				ev.Begin(nil)
				ev.Hook(&p, nft.FamilyIP, nft.HookPrerouting, math.MinInt32, math.MaxInt32)
				if v := ev.Hook(&p, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32); v.Code != Accept {
					mixed.Add(1)
				}
				ev.Unpin()
				judged.Add(1)
			}
		})
	}
	var took []time.Duration
	for i := range 8 {
		cmds, err := nft.Parse("policies", policies(1000, uint32(i+2)), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := rs.Apply(cmds, nil)
		if err != nil {
			t.Fatal(err)
		}
		before := judged.Load()
		began := time.Now()
		if err := e.Commit(res.Ruleset, res.Changes, 0); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		rs = res.Ruleset
		for judged.Load() == before { // some packet has passed meanwhile
			time.Sleep(time.Millisecond)
		}
	}
	close(done)
	wg.Wait()
	slices.Sort(took)
	t.Logf("1,000 policies replaced in %v at the median, %v at most; %d packets", took[len(took)/2], took[len(took)-1], judged.Load())
	if n := mixed.Load(); n != 0 {
		t.Errorf("%d packets were judged by parts of two rulesets", n)
	}
}
