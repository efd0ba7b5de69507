// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/test/lab"
)

// toolsPlan has all that ping and its like can find on a way.
//
//	a -- n0 (1500) --.          .-- n2 (1500) -- c
//	b -- n1 (1400) --+ core === edge
//	     hub on n1   '  (1300)
//	      `- 192.168.8.0/24, fdee:8::/64
func toolsPlan() *lab.Plan {
	return &lab.Plan{
		Spaces: []lab.Space{
			{
				Name: "core",
				Nets: []lab.Net{
					{Name: "n0", Subnets: []string{"10.80.0.0/24", "fd80::/64"}},
					{Name: "n1", Subnets: []string{"10.81.0.0/24", "fd81::/64"}, MTU: 1400},
				},
				Links: []lab.Link{{Name: "to-edge", Peer: "edge", PeerLink: "to-core", Addrs: []string{"10.255.0.0/31", "fdff::1/64"}, MTU: 1300}},
				Routes: []string{
					"10.82.0.0/24 via 10.255.0.1", "fd82::/64 via fdff::2",
					"192.168.8.0/24 via 10.81.0.24", "fdee:8::/64 via fd81::18",
					"unreachable 192.168.9.0/25", "prohibit 192.168.9.128/25", "unreachable fdee:9::/64", "prohibit fdee:a::/64",
				},
			},
			{
				Name:   "edge",
				Nets:   []lab.Net{{Name: "n2", Subnets: []string{"10.82.0.0/24", "fd82::/64"}}},
				Links:  []lab.Link{{Name: "to-core", Peer: "core", PeerLink: "to-edge", Addrs: []string{"10.255.0.1/31", "fdff::2/64"}, MTU: 1300}},
				Routes: []string{"default via 10.255.0.0", "default via fdff::1"},
			},
		},
		Hosts: []lab.Host{
			{Name: "a", Net: "n0", Number: 10},
			{Name: "b", Net: "n1", Number: 11},
			{Name: "c", Net: "n2", Number: 12},
			{Name: "hub", Net: "n1", Number: 24, Behind: []string{"192.168.8.0/24", "fdee:8::/64"}},
		},
	}
}

var times = regexp.MustCompile(` *\d+(\.\d+)? ?ms`)

// tools are what host a runs.
func tools() []string {
	return []string{
		"ping -n -c 2 -l 2 -W 5 10.82.0.12",
		"ping -n -c 2 -l 2 -W 5 fd82::c",
		"ping -n -c 1 -W 5 -t 1 10.82.0.12",
		"ping -n -c 1 -W 5 -t 2 10.82.0.12",
		"ping -n -c 1 -W 5 -t 1 fd82::c",
		"ping -n -c 1 -W 5 -M do -s 1400 10.81.0.11",
		"ping -n -c 1 -W 5 -M do -s 1300 10.82.0.12",
		"ping -n -c 1 -W 5 -M do -s 1300 fd82::c",
		"ping -n -c 1 -W 5 -M dont -s 8000 10.82.0.12",
		"ping -n -c 2 -i 1 -W 5 -s 8000 fd82::c",
		"ping -n -c 1 -W 5 192.168.8.77",
		"ping -n -c 1 -W 5 fdee:8::77",
		"ping -n -c 1 -W 5 192.168.9.1",
		"ping -n -c 1 -W 5 192.168.9.129",
		"ping -n -c 1 -W 5 172.31.0.1",
		"ping -n -c 1 -W 5 fdee:9::1",
		"ping -n -c 1 -W 5 fdee:a::1",
		"ping -n -c 1 -W 5 2001:db8::1",
		"traceroute -n -q 1 -N 1 -w 3 10.82.0.12",
		"traceroute -n -q 1 -N 1 -w 3 -I 10.82.0.12",
		"traceroute -n -q 1 -N 1 -w 3 -T -p 81 10.82.0.12",
		"traceroute -n -q 1 -N 1 -w 3 192.168.8.7",
		"traceroute -n -q 1 -N 1 -w 3 192.168.9.129",
		"traceroute -6 -n -q 1 -N 1 -w 3 fd82::c",
		"traceroute -6 -n -q 1 -N 1 -w 3 -I fdee:8::7",
		"tracepath -n -m 6 10.82.0.12",
		"tracepath -6 -n -m 6 fd82::c",
		"ip route get 10.82.0.12",
		"ip route get fd82::c",
		"mtr -n -r -c 1 -i 0.1 -G 1 -o LSR 10.82.0.12",
		"mtr -6 -n -r -c 1 -i 0.1 -G 1 -o LSR fd82::c",
	}
}

