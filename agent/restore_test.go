// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"sluice/api"
	"sluice/dataplane"
)

func TestAgentRestartAdoptsTheDataplane(t *testing.T) {
	l := newLab(t)
	stop := l.start()
	red, peer := l.couple()
	l.pings(red, peer)
	before, links := l.status(), l.links()

	stop()
	l.pings(red, peer) // with no agent at all
	l.start()
	after := l.status()
	if after.Dataplane.PID != before.Dataplane.PID || !after.Dataplane.Adopted {
		t.Errorf("dataplane was %+v, is %+v", before.Dataplane, after.Dataplane)
	}
	if after.Dataplane.Generation < before.Dataplane.Generation {
		t.Errorf("generation went from %d to %d", before.Dataplane.Generation, after.Dataplane.Generation)
	}
	l.pings(red, peer)
	for i, link := range l.links() {
		if link.ID != links[i].ID || link.MAC != links[i].MAC || link.Stats.RX.Packets < links[i].Stats.RX.Packets {
			t.Errorf("was %+v, is %+v", links[i], link)
		}
	}
	l.attach(api.AttachRequest{Netns: l.netns()})
	l.consistent()
}

func TestBothKilledIsRestored(t *testing.T) {
	l := newLab(t)
	agent := l.process()
	red, peer := l.couple()
	kill(agent)
	if err := dataplane.Evict(l.run("dataplane.sock")); err != nil {
		t.Fatal(err)
	}
	l.silent(red, peer)
	l.process()
	l.pings(red, peer, "10.77.0.1", "fd77::1")
	l.consistent()
	if s := l.status(); s.Dataplane.Adopted {
		t.Errorf("adopted a dead dataplane: %+v", s.Dataplane)
	}
}

// TestMissingPairs: while there was no agent, one container's interface was
// deleted, another's namespace was deleted, a third's replaced by one of the same
// name, and a stranger's pair appeared.
func TestMissingPairs(t *testing.T) {
	l := newLab(t)
	stop := l.start()
	l.apply(blue)
	whole, cut, gone, other := l.netns(), l.netns(), l.netns(), l.netns()
	peer := l.attach(api.AttachRequest{Netns: whole}).Addresses[0].Addr().String()
	was := l.attach(api.AttachRequest{Netns: cut})
	l.attach(api.AttachRequest{Netns: gone})
	l.attach(api.AttachRequest{Netns: other})
	stop()

	l.sh("ip", "-n", cut, "link", "del", "eth0")
	l.sh("ip", "netns", "del", gone)
	l.sh("ip", "netns", "del", other)
	l.sh("ip", "netns", "add", other)
	l.sh("nsenter", "--net="+l.run("netns/sluice"), "ip", "link", "add", "stray", "type", "veth", "peer", "name", "stray2")

	l.start()
	// The kernel takes its time to delete a namespace's interfaces.
	l.eventually("two attachments are left", func() bool { return len(l.links()) == 2 })
	links := l.links()
	l.consistent()
	l.pings(cut, peer, "10.77.0.1", "fd77::1")
	l.pings(whole, was.Addresses[0].Addr().String())
	for _, link := range links {
		if link.Name == cut && (link.MAC != was.MAC || link.Port != was.Port) {
			t.Errorf("made again with other values: %+v, was %+v", link, was)
		}
	}
	l.attach(api.AttachRequest{Netns: other})
	l.pings(other, peer)
}

// TestUpgrade starts an agent of another build: the same program with another
// build identifier.
func TestUpgrade(t *testing.T) {
	l := newLab(t)
	agent := l.process()
	red, peer := l.couple()
	old := l.status()
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()

	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	id := []byte(old.Build)
	other := slices.Clone(id)
	slices.Reverse(other)
	upgraded := filepath.Join(l.dir, "upgraded")
	if err := os.WriteFile(upgraded, bytes.ReplaceAll(program, id, other), 0o755); err != nil {
		t.Fatal(err)
	}
	l.processOf(upgraded)
	now := l.status()
	if now.Dataplane.PID == old.Dataplane.PID || now.Dataplane.Build != string(other) || now.Build != string(other) {
		t.Errorf("was %+v, is %+v", old, now)
	}
	l.pings(red, peer, "10.77.0.1")
	l.consistent()
	// Its parent has ended; that somebody reaps it is not this test's business.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", old.Dataplane.PID))
	if err == nil && !bytes.Contains(stat, []byte(") Z ")) {
		t.Errorf("the old dataplane is still there: %s", stat)
	}
}

func TestStopEndsBothAndRestores(t *testing.T) {
	l := newLab(t)
	agent := l.process()
	l.apply(blue)
	red := l.netns()
	l.attach(api.AttachRequest{Netns: red})
	o := optionsIn(l.dir)
	if err := Stop(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	l.silent(red, "10.77.0.1")
	if len(l.hostEnds()) != 1 {
		t.Errorf("pairs after a stop: %v", l.hostEnds())
	}

	agent = l.process()
	l.pings(red, "10.77.0.1")
	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Netns: red}); err != nil {
		t.Fatal(err)
	}
	kill(agent) // the dataplane is an orphan now
	if err := Stop(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(l.run("*"))
	if err != nil || len(left) != 2 { // lock, netns
		t.Errorf("left in the run directory: %v, %v", left, err)
	}
	if err := Stop(t.Context(), o); err != nil {
		t.Errorf("second stop: %v", err)
	}
}
