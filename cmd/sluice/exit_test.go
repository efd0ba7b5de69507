// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// try runs one command line against a socket.
func try(ctx context.Context, socket, line string) (code int, errs string) {
	var out, err bytes.Buffer
	c := &cli{out: &out, err: &err, in: strings.NewReader(""), now: clock}
	code = c.run(ctx, append([]string{"--socket", socket}, strings.Fields(line)...))
	return code, err.String()
}

func TestExitCodes(t *testing.T) {
	up := (&answers{status: statusRunning()}).listen(t)
	away := (&answers{status: statusDown()}).listen(t)
	none := filepath.Join(t.TempDir(), "none.sock")
	for name, tc := range map[string]struct {
		socket, line string
		code         int
		says         string
	}{
		"all is well":             {up, "status", 0, ""},
		"no dataplane":            {away, "status", 1, "nothing is forwarded"},
		"the daemon refuses":      {up, "attach red --ip 10.44.0.2", 1, "in use by green"},
		"unknown network":         {up, "attach red --network nosuch", 1, "network nosuch does not exist"},
		"unknown attachment":      {up, "detach white", 1, "nothing is attached to white"},
		"unknown link":            {up, "link show white", 1, `link "white" does not exist`},
		"no such file":            {up, "apply -f /nonexistent.yaml", 1, "/nonexistent.yaml"},
		"unknown word":            {up, "lnk", 2, "did you mean: link"},
		"unknown flag":            {up, "link --fast", 2, "--fast"},
		"bad address":             {up, "attach red --ip 10.44.0", 2, "not an address"},
		"usage before the socket": {none, "attach", 2, "NETNS"},
		"no daemon":               {none, "link", 3, "systemctl start sluiced"},
		"no daemon for apply":     {none, "apply -f /dev/null", 3, none + ": sluiced is not running"},
	} {
		t.Run(name, func(t *testing.T) {
			code, errs := try(t.Context(), tc.socket, tc.line)
			if code != tc.code {
				t.Errorf("exit code %d, want %d: %s", code, tc.code, errs)
			}
			if !strings.Contains(errs, tc.says) {
				t.Errorf("it says %q, which lacks %q", errs, tc.says)
			}
			if lines := strings.Count(errs, "\n"); errs != "" && lines != 1 {
				t.Errorf("the error has %d lines:\n%s", lines, errs)
			}
		})
	}
}

func TestSilentDaemonIsGivenUp(t *testing.T) {
	dir, err := os.MkdirTemp("", "slt-cli-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// Accepts by its backlog, and never answers.
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	code, errs := try(ctx, filepath.Join(dir, "s"), "status")
	if code != exitRefused || !strings.Contains(errs, "no answer") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// TestNotRoot becomes nobody for one call: to root every socket is open.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to drop it")
	}
	socket := (&answers{}).listen(t)
	if err := os.Chmod(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Seteuid(65534); err != nil {
		t.Fatal(err)
	}
	code, errs := try(t.Context(), socket, "status")
	if err := syscall.Seteuid(0); err != nil {
		t.Fatal(err)
	}
	if code != exitPermission || !strings.Contains(errs, "root") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}
