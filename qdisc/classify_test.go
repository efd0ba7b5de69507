// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"net/netip"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestFilters(t *testing.T) {
	web := parsed(pt.Frame(pt.TCP4(pt.Packet{Src: pt.IP("10.0.0.1"), Dst: pt.IP("10.0.0.2"), SrcPort: 4000, DstPort: 80})))
	dns6 := parsed(pt.Frame(pt.UDP6(pt.Packet{Src: pt.IP("fd00::1"), Dst: pt.IP("fd00::2"), SrcPort: 4000, DstPort: 53})))
	for _, c := range []struct {
		name      string
		f         Filter
		web, dns6 bool
	}{
		{"matchall", Filter{Kind: "matchall"}, true, true},
		{"protocol", Filter{Kind: "matchall", Protocol: packet.EtherTypeIPv6}, false, true},
		{"fw", Filter{Kind: "fw", Mark: 5}, true, false},
		{"fw mask", Filter{Kind: "fw", Mark: 4, Mask: 4, HasMask: true}, true, false},
		{"fw any", Filter{Kind: "fw"}, true, false},
		{"u32 dst", Filter{Kind: "u32", Protocol: packet.EtherTypeIPv4, Keys: []Key{{Value: 0x0a000002, Mask: 0xffffffff, Off: 16}}}, true, false},
		{"u32 dport", Filter{Kind: "u32", Keys: []Key{{Value: 80, Mask: 0xffff, Off: 0, AtNext: true}}}, true, false},
		{"u32 beyond", Filter{Kind: "u32", Keys: []Key{{Off: 4000}}}, false, false},
		{"u32 before", Filter{Kind: "u32", Keys: []Key{{Off: -100}}}, false, false},
		{"flower ip", Filter{Kind: "flower", Flower: &Flower{DstIP: netip.MustParsePrefix("10.0.0.0/24")}}, true, false},
		{"flower ip6", Filter{Kind: "flower", Flower: &Flower{SrcIP: netip.MustParsePrefix("fd00::/64")}}, false, true},
		{"flower proto", Filter{Kind: "flower", Flower: &Flower{Proto: packet.ProtoUDP}}, false, true},
		{"flower ports", Filter{Kind: "flower", Flower: &Flower{DstPort: [2]uint16{50, 90}, SrcPort: [2]uint16{4000, 4000}}}, true, true},
		{"flower port", Filter{Kind: "flower", Flower: &Flower{DstPort: [2]uint16{80, 80}}}, true, false},
		{"flower mac", Filter{Kind: "flower", Flower: &Flower{DstMAC: packet.MAC{1}, DstMask: packet.MAC{0xff}}}, false, false},
		{"flower vlan", Filter{Kind: "flower", Flower: &Flower{HasVLAN: true, VLAN: 7}}, false, false},
		{"flower icmp", Filter{Kind: "flower", Flower: &Flower{HasICMP: true, ICMPType: 8}}, false, false},
		{"continue", Filter{Kind: "matchall", Action: ActContinue}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f.Parent, c.f.Class, c.f.Prio = h1, h1+2, 5
			spec := root("prio")
			spec.Filters = []Filter{{Parent: h1, Prio: 9, Kind: "matchall", Class: h1 + 3}, c.f}
			tree := realTree(t, spec, Limits{})
			for _, x := range []struct {
				f    *packet.Frame
				mark uint32
				want bool
			}{{web, 5, c.web}, {dns6, 0, c.dns6}} {
				m := MetaOf(x.f, 1)
				m.Mark = x.mark
				before := tree.root.(*prio).bands[1].base().qlen
				tree.Enqueue(x.f, m, 0)
				if got := tree.root.(*prio).bands[1].base().qlen > before; got != x.want {
					t.Errorf("matched is %v", got)
				}
			}
		})
	}
}

// A policer at ingress lets rate·t + burst through and drops the rest; super-frames
// are cut where they exceed the burst.
func TestPolice(t *testing.T) {
	spec := &Spec{
		Qdiscs:  []Qdisc{{Kind: "ingress", Handle: 0xffff << 16, Parent: Ingress}},
		Filters: []Filter{{Parent: Ingress, Kind: "matchall", Police: &Police{Rate: Rate{Bytes: 10 * mbit}, Burst: 20_000}}},
	}
	s := newSim(t, spec)
	s.cbr(meta(1000, 0), 400_000, 0, second) // 20 Mbit/s
	s.run(second)
	s.envelope(10*mbit, 20_000, 0)
	near(t, "rate", float64(s.bytes(-1, 0, second)), 10*mbit+20_000, .01)
	st := s.tree.Report(s.now)[0].Stats
	if int(st.Drops)+len(s.out) != 2500 || s.tree.Filters()[0].Over != st.Drops {
		t.Errorf("%d drops, %d left, %d over", st.Drops, len(s.out), s.tree.Filters()[0].Over)
	}
	s.run(2 * second)
	s.sources = nil
	s.tree.Offer(Meta{Len: 60_000, Wire: 62_000, Segs: 40}, s.now)
	if n := s.tree.Len(); n != 20_000/1550 {
		t.Errorf("%d segments passed, want those of a burst", n)
	}
	if s.run(3 * second); s.tree.Len() != 0 {
		t.Error("something waits")
	}
	s.drained()
}

// skbedit sets what later filters and disciplines see.
func TestSetPriority(t *testing.T) {
	spec := root("prio")
	seven, mark := uint32(6), uint32(9)
	spec.Filters = []Filter{
		{Parent: h1, Prio: 1, Kind: "matchall", SetPriority: &seven, SetMark: &mark, Action: ActContinue},
		{Parent: h1, Prio: 2, Kind: "fw", Mark: 10, Class: h1 + 3},
	}
	tree := realTree(t, spec, Limits{})
	tree.Offer(meta(100, 10), 0)
	if n := tree.root.(*prio).bands[0].base().qlen; n != 1 {
		t.Errorf("%d packets in band 0, where priority 6 goes", n)
	}
}

