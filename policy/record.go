// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"sluice/conntrack"
)

// Volatile says what a verdict rested upon that the next packet of the flow may
// have otherwise: nothing may be remembered then.
type Volatile uint32

// The bits.
const (
	ByPayload Volatile = 1 << iota // bytes that are not in the flow's key
	ByLength
	ByLimit
	ByQuota
	ByConnCount
	ByRandom // or a count
	ByTime
	ByCPU
	BySocket
	ByAccounting // ct bytes, packets, expiration…
	BySet        // a packet changed a set
	ByLog        // each packet is logged
	ByReject     // each sender is told
	ByTrace
	ByRewrite // bytes that were computed from what isn't in the flow's key
	ByTooMuch // more actions than MaxActions
	ByFirst   // what only a connection's first packet has, since a chain of type nat gave it that
)

// Record is what the evaluation of one packet leaves for its flow: whether the next
// packet needs no evaluation, and what has to be done for it nevertheless. It is
// filled in over all hooks that the packet passes, see Evaluator.Begin.
type Record struct {
	Volatile Volatile
	Routes   bool // the routes were asked: it is good as long as they are as they are
	actions  []Action
	more     []*state // counters that would be actions; only behind Few of those
	sum      uint64   // of their marks
	first    []Action // what once has put aside
	asked    uint8    // of the kinds from actState on: answers are those that were recorded last
	answers  [actLabel - actState + 1]value
}

// once puts the actions from a place on aside, which the flow's next packet knows nothing
// of: unless this one isn't as that any more.
func (r *Record) once(m Mark) {
	changes := func(a Action) bool { return a.kind >= actSetMark }
	if r.Volatile != 0 || slices.ContainsFunc(r.actions[m.Actions:], changes) {
		r.Volatile |= ByFirst
		return
	}
	r.first = append(r.first, r.actions[m.Actions:]...)
	for _, s := range r.more[m.more:] {
		r.first = append(r.first, Action{kind: actCount, state: s, own: true})
	}
	r.actions, r.more, r.sum, r.asked = r.actions[:m.Actions], r.more[:m.more], m.sum, 0
}

// EachIsFirst takes up what the chains of type nat have done, too: no packet of the flow
// comes through, so that the next one is a connection's first packet again.
func (r *Record) EachIsFirst() {
	for i := range r.first {
		if a := &r.first[i]; a.waits() {
			r.count(a.state)
		} else {
			r.add(*a)
		}
	}
	r.first = r.first[:0]
}

// Reset makes the record empty.
func (r *Record) Reset() {
	r.Volatile, r.Routes, r.actions, r.more, r.asked = 0, false, r.actions[:0], r.more[:0], 0
	r.sum, r.first = 0, r.first[:0]
}

// Cacheable reports whether the flow's next packet may be treated as this one was,
// with Hold and Replay.
func (r *Record) Cacheable() bool { return r.Volatile == 0 }

// Actions are what Replay is to do, if there are but Few: otherwise they are what
// Evaluator.Path has. They are the caller's to copy; the slice is good until the record
// changes.
func (r *Record) Actions() []Action { return r.actions }

// Writes reports whether one of them writes into the packet.
func (r *Record) Writes() bool {
	return slices.ContainsFunc(r.Actions(), func(a Action) bool { return a.kind == actWrite })
}

// Len is how many actions were recorded up to now.
func (r *Record) Len() int { return len(r.actions) + len(r.more) }

// Mark is a place in a Record: Actions are before it in the slice, if there are but Few.
type Mark struct {
	Actions, more int
	sum           uint64
}

// Mark is the end of what was recorded up to now.
func (r *Record) Mark() Mark { return Mark{len(r.actions), len(r.more), r.sum} }

func (r *Record) add(a Action) {
	if r.Volatile != 0 {
		return // it is of no use any more
	}
	if r.Len() == MaxActions {
		r.Volatile |= ByTooMuch
		return
	}
	r.actions = append(r.actions, a)
}

// count adds a counter of a rule, or of an object.
func (r *Record) count(s *state) {
	if len(r.actions) < Few || r.Volatile != 0 || r.Len() == MaxActions {
		r.add(Action{kind: actCount, state: s, own: true})
		return
	}
	r.more = append(r.more, s)
	r.sum = mixMark(r.sum, s.mark)
}

type actionKind uint8

const (
	actCount   actionKind = iota // a counter, or last
	actLives                     // the element is still there
	actMissing                   // packets added nothing to the set
	actRefresh                   // the element's time begins anew
	actState                     // the packet's ct state is still the same
	actCTMark                    // so is the connection's mark
	actStatus                    // and its status
	actLabel
	actSetCTMark
	actSetLabel
	actSetMark // from here on the packet itself is changed
	actSetPriority
	actSetPktType
	actWrite // bytes of the packet
)

