// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// shaper puts a discipline, in the words of tc(8), where what goes to a container passes.
type shaper struct {
	name       string
	red, green *lab.NS
	add        func(words string) bool // false: it does not have that discipline
	del        func()
	backlog    func() int           // packets that wait
	cpu        func() time.Duration // of what carries packets; nil: not told apart
}

// queues measures queueing disciplines by wall clock and real traffic: the rates that they
// hold, pings beside a flood, a change under way, and what each costs, beside the kernel's
// in the same run, as far as the kernel of this machine has them.
func queues(c *console, args []string) error {
	f := words("qdisc")
	seconds := f.Float64("seconds", 4, "length of one measurement of a rate")
	only := f.String("only", "", "run only the parts whose name matches: rates, flood, change, cost")
	rates := f.String("rates", "1,10,100,1000,2500,5000", "Mbit/s")
	burst := f.Duration("burst", 10*time.Millisecond, "of rates: how long a burst lasts at the rate; a worker that is later loses some of it")
	rounds := f.Int("rounds", 3, "rounds of cost")
	if err := f.Parse(args); err != nil {
		return err
	}
	want, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	l := lab.New(c)
	all := []*shaper{ours(l), kernels(l)}
	for _, s := range all {
		s.green.Start("iperf3", "-s", "-J")
		l.Eventually("a server", 10*time.Second, func() bool {
			return s.red.Try("iperf3", "-c", s.green.IP(lab.V4).String(), "-n", "1").Code == 0
		})
	}
	parts := []struct {
		name string
		run  func()
	}{
		{"rates", func() { ratesTable(all, *rates, *seconds, *burst) }},
		{"flood", func() { floodTable(all) }},
		{"change", func() { changeTable(all[:1]) }},
		{"cost", func() { costTable(all, *rounds, *seconds/2) }},
	}
	for _, p := range parts {
		if want.MatchString(p.name) {
			p.run()
		}
	}
	return nil
}

// ours is Sluice with two containers.
func ours(l *lab.Lab) *shaper {
	d := l.Daemon(lab.Blue)
	s := &shaper{name: "Sluice", red: l.NS("red"), green: l.NS("green")}
	d.Connect(s.red)
	d.Connect(s.green)
	s.red.Ping(s.green.IP(lab.V4))
	s.add = func(text string) bool {
		for line := range strings.SplitSeq(text, "; ") {
			object, rest, _ := strings.Cut(line, " ")
			verb, rest, _ := strings.Cut(rest, " ")
			d.CLI(append([]string{object, verb, "dev", s.green.Name()}, strings.Fields(rest)...)...).Expect(0)
		}
		return true
	}
	s.del = func() { d.CLI("qdisc", "del", "dev", s.green.Name(), "root") }
	s.backlog = func() int {
		_, rest, _ := strings.Cut(d.CLI("-s", "qdisc", "show", "dev", s.green.Name()).Out, "backlog ")
		_, rest, _ = strings.Cut(rest, "b ")
		text, _, _ := strings.Cut(rest, "p ")
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0
		}
		return n
	}
	pid := d.Status().Dataplane.PID
	s.cpu = func() time.Duration { return lab.UsageOf(pid).CPU }
	return s
}

// kernels is a router's interface in a namespace between two, where the kernel shapes.
func kernels(l *lab.Lab) *shaper {
	s := &shaper{name: "kernel", red: l.NS("red-kernel"), green: l.NS("green-kernel")}
	router := l.NS("router")
	l.Cable(s.red, router, "left", 1500, "10.61.0.0/24")
	l.Cable(s.green, router, "right", 1500, "10.62.0.0/24")
	router.Run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	s.red.Run("ip", "route", "add", "10.62.0.0/24", "via", "10.61.0.2")
	s.green.Run("ip", "route", "add", "10.61.0.0/24", "via", "10.62.0.2")
	s.red.Ping(s.green.IP(lab.V4))
	s.add = func(text string) bool {
		for line := range strings.SplitSeq(text, "; ") {
			object, rest, _ := strings.Cut(line, " ")
			verb, rest, _ := strings.Cut(rest, " ")
			if router.Try(append([]string{"tc", object, verb, "dev", "right"}, strings.Fields(rest)...)...).Code != 0 {
				s.del()
				return false
			}
		}
		return true
	}
	s.del = func() { router.Try("tc", "qdisc", "del", "dev", "right", "root") }
	return s
}

// wirePart is the part of a full frame that is TCP's payload.
const wirePart = 1448.0 / 1514

