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

func addrPort(r *rand.Rand, v6 bool) netip.AddrPort {
	port := uint16(r.Uint32())
	if v6 {
		var a [16]byte
		binary.BigEndian.PutUint64(a[:], r.Uint64())
		binary.BigEndian.PutUint64(a[8:], r.Uint64()>>(8*r.IntN(8)))
		a[0] = 0xfd
		return netip.AddrPortFrom(netip.AddrFrom16(a), port)
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], r.Uint32())
	return netip.AddrPortFrom(netip.AddrFrom4(a), port)
}

// between is the rewriting from one pair of ends to another, ports of ICMP being
// the identifier.
func between(src, dst, newSrc, newDst netip.AddrPort) nat.Rewrite {
	return nat.Of(
		conntrack.Tuple{Src: src.Addr(), SrcPort: src.Port(), Dst: dst.Addr(), DstPort: dst.Port()},
		conntrack.Tuple{Src: newSrc.Addr(), SrcPort: newSrc.Port(), Dst: newDst.Addr(), DstPort: newDst.Port()})
}

// endsOf are the two ends of a parsed packet, ports of ICMP being the identifier.
func endsOf(f *packet.Frame) (src, dst netip.AddrPort) {
	v, b := &f.View, f.Bytes()
	sport, dport := v.SrcPort, v.DstPort
	if v.Proto == packet.ProtoICMP || v.Proto == packet.ProtoICMPv6 {
		sport, dport = 0, 0
		if v.Is(packet.ViewHasL4) && nat.IsQuery(v.Proto, b[v.L4]) {
			sport = binary.BigEndian.Uint16(b[v.L4+4:])
			dport = sport
		}
	}
	return netip.AddrPortFrom(v.SrcAddr(b), sport), netip.AddrPortFrom(v.DstAddr(b), dport)
}

// newEnds are random ends that some part of a packet's is replaced by.
func newEnds(r *rand.Rand, f *packet.Frame) (src, dst netip.AddrPort) {
	src, dst = endsOf(f)
	v6 := f.View.Is(packet.ViewIPv6)
	if n := addrPort(r, v6); r.IntN(2) == 0 {
		src = netip.AddrPortFrom(n.Addr(), src.Port())
	}
	if n := addrPort(r, v6); r.IntN(2) == 0 {
		dst = netip.AddrPortFrom(n.Addr(), dst.Port())
	}
	if r.IntN(2) == 0 {
		src = netip.AddrPortFrom(src.Addr(), uint16(r.Uint32()))
	}
	if r.IntN(2) == 0 {
		dst = netip.AddrPortFrom(dst.Addr(), uint16(r.Uint32()))
	}
	if f.View.Proto == packet.ProtoICMP || f.View.Proto == packet.ProtoICMPv6 {
		dst = netip.AddrPortFrom(dst.Addr(), src.Port())
	}
	return src, dst
}

// slowRewrite is the twin of Rewrite.Apply: it writes the fields and computes the
// checksums anew. Preconditions: b is a whole packet with right checksums.
func slowRewrite(b []byte, src, dst netip.AddrPort) {
	var v packet.View
	v.Parse(b)
	h := b[v.L3:]
	if v.Is(packet.ViewIPv6) {
		copy(h[8:], src.Addr().AsSlice())
		copy(h[24:], dst.Addr().AsSlice())
	} else {
		copy(h[12:], src.Addr().AsSlice())
		copy(h[16:], dst.Addr().AsSlice())
		binary.BigEndian.PutUint16(h[10:], 0)
		binary.BigEndian.PutUint16(h[10:], ^packet.Sum(b[v.L3:v.L4], 0))
	}
	p := b[v.L4:v.End]
	switch v.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		binary.BigEndian.PutUint16(p, src.Port())
		binary.BigEndian.PutUint16(p[2:], dst.Port())
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if nat.IsQuery(v.Proto, p[0]) {
			binary.BigEndian.PutUint16(p[4:], src.Port())
		}
	}
	slowSum(b, &v)
}

