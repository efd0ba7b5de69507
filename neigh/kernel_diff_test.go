// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

// jiffy is more than the kernel's unit of time, in which ARP's lock time of zero
// ends.
const jiffy = 15 * time.Millisecond

// rivals are our table and the kernel's, which hear the same. Time stands still for
// both, but for the lock time of ARP: ours ends with each step.
type rivals struct {
	t   *testing.T
	k   *kernelHost
	x   *Table
	now Tick
}

// begin puts a neighbour that neither knows into a state, in both.
func (r *rivals) begin(a netip.Addr, s State, mac packet.MAC, lines []string) []string {
	nud := func(word string) []string {
		return append(lines, fmt.Sprintf("neigh replace %v lladdr %v dev slt-n0 nud %s", a, mac, word))
	}
	switch s {
	case Reachable, Stale, Probe, Permanent:
		lines = nud(s.String())
	case Delay: // the kernel would not let it wait: see use
		lines = nud("stale")
	case Failed:
		lines = append(lines, fmt.Sprintf("neigh replace %v dev slt-n0 nud failed", a))
	}
	switch s {
	case Permanent, None:
	case Incomplete:
		r.x.Resolve(dev, a, ping(1, 1), r.now, &tape{})
	default:
		put(r.x, a, s, mac, r.now)
	}
	return lines
}

// use makes the kernel use those neighbours that need it to be in their state.
func (r *rivals) use(addr func(int) netip.Addr) {
	for n, s := range start {
		if s == Incomplete || s == Delay {
			r.k.use(addr(n))
		}
	}
}

// differ is what the two know differently.
func (r *rivals) differ(what string, theirs map[netip.Addr]Entry) string {
	r.t.Helper()
	ours := map[netip.Addr]Entry{}
	for _, e := range r.x.Entries(nil, r.now) {
		ours[e.Addr] = Entry{Addr: e.Addr, MAC: e.MAC, State: e.State, Router: e.Router}
	}
	diff := cmp.Diff(theirs, ours, cmp.Comparer(func(x, y netip.Addr) bool { return x == y }))
	if diff != "" {
		diff = fmt.Sprintf("%s (-kernel +table):\n%s", what, diff)
	}
	return diff
}

// collect are the kernel's neighbours; ours forgets what has failed and the kernel has
// forgotten. Its collector comes by in its own time, if all namespaces together have enough
// (gc_thresh1).
func (r *rivals) collect() (theirs map[netip.Addr]Entry) {
	r.t.Helper()
	theirs = r.k.neighbours()
	for _, e := range r.x.Entries(nil, r.now) {
		if _, known := theirs[e.Addr]; !known && e.State == Failed {
			r.x.Flush(dev, e.Addr)
		}
	}
	return theirs
}

// Each message of the table of outcomes, heard in each state, does the same in the
// kernel. What has failed, its collector may take away at any time, but not each time.
func TestMessagesSayTheSameToTheKernel(t *testing.T) {
	k := newKernelHost(t)
	for _, m := range messages() {
		difference := ""
		for range 10 {
			if difference = k.says(m); difference == "" {
				break
			}
		}
		if difference != "" {
			t.Fatal(difference)
		}
	}
}

// says compares what a message does in each state, to neighbours that are new.
func (k *kernelHost) says(m message) string {
	k.t.Helper()
	defer k.forget()
	r := &rivals{t: k.t, k: k, x: newWorld(Limits{}, Static{dev, m.addr(7), macA(7), false}), now: 100}
	kt.Sysctl(k.t, "ipv4/neigh/slt-n0/locktime=0")
	if m.locked {
		kt.Sysctl(k.t, "ipv4/neigh/slt-n0/locktime=360000")
	}
	var lines []string
	var frames [][]byte
	for n, s := range start {
		lines = r.begin(m.addr(n), s, macA(n), lines)
		frames = append(frames, m.frame(n))
	}
	kt.IP(k.t, lines...)
	r.use(m.addr)
	if difference := r.differ(m.name+", before", k.neighbours()); difference != "" {
		return difference
	}
	time.Sleep(jiffy)
	if !m.locked {
		r.now += 2
	}
	k.hear(frames...)
	for n := range frames {
		r.hear(m, n)
	}
	return r.differ(m.name, k.neighbours())
}

// forget lets the kernel have no neighbours.
func (k *kernelHost) forget() {
	k.t.Helper()
	for range 10 {
		all := k.neighbours()
		if len(all) == 0 {
			return
		}
		var lines []string
		for a := range all {
			lines = append(lines, fmt.Sprintf("neigh del %v dev slt-n0", a))
		}
		lose(lines)
	}
	k.t.Fatal("neighbours are left")
}

// lose deletes neighbours, some of which may have been collected.
func lose(lines []string) {
	_, _ = kt.Try(strings.Join(lines, "\n")+"\n", "ip", "-force", "-batch", "-")
}

// Random messages and packets, of and to several neighbours at once, leave both
// tables the same after each step. The kernel's collector may come by within one, but not
// each time.
func TestSameAsTheKernel(t *testing.T) {
	k, difference := newKernelHost(t), ""
	for range 5 {
		if difference = k.walks(); difference == "" {
			return
		}
	}
	t.Fatal(difference)
}

