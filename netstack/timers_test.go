// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// TestTimers: each is called once, not before its time, in whatever slot it is.
func TestTimers(t *testing.T) {
	c := newTimers()
	start := time.Now()
	type call struct{ want, got time.Duration }
	calls := make(chan call, 64)
	delays := []time.Duration{-1, 0, time.Millisecond, slotTime, 3 * slotTime, 100 * time.Millisecond, 300 * time.Millisecond}
	for _, d := range delays {
		c.AfterFunc(d, func() { calls <- call{d, time.Since(start)} })
	}
	for range delays {
		select {
		case k := <-calls:
			if k.got < k.want {
				t.Errorf("one of %v was called after %v", k.want, k.got)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("not called")
		}
	}
	select {
	case k := <-calls:
		t.Errorf("called again: %+v", k)
	case <-time.After(5 * slotTime):
	}
}

// TestTimersStop: what is stopped is not called, what is set anew is called then.
func TestTimersStop(t *testing.T) {
	c := newTimers()
	var calls atomic.Int32
	again := make(chan struct{})
	stopped := c.AfterFunc(2*slotTime, func() { calls.Add(1) })
	for _, d := range []time.Duration{math.MaxInt64, time.Hour, numSlots * slotTime} {
		c.AfterFunc(d, func() { calls.Add(1) })
	}
	late := c.AfterFunc(time.Hour, func() { close(again) })
	if !stopped.Stop() || stopped.Stop() {
		t.Error("it is stopped once")
	}
	late.Reset(4 * slotTime)
	select {
	case <-again:
	case <-time.After(10 * time.Second):
		t.Fatal("not called")
	}
	if late.Stop() {
		t.Error("it has been called")
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d were called before their time", n)
	}
	late.Reset(0) // a close of what is closed would panic, so it is stopped at once
	late.Stop()
}

// fastClock is ahead of another.
type fastClock struct {
	tcpip.Clock
	ahead time.Duration
}

// NowMonotonic implements tcpip.Clock.
func (c *fastClock) NowMonotonic() tcpip.MonotonicTime { return c.Clock.NowMonotonic().Add(c.ahead) }

// TestTimersLeaveFar: a slot is met every time around, and what is for a later time stays.
func TestTimersLeaveFar(t *testing.T) {
	c := newTimers()
	var calls atomic.Int32
	c.AfterFunc((numSlots+2)*slotTime, func() { calls.Add(1) })
	clock := &fastClock{Clock: c.Clock}
	c.Clock = clock
	clock.ahead = 4 * slotTime // the slot's first time
	if n := len(c.due()); n != 0 {
		t.Errorf("%d of %v are due", n, (numSlots+2)*slotTime)
	}
	clock.ahead = 3 * numSlots * slotTime // as if it had slept
	if n := len(c.due()); n != 1 {
		t.Errorf("%d are due, want 1", n)
	}
}
