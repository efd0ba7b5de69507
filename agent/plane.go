// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/api"
	"sluice/dataplane"
	"sluice/netstack"
)

// Times of the supervision.
const (
	// pingEvery and pingTimeout find a dataplane that lives but does not answer.
	// The time-out is generous: a loaded machine must not look like a frozen
	// process, since the cure costs a restart.
	pingEvery   = time.Second
	pingTimeout = 3 * time.Second
	// applyTimeout bounds one configuration of the dataplane.
	applyTimeout = 10 * time.Second
	// steady is how long a dataplane must have lived for its death to be no part
	// of a crash loop: it is replaced at once.
	steady = 5 * time.Second
	// backoffFirst is the pause after a second young death in a row, for one may
	// be bad luck; it doubles with every further one, up to backoffMost.
	backoffFirst = 50 * time.Millisecond
	backoffMost  = 2 * time.Second
)

// errPlaneDown is what a caller is told while there is no dataplane.
var errPlaneDown = errors.New("the dataplane is down and is being restarted")

// plane keeps one dataplane running and holds what it was last told, so that a
// replacement can be told the same.
//
// Whoever finds the dataplane dead replaces it: usually the supervisor, which is
// woken by its end, sometimes a caller of Apply that is faster.
type plane struct {
	start   dataplane.StartConfig
	log     *slog.Logger
	sockets *sockets
	events  func(*dataplane.Client) // consumes a client's events until it is done
	relay   func(*dataplane.Client) // asks resolvers for it until then; nil: nobody does

	// client is the connection, nil while there is no dataplane. Queries use it
	// without a lock; it is replaced under mu.
	client atomic.Pointer[dataplane.Client]
	// info is for Status, replaced as a whole under mu.
	info    atomic.Pointer[planeInfo]
	dialler dialler
	// counted is what rulesets remember, for a dataplane that begins.
	counted counted
	doors   *doors

	mu sync.Mutex
	// +checklocks:mu
	want *netstack.Snapshot
	// +checklocks:mu
	crash crashLoop
	// +checklocks:mu
	spare *dataplane.Spare // nil: there is none; by setSpare
	// sparePID is for Status.
	sparePID atomic.Int64

	noSpare   bool
	starting  atomic.Bool    // a spare
	spares    sync.WaitGroup // the same
	nextSpare atomic.Int64   // UnixNano before which none is started
}

// planeInfo is what is known about the dataplane without asking it. Immutable.
type planeInfo struct {
	adopted  bool
	restarts int
	gap      time.Duration // of the last replacement
	backoff  bool          // waits before the next try
}

// crashLoop decides how long to wait before the next start. The zero value
// starts at once.
type crashLoop struct {
	delay   time.Duration // before the next start; 0: at once
	down    time.Time     // since when there is none; zero: there is one
	tried   time.Time     // when the last start failed, or down
	started time.Time     // when the present or last one began to forward
	young   bool          // the last one died before it was steady
}

// died takes note that there is no dataplane at a time.
func (c *crashLoop) died(now time.Time) {
	if !c.down.IsZero() {
		return
	}
	c.down = now
	again := c.young
	c.young = now.Sub(c.started) < steady
	if c.young && again {
		c.failed(now)
		return
	}
	c.delay, c.tried = 0, now
}

// failed takes note that a start failed, or that its result died young.
func (c *crashLoop) failed(now time.Time) {
	c.delay, c.tried = min(max(2*c.delay, backoffFirst), backoffMost), now
}

// ready returns how long to wait until the next start may be tried.
func (c *crashLoop) ready(now time.Time) time.Duration {
	return max(0, c.tried.Add(c.delay).Sub(now))
}

// forwards takes note of a new dataplane and returns how long there was none.
func (c *crashLoop) forwards(now time.Time) (gap time.Duration) {
	if !c.down.IsZero() {
		gap = now.Sub(c.down)
	}
	c.down, c.started = time.Time{}, now
	return gap
}

// alive says whether a client has a process behind it.
func alive(c *dataplane.Client) bool {
	if c == nil {
		return false
	}
	select {
	case <-c.Done():
		return false
	default:
		return true
	}
}

