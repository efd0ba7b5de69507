// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/conntrack"
)

// standsBy starts a spare that is gone when the test is.
func standsBy(t *testing.T, c StartConfig) *Spare {
	t.Helper()
	s, err := NewSpare(soon(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(t, s.client) })
	return s
}

// TestSpareTakesOver is what an agent does that has a spare.
func TestSpareTakesOver(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	conns, err := conntrack.CreateFile(filepath.Join(t.TempDir(), "connections"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer conns.Close()
	cfg.Connections = conns
	if cfg.Program, err = LoadProgram(""); err != nil {
		t.Fatal(err)
	}
	defer cfg.Program.Close()
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	tell := func() {
		t.Helper()
		if err := c.Apply(soon(t), tracking(1, ports...), filesOf(ports...)); err != nil {
			t.Fatal(err)
		}
	}
	tell()
	var gaps []time.Duration
	for n := range 5 {
		s := standsBy(t, cfg)
		ports[0].asks(t)
		only(t, cfg.Connections, uint64(n+1))
		if n == 2 {
			time.Sleep(1200 * time.Millisecond) // in which it looks at the table
		}
		talk(t, ports[0], ports[1], "before") // the spare takes none of it
		killed := time.Now()
		if err := unix.Kill(c.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ports[0].send(t, 2, "into the gap")
		<-c.Done()
		c.Close()
		if c, err = s.Promote(soon(t)); err != nil {
			t.Fatal(err)
		}
		tell()
		ports[1].expect(t, 1, "into the gap")
		gaps = append(gaps, time.Since(killed))
		talk(t, ports[0], ports[1], fmt.Sprint("after ", n))
	}
	slices.Sort(gaps)
	t.Logf("from kill -9 to the first frame: best %v, median %v, worst %v", gaps[0], gaps[len(gaps)/2], gaps[len(gaps)-1])
	c.Close() // it outlives this connection, and is found
	again := adopts(t, cfg.Listen)
	adopted(t, again)
	talk(t, ports[0], ports[1], "another agent")
}

// finds is an agent after one that was killed.
func finds(t *testing.T, c StartConfig) *Spare {
	t.Helper()
	s, err := FindSpare(soon(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.client.Close() })
	return s
}

// TestSpareOutlivesItsAgent: the next one finds it, and needs it if both were killed.
func TestSpareOutlivesItsAgent(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 1, ports...)
	s := standsBy(t, cfg)
	for range 2 { // agents are killed
		s.client.conn.close()
		next := finds(t, cfg)
		if next.PID() != s.PID() {
			t.Fatalf("found %d, want %d", next.PID(), s.PID())
		}
		s = next
	}
	c.Close()
	talk(t, ports[0], ports[1], "the first one") // of which it has taken nothing
	again := adopts(t, cfg.Listen)
	adopted(t, again)
	if again.PID() != c.PID() {
		t.Errorf("the path leads to %d, want %d", again.PID(), c.PID())
	}
	s.client.conn.close()
	if err := again.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(cfg.Listen); !errors.Is(err, ErrNotRunning) {
		t.Errorf("the path of a dead one: %v", err)
	}
	s = finds(t, cfg)
	n, err := s.Promote(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	applies(t, n, 2, ports...)
	talk(t, ports[0], ports[1], "the spare")
	n.Close() // it is like any other now
	last := adopts(t, cfg.Listen)
	adopted(t, last)
	if last.PID() != s.PID() || last.Generation() != 2 {
		t.Errorf("found %d with snapshot %d, want %d and 2", last.PID(), last.Generation(), s.PID())
	}
	talk(t, ports[0], ports[1], "another agent")
	if _, err := FindSpare(soon(t), cfg); !errors.Is(err, ErrNotRunning) {
		t.Errorf("another spare: %v", err)
	}
}

// TestSpareDoesNotWaitForEver: it ends if no agent comes, whether one came before or not.
func TestSpareDoesNotWaitForEver(t *testing.T) {
	needRoot(t)
	leaksNoFD(t)
	cfg := listening(t)
	cfg.Alone = 300 * time.Millisecond
	s := standsBy(t, cfg)
	if s.client.proc.wait(3 * cfg.Alone) {
		t.Fatal("it does not wait for its own agent to end")
	}
	s.client.conn.close()
	next, err := FindSpare(soon(t), cfg)
	if err != nil {
		t.Logf("not found in %v: %v", cfg.Alone, err) // on a busy machine
	} else {
		t.Cleanup(func() { kill(t, next.client) })
		next.client.conn.close()
	}
	if !s.client.proc.wait(wait) {
		t.Error("it waits for ever")
	}
}

// TestSpareOfAnother is not what a new agent wants, and is ended.
func TestSpareOfAnother(t *testing.T) {
	needRoot(t)
	file := func(t *testing.T) *os.File {
		t.Helper()
		f, err := conntrack.CreateFile(filepath.Join(t.TempDir(), "connections"), 1000)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for name, change := range map[string]func(*testing.T, *StartConfig){
		"workers":     func(_ *testing.T, c *StartConfig) { c.Workers++ },
		"no polling":  func(_ *testing.T, c *StartConfig) { c.BusyPoll = -1 },
		"connections": func(t *testing.T, c *StartConfig) { t.Helper(); c.Connections = file(t) },
		"private":     func(_ *testing.T, c *StartConfig) { c.Connections = nil },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := listening(t)
			cfg.Workers, cfg.Connections = 1, file(t)
			s := standsBy(t, cfg)
			s.client.conn.close()
			change(t, &cfg)
			if _, err := FindSpare(soon(t), cfg); err == nil || errors.Is(err, ErrNotRunning) {
				t.Errorf("found: %v", err)
			}
			if !s.client.proc.wait(wait) {
				t.Error("it goes on")
			}
			if _, err := os.Stat(SparePath(cfg.Listen)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its path is there: %v", err)
			}
		})
	}
}

// TestPromotionIsInterrupted kills the agent when the path leads to the spare, which
// doesn't know: the next agent goes on with it as with any other.
func TestPromotionIsInterrupted(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 1, ports...)
	s := standsBy(t, cfg)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.path.publish(); err != nil {
		t.Fatal(err)
	}
	s.client.conn.close()
	n := adopts(t, cfg.Listen)
	if was, files := n.Adopted(); n.PID() != s.PID() || was != nil || len(files) != 0 {
		t.Fatalf("found %d with %v, want %d with nothing", n.PID(), was, s.PID())
	}
	applies(t, n, 2, ports...)
	n.Close() // nothing ties it any more
	again := adopts(t, cfg.Listen)
	adopted(t, again)
	talk(t, ports[0], ports[1], "two agents later")
}

// TestFrozenSpare is ended by the agent that finds it.
func TestFrozenSpare(t *testing.T) {
	needRoot(t)
	leaksNoFD(t)
	cfg := listening(t)
	s := standsBy(t, cfg)
	if err := unix.Kill(s.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.client.conn.close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := FindSpare(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("found: %v", err)
	}
	if !s.client.proc.wait(wait) {
		t.Error("it is there yet")
	}
}

// TestSpareThatIsGone is of no use, and takes nothing with it.
func TestSpareThatIsGone(t *testing.T) {
	needRoot(t)
	leaksNoFD(t)
	cfg := listening(t)
	s := standsBy(t, cfg)
	if err := unix.Kill(s.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if _, err := s.Promote(soon(t)); err == nil {
		t.Error("a dead one was promoted")
	}
	starts(t, cfg)
	s = standsBy(t, cfg)
	s.Close()
	if _, err := os.Stat(SparePath(cfg.Listen)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its path is there: %v", err)
	}
}
