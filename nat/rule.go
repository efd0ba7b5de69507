// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"net/netip"
	"slices"

	"sluice/conntrack"
)

// Hook is a place on a packet's way where addresses are translated, with
// netfilter's name.
type Hook uint8

// The hooks. Prerouting and Output (of what the namespace's own stack sends)
// translate destinations, Input (to that stack) and Postrouting sources.
const (
	Prerouting Hook = iota
	Output
	Input
	Postrouting

	numHooks
)

// String is netfilter's word.
func (h Hook) String() string {
	return [...]string{"prerouting", "output", "input", "postrouting"}[h]
}

// source reports whether the hook translates sources.
func (h Hook) source() bool { return h >= Input }

// Kind is what a rule does, with nft(8)'s words.
type Kind uint8

// The kinds.
const (
	Accept     Kind = iota // no translation, and no rule after this one is asked
	SNAT                   // source to Target
	DNAT                   // destination to Target, a Service or what Map says
	Masquerade             // source to the address of the device that it leaves by
	Redirect               // destination to the address of the device that it came by
	Netmap                 // the address to the one with the same host bits in Prefix
	NAT64                  // an IPv6 packet to Prefix becomes IPv4, with a source of Target

	numKinds
)

// String is nft's word, where it has one.
func (k Kind) String() string {
	return [...]string{"accept", "snat", "dnat", "masquerade", "redirect", "netmap", "nat64"}[k]
}

// PortRange is a range of ports, or of identifiers of ICMP queries. The zero range
// is none given.
type PortRange struct{ Min, Max uint16 }

func (p PortRange) given() bool            { return p != PortRange{} }
func (p PortRange) contains(x uint16) bool { return p.Min <= x && x <= p.Max }

// AddrRange is a range of addresses of one family. The zero range is none given.
type AddrRange struct{ Min, Max netip.Addr }

func (a AddrRange) given() bool                { return a.Min.IsValid() }
func (a AddrRange) contains(x netip.Addr) bool { return a.Min.Compare(x) <= 0 && x.Compare(a.Max) <= 0 }

// One is the range of one address.
func One(a netip.Addr) AddrRange { return AddrRange{a, a} }

// Target is what an address, a port or both become.
type Target struct {
	Addrs   AddrRange // not given: the address stays
	Ports   PortRange // not given: the port stays if it can
	Service uint16    // of DNAT: one of the service's backends instead; 0: none
}

// Fields says which fields of a packet are the key of a Map.
type Fields uint8

// The fields. Of each pair at most one.
const (
	BySrcAddr Fields = 1 << iota
	ByDstAddr
	BySrcPort
	ByDstPort
	ByProto
)

// MapKey is one element's key. What isn't a field of the map is zero.
type MapKey struct {
	Addr  netip.Addr
	Port  uint16
	Proto uint8
}

// Map is nft's `dnat to ip daddr . tcp dport map @m`: a rule whose map has no
// element for a packet doesn't match it. It is not to be changed once compiled.
type Map struct {
	By       Fields
	Elements map[MapKey]Target
}

func (m *Map) key(t *conntrack.Tuple) (k MapKey) {
	switch {
	case m.By&BySrcAddr != 0:
		k.Addr = t.Src
	case m.By&ByDstAddr != 0:
		k.Addr = t.Dst
	}
	switch {
	case isICMP(t.Proto):
	case m.By&BySrcPort != 0:
		k.Port = t.SrcPort
	case m.By&ByDstPort != 0:
		k.Port = t.DstPort
	}
	if m.By&ByProto != 0 {
		k.Proto = t.Proto
	}
	return k
}

// Is is a condition that may be left open.
type Is uint8

// The values.
const (
	Either Is = iota
	Yes
	No
)

func (i Is) holds(x bool) bool { return i == Either || (i == Yes) == x }

// Match says which first packets a rule is about, as they are at its hook:
// all fields have to hold, and zero fields do.
type Match struct {
	In, Out            []uint16 // one of the devices
	NotIn, NotOut      bool     // none of them
	Src, Dst           []netip.Prefix
	NotSrc, NotDst     bool
	Protos             []uint8
	SrcPorts, DstPorts []PortRange // of TCP, UDP and SCTP only
	Own                Is          // the destination is an address of the namespace
	Hairpin            Is          // its destination was translated, and it leaves by the device that it came by
	Mark, MarkMask     uint32      // mark & MarkMask == Mark
}

// Rule is what is done with connections whose first packet it matches.
type Rule struct {
	Name  string // for errors and listings
	Hook  Hook
	Match Match
	Kind  Kind

	Target     Target
	Map        *Map         // instead of Target
	Prefix     netip.Prefix // of Netmap and NAT64
	Device     uint16       // of NAT64, instead of Target: whose address the source becomes
	Shift      bool         // of DNAT: the first port of Match.DstPorts becomes that of Target.Ports, the next the next
	Random     bool         // random and fully-random, which are one for Linux
	Persistent bool         // the same address for all connections of a source
}

// matches reports whether the rule is about a connection.
func (m *Match) matches(f *Flow, t *conntrack.Tuple) bool {
	p := f.Pending
	return devices(m.In, m.NotIn, f.In) && devices(m.Out, m.NotOut, f.Out) &&
		prefixes(m.Src, m.NotSrc, t.Src) && prefixes(m.Dst, m.NotDst, t.Dst) &&
		m.transport(t) && p.Mark&m.MarkMask == m.Mark && m.Own.holds(f.Own) &&
		m.Hairpin.holds(p.Status&conntrack.DstNAT != 0 && f.In == f.Out)
}

func (m *Match) transport(t *conntrack.Tuple) bool {
	if len(m.Protos) > 0 && !slices.Contains(m.Protos, t.Proto) {
		return false
	}
	if len(m.SrcPorts)+len(m.DstPorts) > 0 && isICMP(t.Proto) {
		return false
	}
	return ports(m.SrcPorts, t.SrcPort) && ports(m.DstPorts, t.DstPort)
}

func devices(of []uint16, not bool, x uint16) bool {
	return len(of) == 0 || slices.Contains(of, x) != not
}

func prefixes(of []netip.Prefix, not bool, x netip.Addr) bool {
	if len(of) == 0 {
		return true
	}
	for _, p := range of {
		if p.Contains(x) {
			return !not
		}
	}
	return not && of[0].Addr().Is4() == x.Is4() // nft's `ip saddr !=` is about IPv4 only
}

func ports(of []PortRange, x uint16) bool {
	if len(of) == 0 {
		return true
	}
	for _, p := range of {
		if p.contains(x) {
			return true
		}
	}
	return false
}
