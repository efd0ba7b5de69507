// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"sluice/api"
)

// Pauses before an attachment that could not be restored is tried again. They
// double, so that a cause that stays costs next to nothing.
const (
	mendFirst = time.Second
	mendMost  = 30 * time.Second
)

// mend restores what failed at the start, without anybody waiting for it.
func (a *Agent) mend(ctx context.Context) {
	for wait := mendFirst; ctx.Err() == nil; wait = min(2*wait, mendMost) {
		pause(ctx, wait)
		if ctx.Err() != nil {
			return
		}
		left, err := a.mendOnce(ctx)
		if err != nil {
			a.log.Error("restoring attachments that failed", "err", err)
			continue
		}
		if left == 0 {
			// Those that failed at the start are mended. Uplinks may fail later.
			select {
			case <-ctx.Done():
			case <-a.failed:
			}
			wait = mendFirst / 2
		}
	}
}

// wakeMender never blocks.
func (a *Agent) wakeMender() {
	select {
	case a.failed <- struct{}{}:
	default:
	}
}

// mendOnce tries each failed attachment once and returns how many are left.
func (a *Agent) mendOnce(ctx context.Context) (left int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st, err := a.store.read()
	if err != nil {
		return 0, err
	}
	failed := st.failed()
	if len(failed) == 0 {
		return 0, nil
	}
	r, err := a.newRestorer(st, nil)
	if err != nil {
		return len(failed), err
	}
	for _, rec := range failed {
		if !a.mendOne(ctx, r, rec) {
			left++
		}
	}
	r.announce()
	return left, nil
}

// mendOne says whether there is no more to do for an attachment: it is ready, or
// it is gone.
func (a *Agent) mendOne(ctx context.Context, r *restorer, rec *attachmentRecord) bool {
	log := a.log.With("nic", rec.Name, "port", rec.Port)
	defer func() { closeFiles(r.opened); r.opened = make(map[uint16]*os.File) }() // what was of no use
	err := r.ready(rec)
	if errors.Is(err, errNamespaceGone) {
		log.Info("attachment dropped", "ns", rec.Netns, "err", err)
		a.undo(ctx, rec)
		return true
	}
	if c := r.st.hostConfig(rec); err == nil && c != nil {
		err = a.dressOne(ctx, c)
	}
	if err == nil {
		err = a.plugMended(ctx, r, rec)
	}
	if err != nil {
		log.Debug("attachment not restored yet", "err", err)
		return false
	}
	a.republish(ctx, rec)
	log.Info("attachment restored", "ns", rec.Netns)
	return true
}

// plugMended gives the dataplane a port whose socket has been opened, and writes
// down that the attachment is ready.
func (a *Agent) plugMended(ctx context.Context, r *restorer, rec *attachmentRecord) error {
	files := r.opened
	r.opened = make(map[uint16]*os.File)
	st, err := a.store.read()
	if err == nil {
		err = a.plane.Apply(ctx, st.snapshot(rec.ID), files)
	}
	if err != nil {
		closeFiles(files)
		return err
	}
	if err := a.setState(api.StateReady, rec); err != nil {
		// A port that the state file does not know must not forward.
		return errors.Join(err, a.plane.Withdraw(ctx, st.snapshot("")))
	}
	return nil
}
