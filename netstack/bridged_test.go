// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// bridgedSites is a namespace that tracks what stays in a network, too.
func bridgedSites(containers int) NamespaceSpec {
	s := sites("lab", site(1, containers), site(2, 2))
	s.Connections = ConnectionsSpec{Track: true, Zone: 7, Bridged: true}
	return s
}

// beside is a packet straight to another station of the network.
func (s party) beside(d party) pt.Packet {
	p := s.to(d)
	p.DstMAC = d.mac()
	return p
}

func TestBridgedIsTracked(t *testing.T) {
	l := stillSites(t, bridgedSites(2))
	carol := party{1, 2}
	hits := l.hits(alice)
	for range 3 {
		l.send(alice.port(), pt.UDP4(alice.beside(carol)))
		pt.Check(t, l.got(carol.port()), pt.EtherSrc(alice.mac()), pt.IPv4(pt.Src(alice.addr4()), pt.TTL(64)), pt.UDP())
		back := carol.beside(alice)
		back.SrcPort, back.DstPort = 2000, 1000
		l.send(carol.port(), pt.UDP4(back))
		pt.Check(t, l.got(alice.port()), pt.EtherSrc(carol.mac()), pt.IPv4(pt.TTL(64)), pt.UDP())
	}
	if n := hits(); n != 2 {
		t.Errorf("%d hits, want 2", n)
	}
	c, n := l.n.Connections(), 0
	c.Table().Entries(nil, c.Now(), func(e *conntrack.Entry) bool {
		if n++; e.Packets != [2]uint64{3, 3} || e.Port != alice.port() {
			t.Errorf("%+v", e)
		}
		return true
	})
	if n != 1 {
		t.Errorf("%d connections", n)
	}
	l.snap.Namespaces[0].Connections.Bridged = false
	l.apply()
	p := alice.beside(carol)
	p.SrcPort = 1001
	l.send(alice.port(), pt.UDP4(p))
	pt.Check(t, l.got(carol.port()), pt.UDP())
	if n := c.Table().Len(); n != 1 {
		t.Errorf("%d connections, when it is off", n)
	}
}

// TestBridgedDestination: what gets another one is routed there, within the network too,
// and its answers come by the bridge.
func TestBridgedDestination(t *testing.T) {
	s := bridgedSites(3)
	carol, dave := party{1, 2}, party{1, 3}
	rule := publish(8080, dave.addr4(), 80)
	rule.Match.Own, rule.Match.Dst = nat.Either, []netip.Prefix{netip.PrefixFrom(carol.addr4(), 32)}
	s.Connections.Rules = []nat.Rule{rule}
	l := stillSites(t, s)
	p := alice.beside(carol)
	p.DstPort = 8080
	for range 2 {
		l.send(alice.port(), pt.UDP4(p))
		l.arrived(dave, pt.IPv4(pt.Src(alice.addr4()), pt.Dst(dave.addr4()), pt.TTL(63)), pt.UDP(pt.DstPort(80)))
		back := dave.beside(alice)
		back.SrcPort, back.DstPort = 80, 1000
		l.send(dave.port(), pt.UDP4(back))
		pt.Check(t, l.got(alice.port()), pt.EtherSrc(dave.mac()), pt.IPv4(pt.Src(carol.addr4()), pt.TTL(64)), pt.UDP(pt.SrcPort(8080), pt.DstPort(1000)))
	}
	l.silent(11, 12, 13)
}

// TestBridgedFragments are tracked with their flow, whichever comes first, and stay on
// the bridge.
func TestBridgedFragments(t *testing.T) {
	l := stillSites(t, bridgedSites(2))
	carol, udp := party{1, 2}, uint8(packet.ProtoUDP)
	whole := pt.UDP4(func() pt.Packet { p := alice.beside(carol); p.Payload = pt.Bytes(2000); return p }())[34:]
	piece := func(from, to int) []byte {
		return pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: carol.mac()},
			pt.IPv4Hdr{Src: alice.addr4(), Dst: carol.addr4(), ID: 7, Offset: uint16(from), MF: to < len(whole), Proto: &udp}, pt.Payload(whole[from:to]))
	}
	l.send(alice.port(), piece(1200, len(whole)))
	l.send(alice.port(), piece(0, 1200))
	l.round()
	var all [2008]byte
	for range 2 {
		f := l.got(carol.port())
		pt.Check(t, f, pt.EtherSrc(alice.mac()), pt.EtherDst(carol.mac()), pt.IPv4(pt.TTL(64)))
		fr, _ := f.View.Fragment(f.Bytes())
		copy(all[fr.Offset:], f.Bytes()[f.View.L4:f.View.End])
	}
	if !bytes.Equal(all[:], whole) || l.n.Connections().Table().Len() != 1 {
		t.Errorf("%d connections", l.n.Connections().Table().Len())
	}
}

