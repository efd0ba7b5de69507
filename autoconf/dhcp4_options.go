// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

const (
	maxRoutes = 64
	minMTU4   = 576
)

// server4 is a compiled DHCP4.
type server4 struct {
	lease    uint32
	hostName bool
	subnets  []subnet4
}

// subnet4 is what those are told whose address is of one subnet.
type subnet4 struct {
	gateway netip.Prefix
	options []option4 // the most important first
}

type option4 struct {
	code uint8
	data []byte
}

func (d *DHCP4) compile(l *link) (*server4, error) {
	s := &server4{lease: cmp.Or(d.Lease, DefaultLease), hostName: d.HostName}
	if err := d.check(l); err != nil {
		return nil, err
	}
	for _, p := range l.addrs {
		if p.Addr().Is4() {
			s.subnets = append(s.subnets, subnet4{gateway: p, options: d.options(l, p)})
		}
	}
	if len(s.subnets) == 0 {
		return nil, errors.New("the network has no IPv4 subnet")
	}
	return s, nil
}

func (d *DHCP4) check(l *link) error {
	switch {
	case d.MTU != 0 && (d.MTU < minMTU4 || int(d.MTU) > l.mtu):
		return fmt.Errorf("mtu %d: not within %d and the network's, %d", d.MTU, minMTU4, l.mtu)
	case l.mtu < minMTU4:
		return fmt.Errorf("the network's MTU %d is less than %d", l.mtu, minMTU4)
	case d.Domain != "" && !validName(d.Domain):
		return fmt.Errorf("domain: %q is no domain name", d.Domain)
	case len(d.Routes) > maxRoutes:
		return fmt.Errorf("routes: more than %d", maxRoutes)
	}
	for i := range d.Routes {
		if err := d.Routes[i].check(); err != nil {
			return err
		}
	}
	_, err := search(d.Search)
	return cmp.Or(err, check4("dns", d.DNS), check4("ntp", d.NTP))
}

func (r *Route) check() error {
	if !r.Dst.IsValid() || !r.Dst.Addr().Is4() || r.Via.IsValid() && !r.Via.Is4() {
		return fmt.Errorf("route %v via %v: not IPv4", r.Dst, r.Via)
	}
	return nil
}

func check4(what string, list []netip.Addr) error {
	for _, a := range list {
		if !a.Is4() || a.IsMulticast() || a.IsUnspecified() {
			return fmt.Errorf("%s: %v is no IPv4 address of a server", what, a)
		}
	}
	if len(list) > maxDNS {
		return fmt.Errorf("%s: more than %d", what, maxDNS)
	}
	return nil
}

// options are those of a subnet. Preconditions: check.
func (d *DHCP4) options(l *link, gateway netip.Prefix) []option4 {
	var all []option4
	add := func(code uint8, data []byte) {
		if len(data) > 0 {
			all = append(all, option4{code, data})
		}
	}
	add(optMask, mask(gateway.Bits()))
	if !d.NoRouter {
		add(optRouter, gateway.Addr().AsSlice())
	}
	add(optDNS, join4(d.DNS))
	add(optRoutes, d.routes(gateway))
	add(optDomain, []byte(d.Domain))
	add(optMTU4, binary.BigEndian.AppendUint16(nil, cmp.Or(d.MTU, uint16(l.mtu))))
	names, _ := search(d.Search) // checked
	add(optSearch, names)
	add(optNTP, join4(d.NTP))
	if gateway.Bits() <= 30 { // RFC 3021: /31 has none
		add(optBroadcast, broadcast(gateway))
	}
	return all
}

func mask(bits int) []byte {
	return binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-bits))
}

func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	host := ^(^uint32(0) << (32 - p.Bits()))
	return binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(a[:])|host)
}

func join4(list []netip.Addr) []byte {
	var b []byte
	for _, a := range list {
		b = append(b, a.AsSlice()...)
	}
	return b
}

// routes is option 121. A client that takes it forgets option 3 (RFC 3442), so
// the default route is among them.
func (d *DHCP4) routes(gateway netip.Prefix) []byte {
	var b []byte
	for _, r := range d.Routes {
		via := r.Via
		if !via.IsValid() {
			via = gateway.Addr()
		}
		if via.IsUnspecified() || gateway.Contains(via) {
			b = appendRoute(b, r.Dst, via)
		}
	}
	if b != nil && !d.NoRouter {
		b = appendRoute(b, netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway.Addr())
	}
	return b
}

func appendRoute(b []byte, dst netip.Prefix, via netip.Addr) []byte {
	b = append(b, byte(dst.Bits()))
	b = append(b, dst.Masked().Addr().AsSlice()[:(dst.Bits()+7)/8]...)
	return append(b, via.AsSlice()...)
}