// walks compares many steps.
func (k *kernelHost) walks() string {
	k.t.Helper()
	defer k.forget()
	const hosts, steps = 12, 100
	r := &rivals{t: k.t, k: k, x: newWorld(Limits{}), now: 100}
	rnd := rand.New(rand.NewPCG(3, 4))
	all := messages()
	for i := range all {
		all[i].locked = false // the step is longer than that
	}
	for step := range steps {
		r.collect()
		var frames [][]byte
		what := ""
		for n := range hosts {
			addr := []netip.Addr{ip4(n), ip6(n)}[n%2]
			if rnd.IntN(4) == 0 {
				what += fmt.Sprintf("%v used; ", addr)
				r.k.use(addr)
				r.packetFor(addr)
				continue
			}
			m := all[rnd.IntN(len(all))]
			for m.v6 != addr.Is6() {
				m = all[rnd.IntN(len(all))]
			}
			what += fmt.Sprintf("%v: %s; ", addr, m.name)
			frames = append(frames, m.frame(n))
			r.hear(m, n)
		}
		r.k.hear(frames...)
		if difference := r.differ(fmt.Sprintf("step %d: %s", step, what), r.collect()); difference != "" {
			return difference
		}
		if step%5 == 4 {
			r.again(rnd, hosts)
		}
		r.now += 2
		time.Sleep(jiffy)
	}
	checkBooks(k.t, r.x)
	return ""
}

// again makes both forget some neighbours, and puts them into a state that messages
// don't lead to.
func (r *rivals) again(rnd *rand.Rand, hosts int) {
	known := r.k.neighbours()
	var del, add []string
	for n := range hosts {
		addr := []netip.Addr{ip4(n), ip6(n)}[n%2]
		if rnd.IntN(2) == 0 {
			continue
		}
		if _, ok := known[addr]; ok {
			del = append(del, fmt.Sprintf("neigh del %v dev slt-n0", addr))
			r.x.Flush(dev, addr)
		}
		add = r.begin(addr, []State{Failed, Probe, Reachable, Stale}[rnd.IntN(4)], macA(n), add)
	}
	lose(del)
	kt.IP(r.t, add...)
}

// hear lets our table hear a message of neighbour n.
func (r *rivals) hear(m message, n int) {
	r.x.Input(dev, parsed(m.frame(n), 3), own, r.now, &tape{})
	if m.answered && r.x.State(dev, m.addr(n)) != None {
		r.packetFor(m.addr(n))
	}
}

// packetFor lets our table have a packet for a neighbour.
func (r *rivals) packetFor(a netip.Addr) {
	if _, _, ok := r.x.Lookup(dev, a, r.now); !ok {
		r.x.Resolve(dev, a, ping(1, 1), r.now, &tape{})
	}
}

// Our questions are the kernel's, byte for byte, and as many: three to everybody
// when nothing is known, three to the neighbour when it was stale and used.
func TestSameQuestionsAsTheKernel(t *testing.T) {
	k := newKernelHost(t)
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, s := range []string{"ucast_solicit=3", "mcast_solicit=3", "retrans_time_ms=50", "delay_first_probe_time=1"} {
			kt.Sysctl(t, family+"/neigh/slt-n0/"+s)
		}
	}
	for n, a := range []netip.Addr{ip4(0), ip6(1)} {
		x, out := newWorld(Limits{}), &tape{}
		h := Held{Frame: pt.Ping4(pt.Packet{Src: own4})}
		if a.Is6() {
			h.Frame = pt.Ping6(pt.Packet{Src: own6})
		}
		k.use(a)
		x.Resolve(dev, a, h, 0, out)
		wait(x, 0, 10, out)
		r := &rivals{t: t, k: k, x: x, now: 10}
		r.compareQuestions(a, out)
		kt.IP(t, fmt.Sprintf("neigh replace %v lladdr %v dev slt-n0 nud stale", a, macA(n)))
		k.use(a)
		x.Flush(dev, a)
		put(x, a, Stale, macA(n), 10)
		x.Lookup(dev, a, 10)
		wait(x, 10, 30, out)
		r.compareQuestions(a, out)
	}
}

// compareQuestions compares what both asked about a neighbour that has failed since.
func (r *rivals) compareQuestions(a netip.Addr, out *tape) {
	r.t.Helper()
	theirs := r.k.questions(a, 3)
	deadline := time.Now().Add(patience)
	failed := func() bool { // or collected since
		s := r.k.neighbours()[a].State
		return s == Failed || s == None
	}
	for !failed() && time.Now().Before(deadline) {
		time.Sleep(jiffy)
	}
	var ours [][]byte
	for _, s := range out.sent {
		ours = append(ours, s.frame)
	}
	out.take()
	if diff := cmp.Diff(theirs, ours); diff != "" {
		r.t.Fatalf("%v (-kernel +table):\n%s", a, diff)
	}
	if s := r.x.State(dev, a); s != Failed || !failed() {
		r.t.Errorf("%v is %v, in the kernel %v", a, s, r.k.neighbours()[a].State)
	}
}
