// SPDX-License-Identifier: Apache-2.0

package api

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Moment is a point in time that nobody moves by setting the clock: the time since the
// machine was started, and which start that was.
type Moment struct {
	Boot string        `json:"boot"`
	At   time.Duration `json:"at"`
}

// Now is this moment. Where the kernel tells no name of its start, all starts are one.
func Now() Moment {
	var at unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &at) != nil {
		return Moment{}
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return Moment{Boot: strings.TrimSpace(string(boot)), At: time.Duration(at.Nano())}
}

// After says whether m is known to be later than o; of two starts of the machine nothing
// is known.
func (m Moment) After(o Moment) bool { return m.Boot == o.Boot && m.At > o.At }
