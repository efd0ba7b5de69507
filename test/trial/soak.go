// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// Soak sends very many packets of all kinds through the daemon, round by round, and
// looks at what both processes take of the machine.
type Soak struct {
	Kind    Kind
	Packets uint64
	Rounds  int
}

// Sample is what both take behind a round.
type Sample struct {
	Packets          uint64
	Agent, Dataplane lab.Usage
	AgentG, DataplnG int // goroutines
	Connections      int
}

// Run does it. The first sample is behind the first round, when all that is made once
// is there.
func (s Soak) Run(t lab.T) (all []Sample) {
	t.Helper()
	const room = 100_000
	w := NewWay(t, s.Kind, 0, "--connections", strconv.Itoa(room))
	red, green := w.Container("red"), w.Container("green")
	w.blackhole()
	w.World.Serve()
	mac := w.gateway(red)
	each := s.Packets / uint64(s.Rounds)
	for n := range s.Rounds {
		for start := w.packets(); w.packets()-start < each; {
			s.round(w, red, green, mac)
		}
		w.Daemon.CLI("conntrack", "-F").Expect(0)
		all = append(all, w.sample())
		t.Logf("round %d of %d: %+v", n+1, s.Rounds, all[n])
	}
	check(t, all)
	return all
}

// round is a few seconds of everything: streams, datagrams large and small, connections
// that come and go, and more flows than there is room for.
func (s Soak) round(w *Way, red, green *lab.NS, mac string) {
	to := w.World.IP(lab.V4).String()
	flood := green.Traffic("flood", "-to", to+":7999", "-size", "64", "-seconds", "5")
	crr := green.Traffic("crr", "-seconds", "5", "-conns", "1", "-to", w.World.At(lab.V6))
	tcp := red.Traffic("send", "-both", "-seconds", "3", "-to", w.World.At(lab.V6))
	udp := red.Traffic("udp", "-bytes", "20000000", "-size", "3000", "-to", w.World.At(lab.V4))
	fan := red.Traffic("fan", "-i", red.If(), "-via", mac, "-from", red.IP(lab.V4).String(), "-to", nowhere, "-flows", "200000", "-rate", "60000")
	lab.Report[report.Rate](flood, time.Minute)
	lab.Report[report.Rate](crr, time.Minute)
	lab.Report[report.Rate](fan, time.Minute)
	udp.Wait(time.Minute) // of which some are lost to the flood
	if r, code := lab.TryReport[report.Stream](tcp, time.Minute); code != 0 || !r.OK {
		w.Fail("TCP: %+v", r)
	}
}

// packets is what all ports have received.
func (w *Way) packets() (n uint64) {
	for _, l := range w.Daemon.Links() {
		n += l.Stats.RX.Packets
	}
	return n
}

func (w *Way) sample() Sample {
	st := w.Daemon.Status()
	return Sample{
		Packets: w.packets(), Connections: w.Connections(),
		Agent: lab.UsageOf(w.Daemon.PID()), Dataplane: lab.UsageOf(st.Dataplane.PID),
		AgentG: st.Goroutines, DataplnG: st.Dataplane.Goroutines,
	}
}

// check fails the test if something has grown since the first sample.
func check(t lab.T, all []Sample) {
	t.Helper()
	if len(all) < 2 {
		return
	}
	first, last := all[0], all[len(all)-1]
	for _, p := range []struct {
		name                string
		was, is             lab.Usage
		goroutines, wereOld int
	}{
		{"agent", first.Agent, last.Agent, last.AgentG, first.AgentG},
		{"dataplane", first.Dataplane, last.Dataplane, last.DataplnG, first.DataplnG},
	} {
		if p.is.RSS > p.was.RSS*11/10+8<<10 || p.is.Files > p.was.Files+2 || p.goroutines > p.wereOld+4 {
			t.Errorf("%s had %v and %d goroutines, and has %v and %d", p.name, p.was, p.wereOld, p.is, p.goroutines)
		}
	}
}

// SoakTable is the samples as Markdown.
func SoakTable(all []Sample) string {
	var b strings.Builder
	b.WriteString("| packets | agent RSS, MiB | files | goroutines | dataplane RSS, MiB | files | goroutines |\n|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, s := range all {
		fmt.Fprintf(&b, "| %d | %.1f | %d | %d | %.1f | %d | %d |\n", s.Packets,
			float64(s.Agent.RSS)/1024, s.Agent.Files, s.AgentG, float64(s.Dataplane.RSS)/1024, s.Dataplane.Files, s.DataplnG)
	}
	return b.String()
}
