// SPDX-License-Identifier: Apache-2.0

// Command sluice is the operator's view of a running sluiced: it attaches and
// detaches containers, declares networks and shows what the bridge, the
// gateways and the counters hold.
//
// Its words and its output are those of ip(8), bridge(8) and ss(8), so that they
// need no learning; `-o json` prints the daemon's messages as they are. It keeps
// nothing and needs no privilege of its own: who may open the daemon's socket
// may do everything, and nobody else anything.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker.
var version = "unknown"

// patience is how long one command waits for the daemon. Attaching takes
// milliseconds; a daemon that is silent for a minute is stuck, and saying so is
// better than to wait with it.
const patience = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := &cli{out: os.Stdout, err: os.Stderr, in: os.Stdin, now: time.Now}
	code := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
