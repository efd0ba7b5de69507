// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// The ends of the translated connections: an IPv6 client behind NAT64, and a
// server of IPv4.
const (
	client6 = "fd44::5"
	server6 = "64:ff9b::c000:221" // 192.0.2.33
	pool4   = "203.0.113.1"
	server4 = "192.0.2.33"
)

func prefix64() netip.Prefix { return netip.MustParsePrefix("64:ff9b::/96") }

// pair is both directions of a connection through NAT64, from port 4000 to 80,
// which leaves as from port 5000; of a ping the identifiers.
func pair(proto4, proto6 uint8) (out, back nat.Rewrite) {
	six := conntrack.Tuple{Src: pt.IP(client6), Dst: pt.IP(server6), SrcPort: 4000, DstPort: 80, Proto: proto6}
	four := conntrack.Tuple{Src: pt.IP(pool4), Dst: pt.IP(server4), SrcPort: 5000, DstPort: 80, Proto: proto4}
	reply6 := conntrack.Tuple{Src: six.Dst, Dst: six.Src, SrcPort: 80, DstPort: 4000, Proto: proto6}
	reply4 := conntrack.Tuple{Src: four.Dst, Dst: four.Src, SrcPort: 80, DstPort: 5000, Proto: proto4}
	if proto4 == packet.ProtoICMP {
		six.DstPort, four.DstPort, reply6.DstPort, reply4.DstPort = 128<<8, 8<<8, 129<<8, 0
		reply6.SrcPort, reply4.SrcPort = 4000, 5000
	}
	return nat.Of(six, four), nat.Of(reply4, reply6)
}

// sample is one packet in both families, built layer by layer.
type sample struct {
	v6, v4 []pt.Layer // behind Ethernet and tags
	proto4 uint8
	oneWay bool // to IPv4 only
}

// samples are packets of the direction of out, with random data.
func samples(r *rand.Rand) map[string]sample {
	data := pt.Bytes(r.IntN(1200))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	tos, hops := uint8(r.Uint32()), uint8(2+r.IntN(254))
	ip6 := pt.IPv6Hdr{Src: pt.IP(client6), Dst: pt.IP(server6), TrafficClass: tos, HopLimit: hops}
	ip4 := func(l4 int) pt.IPv4Hdr {
		h := pt.IPv4Hdr{Src: pt.IP(pool4), Dst: pt.IP(server4), TOS: tos, TTL: hops, ID: 77}
		if 20+l4+len(data) > 1260 {
			h.DF = true
		}
		return h
	}
	tcp6, udp6 := pt.TCPHdr{SrcPort: 4000, DstPort: 80, Seq: r.Uint32(), Options: pt.Bytes(4 * r.IntN(11))}, pt.UDPHdr{SrcPort: 4000, DstPort: 80}
	tcp4, udp4 := tcp6, udp6
	tcp4.SrcPort, udp4.SrcPort = 5000, 5000
	n := 20 + len(tcp6.Options)
	frag := func(off uint16, more bool) (pt.FragHdr, pt.IPv4Hdr) {
		return pt.FragHdr{Offset: off, More: more, ID: 0x1234}, pt.IPv4Hdr{Src: pt.IP(pool4), Dst: pt.IP(server4), TOS: tos, TTL: hops, ID: 0x1234, Offset: off, MF: more}
	}
	laterHdr6, later4 := frag(1208, false)
	udp := uint8(packet.ProtoUDP)
	laterHdr6.Next, later4.Proto = &udp, &udp
	return map[string]sample{
		"tcp":  {[]pt.Layer{ip6, tcp6, data}, []pt.Layer{ip4(n), tcp4, data}, packet.ProtoTCP, false},
		"udp":  {[]pt.Layer{ip6, udp6, data}, []pt.Layer{ip4(8), udp4, data}, packet.ProtoUDP, false},
		"sctp": {[]pt.Layer{ip6, pt.SCTPHdr{SrcPort: 4000}, data}, []pt.Layer{ip4(12), pt.SCTPHdr{SrcPort: 5000}, data}, packet.ProtoSCTP, false},
		"ping": {[]pt.Layer{ip6, pt.ICMPHdr{V6: true, Type: 128, ID: 4000, Seq: 9}, data}, []pt.Layer{ip4(8), pt.ICMPHdr{Type: 8, ID: 5000, Seq: 9}, data}, packet.ProtoICMP, false},
		"extension headers": {[]pt.Layer{
			ip6, pt.ExtHdr{Proto: packet.ProtoHopByHop, Body: []byte{1, 4, 0, 0, 0, 0}}, pt.ExtHdr{Proto: packet.ProtoDestOpts, Body: pt.Bytes(22)}, udp6, data,
		}, []pt.Layer{ip4(8), udp4, data}, packet.ProtoUDP, true},
		"later fragment":  {[]pt.Layer{ip6, laterHdr6, data}, []pt.Layer{later4, data}, packet.ProtoUDP, false},
		"atomic fragment": {[]pt.Layer{ip6, pt.FragHdr{ID: 5}, udp6, data}, []pt.Layer{ip4(8), udp4, data}, packet.ProtoUDP, true},
	}
}

