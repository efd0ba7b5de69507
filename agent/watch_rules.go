// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/api"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/policy/nft"
)

// Bounds of what is kept for those who listen to rulesets.
const (
	monitorRing = 4096 // events of transactions
	ruleLogRing = 1024 // lines of log statements
	traceRing   = 4096 // lines of traces
	// ruleLogEvery is how long a line may wait for others that are asked for with it.
	ruleLogEvery = 100 * time.Millisecond
)

// ring is what happened last, numbered from 1 on.
type ring[T any] struct {
	all  []T
	next uint64
}

// add keeps one more, and most in all.
func (r *ring[T]) add(most int, x ...T) {
	r.next = max(r.next, 1) + uint64(len(x))
	r.all = append(r.all, x...)
	if n := len(r.all) - most; n > 0 {
		r.all = slices.Clone(r.all[n:])
	}
}

// skip counts what was lost as if it had been there.
func (r *ring[T]) skip(n uint64) {
	r.all, r.next = nil, max(r.next, 1)+min(n, 1<<32)
}

// since are those from a number on, how many of them are lost, and the number to ask
// with the next time. From 0 on there are none.
func (r *ring[T]) since(after uint64) (all []T, lost, next uint64) {
	next = max(r.next, 1)
	if after == 0 || after > next {
		return nil, 0, next
	}
	first := next - uint64(len(r.all))
	if after < first {
		lost, after = first-after, first
	}
	return r.all[after-first:], lost, next
}

// committedEvent is a line of nft monitor: of a change, or the end of a transaction.
type committedEvent struct {
	ruleset string      // its key
	change  *nft.Change // nil: the end
	text    string
}

// ruleWatch is what was heard of rulesets last, for any number of listeners. Its zero
// value is ready.
type ruleWatch struct {
	mu sync.Mutex
	// +checklocks:mu
	commits ring[committedEvent]
	// +checklocks:mu
	listened time.Time // for commits
	// +checklocks:mu
	logs ring[netstack.RuleLog]
}

// traceWatch is what was told of packets with nftrace, by namespace. Its zero value is
// ready.
type traceWatch struct {
	mu sync.Mutex // also while the dataplane is asked
	// +checklocks:mu
	spaces map[string]*tracing
}

// tracing is what was told of the packets of one namespace, by whose ruleset.
type tracing struct {
	ring   ring[tracedLine]
	polled time.Time
}

type tracedLine struct {
	port uint16 // 0: the namespace's
	text string
}

// committed tells who waits for it that a ruleset has changed.
func (a *Agent) committed(done *edit) {
	select {
	case a.confirming <- struct{}{}:
	default:
	}
	w := &a.ruleWatch
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.listened) > watchIdle {
		w.commits.all = nil
		return
	}
	for i := range done.Changes {
		w.commits.add(monitorRing, committedEvent{ruleset: done.ruleset, change: &done.Changes[i]})
	}
	end := fmt.Sprintf("# new generation %d", done.number)
	if done.number == 0 {
		end = "# new ruleset of the network's ports"
	}
	w.commits.add(monitorRing, committedEvent{ruleset: done.ruleset, text: end})
}

// nftEvents is nft monitor, a second of it. The words are those behind it, and options.
func (a *Agent) nftEvents(ctx context.Context, q query) (*api.NFTEvents, error) {
	o, words, asJSON := monitorWords(q.words)
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	x, err := st.ruled(q.namespace, q.port)
	if err != nil {
		return nil, err
	}
	one := strings.Join(words, " ")
	if one != "trace" && one != "log" && !nft.Monitored(words) {
		return nil, refuse(api.CodeInvalid, "words", "want new or destroy, and one of tables, chains, sets, rules, elements, objects, ruleset; or trace")
	}
	collect := func(out *api.NFTEvents) error {
		switch one {
		case "trace":
			return a.traced(ctx, x, o, out)
		case "log":
			a.ruleWatch.logged(x, out)
		default:
			a.ruleWatch.monitored(x.heard(), words, o, asJSON, out)
		}
		return nil
	}
	return collected(ctx, q.after, collect)
}

// collected waits about a second for lines.
func collected(ctx context.Context, after uint64, collect func(*api.NFTEvents) error) (*api.NFTEvents, error) {
	out := &api.NFTEvents{Next: after, Lines: []string{}}
	for end := time.Now().Add(watchWait); ; pause(ctx, watchEvery) {
		if err := collect(out); err != nil {
			return nil, err
		}
		told := after == 0 || len(out.Lines) > 0 || out.Lost > 0
		if told || time.Now().After(end) || errors.Is(ctx.Err(), context.Canceled) {
			return out, nil
		}
	}
}

// monitorWords takes options out of words.
func monitorWords(all []string) (o *nft.ListOptions, words []string, asJSON bool) {
	o = new(nft.ListOptions)
	of := map[string]*bool{"-a": &o.Handles, "-j": &asJSON, "-n": &o.Numeric, "-y": &o.NumericPrio, "-p": &o.NumericProto, "-T": &o.NumericTime, "-S": &o.Services, "-s": &o.Stateless, "-t": &o.Terse}
	for _, w := range all {
		if of[w] != nil {
			*of[w] = true
		} else {
			words = append(words, w)
		}
	}
	return o, words, asJSON
}

