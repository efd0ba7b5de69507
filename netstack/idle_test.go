// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
)

// TestIdlePatience follows a worker's patience through what it may live through.
func TestIdlePatience(t *testing.T) {
	const us = time.Microsecond
	short := func(i *idle) { i.slept(100 * us) }
	long := func(i *idle) { i.slept(time.Millisecond) }
	times := func(n int, f func(*idle)) func(*idle) {
		return func(i *idle) {
			for range n {
				f(i)
			}
		}
	}
	for name, c := range map[string]struct {
		longest time.Duration
		past    []func(*idle)
		want    bool
	}{
		"switched off":              {-1, []func(*idle){short}, false},
		"first frame":               {50 * us, nil, false},
		"dense traffic":             {50 * us, []func(*idle){short}, true},
		"a frame a millisecond":     {50 * us, []func(*idle){short, long}, false},
		"in vain too often":         {50 * us, []func(*idle){short, times(tryCredit, (*idle).missed)}, false},
		"CPU lost too often":        {50 * us, []func(*idle){short, times(tryCredit/lostCredit, (*idle).lost)}, false},
		"one caught pays for three": {50 * us, []func(*idle){short, times(tryCredit-1, (*idle).missed), (*idle).caught, times(caughtCredit, (*idle).missed)}, true},
		"another try": {
			50 * us, []func(*idle){short, times(tryCredit, (*idle).missed), times(restSleeps, short)}, true,
		},
		"no other try yet": {
			50 * us, []func(*idle){short, times(tryCredit, (*idle).missed), times(restSleeps-1, short)}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIdle(c.longest)
			for _, f := range c.past {
				f(&i)
			}
			if i.lingers() != c.want {
				t.Errorf("lingers: %v, want %v; %+v", i.lingers(), c.want, i)
			}
		})
	}
}

// TestWorkerLingers shows that the patience reaches the worker: one that is in a
// hurry catches a frame that comes a moment later, without a sleep. Its patience lasts
// for longer than a busy machine keeps that moment, or the worker's CPU, from it.
func TestWorkerLingers(t *testing.T) {
	n, err := build(Options{Workers: 1, BusyPoll: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	far, near := socketPairs(t, 1)
	if err := n.Apply(&Snapshot{Generation: 1, Namespaces: []NamespaceSpec{alone(blue(1))}}, near); err != nil {
		t.Fatal(err)
	}
	w := n.workers[0]
	w.idle.slept(0)
	before := w.idle.credit
	time.AfterFunc(time.Millisecond, func() { _, _ = unix.Write(far[0], make([]byte, packet.VnetLen+packet.EthernetLen)) })
	if events := w.wait(); events != 1 || w.idle.credit <= before {
		t.Errorf("%d events, credit %d, had %d: the worker slept", events, w.idle.credit, before)
	}
}
