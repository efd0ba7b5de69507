// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"

	"sluice/packet"
)

// Dir is the direction of a packet within its connection. Zero is Original.
type Dir uint8

// The directions.
const (
	Original Dir = iota // as the first packet
	Reply
)

// Other is the opposite direction.
func (d Dir) Other() Dir { return d ^ 1 }

// String is "original" or "reply".
func (d Dir) String() string {
	if d == Original {
		return "original"
	}
	return "reply"
}

// Tuple names one direction of a connection by what its packets look like. The
// two tuples of a connection are each other's inverse, unless it is translated.
// Zero is no tuple.
type Tuple struct {
	Src, Dst netip.Addr // IPv4 or IPv6 without zone, never IPv4 in IPv6

	// Ports of TCP, UDP and SCTP. ICMP and ICMPv6 queries: SrcPort is the
	// identifier, in both directions, and DstPort type<<8|code. Others: 0.
	SrcPort, DstPort uint16
	Proto            uint8
}

// Inverse is the tuple of what answers a packet of this tuple. False for an ICMP
// type that nobody answers.
func (t Tuple) Inverse() (Tuple, bool) {
	t.Src, t.Dst = t.Dst, t.Src
	if t.isICMP() {
		typ, ok := answerTo(t.Proto, uint8(t.DstPort>>8))
		t.DstPort = uint16(typ)<<8 | t.DstPort&0xff
		return t, ok
	}
	t.SrcPort, t.DstPort = t.DstPort, t.SrcPort
	return t, true
}

func (t Tuple) isICMP() bool { return t.Proto == packet.ProtoICMP || t.Proto == packet.ProtoICMPv6 }

// key is a tuple and its zone as five words that compare and hash as they are:
// two of the source address, two of the destination (an IPv4 address is the
// upper half of the first), and one of the rest. The zero key is none: there is
// no family 0.
type key [5]uint64

// rest packs the last word of a key.
func rest(srcPort, dstPort, zone uint16, proto, family uint8) uint64 {
	return uint64(srcPort)<<48 | uint64(dstPort)<<32 | uint64(zone)<<16 | uint64(proto)<<8 | uint64(family)
}

// keyOf is the key of a tuple. False if the tuple's addresses are not two of one
// family.
func keyOf(zone uint16, t *Tuple) (k key, ok bool) {
	switch {
	case t.Src.Is4() && t.Dst.Is4():
		src, dst := t.Src.As4(), t.Dst.As4()
		k[0] = uint64(binary.BigEndian.Uint32(src[:])) << 32
		k[2] = uint64(binary.BigEndian.Uint32(dst[:])) << 32
		k[4] = rest(t.SrcPort, t.DstPort, zone, t.Proto, 4)
	case t.Src.Is6() && t.Dst.Is6():
		src, dst := t.Src.As16(), t.Dst.As16()
		k.setAddrs6(src[:], dst[:])
		k[4] = rest(t.SrcPort, t.DstPort, zone, t.Proto, 6)
	default:
		return k, false
	}
	return k, true
}

func (k *key) setAddrs6(src, dst []byte) {
	k[0], k[1] = binary.BigEndian.Uint64(src), binary.BigEndian.Uint64(src[8:])
	k[2], k[3] = binary.BigEndian.Uint64(dst), binary.BigEndian.Uint64(dst[8:])
}

func (k *key) srcPort() uint16 { return uint16(k[4] >> 48) }
func (k *key) dstPort() uint16 { return uint16(k[4] >> 32) }
func (k *key) zone() uint16    { return uint16(k[4] >> 16) }
func (k *key) proto() uint8    { return uint8(k[4] >> 8) }
func (k *key) family() uint8   { return uint8(k[4]) }

func (k *key) tuple() Tuple {
	return Tuple{
		Src: addrOf(k[0], k[1], k.family()), Dst: addrOf(k[2], k[3], k.family()),
		SrcPort: k.srcPort(), DstPort: k.dstPort(), Proto: k.proto(),
	}
}

func addrOf(hi, lo uint64, family uint8) netip.Addr {
	switch family {
	case 4:
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(hi>>32))
		return netip.AddrFrom4(a)
	case 6:
		var a [16]byte
		binary.BigEndian.PutUint64(a[:], hi)
		binary.BigEndian.PutUint64(a[8:], lo)
		return netip.AddrFrom16(a)
	}
	return netip.Addr{}
}

// inverse is Tuple.Inverse of a key.
func (k *key) inverse() (key, bool) {
	src, dst, ok := k.dstPort(), k.srcPort(), true
	if p := k.proto(); p == packet.ProtoICMP || p == packet.ProtoICMPv6 {
		var typ uint8
		typ, ok = answerTo(p, uint8(k.dstPort()>>8))
		src, dst = k.srcPort(), uint16(typ)<<8|k.dstPort()&0xff
	}
	return key{k[2], k[3], k[0], k[1], rest(src, dst, k.zone(), k.proto(), k.family())}, ok
}

// sharedKey is a key that is read while it may be written: whoever reads it asks
// the record's life before and after.
type sharedKey [5]atomic.Uint64

func (s *sharedKey) load() (k key) {
	for i := range k {
		k[i] = s[i].Load()
	}
	return k
}

func (s *sharedKey) store(k *key) {
	for i := range k {
		s[i].Store(k[i])
	}
}

// equal compares the word with the ports first, in which tuples differ most.
func (s *sharedKey) equal(k *key) bool {
	return s[4].Load() == k[4] && s[0].Load() == k[0] && s[2].Load() == k[2] &&
		s[1].Load() == k[1] && s[3].Load() == k[3]
}
