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

// errorAbout is an ICMP error from a router to the sender of the packet in b,
// that quotes n bytes of it at most.
func errorAbout(b []byte, router netip.Addr, n int) []byte {
	var v packet.View
	v.Parse(b)
	quote := b[v.L3:min(v.End, v.L3+n)]
	if v.Is(packet.ViewIPv6) {
		return pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: router, Dst: v.SrcAddr(b)}, pt.ICMPHdr{V6: true, Type: 1, Code: 4}, pt.Payload(quote))
	}
	return pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: router, Dst: v.SrcAddr(b)}, pt.ICMPHdr{Type: 3, Code: 3}, pt.Payload(quote))
}

// quoted is the packet that an error quotes, as a frame of its own.
func quoted(f *packet.Frame) []byte {
	b := f.Bytes()
	ether := bytes.Clone(b[:f.View.L3])
	return append(ether, b[f.View.L4+8:f.View.End]...)
}

// TestErrorsQuoteWhatTheirReceiverSent: whatever is quoted of a packet, the
// error about it, translated back, quotes the same of what was sent.
func TestErrorsQuoteWhatTheirReceiverSent(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 4))
	for range 20_000 {
		f := whole(r)
		if !f.View.Is(packet.ViewHasL4) || f.View.Tags > 0 || f.View.Is(packet.ViewExtHdrs) && r.IntN(4) != 0 {
			continue
		}
		isICMP := f.View.Proto == packet.ProtoICMP || f.View.Proto == packet.ProtoICMPv6
		if isICMP && nat.IsError(f.View.Proto, f.Bytes()[f.View.L4]) {
			continue
		}
		sent := bytes.Clone(f.Bytes())
		v := f.View
		src, dst := endsOf(f)
		toSrc, toDst := newEnds(r, f)
		there, back := between(src, dst, toSrc, toDst), between(toDst, toSrc, dst, src)
		there.Apply(f)

		room := v.L4 - v.L3 + 8 + r.IntN(700)
		router, _ := newEnds(r, f)
		e := pt.Frame(errorAbout(f.Bytes(), router.Addr(), room))
		if !back.ApplyError(e, false) {
			t.Fatalf("refused: %s about %s, %d bytes", pt.Describe(e.Bytes()), pt.Describe(sent), room)
		}
		want := sent[v.L3:min(v.End, v.L3+room)]
		got := quoted(e)[e.View.L3:]
		cut := len(want) < v.End-v.L3
		if cut && (v.Proto == packet.ProtoSCTP || v.Proto == packet.ProtoTCP && room < v.L4-v.L3+20) {
			want, got = want[:v.L4-v.L3+8], got[:v.L4-v.L3+8] // the sum can't follow
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%s, %d quoted:\n got %x\nwant %x", pt.Describe(sent), room, got, want)
		}
		if !packet.VerifyL3(e.Bytes(), &e.View) || !packet.VerifyL4(e.Bytes(), &e.View) {
			t.Fatalf("sums of the error are wrong: %s", pt.Describe(e.Bytes()))
		}
		if to := e.View.DstAddr(e.Bytes()); to != src.Addr() {
			t.Fatalf("error goes to %v, want %v", to, src.Addr())
		}
		if from := e.View.SrcAddr(e.Bytes()); dst.Addr() != toDst.Addr() && from != dst.Addr() {
			t.Fatalf("error comes from %v, want %v", from, dst.Addr())
		}
	}
}

// TestErrorsAreNamedAfterTheEnd: who tells of an error is the connection's end where
// sources are translated, though no part of its address is, and else who it was.
func TestErrorsAreNamedAfterTheEnd(t *testing.T) {
	from, to := pt.IP("10.1.0.2"), pt.IP("192.0.2.1")
	there := nat.Of(
		conntrack.Tuple{Src: from, Dst: to, SrcPort: 9, DstPort: 8 << 8, Proto: packet.ProtoICMP},
		conntrack.Tuple{Src: from, Dst: to, SrcPort: 77, DstPort: 8 << 8, Proto: packet.ProtoICMP})
	answer := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: to, Dst: from}, pt.ICMPHdr{Type: 0, ID: 9}, pt.Bytes(20))
	for named, want := range map[bool]netip.Addr{true: from, false: pt.IP("10.1.0.8")} {
		e := pt.Frame(errorAbout(answer, pt.IP("10.1.0.8"), 100))
		if !there.ApplyError(e, named) || !packet.VerifyL3(e.Bytes(), &e.View) || !packet.VerifyL4(e.Bytes(), &e.View) {
			t.Fatal("refused, or a sum is wrong")
		}
		if got := e.View.SrcAddr(e.Bytes()); got != want {
			t.Errorf("named %v: it comes from %v, want %v", named, got, want)
		}
		if id := binary.BigEndian.Uint16(quoted(e)[e.View.L4+4:]); id != 77 {
			t.Errorf("named %v: it quotes the identifier %d", named, id)
		}
	}
}

