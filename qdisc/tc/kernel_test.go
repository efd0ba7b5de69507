// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
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
	if object == "class" {
		return Classes(tree.Report(0), c.View())
	}
	return Qdiscs(tree.Report(0), c.View())
}

// normal leaves out what cannot be the same: the references, the order,
// and tokens, which the kernel counts in ticks of whole microseconds.
func normal(text string) []string {
	text = regexp.MustCompile(`refcnt"?[: ]\d+`).ReplaceAllString(text, "refcnt")
	text = regexp.MustCompile(`tokens: -?\d+`).ReplaceAllString(text, "tokens")
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
