// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netns"

	"sluice/config"
	"sluice/dataplane"
	"sluice/fence"
	"sluice/trace"
	"sluice/uplink"
)

// counterSlots is the size of the table of port counters, 1024 bytes each, taken
// from tmpfs at once. Slot 0 is nobody's, so it bounds networks and attachments
// together to one less.
const counterSlots = 4096

// ErrNotRoot says that the agent lacks the privileges it cannot do without.
var ErrNotRoot = errors.New("sluiced must run as root, if only of a user namespace (unshare -Urm)")

// Options say where an agent keeps its things and how it runs its dataplane.
type Options struct {
	// RunDir and StateDir are made if need be. Empty: /run/sluice, /var/lib/sluice.
	RunDir   string
	StateDir string
	// Config is the path of a file of networks that is applied at every start,
	// before the first request is served. Empty: the networks stay as they were,
	// as they do when the file can't be applied, which Status then shows.
	Config string
	// Version is what Status shows.
	Version string
	// ConnEntries is how many connections there is room for in all namespaces, 256
	// bytes of tmpfs each. 0: conntrack.DefaultEntries. A dataplane that is adopted
	// keeps what it was started with.
	ConnEntries int
	// Workers is the number of packet threads. 0: one for each CPU. A dataplane
	// that is adopted keeps the number it was started with.
	Workers int
	// BusyPoll is how long at most an idle worker looks for more before it
	// sleeps. 0 is 50 microseconds, less than 0 not at all.
	BusyPoll time.Duration
	// NoSpare does without a second dataplane that stands by for the first one's death.
	NoSpare bool
	// ResolvConf is the resolv.conf(5) of the resolvers that containers' names are looked
	// up with. Empty: /etc/resolv.conf.
	ResolvConf string
	// LogLevel is the lowest level of what the dataplane logs.
	LogLevel slog.Level
	// Log takes the agent's log and the dataplane's. Nil: discard.
	Log *slog.Logger
	// Ready is called once, when requests are served. Nil: nobody asks.
	Ready func()
}

