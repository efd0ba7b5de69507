// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// podman is a command of podman with CNI's networks, in a node without systemd.
func podman(args ...string) []string {
	return append([]string{
		"podman", "--network-backend", "cni", "--cgroup-manager", "cgroupfs", "--events-backend", "none",
		"--runtime", "runc", "--storage-driver", "vfs",
	}, args...)
}

// holdsPorts gives the node a list for a runtime that holds published ports itself.
func (n *node) holdsPorts() {
	n.t.Helper()
	text := strings.Replace(conflist, `"type": "sluice",`, `"type": "sluice", "holdPorts": false,`, 1)
	n.check(os.WriteFile(filepath.Join(n.dir, "etc/cni/net.d/10-sluice.conflist"), []byte(text), 0o644))
}

// TestPodman: podman with its CNI backend runs containers in a network of ours: they reach
// each other, their names and addresses are known, a published port is theirs, and nothing
// is left when they go.
func TestPodman(t *testing.T) {
	n := startBareNode(t)
	n.holdsPorts()
	tar := filepath.Join(n.dir, "image.tar")
	n.check(writeImage(tar))
	n.run(podman("load", "-q", "-i", tar)...)
	run := func(args ...string) {
		t.Helper()
		n.run(podman(append([]string{"run", "-d", "--security-opt", "apparmor=unconfined", "--cap-add", "NET_RAW", "--network", "pods"}, args...)...)...)
	}
	run("--name", "red", image, "sleep", "1000")
	run("--name", "green", "-p", "8085:80", image, "sh", "-c", "mkdir /w && echo green >/w/index.html && exec httpd -f -p 80 -h /w")
	var all []struct {
		NetworkSettings struct {
			Networks map[string]struct {
				IPAddress string
			}
		}
	}
	n.check(json.Unmarshal([]byte(n.run(podman("inspect", "red", "green")...)), &all))
	red, green := all[0].NetworkSettings.Networks["pods"].IPAddress, all[1].NetworkSettings.Networks["pods"].IPAddress
	if red == "" || green == "" || red == green {
		t.Fatalf("podman says the addresses are %q and %q", red, green)
	}
	n.run(podman("exec", "red", "ping", "-c", "1", "-W", "5", green)...)
	n.eventually("a page", func() bool {
		out, err := n.try(podman("exec", "red", "wget", "-q", "-O", "-", "http://"+green+"/")...)
		return err == nil && out == "green\n"
	})
	if out := n.run("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8085/"); out != "green\n" {
		t.Errorf("by the published port: %q", out)
	}
	n.run(podman("rm", "-f", "-t", "0", "red", "green")...)
	if left := strings.TrimSpace(n.sluice("link") + n.sluice("publish")); left != "" {
		t.Errorf("left are:\n%s", left)
	}
}
