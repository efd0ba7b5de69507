// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// setup is two containers on one fabric, with the servers that the measurements
// talk to.
type setup struct {
	fabric     lab.Fabric
	lab        *lab.Lab
	red, green *lab.NS
	// carriers are the processes that carry the traffic; nil: the kernel does.
	carriers func() []int
}

// connect makes the containers, whose names end in suffix, and starts the servers.
func connect(l *lab.Lab, f lab.Fabric, suffix string) *setup {
	s := &setup{fabric: f, lab: l, red: l.NS("red" + suffix), green: l.NS("green" + suffix)}
	f.Connect(s.red)
	f.Connect(s.green)
	for _, n := range []*lab.NS{s.red, s.green} {
		// Connections a second: every port of the client may be used.
		n.Run("sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=1024 65535")
	}
	s.green.Serve()
	s.green.Start("iperf3", "-s")
	s.red.Ping(s.green.IP(lab.V4))
	return s
}

// figure is one number of a measurement: several come of one run (p50 and p99).
type figure struct {
	name, unit string
	digits     int  // after the point
	less       bool // less is better
}

// measurement is one thing to run; it returns a value for each of its figures.
type measurement struct {
	name    string
	figures []figure
	run     func(s *setup, seconds float64) []float64
	inside  bool // it changes both ends, and needs two containers
	outside bool // it needs processes on all sides
}

// result is a measurement and, for each setup, the values of each round.
type result struct {
	measurement
	values [][]float64 // [setup][round*figures + figure]
}

func (r *result) add(setup int, v []float64) {
	r.values[setup] = append(r.values[setup], v...)
}

// column is one figure's values on one setup.
func (r *result) column(setup, fig int) []float64 {
	var out []float64
	for i := fig; i < len(r.values[setup]); i += len(r.figures) {
		out = append(out, r.values[setup][i])
	}
	return out
}

// measurements are the rows of the table.
func measurements() []measurement {
	gbit := func(name string) []figure { return []figure{{name: name, unit: "Gbit/s", digits: 2}} }
	halves := func(name string) []figure {
		return []figure{
			{name: name + ", half round trip p50", unit: "µs", digits: 1, less: true},
			{name: name + ", half round trip p99", unit: "µs", digits: 1, less: true},
		}
	}
	return []measurement{
		{name: "tcp-1", figures: gbit("TCP, 1 stream"), run: func(s *setup, secs float64) []float64 { return s.iperf(secs, 1) }},
		{name: "tcp-1-back", figures: gbit("TCP, 1 stream, the other way"), run: func(s *setup, secs float64) []float64 { return s.iperf(secs, 1, "-R") }},
		{name: "tcp-4", figures: gbit("TCP, 4 streams"), run: func(s *setup, secs float64) []float64 { return s.iperf(secs, 4) }},
		{name: "tcp-1-no-offload", figures: gbit("TCP, 1 stream, containers without TSO and GSO"), inside: true, run: func(s *setup, secs float64) []float64 {
			s.segmentation("off")
			defer s.segmentation("on")
			return s.iperf(secs, 1)
		}},
		{name: "pingpong-tcp", figures: halves("TCP ping-pong, a core each"), run: func(s *setup, secs float64) []float64 { return s.pinned(secs) }},
		{name: "pingpong-udp", figures: halves("UDP ping-pong, a core each"), run: func(s *setup, secs float64) []float64 { return s.pinned(secs, "-udp") }},
		{name: "pingpong-tcp-free", figures: halves("TCP ping-pong, unpinned"), run: func(s *setup, secs float64) []float64 { return s.unpinned(secs) }},
		{name: "udp-64", figures: []figure{{name: "UDP, 64-byte datagrams delivered", unit: "kpps", digits: 0}}, run: (*setup).flood},
		{name: "crr", figures: []figure{{name: "TCP connections, a byte each way", unit: "1/s", digits: 0}}, run: (*setup).crr},
		{name: "crr-many", figures: []figure{{name: "TCP connections, 32 at the same time", unit: "1/s", digits: 0}}, run: (*setup).crrMany},
		{name: "crr-cpu", figures: []figure{{name: "TCP connections, processor time of each without its ends", unit: "µs", digits: 0, less: true}}, run: (*setup).crrCPU, outside: true},
	}
}

