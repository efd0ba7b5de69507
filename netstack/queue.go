// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"sluice/bridge"
	"sluice/packet"
	"sluice/qdisc"
	"sluice/trace"
)

// Theory of operation.
//
// A port may have a queueing discipline for each direction. Both belong to the worker
// that reads the port's socket; for those of devices see device.go. What leaves by the port goes into its tree at the end
// of a turn instead of onto the send list, and what the tree lets go at once is sent
// with the same call as ever, without a copy. The rest is copied, and the worker's
// timing wheel says when it is the port's turn again. A worker that has frames for
// another one's port hands copies of them over.
//
//	turn's output -- own port --> tree -- due --> sendmmsg
//	             \                  \--- later --> wheel ... round --> sendmmsg
//	              other's port --> ring --> that worker's round
//
// What a container sends goes through its tree before it is judged: from there on it
// is a frame like those that just came in. When a discipline goes, see release.go.

// The directions of a port's queues.
const (
	egress  = iota // towards the container
	ingress        // from it
)

const (
	// Of each ring. Few workers have larger ones: a megabyte is but sixteen super-frames,
	// which is less than comes while the other worker waits for a processor.
	handoverFrames   = 2048
	handoverAll      = 8 << 20 // bytes of the rings to one worker, as far as each is within these
	leastHandover    = 1 << 20
	greatestHandover = 4 << 20
	// queueTurns bounds the queues that one round serves, and handed the frames of
	// one ring.
	mostQueues = 1024
	mostHanded = 256
)

// queue is one direction of one port, at the worker whose port it is; or a tree across
// ports, see sharing.
type queue struct {
	port     uint16
	dir      int
	sock     *socket             // of a container's port
	link     *hostLink           // of a device
	counters *trace.PortCounters // of either; nil, as those, of a tree across ports
	spec     *qdisc.Spec
	tree     *qdisc.Tree
	group    *queue // the tree across ports that it is a part of; nil: none
}

// shared reports a tree across ports.
func (q *queue) shared() bool { return q.counters == nil }

// of reports whether the queue is that of a port as this view has it.
func (q *queue) of(p *port) bool { return p != nil && p.sock == q.sock && p.link == q.link }

// top is the queue that frames come out of.
func (q *queue) top() *queue {
	if q.group != nil {
		return q.group
	}
	return q
}

func (q *queue) id() uint32 {
	if q.shared() {
		return treeID(q.port, q.dir)
	}
	return queueID(q.port, q.dir)
}

// queueID is the number of a queue at the wheel.
func queueID(port uint16, dir int) uint32 { return uint32(port)<<2 | uint32(dir) }

// treeID is that of a tree across ports, by its root.
func treeID(root uint16, dir int) uint32 { return queueID(root, dir) | 2 }

// queues are a worker's.
type queues struct {
	pool   *qdisc.Pool
	wheel  qdisc.Wheel
	all    map[uint32]*queue
	gen    uint64 // the view for which they are
	seed   uint64
	frames [budget]packet.Frame
	refs   [budget]qdisc.Ref
	drops  [trace.NumReasons]uint64
	rings  []*qdisc.Handover // by the worker they come from; nil: none
	in     held
}

// due is when a queue may let a frame go, ns since the start.
func (s *queues) due() int64 {
	if s == nil {
		return math.MaxInt64
	}
	return s.wheel.Time()
}

// validateQueues checks the disciplines of a port, but for those that before has, too: the
// ports of a network mostly have the same, and what a check makes is not small.
func (p *PortSpec) validateQueues(before *PortSpec) error {
	for name, specs := range map[string][2]*qdisc.Spec{"egress": {p.Egress, before.Egress}, "ingress": {p.Ingress, before.Ingress}} {
		if reflect.DeepEqual(specs[0], specs[1]) {
			continue
		}
		if err := validateQueue(name, specs[0]); err != nil {
			return err
		}
	}
	return nil
}

