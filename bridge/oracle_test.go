// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"sluice/packet"
	"sluice/trace"
)

// twin is the slow bridge: a map, no locks, no hashes, obviously right. Each
// entry has a number that no other ever has, which is what Ref.Valid is
// measured by.
type twin struct {
	maxEntries, maxPerPort int
	ageing                 Tick
	ports                  map[uint16]bool // value: local
	known                  map[place]record
	births                 int
	stats                  Stats
}

type place struct {
	mac  packet.MAC
	vlan uint16
}

type record struct {
	port  uint16
	kind  Kind
	seen  Tick
	birth int
}

func (w *twin) count(match func(record) bool) (n int) {
	for _, r := range w.known {
		if match(r) {
			n++
		}
	}
	return n
}

func (w *twin) forget(match func(record) bool) (n int) {
	for p, r := range w.known {
		if match(r) {
			delete(w.known, p)
			n++
		}
	}
	return n
}

func (w *twin) setPorts(ports map[uint16]bool) {
	for port := range w.ports {
		if _, stays := ports[port]; !stays {
			w.forget(func(r record) bool { return r.port == port })
		}
	}
	w.ports = ports
}

func (w *twin) setStatic(set []StaticEntry) {
	want := map[place]record{}
	for _, e := range set {
		r := record{port: e.Port, kind: Static}
		if e.Own {
			r.kind = Own
		}
		want[place{e.MAC, e.VLAN}] = r
	}
	for p, r := range w.known {
		if n, ok := want[p]; r.kind != Dynamic && (!ok || n.port != r.port || n.kind != r.kind) {
			delete(w.known, p)
		}
	}
	for p, n := range want {
		if old, ok := w.known[p]; ok && old.kind == n.kind {
			continue
		}
		for q, r := range w.known {
			if q.mac == p.mac && p.vlan == 0 && r.kind == Dynamic {
				delete(w.known, q)
			}
		}
		w.births++
		n.birth = w.births
		w.known[p] = n
	}
}

func (w *twin) expire(now Tick) int {
	n := w.forget(func(r record) bool { return r.kind == Dynamic && now-r.seen >= w.ageing })
	w.stats.Aged += uint64(n)
	return n
}

func (w *twin) input(in uint16, dst, src packet.MAC, vlan uint16, now Tick) outcome {
	if _, ok := w.ports[in]; !ok {
		return outcome{Reason: trace.PortRemoved}
	}
	if src.IsMulticast() || src.IsZero() {
		return outcome{Reason: trace.SourceMulticast}
	}
	if dst.IsReserved() {
		return outcome{Reason: trace.ReservedMulticast}
	}
	who := w.speaker(place{src, vlan})
	if who.kind == Own && who.port != in {
		return outcome{Reason: trace.SourceOwnMAC}
	}
	o := outcome{}
	if who.kind == kindNone || who.port == in {
		o.Learned = w.learn(in, place{src, vlan}, now)
	}
	r, known := w.known[place{dst, vlan}]
	_, member := w.ports[r.port]
	switch {
	case dst.IsMulticast():
		return w.flood(o, in, true)
	case !known:
		return w.flood(o, in, false)
	case r.port == in:
		o.Reason = trace.SamePort
	case !member:
		o.Reason = trace.PortRemoved
	default:
		o.Action, o.Port = Forward, r.port
	}
	return o
}

// speaker is the entry that says who may use a MAC: the static one in the VLAN, or
// else the untagged one.
func (w *twin) speaker(p place) record {
	for _, q := range []place{p, {mac: p.mac}} {
		if r := w.known[q]; r.kind == Static || r.kind == Own {
			return r
		}
	}
	return record{}
}

