// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// nodes tells the nodes of one run apart.
var nodes atomic.Int32

// patience bounds whatever is waited for.
const patience = 60 * time.Second

// node is a machine with containerd and sluiced: namespaces of its own for the network,
// mounts, processes and the host name. When its first process ends, all others do.
type node struct {
	t      testing.TB
	dir    string // of what is below /run, /etc/cni, … in the node
	netns  string
	holder *exec.Cmd
	pid    int // of the node's first process, as this test sees it
	cri    cri.RuntimeServiceClient
	images cri.ImageServiceClient
}

// mounts are the folders that a node has for itself.
func mounts() []string {
	return []string{
		"run", "etc/cni", "opt/cni/bin", "var/lib/cni", "var/lib/containerd", "var/lib/containers", "var/lib/sluice", "var/log/pods",
	}
}

// startNode makes a node, and starts its daemons.
func startNode(t testing.TB) *node {
	t.Helper()
	n := startBareNode(t)
	n.start("containerd", "containerd", "-c", filepath.Join(n.dir, "containerd.toml"))
	n.connect()
	return n
}

// startBareNode is startNode without containerd.
func startBareNode(t testing.TB) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("must be root: it makes namespaces")
	}
	n := &node{t: t, netns: fmt.Sprintf("slc%d-%d", os.Getpid(), nodes.Add(1))}
	dir, err := os.MkdirTemp("", "sluice-containerd-")
	n.check(err)
	n.dir = dir
	t.Cleanup(n.remove)
	n.hold()
	n.install()
	n.startDaemon()
	return n
}

// startDaemon starts sluiced, and waits until it forwards.
func (n *node) startDaemon() {
	n.t.Helper()
	n.start("sluiced", "sluiced", "run")
	n.eventually("a running dataplane", func() bool { return n.status().Dataplane.State == "running" })
}

// status is what sluiced says of itself; zero if it says nothing.
func (n *node) status() (s struct {
	PID       int `json:"pid"`
	Dataplane struct {
		PID   int    `json:"pid"`
		State string `json:"state"`
	} `json:"dataplane"`
},
) {
	if out, err := n.try(filepath.Join(n.bin(), "sluice"), "-o", "json", "status"); err == nil {
		n.check(json.Unmarshal([]byte(out), &s))
	}
	return s
}

