// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
)

// twoTenants have 30 and 70 of 100 parts of what the node has, and a ceiling each. Their
// bursts are what passes in some 15 ms, by which a worker may be late on a busy machine.
const twoTenants = `node: {tree: [rate 100mbit burst 200kb cburst 200kb]}
namespaces:
  - {name: small, tree: [rate 30mbit ceil 80mbit burst 100kb cburst 100kb]}
  - {name: large, tree: [rate 70mbit ceil 90mbit burst 150kb cburst 150kb]}
networks:
  - {name: small, namespace: small, subnets: [10.71.0.0/24]}
  - {name: large, namespace: large, subnets: [10.72.0.0/24]}
`

// tenant is ten containers of a network, every second one of which gets all that its
// neighbour can send: TCP, or datagrams at many times its part.
type tenant struct {
	name  string
	boxes [10]*lab.NS
	runs  []*lab.Proc
}

// TestTwoTenants: ten containers of each of two tenants are greedy, by TCP and by UDP, and
// all their traffic stays on the node. Each tenant has what it was promised, as long as
// both want it; alone, it has as much as its ceiling; and no container starves.
func TestTwoTenants(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(twoTenants)
	small, large := newTenant(l, "small"), newTenant(l, "large")
	small.flood()
	large.flood()
	time.Sleep(1500 * time.Millisecond)
	inTime(t, "both have what they were promised, and share it fairly", func() bool {
		got := over(t, d, 2*time.Second)
		return got.holds(t, "small", 30e6) && got.holds(t, "large", 70e6) && got.fair(t, small, 30e6) && got.fair(t, large, 70e6)
	})

	large.rest()
	time.Sleep(time.Second)
	inTime(t, "small has its ceiling", func() bool { return over(t, d, 1500*time.Millisecond).holds(t, "small", 80e6) })

	// The guarantee is there again as soon as it is wanted, and both processes may die
	// meanwhile.
	d.KillBoth()
	d.Start()
	large.flood()
	time.Sleep(1500 * time.Millisecond)
	inTime(t, "both have what they were promised again", func() bool {
		got := over(t, d, 2*time.Second)
		return got.holds(t, "small", 30e6) && got.holds(t, "large", 70e6)
	})
	small.rest()
	time.Sleep(time.Second)
	inTime(t, "large has its ceiling", func() bool { return over(t, d, 1500*time.Millisecond).holds(t, "large", 90e6) })
}

func newTenant(l *lab.Lab, name string) *tenant {
	o := &tenant{name: name}
	for i := range o.boxes {
		o.boxes[i] = l.NS(fmt.Sprintf("%s%d", name, i))
		o.boxes[i].Attach("--network", name)
	}
	for i := 1; i < len(o.boxes); i += 2 {
		o.boxes[i].Start("iperf3", "-s")
	}
	for i := 1; i < len(o.boxes); i += 2 {
		l.Eventually("a server", patience, func() bool {
			return o.boxes[i-1].Try("iperf3", "-c", o.boxes[i].IP(lab.V4).String(), "-n", "1").Code == 0
		})
	}
	return o
}

// flood lets the even ones send to the odd ones; the last two do it by UDP.
func (o *tenant) flood() {
	for i := 1; i < len(o.boxes); i += 2 {
		args := []string{"iperf3", "-c", o.boxes[i].IP(lab.V4).String(), "-t", "60"}
		if i > 5 {
			args = append(args, "-u", "-b", "60M", "-l", "1400")
		}
		o.runs = append(o.runs, o.boxes[i-1].Start(args...))
	}
}

func (o *tenant) rest() {
	for _, p := range o.runs {
		p.Kill()
	}
	o.runs = nil
}

// parts are the bits a second that went to namespaces and to containers.
type parts map[string]float64

// over is what goes to each in a time.
func over(t *testing.T, d *lab.Daemon, long time.Duration) parts {
	t.Helper()
	first, began := sent(t, d)
	time.Sleep(long)
	last, ended := sent(t, d)
	for name := range last {
		last[name] = (last[name] - first[name]) / ended.Sub(began).Seconds()
	}
	return last
}

// sent is the bits that went to each so far.
func sent(t *testing.T, d *lab.Daemon) (parts, time.Time) {
	t.Helper()
	var all []api.Share
	r := d.CLI("-j", "tree")
	r.Expect(0)
	out := r.Out
	now := time.Now()
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sum := make(parts)
	for _, s := range all {
		sum[s.Name] = float64(s.Bytes) * 8
	}
	return sum, now
}

// holds reports whether a part is what it has to be, but for 3 %.
func (p parts) holds(t *testing.T, name string, rate float64) bool {
	t.Helper()
	t.Logf("%s has %.2f of %g Mbit/s", name, p[name]/1e6, rate/1e6)
	return math.Abs(p[name]/rate-1) <= 0.03
}

// fair reports whether the containers that get something have the same, but for what the others'
// acknowledgements take; datagrams are no better off than TCP.
func (p parts) fair(t *testing.T, o *tenant, rate float64) bool {
	t.Helper()
	is := true
	for i := 1; i < len(o.boxes); i += 2 {
		name := o.boxes[i].Name()
		t.Logf("%s has %.2f of about %g Mbit/s", name, p[name]/1e6, rate/5e6)
		is = is && math.Abs(p[name]/(rate/5)-1) <= 0.1
	}
	return is
}
