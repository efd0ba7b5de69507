// SPDX-License-Identifier: Apache-2.0

// Command traffic makes and checks traffic inside one network namespace, for
// the tests and the benchmark. Every command prints one JSON object on its
// standard output (package report); the ones that wait for somebody print a
// line "ready" before, as soon as they may be spoken to.
//
// Exit codes: 0 all is well; 1 the traffic was wrong (the JSON says how) or
// could not be made; 2 usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"syscall"
)

// command is one word of the tool. run returns what is printed; wrong says
// that the traffic ran but was not as it must be.
type command struct {
	help string
	run  func(ctx context.Context, args []string) (result any, err error)
}

// errWrong marks a run whose report is worth printing and whose exit code is 1.
var errWrong = errors.New("traffic differs from what it must be")

func commands() map[string]command {
	return map[string]command{
		"serve":    {"answer send, udp, pingpong and crr on one TCP and UDP port", serve},
		"send":     {"hashed TCP streams to a server", send},
		"udp":      {"numbered, hashed datagrams to a server", sendDatagrams},
		"pingpong": {"TCP or UDP round trips", pingpong},
		"flood":    {"as many small datagrams as go out", flood},
		"sink":     {"count datagrams", sink},
		"pace":     {"numbered datagrams at a steady rate", pace},
		"meter":    {"what is heard of pace, and when nothing is", meter},
		"fan":      {"very many flows from one interface", fan},
		"crr":      {"connections a second: connect, a byte each way, close", crr},
		"echo":     {"talk to an RFC 862 echo service", echo},
		"pingall":  {"ICMP echo to many addresses at once", pingAll},
		"capture":  {"verify each frame's checksum on an interface", capture},
		"hostile":  {"random and mutated frames from an interface", hostile},
		"frames":   {"the frames of a file, as they are", frames},
		"record":   {"print what arrives at an interface", record},
		"guest":    {"a virtual machine behind a tap device", guest},
		"resolver": {"a DNS server of world.test", resolver},
		"vlan":     {"a VLAN sub-interface in user space", vlan},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		return usage()
	}
	c, ok := commands()[args[0]]
	if !ok {
		return usage()
	}
	result, err := c.run(ctx, args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 2
	}
	if result != nil {
		_ = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "traffic %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

func usage() int {
	all := commands()
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	sort.Strings(names)
	fmt.Fprintln(os.Stderr, "usage: traffic COMMAND [flags]")
	for _, n := range names {
		fmt.Fprintf(os.Stderr, "  %-9s %s\n", n, all[n].help)
	}
	return 2
}

// ready tells whoever started this process that it may be spoken to.
func ready() { fmt.Println("ready") }

// flags makes the flag set of one command; parse errors return, not exit, so
// that main is the only place that ends the process.
func flags(name string) *flag.FlagSet {
	return flag.NewFlagSet("traffic "+name, flag.ContinueOnError)
}