// What can't be is refused with the field's name, and changes nothing.
func TestCheck(t *testing.T) {
	q := func(kind string, set func(*Qdisc)) *Spec {
		s := root(kind)
		if set != nil {
			set(&s.Qdiscs[0])
		}
		return s
	}
	for _, c := range []struct {
		spec *Spec
		want string
	}{
		{q("cake", nil), `kind: "cake"`},
		{q("tbf", nil), "rate: missing"},
		{q("tbf", func(q *Qdisc) { q.TBF = &TBF{Rate: Rate{Bytes: 1}} }), "burst: missing"},
		{q("tbf", func(q *Qdisc) { q.TBF = &TBF{Rate: Rate{Bytes: 9}, Burst: 1, Peak: Rate{Bytes: 10}} }), "mtu: missing"},
		{q("tbf", func(q *Qdisc) { q.TBF = &TBF{Rate: Rate{Bytes: 9}, Burst: 1, Peak: Rate{Bytes: 9}, MTU: 1} }), "peakrate"},
		{q("prio", func(q *Qdisc) { q.Prio = &Prio{Bands: 17} }), "bands: 17"},
		{q("prio", func(q *Qdisc) { q.Prio = &Prio{Bands: 2} }), "priomap: entry"},
		{q("netem", func(q *Qdisc) { q.Netem = &Netem{Reorder: 5} }), "reorder"},
		{q("netem", func(q *Qdisc) { q.Netem = &Netem{Distribution: "weibull"} }), "distribution"},
		{q("fq", func(q *Qdisc) { q.FQ = &FQ{Buckets: 1000} }), "buckets: 1000"},
		{q("sfq", func(q *Qdisc) { q.SFQ = &SFQ{Divisor: 3} }), "divisor"},
		{q("fq_codel", func(q *Qdisc) { q.FQCodel = &FQCodel{Flows: 70000} }), "flows: 70000"},
		{q("htb", func(q *Qdisc) { q.HTB = &HTB{Default: 1 << 20} }), "default"},
		{q("pfifo", func(q *Qdisc) { q.Handle = 0 }), "handle"},
		{q("pfifo", func(q *Qdisc) { q.Parent = 2<<16 + 1 }), "no root"},
		{&Spec{Qdiscs: []Qdisc{{Kind: "prio", Handle: h1, Parent: Root}, {Kind: "pfifo", Handle: 2 << 16, Parent: Root}}}, "second root"},
		{&Spec{Qdiscs: []Qdisc{{Kind: "prio", Handle: h1, Parent: Root}, {Kind: "pfifo", Handle: 2 << 16, Parent: h1 + 9}}}, "no leaf class 1:9"},
		{&Spec{Qdiscs: []Qdisc{{Kind: "prio", Handle: h1, Parent: Root}, {Kind: "pfifo", Handle: 2 << 16, Parent: 5<<16 + 9}}}, "no class 5:9"},
		{&Spec{Qdiscs: []Qdisc{{Kind: "prio", Handle: h1, Parent: Root}, {Kind: "prio", Handle: h1, Parent: h1 + 1}}}, "used twice"},
		{&Spec{Qdiscs: root("prio").Qdiscs, Classes: []Class{{Kind: "htb", Handle: h1 + 5}}}, "no qdisc 1:"},
		{htbSpec(mbit, HTBClass{Rate: Rate{Bytes: 9}, Ceil: Rate{Bytes: 3}}), "ceil: 3"},
		{htbSpec(mbit, HTBClass{Rate: Rate{Bytes: 9}, Prio: 8}), "prio: 8"},
		{htbSpec(mbit, HTBClass{}), "rate: missing"},
		{deep(9), "level"},
		{&Spec{Qdiscs: root("prio").Qdiscs, Filters: []Filter{{Kind: "bpf"}}}, `kind: "bpf"`},
		{&Spec{Qdiscs: root("prio").Qdiscs, Filters: []Filter{{Kind: "flower"}}}, "flower: the matches"},
		{&Spec{Qdiscs: root("prio").Qdiscs, Filters: []Filter{{Kind: "fw", Police: &Police{Rate: Rate{Bytes: 1}}}}}, "burst: missing"},
		{&Spec{Qdiscs: htbSpec(1).Qdiscs, Classes: []Class{
			{Kind: "htb", Handle: h1 + 1, Parent: h1 + 2, HTB: &HTBClass{Rate: Rate{Bytes: 1}}},
			{Kind: "htb", Handle: h1 + 2, Parent: h1 + 1, HTB: &HTBClass{Rate: Rate{Bytes: 1}}},
		}}, "circle"},
	} {
		err := Check(c.spec)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	if err := Check(deep(8)); err != nil {
		t.Error(err)
	}
}

// deep is htb with n levels.
func deep(n int) *Spec {
	s := htbSpec(mbit)
	for i := 1; i < n; i++ {
		s.Classes = append(s.Classes, Class{Kind: "htb", Handle: h1 + 1 + Handle(i), Parent: h1 + Handle(i), HTB: &HTBClass{Rate: Rate{Bytes: mbit}, Burst: 2000, CBurst: 2000}})
	}
	return s
}

// All eight levels work.
func TestEightLevels(t *testing.T) {
	s := newSim(t, deep(8))
	m := meta(1000, 0)
	m.Priority = uint32(h1) + 8
	s.greedy(m, 20)
	s.run(2 * second)
	near(t, "rate", float64(s.bytes(-1, second, 2*second)), mbit, .01)
}
