// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"sluice/packet"
)

// Random is a frame of any kind that the parse knows, and of some that it does
// not. Most are valid; some have what is rare: three tags, options, chains of
// extension headers, fragments, group addresses. It has at most 9,014 bytes.
// The same r makes the same frames.
func Random(r *rand.Rand) []byte {
	layers := []Layer{EtherHdr{Src: RandomMAC(r), Dst: RandomMAC(r)}}
	for range pick(r, 0, 0, 0, 0, 1, 1, 2, 3) {
		layers = append(layers, VLANTag{
			TPID: pick[uint16](r, packet.EtherTypeVLAN, packet.EtherTypeQinQ), TCI: uint16(r.Uint32()),
		})
	}
	switch r.IntN(10) {
	case 0:
		layers = append(layers, randomARP(r))
	case 1:
		layers = append(layers, randomOther(r)...)
	case 2, 3, 4, 5:
		layers = append(layers, randomIPv4(r)...)
	default:
		layers = append(layers, randomIPv6(r)...)
	}
	return Build(layers...)
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// RandomMAC is the address of one of 16 stations, rarely a group address, zero
// or one that bridges must not forward.
func RandomMAC(r *rand.Rand) packet.MAC {
	switch r.IntN(16) {
	case 0:
		return packet.Broadcast()
	case 1:
		return packet.MAC{0x33, 0x33, 0, 0, 0, byte(r.IntN(4))}
	case 2:
		return packet.MAC{0x01, 0x80, 0xc2, 0, 0, byte(r.IntN(32))}
	case 3:
		return packet.MAC{}
	}
	return packet.MAC{0x02, 0, 0, 0, 0, byte(r.IntN(16))}
}

func randomARP(r *rand.Rand) Layer {
	return ARPMsg{
		Op: uint16(r.IntN(4)), SenderMAC: RandomMAC(r), TargetMAC: RandomMAC(r),
		SenderIP: random4(r), TargetIP: random4(r),
	}
}

// randomOther is a protocol that the parse leaves opaque, or LLC.
func randomOther(r *rand.Rand) []Layer {
	data := Payload(randomBytes(r, r.IntN(200)))
	if r.IntN(2) == 0 {
		return []Layer{data}
	}
	return []Layer{rawType(pick[uint16](r, 0x8847, 0x8864, 0x88cc, 0x8035, 0x9100, uint16(r.Uint32()))), data}
}

// rawType is an EtherType without a header.
type rawType uint16

func (t rawType) id() (uint16, uint8) { return uint16(t), 0 }

func (t rawType) wrap(_ ipLayer, _ Layer, body []byte) []byte { return body }

func random4(r *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 44, 0, byte(r.IntN(20))})
}

func random6(r *rand.Rand) netip.Addr {
	a := IP("fd44::").As16()
	a[15] = byte(r.IntN(20))
	return netip.AddrFrom16(a)
}

func randomIPv4(r *rand.Rand) []Layer {
	h := IPv4Hdr{
		Src: random4(r), Dst: random4(r), TTL: uint8(r.IntN(256)), TOS: uint8(r.IntN(256)),
		ID: uint16(r.Uint32()), DF: r.IntN(2) == 0,
	}
	if r.IntN(4) == 0 {
		h.Options = randomBytes(r, 4*r.IntN(11))
	}
	if r.IntN(8) == 0 {
		h.MF = r.IntN(2) == 0
		h.Offset = uint16(r.IntN(8192) * 8)
	}
	return append([]Layer{h}, randomL4(r, false)...)
}

func randomIPv6(r *rand.Rand) []Layer {
	layers := []Layer{IPv6Hdr{
		Src: random6(r), Dst: random6(r), HopLimit: uint8(r.IntN(256)),
		TrafficClass: uint8(r.IntN(256)), FlowLabel: r.Uint32(),
	}}
	for range pick(r, 0, 0, 0, 0, 1, 2, 3, 9) {
		layers = append(layers, randomExtHdr(r))
	}
	return append(layers, randomL4(r, true)...)
}

func randomExtHdr(r *rand.Rand) Layer {
	if r.IntN(4) == 0 {
		return FragHdr{Offset: uint16(pick(r, 0, 0, 8, r.IntN(1<<16))), More: r.IntN(2) == 0, ID: r.Uint32()}
	}
	return ExtHdr{
		Proto: pick[uint8](r, packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestOpts, packet.ProtoAH),
		Body:  randomBytes(r, r.IntN(40)),
	}
}

