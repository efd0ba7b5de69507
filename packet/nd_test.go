// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// nd is an ICMPv6 message in IPv6, from src to dst, with the body after type,
// code and checksum.
func nd(typ uint8, src, dst string, body ...byte) []byte {
	return pt.Build(
		pt.EtherHdr{},
		pt.IPv6Hdr{Src: pt.IP(src), Dst: pt.IP(dst), HopLimit: 255},
		pt.ICMPHdr{V6: true, Type: typ, ID: 0, Seq: 0},
		pt.Payload(body),
	)
}

// target is fd44::n and then the bytes of options.
func target(n byte, options ...byte) []byte {
	a := netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x44, 15: n}).As16()
	return append(a[:], options...)
}

func link(opt, n byte) []byte { return []byte{opt, 1, 2, 0, 0, 0, 0, n} }

func TestND(t *testing.T) {
	a := packet.MAC{2, 0, 0, 0, 0, 7}
	tests := map[string]struct {
		frame []byte
		want  packet.ND
		ok    bool
	}{
		"solicitation": {
			nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", target(5, link(1, 7)...)...),
			packet.ND{Type: packet.NDNeighbourSol, Target: pt.IP("fd44::5"), Link: a, HasLink: true, LinkOpts: packet.NDSourceLink},
			true,
		},
		"without option": {
			nd(packet.NDNeighbourAdvert, "fd44::a", "ff02::1", target(5)...),
			packet.ND{Type: packet.NDNeighbourAdvert, Target: pt.IP("fd44::5")},
			true,
		},
		"router solicitation": {
			nd(packet.NDRouterSolicit, "fe80::1", "ff02::2", link(1, 7)...),
			packet.ND{Type: packet.NDRouterSolicit, Link: a, HasLink: true, LinkOpts: packet.NDSourceLink},
			true,
		},
		"router advertisement": {
			nd(packet.NDRouterAdvert, "fe80::1", "ff02::1", append(make([]byte, 8), link(1, 7)...)...),
			packet.ND{Type: packet.NDRouterAdvert, Link: a, HasLink: true, LinkOpts: packet.NDSourceLink},
			true,
		},
		"same link twice": {
			nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", target(5, append(link(1, 7), link(1, 7)...)...)...),
			packet.ND{Type: packet.NDNeighbourSol, Target: pt.IP("fd44::5"), Link: a, HasLink: true, LinkOpts: packet.NDSourceLink},
			true,
		},
		"two links": {
			frame: nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", target(5, append(link(1, 7), link(1, 8)...)...)...),
		},
		"link of two units":     {frame: nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", target(5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)...)},
		"option of length zero": {frame: nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", target(5, 14, 0, 0, 0, 0, 0, 0, 0)...)},
		"option cut short":      {frame: nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", target(5, 14, 2, 0, 0, 0, 0, 0, 0)...)},
		"target cut short":      {frame: nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", 1, 2, 3)},
		"ping":                  {frame: pt.Ping6(pt.Packet{})},
		"TCP":                   {frame: pt.TCP6(pt.Packet{})},
		"ICMP type 135 in IPv4": {frame: pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Proto: new(uint8(58))}, pt.Payload(append([]byte{135, 0, 0, 0}, target(1)...)))},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := pt.Frame(tt.frame)
			got, ok := f.View.ND(f.Bytes())
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || ok != tt.ok {
				t.Errorf("ok %v, want %v (-want +got):\n%s", ok, tt.ok, diff)
			}
		})
	}
}

func TestARPReply(t *testing.T) {
	who, at := pt.HW("02:00:00:00:00:01"), pt.HW("02:00:00:00:00:99")
	tags := []pt.VLANTag{{TCI: 7}}
	f := pt.Frame(pt.ARPRequest(pt.Packet{SrcMAC: who, Src: pt.IP("10.0.0.1"), Dst: pt.IP("10.0.0.9"), Tags: tags}))
	pt.Check(t, packet.ARPReply(nil, f, at),
		pt.EtherDst(who), pt.EtherSrc(at), pt.VLAN(7), pt.Len(46),
		pt.ARP(pt.Op(2), pt.SenderMAC(at), pt.TargetMAC(who), pt.Src("10.0.0.9"), pt.Dst("10.0.0.1")))
	for name, b := range map[string][]byte{"reply": pt.ARPReply(pt.Packet{}), "TCP": pt.TCP4(pt.Packet{})} {
		if got := packet.ARPReply([]byte("x"), pt.Frame(b), at); string(got) != "x" {
			t.Errorf("%s is answered by %q", name, got)
		}
	}
}

func TestNeighbourAdvert(t *testing.T) {
	at := pt.HW("02:00:00:00:00:99")
	f := pt.Frame(nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", target(5)...))
	b := packet.NeighbourAdvert(nil, f, at, true)
	pt.Check(t, b, pt.EtherDst(f.SrcMAC()), pt.EtherSrc(at), pt.Len(86),
		pt.IPv6(pt.Src("fd44::5"), pt.Dst("fd44::a"), pt.TTL(255)), pt.ICMPv6(pt.ICMPType(136, 0)))
	g := pt.Frame(b)
	want := packet.ND{
		Type: packet.NDNeighbourAdvert, Target: pt.IP("fd44::5"), Link: at, HasLink: true, LinkOpts: packet.NDTargetLink,
		Flags: packet.NAFlagRouter | packet.NAFlagSolicited | packet.NAFlagOverride,
	}
	if got, ok := g.View.ND(g.Bytes()); !ok || got != want {
		t.Errorf("got %+v, %v; want %+v", got, ok, want)
	}
	probe := pt.Frame(nd(packet.NDNeighbourSol, "::", "ff02::1:ff00:5", target(5)...))
	for name, f := range map[string]*packet.Frame{"probe": probe, "advertisement": g} {
		if got := packet.NeighbourAdvert(nil, f, at, false); got != nil {
			t.Errorf("%s is answered", name)
		}
	}
}

// Whatever the bytes are, reading and answering them stays within them.
func FuzzND(f *testing.F) {
	f.Add(nd(packet.NDNeighbourSol, "fd44::a", "ff02::1:ff00:5", target(5, link(1, 7)...)...))
	f.Add(nd(packet.NDRedirect, "fe80::1", "fd44::a", append(target(5), target(6, link(2, 7)...)...)...))
	f.Add(pt.ARPRequest(pt.Packet{}))
	buf := make([]byte, 0, 256)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > packet.MaxFrame {
			return
		}
		fr := pt.Frame(b)
		m, ok := fr.View.ND(b)
		if ok && (m.Type < packet.NDRouterSolicit || m.Type > packet.NDRedirect) {
			t.Errorf("type %d", m.Type)
		}
		at := packet.MAC{2}
		for _, answer := range [][]byte{packet.ARPReply(buf, fr, at), packet.NeighbourAdvert(buf, fr, at, false)} {
			if len(answer) > 0 {
				pt.Check(t, answer, pt.EtherSrc(at), pt.Fault(packet.FaultNone))
			}
		}
	})
}
