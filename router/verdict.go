// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"

	"sluice/fragment"
	"sluice/neigh"
	"sluice/packet"
	"sluice/trace"
)

// Packet is a frame that a router is asked about.
type Packet struct {
	// Frame is IP, as it was received, parsed without fault; without a VLAN tag unless
	// it was sent to a group, and so goes no further.
	Frame *packet.Frame
	// Device is where it came in. Of what the namespace's own stack sends it is
	// the one that the stack chose.
	Device uint16
	Port   uint16 // container's port that it came from; 0: none
	Local  bool   // the namespace's own stack sends it
	Said   bool   // or rather the router itself, about another packet: Sink.Say
	Mark   uint32 // that rules ask for (fwmark)
	// Limit is what fits behind the next hop's port of a bridge, if the caller knows
	// that it is less than the device's MTU; 0: not. Who asks again because of it
	// says which Ports the Verdict had before, so that a fragment is followed once.
	Limit int
	Ports fragment.Ports
	Now   neigh.Tick // seconds

	// Tracked says that Ports are those of a fragment, which the caller had from
	// Router.Fragment; Translated that the destination isn't what the sender wrote: it
	// hears of no shorter way to it. Hooks may be nil.
	Tracked, Translated bool
	Hooks               Hooks
	Delivered           bool // it was for the namespace itself, who refuses it
	// As is what Hooks.Leave makes of the packet, if that is one of the other family.
	As As

	Nanos int64 // of a clock that only goes forward: for rates
}

// Sink takes what a router makes itself. It copies what it keeps, and must not
// call the router.
type Sink interface {
	// Emit sends a whole Ethernet frame by a device. Over a link its MAC
	// addresses are zero.
	Emit(device uint16, vnet packet.Vnet, label packet.Label, frame []byte)
	// Local gives a whole Ethernet frame to the namespace's own stack, as if it had
	// come in by the device.
	Local(device uint16, vnet packet.Vnet, frame []byte)
	// Say sends a whole Ethernet frame as if the namespace's own stack had it sent, by a
	// device: what the router has made because of a packet that came by that, with those
	// Hooks, or nil. False if there is nobody who would see it: then the router sends it
	// itself.
	Say(device uint16, about Hooks, frame []byte) bool
	// Drop counts frames of an ingress port that were held and are lost now.
	Drop(port uint16, reason trace.Reason, frames int)
}

// Hooks is who translates addresses, where a router makes frames of its own of a
// packet, or about it.
type Hooks interface {
	// Leave makes of a copy of the packet what leaves by a device, to a next hop.
	// A reason other than trace.None: it doesn't.
	Leave(f *packet.Frame, out uint16, via netip.Addr) trace.Reason
	// Tell makes of an ICMP error about a packet of the own stack's what that understands,
	// and hears of the reset that answers one. What others are told comes by Sink.Say.
	Tell(f *packet.Frame)
}

// Action is what is to be done with a frame.
type Action uint8

// The actions.
const (
	Drop     Action = iota // count it; what there is to say was said
	Deliver                // to the namespace's own stack
	Forward                // on to the next hop
	Consumed               // forget it: it is held, or goes on as another frame
)

// String is the action in one word.
func (a Action) String() string {
	names := [...]string{"drop", "deliver", "forward", "consumed"}
	if int(a) < len(names) {
		return names[a]
	}
	return "unknown"
}

// Verdict is what becomes of a packet. Fields that an action doesn't name are zero, but
// those of a Forward may be there if Hooks have made a Drop of it.
type Verdict struct {
	Action Action
	Reason trace.Reason // of Drop
	Device uint16       // Deliver: whose address it is; Forward: out

	// Of Forward.

	Via      netip.Addr // the next hop
	Dst, Src packet.MAC // for the Ethernet header; zero over a link
	Link     bool       // Device is a link: the MAC addresses are left alone
	TTL      bool       // take one from the hop limit
	// MTU is what fits, and Growth by how much packets of the flow are longer then, as
	// they are of the other family. Whoever remembers the verdict asks again for a frame
	// whose L3Len is larger than MTU-Growth and, with TTL, for one whose HopLimit is 1
	// or 0.
	MTU, Growth int
	MSS         uint16    // of TCP, to be clamped if it is a SYN; 0: not
	Neigh       neigh.Ref // of the next hop, to be touched; zero over a link
	// Ports are those of a fragment's flow, if they were asked for; see Packet.
	Ports fragment.Ports

	// Epoch, with Neigh if that is not zero, is how long the verdict holds for the
	// flow, if it is Cacheable.
	Epoch     Epoch
	Cacheable bool
}