// TestTools runs what people look at networks with in Sluice and behind routers of
// the kernel: but for times, what is printed is the same.
func TestTools(t *testing.T) {
	l := lab.New(t)
	p := toolsPlan()
	for i := range tools() {
		p.Hosts[0].More = append(p.Hosts[0].More, 100+i)
	}
	ours := l.Sluice(p)
	theirs := l.Kernel(p, ours)
	seen := ours.Hosts["a"].Start("tcpdump", "-l", "-n", "-i", "eth0", "icmp or icmp6 or tcp")
	try := func() (printed [2][]string) {
		var done sync.WaitGroup
		for i, w := range []*lab.World{ours, theirs} {
			done.Go(func() { printed[i] = runTools(p, w.Hosts["a"]) })
		}
		done.Wait()
		return printed
	}
	// The kernel loses a packet now and then on a busy machine, or says nothing of one,
	// since its limit of errors is one for all namespaces, and traceroute misses answers. What differs because of that is tried once more; what Sluice loses is
	// not excused.
	first := try()
	answers := seen.Output()
	again := first
	if !slices.Equal(first[0], first[1]) {
		again = try()
	}
	for i, line := range tools() {
		ours, theirs := first[0][i], first[1][i]
		if ours != theirs && (told(theirs) < told(ours) || missed(line, ours, answers, i)) {
			ours, theirs = again[0][i], again[1][i]
		}
		if ours != theirs {
			l.Evidence()
			t.Errorf("%s in Sluice:\n%s\nbehind the kernel:\n%s", line, ours, theirs)
		}
	}
}

// told is how many answers and errors ping(8) has printed.
func told(printed string) int {
	return strings.Count(printed, " bytes from ") + strings.Count(printed, "From ")
}

// missed reports whether a traceroute of tool i has printed nothing of an answer that
// its interface has had. It looks at its socket's queue of errors as long as poll(2)
// tells of an error. When it takes a hop's answer out of the queue just before the
// kernel notes the error at the socket, which it does after it has queued it, the note
// stays, and so does poll's word: no answer behind that hop is read any more. Behind a
// router of the kernel the answer is there before the probe's system call returns.
func missed(line, printed, answers string, i int) bool {
	f := strings.Fields(line)
	answer := regexp.MustCompile(fmt.Sprintf(`%s(\.\d+)? > 10\.80\.0\.%d[.:]`, regexp.QuoteMeta(f[len(f)-1]), 100+i))
	return f[0] == "traceroute" && strings.Contains(printed, "*") && answer.MatchString(answers)
}

// runTools runs each from another address, since routers limit what errors one
// address is sent.
func runTools(p *lab.Plan, a *lab.NS) (printed []string) {
	for i, line := range tools() {
		for _, f := range both() {
			a.Run("ip", "route", "replace", "default", "via", p.Addr("n0", f, 1).String(), "dev", "eth0",
				"src", p.Addr("n0", f, 100+i).String())
		}
		r := a.Try(strings.Fields(line)...)
		text := plainTool(times.ReplaceAllString(r.Out+r.Err, "T"))
		if strings.HasPrefix(line, "tracepath") { // asks a hop again if it was early to look at its queue of errors
			text = strings.Join(slices.Compact(strings.SplitAfter(text, "\n")), "")
		}
		printed = append(printed, strings.ReplaceAll(text, a.Name(), "a")+exitWord(r.Code))
	}
	return printed
}

func exitWord(code int) string {
	if code == 0 {
		return "done"
	}
	return "failed"
}

// plainTool leaves out how long it took: expiry of a route, and the header of mtr.
func plainTool(text string) string {
	var keep []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "Start:") || strings.HasPrefix(line, "HOST:") || strings.HasPrefix(line, "rtt ") {
			continue
		}
		if before, _, ok := strings.Cut(line, " expires "); ok {
			line = before
		}
		keep = append(keep, strings.TrimRight(line, " \n"))
	}
	return strings.Join(keep, "\n")
}