func (w *twin) learn(in uint16, p place, now Tick) bool {
	r, known := w.known[p]
	if known && r.kind != Dynamic {
		return false
	}
	if known && r.port == in {
		r.seen = max(r.seen, now)
		w.known[p] = r
		return false
	}
	quota := w.count(func(r record) bool { return r.kind == Dynamic && r.port == in }) >= w.maxPerPort
	full := !known && w.count(func(r record) bool { return r.kind == Dynamic }) >= w.maxEntries
	switch {
	case quota:
		w.stats.RefusedQuota++
	case full:
		w.stats.RefusedFull++
	}
	if quota || full {
		delete(w.known, p)
		return false
	}
	if known {
		w.stats.Moved++
	} else {
		w.stats.Learned++
	}
	w.births++
	w.known[p] = record{port: in, kind: Dynamic, seen: now, birth: w.births}
	return true
}

func (w *twin) flood(o outcome, in uint16, group bool) outcome {
	others := 0
	for port, local := range w.ports {
		if port == in || local && !group {
			continue
		}
		others++
		o.Local = o.Local || local
	}
	if others == 0 {
		o.Reason, o.Local = trace.NoPort, false
		return o
	}
	o.Action = Flood
	return o
}

func (w *twin) entries(now Tick) []Entry {
	var all []Entry
	for p, r := range w.known {
		e := Entry{MAC: p.mac, VLAN: p.vlan, Port: r.port, Kind: r.kind}
		if r.kind == Dynamic {
			e.Age = uint32(now - r.seen)
		}
		all = append(all, e)
	}
	return all
}

// duel is a bridge and its twin under the same random operations.
type duel struct {
	t    *testing.T
	rnd  *rand.Rand
	b    *Bridge
	w    *twin
	fr   *framer
	now  Tick
	refs []heldRef
}

// heldRef is a Ref that somebody kept, and the twin's entry that it is of.
type heldRef struct {
	ref   Ref
	place place
	birth int
}

func newDuel(t *testing.T, seed uint64, o Options) *duel {
	t.Helper()
	w := &twin{
		maxEntries: o.MaxEntries, maxPerPort: o.MaxPerPort, ageing: Tick(o.Ageing / time.Second),
		ports: map[uint16]bool{}, known: map[place]record{},
	}
	return &duel{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), b: New(o), w: w, fr: newFramer()}
}

func (d *duel) step() {
	switch n := d.rnd.IntN(400); {
	case n == 0:
		d.setPorts()
	case n == 1:
		d.setStatic()
	case n == 2:
		d.flush()
	case n < 12:
		d.expire()
	default:
		d.input()
	}
}

func (d *duel) setPorts() {
	want := map[uint16]bool{}
	var list []PortConfig
	for port := uint16(1); port <= 5; port++ {
		if d.rnd.IntN(5) > 0 {
			want[port] = port == 5
			list = append(list, PortConfig{Index: port, Local: port == 5})
		}
	}
	d.b.SetPorts(list)
	d.w.setPorts(want)
}

func (d *duel) setStatic() {
	var list []StaticEntry
	for n := range 6 {
		if d.rnd.IntN(2) == 0 {
			list = append(list, StaticEntry{MAC: station(n), VLAN: uint16(n % 2), Port: uint16(1 + n%5), Own: n%5 == 4})
		}
	}
	d.b.SetStatic(list)
	d.w.setStatic(list)
}

func (d *duel) flush() {
	port := uint16(d.rnd.IntN(6))
	d.b.Flush(port)
	d.w.forget(func(r record) bool { return r.kind == Dynamic && (port == 0 || r.port == port) })
}

func (d *duel) expire() {
	d.now += Tick(d.rnd.IntN(4))
	if got, want := d.b.Expire(d.now), d.w.expire(d.now); got != want {
		d.t.Fatalf("expired %d, want %d", got, want)
	}
}

// mac is mostly a station; now and then an address that a frame may not have.
func (d *duel) mac() packet.MAC {
	odd := []packet.MAC{broadcast, group, reserved, {}, {1, 0x80, 0xc2, 0, 0, 0x20}}
	if n := d.rnd.IntN(40); n < len(odd) {
		return odd[n]
	}
	return station(d.rnd.IntN(60))
}

