// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// iproute runs ip(8) or bridge(8) in a network namespace of its own, which is gone
// with it, and reports whether it understood the line.
func iproute(t *testing.T, stdin, program string, args ...string) (out string, accepted bool) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("needs %s of iproute2: %v", program, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	text, _ := cmd.CombinedOutput() // the exit code says too little
	out = string(text)
	return out, !strings.Contains(out, " is unknown, try ") && !strings.HasPrefix(out, "Usage: ip [") &&
		!strings.Contains(out, "Command line is not complete")
}
