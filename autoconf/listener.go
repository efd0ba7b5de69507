// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice/packet"
)

// Bounds of what is kept of router advertisements.
const (
	maxRouters  = 8
	maxPrefixes = 16
)

// maxSolicits are sent soon after one another (RFC 4861 §10), and then, as nobody
// answers, ever more rarely (RFC 7559).
const (
	solicitEvery = 4
	maxSolicit   = 120
	// reprieve is what an advertisement can't shorten a lifetime below, since nobody
	// vouches for it (RFC 4862 §5.5.3, e).
	reprieve = 2 * 60 * 60
)

// listener hears router advertisements, as a host does.
type listener struct {
	heard Learned
	asks  bool
	tries int
	next  int64
}

// ask solicits until somebody answers.
func (h *listener) ask() { h.asks, h.tries, h.next = true, 0, 0 }

// dueRS sends a router solicitation if one is due.
//
// +checklocks:l.mu
func (l *Learner) dueRS(now int64, emit Emit) {
	h := &l.hosts
	if !l.cfg.SLAAC || !h.asks || now < h.next {
		return
	}
	e := ends{
		fromMAC: l.link.mac, toMAC: packet.MAC{0x33, 0x33, 0, 0, 0, 2},
		from: l.link.local, to: netip.IPv6LinkLocalAllRouters(),
	}
	frame := e.ip6(nil, packet.ProtoICMPv6, hopLimitND)
	frame = append(frame, packet.NDRouterSolicit, 0, 0, 0, 0, 0, 0, 0, optSourceLink, 1)
	frame = append(frame, l.link.mac[:]...)
	finishIP6(frame)
	emit(frame)
	h.tries++
	h.next = now + int64(min(maxSolicit, solicitEvery<<max(0, min(h.tries-3, 5))))
}

// hear takes a router advertisement, RFC 4861 §6.1.2 and §6.3.4.
//
// +checklocks:l.mu
func (l *Learner) hear(f *packet.Frame, now int64) {
	b, v := f.Bytes(), &f.View
	src := v.SrcAddr(b)
	if _, ok := v.ND(b); !ok || !l.cfg.SLAAC || f.HopLimit() != hopLimitND || v.SrcPort&0xff != 0 || !src.IsLinkLocalUnicast() || src == l.link.local || !intact(f) {
		return
	}
	h := &l.hosts
	m := b[v.L4:v.End]
	h.asks = false
	lifetime := uint32(binary.BigEndian.Uint16(m[lifetimeAt:]))
	h.router(src, preference(m[5]), lifetime, now)
	for o := m[advertLen:]; len(o) >= 8; o = o[int(o[1])*8:] { // ND has seen that they are whole
		h.option(l.link.mac, src, o[:int(o[1])*8], now)
	}
}

// preference is that of RFC 4191 §2.1; the reserved value means medium.
func preference(flags byte) int8 {
	switch flags >> 3 & 3 {
	case 1:
		return 1
	case 3:
		return -1
	}
	return 0
}

// keep puts an entry into a list, or removes it if its lifetime is zero.
func keep[T any](list []T, most int, e T, gone bool, same func(T) bool) []T {
	i := slices.IndexFunc(list, same)
	switch {
	case gone && i >= 0:
		return slices.Delete(slices.Clone(list), i, i+1)
	case gone:
		return list
	case i >= 0:
		list = slices.Clone(list)
		list[i] = e
		return list
	case len(list) == most:
		return list
	}
	return append(slices.Clip(list), e)
}

func (h *listener) router(src netip.Addr, pref int8, seconds uint32, now int64) {
	r := LearnedRouter{Addr: src, Preference: pref, End: lasts(now, seconds)}
	h.heard.Routers = keep(h.heard.Routers, maxRouters, r, seconds == 0, func(o LearnedRouter) bool { return o.Addr == src })
}

