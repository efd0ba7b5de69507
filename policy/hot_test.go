// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"sluice/conntrack"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy/nft"
)

// commit loads a ruleset's text after what is there already.
func commit(t testing.TB, e *Engine, rs *nft.Ruleset, text string) *nft.Ruleset {
	t.Helper()
	cmds, err := nft.Parse("test.nft", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := rs.Apply(cmds, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Commit(res.Ruleset, res.Changes, 0); err != nil {
		t.Fatal(err)
	}
	return res.Ruleset
}

// forward shows a packet to the forward hook.
func forward(ev *Evaluator, f *packet.Frame, r *Record) *Verdict {
	p := Packet{Frame: f, Now: 1, Tracked: true, State: conntrack.New, Pending: &conntrack.Pending{}}
	ev.Pin()
	defer ev.Unpin()
	ev.Begin(r)
	return ev.Hook(&p, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32)
}

const everything = `
table ip t {
	set seen { type ipv4_addr; flags dynamic,timeout; timeout 1h; size 100; }
	set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.0.0/16 } }
	set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 1-1000 } }
	map ports { type inet_service : verdict; elements = { 80 : jump web, 443 : drop } }
	counter all { }
	chain web {
		ip dscp set ef meta mark set 7
		limit rate 1000000/second counter
		numgen random mod 10 < 11 quota 100 mbytes
		ip saddr . tcp dport @pairs counter
		update @seen { ip saddr counter }
		return
	}
	chain f {
		type filter hook forward priority 0; policy drop;
		counter name "all"
		ct state new ip saddr @nets ip daddr @nets meta l4proto { tcp, udp } tcp dport vmap @ports
		jhash ip saddr . ip daddr mod 4 < 4 counter
		tcp flags syn,ack counter
		tcp dport 80 accept
	}
}`

func TestEvaluationAllocatesNothing(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, everything)
	ev := e.Evaluator()
	f := pt.Frame(pt.TCP4(pt.Packet{Src: pt.IP("10.0.0.1"), Dst: pt.IP("10.0.0.2"), DstPort: 80}))
	var r Record
	var pending conntrack.Pending
	p := Packet{Frame: f, Now: 1, Tracked: true, State: conntrack.New, Pending: &pending}
	step := func() {
		ev.Pin()
		ev.Begin(&r)
		if v := ev.Hook(&p, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32); v.Code != Accept {
			t.Fatalf("%+v", v)
		}
		ev.Unpin()
	}
	step()
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
	if v, _ := e.States(1).Of(rs.Tables[0].Objects[0].Stmt); v.Packets != 1002 {
		t.Errorf("counted %d packets", v.Packets)
	}
}

func TestReplayAllocatesNothing(t *testing.T) {
	e := New([2]uint64{1, 2})
	commit(t, e, &nft.Ruleset{}, "table ip t { chain f { type filter hook forward priority 0; counter; ct state new counter; ip ttl set 9; meta mark set 3 accept; }; }")
	ev := e.Evaluator()
	f := pt.Frame(pt.TCP4(pt.Packet{}))
	var r Record
	forward(ev, f, &r)
	if !r.Cacheable() || len(r.Actions()) != 5 {
		t.Fatalf("volatile by %b, %d actions", r.Volatile, len(r.Actions()))
	}
	p := Packet{Frame: f, Now: 2, Tracked: true, State: conntrack.New}
	n := testing.AllocsPerRun(1000, func() {
		if !Hold(r.Actions(), &p) {
			t.Fatal("does not hold")
		}
		Replay(r.Actions(), &p, 1, 40)
	})
	if n != 0 || p.Mark != 3 {
		t.Errorf("%v allocations, mark %d", n, p.Mark)
	}
	if p.State = conntrack.Established; Hold(r.Actions(), &p) {
		t.Error("holds in another state")
	}
}

func TestEvidence(t *testing.T) {
	e := New([2]uint64{1, 2})
	commit(t, e, &nft.Ruleset{}, "table ip t {\n chain f {\n type filter hook forward priority 0; policy drop\n tcp dport 80 accept\n tcp dport 22 reject with tcp reset\n }\n}\n")
	ev := e.Evaluator()
	for port, want := range map[uint16]string{80: "accept by line 4", 22: "reset by line 5", 23: "drop by policy of f"} {
		v := forward(ev, pt.Frame(pt.TCP4(pt.Packet{DstPort: port})), nil)
		got := map[Code]string{Accept: "accept", Drop: "drop", Reject: "reset"}[v.Code]
		if v.Why.Rule != nil {
			got += fmt.Sprintf(" by line %d", v.Why.Rule.Pos.Line)
		} else {
			got += " by policy of " + v.Why.Chain.Name
		}
		if got != want {
			t.Errorf("port %d: %s, want %s", port, got, want)
		}
	}
}

// TestNoPacketSeesAMixture replaces a pair of rules, one in prerouting and one in
// forward, under traffic: each packet meets both old or both new ones.
func TestNoPacketSeesAMixture(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, "table ip t { chain p { type filter hook prerouting priority 0; meta mark set 0; }; chain f { type filter hook forward priority 0; meta mark != 0 drop; }; }")
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			ev := e.Evaluator()
			defer ev.Close()
			f := pt.Frame(pt.TCP4(pt.Packet{}))
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
				v := ev.Hook(&p, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32)
				ev.Unpin()
				if v.Code != Accept {
					t.Errorf("mark %d was dropped by %v", p.Mark, v.Why.Rule)
					return
				}
			}
		})
	}
	for i := range 500 {
		rs = commit(t, e, rs, fmt.Sprintf("flush chain ip t p\nadd rule ip t p meta mark set %d\nflush chain ip t f\nadd rule ip t f meta mark != %d drop\n", i, i))
	}
	close(done)
	wg.Wait()
}

