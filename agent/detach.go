// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
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
	was := rec.public()
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
		if rec == nil {
			return nil, refuse(api.CodeNotFound, "name", "no attachment %q", r.Name)
		}
		return rec, nil
	}
	if r.Netns == "" {
		return nil, refuse(api.CodeInvalid, "netns", "missing: say which namespace or which attachment")
	}
	all := attachedTo(st, r.Netns)
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
		return nil, refuse(api.CodeNotFound, "netns", "nothing is attached to %s", r.Netns)
	case 1:
		return all[0], nil
	}
	return nil, refuse(api.CodeInvalid, "ifname", "%s has %d attachments; say which interface", r.Netns, len(all))
}

// attachedTo returns the attachments of a namespace: by its recorded place, since
// it may be gone; if there are none, by its identity, since it may have been
// named differently.
func attachedTo(st *state, place string) []*attachmentRecord {
	all := st.where(func(a *attachmentRecord) bool { return a.Netns == netnsPlace(place) })
	if len(all) > 0 {
		return all
	}
	ns, id, err := openContainer(place)
	if err != nil {
		return nil
	}
	defer ns.Close()
	return st.where(func(a *attachmentRecord) bool { return a.NS == id })
}

// reap removes the attachments whose pair has gone, with its container's
// namespace or by somebody's hand, whenever it is woken.
func (a *Agent) reap(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.gone:
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
	gone := st.where(func(r *attachmentRecord) bool { return r.State != api.StateFailed && !there[r.hostIfName()] })
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
		err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{Namespace: &a.hostNS})
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
