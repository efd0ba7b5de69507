// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"sluice/api"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/policy/journal"
	"sluice/policy/nft"
)

// Theory of operation.
//
// The state file has the ruleset of a namespace, or of a port, as a journal: a listing, and the
// transactions since. A request is one transaction: it is done to the ruleset as the
// agent has it, written down, and then told to the dataplane with the snapshot, where
// the same transaction is done again. What was counted only the dataplane knows, and so
// it answers what asks.

// rulesets are those that were read last, by their keys.
type rulesets struct {
	mu sync.Mutex
	// +checklocks:mu
	states map[string]*journal.State
}

// of is the ruleset of a record.
func (r *rulesets) of(key string, j *journal.Journal) (*journal.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if j == nil {
		return journal.Empty(), nil
	}
	s, _, err := j.Follow(r.states[key])
	if err != nil {
		return nil, err
	}
	if r.states == nil {
		r.states = make(map[string]*journal.State)
	}
	r.states[key] = s
	return s, nil
}

// keep forgets those of who is no more.
func (r *rulesets) keep(st *state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.states) == 0 {
		return
	}
	there := make(map[string]bool)
	for _, space := range st.spaces() {
		there[space] = true
	}
	for i := range st.attachments {
		there[st.attachments[i].rulesKey()] = true
	}
	maps.DeleteFunc(r.states, func(key string, _ *journal.State) bool { return !there[key] })
}

// nftErr is what a request is told that is wrong, in the words of nft(8).
func nftErr(err error) error {
	if _, ours := errors.AsType[*api.Error](err); ours {
		return err
	}
	return &api.Error{Code: api.CodeInvalid, Field: "nft", Message: api.Printable(err.Error())}
}

