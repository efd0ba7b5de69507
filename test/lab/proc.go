// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a process may take to get ready or to obey a signal,
// and a command that should be short may run: generous, since a test machine
// may be busy, and bounded, since a test must end.
const patience = 60 * time.Second

// Proc is a process in the background.
type Proc struct {
	t     T
	name  string
	cmd   *exec.Cmd
	log   string        // file with its output; empty: out and err have it
	keep  bool          // survives stopAll
	ready chan struct{} // closed at the line "ready"
	done  chan struct{} // closed when it has ended and all output is read

	mu sync.Mutex
	// +checklocks:mu
	out bytes.Buffer
	// +checklocks:mu
	err bytes.Buffer
}

// Result is how a command ended.
type Result struct {
	t        T
	Command  string
	Code     int // exit code; 128 + signal if killed, as in a shell
	Out, Err string
}

// run runs a command to its end.
func (l *Lab) run(args ...string) Result {
	l.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := Result{t: l.t, Command: strings.Join(args, " "), Out: out.String(), Err: errs.String()}
	r.Code = exitCode(err)
	if ctx.Err() != nil {
		l.t.Errorf("%s: still runs after %v", r.Command, patience)
	}
	return r
}

// Run runs a command in the host's namespace, which must succeed.
func (l *Lab) Run(args ...string) string {
	l.t.Helper()
	return l.run(args...).ok()
}

// Try runs a command in the host's namespace that may fail.
func (l *Lab) Try(args ...string) Result {
	l.t.Helper()
	return l.run(args...)
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 127
	}
	return stateCode(exit.ProcessState)
}

func stateCode(state *os.ProcessState) int {
	if s, ok := state.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return state.ExitCode()
}

// ok ends the test unless the command succeeded, and returns what it printed.
func (r Result) ok() string {
	r.t.Helper()
	if r.Code != 0 {
		r.t.Fatalf("%s: exit code %d\n%s%s", r.Command, r.Code, r.Out, r.Err)
	}
	return r.Out
}

// Expect fails the test unless the exit code is as given and every word stands
// in the output or the error output.
func (r Result) Expect(code int, words ...string) Result {
	r.t.Helper()
	if r.Code != code {
		r.t.Errorf("%s: exit code %d, want %d\n%s%s", r.Command, r.Code, code, r.Out, r.Err)
	}
	for _, w := range words {
		if !strings.Contains(r.Out+r.Err, w) {
			r.t.Errorf("%s: no %q in\n%s%s", r.Command, w, r.Out, r.Err)
		}
	}
	return r
}

// JSON decodes what the command printed.
func (r Result) JSON(v any) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.Out), v); err != nil {
		r.t.Fatalf("%s: %v in\n%s%s", r.Command, err, r.Out, r.Err)
	}
}

// Start starts a command in the host's namespace in the background.
func (l *Lab) Start(args ...string) *Proc {
	l.t.Helper()
	p := l.prepare(args)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		l.t.Fatalf("%s: %v", p.name, err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		l.t.Fatalf("%s: %v", p.name, err)
	}
	l.launch(p, func() {
		var readers sync.WaitGroup
		readers.Go(func() { p.read(stdout, p.keepOut) })
		readers.Go(func() { p.read(stderr, p.keepErr) })
		readers.Wait()
	})
	return p
}

// startLogged is Start for a process whose children outlive it: a pipe would
// not end with it, so what it prints goes to the end of a file.
func (l *Lab) startLogged(log string, args ...string) *Proc {
	l.t.Helper()
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	defer file.Close()
	p := l.prepare(args)
	p.log, p.keep = log, true
	p.cmd.Stdout, p.cmd.Stderr = file, file
	// Out of our process group: what interrupts us at a terminal must leave it
	// there to be put away.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	l.launch(p, func() {})
	return p
}

// prepare makes a process that is not started yet. The environment carries the
// mark by which checkLeaks finds a child of a child.
func (l *Lab) prepare(args []string) *Proc {
	p := &Proc{t: l.t, name: strings.Join(args, " "), cmd: exec.Command(args[0], args[1:]...)}
	p.ready, p.done = make(chan struct{}), make(chan struct{})
	p.cmd.Env = append(os.Environ(), labMark+"="+l.dir)
	return p
}

// launch starts a process; drain reads what it prints to the end.
func (l *Lab) launch(p *Proc, drain func()) {
	l.t.Helper()
	if err := p.cmd.Start(); err != nil {
		l.t.Fatalf("%s: %v", p.name, err)
	}
	l.mu.Lock()
	l.procs = append(l.procs, p)
	l.mu.Unlock()
	go func() {
		drain()
		_ = p.cmd.Wait()
		close(p.done)
	}()
}

// read gives the lines of one output to keep.
func (p *Proc) read(from io.Reader, keep func(string)) {
	s := bufio.NewScanner(from)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if s.Text() == "ready" {
			close(p.ready)
			continue
		}
		keep(s.Text() + "\n")
	}
}

func (p *Proc) keepOut(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.WriteString(line)
}

func (p *Proc) keepErr(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err.WriteString(line)
}

// PID is the process's id, also when it was started inside a namespace.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Ready waits until the process has printed the line "ready".
func (p *Proc) Ready() *Proc {
	p.t.Helper()
	select {
	case <-p.ready:
	case <-p.done:
		p.t.Fatalf("%s: ended before it was ready\n%s", p.name, p.Output())
	case <-time.After(patience):
		p.t.Fatalf("%s: not ready within %v\n%s", p.name, patience, p.Output())
	}
	return p
}

// Ended reports whether the process is gone.
func (p *Proc) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Output is what the process has printed so far, errors last.
func (p *Proc) Output() string {
	if p.log != "" {
		text, _ := os.ReadFile(p.log)
		return string(text)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String() + p.err.String()
}

// Wait waits for the end of the process, at most long.
func (p *Proc) Wait(long time.Duration) Result {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(long):
		p.Kill()
		p.t.Errorf("%s: still ran after %v\n%s", p.name, long, p.Output())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return Result{t: p.t, Command: p.name, Out: p.out.String(), Err: p.err.String(), Code: stateCode(p.cmd.ProcessState)}
}

// Connected waits until the process has opened a socket: a command has asked its daemon, or
// is about to.
func (p *Proc) Connected() *Proc {
	p.t.Helper()
	fds := filepath.Join("/proc", strconv.Itoa(p.PID()), "fd")
	has := func(fd string) bool {
		to, _ := os.Readlink(filepath.Join(fds, fd))
		return strings.HasPrefix(to, "socket:")
	}
	for end := time.Now().Add(patience); !slices.ContainsFunc(listDir(fds), has); time.Sleep(10 * time.Millisecond) {
		if p.Ended() || time.Now().After(end) {
			p.t.Fatalf("%s: connects to nobody\n%s", p.name, p.Output())
		}
	}
	return p
}

// Stop interrupts the process and waits for its end.
func (p *Proc) Stop() Result {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.Wait(patience)
}

// Kill sends SIGKILL and waits until the process is gone.
func (p *Proc) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// forget takes a process that has ended from the lab's list.
func (l *Lab) forget(p *Proc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.procs = slices.DeleteFunc(l.procs, func(q *Proc) bool { return q == p })
}
