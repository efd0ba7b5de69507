// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"sluice/dial"
	"sluice/trace"
)

const (
	// maxHeld is how many messages of a flow may wait for its socket, and maxHeldBytes
	// how long those of all may be together.
	maxHeld      = 64
	maxHeldBytes = 8 << 20
)

// message has room for any datagram.
type message [1 << 16]byte

// flowKey is who sends to whom. Of echo, the identifier is the port of src.
type flowKey struct {
	proto    uint8
	src, dst netip.AddrPort
}

// held is a message that waits for the socket, or a train of them.
type held struct {
	b     []byte
	train uint16
	terms terms
}

// flow is one of UDP, or of pings: a connected socket.
type flow struct {
	proxy *Proxy
	key   flowKey
	id    stack.TransportEndpointID
	port  uint16
	used  atomic.Uint32 // when a packet last went, in either direction: ticks
	heard atomic.Bool   // there was an answer
	isRaw bool
	// relayed: whoever came from outside began it. The socket leads to who relays, see
	// inward.go.
	relayed bool
	route   *stack.Route // back to the container

	mu sync.Mutex
	// fd is -1 until the socket is there, and after the end.
	// +checklocks:mu
	fd int
	// +checklocks:mu
	token int32 // of watch
	// +checklocks:mu
	ended bool
	// held waits for the socket.
	// +checklocks:mu
	held []held
	// quote is of the last packet that was sent, for errors about it.
	// +checklocks:mu
	quote quote
	// terms are those on which the socket sends.
	// +checklocks:mu
	terms terms
	// failing: there is more in the socket's error queue.
	// +checklocks:mu
	failing bool
}

// flowOf returns the flow of a packet, which it begins if need be; nil if there is no
// room for another one.
func (p *Proxy) flowOf(k flowKey, id *stack.TransportEndpointID, pkt *stack.PacketBuffer) *flow {
	p.mu.Lock()
	f := p.flows[k]
	if f != nil {
		p.mu.Unlock()
		return f
	}
	port := portOf(pkt)
	if p.closed.Load() || !p.begin(port) {
		p.mu.Unlock()
		p.Drop(port, trace.UplinkFlows)
		return nil
	}
	f = &flow{proxy: p, key: k, id: *id, port: port, fd: -1, terms: opening()}
	f.used.Store(p.now.Load())
	p.flows[k] = f
	p.mu.Unlock()
	f.mu.Lock() // the dial may fail before the packet is sent
	f.quote.take(pkt)
	f.mu.Unlock()
	p.Dialer.Dial(target(p.Device, k.proto, id), f.opened)
	return f
}

// begin gives a port a place for one more flow. In a second it may begin no more than it
// may have: flows that fail at once cost a dial each.
//
// +checklocks:p.mu
func (p *Proxy) begin(port uint16) bool {
	if !p.flowQuota.take(port) {
		return false
	}
	if !p.beginQuota.take(port) {
		p.flowQuota.put(port)
		return false
	}
	return true
}

// opened takes the flow's socket, or ends the flow.
func (f *flow) opened(s dial.Socket) {
	if s.FD < 0 {
		f.refused(s.Errno)
		f.end()
		return
	}
	route, noRoute := f.proxy.Stack.FindRoute(f.proxy.NIC, f.id.LocalAddress, f.id.RemoteAddress, netProto(f.id.RemoteAddress), false)
	f.mu.Lock()
	if f.ended || noRoute != nil {
		f.mu.Unlock()
		_ = unix.Close(s.FD)
		if noRoute == nil {
			route.Release()
		}
		f.end()
		return
	}
	f.fd, f.isRaw, f.route = s.FD, s.Raw, route
	var err error
	if f.token, err = f.proxy.watch(f.port, s.FD, f); err != nil {
		f.mu.Unlock()
		f.end()
		return
	}
	var errno unix.Errno
	for _, b := range f.held {
		errno = f.write(b.b, b.train, b.terms)
	}
	f.release()
	f.mu.Unlock()
	f.unsent(errno)
}

// release forgets what waits.
//
// +checklocks:f.mu
func (f *flow) release() {
	for _, b := range f.held {
		f.proxy.held.Add(-int64(len(b.b)))
	}
	f.held = nil
}

// refused tells the container why the last packet got nowhere.
func (f *flow) refused(errno unix.Errno) {
	if errno == dial.NoAgent {
		f.proxy.Drop(f.port, trace.UplinkDown)
		return
	}
	f.mu.Lock()
	q := f.quote
	f.mu.Unlock()
	f.proxy.reject(&q, errno)
}

// send sends a message, or keeps it until there is a socket. b stays the caller's.
func (f *flow) send(pkt *stack.PacketBuffer, b []byte) {
	if now := f.proxy.now.Load(); f.used.Load() != now {
		f.used.Store(now)
	}
	if f.relayed && !f.heard.Load() {
		f.heard.Store(true)
	}
	f.mu.Lock()
	f.quote.take(pkt)
	var errno unix.Errno
	switch {
	case f.ended:
	case f.fd >= 0:
		errno = f.write(b, trainOf(pkt), termsOf(pkt))
	case len(f.held) < maxHeld && f.proxy.held.Load() < maxHeldBytes:
		f.held = append(f.held, held{append([]byte(nil), b...), trainOf(pkt), termsOf(pkt)})
		f.proxy.held.Add(int64(len(b)))
	default:
		errno = unix.EAGAIN
	}
	f.mu.Unlock()
	f.unsent(errno)
}

