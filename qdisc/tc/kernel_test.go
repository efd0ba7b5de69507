// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/qdisc"
)

// cases are commands for disciplines that nearly every kernel has.
var cases = [][]string{
	{"qdisc add dev DEV root handle 1: tbf rate 1mbit burst 10k latency 50ms"},
	{"qdisc add dev DEV root handle 1: tbf rate 10mbit burst 20k limit 100k peakrate 20mbit mtu 2000 overhead 14 mpu 64"},
	{"qdisc add dev DEV root handle 1: tbf rate 3gbit burst 1m limit 300000"},
	{"qdisc add dev DEV root handle 1: pfifo limit 50"},
	{"qdisc add dev DEV root handle 1: pfifo"},
	{"qdisc add dev DEV root handle 1: bfifo limit 10k"},
	{"qdisc add dev DEV root handle 1: pfifo_fast"},
	{
		"qdisc add dev DEV root handle 1: htb default 30 r2q 20",
		"class add dev DEV parent 1: classid 1:1 htb rate 100mbit burst 100k cburst 64k",
		"class add dev DEV parent 1:1 classid 1:10 htb rate 30mbit ceil 100mbit burst 15k cburst 20k prio 2 quantum 3000",
		"class add dev DEV parent 1:1 classid 1:30 htb rate 70mbit ceil 100mbit burst 1600 cburst 7000 overhead 8 mpu 64",
		"qdisc add dev DEV parent 1:10 handle 10: pfifo limit 77",
		"qdisc add dev DEV parent 1:30 handle 30: tbf rate 5mbit burst 5k latency 20ms",
	},
	{"qdisc add dev DEV ingress"},
}

// more are commands for disciplines that a kernel may lack. What one says that has them
// all is in testdata; `make oracle-qdisc` records it anew.
var more = [][]string{
	{"qdisc add dev DEV root handle 1: prio"},
	{"qdisc add dev DEV root handle 1: prio bands 4 priomap 3 2 1 0 0 1 2 3 3 2 1 0 0 1 2 3", "qdisc add dev DEV parent 1:2 handle 20: sfq"},
	{"qdisc add dev DEV root handle 1: codel"},
	{"qdisc add dev DEV root handle 1: codel limit 500 target 3ms interval 40ms ecn ce_threshold 1ms"},
	{"qdisc add dev DEV root handle 1: fq_codel"},
	{"qdisc add dev DEV root handle 1: fq_codel limit 2000 flows 64 target 2ms interval 20ms quantum 300 noecn memory_limit 1mb drop_batch 8"},
	{"qdisc add dev DEV root handle 1: fq_codel ce_threshold 2ms"},
	{"qdisc add dev DEV root handle 1: fq"},
	{"qdisc add dev DEV root handle 1: fq limit 500 flow_limit 20 quantum 2000 initial_quantum 9000 maxrate 10mbit"},
	{"qdisc add dev DEV root handle 1: fq nopacing buckets 128 refill_delay 10ms low_rate_threshold 100kbit"},
	{"qdisc add dev DEV root handle 1: sfq perturb 10"},
	{"qdisc add dev DEV root handle 1: sfq limit 300 depth 40 divisor 256 quantum 3000"},
	{"qdisc add dev DEV root handle 1: sfq depth 20 headdrop"},
	{"qdisc add dev DEV root handle 1: drr", "class add dev DEV parent 1: classid 1:1 drr quantum 600", "class add dev DEV parent 1: classid 1:2 drr"},
	{"qdisc add dev DEV root handle 1: netem delay 10ms"},
	{"qdisc add dev DEV root handle 1: netem limit 50 delay 100ms 20ms 30% loss 1% 25% duplicate 2% 10% reorder 20% 50% gap 5 corrupt 0.1%"},
	{"qdisc add dev DEV root handle 1: netem loss state 1% 10% 70% 5% 1%"},
	{"qdisc add dev DEV root handle 1: netem loss gemodel 1% 10% 70% 0.1%"},
	{"qdisc add dev DEV root handle 1: netem loss gemodel 2% 20% ecn"},
	{"qdisc add dev DEV root handle 1: netem rate 5mbit 20 100 5"},
	{"qdisc add dev DEV root handle 1: netem slot 800us 1ms packets 10 bytes 20000"},
	{"qdisc add dev DEV root handle 1: netem delay 20ms 5ms distribution normal"},
	{
		"qdisc add dev DEV root handle 1: htb default 20",
		"class add dev DEV parent 1: classid 1:10 htb rate 10mbit burst 10k cburst 10k",
		"class add dev DEV parent 1: classid 1:20 htb rate 20mbit ceil 40mbit burst 15k cburst 20k",
		"qdisc add dev DEV parent 1:10 handle 10: fq_codel",
		"qdisc add dev DEV parent 1:20 handle 20: netem delay 5ms",
		"filter add dev DEV parent 1: protocol ip prio 1 u32 match ip dport 80 0xffff flowid 1:10",
		"filter add dev DEV parent 1: protocol ip prio 2 u32 match ip src 10.1.2.0/24 match ip protocol 17 0xff flowid 1:20",
		"filter add dev DEV parent 1: protocol all prio 3 handle 7 fw classid 1:10",
		"filter add dev DEV parent 1: protocol ip prio 4 flower ip_proto tcp dst_ip 10.2.0.0/16 dst_port 443 classid 1:20",
		"filter add dev DEV parent 1: protocol ipv6 prio 5 flower src_ip fd00::/64 ip_proto udp classid 1:10",
		"filter add dev DEV parent 1: protocol all prio 6 matchall classid 1:20",
		"filter add dev DEV parent 1: protocol ip prio 7 u32 match u32 0 0 action police rate 1mbit burst 10k conform-exceed drop/pipe",
	},
	{
		"qdisc add dev DEV root handle 1: prio",
		"filter add dev DEV parent 1: protocol ip prio 1 flower dst_mac 02:00:00:00:00:01 action skbedit priority 1:2",
		"filter add dev DEV parent 1: protocol ip prio 2 matchall action gact drop",
	},
}

