// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"encoding/binary"
	"errors"

	wire "github.com/miekg/dns"
)

const (
	// MaxQuery bounds a query in bytes: a name, and options that nobody needs more of.
	MaxQuery = 1232
	// udpSize is the longest answer over UDP, and what upstreams are told: it fits into
	// the smallest MTU of IPv6 (DNS flag day 2020).
	udpSize = 1232
	// headerLen is that of a message (RFC 1035 §4.1.1).
	headerLen = 12
)

// request is a query that was understood.
type request struct {
	question
	id     uint16
	spelt  string // the name as it was asked for
	class  uint16
	rd, ad bool
	edns   bool
	size   int // of the longest answer; 0: no limit but the protocol's
}

// read takes a query apart. If there is nothing to look up, the answer says why; if it
// is nil, too, there is none: what has no header, or is an answer itself, is not
// answered, so that two servers do not talk to each other for ever.
func read(b []byte, udp bool) (*request, *wire.Msg) {
	if len(b) < headerLen || b[2]&0x80 != 0 {
		return nil, nil
	}
	r := &request{id: binary.BigEndian.Uint16(b)}
	if udp {
		r.size = wire.MinMsgSize
	}
	if opcode := int(b[2]>>3) & 15; opcode != wire.OpcodeQuery {
		return r, &wire.Msg{MsgHdr: wire.MsgHdr{Opcode: opcode, Rcode: wire.RcodeNotImplemented}}
	}
	if !plausible(b) {
		return r, failure(wire.RcodeFormatError)
	}
	m, err := unpack(b)
	if err != nil || len(m.Question) != 1 { // which a header alone promises, too
		return r, failure(wire.RcodeFormatError)
	}
	r.rd, r.cd, r.ad = m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData
	q := m.Question[0]
	r.spelt, r.class, r.name, r.qtype = q.Name, q.Qclass, wire.CanonicalName(q.Name), q.Qtype
	if opt := m.IsEdns0(); opt != nil {
		if r.edns, r.do = true, opt.Do(); opt.Version() != 0 {
			return r, failure(wire.RcodeBadVers)
		}
		if udp {
			r.size = min(max(int(opt.UDPSize()), wire.MinMsgSize), udpSize)
		}
	}
	if q.Qclass != wire.ClassINET || !askable(q.Qtype) {
		return r, failure(wire.RcodeRefused)
	}
	return r, nil
}

var errPanic = errors.New("the parser gave up")

// unpack reads a message. Should the parser have a fault that somebody finds, it is not to
// take the network of all along.
func unpack(b []byte) (m *wire.Msg, err error) {
	defer func() {
		if recover() != nil {
			m, err = nil, errPanic
		}
	}()
	m = new(wire.Msg)
	return m, m.Unpack(b)
}

// plausible reports whether a message has what a query has: one question, and beside
// it an OPT record at most.
func plausible(b []byte) bool {
	count := func(at int) uint16 { return binary.BigEndian.Uint16(b[at:]) }
	return len(b) <= MaxQuery && count(4) == 1 && count(6) == 0 && count(8) == 0 && count(10) <= 1
}

// askable reports whether a type is one that a zone may have, or ANY; others are about
// transfers of zones, and the protocol itself (RFC 6895 §3.1).
func askable(qtype uint16) bool {
	return qtype != 0 && qtype != wire.TypeOPT && (qtype < 128 || qtype > 254)
}

func failure(rcode int) *wire.Msg { return &wire.Msg{MsgHdr: wire.MsgHdr{Rcode: rcode}} }

// reply makes m the answer to the request, in bytes. It changes m, which may be a part
// of an answer only if it is not kept elsewhere.
func (r *request) reply(m *wire.Msg) []byte {
	m.Id, m.Response, m.RecursionAvailable = r.id, true, true
	m.RecursionDesired, m.CheckingDisabled = r.rd, r.cd
	m.AuthenticatedData = m.AuthenticatedData && (r.ad || r.do)
	m.Extra, m.Compress = nil, true
	if r.spelt != "" {
		m.Question = []wire.Question{{Name: r.spelt, Qtype: r.qtype, Qclass: r.class}}
	}
	if !r.do {
		m.Answer, m.Ns = unsigned(m.Answer, r.qtype), unsigned(m.Ns, r.qtype)
	}
	if r.edns {
		m.SetEdns0(udpSize, r.do)
	} else if m.Rcode > 15 {
		m.Rcode = wire.RcodeServerFailure
	}
	if r.size > 0 {
		m.Truncate(r.size)
	}
	b, err := m.Pack()
	if err == nil {
		return b
	}
	if m.Rcode == wire.RcodeServerFailure && len(m.Answer) == 0 {
		return nil
	}
	return r.reply(failure(wire.RcodeServerFailure))
}

// unsigned leaves out what only they get who asked for it (RFC 4035 §3.2.1).
func unsigned(all []wire.RR, qtype uint16) (out []wire.RR) {
	for _, rr := range all {
		switch t := rr.Header().Rrtype; t {
		case wire.TypeRRSIG, wire.TypeNSEC, wire.TypeNSEC3:
			if t == qtype {
				out = append(out, rr)
			}
		default:
			out = append(out, rr)
		}
	}
	return out
}