// ratesTable: how far the rate is off, over the whole time and in the first second.
func ratesTable(all []*shaper, rates string, seconds float64, burst time.Duration) {
	fmt.Printf("Error of the rate over %g s, and over the first second, datagrams up to 100 Mbit/s and TCP above:\n\n| discipline | rate |%s\n|---|---:|%s\n", seconds, heads(all, ""), strings.Repeat("---:|", len(all)))
	for _, kind := range []string{"tbf", "htb"} {
		for text := range strings.SplitSeq(rates, ",") {
			mbit, err := strconv.ParseFloat(text, 64)
			if err != nil {
				continue
			}
			fmt.Printf("| %s | %s Mbit/s |", kind, text)
			for _, s := range all {
				if !s.add(limited(kind, mbit, burst)) {
					fmt.Print(" – |")
					continue
				}
				whole, first := s.received(seconds, mbit)
				s.del()
				fmt.Printf(" %s, %s |", off(whole, mbit), off(first, mbit))
			}
			fmt.Println()
		}
	}
	fmt.Println()
}

// limited is a discipline of a rate, with a burst of some time of it, or a full frame.
func limited(kind string, mbit float64, long time.Duration) string {
	burst := int(math.Max(mbit*1e6/8*long.Seconds(), 1600))
	limit := int(math.Max(mbit*1e6/8*0.05, 50_000)) + burst
	if kind == "tbf" {
		return fmt.Sprintf("qdisc add root handle 1: tbf rate %gmbit burst %db limit %db", mbit, burst, limit)
	}
	return fmt.Sprintf("qdisc add root handle 1: htb default 10; class add parent 1: classid 1:10 htb rate %gmbit burst %db cburst %db; "+
		"qdisc add parent 1:10 bfifo limit %d", mbit, burst, burst, limit)
}

func off(got, mbit float64) string {
	return fmt.Sprintf("%+.2f %%", 100*(got/(mbit*1e6)-1))
}

func heads(all []*shaper, what string) (text string) {
	for _, s := range all {
		text += " " + s.name + what + " |"
	}
	return text
}

// mostUDP is the rate in Mbit/s up to which it is measured by datagrams. Beyond it they
// would keep the machine busy; below it a lost segment of TCP holds back what is behind it
// for a good part of a second.
const mostUDP = 100

// received is the rate on the wire, in bits a second, that a receiver sees of who offers
// more than mbit: in all whole seconds, and in the first one.
func (s *shaper) received(seconds, mbit float64) (whole, first float64) {
	if mbit > mostUDP {
		whole, first = s.tcp(seconds)
		return whole / wirePart, first / wirePart
	}
	const size = 1442
	whole, first = s.iperf(seconds, "-u", "-l", strconv.Itoa(size), "-b", fmt.Sprintf("%gM", mbit*1.3))
	return whole * (size + 42) / size, first * (size + 42) / size
}

// tcp is the rate that the receiver of one stream sees: in all, and in the first second.
func (s *shaper) tcp(seconds float64) (whole, first float64) { return s.iperf(seconds) }

// iperf runs iperf3 and returns the rate of payload over all its seconds, and in the first.
func (s *shaper) iperf(seconds float64, more ...string) (whole, first float64) {
	out := s.red.Run(append([]string{
		"iperf3", "-c", s.green.IP(lab.V4).String(), "-J", "-i", "1", "-t", strconv.FormatFloat(seconds, 'f', 1, 64), "--get-server-output",
	}, more...)...)
	var r struct {
		Server struct {
			Intervals []struct {
				Sum struct {
					Bytes   float64 `json:"bytes"`
					Seconds float64 `json:"seconds"`
				} `json:"sum"`
			} `json:"intervals"`
		} `json:"server_output_json"`
	}
	if json.Unmarshal([]byte(out), &r) != nil || len(r.Server.Intervals) == 0 {
		return 0, 0
	}
	var bytes, long float64
	for i, at := range r.Server.Intervals {
		if long += at.Sum.Seconds; i > 0 && long > seconds+0.01 {
			long -= at.Sum.Seconds // what came behind the end
			break
		}
		bytes += at.Sum.Bytes
	}
	return bytes * 8 / long, r.Server.Intervals[0].Sum.Bytes * 8 / r.Server.Intervals[0].Sum.Seconds
}

// floodTable: pings beside four greedy streams through 100 Mbit/s.
func floodTable(all []*shaper) {
	fmt.Printf("Ping beside four TCP streams through 100 Mbit/s, p50 / p99 / worst, ms:\n\n| leaf |%s\n|---|%s\n", heads(all, ""), strings.Repeat("---:|", len(all)))
	for _, leaf := range []string{"pfifo limit 1000", "fq_codel", "sfq", "fq"} {
		fmt.Printf("| %s |", leaf)
		for _, s := range all {
			if !s.add("qdisc add root handle 1: htb default 10; class add parent 1: classid 1:10 htb rate 100mbit burst 16kb cburst 16kb; qdisc add parent 1:10 " + leaf) {
				fmt.Print(" – |")
				continue
			}
			flood := s.red.Start("iperf3", "-c", s.green.IP(lab.V4).String(), "-t", "5", "-P", "4")
			time.Sleep(time.Second)
			out := s.red.Try("ping", "-n", "-i", "0.01", "-c", "300", s.green.IP(lab.V4).String()).Out
			flood.Wait(20 * time.Second)
			s.del()
			fmt.Printf(" %s |", pings(out))
		}
		fmt.Println()
	}
	fmt.Println()
}

