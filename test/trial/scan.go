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

// Scan lets one container try all ports of a host while its neighbour begins
// connections, and compares with the neighbour alone, pair by pair. Who scans takes
// processors from the neighbour whatever is between them, so there are two controls in
// the same rounds: probes that end in the scanner's own namespace, which is what sending
// them costs, and the same containers behind a Linux router with nftables and a quota.
type Scan struct {
	Kind  Kind
	Probe string // one of Probes
	Quota int    // connections of a container
	Rate  int    // ports a second
	Pairs int
	Each  time.Duration // of one half of a pair
}

// Probes are what a scan can send: SYNs that nobody answers, SYNs to a host that answers
// with resets, datagrams that nobody answers.
func Probes() []string { return []string{"syn", "closed", "udp"} }

// Scanned is what the neighbour has of its rate of connections.
type Scanned struct {
	Quota, Held int // of the one that scans; the most that it had
	Ways        []Scanning
}

// Scanning is the neighbour's rate of connections on one way, alone and beside the scan,
// and what a probe takes of all processors without a neighbour.
type Scanning struct {
	Name            string
	Alone, Together []float64
	Probes          uint64
	Busy, Dataplane time.Duration // of the machine, and of this process in it, for so many
}

// allPorts are those of a host that a scan tries.
const allPorts = 64_000

// neighbourhood is one way to the world, with two containers and a scanner's target.
type neighbourhood struct {
	name               string
	scanner, neighbour *lab.NS
	world              string // of the neighbour: address and port
	probe              []string
	pid                func() int // of the dataplane
	scans              int        // so far
}

// Run does it.
func (s Scan) Run(t lab.T) Scanned {
	t.Helper()
	w := NewWay(t, s.Kind, s.Quota, "--connections", strconv.Itoa(8*s.Quota))
	red, green := w.Container("scanner"), w.Container("neighbour")
	w.blackhole()
	w.World.Serve()
	own := neighbourhood{name: "Sluice", scanner: red, neighbour: green, world: w.World.At(lab.V4), pid: func() int { return w.Daemon.Status().Dataplane.PID }}
	own.probe = s.probes(red.If(), w.gateway(red), red, w.target(s.Probe))
	nobody := own
	end := w.NS("nobody")
	red.Run("ip", "link", "add", "nobody", "type", "veth", "peer", "name", "end", "netns", end.Name())
	red.Run("ip", "link", "set", "nobody", "up")
	end.Run("ip", "link", "set", "end", "up")
	nobody.name, nobody.probe = "a veth pair to nobody", s.probes("nobody", w.gateway(red), red, w.target(s.Probe))
	all := []neighbourhood{own, nobody, s.kernel(w)}
	out := Scanned{Quota: s.Quota}
	for _, n := range all {
		out.Ways = append(out.Ways, Scanning{Name: n.name})
		s.crr(&n) // nothing is cold any more
	}
	for range s.Pairs {
		for i := range all {
			out.Ways[i].pair(&s, &all[i])
			if i == 0 {
				time.Sleep(300 * time.Millisecond) // a list is of one moment only while none come and go
				out.Held = max(out.Held, w.held(red))
			}
		}
	}
	for i := range all {
		out.Ways[i].alone(&s, &all[i])
	}
	if out.Held > s.Quota {
		t.Errorf("the scanner had %d connections, its quota is %d", out.Held, s.Quota)
	}
	return out
}

// kernel is the containers behind a Linux router that masquerades, and refuses new
// connections beyond the quota.
func (s Scan) kernel(w *Way) neighbourhood {
	const world, dark = "203.0.113.2", "203.0.113.66"
	r := w.Router()
	red, green := w.NS("scanner-kernel"), w.NS("neighbour-kernel")
	r.Connect(red)
	r.Connect(green)
	w.Cable(r.NS(), w.World, "kernel", 1500, "203.0.113.0/24")
	r.NS().Run("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_max="+strconv.Itoa(8*s.Quota))
	r.NS().Run("nft", fmt.Sprintf(`table ip shop {
	set many { type ipv4_addr; flags dynamic; }
	chain bound { type filter hook forward priority 0; oifname "kernel" ct state new add @many { ip saddr ct count over %d } drop; }
	chain out { type nat hook postrouting priority 100; oifname "kernel" masquerade; }
}`, s.Quota))
	w.World.Run("ip", "route", "add", "blackhole", dark+"/32")
	r.NS().Run("ip", "route", "add", dark+"/32", "via", world)
	target := dark
	if s.Probe == "closed" {
		target = world
	}
	gateway := r.Gateway(red)
	return neighbourhood{
		name: "Linux router", scanner: red, neighbour: green, world: fmt.Sprintf("%s:%d", world, lab.Port),
		probe: s.probes(red.If(), macOf(red, gateway), red, target),
	}
}