// iperf is the rate that the receiver of iperf3(1) saw, in Gbit/s.
func (s *setup) iperf(secs float64, streams int, more ...string) []float64 {
	// iperf3 knows whole seconds, and takes less than one for none, without an end.
	r, err := s.red.Iperf(s.green.IP(lab.V4).String(), append([]string{
		"-O", "0.5", "-t", strconv.Itoa(int(math.Ceil(secs))), "-P", strconv.Itoa(streams),
	}, more...)...)
	if err != nil {
		return []float64{0}
	}
	return []float64{r.End.Received.Rate / 1e9}
}

// segmentation switches segmentation offload in both containers.
func (s *setup) segmentation(word string) {
	for _, n := range []*lab.NS{s.red, s.green} {
		n.Run("ethtool", "-K", n.If(), "tso", word, "gso", word)
	}
}

// pinned keeps the two containers on different cores. Where they run decides
// more than what connects them: on one core a message costs a switch between
// two processes, on two it costs the waking of an idle core, which is ten times
// as much in a virtual machine. Left alone, the scheduler takes now the one and
// now the other, and a median tells which, not how fast the network is.
func (s *setup) pinned(secs float64, args ...string) []float64 {
	last := strconv.Itoa(runtime.NumCPU() - 1)
	return s.pingpong(secs, []string{"taskset", "-c", "0"}, []string{"taskset", "-c", last}, args)
}

// unpinned leaves the placing to the scheduler.
func (s *setup) unpinned(secs float64, args ...string) []float64 {
	return s.pingpong(secs, nil, nil, args)
}

// pingpong runs a server and a client of its own, each behind a command that
// places it.
func (s *setup) pingpong(secs float64, client, server, args []string) []float64 {
	const port = 7002
	tool := s.lab.Binary("traffic")
	serve := s.green.Start(append(server, tool, "serve", "-port", strconv.Itoa(port))...).Ready()
	defer serve.Stop()
	to := netip.AddrPortFrom(s.green.IP(lab.V4), port).String()
	ping := append(client, tool, "pingpong", "-seconds", fmt.Sprint(secs), "-to", to)
	r := lab.Report[report.RoundTrips](s.red.Start(append(ping, args...)...), s.patience(secs))
	return []float64{r.P50US, r.P99US}
}

// flood counts at the sink, from the first datagram on; the sender goes on for
// longer than the sink counts.
func (s *setup) flood(secs float64) []float64 {
	const port = 7001
	to := netip.AddrPortFrom(s.green.IP(lab.V4), port).String()
	sink := s.green.Traffic("sink", "-port", strconv.Itoa(port), "-seconds", fmt.Sprint(secs)).Ready()
	flood := s.red.Traffic("flood", "-to", to, "-size", "64", "-seconds", fmt.Sprint(secs+0.5))
	r := lab.Report[report.Rate](sink, s.patience(secs))
	lab.Report[report.Rate](flood, s.patience(secs))
	return []float64{r.PerSecond / 1e3}
}

func (s *setup) crr(secs float64) []float64 { return []float64{s.connections(secs).PerSecond} }

// crrMany is crr where nobody waits for anybody: processor time decides.
func (s *setup) crrMany(secs float64) []float64 {
	return []float64{s.connections(secs, "-conns", "32").PerSecond}
}

func (s *setup) connections(secs float64, more ...string) report.Rate {
	p := s.red.Traffic(append([]string{"crr", "-seconds", fmt.Sprint(secs), "-to", s.green.At(lab.V4)}, more...)...)
	return lab.Report[report.Rate](p, s.patience(secs))
}

// crrCPU is what the processes between the two ends take of the processors for a
// connection. It says more than the rate on a machine that does other things, too.
func (s *setup) crrCPU(secs float64) []float64 {
	cpu := func() (sum time.Duration) {
		for _, pid := range s.carriers() {
			sum += lab.UsageOf(pid).CPU
		}
		return sum
	}
	before := cpu()
	n := s.connections(secs).Count
	return []float64{(cpu() - before).Seconds() * 1e6 / float64(max(n, 1))}
}

func (s *setup) patience(secs float64) time.Duration {
	return time.Duration((secs + 30) * 1e9)
}
