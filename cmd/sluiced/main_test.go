// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/agent"
	"sluice/dataplane"
)

// asSluiced makes the test binary the program itself.
const asSluiced = "SLT_SLUICED"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "dataplane" {
		os.Exit(dataplane.Main(os.Args[2:]))
	}
	if os.Getenv(asSluiced) != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestUsage(t *testing.T) {
	tests := map[string]struct {
		args []string
		code int
		want string // part of what is printed
	}{
		"version":           {[]string{"version"}, exitOK, "sluiced unknown, build "},
		"help":              {[]string{"help"}, exitOK, "usage: sluiced"},
		"help of a command": {[]string{"run", "-h"}, exitOK, "usage: sluiced"},
		"unknown command":   {[]string{"start"}, exitUsage, `unknown command "start"`},
		"unknown flag":      {[]string{"--rundir", "x"}, exitUsage, "flag provided but not defined: -rundir"},
		"flag of run only":  {[]string{"stop", "--workers", "1"}, exitUsage, "flag provided but not defined: -workers"},
		"argument":          {[]string{"run", "now"}, exitUsage, `unexpected argument "now"`},
		"few connections":   {[]string{"--connections", "15"}, exitUsage, "--connections 15: 16 to 16777216"},
		"too many workers":  {[]string{"--workers", "65"}, exitUsage, "--workers 65: 0 to 64"},
		"negative poll":     {[]string{"--busy-poll", "-1s"}, exitUsage, "--busy-poll: not negative"},
		"log level":         {[]string{"--log-level", "loud"}, exitUsage, "invalid value \"loud\" for flag -log-level"},
		"log format":        {[]string{"--log-format", "xml"}, exitUsage, `--log-format "xml": text or json`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			code := run(t.Context(), tt.args, &out, &out)
			if code != tt.code || !strings.Contains(out.String(), tt.want) {
				t.Errorf("code %d, want %d; printed:\n%s", code, tt.code, &out)
			}
		})
	}
}

func TestReport(t *testing.T) {
	for err, want := range map[error]int{
		nil: exitOK, context.Canceled: exitError,
		fmt.Errorf("%w: here", agent.ErrLocked): exitLocked, agent.ErrNotRoot: exitPermission,
	} {
		var out bytes.Buffer
		if code := report(&out, err); code != want || (err != nil && !strings.HasPrefix(out.String(), "sluiced: ")) {
			t.Errorf("%v: code %d, want %d; printed %q", err, code, want, &out)
		}
	}
}

// sluiced is the program with directories of its own.
func sluiced(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append(args, "--run-dir", filepath.Join(dir, "run"), "--state-dir", filepath.Join(dir, "state"))...)
	cmd.Env = append(os.Environ(), asSluiced+"=1")
	return cmd
}

func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to drop it")
	}
	cmd := sluiced("/tmp/slt-nobody", "run")
	// Nobody may not execute the test binary by its path, but by an open file.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitPermission || !strings.Contains(string(out), "must run as root") {
		t.Errorf("code %d, printed %q", code, out)
	}
}

// TestLifeUnderSystemd starts the program as systemd does, waits for READY=1,
// starts a second one beside it, ends the first with SIGTERM, and then stops the
// dataplane that it left.
func TestLifeUnderSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	dir, err := os.MkdirTemp("/tmp", "slt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	t.Cleanup(func() {
		if out, err := sluiced(dir, "stop").CombinedOutput(); err != nil {
			t.Errorf("stop: %v: %s", err, out)
		}
		if _, err := os.Stat(filepath.Join(dir, "run", "netns", "sluice")); !os.IsNotExist(err) {
			t.Errorf("the namespace of the host ends is left: %v", err)
		}
	})

	first := sluiced(dir, "run", "--workers", "1", "--log-format", "json")
	first.Env = append(first.Env, "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	var log bytes.Buffer
	first.Stderr, first.WaitDelay = &log, time.Millisecond // the dataplane keeps the pipe open
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Process.Kill() })
	if err := notify.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := notify.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Fatalf("systemd was told %q, %v", buf[:n], err)
	}

	second := sluiced(dir, "run")
	out, _ := second.CombinedOutput()
	if code := second.ProcessState.ExitCode(); code != exitLocked || !strings.Contains(string(out), "another sluiced is running here: "+dir) {
		t.Errorf("second: code %d, printed %q", code, out)
	}

	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	if code := first.ProcessState.ExitCode(); code != 0 {
		t.Errorf("after SIGTERM: code %d\n%s", code, &log)
	}
	c, err := dataplane.Connect(filepath.Join(dir, "run", "dataplane.sock"))
	if err != nil {
		t.Fatalf("the dataplane ended with its agent: %v", err)
	}
	c.Close()
}
