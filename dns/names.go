// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	wire "github.com/miekg/dns"
)

// nameTTL is for how many seconds a container's name may be kept elsewhere: it may
// have another address soon.
const nameTTL = 5

// gateway is what a network's gateway is called in the network's domain.
const gateway = "gateway"

// Network is a network whose containers have names.
type Network struct {
	Name     string
	Subnets  []netip.Prefix
	Gateways []netip.Addr
	Hosts    []Host
}

// Host is a container in a network.
type Host struct {
	Name    string
	Aliases []string
	Addrs   []netip.Addr
}

// Names are those of a namespace: NAME and NAME.NETWORK, both with and without the
// domain behind, for a container's name and each of its aliases; gateway.NETWORK.DOMAIN;
// and the reverse names of all addresses of the subnets. It is immutable.
type Names struct {
	domain  string
	serial  uint32
	subnets []netip.Prefix
	addrs   map[string][]netip.Addr // by name, in lower case, with the last dot
	// inner are the names in the domain that only have names below them.
	inner   map[string]bool
	reverse map[netip.Addr][]string
}

// NewNames makes the names of some networks. The serial number is that of the zone
// (RFC 1035 §3.3.13), and grows.
func NewNames(c *Config, serial uint32, networks []Network) *Names {
	z := &Names{
		domain: c.domain(), serial: serial,
		addrs: make(map[string][]netip.Addr), inner: make(map[string]bool), reverse: make(map[netip.Addr][]string),
	}
	for i := range networks {
		z.addNetwork(&networks[i])
	}
	z.branch(z.domain)
	return z
}

func (z *Names) addNetwork(n *Network) {
	z.subnets = append(z.subnets, n.Subnets...)
	in := strings.ToLower(n.Name) + "." + z.domain
	for _, a := range n.Gateways {
		z.add(gateway+"."+in, a)
		z.reverse[a] = append(z.reverse[a], gateway+"."+in)
	}
	z.branch(in)
	for i := range n.Hosts {
		z.addHost(&n.Hosts[i], n.Name, in)
	}
}

func (z *Names) addHost(h *Host, network, in string) {
	for i, name := range append([]string{h.Name}, h.Aliases...) {
		if CheckName(name) != nil {
			continue // a name of an attachment that is none of a host
		}
		name = strings.ToLower(name) + "."
		for _, a := range h.Addrs {
			z.add(name, a)
			z.add(name+z.domain, a)
			z.add(name+strings.ToLower(network)+".", a)
			z.add(name+in, a)
			if i == 0 {
				z.reverse[a] = append(z.reverse[a], name+in)
			}
		}
		z.branch(name + in)
		z.branch(name + z.domain)
	}
}

func (z *Names) add(name string, a netip.Addr) {
	if len(name) <= 254 && !slices.Contains(z.addrs[name], a) {
		z.addrs[name] = append(z.addrs[name], a)
	}
}

// branch notes that there is something at, or below, each of the names between one
// and the domain's.
func (z *Names) branch(name string) {
	for z.within(name) {
		z.inner[name] = true
		_, name, _ = strings.Cut(name, ".")
	}
}

// within reports whether a name is the domain, or in it.
func (z *Names) within(name string) bool {
	return name == z.domain || strings.HasSuffix(name, "."+z.domain)
}

// Name is a name and its addresses.
type Name struct {
	Name  string       `json:"name"`
	Addrs []netip.Addr `json:"addrs"`
}

// All are the names that end in the domain, in order.
func (z *Names) All() []Name {
	var out []Name
	for _, name := range slices.Sorted(maps.Keys(z.addrs)) {
		if z.within(name) {
			out = append(out, Name{strings.TrimSuffix(name, "."), z.addrs[name]})
		}
	}
	return out
}

// answer answers a question about what is the namespace's own; false: it is not.
func (z *Names) answer(q question) (*wire.Msg, bool) {
	if m, ok := special(q); ok {
		return m, true
	}
	if addrs, known := z.addrs[q.name]; known {
		return z.records(q, addrs), true
	}
	if z.within(q.name) {
		return z.unknown(q, z.domain, z.inner[q.name]), true
	}
	if p, ok := reversed(q.name); ok {
		return z.pointers(q, p)
	}
	return nil, false
}

// records are the addresses of a name, and none of other types.
func (z *Names) records(q question, addrs []netip.Addr) *wire.Msg {
	m := ours()
	for _, a := range addrs {
		if q.qtype == wire.TypeA && a.Is4() || q.qtype == wire.TypeAAAA && a.Is6() || q.qtype == wire.TypeANY {
			m.Answer = append(m.Answer, addressRecord(q.name, a, nameTTL))
		}
	}
	if len(m.Answer) > 0 {
		return m
	}
	apex := q.name
	if z.within(apex) {
		apex = z.domain
	}
	return z.unknown(q, apex, true)
}