func slowSum(b []byte, v *packet.View) {
	p := b[v.L4:v.End]
	pseudo := func() uint16 { return packet.PseudoHeader(b, v, len(p)) }
	switch v.Proto {
	case packet.ProtoTCP:
		binary.BigEndian.PutUint16(p[16:], 0)
		binary.BigEndian.PutUint16(p[16:], ^packet.Sum(p, pseudo()))
	case packet.ProtoUDP:
		if binary.BigEndian.Uint16(p[6:]) == 0 {
			return
		}
		binary.BigEndian.PutUint16(p[6:], 0)
		sum := ^packet.Sum(p, pseudo())
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(p[6:], sum)
	case packet.ProtoICMP:
		binary.BigEndian.PutUint16(p[2:], 0)
		binary.BigEndian.PutUint16(p[2:], ^packet.Sum(p, 0))
	case packet.ProtoICMPv6:
		binary.BigEndian.PutUint16(p[2:], 0)
		binary.BigEndian.PutUint16(p[2:], ^packet.Sum(p, pseudo()))
	case packet.ProtoSCTP:
		binary.LittleEndian.PutUint32(p[8:], packet.SCTPSum(p))
	}
}

// whole is a random IP packet with right checksums that the twin can do.
func whole(r *rand.Rand) *packet.Frame {
	for {
		f := pt.Frame(pt.Random(r))
		v := &f.View
		again := new(packet.View)
		if again.Parse(f.Bytes()) != packet.FaultNone || !v.Is(packet.ViewIP) || v.Is(packet.ViewFrag|packet.ViewRouted) {
			continue
		}
		if v.Proto == packet.ProtoUDP && r.IntN(8) == 0 && v.Is(packet.ViewIPv4) {
			binary.BigEndian.PutUint16(f.Bytes()[v.L4+6:], 0)
		}
		if v.Is(packet.ViewIPv4) == (v.Proto == packet.ProtoICMPv6) && v.Proto != packet.ProtoICMP {
			if v.Proto == packet.ProtoICMPv6 {
				continue
			}
		}
		if v.Is(packet.ViewIPv6) && v.Proto == packet.ProtoICMP {
			continue
		}
		if packet.VerifyL3(f.Bytes(), v) && packet.VerifyL4(f.Bytes(), v) {
			return f
		}
	}
}

func TestRewriteIsWhatComputingAnewGives(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 4))
	for range 30_000 {
		f := whole(r)
		src, dst := endsOf(f)
		toSrc, toDst := newEnds(r, f)
		before := bytes.Clone(f.Bytes())
		want := bytes.Clone(before)
		slowRewrite(want, toSrc, toDst)
		rw := between(src, dst, toSrc, toDst)
		if !rw.Apply(f) {
			t.Fatalf("refused %s", pt.Describe(before))
		}
		if !bytes.Equal(f.Bytes(), want) {
			t.Fatalf("%s to %v %v:\n got %x\nwant %x", pt.Describe(before), toSrc, toDst, f.Bytes(), want)
		}
		var v packet.View
		if v.Parse(want); v != f.View {
			t.Fatalf("view: got %+v, want %+v", f.View, v)
		}
		back := between(toSrc, toDst, src, dst)
		if !back.Apply(f) || !bytes.Equal(f.Bytes(), before) {
			t.Fatalf("there and back: %s:\n got %x\nwant %x", pt.Describe(before), f.Bytes(), before)
		}
	}
}

