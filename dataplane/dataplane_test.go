// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"sluice/netstack"
	"sluice/trace"
)

func TestFramesPass(t *testing.T) {
	leaksNoFD(t)
	c := starts(t, StartConfig{Workers: 2})
	ports := plugAll(t, 3)
	applies(t, c, 7, ports...)
	talk(t, ports[0], ports[1], "one to two")
	talk(t, ports[1], ports[2], "two to three")

	st, err := c.Status(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if st.PID != c.PID() || st.Generation != 7 || st.Ports != 3 || st.Namespaces != 1 || st.Workers != 2 || st.Build != BuildID() {
		t.Errorf("status %+v", st)
	}
	if err := c.Stop(soon(t)); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if err := c.Err(); !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "exit status 0") {
		t.Errorf("after Stop: %v", err)
	}
}

func TestQueries(t *testing.T) {
	c := starts(t, StartConfig{})
	ports := plugAll(t, 2)
	applies(t, c, 1, ports...)

	fdb, err := c.FDB(soon(t), "blue", "blue")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []FDBEntry{
		{MAC: mac(1).String(), Port: 1, Kind: "static"},
		{MAC: mac(2).String(), Port: 2, Kind: "static"},
		{MAC: mac(bridgeIndex).String(), Port: bridgeIndex, Kind: "own"},
	} {
		if !slices.Contains(fdb, want) {
			t.Errorf("FDB lacks %+v: %+v", want, fdb)
		}
	}
	neigh, err := c.Neighbours(soon(t), "blue", "blue")
	if err != nil || len(neigh) < 2 {
		t.Errorf("neighbours %+v, %v", neigh, err)
	}
	socks, err := c.Sockets(soon(t), "blue", "")
	if err != nil || len(socks) == 0 {
		t.Errorf("sockets %+v, %v: no echo service", socks, err)
	}
	var no *RefusedError
	if _, err := c.FDB(soon(t), "green", "green"); !errors.As(err, &no) || no.Field != "namespace" {
		t.Errorf("FDB of a namespace that is not there: %v", err)
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	leaksNoFD(t)
	c := starts(t, StartConfig{})
	ports := plugAll(t, 3)
	applies(t, c, 1, ports[:2]...)
	before := fdsOf(t, c.PID())

	var no *RefusedError
	err := c.Apply(soon(t), snapshot(2, ports...), nil) // port 3 has no socket
	if !errors.As(err, &no) || no.Field != "snapshot" {
		t.Errorf("a port without a socket: %v", err)
	}
	err = c.Apply(soon(t), snapshot(2, ports[:2]...), filesOf(ports[2])) // a socket without a port
	if !errors.As(err, &no) {
		t.Errorf("a socket without a port: %v", err)
	}
	twice := snapshot(2, ports[0], ports[0])
	if err := c.Apply(soon(t), twice, nil); !errors.Is(err, netstack.ErrInvalid) {
		t.Errorf("a snapshot that is wrong in itself: %v", err)
	}
	if got := fdsOf(t, c.PID()); got != before {
		t.Errorf("the process has %d fds after errors, %d before", got, before)
	}
	talk(t, ports[0], ports[1], "still there")

	applies(t, c, 3, ports...)
	talk(t, ports[0], ports[2], "grown")
	if err := c.Apply(soon(t), snapshot(4, ports[0]), nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the sockets of removed ports are closed", func() bool { return fdsOf(t, c.PID()) == before-1 })
}

func TestManyPorts(t *testing.T) {
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2*maxFDs+100)
	applies(t, c, 1, ports...)
	talk(t, ports[0], ports[len(ports)-1], "far")
	c.Close()

	c = adopts(t, cfg.Listen)
	if n := len(adopted(t, c)); n != len(ports) {
		t.Errorf("adopted %d ports of %d", n, len(ports))
	}
	talk(t, ports[1], ports[maxFDs], "still far")
}

// adopts connects; the process is not the test's to kill, the files are to close.
func adopts(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Connect(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// adopted returns the files of an adopted process, closed when the test ends.
func adopted(t *testing.T, c *Client) map[uint16]*os.File {
	t.Helper()
	_, files := c.Adopted()
	t.Cleanup(func() { closeAll(files, nil) })
	return files
}

// TestKilledAndStartedAgain is what an agent does when the dataplane dies: the
// same sockets and the same snapshot to a new process.
func TestKilledAndStartedAgain(t *testing.T) {
	leaksNoFD(t)
	program, err := LoadProgram("") // once, as an agent does
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	c := starts(t, StartConfig{Program: program})
	ports := plugAll(t, 2)
	applies(t, c, 1, ports...)
	talk(t, ports[0], ports[1], "before")

	var gaps []time.Duration
	for range 5 {
		killed := time.Now()
		if err := unix.Kill(c.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ports[0].send(t, 2, "into the gap")
		<-c.Done()
		if err := c.Err(); !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "killed") {
			t.Errorf("after a kill: %v", err)
		}
		c.Close()
		c = starts(t, StartConfig{Program: program})
		applies(t, c, 1, ports...)
		ports[1].expect(t, 1, "into the gap")
		gaps = append(gaps, time.Since(killed))
		talk(t, ports[0], ports[1], "after")
	}
	slices.Sort(gaps)
	t.Logf("from kill -9 to the first frame: best %v, median %v, worst %v", gaps[0], gaps[len(gaps)/2], gaps[len(gaps)-1])
}

func TestAgentGoesAndAnotherAdopts(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	counters, err := trace.CreateCounters(cfg.Listen+".counters", 16)
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()
	cfg.Counters = counters
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 9, ports...)
	c.Close()
	talk(t, ports[0], ports[1], "no agent")

	n := adopts(t, cfg.Listen)
	if n.PID() != c.PID() || n.Build() != BuildID() || n.Generation() != 9 {
		t.Errorf("adopted process %d of build %s, generation %d", n.PID(), n.Build(), n.Generation())
	}
	got, _ := n.Adopted()
	if diff := cmp.Diff(snapshot(9, ports...), got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("adopted snapshot (-want +got):\n%s", diff)
	}
	for index, f := range adopted(t, n) {
		if !sameFile(t, f, ports[index-1].port) {
			t.Errorf("adopted socket of port %d is another one", index)
		}
	}
	if !sameFile(t, n.Counters(), counters) {
		t.Error("adopted counters are another file")
	}
	applies(t, n, 10, ports...)
	talk(t, ports[0], ports[1], "adopted")
}

// TestAdoptedSocketsDoNotWakeTheAgent guards the agent's idle CPU: its poller
// must not know the sockets that it only keeps.
func TestAdoptedSocketsDoNotWakeTheAgent(t *testing.T) {
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 1, ports...)
	for index, f := range adopted(t, adopts(t, cfg.Listen)) {
		if err := f.SetReadDeadline(time.Now()); !errors.Is(err, os.ErrNoDeadline) {
			t.Errorf("socket of port %d is known to the poller: %v", index, err)
		}
		fd, err := fdOf(f)
		if err != nil {
			t.Fatal(err)
		}
		if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || fl&unix.O_NONBLOCK == 0 {
			t.Errorf("socket of port %d is blocking now: %v", index, err)
		}
	}
}

// TestSecondAgentTakesOver replaces an agent that is still there.
func TestSecondAgentTakesOver(t *testing.T) {
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 1, ports...)
	n := adopts(t, cfg.Listen)
	adopted(t, n)
	<-c.Done()
	if !errors.Is(c.Err(), ErrReplaced) {
		t.Errorf("the first agent ended with %v", c.Err())
	}
	if err := c.Ping(soon(t)); !errors.Is(err, ErrReplaced) {
		t.Errorf("ping of the first agent: %v", err)
	}
	if err := n.Ping(soon(t)); err != nil {
		t.Error(err)
	}
	talk(t, ports[0], ports[1], "second agent")
}

