// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// slowSum is RFC 1071 §1 word by word: the twin that is obviously right.
func slowSum(b []byte, initial uint16) uint16 {
	if len(b)%2 == 1 {
		b = append(bytes.Clone(b), 0)
	}
	sum := uint32(initial)
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// same reports whether two sums are equal as ones' complement numbers, in which
// 0 and 0xffff are one.
func same(a, b uint16) bool { return a == b || (a == 0 || a == 0xffff) && (b == 0 || b == 0xffff) }

func TestSumAgreesWithSlowTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 1_000 {
		b := make([]byte, r.IntN(300)+i%10/9*r.IntN(60000)) // each tenth is long
		for j := range b {
			b[j] = byte(r.Uint32()) | byte(-r.IntN(2)) // many 0xff, for carries
		}
		initial := uint16(r.Uint32())
		if got, want := packet.Sum(b, initial), slowSum(b, initial); !same(got, want) {
			t.Fatalf("sum of %d bytes is %#04x, want %#04x", len(b), got, want)
		}
	}
}

// frames of each protocol that has a checksum, with an odd payload.
func summed() map[string][]byte {
	p := pt.Packet{Payload: pt.Bytes(101)}
	tagged := pt.Packet{Payload: pt.Bytes(101), Tags: []pt.VLANTag{{TCI: 4}}}
	return map[string][]byte{
		"tcp in ipv4": pt.TCP4(p), "tcp in ipv6": pt.TCP6(p), "tagged tcp": pt.TCP4(tagged),
		"udp in ipv4": pt.UDP4(p), "udp in ipv6": pt.UDP6(p), "tagged udp": pt.UDP6(tagged),
		"sctp in ipv4": pt.SCTP4(p), "sctp in ipv6": pt.SCTP6(p),
		"icmp": pt.Ping4(p), "icmpv6": pt.Ping6(p),
		"ipv4 options": pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Options: pt.Bytes(12)}, pt.TCPHdr{Options: pt.Bytes(12)}, pt.Bytes(9)),
		"ipv6 chain": pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoHopByHop},
			pt.ExtHdr{Proto: packet.ProtoDestOpts}, pt.UDPHdr{}, pt.Bytes(7)),
	}
}