// TestWrongSumsStayWrong: what a translator repairs, its receiver takes for right.
func TestWrongSumsStayWrong(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 4))
	for range 5_000 {
		f := whole(r)
		v := &f.View
		if !v.Is(packet.ViewHasL4) || v.Proto == packet.ProtoUDP && binary.BigEndian.Uint16(f.Bytes()[v.L4+6:]) == 0 {
			continue
		}
		at := v.L4 + map[uint8]int{packet.ProtoTCP: 8, packet.ProtoUDP: 7, packet.ProtoSCTP: 9}[v.Proto]
		if v.Proto == packet.ProtoICMP || v.Proto == packet.ProtoICMPv6 {
			at = v.L4 + 7
		}
		f.Bytes()[at] ^= 0x10
		if packet.VerifyL4(f.Bytes(), v) {
			continue // 0 for 0xffff
		}
		src, dst := endsOf(f)
		toSrc, toDst := newEnds(r, f)
		rw := between(src, dst, toSrc, toDst)
		if !rw.Apply(f) || packet.VerifyL4(f.Bytes(), v) {
			t.Fatalf("%s became right", pt.Describe(f.Bytes()))
		}
	}
}

func TestPartialSumsFollow(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5_000 {
		f := whole(r)
		v := f.View
		switch v.Proto {
		case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		default:
			continue
		}
		partial := pt.Partial(f.Bytes())
		src, dst := endsOf(f)
		toSrc, toDst := newEnds(r, f)
		rw := between(src, dst, toSrc, toDst)
		if !rw.Apply(partial) {
			t.Fatal("refused")
		}
		if v.Proto != packet.ProtoSCTP && !packet.PartialOK(partial) {
			t.Fatalf("partial sum of %s is wrong", pt.Describe(partial.Bytes()))
		}
		if !packet.CompleteChecksum(partial) || !packet.VerifyL4(partial.Bytes(), &partial.View) {
			t.Fatalf("completed sum of %s is wrong", pt.Describe(partial.Bytes()))
		}
	}
}

func TestSegmentsOfOffloadFramesAreRight(t *testing.T) {
	to := netip.MustParseAddrPort("203.0.113.9:61000")
	for name, b := range map[string][]byte{
		"tcp": pt.TCP4(pt.Packet{Payload: pt.Bytes(9000)}),
		"udp": pt.UDP4(pt.Packet{Payload: pt.Bytes(9000)}),
	} {
		t.Run(name, func(t *testing.T) {
			f := pt.GSO(b, 1400)
			src, dst := endsOf(f)
			rw := between(src, dst, to, dst)
			if !rw.Apply(f) || !f.CheckVnet() {
				t.Fatal("refused")
			}
			var s packet.Segmenter
			if !s.Init(f) {
				t.Fatal("not segmentable")
			}
			n := 0
			for out := pt.NewFrame(); s.Next(out); n++ {
				out.View.Parse(out.Bytes())
				got, _ := endsOf(out)
				if got != to || !packet.VerifyL3(out.Bytes(), &out.View) || !packet.VerifyL4(out.Bytes(), &out.View) {
					t.Fatalf("segment %d: %s", n, pt.Describe(out.Bytes()))
				}
			}
			if n != 7 {
				t.Errorf("%d segments, want 7", n)
			}
		})
	}
}

// TestFragmentsAreThoseOfTheRewrittenPacket: rewriting and fragmenting commute.
func TestFragmentsAreThoseOfTheRewrittenPacket(t *testing.T) {
	for name, b := range map[string][]byte{
		"tcp":  pt.TCP4(pt.Packet{Payload: pt.Bytes(5000)}),
		"udp":  pt.UDP4(pt.Packet{Payload: pt.Bytes(5000)}),
		"icmp": pt.Ping4(pt.Packet{ID: 7, Payload: pt.Bytes(5000)}),
	} {
		t.Run(name, func(t *testing.T) {
			f := pt.Frame(b)
			src, dst := endsOf(f)
			rw := between(src, dst, netip.MustParseAddrPort("203.0.113.9:61000"), netip.AddrPortFrom(dst.Addr(), dst.Port()))
			got := fragments(t, b)
			if len(got) < 4 {
				t.Fatalf("%d fragments", len(got))
			}
			for _, g := range got {
				if !rw.Apply(g) {
					t.Fatal("refused")
				}
			}
			rw.Apply(f)
			for i, w := range fragments(t, f.Bytes()) {
				if !bytes.Equal(got[i].Bytes(), w.Bytes()) {
					t.Errorf("fragment %d:\n got %x\nwant %x", i, got[i].Bytes(), w.Bytes())
				}
			}
		})
	}
}

