// SPDX-License-Identifier: Apache-2.0

package netstack

import "time"

// clock is the time of a round, read when somebody first asks for it.
type clock struct {
	since func(time.Time) time.Duration
	start time.Time
	now   time.Duration // since start
	read  bool
}

func (c *clock) time() time.Duration {
	if !c.read {
		c.now, c.read = c.since(c.start), true
	}
	return c.now
}

// wall is the time of day, in nanoseconds since 1970.
func (c *clock) wall() int64 { return c.start.UnixNano() + int64(c.time()) }
