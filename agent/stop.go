// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sluice/api"
	"sluice/dataplane"
	"sluice/veth"
)

// lockRetry is how often Stop looks whether an agent has ended.
const lockRetry = 20 * time.Millisecond

// Stop ends everything that runs in the directories: the agent, if there is one,
// and the dataplane, if there is one. What is attached stays attached, without
// being forwarded, and is restored by the next start; if nothing is, the
// namespace of the host ends is removed too. The context bounds the waiting.
//
// The state directory need not be said: an agent leaves a note of it. One that
// contradicts the note is refused before anything is ended.
func Stop(ctx context.Context, o Options) error {
	given := o.StateDir != ""
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	if err := o.setDefaults(); err != nil {
		return err
	}
	dir := runDir(o.RunDir)
	if _, err := os.Stat(o.RunDir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	noted, err := dir.notedState()
	if err != nil {
		return err
	}
	if given && noted != "" && !samePath(noted, o.StateDir) {
		return fmt.Errorf("--state-dir %s: what runs in %s keeps its state in %s", o.StateDir, o.RunDir, noted)
	}
	if noted != "" {
		o.StateDir = noted
	}
	client := api.NewClient(dir.apiSocket())
	defer client.Close()
	err = client.Shutdown(ctx, &api.ShutdownRequest{Dataplane: true})
	if err != nil && !errors.Is(err, api.ErrDaemonDown) {
		return err
	}
	lock, err := waitLock(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	return stopRest(ctx, dir, o)
}

// stopRest ends what may run without an agent, and removes what nobody needs then.
func stopRest(ctx context.Context, dir runDir, o Options) error {
	if err := stopOrphan(ctx, dir); err != nil {
		return err
	}
	if err := lowerOrphans(ctx, o); err != nil {
		return err
	}
	return cleanUp(o)
}

// waitLock takes the lock as soon as its holder has ended.
func waitLock(ctx context.Context, dir runDir) (*os.File, error) {
	for {
		lock, err := dir.lock()
		if !errors.Is(err, ErrLocked) {
			return lock, err
		}
		pause(ctx, lockRetry)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w and does not end", err)
		}
	}
}

// stopOrphan ends a dataplane that has no agent, and its spare.
func stopOrphan(ctx context.Context, dir runDir) error {
	if err := dataplane.Evict(dataplane.SparePath(dir.dataplaneSocket())); err != nil {
		return err
	}
	c, err := dataplane.Connect(dir.dataplaneSocket())
	if errors.Is(err, dataplane.ErrNotRunning) {
		return nil
	}
	if err != nil {
		return dataplane.Evict(dir.dataplaneSocket())
	}
	_, files := c.Adopted()
	closeFiles(files)
	defer c.Close()
	if err := c.Stop(ctx); err != nil {
		return c.Kill()
	}
	return nil
}

// samePath says whether two paths are one place.
func samePath(x, y string) bool {
	if filepath.Clean(x) == filepath.Clean(y) {
		return true
	}
	xs, err := os.Stat(x)
	if err != nil {
		return false
	}
	ys, err := os.Stat(y)
	return err == nil && os.SameFile(xs, ys)
}

// cleanUp removes the namespace of the host ends and the sockets' names, unless
// something is still attached.
func cleanUp(o Options) error {
	n, err := attachedIn(stateFile(o.StateDir))
	if err != nil || n > 0 {
		return err
	}
	dir := runDir(o.RunDir)
	if err := refuseStrangers(dir, o.StateDir); err != nil {
		return err
	}
	for _, path := range []string{dir.counters(), dir.connections(), dir.connections() + besideConns, dir.dataplaneSocket(), dataplane.SparePath(dir.dataplaneSocket()), dir.apiSocket()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := veth.DeleteNetNS(dir.hostNS()); err != nil {
		return err
	}
	// The note goes last: as long as anything is here, it says whose it is.
	if err := os.Remove(dir.stateNote()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// attachedIn counts the attachments of containers in a state file, which is not made.
func attachedIn(path string) (int, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	s, err := openStore(path)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	st, err := s.read()
	if err != nil {
		return 0, err
	}
	return st.containers(), nil
}

// refuseStrangers refuses to go on if the host namespace has pairs, which the
// state file just looked at does not know: somebody uses them.
func refuseStrangers(dir runDir, stateDir string) error {
	ns, err := veth.OpenNetNS(dir.hostNS())
	if errors.Is(err, veth.ErrNoNetNS) || errors.Is(err, veth.ErrNotNetNS) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	ends, err := veth.HostEnds(ns)
	if err != nil || len(ends) == 0 {
		return err
	}
	return fmt.Errorf("%s has %d interfaces that %s does not know, and stays: is --state-dir right?",
		dir.hostNS(), len(ends), stateFile(stateDir))
}

// stopPlane ends the dataplane at the end of an agent that was asked to.
func (a *Agent) stopPlane() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	return a.plane.Stop(ctx)
}
