// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/test/trial"
)

// trials are the words that make the bench run a trial instead of its comparison.
func trials() map[string]func(*console, []string) error {
	return map[string]func(*console, []string) error{"cni": cni, "kills": kills, "qdisc": queues, "scale": scale, "scan": scan, "soak": soak}
}

// runTrial runs one; it returns the exit code of the program.
func runTrial(name string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &console{}
	done := make(chan error, 1)
	go func() {
		defer close(done)
		c.try(func() {
			if err := trials()[name](c, args); err != nil {
				done <- err
			}
		})
	}()
	select {
	case err := <-done:
		c.finish()
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", name, err)
			return 2
		}
	case <-ctx.Done():
		c.finish() // what still runs fails, and is taken down
		return 1
	}
	if c.failed {
		return 1
	}
	fmt.Printf("\n`bench %s`, %d cores, %s\n", strings.Join(append([]string{name}, args...), " "), runtime.NumCPU(), kernelRelease())
	return 0
}

// words makes the flag set of a trial, whose errors are returned.
func words(name string) *flag.FlagSet {
	f := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// kindOf is the kind of uplink of that name.
func kindOf(name string) (trial.Kind, error) {
	var names []string
	for _, k := range trial.Kinds() {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return trial.Kind{}, fmt.Errorf("-uplink %q: want one of %s", name, strings.Join(names, ", "))
}

// kills kills the daemon while connections are under way.
func kills(c *console, args []string) error {
	f := words("kills")
	number := f.Int("kills", 100, "kills of each victim")
	entries := f.Int("entries", 0, "connections in the table beside")
	period := f.Duration("period", time.Second, "from kill to kill; at least 2.5 s until another dataplane is prepared")
	victims := f.String("victims", strings.Join(trial.Victims(), ","), "whom")
	uplink := f.String("uplink", "host", "kind of uplink")
	if err := f.Parse(args); err != nil {
		return err
	}
	kind, err := kindOf(*uplink)
	if err != nil {
		return err
	}
	k := trial.Kills{Kind: kind, Kills: *number, Victims: strings.Split(*victims, ","), Entries: *entries, Period: *period}
	fmt.Printf("Ten TCP transfers and 10,000 datagrams a second, %d connections beside:\n\n%s", *entries, trial.Table(k.Run(c)))
	return nil
}

// scale opens very many connections.
func scale(c *console, args []string) error {
	f := words("scale")
	flows := f.Int("flows", 1_000_000, "connections")
	rate := f.Int("rate", 100_000, "new ones a second")
	uplink := f.String("uplink", "host", "kind of uplink")
	if err := f.Parse(args); err != nil {
		return err
	}
	kind, err := kindOf(*uplink)
	if err != nil {
		return err
	}
	s := trial.Scale{Kind: kind, Flows: *flows, Rate: *rate}.Run(c)
	fmt.Print(s.String())
	return nil
}

// scan lets a container scan ports beside its neighbour.
func scan(c *console, args []string) error {
	f := words("scan")
	quota := f.Int("quota", 10_000, "connections of a container")
	rate := f.Int("rate", 5000, "ports a second")
	pairs := f.Int("pairs", 9, "pairs of runs")
	each := f.Duration("each", 2*time.Second, "half a pair")
	probe := f.String("probe", "syn", "what is sent")
	uplink := f.String("uplink", "host", "kind of uplink")
	if err := f.Parse(args); err != nil {
		return err
	}
	kind, err := kindOf(*uplink)
	if err != nil {
		return err
	}
	if !slices.Contains(trial.Probes(), *probe) {
		return fmt.Errorf("-probe %q: want one of %s", *probe, strings.Join(trial.Probes(), ", "))
	}
	s := trial.Scan{Kind: kind, Probe: *probe, Quota: *quota, Rate: *rate, Pairs: *pairs, Each: *each}.Run(c)
	fmt.Print(s.String())
	return nil
}

// soak sends very many packets.
func soak(c *console, args []string) error {
	f := words("soak")
	packets := f.Uint64("packets", 24_000_000, "in all")
	rounds := f.Int("rounds", 12, "looks at the processes")
	uplink := f.String("uplink", "host", "kind of uplink")
	if err := f.Parse(args); err != nil {
		return err
	}
	kind, err := kindOf(*uplink)
	if err != nil {
		return err
	}
	fmt.Print(trial.SoakTable(trial.Soak{Kind: kind, Packets: *packets, Rounds: *rounds}.Run(c)))
	return nil
}
