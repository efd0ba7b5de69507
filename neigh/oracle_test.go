// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// twin is the slow table: a list of records, no locks, no hashes, no words. It
// knows one device. Each record has a number that no other ever has; a Ref is good
// as long as the record of that number has the MAC.
type twin struct {
	l       Limits
	now     Tick
	births  int
	known   []*record
	static  map[netip.Addr]packet.MAC
	reach   func(netip.Addr) uint32
	victim  *record // that made room last
	sent    []string
	failed  []string
	waiting []string // for the next tick
	lost    []string
}

type record struct {
	addr   netip.Addr
	birth  int
	state  State
	mac    packet.MAC
	router bool

	used, confirmed, updated, delayed, due Tick
	probes                                 int
	cause                                  string // "asked" | "spoke" | "answered"
	port                                   uint16
	held                                   []Held
}

func (w *twin) get(a netip.Addr) *record {
	for _, r := range w.known {
		if r.addr == a {
			return r
		}
	}
	return nil
}

func (w *twin) drop(r *record) {
	w.known = slices.DeleteFunc(w.known, func(x *record) bool { return x == r })
}

func (w *twin) count(match func(*record) bool) (n int) {
	for _, r := range w.known {
		if match(r) {
			n++
		}
	}
	return n
}

func (w *twin) set(r *record, s State, mac packet.MAC) {
	r.state, r.mac, r.updated = s, mac, w.now
	if s == Delay {
		r.delayed = w.now
	}
}

// share makes room on a port's account.
func (w *twin) share(cause string, port uint16) bool {
	limit := map[string]int{"asked": w.l.UnresolvedPerPort, "spoke": w.l.LearnedPerPort, "answered": w.l.AnsweredPerPort}[cause]
	mine := func(r *record) bool { return r.cause == cause && r.port == port }
	if w.count(mine) < limit {
		return true
	}
	var victim *record
	for _, r := range w.known {
		if cause == "asked" && mine(r) && r.state == Failed && (victim == nil || r.updated < victim.updated) {
			victim = r
		}
	}
	if victim == nil {
		return false
	}
	// Of several that failed in the same second any may go: see duel.rid.
	w.drop(victim)
	w.victim = victim
	return true
}

func (w *twin) make(a netip.Addr, cause string, port uint16) *record {
	if !w.share(cause, port) || len(w.known) >= w.l.Entries {
		return nil
	}
	w.births++
	r := &record{addr: a, birth: w.births, used: w.now, confirmed: w.now, updated: w.now, cause: cause, port: port}
	w.known = append(w.known, r)
	return r
}

func (w *twin) ask(r *record, d Tick) {
	r.probes++
	r.due = w.now + d
	to := "all"
	if r.state == Probe {
		to = r.mac.String()
	}
	w.sent = append(w.sent, fmt.Sprintf("ask %v %s", r.addr, to))
}

func (w *twin) use(r *record) {
	if r.state == Stale {
		r.state, r.delayed = Delay, w.now
	}
	r.used = w.now
}

func packetWord(h Held, mac packet.MAC) string {
	f := pt.Frame(h.Frame)
	return fmt.Sprintf("packet %d/%d to %v", h.Port, f.View.DstPort, mac)
}

func (w *twin) lookup(a netip.Addr) (packet.MAC, bool) {
	if mac, ok := w.static[a]; ok {
		return mac, true
	}
	r := w.get(a)
	if r == nil || !r.state.Usable() {
		return packet.MAC{}, false
	}
	w.use(r)
	return r.mac, true
}

func weight(all []Held, port int) (n int) {
	for _, h := range all {
		if port < 0 || h.Port == uint16(port) {
			n += len(h.Frame) + queueOverhead
		}
	}
	return n
}

// push takes the oldest packet of a port out of a record.
func (w *twin) push(r *record, port uint16) bool {
	for i, h := range r.held {
		if h.Port == port {
			r.held = slices.Delete(slices.Clone(r.held), i, i+1)
			return true
		}
	}
	return false
}

