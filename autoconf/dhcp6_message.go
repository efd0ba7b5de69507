// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"iter"
	"net/netip"
)

// Ports of DHCPv6, RFC 8415 §7.2.
const (
	clientPort6 = 546
	serverPort6 = 547
)

// The messages, RFC 8415 §7.3.
const (
	solicit6     = 1
	advertise6   = 2
	request6     = 3
	confirm6     = 4
	renew6       = 5
	rebind6      = 6
	reply6Type   = 7
	release6     = 8
	decline6     = 9
	information6 = 11
)

// Options of RFC 8415 §21 unless said.
const (
	opt6ClientID    = 1
	opt6ServerID    = 2
	opt6NA          = 3
	opt6TA          = 4
	opt6Addr        = 5
	opt6Request     = 6
	opt6Preference  = 7
	opt6Status      = 13
	opt6RapidCommit = 14
	opt6DNS         = 23 // RFC 3646
	opt6Search      = 24 // RFC 3646
	opt6PD          = 25
	opt6SNTP        = 31 // RFC 4075
	opt6Refresh     = 32
	opt6NTP         = 56 // RFC 5908
)

// The status codes, RFC 8415 §21.13.
const (
	statusSuccess       = 0
	statusNoAddrs       = 2
	statusNoBinding     = 3
	statusNotOnLink     = 4
	statusUseMulticast  = 5
	statusNoPrefixAvail = 6
)

// What a message may hold. Nobody has more, and all of it has to fit into one
// answer.
const (
	maxIAs   = 8
	maxAddrs = 8   // in all IAs together
	maxDUID  = 130 // RFC 8415 §11.1: a type and 128 bytes
	minDUID  = 3
)

const (
	message6Len = 4 // type and transaction
	iaFixed     = 12
	addrFixed   = 24
)

// ia is an identity association: of addresses, or of prefixes.
type ia struct {
	code  uint16
	id    [4]byte
	addrs []byte // the options of an IA_NA, checked; of others none
}

// message6 is a client's message. Its slices are of the frame that it came in.
type message6 struct {
	clientID, serverID []byte // nil: none
	wants              []byte // of the option request option
	ias                [maxIAs]ia
	numIAs, numAddrs   int
	xid                [3]byte
	typ                uint8
	asks, rapid        bool
}

// parse reads a message. It is total and takes a step for each option at most.
// False if it is none of a client, or not well-formed.
func (m *message6) parse(b []byte) bool {
	if len(b) < message6Len {
		return false
	}
	*m = message6{typ: b[0], xid: [3]byte(b[1:])}
	for code, data := range options6(b[message6Len:]) {
		if data == nil || !m.option(code, data) {
			return false
		}
	}
	return m.valid()
}

// options6 walks options. One that is cut short comes with nil, and is the last.
func options6(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) > 0 {
			if len(b) < 4 || len(b) < 4+int(binary.BigEndian.Uint16(b[2:])) {
				yield(0, nil)
				return
			}
			n := 4 + int(binary.BigEndian.Uint16(b[2:]))
			if !yield(binary.BigEndian.Uint16(b), b[4:n:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// option takes up one option. Those that may stand once only must, RFC 8415 §16.
func (m *message6) option(code uint16, data []byte) bool {
	switch code {
	case opt6ClientID:
		return m.duid(&m.clientID, data)
	case opt6ServerID:
		return m.duid(&m.serverID, data)
	case opt6Request:
		ok := !m.asks && len(data)%2 == 0
		m.asks, m.wants = true, data
		return ok
	case opt6RapidCommit:
		ok := !m.rapid && len(data) == 0
		m.rapid = true
		return ok
	case opt6NA, opt6TA, opt6PD:
		return m.ia(code, data)
	}
	return true
}

func (*message6) duid(to *[]byte, data []byte) bool {
	ok := *to == nil && len(data) >= minDUID && len(data) <= maxDUID
	*to = data
	return ok
}

func (m *message6) ia(code uint16, data []byte) bool {
	if code == opt6TA { // temporary addresses are not given: RFC 8415 §18.3 leaves it out
		return len(data) >= 4
	}
	if len(data) < iaFixed || m.numIAs == maxIAs {
		return false
	}
	a := ia{code: code, id: [4]byte(data)}
	if code == opt6NA {
		a.addrs = data[iaFixed:]
	}
	for code, data := range options6(a.addrs) {
		if data == nil || code == opt6Addr && len(data) < addrFixed {
			return false
		}
		if code == opt6Addr {
			m.numAddrs++
		}
	}
	m.ias[m.numIAs] = a
	m.numIAs++
	return m.numAddrs <= maxAddrs
}

// all walks the addresses of an IA_NA.
func (a *ia) all() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for code, data := range options6(a.addrs) {
			if code == opt6Addr && !yield(netip.AddrFrom16([16]byte(data))) {
				return
			}
		}
	}
}

// valid is RFC 8415 §16.2 to §16.12: who must say who he is, and to whom.
func (m *message6) valid() bool {
	switch m.typ {
	case solicit6, confirm6, rebind6:
		return m.clientID != nil && m.serverID == nil
	case request6, renew6, release6, decline6:
		return m.clientID != nil && m.serverID != nil
	case information6:
		return m.numIAs == 0
	}
	return false
}

// requests reports whether the client asked for an option; one without a list
// takes all.
func (m *message6) requests(code uint16) bool {
	if !m.asks {
		return true
	}
	for i := 0; i+1 < len(m.wants); i += 2 {
		if binary.BigEndian.Uint16(m.wants[i:]) == code {
			return true
		}
	}
	return false
}