func TestCountersSurviveChanges(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, "table ip t { set s { type ipv4_addr; counter; elements = { 10.44.0.10 }; }; chain f { type filter hook forward priority 0; counter; ip saddr @s; }; }")
	ev := e.Evaluator()
	f := pt.Frame(pt.TCP4(pt.Packet{}))
	listing := func() string {
		var b strings.Builder
		rs.List(&b, &nft.ListOptions{State: e.States(2)})
		return b.String()
	}
	forward(ev, f, nil)
	rs = commit(t, e, rs, "add rule ip t f counter; add element ip t s { 10.44.0.11 }")
	forward(ev, f, nil)
	got := listing()
	for _, want := range []string{"counter packets 2 bytes 80\n", "counter packets 1 bytes 40\n", "10.44.0.10 counter packets 2 bytes 80"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	saved := e.Export(3)
	after := New([2]uint64{3, 4})
	if err := after.Commit(rs, nil, 3); err != nil {
		t.Fatal(err)
	}
	after.Import(saved, 3)
	e = after
	if again := listing(); again != got {
		t.Errorf("after a restart\n%s\nbefore\n%s", again, got)
	}
	rs = commit(t, e, rs, "reset rules")
	if s := listing(); strings.Contains(s, "counter packets 1") || !strings.Contains(s, "\n\t\tcounter packets 0 bytes 0") {
		t.Errorf("after reset:\n%s", s)
	}
}

// TestPacketsElementsCanBeDeleted: those that packets add aren't in the tree.
func TestPacketsElementsCanBeDeleted(t *testing.T) {
	e := New([2]uint64{1, 2})
	rs := commit(t, e, &nft.Ruleset{}, "table ip t { set s { type ipv4_addr; flags dynamic,timeout; timeout 1h; }; chain f { type filter hook forward priority 0; add @s { ip saddr counter }; }; }")
	ev := e.Evaluator()
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
		forward(ev, pt.Frame(pt.TCP4(pt.Packet{Src: pt.IP(a)})), nil)
	}
	var b strings.Builder
	rs.List(&b, &nft.ListOptions{State: e.States(1_000_000_000)})
	if want := "10.0.0.1 counter packets 1 bytes 40 expires 59m59s"; !strings.Contains(strings.ReplaceAll(b.String(), "expires 59m59s", "expires 59m59s"), "10.0.0.1") {
		t.Errorf("no %q in\n%s", want, b.String())
	}
	count := func() (n int) {
		for range e.Elements(rs.Tables[0].Handle, "s", 2) {
			n++
		}
		return n
	}
	env := &nft.Env{Live: func(t *nft.Table, s *nft.Set, key string) bool { return e.Live(t.Handle, s.Name, key, 2) }}
	for _, step := range []struct {
		text string
		want int
	}{{"delete element ip t s { 10.0.0.2 }", 2}, {"flush set ip t s", 0}} {
		cmds, err := nft.Parse("x", step.text, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := rs.Apply(cmds, env)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Commit(res.Ruleset, res.Changes, 2); err != nil {
			t.Fatal(err)
		}
		rs = res.Ruleset
		if n := count(); n != step.want {
			t.Errorf("after %s: %d elements, want %d", step.text, n, step.want)
		}
	}
}

// manyRules is a chain of n rules of which none matches, and one that does.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("table ip t { chain f { type filter hook forward priority 0; policy drop;\n")
	for i := range n {
		fmt.Fprintf(&b, "ip saddr 172.16.%d.%d tcp dport %d drop\n", i/256%256, i%256, i%60000+1)
	}
	b.WriteString("tcp dport 80 accept\n}; }\n")
	return b.String()
}

func BenchmarkRules(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := New([2]uint64{1, 2})
			commit(b, e, &nft.Ruleset{}, manyRules(n))
			benchmarkForward(b, e)
		})
	}
}