// swapped is the packet of the other direction: ends swapped.
func swapped(layers []pt.Layer) []pt.Layer {
	var out []pt.Layer
	for _, l := range layers {
		switch h := l.(type) {
		case pt.IPv4Hdr:
			h.Src, h.Dst = h.Dst, h.Src
			l = h
		case pt.IPv6Hdr:
			h.Src, h.Dst = h.Dst, h.Src
			l = h
		case pt.TCPHdr:
			h.SrcPort, h.DstPort = 80, h.SrcPort
			l = h
		case pt.UDPHdr:
			h.SrcPort, h.DstPort = 80, h.SrcPort
			l = h
		case pt.SCTPHdr:
			h.SrcPort, h.DstPort = 80, h.SrcPort
			l = h
		case pt.ICMPHdr:
			h.Type = map[uint8]uint8{8: 0, 128: 129}[h.Type]
			l = h
		}
		out = append(out, l)
	}
	return out
}

func frameOf(tagged bool, layers []pt.Layer) []byte {
	all := []pt.Layer{pt.EtherHdr{}}
	if tagged {
		all = append(all, pt.VLANTag{TCI: 100})
	}
	return pt.Build(append(all, layers...)...)
}

// TestTranslationIsWhatBuildingItGives: the packets of both families are built each
// by itself, and one becomes the other byte for byte.
func TestTranslationIsWhatBuildingItGives(t *testing.T) {
	r := rand.New(rand.NewPCG(64, 4))
	for i := range 300 {
		for name, s := range samples(r) {
			proto6 := s.proto4
			if proto6 == packet.ProtoICMP {
				proto6 = packet.ProtoICMPv6
			}
			out, back := pair(s.proto4, proto6)
			tagged := i%3 == 0
			compare(t, name+" to IPv4", &out, frameOf(tagged, s.v6), frameOf(tagged, s.v4))
			if !s.oneWay {
				compare(t, name+" to IPv6", &back, frameOf(tagged, swapped(s.v4)), frameOf(tagged, swapped(s.v6)))
			}
		}
	}
}

func compare(t *testing.T, name string, r *nat.Rewrite, sent, want []byte) {
	t.Helper()
	f := pt.Frame(sent)
	growth, l3 := nat.Growth(f), f.L3Len()
	if r.Apply(f) || !r.Translates() {
		t.Fatalf("%s: rewritten within its family", name)
	}
	if !r.Translate(f, 77) {
		t.Fatalf("%s: refused %s", name, pt.Describe(sent))
	}
	if !bytes.Equal(f.Bytes(), want) {
		t.Fatalf("%s: %s\n got %x\nwant %x", name, pt.Describe(sent), f.Bytes()[:min(120, f.Len())], want[:min(120, len(want))])
	}
	var v packet.View
	if v.Parse(want); v != f.View {
		t.Fatalf("%s: view %+v, want %+v", name, f.View, v)
	}
	if f.L3Len() != l3+growth {
		t.Fatalf("%s: grew by %d, not %d", name, f.L3Len()-l3, growth)
	}
}

