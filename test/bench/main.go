// SPDX-License-Identifier: Apache-2.0

// Command bench compares Sluice with the kernel on this machine, in one go: two
// containers on each, one fabric after the other in every round, so that whatever
// else the machine does meets both. It prints Markdown, a table for each way.
//
//	bridged:  red           ---- Sluice --------- green
//	          red-kernel    ---- kernel bridge -- green-kernel
//	routed:   red-routed    ---- Sluice --------- green-routed
//	          red-forwarded ---- Linux router --- green-forwarded
//	out:      see outside.go
//
// It needs root and the built binaries, and removes everything that it made,
// also when it is interrupted.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"sluice/test/lab"
)

func main() {
	if len(os.Args) > 1 && trials()[os.Args[1]] != nil {
		os.Exit(runTrial(os.Args[1], os.Args[2:]))
	}
	rounds := flag.Int("rounds", 5, "rounds; each runs every measurement once on each fabric")
	seconds := flag.Float64("seconds", 2, "length of one measurement")
	only := flag.String("only", "", "run only the measurements whose name matches this expression")
	way := flag.String("way", "", "bridged, routed, or out: by sockets, beside slirp4netns and pasta; empty: the first two")
	kernel := flag.Bool("kernel", false, "only the kernel: tries the bench itself")
	flag.Parse()
	want, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: -only:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	b := bench{rounds: *rounds, seconds: *seconds, want: want, way: *way, kernelOnly: *kernel}
	code := b.main(ctx)
	stop()
	os.Exit(code)
}

// console is the lab's T for a program: failures end the run after the
// cleanups.
type console struct {
	cleanups []func()
	failed   bool
}

// giveUp is what Fatalf panics with; main recovers it.
type giveUp struct{}

func (c *console) Helper()           {}
func (c *console) Cleanup(do func()) { c.cleanups = append(c.cleanups, do) }
func (c *console) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

func (c *console) Errorf(format string, args ...any) {
	c.failed = true
	c.Logf("bench: "+format, args...)
}

func (c *console) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	panic(giveUp{})
}

// finish runs the cleanups, the youngest first, whatever each of them does.
func (c *console) finish() {
	for len(c.cleanups) > 0 {
		last := len(c.cleanups) - 1
		do := c.cleanups[last]
		c.cleanups = c.cleanups[:last]
		c.try(do)
	}
}

// try runs do and catches a Fatalf in it.
func (c *console) try(do func()) {
	defer func() {
		switch r := recover(); r.(type) {
		case nil, giveUp:
		default:
			c.finish()
			panic(r)
		}
	}()
	do()
}

// bench is one run of the program.
type bench struct {
	rounds     int
	seconds    float64
	want       *regexp.Regexp
	way        string // bridged, routed or out; empty: the first two
	kernelOnly bool
}

func (b *bench) main(ctx context.Context) int {
	c := &console{}
	c.try(func() { b.run(ctx, c) })
	c.finish()
	if c.failed || ctx.Err() != nil {
		return 1
	}
	return 0
}

func (b *bench) run(ctx context.Context, c *console) {
	pairs := b.connect(lab.New(c))
	for i := range pairs {
		pairs[i].results = b.results(len(pairs[i].setups))
	}
	b.measure(ctx, c, pairs)
	if ctx.Err() != nil {
		return
	}
	for _, p := range pairs {
		fmt.Printf("%s:\n\n%s\n", p.way, table(p.results, p.setups))
	}
	fmt.Printf("`%s`, %d cores, %s\n", strings.Join(os.Args, " "), runtime.NumCPU(), kernelRelease())
}

// pair is what is compared with each other: Sluice first, then the kernel.
type pair struct {
	way     string
	setups  []*setup
	results []result
}

// connect makes the containers of all ways.
func (b *bench) connect(l *lab.Lab) []pair {
	if b.way == "out" {
		return []pair{b.outside(l)}
	}
	bridged, routed := pair{way: "Bridged"}, pair{way: "Routed"}
	if !b.kernelOnly {
		d := l.Daemon(lab.Blue + lab.Routed)
		bridged.setups = append(bridged.setups, connect(l, d, ""))
		routed.setups = append(routed.setups, connect(l, d.Between("left", "right"), "-routed"))
	}
	bridged.setups = append(bridged.setups, connect(l, l.Bridge(0), "-kernel"))
	routed.setups = append(routed.setups, connect(l, l.Router(), "-forwarded"))
	switch b.way {
	case "bridged":
		return []pair{bridged}
	case "routed":
		return []pair{routed}
	}
	return []pair{bridged, routed}
}

// results are empty ones, for the measurements that are wanted.
func (b *bench) results(setups int) []result {
	var results []result
	for _, m := range measurements() {
		elsewhere := m.inside && b.way == "out" || m.outside && b.way != "out"
		if b.want.MatchString(m.name) && !elsewhere {
			results = append(results, result{measurement: m, values: make([][]float64, setups)})
		}
	}
	return results
}

// measure runs the rounds. It looks at ctx between two measurements: a
// measurement is short, and its end leaves nothing half done.
func (b *bench) measure(ctx context.Context, c *console, pairs []pair) {
	for round := range b.rounds {
		for _, p := range pairs {
			for i := range p.results {
				b.compare(ctx, c, round, &p, i)
			}
		}
	}
}

// compare runs one measurement on each setup of a pair.
func (b *bench) compare(ctx context.Context, c *console, round int, p *pair, i int) {
	for j, s := range p.setups {
		if ctx.Err() != nil {
			return
		}
		r := &p.results[i]
		v := r.run(s, b.seconds)
		r.add(j, v)
		c.Logf("round %d/%d %-8s %-28s %-14s %v", round+1, b.rounds, p.way, r.name, s.fabric.Name(), v)
	}
}

func kernelRelease() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(text))
}
