// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice/bridge"
	"sluice/dns"
	"sluice/neigh"
	"sluice/proxy"
	"sluice/trace"
)

// ErrClosed is returned by what is called on a Netstack after Close, or on a
// namespace that is gone.
var ErrClosed = errors.New("netstack is closed")

const (
	// maxWorkers bounds Options.Workers; each one has some 6 MB of frame
	// buffers when it is busy with 64 KB frames.
	maxWorkers = 64
	// defaultFlowEntries is the size of a worker's flow cache, 2.5 MB.
	defaultFlowEntries = 16384
	// privateSlots is the number of counter slots when none are given.
	privateSlots = 4096
)

// Options configure a Netstack. The zero value is usable.
type Options struct {
	// Workers is the number of worker threads, 1 to 64. 0 means one for each
	// CPU that the process may use. A busy worker does not yield: a process with
	// sockets in a host stack wants GOMAXPROCS at two or more above Workers, or
	// their goroutines wait up to 10 ms for one to be preempted.
	Workers int
	// Counters is where the ports are counted, by their index. It must outlive
	// the Netstack. nil means private memory with 4096 slots.
	Counters *trace.Counters
	// FlowEntries is the size of each worker's flow cache. 0 means 16384.
	FlowEntries int
	// BusyPoll is how long at most a worker looks for more frames before it
	// sleeps, while sleeping would be short anyway. It lets others have the CPU
	// first. 0 means 50 microseconds, less than 0 that it sleeps at once.
	BusyPoll time.Duration
	// PortDown is called when a port's fd reports an error on receive, at least
	// once after the last error. It is called by one goroutine, without any
	// lock held, and may call Apply but not Close. nil means that nobody wants to know.
	PortDown func(index uint16)
	// Learned is called, as PortDown is, when a device was told something by its link,
	// see Namespace.Learned. It must not call Apply or Close.
	Learned func()
	// RuleLogged is called, as Learned is, when there are lines of log statements after
	// RuleLogs has taken all.
	RuleLogged func()
	// Connections is the file of connections (conntrack.CreateFile). It is mapped by
	// the first Apply with a namespace that tracks them: from then on no other process
	// may work on it. It must outlive the Netstack. nil means private memory.
	Connections *os.File
	// Dialer makes the sockets of socket uplinks. nil: there can be none.
	Dialer proxy.Dialer
	// Connects says that this process may connect sockets, and so asks for such ones.
	Connects bool
	// HostDNS carries queries of containers to upstreams that are asked from the host
	// (dns.Upstream). nil: nobody does.
	HostDNS dns.Transport
	// Log is for what happens on the control path. nil means nothing is logged.
	Log *slog.Logger
}

// Netstack is a set of namespaces and the workers that serve them. Its methods
// are safe for any goroutine.
type Netstack struct {
	opts    Options
	workers []*worker // immutable after New
	rings   rings     // guarded by all turn locks; nil until a port has queues
	start   time.Time
	since   func(time.Time) time.Duration // time.Since, unless a test stops the time

	view atomic.Pointer[view] // never nil
	tick atomic.Uint32        // bridge.Tick: the seconds since start
	boot atomic.Int64         // seconds of CLOCK_BOOTTIME, as of this second
	// learned says that a device was told something.
	learned signal
	logged  logged         // by rules
	down    *downPorts     // ports to report
	done    chan struct{}  // closed when the Netstack is to end
	wg      sync.WaitGroup // workers and housekeeping

	serial atomic.Int32 // of the newest socket

	conns   atomic.Pointer[Connections] // nil: there are none
	standby atomic.Pointer[Connections] // mapped, not opened; nil: there are none

	closing sync.Once

	mu sync.Mutex // serialises Apply and Close
	// +checklocks:mu
	closed bool
}

// New starts a Netstack without a namespace: the workers run and sleep.
func New(o Options) (*Netstack, error) {
	n, err := build(o)
	if err != nil {
		return nil, err
	}
	for _, w := range n.workers {
		n.wg.Go(w.run)
	}
	n.wg.Go(n.keepHouse)
	return n, nil
}

// build makes a Netstack whose workers do not run: a test does their rounds.
func build(o Options) (*Netstack, error) {
	o.setDefaults()
	n := &Netstack{opts: o, start: time.Now(), since: time.Since, done: make(chan struct{}), down: newDownPorts(), learned: make(signal, 1)}
	n.logged.bell = make(signal, 1)
	n.boot.Store(int64(bootSeconds()))
	n.view.Store(new(view))
	for i := range o.Workers {
		w, err := newWorker(n, i)
		if err != nil {
			n.freeWorkers()
			return nil, fmt.Errorf("worker %d: %w", i, err)
		}
		n.workers = append(n.workers, w)
	}
	return n, nil
}

