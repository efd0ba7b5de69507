// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
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
		only(t, c, uint64(n+1))
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

// TestSpareEndsWithItsAgent: nobody could find it.
func TestSpareEndsWithItsAgent(t *testing.T) {
	needRoot(t)
	leaksNoFD(t)
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 1, ports...)
	s := standsBy(t, cfg)
	s.client.conn.close()
	if !s.client.proc.wait(wait) {
		t.Error("the spare outlives its agent")
	}
	standsBy(t, cfg) // where the path of the first is yet
	c.Close()
	again := adopts(t, cfg.Listen)
	adopted(t, again)
	if again.PID() != c.PID() {
		t.Errorf("the path leads to %d, want %d", again.PID(), c.PID())
	}
	talk(t, ports[0], ports[1], "the first one")
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
