// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// Kills are what is done to the daemon while connections are under way.
type Kills struct {
	Kind    Kind
	Kills   int           // of each victim
	Victims []string      // of "dataplane", "agent", "both"
	Entries int           // in the table beside; 0: none
	Period  time.Duration // from kill to kill, at least
}

// prepared is how long a replacement takes until another process stands by that knows
// the table: a second until it is started, and what is left is for half a million
// connections.
const prepared = 2500 * time.Millisecond

// Victims are all that can be killed.
func Victims() []string { return []string{"dataplane", "agent", "both"} }

// Gaps are for how long nothing of a steady stream came through, for each kill of one
// victim, in milliseconds, the shortest first.
type Gaps struct {
	Victim string
	MS     []float64
	Least  int // connections in the table, before and after each kill
}

// Quantile is the gap that a part of all does not exceed.
func (g *Gaps) Quantile(q float64) float64 {
	if len(g.MS) == 0 {
		return 0
	}
	return g.MS[min(int(q*float64(len(g.MS))), len(g.MS)-1)]
}

// Run keeps ten hashed TCP transfers and 10,000 datagrams a second under way, and
// kills. What has to hold is checked here: hashes, connections, ports.
func (k Kills) Run(t lab.T) (all []Gaps) {
	t.Helper()
	w := NewWay(t, k.Kind, 0, "--connections", strconv.Itoa(k.Entries+100_000))
	red, green := w.Container("red"), w.Container("green")
	if k.Entries > 0 {
		newFiller(w, w.Container("filler"), k.Entries)
		t.Logf("%d connections in the table", w.Connections())
	}
	w.World.Serve()
	for _, v := range k.Victims {
		all = append(all, k.trial(t, w, v, red, green))
	}
	return all
}

// trial kills one victim again and again.
func (k Kills) trial(t lab.T, w *Way, victim string, red, green *lab.NS) Gaps {
	t.Helper()
	port := 7003 + slices.Index(Victims(), victim)
	meter := w.World.Traffic("meter", "-port", strconv.Itoa(port)).Ready()
	pace := green.Traffic("pace", "-to", fmt.Sprintf("%v:%d", w.World.IP(lab.V4), port)).Ready()
	long := time.Duration(k.Kills+1) * (k.period(victim) + k.slack())
	seconds := strconv.FormatFloat(long.Seconds(), 'f', 1, 64)
	var tcp []*lab.Proc
	end := time.Now().Add(long) // no transfer ends before: the first of them begins now
	for _, fam := range []lab.Family{lab.V4, lab.V6} {
		tcp = append(tcp, red.Traffic("send", "-both", "-streams", "5", "-seconds", seconds, "-to", w.World.At(fam)))
	}
	w.Eventually("all connections", 20*time.Second, func() bool { return len(w.flows("tcp", lab.Port)) == 10 && len(w.flows("udp", port)) == 1 })
	all, least := k.series(t, w, victim, end.Add(-k.slack()))
	for _, p := range tcp {
		s := lab.Report[report.Stream](p, time.Until(end)+2*time.Minute)
		if !s.OK || s.Sent == 0 || s.Received == 0 {
			t.Errorf("%s: transfers: %+v", victim, s)
		}
	}
	pace.Stop()
	m := lab.Stopped[report.Meter](meter)
	if len(m.Sources) != 1 {
		t.Errorf("%s: the stream came from %v", victim, m.Sources)
	}
	return Gaps{victim, gaps(all, m.Silences), least}
}

// series kills until the transfers are about to end, or often enough. The other
// connections have to be there before each kill and after it; least is how many were.
func (k Kills) series(t lab.T, w *Way, victim string, end time.Time) (all []time.Time, least int) {
	t.Helper()
	before := w.flows("tcp", lab.Port)
	least = w.Connections()
	for range k.Kills {
		time.Sleep(k.period(victim))
		if time.Now().After(end) {
			break
		}
		least = min(least, w.Connections())
		all = append(all, k.kill(w, victim))
		least = min(least, w.Connections())
		// What is read before they end is what there is: they are not over yet.
		if is := w.flows("tcp", lab.Port); !slices.Equal(is, before) && time.Now().Before(end) {
			t.Errorf("%s: TCP connections were\n%v\nand are\n%v", victim, before, is)
			break
		}
	}
	if len(all) == 0 {
		t.Errorf("%s: there was no time for a kill", victim)
	}
	if least < k.Entries {
		t.Errorf("%s: %d connections in the table before a kill or after it, want %d", victim, least, k.Entries)
	}
	return all, least
}

// slack is what a kill may take beside the time to the next one: of a few all the more,
// since the transfers end with the last one that there is time for.
func (k Kills) slack() time.Duration {
	if k.Kills <= 2 {
		return 1500 * time.Millisecond
	}
	return 800 * time.Millisecond
}

// period is how long it is from kill to kill.
func (k Kills) period(victim string) time.Duration {
	if victim == "agent" || k.Kills <= 2 {
		return k.Period
	}
	return max(k.Period, prepared)
}

// kill kills, and sees to it that there is a daemon again. It returns when.
func (k Kills) kill(w *Way, victim string) time.Time {
	d := w.Daemon
	if victim != "agent" && k.Kills > 2 {
		w.Eventually("a spare", 20*time.Second, func() bool { return d.Status().Dataplane.Spare != 0 })
	}
	at := time.Now()
	switch victim {
	case "dataplane":
		d.KillDataplane()
	case "agent":
		d.KillAgent()
		d.Start()
	case "both":
		d.KillBoth()
		d.Start()
	}
	w.Eventually("a dataplane", 20*time.Second, func() bool {
		s, err := d.TryStatus()
		return err == nil && s.Dataplane.State == "running"
	})
	return at
}

// gaps is the longest silence behind each kill, until the next one, sorted.
func gaps(kills []time.Time, silences []report.Silence) (ms []float64) {
	for i, k := range kills {
		var until time.Time
		if i+1 < len(kills) {
			until = kills[i+1]
		}
		longest := 0.0
		for _, s := range silences {
			ends := s.From + int64(s.MS*1e6)
			if ends > k.UnixNano() && (until.IsZero() || s.From < until.UnixNano()) {
				longest = max(longest, s.MS)
			}
		}
		ms = append(ms, longest)
	}
	slices.Sort(ms)
	return ms
}

// flows are the translated connections to a port of the world: both ends of each.
func (w *Way) flows(proto string, port int) (out []string) {
	var all []api.Connection
	w.Daemon.CLI("-j", "conntrack", "-L", "-p", proto, "-n", "--dport", strconv.Itoa(port)).JSON(&all)
	for _, c := range all {
		if c.State == "" || c.State == "ESTABLISHED" {
			out = append(out, fmt.Sprintf("%v:%d as %v:%d", c.Original.Src, c.Original.Sport, c.Reply.Dst, c.Reply.Dport))
		}
	}
	slices.Sort(out)
	return out
}

// Table is the gaps as Markdown.
func Table(all []Gaps) string {
	var b strings.Builder
	b.WriteString("| killed | connections in the table, at least | kills | gap p50, ms | p99, ms | longest, ms |\n|---|---:|---:|---:|---:|---:|\n")
	for i := range all {
		g := &all[i]
		fmt.Fprintf(&b, "| %s | %d | %d | %.0f | %.0f | %.0f |\n", g.Victim, g.Least, len(g.MS), g.Quantile(0.5), g.Quantile(0.99), g.Quantile(1))
	}
	return b.String()
}