func TestVerifyFindsEachFlippedBit(t *testing.T) {
	for name, b := range summed() {
		t.Run(name, func(t *testing.T) {
			f := pt.Frame(b)
			v := f.View
			if !packet.VerifyL3(b, &v) || !packet.VerifyL4(b, &v) {
				t.Fatal("a right checksum is said to be wrong")
			}
			for bit := 8 * v.L4; bit < 8*v.End; bit++ {
				b[bit/8] ^= 1 << (bit % 8)
				if packet.VerifyL4(b, &v) {
					t.Errorf("bit %d of byte %d of the L4 header is flipped unseen", bit%8, bit/8-v.L4)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
			for bit := 8 * v.L3; v.Is(packet.ViewIPv4) && bit < 8*v.L4; bit++ {
				b[bit/8] ^= 1 << (bit % 8)
				if packet.VerifyL3(b, &v) {
					t.Errorf("bit %d of byte %d of the IPv4 header is flipped unseen", bit%8, bit/8-v.L3)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		})
	}
}

func TestVerifyL4OfSpecialCases(t *testing.T) {
	none := new(uint16(0))
	tests := []struct {
		name string
		b    []byte
		want bool
	}{
		{"udp without checksum in ipv4", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.UDPHdr{Checksum: none}), true},
		{"udp without checksum in ipv6", pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.UDPHdr{Checksum: none}), false},
		{"udp longer than its packet", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.UDPHdr{Len: new(uint16(9))}), false},
		{"udp shorter than its header", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.UDPHdr{Len: new(uint16(7))}), false},
		{"ethernet padding is not summed", append(pt.UDP4(pt.Packet{}), 1, 2, 3), true},
		{"fragment", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.UDPHdr{}, pt.Payload("part")), true},
		{"routing header with segments left", pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{},
			pt.ExtHdr{Proto: packet.ProtoRouting, Body: []byte{0, 1}}, pt.UDPHdr{Checksum: new(uint16(1))}), true},
		{"protocol without checksum", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.Payload("x")), true},
	}
	for _, tt := range tests {
		f := pt.Frame(tt.b)
		if got := packet.VerifyL4(f.Bytes(), &f.View); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestVerifyAgreesWithTheBuilders(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 5_000 {
		f := pt.Frame(pt.Random(r))
		b, v := f.Bytes(), &f.View
		if fault := (&packet.View{}).Parse(b); fault != packet.FaultNone {
			continue
		}
		if !packet.VerifyL3(b, v) || !packet.VerifyL4(b, v) {
			t.Fatalf("%s: checksum said to be wrong\n%x", pt.Describe(b), b)
		}
	}
}

func TestCompleteChecksum(t *testing.T) {
	for name, want := range summed() {
		f := pt.Frame(want)
		if f.View.Proto == packet.ProtoICMP || f.View.Proto == packet.ProtoICMPv6 {
			continue // never partial
		}
		t.Run(name, func(t *testing.T) {
			f := pt.Partial(want)
			if f.View.Proto != packet.ProtoSCTP && !packet.PartialOK(f) {
				t.Error("the partial checksum is said to be wrong")
			}
			if bytes.Equal(f.Bytes(), want) {
				t.Fatal("the checksum is complete already")
			}
			if !f.CheckVnet() || !packet.CompleteChecksum(f) || !bytes.Equal(f.Bytes(), want) {
				t.Errorf("got  %x\nwant %x", f.Bytes(), want)
			}
			if f.Vnet.NeedsCsum() || packet.PartialOK(f) {
				t.Error("still marked as partial")
			}
			if !packet.CompleteChecksum(f) || !bytes.Equal(f.Bytes(), want) {
				t.Error("completed twice")
			}
		})
	}
}

func TestCompleteChecksumLeavesPaddingOut(t *testing.T) {
	b := pt.UDP4(pt.Packet{Payload: pt.Bytes(3)})
	f := pt.Partial(append(b, 9, 9, 9))
	packet.CompleteChecksum(f)
	pt.Check(t, f, pt.UDP(), pt.Data(pt.Bytes(3)))
}

// TestUDPChecksumIsNeverNone looks for a datagram whose sum is 0, which the wire
// must say as 0xffff.
func TestUDPChecksumIsNeverNone(t *testing.T) {
	for i := range 1 << 16 {
		b := pt.UDP4(pt.Packet{Payload: []byte{byte(i >> 8), byte(i)}})
		if binary.BigEndian.Uint16(b[14+20+6:]) != 0xffff {
			continue
		}
		f := pt.Partial(b)
		packet.CompleteChecksum(f)
		pt.Check(t, f, pt.UDP(), pt.Data(b[42:]))
		if got := binary.BigEndian.Uint16(f.Bytes()[14+20+6:]); got != 0xffff {
			t.Errorf("checksum %#04x", got)
		}
		return
	}
	t.Fatal("no such datagram")
}

func TestCompleteChecksumRefusesLies(t *testing.T) {
	udp := pt.UDP4(pt.Packet{Payload: pt.Bytes(10)})
	tests := []struct {
		name string
		lie  func(f *packet.Frame)
	}{
		{"start in the ethernet header", func(f *packet.Frame) { f.Vnet.CsumStart = 13 }},
		{"start beyond the frame", func(f *packet.Frame) { f.Vnet.CsumStart = 9000 }},
		{"field half beyond the frame", func(f *packet.Frame) { f.Vnet.CsumOffset = uint16(len(udp) - 34 - 1) }},
		{"field wraps around", func(f *packet.Frame) { f.Vnet.CsumOffset = 0xffff }},
		{"segmentation offload", func(f *packet.Frame) { f.Vnet.GSOType = packet.GSOUDPL4 }},
		{"not parsed", func(f *packet.Frame) { f.View = packet.View{} }},
	}
	for _, tt := range tests {
		f := pt.Partial(udp)
		before := bytes.Clone(f.Bytes())
		tt.lie(f)
		if packet.CompleteChecksum(f) || !bytes.Equal(before, f.Bytes()) || !f.Vnet.NeedsCsum() {
			t.Errorf("%s: not refused", tt.name)
		}
	}
}

func TestPartialOKFindsWrongSums(t *testing.T) {
	tests := []struct {
		name string
		lie  func(f *packet.Frame)
	}{
		{"wrong sum", func(f *packet.Frame) { f.Bytes()[f.View.L4+6]++ }},
		{"wrong start", func(f *packet.Frame) { f.Vnet.CsumStart++ }},
		{"wrong offset", func(f *packet.Frame) { f.Vnet.CsumOffset = 16 }},
		{"not partial", func(f *packet.Frame) { f.Vnet.Flags = 0 }},
		{"icmp", func(f *packet.Frame) { f.View.Parse(pt.Ping4(pt.Packet{Payload: pt.Bytes(10)})) }},
	}
	for _, tt := range tests {
		f := pt.Partial(pt.UDP4(pt.Packet{Payload: pt.Bytes(10)}))
		if tt.lie(f); packet.PartialOK(f) {
			t.Errorf("%s: said to be right", tt.name)
		}
	}
}

func FuzzCompleteChecksum(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 9))
	for range 30 {
		b := pt.Random(r)
		v := pt.RandomVnet(r, len(b))
		f.Add(b, v.Flags, v.GSOType, v.CsumStart, v.CsumOffset)
	}
	f.Fuzz(func(t *testing.T, b []byte, flags, gso uint8, start, offset uint16) {
		if len(b) > packet.MaxFrame {
			t.Skip("longer than a buffer")
		}
		frame := pt.Frame(b)
		if (&packet.View{}).Parse(b) != packet.FaultNone {
			return
		}
		frame.Vnet = packet.Vnet{Flags: flags, GSOType: gso, CsumStart: start, CsumOffset: offset}
		checked := frame.CheckVnet()
		done := packet.CompleteChecksum(frame)
		if checked && !frame.Vnet.IsGSO() && !done {
			t.Fatalf("CheckVnet passed %+v, CompleteChecksum did not", frame.Vnet)
		}
		touched := int(start) + int(offset)
		for i, c := range frame.Bytes() {
			if c != b[i] && (!done || i < touched || i >= touched+4) {
				t.Fatalf("byte %d changed, checksum is at %d", i, touched)
			}
		}
		if done && flags&packet.FlagNeedsCsum != 0 && frame.View.Proto != packet.ProtoSCTP {
			want := ^slowSum(b[start:frame.View.End], 0)
			if got := binary.BigEndian.Uint16(frame.Bytes()[touched:]); !same(got, want) || got == 0 {
				t.Fatalf("checksum %#04x, want %#04x", got, want)
			}
		}
	})
}
