// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/config"
	"sluice/uplink"
	"sluice/veth"
)

const (
	// tendEvery is how often the host is looked at for what somebody took away, as
	// `nft flush ruleset` does.
	tendEvery = 30 * time.Second
	// dressTimeout bounds what programs of the host do for one uplink.
	dressTimeout = 10 * time.Second
)

// openOwnNS opens the namespace that the daemon runs in. The thread that asks must not
// be one that visits another namespace meanwhile.
func openOwnNS() (netns.NsHandle, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return veth.OpenNetNS("/proc/thread-self/ns/net")
}

// survey looks at the host if there is an uplink in a file. It also sees whether the
// tables of nftables can be made.
func (a *Agent) survey(ctx context.Context, c *config.Config) (*uplink.Survey, error) {
	if !slices.ContainsFunc(c.Uplinks, func(u config.Uplink) bool { return u.Type != config.UplinkSocket }) {
		return nil, nil //nolint:nilnil // nobody asks
	}
	ctx, cancel := context.WithTimeout(ctx, dressTimeout)
	defer cancel()
	for i := range c.Uplinks {
		if !c.Uplinks[i].Masquerade {
			continue
		}
		if err := a.host.TableConflict(ctx, c.Uplinks[i].IfName); err != nil {
			field := fmt.Sprintf("uplinks[%d].masquerade", i)
			return nil, &api.Error{Code: api.CodeInvalid, Field: field, Message: c.Fault(field, err.Error()).Error()}
		}
	}
	return a.host.Survey()
}

// carryOut does what a committed declaration asks for: dataplane first, then the host.
// If it can't be done, the declaration is taken back, and so is what was done of it.
func (a *Agent) carryOut(ctx context.Context, undo func() error) error {
	if err := a.tell(ctx, undo); err != nil {
		return err
	}
	st, err := a.store.read()
	if err != nil || len(st.uplinks()) == 0 {
		return err
	}
	if err = a.settle(ctx, st); err != nil {
		err = errors.Join(err, undo(), a.unsettle(ctx, st))
	}
	return err
}

// settle makes the uplinks what the state says: those that are deleting go, those that
// are creating come, and the host is dressed for all. It may leave it at a half.
func (a *Agent) settle(ctx context.Context, st *state) (err error) {
	files := make(map[uint16]*os.File)
	defer func() {
		if err != nil {
			closeFiles(files)
		}
	}()
	was := make(map[string]api.State)
	for _, rec := range st.uplinks() {
		was[rec.ID] = rec.State
		if rec.State != api.StateDeleting {
			continue
		}
		if err := a.lower(ctx, rec); err != nil {
			return err
		}
	}
	for _, rec := range st.uplinks() {
		if rec.State != api.StateCreating {
			continue
		}
		if files[rec.Port], err = a.raise(rec, st.network(rec.Network)); err != nil {
			return err
		}
		rec.State = api.StateReady // in this copy of the state: it is in its snapshot
	}
	if err := a.dress(ctx, st); err != nil {
		return err
	}
	if len(files) > 0 {
		if err := a.plane.Apply(ctx, st.snapshot(""), files); err != nil {
			return err
		}
	}
	return a.settled(st, was)
}

