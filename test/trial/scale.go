// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// Scale opens very many connections through the daemon, and lets all of them be over.
type Scale struct {
	Kind  Kind
	Flows int
	Rate  int // new ones a second
}

// Scaled is what that took.
type Scaled struct {
	Flows     int
	Opening   time.Duration
	RSS       int     // KiB that the dataplane has more, its file and what leads to it
	File      int64   // bytes of the file
	GapAlone  float64 // longest silence of a steady stream beside nothing else, in ms: the machine's own
	Gap       float64 // longest silence of a steady stream while they came, in ms
	GapOver   float64 // and while they were over
	Ended     time.Duration
	LeftAfter int
	Sent      uint64            // frames, until all were there
	Heard     uint64            // of them, what the daemon read
	Drops     map[string]uint64 // reasons why the daemon dropped frames
}

// Run does it. A steady stream of datagrams goes through meanwhile.
func (s Scale) Run(t lab.T) Scaled {
	t.Helper()
	w := NewWay(t, s.Kind, 0, "--connections", strconv.Itoa(s.Flows+10_000))
	red, green := w.Container("red"), w.Container("green")
	w.blackhole()
	mac := w.gateway(red)
	out := Scaled{}
	pid := w.Daemon.Status().Dataplane.PID
	before := lab.UsageOf(pid).RSS
	alone := w.stream(green)
	time.Sleep(3 * time.Second)
	out.GapAlone = alone.longest()
	opening := w.stream(green)
	args := []string{
		"fan", "-i", red.If(), "-via", mac, "-from", red.IP(lab.V4).String(), "-to", nowhere,
		"-flows", strconv.Itoa(s.Flows), "-rate", strconv.Itoa(s.Rate),
	}
	start := time.Now()
	for out.Flows < s.Flows && time.Since(start) < 25*time.Second { // a datagram's connection lives for 30
		out.Sent += lab.Report[report.Rate](red.Traffic(args...), 2*time.Minute).Count
		out.Flows = w.Connections()
	}
	out.Opening = time.Since(start)
	out.Gap = opening.longest()
	out.Heard, out.Drops = w.dropped("red")
	if out.Flows < s.Flows {
		t.Errorf("%d connections after %v, want %d", out.Flows, out.Opening, s.Flows)
	}
	out.RSS = lab.UsageOf(pid).RSS - before
	out.File = fileSize(w.Daemon.RunDir())
	over := w.stream(green)
	begun := time.Now()
	for out.LeftAfter = out.Flows; out.LeftAfter >= 100 && time.Since(begun) < 90*time.Second; out.LeftAfter = w.Connections() {
		time.Sleep(2 * time.Second) // each question is a process, which takes processors from what is measured
	}
	out.Ended = time.Since(begun)
	if out.LeftAfter >= 100 {
		t.Errorf("%d connections are left after %v", out.LeftAfter, out.Ended)
	}
	out.GapOver = over.longest()
	return out
}

// dropped is how many frames were read from a container, and why frames were dropped.
func (w *Way) dropped(name string) (heard uint64, reasons map[string]uint64) {
	reasons = map[string]uint64{}
	for _, l := range w.Daemon.Links() {
		if l.Stats == nil {
			continue
		}
		if l.Name == name {
			heard = l.Stats.RX.Packets
		}
		for why, n := range l.Stats.Drops {
			reasons[why] += n
		}
	}
	return heard, reasons
}

// fileSize is that of the largest file in a directory: the connections.
func fileSize(dir string) (most int64) {
	all, _ := os.ReadDir(dir)
	for _, e := range all {
		if st, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && st.Mode().IsRegular() {
			most = max(most, st.Size())
		}
	}
	return most
}

// stream is a steady one from a container to the world.
type stream struct{ pace, meter *lab.Proc }

func (w *Way) stream(from *lab.NS) stream {
	const port = 7009
	m := w.World.Traffic("meter", "-port", strconv.Itoa(port), "-above", "2ms").Ready()
	return stream{from.Traffic("pace", "-to", fmt.Sprintf("%v:%d", w.World.IP(lab.V4), port)).Ready(), m}
}

// longest ends the stream, and is its longest silence.
func (s stream) longest() (ms float64) {
	s.pace.Stop()
	for _, x := range lab.Stopped[report.Meter](s.meter).Silences {
		ms = max(ms, x.MS)
	}
	return ms
}

// String is a table in Markdown.
func (s *Scaled) String() string {
	var b strings.Builder
	b.WriteString("| connections | opened in, s | dataplane, bytes each | file, bytes each | longest silence before, ms | while opening | while all ended |\n|---:|---:|---:|---:|---:|---:|---:|\n")
	n := max(s.Flows, 1)
	fmt.Fprintf(&b, "| %d | %.1f | %d | %d | %.1f | %.1f | %.1f |\n", s.Flows, s.Opening.Seconds(), s.RSS*1024/n, s.File/int64(n), s.GapAlone, s.Gap, s.GapOver)
	fmt.Fprintf(&b, "\nOf %d frames the daemon read %d; dropped: %v. All were over after %.1f s.\n", s.Sent, s.Heard, s.Drops, s.Ended.Seconds())
	return b.String()
}