// What the installed tc prints of the kernel's disciplines and what we print of ours
// is the same text, and the same JSON.
func TestSameTextAsTC(t *testing.T) {
	if _, err := exec.LookPath("tc"); err != nil || os.Getuid() != 0 {
		t.Skip("needs tc, and root for a network namespace")
	}
	for _, lines := range cases {
		t.Run(lines[0], func(t *testing.T) {
			for _, flags := range []string{"", "-s", "-s -d", "-j", "-j -s -d"} {
				for _, object := range []string{"qdisc", "class"} {
					if object == "class" && strings.Contains(flags, "-j") {
						continue // tc 6.1 prints text there
					}
					want := kernelSays(t, lines, flags, object)
					if diff := cmp.Diff(normal(want), normal(weSay(t, lines, flags, object))); diff != "" {
						t.Errorf("%s %s: %s", object, flags, diff)
					}
				}
			}
		})
	}
}

// recorded is what tc printed once.
type recorded struct {
	Lines         []string
	Flags, Object string
	Text          string
}

// TestRecordTC prints what TestSameTextAsRecorded compares with; it is run in a kernel
// that has all disciplines.
func TestRecordTC(t *testing.T) {
	if os.Getenv("SLUICE_UML") == "" {
		return
	}
	for _, lines := range more {
		for _, flags := range []string{"-s -d", "-j -s -d"} {
			for _, object := range []string{"qdisc", "class", "filter"} {
				if object == "class" && strings.Contains(flags, "-j") {
					continue // tc 6.1 prints text there
				}
				text, err := json.Marshal(recorded{lines, flags, object, kernelSays(t, lines, flags, object)})
				if err != nil {
					t.Fatal(err)
				}
				fmt.Printf("REC %s\n", text)
			}
		}
	}
}

