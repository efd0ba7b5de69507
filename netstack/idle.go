// SPDX-License-Identifier: Apache-2.0

package netstack

import "time"

// Theory of operation.
//
// A thread that sleeps is woken late: the CPU has gone idle, or somebody else
// is on it. Between two containers that answer each other that happens twice in
// a round trip and costs more than everything else on the way. So a worker that
// has nothing to do looks again for a short time before it sleeps. Between two
// looks it calls sched_yield(2): a container's process that could run goes
// first, so polling takes idle time only.
//
// How long it polls, its window, follows what polling would have brought, as
// halt polling of a virtual CPU does (halt_poll_ns of KVM): a sleep that was
// shorter than the longest window doubles the window, a longer one halves it.
// Traffic that comes once in a while therefore finds a worker that sleeps at
// once, and a busy exchange one that is awake.

// defaultBusyPoll is the longest window unless Options say otherwise: longer
// than a process needs to answer, and short beside a time slice.
const defaultBusyPoll = 50 * time.Microsecond

// minWindow is the shortest window but none at all.
const minWindow = 5 * time.Microsecond

// idle is a worker's patience. Zero sleeps at once, always.
type idle struct {
	longest time.Duration // bound of window
	window  time.Duration // how long to poll now; 0 is not at all
}

// newIdle takes Options.BusyPoll.
func newIdle(longest time.Duration) idle { return idle{longest: max(0, longest)} }

// slept adapts the window to a sleep of that length.
func (i *idle) slept(d time.Duration) {
	if d < i.longest {
		i.window = min(max(2*i.window, minWindow), i.longest)
		return
	}
	i.window /= 2
	if i.window < minWindow {
		i.window = 0
	}
}

// wait returns the number of events in w.poll.events, which may be 0: then a
// host link has packets, or the worker is to stop.
func (w *worker) wait() int {
	n := w.poll.now()
	if n > 0 || !w.mail.quiet() {
		return n
	}
	if w.idle.longest == 0 {
		return w.sleep()
	}
	start := time.Now()
	if n = w.linger(start); n > 0 || !w.mail.quiet() {
		return n
	}
	start = time.Now()
	n = w.sleep()
	w.idle.slept(time.Since(start))
	return n
}

// linger polls for the length of the window.
func (w *worker) linger(start time.Time) int {
	for time.Since(start) < w.idle.window {
		yield()
		if n := w.poll.now(); n > 0 || !w.mail.quiet() {
			return n
		}
	}
	return 0
}

// sleep waits until there is something to do.
func (w *worker) sleep() int {
	w.mail.sleeping.Store(true)
	defer w.mail.sleeping.Store(false)
	if !w.mail.quiet() {
		return 0
	}
	return w.poll.block()
}