func (w *twin) hold(r *record, h Held) (pushed int, ok bool) {
	total := func() (n int) {
		for _, x := range w.known {
			n += weight(x.held, int(h.Port))
		}
		return n
	}
	c := weight([]Held{h}, -1)
	for total()+c > w.l.QueueBytesPerPort {
		if !w.push(r, h.Port) {
			return pushed, false
		}
		pushed++
	}
	for weight(r.held, -1)+c > w.l.QueueBytes {
		most, port := -1, uint16(0)
		for _, x := range r.held {
			n := weight(r.held, int(x.Port))
			if x.Port == h.Port {
				n += c
			}
			if n > most || n == most && x.Port == h.Port {
				most, port = n, x.Port
			}
		}
		w.push(r, port)
		pushed++
	}
	r.held = append(r.held, h)
	return pushed, true
}

func (w *twin) resolve(a netip.Addr, h Held) (trace.Reason, int) {
	if mac, ok := w.static[a]; ok {
		w.sent = append(w.sent, packetWord(h, mac))
		return trace.None, 0
	}
	r := w.get(a)
	if r != nil && r.state.Usable() {
		w.use(r)
		w.sent = append(w.sent, packetWord(h, r.mac))
		return trace.None, 0
	}
	if r == nil {
		r = w.make(a, "asked", h.Port)
		if r == nil {
			return trace.NeighFull, 0
		}
	} else if r.state == Failed && r.cause != "asked" {
		if !w.share("asked", h.Port) {
			return trace.NeighFull, 0
		}
		r.cause, r.port = "asked", h.Port
	}
	pushed, ok := w.hold(r, h)
	if r.state != Incomplete {
		w.set(r, Incomplete, packet.MAC{})
		r.used, r.probes = w.now, 0
		w.ask(r, 1)
	}
	if !ok {
		return trace.NeighQueue, pushed
	}
	return trace.None, pushed
}

// learn is what a record makes of a message that says it is in state s with a MAC.
func (w *twin) learn(r *record, mac packet.MAC, port uint16, s State, mayReplace, weak bool, router *bool) {
	known := r.state.Usable()
	if mac.IsZero() {
		if !known {
			return
		}
		mac = r.mac
	}
	switch {
	case known && mac != r.mac && !mayReplace:
		if weak && r.state == Reachable {
			w.set(r, Stale, r.mac)
		}
		return
	case known && mac == r.mac && s == Stale:
		s = r.state
	}
	if router != nil {
		r.router = *router
	}
	if s == Reachable {
		r.confirmed = w.now
	} else if mac != r.mac {
		r.confirmed = w.now - 60
	}
	if s == r.state && mac == r.mac {
		return
	}
	if s == Reachable && r.state != Reachable {
		r.due = w.now + Tick(w.reach(r.addr))
	}
	w.set(r, s, mac)
	if already := r.cause == "answered" && r.port == port; (s == Reachable || r.cause == "asked" && !known) && !already && w.share("answered", port) {
		r.cause, r.port = "answered", port
	}
	if known {
		return
	}
	if len(r.held) > 0 {
		w.use(r)
	}
	for _, h := range r.held {
		w.sent = append(w.sent, packetWord(h, r.mac))
	}
	r.held = nil
}

func (w *twin) tick() {
	w.sent = append(w.sent, w.waiting...)
	w.failed = append(w.failed, w.lost...)
	w.waiting, w.lost = nil, nil
	for _, r := range w.known {
		w.advance(r)
	}
	many := len(w.known) >= w.l.Collect
	w.known = slices.DeleteFunc(w.known, func(r *record) bool {
		old := w.now - r.updated
		return r.state == Failed && (old >= 60 || many && old >= 5) ||
			r.state == Stale && many && w.now-max(r.used, r.confirmed) >= 60
	})
}

func (w *twin) advance(r *record) {
	due := r.due
	if r.state == Delay {
		due = r.delayed + 5
	}
	if w.now < due {
		return
	}
	switch r.state {
	case Reachable:
		r.due = r.confirmed + Tick(w.reach(r.addr))
		switch {
		case w.now < r.due:
		case w.now-r.used <= 5:
			w.set(r, Delay, r.mac)
		default:
			w.set(r, Stale, r.mac)
		}
	case Delay:
		w.set(r, Probe, r.mac)
		r.probes = 0
		w.ask(r, 1)
	case Incomplete, Probe:
		if r.probes < 3 {
			w.ask(r, 1)
			return
		}
		w.giveUp(r, &w.failed, trace.NeighFailed)
		w.set(r, Failed, packet.MAC{})
	}
}