// unknown is what is said of a name that has not the type asked for, or that is not
// there at all (RFC 2308 §2).
func (z *Names) unknown(q question, apex string, exists bool) *wire.Msg {
	m := ours()
	if q.name == z.domain && (q.qtype == wire.TypeSOA || q.qtype == wire.TypeNS || q.qtype == wire.TypeANY) {
		m.Answer = z.apex(q.qtype)
		return m
	}
	if !exists {
		m.Rcode = wire.RcodeNameError
	}
	m.Ns = []wire.RR{z.soa(apex)}
	return m
}

func (z *Names) apex(qtype uint16) (out []wire.RR) {
	if qtype != wire.TypeNS {
		out = append(out, z.soa(z.domain))
	}
	if qtype != wire.TypeSOA {
		out = append(out, &wire.NS{Hdr: header(z.domain, wire.TypeNS, nameTTL), Ns: "ns." + z.domain})
	}
	return out
}

func (z *Names) soa(apex string) wire.RR {
	return &wire.SOA{
		Hdr: header(apex, wire.TypeSOA, nameTTL), Ns: "ns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: z.serial, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: nameTTL,
	}
}

// pointers answers for the reverse names of the subnets. What a subnet does not
// contain as a whole is not ours.
func (z *Names) pointers(q question, p netip.Prefix) (*wire.Msg, bool) {
	if !slices.ContainsFunc(z.subnets, func(s netip.Prefix) bool { return s.Bits() <= p.Bits() && s.Contains(p.Addr()) }) {
		return nil, false
	}
	whole := p.IsSingleIP()
	names := z.reverse[p.Addr()]
	if !whole || len(names) == 0 || q.qtype != wire.TypePTR && q.qtype != wire.TypeANY {
		return z.unknown(q, q.name, !whole || len(names) > 0), true
	}
	m := ours()
	for _, name := range names {
		m.Answer = append(m.Answer, &wire.PTR{Hdr: header(q.name, wire.TypePTR, nameTTL), Ptr: name})
	}
	return m, true
}

// special are the names that mean the same everywhere and are nobody's to forward
// (RFC 6761 §6.3, §6.4).
func special(q question) (*wire.Msg, bool) {
	switch {
	case q.name == "localhost." || strings.HasSuffix(q.name, ".localhost."):
		m := ours()
		if q.qtype == wire.TypeA {
			m.Answer = []wire.RR{addressRecord(q.name, netip.AddrFrom4([4]byte{127, 0, 0, 1}), nameTTL)}
		}
		if q.qtype == wire.TypeAAAA {
			m.Answer = []wire.RR{addressRecord(q.name, netip.IPv6Loopback(), nameTTL)}
		}
		return m, true
	case q.name == "invalid." || strings.HasSuffix(q.name, ".invalid."):
		m := ours()
		m.Rcode = wire.RcodeNameError
		return m, true
	}
	return nil, false
}

// ours is an answer of this server's own authority.
func ours() *wire.Msg {
	return &wire.Msg{MsgHdr: wire.MsgHdr{Authoritative: true}}
}

func header(name string, rrtype uint16, ttl uint32) wire.RR_Header {
	return wire.RR_Header{Name: name, Rrtype: rrtype, Class: wire.ClassINET, Ttl: ttl}
}

func addressRecord(name string, a netip.Addr, ttl uint32) wire.RR {
	if a.Is4() {
		return &wire.A{Hdr: header(name, wire.TypeA, ttl), A: a.AsSlice()}
	}
	return &wire.AAAA{Hdr: header(name, wire.TypeAAAA, ttl), AAAA: a.AsSlice()}
}

const (
	arpa4 = ".in-addr.arpa."
	arpa6 = ".ip6.arpa."
)

// reversed reads a reverse name (RFC 1035 §3.5, RFC 3596 §2.5): the addresses that it
// is about, a single one if it is complete.
func reversed(name string) (netip.Prefix, bool) {
	if s, ok := strings.CutSuffix(name, arpa4); ok {
		return digits(s, 4, 10, 8)
	}
	if s, ok := strings.CutSuffix(name, arpa6); ok {
		return digits(s, 32, 16, 4)
	}
	return netip.Prefix{}, false
}

// digits reads up to most labels, the last one first, of so many bits each.
func digits(s string, most, base, width int) (netip.Prefix, bool) {
	labels := strings.Split(s, ".")
	if len(labels) > most {
		return netip.Prefix{}, false
	}
	b := make([]byte, most*width/8)
	for i, label := range slices.Backward(labels) {
		n, err := strconv.ParseUint(label, base, width)
		if err != nil || len(label) > 3 || len(label) > 1 && (base == 16 || label[0] == '0') {
			return netip.Prefix{}, false
		}
		at := (len(labels) - 1 - i) * width
		b[at/8] |= byte(n) << (8 - width - at%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, len(labels)*width), true
}
