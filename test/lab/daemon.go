// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/api"
)

// Blue is a network of both families, in the words of the networks file.
const Blue = `networks:
  - name: blue
    subnets: [10.44.0.0/24, fd44::/64]
    echo: true
`

// BlueMTU is the network blue with another MTU.
func BlueMTU(mtu int) string { return fmt.Sprintf("%s    mtu: %d\n", Blue, mtu) }

const interrupt = syscall.SIGTERM

// Daemon is sluiced with its own run and state directories.
type Daemon struct {
	lab        *Lab
	run, state string
	network    string // of Connect
	home       *NS    // where it runs; nil: in the host's namespace
	flags      []string
	under      []string // a command that executes the agent
	proc       *Proc    // the agent; nil while there is none
	dataplane  int      // last known process id, to look for when all is over
	upgraded   []string // programs after the first
}

// Daemon starts sluiced and declares the networks of a YAML text.
func (l *Lab) Daemon(networks string) *Daemon {
	l.t.Helper()
	d := l.NewDaemon()
	d.Start()
	d.Apply(networks)
	return d
}

// DaemonIn is Daemon in a namespace of the lab's own, which is the host to it.
// The flags are sluiced's.
func (l *Lab) DaemonIn(home *NS, networks string, flags ...string) *Daemon {
	l.t.Helper()
	d := l.NewDaemon()
	d.home, d.flags = home, flags
	d.Start()
	d.Apply(networks)
	return d
}

// NewDaemon is a daemon that is not started yet.
func (l *Lab) NewDaemon() *Daemon {
	d := &Daemon{lab: l, run: filepath.Join(l.dir, "run"), state: filepath.Join(l.dir, "state"), network: "blue"}
	l.daemon = d
	return d
}

// Start starts the agent and waits until there is a dataplane that forwards.
func (d *Daemon) Start() {
	d.lab.t.Helper()
	d.Launch()
	d.lab.Eventually("sluiced with a running dataplane", patience, func() bool {
		if d.proc.Ended() {
			d.lab.t.Fatalf("sluiced ended:\n%s", d.proc.Output())
		}
		s, err := d.TryStatus()
		return err == nil && s.Dataplane.State == "running"
	})
}

// Launch starts the agent and does not wait.
func (d *Daemon) Launch() {
	d.lab.t.Helper()
	log := filepath.Join(d.lab.dir, "sluiced.log")
	args := append(slices.Clone(d.under), d.program(), "run", "--run-dir", d.run, "--state-dir", d.state)
	d.proc = d.lab.startLogged(log, d.at(append(args, d.flags...)...)...)
}

// Under lets the next start go by a command that executes the agent, such as setpriv(1).
func (d *Daemon) Under(command ...string) { d.under = command }

// program is the agent's.
func (d *Daemon) program() string {
	if n := len(d.upgraded); n > 0 {
		return d.upgraded[n-1]
	}
	return d.lab.Binary("sluiced")
}

// Upgrade stops the agent and starts one of another build: the same program with another
// identifier, whose dataplane takes over.
func (d *Daemon) Upgrade() {
	d.lab.t.Helper()
	id := []byte(d.Status().Build)
	program, err := os.ReadFile(d.program())
	if err != nil {
		d.lab.t.Fatalf("%v", err)
	}
	other := slices.Clone(id)
	slices.Reverse(other)
	d.Stop()
	d.upgraded = append(d.upgraded, filepath.Join(d.lab.dir, fmt.Sprintf("sluiced-%d", len(d.upgraded)+2)))
	if err := os.WriteFile(d.program(), bytes.ReplaceAll(program, id, other), 0o755); err != nil {
		d.lab.t.Fatalf("%v", err)
	}
	d.Start()
}

// at is the command line that runs a command where the daemon is.
func (d *Daemon) at(args ...string) []string {
	if d.home == nil {
		return args
	}
	return d.home.inside(args)
}

// Lab is the daemon's lab.
func (d *Daemon) Lab() *Lab { return d.lab }

// PID is the agent's process id.
func (d *Daemon) PID() int { return d.proc.PID() }

// Socket is the path of the daemon's socket.
func (d *Daemon) Socket() string { return filepath.Join(d.run, "sluiced.sock") }

// RunDir is the daemon's run directory.
func (d *Daemon) RunDir() string { return d.run }

// Name is "Sluice".
func (d *Daemon) Name() string { return "Sluice" }

// Connect attaches a namespace to the network blue.
func (d *Daemon) Connect(n *NS) {
	d.lab.t.Helper()
	n.Attach("--network", d.network)
}

// CLI runs sluice(8) against this daemon.
func (d *Daemon) CLI(args ...string) Result {
	d.lab.t.Helper()
	return d.lab.run(d.Command(args...)...)
}

// Command is the command line of sluice(8) against this daemon.
func (d *Daemon) Command(args ...string) []string {
	return append([]string{d.lab.Binary("sluice"), "--socket", d.Socket()}, args...)
}

// Apply declares networks, which must be accepted.
func (d *Daemon) Apply(networks string) {
	d.lab.t.Helper()
	d.TryApply(networks).ok()
}

