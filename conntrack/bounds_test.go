// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// datagram is the n-th flow of a port's container.
func datagram(port uint16, n int) []byte {
	src := pt.IP("10.9.0.0").As4()
	src[2], src[3] = byte(port>>8), byte(port)
	return pt.UDP4(pt.Packet{Src: addr4(src), Dst: server(), SrcPort: uint16(n%65535 + 1), DstPort: uint16(1 + n>>16)})
}

// answer is what answers a datagram.
func answer(b []byte) []byte {
	var v packet.View
	v.Parse(b)
	return pt.UDP4(pt.Packet{Src: v.DstAddr(b), Dst: v.SrcAddr(b), SrcPort: v.DstPort, DstPort: v.SrcPort})
}

// begin lets a port begin a connection.
func begin(tab *Table, port uint16, b []byte, now uint32) (Conn, Outcome) {
	var n Pending
	tab.Look(&Packet{Frame: pt.Frame(b), Port: port, Now: now}, &n)
	return tab.Confirm(&n, now)
}

// assure makes a connection of datagrams assured.
func assure(tab *Table, b []byte, now uint32) {
	var n Pending
	tab.Look(&Packet{Frame: pt.Frame(answer(b)), Now: now}, &n)
	tab.Look(&Packet{Frame: pt.Frame(answer(b)), Now: now + streamAge + 1}, &n)
}

func TestAPortMeetsItsQuota(t *testing.T) {
	tab := table(t, Config{Entries: 100})
	must(t, tab.SetPort(1, PortLimits{Quota: 10}))
	for n := range 10 {
		if _, out := begin(tab, 1, datagram(1, n), 1000); out != Inserted {
			t.Fatalf("%d: outcome %d", n, out)
		}
		assure(tab, datagram(1, n), 1000)
	}
	if _, out := begin(tab, 1, datagram(1, 99), 1003); out != Quota || out.Reason().String() != "conntrack_quota" {
		t.Errorf("outcome %d beyond the quota", out)
	}
	if _, out := begin(tab, 2, datagram(2, 0), 1003); out != Inserted {
		t.Errorf("another port: outcome %d", out)
	}
	sound(t, tab)
}

// TestAPortIsRefused: once Confirm has found that a port has its quota and that none of
// it may give way, it is known at once, until one of it ends, is closing, or it may have
// more.
func TestAPortIsRefused(t *testing.T) {
	for name, relief := range map[string]func(*Table, []Conn){
		"one ends":     func(_ *Table, all []Conn) { all[2].Delete(1004) },
		"one is over":  func(tab *Table, _ []Conn) { tab.Expire(1000 + 3600) },
		"one closes":   func(tab *Table, all []Conn) { all[1].CloseTCP(1004); tab.Expire(1005) },
		"may have one": func(tab *Table, _ []Conn) { must(t, tab.SetPort(1, PortLimits{Quota: 5})) },
		"no quota":     func(tab *Table, _ []Conn) { tab.RemovePort(1) },
	} {
		t.Run(name, func(t *testing.T) {
			tab := table(t, Config{Entries: 100})
			must(t, tab.SetPort(1, PortLimits{Quota: 4}))
			all := []Conn{begun(t, tab, datagram(1, 0)), established(t, tab, 1), begun(t, tab, datagram(1, 2)), begun(t, tab, datagram(1, 3))}
			for _, n := range []int{0, 2, 3} {
				assure(tab, datagram(1, n), 1000)
			}
			if tab.Refuses(1) {
				t.Error("refused before anybody knows")
			}
			if _, out := begin(tab, 1, datagram(1, 99), 1003); out != Quota {
				t.Fatalf("outcome %d", out)
			}
			drops := tab.Stats().Drop
			if !tab.Refuses(1) || tab.Refuses(2) || tab.Refuses(33) || tab.Stats().Drop != drops+1 {
				t.Errorf("not refused, or not counted: %+v", tab.Stats())
			}
			sound(t, tab)
			relief(tab, all)
			if tab.Refuses(1) {
				t.Error("still refused")
			}
			if _, out := begin(tab, 1, datagram(1, 98), 1006); out != Inserted {
				t.Errorf("outcome %d", out)
			}
			sound(t, tab)
		})
	}
}