// TestAgentDiesWhileStaging leaves sockets staged and no apply.
func TestAgentDiesWhileStaging(t *testing.T) {
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 300)
	applies(t, c, 1, ports[:2]...)
	before := fdsOf(t, c.PID())
	if err := c.stage(soon(t), filesOf(ports[2:]...)); err != nil {
		t.Fatal(err)
	}
	if got := fdsOf(t, c.PID()); got != before+298 {
		t.Errorf("%d fds with 298 staged, %d before", got, before)
	}
	c.Close()
	await(t, "staged sockets are closed", func() bool { return fdsOf(t, c.PID()) == before-1 })
	talk(t, ports[0], ports[1], "nothing happened")

	// The next agent may stage the same ports, and may change its mind.
	n := adopts(t, cfg.Listen)
	adopted(t, n)
	if err := n.stage(soon(t), filesOf(ports[2:10]...)); err != nil {
		t.Fatal(err)
	}
	if err := n.Apply(soon(t), snapshot(2, ports...), filesOf(ports[2:]...)); err != nil {
		t.Fatal(err)
	}
	talk(t, ports[0], ports[299], "all of them")
}

func TestHandover(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 4, ports...)
	n, err := Handover(soon(t), c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(t, n) })
	adopted(t, n)
	if n.PID() == c.PID() {
		t.Fatal("handed over to itself")
	}
	<-c.Done()
	talk(t, ports[0], ports[1], "new process")
	if st, err := n.Status(soon(t)); err != nil || st.Generation != 4 || st.Ports != 2 {
		t.Errorf("status %+v, %v", st, err)
	}
	// The path leads to the new one.
	m := adopts(t, cfg.Listen)
	adopted(t, m)
	if m.PID() != n.PID() {
		t.Errorf("the path leads to %d, not %d", m.PID(), n.PID())
	}
}

