// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"hash/maphash"

	"sluice/packet"
)

// KeySize is the size of a Key in bytes: one cache line.
const KeySize = 64

// Key names a flow. It is flat, without pointers and without gaps, so that it
// compares with == as one run of memory and hashes as its bytes. What does not
// apply to a frame is zero; two keys are the same flow only if they are equal.
// The zero Key is no flow.
type Key struct {
	SrcMAC, DstMAC packet.MAC
	InPort         uint16
	EtherType      uint16    // innermost
	TPID, TCI      [2]uint16 // outer tag first, priority included
	Src, Dst       [16]byte  // an IPv4 address is in the first 4 bytes

	// TCP, UDP, SCTP: the ports. ICMP echo: type and code, and the identifier.
	SrcPort, DstPort uint16

	Tags  uint8 // number of VLAN tags
	Proto uint8 // upper-layer protocol
	pad   [2]byte
}

// notCacheable are the kinds of frames whose fate a Key cannot name, or that
// the slow path must see one by one: fragments have no ports or belong to a
// datagram whose first one decides, options and extension headers may ask a
// router for attention (RFC 2113, RFC 2711), and they are rare.
const notCacheable = packet.ViewFrag | packet.ViewIPOptions | packet.ViewExtHdrs | packet.ViewRouted

// Set makes k the key of a frame and reports whether a decision for the frame
// may be remembered under it. It may not for what is not IP, for notCacheable
// frames, and for ICMP other than echo: errors, neighbour discovery and router
// advertisements speak about other flows and are looked at each time. k is
// then unspecified.
//
// Preconditions: f.View.Parse returned FaultNone for the frame. Set reads no
// byte that the parse has not found present.
func (k *Key) Set(f *packet.Frame) (cacheable bool) {
	v := &f.View
	if !v.Is(packet.ViewIP) || v.Is(notCacheable) || !cacheableICMP(v) {
		return false
	}
	b := f.Bytes()
	*k = Key{}
	k.DstMAC, k.SrcMAC = packet.MAC(b[0:6]), packet.MAC(b[6:12])
	k.InPort, k.EtherType = f.InPort, v.EtherType
	k.TPID, k.TCI, k.Tags = v.TPID, v.TCI, v.Tags
	k.SrcPort, k.DstPort, k.Proto = v.SrcPort, v.DstPort, v.Proto
	k.setAddrs(b[v.L3:v.L4], v.Is(packet.ViewIPv4))
	return true
}

// setAddrs copies the addresses of an IP header. Arrays are assigned and not
// copied as slices, which would be a call each.
func (k *Key) setAddrs(ip []byte, v4 bool) {
	if v4 {
		*(*[4]byte)(k.Src[:]) = [4]byte(ip[12:16])
		*(*[4]byte)(k.Dst[:]) = [4]byte(ip[16:20])
		return
	}
	k.Src, k.Dst = [16]byte(ip[8:24]), [16]byte(ip[24:40])
}

// The types of ICMP (RFC 792) and ICMPv6 (RFC 4443 §4) messages that make a
// flow, as View has them: type<<8 | code.
const (
	icmpEchoReply     = 0 << 8
	icmpEchoRequest   = 8 << 8
	icmpv6EchoRequest = 128 << 8
	icmpv6EchoReply   = 129 << 8
)

// cacheableICMP is true for everything but ICMP that is not echo.
func cacheableICMP(v *packet.View) bool {
	switch v.Proto {
	case packet.ProtoICMP:
		return v.SrcPort == icmpEchoRequest || v.SrcPort == icmpEchoReply
	case packet.ProtoICMPv6:
		return v.SrcPort == icmpv6EchoRequest || v.SrcPort == icmpv6EchoReply
	}
	return true
}

// Hash is keyed by the seed, so that nobody who does not know it can choose
// flows that meet in one set of a Cache.
func (k *Key) Hash(seed maphash.Seed) uint64 {
	return maphash.Bytes(seed, k.bytes()[:])
}
