// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// icmpWords are type, code and what is behind the checksum.
type icmpWords struct {
	kind, code uint8
	info       uint32
}

func (w icmpWords) hdr(v6 bool) pt.ICMPHdr {
	return pt.ICMPHdr{V6: v6, Type: w.kind, Code: w.code, ID: uint16(w.info >> 16), Seq: uint16(w.info)}
}

// TestErrorCodes is the tables of RFC 7915 §4.2 and §5.2; a zero is dropped.
func TestErrorCodes(t *testing.T) {
	border := nat.Border{Prefix: prefix64(), MTU4: 1500, MTU6: 1500}
	to6 := map[icmpWords]icmpWords{
		{3, 0, 0}: {1, 0, 0}, {3, 1, 0}: {1, 0, 0}, {3, 2, 0}: {4, 1, 6}, {3, 3, 0}: {1, 4, 0},
		{3, 4, 1400}: {2, 0, 1420}, {3, 4, 1500}: {2, 0, 1500}, {3, 4, 600}: {2, 0, 1280}, {3, 4, 0}: {2, 0, 1280},
		{3, 5, 0}: {1, 0, 0}, {3, 6, 0}: {1, 0, 0}, {3, 7, 0}: {1, 0, 0}, {3, 8, 0}: {1, 0, 0},
		{3, 9, 0}: {1, 1, 0}, {3, 10, 0}: {1, 1, 0}, {3, 11, 0}: {1, 0, 0}, {3, 12, 0}: {1, 0, 0},
		{3, 13, 0}: {1, 1, 0}, {3, 14, 0}: {}, {3, 15, 0}: {1, 1, 0}, {3, 16, 0}: {},
		{4, 0, 0}: {}, {11, 0, 0}: {3, 0, 0}, {11, 1, 0}: {3, 1, 0},
		{12, 0, 0 << 24}: {4, 0, 0}, {12, 0, 1 << 24}: {4, 0, 1}, {12, 0, 2 << 24}: {4, 0, 4}, {12, 0, 3 << 24}: {4, 0, 4},
		{12, 0, 4 << 24}: {}, {12, 0, 7 << 24}: {}, {12, 0, 8 << 24}: {4, 0, 7}, {12, 0, 9 << 24}: {4, 0, 6}, {12, 0, 10 << 24}: {},
		{12, 0, 12 << 24}: {4, 0, 8}, {12, 0, 15 << 24}: {4, 0, 8}, {12, 2, 16 << 24}: {4, 0, 24}, {12, 0, 19 << 24}: {4, 0, 24},
		{12, 0, 20 << 24}: {}, {12, 1, 0}: {},
	}
	out, back := pair(packet.ProtoUDP, packet.ProtoUDP)
	quote6 := []pt.Layer{pt.IPv6Hdr{Src: pt.IP(client6), Dst: pt.IP(server6)}, pt.UDPHdr{SrcPort: 4000, DstPort: 80}, pt.Bytes(40)}
	quote4 := []pt.Layer{pt.IPv4Hdr{Src: pt.IP(pool4), Dst: pt.IP(server4)}, pt.UDPHdr{SrcPort: 5000, DstPort: 80}, pt.Bytes(40)}
	for from, to := range to6 {
		sent := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: pt.IP("198.51.100.9"), Dst: pt.IP(pool4), TTL: 60}, from.hdr(false), pt.Payload(l3Of(quote4)))
		want := pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: pt.IP("64:ff9b::198.51.100.9"), Dst: pt.IP(client6), HopLimit: 60}, to.hdr(true), pt.Payload(l3Of(quote6)))
		compareError(t, &back, border, from, to, sent, want)
	}

	to4 := map[icmpWords]icmpWords{
		{1, 0, 0}: {3, 1, 0}, {1, 1, 0}: {3, 10, 0}, {1, 2, 0}: {3, 1, 0}, {1, 3, 0}: {3, 1, 0}, {1, 4, 0}: {3, 3, 0}, {1, 5, 0}: {}, {1, 6, 0}: {},
		{2, 0, 1400}: {3, 4, 1380}, {2, 0, 9000}: {3, 4, 1480}, {2, 0, 1280}: {3, 4, 1260},
		{3, 0, 0}: {11, 0, 0}, {3, 1, 0}: {11, 1, 0}, {4, 1, 6}: {3, 2, 0}, {4, 2, 0}: {},
		{4, 0, 0}: {12, 0, 0}, {4, 0, 1}: {12, 0, 1 << 24}, {4, 0, 2}: {}, {4, 0, 3}: {}, {4, 0, 4}: {12, 0, 2 << 24}, {4, 0, 5}: {12, 0, 2 << 24},
		{4, 0, 6}: {12, 0, 9 << 24}, {4, 0, 7}: {12, 0, 8 << 24}, {4, 0, 8}: {12, 0, 12 << 24}, {4, 0, 23}: {12, 0, 12 << 24},
		{4, 0, 24}: {12, 0, 16 << 24}, {4, 0, 39}: {12, 0, 16 << 24}, {4, 0, 40}: {}, {137, 0, 0}: {}, {135, 0, 0}: {},
	}
	quote6 = []pt.Layer{pt.IPv6Hdr{Src: pt.IP(server6), Dst: pt.IP(client6)}, pt.UDPHdr{SrcPort: 80, DstPort: 4000}, pt.Bytes(40)}
	quote4 = []pt.Layer{pt.IPv4Hdr{Src: pt.IP(server4), Dst: pt.IP(pool4), ID: 0}, pt.UDPHdr{SrcPort: 80, DstPort: 5000}, pt.Bytes(40)}
	for from, to := range to4 {
		sent := pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: pt.IP("fd44::1"), Dst: pt.IP(server6), HopLimit: 60}, from.hdr(true), pt.Payload(l3Of(quote6)))
		want := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: pt.IP(pool4), Dst: pt.IP(server4), TTL: 60, ID: 77}, to.hdr(false), pt.Payload(l3Of(quote4)))
		compareError(t, &out, border, from, to, sent, want)
	}
}

