// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/qdisc"
)

func TestRates(t *testing.T) {
	for word, want := range map[string]uint64{
		"8": 1, "8bit": 1, "1kbit": 125, "1Kibit": 128, "1mbit": 125_000, "1.5mbit": 187_500, "10Gbit": 1_250_000_000,
		"1bps": 1, "1kbps": 1000, "1MBps": 1_000_000, "2tbit": 250_000_000_000, "0": 0,
	} {
		if got, err := rate(word); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", word, got, err, want)
		}
	}
	for _, word := range []string{"", "mbit", "1xbit", "-1mbit", "10%", "1 mbit", "1", "9999999999tbit", "NaN", "Inf"} {
		if got, err := rate(word); err == nil {
			t.Errorf("%q was read as %d", word, got)
		}
	}
}

func TestSizesAndTimes(t *testing.T) {
	for word, want := range map[string]uint64{"1": 1, "10b": 10, "1k": 1024, "1kb": 1024, "2m": 2 << 20, "8kbit": 1024, "1.5k": 1536} {
		if got, err := size(word); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", word, got, err, want)
		}
	}
	for word, want := range map[string]int64{"50ms": 50e6, "1s": 1e9, "20": 20_000, "1.5msec": 1.5e6, "7us": 7000, "9ns": 9} {
		if got, err := duration(word); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", word, got, err, want)
		}
	}
	for _, word := range []string{"", "5parsec", "-5ms", "1e300s", "99999999s"} {
		if got, err := duration(word); err == nil {
			t.Errorf("%q was read as %d", word, got)
		}
	}
}

