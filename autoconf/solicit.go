// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"net/netip"

	"sluice/packet"
)

// solicited answers a router solicitation, RFC 4861 §6.2.6: to its sender alone,
// or to all nodes if it has no address yet.
func (s *Server) solicited(dst []byte, sv *service, f *packet.Frame, now uint32) ([]byte, Verdict) {
	b, v := f.Bytes(), &f.View
	if v.SrcPort>>8 != packet.NDRouterSolicit || !forRouters(&sv.link, v.DstAddr(b)) {
		return dst, Pass
	}
	src := v.SrcAddr(b)
	if !validSolicit(f, src) {
		return dst, Malformed
	}
	s.counts.solicits.Add(1)
	if src.IsUnspecified() {
		return s.answerAll(dst, sv, now), Done
	}
	e := ends{fromMAC: sv.link.mac, toMAC: f.SrcMAC(), from: sv.link.local, to: src}
	return s.appendAdvert(dst, &e, sv.advert.message), Done
}

// forRouters reports whether an IPv6 destination is that of all routers of the
// link, or the gateway.
func forRouters(l *link, dst netip.Addr) bool {
	return dst == netip.IPv6LinkLocalAllRouters() || l.owns(dst)
}

// validSolicit is RFC 4861 §6.1.1, and RFC 6980: never in fragments.
func validSolicit(f *packet.Frame, src netip.Addr) bool {
	b, v := f.Bytes(), &f.View
	const hopLimitAt = 7
	if b[v.L3+hopLimitAt] != hopLimitND || v.SrcPort&0xff != 0 || !intact(f) || f.SrcMAC().IsMulticast() {
		return false
	}
	m, ok := v.ND(b)
	return ok && !src.IsMulticast() && (!src.IsUnspecified() || !m.HasLink)
}

func (s *Server) answerAll(dst []byte, sv *service, now uint32) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	said := s.when.asked(sv.advert, now)
	if said.bytes == nil {
		return dst
	}
	return s.advertise(dst, &said.link, said.bytes)
}

// advertise appends an advert to all nodes.
func (s *Server) advertise(dst []byte, l *link, message []byte) []byte {
	e := ends{
		fromMAC: l.mac, toMAC: packet.MAC{0x33, 0x33, 0, 0, 0, 1},
		from: l.local, to: netip.IPv6LinkLocalAllNodes(),
	}
	return s.appendAdvert(dst, &e, message)
}

func (s *Server) appendAdvert(dst []byte, e *ends, message []byte) []byte {
	begin := len(dst)
	dst = e.ip6(dst, packet.ProtoICMPv6, hopLimitND)
	dst = append(dst, message...)
	finishIP6(dst[begin:])
	s.counts.adverts.Add(1)
	return dst
}
