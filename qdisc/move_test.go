// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/trace"
)

// movable are trees of every kind.
func movable() map[string]*Spec {
	const h, parent = Handle(1 << 16), Root
	rate := Rate{Bytes: mbit}
	one := func(q Qdisc) *Spec {
		q.Handle, q.Parent = h, parent
		return &Spec{Qdiscs: []Qdisc{q}}
	}
	classful := func(kind string, more ...Qdisc) *Spec {
		s := one(Qdisc{Kind: kind, HTB: &HTB{Default: 0x20}})
		for _, minor := range []Handle{0x10, 0x20} {
			c := Class{Kind: kind, Handle: h + minor, Parent: h}
			if kind == "htb" {
				c.HTB = &HTBClass{Rate: Rate{Bytes: mbit / 2}, Ceil: rate, Burst: 3000, CBurst: 3000}
			}
			s.Classes = append(s.Classes, c)
		}
		s.Qdiscs = append(s.Qdiscs, more...)
		s.Filters = []Filter{{Parent: h, Prio: 1, Kind: "fw", Mark: 1, Class: h + 0x10}, {Parent: h, Prio: 2, Kind: "matchall", Class: h + 0x20}}
		return s
	}
	return map[string]*Spec{
		"pfifo":      one(Qdisc{Kind: "pfifo"}),
		"bfifo":      one(Qdisc{Kind: "bfifo"}),
		"pfifo_fast": one(Qdisc{Kind: "pfifo_fast"}),
		"codel":      one(Qdisc{Kind: "codel", Codel: &Codel{ECN: true}}),
		"fq_codel":   one(Qdisc{Kind: "fq_codel", FQCodel: &FQCodel{Flows: 8}}),
		"fq":         one(Qdisc{Kind: "fq", FQ: &FQ{MaxRate: mbit}}),
		"sfq":        one(Qdisc{Kind: "sfq", SFQ: &SFQ{Perturb: 1}}),
		"netem": one(Qdisc{Kind: "netem", Netem: &Netem{
			Delay: 50 * ms, Jitter: 40 * ms, Distribution: "normal", Reorder: 1 << 29, Gap: 3, Duplicate: 1 << 28, Seed: 7,
		}}),
		"netem below": {Qdiscs: []Qdisc{
			{Kind: "netem", Handle: h, Parent: parent, Netem: &Netem{Delay: 5 * ms, Seed: 7}},
			{Kind: "tbf", Handle: 2 << 16, Parent: h + 1, TBF: &TBF{Rate: rate, Burst: 3000, Limit: 1 << 20}},
		}},
		"tbf":     tbfSpec(mbit, 3000, 1<<20),
		"prio":    one(Qdisc{Kind: "prio"}),
		"drr":     classful("drr", Qdisc{Kind: "tbf", Handle: 2 << 16, Parent: h + 0x10, TBF: &TBF{Rate: rate, Burst: 3000, Limit: 1 << 20}}),
		"htb":     classful("htb", Qdisc{Kind: "fq_codel", Handle: 2 << 16, Parent: h + 0x20}),
		"ingress": one(Qdisc{Kind: "ingress"}),
	}
}

// TestMoveTo: what leaves a tree that is moved to and fro, when, with which bytes and with
// which figures, is what leaves one that stays.
func TestMoveTo(t *testing.T) {
	for name, spec := range movable() {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, uint64(len(name))))
			stays, moves := realTree(t, spec, Limits{}), realTree(t, spec, Limits{})
			pools := [2]*Pool{moves.pool, NewPool(Limits{})}
			left, now, moved := 0, int64(0), 0
			for i := range 4000 {
				now += int64(rnd.IntN(int(4 * ms)))
				if i < 3000 && rnd.IntN(2) == 0 {
					n, mark := 20+rnd.IntN(1400), uint32(rnd.IntN(3))
					for _, x := range []*Tree{stays, moves} {
						f := udp(n, uint8(ECT0))
						copy(f.Bytes()[42:], fmt.Sprint(i))
						m := MetaOf(f, 1)
						m.Mark, m.Hash, m.Priority = mark, uint32(mix(uint64(mark))), mark*3
						x.Enqueue(f, m, now)
						x.pool.Keep()
					}
				}
				if rnd.IntN(5) == 0 {
					if moves.MoveTo(pools[i&1]); moves.Len() > 0 {
						moved++
					}
				}
				if rnd.IntN(3) > 0 {
					continue
				}
				for {
					a, b := stays.Dequeue(now), moves.Dequeue(now)
					if (a == 0) != (b == 0) {
						t.Fatalf("step %d: %d leaves, and where it moved %d", i, a, b)
					}
					if a == 0 {
						break
					}
					left++
					if diff := cmp.Diff(*stays.pool.Meta(a), *moves.pool.Meta(b)); diff != "" {
						t.Fatalf("step %d:\n%s", i, diff)
					}
					if !bytes.Equal(stays.pool.Frame(a).Bytes(), moves.pool.Frame(b).Bytes()) {
						t.Fatalf("step %d: other bytes", i)
					}
					stays.Done(a)
					moves.Done(b)
				}
				if at, there := stays.NextTime(now), moves.NextTime(now); at != there {
					t.Fatalf("step %d: next at %d, and where it moved at %d", i, at, there)
				}
			}
			if diff := cmp.Diff(stays.Report(now), moves.Report(now)); diff != "" {
				t.Errorf("reports:\n%s", diff)
			}
			if left < 500 || moved < 10 {
				t.Errorf("%d packets left, it was moved %d times with some", left, moved)
			}
			moves.Close()
			stays.Close()
			for i, p := range pools {
				if p.Waiting() != 0 || p.mem != 0 {
					t.Errorf("pool %d holds %d packets, %d bytes", i, p.Waiting(), p.mem)
				}
			}
		})
	}
}

// TestMoveToAPoolWithoutMemory: what finds none is lost, and counted.
func TestMoveToAPoolWithoutMemory(t *testing.T) {
	tree := realTree(t, &Spec{Qdiscs: []Qdisc{{Kind: "pfifo", Handle: 1 << 16, Parent: Root}}}, Limits{})
	for range 900 {
		f := udp(1400, 0)
		tree.Enqueue(f, MetaOf(f, 1), 0)
		tree.pool.Keep()
	}
	tree.MoveTo(NewPool(Limits{Bytes: slabLen}))
	n := 0
	for r := tree.Dequeue(0); r != 0; r = tree.Dequeue(0) {
		n++
		tree.Done(r)
	}
	if n != slabLen/1664 || tree.Len() != 0 || tree.pool.mem != 0 {
		t.Errorf("%d packets left, %d wait, %d bytes", n, tree.Len(), tree.pool.mem)
	}
	var drops [trace.NumReasons]uint64
	if tree.TakeDrops(&drops); drops[trace.QdiscMemory] != uint64(900-n) {
		t.Errorf("%d were counted as dropped, want %d", drops[trace.QdiscMemory], 900-n)
	}
}