func TestTexts(t *testing.T) {
	for n, want := range map[uint64]string{125: "1Kbit", 125_000: "1Mbit", 1_250_000_000: "10Gbit", 187_500: "1500Kbit", 1: "8bit", 123: "984bit"} {
		if got := rateText(n); got != want {
			t.Errorf("rate %d: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0b", 1600: "1600b", 10240: "10Kb", 1 << 20: "1Mb", 32 << 20: "32Mb", 20462: "20462b", 1039: "1Kb"} {
		if got := sizeText(n); got != want {
			t.Errorf("size %d: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{5e6: "5ms", 1e8: "100ms", 63_816_000: "63.8ms", 1e9: "1s", 999_000: "999us"} {
		if got := usText(n); got != want {
			t.Errorf("time %d: %s, want %s", n, got, want)
		}
	}
}

// spec is what a list of commands makes.
func spec(t *testing.T, lines ...string) *qdisc.Spec {
	t.Helper()
	s := &qdisc.Spec{}
	for _, line := range lines {
		c, err := Parse(strings.Fields(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if s, err = c.Apply(s); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return s
}

func TestParameters(t *testing.T) {
	all := qdisc.Percent(1<<32 - 1)
	for line, want := range map[string]qdisc.Qdisc{
		"pfifo limit 50":         {Kind: "pfifo", FIFO: &qdisc.FIFO{Limit: 50}},
		"bfifo limit 10k":        {Kind: "bfifo", FIFO: &qdisc.FIFO{Limit: 10240}},
		"prio bands 4":           {Kind: "prio", Prio: &qdisc.Prio{Bands: 4}},
		"prio priomap 1 2 0 0 1": {Kind: "prio", Prio: &qdisc.Prio{Bands: 3, Map: []uint8{1, 2, 0, 0, 1}}},
		"tbf rate 1mbit burst 10k latency 50ms": {Kind: "tbf", TBF: &qdisc.TBF{
			Rate: qdisc.Rate{Bytes: 125_000}, Burst: 10240, Limit: 16490, Latency: 50e6,
		}},
		"tbf rate 1mbit burst 10k/8 limit 20k peakrate 2mbit minburst 1540 overhead -4 mpu 64 linklayer atm": {Kind: "tbf", TBF: &qdisc.TBF{
			Rate: qdisc.Rate{Bytes: 125_000, Overhead: -4, MPU: 64, ATM: true}, Burst: 10240, Limit: 20480,
			Peak: qdisc.Rate{Bytes: 250_000, Overhead: -4, MPU: 64, ATM: true}, MTU: 1540,
		}},
		"htb default 0x30 r2q 20 direct_qlen 5": {Kind: "htb", HTB: &qdisc.HTB{Default: 0x30, R2Q: 20, DirectFrames: 5}},
		"codel limit 100 target 4ms interval 30ms ecn ce_threshold 3ms": {Kind: "codel", Codel: &qdisc.Codel{
			Limit: 100, Target: 4e6, Interval: 30e6, ECN: true, CEThreshold: 3e6,
		}},
		"fq_codel limit 600 flows 16 quantum 300 noecn memory_limit 4Mb drop_batch 32 ce_threshold 1ms ce_threshold_selector 0x01/0x03": {
			Kind: "fq_codel", FQCodel: &qdisc.FQCodel{Limit: 600, Flows: 16, Quantum: 300, NoECN: true, MemoryLimit: 4 << 20, DropBatch: 32, CEThreshold: 1e6, CESelector: 1, CEMask: 3},
		},
		"fq maxrate 10mbit flow_limit 7 nopacing buckets 512 quantum 3000 initial_quantum 9000 horizon 2s horizon_cap": {
			Kind: "fq", FQ: &qdisc.FQ{MaxRate: 1_250_000, FlowLimit: 7, NoPacing: true, Buckets: 512, Quantum: 3000, InitialQuantum: 9000, Horizon: 2e9, HorizonCap: true},
		},
		"sfq perturb 10 limit 60 quantum 2k divisor 512 depth 20": {Kind: "sfq", SFQ: &qdisc.SFQ{Perturb: 10, Limit: 60, Quantum: 2048, Divisor: 512, Depth: 20}},
		"netem delay 100ms 10ms 100% distribution normal loss 100% 100% duplicate 100% corrupt 100% reorder 100% 100% gap 5 rate 1mbit 20 48 5 limit 77 seed 9 ecn": {
			Kind: "netem", Netem: &qdisc.Netem{
				Delay: 1e8, Jitter: 1e7, DelayCor: all, Distribution: "normal", Loss: all, LossCor: all, Duplicate: all, Corrupt: all, Reorder: all, ReorCor: all,
				Gap: 5, Rate: 125_000, Overhead: 20, CellSize: 48, CellOverhead: 5, Limit: 77, Seed: 9, ECN: true,
			},
		},
		"netem loss gemodel 100%":                {Kind: "netem", Netem: &qdisc.Netem{Gemodel: &qdisc.Gemodel{P: all}}},
		"netem loss gemodel 100% 100% 100% 100%": {Kind: "netem", Netem: &qdisc.Netem{Gemodel: &qdisc.Gemodel{P: all, R: all, K1: all}}},
		"netem loss state 100% 0% 0% 0% 0%":      {Kind: "netem", Netem: &qdisc.Netem{State: &qdisc.State4{P13: all}}},
		"netem slot 1ms 2ms packets 5 bytes 100": {Kind: "netem", Netem: &qdisc.Netem{Slot: &qdisc.Slot{Min: 1e6, Max: 2e6, Packets: 5, Bytes: 100}}},
		"netem slot distribution pareto 1ms 2ms": {Kind: "netem", Netem: &qdisc.Netem{Slot: &qdisc.Slot{Distribution: "pareto", Delay: 1e6, Jitter: 2e6}}},
		"netem delay 5ms reorder 100%":           {Kind: "netem", Netem: &qdisc.Netem{Delay: 5e6, Reorder: all, Gap: 1}},
	} {
		t.Run(line, func(t *testing.T) {
			s := spec(t, "qdisc add dev web root handle 1: "+line)
			want.Handle, want.Parent = 1<<16, qdisc.Root
			if diff := cmp.Diff(want, s.Qdiscs[0]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	s := spec(t,
		"qdisc add dev web root handle 1: htb default 30",
		"class add dev web parent 1: classid 1:1 htb rate 100mbit",
		"class add dev web parent 1:1 classid 1:10 htb rate 30mbit ceil 100mbit burst 15k prio 2 quantum 3000",
		"class add dev web parent 1:1 classid 1:30 htb rate 70mbit ceil 100mbit",
		"qdisc add dev web parent 1:10 fq_codel",
		"qdisc add dev web parent 1:30 handle 30: netem delay 1ms",
		"filter add dev web parent 1: protocol ip prio 1 u32 match ip dst 10.1.2.3/20 match ip dport 80 0xffff flowid 1:10",
		"filter add dev web parent 1: protocol ip prio 2 handle 6/0xff fw classid 1:10",
		"filter add dev web protocol ipv6 flower ip_proto tcp dst_ip fd00::/64 dst_port 80-90 src_mac 02:00:00:00:00:01 classid 1:30",
		"filter add dev web parent 1: matchall action skbedit priority 1:30 mark 7",
	)
	want := []qdisc.Filter{
		{Parent: 1 << 16, Prio: 1, Handle: 0x800, Kind: "u32", Protocol: 0x800, Class: 0x10010, Keys: []qdisc.Key{
			{Value: 0x0a010000, Mask: 0xfffff000, Off: 16}, {Value: 80, Mask: 0xffff, Off: 20},
		}},
		{Parent: 1 << 16, Prio: 2, Handle: 6, Kind: "fw", Protocol: 0x800, Class: 0x10010, Mark: 6, Mask: 0xff, HasMask: true},
		{Parent: 1 << 16, Prio: 49152, Handle: 1, Kind: "flower", Protocol: 0x86dd, Class: 0x10030},
		{Parent: 1 << 16, Prio: 49151, Handle: 1, Kind: "matchall"},
	}
	if diff := cmp.Diff(want, s.Filters, cmpopts.IgnoreFields(qdisc.Filter{}, "Flower", "SetPriority", "SetMark")); diff != "" {
		t.Error(diff)
	}
	if q := s.Qdiscs[1]; q.Handle.String() != "8001:" || q.Parent.String() != "1:10" {
		t.Errorf("fq_codel is %v below %v", q.Handle, q.Parent)
	}
	for _, step := range []struct {
		line                    string
		qdiscs, classes, filter int
	}{
		{"qdisc change dev web handle 30: netem delay 2ms", 3, 3, 4},
		{"qdisc replace dev web parent 1:30 pfifo", 3, 3, 4},
		{"class change dev web classid 1:10 htb rate 20mbit", 3, 3, 4},
		{"class replace dev web parent 1:1 classid 1:40 htb rate 20mbit", 3, 4, 4},
		{"filter del dev web parent 1: prio 1", 3, 4, 3},
		{"filter del dev web parent 1: prio 2 handle 6 fw", 3, 4, 2},
		{"filter del dev web", 3, 4, 0},
		{"class add dev web parent 1:10 classid 1:11 htb rate 1mbit", 2, 5, 0},
		{"class del dev web classid 1:11", 2, 4, 0},
		{"qdisc del dev web parent 1:30", 1, 4, 0},
		{"qdisc replace dev web root handle 2: fq_codel", 1, 0, 0},
		{"qdisc del dev web root", 0, 0, 0},
	} {
		c, err := Parse(strings.Fields(step.line))
		if err != nil {
			t.Fatalf("%s: %v", step.line, err)
		}
		if s, err = c.Apply(s); err != nil {
			t.Fatalf("%s: %v", step.line, err)
		}
		if len(s.Qdiscs) != step.qdiscs || len(s.Classes) != step.classes || len(s.Filters) != step.filter {
			t.Fatalf("%s: %d qdiscs, %d classes, %d filters", step.line, len(s.Qdiscs), len(s.Classes), len(s.Filters))
		}
	}
}

// What a port sends has its own disciplines, of any kind.
func TestFrom(t *testing.T) {
	s := spec(t,
		"qdisc add dev web from root handle 1: htb default 10",
		"class add dev web from parent 1: classid 1:10 htb rate 1mbit",
		"filter add dev web from matchall classid 1:10",
	)
	if s.Qdiscs[0].Parent != qdisc.Root || len(s.Classes) != 1 || s.Filters[0].Parent != 1<<16 {
		t.Errorf("%+v", s)
	}
	c, err := Parse(strings.Fields("qdisc show dev web from"))
	if err != nil || !c.Ingress {
		t.Errorf("%+v, %v", c, err)
	}
}

// Each mistake gives one error that names the field, and changes nothing.
func TestErrors(t *testing.T) {
	base := []string{
		"qdisc add dev web root handle 1: htb default 30",
		"class add dev web parent 1: classid 1:1 htb rate 100mbit",
		"class add dev web parent 1:1 classid 1:10 htb rate 100mbit",
		"filter add dev web parent 1: protocol ip prio 1 handle 5 fw classid 1:10",
	}
	for line, want := range map[string]string{
		"":                                  "object",
		"link show":                         "object",
		"-x qdisc show":                     "option",
		"qdisc frob dev web":                "command",
		"qdisc add root pfifo":              "dev",
		"qdisc add dev web pfifo":           "parent",
		"qdisc add dev web root":            "kind",
		"qdisc add dev web root cake":       `kind: "cake"`,
		"qdisc add dev web root pfifo":      "already",
		"qdisc add dev web parent 1:10 tbf": `"rate"`,
		"qdisc add dev web parent 1:10 tbf rate 1mbit":                                  `"burst"`,
		"qdisc add dev web parent 1:10 tbf rate 1mbit burst 1k":                         `"latency"`,
		"qdisc add dev web parent 1:10 tbf rate 1mbit burst 1k limit 1k latency 1ms":    "not both",
		"qdisc add dev web parent 1:10 tbf rate 1mbit burst 1k limit 1k peakrate 2mbit": `"mtu"`,
		"qdisc add dev web parent 1:10 tbf rate fast":                                   `rate: "fast"`,
		"qdisc add dev web parent 1:10 tbf rate":                                        "rate: a value is missing",
		"qdisc add dev web parent 1:10 pfifo limit -5":                                  "limit",
		"qdisc add dev web parent 1:10 pfifo frobs 5":                                   `what is "frobs"`,
		"qdisc add dev web parent 1:99 pfifo":                                           "no leaf class 1:99",
		"qdisc add dev web parent 1:1 pfifo":                                            "no leaf class 1:1",
		"qdisc add dev web parent 1:10 handle 1: pfifo":                                 "handle",
		"qdisc add dev web parent 1:10 handle 12345: pfifo":                             "handle",
		"qdisc add dev web parent 1:10 netem loss 120%":                                 "loss",
		"qdisc add dev web parent 1:10 netem delay 1ms distribution normal":             "jitter",
		"qdisc add dev web parent 1:10 netem reorder 5%":                                "delay",
		"qdisc add dev web parent 1:10 netem delay 1ms gap 5":                           "gap",
		"qdisc change dev web root pfifo":                                               "kind",
		"qdisc change dev web parent 1:10 pfifo":                                        "no such",
		"qdisc del dev web parent 1:10":                                                 "no such",
		"class add dev web parent 1: classid 1:1 htb rate 1mbit":                        "already",
		"class add dev web parent 1: classid 1: htb rate 1mbit":                         "classid",
		"class add dev web parent 1: classid 2:1 htb rate 1mbit":                        "another qdisc",
		"class add dev web parent 1: classid 1:2 htb ceil 1mbit":                        `"rate"`,
		"class add dev web parent 1: classid 1:2 htb rate 2mbit ceil 1mbit":             "ceil",
		"class add dev web parent 1: classid 1:2 htb rate 2mbit prio 9":                 "prio",
		"class add dev web parent 1:7 classid 1:2 htb rate 2mbit":                       "no class 1:7",
		"class add dev web parent 1: classid 1:2 drr":                                   "kind",
		"class del dev web classid 1:1":                                                 "below it",
		"class del dev web classid 1:10":                                                "filters",
		"filter add dev web parent 3: matchall":                                         "no qdisc 3:",
		"filter add dev web parent 1: bpf":                                              `kind: "bpf"`,
		"filter add dev web parent 1: u32 match ip frob 1 1":                            "match ip frob",
		"filter add dev web parent 1: u32 match u32 1 2 at 3":                           "multiple of 4",
		"filter add dev web parent 1: flower dst_ip 1.2.3":                              "dst_ip",
		"filter add dev web parent 1: flower dst_port 9-1":                              "dst_port",
		"filter add dev web parent 1: matchall action police rate 1mbit":                "burst",
		"filter add dev web parent 1: matchall action mirred":                           "action",
		"filter add dev web parent 1: protocol ipx matchall":                            "protocol",
		"filter add dev web ingress matchall":                                           "no ingress qdisc",
		"filter del dev web parent 1: prio 9":                                           "no such",
	} {
		t.Run(line, func(t *testing.T) {
			s := spec(t, base...)
			before := spec(t, base...)
			c, err := Parse(strings.Fields(line))
			if err == nil {
				_, err = c.Apply(s)
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %q", err, want)
			}
			if diff := cmp.Diff(before, s, cmp.Comparer(func(a, b qdisc.Filter) bool { return a.Prio == b.Prio })); diff != "" {
				t.Error("the spec was changed: ", diff)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{
		"qdisc add dev web root handle 1: htb default 30", "-s -j qdisc show dev web",
		"class add dev web parent 1: classid 1:1 htb rate 100mbit burst 1k/8",
		"filter add dev web parent 1: protocol ip prio 1 u32 match ip dst 10.1.2.3/20 match u16 1 2 at nexthdr+2 flowid 1:10",
		"filter add dev web parent ffff: matchall action police rate 1mbit burst 2k conform-exceed drop/pipe",
		"qdisc add dev web root netem delay 1ms 2ms 3% loss state 1% 2% slot 1ms 2ms packets 3",
		"filter add dev web flower src_mac 1:2:3:4:5:6/ff:0:0:0:0:0 ip_tos 0x4/0xff type 8",
	} {
		f.Add(line)
	}
	f.Fuzz(func(_ *testing.T, line string) {
		c, err := Parse(strings.Fields(line))
		if err != nil {
			return
		}
		s, err := c.Apply(&qdisc.Spec{Qdiscs: []qdisc.Qdisc{{Kind: "prio", Handle: 1 << 16, Parent: qdisc.Root}}})
		if err != nil {
			return
		}
		tree := qdisc.NewTree(qdisc.NewPool(qdisc.Limits{Packets: 4}), 1)
		if tree.Apply(s, 0) == nil && tree.Active() {
			tree.Offer(qdisc.Meta{Len: 100, Wire: 100, Segs: 1}, 0)
			v := c.View()
			Qdiscs(tree.Report(0), v)
			Classes(tree.Report(0), v)
			Filters(tree.Filters(), v)
		}
	})
}

// A filter of a discipline that would never ask it is a mistake.
func TestFiltersOfWhatAsksThem(t *testing.T) {
	for kind, asks := range map[string]bool{
		"prio": true, "htb": true, "drr": true, "fq_codel": true, "sfq": true,
		"codel": false, "fq": false, "pfifo": false, "bfifo": false, "pfifo_fast": false, "netem delay 1ms": false, "tbf rate 1mbit burst 2k limit 10k": false,
	} {
		c, err := Parse(strings.Fields("filter add dev web parent 1: matchall action drop"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Apply(spec(t, "qdisc add dev web root handle 1: "+kind))
		if asks && err != nil || !asks && (err == nil || !strings.Contains(err.Error(), "asks no filters, want prio")) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