// Action is one thing that is done, or asked, for each packet of a flow.
type Action struct {
	kind  actionKind
	width uint8 // bytes that are written
	base  uint8
	sums  uint8 // which checksums follow
	own   bool  // the counter is a rule's or an object's, and no element's
	life  uint32
	off   int32
	state *state
	elem  *elem
	set   *set
	v     value
}

// Hold reports whether all that the verdict rested upon is as it was. If not, the
// flow's next packet is to be evaluated. The caller has pinned the evaluator that
// recorded the actions, and Packet says all that it said then.
func Hold(actions []Action, p *Packet) bool {
	for i := range actions {
		if a := &actions[i]; a.kind >= actLives && a.kind <= actLabel && !a.holds(p) {
			return false
		}
	}
	return true
}

// Replay does for another packet of a flow what the evaluation of the first did,
// after Hold. n packets are counted, with that many bytes in all. What is done
// before and after the packet is routed, or translated, are parts of the actions,
// for which Record.Mark is to be asked in between.
func Replay(actions []Action, p *Packet, n, bytes uint64) {
	for i := range actions {
		actions[i].do(p, n, bytes)
	}
}

// holds reports whether what was found then is still so.
func (a *Action) holds(p *Packet) bool {
	switch a.kind {
	case actLives, actRefresh:
		return a.elem.life.Load() == a.life && !a.elem.over(p.Now)
	case actMissing:
		return a.set.changes.Load() == a.v.lo
	case actState:
		return uint64(stateBit(p)) == a.v.lo
	case actCTMark:
		return uint64(ctMark(p)) == a.v.lo
	case actStatus:
		return uint64(ctStatus(p)) == a.v.lo
	case actLabel:
		return ctLabel(p) == a.v
	default:
	}
	return true
}

// do does what is to be done for each packet.
func (a *Action) do(p *Packet, n, bytes uint64) {
	switch a.kind {
	case actCount:
		if a.state.Kind == CounterState {
			a.state.count(n, bytes)
		} else {
			a.state.a.Store(p.Now)
		}
	case actRefresh:
		a.elem.expires.Store(p.Now + int64(a.v.lo))
	case actSetCTMark:
		setCTMark(p, uint32(a.v.lo))
	case actSetLabel:
		setCTLabel(p, a.v)
	case actSetMark:
		p.Mark = uint32(a.v.lo)
	case actSetPriority:
		p.Priority = uint32(a.v.lo)
	case actSetPktType:
		p.PktType = uint8(a.v.lo)
	case actWrite:
		write(p, a)
	default:
	}
}

// The bits of ct state in nft(8).
const (
	ctInvalid     = 1
	ctEstablished = 2
	ctRelated     = 4
	ctNew         = 8
	ctUntracked   = 64
)

// stateBit is the packet's ct state. What conntrack has not seen has none but
// "invalid", as for the kernel.
func stateBit(p *Packet) uint32 {
	if p.NoTrack {
		return ctUntracked
	}
	if !p.Tracked {
		return ctInvalid
	}
	switch p.State {
	case conntrack.New:
		return ctNew
	case conntrack.Established:
		return ctEstablished
	case conntrack.Related:
		return ctRelated
	case conntrack.Untracked:
		return ctUntracked
	case conntrack.Invalid, conntrack.Gone:
	}
	return ctInvalid
}

func pending(p *Packet) bool { return p.Pending != nil && p.Pending.Active() }

// connected reports whether the packet is of a connection.
func connected(p *Packet) bool { return p.Conn != (conntrack.Conn{}) || pending(p) }

func ctMark(p *Packet) uint32 {
	if pending(p) {
		return p.Pending.Mark
	}
	return p.Conn.Mark()
}

func setCTMark(p *Packet, m uint32) {
	if pending(p) {
		p.Pending.Mark = m
		return
	}
	p.Conn.SetMark(m)
}

func ctLabel(p *Packet) value {
	if pending(p) {
		return number(p.Pending.Label[:])
	}
	l := p.Conn.Label()
	return number(l[:])
}

func setCTLabel(p *Packet, v value) {
	var l conntrack.Label
	v.put(l[:])
	if pending(p) {
		p.Pending.Label = l
		return
	}
	p.Conn.SetLabel(l)
}

func ctStatus(p *Packet) conntrack.Status {
	if pending(p) {
		return p.Pending.Status
	}
	return p.Conn.Status()
}