// BenchmarkSets is a first packet with three sets of many elements.
func BenchmarkSets(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var t strings.Builder
			t.WriteString("table ip t { set a { type ipv4_addr; elements = { ")
			for i := range n {
				fmt.Fprintf(&t, "172.%d.%d.%d, ", 16+i/65536, i/256%256, i%256)
			}
			t.WriteString("10.44.0.10 }; }\nset n { type ipv4_addr; flags interval; elements = { ")
			for i := range n {
				fmt.Fprintf(&t, "172.%d.%d.%d/31, ", 16+i/32768, i/128%256, i%128*2)
			}
			t.WriteString("10.44.0.0/24 }; }\nset c { type ipv4_addr . inet_service; flags interval; elements = { ")
			for i := range n {
				fmt.Fprintf(&t, "172.%d.%d.%d/31 . %d-%d, ", 16+i/32768, i/128%256, i%128*2, i%60000, i%60000+100)
			}
			t.WriteString("10.44.0.0/24 . 1-100 }; }\nchain f { type filter hook forward priority 0; policy drop; ip saddr @a ip saddr @n ip saddr . tcp dport @c accept; }; }")
			e := New([2]uint64{1, 2})
			commit(b, e, &nft.Ruleset{}, t.String())
			benchmarkForward(b, e)
		})
	}
}

func benchmarkForward(b *testing.B, e *Engine) {
	b.Helper()
	ev := e.Evaluator()
	var r Record
	p := Packet{Frame: pt.Frame(pt.TCP4(pt.Packet{DstPort: 80})), Now: 1}
	ev.Pin()
	b.ReportAllocs()
	for b.Loop() {
		ev.Begin(&r)
		if v := ev.Hook(&p, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32); v.Code != Accept {
			b.Fatal("dropped")
		}
	}
}

// BenchmarkReplacePolicies replaces 1,000 of 10,000 chains, each with a rule of its
// own, in one transaction.
func BenchmarkReplacePolicies(b *testing.B) {
	var t strings.Builder
	t.WriteString("table ip t { \n")
	for i := range 10_000 {
		fmt.Fprintf(&t, "chain p%d { ip saddr 10.44.0.10 tcp dport 80 accept; }\n", i)
	}
	t.WriteString("map m { type ipv4_addr : verdict; elements = { \n")
	for i := range 10_000 {
		fmt.Fprintf(&t, "10.44.%d.%d : jump p%d,\n", i/256, i%256, i)
	}
	t.WriteString("}\n}\nchain f { type filter hook forward priority 0; policy drop; ip daddr vmap @m; }; }")
	e := New([2]uint64{1, 2})
	rs := commit(b, e, &nft.Ruleset{}, t.String())
	var change strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&change, "flush chain ip t p%d\nadd rule ip t p%d tcp dport %d accept\n", i*10, i*10, i+1)
	}
	cmds, err := nft.Parse("change", change.String(), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("commit", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			res, err := rs.Apply(cmds, nil)
			if err != nil {
				b.Fatal(err)
			}
			rs = res.Ruleset
			b.StartTimer()
			if err := e.Commit(rs, res.Changes, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("packet", func(b *testing.B) { benchmarkForward(b, e) })
}

// BenchmarkReplay is what a flow's next packet costs that met three counters, a
// state and a mark.
func BenchmarkReplay(b *testing.B) {
	e := New([2]uint64{1, 2})
	commit(b, e, &nft.Ruleset{}, "table ip t { chain f { type filter hook forward priority 0; counter; ct state new counter; counter meta mark set 3 accept; }; }")
	ev := e.Evaluator()
	f := pt.Frame(pt.TCP4(pt.Packet{}))
	var r Record
	forward(ev, f, &r)
	p := Packet{Frame: f, Now: 2, Tracked: true, State: conntrack.New}
	b.ReportAllocs()
	for b.Loop() {
		if !Hold(r.Actions(), &p) {
			b.Fatal("does not hold")
		}
		Replay(r.Actions(), &p, 1, 40)
	}
}

// TestWhatIsNotSupportedIsRefused, by its name, and nothing is changed.
func TestWhatIsNotSupportedIsRefused(t *testing.T) {
	for stmt, want := range map[string]string{
		"meta cgroup 5":     "meta cgroup is not supported",
		"ct zone set 5":     "ct zone can't be set",
		`ct helper "ftp"`:   "ct helper is not supported",
		"ip saddr 10.0.0.1": "",
	} {
		e := New([2]uint64{1, 2})
		rs := commit(t, e, &nft.Ruleset{}, "table ip t { chain f { type filter hook prerouting priority -300; counter; }; }")
		cmds, err := nft.Parse("x", "add rule ip t f "+stmt, nil)
		if err != nil {
			t.Errorf("%s: %v", stmt, err)
			continue
		}
		res, err := rs.Apply(cmds, nil)
		if err != nil {
			t.Errorf("%s: %v", stmt, err)
			continue
		}
		was := e.Generation()
		err = e.Commit(res.Ruleset, res.Changes, 0)
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || e.Generation() != was):
			t.Errorf("%s: %v, want %q, and nothing changed", stmt, err, want)
		}
	}
}
