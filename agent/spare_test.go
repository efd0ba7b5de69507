// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"sluice/api"
)

// spares are the processes of this one's children that are a dataplane, but for the
// one that forwards.
func (l *lab) spares() (pids []int) {
	l.t.Helper()
	self := fmt.Sprintf("/proc/%d/task", os.Getpid())
	tasks, err := os.ReadDir(self)
	if err != nil {
		l.t.Fatal(err)
	}
	main := l.status().Dataplane.PID
	for _, task := range tasks {
		b, _ := os.ReadFile(self + "/" + task.Name() + "/children") // it may have ended
		for word := range strings.FieldsSeq(string(b)) {
			var pid int
			if _, err := fmt.Sscan(word, &pid); err == nil && pid != main && lives(pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// lives reports whether a process runs and is named as a dataplane.
func lives(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), "(sluice-data) ") && !strings.Contains(string(b), "(sluice-data) Z")
}

// aSpare waits for one that stands by.
func (l *lab) aSpare() (pid int) {
	l.t.Helper()
	l.eventually("a spare", func() bool {
		all := l.spares()
		if len(all) != 1 {
			return false
		}
		pid = all[0]
		return strings.Contains(l.log.String(), fmt.Sprintf("stands by\" pid=%d\n", pid))
	})
	return pid
}

func TestSpareTakesOver(t *testing.T) {
	l := newLab(t)
	stop := l.start()
	red, peer := l.couple()
	for n := 1; n <= 2; n++ {
		spare := l.aSpare()
		l.killPlane()
		l.eventually("the next dataplane", func() bool {
			s := l.status().Dataplane
			return s.State == "running" && s.Restarts == n
		})
		s := l.status().Dataplane
		t.Logf("gap %d: %d µs", n, s.LastGapMicros)
		if s.PID != spare && !strings.Contains(l.log.String(), "of no use") {
			t.Errorf("process %d took over, the spare was %d", s.PID, spare)
		}
		l.pings(red, peer, "10.77.0.1", "fd77::1")
	}
	spare, pid := l.aSpare(), l.status().Dataplane.PID
	stop()
	if lives(spare) {
		t.Error("the spare outlives its agent")
	}
	if !lives(pid) {
		t.Error("the dataplane does not outlive its agent")
	}
	l.start()
	if s := l.status().Dataplane; s.PID != pid {
		t.Errorf("the next agent found %d, want %d", s.PID, pid)
	}
	l.pings(red, peer)
}

// TestSpareDiesFirst: there is another start, and nobody misses it meanwhile.
func TestSpareDiesFirst(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	red := l.netns()
	l.attach(api.AttachRequest{Netns: red})
	spare := l.aSpare()
	if err := syscall.Kill(spare, syscall.SIGSTOP); err != nil { // frozen, as seen from here
		t.Fatal(err)
	}
	l.killPlane()
	l.eventually("another dataplane", func() bool {
		s := l.status().Dataplane
		return s.State == "running" && s.Restarts == 1
	})
	if s := l.status().Dataplane; s.PID == spare {
		t.Error("the frozen one took over")
	}
	l.pings(red, "10.77.0.1")
	l.eventually("the frozen one is gone", func() bool { return !lives(spare) })
}

// spareOf waits until a spare stands by, and returns its process.
func (l *lab) spareOf() (pid int) {
	l.t.Helper()
	l.eventually("a spare", func() bool {
		pid = l.status().Dataplane.Spare
		return pid != 0
	})
	return pid
}

// TestSpareOutlivesAKill: whoever is killed, the next agent goes on with the spare that is
// there, and `sluiced stop` leaves none.
func TestSpareOutlivesAKill(t *testing.T) {
	l := newLab(t)
	agent := l.process()
	red, peer := l.couple()

	spare, pid := l.spareOf(), l.status().Dataplane.PID
	kill(agent)
	agent = l.process()
	if s := l.status().Dataplane; s.PID != pid || s.Spare != spare {
		t.Errorf("agent killed: processes %d and %d go on, want %d and %d", s.PID, s.Spare, pid, spare)
	}
	l.pings(red, peer)

	kill(agent)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	agent = l.process()
	if s := l.status().Dataplane; s.PID != spare || s.Adopted {
		t.Errorf("both killed: process %d took over, adopted %t, the spare was %d", s.PID, s.Adopted, spare)
	}
	l.pings(red, peer, "10.77.0.1", "fd77::1")
	l.consistent()

	spare, pid = l.spareOf(), l.status().Dataplane.PID
	kill(agent)
	if err := Stop(t.Context(), optionsIn(l.dir)); err != nil {
		t.Fatal(err)
	}
	if lives(pid) || lives(spare) {
		t.Error("a dataplane outlives all that is to be stopped")
	}
}
