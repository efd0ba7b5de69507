// SPDX-License-Identifier: Apache-2.0

// Sluiced is the node daemon: the agent, and, executed again by it, the
// sandboxed dataplane.
//
//	sluiced [run] [flags]     serve until SIGTERM or SIGINT
//	sluiced stop [flags]      end the daemon and its dataplane, in this run directory
//	sluiced version           print version and build
//
// SIGTERM ends the daemon and leaves the dataplane forwarding, so that a restart
// or an upgrade interrupts nothing (systemd: KillMode=process). "sluiced stop"
// ends both; nothing is forwarded until the next start, which restores what is
// attached.
//
// Exit codes: 0 ended as asked; 1 it could not be done; 2 usage; 3 another
// sluiced is running in these directories; 4 not root.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"sluice/agent"
	"sluice/dataplane"
)

// version is set by the linker.
var version = "unknown"

// Exit codes.
const (
	exitOK         = 0
	exitError      = 1
	exitUsage      = 2
	exitLocked     = 3
	exitPermission = 4
)

func main() {
	// The dataplane comes first: it must do nothing else in this process.
	if len(os.Args) > 1 && os.Args[1] == "dataplane" {
		os.Exit(dataplane.Main(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run dispatches the words and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	word := "run"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		word, args = args[0], args[1:]
	}
	switch word {
	case "run":
		return runAgent(ctx, args, stderr)
	case "stop":
		return stopAgent(ctx, args, stderr)
	case "version":
		fmt.Fprintf(stdout, "sluiced %s, build %s\n", version, dataplane.BuildID())
		if info, ok := debug.ReadBuildInfo(); ok {
			fmt.Fprintf(stdout, "%s\n", info.GoVersion)
		}
		return exitOK
	case "help":
		fmt.Fprint(stdout, usage)
		return exitOK
	}
	fmt.Fprintf(stderr, "sluiced: unknown command %q\n%s", word, usage)
	return exitUsage
}

// report prints an error and returns the exit code for it.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "sluiced: %v\n", err)
	switch {
	case errors.Is(err, agent.ErrLocked):
		return exitLocked
	case errors.Is(err, agent.ErrNotRoot):
		return exitPermission
	}
	return exitError
}
