// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// transfer is an open TCP transfer, with a prober beside it, that something is
// done to. The control has nothing to do with Sluice.
type transfer struct {
	d              *lab.Daemon
	red, green     *lab.NS
	tcp            *lab.Proc
	probe, control *lab.Prober
}

// openTransfer sends hashed streams both ways for some seconds.
func openTransfer(t *testing.T, seconds string) *transfer {
	t.Helper()
	d, red, green := pairOn(t, lab.Blue)
	red.Ping(green.IP(lab.V4))
	control := d.Lab().Control()
	return &transfer{d, red, green, lab.StartTCP(red, green, lab.V4, "-seconds", seconds), lab.Probe(red, green, lab.V4), control}
}

// survives waits for the end of the transfer, which must be whole, and allows
// the prober a gap of some milliseconds above that of the control.
func (x *transfer) survives(t *testing.T, gap float64) {
	t.Helper()
	s := lab.Report[report.Stream](x.tcp, time.Minute)
	p, c := x.probe.Stop(), x.control.Stop()
	t.Logf("TCP: %.1f Gbit/s both ways, longest pause %.0f ms; prober: longest gap %.1f ms (control %.1f ms), %d lost of %d",
		s.Gbps(), s.MaxGapMS, p.MaxGapMS, c.MaxGapMS, p.Lost, p.Count)
	if !s.OK || s.Sent == 0 || s.Received == 0 {
		t.Errorf("transfer: %+v", s)
	}
	if p.MaxGapMS > gap+c.MaxGapMS {
		t.Errorf("nothing was forwarded for %.0f ms, the control stood still for %.0f ms", p.MaxGapMS, c.MaxGapMS)
	}
}

// consistent compares what the daemon says with what the kernel has: an
// attachment is whole or not there.
func consistent(t *testing.T, d *lab.Daemon, spaces ...*lab.NS) {
	t.Helper()
	want := []string{"lo:"}
	links := d.Links()
	for _, l := range links {
		if l.State != api.StateReady {
			t.Errorf("%s is %s", l.Name, l.State)
		}
		want = append(want, l.HostIfName)
	}
	got := strings.Fields(hostEnds(d.Lab(), d))
	for i := range got {
		got[i], _, _ = strings.Cut(got[i], "@")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("host ends are %v, attachments say %v", got, want)
	}
	for _, n := range spaces {
		attached := slices.ContainsFunc(links, func(l api.Link) bool { return l.Netns == n.Path() })
		if r := n.Try("ip", "link", "show", "eth0"); attached != (r.Code == 0) {
			t.Errorf("%s: attached is %v, ip link says %d: %s%s", n.Name(), attached, r.Code, r.Out, r.Err)
		}
	}
}

// TestDataplaneKilled kills the dataplane three times during a transfer. Each
// time the agent has a new one forwarding on the same sockets.
//
//	red ==== TCP, both ways ==== green        kill -9 dataplane
func TestDataplaneKilled(t *testing.T) {
	x := openTransfer(t, "4")
	first := x.d.Status()
	for i := range 3 {
		time.Sleep(time.Second)
		x.d.AwaitDataplane(x.d.KillDataplane())
		t.Logf("kill %d: the agent saw a gap of %d µs", i+1, x.d.Status().Dataplane.LastGapMicros)
	}
	x.survives(t, 1000)
	if s := x.d.Status(); s.PID != first.PID || s.Dataplane.Restarts != 3 {
		t.Errorf("status: %+v", s)
	}
	for _, l := range x.d.Links() { // counters are in shared memory
		if l.Stats.RX.Packets < 1000 {
			t.Errorf("%s has lost its counters: %+v", l.Name, l.Stats)
		}
	}
	consistent(t, x.d, x.red, x.green)
}

// TestAgentKilled kills the agent during a transfer: the dataplane goes on, and
// a new agent finds it, and everything else.
//
//	red ==== TCP, both ways ==== green        kill -9 agent
func TestAgentKilled(t *testing.T) {
	x := openTransfer(t, "3")
	before := x.d.Status()
	links := x.d.Links()
	time.Sleep(500 * time.Millisecond)
	x.d.KillAgent()
	x.d.CLI("status").Expect(3, "not running")
	time.Sleep(500 * time.Millisecond)
	x.d.Start()
	s := x.d.Status()
	if s.Dataplane.PID != before.Dataplane.PID || !s.Dataplane.Adopted || s.PID == before.PID {
		t.Errorf("before %+v, after %+v", before, s)
	}
	if after := x.d.Links(); len(after) != 2 || after[0].ID != links[0].ID || after[1].MAC != links[1].MAC {
		t.Errorf("links: before %+v, after %+v", links, after)
	}
	x.survives(t, 250)
	brown := x.d.Lab().NS("brown").Attach("--network", "blue")
	brown.Ping(x.red.IP(lab.V6))
	consistent(t, x.d, x.red, x.green, brown)
}

