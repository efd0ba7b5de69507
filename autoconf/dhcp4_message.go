// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
)

// Ports of DHCP, RFC 2131 §4.1.
const (
	serverPort4 = 67
	clientPort4 = 68
)

// The messages, RFC 2132 §9.6.
const (
	discover = 1
	offer    = 2
	request  = 3
	decline  = 4
	ack      = 5
	nak      = 6
	release  = 7
	inform   = 8
)

// Options of RFC 2132 unless said.
const (
	optPad          = 0
	optMask         = 1
	optRouter       = 3
	optDNS          = 6
	optHostName     = 12
	optDomain       = 15
	optMTU4         = 26
	optBroadcast    = 28
	optNTP          = 42
	optRequested    = 50
	optLease        = 51
	optOverload     = 52
	optType         = 53
	optServer       = 54
	optParameters   = 55
	optMaxSize      = 57
	optT1           = 58
	optT2           = 59
	optClientID     = 61
	optRapidCommit4 = 80  // RFC 4039
	optSearch       = 119 // RFC 3397
	optRoutes       = 121 // RFC 3442
	optEnd          = 255
)

// Places in a message, RFC 2131 §2.
const (
	opAt      = 0
	htypeAt   = 1
	hlenAt    = 2
	xidAt     = 4
	flagsAt   = 10
	ciaddrAt  = 12
	yiaddrAt  = 16
	giaddrAt  = 24
	chaddrAt  = 28
	snameAt   = 44
	fileAt    = 108
	magicAt   = 236
	optionsAt = 240

	snameLen = 64
	fileLen  = 128

	opRequest     = 1
	opReply       = 2
	htypeEthernet = 1
	flagBroadcast = 0x8000
	magic         = 0x63825363
)

// set is a set of option codes.
type set [4]uint64

func (s *set) add(code uint8) { s[code/64] |= 1 << (code % 64) }
func (s *set) addAll(codes []byte) {
	for _, c := range codes {
		s.add(c)
	}
}
func (s *set) has(code uint8) bool { return s[code/64]&(1<<(code%64)) != 0 }

// message4 is a client's message. Its slices are of the frame that it came in.
type message4 struct {
	raw       []byte
	requested netip.Addr // the zero Addr: not said
	server    netip.Addr // the zero Addr: not said
	clientID  []byte
	maxSize   uint16 // of the IP datagram; 0: not said
	wants     set
	asks      bool // there is a list of what the client wants
	seen      set
	typ       uint8
	overload  uint8
	rapid     bool
}

// parse reads a message. It is total and takes one step for each byte at most.
// False if it is none of a DHCP client on Ethernet, or not well-formed.
func (m *message4) parse(b []byte) bool {
	if len(b) < optionsAt || b[opAt] != opRequest || b[htypeAt] != htypeEthernet || b[hlenAt] != 6 ||
		binary.BigEndian.Uint32(b[magicAt:]) != magic {
		return false
	}
	*m = message4{raw: b}
	if !m.options(b[optionsAt:]) {
		return false
	}
	// RFC 2131 §4.1: the order is options, file, sname.
	if m.overload&1 != 0 && !m.options(b[fileAt:fileAt+fileLen]) {
		return false
	}
	if m.overload&2 != 0 && !m.options(b[snameAt:snameAt+snameLen]) {
		return false
	}
	return m.typ != 0
}

func (m *message4) options(b []byte) bool {
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) || !m.option(b[0], b[2:2+int(b[1])]) {
			return false
		}
		b = b[2+int(b[1]):]
	}
	return true
}

// option takes up one option. A second one of a code continues the first (RFC
// 3396), which nothing that is read here is long enough for, but for the list of
// parameters.
func (m *message4) option(code uint8, data []byte) bool {
	if code == optParameters {
		m.wants.addAll(data)
		m.asks = true
		return true
	}
	n, known := fixedLen(code)
	if known && (m.seen.has(code) || n >= 0 && len(data) != n) {
		return false
	}
	m.seen.add(code)
	switch code {
	case optType:
		m.typ = data[0]
	case optOverload:
		m.overload = data[0]
	case optRequested:
		m.requested = netip.AddrFrom4([4]byte(data))
	case optServer:
		m.server = netip.AddrFrom4([4]byte(data))
	case optMaxSize:
		m.maxSize = binary.BigEndian.Uint16(data)
	case optClientID:
		m.clientID = data
	case optRapidCommit4:
		m.rapid = true
	}
	return true
}

// fixedLen is the length of an option that is read here, -1 for any. False if it
// isn't read.
func fixedLen(code uint8) (n int, known bool) {
	switch code {
	case optType, optOverload:
		return 1, true
	case optRequested, optServer:
		return 4, true
	case optMaxSize:
		return 2, true
	case optClientID:
		return -1, true
	case optRapidCommit4:
		return 0, true
	}
	return 0, false
}

func (m *message4) ciaddr() netip.Addr { return netip.AddrFrom4([4]byte(m.raw[ciaddrAt:])) }
func (m *message4) giaddr() netip.Addr { return netip.AddrFrom4([4]byte(m.raw[giaddrAt:])) }
func (m *message4) chaddr() packet.MAC { return packet.MAC(m.raw[chaddrAt:]) }
func (m *message4) broadcast() bool {
	return binary.BigEndian.Uint16(m.raw[flagsAt:])&flagBroadcast != 0
}
