// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

// Protocol numbers.
const (
	protoIGMP = 2
	protoPIM  = 103
)

// Types of IGMP messages, RFC 3376 §4, and of the advertisement of RFC 4286.
const (
	igmpQuery     = 0x11
	igmpReport1   = 0x12
	igmpReport2   = 0x16
	igmpLeave     = 0x17
	igmpReport3   = 0x22
	igmpMRDAdvert = 0x30
)

// Types of ICMPv6 messages, RFC 2710 §3.1, RFC 3810 §5.2, RFC 4286 §3.2.
const (
	mldQuery     = 130
	mldReport1   = 131
	mldDone      = 132
	mldReport2   = 143
	mldMRDAdvert = 151
)

// The lengths of messages. A query of the last version is longer than the older
// ones, which is how they are told apart.
const (
	igmpLen   = 8
	igmp3Len  = 12
	mldLen    = 24
	mld2Len   = 28
	reportLen = 8 // of IGMPv3 and MLDv2, before the records
)

// pimHello is version 2, type 0: RFC 7761 §4.9.
const pimHello = 0x20

// What a message means. Zero is not for us.
type meaning uint8

const (
	data    meaning = iota
	query           // message.group, or general if that is not valid
	join            // message.group
	leave           // message.group
	records         // message.next
	router          // a multicast router is there
)

// message is an IGMP or MLD message, or what a router says of itself.
type message struct {
	group, src netip.Addr
	maxResp    uint32 // seconds, rounded up
	v6         bool
	meaning    meaning
	left       int    // records not read
	body       []byte // the records; the frame's own bytes
}

// parse reads the frame's message. ok is false if it is one that must not be
// believed. A frame of anything else, a fragment, and MLD without the hop-by-hop
// header that makes routers look at it, are data.
//
// Preconditions: f is IP, its View was parsed.
func parse(f *packet.Frame) (m message, ok bool) {
	b, v := f.Bytes(), &f.View
	if v.Is(packet.ViewFrag) || v.L4 >= v.End || v.End > len(b) {
		return m, true
	}
	m.v6 = v.Is(packet.ViewIPv6)
	switch p := b[v.L4:v.End]; {
	case v.Proto == protoPIM:
		if p[0] == pimHello {
			m.meaning = router
		}
		return m, true
	case v.Proto == protoIGMP && !m.v6:
		m.src = v.SrcAddr(b)
		return m.igmp(p, v.DstAddr(b))
	case v.Proto == packet.ProtoICMPv6 && m.v6 && isMLD(b, v):
		m.src = v.SrcAddr(b)
		return m.mld(p, b, v)
	}
	return m, true
}

// isMLD reports whether an ICMPv6 packet is for routers on the way.
func isMLD(b []byte, v *packet.View) bool {
	if !v.Is(packet.ViewHasL4) || b[v.L3+6] != packet.ProtoHopByHop {
		return false
	}
	switch v.SrcPort >> 8 {
	case mldQuery, mldReport1, mldDone, mldReport2, mldMRDAdvert:
		return true
	}
	return false
}

func (m message) igmp(p []byte, dst netip.Addr) (message, bool) {
	if len(p) < igmpLen || packet.Sum(p, 0) != 0xffff {
		return m, false
	}
	m.group = netip.AddrFrom4([4]byte(p[4:8]))
	switch p[0] {
	case igmpQuery:
		return m.igmpQuery(p, dst)
	case igmpReport1, igmpReport2:
		m.meaning = join
		return m, m.group.IsMulticast()
	case igmpLeave:
		m.meaning = leave
		return m, m.group.IsMulticast()
	case igmpReport3:
		return m.report(p)
	case igmpMRDAdvert:
		m.meaning = router
	}
	return m, true
}

// igmpQuery reads a query of version 1 (code 0), 2 or 3 (longer). One for
// sources of a group says nothing about the group.
func (m message) igmpQuery(p []byte, dst netip.Addr) (message, bool) {
	tenths := uint32(p[1])
	switch {
	case len(p) >= igmp3Len:
		tenths = float(tenths, 4)
		if binary.BigEndian.Uint16(p[10:]) != 0 {
			return m, true
		}
	case len(p) != igmpLen:
		return m, false
	case tenths == 0:
		tenths = 100 // RFC 2236 §4
	}
	return m.asQuery((tenths+9)/10, dst, netip.AddrFrom4([4]byte{224, 0, 0, 1}))
}