// Apply tells the dataplane a new snapshot, and the sockets of its new ports.
// All or nothing: when it fails, the old snapshot holds, also for a dataplane
// that replaces this one, and the caller keeps the files. When it succeeds it
// owns them, and has closed those of ports that are gone.
func (p *plane) Apply(ctx context.Context, s *netstack.Snapshot, files map[uint16]*os.File) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialler.allow(s)
	if err := p.tell(ctx, s, files); err != nil {
		p.dialler.allow(p.want)
		return err
	}
	p.want = s
	p.sockets.add(files)
	p.sockets.keep(portSet(s))
	return nil
}

// numbers are those of the ports and devices that the dataplane was told last.
func (p *plane) numbers() map[uint16]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := portSet(p.want)
	if p.want == nil {
		return out
	}
	for _, ns := range p.want.Namespaces {
		for i := range ns.Networks {
			out[ns.Networks[i].Bridge.Index] = true
		}
		for _, l := range ns.Links {
			out[l.Index] = true
		}
		for i := range ns.Sockets {
			out[ns.Sockets[i].Index] = true
		}
		for _, v := range ns.VRFs {
			out[v.Index] = true
		}
	}
	return out
}

// Withdraw tells the dataplane a snapshot that only takes ports away. It holds
// even if there is nobody to hear it now: whoever comes next is told. Hence its
// error is for the log only.
func (p *plane) Withdraw(ctx context.Context, s *netstack.Snapshot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want = s
	p.dialler.allow(s)
	err := p.tell(ctx, s, nil)
	p.sockets.keep(portSet(s))
	return err
}

// tell applies a snapshot, and once more to a successor if the dataplane dies of
// something else meanwhile.
//
// +checklocks:p.mu
func (p *plane) tell(ctx context.Context, s *netstack.Snapshot, files map[uint16]*os.File) error {
	for range 2 {
		if err := p.ensure(ctx); err != nil {
			return err
		}
		c := p.client.Load()
		err := applyTo(ctx, c, s, files)
		if err == nil {
			p.recount(ctx, c)
			return nil
		}
		if refused, ok := errors.AsType[*dataplane.RefusedError](err); ok {
			return refused
		}
		// Whether it took the snapshot is not known, so it must not go on.
		p.log.Warn("the dataplane failed while it was configured", "err", err)
		_ = c.Kill()
	}
	return unavailable(errPlaneDown)
}

// applyTo does not end with its caller: half a message would cost the dataplane
// its life.
func applyTo(ctx context.Context, c *dataplane.Client, s *netstack.Snapshot, files map[uint16]*os.File) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	return c.Apply(ctx, s, files)
}

func unavailable(err error) error {
	return &api.Error{Code: api.CodeUnavailable, Message: err.Error()}
}

// ensure makes sure that a dataplane runs and forwards by want. In a crash loop
// it waits, at most backoffMost, before it tries, unless one stands by; it tries once.
//
// +checklocks:p.mu
func (p *plane) ensure(ctx context.Context) error {
	if alive(p.client.Load()) {
		return nil
	}
	p.crash.died(time.Now())
	p.bury()
	if p.spare == nil { // else what a pause is to spare the machine has been done before
		pause(ctx, p.crash.ready(time.Now()))
	}
	if ctx.Err() != nil {
		return unavailable(errPlaneDown)
	}
	c, err := p.launch(ctx)
	if err != nil {
		p.crash.failed(time.Now())
		p.setBackoff(err)
		return unavailable(fmt.Errorf("the dataplane does not start: %w", err))
	}
	p.adopt(c, false)
	return nil
}

// bury makes sure that the last dataplane is gone: its connection can break while
// it goes on, and two must not work on the same sockets.
//
// +checklocks:p.mu
func (p *plane) bury() {
	old := p.client.Swap(nil)
	if old == nil {
		return
	}
	if err := old.Kill(); err != nil {
		p.log.Error("dataplane not killed", "pid", old.PID(), "err", err)
	}
	_ = old.Close()
}

