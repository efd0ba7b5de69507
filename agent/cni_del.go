// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"sluice/api"
)

// Theory of operation.
//
// When a node is drained its containers end at once, and each has a DEL. What takes time
// in one is the disk and the kernel, which waits until no processor uses the interface
// any more; both take no longer for many. So DELs that find another under way wait
// together, and whoever is first when it has ended works for all of them.

// dels are the DELs that wait. Its zero value has none.
type dels struct {
	mu sync.Mutex
	// +checklocks:mu
	waiting []*del
}

// del is one of them. done and err are written by who works for it, with the agent's
// lock, and read with it.
type del struct {
	key  api.CNIKey
	done bool
	err  error
}

// join makes a DEL one of those that wait.
func (q *dels) join(k api.CNIKey) *del {
	d := &del{key: k}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, d)
	return d
}

// take takes all of them.
func (q *dels) take() []*del {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = nil
	return all
}

// cniDel takes an attachment away. That there is none is well.
func (a *Agent) cniDel(ctx context.Context, r *api.CNIDelRequest) (*struct{}, error) {
	d := a.dels.join(r.CNIKey)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !d.done {
		a.delAll(context.WithoutCancel(ctx), a.dels.take())
	}
	if d.err != nil {
		return nil, d.err
	}
	return new(struct{}), nil
}

// delAll works for all of them; if it can't be done at once, for one after the other, so
// that each has an error of its own.
// +checklocks:a.mu
func (a *Agent) delAll(ctx context.Context, all []*del) {
	if err := a.delTogether(ctx, all); err == nil {
		return
	}
	for i := range all {
		all[i].err = a.delTogether(ctx, all[i:i+1])
	}
}

// delTogether removes what there is of all of them.
// +checklocks:a.mu
func (a *Agent) delTogether(ctx context.Context, all []*del) error {
	for _, d := range all {
		d.done = true
	}
	st, err := a.store.read()
	if err != nil {
		return err
	}
	var recs []*attachmentRecord
	for _, d := range all {
		if rec := st.byKey(d.key); rec != nil && !slices.Contains(recs, rec) {
			recs = append(recs, rec)
		}
	}
	if len(recs) == 0 {
		return nil
	}
	if err := a.remove(ctx, recs...); err != nil {
		return fmt.Errorf("detach %s: %w", names(recs), err)
	}
	for _, rec := range recs {
		a.log.Info("detached", "nic", rec.Name, "port", rec.Port, "ns", rec.Netns, "container", rec.CNI.Container)
	}
	return nil
}
