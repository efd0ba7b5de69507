// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"bytes"

	"sluice/conntrack"
	"sluice/packet"
)

// The bounds of SYNs that wait, RFC 5382 REQ-4.
const (
	holdSeconds = 6
	maxHeld     = 1024
	heldBytes   = 128 // of a frame: all that an error quotes of a SYN
)

// HeldSYN is a SYN from outside that nobody has answered.
type HeldSYN struct {
	Zone  uint16
	In    uint16
	Frame []byte // its beginning, as it came
}

// held are SYNs in the order of their arrival. Not safe for concurrent use.
type held struct {
	at    map[heldKey]heldSYN
	order queue[heldKey]
}

type heldKey struct {
	zone  uint16
	tuple conntrack.Tuple
}

type heldSYN struct {
	syn   HeldSYN
	since uint32
}

// Hold keeps a SYN from outside that no mapping lets in, for six seconds in which
// it is not answered: its peer inside may be about to open the same connection
// (simultaneous open), and then it is forgotten; else Unanswered tells of it. A
// SYN that comes again is the same. False if the zone has the kernel's profile, it
// isn't a first SYN, nobody's mapping has its destination's address, or there is no
// room: it is answered as any other then.
// Preconditions: frame is what f.Pending was made of.
func (n *NAT) Hold(f *Flow, frame *packet.Frame) bool {
	p := f.Pending
	z := (*n.zones.Load())[p.Zone]
	if z == nil || z.Profile != RFC || !packet.IsSYN(frame) || p.Original.Proto != packet.ProtoTCP {
		return false
	}
	k := heldKey{p.Zone, p.Original}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.memory.held.at[k]; known {
		return true
	}
	if n.memory.bindings.ports[endpointOf(p.Zone, p.Original.Proto, p.Original.Dst, 0)] == nil || len(n.memory.held.at) >= maxHeld {
		return false
	}
	b := frame.Bytes()
	n.memory.held.at[k] = heldSYN{HeldSYN{p.Zone, f.In, bytes.Clone(b[:min(len(b), heldBytes)])}, f.Now}
	n.memory.held.order.push(k)
	return true
}

// Unanswered tells of the SYNs whose time is over: their senders hear of an
// unreachable port (ICMP 3/3, ICMPv6 1/4). Once a second; tell is called without a
// lock.
func (n *NAT) Unanswered(now uint32, tell func(HeldSYN)) {
	for {
		s, ok := n.unanswered(now)
		if !ok {
			return
		}
		if s.Frame != nil {
			tell(s)
		}
	}
}

// unanswered takes the first in the order, if its time is over. One without a
// frame was forgotten.
func (n *NAT) unanswered(now uint32) (HeldSYN, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, ok := n.memory.held.order.first()
	if !ok {
		return HeldSYN{}, false
	}
	s, known := n.memory.held.at[k]
	if known && now-s.since < holdSeconds {
		return HeldSYN{}, false
	}
	n.memory.held.order.pop()
	delete(n.memory.held.at, k)
	return s.syn, true
}

// forget drops the SYN that the connection has crossed.
func (h *held) forget(e *conntrack.Entry) {
	if e.Reply.Proto == packet.ProtoTCP && len(h.at) > 0 {
		delete(h.at, heldKey{e.Zone, e.Reply})
	}
}
