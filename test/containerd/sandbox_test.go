// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCtr: a container by hand, as `ctr run --cni` makes one, with the first list of
// /etc/cni/net.d, and nothing left when it has ended.
func TestCtr(t *testing.T) {
	n := startNode(t)
	for _, id := range []string{"one", "two"} {
		out := n.run("ctr", "-n", "k8s.io", "run", "--rm", "--cni", image, id,
			"sh", "-c", "ip -o addr show eth0; ping -c 1 -W 5 10.85.0.1; ping -c 1 -W 5 fd85::1")
		for _, want := range []string{"inet 10.85.0.", "inet6 fd85::", "bytes from 10.85.0.1"} {
			wants(t, out, want)
		}
		n.empty()
	}
}

// bundle is a container of gVisor's, in a namespace that is there.
const bundle = `{
  "ociVersion": "1.0.0",
  "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "args": ["sh", "-c", "SCRIPT"]},
  "root": {"path": "rootfs"},
  "hostname": "sandbox",
  "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network", "path": "/run/netns/SPACE"}]}
}`

// TestSandbox: gVisor's own network stack takes over the interface that ADD made, and
// is a station like any other: Debian's runsc, whose platform is ptrace.
func TestSandbox(t *testing.T) {
	n := startBareNode(t)
	n.list("1.0.0", "boxed", `"ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.97.0.0/24"}]]}`)
	n.space("box")
	n.space("peer")
	box, peer := n.add("boxed", "box").ips()[0], n.add("boxed", "peer").ips()[0]
	dir := filepath.Join(n.dir, "var/log/pods")
	n.unpack(filepath.Join(dir, "rootfs"))
	script := "wget -q -O - http://" + peer + ":8080/ && exec httpd -f -p 80 -h /www"
	text := strings.NewReplacer("SCRIPT", script, "SPACE", "box").Replace(bundle)
	n.check(os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644))
	n.check(os.WriteFile(filepath.Join(dir, "rootfs/www/index.html"), []byte("from the sandbox\n"), 0o644))
	n.check(os.MkdirAll(filepath.Join(dir, "page"), 0o755))
	n.check(os.WriteFile(filepath.Join(dir, "page/index.html"), []byte("from the peer\n"), 0o644))
	n.start("httpd", in("peer", "busybox", "httpd", "-f", "-p", "8080", "-h", "/var/log/pods/page")...)
	n.eventually("the peer's server", func() bool {
		_, err := n.try(in("peer", "busybox", "wget", "-q", "-O", "/dev/null", "http://"+peer+":8080/")...)
		return err == nil
	})
	// This runsc takes a namespace that has rmem_default for the host's own. Newer kernels
	// show it in each, so it is hidden from it, in the one that it is going to look from.
	n.start("runsc", in("box", "sh", "-c", "mount -t tmpfs none /proc/sys/net/core && exec "+
		"runsc --root=/run/runsc --platform=ptrace --ignore-cgroups --network=sandbox run --bundle=/var/log/pods box")...)
	n.eventually("the sandbox to have had the peer's page", func() bool {
		out, err := os.ReadFile(filepath.Join(n.dir, "runsc.log"))
		return err == nil && strings.Contains(string(out), "from the peer")
	})
	for _, from := range []string{"peer", ""} { // a neighbour, and the host
		get := []string{"busybox", "wget", "-q", "-O", "-", "http://" + box + "/"}
		if from != "" {
			get = in(from, get...)
		}
		n.eventually("the sandbox's page", func() bool { _, err := n.try(get...); return err == nil })
		wants(t, n.run(get...), "from the sandbox")
	}
	n.run(in("box", "runsc", "--root=/run/runsc", "kill", "box", "KILL")...)
	n.cni("del", "boxed", "box")
	n.cni("del", "boxed", "peer")
	n.empty()
}

// unpack makes the file system of the image in a folder.
func (n *node) unpack(dir string) {
	n.t.Helper()
	layer, err := busyboxLayer()
	n.check(err)
	n.check(os.MkdirAll(dir, 0o755))
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		n.check(err)
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			n.check(os.MkdirAll(path, 0o755))
		case tar.TypeSymlink:
			n.check(os.Symlink(h.Linkname, path))
		default:
			b, err := io.ReadAll(r)
			n.check(err)
			n.check(os.WriteFile(path, b, os.FileMode(h.Mode)))
		}
	}
}