func TestZeroSumsAreMadeForIPv6(t *testing.T) {
	zero := uint16(0)
	_, back := pair(packet.ProtoUDP, packet.ProtoUDP)
	v4 := pt.IPv4Hdr{Src: pt.IP(server4), Dst: pt.IP(pool4)}
	h := pt.UDPHdr{SrcPort: 80, DstPort: 5000, Checksum: &zero}
	f := pt.Frame(pt.Build(pt.EtherHdr{}, v4, h, pt.Bytes(101)))
	if !back.Translate(f, 0) || !packet.VerifyL4(f.Bytes(), &f.View) {
		t.Errorf("no right sum: %s", pt.Describe(f.Bytes()))
	}
	v4.MF = true
	b := pt.Build(pt.EtherHdr{}, v4, h, pt.Bytes(104))
	if f = pt.Frame(b); back.Translate(f, 0) || !bytes.Equal(f.Bytes(), b) {
		t.Error("a sum of a fragment can't be made")
	}
}

func TestOffloadFramesAreTranslated(t *testing.T) {
	out, back := pair(packet.ProtoTCP, packet.ProtoTCP)
	for name, tc := range map[string]struct {
		r *nat.Rewrite
		f *packet.Frame
	}{
		"tcp to ipv4": {&out, pt.GSO(pt.TCP6(pt.Packet{Src: pt.IP(client6), Dst: pt.IP(server6), SrcPort: 4000, DstPort: 80, Payload: pt.Bytes(9000)}), 1400)},
		"tcp to ipv6": {&back, pt.GSO(pt.TCP4(pt.Packet{Src: pt.IP(server4), Dst: pt.IP(pool4), SrcPort: 80, DstPort: 5000, Payload: pt.Bytes(9000)}), 1400)},
		"udp to ipv6": {&back, pt.GSO(pt.UDP4(pt.Packet{Src: pt.IP(server4), Dst: pt.IP(pool4), SrcPort: 80, DstPort: 5000, Payload: pt.Bytes(9000)}), 1400)},
	} {
		if !tc.r.Translate(tc.f, 0) || !tc.f.CheckVnet() || !packet.PartialOK(tc.f) {
			t.Errorf("%s: refused or wrong: %+v", name, tc.f.Vnet)
			continue
		}
		var s packet.Segmenter
		if !s.Init(tc.f) {
			t.Errorf("%s: not segmentable", name)
		}
		for seg := pt.NewFrame(); s.Next(seg); {
			if seg.View.Parse(seg.Bytes()); !packet.VerifyL4(seg.Bytes(), &seg.View) || !packet.VerifyL3(seg.Bytes(), &seg.View) {
				t.Errorf("%s: wrong sums: %s", name, pt.Describe(seg.Bytes()))
			}
		}
	}
}

