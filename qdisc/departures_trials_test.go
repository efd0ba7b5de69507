// SPDX-License-Identifier: Apache-2.0

package qdisc_test

import (
	"slices"
	"strings"
)

// late is how long after ours a packet leaves the kernel at most, ns: its processor needs
// some time for each packet and each timer, and we reckon with none.
const late = 40_000

// drift is late for netem's slots: each begins when the kernel is done with the last one.
const drift = 250_000

// trial is a discipline, and what is offered to it.
type trial struct {
	title  string   // of one with many lines
	lines  []string // of tc
	kernel []string // the last of them, for the kernel, if it takes another one there
	load   load
	late   int64 // tolerance, ns; 0 is that of all
}

// name is what tells a trial from others.
func (c *trial) name() string {
	text := c.title
	if text == "" {
		text = strings.Join(c.lines, "; ")
	}
	for _, word := range []string{"qdisc add dev DEV ", "filter add dev DEV ", "root ", "parent 1:1 ", "handle 1: ", "handle 2: ", "protocol ip ", "prio 1 "} {
		text = strings.ReplaceAll(text, word, "")
	}
	if c.load.super > 0 {
		return text + ", super-frames"
	}
	if c.lines[0] == line {
		return strings.TrimPrefix(text, "tbf rate 1mbit burst 1600 limit 10000000; ") + ", below tbf"
	}
	return text
}

// theirs is the lines for the kernel.
func (c *trial) theirs() []string {
	return append(slices.Clone(c.lines[:len(c.lines)-len(c.kernel)]), c.kernel...)
}

// line is a rate above the discipline on trial: 1 Mbit/s, a packet at a time.
const line = "qdisc add dev DEV root handle 1: tbf rate 1mbit burst 1600 limit 10000000"

const mbit = 125_000 // bytes/s

const kbit100 = mbit / 10

// Loads for a line of 1 Mbit/s: so slow that hardly ever does a packet come just when another leaves,
// where a kernel and we may see one before the other.
var (
	groups   = load{n: 300, rate: 9 * kbit100, group: 30, sizes: [2]int{64, 1514}}
	overload = load{n: 400, rate: 14 * kbit100, sizes: [2]int{200, 1514}, flows: 4}
	long     = load{n: 600, rate: 13 * kbit100, sizes: [2]int{1000, 1514}, flows: 4, ecn: 2}
)

// with is the load with priorities of its flows.
func (l load) with(priorities ...uint32) load {
	l.flows, l.priorities = len(priorities), priorities
	return l
}

// seeded is another load, for a trial where a packet comes just when another leaves.
func (l load) seeded(seed uint64) load {
	l.seed = seed
	return l
}

func below(lines ...string) []string {
	out := []string{line}
	for _, l := range lines {
		out = append(out, "qdisc add dev DEV parent 1:1 handle 2: "+l)
	}
	return out
}

func root(text string) []string { return []string{"qdisc add dev DEV root handle 1: " + text} }

// trials are all of them.
func trials() []trial {
	return slices.Concat(buckets(), bands(), nested(), codels(), fqs(), netems(), policers(), named(), supers())
}

// buckets are tbf and htb.
func buckets() []trial {
	return []trial{
		{lines: root("tbf rate 1mbit burst 5000 limit 1000000"), load: groups},
		{lines: root("tbf rate 1mbit burst 50000 limit 1000000 peakrate 4mbit mtu 2000"), load: groups},
		{lines: root("tbf rate 1mbit burst 5000 limit 20000 overhead 24 mpu 84"), load: groups},
		{lines: root("tbf rate 1mbit burst 5000 latency 30ms linklayer atm overhead 10"), load: groups},
		{
			title: "htb, two classes that borrow",
			lines: []string{
				root("htb")[0],
				"class add dev DEV parent 1: classid 1:1 htb rate 1mbit burst 15000 cburst 15000",
				"class add dev DEV parent 1:1 classid 1:a htb rate 300kbit ceil 1mbit burst 5000 cburst 5000 quantum 1500",
				"class add dev DEV parent 1:1 classid 1:b htb rate 700kbit ceil 1mbit burst 5000 cburst 5000 quantum 3500",
			},
			load: overload.with(0x1000a, 0x1000b),
		},
		{
			title: "htb, three levels, three priorities",
			lines: []string{
				root("htb default 30")[0],
				"class add dev DEV parent 1: classid 1:1 htb rate 1mbit burst 3000 cburst 3000",
				"class add dev DEV parent 1:1 classid 1:2 htb rate 600kbit ceil 800kbit burst 3000 cburst 3000",
				"class add dev DEV parent 1:2 classid 1:10 htb rate 200kbit ceil 800kbit burst 3000 cburst 3000 prio 1 quantum 1514",
				"class add dev DEV parent 1:2 classid 1:20 htb rate 400kbit ceil 600kbit burst 3000 cburst 3000 prio 2 quantum 3028",
				"class add dev DEV parent 1:1 classid 1:30 htb rate 100kbit ceil 1mbit burst 3000 cburst 3000 prio 0 quantum 1514",
				"filter add dev DEV parent 1: protocol ip prio 1 handle 1 fw classid 1:10",
				"filter add dev DEV parent 1: protocol ip prio 1 handle 2 fw classid 1:20",
			},
			load: load{n: 400, rate: 14 * kbit100, sizes: [2]int{200, 1514}, flows: 3, marks: true},
		},
	}
}

