// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// TestStartIsInterrupted kills the agent, as far as the process can see, before
// the control path is where others find it.
func TestStartIsInterrupted(t *testing.T) {
	needRoot(t)
	leaksNoFD(t)
	cfg := listening(t)
	n, l, err := start(soon(t), cfg, beside)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(t, n) })
	if err := l.publish(); err != nil { // and before the process knows
		t.Fatal(err)
	}
	n.conn.close()
	if !n.proc.wait(wait) {
		t.Error("a process that nobody knows of outlives its agent")
	}
}

// TestHandoverIsInterrupted kills the agent after each step. Never do both
// processes go on, and what goes on is what the path leads to.
func TestHandoverIsInterrupted(t *testing.T) {
	for done, tc := range []struct {
		step      string
		old, next bool // goes on
	}{
		{"start", true, false},
		{"configure", true, false},
		{"tie the old one", false, false},
		{"publish", false, false},
		{"free the new one", false, true},
	} {
		for _, oldFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("after %s, old first %t", tc.step, oldFirst), func(t *testing.T) {
				leaksNoFD(t)
				h, path := interrupted(t, done, oldFirst)
				for p, goesOn := range map[*process]bool{h.old.proc: tc.old, h.next.proc: tc.next} {
					if !goesOn && !p.wait(wait) {
						t.Errorf("process %d goes on", p.pid)
					}
				}
				n, err := Connect(path)
				if !tc.old && !tc.next {
					if !errors.Is(err, ErrNotRunning) {
						t.Errorf("the path leads to somebody: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer n.Close()
				adopted(t, n)
				if want := map[bool]*Client{true: h.old, false: h.next}[tc.old]; n.PID() != want.PID() {
					t.Errorf("the path leads to %d, want %d", n.PID(), want.PID())
				}
			})
		}
	}
}

// interrupted hands over as far as so many steps after the start, and then loses
// both connections.
func interrupted(t *testing.T, steps int, oldFirst bool) (*takeover, string) {
	t.Helper()
	cfg := listening(t)
	old := starts(t, cfg)
	applies(t, old, 4, plugAll(t, 2)...)
	h, err := handOver(soon(t), old, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(t, h.next) })
	adopted(t, h.next)
	for _, step := range h.steps()[:steps] {
		if err := step(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	order := []*Client{h.next, old}
	if oldFirst {
		order = []*Client{old, h.next}
	}
	for _, c := range order {
		c.conn.close()
	}
	return h, cfg.Listen
}

// TestHandoverIsTakenBack fails after the old process was tied: it is let go.
func TestHandoverIsTakenBack(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	old := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, old, 4, ports...)
	h, err := handOver(soon(t), old, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.tieOld(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(cfg.Listen + beside); err != nil {
		t.Fatal(err)
	}
	if err := h.publish(soon(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("publish what is gone: %v", err)
	}
	h.undo(soon(t))
	if !h.next.proc.wait(wait) {
		t.Error("the new process goes on")
	}
	old.Close()
	adopted(t, adopts(t, cfg.Listen))
	talk(t, ports[0], ports[1], "old process")
}

// TestTieOfAnOlderVersion: it does not know the message and is not sent it.
func TestTieOfAnOlderVersion(t *testing.T) {
	c, _ := againstHostile(t)
	c.other.Protocol = tieProtocol - 1
	if err := c.tie(soon(t)); err != nil {
		t.Error(err)
	}
	if err := c.free(soon(t)); err != nil {
		t.Error(err)
	}
}
