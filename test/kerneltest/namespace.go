// SPDX-License-Identifier: Apache-2.0

// Package kerneltest is what tests need that hold Sluice beside the kernel: network
// namespaces, commands in them, and devices whose far ends are in the test's hands.
// Only tests import it.
//
// No namespace has a name. One that a test enters belongs to the thread of the test's
// goroutine, one of NewNS to its handle: either is gone with all that is in it when the
// test ends, also if it fails or its process is killed. Names and addresses of devices
// are therefore free in each.
//
// What takes no namespace acts in that of the calling thread. A subtest runs in another
// goroutine, and so outside of the namespace that its test has entered.
package kerneltest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Enter moves the test's goroutine, for good, to a thread in a new network namespace.
// Without root, or one of the programs, it skips the test.
func Enter(tb testing.TB, programs ...string) {
	tb.Helper()
	need(tb, programs...)
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
	must(tb, "new namespace", unix.Unshare(unix.CLONE_NEWNET))
}

func need(tb testing.TB, programs ...string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: makes network namespaces")
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			tb.Skipf("needs %s", name)
		}
	}
}

// NewNS is a network namespace that ends with its handle, which ends with the test.
// Without root it skips the test.
func NewNS(tb testing.TB) netns.NsHandle {
	tb.Helper()
	need(tb)
	var ns netns.NsHandle
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread dies with the goroutine
		var err error
		ns, err = netns.New()
		done <- err
	}()
	must(tb, "new namespace", <-done)
	tb.Cleanup(func() { _ = ns.Close() })
	return ns
}

// inside does something in a namespace, on the caller's thread.
func inside(tb testing.TB, ns netns.NsHandle, do func()) {
	tb.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	must(tb, "own namespace", err)
	defer home.Close()
	must(tb, "enter a namespace", netns.Set(ns))
	defer func() { // one that can't come back is never unlocked
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
	}()
	do()
}

// OneCPU keeps the thread, and with it the queue that its frames go through, on one of
// its CPUs: what two have in their queues changes places.
func OneCPU(tb testing.TB) {
	tb.Helper()
	var all, one unix.CPUSet
	must(tb, "affinity", unix.SchedGetaffinity(0, &all))
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	must(tb, "affinity", unix.SchedSetaffinity(0, &one))
}

// Sysctl makes settings below /proc/sys/net, such as ipv4/ip_forward=1.
func Sysctl(tb testing.TB, settings ...string) {
	tb.Helper()
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		must(tb, s, os.WriteFile("/proc/sys/net/"+name, []byte(value), 0))
	}
}

// Forward makes a router of both families of the namespace, which asks nobody for the
// way back. Devices are to come after it.
func Forward(tb testing.TB) {
	tb.Helper()
	Sysctl(tb, "ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv6/conf/default/forwarding=1",
		"ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0")
}

func must(tb testing.TB, what string, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}
