// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"sluice/api"
	"sluice/policy/journal"
	"sluice/policy/nft"
)

// pendingCommit is a transaction that is taken back unless it is confirmed in time.
type pendingCommit struct {
	Number uint64     `json:"number"`
	Until  api.Moment `json:"until"`
}

// over reports whether its time is over. That of another boot is.
func (p *pendingCommit) over(now api.Moment) bool {
	return p.Until.Boot != now.Boot || now.At >= p.Until.At
}

// left is how much of its time is left.
func (p *pendingCommit) left(now api.Moment) time.Duration {
	if p.over(now) {
		return 0
	}
	return p.Until.At - now.At
}

// withHistory reads the history of a ruleset.
func (s *store) withHistory(namespace, port string, f func(x *ruled, all []archived) error) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		st, err := s.readState(tx)
		if err != nil {
			return err
		}
		x, err := st.ruled(namespace, port)
		if err != nil {
			return err
		}
		all, err := history(tx, x)
		if err != nil {
			return err
		}
		return f(x, all)
	})
}

// lastCommit is the number of the last transaction that is known, 0 of none.
func lastCommit(all []archived) uint64 {
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].last()
}

// rulesetAt is the ruleset as a transaction has left it. Of a port that has its network's
// then, it is empty.
func rulesetAt(all []archived, number uint64) (*nft.Ruleset, error) {
	if last := lastCommit(all); number > last {
		return nil, refuse(api.CodeNotFound, "commit", "there is no commit %d; the last one is %d", number, last)
	}
	if number == 0 {
		return &nft.Ruleset{}, nil
	}
	for i := range all {
		if a := &all[i]; a.Before < number && number <= a.last() {
			return a.Journal.At(a.Given + int(number-a.Before))
		}
	}
	if number == all[0].Before { // what the oldest began with
		return all[0].Journal.At(0)
	}
	return nil, refuse(api.CodeNotFound, "commit", "commit %d is so old that it is not kept any more; the oldest that can be shown is %d", number, all[0].Before)
}

// nftHistory lists the transactions of a ruleset, the oldest first.
func (a *Agent) nftHistory(_ context.Context, q query) ([]api.NFTCommit, error) {
	out := []api.NFTCommit{}
	err := a.store.withHistory(q.namespace, q.port, func(x *ruled, all []archived) error {
		for i := range all {
			steps := all[i].steps()
			for j := range steps {
				out = append(out, publicCommit(x, all[i].Before+uint64(j)+1, &steps[j]))
			}
		}
		return nil
	})
	return out, err
}

// maxSummary is how many bytes of a transaction are shown.
const maxSummary = 60

func publicCommit(x *ruled, number uint64, s *journal.Step) api.NFTCommit {
	c := api.NFTCommit{Namespace: x.space, Port: x.name(), Number: number, By: api.Printable(s.By), File: api.Printable(s.File), Summary: api.Printable(summary(s.Text))}
	if !s.At.IsZero() {
		c.Time = s.At.UTC().Truncate(time.Second)
	}
	if p := x.NFTConfirm; p != nil && p.Number == number {
		c.Unconfirmed, c.SecondsLeft = true, int(p.left(api.Now()).Seconds())
	}
	return c
}

// summary is the first line that says something.
func summary(text string) string {
	var first string
	rest := 0
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		switch {
		case l == "" || l[0] == '#':
		case first == "":
			first = l
		default:
			rest++
		}
	}
	if cut := []rune(first); len(cut) > maxSummary {
		return string(cut[:maxSummary]) + "…"
	}
	if rest > 0 {
		first += " …"
	}
	return first
}

// nftDiff shows what became of a ruleset between two transactions.
func (a *Agent) nftDiff(_ context.Context, r *api.NFTDiffRequest) (*api.NFTReply, error) {
	out := ""
	err := a.store.withHistory(r.Namespace, r.Port, func(x *ruled, all []archived) error {
		last := lastCommit(all)
		from, to := max(last, 1)-1, last
		if r.From != nil {
			from = *r.From
		}
		if r.To != nil {
			to = *r.To
		}
		was, err := x.at(all, from)
		if err != nil {
			return err
		}
		is, err := x.at(all, to)
		if err != nil {
			return err
		}
		out = nft.Compare(was, is, nil)
		return nil
	})
	return &api.NFTReply{Output: out}, err
}

