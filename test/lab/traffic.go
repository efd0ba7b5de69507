// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sluice/test/traffic/report"
)

// Port is where a container's traffic server listens, TCP and UDP.
const Port = 7000

// Traffic starts the traffic tool inside and waits for it if it is one that
// says when it is ready.
func (n *NS) Traffic(args ...string) *Proc {
	n.lab.t.Helper()
	return n.Start(append([]string{n.lab.Binary("traffic")}, args...)...)
}

// Serve starts the container's traffic server, once.
func (n *NS) Serve() {
	n.lab.t.Helper()
	if n.server == nil {
		n.server = n.Traffic("serve", "-gro", "-port", strconv.Itoa(Port)).Ready()
	}
}

// At is address:port of the container's traffic server.
func (n *NS) At(f Family) string {
	return netip.AddrPortFrom(n.IP(f), Port).String()
}

// Report waits for the end of a run of the traffic tool and reads its report;
// the exit code must be 0.
func Report[R any](p *Proc, long time.Duration) R {
	p.t.Helper()
	r, code := TryReport[R](p, long)
	if code != 0 {
		p.t.Fatalf("%s: exit code %d\n%s", p.name, code, p.Output())
	}
	return r
}

// TryReport is Report for a run that may have found something wrong.
func TryReport[R any](p *Proc, long time.Duration) (R, int) {
	p.t.Helper()
	var report R
	r := p.Wait(long)
	if err := json.Unmarshal([]byte(r.Out), &report); err != nil && r.Code == 0 {
		p.t.Fatalf("%s: %v\n%s%s", p.name, err, r.Out, r.Err)
	}
	return report, r.Code
}

// Stopped interrupts a run of the traffic tool that goes on until then, and reads its
// report.
func Stopped[R any](p *Proc) R {
	p.t.Helper()
	_ = p.cmd.Process.Signal(interrupt)
	return Report[R](p, patience)
}

// TCP moves bytes from one container to another and as many back at the same
// time, and compares the hashes.
func TCP(from, to *NS, f Family, bytes uint64) report.Stream {
	from.lab.t.Helper()
	p := StartTCP(from, to, f, "-bytes", strconv.FormatUint(bytes, 10))
	r := Report[report.Stream](p, 5*time.Minute)
	if !r.OK || r.Sent != bytes || r.Received != bytes {
		from.lab.t.Errorf("TCP %v %s-%s: %+v, want %d bytes each way", f, from.name, to.name, r, bytes)
	}
	return r
}

// StartTCP starts hashed streams both ways; args are flags of `traffic send`.
func StartTCP(from, to *NS, f Family, args ...string) *Proc {
	from.lab.t.Helper()
	to.Serve()
	return from.Traffic(append([]string{"send", "-both", "-to", to.At(f)}, args...)...)
}

// Datagrams says how UDP is sent.
type Datagrams struct {
	Bytes uint64 // in all
	Size  int    // of a datagram; 0: 1400
	GSO   bool   // up to 64 KB a system call, UDP_SEGMENT of udp(7)
	Mixed bool   // any number may come out of turn
}

// UDP moves datagrams from one container to another, and then as many back;
// each carries its number and its hash, and none may be lost. A few may come out
// of turn: the kernel's own queues are one for each core, and a sender that is
// moved to another core passes its own datagrams. A ping comes first, since what
// waits for its neighbour to be found may be overtaken, and even dropped, by the
// sender's own kernel.
func UDP(a, b *NS, f Family, d Datagrams) {
	a.lab.t.Helper()
	a.sendDatagrams(b, f, d)
	b.sendDatagrams(a, f, d)
}

// UDPTo is UDP without the way back: to somebody who could not find it by himself.
func UDPTo(from, to *NS, f Family, d Datagrams) {
	from.lab.t.Helper()
	from.sendDatagrams(to, f, d)
}

func (n *NS) sendDatagrams(to *NS, f Family, d Datagrams) {
	n.lab.t.Helper()
	to.Serve()
	n.Ping(to.IP(f))
	if d.Size == 0 {
		d.Size = 1400
	}
	args := []string{"udp", "-to", to.At(f), "-bytes", strconv.FormatUint(d.Bytes, 10), "-size", strconv.Itoa(d.Size)}
	if d.GSO {
		args = append(args, "-gso")
	}
	r := Report[report.Datagrams](n.Traffic(args...), 2*time.Minute)
	if r.Lost+r.Bad > 0 || !d.Mixed && r.Reordered > r.Sent/100 || r.Bytes < d.Bytes {
		n.lab.t.Errorf("UDP %v %s to %s %+v: %+v", f, n.name, to.name, d, r)
	}
}

