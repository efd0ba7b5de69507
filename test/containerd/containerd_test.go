// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serve is a command that serves a page with a text, on all addresses.
func serve(text string) []string {
	return []string{"sh", "-c", "echo " + text + " > /www/index.html; exec httpd -f -p 80 -h /www"}
}

// TestPods: what a pod of a cluster needs of its network, through the CRI.
func TestPods(t *testing.T) {
	n := startNode(t)
	web, client := n.pod("web", "18080:80"), n.pod("client")
	site := web.start("site", serve("hello")...)
	side := web.start("side", "sleep", "1000")
	shell := client.start("shell", "sleep", "1000")
	ips := web.ips()

	t.Run("addresses", func(t *testing.T) {
		if len(ips) != 2 || net.ParseIP(ips[0]).To4() == nil || net.ParseIP(ips[1]).To4() != nil {
			t.Fatalf("got %q, want one of each family", ips)
		}
		out := site.run("ip", "-o", "addr", "show", "eth0")
		for _, ip := range ips {
			if !strings.Contains(out, ip+"/") {
				t.Errorf("%s is not among\n%s", ip, out)
			}
		}
	})
	t.Run("two containers of one pod", func(t *testing.T) {
		wants(t, side.run("wget", "-q", "-O", "-", "http://127.0.0.1/"), "hello")
	})
	t.Run("pod to pod", func(t *testing.T) {
		for _, ip := range ips {
			wants(t, shell.run("wget", "-q", "-O", "-", "http://"+net.JoinHostPort(ip, "80")+"/"), "hello")
			shell.run("ping", "-c", "1", "-W", "5", ip)
		}
	})
	t.Run("pod to gateway", func(t *testing.T) {
		shell.run("ping", "-c", "1", "-W", "5", "10.85.0.1")
		shell.run("ping", "-c", "1", "-W", "5", "fd85::1")
	})
	t.Run("host to pod", func(t *testing.T) {
		for _, ip := range ips {
			wants(t, n.run("busybox", "wget", "-q", "-O", "-", "http://"+net.JoinHostPort(ip, "80")+"/"), "hello")
		}
	})
	t.Run("pod to host", func(t *testing.T) {
		n.check(os.WriteFile(filepath.Join(n.dir, "var/log/pods/index.html"), []byte("from the host\n"), 0o644))
		n.start("httpd", "busybox", "httpd", "-f", "-p", "8099", "-h", "/var/log/pods")
		url := "http://" + net.JoinHostPort(hostAddr(t, n), "8099") + "/"
		n.eventually("the host's server", func() bool {
			_, err := n.try("busybox", "wget", "-q", "-O", "/dev/null", url)
			return err == nil
		})
		wants(t, shell.run("wget", "-q", "-O", "-", url), "from the host")
	})
	t.Run("hostPort", func(t *testing.T) {
		for _, host := range []string{"127.0.0.1", hostAddr(t, n)} {
			wants(t, n.run("busybox", "wget", "-q", "-O", "-", "http://"+host+":18080/"), "hello")
		}
		wants(t, shell.run("wget", "-q", "-O", "-", "http://"+hostAddr(t, n)+":18080/"), "hello")
		wants(t, site.run("wget", "-q", "-O", "-", "http://"+hostAddr(t, n)+":18080/"), "hello")
		_, err := n.tryPod("rival", "18080:80")
		wants(t, fmt.Sprint(err), "port tcp 18080 is published for shop.web-")
	})
	t.Run("shown with its pod", func(t *testing.T) {
		wants(t, n.sluice("link"), "shop.web-")
		wants(t, n.sluice("-o", "json", "link"), `"K8S_POD_NAME":"web"`)
	})
}

// hostAddr is the host's address on its way to the pods.
func hostAddr(t *testing.T, n *node) string {
	t.Helper()
	fields := strings.Fields(n.run("ip", "-4", "-o", "addr", "show", "scope", "global"))
	for i, f := range fields {
		if f == "inet" {
			addr, _, _ := strings.Cut(fields[i+1], "/")
			return addr
		}
	}
	t.Fatal("the host has no address")
	return ""
}

func wants(t *testing.T, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}

// TestGone: when pods have gone, nothing of them is left, and no address was given
// twice while they were there.
func TestGone(t *testing.T) {
	n := startNode(t)
	seen := make(map[string]bool)
	var pods []*pod
	for _, name := range []string{"a", "b", "c", "d"} {
		p, err := n.tryPod(name)
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, p)
		for _, ip := range p.ips() {
			if seen[ip] {
				t.Errorf("%s was given twice", ip)
			}
			seen[ip] = true
		}
	}
	for _, p := range pods {
		p.remove()
	}
	if out := n.sluice("link"); strings.TrimSpace(out) != "" {
		t.Errorf("left over:\n%s", out)
	}
}
