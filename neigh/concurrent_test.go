// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

const crowd = 60 // neighbours of the concurrency tests

// settledMAC reports whether neighbour n always has the same MAC.
func settledMAC(n int) bool { return n < crowd/2 }

// worker is one data-path worker of the test: it looks up, resolves, hears, keeps
// Refs, and refuses to see a settled neighbour at a MAC that isn't its own.
type worker struct {
	t    *testing.T
	x    *Table
	rnd  *rand.Rand
	now  *atomic.Uint32
	port uint16
	kept map[netip.Addr]Ref
	sent atomic.Int64 // frames that were let go or asked
}

// Emit checks that a packet goes to its neighbour.
func (w *worker) Emit(_ uint16, _ packet.Vnet, _ packet.Label, b []byte) {
	w.sent.Add(1)
	f := pt.Frame(b)
	if f.View.Is(packet.ViewARP) || f.View.IsND() {
		return
	}
	n, mac := int(f.View.DstPort), f.DstMAC()
	if mac != macA(n) && (settledMAC(n) || mac != macB(n)) {
		w.t.Errorf("packet for %d sent to %v", n, mac)
	}
}

func (w *worker) run(steps int) {
	for range steps {
		if w.t.Failed() {
			return
		}
		w.step()
	}
}

func (w *worker) step() {
	n := w.rnd.IntN(crowd)
	a := ip4(n)
	if n%2 == 0 {
		a = ip6(n)
	}
	now := Tick(w.now.Load())
	switch w.rnd.IntN(8) {
	case 0:
		w.hear(n, now)
	case 1:
		w.x.State(dev, a)
	default:
		w.want(n, a, now)
	}
	if r, ok := w.kept[a]; ok && r.Valid() {
		r.Touch(now)
	}
}

// want has a packet for a neighbour.
func (w *worker) want(n int, a netip.Addr, now Tick) {
	mac, ref, ok := w.x.Lookup(dev, a, now)
	if !ok {
		w.x.Resolve(dev, a, Held{Port: w.port, Frame: pt.Ping4(pt.Packet{ID: uint16(n)})}, now, w)
		return
	}
	if mac != ref.MAC() || mac != macA(n) && (settledMAC(n) || mac != macB(n)) {
		w.t.Errorf("%d is at %v, ref says %v", n, mac, ref.MAC())
	}
	w.kept[a] = ref
}

func (w *worker) hear(n int, now Tick) {
	mac := macA(n)
	if !settledMAC(n) && w.rnd.IntN(2) == 0 {
		mac = macB(n)
	}
	b := arp(uint16(1+w.rnd.IntN(2)), n, mac, own4, ownMAC, ownMAC)
	if n%2 == 0 {
		b = advert(n, uint8(w.rnd.IntN(8))<<5, mac).build()
	}
	w.x.Input(dev, parsed(b, w.port), own, now, w)
}

// disturb is the control path: time passes, entries become permanent and free
// again, the device comes and goes, the table is flushed and shown, until done.
func disturb(x *Table, w *worker, done *atomic.Bool) {
	rnd := rand.New(rand.NewPCG(8, 9))
	for !done.Load() {
		switch rnd.IntN(6) {
		case 0, 1, 2:
			x.Tick(Tick(w.now.Add(1)), w, func(Failure) {})
		case 3:
			var set []Static
			for range 6 {
				n := rnd.IntN(crowd)
				set = append(set, Static{dev, ip4(n), macA(n), false}, Static{dev, ip6(n), macA(n), false})
			}
			x.Prepare(Config{Devices: []Device{theDevice()}, Static: set}).Commit()
		case 4:
			if rnd.IntN(10) == 0 {
				x.Prepare(Config{}).Commit()
				x.Prepare(Config{Devices: []Device{theDevice()}}).Commit()
			}
			x.Flush(0, ip4(rnd.IntN(crowd)))
		case 5:
			x.Entries(nil, 0)
			x.Stats()
		}
	}
}

func TestWorkersAndControlPathAtOnce(t *testing.T) {
	x := newWorld(Limits{Entries: 40, Collect: 10, UnresolvedPerPort: 20})
	var now atomic.Uint32
	var done atomic.Bool
	var workers, control sync.WaitGroup
	fresh := func(n int) *worker {
		return &worker{
			t: t, x: x, rnd: rand.New(rand.NewPCG(uint64(n), 1)), now: &now, port: uint16(n), kept: map[netip.Addr]Ref{},
		}
	}
	timer := fresh(9)
	control.Go(func() { disturb(x, timer, &done) })
	for n := range 4 {
		workers.Go(func() { fresh(n).run(20_000) })
	}
	workers.Wait()
	done.Store(true)
	control.Wait()
	checkBooks(t, x)
	t.Logf("at %d: %+v", now.Load(), x.Stats())
}

// Readers that wake a stale entry at the same moment make it Delay once, and its
// Refs stay good.
func TestManyWakeOne(t *testing.T) {
	for range 200 {
		x := newWorld(Limits{})
		put(x, ip4(1), Stale, macA(1), 0)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, r, ok := x.Lookup(dev, ip4(1), 7); !ok || !r.Valid() || r.MAC() != macA(1) {
					t.Errorf("%v, %v", r, ok)
				}
			})
		}
		wg.Wait()
		if e := entryOf(x, ip4(1), 7); e.State != Delay || e.Used != 0 || e.Updated != 0 {
			t.Fatalf("%+v", e)
		}
	}
}
