// SPDX-License-Identifier: Apache-2.0

package routing

import "net/netip"

// Martian is why a packet's addresses make it impossible to forward or to accept,
// RFC 1812 §5.3.7. Zero is that they don't.
type Martian uint8

// The faults. A router that finds one drops the packet and sends no ICMP error;
// for LinkLocal it may.
const (
	NotMartian         Martian = iota
	MartianSource              // no host has this address
	MartianDestination         // no packet on a link has this destination
	LinkLocal                  // must not leave its link (RFC 3927 §2.7, RFC 4291 §2.5.6)
	NotUnicast                 // a group or everybody on the link: for multicast routing and delivery
)

var martianNames = [...]string{"none", "martian_source", "martian_destination", "link_local", "not_unicast"}

// String is the fault in one word, as a drop reason is written.
func (m Martian) String() string { return nameOf(martianNames[:], int(m)) }

// MartianInput checks the addresses of any packet from a link, as ip_route_input_slow
// and ip6_rcv_core of Linux do. It allocates nothing.
func MartianInput(src, dst netip.Addr) Martian {
	if dst.Is4() {
		return input4(src, dst)
	}
	return input6(src, dst)
}

// input4: 0.0.0.0 speaks to everybody only (RFC 1122 §3.2.1.3, a DHCP client),
// 127/8 never on a link. Class E is an address like others, as in Linux.
func input4(src, dst netip.Addr) Martian {
	s, d := src.As4(), dst.As4()
	everybody := isEverybody(d) || d == [4]byte{} && s == [4]byte{}
	switch {
	case s[0]&0xf0 == 0xe0 || isEverybody(s) || s[0] == 127:
		return MartianSource
	case everybody:
		return NotMartian
	case s[0] == 0 && (s != [4]byte{} || d[0]&0xf0 != 0xe0):
		return MartianSource
	case d[0] == 0 || d[0] == 127:
		return MartianDestination
	}
	return NotMartian
}

// input6: RFC 4291 §2.5.3 and §2.7; an IPv4-mapped source is none on a link
// (§2.5.5.2), and scopes 0 and 1 of a group don't cross one.
func input6(src, dst netip.Addr) Martian {
	switch {
	case src.IsMulticast() || src.IsLoopback() || src.Is4In6():
		return MartianSource
	case dst.IsLoopback() || dst.IsUnspecified():
		return MartianDestination
	case dst.IsMulticast() && dst.As16()[1]&0xf <= 1:
		return MartianDestination
	}
	return NotMartian
}

func isEverybody(a [4]byte) bool { return a == [4]byte{255, 255, 255, 255} }

// MartianForward checks the addresses of a packet that a router is about to forward
// (RFC 1812 §5.3.7, RFC 4291 §2.5.2 and §2.5.6): what
// MartianInput checks, and that both
// are unicast and go beyond their link. It allocates nothing.
//
// Linux forwards IPv4's 169.254.0.0/16 too; RFC 3927 §2.7 says a router must not.
func MartianForward(src, dst netip.Addr) Martian {
	m := MartianInput(src, dst)
	switch {
	case m != NotMartian:
		return m
	case dst.IsMulticast() || dst.Is4() && (isEverybody(dst.As4()) || dst.IsUnspecified()):
		return NotUnicast
	case src.IsUnspecified():
		return MartianSource
	case src.IsLinkLocalUnicast() || dst.IsLinkLocalUnicast():
		return LinkLocal
	}
	return NotMartian
}

// Special is one block of the registries of special-purpose addresses, RFC 6890
// §2.2.2 and §2.2.3, as updated by RFC 8190 and since.
type Special struct {
	Prefix      netip.Prefix
	Name        string
	Source      bool // may be a source address
	Destination bool // may be a destination address
	Forwardable bool // a router may forward it between external interfaces
	Global      bool // beyond the administrative domain too
}

// SpecialOf returns the smallest block that an address lies in; false if it is an
// ordinary address. For the control path: it tries all of the blocks.
func SpecialOf(a netip.Addr) (Special, bool) {
	var best Special
	for _, b := range specialTable {
		p := netip.MustParsePrefix(b.prefix)
		if p.Contains(a) && (!best.Prefix.IsValid() || p.Bits() > best.Prefix.Bits()) {
			best = Special{p, b.name, b.is&isSource != 0, b.is&isDestination != 0, b.is&isForwardable != 0, b.is&isGlobal != 0}
		}
	}
	return best, best.Prefix.IsValid()
}

// The columns of the registries.
const (
	isSource = 1 << iota
	isDestination
	isForwardable
	isGlobal

	link    = isSource | isDestination
	private = link | isForwardable
	public  = private | isGlobal
)

// specialTable is the IANA registries.
var specialTable = [...]struct {
	prefix string
	name   string
	is     uint8
}{
	{"0.0.0.0/8", "this network", isSource},
	{"0.0.0.0/32", "this host", isSource},
	{"10.0.0.0/8", "private use", private},
	{"100.64.0.0/10", "shared address space", private},
	{"127.0.0.0/8", "loopback", 0},
	{"169.254.0.0/16", "link local", link},
	{"172.16.0.0/12", "private use", private},
	{"192.0.0.0/24", "IETF protocol assignments", 0},
	{"192.0.0.0/29", "IPv4 service continuity", private},
	{"192.0.0.8/32", "IPv4 dummy address", isSource},
	{"192.0.0.9/32", "port control protocol anycast", public},
	{"192.0.0.10/32", "TURN anycast", public},
	{"192.0.0.170/31", "NAT64/DNS64 discovery", 0},
	{"192.0.2.0/24", "documentation", 0},
	{"192.31.196.0/24", "AS112", public},
	{"192.52.193.0/24", "AMT", public},
	{"192.88.99.0/24", "deprecated 6to4 relay anycast", private},
	{"192.168.0.0/16", "private use", private},
	{"192.175.48.0/24", "AS112 direct delegation", public},
	{"198.18.0.0/15", "benchmarking", private},
	{"198.51.100.0/24", "documentation", 0},
	{"203.0.113.0/24", "documentation", 0},
	{"240.0.0.0/4", "reserved", 0},
	{"255.255.255.255/32", "limited broadcast", isDestination},

	{"::1/128", "loopback", 0},
	{"::/128", "unspecified", isSource},
	{"::ffff:0:0/96", "IPv4-mapped", 0},
	{"64:ff9b::/96", "IPv4-IPv6 translation", public},
	{"64:ff9b:1::/48", "IPv4-IPv6 translation, local use", private},
	{"100::/64", "discard only", private},
	{"100:0:0:1::/64", "dummy prefix", isSource},
	{"2001::/23", "IETF protocol assignments", 0},
	{"2001::/32", "TEREDO", private},
	{"2001:1::1/128", "port control protocol anycast", public},
	{"2001:1::2/128", "TURN anycast", public},
	{"2001:1::3/128", "DNS-SD service registration anycast", public},
	{"2001:2::/48", "benchmarking", private},
	{"2001:3::/32", "AMT", public},
	{"2001:4:112::/48", "AS112", public},
	{"2001:20::/28", "ORCHIDv2", public},
	{"2001:30::/28", "drone remote ID", public},
	{"2001:db8::/32", "documentation", 0},
	{"2002::/16", "6to4", private},
	{"2620:4f:8000::/48", "AS112 direct delegation", public},
	{"3fff::/20", "documentation", 0},
	{"5f00::/16", "segment routing SIDs", private},
	{"fc00::/7", "unique local", private},
	{"fe80::/10", "link local", link},
}
