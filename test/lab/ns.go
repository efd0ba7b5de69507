// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sluice/api"
)

// NS is a container: a network namespace under /run/netns, as `ip netns add`
// makes it.
type NS struct {
	lab    *Lab
	name   string // as the test calls it
	full   string // as ip(8) calls it
	gone   bool
	server *Proc // traffic serve, when there is one

	// What it was attached with.
	ifname string
	mac    string
	addrs  []netip.Addr
}

// NS makes a namespace. Its loopback is up.
func (l *Lab) NS(name string) *NS {
	l.t.Helper()
	n := &NS{lab: l, name: name, full: l.id + "-" + name, ifname: "eth0"}
	l.Run("ip", "netns", "add", n.full)
	l.spaces = append(l.spaces, n)
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

// Lab is the namespace's lab.
func (n *NS) Lab() *Lab { return n.lab }

// Name is the namespace's name for ip(8) and for sluice(8).
func (n *NS) Name() string { return n.full }

// Path is the file that keeps the namespace.
func (n *NS) Path() string { return "/run/netns/" + n.full }

// If is the name of its interface, eth0 unless it was attached otherwise.
func (n *NS) If() string { return n.ifname }

// MAC is the address of its interface.
func (n *NS) MAC() string { return n.mac }

// IP is its address of a family; the zero address if it has none.
func (n *NS) IP(f Family) netip.Addr {
	for _, a := range n.addrs {
		if a.Is4() == (f == V4) {
			return a
		}
	}
	return netip.Addr{}
}

// Delete removes the namespace, as `ip netns del` does. It is idempotent.
func (n *NS) Delete() {
	n.lab.t.Helper()
	if n.gone {
		return
	}
	n.gone = true
	n.lab.Run("ip", "netns", "del", n.full)
}

// inside is the command line that runs a command in the namespace: nsenter
// replaces itself by the command, whose process id is therefore known.
func (n *NS) inside(args []string) []string {
	return append([]string{"nsenter", "--net=" + n.Path(), "--"}, args...)
}

// Run runs a command inside, which must succeed, and returns what it printed.
func (n *NS) Run(args ...string) string {
	n.lab.t.Helper()
	return n.Try(args...).ok()
}

// Try runs a command inside that may fail.
func (n *NS) Try(args ...string) Result {
	n.lab.t.Helper()
	return n.lab.run(n.inside(args)...)
}

// Start starts a command inside in the background.
func (n *NS) Start(args ...string) *Proc {
	n.lab.t.Helper()
	return n.lab.Start(n.inside(args)...)
}

// Attach attaches the namespace with sluice(8); args are flags of `sluice attach`.
func (n *NS) Attach(args ...string) *NS {
	n.lab.t.Helper()
	var reply api.AttachReply
	out := n.TryAttach(append(args, "-o", "json")...).ok()
	if err := json.Unmarshal([]byte(out), &reply); err != nil {
		n.lab.t.Fatalf("attach %s: %v in %s", n.full, err, out)
	}
	n.ifname, n.mac = reply.IfName, reply.MAC
	for _, p := range reply.Addresses {
		n.addrs = append(n.addrs, p.Addr())
	}
	return n
}

// TryAttach is Attach that may fail.
func (n *NS) TryAttach(args ...string) Result {
	n.lab.t.Helper()
	return n.lab.daemon.CLI(append([]string{"attach", n.full}, args...)...)
}

// Detach takes the interface away again.
func (n *NS) Detach() {
	n.lab.t.Helper()
	n.lab.daemon.CLI("detach", n.full).ok()
	n.addrs = nil
}

// Ping sends three ICMP echo requests, all of which must be answered.
func (n *NS) Ping(to netip.Addr) {
	n.lab.t.Helper()
	n.PingBy(3, to, "-i", "0.05")
}

// PingBy is Ping with a number of requests and more options of ping(8).
func (n *NS) PingBy(count int, to netip.Addr, options ...string) Result {
	n.lab.t.Helper()
	return n.StartPing(count, to, options...).Answered()
}

// Pinging is a ping(8) under way.
type Pinging struct {
	lab   *Lab
	proc  *Proc
	count int
}

// StartPing is PingBy in the background. Once there was any answer, ping(8) waits for the
// last one no longer than for an interval or two round trips, which a busy machine may
// need, unless it has a deadline: then it goes on until so many have been answered, and
// sends more meanwhile.
func (n *NS) StartPing(count int, to netip.Addr, options ...string) *Pinging {
	n.lab.t.Helper()
	args := append([]string{"ping", "-n", "-c", strconv.Itoa(count), "-w", "20"}, options...)
	return &Pinging{n.lab, n.Start(append(args, to.String())...), count}
}

// Answered waits for the end of it; as many requests as were asked for, from the first
// one on, must have been answered.
func (p *Pinging) Answered() Result {
	p.proc.t.Helper()
	r := p.proc.Wait(patience).Expect(0)
	p.lab.forget(p.proc)
	var missing []string
	for i := range p.count {
		if one := fmt.Sprintf(" icmp_seq=%d ttl=", i+1); !strings.Contains(r.Out, one) {
			missing = append(missing, strconv.Itoa(i+1))
		}
	}
	if len(missing) > 0 {
		p.proc.t.Errorf("%s: no answer to %s of %d\n%s%s", r.Command, strings.Join(missing, ", "), p.count, r.Out, r.Err)
	}
	return r
}

// TryPing sends count requests.
func (n *NS) TryPing(to netip.Addr, count int) Result {
	n.lab.t.Helper()
	return n.Try("ping", "-n", "-c", strconv.Itoa(count), "-i", "0.05", "-W", "2", to.String())
}

// NoPing sends one request, which must not be answered.
func (n *NS) NoPing(to netip.Addr) {
	n.lab.t.Helper()
	if r := n.Try("ping", "-n", "-c", "1", "-W", "0.4", to.String()); r.Code == 0 {
		n.lab.t.Errorf("%s: %v answers and should not", n.name, to)
	}
}

// TryPingFrom sends count requests from another interface or address.
func (n *NS) TryPingFrom(from string, to netip.Addr, count int) Result {
	n.lab.t.Helper()
	return n.Try("ping", "-n", "-c", strconv.Itoa(count), "-i", "0.05", "-W", "0.5", "-I", from, to.String())
}

// Offload switches the offloads of the interface inside the container, as
// `ethtool -K` does: segmentation, receive merging and checksums.
func (n *NS) Offload(on bool) {
	n.lab.t.Helper()
	word := map[bool]string{true: "on", false: "off"}[on]
	args := []string{"ethtool", "-K", n.ifname}
	for f := range strings.FieldsSeq("rx tx sg tso gso gro") {
		args = append(args, f, word)
	}
	n.Run(args...)
}

// Neighbour makes the address of another container permanent in this one's
// neighbour table, so that nobody can pretend to be it.
func (n *NS) Neighbour(other *NS) {
	n.lab.t.Helper()
	for _, a := range other.addrs {
		n.Run("ip", "neigh", "replace", a.String(), "lladdr", other.mac, "dev", n.ifname, "nud", "permanent")
	}
}
