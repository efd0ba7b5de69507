// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
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
func Stop(ctx context.Context, o Options) error {
	o.setDefaults()
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	dir := runDir(o.RunDir)
	if _, err := os.Stat(o.RunDir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	client := api.NewClient(dir.apiSocket())
	defer client.Close()
	err := client.Shutdown(ctx, &api.ShutdownRequest{Dataplane: true})
	if err != nil && !errors.Is(err, api.ErrDaemonDown) {
		return err
	}
	lock, err := waitLock(ctx, dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := stopOrphan(ctx, dir); err != nil {
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

// stopOrphan ends a dataplane that has no agent.
func stopOrphan(ctx context.Context, dir runDir) error {
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

// cleanUp removes the namespace of the host ends and the sockets' names, unless
// something is still attached.
func cleanUp(o Options) error {
	s, err := openStore(stateFile(o.StateDir))
	if err != nil {
		return err
	}
	defer s.Close()
	st, err := s.read()
	if err != nil || len(st.attachments) > 0 {
		return err
	}
	dir := runDir(o.RunDir)
	for _, path := range []string{dir.counters(), dir.dataplaneSocket(), dir.apiSocket()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return veth.DeleteNetNS(dir.hostNS())
}

// stopPlane ends the dataplane at the end of an agent that was asked to.
func (a *Agent) stopPlane() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	return a.plane.Stop(ctx)
}
