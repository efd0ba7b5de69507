// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/api"
	"sluice/dataplane"
	"sluice/test/steps"
	"sluice/veth"
)

// patience bounds every wait of a test; what is awaited takes milliseconds.
const patience = 20 * time.Second

func runDataplane(args []string) int { return dataplane.Main(args) }

func testLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// optionsIn are those of an agent that keeps everything below dir.
func optionsIn(dir string) Options {
	return Options{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), Workers: 1}
}

// lab is a directory for agents that follow each other, and the containers.
type lab struct {
	t   *testing.T
	dir string
	// api talks to whichever agent runs.
	api *api.Client
	// log is what all agents have logged.
	log *safeBuffer
	// entries is the size of the table of connections; 0: the default.
	entries int
	// config is the file of networks that agents are started with, if any.
	config string
	// relative says that agents are given relative directories, which only work in dir.
	relative bool
	// inside is the network namespace that agents in processes of their own run in;
	// empty: this process's.
	inside string
	// serial makes the namespaces' names.
	serial int
}

// safeBuffer is a buffer that several goroutines write.
type safeBuffer struct {
	mu sync.Mutex
	// +checklocks:mu
	b bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newLab makes a lab whose remains are taken away at the end, also on failure.
func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	// Not t.TempDir: a socket's path has 108 bytes.
	dir, err := os.MkdirTemp("/tmp", "slt-")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: dir, log: new(safeBuffer)}
	l.api = api.NewClient(filepath.Join(dir, "run", "sluiced.sock"))
	t.Cleanup(l.clean)
	return l
}

// clean ends a dataplane that is left and removes what was made.
func (l *lab) clean() {
	l.api.Close()
	if l.t.Failed() {
		l.t.Logf("agents' log:\n%s", l.log)
	}
	if err := dataplane.Evict(l.run("dataplane.sock")); err != nil {
		l.t.Error(err)
	}
	if err := veth.DeleteNetNS(l.run("netns/sluice")); err != nil {
		l.t.Error(err)
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Error(err)
	}
}

func (l *lab) run(name string) string { return filepath.Join(l.dir, "run", name) }

// blue is the network of most tests.
const blue = `networks: [{name: blue, subnets: [10.77.0.0/24, "fd77::/64"]}]`

// start runs an agent in this process and returns how to end it, which leaves
// the dataplane. It is ended with the test at the latest.
func (l *lab) start() (stop func()) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	o := optionsIn(l.dir)
	o.Config, o.ConnEntries = l.config, l.entries
	if l.relative {
		o.RunDir, o.StateDir = "run", "state"
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	o.Ready = func() { close(ready) }
	o.Log = testLog(l.log)
	go func() { ended <- Run(ctx, o) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		l.t.Fatalf("agent ended: %v", err)
	case <-time.After(patience):
		cancel()
		l.t.Fatal("agent not ready")
	}
	stop = sync.OnceFunc(func() {
		l.api.Close()
		cancel()
		if err := <-ended; err != nil {
			l.t.Errorf("agent ended with: %v", err)
		}
	})
	l.t.Cleanup(stop)
	return stop
}

// process runs an agent in a process of its own.
func (l *lab) process() *exec.Cmd {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.processOf(self)
}

// processOf runs an agent that is another program.
func (l *lab) processOf(program string) *exec.Cmd {
	l.t.Helper()
	cmd, out := l.begin([]string{program}, append(os.Environ(), runDirEnv+"="+l.dir))
	l.awaitReady(out)
	return cmd
}

// watched is process, with each of its steps known.
func (l *lab) watched() (*exec.Cmd, *steps.Watcher) {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd, out := l.begin(steps.Wrap(self, []string{self}, append(os.Environ(), runDirEnv+"="+l.dir)))
	w, err := steps.Watch(cmd.Process.Pid, out)
	if err != nil {
		l.t.Fatal(err)
	}
	l.awaitReady(out)
	return cmd, w
}