// begun is a connection of port 1.
func begun(t *testing.T, tab *Table, b []byte) Conn {
	t.Helper()
	c, out := begin(tab, 1, b, 1000)
	if out != Inserted {
		t.Fatalf("outcome %d", out)
	}
	return c
}

// established is one of TCP, which is assured.
func established(t *testing.T, tab *Table, port uint16) Conn {
	t.Helper()
	p := pt.Packet{Src: pt.IP("10.9.0.1"), Dst: server(), SrcPort: 7, DstPort: 80, Flags: pt.SYN, Seq: 1}
	c := begun(t, tab, pt.TCP4(p))
	back := pt.Packet{Src: p.Dst, Dst: p.Src, SrcPort: 80, DstPort: 7, Flags: pt.SYN | pt.ACK, Seq: 100, Ack: 2}
	p.Flags, p.Seq, p.Ack = pt.ACK, 2, 101
	var n Pending
	for _, b := range [][]byte{pt.TCP4(back), pt.TCP4(p)} {
		tab.Look(&Packet{Frame: pt.Frame(b), Port: port, Now: 1000}, &n)
	}
	if c.Status()&Assured == 0 {
		t.Fatalf("status %v", c.Status())
	}
	return c
}

// TestTheHalfOpenGivesWay: beyond its quota a port loses its own oldest half-open
// connection, and none that is assured.
func TestTheHalfOpenGivesWay(t *testing.T) {
	tab := table(t, Config{Entries: 100, Quota: 10})
	kept := datagram(1, 0)
	begin(tab, 1, kept, 1000)
	assure(tab, kept, 1000)
	var oldest Conn
	for n := 1; n < 10; n++ {
		c, _ := begin(tab, 1, datagram(1, n), 1003)
		if n == 1 {
			oldest = c
		}
	}
	for n := 10; n < 1000; n++ {
		if _, out := begin(tab, 1, datagram(1, n), 1003); out != Inserted {
			t.Fatalf("%d: outcome %d", n, out)
		}
	}
	if oldest.Valid() || tab.PortUse(1) != 10 || tab.Stats().EarlyDrop != 990 {
		t.Errorf("oldest valid: %v, %d in use, %v", oldest.Valid(), tab.PortUse(1), tab.Stats())
	}
	if c, _ := tab.Find(0, flowOf(kept)); !c.Valid() {
		t.Error("the assured one is gone")
	}
	sound(t, tab)
}

func flowOf(b []byte) Tuple {
	var v packet.View
	v.Parse(b)
	return Tuple{Src: v.SrcAddr(b), Dst: v.DstAddr(b), SrcPort: v.SrcPort, DstPort: v.DstPort, Proto: v.Proto}
}

// TestAReserveIsKept: a scanner fills what it may, and a port with a reserve finds
// all of it.
func TestAReserveIsKept(t *testing.T) {
	tab := table(t, Config{Entries: 100})
	must(t, tab.SetPort(2, PortLimits{Reserve: 30}))
	for n := range 500 {
		begin(tab, 1, datagram(1, n), 1000)
		assure(tab, datagram(1, n), 1000)
	}
	if tab.PortUse(1) != 70 {
		t.Errorf("the scanner has %d", tab.PortUse(1))
	}
	for n := range 30 {
		if _, out := begin(tab, 2, datagram(2, n), 1003); out != Inserted {
			t.Fatalf("%d of the reserve: outcome %d", n, out)
		}
	}
	if _, out := begin(tab, 2, datagram(2, 30), 1003); out != Full || out.Reason().String() != "conntrack_full" {
		t.Errorf("beyond the reserve: outcome %d", out)
	}
	if tab.PortUse(1) != 70 || tab.Len() != 100 {
		t.Errorf("%d and %d", tab.PortUse(1), tab.Len())
	}
	if err := tab.SetPort(3, PortLimits{Reserve: 71}); err == nil {
		t.Error("more is reserved than there is")
	}
	sound(t, tab)
}