func TestHandoverThatFails(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 4, ports...)
	bad := cfg
	bad.Exe = "/nonexistent"
	if _, err := Handover(soon(t), c, bad); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("hand over to no program: %v", err)
	}
	if err := c.Ping(soon(t)); err != nil {
		t.Error(err)
	}
	talk(t, ports[0], ports[1], "old process")
}

func TestNobodyThere(t *testing.T) {
	cfg := listening(t)
	if _, err := Connect(cfg.Listen); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no path: %v", err)
	}
	c := starts(t, cfg)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(cfg.Listen); !errors.Is(err, ErrNotRunning) {
		t.Errorf("path of a dead process: %v", err)
	}
	if err := Evict(cfg.Listen); err != nil {
		t.Errorf("evict nobody: %v", err)
	}
}

// freeze stops the process, as a debugger or a cgroup's freezer would.
func freeze(t *testing.T, c *Client) {
	t.Helper()
	if err := c.proc.signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	tasks := fmt.Sprintf("/proc/%d/task/*", c.PID())
	await(t, "all threads have stopped", func() bool {
		all, err := filepath.Glob(tasks)
		return err == nil && !slices.ContainsFunc(all, func(task string) bool {
			return !strings.HasPrefix(statusOf(t, task)["State"], "T")
		})
	})
}

func TestFrozen(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	c := starts(t, cfg)
	freeze(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := c.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping of a frozen process: %v", err)
	}
	if err := Evict(cfg.Listen); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if !errors.Is(c.Err(), ErrExited) {
		t.Errorf("after Evict: %v", c.Err())
	}
}

func TestConnectToFrozen(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a timeout of seconds")
	}
	t.Parallel()
	cfg := listening(t)
	c := starts(t, cfg)
	freeze(t, c)
	if _, err := Connect(cfg.Listen); !errors.Is(err, ErrUnresponsive) {
		t.Errorf("connect to a frozen process: %v", err)
	}
}

// TestEndsWithItsAgent is the process that nobody can reach any more.
func TestEndsWithItsAgent(t *testing.T) {
	c := starts(t, StartConfig{})
	c.Close()
	if !c.proc.wait(wait) {
		t.Error("a process without a control path outlives its agent")
	}
}

func TestLogComesAsEvents(t *testing.T) {
	c := starts(t, StartConfig{})
	applies(t, c, 5, plugAll(t, 2)...)
	for {
		select {
		case e := <-c.Events():
			if e.Kind == EventLog && e.Message == "snapshot applied" && slices.Contains(e.Attrs, "generation=5") {
				return
			}
		case <-time.After(wait):
			t.Fatal("no log line came")
		}
	}
}

func TestPortDownEvent(t *testing.T) {
	c := starts(t, StartConfig{})
	ports := plugAll(t, 2)
	applies(t, c, 5, ports...)
	if err := unix.Shutdown(ports[1].container, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-c.Events():
			if e.Kind == EventPortDown {
				if e.Port != 2 {
					t.Errorf("port %d is down, not 2", e.Port)
				}
				return
			}
		case <-time.After(wait):
			t.Fatal("no event came")
		}
	}
}

func TestStartRefuses(t *testing.T) {
	needRoot(t)
	leaksNoFD(t)
	notCounters, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer notCounters.Close()
	dir := t.TempDir()
	private := privateProgram(t)
	for name, tc := range map[string]struct {
		config StartConfig
		want   string
	}{
		"no program":               {StartConfig{Exe: "/nonexistent"}, "no such file"},
		"another program":          {StartConfig{Exe: "/bin/true"}, "has ended: exit status 0"},
		"a private program":        {StartConfig{Exe: private}, ""},
		"a user of its own":        {StartConfig{UID: 1<<30 + 7}, ""},
		"a file of no counters":    {StartConfig{Counters: notCounters}, "counters"},
		"a path that is too long":  {StartConfig{Listen: "/" + strings.Repeat("x", 100)}, "at most 100"},
		"a path in no directory":   {StartConfig{Listen: dir + "/none/sock"}, "no such file"},
		"a path that is taken":     {StartConfig{Listen: "/proc"}, "/proc.new"},
		"a log level out of range": {StartConfig{Workers: -1, FlowEntries: -1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Start(soon(t), tc.config)
			if err == nil {
				kill(t, c)
			}
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// privateProgram is this program in a file that only root may execute.
func privateProgram(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "private")
	if err := os.WriteFile(path, b, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartCanBeGivenUp(t *testing.T) {
	needRoot(t)
	leaksNoFD(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c, err := Start(ctx, StartConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a cancelled context: %v", err)
		if err == nil {
			kill(t, c)
		}
	}
}
