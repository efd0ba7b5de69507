// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netns"

	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// current is the calling thread's namespace.
func current(tb testing.TB) string {
	tb.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestDoRunsInsideAndLeavesTheCallerAlone(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, before := kt.NewNS(t), current(t)
	boom := errors.New("boom")
	var inside string
	err := veth.Do(ns, func() error {
		inside = current(t)
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("error: %v", err)
	}
	if inside == before {
		t.Error("fn ran in the caller's namespace")
	}
	if current(t) != before {
		t.Error("the caller's thread has moved")
	}
}

func TestDoEndsWithItsFunction(t *testing.T) {
	ns := kt.NewNS(t)
	err := veth.Do(ns, func() error { runtime.Goexit(); return nil })
	if err == nil {
		t.Error("a function that ended its goroutine succeeded")
	}
	if err := veth.Do(netns.NsHandle(-1), func() error { return nil }); err == nil {
		t.Error("no namespace, no error")
	}
}

func TestThreadsComeBack(t *testing.T) {
	ns, home := kt.NewNS(t), current(t)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if err := veth.Do(ns, func() error { return nil }); err != nil {
				t.Error(err)
			}
			if got := current(t); got != home {
				t.Errorf("a goroutine runs in %s", got)
			}
		})
	}
	wg.Wait()
}

func TestOpenNetNS(t *testing.T) {
	needRoot(t)
	name := fmt.Sprintf("slt-veth-%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, arg string
		want      error
	}{
		{"a name", name, nil},
		{"a path", "/run/netns/" + name, nil},
		{"a process", fmt.Sprintf("pid:%d", os.Getpid()), nil},
		{"an unknown name", "slt-no-such", veth.ErrNoNetNS},
		{"an unknown path", "/run/netns/slt-no-such", veth.ErrNoNetNS},
		{"a path through a file", file + "/x", veth.ErrNoNetNS},
		{"an unknown process", "pid:2147483647", veth.ErrNoNetNS},
		{"no process", "pid:", veth.ErrNoNetNS},
		{"process zero", "pid:0", veth.ErrNoNetNS},
		{"nothing", "", veth.ErrNoNetNS},
		{"a way out of the directory", "../x", veth.ErrNoNetNS},
		{"an ordinary file", file, veth.ErrNotNetNS},
		{"a directory", "/run", veth.ErrNotNetNS},
		{"a namespace of another kind", "/proc/self/ns/mnt", veth.ErrNotNetNS},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ns, err := veth.OpenNetNS(tc.arg)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err == nil {
				ns.Close()
			}
		})
	}
}

// newPath is a place for a namespace, which is cleared when the test ends.
func newPath(t *testing.T) string {
	t.Helper()
	needRoot(t)
	path := filepath.Join(t.TempDir(), "netns", "slt-host")
	t.Cleanup(func() {
		if err := veth.DeleteNetNS(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestCreateNetNSIsQuietAndRepeatable(t *testing.T) {
	path := newPath(t)
	first, err := veth.CreateNetNS(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for name, want := range map[string]string{
		"ipv6/conf/default/disable_ipv6": "1", "ipv6/conf/all/disable_ipv6": "1", "ipv4/ip_forward": "0",
	} {
		if got := kt.RunIn(t, first, "cat", "/proc/sys/net/"+name); strings.TrimSpace(got) != want {
			t.Errorf("%s = %q", name, got)
		}
	}
	if got := kt.RunIn(t, first, "ip", "-o", "link", "show", "lo"); !strings.Contains(got, "state DOWN") {
		t.Errorf("loopback is up: %s", got)
	}
	again, err := veth.CreateNetNS(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !first.Equal(again) {
		t.Error("the second call made another namespace")
	}
}

func TestCreateNetNSAfterAKill(t *testing.T) {
	path := newPath(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil { // killed before the mount
		t.Fatal(err)
	}
	ns, err := veth.CreateNetNS(path)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
}

func TestCreateNetNSLeavesForeignFilesAlone(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, dir} {
		if _, err := veth.CreateNetNS(path); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file now has %q, %v", b, err)
	}
}

func TestCreateNetNSOnce(t *testing.T) {
	path := newPath(t)
	var wg sync.WaitGroup
	handles := make([]netns.NsHandle, 8)
	for i := range handles {
		wg.Go(func() {
			ns, err := veth.CreateNetNS(path)
			if err != nil {
				t.Error(err)
			}
			handles[i] = ns
		})
	}
	wg.Wait()
	for i := range handles {
		if !handles[i].Equal(handles[0]) {
			t.Error("two namespaces at one path")
		}
	}
	for i := range handles {
		handles[i].Close()
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(mounts), path+" "); n != 1 {
		t.Errorf("%d mounts", n)
	}
}

func TestDeleteNetNS(t *testing.T) {
	path := newPath(t)
	ns, err := veth.CreateNetNS(path)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	for range 2 {
		if err := veth.DeleteNetNS(path); err != nil {
			t.Errorf("DeleteNetNS: %v", err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if err := veth.DeleteNetNS("/proc/self/ns/net"); err == nil {
		t.Error("deleted what is not a mount")
	}
}

// TestRelativePathsDoNothing: what is made must be found again by its path.
func TestRelativePathsDoNothing(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	t.Chdir(dir)
	for _, path := range []string{"slt-rel", "deep/slt-rel", "./slt-rel", ""} {
		ns, err := veth.CreateNetNS(path)
		if err == nil {
			ns.Close()
		}
		if !errors.Is(err, veth.ErrNotNetNS) {
			t.Errorf("create %q: %v", path, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.WriteFile("slt-rel", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := veth.DeleteNetNS("slt-rel"); !errors.Is(err, veth.ErrNotNetNS) {
		t.Errorf("delete: %v", err)
	}
	if _, err := os.Stat("slt-rel"); err != nil {
		t.Error(err)
	}
}
