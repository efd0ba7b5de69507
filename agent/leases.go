// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"
	"time"

	"sluice/ipam"
)

// released is an address that an attachment had until then.
type released struct {
	Addr netip.Addr `json:"addr"`
	At   time.Time  `json:"at"`
}

// maxReleased bounds the quarantine of a network: who fills it makes the oldest
// address free early, rather than the network full.
const maxReleased = 1024

// rangesIn are the ranges of a list that are in a subnet.
func rangesIn(subnet netip.Prefix, list []string) (out []ipam.Range) {
	for _, text := range list {
		if r, ok := ipam.ParseRange(text); ok && subnet.Contains(r.First) {
			out = append(out, r)
		}
	}
	return out
}

// release puts addresses into quarantine, if the network has one.
func (n *networkRecord) release(addrs []netip.Addr, now time.Time) {
	n.Released = slices.DeleteFunc(n.Released, func(r released) bool { return n.served(r, now) })
	if n.Leases.Quarantine == 0 {
		return
	}
	for _, a := range addrs {
		n.Released = append(n.Released, released{a, now})
	}
	n.Released = n.Released[max(0, len(n.Released)-maxReleased):]
}

// served says whether the time of an address in quarantine is over; so it is when the
// clock was set back.
func (n *networkRecord) served(r released, now time.Time) bool {
	return now.Sub(r.At) >= n.Leases.Quarantine || r.At.After(now)
}

// taken is who holds an address, or why nobody can.
func (n *networkRecord) taken(holder ipam.Used, now time.Time) ipam.Used {
	return func(a netip.Addr) string {
		if who := holder(a); who != "" {
			return who
		}
		return n.quarantined(a, now)
	}
}

// quarantined says who held an address that is in quarantine, empty if it is in none.
func (n *networkRecord) quarantined(a netip.Addr, now time.Time) string {
	for _, r := range n.Released {
		if r.Addr == a && !n.served(r, now) {
			return "nobody, but in quarantine"
		}
	}
	return ""
}