// Prober measures round trips between two containers until it is stopped; its
// longest gap between two answers is how long the network stood still.
type Prober struct {
	from, to *NS
	proc     *Proc
}

// Probe starts a UDP ping-pong every millisecond.
func Probe(from, to *NS, f Family) *Prober {
	from.lab.t.Helper()
	to.Serve()
	p := from.Traffic("pingpong", "-udp", "-seconds", "0", "-interval", "1ms", "-to", to.At(f))
	return &Prober{from: from, to: to, proc: p.Ready()}
}

// Stop ends the prober and returns what it saw.
func (p *Prober) Stop() report.RoundTrips {
	p.proc.t.Helper()
	_ = p.proc.cmd.Process.Signal(interrupt)
	r := Report[report.RoundTrips](p.proc, patience)
	if r.Count == 0 {
		p.proc.t.Errorf("prober %s to %s: no answer at all: %+v", p.from.name, p.to.name, r)
	}
	return r
}

// Control is a prober between two containers of its own on a kernel bridge: how
// long it got no answer is how long the machine was busy with something else,
// which a test of Sluice must not be blamed for.
func (l *Lab) Control() *Prober {
	l.t.Helper()
	b := l.Bridge(0)
	from, to := l.NS("control1"), l.NS("control2")
	b.Connect(from)
	b.Connect(to)
	return Probe(from, to, V4)
}

// Capture verifies the checksum of every frame of a container's interface,
// both ways, until it is stopped.
type Capture struct {
	ns   *NS
	proc *Proc
}

// Capture starts; args are flags of `traffic capture`.
func (n *NS) Capture(args ...string) *Capture {
	n.lab.t.Helper()
	p := n.Traffic(append([]string{"capture", "-i", n.ifname}, args...)...)
	return &Capture{ns: n, proc: p.Ready()}
}

// Stop ends the capture and returns what it saw.
func (c *Capture) Stop() report.Capture {
	c.proc.t.Helper()
	_ = c.proc.cmd.Process.Signal(interrupt)
	r, _ := TryReport[report.Capture](c.proc, patience)
	return r
}

// ExpectClean ends the capture; it must have seen frames and no bad one.
func (c *Capture) ExpectClean() report.Capture {
	c.proc.t.Helper()
	r := c.Stop()
	if r.Bad > 0 || r.Frames == 0 || r.Complete+r.Partial == 0 {
		c.proc.t.Errorf("capture in %s: %+v\n%s", c.ns.name, r, c.proc.Output())
	}
	return r
}

// PingAll makes every namespace ping every address of every other, from one
// process each, all at the same time, and returns the longest run. Each sends
// twenty requests a second: all of them ask for everybody's link-layer address
// first, and each such question goes to everybody.
func PingAll(spaces []*NS, long time.Duration) time.Duration {
	t := spaces[0].lab.t
	t.Helper()
	var lines []string
	for _, n := range spaces {
		for _, a := range n.addrs {
			lines = append(lines, a.String())
		}
	}
	l := spaces[0].lab
	file := l.File("targets", strings.Join(lines, "\n"))
	var procs []*Proc
	for _, n := range spaces {
		procs = append(procs, n.Traffic("pingall", "-targets", file, "-timeout", long.String(), "-pace", "50ms", "-again", "3s"))
	}
	var longest float64
	var failed []string
	for i, p := range procs {
		r, code := TryReport[report.Reach](p, long+patience)
		if code != 0 || r.Reached != len(lines) {
			failed = append(failed, fmt.Sprintf("%s reached %d of %d: not %v", spaces[i].name, r.Reached, len(lines), head(r.Missing, 3)))
		}
		longest = max(longest, r.Seconds)
		l.forget(p)
	}
	if len(failed) > 0 {
		l.Evidence()
		t.Errorf("%d of %d did not reach all: %v", len(failed), len(spaces), head(failed, 5))
	}
	return time.Duration(longest * 1e9)
}

func head(list []string, n int) []string { return list[:min(n, len(list))] }