// nftUndo makes the ruleset what it was before a transaction, by one more.
func (a *Agent) nftUndo(ctx context.Context, r *api.NFTUndoRequest) (*api.NFTReply, error) {
	ctx = context.WithoutCancel(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	done, err := a.revert(ctx, r.Namespace, r.Port, undone(r.Commit))
	if err != nil {
		return nil, nftErr(err)
	}
	return &api.NFTReply{Commit: done.number, Output: echo(done.Changes, &api.NFTShow{})}, nil
}

// chosen names a transaction that is to be taken back, with all after it, and says how
// that is to be remembered.
type chosen func(x *ruled, last uint64) (number uint64, by string, err error)

// revert commits a transaction that takes others back.
func (a *Agent) revert(ctx context.Context, namespace, port string, choose chosen) (done *edit, err error) {
	undo, err := a.store.attempt(func(t *txn) error {
		e, err := newEditor(t, namespace, &a.sets)
		if err != nil {
			return err
		}
		if done, err = a.revertRules(ctx, e, port, choose); err != nil {
			return err
		}
		return e.finish()
	})
	if err == nil {
		err = a.tell(ctx, undo)
	}
	if err != nil {
		return nil, err
	}
	a.committed(done)
	a.log.Info("ruleset reverted", "namespace", done.space, "port", done.port, "commit", done.number, "changes", len(done.Changes))
	return done, nil
}

// revertRules changes the ruleset of a port, or for "" the namespace's, in its record.
func (a *Agent) revertRules(ctx context.Context, e *editor, port string, choose chosen) (*edit, error) {
	x, err := e.ruleset(port)
	if err != nil {
		return nil, err
	}
	all, err := history(e.t.tx, x)
	if err != nil {
		return nil, err
	}
	number, by, err := choose(x, lastCommit(all))
	if err != nil {
		return nil, err
	}
	was, err := rulesetAt(all, number-1)
	if err != nil {
		return nil, err
	}
	from, err := a.rulesets.of(x.key, x.inForce())
	if err != nil {
		return nil, err
	}
	step, err := journal.Revert(from.Ruleset, was)
	if err != nil {
		return nil, err
	}
	step.By = by
	return a.editRules(ctx, e, x, step)
}

// undone chooses a transaction by its number, or the last one.
func undone(number uint64) chosen {
	return func(_ *ruled, last uint64) (uint64, string, error) {
		if number == 0 {
			number = last
		}
		if number == 0 || number > last {
			return 0, "", refuse(api.CodeNotFound, "commit", "there is no commit %d to undo; the last one is %d", number, last)
		}
		return number, fmt.Sprintf("undo %d", number), nil
	}
}

// notConfirmed chooses the one that waits for it.
func notConfirmed(x *ruled, _ uint64) (uint64, string, error) {
	return x.NFTConfirm.Number, fmt.Sprintf("commit %d was not confirmed", x.NFTConfirm.Number), nil
}

// nftConfirm lets stay what was committed to be confirmed.
func (a *Agent) nftConfirm(_ context.Context, r *api.NFTConfirmRequest) (*api.NFTReply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	reply := new(api.NFTReply)
	var x *ruled
	err := a.store.update(func(t *txn) (err error) {
		if x, err = t.state.ruled(r.Namespace, r.Port); err != nil {
			return err
		}
		switch p := x.NFTConfirm; {
		case p == nil:
			return refuse(api.CodeNotFound, "commit", "no commit waits to be confirmed")
		case p.over(api.Now()):
			return refuse(api.CodeNotFound, "commit", "the time to confirm commit %d is over", p.Number)
		}
		reply.Commit, x.NFTConfirm = x.NFTConfirm.Number, nil
		return t.putRules(x)
	})
	if err != nil {
		return nil, err
	}
	a.log.Info("ruleset confirmed", "namespace", x.space, "port", x.name(), "commit", reply.Commit)
	return reply, nil
}

// confirmRetry is when a rollback is tried again that the dataplane could not be told.
const confirmRetry = time.Second

// unconfirmed takes back, in their time, transactions that were not confirmed.
func (a *Agent) unconfirmed(ctx context.Context) {
	for ctx.Err() == nil {
		wait := a.rollBack(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-a.confirming:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// rollBack takes back what is due, and says when to look again.
func (a *Agent) rollBack(ctx context.Context) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := time.Hour
	st, err := a.store.read()
	if err != nil {
		a.log.Error("what waits to be confirmed can't be read", "err", err)
		return confirmRetry
	}
	for _, x := range st.unconfirmed() {
		if left := x.NFTConfirm.left(api.Now()); left > 0 {
			wait = min(wait, left)
			continue
		}
		port := ""
		if x.port != nil {
			port = x.port.ID
		}
		if _, err := a.revert(ctx, x.space, port, notConfirmed); err != nil {
			a.log.Error("a ruleset that was not confirmed can't be taken back", "namespace", x.space, "port", x.name(), "err", err)
			wait = min(wait, confirmRetry)
		}
	}
	return wait
}

// unconfirmed are the rulesets with a transaction that waits to be confirmed.
func (s *state) unconfirmed() (all []*ruled) {
	for i := range s.namespaces {
		if n := &s.namespaces[i]; n.NFTConfirm != nil {
			all = append(all, n.ruled())
		}
	}
	for i := range s.attachments {
		rec := &s.attachments[i]
		if n := s.network(rec.Network); rec.NFTConfirm != nil && rec.State != api.StateDeleting && n != nil {
			all = append(all, rec.ruled(n))
		}
	}
	return all
}