// validateQueue checks a discipline, if there is one.
func validateQueue(name string, spec *qdisc.Spec) error {
	if spec == nil {
		return nil
	}
	if len(spec.Qdiscs) == 0 {
		return fmt.Errorf("%s: there is no qdisc", name)
	}
	if err := qdisc.Check(spec); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// queueTurns brings the queues in line with the view, takes what other workers handed
// over, and serves the queues whose time has come.
func (t *turn) queueTurns() {
	o := &t.out
	t.keepUp()
	s := o.queues
	for _, ring := range s.rings {
		if ring != nil && ring.Len() > 0 {
			t.takeOver(ring)
		}
	}
	now := o.now()
	for range mostQueues {
		id, ok := s.wheel.Next(now)
		if !ok {
			break
		}
		if q := s.all[id]; q != nil {
			t.serve(q)
		}
	}
	s.pool.Keep()
}

// keepUp brings the queues in line with the view.
func (t *turn) keepUp() {
	if t.out.queues == nil {
		t.out.queues = newQueues(t.net, t.out.worker)
	}
	if t.out.queues.gen != t.view.gen {
		t.reconcile()
	}
}

func newQueues(n *Netstack, w *worker) *queues {
	s := &queues{pool: qdisc.NewPool(qdisc.Limits{}), all: map[uint32]*queue{}, seed: uint64(n.start.UnixNano())}
	s.rings = make([]*qdisc.Handover, len(n.workers))
	for i := range s.rings {
		s.rings[i] = n.rings.to(w.id, i)
	}
	return s
}

// now is the time of the round, as queues have it.
func (o *output) now() int64 { return int64(o.clock.time()) }

// serve lets the frames of a queue go whose time has come.
func (t *turn) serve(q *queue) {
	switch {
	case q.dir == ingress:
		t.carryOn(q)
	case q.link != nil:
		t.setOut(q)
	default:
		t.out.drain(t.view, q)
	}
}

// reconcile makes the queues those of the view. What comes out of one that ends may be for
// any other: so those of ports that are gone end first, and those that are alive last.
// Allocates: once for each snapshot.
func (t *turn) reconcile() {
	s := t.out.queues
	s.gen = t.view.gen
	t.part()
	for _, q := range s.all {
		if !q.shared() && !q.of(t.view.port(q.port)) {
			t.dissolve(q)
		}
	}
	for _, p := range t.view.ports {
		if p == nil || p.worker() != t.out.worker {
			continue
		}
		for dir, spec := range p.queues {
			if spec != nil {
				t.adopt(p, dir, spec)
			}
		}
	}
	t.regroup()
	for _, q := range s.all {
		if !q.shared() && t.view.port(q.port).queues[q.dir] == nil {
			t.freeUp(q)
			t.dissolve(q)
		}
	}
}

// adopt gives a port a queue, or its queue another spec.
func (t *turn) adopt(p *port, dir int, spec *qdisc.Spec) {
	s := t.out.queues
	q := &queue{port: p.index, dir: dir, sock: p.sock, link: p.link, counters: p.counters}
	if old := s.all[q.id()]; old != nil {
		q = old
	}
	if q.spec != nil && reflect.DeepEqual(q.spec, spec) {
		return
	}
	if q.tree == nil {
		q.tree = qdisc.NewTree(s.pool, s.seed+uint64(q.id()))
		s.all[q.id()] = q
	}
	q.spec = spec
	if err := q.tree.Apply(spec, t.out.now()); err != nil {
		return // Snapshot.Validate has seen that it is possible
	}
	s.wheel.Set(q.top().id(), 0) // served in this round, and not before it is in its tree
}

// count adds what the queue dropped to its port's counters.
func (s *queues) count(q *queue) {
	if q.shared() {
		return // what it drops the ports' have dropped
	}
	q.tree.TakeDrops(&s.drops)
	for r, n := range s.drops {
		if n > 0 {
			q.counters.Drop(trace.Reason(r), n)
			s.drops[r] = 0
		}
	}
}

// mostSlack is how far apart a worker is woken for a queue that can wait.
const mostSlack = 250_000 // ns

// schedule says to the wheel when the queue is to be served next.
func (s *queues) schedule(q *queue, now int64) {
	if q.tree.Len() > 0 {
		s.wheel.Set(q.id(), max(q.tree.NextTime(now), now+min(q.tree.Slack(), mostSlack)))
	} else {
		s.wheel.Clear(q.id())
	}
	s.count(q)
}

// toQueue puts the list that begins at record r into the port's queue, or hands it
// over to the worker whose port it is.
func (o *output) toQueue(v *view, p *port, frames []packet.Frame, r uint16) {
	q := o.queues.all[queueID(p.index, egress)]
	for ; r != 0; r = o.records[r].next {
		f, tag := o.frame(r, frames)
		o.offer(p, q, f, tag)
	}
	if q != nil && p.sock.worker == o.worker {
		o.queues.count(q)
		o.drain(v, q.top())
	}
}

// offer puts a frame into the queue of a port, q if that is this worker's.
func (o *output) offer(p *port, q *queue, f *packet.Frame, tag bridge.Tag) {
	m := qdisc.MetaOf(f, o.queues.seed)
	m.Port, m.User = p.index, packTag(tag)
	switch {
	case p.sock.worker != o.worker:
		o.handOver(p, f, m)
	case q != nil:
		q.tree.Enqueue(f, m, o.now())
	default:
		drop(p, trace.QdiscRemoved, int(m.Segs))
	}
}

// lone sends a frame that is on no list, and whose buffer is about to be used again.
// Preconditions: the send list is empty. The buffers for segments may be in use, so that a
// queue is served later, in the next round.
func (o *output) lone(p *port, f *packet.Frame, tag bridge.Tag) {
	if p.queues[egress] == nil || o.queues == nil {
		o.appendAs(p, f, tag)
		o.push(p)
		return
	}
	if f.View.Parse(f.Bytes()) != packet.FaultNone {
		f.View = packet.View{} // it is of no class in particular
	}
	q := o.queues.all[queueID(p.index, egress)]
	o.offer(p, q, f, tag)
	o.queues.pool.Keep()
	if q != nil && p.sock.worker == o.worker {
		o.queues.count(q)
		o.queues.wheel.Set(q.top().id(), 0)
	}
}

// packTag is a Tag as a number.
func packTag(t bridge.Tag) uint64 {
	return uint64(t.Op)<<32 | uint64(t.TPID)<<16 | uint64(t.TCI)
}

func unpackTag(x uint64) bridge.Tag {
	return bridge.Tag{Op: bridge.TagOp(x >> 32), TPID: uint16(x >> 16), TCI: uint16(x)}
}

// handOver gives a frame to the worker of port p.
func (o *output) handOver(p *port, f *packet.Frame, m qdisc.Meta) {
	w := p.worker()
	first, ok := w.net.rings.to(w.id, o.worker.id).Push(f, m)
	if !ok {
		drop(p, trace.QdiscFull, int(m.Segs))
	}
	if first {
		w.mail.poke()
	}
}

// takeOver puts what another worker handed over into queues. It did so for this view:
// the rings are empty when there is another.
func (t *turn) takeOver(ring *qdisc.Handover) {
	o, v := &t.out, t.view
	s := o.queues
	n := min(ring.Len(), mostHanded)
	for i := range n {
		f, m := ring.Frame(i)
		p, q := v.port(m.Port), s.all[queueID(m.Port, egress)]
		switch {
		case q != nil && q.of(p):
			q.tree.Enqueue(f, m, o.now())
			s.count(q)
			s.wheel.Set(q.top().id(), 0) // served in this round
		case p != nil:
			drop(p, trace.QdiscRemoved, int(m.Segs)) // never
		}
	}
	s.pool.Keep()
	ring.Release(n)
	if ring.Len() > 0 {
		o.worker.mail.poked.Store(true)
	}
}

// drain sends what the queue lets go, which may be frames of several ports.
func (o *output) drain(v *view, q *queue) {
	s, now := o.queues, o.now()
	for n := budget; n == budget; {
		var at *port
		for n = 0; n < budget; n++ {
			r := q.tree.Dequeue(now)
			if r == 0 {
				break
			}
			s.refs[n] = r
			at = o.leave(v, r, &s.frames[n], at)
		}
		if at != nil {
			o.push(at)
		}
		for _, r := range s.refs[:n] {
			q.tree.Done(r)
		}
	}
	s.schedule(q, now)
}

// leave puts a packet on the send list, which is sent first if it is another port's, and
// returns whose it is then.
func (o *output) leave(v *view, r qdisc.Ref, f *packet.Frame, at *port) *port {
	pool := o.queues.pool
	m := pool.Meta(r)
	p := v.port(m.Port)
	if p == nil || p.sock == nil {
		return at // never: what waits for a port goes with it
	}
	if p != at && at != nil {
		o.push(at)
	}
	tag := unpackTag(m.User)
	if !pool.Load(r, f) {
		f = pool.Frame(r)
	}
	o.depart(p, f, tag)
	return p
}

// enqueue puts what came from port p into its ingress queue, and carries on what that
// lets go.
func (t *turn) enqueue(p *port, frames []packet.Frame) {
	s := t.out.queues
	var q *queue
	if s != nil {
		q = s.all[queueID(p.index, ingress)]
	}
	if q == nil { // a port that this round's view has only now: next round
		t.carry(p, frames)
		p.sock.debt += t.tally.work
		return
	}
	for i := range frames {
		f := &frames[i]
		f.InPort = p.index
		if reason := inspect(f); reason != trace.None {
			drop(p, reason, 1)
			continue
		}
		m := qdisc.MetaOf(f, s.seed)
		m.Port = p.index
		q.tree.Enqueue(f, m, t.out.now())
	}
	s.count(q)
	t.carryOn(q.top())
	s.pool.Keep()
}

// carryOn carries what the ingress queue lets go.
func (t *turn) carryOn(q *queue) { t.letGo(q, t.carryEach) }

// letGo takes out of a queue what may leave now, for carry, a budget of frames at a time.
func (t *turn) letGo(q *queue, carry func([]packet.Frame)) {
	s, now := t.out.queues, t.out.now()
	in := &s.in
	for n := budget; n == budget; {
		kept := 0
		for n = 0; n < budget; n++ {
			r, ok := q.tree.Take(now, &in.frames[n])
			if !ok {
				break
			}
			if r != 0 {
				in.refs[kept] = r
				kept++
			}
		}
		carry(in.frames[:n])
		for _, r := range in.refs[:kept] {
			q.tree.Done(r)
		}
	}
	s.schedule(q, now)
}

// carryEach carries frames of several ports, each as of the port that it came by, which
// has the work on its account.
func (t *turn) carryEach(frames []packet.Frame) {
	for len(frames) > 0 {
		index, n := frames[0].InPort, 1
		for n < len(frames) && frames[n].InPort == index {
			n++
		}
		if p := t.view.port(index); p != nil && p.sock != nil {
			t.carry(p, frames[:n])
			p.sock.debt += t.tally.work
		}
		frames = frames[n:]
	}
}

// held is frames that come out of an ingress queue.
type held struct {
	frames [budget]packet.Frame
	refs   [budget]qdisc.Ref
}

// errNoQueue is for a port, or a direction of it, without a queueing discipline.
var errNoQueue = errors.New("no queueing discipline")

// Queue is the state of the disciplines and of the filters of one direction of a
// port.
func (n *Netstack) Queue(port uint16, in bool) ([]qdisc.Report, []qdisc.FilterReport, error) {
	v := n.view.Load()
	p := v.port(port)
	if p == nil {
		return nil, nil, fmt.Errorf("port %d: %w", port, errNoQueue)
	}
	dir := egress
	if in {
		dir = ingress
	}
	w := p.worker()
	w.catchUp(v)
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.turn.out.queues
	if s == nil || s.all[queueID(port, dir)] == nil || dir == egress && p.released {
		return nil, nil, fmt.Errorf("port %d: %w", port, errNoQueue)
	}
	q := s.all[queueID(port, dir)]
	return q.tree.Report(w.turn.out.now()), q.tree.Filters(), nil
}

// catchUp waits until the worker's queues are those of a view, but not for ever: who
// asks after a change is to see it.
func (w *worker) catchUp(v *view) {
	for range 100 {
		w.mu.Lock()
		behind := v.queued && (w.turn.out.queues == nil || w.turn.out.queues.gen < v.gen)
		w.mu.Unlock()
		if !behind {
			return
		}
		w.mail.poke()
		time.Sleep(200 * time.Microsecond)
	}
}
