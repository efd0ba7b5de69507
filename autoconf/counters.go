// SPDX-License-Identifier: Apache-2.0

package autoconf

import "sync/atomic"

// Stats counts what was heard and said since the Server was made.
type Stats struct {
	Solicits    uint64 `json:"solicits"`    // router solicitations
	Adverts     uint64 `json:"adverts"`     // router advertisements
	Offers      uint64 `json:"offers"`      // DHCPOFFER
	Acks        uint64 `json:"acks"`        // DHCPACK
	Naks        uint64 `json:"naks"`        // DHCPNAK
	Declines    uint64 `json:"declines"`    // DHCPDECLINE and Decline: somebody else uses the address
	Releases    uint64 `json:"releases"`    // DHCPRELEASE and Release
	Advertises6 uint64 `json:"advertises6"` // Advertise of DHCPv6
	Replies6    uint64 `json:"replies6"`    // Reply of DHCPv6
}

// counters are Stats while they are counted.
type counters struct {
	solicits, adverts, offers, acks, naks, declines, releases, advertises6, replies6 atomic.Uint64
}

// Stats is the counts of now.
func (s *Server) Stats() Stats {
	c := &s.counts
	return Stats{
		Solicits: c.solicits.Load(), Adverts: c.adverts.Load(),
		Offers: c.offers.Load(), Acks: c.acks.Load(), Naks: c.naks.Load(),
		Declines: c.declines.Load(), Releases: c.releases.Load(),
		Advertises6: c.advertises6.Load(), Replies6: c.replies6.Load(),
	}
}