func TestNoTranslation(t *testing.T) {
	out, back := pair(packet.ProtoUDP, packet.ProtoUDP)
	ip6 := pt.IPv6Hdr{Src: pt.IP(client6), Dst: pt.IP(server6)}
	for name, tc := range map[string]struct {
		r *nat.Rewrite
		b []byte
	}{
		"same family":         {&out, pt.UDP4(pt.Packet{})},
		"segments left":       {&out, pt.Build(pt.EtherHdr{}, ip6, pt.ExtHdr{Proto: packet.ProtoRouting, Body: []byte{0, 1, 0, 0, 0, 0}}, pt.UDPHdr{})},
		"authentication":      {&out, pt.Build(pt.EtherHdr{}, ip6, pt.ExtHdr{Proto: packet.ProtoAH, Body: pt.Bytes(22)}, pt.UDPHdr{})},
		"neighbour discovery": {&out, pt.Build(pt.EtherHdr{}, ip6, pt.ICMPHdr{V6: true, Type: 135}, pt.Bytes(16))},
		"timestamp":           {&back, pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.ICMPHdr{Type: 13}, pt.Bytes(12))},
		"fragment of a ping":  {&back, pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.ICMPHdr{Type: 8}, pt.Bytes(16))},
		"fragment of SCTP":    {&back, pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.SCTPHdr{}, pt.Bytes(16))},
	} {
		f := pt.Frame(tc.b)
		if tc.r.Translate(f, 0) || !bytes.Equal(f.Bytes(), tc.b) {
			t.Errorf("%s: translated", name)
		}
	}
}

func TestFragmentFirst(t *testing.T) {
	for _, tc := range []struct {
		size int
		df   bool
		want bool
	}{{1260, false, false}, {1261, false, true}, {1500, true, false}, {1500, false, true}} {
		f := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{DF: tc.df}, pt.UDPHdr{}, pt.Bytes(tc.size-28)))
		if got := nat.FragmentFirst(f); got != tc.want {
			t.Errorf("%d bytes, DF %v: %v", tc.size, tc.df, got)
		}
		if !tc.want {
			continue
		}
		_, back := pair(packet.ProtoUDP, packet.ProtoUDP)
		var g packet.Fragmenter
		g.Init(f, nat.FragmentMTU64)
		for out := pt.NewFrame(); g.Next(out); {
			out.View.Parse(out.Bytes())
			if !back.Translate(out, 0) || out.L3Len() > 1280 {
				t.Errorf("a fragment of %d", out.L3Len())
			}
		}
	}
}

// TestEmbedding: the examples of RFC 6052 §2.4.
func TestEmbedding(t *testing.T) {
	for p, want := range map[string]string{
		"2001:db8::/32":         "2001:db8:c000:221::",
		"2001:db8:100::/40":     "2001:db8:1c0:2:21::",
		"2001:db8:122::/48":     "2001:db8:122:c000:2:2100::",
		"2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::",
		"2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100::",
		"2001:db8:122:344::/96": "2001:db8:122:344::192.0.2.33",
		"64:ff9b::/96":          "64:ff9b::192.0.2.33",
	} {
		a := nat.Embed(netip.MustParsePrefix(p), pt.IP(server4))
		if a != pt.IP(want) || nat.Extract(netip.MustParsePrefix(p), a) != pt.IP(server4) {
			t.Errorf("%s: %v, want %s", p, a, want)
		}
	}
}

func TestTranslationAllocatesNothing(t *testing.T) {
	out, back := pair(packet.ProtoTCP, packet.ProtoTCP)
	there := pt.TCP6(pt.Packet{Src: pt.IP(client6), Dst: pt.IP(server6), SrcPort: 4000, DstPort: 80, Payload: pt.Bytes(100)})
	f := pt.NewFrame()
	if n := testing.AllocsPerRun(100, func() {
		f.Reset(packet.Headroom, len(there))
		copy(f.Bytes(), there)
		f.View.Parse(f.Bytes())
		if !out.Translate(f, 1) || back.Translate(f, 1) && binary.BigEndian.Uint16(f.Bytes()) == 1 {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTranslate(b *testing.B) {
	out, back := pair(packet.ProtoTCP, packet.ProtoTCP)
	f := pt.Frame(pt.TCP6(pt.Packet{Src: pt.IP(client6), Dst: pt.IP(server6), SrcPort: 4000, DstPort: 80, Payload: pt.Bytes(1400)}))
	b.ReportAllocs()
	for b.Loop() { // to IPv4, and to IPv6 again
		if !out.Translate(f, 1) || !back.Translate(f, 1) {
			b.Fatal("refused")
		}
	}
}