// begin starts a process of an agent.
func (l *lab) begin(args, env []string) (*exec.Cmd, *bufio.Reader) {
	l.t.Helper()
	if l.inside != "" { // replaces itself by the program, whose process is therefore known
		args = append([]string{"nsenter", "--net=/run/netns/" + l.inside, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Stderr = env, l.log
	// The dataplane inherits stderr; Wait must not wait for it.
	cmd.WaitDelay = time.Millisecond
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { kill(cmd) })
	return cmd, bufio.NewReader(out)
}

func (l *lab) awaitReady(out *bufio.Reader) {
	l.t.Helper()
	if line, err := out.ReadString('\n'); err != nil || line != "ready\n" {
		l.t.Fatalf("agent said %q, %v", line, err)
	}
}

// kill is kill -9, and waits for the end. A second time does nothing.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// apply declares networks.
func (l *lab) apply(yaml string) []api.Change {
	l.t.Helper()
	changes, err := l.api.Apply(l.t.Context(), &api.ApplyRequest{YAML: yaml})
	if err != nil {
		l.t.Fatal(err)
	}
	return changes
}

// netns makes a container's namespace and returns its name.
func (l *lab) netns() string {
	l.t.Helper()
	l.serial++
	name := fmt.Sprintf("slt-ag%d-%d", os.Getpid(), l.serial)
	l.sh("ip", "netns", "add", name)
	l.sh("ip", "-n", name, "link", "set", "lo", "up")
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	return name
}

// sh runs a command that must succeed, and returns its output.
func (l *lab) sh(args ...string) string {
	l.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// attach must succeed.
func (l *lab) attach(r api.AttachRequest) *api.AttachReply {
	l.t.Helper()
	reply, err := l.api.Attach(l.t.Context(), &r)
	if err != nil {
		l.t.Fatalf("attach %+v: %v", r, err)
	}
	return reply
}

// couple makes two containers on blue: the namespace of the one, the other's address.
func (l *lab) couple() (red, peer string) {
	l.t.Helper()
	l.apply(blue)
	red = l.netns()
	l.attach(api.AttachRequest{Netns: red})
	return red, l.attach(api.AttachRequest{Netns: l.netns()}).Addresses[0].Addr().String()
}

func (l *lab) links() []api.Link {
	l.t.Helper()
	links, err := l.api.Links(l.t.Context(), "", true)
	if err != nil {
		l.t.Fatal(err)
	}
	return links
}

func (l *lab) status() *api.Status {
	l.t.Helper()
	s, err := l.api.Status(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// pings must be answered, each within a second, at the first try.
func (l *lab) pings(netns string, to ...string) {
	l.t.Helper()
	for _, addr := range to {
		l.sh("ip", "netns", "exec", netns, "ping", "-n", "-c", "1", "-W", "1", addr)
	}
}

// silent pings must not be answered.
func (l *lab) silent(netns, to string) {
	l.t.Helper()
	err := exec.Command("ip", "netns", "exec", netns, "ping", "-n", "-c", "1", "-W", "1", to).Run()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed {
		l.t.Errorf("%s reaches %s (%v)", netns, to, err)
	}
}

// eventually waits until a condition holds.
func (l *lab) eventually(what string, ok func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// hostEnds returns the host ends by name.
func (l *lab) hostEnds() map[string]veth.HostEnd {
	l.t.Helper()
	ns, err := veth.OpenNetNS(l.run("netns/sluice"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer ns.Close()
	ends, err := veth.HostEnds(ns)
	if err != nil {
		l.t.Fatal(err)
	}
	out := make(map[string]veth.HostEnd)
	for _, e := range ends {
		out[e.Name] = e
	}
	return out
}

// consistent checks what must hold between operations: a pair for each record
// and a record for each pair, no address twice, everything ready.
func (l *lab) consistent() {
	l.t.Helper()
	ends, owners := l.hostEnds(), make(map[string]string)
	for _, link := range l.links() {
		end, there := ends[link.HostIfName]
		if !there || end.Alias != link.ID {
			l.t.Errorf("%s is recorded, but its pair %s is %+v", link.Name, link.HostIfName, end)
		}
		delete(ends, link.HostIfName)
		if link.State != api.StateReady {
			l.t.Errorf("%s is in state %s", link.Name, link.State)
		}
		for _, a := range link.Addresses {
			if other := owners[a.String()]; other != "" {
				l.t.Errorf("%s and %s both have %s", link.Name, other, a)
			}
			owners[a.String()] = link.Name
		}
	}
	for name, end := range ends {
		l.t.Errorf("pair %s (alias %q) has no record", name, end.Alias)
	}
}

// killPlane kills the dataplane as kill -9 would, and waits until it is gone.
func (l *lab) killPlane() {
	l.t.Helper()
	pid := l.status().Dataplane.PID
	if pid == 0 {
		l.t.Fatal("no dataplane to kill")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		l.t.Fatal(err)
	}
}