// float is the value of a code with e bits more than mantissa and exponent have:
// RFC 3376 §4.1.1 (8 bits, 4 of mantissa), RFC 3810 §5.1.3 (16 bits, 12).
func float(code uint32, mantissa uint) uint32 {
	if code < 1<<(mantissa+3) {
		return code
	}
	exp := code >> mantissa & 7
	return (code&(1<<mantissa-1) | 1<<mantissa) << (exp + 3)
}

// asQuery makes m a query. A general one goes to all, or it is not believed.
func (m message) asQuery(seconds uint32, dst, all netip.Addr) (message, bool) {
	m.meaning, m.maxResp = query, seconds
	if m.group.IsUnspecified() {
		m.group = netip.Addr{}
		return m, dst == all
	}
	return m, m.group.IsMulticast()
}

func (m message) mld(p, b []byte, v *packet.View) (message, bool) {
	if !packet.VerifyL4(b, v) {
		return m, false
	}
	switch p[0] {
	case mldReport2:
		return m.report(p)
	case mldMRDAdvert:
		m.meaning = router
		return m, true
	}
	if len(p) < mldLen {
		return m, false
	}
	m.group = netip.AddrFrom16([16]byte(p[8:24]))
	switch p[0] {
	case mldReport1:
		m.meaning = join
	case mldDone:
		m.meaning = leave
	default:
		return m.mldQuery(p, v.DstAddr(b))
	}
	return m, m.group.IsMulticast()
}

// mldQuery reads a query, which must come from a link-local address (RFC 3810
// §5.1.14).
func (m message) mldQuery(p []byte, dst netip.Addr) (message, bool) {
	if !m.src.IsLinkLocalUnicast() {
		return m, false
	}
	ms := uint32(binary.BigEndian.Uint16(p[4:]))
	switch {
	case len(p) >= mld2Len:
		ms = float(ms, 12)
		if binary.BigEndian.Uint16(p[26:]) != 0 {
			return m, true
		}
	case len(p) != mldLen:
		return m, false
	}
	return m.asQuery((ms+999)/1000, dst, netip.IPv6LinkLocalAllNodes())
}

// report takes up the records of an IGMPv3 or MLDv2 report, all of which must be
// whole.
func (m message) report(p []byte) (message, bool) {
	m.meaning, m.group = records, netip.Addr{}
	m.left, m.body = int(binary.BigEndian.Uint16(p[6:])), p[reportLen:]
	for probe := m; probe.left > 0; {
		if _, _, ok := probe.next(); !ok {
			return m, false
		}
	}
	return m, true
}

// next reads one record (RFC 3376 §4.2.4, RFC 3810 §5.2.4) as what it means
// for the group as a whole: join; leave; query, if hosts must be asked, since
// sources were left of which we know nothing; or data if it says nothing. False
// at the end.
func (m *message) next() (meaning, netip.Addr, bool) {
	size := 4
	if m.v6 {
		size = 16
	}
	if m.left == 0 || len(m.body) < 4+size {
		return data, netip.Addr{}, false
	}
	r := m.body
	sources := int(binary.BigEndian.Uint16(r[2:]))
	n := 4 + size*(1+sources) + 4*int(r[1])
	group, _ := netip.AddrFromSlice(r[4 : 4+size])
	if n > len(r) || !group.IsMulticast() {
		return data, netip.Addr{}, false
	}
	m.left, m.body = m.left-1, r[n:]
	return recordMeaning(r[0], sources), group, true
}

// Types of records, RFC 3376 §4.2.12.
const (
	isInclude = iota + 1
	isExclude
	toInclude
	toExclude
	allowNew
	blockOld
)

func recordMeaning(typ uint8, sources int) meaning {
	switch typ {
	case isInclude, toInclude:
		if sources == 0 {
			return leave
		}
		return join
	case isExclude, toExclude:
		return join
	case allowNew:
		if sources > 0 {
			return join
		}
	case blockOld:
		if sources > 0 {
			return query
		}
	}
	return data
}