func (n *node) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// hold starts the node's first process.
func (n *node) hold() {
	n.t.Helper()
	n.host("ip", "netns", "add", n.netns)
	n.host("ip", "-n", n.netns, "link", "set", "lo", "up")
	script := "set -e\n"
	for _, m := range mounts() {
		n.check(os.MkdirAll(filepath.Join(n.dir, m), 0o755))
		n.check(os.MkdirAll("/"+m, 0o755))
		script += fmt.Sprintf("mount --bind %s/%s /%s\n", n.dir, m, m)
	}
	script += "mkdir -p /run/netns /run/lock\nmount --make-rshared /\nhostname node\necho ready\nwhile :; do sleep 3600 & wait; done\n"
	n.holder = exec.Command("nsenter", "--net=/run/netns/"+n.netns, "unshare", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc", "--propagation", "private", "sh", "-c", script)
	out, err := n.holder.StdoutPipe()
	n.check(err)
	n.holder.Stderr = os.Stderr
	n.check(n.holder.Start())
	ready := make([]byte, 6)
	if _, err := out.Read(ready); err != nil {
		n.t.Fatalf("the node did not start: %v", err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", n.holder.Process.Pid, n.holder.Process.Pid))
	n.check(err)
	_, err = fmt.Sscan(string(children), &n.pid)
	n.check(err)
}

// remove ends the node, which ends all that runs in it.
func (n *node) remove() {
	if n.t.Failed() {
		n.logs()
	}
	if n.pid != 0 {
		_ = syscall.Kill(n.pid, syscall.SIGKILL)
		_ = n.holder.Wait()
	}
	for range 50 { // until mounts are gone
		if os.RemoveAll(n.dir) == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	_ = exec.Command("ip", "netns", "del", n.netns).Run()
}

func (n *node) logs() {
	for _, name := range []string{"sluiced", "containerd", "runsc"} {
		if text, err := os.ReadFile(filepath.Join(n.dir, name+".log")); err == nil {
			n.t.Logf("%s:\n%s", name, text[max(0, len(text)-8000):])
		}
	}
}

// bin is the folder of Sluice's programs.
func (n *node) bin() string {
	n.t.Helper()
	bin := os.Getenv("SLUICE_BIN")
	if bin == "" {
		n.t.Fatal("SLUICE_BIN is not set: run `make e2e-containerd`")
	}
	return bin
}

// conflist is the one of the node: what a user of the plugin bridge would have, with
// another type.
const conflist = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "sluice",
    "isDefaultGateway": true,
    "ipMasq": true,
    "capabilities": {"portMappings": true, "ips": true, "mac": true, "bandwidth": true},
    "ipam": {"ranges": [[{"subnet": "10.85.0.0/24"}], [{"subnet": "fd85::/64"}]]}
  }]
}
`

// settings are containerd's. A machine may have its limits, so scores of the killer
// for want of memory are not insisted on.
const settings = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  sandbox_image = "` + image + `"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`

// install puts plugin and files where they are on a node.
func (n *node) install() {
	n.t.Helper()
	plugin, err := os.ReadFile(filepath.Join(n.bin(), "cni", "sluice"))
	n.check(err)
	n.check(os.WriteFile(filepath.Join(n.dir, "opt/cni/bin/sluice"), plugin, 0o755))
	// Of the reference plugins containerd wants the first one, whatever the list says.
	for _, name := range []string{"loopback", "host-local", "static"} {
		n.host("cp", filepath.Join("/usr/lib/cni", name), filepath.Join(n.dir, "opt/cni/bin", name))
	}
	n.check(os.MkdirAll(filepath.Join(n.dir, "etc/cni/net.d"), 0o755))
	n.check(os.WriteFile(filepath.Join(n.dir, "etc/cni/net.d/10-sluice.conflist"), []byte(conflist), 0o644))
	n.check(os.WriteFile(filepath.Join(n.dir, "containerd.toml"), []byte(settings), 0o644))
}

// command is a command in the node.
func (n *node) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", fmt.Sprint(n.pid), "-m", "-n", "-u", "-p", "--"}, args...)...)
}

// start starts a daemon in the node.
func (n *node) start(name string, args ...string) *exec.Cmd {
	n.t.Helper()
	if args[0] == "sluiced" {
		args[0] = filepath.Join(n.bin(), "sluiced")
	}
	log, err := os.OpenFile(filepath.Join(n.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	n.check(err)
	defer log.Close()
	cmd := n.command(args...)
	cmd.Stdout, cmd.Stderr = log, log
	n.check(cmd.Start())
	go func() { _ = cmd.Wait() }()
	return cmd
}

// run runs a command in the node, which must succeed.
func (n *node) run(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (n *node) try(args ...string) (string, error) {
	out, err := n.command(args...).CombinedOutput()
	return string(out), err
}

// host runs a command outside of the node.
func (n *node) host(args ...string) {
	n.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// sluice asks the daemon.
func (n *node) sluice(args ...string) string {
	n.t.Helper()
	return n.run(append([]string{filepath.Join(n.bin(), "sluice")}, args...)...)
}

// connect connects to the CRI, gives containerd the image, and waits for the network.
func (n *node) connect() {
	n.t.Helper()
	socket := filepath.Join(n.dir, "run/containerd/containerd.sock")
	n.eventually("containerd's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	n.check(err)
	n.t.Cleanup(func() { _ = conn.Close() })
	n.cri, n.images = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	tar := filepath.Join(n.dir, "image.tar")
	n.check(writeImage(tar))
	n.run("ctr", "-n", "k8s.io", "images", "import", tar)
	n.eventually("a node whose network is ready", func() bool {
		s, err := n.cri.Status(n.context(), &cri.StatusRequest{})
		if err != nil {
			return false
		}
		for _, c := range s.Status.Conditions {
			if !c.Status {
				return false
			}
		}
		return true
	})
}

// context bounds a call.
func (n *node) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	n.t.Cleanup(cancel)
	return ctx
}

func (n *node) eventually(what string, happened func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if happened() {
			return
		}
	}
	n.t.Fatalf("waited in vain for %s", what)
}
