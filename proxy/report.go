// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"

	"sluice/dial"
	"sluice/trace"
)

// Theory of operation.
//
// A socket of datagrams keeps what the network says of them in its error queue: the
// ICMP errors that routers and the far end have sent, as they were, and those of the
// host itself (ip(7), IP_RECVERR). Each becomes an ICMP error to the container again, by
// who sent it. What it quotes is the container's own header, of the last datagram of the
// flow, with as much behind it as the error had quoted.
//
// An error is also that of the next call of the socket, whatever that is. Then the queue
// is read, and the call made again.

// maxReports is how many errors of one flow are passed on at once: others have their
// turn then.
const maxReports = 64

// Errors that are passed on in a second: for all containers together, and for one. Those
// who sent them have limits of their own; this one bounds the work.
const (
	reportsPerSecond        = 8192
	reportsPerSecondAndPort = 1024
)

// The longest that may be quoted, so that an error has no more than 576 bytes (RFC 1812
// §4.3.2.3), or 1280 (RFC 4443 §2.4).
const (
	icmpHeader = 8
	maxQuoted4 = 576 - header.IPv4MinimumSize - icmpHeader
	maxQuoted6 = header.IPv6MinimumMTU - header.IPv6MinimumSize - icmpHeader
)

// Parts of a message that serves as room for one error.
const (
	roomOfControl = 2048 // after what was quoted
	roomOfQuote   = 4096
	controlSize   = 256
)

// report is an entry of an error queue.
type report struct {
	errno      unix.Errno
	origin     uint8
	kind, code uint8 // of ICMP
	info       uint32
	from       netip.Addr
	hops       uint8 // with which it came; 0: not known
}

// hear passes on what is in the socket's error queue. It reports whether any of it came
// from outside.
//
// +checklocks:f.mu
func (f *flow) hear() (outside bool) {
	f.failing = false
	if f.fd < 0 || f.relayed {
		return false
	}
	b := f.proxy.buffers.Get().(*message) //nolint:forcetypeassert // it is our pool
	defer f.proxy.buffers.Put(b)
	for range maxReports {
		n, oobn, _, _, err := unix.Recvmsg(f.fd, b[:maxQuoted6], b[roomOfControl:roomOfControl+controlSize], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return outside
		}
		var r report
		ok := r.decode(b[roomOfControl : roomOfControl+oobn])
		outside = outside || r.origin != unix.SO_EE_ORIGIN_LOCAL
		if ok && !f.ofAnother(&r, b[:n]) && f.readable(&r) {
			f.tell(&r, f.quoteWith(b[roomOfQuote:roomOfQuote], b[:n]))
		}
	}
	f.failing = true
	f.proxy.push(f)
	return outside
}

// decode reads the control messages that come with an entry: struct sock_extended_err
// with an address behind it, and a hop limit.
func (r *report) decode(oob []byte) bool {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for i := range all {
		h, b := &all[i].Header, all[i].Data
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_RECVERR, h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_RECVERR:
			r.extended(b)
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL, h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT:
			if len(b) >= 4 {
				r.hops = uint8(binary.NativeEndian.Uint32(b))
			}
		}
	}
	return r.origin != 0
}

func (r *report) extended(b []byte) {
	const length = 16 // of struct sock_extended_err
	if len(b) < length {
		return
	}
	r.errno = unix.Errno(binary.NativeEndian.Uint32(b))
	r.origin, r.kind, r.code = b[4], b[5], b[6]
	r.info = binary.NativeEndian.Uint32(b[8:])
	b = b[length:]
	if len(b) < 2 {
		return
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= 8:
		r.from = netip.AddrFrom4([4]byte(b[4:]))
	case family == unix.AF_INET6 && len(b) >= 24:
		r.from = netip.AddrFrom16([16]byte(b[8:]))
	}
}

// ofAnother reports whether an error is about an echo request of somebody else's: a raw
// socket hears of all.
//
// +checklocks:f.mu
func (f *flow) ofAnother(r *report, about []byte) bool {
	return f.isRaw && r.origin != unix.SO_EE_ORIGIN_LOCAL && (len(about) < echoHeader || binary.BigEndian.Uint16(about[4:]) != f.id.RemotePort)
}

// readable makes of an entry what a router would have sent. It reports false if that is
// nothing that is passed on.
//
// +checklocks:f.mu
func (f *flow) readable(r *report) bool {
	switch {
	case r.origin == unix.SO_EE_ORIGIN_LOCAL && r.errno == unix.EMSGSIZE:
		r.kind, r.code, r.from = uint8(header.ICMPv4DstUnreachable), uint8(header.ICMPv4FragmentationNeeded), f.own()
		if f.ipv6() {
			r.kind, r.code = uint8(header.ICMPv6PacketTooBig), 0
		}
	case !r.passes(f.ipv6()):
		return false
	}
	if r.from.IsLoopback() { // where the host is that the container asked
		r.from = f.key.dst.Addr()
	}
	return r.from.IsValid() && r.from.Is6() == f.ipv6()
}

// passes reports whether an error of ICMP says something about the way. A parameter that
// is a problem is one of the host's header.
func (r *report) passes(six bool) bool {
	if six {
		k := header.ICMPv6Type(r.kind)
		return r.origin == unix.SO_EE_ORIGIN_ICMP6 &&
			(k == header.ICMPv6DstUnreachable || k == header.ICMPv6PacketTooBig || k == header.ICMPv6TimeExceeded)
	}
	k := header.ICMPv4Type(r.kind)
	return r.origin == unix.SO_EE_ORIGIN_ICMP && (k == header.ICMPv4DstUnreachable || k == header.ICMPv4TimeExceeded)
}

