// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pt "sluice/packet/packettest"
	"sluice/test/lab"
)

// topologies and packets of each host and family that a run compares, unless
// SLUICE_TOPOLOGIES says otherwise.
const (
	topologies = 2
	probes     = addresses * 4
)

// TestTopologies sends the same packets through Sluice and through routers of the
// kernel in random topologies, and compares what every host is sent, packet for
// packet: what is forwarded, and every ICMP error with what it quotes.
func TestTopologies(t *testing.T) {
	count, seed := topologies, uint64(time.Now().UnixNano())
	if text := os.Getenv("SLUICE_TOPOLOGIES"); text != "" {
		count, _ = strconv.Atoi(text)
	}
	if text := os.Getenv("SLUICE_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	for i := range count {
		s := seed + uint64(i)
		t.Run(fmt.Sprintf("SLUICE_SEED=%d", s), func(t *testing.T) { differsTwice(t, s) })
	}
}

// differsTwice runs a topology once more if something differs: how many errors a
// kernel sends, and what it loses on the way, is partly left to chance.
func differsTwice(t *testing.T, seed uint64) {
	t.Helper()
	var before []string
	for range 2 {
		var diff []string
		t.Run("topology", func(t *testing.T) { diff = differences(t, rand.New(rand.NewPCG(seed, 0))) })
		if len(diff) == 0 {
			return
		}
		if before != nil {
			diff = slices.DeleteFunc(diff, func(s string) bool { return !slices.Contains(before, s) })
		}
		before = diff
	}
	if len(before) > 0 {
		p := randomPlan(rand.New(rand.NewPCG(seed, 0)))
		t.Errorf("%d differences, twice:\n%s\nplan:\n%s\nhosts: %+v", len(before), strings.Join(before[:min(len(before), 60)], "\n"), p.YAML(), p.Hosts)
	}
}

// differences are those between Sluice and the kernel, in lines.
func differences(t *testing.T, r *rand.Rand) (diff []string) {
	t.Helper()
	l := lab.New(t)
	p := randomPlan(r)
	ours := l.Sluice(p)
	theirs := l.Kernel(p, ours)
	packets := make(map[string][][]byte)
	for i := range p.Hosts {
		h := &p.Hosts[i]
		x := prober{rnd: r, plan: p, host: h, gw: pt.HW(ours.Gateway[h.Net]), mtu: p.MTU(h.Net)}
		for range probes {
			packets[h.Name] = append(packets[h.Name], x.next(lab.V4)...)
		}
		x.n = 0
		for range probes {
			packets[h.Name] = append(packets[h.Name], x.next(lab.V6)...)
		}
	}
	for _, w := range []*lab.World{ours, theirs} {
		for _, h := range p.Hosts { // so that everybody is known
			w.Hosts[h.Name].Ping(p.Addr(h.Net, lab.V4, 1))
			w.Hosts[h.Name].Ping(p.Addr(h.Net, lab.V6, 1))
		}
	}
	heard := exchange(ours, theirs, packets)
	for _, h := range p.Hosts {
		diff = append(diff, compare(t, h.Name, heard[0][h.Name], heard[1][h.Name])...)
	}
	return diff
}

// exchange sends the packets in both worlds at the same time, and returns what each
// host of them was sent, without what differs from run to run.
func exchange(ours, theirs *lab.World, packets map[string][][]byte) [2]map[string][]string {
	var recs [2]map[string]*lab.Recording
	var all []*lab.Recording
	var sendings []*lab.Sending
	for i, w := range []*lab.World{ours, theirs} {
		recs[i] = make(map[string]*lab.Recording)
		for name, n := range w.Hosts {
			recs[i][name] = n.Record()
			all = append(all, recs[i][name])
		}
	}
	for _, w := range []*lab.World{ours, theirs} {
		for name, n := range w.Hosts {
			sendings = append(sendings, n.StartSend(packets[name]...))
		}
	}
	for _, s := range sendings {
		s.Wait()
	}
	time.Sleep(3500 * time.Millisecond) // until who is not there is given up
	lab.Settle(300*time.Millisecond, all...)
	var heard [2]map[string][]string
	for i := range recs {
		heard[i] = make(map[string][]string)
		for name, r := range recs[i] {
			heard[i][name] = normalise(r.Stop())
		}
	}
	return heard
}

// compare tells what the one has more often than the other.
func compare(t *testing.T, host string, ours, theirs []string) (diff []string) {
	t.Helper()
	t.Logf("%s: %d packets from Sluice, %d from the kernel", host, len(ours), len(theirs))
	if len(theirs) < 20 {
		t.Errorf("%s: the kernel sent %d packets: nothing was tried", host, len(theirs))
	}
	a, b := surplus(ours, theirs), surplus(theirs, ours)
	for _, s := range a {
		what, digits, _ := strings.Cut(s, " | ")
		i := slices.IndexFunc(b, func(s string) bool { return strings.HasPrefix(s, what+" | ") })
		if i < 0 {
			diff = append(diff, fmt.Sprintf("%s: only Sluice: %s | %.120s", host, what, digits))
			continue
		}
		_, other, _ := strings.Cut(b[i], " | ")
		diff = append(diff, fmt.Sprintf("%s: %s | differs %s", host, what, whereDiffers(digits, other)))
		b = slices.Delete(b, i, i+1)
	}
	for _, s := range b {
		diff = append(diff, fmt.Sprintf("%s: only kernel: %.320s", host, s))
	}
	return diff
}

// surplus are those of a that are not in b, each as often as there are more.
func surplus(a, b []string) (more []string) {
	count := make(map[string]int)
	for _, s := range b {
		count[s]++
	}
	for _, s := range a {
		if count[s]--; count[s] < 0 {
			more = append(more, s)
		}
	}
	slices.Sort(more)
	return more
}

// whereDiffers is the first byte that differs, in hexadecimal digits.
func whereDiffers(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	i &^= 1
	return fmt.Sprintf("in length (%d, %d) or at byte %d: %.16s, the kernel has %.16s", len(a)/2, len(b)/2, i/2, a[i:], b[i:])
}