// l3Of is an IP packet.
func l3Of(layers []pt.Layer) []byte {
	return pt.Build(append([]pt.Layer{pt.EtherHdr{}}, layers...)...)[packet.EthernetLen:]
}

func compareError(t *testing.T, r *nat.Rewrite, border nat.Border, from, to icmpWords, sent, want []byte) {
	t.Helper()
	f := pt.Frame(sent)
	ok := r.TranslateError(f, border, 77)
	if ok != (to != icmpWords{}) {
		t.Errorf("%+v: translated: %v", from, ok)
		return
	}
	if !ok {
		want = sent
	}
	if !bytes.Equal(f.Bytes(), want) {
		t.Errorf("%+v to %+v:\n got %x\nwant %x", from, to, f.Bytes(), want)
	}
}

// TestTranslatedErrorsQuoteWhatTheirReceiverSent: a packet goes out, an error about
// it comes back with as much of it as its reporter liked, and quotes what was sent.
func TestTranslatedErrorsQuoteWhatTheirReceiverSent(t *testing.T) {
	r := rand.New(rand.NewPCG(65, 4))
	for range 200 {
		for name, s := range samples(r) {
			if s.proto4 == packet.ProtoSCTP || s.oneWay {
				continue
			}
			proto6 := s.proto4
			if proto6 == packet.ProtoICMP {
				proto6 = packet.ProtoICMPv6
			}
			out, back := pair(s.proto4, proto6)
			quotedBack(t, name, r, &out, &back, frameOf(false, s.v6))
			quotedBack(t, name, r, &back, &out, frameOf(false, swapped(s.v4)))
		}
	}
}

