// SPDX-License-Identifier: Apache-2.0

package router

import (
	"cmp"
	"net/netip"
	"slices"

	"sluice/packet"
	"sluice/routing"
)

// Device is a network of the namespace, or a link to another namespace: what
// packets come in by and go out by.
type Device struct {
	Index uint16 // 1.., unique among devices and ports
	Name  string // unique too
	MAC   packet.MAC
	MTU   int // bytes of an IP packet
	// Addrs are the own addresses with their subnets, in the order in which they
	// were added, IPv6 link-local ones among them.
	Addrs       []netip.Prefix
	NoForward   bool                // what comes in by it is delivered or dropped
	NoRedirects bool                // it sends no redirects
	ReversePath routing.ReverseMode // how strictly sources are checked
	// ClampMSS is the limit of the MSS that TCP announces through the device; 1:
	// what fits the MTU; 0: none.
	ClampMSS     uint16
	PointToPoint bool // a link: no link-layer addresses, no neighbours
	Down         bool
	VRF          routing.TableID // the table of its VRF; 0: none
}

// device is a Device made ready for the data path.
type device struct {
	Device
	primary []netip.Prefix // IPv4 addresses, but for those in the subnet of one before
	link    netip.Addr     // IPv6 link-local address; not valid if there is none
	own     func(netip.Addr) bool
}

func newDevice(d *Device) *device {
	c := &device{Device: *d, primary: primaries(d.Addrs)}
	own := make(map[netip.Addr]bool, len(d.Addrs))
	for _, p := range d.Addrs {
		own[p.Addr()] = true
		if !c.link.IsValid() && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			c.link = p.Addr()
		}
	}
	c.own = func(a netip.Addr) bool { return own[a] }
	return c
}

// primaries are the IPv4 addresses that are not secondary: the first of each
// subnet (__inet_insert_ifa).
func primaries(addrs []netip.Prefix) (all []netip.Prefix) {
	for _, p := range addrs {
		if p.Addr().Is4() && !slices.ContainsFunc(all, func(o netip.Prefix) bool { return o.Masked() == p.Masked() }) {
			all = append(all, p)
		}
	}
	return all
}

// devices are those of a configuration.
type devices struct {
	byIndex map[uint16]*device
	ordered []*device // by index, as the kernel walks them
}

func newDevices(list []Device) devices {
	ds := devices{byIndex: make(map[uint16]*device, len(list))}
	for i := range list {
		d := newDevice(&list[i])
		ds.byIndex[d.Index] = d
		ds.ordered = append(ds.ordered, d)
	}
	slices.SortFunc(ds.ordered, func(a, b *device) int { return cmp.Compare(a.Index, b.Index) })
	return ds
}