// launch starts a dataplane and applies want.
//
// +checklocks:p.mu
func (p *plane) launch(ctx context.Context) (*dataplane.Client, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	c := p.promote(ctx)
	if c == nil {
		if err := p.load(); err != nil {
			return nil, err
		}
		var err error
		if c, err = dataplane.Start(ctx, p.start); err != nil {
			return nil, err
		}
	}
	p.counted.begin()
	if p.want == nil {
		return c, nil
	}
	if err := c.Apply(ctx, p.want, p.sockets.of(portSet(p.want))); err != nil {
		_ = c.Kill()
		_ = c.Close()
		return nil, err
	}
	p.recount(ctx, c)
	return c, nil
}

// recount tells a dataplane that has begun what rules had counted before.
func (p *plane) recount(ctx context.Context, c *dataplane.Client) {
	if err := p.counted.restore(context.WithoutCancel(ctx), c); err != nil {
		p.log.Warn("what rules have counted was not restored", "err", err)
	}
}

// load copies the program: once, not for each replacement.
//
// +checklocks:p.mu
func (p *plane) load() (err error) {
	if p.start.Program == nil {
		p.start.Program, err = dataplane.LoadProgram(p.start.Exe)
	}
	return err
}

// adopt makes a client the present one.
//
// +checklocks:p.mu
func (p *plane) adopt(c *dataplane.Client, found bool) {
	gap := p.crash.forwards(time.Now())
	info := planeInfo{adopted: found}
	if old := p.info.Load(); old != nil {
		info.restarts, info.gap = old.restarts+1, gap
		p.log.Warn("dataplane replaced", "pid", c.PID(), "gap", gap, "restarts", info.restarts)
	}
	p.info.Store(&info)
	p.client.Store(c)
	go p.events(c)
	p.dialFor(c)
	if p.relay != nil {
		go p.relay(c)
	}
}

// setBackoff changes what Status says, and logs the change once.
//
// +checklocks:p.mu
func (p *plane) setBackoff(err error) {
	info := planeInfo{}
	if old := p.info.Load(); old != nil {
		info = *old
	}
	if !info.backoff {
		p.log.Error("the dataplane does not start; trying again with growing pauses", "err", err)
	}
	info.backoff = true
	p.info.Store(&info)
}

// supervise replaces the dataplane whenever it ends or freezes, until the
// context is done.
func (p *plane) supervise(ctx context.Context) {
	defer p.spares.Wait()
	for ctx.Err() == nil {
		if c := p.client.Load(); c != nil {
			p.guard(ctx, c)
		}
		if ctx.Err() == nil {
			p.revive(ctx)
		}
	}
}

// guard returns when the dataplane is gone or the context is done.
func (p *plane) guard(ctx context.Context, c *dataplane.Client) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.Done():
			p.log.Warn("dataplane ended", "pid", c.PID(), "err", c.Err())
			return
		case <-t.C:
		}
		p.standBy(ctx)
		if err := ping(ctx, c); err != nil && ctx.Err() == nil && alive(c) {
			p.log.Warn("dataplane does not answer, killing it", "pid", c.PID(), "err", err)
			_ = c.Kill()
		}
	}
}

func ping(ctx context.Context, c *dataplane.Client) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return c.Ping(ctx)
}

// revive tries once to have a dataplane. What went wrong is logged by ensure.
func (p *plane) revive(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.ensure(ctx)
}

// Stop ends the dataplane: nothing is forwarded afterwards. No supervisor may
// run any more.
func (p *plane) Stop(ctx context.Context) error {
	p.closeSpare()
	c := p.client.Load()
	if !alive(c) {
		return nil
	}
	if err := c.Stop(ctx); err != nil {
		p.log.Warn("the dataplane does not stop, killing it", "err", err)
		return c.Kill()
	}
	return nil
}

// Close lets the dataplane go on and releases what belongs to this agent.
func (p *plane) Close() {
	p.closeSpare()
	if c := p.client.Load(); c != nil {
		_ = c.Close()
	}
	if p.start.Program != nil {
		_ = p.start.Program.Close()
	}
	p.sockets.keep(nil)
}