func quotedBack(t *testing.T, name string, r *rand.Rand, there, back *nat.Rewrite, sent []byte) {
	t.Helper()
	f := pt.Frame(sent)
	if !there.Translate(f, 77) {
		t.Fatalf("%s: refused", name)
	}
	router := pt.IP("198.51.100.9")
	if f.View.Is(packet.ViewIPv6) {
		router = pt.IP("fd44::99")
	}
	room := f.View.L4 - f.View.L3 + 8 + r.IntN(1400)
	e := pt.Frame(errorAbout(f.Bytes(), router, room))
	if !back.TranslateError(e, nat.Border{Prefix: prefix64()}, 0) {
		t.Fatalf("%s: refused %s", name, pt.Describe(e.Bytes()))
	}
	v := &e.View
	if e.L3Len() > 1280 || !packet.VerifyL3(e.Bytes(), v) || !packet.VerifyL4(e.Bytes(), v) {
		t.Fatalf("%s: %d bytes, or sums are wrong", name, e.L3Len())
	}
	var was packet.View
	was.Parse(sent)
	got, want := quoted(e)[v.L3:], sent[was.L3:]
	ip := was.L4 - was.L3
	body := min(len(got), len(want)) - ip
	if was.Proto == packet.ProtoTCP && body < 20 {
		body = 8 // the sum doesn't follow if it isn't quoted whole
	}
	if !bytes.Equal(got[ip:ip+body], want[ip:ip+body]) {
		t.Fatalf("%s: quotes\n%x, sent\n%x", name, got[ip:ip+body], want[ip:ip+body])
	}
	addrs := want[12:20]
	gotAddrs := got[12:20]
	if was.Is(packet.ViewIPv6) {
		addrs, gotAddrs = want[8:40], got[8:40]
	}
	if !bytes.Equal(addrs, gotAddrs) {
		t.Fatalf("%s: quotes addresses %x of %s", name, gotAddrs, pt.Describe(sent))
	}
}

// FuzzTranslate: whatever comes, a translation is a packet without fault whose sums
// are as right as they were, and a refusal leaves the frame alone.
func FuzzTranslate(f *testing.F) {
	r := rand.New(rand.NewPCG(66, 4))
	for range 30 {
		for _, s := range samples(r) {
			f.Add(frameOf(r.IntN(2) == 0, s.v6))
			f.Add(pt.Mutate(r, frameOf(r.IntN(2) == 0, s.v4)))
			f.Add(errorAbout(frameOf(false, s.v4), pt.IP("198.51.100.9"), 28+r.IntN(200)))
			f.Add(pt.Mutate(r, errorAbout(frameOf(false, s.v6), pt.IP("fd44::1"), 48+r.IntN(200))))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 10_000 {
			return
		}
		for _, proto := range [][2]uint8{{packet.ProtoUDP, packet.ProtoUDP}, {packet.ProtoICMP, packet.ProtoICMPv6}} {
			out, back := pair(proto[0], proto[1])
			for _, rw := range []*nat.Rewrite{&out, &back} {
				checkTranslation(t, b, func(f *packet.Frame) bool { return rw.Translate(f, 9) })
				checkTranslation(t, b, func(f *packet.Frame) bool { return rw.TranslateError(f, nat.Border{Prefix: prefix64()}, 9) })
			}
		}
	})
}

func checkTranslation(t *testing.T, b []byte, translate func(*packet.Frame) bool) {
	t.Helper()
	f := pt.Frame(b)
	if again := new(packet.View); again.Parse(f.Bytes()) != packet.FaultNone {
		return
	}
	right := packet.VerifyL4(f.Bytes(), &f.View)
	switch {
	case !translate(f):
		if !bytes.Equal(f.Bytes(), b) {
			t.Fatalf("refused, but changed:\n%x\n%x", b, f.Bytes())
		}
	case new(packet.View).Parse(f.Bytes()) != packet.FaultNone:
		t.Fatalf("became a packet that isn't one: %x", f.Bytes())
	case !packet.VerifyL3(f.Bytes(), &f.View):
		t.Fatal("wrong header checksum")
	case right && !packet.VerifyL4(f.Bytes(), &f.View):
		t.Fatalf("wrong checksum: %s", pt.Describe(f.Bytes()))
	}
}
