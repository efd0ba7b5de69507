// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"sluice/bridge"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

func TestSharesAreFair(t *testing.T) {
	s := newShares(90)
	greedy := func(ports ...uint16) (all []int) {
		for again := true; again; {
			again = false
			for _, p := range ports {
				again = s.take(p) || again
			}
		}
		for _, p := range ports {
			all = append(all, s.by[p])
		}
		return all
	}
	if got := greedy(1); got[0] != 45 {
		t.Errorf("one alone has %d of 90 places, want half", got[0])
	}
	if got := greedy(1, 2); got[1] < 22 || got[1] > 23 {
		t.Errorf("a second one has %d of the 45 others, want half", got[1])
	}
	if !s.take(3) {
		t.Error("there is no place for a third")
	}
	for p, n := range map[uint16]int{1: 45, 2: s.by[2], 3: 1} {
		for range n {
			s.put(p)
		}
	}
	if s.free != 90 || len(s.by) != 0 {
		t.Errorf("after all were given back %d are free, and %v has some", s.free, s.by)
	}
}

// knock is a segment without data from container i to a port of the gateway.
func knock(i int, from, to uint16, seq, ack uint32, flags uint8) *packet.Frame {
	f := pt.Frame(pt.Build(
		pt.EtherHdr{Src: mac(i), Dst: gatewayMAC()}, pt.IPv4Hdr{Src: addr4(i), Dst: gateway4()},
		pt.TCPHdr{SrcPort: from, DstPort: to, Seq: seq, Ack: ack, Flags: flags, Window: 1000}))
	f.InPort = uint16(i)
	return f
}

// TestConnectionsAreSharedFairly: a container that only sends SYNs gets half of the
// places; another one can still connect, and what is not needed becomes free.
func TestConnectionsAreSharedFairly(t *testing.T) {
	l := stillLab(t, blue(2))
	ns := l.n.Namespace("blue")
	ln, err := ns.Listen("tcp", "10.44.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	link, got := ns.host.links[0], map[trace.Reason]int{}
	for i := range maxConns {
		got[link.deliver(knock(1, uint16(i+2000), []uint16{80, 81}[i%2], 1, 0, pt.SYN), bridge.Tag{})]++
	}
	if got[trace.None] != maxConns/2 || got[trace.LocalQuota] != maxConns/2 {
		t.Errorf("%v, want %d to pass and as many refused", got, maxConns/2)
	}
	if r := link.deliver(knock(1, 2000, 80, 1, 0, pt.SYN), bridge.Tag{}); r != trace.None {
		t.Errorf("a SYN that is sent again gets %v", r)
	}
	if r := link.deliver(knock(2, 2000, 80, 1, 0, pt.SYN), bridge.Tag{}); r != trace.None {
		t.Errorf("another container gets %v", r)
	}
	// Those to port 81 have no endpoint: nobody listens.
	eventually(t, "the goroutines have taken up all SYNs", func() bool {
		half := 0
		for _, s := range ns.Sockets() {
			if s.State == "SYN-RECV" {
				half++
			}
		}
		return half == maxConns/4+1
	})
	for range graceTicks + 1 {
		link.host.census.count(ns.host.stack)
	}
	if n := link.host.census.size(); n != maxConns/4+1 {
		t.Errorf("%d places are taken, want those of %d endpoints", n, maxConns/4+1)
	}
	ln.Close()
	for range graceTicks + 1 {
		link.host.census.count(ns.host.stack)
	}
	if n := link.host.census.size(); n != 0 {
		t.Errorf("%d places are taken after all endpoints went", n)
	}
}

// TestRefusedConnectionIsCountedAtItsPort and not at the one that it was for.
func TestRefusedConnectionIsCountedAtItsPort(t *testing.T) {
	l := stillLab(t, blue(1))
	c := l.n.Namespace("blue").host.census
	c.mu.Lock()
	c.shares.free = 0
	c.mu.Unlock()
	l.sendFrame(1, knock(1, 2000, 80, 1, 0, pt.SYN))
	l.silent(1)
	if l.drops(1, trace.LocalQuota) != 1 || len(l.stats(hostPort).Drops) != 0 {
		t.Errorf("drops %v and %v", l.stats(1).Drops, l.stats(hostPort).Drops)
	}
}

// connect makes a connection by hand, whose peer then says nothing more.
func (l *lab) connect(i int, from, to uint16) {
	l.t.Helper()
	for range 100 {
		l.sendFrame(uint16(i), knock(i, from, to, 1, 0, pt.SYN))
		for range 100 {
			l.round()
			f := l.got(uint16(i))
			if f == nil {
				time.Sleep(100 * time.Microsecond)
				continue
			}
			h := f.Bytes()[f.View.L4:]
			if f.View.DstPort == from && h[13] == pt.SYN|pt.ACK {
				seq := binary.BigEndian.Uint32(h[4:])
				l.sendFrame(uint16(i), knock(i, from, to, 2, seq+1, pt.ACK))
				return
			}
		}
	}
	l.t.Fatalf("no answer to a SYN from port %d", from)
}

// states counts the TCP sockets of a namespace by state.
func states(ns *Namespace) map[string]int {
	all := make(map[string]int)
	for _, s := range ns.Sockets() {
		if s.Proto == "tcp" && s.State != "LISTEN" {
			all[s.State]++
		}
	}
	return all
}

// TestOrphansAreBounded: a peer that acknowledges nothing after the handshake keeps
// few connections that were closed, and none for long.
func TestOrphansAreBounded(t *testing.T) {
	l := stillLab(t, blue(1))
	ns := l.n.Namespace("blue")
	ln, err := ns.Listen("tcp", "10.44.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const n = maxOrphans/2 + 40
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for range n {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("nobody will acknowledge this"))
			_ = c.Close()
		}
	}()
	for i := range n {
		l.connect(1, uint16(2000+i), 80)
	}
	<-accepted
	if got := states(ns); got["FIN-WAIT-1"] != maxOrphans/2 || len(got) != 1 {
		t.Errorf("%v, want %d in FIN-WAIT-1", got, maxOrphans/2)
	}
	for range orphanTicks - 1 {
		ns.host.orphans.expire()
	}
	if got := states(ns); got["FIN-WAIT-1"] != maxOrphans/2 {
		t.Errorf("%v before their time", got)
	}
	ns.host.orphans.expire()
	if got := states(ns); len(got) != 0 {
		t.Errorf("%v after their time", got)
	}
	o := ns.host.orphans
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shares.free != maxOrphans {
		t.Errorf("%d places are free, want %d", o.shares.free, maxOrphans)
	}
}

