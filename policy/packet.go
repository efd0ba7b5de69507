// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"net/netip"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/policy/nft"
)

// Device is what rules ask of a device. It isn't changed while packets refer to it.
type Device struct {
	Index  uint32
	Type   uint16 // ARPHRD_*
	Group  uint32
	Kind   string // "bridge", "vrf"…: of meta iifkind
	name   value
	kind   value
	Bridge *Device // of which it is a port; nil: of none
}

// NewDevice makes a device of that name, of which 15 bytes count.
func NewDevice(name string, d Device) *Device {
	d.name, d.kind = nameOf(name), nameOf(d.Kind)
	return &d
}

// String is the device's name; that of none is empty.
func (d *Device) String() string {
	if d == nil {
		return ""
	}
	var b [16]byte
	d.name.put(b[:])
	return string(bytes.TrimRight(b[:], "\x00"))
}

// nameOf is a name as it lies in a register.
func nameOf(s string) value {
	var b [16]byte
	copy(b[:15], s)
	return number(b[:])
}

// The ways in which a frame was addressed: meta pkttype, PACKET_* of packet(7).
const (
	PacketHost = iota
	PacketBroadcast
	PacketMulticast
	PacketOther
)

// Env is what a namespace knows and rules may ask for. Functions may be nil: what
// they would answer then isn't there, and the rule ends.
type Env struct {
	// FIB asks the routes.
	FIB func(p *Packet, q *FIBQuery) FIBAnswer
	// Route is what is known of the route that the packet has.
	Route func(p *Packet) RouteAnswer
	// Connection is the connection with that original tuple, if it was confirmed.
	Connection func(zone uint16, t *conntrack.Tuple) conntrack.Conn
}

// FIBQuery is one question to the routes: nft(8), FIB EXPRESSIONS.
type FIBQuery struct {
	Addr                   netip.Addr // saddr or daddr
	Source, Mark, IIF, OIF bool
	Type                   bool // the type of the address is asked for, not the device
}

// FIBAnswer is the answer; a Device of nil is none.
type FIBAnswer struct {
	Device *Device
	Type   uint8 // RTN_*: 1 unicast, 2 local, 3 broadcast…
}

// RouteAnswer is what `rt` says.
type RouteAnswer struct {
	MTU     uint16 // of the route and back, as tcpmss wants it: without headers
	NextHop netip.Addr
	ClassID uint32
}

// Packet is a packet at a hook, and all that rules may know of it. The caller fills
// in what it knows; rules may change what stands below Mark, and the frame.
type Packet struct {
	Frame *packet.Frame // parsed without fault
	Env   *Env
	In    *Device // nil: none, as in output
	Out   *Device // nil: none yet, as in prerouting
	Now   int64   // nanoseconds since some moment, never going back
	Wall  int64   // nanoseconds since 1970, for meta time, hour and day
	Zone  int     // seconds east of Greenwich, for the same
	CPU   uint32

	// Of a later fragment: the ports of its flow (of ICMP type<<8|code and the
	// identifier), if they are known. Otherwise it has no transport header.
	Ported           bool
	SrcPort, DstPort uint16

	PktType uint8
	Socket  bool // it was sent by a socket of the namespace, with these:
	UID     uint32
	GID     uint32

	// The connection. Conn is zero while it is Pending; both are if there is none.
	Conn    conntrack.Conn
	Pending *conntrack.Pending
	Dir     conntrack.Dir
	State   conntrack.State
	Tracked bool // false: conntrack has not seen it, so that it is neither untracked nor invalid

	Mark     uint32
	Priority uint32
	// RouteMark is the mark by which a packet of the namespace's own is routed: that from
	// before output, until a chain of type route has changed it.
	RouteMark uint32
	NoTrack   bool         // set by notrack
	Trace     bool         // meta nftrace: its way is recorded
	Logs      bool         // a log statement spoke, see Evaluator.Logs
	Fault     packet.Fault // of a rewriting that left no packet: it is to be dropped
}

// RejectKind is how the sender of a refused packet is told.
type RejectKind uint8

// The kinds.
const (
	RejectICMP RejectKind = iota + 1 // or ICMPv6, by the packet: with Verdict.Type and Code
	RejectTCP                        // a reset
)

// Code is what becomes of a packet at a hook.
type Code uint8

// The codes.
const (
	Accept Code = iota
	Drop
	Reject    // drop, and tell the sender: Verdict.Reject
	Translate // accept, and do Verdict.NAT: only of NAT
)

// Verdict is what becomes of a packet, and why. Zero: it goes on, and no chain had
// anything to say.
type Verdict struct {
	Code   Code
	Reject RejectKind
	Type   uint8 // of the ICMP or ICMPv6 error
	ICMP   uint8 // its code
	NAT    NATRequest
	Why    Evidence
}

// Evidence is the rule that gave a verdict; Rule nil: the policy of a base chain;
// Chain nil: nobody.
type Evidence struct {
	Table *nft.Table
	Chain *nft.Chain
	Rule  *nft.Rule
}

// NATRequest is what a rule wants a new connection to be translated to. Addresses
// that are zero stay, or are those of the device of Masquerade and Redirect; ports
// that are zero stay if they can.
type NATRequest struct {
	Kind                nft.NATKind
	MinAddr, MaxAddr    netip.Addr
	MinPort, MaxPort    uint16
	Random, FullyRandom bool
	Persistent          bool
	Netmap              bool
}
