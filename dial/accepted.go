// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Theory of operation.
//
// What somebody outside began, who has the sockets accepts, and passes on the
// descriptor. He bounds how many there are, so he is told when one has ended: once for
// each, in any case but that the channel has. Whoever ends one must not wait, so what
// is to be told is kept, and sent by a goroutine of the channel's. What waits is bounded
// by what was accepted.

// Accepted is a connection that came from outside, or a flow of datagrams.
type Accepted struct {
	Device uint16 // the uplink's index
	Proto  uint8  // TCP or UDP
	// To is the container's, behind its port Member. From is who came.
	To, From netip.AddrPort
	Member   uint16
	// FD is the connection; it closes on exec and doesn't block. Of UDP it is no socket
	// of the host's, but one of AF_UNIX whose messages are the datagrams: who relays them
	// says where to, not who has the descriptor. The end of it is that of the flow.
	FD int
	// Over must be called once, when it has ended. It may be called with any lock.
	Over func()
}

// Pass gives what was accepted to the client, which tells Over that it has ended by id.
// The descriptor stays the caller's. It waits while the other side does not read.
func (s *Server) Pass(a *Accepted, id uint64) error {
	if a.Proto == TCP {
		if err := stream(a.FD); err != nil {
			return err
		}
	}
	return send(s.conn, &wire{
		kind: kindAccepted, proto: a.Proto, device: a.Device, member: a.Member, id: id, to: a.To, from: a.From,
	}, a.FD)
}

// accepted hands on what came. It takes fd over.
func (c *Client) accepted(w *wire, fd int, back *returns) {
	if fd < 0 {
		back.add(w.id)
		return
	}
	a := &Accepted{
		Device: w.device, Proto: w.proto, To: w.to, From: w.from, Member: w.member, FD: fd,
		Over: func() { back.add(w.id) },
	}
	if c.Accepted == nil {
		a.Refuse()
		return
	}
	c.Accepted(a)
}

// Refuse ends it at once: who came is told by a reset.
func (a *Accepted) Refuse() {
	Reset(a.FD)
	a.Over()
}

// Reset closes a connection without a word to say.
func Reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // else it is a FIN
	_ = unix.Close(fd)
}

// returns are what is to be told of one channel's accepted connections.
type returns struct {
	conn *net.UnixConn
	wake *sync.Cond
	mu   sync.Mutex
	// +checklocks:mu
	ids []uint64
	// +checklocks:mu
	closed bool
}

func newReturns(conn *net.UnixConn) *returns {
	r := &returns{conn: conn}
	r.wake = sync.NewCond(&r.mu)
	go r.run()
	return r
}

func (r *returns) add(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.ids = append(r.ids, id)
		r.wake.Signal()
	}
}

func (r *returns) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.ids = true, nil
	r.wake.Signal()
}

// take waits for what is to be told; false: the channel has ended.
func (r *returns) take() ([]uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.ids) == 0 && !r.closed {
		r.wake.Wait()
	}
	all := slices.Clone(r.ids)
	r.ids = r.ids[:0]
	return all, !r.closed
}

func (r *returns) run() {
	for {
		all, ok := r.take()
		if !ok {
			return
		}
		for _, id := range all {
			if err := send(r.conn, &wire{kind: kindOver, id: id}, -1); errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE) {
				return
			}
		}
	}
}
