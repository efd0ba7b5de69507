// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	wire "github.com/miekg/dns"

	"sluice/nat"
)

// mostSynthesised bounds the life of an address that is made of an IPv4 one, if
// nothing said how long there is no IPv6 one: RFC 6147 §5.1.7.
const mostSynthesised = 600

// CheckPrefix64 wants a prefix that IPv4 addresses can be embedded in: RFC 6052 §2.2.
func CheckPrefix64(p netip.Prefix) error {
	switch p.Bits() {
	case 32, 40, 48, 56, 64, 96:
		if a := p.Addr(); a.Is6() && !a.Is4In6() && p == p.Masked() && a.As16()[8] == 0 {
			return nil
		}
	}
	return fmt.Errorf("prefix %s: want one of IPv6 with 32, 40, 48, 56, 64 or 96 bits, of which 64 to 71 are zero, as 64:ff9b::/96 (RFC 6052)", p)
}

// fetcher gets the answer to a question; false: not without waiting.
type fetcher func(question) (*wire.Msg, bool)

// complete answers a question by what can be fetched, and what DNS64 makes of that.
// Who asks for signatures and checks them himself gets what there is (RFC 6147 §5.5).
func (c *Config) complete(q question, fetch fetcher) (*wire.Msg, bool) {
	if !c.Prefix64.IsValid() || q.do && q.cd {
		return fetch(q)
	}
	switch {
	case q.name == "ipv4only.arpa.":
		return c.ipv4only(q), true
	case q.qtype == wire.TypePTR:
		if p, ok := reversed(q.name); ok && p.IsSingleIP() && c.Prefix64.Contains(p.Addr()) {
			return c.pointer(q, nat.Extract(c.Prefix64, p.Addr()), fetch)
		}
	case q.qtype == wire.TypeAAAA:
		return c.synthesise(q, fetch)
	}
	return fetch(q)
}

// synthesise makes IPv6 addresses of a name that has only IPv4 ones.
func (c *Config) synthesise(q question, fetch fetcher) (*wire.Msg, bool) {
	six, ok := fetch(q)
	if !ok || six.Rcode == wire.RcodeNameError || native(six) {
		return six, ok
	}
	ask := q
	ask.qtype = wire.TypeA
	four, ok := fetch(ask)
	if !ok || four.Rcode != wire.RcodeSuccess || !answers(four, wire.TypeA) {
		return six, ok
	}
	m := &wire.Msg{MsgHdr: wire.MsgHdr{Authoritative: four.Authoritative}}
	m.Answer = c.embedded(four.Answer, absence(six))
	if !answers(m, wire.TypeAAAA) {
		return six, true
	}
	return m, true
}

// embedded are records with IPv6 addresses in place of IPv4 ones, which live for so
// many seconds at most, and without the signatures of what was changed.
func (c *Config) embedded(all []wire.RR, ttl uint32) (out []wire.RR) {
	for _, rr := range all {
		switch r := rr.(type) {
		case *wire.A:
			if a, ok := netip.AddrFromSlice(r.A.To4()); ok && translatable(a) {
				out = append(out, addressRecord(r.Hdr.Name, nat.Embed(c.Prefix64, a), min(ttl, r.Hdr.Ttl)))
			}
		case *wire.RRSIG:
		default:
			out = append(out, rr)
		}
	}
	return out
}

// native takes out what is no IPv6 address (RFC 6147 §5.1.4), and reports whether
// there is one.
func native(m *wire.Msg) bool {
	kept := m.Answer[:0]
	for _, rr := range m.Answer {
		if r, ok := rr.(*wire.AAAA); ok && r.AAAA.To4() != nil { // ::ffff:0:0/96
			continue
		}
		kept = append(kept, rr)
	}
	m.Answer = kept
	return m.Rcode == wire.RcodeSuccess && answers(m, wire.TypeAAAA)
}

// absence is for how long there will be no IPv6 address, in seconds.
func absence(m *wire.Msg) uint32 {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*wire.SOA); ok {
			return soa.Hdr.Ttl
		}
	}
	return mostSynthesised
}

// translatable reports whether packets to an address can come out of a translator.
func translatable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// pointer is RFC 6147 §5.3.1 (2): the name of an address in the prefix is an alias of
// that of the IPv4 address.
func (c *Config) pointer(q question, a netip.Addr, fetch fetcher) (*wire.Msg, bool) {
	ask := q
	ask.name = reverseName(a)
	known, ok := fetch(ask)
	if !ok {
		return nil, false
	}
	m := &wire.Msg{MsgHdr: wire.MsgHdr{Authoritative: known.Authoritative, Rcode: known.Rcode}, Ns: known.Ns}
	alias := &wire.CNAME{Hdr: header(q.name, wire.TypeCNAME, mostSynthesised), Target: ask.name}
	m.Answer = append([]wire.RR{alias}, known.Answer...)
	return m, true
}

// reverseName is that of an IPv4 address.
func reverseName(a netip.Addr) string {
	b := a.As4()
	var s strings.Builder
	for i := len(b) - 1; i >= 0; i-- {
		s.WriteString(strconv.Itoa(int(b[i])) + ".")
	}
	return s.String() + arpa4[1:]
}

// ipv4only is the name by which hosts learn the prefix (RFC 7050), which nobody else
// is asked for (RFC 8880 §7.1).
func (c *Config) ipv4only(q question) *wire.Msg {
	m := ours()
	for _, last := range []byte{170, 171} {
		a := netip.AddrFrom4([4]byte{192, 0, 0, last})
		if q.qtype == wire.TypeAAAA {
			a = nat.Embed(c.Prefix64, a)
		}
		if q.qtype == wire.TypeA || q.qtype == wire.TypeAAAA {
			m.Answer = append(m.Answer, addressRecord(q.name, a, mostSynthesised))
		}
	}
	return m
}
