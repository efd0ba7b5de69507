// SPDX-License-Identifier: Apache-2.0

// Command bench compares Sluice with the kernel's bridge on this machine, in
// one go: two containers on each, one fabric after the other in every round, so
// that whatever else the machine does meets both. It prints Markdown.
//
//	red        ---- Sluice --------- green
//	red-kernel ---- kernel bridge -- green-kernel
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
	rounds := flag.Int("rounds", 5, "rounds; each runs every measurement once on each fabric")
	seconds := flag.Float64("seconds", 2, "length of one measurement")
	only := flag.String("only", "", "run only the measurements whose name matches this expression")
	kernel := flag.Bool("kernel", false, "only the kernel's bridge: tries the bench itself")
	flag.Parse()
	want, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: -only:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	b := bench{rounds: *rounds, seconds: *seconds, want: want, kernelOnly: *kernel}
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
	l := lab.New(c)
	var setups []*setup
	if !b.kernelOnly {
		setups = append(setups, connect(l, l.Daemon(lab.Blue), ""))
	}
	setups = append(setups, connect(l, l.Bridge(0), "-kernel"))
	results := b.measure(ctx, c, setups)
	if ctx.Err() == nil {
		fmt.Print(table(results, setups))
		fmt.Printf("\n`%s`, %d cores, %s\n", strings.Join(os.Args, " "), runtime.NumCPU(), kernelRelease())
	}
}

// measure runs the rounds. It looks at ctx between two measurements: a
// measurement is short, and its end leaves nothing half done.
func (b *bench) measure(ctx context.Context, c *console, setups []*setup) []result {
	var results []result
	for _, m := range measurements() {
		if b.want.MatchString(m.name) {
			results = append(results, result{measurement: m, values: make([][]float64, len(setups))})
		}
	}
	for round := range b.rounds {
		for i := range results {
			for j, s := range setups {
				if ctx.Err() != nil {
					return nil
				}
				v := results[i].run(s, b.seconds)
				results[i].add(j, v)
				c.Logf("round %d/%d %-28s %-14s %v", round+1, b.rounds, results[i].name, s.fabric.Name(), v)
			}
		}
	}
	return results
}

func kernelRelease() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(text))
}
