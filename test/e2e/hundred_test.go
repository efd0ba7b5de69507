// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"sluice/test/lab"
)

// Generous bounds of what a hundred containers may cost: they are to notice a
// leak or a table per port, not a megabyte.
const (
	crowd         = 100
	maxAgentRSS   = 100 << 10 // KiB
	maxPlaneRSS   = 400 << 10 // KiB
	maxRestingCPU = 5         // percent of one core, both processes together
)

// TestHundred attaches a hundred containers, has every pair ping over IPv4 and
// IPv6, and looks at what the daemon takes then, at rest, and when all are gone.
//
//	c0 ---- blue ---- c1
//	        / | \
//	      c2 ... c99        every one pings all addresses of all
func TestHundred(t *testing.T) {
	l := lab.New(t)
	// The kernel's neighbour tables are for all namespaces together.
	for _, f := range []string{"ipv4", "ipv6"} {
		for i, n := range []int{30000, 40000, 50000} {
			l.Sysctl(fmt.Sprintf("net.%s.neigh.default.gc_thresh%d", f, i+1), n)
		}
	}
	d := l.Daemon(lab.Blue)
	s := d.Status()
	agent, plane := lab.UsageOf(s.PID), lab.UsageOf(s.Dataplane.PID)
	t.Logf("empty: agent %v; dataplane %v", agent, plane)
	var all []*lab.NS
	for i := range crowd {
		all = append(all, l.NS(fmt.Sprintf("c%d", i)))
	}
	start := time.Now()
	for _, n := range all {
		n.Attach("--network", "blue")
	}
	t.Logf("%d attached in %v", crowd, time.Since(start).Round(time.Millisecond))
	took := lab.PingAll(all, 3*time.Minute)
	t.Logf("%d pairs, both families, have pinged after %v", crowd*crowd, took.Round(time.Millisecond))
	bounded(t, d)
	resting(t, d)
	start = time.Now()
	for _, n := range all {
		n.Detach()
	}
	t.Logf("%d detached in %v", crowd, time.Since(start).Round(time.Millisecond))
	consistent(t, d)
	released(t, d, agent, plane)
}

// bounded looks at memory and tables while all are attached.
func bounded(t *testing.T, d *lab.Daemon) {
	t.Helper()
	s := d.Status()
	agent, plane := lab.UsageOf(s.PID), lab.UsageOf(s.Dataplane.PID)
	t.Logf("%d attached: agent %v; dataplane %v", crowd, agent, plane)
	if agent.RSS > maxAgentRSS || plane.RSS > maxPlaneRSS {
		t.Errorf("agent %v, dataplane %v", agent, plane)
	}
	if n := len(d.FDB()); n != crowd+1 {
		t.Errorf("%d stations, want %d containers and the gateway", n, crowd)
	}
}

// resting measures the processor time of both processes over five seconds. The
// containers' own kernels go on for a while after the pings, so it may take
// some windows until there is rest.
func resting(t *testing.T, d *lab.Daemon) {
	t.Helper()
	s := d.Status()
	cpu := func() time.Duration { return lab.UsageOf(s.PID).CPU + lab.UsageOf(s.Dataplane.PID).CPU }
	const window = 5 * time.Second
	var percent float64
	for range 6 {
		before := cpu()
		time.Sleep(window)
		percent = float64(cpu()-before) / float64(window) * 100
		t.Logf("at rest: %.1f %% of a core over %v", percent, window)
		if percent <= 2 {
			return
		}
	}
	if percent > maxRestingCPU {
		t.Errorf("%.1f %% of a core at rest, at most %d %%", percent, maxRestingCPU)
	}
}

// released compares descriptors with those of the empty daemon.
func released(t *testing.T, d *lab.Daemon, agent, plane lab.Usage) {
	t.Helper()
	s := d.Status()
	var a, p lab.Usage
	same := func() bool {
		a, p = lab.UsageOf(s.PID), lab.UsageOf(s.Dataplane.PID)
		return a.Files <= agent.Files+2 && p.Files <= plane.Files+2
	}
	for end := time.Now().Add(patience); !same() && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("all detached: agent %v; dataplane %v", a, p)
	if !same() {
		t.Errorf("descriptors: agent %d, was %d; dataplane %d, was %d", a.Files, agent.Files, p.Files, plane.Files)
	}
}