// monitored adds what transactions have changed since, of rulesets by their keys.
func (w *ruleWatch) monitored(rulesets, words []string, o *nft.ListOptions, asJSON bool, out *api.NFTEvents) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listened = time.Now()
	var all []committedEvent
	all, out.Lost, out.Next = w.commits.since(out.Next)
	for i := range all {
		e := &all[i]
		switch {
		case !slices.Contains(rulesets, e.ruleset):
		case e.change != nil:
			for _, x := range e.change.Events(o) {
				if line := x.Text; x.Wanted(words) {
					if asJSON {
						line = x.JSON
					}
					out.Lines = append(out.Lines, api.Printable(line))
				}
			}
		case !asJSON && len(words) == 0:
			out.Lines = append(out.Lines, e.text)
		}
	}
}

// logged adds what log statements have said since: those of a port, or for the
// namespace all of its.
func (w *ruleWatch) logged(x *ruled, out *api.NFTEvents) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []netstack.RuleLog
	all, out.Lost, out.Next = w.logs.since(out.Next)
	for i := range all {
		if l := &all[i]; l.Namespace == x.space && x.tells(l.Port) {
			out.Lines = append(out.Lines, l.Time.Format("2006-01-02T15:04:05.000000Z")+" "+ruleLogText(l))
		}
	}
}

// ruleLogText is a line with what it has in front: its level, or its group.
func ruleLogText(l *netstack.RuleLog) string {
	what := word(l.Level, logLevels())
	if l.Group != nil {
		what = fmt.Sprintf("group %d", *l.Group)
	}
	return what + ": " + api.Printable(l.Text)
}

func logLevels() []string {
	return []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"}
}

// traced adds what was told of packets since, as logged does.
func (a *Agent) traced(ctx context.Context, x *ruled, o *nft.ListOptions, out *api.NFTEvents) error {
	w := &a.traceWatch
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.space(x.space)
	if now := time.Now(); now.Sub(t.polled) >= watchEvery/2 {
		t.polled = now
		q := &netstack.RuleQuery{Handles: o.Handles, Numeric: o.Numeric, NumericPrio: o.NumericPrio, NumericProto: o.NumericProto, NumericTime: o.NumericTime, Services: o.Services}
		heard, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (dataplane.RuleTraces, error) {
			return c.RuleTraces(ctx, x.space, q)
		})
		if err != nil {
			return err
		}
		t.hear(&heard)
	}
	var all []tracedLine
	all, out.Lost, out.Next = t.ring.since(out.Next)
	for _, l := range all {
		if x.tells(l.port) {
			out.Lines = append(out.Lines, l.text)
		}
	}
	return nil
}

// space is what was told of the packets of one namespace; of what is old nothing is kept.
//
// +checklocks:w.mu
func (w *traceWatch) space(name string) *tracing {
	if w.spaces == nil {
		w.spaces = make(map[string]*tracing)
	}
	for other, t := range w.spaces {
		if time.Since(t.polled) > watchIdle {
			t.ring.all = nil
			if other != name {
				delete(w.spaces, other)
			}
		}
	}
	if w.spaces[name] == nil {
		w.spaces[name] = new(tracing)
	}
	return w.spaces[name]
}

// hear keeps an answer.
func (t *tracing) hear(heard *dataplane.RuleTraces) {
	if heard.Lost > 0 {
		t.ring.skip(heard.Lost)
	}
	for i, line := range heard.Lines {
		l := tracedLine{text: api.Printable(line)}
		if i < len(heard.Ports) {
			l.port = heard.Ports[i]
		}
		t.ring.add(traceRing, l)
	}
}

// ruleLogs writes what log statements say into the log, and keeps it for those who
// listen. What has a group is only for them.
func (a *Agent) ruleLogs(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-a.ruleLogged:
		}
		heard, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (dataplane.RuleLogs, error) { return c.RuleLogs(ctx) })
		if err == nil {
			a.heardLogs(ctx, &heard)
		}
		pause(ctx, ruleLogEvery)
	}
}

func (a *Agent) heardLogs(ctx context.Context, heard *dataplane.RuleLogs) {
	if heard.Suppressed > 0 {
		a.log.Warn("lines of log statements were too many", "suppressed", heard.Suppressed)
	}
	w := &a.ruleWatch
	w.mu.Lock()
	if heard.Suppressed > 0 {
		w.logs.skip(heard.Suppressed)
	}
	w.logs.add(ruleLogRing, heard.Lines...)
	w.mu.Unlock()
	for i := range heard.Lines {
		if l := &heard.Lines[i]; l.Group == nil {
			a.log.LogAttrs(ctx, slogLevel(l.Level), "a rule logs", slog.String("namespace", api.Printable(l.Namespace)),
				slog.String("text", api.Printable(l.Text)), slog.String("chain", api.Printable(strings.TrimSpace(l.Table+" "+l.Chain))), slog.Uint64("handle", l.Handle))
		}
	}
}

// slogLevel is the log's level for one of syslog.
func slogLevel(level string) slog.Level {
	switch level {
	case "emerg", "alert", "crit", "err":
		return slog.LevelError
	case "notice", "info", "audit":
		return slog.LevelInfo
	case "debug":
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// wakeRuleLogs lets lines be taken.
func (a *Agent) wakeRuleLogs() {
	select {
	case a.ruleLogged <- struct{}{}:
	default:
	}
}
