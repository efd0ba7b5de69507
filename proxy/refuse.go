// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// quote is the beginning of a packet, which an ICMP error about it repeats.
type quote struct {
	b     [header.IPv6MinimumSize + 40]byte
	ip, n int // of the IP header, and in all
}

// maxQuotedL4 is what of the transport header is kept: ports and numbers of TCP.
const maxQuotedL4 = 20

// quoteOf keeps what a packet, which is the stack's, begins with. What has more IP
// header than fits can't be quoted: its sender is told nothing.
func (q *quote) take(pkt *stack.PacketBuffer) {
	ip, l4 := pkt.NetworkHeader().Slice(), pkt.TransportHeader().Slice()
	l4 = l4[:min(len(l4), maxQuotedL4)]
	if len(ip)+len(l4) > len(q.b) {
		q.n = 0
		return
	}
	q.ip = copy(q.b[:], ip)
	q.n = q.ip + copy(q.b[q.ip:], l4)
}

// rejection is an ICMP error in both families.
type rejection struct {
	v4 stack.RejectIPv4WithICMPType
	v6 stack.RejectIPv6WithICMPType
}

// rejectionOf is what a router says of an error that a kernel's socket has; false:
// nothing.
func rejectionOf(errno unix.Errno) (rejection, bool) {
	switch errno { //nolint:exhaustive // all others mean nothing to a router
	case unix.ENETUNREACH, unix.ENETDOWN, unix.EAFNOSUPPORT, unix.EADDRNOTAVAIL:
		return rejection{stack.RejectIPv4WithICMPNetUnreachable, stack.RejectIPv6WithICMPNoRoute}, true
	case unix.EHOSTUNREACH:
		return rejection{stack.RejectIPv4WithICMPHostUnreachable, stack.RejectIPv6WithICMPAddrUnreachable}, true
	case unix.EACCES, unix.EPERM:
		return rejection{stack.RejectIPv4WithICMPAdminProhibited, stack.RejectIPv6WithICMPAdminProhibited}, true
	case unix.ECONNREFUSED:
		return rejection{stack.RejectIPv4WithICMPPortUnreachable, stack.RejectIPv6WithICMPPortUnreachable}, true
	}
	return rejection{}, false
}

// reject sends the sender of a packet the ICMP error that goes with errno, if any.
func (p *Proxy) reject(q *quote, errno unix.Errno) {
	r, ok := rejectionOf(errno)
	if !ok || q.n == 0 {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(q.b[:q.n])})
	defer pkt.DecRef()
	pkt.NICID = p.NIC
	_, _ = pkt.NetworkHeader().Consume(q.ip)
	_, _ = pkt.TransportHeader().Consume(q.n - q.ip)
	pkt.NetworkProtocolNumber = header.IPv4ProtocolNumber
	if q.b[0]>>4 == 6 {
		pkt.NetworkProtocolNumber = header.IPv6ProtocolNumber
		pkt.TransportProtocolNumber = tcpip.TransportProtocolNumber(q.b[6])
	} else {
		pkt.TransportProtocolNumber = tcpip.TransportProtocolNumber(q.b[9])
	}
	switch h := p.Stack.NetworkProtocolInstance(pkt.NetworkProtocolNumber).(type) {
	case stack.RejectIPv4WithHandler:
		_ = h.SendRejectionError(pkt, r.v4, true) // what can't be sent is not
	case stack.RejectIPv6WithHandler:
		_ = h.SendRejectionError(pkt, r.v6, true)
	}
}