// TestErrorsKeepTheirExtensions: RFC 5508 REQ-3d, RFC 4884.
func TestErrorsKeepTheirExtensions(t *testing.T) {
	sent := pt.UDP4(pt.Packet{Payload: pt.Bytes(40)})
	f := pt.Frame(sent)
	src, dst := endsOf(f)
	to := netip.MustParseAddrPort("203.0.113.9:61000")
	there, back := between(src, dst, to, dst), between(dst, to, dst, src)
	there.Apply(f)
	quote := make([]byte, 128) // padded to 128 as RFC 4884 §5.1 wants
	copy(quote, f.Bytes()[f.View.L3:f.View.End])
	extension := append(quote, 0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3)
	e := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: pt.IP("192.0.2.1"), Dst: to.Addr()}, pt.ICMPHdr{Type: 11, ID: 32}, pt.Payload(extension)))
	if !back.ApplyError(e, false) || !packet.VerifyL4(e.Bytes(), &e.View) {
		t.Fatal("refused, or the sum is wrong")
	}
	copy(quote, sent[f.View.L3:])
	if want := append(quote, extension[128:]...); !bytes.Equal(quoted(e)[e.View.L3:], want) {
		t.Errorf("got %x\nwant %x", quoted(e)[e.View.L3:], want)
	}
}

func TestErrorsThatAreDropped(t *testing.T) {
	sent := pt.UDP4(pt.Packet{})
	src, dst := endsOf(pt.Frame(sent))
	back := between(dst, src, dst, netip.MustParseAddrPort("10.0.0.1:5"))
	router := pt.IP("192.0.2.1")
	good := errorAbout(sent, router, 28)
	l4 := packet.EthernetLen + packet.IPv4MinLen
	for name, change := range map[string]func(b []byte) []byte{
		"sum is wrong":        func(b []byte) []byte { b[l4+5] ^= 1; return b },
		"redirect":            func(b []byte) []byte { return resum(b, l4, 5) },
		"echo":                func(b []byte) []byte { return resum(b, l4, 8) },
		"quote too short":     func([]byte) []byte { return errorAbout(sent, router, 27) },
		"quote of no header":  func([]byte) []byte { return errorAbout(sent, router, 19) },
		"quote of the other":  func([]byte) []byte { b := errorAbout(sent, router, 28); b[l4+8] = 0x60; return resum(b, l4, 3) },
		"header beyond quote": func([]byte) []byte { b := errorAbout(sent, router, 28); b[l4+8] = 0x4f; return resum(b, l4, 3) },
		"fragment":            func(b []byte) []byte { b[packet.EthernetLen+6] = 0x20; return b },
	} {
		b := change(bytes.Clone(good))
		f := pt.Frame(b)
		if back.ApplyError(f, false) || !bytes.Equal(f.Bytes(), b) {
			t.Errorf("%s: rewritten", name)
		}
	}
	if f := pt.Frame(good); !nat.EmbeddedOK(f) || !back.ApplyError(f, false) {
		t.Error("the good one is refused")
	}
	good[l4+8+10] ^= 1
	if nat.EmbeddedOK(pt.Frame(resum(good, l4, 3))) {
		t.Error("wrong sum of the quoted header is not found")
	}
}

// resum gives an ICMP message another type and a right checksum.
func resum(b []byte, l4 int, icmpType byte) []byte {
	b[l4] = icmpType
	binary.BigEndian.PutUint16(b[l4+2:], 0)
	binary.BigEndian.PutUint16(b[l4+2:], ^packet.Sum(b[l4:], 0))
	return b
}

func TestErrorRewriteAllocatesNothing(t *testing.T) {
	sent := pt.Frame(pt.TCP6(pt.Packet{Payload: pt.Bytes(300)}))
	src, dst := endsOf(sent)
	to := netip.AddrPortFrom(src.Addr().Next(), 61000)
	back, there := between(dst, to, dst, src), between(dst, src, dst, to)
	first := between(src, dst, to, dst)
	first.Apply(sent)
	e := pt.Frame(errorAbout(sent.Bytes(), dst.Addr(), 400))
	if n := testing.AllocsPerRun(100, func() {
		if !back.ApplyError(e, false) || !there.ApplyError(e, true) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRewrite: no bytes make the rewriting panic, touch what is beyond the packet
// or lose a sum that was right.
func FuzzRewrite(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 4))
	for range 200 {
		f.Add(pt.Mutate(r, pt.Random(r)), uint16(r.Uint32()))
	}
	f.Add(errorAbout(pt.TCP4(pt.Packet{}), pt.IP("192.0.2.1"), 28), uint16(5))
	f.Add(errorAbout(pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.FragHdr{More: true}, pt.SCTPHdr{}), pt.IP("fd44::1"), 900), uint16(5))
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		if len(b) > 10_000 {
			return
		}
		f := pt.Frame(b)
		if again := new(packet.View); again.Parse(f.Bytes()) != packet.FaultNone {
			return
		}
		src, dst := endsOf(f)
		to := netip.AddrPortFrom(src.Addr().Next(), port)
		if !to.Addr().IsValid() || to.Addr().Is4() != src.Addr().Is4() {
			return
		}
		trailer := bytes.Clone(f.Bytes()[f.View.End:])
		l3, l4 := packet.VerifyL3(f.Bytes(), &f.View), packet.VerifyL4(f.Bytes(), &f.View)
		rw := between(src, dst, to, dst)
		if rw.Apply(f) && (packet.VerifyL3(f.Bytes(), &f.View) != l3 || l4 && !packet.VerifyL4(f.Bytes(), &f.View)) {
			t.Fatal("a sum is not as right as it was")
		}
		if rw.ApplyError(f, port%2 == 0) && (packet.VerifyL3(f.Bytes(), &f.View) != l3 || !packet.VerifyL4(f.Bytes(), &f.View)) {
			t.Fatal("a sum of an error is not as right as it was")
		}
		if !bytes.Equal(trailer, f.Bytes()[f.View.End:]) {
			t.Fatal("the trailer changed")
		}
	})
}
