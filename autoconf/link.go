// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"errors"
	"fmt"
	"net/netip"

	"sluice/packet"
)

const minMTU6 = 1280 // RFC 8200 §5

// link is a Link that was checked and filled in.
type link struct {
	mac   packet.MAC
	addrs []netip.Prefix // not masked
	local netip.Addr     // link-local
	mtu   int
}

func (l Link) compile() (link, error) {
	c := link{mac: l.MAC, local: l.LinkLocal, mtu: l.MTU}
	if l.MAC.IsZero() || l.MAC.IsMulticast() {
		return link{}, fmt.Errorf("gateway's MAC %v: not that of a station", l.MAC)
	}
	if !c.local.IsValid() {
		c.local = eui64(l.MAC)
	}
	if !is6(c.local) || !c.local.IsLinkLocalUnicast() {
		return link{}, fmt.Errorf("gateway's link-local address %v is none", c.local)
	}
	for _, p := range l.Addrs {
		if !p.IsValid() {
			return link{}, errors.New("gateway's address without the length of its subnet")
		}
		c.addrs = append(c.addrs, p)
	}
	return c, nil
}

// eui64 is the link-local address that is made of a MAC, RFC 4291 Appendix A.
func eui64(m packet.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	})
}

// owns reports whether an address is the gateway's.
func (l *link) owns(a netip.Addr) bool {
	if a == l.local {
		return true
	}
	for i := range l.addrs {
		if l.addrs[i].Addr() == a {
			return true
		}
	}
	return false
}

// onLink reports whether an address is of a subnet of the gateway.
func (l *link) onLink(a netip.Addr) bool {
	for i := range l.addrs {
		if l.addrs[i].Contains(a) {
			return true
		}
	}
	return false
}

// is6 leaves out the IPv4 addresses that netip can write as IPv6.
func is6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }
