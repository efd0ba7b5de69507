// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/api"
	"sluice/dataplane"
)

func TestCrashLoopGrowsAndForgets(t *testing.T) {
	now := time.Unix(1000, 0)
	var c crashLoop
	c.died(now)
	if d := c.ready(now); d != 0 {
		t.Errorf("first start waits %s", d)
	}
	c.forwards(now)

	// One that lived long is replaced at once.
	now = now.Add(time.Hour)
	c.died(now)
	if d := c.ready(now); d != 0 {
		t.Errorf("replacement of a steady one waits %s", d)
	}
	if gap := c.forwards(now.Add(20 * time.Millisecond)); gap != 20*time.Millisecond {
		t.Errorf("gap is %s", gap)
	}

	// So is one that died young, for once.
	now = now.Add(time.Millisecond)
	c.died(now)
	if d := c.ready(now); d != 0 {
		t.Errorf("replacement of the first young one waits %s", d)
	}
	c.forwards(now)

	// Those that go on dying young wait longer and longer, up to the bound.
	want := backoffFirst
	for range 20 {
		now = now.Add(time.Millisecond)
		c.died(now)
		c.died(now) // noticed by two
		if d := c.ready(now); d != want {
			t.Fatalf("waits %s, want %s", d, want)
		}
		now = now.Add(want)
		c.forwards(now)
		want = min(2*want, backoffMost)
	}

	// A start that fails waits too, and the pause does not include the past.
	c.died(now)
	now = now.Add(time.Minute)
	c.failed(now)
	if d := c.ready(now); d != backoffMost {
		t.Errorf("after a failed start it waits %s", d)
	}

	now = now.Add(steady + time.Minute)
	c.forwards(now)
	now = now.Add(steady)
	c.died(now)
	if d := c.ready(now); d != 0 {
		t.Errorf("not forgotten: %s", d)
	}
}

func TestDeadDataplaneIsReplaced(t *testing.T) {
	l := newLab(t)
	l.start()
	red, peer := l.couple()
	for n := 1; n <= 3; n++ {
		l.killPlane()
		l.eventually("another dataplane", func() bool {
			s := l.status().Dataplane
			return s.State == "running" && s.Restarts == n
		})
		l.pings(red, peer, "10.77.0.1", "fd77::1")
		s := l.status().Dataplane
		t.Logf("gap %d: %d µs", n, s.LastGapMicros)
		if s.LastGapMicros <= 0 || s.LastGapMicros > patience.Microseconds() {
			t.Errorf("gap of %d µs", s.LastGapMicros)
		}
	}
	l.attach(api.AttachRequest{Netns: l.netns()})
	l.consistent()
	if !strings.Contains(l.log.String(), "gap=") {
		t.Error("the gap is not in the log")
	}
}

func TestFrozenDataplaneIsReplaced(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	red := l.netns()
	l.attach(api.AttachRequest{Netns: red})
	pid := l.status().Dataplane.PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Queries do not wait for it.
	if len(l.links()) != 1 {
		t.Error("no links while the dataplane is frozen")
	}
	l.eventually("another dataplane", func() bool {
		s := l.status().Dataplane
		return s.State == "running" && s.PID != pid
	})
	l.pings(red, "10.77.0.1")
}

func TestAttachMeetsADyingDataplane(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	for range 3 {
		l.killPlane()
		red := l.netns()
		l.attach(api.AttachRequest{Netns: red}) // waits for the next one
		l.pings(red, "10.77.0.1")
	}
	l.consistent()
}

// TestDataplaneThatDoesNotStart has a program in its place that ends at once.
func TestDataplaneThatDoesNotStart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	var log safeBuffer
	p := &plane{log: testLog(&log), sockets: newSockets(), doors: newDoors(testLog(&log)), events: func(*dataplane.Client) {}}
	p.start.Exe, p.start.Workers = "/bin/false", 1
	snapshot := oneNetwork().snapshot("")
	snapshot.Namespaces[0].Networks[0].Ports = nil
	for range 3 {
		if err := p.Apply(t.Context(), snapshot, nil); api.CodeOf(err) != api.CodeUnavailable {
			t.Fatalf("got %v", err)
		}
	}
	if n := strings.Count(log.String(), "does not start"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, &log)
	}
	if s := p.status(t.Context()); s.State != "backoff" {
		t.Errorf("state is %s", s.State)
	}

	if err := p.start.Program.Close(); err != nil { // the copy of /bin/false
		t.Error(err)
	}
	p.start.Exe, p.start.Program = "", nil
	if err := p.Apply(t.Context(), snapshot, nil); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if s := p.status(t.Context()); s.State != "running" || s.LastGapMicros == 0 {
		t.Errorf("status %+v", s)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if s := p.status(t.Context()); s.State != "down" {
		t.Errorf("state after a stop is %s", s.State)
	}
}
