// SPDX-License-Identifier: Apache-2.0

// Package loopback gives a package's tests a network namespace of their own whose
// loopback interface is up, with 127.0.0.1 and ::1, whatever the machine has.
package loopback

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv marks a process that is in its namespace.
const insideEnv = "SLT_LOOPBACK"

// Main is for TestMain. It runs the tests in a process that is in a namespace, which
// takes root; without, they have the machine's loopback.
func Main(m *testing.M) {
	switch {
	case os.Getenv(insideEnv) != "":
		if err := up(); err != nil {
			fmt.Fprintln(os.Stderr, "loopback:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	os.Exit(again())
}

// Missing is for an error that says that there is no loopback address: without root that
// is the machine's business, and with it a fault.
func Missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv(insideEnv) == "" {
		t.Skip(err)
	}
	t.Fatal(err)
}

// again runs this program once more, in a namespace, and returns its exit code.
func again() int {
	runtime.LockOSThread() // whose end is that of the other
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "loopback:", err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	err = cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		fmt.Fprintln(os.Stderr, "loopback:", err)
		return 1
	}
	return max(cmd.ProcessState.ExitCode(), -cmd.ProcessState.ExitCode()) // -1: by a signal
}

// up sets the loopback interface up: ip-link(8), "set lo up".
func up() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