// nft is what nft(8) does.
func (a *Agent) nft(ctx context.Context, r *api.NFTRequest) (*api.NFTReply, error) {
	ctx = context.WithoutCancel(ctx)
	step := &journal.Step{File: r.File, Text: r.Text, JSON: r.JSON, Included: r.Included}
	cmds, err := step.Parse()
	if err != nil {
		return nil, nftErr(err)
	}
	asks, changes := purpose(cmds)
	if r.Confirm > api.MaxConfirm || r.Confirm > 0 && (r.Check || !changes) {
		return nil, refuse(api.CodeInvalid, "confirm", "want at most %d seconds, and a change to be confirmed", api.MaxConfirm)
	}
	if step.By = "nft"; len(cmds) == 0 {
		changes = false // comments only
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	reply := new(api.NFTReply)
	if !changes {
		reply.Output, err = a.askRules(ctx, r, nil)
	} else {
		err = a.changeRules(ctx, r, step, asks, reply)
	}
	if err != nil {
		return nil, nftErr(err)
	}
	return reply, nil
}

// purpose says whether commands ask, and whether they change something.
func purpose(cmds []*nft.Command) (asks, changes bool) {
	for _, c := range cmds {
		switch c.Op {
		case nft.OpList, nft.OpGet, nft.OpMonitor:
			asks = true
		case nft.OpReset:
			asks, changes = true, true
		default:
			changes = true
		}
	}
	return asks, changes
}

// askRules has the dataplane answer.
func (a *Agent) askRules(ctx context.Context, r *api.NFTRequest, only []nft.CmdOp) (string, error) {
	st, err := a.store.read()
	if err != nil {
		return "", err
	}
	x, err := st.ruled(r.Namespace, r.Port)
	if err != nil {
		return "", err
	}
	s := &r.Show
	q := &netstack.RuleQuery{
		Port: x.number(), Text: r.Text, TextJSON: r.JSON, Only: only, JSON: s.JSON, Handles: s.Handles, Stateless: s.Stateless, Terse: s.Terse, Numeric: s.Numeric,
		NumericPrio: s.NumericPriority, NumericProto: s.NumericProtocol, NumericTime: s.NumericTime, Services: s.Services,
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	c := a.plane.client.Load()
	if c == nil {
		return "", unavailable(errPlaneDown)
	}
	out, err := c.RuleList(ctx, x.space, q)
	if no, refused := errors.AsType[*dataplane.RefusedError](err); refused {
		return "", nftErr(errors.New(no.Message))
	}
	if err != nil {
		return "", unavailable(err)
	}
	return api.Printable(out), nil
}

// changeRules carries out a transaction. What reset shows is asked for before.
func (a *Agent) changeRules(ctx context.Context, r *api.NFTRequest, step *journal.Step, asks bool, reply *api.NFTReply) (err error) {
	if asks {
		if reply.Output, err = a.askRules(ctx, r, []nft.CmdOp{nft.OpReset}); err != nil {
			return err
		}
	}
	var done *edit
	undo, err := a.store.attempt(func(t *txn) error {
		e, err := newEditor(t, r.Namespace, &a.sets)
		if err != nil {
			return err
		}
		x, err := e.ruleset(r.Port)
		if err != nil {
			return err
		}
		if done, err = a.editAsked(ctx, e, x, r, step); err != nil {
			return err
		}
		if r.Check {
			return errCheckedOnly
		}
		x.await(done.number, r.Confirm)
		return e.finish()
	})
	if r.Check && done != nil {
		reply.Output = ""
		return nil
	}
	if err != nil {
		return err
	}
	if err := a.tell(ctx, undo); err != nil {
		return err
	}
	a.committed(done)
	a.log.Info("ruleset changed", "namespace", done.space, "port", done.port, "commit", done.number, "changes", len(done.Changes))
	return a.replyChanged(ctx, r, done, asks, reply)
}

// replyChanged says what a transaction has done, and what it asked for.
func (a *Agent) replyChanged(ctx context.Context, r *api.NFTRequest, done *edit, asks bool, reply *api.NFTReply) error {
	reply.Commit = done.number
	if r.Echo {
		reply.Output += echo(done.Changes, &r.Show)
	}
	if !asks {
		return nil
	}
	rest, err := a.askRules(ctx, r, []nft.CmdOp{nft.OpList, nft.OpGet})
	reply.Output += rest
	return err
}

// editAsked changes a ruleset, unless a change of it waits to be confirmed.
func (a *Agent) editAsked(ctx context.Context, e *editor, x *ruled, r *api.NFTRequest, step *journal.Step) (*edit, error) {
	if p := x.NFTConfirm; p != nil && !r.Check {
		words := "sluice nft"
		if x.port != nil {
			words += " --port " + x.name()
		}
		return nil, refuse(api.CodeExists, "nft", "commit %d waits to be confirmed: %s confirm, or %s undo, first", p.Number, words, words)
	}
	return a.editRules(ctx, e, x, step)
}

// errCheckedOnly ends a transaction that is not to be committed.
var errCheckedOnly = errors.New("checked only")

// echo is what nft -e shows: what is new.
func echo(changes []nft.Change, s *api.NFTShow) string {
	o := (&netstack.RuleQuery{
		Handles: s.Handles, Stateless: s.Stateless, Terse: s.Terse, Numeric: s.Numeric,
		NumericPrio: s.NumericPriority, NumericProto: s.NumericProtocol, NumericTime: s.NumericTime, Services: s.Services,
	}).Options()
	var all []nft.Event
	var b strings.Builder
	for i := range changes {
		for _, e := range changes[i].Echoed(o) {
			all = append(all, e)
			b.WriteString(api.Printable(e.Text) + "\n")
		}
	}
	if s.JSON {
		return api.Printable(nft.EchoJSON(all)) + "\n"
	}
	return b.String()
}

// ruleset makes the ruleset of a namespace what the file says. One that says what is
// there already changes nothing: what was counted stays.
func (d *declaration) ruleset(i int, n, old *namespaceRecord) error {
	if p := old.NFTConfirm; p != nil {
		d.change("confirm", "nft", n.Name, fmt.Sprintf("commit %d", p.Number))
	}
	text := d.c.Namespaces[i].NFT
	if text == nil {
		return d.t.endRules(old, "apply")
	}
	c, field := &d.c.Namespaces[i], fmt.Sprintf("namespaces[%d].nft", i)
	step := &journal.Step{File: "nft", Text: *text, By: "apply", Anew: true}
	if c.NFTFile != "" {
		field, step.File, step.Included = field+"File", c.NFTFile, c.NFTIncluded
	}
	var spec netstack.NamespaceSpec
	if d.is.namespace(n.Name) != nil { // by its networks; one with links alone isn't there yet
		spec = d.is.namespaceSpec(n.Name, "")
	}
	devices := spec.RuleDevices()
	for _, l := range n.Links {
		spec.Links = append(spec.Links, netstack.LinkSpec{Name: l.Name, Index: l.Index})
		devices[l.Name] = uint32(l.Index)
	}
	spec.Connections.Bridged = n.Connections.Bridged
	was := journal.Empty()
	if old.NFT != nil {
		var err error
		if was, _, err = old.NFT.Follow(nil); err != nil {
			return err
		}
	}
	res, err := step.Try(was.Ruleset, journal.World{Device: func(name string) (uint32, bool) { n, ok := devices[name]; return n, ok }})
	if err == nil {
		err = spec.CheckRules(res.Ruleset)
	}
	if err != nil {
		return d.fault(field, err)
	}
	if n.rulesRecord, n.NFTConfirm = old.rulesRecord, nil; stateless(was.Ruleset) != stateless(res.Ruleset) {
		_, err = d.t.commitRules(n.ruled(), was, step, res)
	}
	n.Connections.Filtered = n.NFT != nil
	return err
}

// stateless is a listing without what is counted.
func stateless(r *nft.Ruleset) string {
	var b strings.Builder
	_ = r.List(&b, &nft.ListOptions{Stateless: true}) // a Builder takes everything
	return b.String()
}

// ruleLines are the lines of the ruleset, as changes are listed.
func (n *namespaceRecord) ruleLines() []string {
	return rulesetLines(n.NFT)
}