func TestBridgedHitAllocatesNothing(t *testing.T) {
	l := stillSites(t, bridgedSites(2))
	l.hitsAllocateNothing(t, alice, pt.Frame(pt.UDP4(alice.beside(party{1, 2}))))
}

// witness is a filter that notes what it is asked, and drops at one hook.
type witness struct {
	mu   sync.Mutex
	saw  []string
	drop func(at hook, p *hooked) trace.Reason
}

func (w *witness) judge(at hook, p *hooked) trace.Reason {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := [...]string{"prerouting", "input", "forward", "output", "postrouting"}[at]
	w.saw = append(w.saw, fmt.Sprintf("%s %d-%d %v %v %v:%d>%v:%d", name, p.in, p.out, p.state, p.dir,
		p.frame.View.SrcAddr(p.frame.Bytes()), p.frame.View.SrcPort, p.frame.View.DstAddr(p.frame.Bytes()), p.frame.View.DstPort))
	if w.drop != nil {
		return w.drop(at, p)
	}
	return trace.None
}

func (w *witness) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := strings.Join(w.saw, "\n")
	w.saw = nil
	return out
}

// TestHooks are asked in netfilter's order, about the packet as it is there; the packets
// of a remembered flow pass none.
func TestHooks(t *testing.T) {
	s := translating(2)
	s.Connections.Bridged = true
	l := stillSites(t, s)
	w := new(witness)
	for _, space := range l.n.view.Load().spaces {
		space.filter = w
	}
	want := func(lines ...string) {
		t.Helper()
		if got := w.take(); got != strings.Join(lines, "\n") {
			t.Errorf("asked\n%s\nwant\n%s", got, strings.Join(lines, "\n"))
		}
	}
	in := bob.to(alice)
	in.Dst, in.DstPort = gate(2).addr4(), 8080
	for range 2 {
		l.send(bob.port(), pt.UDP4(in))
		l.arrived(alice, pt.UDP(pt.DstPort(80)))
	}
	want("prerouting 20-0 new original 10.44.2.11:1000>10.44.2.1:8080", "forward 20-10 new original 10.44.2.11:1000>10.44.1.11:80",
		"postrouting 20-10 new original 10.44.2.11:1000>10.44.1.11:80")
	back := alice.to(bob)
	back.SrcPort, back.DstPort = 80, 1000
	l.send(alice.port(), pt.UDP4(back))
	l.arrived(bob, pt.UDP(pt.SrcPort(8080)))
	want("prerouting 10-0 established reply 10.44.1.11:80>10.44.2.11:1000", "forward 10-20 established reply 10.44.1.11:80>10.44.2.11:1000",
		"postrouting 10-20 established reply 10.44.1.11:80>10.44.2.11:1000")
	l.send(alice.port(), pt.UDP4(alice.beside(party{1, 2})))
	l.got(12)
	want("prerouting 10-0 new original 10.44.1.11:1000>10.44.1.12:2000", "forward 10-10 new original 10.44.1.11:1000>10.44.1.12:2000",
		"postrouting 10-10 new original 10.44.1.11:1000>10.44.1.12:2000")
	p := alice.to(bob)
	p.Dst = gate(1).addr4()
	l.send(alice.port(), pt.Ping4(p))
	l.round()
	l.got(alice.port())
	got := strings.Split(w.take(), "\n")
	if names := fmt.Sprint(func() (out []string) {
		for _, line := range got {
			name, _, _ := strings.Cut(line, " ")
			out = append(out, name)
		}
		return out
	}()); names != "[prerouting input output postrouting]" {
		t.Errorf("a ping of the gateway: %v", got)
	}
	// What is of no connection passes too, and may be dropped.
	w.drop = func(at hook, p *hooked) trace.Reason {
		if at == hookForward && p.state == conntrack.Invalid {
			return trace.CTInvalid
		}
		return trace.None
	}
	rst := alice.to(bob)
	rst.Flags = pt.RST
	l.send(alice.port(), pt.TCP4(rst))
	l.silent(21, 22)
	if saw := strings.Split(w.take(), "\n"); len(saw) != 2 || !strings.HasPrefix(saw[1], "forward 10-20 invalid") {
		t.Errorf("%q", saw)
	}
	// A filter that wants to be asked about each packet.
	w.drop = func(_ hook, p *hooked) trace.Reason { p.keep = false; return trace.None }
	other := alice.to(bob)
	other.SrcPort = 7
	for range 3 {
		l.send(alice.port(), pt.UDP4(other))
		l.arrived(bob, pt.UDP())
	}
	if n := len(slices.Collect(strings.SplitSeq(w.take(), "\n"))); n != 9 {
		t.Errorf("asked %d times, want 9", n)
	}
}
