// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"math"
	"time"
)

// Theory of operation.
//
// A thread that sleeps is woken late: its CPU has gone idle, or somebody else is
// on it. Between two containers that answer each other that happens twice in a
// round trip and costs more than everything else on the way. So a worker that
// has nothing to do lingers: it looks again for a short time before it sleeps.
// Between two looks it calls sched_yield(2), so that a container's process that
// could run goes first and lingering takes idle time only.
//
// It is done only where it pays, as halt polling of a virtual CPU is
// (halt_poll_ns of KVM):
//
//   - while traffic is dense. After a sleep that was long beside the time to
//     linger, the worker sleeps again at once: what comes once in a while finds
//     it asleep, and costs nothing.
//   - on credit. A frame that was caught earns some, time spent in vain costs
//     one, and time lost to somebody who wanted the CPU costs more. Without
//     credit the worker sleeps, and gets some for another try after a while.

const (
	// defaultBusyPoll is how long a worker lingers unless Options say otherwise:
	// longer than a process needs to answer, and short beside a time slice.
	defaultBusyPoll = 50 * time.Microsecond

	// dense is how many times as long as lingering a sleep may be if the traffic
	// is to count as dense.
	dense = 10

	maxCredit    = 64
	tryCredit    = 16  // given for a try
	caughtCredit = 4   // earned by a frame that was caught
	lostCredit   = 4   // cost of having lost the CPU
	restSleeps   = 256 // short sleeps between two tries
)

// idle is a worker's patience. It is made by newIdle.
type idle struct {
	longest time.Duration // how long to linger; 0 is not at all
	credit  int           // 0 to maxCredit
	rest    int           // short sleeps since the credit was used up
	hurried bool          // traffic is dense
}

// newIdle takes Options.BusyPoll; less than 0 is not at all.
func newIdle(longest time.Duration) idle {
	return idle{longest: max(0, longest), credit: tryCredit}
}

// lingers reports whether to look again before sleeping.
func (i *idle) lingers() bool { return i.hurried && i.credit > 0 }

// caught takes note of a frame that came meanwhile.
func (i *idle) caught() { i.credit = min(i.credit+caughtCredit, maxCredit) }

// missed takes note of time spent in vain, lost of a CPU that was wanted.
func (i *idle) missed() { i.credit-- }
func (i *idle) lost()   { i.credit = max(0, i.credit-lostCredit) }

// slept takes note of the length of a sleep.
func (i *idle) slept(d time.Duration) {
	i.hurried = d < dense*i.longest
	if !i.hurried || i.credit > 0 {
		return
	}
	if i.rest++; i.rest == restSleeps {
		i.rest, i.credit = 0, tryCredit
	}
}

// wait returns the number of events in w.poll.events, which may be 0: then a
// host link has packets, or the worker is to stop.
func (w *worker) wait() int {
	n := w.poll.now()
	if n > 0 || !w.mail.quiet() {
		return n
	}
	if w.due != math.MaxInt64 {
		return w.await()
	}
	if w.idle.longest == 0 {
		return w.sleep()
	}
	start := time.Now()
	if w.idle.lingers() {
		if n, start = w.linger(start); n > 0 || !w.mail.quiet() {
			return n
		}
	}
	n = w.sleep()
	w.idle.slept(time.Since(start))
	return n
}

// linger looks again until something came or the time is up, and returns the
// number of events and the time when it ended.
func (w *worker) linger(start time.Time) (n int, now time.Time) {
	for last := start; ; last = now {
		yield()
		n, now = w.poll.now(), time.Now()
		switch {
		case now.Sub(last) > w.idle.longest:
			w.idle.lost()
			return n, now
		case n > 0 || !w.mail.quiet():
			w.idle.caught()
			return n, now
		case now.Sub(start) > w.idle.longest:
			w.idle.missed()
			return 0, now
		}
	}
}

// spin is how long before a queue's time the worker stays awake: to sleep and wake takes
// as long.
const spin = 20 * time.Microsecond

// await waits for events until a queue's time has come. It doesn't yield: whoever then
// got the CPU would keep it for a time slice, some milliseconds, and who sleeps is let
// in before others when the time has come.
func (w *worker) await() (n int) {
	left := time.Duration(w.due) - time.Since(w.net.start)
	if left > spin {
		return w.nap(left)
	}
	for left > 0 && n == 0 && w.mail.quiet() {
		n = w.poll.now()
		left = time.Duration(w.due) - time.Since(w.net.start)
	}
	return n
}

// nap is sleep for no longer than d.
func (w *worker) nap(d time.Duration) int {
	w.mail.sleeping.Store(true)
	defer w.mail.sleeping.Store(false)
	if !w.mail.quiet() {
		return 0
	}
	return w.poll.blockFor(d)
}

// longestRest is how long a sleep may be that the scheduler does not know of. Who is to
// stop the world, as the garbage collector does, ends it by a signal. It is longer than
// the kernel's tick: to set a timer that is the next one of its processor, and to take it
// back, takes longer than all else that a sleep costs in a virtual machine.
const longestRest = 10 * time.Millisecond

// sleep waits until there is something to do.
func (w *worker) sleep() int {
	w.mail.sleeping.Store(true)
	defer w.mail.sleeping.Store(false)
	if !w.mail.quiet() {
		return 0
	}
	if w.idle.hurried {
		if n := w.poll.rest(); n > 0 || !w.mail.quiet() {
			return n
		}
	}
	return w.poll.block()
}
