// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"strconv"
	"strings"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// filler keeps a number of connections in the table: of TCP, from the middle, to nobody.
// The world answers each of them once, and hears of them once more, so that they are
// established and live for five days: with nothing behind the answer it would be minutes.
type filler struct {
	w             *Way
	from          *lab.NS
	entries       int      // 2 % more than are wanted
	there, answer []string // commands that send a segment of each
}

// newFiller makes as many as entries, and some, and waits until they are there.
func newFiller(w *Way, from *lab.NS, entries int) *filler {
	w.blackhole()
	from.Run("ip", "route", "add", "blackhole", nowhere+"/32") // its kernel would answer with resets
	var up []api.Uplink
	w.Daemon.CLI("-s", "uplink", "-o", "json").JSON(&up)
	out := ""
	for _, u := range up {
		for _, p := range u.Addresses {
			if p.Addr().Is4() {
				out = p.Addr().String()
			}
		}
	}
	fan := func(ifname, via, src, dst string, more ...string) []string {
		return append([]string{"fan", "-tcp", "-i", ifname, "-via", via, "-from", src, "-to", dst, "-flows", strconv.Itoa(entries), "-rate", "50000"}, more...)
	}
	entries += entries / 50
	f := &filler{w: w, from: from, entries: entries}
	f.there = fan(from.If(), w.gateway(from), from.IP(lab.V4).String(), nowhere)
	f.answer = fan("wan", macOf(w.World, wan4()), nowhere, out, "-turn")
	f.fill()
	return f
}

// fill sends a segment of each until all are there: an answer to one that was lost would
// begin a connection itself, whose port the segment then would not get any more. Then come
// answers and segments by turns, twice, since a busy machine loses some, and a segment that
// comes again without an answer shortens what its connection lives.
func (f *filler) fill() {
	for range 10 {
		if f.send(f.from, f.there); f.w.Connections() >= f.entries {
			break
		}
	}
	if n := f.w.Connections(); n < f.entries {
		f.w.Fail("%d connections in the table, want %d", n, f.entries)
	}
	for range 2 {
		f.send(f.w.World, f.answer)
		f.send(f.from, f.there)
	}
}

func (f *filler) send(from *lab.NS, command []string) {
	lab.Report[report.Rate](from.Traffic(command...), 5*time.Minute)
}

// Connections is how many there are in the table.
func (w *Way) Connections() int {
	r := w.Daemon.CLI("conntrack", "-C")
	n, _ := strconv.Atoi(strings.TrimSpace(r.Out))
	return n
}
