// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	pt "sluice/packet/packettest"
)

// twin is the slow table: one map, no chains, no readers. We are the querier.
type twin struct {
	maxGroups, maxPerPort int
	ports                 map[uint16]Port
	until                 map[seat]uint32 // who is where, and how long
	overflow              uint32
}

type seat struct {
	group netip.Addr
	vlan  uint16
	port  uint16
}

func (w *twin) forget(chosen func(seat, uint32) bool) { maps.DeleteFunc(w.until, chosen) }

func (w *twin) members(group netip.Addr, vlan uint16) []uint16 {
	var ports []uint16
	for s := range w.until {
		if s.group == group && s.vlan == vlan {
			ports = append(ports, s.port)
		}
	}
	slices.Sort(ports)
	return ports
}

func (w *twin) groups() int {
	all := map[seat]bool{}
	for s := range w.until {
		all[seat{s.group, s.vlan, 0}] = true
	}
	return len(all)
}

func (w *twin) join(s seat, now uint32) {
	_, there := w.until[s]
	mine := 0
	for o := range w.until {
		if o.port == s.port {
			mine++
		}
	}
	switch {
	case there:
	case mine >= w.maxPerPort:
		return
	case len(w.members(s.group, s.vlan)) == 0 && w.groups() >= w.maxGroups:
		w.overflow = now + 260
		return
	}
	w.until[s] = now + 260
}

func (w *twin) leave(s seat, now uint32, fast bool) {
	if until, there := w.until[s]; there && fast && w.ports[s.port].FastLeave {
		delete(w.until, s)
	} else if there {
		w.until[s] = min(until, now+2)
	}
}

// goes is where data goes; nil: flooded.
func (w *twin) goes(group netip.Addr, vlan uint16, now uint32) []uint16 {
	ports := w.members(group, vlan)
	if vlan == 2 || ports == nil && now < w.overflow { // nobody queries in VLAN 2
		return nil
	}
	if ports == nil && group.IsLinkLocalMulticast() {
		return nil
	}
	return append([]uint16{}, ports...)
}

func TestTableAndTwinAgree(t *testing.T) {
	bounds := map[string]Config{
		"roomy": {Querier: true},
		"tight": {Querier: true, MaxGroups: 7, MaxPerPort: 100},
		"quota": {Querier: true, MaxGroups: 100, MaxPerPort: 3},
	}
	for name, c := range bounds {
		t.Run(name, func(t *testing.T) {
			d := &duel{t: t, rnd: rand.New(rand.NewPCG(uint64(len(name)), 9)), tab: New(c)}
			full := c.withDefaults()
			d.w = &twin{maxGroups: full.MaxGroups, maxPerPort: full.MaxPerPort, until: map[seat]uint32{}}
			d.setPorts()
			for range 11 {
				d.second()
			}
			for range 2000 {
				d.step()
			}
			t.Logf("%+v", d.tab.Stats())
		})
	}
}

type duel struct {
	t   *testing.T
	rnd *rand.Rand
	tab *Table
	w   *twin
	now uint32
}

func (d *duel) setPorts() {
	d.w.ports = map[uint16]Port{}
	for i := range uint16(6) {
		if d.rnd.IntN(6) > 0 {
			d.w.ports[i+1] = Port{Index: i + 1, FastLeave: i%2 == 0}
		}
	}
	d.tab.SetPorts(slices.Collect(maps.Values(d.w.ports)), []uint16{0, 1})
	d.w.forget(func(s seat, _ uint32) bool { return d.w.ports[s.port].Index == 0 })
}

// second lets one pass.
func (d *duel) second() {
	d.tab.Poll(d.now, func(Query) {})
	d.w.forget(func(_ seat, until uint32) bool { return until <= d.now })
	d.now++
}

func (d *duel) step() {
	group := []string{fmt.Sprintf("239.1.1.%d", d.rnd.IntN(9)), fmt.Sprintf("ff05::%d", d.rnd.IntN(3)), "ff02::1:ff00:5"}[d.rnd.IntN(3)]
	s := seat{pt.IP(group), uint16(d.rnd.IntN(3)), uint16(1 + d.rnd.IntN(6))}
	_, member := d.w.ports[s.port]
	hear := func(op int) {
		f := []func() bool{
			func() bool { d.tab.Input(s.port, s.vlan, report(group), d.now); return true },
			func() bool { d.tab.Input(s.port, s.vlan, reports(rec{toExclude, group, 1}), d.now); return true },
			func() bool { d.tab.Input(s.port, s.vlan, done(group), d.now); return false },
			func() bool { d.tab.Input(s.port, s.vlan, reports(rec{toInclude, group, 0}), d.now); return false },
			func() bool { d.tab.Input(s.port, s.vlan, reports(rec{blockOld, group, 2}), d.now); return false },
		}[op]
		joins := f()
		switch {
		case !member:
		case joins:
			d.w.join(s, d.now)
		default:
			d.w.leave(s, d.now, op != 4)
		}
	}
	switch n := d.rnd.IntN(100); {
	case n == 0:
		d.setPorts()
	case n < 10:
		for range 1 + d.rnd.IntN(60) {
			d.second()
		}
	default:
		hear(d.rnd.IntN(5))
	}
	d.compare(group, s.vlan)
}

func (d *duel) compare(group string, vlan uint16) {
	d.t.Helper()
	to, _ := d.tab.Input(4, vlan, stream(group), d.now)
	got := slices.Sorted(slices.Values(to.Members))
	want := d.w.goes(pt.IP(group), vlan, d.now)
	if to.Limited != (want != nil) || !slices.Equal(got, want) {
		d.t.Fatalf("second %d: %s in VLAN %d goes to %v (limited %v), want %v", d.now, group, vlan, got, to.Limited, want)
	}
	var all []Entry
	for s, until := range d.w.until {
		all = append(all, Entry{Group: s.group, VLAN: s.vlan, Port: s.port, Left: until - d.now})
	}
	have := d.tab.Groups(nil, d.now)
	slices.SortFunc(have, byGroup)
	slices.SortFunc(all, byGroup)
	if diff := gocmp.Diff(all, have, gocmp.Comparer(func(a, b Entry) bool { return a == b })); diff != "" {
		d.t.Fatalf("second %d: groups (-twin +table):\n%s", d.now, diff)
	}
	if n := d.tab.Stats().Groups; n != d.w.groups() {
		d.t.Fatalf("%d groups, want %d", n, d.w.groups())
	}
}
