// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// T is the part of testing.TB that a lab needs, so that a program can have
// labs too. Fatalf does not return.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
}

// Family is an IP version, 4 or 6.
type Family int

// The families.
const (
	V4 Family = 4
	V6 Family = 6
)

// String is IPv4 or IPv6.
func (f Family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// Lab is a set of namespaces, processes and directories that belong to one
// test. Its methods are for the goroutine of the test, but for processes, which
// any goroutine may start.
type Lab struct {
	t       T
	id      string // slt-XXXX, prefix of every name
	dir     string // run and state directories, scratch files
	bin     string // the binaries under test
	spaces  []*NS
	daemon  *Daemon
	before  footprint
	serial  int  // of scratch files
	evident bool // Evidence was logged

	mu    sync.Mutex
	procs []*Proc // +checklocks:mu
}

// New makes an empty lab. It fails without root or without the binaries: a
// test that could not run has not passed.
func New(t T) *Lab {
	t.Helper()
	l := &Lab{t: t, id: fmt.Sprintf("slt-%04x", rand.Uint32()&0xffff)}
	if os.Geteuid() != 0 {
		t.Fatalf("must be root: it makes network namespaces and veth pairs")
	}
	l.bin = findBinaries(t, "traffic")
	dir, err := os.MkdirTemp("", l.id+"-") // short: a socket's path has 108 bytes
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	l.dir = dir
	l.before = takeFootprint()
	t.Cleanup(l.close)
	return l
}

// findBinaries is $SLUICE_BIN, or bin/ at the root of the project.
func findBinaries(t T, name string) string {
	t.Helper()
	for _, dir := range []string{os.Getenv("SLUICE_BIN"), "../../bin", "bin"} {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			abs, _ := filepath.Abs(dir)
			return abs
		}
	}
	t.Fatalf("no binary %q in $SLUICE_BIN or ../../bin: run make build", name)
	return ""
}

// Binary is the path of one of the programs under test.
func (l *Lab) Binary(name string) string {
	l.t.Helper()
	path := filepath.Join(l.bin, name)
	if _, err := os.Stat(path); err != nil {
		l.t.Fatalf("%v: run make build", err)
	}
	return path
}

// Fail fails the lab's test, which goes on.
func (l *Lab) Fail(format string, args ...any) {
	l.t.Helper()
	l.t.Errorf(format, args...)
}

// Dir is a directory for scratch files, removed with the lab.
func (l *Lab) Dir() string { return l.dir }

// File writes a scratch file and returns its path.
func (l *Lab) File(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	return path
}

// count is a number that no scratch file of the lab has yet.
func (l *Lab) count() int {
	l.serial++
	return l.serial
}

// close takes down what is left, the youngest first, and then looks for what
// should not be there any more. What the test itself took down is gone already.
func (l *Lab) close() {
	if l.failed() {
		l.Evidence()
	}
	l.stopAll()
	if l.daemon != nil {
		l.daemon.shutdown()
	}
	for _, n := range l.spaces {
		n.Delete()
	}
	l.checkLeaks()
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Errorf("lab: %v", err)
	}
}

// stopAll kills the lab's processes but for the daemon, which ends in its own way.
func (l *Lab) stopAll() {
	l.mu.Lock()
	procs := l.procs
	l.procs = nil
	l.mu.Unlock()
	for _, p := range slices.Backward(procs) {
		if !p.keep {
			p.Kill()
		}
	}
}

// Eventually waits until is true, looking often, and fails the test after long.
func (l *Lab) Eventually(what string, long time.Duration, is func() bool) {
	l.t.Helper()
	for end := time.Now().Add(long); ; time.Sleep(20 * time.Millisecond) {
		if is() {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("not within %v: %s", long, what)
		}
	}
}