// target is whom a scan is for.
func (w *Way) target(probe string) string {
	if probe == "closed" {
		return w.World.IP(lab.V4).String()
	}
	return nowhere
}

// probes is the command that scans for as long as it is let.
func (s Scan) probes(ifname, via string, from *lab.NS, to string) []string {
	args := []string{
		"fan", "-i", ifname, "-via", via, "-from", from.IP(lab.V4).String(), "-to", to,
		"-flows", strconv.Itoa(10 * s.Rate * int(s.Each.Seconds()+1)), "-ports", strconv.Itoa(allPorts), "-rate", strconv.Itoa(s.Rate),
	}
	if s.Probe != "udp" {
		args = append(args, "-syn", "-turn")
	}
	return args
}

// scan begins another scan: of the same ports, from another port.
func (n *neighbourhood) scan() *lab.Proc {
	n.scans++
	return n.scanner.Traffic(append(n.probe, "-skip", strconv.Itoa(n.scans*allPorts))...)
}

// crr is the neighbour's rate of connections.
func (s Scan) crr(n *neighbourhood) float64 {
	p := n.neighbour.Traffic("crr", "-seconds", fmt.Sprint(s.Each.Seconds()), "-to", n.world)
	return lab.Report[report.Rate](p, time.Minute).PerSecond
}

// pair measures the neighbour alone, and beside the scan; every other time the other way
// round, since a machine may get faster or slower meanwhile.
func (g *Scanning) pair(s *Scan, n *neighbourhood) {
	beside := func() {
		p := n.scan()
		time.Sleep(200 * time.Millisecond)
		g.Together = append(g.Together, s.crr(n))
		p.Kill()
	}
	if len(g.Together)%2 == 1 {
		beside()
		g.Alone = append(g.Alone, s.crr(n))
		return
	}
	g.Alone = append(g.Alone, s.crr(n))
	beside()
}

// alone measures what a probe costs when nobody else has anything to do.
func (g *Scanning) alone(s *Scan, n *neighbourhood) {
	p := n.scan()
	time.Sleep(500 * time.Millisecond) // it has its quota, or nearly so
	pid := 0
	if n.pid != nil {
		pid = n.pid()
	}
	busy, ran, start := lab.Busy(), lab.Ran(pid), time.Now()
	time.Sleep(s.Each)
	g.Busy, g.Dataplane = lab.Busy()-busy, lab.Ran(pid)-ran
	took := time.Since(start)
	r := lab.Stopped[report.Rate](p)
	g.Probes = uint64(r.PerSecond * took.Seconds())
}

// held is how many connections a container has begun.
func (w *Way) held(n *lab.NS) int {
	var all []api.Connection
	w.Daemon.CLI("-j", "conntrack", "-L", "-s", n.IP(lab.V4).String()).JSON(&all)
	return len(all)
}

// Ratio is the median of the pairs' ratios with Sluice.
func (s *Scanned) Ratio() float64 { return s.Ways[0].ratio() }

// Ours is what that is of the ratio beside a scan that goes nowhere: without what it takes
// to send so many frames.
func (s *Scanned) Ours() float64 {
	if nobody := s.Ways[1].ratio(); nobody > 0 {
		return s.Ratio() / nobody
	}
	return 0
}

// ratios of the pairs, the smallest first.
func (g *Scanning) ratios() (all []float64) {
	for i := range g.Together {
		if g.Alone[i] > 0 {
			all = append(all, g.Together[i]/g.Alone[i])
		}
	}
	slices.Sort(all)
	return all
}

// ratio is the median; 0 if nothing was measured.
func (g *Scanning) ratio() float64 {
	all := g.ratios()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}

// String is a table in Markdown.
func (s *Scanned) String() string {
	var b strings.Builder
	b.WriteString("| the probes go by | neighbour alone, connections/s | beside a scan | ratio, median | smallest, largest | µs of all processors for a probe | of them the dataplane's |\n|---|---:|---:|---:|---:|---:|---:|\n")
	for i := range s.Ways {
		g := &s.Ways[i]
		all := g.ratios()
		if len(all) == 0 { // no pairs were wanted, but what a probe costs
			all = []float64{0}
		}
		per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(g.Probes, 1)) }
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | **%.3f** | %.3f, %.3f | %.1f | %.1f |\n", g.Name, median(g.Alone), median(g.Together), g.ratio(), all[0], all[len(all)-1], per(g.Busy), per(g.Dataplane))
	}
	fmt.Fprintf(&b, "\nOf what a scan to nobody leaves, the neighbour has **%.3f**.", s.Ours())
	fmt.Fprintf(&b, " The scanner had %d connections at most, of a quota of %d.\n", s.Held, s.Quota)
	return b.String()
}

// median of some numbers; 0 of none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