// own is the host's address on the flow's way.
//
// +checklocks:f.mu
func (f *flow) own() netip.Addr {
	at, _ := unix.Getsockname(f.fd)
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(at.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(at.Addr)
	}
	return f.key.dst.Addr()
}

// quoteWith appends to dst what an error quotes: the header of the container's last
// datagram, and what the socket says was quoted of the payload. Nothing, if there is no
// such header.
//
// +checklocks:f.mu
func (f *flow) quoteWith(dst, about []byte) []byte {
	const l4 = 8 // of UDP and of echo
	q := &f.quote
	if q.n < q.ip+l4 {
		return dst
	}
	dst = append(dst, q.b[:q.ip+l4]...)
	if f.key.proto != dial.UDP {
		if len(about) < echoHeader {
			return dst
		}
		copy(dst[q.ip+6:], about[6:8]) // the sequence number; the identifier is the socket's
		about = about[echoHeader:]
	}
	dst = append(dst, about...)
	f.lengthen(dst)
	if f.key.proto != dial.UDP && f.isWhole(dst) {
		f.sum(dst[q.ip:])
	}
	if f.ipv6() {
		return dst[:min(len(dst), maxQuoted6)]
	}
	return dst[:min(len(dst), maxQuoted4)]
}

// isWhole reports whether a packet is quoted to its end.
//
// +checklocks:f.mu
func (f *flow) isWhole(b []byte) bool {
	if f.ipv6() {
		return int(header.IPv6(b).PayloadLength())+header.IPv6MinimumSize == len(b)
	}
	return int(header.IPv4(b).TotalLength()) == len(b)
}

// sum gives a quoted echo request the checksum that it had.
//
// +checklocks:f.mu
func (f *flow) sum(b []byte) {
	binary.BigEndian.PutUint16(b[2:], 0)
	var sum uint16
	if f.ipv6() {
		sum = header.PseudoHeaderChecksum(icmp.ProtocolNumber6, f.id.RemoteAddress, f.id.LocalAddress, uint16(len(b)))
	}
	binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, sum))
}

// lengthen corrects the lengths in what is quoted, if the error is about a datagram that
// was longer than the last one.
//
// +checklocks:f.mu
func (f *flow) lengthen(b []byte) {
	ip := f.quote.ip
	if f.ipv6() {
		if h := header.IPv6(b); int(h.PayloadLength()) < len(b)-header.IPv6MinimumSize {
			h.SetPayloadLength(uint16(len(b) - header.IPv6MinimumSize))
		}
	} else if h := header.IPv4(b); int(h.TotalLength()) < len(b) {
		h.SetTotalLength(uint16(len(b)))
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
	}
	if h := header.UDP(b[ip:]); f.key.proto == dial.UDP && int(h.Length()) < len(h) {
		h.SetLength(uint16(len(h)))
	}
}

// tell sends the container an error.
//
// +checklocks:f.mu
func (f *flow) tell(r *report, quoted []byte) {
	if len(quoted) == 0 {
		return
	}
	if !f.proxy.mayReport(f.port) {
		f.proxy.Drop(f.port, trace.UplinkFull)
		return
	}
	route, noRoute := f.proxy.Stack.FindRoute(f.proxy.NIC, tcpip.AddrFromSlice(r.from.AsSlice()), f.id.RemoteAddress, netProto(f.id.RemoteAddress), false)
	if noRoute != nil {
		return
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: icmpHeader + int(route.MaxHeaderLength()), Payload: buffer.MakeWithData(quoted),
	})
	defer pkt.DecRef()
	h := pkt.TransportHeader().Push(icmpHeader)
	h[0], h[1] = r.kind, r.code
	pkt.TransportProtocolNumber = icmp.ProtocolNumber4
	var sum uint16
	if f.ipv6() {
		if header.ICMPv6Type(r.kind) == header.ICMPv6PacketTooBig {
			binary.BigEndian.PutUint32(h[4:], r.info)
		}
		pkt.TransportProtocolNumber = icmp.ProtocolNumber6
		sum = route.PseudoHeaderChecksum(icmp.ProtocolNumber6, uint16(icmpHeader+len(quoted)))
	} else if r.kind == uint8(header.ICMPv4DstUnreachable) && r.code == uint8(header.ICMPv4FragmentationNeeded) {
		binary.BigEndian.PutUint16(h[6:], uint16(min(r.info, 0xffff)))
	}
	binary.BigEndian.PutUint16(h[2:], ^checksum.Checksum(h, checksum.Checksum(quoted, sum)))
	const internetControl = 0xc0 // RFC 1812 §4.3.2.5
	_ = route.WritePacket(stack.NetworkHeaderParams{Protocol: pkt.TransportProtocolNumber, TTL: r.ttl(route), TOS: internetControl}, pkt)
}

// ttl is with how many hops an error goes on: as it came, for who counts them. What would
// not get to the container gets all.
func (r *report) ttl(route *stack.Route) uint8 {
	if r.hops > 1 {
		return r.hops
	}
	return route.DefaultTTL()
}

// mayReport reports whether a port may be told one more error in this second.
func (p *Proxy) mayReport(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reportQuota.take(port)
}
