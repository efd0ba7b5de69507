// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"cmp"
	"math"
	"net/netip"

	"sluice/packet"
	"sluice/policy"
	"sluice/routing"
)

// fib asks the routes: nft_fib of Linux. With iif or oif the route is the same, and only
// asked whether it leads there: a default route elsewhere is no way back by this device.
func (s *space) fib(p *policy.Packet, q *policy.FIBQuery) (a policy.FIBAnswer) {
	query := routing.Query{Dst: q.Addr}
	if q.Mark {
		query.Mark = p.Mark
	}
	dev := (*policy.Device)(nil)
	switch {
	case q.IIF:
		dev = p.In
	case q.OIF:
		dev = p.Out
	}
	if dev != nil {
		query.L3mdev = uint16(dev.Index)
	}
	if q.Type {
		return policy.FIBAnswer{Type: uint8(s.addrType(&query))}
	}
	if q.Addr.IsMulticast() {
		return a
	}
	res := s.router.Set().Lookup(&query)
	switch {
	case res.Type != routing.Unicast || res.NextHop == nil:
	case dev == nil:
		a.Device = s.named[res.NextHop.Index]
	case leadsBy(res.Route, uint16(dev.Index)):
		a.Device = dev
	}
	return a
}

// leadsBy reports whether one of a route's next hops is by a device
// (fib_info_nh_uses_dev).
func leadsBy(r *routing.Route, device uint16) bool {
	for i := range r.NextHops {
		if r.NextHops[i].Index == device {
			return true
		}
	}
	return false
}

// addrType is what an address is to the namespace, or to the query's device: of IPv4 a
// type of the local table, or unicast (inet_dev_addr_type); of IPv6 also what the route
// refuses (nft_fib6_eval_type).
func (s *space) addrType(q *routing.Query) routing.Type {
	a := q.Dst
	switch {
	case a.Is4() && (a.As4()[0] == 0 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
		return routing.Broadcast
	case a.IsMulticast():
		return routing.Multicast
	}
	res := s.router.Set().Lookup(q)
	if res.Type == routing.Local || res.Type == routing.Broadcast {
		if q.L3mdev == 0 || res.NextHop != nil && res.NextHop.Index == q.L3mdev {
			return res.Type
		}
		return routing.Unicast
	}
	if a.Is4() || res.Type == routing.Unicast {
		return routing.Unicast
	}
	return cmp.Or(res.Type, routing.Unreachable)
}

// route is what rules ask of the way that a packet goes, once that is known: nft_rt of
// Linux.
func (s *space) route(p *policy.Packet) (a policy.RouteAnswer) {
	if p.Out == nil {
		return a
	}
	v, b := &p.Frame.View, p.Frame.Bytes()
	query := routing.Query{Dst: v.DstAddr(b), Src: v.SrcAddr(b), Mark: p.Mark, L3mdev: uint16(p.Out.Index)}
	res := s.router.Set().Lookup(&query)
	if res.NextHop == nil {
		return a
	}
	a.NextHop = res.Gateway(query.Dst)
	mtu := s.mtuOf(&res)
	query.Dst, query.Src = query.Src, query.Dst
	if back := s.router.Set().Lookup(&query); back.Type == routing.Unicast && back.NextHop != nil {
		mtu = min(mtu, s.mtuOf(&back))
	}
	headers := packet.IPv4MinLen + packet.TCPMinLen
	if v.Is(packet.ViewIPv6) {
		headers = packet.IPv6Len + packet.TCPMinLen
	}
	if a.MTU = defaultMSS; mtu > headers && mtu <= math.MaxUint16 {
		a.MTU = uint16(mtu - headers)
	}
	return a
}

// defaultMSS is TCP_MSS_DEFAULT.
const defaultMSS = 536

// mtuOf is the MTU of a route, and of its device.
func (s *space) mtuOf(r *routing.Result) int {
	mtu := math.MaxUint16
	if d := s.devices[r.NextHop.Index]; d != nil {
		mtu = d.mtu
	}
	if n := int(r.Route.MTU); n != 0 {
		mtu = min(mtu, n)
	}
	return mtu
}
