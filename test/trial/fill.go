// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"strconv"
	"strings"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// filler keeps a number of connections in the table: segments of TCP from the middle
// of connections to nobody, which live for five minutes without an answer.
type filler struct {
	w       *Way
	from    *lab.NS
	entries int
	args    []string
	since   time.Time // of the last time that all were sent
}

// fresh is for how long they are left alone.
const fresh = 2 * time.Minute

// newFiller makes as many as entries, and waits until they are there.
func newFiller(w *Way, from *lab.NS, entries int) *filler {
	w.blackhole()
	mac := w.gateway(from)
	f := &filler{w: w, from: from, entries: entries}
	f.args = []string{
		"fan", "-tcp", "-i", from.If(), "-via", mac, "-from", from.IP(lab.V4).String(), "-to", nowhere, "-flows", strconv.Itoa(entries),
	}
	f.fill()
	return f
}

// fill sends a segment of each, until all are in the table.
func (f *filler) fill() {
	start := time.Now()
	for range 10 {
		lab.Report[report.Rate](f.from.Traffic(f.args...), 5*time.Minute)
		if f.w.Connections() >= f.entries {
			f.since = start
			return
		}
	}
	f.w.Fail("%d connections in the table, want %d", f.w.Connections(), f.entries)
}

// keep fills again when it is time, and reports whether it was.
func (f *filler) keep() bool {
	if f == nil || time.Since(f.since) < fresh {
		return false
	}
	f.fill()
	return true
}

// Connections is how many there are in the table.
func (w *Way) Connections() int {
	r := w.Daemon.CLI("conntrack", "-C")
	n, _ := strconv.Atoi(strings.TrimSpace(r.Out))
	return n
}
