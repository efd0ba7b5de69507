// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"net/netip"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// table is a table of n entries in private memory.
func table(tb testing.TB, cfg Config) *Table {
	tb.Helper()
	t, err := NewTable(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := t.Close(); err != nil {
			tb.Error(err)
		}
	})
	return t
}

// look looks at a frame, and confirms what it begins.
func look(tb testing.TB, t *Table, b []byte, now uint32) Verdict {
	tb.Helper()
	var n Pending
	v := t.Look(&Packet{Frame: pt.Frame(b), Now: now}, &n)
	if v.State == New && n.Active() {
		c, out := t.Confirm(&n, now)
		if out != Inserted {
			tb.Fatalf("confirm: outcome %d", out)
		}
		v.Conn = c
	}
	return v
}

// client and server are the ends of the tests' connections.
func client() netip.Addr { return pt.IP("10.44.0.10") }
func server() netip.Addr { return pt.IP("10.44.0.11") }

// there and back are packets of one TCP connection.
func there(flags uint8, seq, ack uint32, data string) []byte {
	return pt.TCP4(pt.Packet{Src: client(), Dst: server(), SrcPort: 1000, DstPort: 80, Flags: flags, Seq: seq, Ack: ack, Payload: []byte(data)})
}

func back(flags uint8, seq, ack uint32, data string) []byte {
	return pt.TCP4(pt.Packet{Src: server(), Dst: client(), SrcPort: 80, DstPort: 1000, Flags: flags, Seq: seq, Ack: ack, Payload: []byte(data)})
}

// line is the listing of the only entry.
func line(tb testing.TB, t *Table, now uint32) (s string) {
	tb.Helper()
	t.Entries(nil, now, func(e *Entry) bool {
		s += string(e.Append(nil, 0))
		return true
	})
	return s
}

func TestATCPConnection(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	const end = " src=10.44.0.10 dst=10.44.0.11 sport=1000 dport=80 src=10.44.0.11 dst=10.44.0.10 sport=80 dport=1000 [ASSURED] mark=0 use=1"
	steps := []struct {
		frame []byte
		state State
		want  string
	}{
		{there(pt.SYN, 100, 0, ""), New, "tcp      6 120 SYN_SENT src=10.44.0.10 dst=10.44.0.11 sport=1000 dport=80 [UNREPLIED] src=10.44.0.11 dst=10.44.0.10 sport=80 dport=1000 mark=0 use=1"},
		{back(pt.SYN|pt.ACK, 500, 101, ""), Established, "tcp      6 60 SYN_RECV src=10.44.0.10 dst=10.44.0.11 sport=1000 dport=80 src=10.44.0.11 dst=10.44.0.10 sport=80 dport=1000 mark=0 use=1"},
		{there(pt.ACK, 101, 501, ""), Established, "tcp      6 432000 ESTABLISHED" + end},
		{there(pt.ACK|pt.PSH, 101, 501, "hello"), Established, "tcp      6 300 ESTABLISHED" + end},
		{back(pt.ACK, 501, 106, ""), Established, "tcp      6 432000 ESTABLISHED" + end},
		{there(pt.FIN|pt.ACK, 106, 501, ""), Established, "tcp      6 120 FIN_WAIT" + end},
		{back(pt.FIN|pt.ACK, 501, 107, ""), Established, "tcp      6 30 LAST_ACK" + end},
		{there(pt.ACK, 107, 502, ""), Established, "tcp      6 120 TIME_WAIT" + end},
		{there(pt.SYN, 100000, 0, ""), New, "tcp      6 120 SYN_SENT src=10.44.0.10 dst=10.44.0.11 sport=1000 dport=80 [UNREPLIED] src=10.44.0.11 dst=10.44.0.10 sport=80 dport=1000 mark=0 use=1"},
	}
	for i, s := range steps {
		if v := look(t, tab, s.frame, 1000); v.State != s.state {
			t.Errorf("step %d: state %v, want %v", i, v.State, s.state)
		}
		if got := line(t, tab, 1000); got != s.want {
			t.Errorf("step %d:\n got %s\nwant %s", i, got, s.want)
		}
	}
	if tab.Len() != 1 {
		t.Errorf("%d entries", tab.Len())
	}
}

func TestExpiry(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	v := look(t, tab, pt.UDP4(pt.Packet{}), 1000)
	tab.Expire(1029)
	if !v.Conn.Valid() || v.Conn.Packet(Original, pt.Frame(pt.UDP4(pt.Packet{})), 1029) != New {
		t.Fatal("gone too early")
	}
	tab.Expire(1058)
	if !v.Conn.Valid() {
		t.Fatal("gone too early after it was refreshed")
	}
	if n := tab.Expire(1059); n != 1 || v.Conn.Valid() || tab.Len() != 0 {
		t.Fatalf("expired %d, valid %v, %d left", n, v.Conn.Valid(), tab.Len())
	}
	if v.Conn.Packet(Original, pt.Frame(pt.UDP4(pt.Packet{})), 1059) != Gone {
		t.Error("not gone")
	}
}

func TestLookAndPacketDoNotAllocate(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	look(t, tab, there(pt.SYN, 100, 0, ""), 1000)
	look(t, tab, back(pt.SYN|pt.ACK, 500, 101, ""), 1000)
	f := pt.Frame(there(pt.ACK, 101, 501, ""))
	c := look(t, tab, f.Bytes(), 1000).Conn
	p, n := Packet{Frame: f, Now: 1000}, new(Pending)
	if a := testing.AllocsPerRun(100, func() { tab.Look(&p, n) }); a != 0 {
		t.Errorf("Look: %v allocations", a)
	}
	if a := testing.AllocsPerRun(100, func() { c.Packet(Original, f, 1000) }); a != 0 {
		t.Errorf("Packet: %v allocations", a)
	}
	u := pt.Frame(pt.UDP6(pt.Packet{}))
	p = Packet{Frame: u, Now: 1000}
	if a := testing.AllocsPerRun(100, func() {
		tab.Look(&p, n)
		c, _ := tab.Confirm(n, 1000)
		c.Delete(1000)
	}); a != 0 {
		t.Errorf("a connection: %v allocations", a)
	}
	if c.Packet(Original, f, 1000) != Established || packet.ProtoTCP != 6 {
		t.Error("not established")
	}
}
