// SPDX-License-Identifier: Apache-2.0

//go:build nerdctl

package containerd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNerdctl is what TestPodman is, with the nerdctl that NERDCTL names, which Debian has
// no package of: `make e2e-nerdctl`.
func TestNerdctl(t *testing.T) {
	program := os.Getenv("NERDCTL")
	if program == "" {
		t.Fatal("NERDCTL is not set: the path of a nerdctl")
	}
	n := startNode(t)
	n.holdsPorts()
	// It insists on a network of its own, which no container of ours is in.
	for _, name := range []string{"bridge", "portmap", "firewall", "tuning"} {
		n.host("cp", filepath.Join("/usr/lib/cni", name), filepath.Join(n.dir, "opt/cni/bin", name))
	}
	nerdctl := func(args ...string) []string {
		return append([]string{program, "--namespace", "k8s.io", "--data-root", "/run/nerdctl", "--cni-path", "/opt/cni/bin", "--cni-netconfpath", "/etc/cni/net.d"}, args...)
	}
	run := func(args ...string) {
		t.Helper()
		n.run(nerdctl(append([]string{"run", "-d", "--pull", "never", "--net", "pods", "--security-opt", "apparmor=unconfined"}, args...)...)...)
	}
	run("--name", "red", image, "sleep", "1000")
	run("--name", "green", "-p", "8085:80", image, "sh", "-c", "mkdir /w && echo green >/w/index.html && exec httpd -f -p 80 -h /w")
	var all []struct {
		NetworkSettings struct{ IPAddress string }
	}
	n.check(json.Unmarshal([]byte(n.run(nerdctl("inspect", "red", "green")...)), &all))
	red, green := all[0].NetworkSettings.IPAddress, all[1].NetworkSettings.IPAddress
	if red == "" || green == "" || red == green {
		t.Fatalf("nerdctl says the addresses are %q and %q", red, green)
	}
	n.run(nerdctl("exec", "red", "ping", "-c", "1", "-W", "5", green)...)
	n.eventually("a page", func() bool {
		out, err := n.try(nerdctl("exec", "red", "wget", "-q", "-O", "-", "http://"+green+"/")...)
		return err == nil && out == "green\n"
	})
	if out := n.run("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8085/"); out != "green\n" {
		t.Errorf("by the published port: %q", out)
	}
	n.run(nerdctl("rm", "-f", "red", "green")...)
	if left := strings.TrimSpace(n.sluice("link") + n.sluice("publish")); left != "" {
		t.Errorf("left are:\n%s", left)
	}
}
