// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// TestFragments: a fragment is of the flow that the caller knows it of. A later
// one counts, and begins only what needs no header.
func TestFragments(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	later := func(proto uint8, ports [2]uint16) (Verdict, bool) {
		b := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: client(), Dst: server(), Proto: &proto, Offset: 80}, pt.Bytes(40))
		var n Pending
		v := tab.Look(&Packet{Frame: pt.Frame(b), Now: 1000, SrcPort: ports[0], DstPort: ports[1]}, &n)
		return v, n.Active()
	}
	if v, active := later(packet.ProtoTCP, [2]uint16{1000, 80}); v.State != Invalid || active {
		t.Errorf("TCP without header: %+v", v)
	}
	if v, active := later(packet.ProtoUDP, [2]uint16{5, 6}); v.State != New || !active {
		t.Errorf("UDP without header: %+v", v)
	}
	c := look(t, tab, there(pt.SYN, 100, 0, ""), 1000).Conn
	look(t, tab, back(pt.SYN|pt.ACK, 500, 101, ""), 1000)
	look(t, tab, there(pt.ACK, 101, 501, ""), 1000)
	if v, _ := later(packet.ProtoTCP, [2]uint16{1000, 80}); v.State != Established || v.Conn != c || v.Dir != Original {
		t.Errorf("of a connection: %+v", v)
	}
	ping := look(t, tab, pt.Ping4(pt.Packet{Src: client(), Dst: server(), ID: 7}), 1000).Conn
	if v, _ := later(packet.ProtoICMP, [2]uint16{8 << 8, 7}); v.Conn != ping {
		t.Errorf("of a ping: %+v", v)
	}
	var e Entry
	if c.Entry(&e, 1000); e.Packets[0] != 3 || e.Timeout != 432000 {
		t.Errorf("%+v", e)
	}
}

// TestErrorsAboutTranslated: an error quotes the packet as it was after
// translation, and is for the translator.
func TestErrorsAboutTranslated(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	outside, router := pt.IP("192.0.2.1"), pt.IP("10.99.0.1")
	var n Pending
	tab.Look(&Packet{Frame: pt.Frame(there(pt.SYN, 100, 0, "")), Now: 1000}, &n)
	n.Reply.Dst, n.Reply.DstPort = outside, 2000
	n.Status |= SrcNAT | SrcNATDone
	c, _ := tab.Confirm(&n, 1000)
	out := c.Out(Original)
	if out.Src != outside || out.SrcPort != 2000 || out.Dst != server() || c.Out(Reply).Dst != client() {
		t.Fatalf("out %v, back %v", out, c.Out(Reply))
	}
	inner := segmentFrom(Original, out, pt.TCPHdr{Seq: 100, Flags: flagSYN}, nil)[packet.EthernetLen:]
	for name, tc := range map[string]struct {
		quoted []byte
		dst    string
		want   Verdict
	}{
		"for the translator": {inner, "192.0.2.1", Verdict{State: Related, Dir: Reply, Error: true, Conn: c}},
		"for somebody else":  {inner, "10.44.0.10", Verdict{}},
		"about another":      {there(pt.SYN, 100, 0, "")[packet.EthernetLen:], "10.44.0.10", Verdict{}},
		"ports cut off":      {inner[:22], "192.0.2.1", Verdict{}},
		"only the ports":     {inner[:24], "192.0.2.1", Verdict{State: Related, Dir: Reply, Error: true, Conn: c}},
	} {
		b := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: router, Dst: pt.IP(tc.dst)}, pt.ICMPHdr{Type: 3, Code: 1}, pt.Payload(tc.quoted))
		if v := tab.Look(&Packet{Frame: pt.Frame(b), Now: 1000}, &n); v != tc.want {
			t.Errorf("%s: %+v", name, v)
		}
	}
	var e Entry
	if c.Entry(&e, 1000); e.Packets != [2]uint64{1, 0} {
		t.Errorf("errors were counted: %+v", e.Packets)
	}
}

// TestRedirectsOfIPv6 quote in an option.
func TestRedirectsOfIPv6(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	b := pt.UDP6(pt.Packet{SrcPort: 5, DstPort: 53})
	c := look(t, tab, b, 1000).Conn
	tu := c.Tuple(Original)
	quoted := b[packet.EthernetLen:]
	option := append([]byte{4, byte(1 + (len(quoted)+7)/8), 0, 0, 0, 0, 0, 0}, quoted...)
	for len(option)%8 != 0 {
		option = append(option, 0)
	}
	body := append(append(make([]byte, 32), 2, 1, 2, 3, 4, 5, 6, 7), option...) // target, destination, its link-layer address
	r := pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: pt.IP("fe80::1"), Dst: tu.Src}, pt.ICMPHdr{V6: true, Type: icmp6Redirect}, pt.Payload(body))
	if v := look(t, tab, r, 1000); v.State != Related || v.Conn != c {
		t.Errorf("%+v", v)
	}
	for typ, want := range map[uint8]State{icmp6Query: Untracked, icmp6RouterSol: Untracked, icmp6NeighborAdv: Untracked, icmp6Report2: Untracked, icmp6EchoReply: Invalid} {
		m := pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ICMPHdr{V6: true, Type: typ}, pt.Bytes(40))
		if v := look(t, tab, m, 1000); v.State != want {
			t.Errorf("type %d: %v", typ, v.State)
		}
	}
}

// TestZones keep equal tuples apart.
func TestZones(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	tab.SetZone(2, RFC())
	var n Pending
	f := pt.Frame(pt.UDP4(pt.Packet{}))
	for zone, timeout := range map[uint16]uint32{1: 30, 2: 300} {
		tab.Look(&Packet{Frame: f, Zone: zone, Now: 1000}, &n)
		c, out := tab.Confirm(&n, 1000)
		var e Entry
		if c.Entry(&e, 1000); out != Inserted || e.Zone != zone || e.Timeout != timeout {
			t.Errorf("zone %d: outcome %d, %+v", zone, out, e)
		}
	}
}