// pings are the median, the 99th percentile and the worst of ping's times.
func pings(out string) string {
	var all []float64
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, " time="); ok {
			if ms, err := strconv.ParseFloat(strings.Fields(rest)[0], 64); err == nil {
				all = append(all, ms)
			}
		}
	}
	if len(all) == 0 {
		return "–"
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f / %.2f / %.2f", all[len(all)/2], all[len(all)*99/100], all[len(all)-1])
}

// changeTable: datagrams at a steady 8 Mbit/s through a rate that is changed under them.
// What a lower rate holds back, a higher one must let go at once.
func changeTable(all []*shaper) {
	const port = 7003
	fmt.Println("A rate changed from 4 to 100 Mbit/s under 5,000 datagrams a second:")
	fmt.Println()
	for _, s := range all {
		to := fmt.Sprintf("%s:%d", s.green.IP(lab.V4), port)
		s.add("qdisc add root handle 1: tbf rate 4mbit burst 3100b limit 10mb")
		sink := s.green.Traffic("sink", "-port", strconv.Itoa(port), "-seconds", "4").Ready()
		pace := s.red.Traffic("pace", "-to", to, "-rate", "5000", "-seconds", "3").Ready()
		time.Sleep(2 * time.Second)
		began := time.Now()
		s.add("qdisc change root handle 1: tbf rate 100mbit burst 3100b limit 10mb")
		told := time.Since(began)
		waited := time.Duration(0)
		for s.backlog() > 0 && waited < 5*time.Second {
			waited = time.Since(began)
		}
		sent := lab.Report[report.Rate](pace, time.Minute)
		got := lab.Report[report.Rate](sink, time.Minute)
		s.del()
		fmt.Printf("- %s: the command took %v, all that waited had left %v after it began; %d sent, %d came, %d lost\n\n",
			s.name, told.Round(time.Millisecond), waited.Round(time.Millisecond), sent.Count, got.Count, int64(sent.Count)-int64(got.Count))
	}
}

// costTable: throughput and, of Sluice, CPU of the dataplane, with each discipline and
// without, in turns.
func costTable(all []*shaper, rounds int, seconds float64) {
	fmt.Printf("TCP, one stream, Gbit/s, median of %d rounds of %g s; in brackets CPU seconds of the dataplane for each GB:\n\n| discipline |%s\n|---|%s\n",
		rounds, seconds, heads(all, ""), strings.Repeat("---:|", len(all)))
	kinds := []string{
		"", "pfifo limit 10000", "prio", "tbf rate 10gbit burst 2mb latency 10ms", "fq_codel", "codel", "fq", "sfq limit 10000", "netem delay 0", "htb",
	}
	rate, cpu := make([][][]float64, len(all)), make([][][]float64, len(all))
	for i := range all {
		rate[i], cpu[i] = make([][]float64, len(kinds)), make([][]float64, len(kinds))
	}
	for range rounds {
		for k, kind := range kinds {
			for i, s := range all {
				if g, c, ok := s.cost(kind, seconds); ok {
					rate[i][k], cpu[i][k] = append(rate[i][k], g), append(cpu[i][k], c)
				}
			}
		}
	}
	for k, kind := range kinds {
		if kind == "" {
			kind = "none"
		}
		fmt.Printf("| %s |", kind)
		for i, s := range all {
			switch {
			case len(rate[i][k]) == 0:
				fmt.Print(" – |")
			case s.cpu == nil:
				fmt.Printf(" %.2f |", middle(rate[i][k]))
			default:
				fmt.Printf(" %.2f (%.2f) |", middle(rate[i][k]), middle(cpu[i][k]))
			}
		}
		fmt.Println()
	}
	fmt.Println()
}

// cost is the throughput with a discipline, in Gbit/s, and the CPU time for each GB.
func (s *shaper) cost(kind string, seconds float64) (gbit, cpu float64, ok bool) {
	words := "qdisc add root handle 1: " + kind
	if kind == "htb" {
		words = "qdisc add root handle 1: htb default 10; class add parent 1: classid 1:10 htb rate 10gbit burst 2mb cburst 2mb"
	}
	if kind != "" {
		if !s.add(words) {
			return 0, 0, false
		}
		defer s.del()
	}
	began := time.Duration(0)
	if s.cpu != nil {
		began = s.cpu()
	}
	whole, _ := s.tcp(seconds)
	if s.cpu != nil && whole > 0 {
		cpu = (s.cpu() - began).Seconds() / (whole / 8e9 * seconds)
	}
	return whole / 1e9, cpu, true
}

// middle is the median.
func middle(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