// bands are those that choose by class, band or flow.
func bands() []trial {
	return []trial{
		{lines: below("pfifo limit 20"), load: overload},
		{lines: below("bfifo limit 20000"), load: overload},
		{lines: below("pfifo_fast"), load: overload.with(0, 6, 2, 1)},
		{lines: below("prio bands 4 priomap 3 2 1 0 0 1 2 3 3 2 1 0 0 1 2 3"), load: overload.with(0, 1, 2, 3)},
		{lines: below("sfq"), load: overload},
		{lines: below("sfq limit 30 quantum 3000"), load: overload},
		{lines: below("sfq depth 10 headdrop limit 30"), load: overload},
		{
			title: "drr, quantum 500 and 1500",
			lines: append(below("drr"),
				"class add dev DEV parent 2: classid 2:1 drr quantum 500", "class add dev DEV parent 2: classid 2:2 drr quantum 1500",
				"filter add dev DEV parent 2: protocol ip prio 1 u32 match ip dport 1000 0xffff flowid 2:1",
				"filter add dev DEV parent 2: protocol ip prio 2 matchall classid 2:2"),
			load: overload,
		},
	}
}

// nested are disciplines that hold back below others.
func nested() []trial {
	return []trial{
		{
			title: "prio, the third band with tbf",
			lines: append(root("prio"), "qdisc add dev DEV parent 1:3 handle 3: tbf rate 500kbit burst 1600 limit 20000"),
			load:  overload.with(0, 6, 2),
		},
		{
			title: "tbf with peak rate, below tbf",
			lines: append(root("tbf rate 1mbit burst 20000 limit 10000000"),
				"qdisc add dev DEV parent 1:1 handle 2: tbf rate 800kbit burst 10000 limit 30000 peakrate 2mbit mtu 1600"),
			load: groups,
		},
		{
			title: "htb with netem and sfq",
			lines: []string{
				root("htb default 20")[0],
				"class add dev DEV parent 1: classid 1:1 htb rate 1mbit burst 1600 cburst 1600",
				"class add dev DEV parent 1:1 classid 1:10 htb rate 400kbit ceil 1mbit burst 1600 cburst 1600 quantum 1514",
				"class add dev DEV parent 1:1 classid 1:20 htb rate 600kbit ceil 1mbit burst 1600 cburst 1600 quantum 1514",
				"qdisc add dev DEV parent 1:10 handle 10: netem delay 33ms",
				"qdisc add dev DEV parent 1:20 handle 20: sfq limit 20",
				"filter add dev DEV parent 1: protocol ip prio 1 u32 match ip dport 1000 0xffff flowid 1:10",
			},
			load: overload,
		},
	}
}

func codels() []trial {
	return []trial{
		{lines: below("codel"), load: long},
		{lines: below("codel target 20ms interval 200ms"), load: long},
		{lines: below("codel target 20ms interval 200ms ecn"), load: long},
		{lines: below("codel limit 40 ce_threshold 100ms"), load: long},
		{lines: below("fq_codel"), load: long.seeded(1)},
		{lines: below("fq_codel target 20ms interval 200ms quantum 300 noecn"), load: long},
		{lines: below("fq_codel target 20ms interval 200ms ecn"), load: long},
		{lines: below("fq_codel target 10s interval 20s limit 40 drop_batch 4"), load: overload},
		{lines: below("fq_codel target 10s interval 20s ce_threshold 100ms"), load: overload},
		{
			title: "htb with fq_codel and codel",
			lines: []string{
				root("htb default 20")[0],
				"class add dev DEV parent 1: classid 1:1 htb rate 1mbit burst 1600 cburst 1600",
				"class add dev DEV parent 1:1 classid 1:10 htb rate 400kbit ceil 1mbit burst 1600 cburst 1600 quantum 1514",
				"class add dev DEV parent 1:1 classid 1:20 htb rate 600kbit ceil 1mbit burst 1600 cburst 1600 quantum 1514",
				"qdisc add dev DEV parent 1:10 handle 10: fq_codel target 20ms interval 200ms",
				"qdisc add dev DEV parent 1:20 handle 20: codel target 20ms interval 200ms",
				"filter add dev DEV parent 1: protocol ip prio 1 u32 match ip dport 1000 0xffff flowid 1:10",
			},
			load: long.seeded(1),
		},
	}
}

func fqs() []trial {
	fast := overload
	fast.rate *= 10
	return []trial{
		{lines: root("fq maxrate 3mbit"), load: fast},
		{lines: root("fq maxrate 3mbit quantum 1514 initial_quantum 1514"), load: fast},
		{lines: root("fq maxrate 400kbit"), load: load{n: 200, rate: 2 * mbit, sizes: [2]int{64, 400}, flows: 4}},
		{lines: root("fq maxrate 3mbit flow_limit 10 refill_delay 20ms"), load: fast},
		{lines: below("fq"), load: overload},
		{lines: below("fq maxrate 400kbit quantum 1514 limit 60"), load: overload},
		{lines: below("fq ce_threshold 100ms"), load: long.seeded(1)},
	}
}

