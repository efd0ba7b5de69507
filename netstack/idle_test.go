// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"testing"
	"time"
)

// TestIdle follows the window through what a worker may live through.
func TestIdle(t *testing.T) {
	const us = time.Microsecond
	for name, c := range map[string]struct {
		longest time.Duration
		sleeps  []time.Duration
		want    time.Duration
	}{
		"never polls":             {-1, []time.Duration{us, us, us}, 0},
		"starts asleep":           {50 * us, nil, 0},
		"one short sleep":         {50 * us, []time.Duration{20 * us}, minWindow},
		"doubles":                 {50 * us, []time.Duration{us, us, us}, 4 * minWindow},
		"is bounded":              {50 * us, []time.Duration{us, us, us, us, us, us}, 50 * us},
		"halves":                  {50 * us, []time.Duration{us, us, us, 50 * us}, 2 * minWindow},
		"gives up":                {50 * us, []time.Duration{us, us, us, time.Second, time.Second, time.Second}, 0},
		"traffic once in a while": {50 * us, []time.Duration{time.Millisecond, time.Millisecond}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIdle(c.longest)
			for _, d := range c.sleeps {
				i.slept(d)
			}
			if i.window != c.want {
				t.Errorf("window %v, want %v", i.window, c.want)
			}
		})
	}
}