func (w *twin) giveUp(r *record, list *[]string, why trace.Reason) {
	if len(r.held) == 0 {
		return
	}
	s := fmt.Sprintf("%v %v", r.addr, why)
	for _, h := range r.held {
		s += " " + packetWord(h, packet.MAC{})
	}
	*list = append(*list, s)
	r.held = nil
}

// duel gives the same to a table and its twin.
type duel struct {
	t    *testing.T
	rnd  *rand.Rand
	x    *Table
	w    *twin
	out  tape
	refs []heldRef
	ids  int
}

type heldRef struct {
	r     Ref
	a     netip.Addr
	birth int
	mac   packet.MAC
}

func newDuel(t *testing.T, seed uint64, l Limits) *duel {
	t.Helper()
	d := &duel{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), x: newTable(l, seed)}
	d.w = &twin{l: l.withDefaults(), now: 1000, static: map[netip.Addr]packet.MAC{}}
	d.w.reach = func(a netip.Addr) uint32 {
		c := d.x.conf.Load().devices[dev].clock
		if a.Is4() {
			return c.reachable4
		}
		return c.reachable6
	}
	d.x.Prepare(Config{Devices: []Device{theDevice()}}).Commit()
	d.tick()
	return d
}

const people = 24

func (d *duel) addr() netip.Addr {
	n := d.rnd.IntN(people)
	if n%2 == 0 {
		return ip4(n)
	}
	return ip6(n)
}

func number(a netip.Addr) int { b := a.As16(); return int(b[15]) - 10 }

func (d *duel) mac(n int) packet.MAC {
	if d.rnd.IntN(4) == 0 {
		return macB(n)
	}
	return macA(n)
}

func (d *duel) step() {
	switch k := d.rnd.IntN(100); {
	case k < 30:
		d.lookup(d.addr())
	case k < 50:
		d.resolve(d.addr())
	case k < 75:
		d.hear()
	case k < 96:
		d.w.now += Tick(d.rnd.IntN(3))
		d.tick()
	case k < 98:
		d.flush()
	default:
		d.commit()
	}
	d.compareOutput()
}

func (d *duel) tick() {
	d.x.Tick(d.w.now, &d.out, d.out.fail)
	d.w.tick()
}

func (d *duel) lookup(a netip.Addr) {
	mac, ref, ok := d.x.Lookup(dev, a, d.w.now)
	want, wantOK := d.w.lookup(a)
	if mac != want || ok != wantOK || ref.Valid() != ok {
		d.t.Fatalf("%v: %v %v, want %v %v", a, mac, ok, want, wantOK)
	}
	if r := d.w.get(a); ok && d.w.static[a].IsZero() {
		d.refs = append(d.refs, heldRef{ref, a, r.birth, mac})
	}
}

func (d *duel) resolve(a netip.Addr) {
	d.ids++
	h := Held{Port: uint16(1 + d.rnd.IntN(3)), Frame: pt.Ping4(pt.Packet{ID: uint16(d.ids), Payload: pt.Bytes(d.rnd.IntN(1400))})}
	got := d.x.Resolve(dev, a, h, d.w.now, &d.out)
	reason, pushed := d.w.resolve(a, h)
	if got.Reason != reason || len(got.Pushed) != pushed {
		d.t.Fatalf("%v: %+v, want %v, %d pushed", a, got, reason, pushed)
	}
	d.rid()
}

// rid makes the twin take back the record that it chose to make room, and drop the
// one that the table chose, which has to have failed at the same time.
func (d *duel) rid() {
	v := d.w.victim
	d.w.victim = nil
	if v == nil || d.x.State(dev, v.addr) == None || d.w.get(v.addr) != nil {
		return
	}
	for _, r := range d.w.known {
		if d.x.State(dev, r.addr) == None && r.updated == v.updated {
			d.w.drop(r)
			d.w.known = append(d.w.known, v)
			return
		}
	}
	d.t.Fatalf("%v was to make room, and is there", v.addr)
}

func (d *duel) hear() {
	a := d.addr()
	n, port := number(a), uint16(1+d.rnd.IntN(3))
	mac := d.mac(n)
	if a.Is4() {
		d.hearARP(a, n, mac, port)
		return
	}
	d.hearND(a, n, mac, port)
}