// TestSameTextAsRecorded is TestSameTextAsTC for disciplines that this kernel may lack.
func TestSameTextAsRecorded(t *testing.T) {
	text, err := os.ReadFile("testdata/tc.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var r recorded
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		t.Run(r.Lines[len(r.Lines)-1]+" "+r.Object, func(t *testing.T) {
			if diff := cmp.Diff(normal(r.Text), normal(weSay(t, r.Lines, r.Flags, r.Object))); diff != "" {
				t.Errorf("%s: %s", r.Flags, diff)
			}
		})
	}
}

func kernelSays(t *testing.T, lines []string, flags, object string) string {
	t.Helper()
	script := "set -e; ip link add q0 numtxqueues 1 type veth peer name q1\n"
	for _, line := range lines {
		script += "tc " + strings.ReplaceAll(line, "DEV", "q0") + "\n"
	}
	script += "tc " + flags + " " + object + " show dev q0 "
	if strings.HasSuffix(lines[0], "ingress") {
		script += "ingress"
	}
	cmd := exec.Command("unshare", "-n", "sh", "-c", script)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("this kernel does not have it: %v", err)
	}
	return string(out)
}

func weSay(t *testing.T, lines []string, flags, object string) string {
	t.Helper()
	s := spec(t, lines...)
	tree := qdisc.NewTree(qdisc.NewPool(qdisc.Limits{}), 1)
	if err := tree.Apply(s, 0); err != nil {
		t.Fatal(err)
	}
	c, err := Parse(strings.Fields(flags + " " + object + " show"))
	if err != nil {
		t.Fatal(err)
	}
	switch object {
	case "class":
		return Classes(tree.Report(0), c.View())
	case "filter":
		return Filters(tree.Filters(), c.View())
	}
	return Qdiscs(tree.Report(0), c.View())
}

// unlike is what the kernel says and we can't: how long an action has been there, and how
// often rules of u32 were tried.
func unlike() *regexp.Regexp {
	return regexp.MustCompile(` +installed \d+ sec used \d+ sec|"installed":\d+,"last_used":\d+,| \(rule hit \d+ success \d+\)| \(success \d+ \) |"rule_hit":\d+,"success":\d+,|,"success":\d+`)
}

// normal leaves out what cannot be the same: the references, the order,
// and tokens, which the kernel counts in ticks of whole microseconds.
func normal(text string) []string {
	text = regexp.MustCompile(`refcnt"?[: ]\d+`).ReplaceAllString(text, "refcnt")
	text = regexp.MustCompile(`tokens: -?\d+`).ReplaceAllString(text, "tokens")
	text = unlike().ReplaceAllString(text, "")
	text = regexp.MustCompile(`\d+\.\d{5,}`).ReplaceAllStringFunc(text, func(x string) string {
		f, _ := strconv.ParseFloat(x, 64)
		return strconv.FormatFloat(math.Round(f*1e5)/1e5, 'f', -1, 64)
	})
	// CoDel's clock there has ticks of 1,024 ns.
	text = regexp.MustCompile(`("target":|"interval":|"ce_threshold":|ce_threshold )(\d*999)(us)?`).ReplaceAllStringFunc(text, func(x string) string {
		at := strings.IndexAny(x, "0123456789")
		n, _ := strconv.Atoi(strings.TrimSuffix(x[at:], "us"))
		if strings.HasSuffix(x, "us") {
			return x[:at] + fmt.Sprintf("%dms", (n+1)/1000)
		}
		return x[:at] + strconv.Itoa(n+1)
	})
	// What tc 6.1 prints of fw there is no JSON.
	text = regexp.MustCompile(`\{handle (0x\d+) classid ([\d:]+) \}`).ReplaceAllString(text, `{"mark":"$1","classid":"$2"}`)
	text = strings.NewReplacer("[{", "{", "}]\n", "},\n").Replace(text)
	blocks := regexp.MustCompile(`(?m)^(class|qdisc) |\{"kind"`).Split(text, -1)
	out := make([]string, 0, len(blocks))
	for _, b := range blocks {
		if b = strings.TrimRight(b, ",\n"); !strings.HasPrefix(b, "tbf 30:1") { // tbf's own class, which we print too
			out = append(out, b)
		}
	}
	slices.Sort(out)
	return out
}