// TestBothKilled kills both processes during a transfer: nothing is forwarded,
// until a start restores all attachments, and the transfer goes on.
//
//	red ==== TCP, both ways ==== green        kill -9 agent, dataplane
func TestBothKilled(t *testing.T) {
	x := openTransfer(t, "4")
	before := x.d.Links()
	spare := 0
	x.d.Lab().Eventually("a dataplane that stands by", 20*time.Second, func() bool {
		spare = x.d.Status().Dataplane.Spare
		return spare != 0
	})
	x.d.KillBoth()
	if r := x.red.Try("ping", "-n", "-c", "1", "-W", "0.3", x.green.IP(lab.V6).String()); r.Code == 0 {
		t.Error("there is an answer although there is no dataplane")
	}
	x.d.Start()
	s := x.d.Status()
	slow := strings.Contains(x.d.Log(), "of no use") // on a busy machine
	if s.Dataplane.Adopted || s.Dataplane.PID != spare && !slow || s.Attachments != 2 {
		t.Errorf("status: %+v, process %d stood by", s, spare)
	}
	for i, l := range x.d.Links() {
		if l.ID != before[i].ID || l.MAC != before[i].MAC || l.Port != before[i].Port {
			t.Errorf("restored %+v, was %+v", l, before[i])
		}
	}
	x.survives(t, 5000)
	consistent(t, x.d, x.red, x.green)
}

// TestRestart restarts the service as systemd does, by SIGTERM and a new start,
// during a transfer: nobody notices.
func TestRestart(t *testing.T) {
	x := openTransfer(t, "3")
	pid := x.d.Status().Dataplane.PID
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		x.d.Stop()
		x.d.Start()
		if s := x.d.Status(); s.Dataplane.PID != pid || !s.Dataplane.Adopted {
			t.Errorf("dataplane was %d, status %+v", pid, s)
		}
	}
	x.survives(t, 250)
	consistent(t, x.d, x.red, x.green)
}

// TestNamespaceDeletedWhileDown deletes an attached namespace while there is no
// daemon: the next start finds out.
func TestNamespaceDeletedWhileDown(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	d.KillBoth()
	red.Delete()
	d.Start()
	d.Lab().Eventually("the attachment is reaped", patience, func() bool { return len(d.Links()) == 1 })
	green.Ping(d.Gateway(lab.V4))
	brown := d.Lab().NS("brown").Attach("--network", "blue", "--ip", red.IP(lab.V4).String())
	green.Ping(brown.IP(lab.V4))
	consistent(t, d, green, brown)
}

// midAttach starts an attach, waits for up to the time that a whole one takes,
// and returns the process that is, or was, at it.
func midAttach(l *lab.Lab, d *lab.Daemon, n *lab.NS) *lab.Proc {
	p := l.Start(d.Command("attach", n.Name(), "--network", "blue")...)
	time.Sleep(time.Duration(rand.Int64N(int64(20 * time.Millisecond))))
	return p
}

// TestCLIKilledInAttach kills sluice(8) at any moment of an attach.
func TestCLIKilledInAttach(t *testing.T) {
	d, red, _ := pairOn(t, lab.Blue)
	n := d.Lab().NS("victim")
	done := 0
	for range 20 {
		midAttach(d.Lab(), d, n).Kill()
		// The daemon may still be at it: it finishes or undoes what it began.
		settled := func() bool {
			return !slices.ContainsFunc(d.Links(), func(l api.Link) bool { return l.State != api.StateReady })
		}
		d.Lab().Eventually("attach is settled", patience, settled)
		if len(d.Links()) == 3 {
			done++
			d.CLI("detach", n.Name()).Expect(0)
		}
		red.TryPing(d.Gateway(lab.V4), 1).Expect(0)
	}
	t.Logf("of 20 attaches %d were done in spite of it", done)
	consistentSoon(t, d, n)
	n.Attach("--network", "blue").Ping(red.IP(lab.V6))
	consistent(t, d, n)
}

// consistentSoon waits for an attach that is still under way, and undoes it.
func consistentSoon(t *testing.T, d *lab.Daemon, n *lab.NS) {
	t.Helper()
	time.Sleep(200 * time.Millisecond)
	if len(d.Links()) == 3 {
		d.CLI("detach", n.Name()).Expect(0)
	}
	consistent(t, d, n)
}

// TestAgentKilledInAttach kills the agent at any moment of an attach; the next
// start finishes it or undoes it, and the same attach works then.
func TestAgentKilledInAttach(t *testing.T) {
	d, red, _ := pairOn(t, lab.Blue)
	n := d.Lab().NS("victim")
	done := 0
	for range 20 {
		p := midAttach(d.Lab(), d, n)
		d.KillAgent()
		p.Wait(10 * time.Second)
		d.Start()
		consistent(t, d, n)
		if len(d.Links()) == 3 {
			done++
			d.CLI("detach", n.Name()).Expect(0)
		}
		if t.Failed() {
			t.Fatalf("log of the last start:\n%s", d.Log())
		}
	}
	t.Logf("of 20 attaches %d were done in spite of it", done)
	n.Attach("--network", "blue").Ping(red.IP(lab.V6))
	consistent(t, d, n)
}

// TestBothKilledInDetach kills both processes at any moment of a detach.
func TestBothKilledInDetach(t *testing.T) {
	d, red, _ := pairOn(t, lab.Blue)
	n := d.Lab().NS("victim")
	for range 5 {
		n.Attach("--network", "blue")
		pid := d.Status().Dataplane.PID
		p := d.Lab().Start(d.Command("detach", n.Name())...)
		time.Sleep(time.Duration(rand.Int64N(int64(20 * time.Millisecond))))
		_ = syscall.Kill(pid, syscall.SIGKILL)
		d.KillAgent()
		p.Wait(10 * time.Second)
		d.Start()
		consistent(t, d, n)
		if len(d.Links()) == 3 {
			d.CLI("detach", n.Name()).Expect(0)
		}
	}
	red.Ping(d.Gateway(lab.V6))
}
