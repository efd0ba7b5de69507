// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"sluice/test/steps"
)

// runDirEnv makes the test binary an agent of its own, for tests that kill one.
const runDirEnv = "SLT_AGENT_DIR"

// TestMain is three programs: the tests; the dataplane, which an agent under
// test executes; and an agent in a process of its own.
func TestMain(m *testing.M) {
	steps.Main()
	if len(os.Args) > 1 && os.Args[1] == "dataplane" {
		os.Exit(runDataplane(os.Args[2:]))
	}
	if dir := os.Getenv(runDirEnv); dir != "" {
		os.Exit(agentProcess(dir))
	}
	goleak.VerifyTestMain(m)
}

// agentProcess serves until SIGTERM and says "ready" on stdout.
func agentProcess(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	o := optionsIn(dir)
	o.Ready = func() { fmt.Println("ready") }
	o.Log = testLog(os.Stderr)
	if err := Run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
