// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"sluice/agent"
)

const usage = `usage: sluiced [run] [flags]    serve until SIGTERM; the dataplane goes on
       sluiced stop [flags]     end the daemon and its dataplane
       sluiced version
flags of run and stop:
  --run-dir DIR      sockets, counters, namespace (/run/sluice)
  --state-dir DIR    what is attached and declared (/var/lib/sluice)
flags of run:
  --config FILE      networks to apply at the start
  --workers N        packet threads (0: one for each CPU)
  --connections N    room for tracked connections, 256 bytes each (65536)
  --resolv-conf FILE resolvers of the host for containers' names (/etc/resolv.conf)
  --busy-poll D      how long at most an idle worker polls (50us; 0: not)
  --spare=false      without a second dataplane that stands by (true)
  --log-level LEVEL  debug, info, warn or error (info)
  --log-format FMT   text or json (text)
`

// stopTimeout is how long "sluiced stop" waits for the other processes.
const stopTimeout = 30 * time.Second

// errUsage is a mistake on the command line that has been reported.
var errUsage = errors.New("usage")

// flags are the command line of run and stop.
type flags struct {
	agent.Options
	level  slog.Level
	format string
	spare  bool
}

// parse reads the flags. Those that a word does not have are unknown to it.
func parse(word string, args []string, stderr io.Writer) (*flags, error) {
	f := new(flags)
	set := flag.NewFlagSet("sluiced "+word, flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() { fmt.Fprint(stderr, usage) }
	set.StringVar(&f.RunDir, "run-dir", "", "")
	set.StringVar(&f.StateDir, "state-dir", "", "")
	if word == "run" {
		set.StringVar(&f.Config, "config", "", "")
		set.IntVar(&f.Workers, "workers", 0, "")
		set.IntVar(&f.ConnEntries, "connections", 0, "")
		set.StringVar(&f.ResolvConf, "resolv-conf", "", "")
		set.DurationVar(&f.BusyPoll, "busy-poll", defaultBusyPoll, "")
		set.BoolVar(&f.spare, "spare", true, "")
		set.TextVar(&f.level, "log-level", slog.LevelInfo, "")
		set.StringVar(&f.format, "log-format", "text", "")
	}
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if err := f.check(word, set.Args(), stderr); err != nil {
		return nil, err
	}
	f.NoSpare = !f.spare
	if f.BusyPoll == 0 {
		f.BusyPoll = -1 // the options' zero is their default
	}
	return f, nil
}

func (f *flags) check(word string, rest []string, stderr io.Writer) error {
	var fault string
	switch {
	case len(rest) > 0:
		fault = fmt.Sprintf("unexpected argument %q", rest[0])
	case f.Workers < 0 || f.Workers > maxWorkers:
		fault = fmt.Sprintf("--workers %d: 0 to %d", f.Workers, maxWorkers)
	case f.ConnEntries != 0 && (f.ConnEntries < minConnections || f.ConnEntries > maxConnections):
		fault = fmt.Sprintf("--connections %d: %d to %d", f.ConnEntries, minConnections, maxConnections)
	case f.BusyPoll < 0:
		fault = "--busy-poll: not negative"
	case word == "run" && f.format != "text" && f.format != "json":
		fault = fmt.Sprintf("--log-format %q: text or json", f.format)
	default:
		return nil
	}
	fmt.Fprintf(stderr, "sluiced: %s\n%s", fault, usage)
	return errUsage
}

// defaultBusyPoll is netstack's own, shown here so that the usage can name it.
const defaultBusyPoll = 50 * time.Microsecond

// maxWorkers is the most packet threads that a dataplane takes.
const maxWorkers = 64

// The least and the most room for connections, which takes 4 GB of tmpfs.
const (
	minConnections = 16
	maxConnections = 1 << 24
)

// logger writes to stderr, which systemd collects.
func (f *flags) logger(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: f.level}
	if f.format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func runAgent(ctx context.Context, args []string, stderr io.Writer) int {
	f, err := parse("run", args, stderr)
	if err != nil {
		return usageCode(err)
	}
	f.Version, f.LogLevel, f.Log, f.Ready = version, f.level, f.logger(stderr), notifyReady
	return report(stderr, agent.Run(ctx, f.Options))
}

func stopAgent(ctx context.Context, args []string, stderr io.Writer) int {
	f, err := parse("stop", args, stderr)
	if err != nil {
		return usageCode(err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return report(stderr, agent.Stop(ctx, f.Options))
}

func usageCode(err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	return exitUsage
}