// settled writes down what settle has done.
func (a *Agent) settled(st *state, was map[string]api.State) error {
	return a.store.update(func(t *txn) error {
		for _, rec := range st.uplinks() {
			var err error
			switch was[rec.ID] {
			case api.StateDeleting:
				err = t.dropAttachment(rec.ID)
			case api.StateCreating:
				err = t.putAttachment(rec)
			default: // as it was
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// raise makes the pair of an uplink, and opens its port.
func (a *Agent) raise(rec *attachmentRecord, n *networkRecord) (*os.File, error) {
	if err := a.makeEnd(rec, n); err != nil {
		return nil, fmt.Errorf("uplink %s: %w", rec.Network, err)
	}
	a.counters.Port(rec.Port).Reset()
	return a.openPort(rec)
}

// makeEnd makes the host end of an uplink, whatever its type.
func (a *Agent) makeEnd(rec *attachmentRecord, n *networkRecord) error {
	if n != nil && n.Uplink.NIC != nil {
		return a.takeNIC(rec, n)
	}
	_, err := a.createPair(rec, n, a.ownNS)
	return err
}

// lower takes an uplink's pair away, and what does not go with it.
func (a *Agent) lower(ctx context.Context, rec *attachmentRecord) error {
	ctx, cancel := context.WithTimeout(ctx, dressTimeout)
	defer cancel()
	if err := a.host.Remove(ctx, rec.IfName); err != nil {
		return fmt.Errorf("uplink %s: %w", rec.Network, err)
	}
	end := veth.NIC{HomeNS: a.ownNS, HostNS: a.hostNS, Name: rec.IfName, HostName: rec.hostIfName(), ID: rec.ID}
	return end.GiveBack()
}

// dress makes the host agree with all uplinks that are ready. It tries them all, and
// notes what went wrong with each.
func (a *Agent) dress(ctx context.Context, st *state) error {
	var all []error
	faults := make(map[string]string)
	for _, rec := range st.uplinks() {
		c := st.hostConfig(rec)
		if rec.State != api.StateReady || c == nil {
			continue
		}
		if err := a.dressOne(ctx, c); err != nil {
			faults[rec.ID] = err.Error()
			all = append(all, fmt.Errorf("uplink %s: %w", rec.Network, err))
		}
	}
	a.undressed.Store(&faults)
	return errors.Join(all...)
}

// redress is dress after a change that is made already.
func (a *Agent) redress(ctx context.Context, networks bool) {
	st, err := a.store.read()
	if err == nil && networks {
		err = a.dress(ctx, st)
	}
	if err != nil {
		a.log.Error("uplinks", "err", err)
	}
}

func (a *Agent) dressOne(ctx context.Context, c *uplink.Config) error {
	ctx, cancel := context.WithTimeout(ctx, dressTimeout)
	defer cancel()
	return a.host.Apply(ctx, c)
}

// unsettle makes things what they were before settle, which failed in a state that has
// been taken back since.
func (a *Agent) unsettle(ctx context.Context, failed *state) error {
	st, err := a.store.read()
	if err != nil {
		return err
	}
	for _, rec := range failed.uplinks() {
		if st.find(func(r *attachmentRecord) bool { return r.ID == rec.ID }) != nil {
			continue
		}
		if err := a.lower(ctx, rec); err != nil {
			a.log.Error("what was made of an uplink is left", "uplink", rec.Network, "err", err)
		}
	}
	r, err := a.newRestorer(st, nil)
	if err != nil {
		return err
	}
	if err := a.raiseAgain(r); err != nil {
		return err
	}
	if err := a.plane.Apply(ctx, st.snapshot(""), r.opened); err != nil {
		closeFiles(r.opened)
		return err
	}
	return a.dress(ctx, st)
}

// raiseAgain restores the uplinks whose ports the dataplane has no more. One that can't
// be restored waits for mend.
func (a *Agent) raiseAgain(r *restorer) error {
	told := a.plane.numbers()
	for _, rec := range r.st.uplinks() {
		if told[rec.Port] || rec.State != api.StateReady {
			continue
		}
		if err := r.ready(rec); err != nil {
			if err := a.setFailed(rec, err.Error()); err != nil {
				return err
			}
		}
	}
	return nil
}

// setFailed leaves an uplink to mend.
func (a *Agent) setFailed(rec *attachmentRecord, why string) error {
	defer a.wakeMender()
	return a.store.update(func(t *txn) error {
		rec.State, rec.Fault = api.StateFailed, why
		return t.putAttachment(rec)
	})
}

// vanished leaves uplinks, whose interfaces somebody has deleted, to mend.
func (a *Agent) vanished(ctx context.Context, all []*attachmentRecord) error {
	for _, rec := range all {
		a.log.Warn("interface has vanished, making it again", "uplink", rec.Network, "ifname", rec.IfName)
		if err := a.setFailed(rec, "its interface has vanished"); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return nil
	}
	st, err := a.store.read()
	if err != nil {
		return err
	}
	if err := a.plane.Withdraw(ctx, st.snapshot("")); err != nil {
		a.log.Warn("the dataplane has not heard of removed ports yet", "err", err)
	}
	return nil
}

// tend dresses the host now and then.
func (a *Agent) tend(ctx context.Context) {
	was := ""
	for {
		pause(ctx, tendEvery)
		if ctx.Err() != nil {
			return
		}
		a.cniLeft(ctx)
		is := ""
		if err := a.tendOnce(ctx); err != nil {
			is = err.Error()
		}
		if is != was && is != "" {
			a.log.Error("uplinks", "err", is)
		}
		was = is
	}
}

func (a *Agent) tendOnce(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	st, err := a.store.read()
	if err != nil || len(st.uplinks()) == 0 {
		return err
	}
	lost, err := a.strayed(st)
	if err != nil {
		return err
	}
	if err := a.vanished(ctx, lost); err != nil {
		return err
	}
	if st, err = a.store.read(); err != nil {
		return err
	}
	a.holdCommitted()
	return a.dress(ctx, st)
}

// strayed are the uplinks whose interface somebody has renamed or moved away.
func (a *Agent) strayed(st *state) (out []*attachmentRecord, err error) {
	ends, err := veth.HostEnds(a.hostNS)
	if err != nil {
		return nil, err
	}
	for _, rec := range st.uplinks() {
		i := slices.IndexFunc(ends, func(e veth.HostEnd) bool { return e.Name == rec.hostIfName() })
		if rec.State != api.StateReady || i < 0 || st.nicOf(rec) != nil { // one that was deleted is the reaper's business
			continue
		}
		has, err := a.host.Has(rec.IfName, ends[i].Index)
		if err != nil {
			return nil, err
		}
		if !has {
			out = append(out, rec)
		}
	}
	return out, nil
}

// placeOf opens the namespace of an attachment's container; see sameNamespace.
func (a *Agent) placeOf(rec *attachmentRecord) (ns netns.NsHandle, same bool, err error) {
	if !rec.onHost() {
		return sameNamespace(rec.Netns, rec.NS)
	}
	fd, err := unix.FcntlInt(uintptr(a.ownNS), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return netns.None(), false, err
	}
	return netns.NsHandle(fd), true, nil
}

// whole reports whether a host end that has its alias is what it should be. A pair was
// complete when it got it, and where its other end is now is a container's own business,
// but not the host's. An interface of the host's has the alias before it is moved, and
// what it is has to be written down, too (takeNIC).
func (r *restorer) whole(rec *attachmentRecord, end *veth.HostEnd) (bool, error) {
	switch {
	case !rec.Uplink:
		return true, nil
	case r.st.nicOf(rec) != nil:
		return rec.State != api.StateCreating && end.Up && end.MAC == r.st.network(rec.Network).MAC, nil
	}
	return r.a.host.Has(rec.IfName, end.Index)
}

// lowerAll takes all uplinks off the host, at the end of an agent that ends all. The
// next start makes them again.
func (a *Agent) lowerAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	st, err := a.store.read()
	if err != nil {
		return err
	}
	var all []error
	for _, rec := range st.uplinks() {
		all = append(all, a.lower(ctx, rec))
	}
	return errors.Join(all...)
}

// lowerOrphans is lowerAll where there is no agent: what is on a host that is not this
// process's own is left but for the pairs.
func lowerOrphans(ctx context.Context, o Options) error {
	path := stateFile(o.StateDir)
	hostNS, err := veth.OpenNetNS(runDir(o.RunDir).hostNS())
	if errors.Is(err, veth.ErrNoNetNS) || errors.Is(err, veth.ErrNotNetNS) {
		return nil
	}
	if err != nil {
		return err
	}
	defer hostNS.Close()
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	s, err := openStore(path)
	if err != nil {
		return err
	}
	defer s.Close()
	own, err := openOwnNS()
	if err != nil {
		return err
	}
	defer own.Close()
	a := &Agent{store: s, hostNS: hostNS, ownNS: own, host: uplink.NewHost(own)}
	return a.lowerHere(ctx)
}

// lowerHere removes the tables of those uplinks only whose interfaces are here.
func (a *Agent) lowerHere(ctx context.Context) error {
	st, err := a.store.read()
	if err != nil {
		return err
	}
	ends, err := veth.HostEnds(a.hostNS)
	if err != nil {
		return err
	}
	for _, rec := range st.uplinks() {
		for _, e := range ends {
			if e.Name == rec.hostIfName() {
				if err := a.lowerEnd(ctx, st, rec, &e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// lowerEnd removes the host end of an uplink, and what belongs to it if that is here.
func (a *Agent) lowerEnd(ctx context.Context, st *state, rec *attachmentRecord, e *veth.HostEnd) error {
	if nic := st.nicOf(rec); nic != nil {
		return a.giveBackHere(ctx, rec, nic)
	}
	here, err := a.host.Has(rec.IfName, e.Index)
	switch {
	case err != nil:
		return err
	case here:
		return a.lower(ctx, rec)
	}
	return veth.RemoveEnd(a.hostNS, a.ownNS, e.Name)
}