func (d *duel) input(b []byte, port uint16) {
	d.x.Input(dev, parsed(b, port), own, d.w.now, &d.out)
}

func (d *duel) hearARP(a netip.Addr, n int, mac packet.MAC, port uint16) {
	all := packet.Broadcast()
	if d.rnd.IntN(3) == 0 {
		d.input(arp(packet.ARPOpRequest, n, mac, own4, packet.MAC{}, all), port)
		d.spoke(a, mac, port, nil)
		return
	}
	r := d.w.get(a)
	unlocked := r != nil && d.w.now-r.updated > 1
	s := Stale
	switch d.rnd.IntN(3) {
	case 0:
		s = Reachable
		d.input(arp(packet.ARPOpReply, n, mac, own4, ownMAC, ownMAC), port)
	case 1:
		d.input(arp(packet.ARPOpReply, n, mac, own4, ownMAC, all), port)
	case 2:
		unlocked = true
		d.input(arp(packet.ARPOpRequest, n, mac, a, packet.MAC{}, all), port)
	}
	if r != nil && d.w.static[a].IsZero() {
		d.w.learn(r, mac, port, s, unlocked, false, nil)
	}
}

// spoke is for messages that make a record.
func (d *duel) spoke(a netip.Addr, mac packet.MAC, port uint16, router *bool) {
	if !d.w.static[a].IsZero() {
		return
	}
	r := d.w.get(a)
	if r == nil && !mac.IsZero() {
		r = d.w.make(a, "spoke", port)
	}
	if r != nil {
		d.w.learn(r, mac, port, Stale, true, true, router)
	}
}

func (d *duel) hearND(a netip.Addr, n int, mac packet.MAC, port uint16) {
	if d.rnd.IntN(5) == 0 {
		mac = packet.MAC{}
	}
	switch d.rnd.IntN(4) {
	case 0:
		d.input(solicit(n, own6, mac).build(), port)
		d.spoke(a, mac, port, nil)
		return
	case 1:
		m := solicit(n, own6, mac)
		m.typ, m.target, m.dst = packet.NDRouterSolicit, netip.Addr{}, allRouters
		d.input(m.build(), port)
		d.spoke(a, mac, port, new(bool))
		return
	}
	flags := uint8(d.rnd.IntN(8)) << 5
	d.input(advert(n, flags, mac).build(), port)
	s, router := Stale, flags&packet.NAFlagRouter != 0
	if flags&packet.NAFlagSolicited != 0 {
		s = Reachable
	}
	if r := d.w.get(a); r != nil && r.state != Failed && d.w.static[a].IsZero() {
		d.w.learn(r, mac, port, s, flags&packet.NAFlagOverride != 0, true, &router)
	}
}

func (d *duel) flush() {
	a := d.addr()
	n, want := d.x.Flush(dev, a), 0
	if r := d.w.get(a); r != nil {
		want = 1
		d.w.giveUp(r, &d.w.lost, trace.NeighFailed)
		d.w.drop(r)
	}
	if n != want {
		d.t.Fatalf("flushed %d, want %d", n, want)
	}
}

func (d *duel) commit() {
	var set []Static
	next := map[netip.Addr]packet.MAC{}
	for range d.rnd.IntN(3) {
		a := d.addr()
		next[a] = d.mac(number(a))
		set = append(set, Static{dev, a, next[a], false})
	}
	d.x.Prepare(Config{Devices: []Device{theDevice()}, Static: set}).Commit()
	for a, mac := range next {
		if r := d.w.get(a); r != nil && d.w.static[a].IsZero() {
			for _, h := range r.held {
				d.w.waiting = append(d.w.waiting, packetWord(h, mac))
			}
			d.w.drop(r)
		}
	}
	d.w.static = next
}

// compareOutput compares what was sent and given up; a tick does so in any order.
func (d *duel) compareOutput() {
	d.t.Helper()
	sent, failed := d.out.take()
	var got, gotFailed []string
	for _, s := range sent {
		got = append(got, d.word(s))
	}
	for _, f := range failed {
		s := fmt.Sprintf("%v %v", f.Addr, f.Reason)
		for _, h := range f.Held {
			s += " " + packetWord(h, packet.MAC{})
		}
		gotFailed = append(gotFailed, s)
	}
	for _, list := range [][]string{got, gotFailed, d.w.sent, d.w.failed} {
		slices.Sort(list)
	}
	if diff := gocmp.Diff([][]string{d.w.sent, d.w.failed}, [][]string{got, gotFailed}); diff != "" {
		d.t.Fatalf("at %d: output (-twin +table):\n%s", d.w.now, diff)
	}
	d.w.sent, d.w.failed = nil, nil
}

