// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"errors"
	"net/netip"
)

// NextHop is one way that a route may take: a gateway, or the link itself.
type NextHop struct {
	Via    netip.Addr `json:"via,omitzero"`     // gateway; not valid: the destination is on the link. IPv6 may serve an IPv4 route (RFC 8950)
	Dev    string     `json:"dev,omitempty"`    // "" with Via: Apply finds it
	Weight uint16     `json:"weight,omitempty"` // share among the route's next hops, 1..256; 0 means 1
	Onlink bool       `json:"onlink,omitempty"` // Via is on Dev's link, whatever the tables say

	// What the Set knows and Apply sets, whatever a change says.

	Index uint16 `json:"index,omitempty"` // of Dev
	Dead  bool   `json:"dead,omitempty"`  // the device is down, or the hop was declared dead: passed over
	seed  uint64 // newSeed, for those who choose among several
}

const (
	// maxNextHops bounds the cost of choosing one.
	maxNextHops = 64
	maxWeight   = 256 // as in the kernel, which keeps it in a byte, less one
)

// hopID is what a next hop is known by.
type hopID struct {
	via netip.Addr
	dev string
}

func (h *NextHop) id() hopID { return hopID{h.Via, h.Dev} }

// usable reports whether a packet may take the hop: alive, and on the output
// device if the query is bound to one.
func (h *NextHop) usable(q *Query) bool {
	return (!h.Dead || q.direct) && (q.OIF == 0 || q.OIF == h.Index)
}

// linkLocal reports whether only a device tells where the gateway is (RFC 4007).
func (h *NextHop) linkLocal() bool { return h.Via.Is6() && h.Via.IsLinkLocalUnicast() }

// same reports whether two next hops were configured alike.
func (h *NextHop) same(o *NextHop) bool {
	return h.id() == o.id() && h.Weight == o.Weight && h.Onlink == o.Onlink
}

// check is what can be said of a hop without looking at the Set.
func (h *NextHop) check(v6 bool) error {
	switch {
	case h.Weight > maxWeight:
		return errors.New("weight must be 1 to 256")
	case h.Dev == "" && !h.Via.IsValid():
		return errors.New("next hop has neither gateway nor device")
	case h.Dev != "" && !validDevName(h.Dev):
		return errors.New("invalid device name " + quote(h.Dev))
	case !h.Via.IsValid():
		return nil
	}
	return h.checkGateway(v6)
}

func (h *NextHop) checkGateway(v6 bool) error {
	switch {
	case h.Via.Zone() != "" || h.Via.Is4In6() || h.Via.IsUnspecified() || h.Via.IsMulticast() || h.Via.IsLoopback():
		return ErrGateway
	case v6 && h.Via.Is4():
		return errors.New("an IPv6 route can't have an IPv4 gateway")
	case h.Dev == "" && (h.Onlink || h.linkLocal()):
		return errors.New("gateway " + h.Via.String() + " needs a device")
	}
	return nil
}