func netems() []trial {
	few := load{n: 200, rate: 4 * kbit100, group: 4, sizes: [2]int{64, 1514}, flows: 2}
	return []trial{
		{lines: root("netem delay 10ms"), load: few},
		{lines: root("netem delay 50ms limit 5"), load: few},
		{lines: root("netem rate 500kbit"), load: few},
		{lines: root("netem rate 500kbit 20 48 5 limit 30"), load: few},
		{lines: root("netem delay 10ms rate 500kbit"), load: few},
		{lines: root("netem slot 80ms 80ms packets 5"), load: few, late: drift},
		{lines: root("netem delay 30ms slot 80ms 80ms bytes 3000"), load: few, late: drift},
		{lines: root("netem delay 10ms reorder 100% gap 5"), load: few},
		{lines: root("netem delay 10ms duplicate 100%"), load: few, late: 60_000},
		{lines: append(root("netem delay 10ms"), "qdisc add dev DEV parent 1:1 handle 2: tbf rate 500kbit burst 1600 limit 20000"), load: few},
		{lines: below("netem delay 10ms"), load: few},
	}
}

func policers() []trial {
	police := func(text string) []string {
		return append(root("prio"), "filter add dev DEV parent 1: protocol ip prio 1 u32 match u32 0 0 action police "+text+" conform-exceed drop/ok")
	}
	return []trial{
		{lines: police("rate 500kbit burst 5k"), load: groups},
		{lines: police("rate 500kbit burst 20k peakrate 2mbit mtu 1600"), load: groups},
		{lines: police("rate 500kbit burst 20k mtu 800"), load: groups},
		{ // there the kernel does not count the Ethernet header
			lines:  []string{"qdisc add dev DEV ingress", "filter add dev DEV parent ffff: protocol ip prio 1 matchall action police rate 500kbit burst 5k conform-exceed drop"},
			kernel: []string{"filter add dev DEV parent ffff: protocol ip prio 1 matchall action police rate 500kbit burst 5k overhead 14 conform-exceed drop"},
			load:   groups,
		},
	}
}

// named are queues that filters or priorities name.
func named() []trial {
	filter := func(port, queue string) string {
		return "filter add dev DEV parent 2: protocol ip prio 1 u32 match ip dport " + port + " 0xffff flowid 2:" + queue
	}
	return []trial{
		{ // the fourth flow is dropped
			title: "fq_codel limit 40 with filters",
			lines: append(below("fq_codel target 10s interval 20s limit 40"), filter("1000", "1"), filter("1001", "1"), filter("1002", "7")),
			load:  overload,
		},
		{title: "fq_codel, priorities name queues", lines: below("fq_codel target 10s interval 20s"), load: overload.with(0x20001, 0x20001, 0x20009, 0)},
		{
			title: "sfq limit 30 with filters",
			lines: append(below("sfq limit 30"), filter("1000", "1"), filter("1001", "1"), filter("1002", "7")),
			load:  overload,
		},
		{title: "sfq, priorities name queues", lines: below("sfq limit 60"), load: overload.with(0x20001, 0x20001, 0x20009, 0)},
	}
}

// supers are disciplines for super-frames of TCP.
func supers() []trial {
	super := load{n: 200, rate: 90 * mbit, group: 10, sizes: [2]int{100, 11_000}, flows: 3, super: 1448}
	more := super
	more.rate, more.group = 130*mbit, 1
	fast := "qdisc add dev DEV root handle 1: tbf rate 100mbit burst 20000 limit 10000000"
	return []trial{
		{lines: []string{fast}, load: super},
		{lines: root("tbf rate 100mbit burst 5000 limit 10000000"), load: super, late: 60_000},
		{lines: root("tbf rate 100mbit burst 20000 peakrate 200mbit mtu 12000 limit 60000"), load: super},
		{
			title: "htb rate 100mbit",
			lines: append(root("htb default 10"), "class add dev DEV parent 1: classid 1:10 htb rate 100mbit burst 20000 cburst 20000"),
			load:  super,
		},
		{lines: []string{fast, "qdisc add dev DEV parent 1:1 handle 2: bfifo limit 60000"}, load: more},
		{lines: []string{fast, "qdisc add dev DEV parent 1:1 handle 2: sfq limit 10 quantum 9000"}, load: more.seeded(1)},
		{lines: []string{fast, "qdisc add dev DEV parent 1:1 handle 2: fq_codel limit 20"}, load: more},
		{lines: root("fq maxrate 100mbit"), load: more},
		{lines: root("netem rate 100mbit"), load: super},
		{
			title: "police rate 50mbit burst 30k mtu 2000",
			lines: append(root("prio"), "filter add dev DEV parent 1: protocol ip prio 1 u32 match u32 0 0 action police rate 50mbit burst 30k mtu 2000 conform-exceed drop/ok"),
			load:  super,
		},
	}
}