func randomL4(r *rand.Rand, v6 bool) []Layer {
	data := Payload(randomBytes(r, pick(r, 0, 1, r.IntN(64), r.IntN(1400), r.IntN(8000))))
	src, dst := uint16(r.Uint32()), uint16(r.Uint32())
	switch r.IntN(8) {
	case 0, 1, 2:
		return []Layer{TCPHdr{
			SrcPort: src, DstPort: dst, Seq: r.Uint32(), Ack: r.Uint32(), Flags: uint8(r.IntN(256)),
			Window: uint16(r.Uint32()), Options: randomBytes(r, 4*pick(r, 0, 3, r.IntN(11))),
		}, data}
	case 3, 4:
		return []Layer{UDPHdr{SrcPort: src, DstPort: dst}, data}
	case 5:
		return []Layer{ICMPHdr{
			V6: v6, Type: pick[uint8](r, 0, 3, 8, 128, 129, 133, 134, 135, 136, uint8(r.IntN(256))), ID: src, Seq: dst,
		}, data}
	case 6:
		return []Layer{SCTPHdr{SrcPort: src, DstPort: dst, Tag: r.Uint32()}, data}
	}
	return []Layer{data}
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, (n+7)&^7)
	for i := 0; i < n; i += 8 {
		binary.NativeEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:n:n]
}

// Mutate is a copy of b that one to four accidents have happened to: cut off,
// bits flipped, fields set to their limits, VLAN tags piled up, made a fragment,
// padded, a piece repeated. Checksums are not repaired. The result is up to 64 bytes
// longer than b.
func Mutate(r *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range 1 + r.IntN(4) {
		b = accident(r, b)
	}
	return b
}

func accident(r *rand.Rand, b []byte) []byte {
	if len(b) == 0 {
		return randomBytes(r, r.IntN(16))
	}
	head := r.IntN(min(len(b), 80)) // the headers are where it hurts
	switch r.IntN(9) {
	case 0:
		return b[:r.IntN(len(b)+1)]
	case 1:
		b[head] ^= 1 << r.IntN(8)
	case 2:
		b[head] = pick[byte](r, 0, 1, 0x7f, 0x80, 0xff)
	case 3:
		b[head] = byte(r.Uint32())
	case 4:
		if head+2 <= len(b) {
			limit := pick(r, 0, 1, len(b)-1, len(b), len(b)+1, 0x7fff, 0x8000, 0xffff)
			binary.BigEndian.PutUint16(b[head:], uint16(limit))
		}
	case 5:
		return tagStack(r, b)
	case 6:
		return fragmented(r, b)
	case 7:
		return append(b, randomBytes(r, r.IntN(16))...) // Ethernet padding
	case 8:
		return slices.Concat(b[:head], b[r.IntN(head+1):])[:len(b)]
	}
	return b
}

// tagStack puts one to four tags of any kind before the type.
func tagStack(r *rand.Rand, b []byte) []byte {
	if len(b) < packet.EthernetLen {
		return b
	}
	var tags []byte
	for range 1 + r.IntN(4) {
		tags = binary.BigEndian.AppendUint16(tags, pick[uint16](r, packet.EtherTypeVLAN, packet.EtherTypeQinQ, 0x9100))
		tags = binary.BigEndian.AppendUint16(tags, uint16(r.Uint32()))
	}
	return slices.Insert(b, 12, tags...)
}

// fragmented turns an IPv4 packet into a fragment, first, later or beyond 65535.
func fragmented(r *rand.Rand, b []byte) []byte {
	var v packet.View
	if v.Parse(b) == packet.FaultNone && v.Is(packet.ViewIPv4) {
		binary.BigEndian.PutUint16(b[v.L3+6:], pick(r, 0x2000, uint16(r.IntN(0x2000)), 0x3fff, 0x1fff))
	}
	return b
}

// RandomVnet is an offload header such as a liar would send with a frame of n
// bytes: each field is plausible, at a limit, or anything.
func RandomVnet(r *rand.Rand, n int) packet.Vnet {
	u16 := func(plausible ...uint16) uint16 {
		limits := []uint16{0, 1, uint16(n - 1), uint16(n), uint16(n + 1), 0xffff, uint16(r.Uint32())}
		return pick(r, append(limits, plausible...)...)
	}
	return packet.Vnet{
		Flags:      pick[uint8](r, 0, packet.FlagNeedsCsum, packet.FlagNeedsCsum, packet.FlagDataValid, 0xff),
		GSOType:    pick[uint8](r, 0, packet.GSOTCP4, packet.GSOTCP6, packet.GSOUDPL4, packet.GSOUDP, packet.GSOTCP4|packet.GSOECN, uint8(r.Uint32())),
		HdrLen:     u16(54, 66, 74),
		GSOSize:    u16(8, 536, 1400, 1448),
		CsumStart:  u16(34, 38, 54, 58),
		CsumOffset: u16(6, 6, 8, 16, 16),
	}
}
