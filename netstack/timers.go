// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"math"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// Theory of operation.
//
// gVisor's TCP lets timers expire that it needs no more: each connection has one or two, and
// with the clock that it has by itself each is a goroutine, for which a thread is woken. A
// short connection costs less than that. So the timers of an uplink's stack are kept in
// slots of some milliseconds, as those of the kernel's own TCP are, and all that are in a
// slot expire together. Nobody looks at slots that are empty.

const (
	// slotTime is how much too late a timer may be.
	slotTime = 8 * time.Millisecond
	// numSlots is how many of them there are. What is later than four seconds is met
	// before its time, and left there.
	numSlots = 512
)

// timers is a clock for a stack.
type timers struct {
	tcpip.Clock

	mu sync.Mutex
	// +checklocks:mu
	slots [numSlots]alarm // of each, the one before the first and after the last
	// +checklocks:mu
	done int64 // the last slot that has expired, counted from the start
	// +checklocks:mu
	next int64 // the slot for which timer is set
	// +checklocks:mu
	timer *time.Timer
}

// alarm is one timer. It is in a slot while it runs.
type alarm struct {
	of         *timers
	do         func()
	slot       int64
	prev, next *alarm // nil: it does not run
}

var (
	_ tcpip.Clock = (*timers)(nil)
	_ tcpip.Timer = (*alarm)(nil)
)

func newTimers() *timers {
	t := &timers{Clock: tcpip.NewStdClock(), next: math.MaxInt64}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.slots {
		s := &t.slots[i]
		s.prev, s.next = s, s
	}
	t.timer = time.AfterFunc(time.Hour, t.expire)
	t.timer.Stop()
	return t
}

// age is the time since the start.
func (t *timers) age() time.Duration { return t.NowMonotonic().Sub(tcpip.MonotonicTime{}) }

// AfterFunc implements tcpip.Clock. What is called may wait for no other timer.
func (t *timers) AfterFunc(d time.Duration, do func()) tcpip.Timer {
	a := &alarm{of: t, do: do}
	a.Reset(d)
	return a
}

// Reset implements tcpip.Timer.
func (a *alarm) Reset(d time.Duration) {
	t := a.of
	at := t.age() + max(d, 0)
	if at < 0 {
		at = math.MaxInt64 // for ever
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	a.leave()
	a.slot = max(int64(at/slotTime), t.done) + 1
	head := &t.slots[a.slot%numSlots]
	a.prev, a.next = head.prev, head
	a.prev.next, head.prev = a, a
	if a.slot < t.next {
		t.set(a.slot)
	}
}

// Stop implements tcpip.Timer.
func (a *alarm) Stop() bool {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	return a.leave()
}

// leave takes an alarm out of its slot, and reports whether it was in one.
// Preconditions: of.mu is held.
func (a *alarm) leave() bool {
	if a.next == nil {
		return false
	}
	a.prev.next, a.next.prev = a.next, a.prev
	a.prev, a.next = nil, nil
	return true
}

// set has that slot expire in its time.
//
// +checklocks:t.mu
func (t *timers) set(slot int64) {
	t.next = slot
	t.timer.Reset(time.Duration(slot)*slotTime - t.age())
}

// expire calls all whose time has come.
func (t *timers) expire() {
	for _, do := range t.due() {
		do()
	}
}

// due takes those out whose time has come, and sets the timer for the next ones.
func (t *timers) due() (all []func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := int64(t.age() / slotTime)
	for s := max(t.done+1, now-numSlots+1); s <= now; s++ {
		head := &t.slots[s%numSlots]
		for a := head.next; a != head; {
			next := a.next
			if a.slot <= now && a.leave() {
				all = append(all, a.do)
			}
			a = next
		}
	}
	t.done = max(t.done, now)
	t.next = math.MaxInt64
	for s := t.done + 1; s <= t.done+numSlots; s++ {
		if head := &t.slots[s%numSlots]; head.next != head {
			t.set(s)
			break
		}
	}
	return all
}
