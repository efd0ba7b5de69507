// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"hash/maphash"
	"math"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"sluice/bridge"
	"sluice/conntrack"
	"sluice/dial"
	"sluice/fence"
	"sluice/flow"
	"sluice/neigh"
	"sluice/packet"
	"sluice/policy"
	"sluice/veth"
)

// Theory of operation.
//
// A worker is one goroutine on its own thread. A round is: look at the epoll
// set, give each ready port one turn, then give each host link that has packets
// a turn. A turn is bounded in frames, bytes and work (intake.go, work.go), so
// that no port starves another, and never blocks. A port that has more frames than its turn may take is reported
// by the next look at the set, which costs a fraction of a microsecond; so
// there is no list of active ports that would have to be kept right.
//
// When there is nothing to do, the worker polls for a while, see idle, and then
// sleeps in epoll_wait(2), where it uses no CPU at all.
//
// The turn lock mu is held for a round and never while the worker sleeps. It is
// uncontended but for Apply and for statistics, and costs some 20 ns a round.
// A waiting Apply gets it after a millisecond at the latest, since the mutex
// then goes to who waits longest (see the sync package).

// hostSlice is the number of packets of a host stack that are carried at once.
const hostSlice = 16

// worker carries frames for its share of the ports. It is made by newWorker,
// runs once, and is freed after that.
type worker struct {
	net  *Netstack
	id   int
	poll poller
	idle idle
	mail mailbox
	dial dial.Polled // of its containers' connections
	debt debt
	due  int64 // ns since the start: when a queue may let a frame go

	mu sync.Mutex // the turn lock, see above
	// +checklocks:mu
	turn turn
}

// turn is what a worker uses while it holds its turn lock.
type turn struct {
	view    *view
	mail    *mailbox
	frames  []packet.Frame // of the turn: rx's or host's
	rx      intake
	host    *veth.Batch // frames made from the packets of host stacks
	out     output
	flows   flows
	last    train // of the turn
	watched bool  // a copy of a frame waits to be sent, see mirror
	tally   tally
	stats   WorkerStats
	now     bridge.Tick // of the round
	seconds uint32      // of the round, as connections have them
	passing passing
	worker  int

	// Of the rulesets of namespaces: evaluators that this round uses, the packet that
	// remembered actions are for, and what conntrack has said of the packet at hand.
	pinned   []*evaluator
	replayed policy.Packet
	known    conntrack.Verdict
	isKnown  bool
	framing  framing
	examined uint64 // frames that no remembered decision was there for

	ident uint16 // of the last IPv4 header that was made of one of IPv6
	net   *Netstack
}

func newWorker(n *Netstack, id int) (_ *worker, err error) {
	w := &worker{net: n, id: id, idle: newIdle(n.opts.BusyPoll), due: math.MaxInt64}
	w.dial.Fence, w.dial.Connects = fence.Local(), n.opts.Connects
	w.mail.efd, w.poll.fd, w.debt.timer = -1, -1, -1
	defer func() {
		if err != nil {
			w.free()
		}
	}()
	if err = w.mail.open(); err != nil {
		return nil, err
	}
	if err = w.poll.open(w.mail.efd); err != nil {
		return nil, err
	}
	if err = w.debt.open(&w.poll); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn.stats.Worker, w.turn.worker = id, id
	w.turn.out.worker = w
	return w, w.turn.open(n, &w.mail)
}

func (t *turn) open(n *Netstack, m *mailbox) (err error) {
	t.net, t.mail, t.view = n, m, n.view.Load()
	t.flows.seed = maphash.MakeSeed()
	t.ident = uint16(maphash.Bytes(t.flows.seed, nil))
	t.flows.cache = flow.NewCache[decision](n.opts.FlowEntries)
	t.flows.hops = make([]hop, t.flows.cache.Cap())
	if err = t.rx.open(); err != nil {
		return err
	}
	if t.host, err = veth.NewBatch(hostSlice); err != nil {
		return fmt.Errorf("host buffers: %w", err)
	}
	t.out.clock.start, t.out.clock.since = n.start, n.since
	return t.out.open()
}

// free releases what the worker holds. Preconditions: it does not run.
func (w *worker) free() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn.rx.close()
	for _, b := range []*veth.Batch{w.turn.host, w.turn.out.cut} {
		if b != nil {
			_ = b.Close()
		}
	}
	w.dial.Close()
	w.debt.close()
	w.poll.close()
	w.mail.close()
}

// run is the worker's thread, which ends with the goroutine.
func (w *worker) run() {
	runtime.LockOSThread()
	punctual()
	for !w.mail.stopped.Load() {
		w.round(w.wait())
	}
}

// round gives a turn to every port that has an event, and to the host links
// that have packets.
func (w *worker) round(events int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &w.turn
	t.start(w.net.view.Load())
	if w.mail.poked.Load() {
		w.mail.poked.Store(false)
	}
	if t.view.queued || t.out.queues != nil {
		t.queueTurns()
	}
	for i := range events {
		t.ready(&w.poll.events[i])
	}
	t.hostTurns()
	w.due = t.out.queues.due()
	t.unpin()
	t.stats.Rounds++
}

// start begins a round with a view.
func (t *turn) start(v *view) {
	t.view = v
	t.now = bridge.Tick(t.net.tick.Load())
	if c := t.net.conns.Load(); c != nil {
		t.seconds = c.Now()
	}
	t.out.fit(len(v.ports))
	t.out.clock.read, t.out.tick = false, neigh.Tick(t.now)
}

// ready serves one event of the epoll set. An event of a port that this view
// does not have was on its way when the port went.
func (t *turn) ready(ev *unix.EpollEvent) {
	if ev.Fd == wakeIndex {
		t.mail.drain()
		t.stats.Wakes++
		return
	}
	switch ev.Fd {
	case diallerIndex:
		t.out.worker.dial.Ready()
		return
	case debtIndex:
		t.out.worker.debt.due()
		return
	}
	if ev.Fd >= outsideIndex {
		t.outsideReady(ev)
		return
	}
	p := t.view.port(uint16(ev.Fd))
	if p == nil || p.sock == nil || p.sock.serial != ev.Pad {
		return
	}
	t.port(p, ev.Events)
	if t.out.handed >= budget {
		t.hostTurns() // the answers, before another port adds to them
	}
}