func (d *duel) input() {
	in, vlan := uint16(1+d.rnd.IntN(5)), uint16(d.rnd.IntN(2))
	dst, src := d.mac(), d.mac()
	v := d.b.Input(in, d.fr.frame(dst, src, vlan), d.now)
	want := d.w.input(in, dst, src, vlan, d.now)
	if diff := gocmp.Diff(want, v.outcome()); diff != "" {
		d.t.Fatalf("port %d, %v -> %v, VLAN %d (-twin +bridge):\n%s", in, src, dst, vlan, diff)
	}
	d.hold(v.Src, place{src, vlan})
	d.hold(v.Dst, place{dst, vlan})
	d.checkRemembered(in, v, dst, src, vlan)
}

// hold keeps a Ref in the place of an older one.
func (d *duel) hold(r Ref, p place) {
	if r == (Ref{}) {
		return
	}
	rec, ok := d.w.known[p]
	if !ok || !r.Valid() || r.Port() != rec.port {
		d.t.Fatalf("%v: new ref valid %v on port %d, twin has %+v", p, r.Valid(), r.Port(), rec)
	}
	h := heldRef{r, p, rec.birth}
	if len(d.refs) < 200 {
		d.refs = append(d.refs, h)
		return
	}
	d.refs[d.rnd.IntN(len(d.refs))] = h
}

// checkRemembered asks again what a flow cache would remember.
func (d *duel) checkRemembered(in uint16, v Verdict, dst, src packet.MAC, vlan uint16) {
	if !v.Src.Valid() || !v.Dst.Valid() {
		return
	}
	again := d.w.input(in, dst, src, vlan, d.now)
	v.Learned = false
	if diff := gocmp.Diff(again, v.outcome()); diff != "" {
		d.t.Fatalf("%v -> %v: a remembered verdict is wrong (-twin +verdict):\n%s", src, dst, diff)
	}
}

// check compares everything that can be seen from outside.
func (d *duel) check() {
	for _, h := range d.refs {
		if want := d.w.known[h.place].birth == h.birth; h.ref.Valid() != want {
			d.t.Fatalf("%v: ref valid %v, want %v", h.place, !want, want)
		}
	}
	byStation := func(x, y Entry) int {
		return cmp.Or(slices.Compare(x.MAC[:], y.MAC[:]), cmp.Compare(x.VLAN, y.VLAN))
	}
	got, want := d.b.Entries(nil, d.now), d.w.entries(d.now)
	slices.SortFunc(got, byStation)
	slices.SortFunc(want, byStation)
	if diff := gocmp.Diff(want, got); diff != "" {
		d.t.Fatalf("entries (-twin +bridge):\n%s", diff)
	}
	d.w.stats.MaxEntries = d.w.maxEntries
	d.w.stats.Entries = d.w.count(func(r record) bool { return r.kind == Dynamic })
	d.w.stats.Static = len(d.w.known) - d.w.stats.Entries
	if diff := gocmp.Diff(d.w.stats, d.b.Stats()); diff != "" {
		d.t.Fatalf("stats (-twin +bridge):\n%s", diff)
	}
}

// touchSome refreshes kept Refs as a flow-cache hit does.
func (d *duel) touchSome() {
	if len(d.refs) == 0 {
		return
	}
	h := d.refs[d.rnd.IntN(len(d.refs))]
	h.ref.Touch(d.now)
	if r := d.w.known[h.place]; r.birth == h.birth {
		r.seen = max(r.seen, d.now)
		d.w.known[h.place] = r
	}
}

func TestBridgeAndTwinAgree(t *testing.T) {
	bounds := map[string]Options{
		"roomy":       {Ageing: 30 * time.Second, MaxEntries: 256, MaxPerPort: 256},
		"tight table": {Ageing: 20 * time.Second, MaxEntries: 24, MaxPerPort: 24},
		"tight quota": {Ageing: 10 * time.Second, MaxEntries: 256, MaxPerPort: 5},
		"tiny":        {Ageing: 3 * time.Second, MaxEntries: 3, MaxPerPort: 2},
	}
	for name, o := range bounds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDuel(t, uint64(len(name)), o)
			for range 20_000 {
				d.step()
				d.touchSome()
				if d.rnd.IntN(60) == 0 {
					d.check()
				}
			}
			d.check()
			t.Logf("%+v", d.b.Stats())
		})
	}
}