func (h *listener) option(own packet.MAC, src netip.Addr, o []byte, now int64) {
	switch {
	case o[0] == optPrefix && len(o) == prefixLen:
		h.prefix(own, o, now)
	case o[0] == optRoute:
		h.route(src, o, now)
	case o[0] == optRDNSS && len(o) >= 24:
		seconds := binary.BigEndian.Uint32(o[4:])
		for a := o[8:]; len(a) >= 16; a = a[16:] {
			s := LearnedServer{Addr: netip.AddrFrom16([16]byte(a)), End: lasts(now, seconds)}
			if s.Addr.IsUnspecified() || s.Addr.IsMulticast() || s.Addr.IsLinkLocalUnicast() {
				continue // one without its device is of no use beyond it
			}
			h.heard.DNS = keep(h.heard.DNS, maxDNS, s, seconds == 0, func(o LearnedServer) bool { return o.Addr == s.Addr })
		}
	}
}

// prefix makes an address of a prefix, RFC 4862 §5.5.3.
func (h *listener) prefix(own packet.MAC, o []byte, now int64) {
	p := netip.PrefixFrom(netip.AddrFrom16([16]byte(o[16:])), int(o[2])).Masked()
	if unfit(p) {
		return
	}
	valid, preferred := binary.BigEndian.Uint32(o[4:]), binary.BigEndian.Uint32(o[8:])
	auto := o[3]&flagAutonomous != 0 && p.Bits() == autonomousLen && preferred <= valid
	onLink := o[3]&flagOnLink != 0
	if !auto && !onLink {
		return
	}
	e := LearnedPrefix{Prefix: p, OnLink: onLink, End: lasts(now, valid)}
	same := func(q LearnedPrefix) bool { return q.Prefix == p }
	if i := slices.IndexFunc(h.heard.Prefixes, same); i >= 0 {
		if old := h.heard.Prefixes[i]; old.Address.IsValid() && e.End < old.End && e.End < now+reprieve {
			e.End = min(old.End, now+reprieve)
			valid = 1
		}
	}
	if auto {
		a, id := p.Addr().As16(), eui64(own).As16()
		copy(a[8:], id[8:])
		e.Address = netip.AddrFrom16(a)
	}
	h.heard.Prefixes = keep(h.heard.Prefixes, maxPrefixes, e, valid == 0, same)
}

// route is a more specific route, RFC 4191 §2.3.
func (h *listener) route(src netip.Addr, o []byte, now int64) {
	var a [16]byte
	copy(a[:], o[8:])
	p := netip.PrefixFrom(netip.AddrFrom16(a), int(o[2]))
	if !p.IsValid() || p.Bits() > (len(o)-8)*8 {
		return
	}
	seconds := binary.BigEndian.Uint32(o[4:])
	r := LearnedMore{Dst: p.Masked(), Via: src, Preference: preference(o[3]), End: lasts(now, seconds)}
	h.heard.Routes = keep(h.heard.Routes, maxLearnedRoutes, r, seconds == 0, func(q LearnedMore) bool { return q.Dst == r.Dst && q.Via == src })
}

// expire drops what is over.
func (h *listener) expire(now int64) {
	over := func(end int64) bool { return now >= end }
	n := len(h.heard.Routers)
	h.heard.Routers = slices.DeleteFunc(slices.Clone(h.heard.Routers), func(r LearnedRouter) bool { return over(r.End) })
	h.heard.Prefixes = slices.DeleteFunc(slices.Clone(h.heard.Prefixes), func(p LearnedPrefix) bool { return over(p.End) })
	h.heard.Routes = slices.DeleteFunc(slices.Clone(h.heard.Routes), func(r LearnedMore) bool { return over(r.End) })
	h.heard.DNS = slices.DeleteFunc(slices.Clone(h.heard.DNS), func(s LearnedServer) bool { return over(s.End) })
	if n > 0 && len(h.heard.Routers) == 0 {
		h.ask()
	}
}
