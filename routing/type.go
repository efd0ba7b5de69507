// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"strconv"
)

// Type is what a route does with a packet, ip-route(8). Zero is a type that is
// not stated: Unicast to Add, any to Delete, and "no route" in a Result.
type Type uint8

// The types, in the kernel's order (RTN_ in rtnetlink(7)).
const (
	TypeNone    Type = iota
	Unicast          // on to the next hop
	Local            // the namespace's own address
	Broadcast        // to everybody on the link
	Anycast          // the nearest of several; delivered like Local
	Multicast        // a group
	Blackhole        // dropped without a word
	Unreachable      // dropped; host unreachable (ICMP) or address unreachable (ICMPv6)
	Prohibit         // dropped; administratively prohibited
	Throw            // back to the rules, as if the table had no route
)

var typeNames = [...]string{
	"none", "unicast", "local", "broadcast", "anycast", "multicast",
	"blackhole", "unreachable", "prohibit", "throw",
}

// String is the type in ip-route(8)'s word.
func (t Type) String() string { return nameOf(typeNames[:], int(t)) }

// MarshalText makes JSON show the word.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (t *Type) UnmarshalText(text []byte) error {
	n, ok := indexOf(typeNames[:], string(text))
	if !ok {
		return fmt.Errorf("unknown route type %q", text)
	}
	*t = Type(n)
	return nil
}

// refuses reports whether the route is an answer by itself and has no next hop.
func (t Type) refuses() bool { return t >= Blackhole }

// home is the table of a route that names none, as in ip-route(8).
func (t Type) home() TableID {
	switch t {
	case Local, Broadcast, Anycast:
		return TableLocal
	default:
		return TableMain
	}
}

// Scope is how far away the destination of an IPv4 route is. Zero is not stated:
// Add derives it as ip-route(8) says, Delete takes any. IPv6 has none, and its
// routes are all ScopeGlobal.
type Scope uint8

// The scopes, widest first.
const (
	ScopeNone    Scope = iota
	ScopeGlobal        // behind a gateway
	ScopeSite          // inside the site
	ScopeLink          // on the link itself
	ScopeHost          // an own address
	ScopeNowhere       // does not exist
)

var scopeNames = [...]string{"none", "global", "site", "link", "host", "nowhere"}

// String is the scope in ip-route(8)'s word.
func (s Scope) String() string { return nameOf(scopeNames[:], int(s)) }

// MarshalText makes JSON show the word.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *Scope) UnmarshalText(text []byte) error {
	n, ok := indexOf(scopeNames[:], string(text))
	if !ok {
		return fmt.Errorf("unknown scope %q", text)
	}
	*s = Scope(n)
	return nil
}

// Proto is who made a route or a rule; the numbers are rtnetlink(7)'s. It has no
// effect but on what Delete and a Filter match. Zero is not stated.
type Proto uint8

// The origins that this package itself writes; the others are names and numbers.
const (
	ProtoKernel Proto = 2 // came with an address
	ProtoBoot   Proto = 3 // what Add assumes of a route
	ProtoStatic Proto = 4 // an administrator's
)

// protoNames is /etc/iproute2/rt_protos.
var protoNames = [256]string{
	0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated",
	9: "ra", 10: "mrt", 11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp",
	15: "ntk", 16: "dhcp", 18: "keepalived", 42: "babel", 186: "bgp", 187: "isis",
	188: "ospf", 189: "rip", 192: "eigrp",
}

// String is the name of the origin, or its number if it has none.
func (p Proto) String() string {
	if name := protoNames[p]; name != "" {
		return name
	}
	return strconv.Itoa(int(p))
}

// MarshalText makes JSON show what String says.
func (p Proto) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a name or a number up to 255.
func (p *Proto) UnmarshalText(text []byte) error {
	if n, ok := indexOf(protoNames[:], string(text)); ok && len(text) > 0 {
		*p = Proto(n)
		return nil
	}
	n, err := strconv.ParseUint(string(text), 0, 8)
	if err != nil {
		return fmt.Errorf("unknown protocol %q", text)
	}
	*p = Proto(n)
	return nil
}

// nameOf is the word of a number, for enumerations of which a peer may know more.
func nameOf(names []string, n int) string {
	if n >= len(names) {
		return "unknown"
	}
	return names[n]
}

func indexOf(names []string, word string) (int, bool) {
	for n, name := range names {
		if name == word {
			return n, true
		}
	}
	return 0, false
}