// setDefaults also makes both directories absolute: a mount point and a socket's
// name must mean the same to every process. Its error is that of getcwd(2).
func (o *Options) setDefaults() (err error) {
	if o.RunDir == "" {
		o.RunDir = "/run/sluice"
	}
	if o.StateDir == "" {
		o.StateDir = "/var/lib/sluice"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ResolvConf == "" {
		o.ResolvConf = resolvConf
	}
	if o.Ready == nil {
		o.Ready = func() {}
	}
	if o.RunDir, err = filepath.Abs(o.RunDir); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// Agent is one running agent. Its methods are safe for concurrent use.
type Agent struct {
	opts    Options
	dir     runDir
	log     *slog.Logger
	started time.Time
	lock    *os.File
	store   *store
	hostNS  netns.NsHandle
	// ownNS is the namespace that the daemon runs in, and host what uplinks need there,
	// under mu.
	ownNS netns.NsHandle
	host  *uplink.Host
	// undressed says which uplinks the host could not be dressed for when it was last
	// tried, by ID, and why. Replaced as a whole.
	undressed atomic.Pointer[map[string]string]
	// held are the ports of the host that are published, under mu. unheld says of which
	// namespaces some could not be held, and why. Replaced as a whole.
	held       map[uplink.Port]*os.File
	unheld     atomic.Pointer[map[string]string]
	counters   *trace.Counters
	plane      *plane
	sets       sets
	rulesets   rulesets
	watch      connWatch
	ruleWatch  ruleWatch
	traceWatch traceWatch
	resolvers  hostResolvers
	// shutdown tells Run to end; true: stop the dataplane too.
	shutdown chan bool
	// gone tells the reaper that a host end may have vanished.
	gone chan struct{}
	// failed tells the mender that an attachment has failed.
	failed chan struct{}
	// learned tells that the dataplane may have learned something.
	learned chan struct{}

	// ruleLogged tells that log statements of rulesets have spoken.
	ruleLogged chan struct{}
	// confirming tells that a ruleset waits to be confirmed.
	confirming chan struct{}

	// configErr is why the file of networks was not applied at the start. Nil: it
	// was, or another has been applied since.
	configErr atomic.Pointer[string]

	// life is held for reading while a request is worked on; who holds it for
	// writing knows that none is. Not for reading or answering requests, which a
	// client can make last as long as it likes.
	life sync.RWMutex
	// +checklocks:life
	ended bool

	dels dels

	mu sync.Mutex // serialises mutations
}

// Run is a whole agent's life: it takes over what an earlier one left, serves
// until the context is done or a client asks it to end, and leaves the dataplane
// forwarding unless that client asked otherwise. Errors: ErrNotRoot, ErrLocked,
// those of the system.
func Run(ctx context.Context, o Options) error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	if err := o.setDefaults(); err != nil {
		return err
	}
	a, err := open(o)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.restore(ctx); err != nil {
		return err
	}
	a.configure(ctx)
	a.cniLeft(ctx)
	return a.run(ctx)
}

// configure applies the file of networks. An error is told and no more: without a
// daemon nobody could detach what stands in the way, and what is recorded works.
func (a *Agent) configure(ctx context.Context) {
	if a.opts.Config == "" {
		return
	}
	c, err := config.Load(a.opts.Config)
	if err == nil {
		_, err = a.declare(ctx, c, false)
	}
	if err == nil {
		return
	}
	a.log.Error("configuration not applied, the networks stay as they were", "file", a.opts.Config, "err", err)
	text := fmt.Sprintf("%s: %v", a.opts.Config, err)
	a.configErr.Store(&text)
}

// open takes the directories and opens what is in them. Nothing is changed in
// the kernel but the host namespace, which is made if need be.
func open(o Options) (_ *Agent, err error) {
	a := &Agent{
		opts: o, dir: runDir(o.RunDir), log: o.Log, started: time.Now(), hostNS: netns.None(), ownNS: netns.None(),
		shutdown: make(chan bool, 1), gone: make(chan struct{}, 1), failed: make(chan struct{}, 1), learned: make(chan struct{}, 1), confirming: make(chan struct{}, 1), ruleLogged: make(chan struct{}, 1),
		held: make(map[uplink.Port]*os.File),
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.lock, err = a.dir.lockSoon(); err != nil {
		return nil, err
	}
	if a.ownNS, err = openOwnNS(); err != nil {
		return nil, err
	}
	a.host = uplink.NewHost(a.ownNS)
	if err = a.dir.belongsTo(o.StateDir); err != nil {
		return nil, err
	}
	if err = makePrivate(o.StateDir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if a.store, err = openStore(stateFile(o.StateDir)); err != nil {
		return nil, err
	}
	if err = a.dir.noteState(o.StateDir); err != nil {
		return nil, err
	}
	if a.hostNS, err = openHostNS(a.dir); err != nil {
		return nil, err
	}
	a.plane = &plane{log: o.Log, sockets: newSockets(), events: a.consume, relay: a.relay, noSpare: o.NoSpare, doors: newDoors(o.Log)}
	a.plane.dialler.fence = fence.Local()
	if err := a.plane.dialler.fence.Load(); err != nil {
		o.Log.Info("each connection by a socket uplink is dialled by the agent", "err", err)
	}
	a.plane.counted.path = a.dir.counted()
	a.plane.counted.load()
	a.plane.start = dataplane.StartConfig{
		Connects: a.plane.dialler.fence.Loaded(),
		Listen:   a.dir.dataplaneSocket(), Workers: o.Workers, BusyPoll: o.BusyPoll, LogLevel: o.LogLevel,
	}
	return a, nil
}

// close releases everything that belongs to this process and changes nothing
// else. It may be called on an agent that is half open.
func (a *Agent) close() {
	closeHeld(a.held)
	if a.plane != nil {
		a.plane.doors.close()
		a.plane.Close()
	}
	if a.counters != nil {
		_ = a.counters.Close()
	}
	if a.plane != nil && a.plane.start.Counters != nil {
		_ = a.plane.start.Counters.Close()
	}
	if a.plane != nil && a.plane.start.Connections != nil {
		_ = a.plane.start.Connections.Close()
	}
	if a.hostNS.IsOpen() {
		_ = a.hostNS.Close()
	}
	if a.ownNS.IsOpen() {
		_ = a.ownNS.Close()
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
	wg.Go(func() { a.mend(ctx) })
	wg.Go(func() { a.tend(ctx) })
	wg.Go(func() { a.learn(ctx) })
	wg.Go(func() { a.keepCounted(ctx) })
	wg.Go(func() { a.unconfirmed(ctx) })
	wg.Go(func() { a.ruleLogs(ctx) })
	a.log.Info("serving", "socket", a.dir.apiSocket())
	a.opts.Ready()
	stopPlane, err := a.serve(ctx, listener)
	cancel()
	wg.Wait()
	a.finish()
	if stopPlane {
		err = errors.Join(err, a.stopPlane(), a.lowerAll())
	}
	a.log.Info("ended", "dataplane_goes_on", !stopPlane)
	return err
}