func (d *duel) word(s sentFrame) string {
	f := pt.Frame(s.frame)
	to := f.DstMAC().String()
	if f.DstMAC().IsMulticast() {
		to = "all"
	}
	if m, ok := f.View.ND(f.Bytes()); ok {
		return fmt.Sprintf("ask %v %s", m.Target, to)
	}
	if f.View.Is(packet.ViewARP) {
		return fmt.Sprintf("ask %v %s", f.View.DstAddr(f.Bytes()), to)
	}
	for port := uint16(1); port <= 3; port++ { // the port is not in the frame
		h := Held{Port: port, Frame: s.frame}
		if w := packetWord(h, f.DstMAC()); slices.Contains(d.w.sent, w) {
			return w
		}
	}
	return "unexpected " + packetWord(Held{Frame: s.frame}, f.DstMAC())
}

// check compares everything that can be seen from outside.
func (d *duel) check() {
	d.t.Helper()
	var want []Entry
	now := d.w.now
	for a, mac := range d.w.static {
		want = append(want, Entry{Device: dev, Addr: a, MAC: mac, State: Permanent})
	}
	for _, r := range d.w.known {
		e := Entry{
			Device: dev, Addr: r.addr, MAC: r.mac, State: r.state, Router: r.router, Held: len(r.held),
			Used: uint32(now - r.used), Confirmed: uint32(now - r.confirmed), Updated: uint32(now - r.updated),
		}
		switch r.state {
		case Delay:
			e.Updated = uint32(now - r.delayed)
		case Incomplete, Probe, Failed:
			e.Probes = uint8(r.probes)
		}
		want = append(want, e)
	}
	got := d.x.Entries(nil, now)
	for _, list := range [][]Entry{got, want} {
		slices.SortFunc(list, func(x, y Entry) int { return cmp.Or(x.Addr.Compare(y.Addr), cmp.Compare(x.State, y.State)) })
	}
	if diff := gocmp.Diff(want, got, gocmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		d.t.Fatalf("at %d: entries (-twin +table):\n%s", now, diff)
	}
	d.checkRefs()
	checkBooks(d.t, d.x)
}

// checkRefs asks of each Ref that was ever given out whether it is right: good as
// long as its record has its MAC.
func (d *duel) checkRefs() {
	for _, h := range d.refs {
		r := d.w.get(h.a)
		want := r != nil && r.birth == h.birth && r.state.Usable() && r.mac == h.mac
		if h.r.Valid() != want {
			d.t.Fatalf("%v at %v: ref valid %v, want %v", h.a, h.mac, !want, want)
		}
	}
	if len(d.refs) > 200 {
		d.refs = d.refs[len(d.refs)-100:]
	}
}

// touchSome uses a kept Ref as a hit of the flow cache does.
func (d *duel) touchSome() {
	if len(d.refs) == 0 {
		return
	}
	h := d.refs[d.rnd.IntN(len(d.refs))]
	h.r.Touch(d.w.now)
	if r := d.w.get(h.a); r != nil && r.birth == h.birth && r.state.Usable() && r.mac == h.mac {
		d.w.use(r)
	}
}

func TestTableAndTwinAgree(t *testing.T) {
	for name, l := range map[string]Limits{
		"roomy":      {},
		"collecting": {Collect: 4},
		"few asked":  {UnresolvedPerPort: 2},
		"few speak":  {LearnedPerPort: 1, UnresolvedPerPort: 5},
		"few answer": {AnsweredPerPort: 2, UnresolvedPerPort: 9},
		"few bytes":  {QueueBytes: 4500, QueueBytesPerPort: 5000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDuel(t, uint64(len(name)), l)
			for range 20_000 {
				d.step()
				d.touchSome()
				if d.rnd.IntN(20) == 0 {
					d.check()
				}
			}
			d.check()
			t.Logf("%+v", d.x.Stats())
		})
	}
}
