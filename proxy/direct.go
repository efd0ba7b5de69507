// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Theory of operation.
//
// A segment of an established connection needs nothing of the stack's IP layer: who
// delivers it has verified it, knows its connection, and can hand it to the endpoint.
//
// The stack acknowledges after each batch of segments. A short message, though, is mostly
// a question, whose answer carries the acknowledgement for nothing, soon: so it is owed for
// a moment (RFC 9293 §3.8.6.3). Whoever embeds the package pays what is owed when it has
// nothing else to do, or has had enough to do (Pay). A second message that comes before the
// answer is not kept waiting.
//
// The same is owed to the outside when a connection is made: there its last acknowledgement
// waits for the container's first data, see dial.Policy.Open.

// short is the size of messages, in bytes, whose acknowledgement may wait. Less than what a
// sender has in flight to fill a window.
const short = 1024

// debts are the connections that owe an acknowledgement. The lock is a leaf.
type debts struct {
	any atomic.Bool
	mu  sync.Mutex
	// +checklocks:mu
	conns []*conn
	// +checklocks:mu
	spare []*conn
}

// owe takes note that a connection owes an acknowledgement to its container. It reports
// false if it did so before, and has sent nothing since.
func (p *Proxy) owe(c *conn) bool {
	if c.owes.Swap(true) {
		return false
	}
	p.debts.add(c)
	return true
}

// add has a connection pay when there is time.
func (d *debts) add(c *conn) {
	if c.debtor.Swap(true) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, c)
	d.any.Store(true)
}

// Owes reports whether there is something to Pay.
func (p *Proxy) Owes() bool { return p.debts.any.Load() }

// Pay sends the acknowledgements that are owed.
func (p *Proxy) Pay() {
	d := &p.debts
	d.mu.Lock()
	all := d.conns
	d.conns, d.spare = d.spare[:0], nil // another worker may pay at the same time
	d.any.Store(false)
	d.mu.Unlock()
	for i, c := range all {
		all[i] = nil
		c.pay()
	}
	d.mu.Lock()
	d.spare = all[:0]
	d.mu.Unlock()
}

// pay has the stack look for itself what it has not acknowledged, and the host as well.
func (c *conn) pay() {
	c.debtor.Store(false)
	c.owes.Store(false)
	c.mu.Lock()
	if c.unanswering && c.fd >= 0 {
		c.unanswering = false
		_ = unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	}
	c.mu.Unlock()
	ep, ok := (*c.shown.Load()).(*tcp.Endpoint)
	if !ok {
		return
	}
	ep.LockUser()
	over := underWay(ep) && digest(ep, nil)
	ep.UnlockUser()
	c.concluded(ep, over)
}

// strip takes the headers of a packet off, if it is a segment, and nothing but that, of
// a connection under way, whose sum is right. If not it leaves it as it is.
func strip(pkt *stack.PacketBuffer) (tcpHeader header.TCP, ok bool) {
	if !pkt.RXChecksumValidated {
		return nil, false
	}
	size := pkt.Data().Size()
	b, ok := pkt.Data().PullUp(min(size, header.IPv6MinimumSize+header.TCPHeaderMaximumSize))
	if !ok {
		return nil, false
	}
	proto, n := header.IPv6ProtocolNumber, header.IPv6MinimumSize
	if header.IPVersion(b) == header.IPv4Version {
		proto, n = header.IPv4ProtocolNumber, header.IPv4MinimumSize
	}
	if len(b) < n+header.TCPMinimumSize || !isPlain(b, size) {
		return nil, false
	}
	h := header.TCP(b[n:])
	offset := int(h.DataOffset())
	if h.Flags()&(header.TCPFlagSyn|header.TCPFlagRst|header.TCPFlagAck) != header.TCPFlagAck || offset < header.TCPMinimumSize || offset > len(h) {
		return nil, false
	}
	pkt.NetworkProtocolNumber, pkt.TransportProtocolNumber = proto, header.TCPProtocolNumber
	pkt.NetworkHeader().Consume(n)
	return pkt.TransportHeader().Consume(offset)
}

// isPlain reports whether a packet of that size is one of TCP, whole, with nothing between
// its headers. Preconditions: it has them.
func isPlain(b []byte, size int) bool {
	if header.IPVersion(b) == header.IPv4Version {
		h := header.IPv4(b)
		return h.HeaderLength() == header.IPv4MinimumSize && h.Protocol() == uint8(header.TCPProtocolNumber) &&
			!h.More() && h.FragmentOffset() == 0 && int(h.TotalLength()) == size
	}
	h := header.IPv6(b)
	return h.NextHeader() == uint8(header.TCPProtocolNumber) && int(h.PayloadLength())+header.IPv6MinimumSize == size
}

// isMessage reports whether a segment is a short message of its own.
func isMessage(h header.TCP, payload int) bool {
	return payload > 0 && payload <= short && h.Flags() == header.TCPFlagAck|header.TCPFlagPsh
}