func (o *Options) setDefaults() {
	if o.Workers <= 0 {
		o.Workers = runtime.NumCPU()
	}
	o.Workers = min(o.Workers, maxWorkers)
	if o.Counters == nil {
		o.Counters = trace.NewCounters(privateSlots)
	}
	if o.FlowEntries <= 0 {
		o.FlowEntries = defaultFlowEntries
	}
	if o.BusyPoll == 0 {
		o.BusyPoll = defaultBusyPoll
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Close ends everything: the workers, the host stacks and their connections. It
// closes the fds that Apply took over. It returns when all of it is gone, and
// may be called again.
func (n *Netstack) Close() { n.closing.Do(n.close) }

// close does not hold mu while it waits: PortDown, which it waits for, may be in
// Apply, which now returns ErrClosed.
func (n *Netstack) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	if c := n.standby.Swap(nil); c != nil {
		_ = c.mapped.Close()
	}
	close(n.done)
	for _, w := range n.workers {
		w.mail.stop()
	}
	n.wg.Wait()
	old := n.view.Swap(new(view))
	for _, s := range old.sockets() {
		s.close()
	}
	for _, s := range old.spaces {
		s.ns.close()
		for _, o := range s.outsides {
			o.close()
		}
	}
	n.freeWorkers()
	if c := n.conns.Swap(nil); c != nil {
		_ = c.table.Close()
	}
}

// freeWorkers releases what workers that do not run hold.
func (n *Netstack) freeWorkers() {
	for _, w := range n.workers {
		w.free()
	}
}

// Generation is that of the last snapshot that was applied; 0 before.
func (n *Netstack) Generation() uint64 { return n.view.Load().generation }

// Namespace returns the namespace of that name, nil if there is none. It stays
// usable until a snapshot without it is applied.
func (n *Netstack) Namespace(name string) *Namespace {
	if s := n.view.Load().spaces[name]; s != nil {
		return s.ns
	}
	return nil
}

// worker returns the one that serves the port or bridge of this index. Indices
// are handed out one after the other, so that this spreads them evenly; a
// smarter rule has its place here.
func (n *Netstack) worker(index uint16) *worker {
	return n.workers[int(index)%len(n.workers)]
}

// keepHouse does once a second what needs a clock, so that no worker reads one:
// it advances the tick, ages the FDBs and collects what the kernel dropped. And
// it reports ports that are down, as soon as they are.
func (n *Netstack) keepHouse() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-n.done:
			return
		case <-n.down.ready:
			n.down.report(n.opts.PortDown)
		case <-n.learned:
			if n.opts.Learned != nil {
				n.opts.Learned()
			}
		case <-n.logged.bell:
			if n.opts.RuleLogged != nil {
				n.opts.RuleLogged()
			}
		case <-t.C:
			n.everySecond()
		}
	}
}

// elapsed is the time that the Netstack has run.
func (n *Netstack) elapsed() time.Duration { return n.since(n.start) }

func (n *Netstack) everySecond() {
	since := n.elapsed()
	now := bridge.Tick(since / time.Second)
	n.tick.Store(uint32(now))
	n.boot.Store(int64(bootSeconds()))
	for _, s := range n.view.Load().spaces {
		for _, net := range s.networks {
			net.bridge.Expire(now)
			net.advertise(uint32(now))
			net.inquire(n)
			net.question()
		}
		s.router.Tick(neigh.Tick(now), int64(since), &outlet{space: s})
		s.ns.host.everySecond()
		if s.rules != nil {
			s.rules.everySecond(since)
		}
		for _, r := range s.own {
			r.everySecond(since)
		}
		for _, o := range s.outsides {
			o.proxy.Tick(uint32(now))
		}
	}
	if c := n.conns.Load(); c != nil {
		c.everySecond()
		n.view.Load().unanswered(c, neigh.Tick(now), int64(since))
	}
	n.follow()
	n.collectOverruns()
}

// collectOverruns adds what the kernel dropped before it was read. The fds stay
// open meanwhile, since Apply closes them under mu; if Apply or Close is busy it
// is left for the next second.
//
// +checklocksignore: the analysis does not know TryLock.
func (n *Netstack) collectOverruns() {
	if !n.mu.TryLock() {
		return
	}
	defer n.mu.Unlock()
	for _, s := range n.view.Load().sockets() {
		s.collectOverruns()
	}
}
