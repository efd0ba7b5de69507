// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netns"

	"sluice/config"
	"sluice/dataplane"
	"sluice/trace"
)

// counterSlots is the size of the table of port counters, 1024 bytes each, taken
// from tmpfs at once. Slot 0 is nobody's, so it bounds networks and attachments
// together to one less.
const counterSlots = 4096

// ErrNotRoot says that the agent lacks the privileges it cannot do without.
var ErrNotRoot = errors.New("sluiced must run as root")

// Options say where an agent keeps its things and how it runs its dataplane.
type Options struct {
	// RunDir and StateDir are made if need be. Empty: /run/sluice, /var/lib/sluice.
	RunDir   string
	StateDir string
	// Config is the path of a file of networks that is applied at every start,
	// before the first request is served. Empty: the networks stay as they were.
	Config string
	// Version is what Status shows.
	Version string
	// Workers is the number of packet threads. 0: one for each CPU. A dataplane
	// that is adopted keeps the number it was started with.
	Workers int
	// BusyPoll is how long an idle worker looks for more before it sleeps. 0: not.
	BusyPoll time.Duration
	// LogLevel is the lowest level of what the dataplane logs.
	LogLevel slog.Level
	// Log takes the agent's log and the dataplane's. Nil: discard.
	Log *slog.Logger
	// Ready is called once, when requests are served. Nil: nobody asks.
	Ready func()
}

func (o *Options) setDefaults() {
	if o.RunDir == "" {
		o.RunDir = "/run/sluice"
	}
	if o.StateDir == "" {
		o.StateDir = "/var/lib/sluice"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		o.Ready = func() {}
	}
}

// Agent is one running agent. Its methods are safe for concurrent use.
type Agent struct {
	opts     Options
	dir      runDir
	log      *slog.Logger
	started  time.Time
	lock     *os.File
	store    *store
	hostNS   netns.NsHandle
	counters *trace.Counters
	plane    *plane
	// shutdown tells Run to end; true: stop the dataplane too.
	shutdown chan bool
	// gone tells the reaper that a host end may have vanished.
	gone chan struct{}

	mu sync.Mutex // serialises mutations
}

// Run is a whole agent's life: it takes over what an earlier one left, serves
// until the context is done or a client asks it to end, and leaves the dataplane
// forwarding unless that client asked otherwise. Errors: ErrNotRoot, ErrLocked,
// those of the configuration and of the system.
func Run(ctx context.Context, o Options) error {
	o.setDefaults()
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	var networks *config.Config
	if o.Config != "" {
		c, err := config.Load(o.Config)
		if err != nil {
			return err
		}
		networks = c
	}
	a, err := open(o)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.restore(ctx); err != nil {
		return err
	}
	if networks != nil {
		if _, err := a.declare(ctx, networks, false); err != nil {
			return fmt.Errorf("%s: %w", o.Config, err)
		}
	}
	return a.run(ctx)
}

// open takes the directories and opens what is in them. Nothing is changed in
// the kernel but the host namespace, which is made if need be.
func open(o Options) (_ *Agent, err error) {
	a := &Agent{
		opts: o, dir: runDir(o.RunDir), log: o.Log, started: time.Now(), hostNS: netns.None(),
		shutdown: make(chan bool, 1), gone: make(chan struct{}, 1),
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.lock, err = a.dir.lock(); err != nil {
		return nil, err
	}
	if err = os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if a.store, err = openStore(stateFile(o.StateDir)); err != nil {
		return nil, err
	}
	if a.hostNS, err = openHostNS(a.dir); err != nil {
		return nil, err
	}
	a.plane = &plane{log: o.Log, sockets: newSockets(), events: a.consume}
	a.plane.start = dataplane.StartConfig{
		Listen: a.dir.dataplaneSocket(), Workers: o.Workers, BusyPoll: o.BusyPoll, LogLevel: o.LogLevel,
	}
	return a, nil
}

// close releases everything that belongs to this process and changes nothing
// else. It may be called on an agent that is half open.
func (a *Agent) close() {
	if a.plane != nil {
		a.plane.Close()
	}
	if a.counters != nil {
		_ = a.counters.Close()
	}
	if a.plane != nil && a.plane.start.Counters != nil {
		_ = a.plane.start.Counters.Close()
	}
	if a.hostNS.IsOpen() {
		_ = a.hostNS.Close()
	}
	if a.store != nil {
		_ = a.store.Close()
	}
	if a.lock != nil {
		_ = a.lock.Close()
	}
}

// run serves, supervises and reaps until it is told to end.
func (a *Agent) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := listen(a.dir.apiSocket())
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { a.plane.supervise(ctx) })
	wg.Go(func() { a.watchLinks(ctx) })
	wg.Go(func() { a.reap(ctx) })
	a.log.Info("serving", "socket", a.dir.apiSocket())
	a.opts.Ready()
	stopPlane, err := a.serve(ctx, listener)
	cancel()
	wg.Wait()
	if stopPlane {
		err = errors.Join(err, a.stopPlane())
	}
	a.log.Info("ended", "dataplane_goes_on", !stopPlane)
	return err
}
