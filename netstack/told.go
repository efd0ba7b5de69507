// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sync"
	"sync/atomic"
	"time"

	"sluice/policy"
	"sluice/policy/nft"
)

// Theory of operation.
//
// Rulesets tell things: a log statement of a packet, and `meta nftrace` of its way. Both
// wait in bounded rings until they are asked for, as what they are; who asks makes text
// of them. Each namespace has a rate of its own, and what is beyond it is counted and
// lost. A log line costs a copy; a trace is made only while somebody listens.

// Bounds.
const (
	maxLogLines = 256 // of all namespaces, that wait
	logRate     = 100 // lines a second of one namespace, in the long run
	logBurst    = 128
	maxTraces   = 1024 // events of one namespace that wait
	traceRate   = 50   // packets a second of one namespace
	traceBurst  = 50
	// maxTraceLine is how much of a line is told: a rule may have a set of any length.
	maxTraceLine = 8192
	// listening is how long a namespace's traces are made after they were asked for.
	listening = 5 * time.Second
)

// RuleLog is a line of a log statement.
type RuleLog struct {
	Namespace string    `json:"namespace"`
	Port      uint16    `json:"port,omitempty"` // whose ruleset it was; 0: the namespace's
	Time      time.Time `json:"time"`
	// Level is that of the statement in nft's words, Group its number if it has one.
	Level string `json:"level"`
	Group *int   `json:"group,omitempty"`
	Text  string `json:"text"`
	// Table, Chain and Handle say which rule it was.
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	Handle uint64 `json:"handle"`
}

// bucket of tokens, at some rate a second.
type allowance struct {
	mu sync.Mutex
	// +checklocks:mu
	used int64 // nanoseconds of the time at which all tokens are there again
}

// take reports whether one more may come now.
func (a *allowance) take(now, rate, burst int64) bool {
	each := int64(time.Second) / rate
	a.mu.Lock()
	defer a.mu.Unlock()
	next := max(a.used, now) + each
	if next-now > each*burst {
		return false
	}
	a.used = next
	return true
}

// told is what the rulesets of one namespace and its ports tell. It lives as long as the
// namespace.
type told struct {
	space string
	logs  allowance
	ways  allowance    // of packets that are traced
	until atomic.Int64 // traces are made; nanoseconds since the start

	mu sync.Mutex
	// +checklocks:mu
	traces []traced
	// +checklocks:mu
	lost uint64
}

// traced is an event of a trace, and the port whose ruleset it is of; 0: the namespace's.
type traced struct {
	*policy.TraceEvent
	port uint16
}

// RuleTrace is a line of a trace.
type RuleTrace struct {
	// Port is whose ruleset it was; 0: the namespace's.
	Port uint16
	Text string
}

// admit lets a packet be traced.
func (t *told) admit(now int64) bool {
	if t.ways.take(now, traceRate, traceBurst) {
		return true
	}
	t.mu.Lock()
	t.lost++
	t.mu.Unlock()
	return false
}

// take keeps an event of a trace.
func (t *told) take(e traced) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.traces) == maxTraces {
		t.lost++
		return
	}
	t.traces = append(t.traces, e)
}

// logged are the lines of all namespaces.
type logged struct {
	bell signal      // there are some
	rung atomic.Bool // since they were taken

	mu sync.Mutex
	// +checklocks:mu
	lines []logLine // nil before the first
	// +checklocks:mu
	first, n int
	// +checklocks:mu
	suppressed uint64
}

// logLine is one that waits.
type logLine struct {
	policy.LogLine
	why   policy.Evidence
	space string
	port  uint16
	wall  int64
	frame [policy.LogBytes]byte
}

// add keeps the line of a log statement.
func (l *logged) add(r *rules, p *policy.Packet, e *policy.LogEntry) {
	admitted := r.told.logs.take(p.Now, logRate, logBurst)
	l.mu.Lock()
	if admitted && l.n < maxLogLines {
		l.fill(r, p, e)
	} else {
		l.suppressed++
	}
	l.mu.Unlock()
	if !l.rung.Swap(true) {
		l.bell.tell()
	}
}

// fill writes the next line.
//
// +checklocks:l.mu
func (l *logged) fill(r *rules, p *policy.Packet, e *policy.LogEntry) {
	if l.lines == nil {
		l.lines = make([]logLine, maxLogLines)
	}
	at := &l.lines[(l.first+l.n)%maxLogLines]
	l.n++
	at.LogLine = policy.LogLine{Log: e.Log, In: p.In, Out: p.Out, Mark: p.Mark, View: p.Frame.View}
	at.why, at.space, at.port, at.wall = e.Why, r.told.space, r.port, p.Wall
	at.Frame = at.frame[:copy(at.frame[:], p.Frame.Bytes())]
}

// tell keeps what log statements at the last hook said of the packet. Then they are
// forgotten: the hooks of frames and those of IP have one evaluator.
func (t *turn) tell(r *rules, p *policy.Packet) {
	e := t.evaluator(r)
	logs := e.Logs()
	for i := range logs {
		t.net.logged.add(r, p, &logs[i])
	}
	e.ForgetLogs()
}

// tracks begins the trace of the frame at hand, when a ruleset first sees it.
func (t *turn) tracks(r *rules, now int64) {
	e := &r.evals[t.worker]
	if e.seen == t.examined {
		return
	}
	if e.seen = t.examined; r.told.until.Load() > now {
		e.NextTrace()
	} else {
		e.SkipTrace()
	}
}

// RuleLogs takes the lines of log statements that wait, the oldest first, and says how
// many were too many. Options.RuleLogged is called when there are some again.
func (n *Netstack) RuleLogs() (lines []RuleLog, suppressed uint64) {
	l := &n.logged
	l.rung.Store(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	lines = make([]RuleLog, 0, l.n)
	for ; l.n > 0; l.n-- {
		lines = append(lines, l.lines[l.first].public())
		l.lines[l.first] = logLine{}
		l.first = (l.first + 1) % maxLogLines
	}
	suppressed, l.suppressed = l.suppressed, 0
	return lines, suppressed
}

func (l *logLine) public() RuleLog {
	r := RuleLog{Namespace: l.space, Port: l.port, Time: time.Unix(0, l.wall).UTC(), Level: l.Log.Level, Text: l.Text()}
	if r.Level == "" {
		r.Level = "warn"
	}
	if l.Log.HasGroup {
		group := int(l.Log.Group)
		r.Group = &group
	}
	if w := &l.why; w.Table != nil {
		r.Table = w.Table.Family.String() + " " + w.Table.Name
	}
	if l.why.Chain != nil {
		r.Chain = l.why.Chain.Name
	}
	if l.why.Rule != nil {
		r.Handle = l.why.Rule.Handle
	}
	return r
}

// RuleTraces takes the lines of `nft monitor trace` that wait, and says how many packets
// and events were too many. The first call begins to listen; without others that ends.
func (ns *Namespace) RuleTraces(o *nft.ListOptions) (lines []RuleTrace, lost uint64) {
	s := ns.space()
	if s == nil {
		return nil, 0
	}
	t := s.told
	t.until.Store(int64(ns.net.elapsed() + listening))
	t.mu.Lock()
	events := t.traces
	t.traces, lost, t.lost = nil, t.lost, 0
	t.mu.Unlock()
	for _, e := range events {
		line := policy.TraceText(e.TraceEvent, o)
		if len(line) > maxTraceLine {
			line = line[:maxTraceLine] + "…"
		}
		lines = append(lines, RuleTrace{e.port, line})
	}
	return lines, lost
}