// TestTheGreediestGivesWay: where the table is full, the port that is furthest
// beyond its reserve loses half-open connections to the others.
func TestTheGreediestGivesWay(t *testing.T) {
	tab := table(t, Config{Entries: 100})
	for n := range 10 {
		begin(tab, 2, datagram(2, n), 1000)
	}
	for n := range 200 {
		begin(tab, 1, datagram(1, n), 1000)
	}
	if tab.PortUse(1) != 90 || tab.PortUse(2) != 10 {
		t.Errorf("%d and %d: the greedy one took from its neighbour", tab.PortUse(1), tab.PortUse(2))
	}
	for n := range 40 {
		if _, out := begin(tab, 3, datagram(3, n), 1000); out != Inserted {
			t.Fatalf("outcome %d", out)
		}
	}
	if tab.PortUse(1) != 50 || tab.PortUse(2) != 10 || tab.PortUse(3) != 40 || tab.Len() != 100 {
		t.Errorf("%d, %d, %d", tab.PortUse(1), tab.PortUse(2), tab.PortUse(3))
	}
	sound(t, tab)
}

func TestAChainHasAnEnd(t *testing.T) {
	tab := table(t, Config{Entries: 4096, Chain: 4})
	tab.mask = 0 // all tuples in one bucket
	tab.heads[0].Store(endOfChain)
	long := 0
	for n := range 20 {
		if _, out := begin(tab, 1, datagram(1, n), 1000); out == ChainLong {
			long++
		}
	}
	if long != 18 || tab.Len() != 2 || tab.Stats().ChainTooLong != 18 {
		t.Errorf("%d refused, %d entries, %v", long, tab.Len(), tab.Stats())
	}
}

// TestClashes: what Confirm says of tuples that are taken.
func TestClashes(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	var a, b, c Pending
	one := &Packet{Frame: pt.Frame(datagram(1, 1)), Now: 1000}
	two := &Packet{Frame: pt.Frame(datagram(2, 1)), Now: 1000}
	tab.Look(one, &a)
	tab.Look(one, &b)
	if _, out := tab.Confirm(&a, 1000); out != Inserted {
		t.Fatalf("outcome %d", out)
	}
	if _, out := tab.Confirm(&b, 1000); out != Raced || b.Active() {
		t.Errorf("the same packet again: outcome %d", out)
	}
	tab.Look(two, &c)
	c.Reply = a.Reply
	if _, out := tab.Confirm(&c, 1000); out != Clash || !c.Active() || !tab.Taken(0, c.Reply) {
		t.Errorf("the same reply: outcome %d", out)
	}
	c.Reply.DstPort++
	if conn, out := tab.Confirm(&c, 1000); out != Inserted || conn.Out(Original).SrcPort != c.Reply.DstPort {
		t.Errorf("another reply: outcome %d", out)
	}
	// What is over makes room.
	tab.Look(&Packet{Frame: two.Frame, Now: 2000, Zone: 0}, &c)
	if v := tab.Look(&Packet{Frame: one.Frame, Now: 2000}, &a); v.State != New || !a.Active() {
		t.Errorf("of a connection that is over: %v", v.State)
	}
	if _, out := tab.Confirm(&a, 2000); out != Inserted {
		t.Errorf("outcome %d", out)
	}
	sound(t, tab)
}

// TestGenerations: connections die with what they are bound to, at their next
// packet.
func TestGenerations(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	for n, c := range []struct {
		bind func(*Pending)
		ends func(gen uint32)
	}{
		{func(p *Pending) { p.Origin = Bind{7, 3} }, func(g uint32) { tab.SetEndpoint(7, g) }},
		{func(p *Pending) { p.Target = Bind{8, 3} }, func(g uint32) { tab.SetEndpoint(8, g) }},
		{func(p *Pending) { p.Backend = Bind{7, 3} }, func(g uint32) { tab.SetBackend(7, g) }},
	} {
		f := pt.Frame(datagram(1, n))
		for _, gen := range []uint32{4, Never} {
			c.ends(0)
			var p Pending
			tab.Look(&Packet{Frame: f, Now: 1000}, &p)
			c.bind(&p)
			conn, _ := tab.Confirm(&p, 1000)
			if conn.Packet(Original, f, 1000) != New {
				t.Errorf("%d: gone though the generation is not known", n)
			}
			c.ends(3)
			if conn.Packet(Original, f, 1000) != New {
				t.Errorf("%d: gone in its generation", n)
			}
			c.ends(gen)
			if conn.Packet(Original, f, 1000) != Gone || conn.Valid() {
				t.Errorf("%d: outlived its generation", n)
			}
		}
	}
	sound(t, tab)
}