// TryApply is Apply that may be refused.
func (d *Daemon) TryApply(networks string, args ...string) Result {
	d.lab.t.Helper()
	file := d.lab.File("networks.yaml", networks)
	return d.CLI(append([]string{"apply", "-f", file}, args...)...)
}

// TryStatus asks the daemon how it is.
func (d *Daemon) TryStatus() (*api.Status, error) {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	c := api.NewClient(d.Socket())
	defer c.Close()
	s, err := c.Status(ctx)
	if err == nil && s.Dataplane.PID > 0 {
		d.dataplane = s.Dataplane.PID
	}
	return s, err
}

// Status asks the daemon how it is; it must answer.
func (d *Daemon) Status() *api.Status {
	d.lab.t.Helper()
	s, err := d.TryStatus()
	if err != nil {
		d.lab.t.Fatalf("status: %v\n%s", err, d.Log())
	}
	return s
}

// Log is what agent and dataplane have logged.
func (d *Daemon) Log() string {
	if d.proc == nil {
		return ""
	}
	return d.proc.Output()
}

// KillAgent sends SIGKILL to the agent; the dataplane is left alone.
func (d *Daemon) KillAgent() {
	d.lab.t.Helper()
	d.proc.Kill()
	d.lab.forget(d.proc)
	d.proc = nil
}

// KillDataplane sends SIGKILL to the dataplane and returns its process id.
func (d *Daemon) KillDataplane() int {
	d.lab.t.Helper()
	pid := d.Status().Dataplane.PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		d.lab.t.Fatalf("kill dataplane %d: %v", pid, err)
	}
	return pid
}

// AwaitDataplane waits until another dataplane than one of the past, by its process id, runs.
func (d *Daemon) AwaitDataplane(old int) {
	d.lab.t.Helper()
	d.lab.Eventually("a new dataplane", patience, func() bool {
		s := d.Status()
		return s.Dataplane.State == "running" && s.Dataplane.PID != old
	})
}

// KillBoth sends SIGKILL to both processes, the dataplane last, so that nobody
// is there to replace it. It does not wait for the kernel to be done with that one: who
// supervises an agent waits for the agent.
func (d *Daemon) KillBoth() {
	d.lab.t.Helper()
	pid := d.Status().Dataplane.PID
	d.KillAgent()
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// Stop ends the agent as systemd does, by SIGTERM; the dataplane goes on.
func (d *Daemon) Stop() {
	d.lab.t.Helper()
	d.proc.Stop().Expect(0)
	d.lab.forget(d.proc)
	d.proc = nil
}

// Shutdown detaches everything and ends both processes with `sluiced stop`.
func (d *Daemon) Shutdown() {
	d.lab.t.Helper()
	for _, l := range d.Links() {
		d.CLI("detach", "--name", l.Name).Expect(0)
	}
	d.StopAll()
}

// StopAll ends both processes with `sluiced stop`; what is attached stays so, and the
// agent may be dead already.
func (d *Daemon) StopAll() {
	d.lab.t.Helper()
	d.lab.run(d.at(d.lab.Binary("sluiced"), "stop", "--run-dir", d.run, "--state-dir", d.state)...).Expect(0)
	if d.proc != nil {
		d.proc.Wait(patience).Expect(0)
		d.lab.forget(d.proc)
		d.proc = nil
	}
}

// shutdown is Shutdown for a daemon in any state: one that was left dead is
// started again, since only it can detach what is still attached.
func (d *Daemon) shutdown() {
	d.lab.t.Helper()
	if d.proc != nil && d.proc.Ended() {
		d.lab.t.Errorf("sluiced ended on its own:\n%s", d.proc.Output())
		d.proc = nil
	}
	if d.proc == nil && !d.Stopped() {
		d.Start()
	}
	if d.proc != nil {
		d.Shutdown()
	}
}

// Stopped reports whether nothing of the daemon lives: no process that was seen
// and no mount.
func (d *Daemon) Stopped() bool {
	return d.proc == nil && !alive(d.dataplane) && len(mountsUnder(d.run)) == 0
}

// alive reports whether a process runs; one that has ended and that nobody has
// waited for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the state follows the name, proc_pid_stat(5)
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// Gateway is the gateway address of the first network that has one of a family.
func (d *Daemon) Gateway(f Family) netip.Addr {
	d.lab.t.Helper()
	for _, n := range d.Networks() {
		for _, a := range n.Gateways {
			if a.Is4() == (f == V4) {
				return a
			}
		}
	}
	d.lab.t.Fatalf("no network has an %v gateway", f)
	return netip.Addr{}
}

// Networks are the declared networks, as `sluice -s network -o json` tells.
func (d *Daemon) Networks() []api.Network {
	d.lab.t.Helper()
	var out []api.Network
	d.CLI("-s", "network", "-o", "json").JSON(&out)
	return out
}

// Links are the attachments with their counters, as `sluice -s link -o json` tells.
func (d *Daemon) Links() []api.Link {
	d.lab.t.Helper()
	var out []api.Link
	d.CLI("-s", "link", "-o", "json").JSON(&out)
	return out
}

// FDB is the forwarding table of all networks, as `sluice fdb -o json` tells.
func (d *Daemon) FDB() []api.FDBEntry {
	d.lab.t.Helper()
	var out []api.FDBEntry
	d.CLI("fdb", "-o", "json").JSON(&out)
	return out
}
