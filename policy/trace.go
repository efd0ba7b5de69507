// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"sluice/packet"
	"sluice/policy/nft"
)

// maxLogs is how many log statements of one packet are kept.
const maxLogs = 8

// LogEntry is a log statement that a packet reached.
type LogEntry struct {
	Log *nft.Log
	Why Evidence
}

// Logs are the log statements that the packet since Begin, or ForgetLogs, has reached, in
// their order. The slice is good until the next one; of more than eight the first count.
func (e *Evaluator) Logs() []LogEntry { return e.logs[:e.nlogs] }

// ForgetLogs lets Logs begin anew.
func (e *Evaluator) ForgetLogs() { e.nlogs = 0 }

// log is the log statement.
func (e *Evaluator) log(c *code, in *inst) {
	e.rec.Volatile |= ByLog
	e.p.Logs = true
	if e.nlogs < maxLogs {
		e.logs[e.nlogs] = LogEntry{c.logs[in.arg], Evidence{c.table, c.chain, c.ruleAt(uint32(in.imm))}}
		e.nlogs++
	}
}

// TraceKind is what an event of a trace tells.
type TraceKind uint8

// The kinds.
const (
	TracePacket TraceKind = iota // the packet as it comes to a base chain
	TraceRule                    // a rule that matched
	TracePolicy                  // the end of a base chain
)

// TraceEvent is one event of a packet's way through the rules.
type TraceEvent struct {
	Kind    TraceKind
	ID      uint32 // ties the events of a packet together
	Hook    nft.Hook
	Why     Evidence
	Verdict nft.VerdictKind
	Target  string // of jump and goto
	Mark    uint32
	In, Out *Device
	Frame   []byte // of TracePacket: the first bytes, a copy
	View    packet.View
}

// traceBytes is how much of a frame is kept.
const traceBytes = 256

// Tracer takes the events of packets with nftrace. It is called on the packet's
// way: what it does for others it does later. nil takes none.
type Tracer struct {
	Take func(*TraceEvent)
	// Admit is asked once for each packet that is traced; nil: all are told of.
	Admit func(now int64) bool

	next   uint32
	hook   nft.Hook
	told   bool // of the packet in this base chain
	known  bool // whether the packet is told of
	silent bool // it isn't
}

// wants reports whether the packet is told of.
func (e *Evaluator) wants() bool {
	t := e.traces
	if t == nil {
		return false
	}
	if !t.known {
		t.known = true
		t.silent = t.Admit != nil && !t.Admit(e.p.Now)
	}
	return !t.silent
}

func (t *Tracer) at(hook nft.Hook) {
	if t != nil {
		t.hook = hook
	}
}

// begin begins a base chain.
func (t *Tracer) begin() {
	if t != nil {
		t.told = false
	}
}

// SetTracer gives the evaluator somebody who takes traces.
func (e *Evaluator) SetTracer(take func(*TraceEvent)) { e.traces = &Tracer{Take: take} }

// LimitTraces lets only packets be told of that admit lets, and lets their numbers
// begin at one.
func (e *Evaluator) LimitTraces(first uint32, admit func(now int64) bool) {
	e.traces.next, e.traces.Admit = first, admit
}

// NextTrace begins the trace of another packet.
func (e *Evaluator) NextTrace() {
	if t := e.traces; t != nil {
		t.next++
		t.known, t.silent = false, false
	}
}

// SkipTrace is NextTrace for a packet that nobody wants to hear of.
func (e *Evaluator) SkipTrace() {
	if t := e.traces; t != nil {
		t.known, t.silent = true, true
	}
}

// tell tells of the packet, once for each base chain: before what becomes of it there.
func (e *Evaluator) tell(c *code) {
	if e.traces.told {
		return
	}
	e.traces.told = true
	b := e.p.Frame.Bytes()
	ev := e.event(TracePacket, Evidence{Table: c.table, Chain: c.chain})
	ev.Frame = append([]byte(nil), b[:min(len(b), traceBytes)]...)
	ev.View = e.p.Frame.View
	e.traces.Take(ev)
}

func (e *Evaluator) event(kind TraceKind, why Evidence) *TraceEvent {
	return &TraceEvent{
		Kind: kind, ID: e.traces.next, Hook: e.traces.hook, Why: why,
		Mark: e.p.Mark, In: e.p.In, Out: e.p.Out,
	}
}

// traceRule tells of a rule that matched.
func (e *Evaluator) traceRule(c *code, pc uint32, v verdict) {
	e.rec.Volatile |= ByTrace
	if !e.wants() {
		return
	}
	e.tell(c)
	ev := e.event(TraceRule, Evidence{c.table, c.chain, c.ruleAt(pc)})
	ev.Verdict = v.kind
	if v.to != nil {
		ev.Target = v.to.name
	}
	e.traces.Take(ev)
}

// tracePolicy tells of the end of a base chain.
func (e *Evaluator) tracePolicy(c *code) {
	if !e.wants() {
		return
	}
	e.tell(c)
	ev := e.event(TracePolicy, Evidence{Table: c.table, Chain: c.chain})
	if ev.Verdict = nft.Accept; c.chain.Drop {
		ev.Verdict = nft.Drop
	}
	e.traces.Take(ev)
}