// unsent counts a message that the socket did not take, or tells the container why.
func (f *flow) unsent(errno unix.Errno) {
	switch {
	case errno == 0:
	case errno == unix.EMSGSIZE && !f.relayed: // the error queue had the MTU
		f.proxy.Drop(f.port, trace.FragNeeded)
	case transient(errno), errno == unix.EMSGSIZE:
		f.proxy.Drop(f.port, trace.UplinkFull)
	default:
		f.refused(errno)
	}
}

// write puts a message, or a train of them, into the socket.
//
// +checklocks:f.mu
func (f *flow) write(b []byte, train uint16, t terms) unix.Errno {
	f.agree(t)
	if train == 0 || len(b) <= int(train) {
		return f.put(b, 0)
	}
	// What the device can't cut, or would have to fragment, goes one by one.
	if !f.relayed {
		if errno := f.put(b, train); errno != unix.EIO && errno != unix.EINVAL && errno != unix.EMSGSIZE {
			return errno
		}
	}
	for n := int(train); len(b) > 0; b = b[n:] {
		n = min(n, len(b))
		if errno := f.put(b[:n], 0); errno != 0 {
			return errno
		}
	}
	return 0
}

// transient reports whether an error says that there is no room just now.
func transient(errno unix.Errno) bool {
	return errno == unix.EAGAIN || errno == unix.ENOBUFS || errno == unix.ENOMEM
}

// maxTries is how often a message is put into a socket that has errors of earlier ones,
// which may come as fast as they are read.
const maxTries = 4

// put puts a message into the socket. If there is an error, it may be that of an earlier
// one: then that is heard, and this one put again.
//
// +checklocks:f.mu
func (f *flow) put(b []byte, train uint16) unix.Errno {
	for range maxTries {
		errno := f.putOnce(b, train)
		if errno == 0 || transient(errno) || train != 0 && (errno == unix.EIO || errno == unix.EINVAL) || !f.hear() {
			return errno
		}
	}
	return unix.EAGAIN
}

// putOnce is write(2), of a train sendmsg(2).
//
// +checklocks:f.mu
func (f *flow) putOnce(b []byte, train uint16) unix.Errno {
	if train != 0 {
		return sendTrain(f.fd, b, train)
	}
	for {
		_, err := unix.Write(f.fd, b)
		if err == nil {
			return 0
		}
		if errno := errnoOf(err); errno != unix.EINTR {
			return errno
		}
	}
}

// maxMessages is how many messages of one flow are passed on at once: others have
// their turn then.
const maxMessages = 64

// ready implements watched.
func (f *flow) ready(events uint32) {
	if events&unix.EPOLLERR != 0 {
		f.mu.Lock()
		f.hear()
		f.mu.Unlock()
	}
	f.take()
}

// run implements runnable.
func (f *flow) run() {
	f.mu.Lock()
	if f.failing {
		f.hear()
	}
	f.mu.Unlock()
	f.take()
}

// take passes on what the socket has.
func (f *flow) take() {
	b := f.proxy.buffers.Get().(*message) //nolint:forcetypeassert // it is our pool
	defer f.proxy.buffers.Put(b)
	for range maxMessages {
		switch errno := f.receive(b); errno {
		case 0, unix.EINTR:
		case unix.EAGAIN:
			return
		case unix.EPIPE:
			f.end()
			return
		default: // of what was sent; the socket goes on
			f.wrong(errno)
		}
	}
	f.proxy.push(f)
}

// wrong is told of an error that a socket has instead of a message.
func (f *flow) wrong(errno unix.Errno) {
	if f.relayed {
		f.refused(errno)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hear()
}

// receive passes one message on.
func (f *flow) receive(b *message) unix.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 {
		return unix.EAGAIN
	}
	n, errno := receive(f.fd, b[:])
	switch {
	case errno != 0:
		return errno
	case n == 0 && f.relayed && hungUp(f.fd):
		return unix.EPIPE
	}
	f.answer(b[:n])
	return 0
}

func errnoOf(err error) unix.Errno {
	errno := unix.EIO
	errors.As(err, &errno)
	return errno
}

// answer sends a message to the container.
func (f *flow) answer(b []byte) {
	if now := f.proxy.now.Load(); f.used.Load() != now {
		f.used.Store(now)
	}
	if !f.relayed {
		f.heard.Store(true)
	}
	if f.key.proto == dial.UDP {
		f.datagram(b)
	} else {
		f.echoReply(b)
	}
}

// idle are the flows whose time is over.
func (p *Proxy) idle(now uint32) (out []*flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.flows {
		limit := uint32(idleUnreplied)
		if f.heard.Load() && f.key.proto == dial.UDP {
			limit = idleReplied
		}
		if now-f.used.Load() >= limit {
			out = append(out, f)
		}
	}
	return out
}

// end ends a flow. It may be called more than once.
func (f *flow) end() {
	f.mu.Lock()
	was := f.ended
	f.ended = true
	f.release()
	if f.fd >= 0 {
		f.proxy.unwatch(f.token)
		_ = unix.Close(f.fd)
		f.fd = -1
		f.route.Release()
	}
	f.mu.Unlock()
	if was {
		return
	}
	p := f.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flows, f.key)
	p.flowQuota.put(f.port)
}

// ipv6 reports whether the flow is of IPv6.
func (f *flow) ipv6() bool { return f.id.RemoteAddress.Len() == header.IPv6AddressSize }
