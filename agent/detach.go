// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/veth"
)

// watchRetry is the pause before another try to watch the interfaces.
const watchRetry = time.Second

// detach takes an attachment away: the mirror of attach.
func (a *Agent) detach(ctx context.Context, r *api.DetachRequest) (*api.Attachment, error) {
	ctx = context.WithoutCancel(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	rec, err := findAttachment(st, r)
	if err != nil {
		return nil, err
	}
	was := st.public(rec)
	if err := a.remove(ctx, rec); err != nil {
		return nil, fmt.Errorf("detach %s: %w", rec.Name, err)
	}
	a.log.Info("detached", "nic", rec.Name, "port", rec.Port, "ns", rec.Netns)
	return &was, nil
}

// findAttachment finds the one attachment that a request names.
func findAttachment(st *state, r *api.DetachRequest) (*attachmentRecord, error) {
	if r.Name != "" {
		rec := st.find(func(a *attachmentRecord) bool { return a.Name == r.Name || a.ID == r.Name })
		if rec != nil && rec.Uplink {
			return nil, refuse(api.CodeInvalid, "name", "%s is an uplink's, which is declared in the file, see apply", rec.Name)
		}
		if rec == nil {
			return nil, refuse(api.CodeNotFound, "name", "no attachment %q", r.Name)
		}
		return rec, nil
	}
	if r.Netns == "" {
		return nil, refuse(api.CodeInvalid, "netns", "missing: say which namespace or which attachment")
	}
	all, err := attachedTo(st, r.Netns)
	if err != nil {
		return nil, err
	}
	if r.IfName != "" {
		for _, rec := range all {
			if rec.IfName == r.IfName {
				return rec, nil
			}
		}
		return nil, refuse(api.CodeNotFound, "ifname", "no attachment %s in %s", r.IfName, r.Netns)
	}
	switch len(all) {
	case 0:
		return nil, nothingAttached(st, r.Netns)
	case 1:
		return all[0], nil
	}
	return nil, refuse(api.CodeInvalid, "ifname", "%s has %d attachments; say which interface: %s", r.Netns, len(all), names(all))
}

// nothingAttached also names those that were attached by the same place, when
// another namespace was there.
func nothingAttached(st *state, place string) error {
	old := st.where(func(a *attachmentRecord) bool { return a.Netns == netnsPlace(place) })
	if len(old) == 0 {
		return refuse(api.CodeNotFound, "netns", "nothing is attached to %s", place)
	}
	return refuse(api.CodeNotFound, "netns", "nothing is attached to %s as it is now; an earlier namespace of that name has %s, to be detached by name", place, names(old))
}

// attachedTo returns the attachments of the namespace that a request names. If
// something is at that place now, it is what is meant, and its identity decides:
// the place may have been another's before. If nothing can be opened there, the
// recorded place decides; then those at one place must be of one namespace.
func attachedTo(st *state, place string) ([]*attachmentRecord, error) {
	ns, id, err := openContainer(place)
	if err == nil {
		ns.Close()
		return st.where(func(a *attachmentRecord) bool { return a.NS == id }), nil
	}
	if _, ok := errors.AsType[*api.Error](err); !ok {
		return nil, err // there may be something, which can't be opened now
	}
	all := st.where(func(a *attachmentRecord) bool { return a.Netns == netnsPlace(place) })
	for _, a := range all {
		if a.NS != all[0].NS {
			return nil, refuse(api.CodeInvalid, "name", "several namespaces were attached as %s; say which attachment by its name: %s", place, names(all))
		}
	}
	return all, nil
}

// names lists the names of attachments.
func names(all []*attachmentRecord) string {
	out := make([]string, len(all))
	for i, a := range all {
		out[i] = a.Name
	}
	return strings.Join(out, ", ")
}

// reap removes the attachments whose pair has gone, with its container's
// namespace or by somebody's hand, whenever it is woken.
func (a *Agent) reap(ctx context.Context) {
	t := time.NewTicker(tapsEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.gone:
		case <-t.C:
			if !a.hasTaps() {
				continue
			}
		}
		if err := a.reapOnce(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("looking for vanished interfaces", "err", err)
		}
	}
}

// wakeReaper never blocks: one waiting call is as good as many.
func (a *Agent) wakeReaper() {
	select {
	case a.gone <- struct{}{}:
	default:
	}
}

func (a *Agent) reapOnce(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ends, err := veth.HostEnds(a.hostNS)
	if err != nil {
		return err
	}
	there := make(map[string]bool)
	for _, e := range ends {
		there[e.Name] = true
	}
	st, err := a.store.read()
	if err != nil {
		return err
	}
	// One that failed may lack its pair for now: that is mend's business.
	gone := st.where(func(r *attachmentRecord) bool {
		if r.Tap != nil {
			return r.State != api.StateFailed && a.deviceGone(r)
		}
		return r.State != api.StateFailed && !there[r.hostIfName()] && !r.Uplink
	})
	lost := st.where(func(r *attachmentRecord) bool { return r.State == api.StateReady && !there[r.hostIfName()] && r.Uplink })
	if err := a.vanished(ctx, lost); err != nil {
		return err
	}
	if len(gone) == 0 {
		return nil
	}
	for _, rec := range gone {
		a.log.Info("interface has vanished, detaching", "nic", rec.Name, "port", rec.Port, "ns", rec.Netns)
	}
	return a.remove(ctx, gone...)
}

// watchLinks wakes the reaper whenever an interface of the host namespace is
// deleted. When the kernel could not tell everything (ENOBUFS), the subscription
// ends; a new one is made, and the reaper looks at everything once.
func (a *Agent) watchLinks(ctx context.Context) {
	for ctx.Err() == nil {
		updates := make(chan netlink.LinkUpdate, 64)
		done := make(chan struct{})
		// Not by the library's own way into a namespace: it gives threads back that could
		// not return.
		err := veth.Do(a.hostNS, func() error { return netlink.LinkSubscribe(updates, done) })
		if err != nil {
			close(done)
			a.log.Error("watching interfaces", "err", err)
			pause(ctx, watchRetry)
			continue
		}
		a.wakeReaper()
		a.followLinks(ctx, updates)
		close(done)
		for range updates { // until the subscription has noticed
		}
	}
}

// followLinks returns when the subscription or the context ends.
func (a *Agent) followLinks(ctx context.Context, updates <-chan netlink.LinkUpdate) {
	up := make(map[int32]bool)
	for {
		select {
		case <-ctx.Done():
			return
		case u, open := <-updates:
			if !open {
				return
			}
			if u.Header.Type == unix.RTM_DELLINK {
				a.wakeReaper()
			}
			a.interrupted(ctx, &u, up)
		}
	}
}

// interrupted sees whether an interface has its carrier again, which it had before.
func (a *Agent) interrupted(ctx context.Context, u *netlink.LinkUpdate, up map[int32]bool) {
	had, known := up[u.Index]
	has := u.Flags&unix.IFF_LOWER_UP != 0
	if up[u.Index] = has; u.Header.Type == unix.RTM_DELLINK {
		delete(up, u.Index)
	}
	var port uint16
	if known && !had && has {
		if _, err := fmt.Sscanf(u.Link.Attrs().Name, "sl%d", &port); err != nil {
			return
		}
		if err := a.reconfirm(ctx, port); err != nil {
			a.log.Error("after an interruption of a link", "err", err)
		}
	}
}

// pause waits, unless the context is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