// TestEchoKeepsNoOrphans: the connections that have no place end at once.
func TestEchoKeepsNoOrphans(t *testing.T) {
	l := stillLab(t, echoing())
	for i := range 2 * maxServed {
		l.connect(1, uint16(2000+i), echoPort)
	}
	ns := l.n.Namespace("blue")
	eventually(t, "the others have been reset", func() bool {
		got := states(ns)
		return got["ESTAB"] == maxServed/2 && len(got) == 1
	})
}

// TestCloseSendsWhatWasWritten: an honest peer notices nothing of the bounds.
func TestCloseSendsWhatWasWritten(t *testing.T) {
	j := join(t, blue(1))
	ln, err := j.blue.Listen("tcp", "10.44.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	const size = 500_000
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write(make([]byte, size))
		_ = c.Close()
	}()
	c, err := j.inner.DialContext(within(t), "tcp", "10.44.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	got, b := 0, make([]byte, 1<<16)
	for {
		n, err := c.Read(b)
		if got += n; err != nil {
			break
		}
	}
	if got != size {
		t.Errorf("received %d bytes of %d", got, size)
	}
}

// TestUnreadSocketHoldsFewDatagrams: however small they are.
func TestUnreadSocketHoldsFewDatagrams(t *testing.T) {
	for name, payload := range map[string][]byte{"empty": nil, "of a byte": {1}} {
		t.Run(name, func(t *testing.T) {
			l := stillLab(t, blue(1))
			ns := l.n.Namespace("blue")
			bound, err := ns.ListenPacket("udp", ":500")
			if err != nil {
				t.Fatal(err)
			}
			defer bound.Close()
			dialled, err := ns.DialContext(t.Context(), "udp", "10.44.0.11:600")
			if err != nil {
				t.Fatal(err)
			}
			defer dialled.Close()
			for at, c := range map[uint16]net.Conn{500: bound.(net.Conn), uint16(dialled.LocalAddr().(*net.UDPAddr).Port): dialled} {
				f := pt.Frame(pt.UDP4(pt.Packet{
					SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4(),
					SrcPort: 600, DstPort: at, Payload: payload,
				}))
				fill := func() (taken int) {
					for range 3 * maxDatagrams {
						if ns.host.links[0].deliver(f, bridge.Tag{}) == trace.None {
							taken++
						}
					}
					return taken
				}
				if got := fill(); got != maxDatagrams {
					t.Errorf("port %d took %d datagrams, want %d", at, got, maxDatagrams)
				}
				for range 10 {
					if n, err := c.Read(make([]byte, 10)); n != len(payload) || err != nil {
						t.Fatalf("read %d bytes, %v", n, err)
					}
				}
				if got := fill(); got != 10 {
					t.Errorf("port %d took %d datagrams after 10 were read", at, got)
				}
			}
			bound.Close()
			dialled.Close()
			if m := *ns.host.inboxes.byPort.Load(); len(m) != 0 {
				t.Errorf("sockets that are closed are known: %v", m)
			}
		})
	}
}

// TestFullSocketLeavesOthersAlone, of another family on the same port too.
func TestFullSocketLeavesOthersAlone(t *testing.T) {
	l := stillLab(t, blue(1))
	ns := l.n.Namespace("blue")
	for _, network := range []string{"udp4", "udp6"} {
		c, err := ns.ListenPacket(network, ":500")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	four := pt.Packet{SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4(), DstPort: 500}
	six := four
	six.Src, six.Dst = addr6(1), gateway6()
	for range maxDatagrams + 1 {
		l.send(1, pt.UDP4(four))
	}
	l.send(1, pt.UDP6(six))
	if got := l.drops(hostPort, trace.LocalSocket); got != 1 {
		t.Errorf("%d datagrams dropped, want 1", got)
	}
}