func fragments(t *testing.T, b []byte) (all []*packet.Frame) {
	t.Helper()
	var g packet.Fragmenter
	if !g.Init(pt.Frame(b), 1400) {
		t.Fatal("not fragmentable")
	}
	for out := pt.NewFrame(); g.Next(out); {
		all = append(all, pt.Frame(out.Bytes()))
	}
	return all
}

func TestRefusals(t *testing.T) {
	v4 := between(netip.MustParseAddrPort("10.44.0.10:1"), netip.MustParseAddrPort("10.44.0.11:2"),
		netip.MustParseAddrPort("10.44.0.12:3"), netip.MustParseAddrPort("10.44.0.11:2"))
	fragment := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.SCTPHdr{SrcPort: 1, DstPort: 2}, pt.Bytes(64))
	for name, b := range map[string][]byte{
		"other family":     pt.UDP6(pt.Packet{}),
		"not IP":           pt.ARPRequest(pt.Packet{}),
		"fragment of SCTP": fragment,
	} {
		f := pt.Frame(b)
		if v4.Apply(f) || !bytes.Equal(f.Bytes(), b) {
			t.Errorf("%s: rewritten", name)
		}
	}
	addr := v4.Only(nat.SrcAddr)
	if f := pt.Frame(fragment); !addr.Apply(f) {
		t.Error("the address of a fragment of SCTP can be rewritten")
	}
}

// TestTunnelsWithinUDP: the partial sum is the inner one; the outer, complete or
// none, follows as such.
func TestTunnelsWithinUDP(t *testing.T) {
	b := pt.UDP4(pt.Packet{DstPort: 4789, Payload: pt.Bytes(100)})
	f := pt.Frame(b)
	f.Vnet = packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: uint16(f.View.L4 + 50), CsumOffset: 16}
	src, dst := endsOf(f)
	rw := between(src, dst, netip.MustParseAddrPort("203.0.113.9:61000"), dst)
	if !rw.Apply(f) || !packet.VerifyL4(f.Bytes(), &f.View) {
		t.Error("the outer sum is wrong")
	}
}

func TestRewriteAllocatesNothing(t *testing.T) {
	for name, b := range map[string][]byte{
		"tcp4": pt.TCP4(pt.Packet{}), "udp6": pt.UDP6(pt.Packet{}), "sctp4": pt.SCTP4(pt.Packet{}), "ping6": pt.Ping6(pt.Packet{ID: 7}),
	} {
		f := pt.Frame(b)
		src, dst := endsOf(f)
		r := rand.New(rand.NewPCG(3, 4))
		to, _ := newEnds(r, f)
		there, back := between(src, dst, to, dst), between(to, dst, src, dst)
		if n := testing.AllocsPerRun(100, func() { there.Apply(f); back.Apply(f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRewrite(b *testing.B) {
	for name, frame := range map[string][]byte{
		"tcp4": pt.TCP4(pt.Packet{Payload: pt.Bytes(1400)}), "tcp6": pt.TCP6(pt.Packet{Payload: pt.Bytes(1400)}),
		"sctp4": pt.SCTP4(pt.Packet{Payload: pt.Bytes(1400)}),
	} {
		b.Run(name, func(b *testing.B) {
			f := pt.Frame(frame)
			src, dst := endsOf(f)
			to := netip.AddrPortFrom(src.Addr().Next(), 61000)
			there, back := between(src, dst, to, dst), between(to, dst, src, dst)
			b.ReportAllocs()
			for b.Loop() {
				there.Apply(f)
				back.Apply(f)
			}
		})
	}
}
