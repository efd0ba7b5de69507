// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"sluice/dns"
)

// The relay carries DNS queries out of the sandbox, and answers back in, over a pair
// of SOCK_SEQPACKET sockets of its own. It is no socket of the host's network: whoever
// takes the sandbox over can send queries to the resolvers that the agent knows, and
// nothing to anybody else. A UDP socket, though connected, would send wherever it is
// told to.
//
//	0       4    5       6      8          24
//	+-------+----+-------+------+----------+------- - -
//	|  id   | op | place | port | address  | query …      to the agent
//	+-------+----+-------+------+----------+------- - -
//	+-------+----+------- - -
//	|  id   | op | answer …                               from the agent
//	+-------+----+------- - -
//
// An address of zeros is the host's own resolver at that place. To an askUDP there may
// be some answers, until a giveUp: which one is right is seen in the sandbox.
const (
	askUDP = 'u'
	askTCP = 't'
	giveUp = 'x'

	tellAnswer = 'a'
	tellError  = 'e' // why there is none, as text
	tellAbsent = 'n' // there is no resolver at that place

	askLen  = 24
	tellLen = 5
	// maxTell is the longest message to the sandbox.
	maxTell = tellLen + 1<<16
)

// ask is a decoded message to the agent.
type ask struct {
	id    uint32
	op    byte
	up    dns.Upstream
	query []byte
}

func (a *ask) bytes() []byte {
	b := make([]byte, askLen, askLen+len(a.query))
	binary.BigEndian.PutUint32(b, a.id)
	b[4], b[5] = a.op, a.up.Place
	if a.up.Addr.IsValid() {
		binary.BigEndian.PutUint16(b[6:], a.up.Addr.Port())
		addr := a.up.Addr.Addr().As16()
		copy(b[8:], addr[:])
	}
	return append(b, a.query...)
}

// decodeAsk is total: it reads any bytes, or says that they are no ask.
func decodeAsk(b []byte) (a ask, ok bool) {
	if len(b) < askLen || len(b) > askLen+dns.MaxQuery {
		return a, false
	}
	a = ask{id: binary.BigEndian.Uint32(b), op: b[4], up: dns.Upstream{Place: b[5], Host: true}, query: b[askLen:]}
	addr := netip.AddrFrom16([16]byte(b[8:askLen])).Unmap()
	if !addr.IsUnspecified() {
		a.up.Addr = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[6:]))
	}
	return a, a.op == askUDP || a.op == askTCP || a.op == giveUp
}

// tell is a message from the agent.
type tell struct {
	op   byte
	body []byte
}

// relay is the sandbox's end. It implements dns.Transport. While no agent has given it
// a socket, who asks waits.
type relay struct {
	mu sync.Mutex
	// +checklocks:mu
	sock *net.UnixConn // nil: none
	// +checklocks:mu
	fresh chan struct{} // closed when there is another sock
	// +checklocks:mu
	waiting map[uint32]chan tell
	// +checklocks:mu
	last uint32
}

func newRelay() *relay {
	return &relay{fresh: make(chan struct{}), waiting: make(map[uint32]chan tell)}
}

// use makes a socket the one to ask by. It takes ownership of the fd.
func (r *relay) use(fd int) error {
	f := os.NewFile(uintptr(fd), "relay")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return err
	}
	sock, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return errors.New("not a unix socket")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sock != nil {
		r.sock.Close()
	}
	r.sock = sock
	close(r.fresh)
	r.fresh = make(chan struct{})
	go r.read(sock)
	return nil
}

// read hands out what comes, until the agent is gone.
func (r *relay) read(sock *net.UnixConn) {
	b := make([]byte, maxTell)
	for {
		n, err := sock.Read(b)
		if err != nil || n == 0 {
			break
		}
		if n < tellLen {
			continue
		}
		r.hand(binary.BigEndian.Uint32(b), tell{op: b[4], body: append([]byte(nil), b[tellLen:n]...)})
	}
	sock.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sock == sock {
		r.sock = nil
	}
}

func (r *relay) hand(id uint32, t tell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.waiting[id] <- t:
	default: // nobody waits, or for something else
	}
}

// current is the socket, when there is one.
func (r *relay) current(ctx context.Context) (*net.UnixConn, error) {
	for {
		r.mu.Lock()
		sock, fresh := r.sock, r.fresh
		r.mu.Unlock()
		if sock != nil {
			return sock, nil
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return nil, errors.New("the agent is not there")
		}
	}
}

// maxAnswers is how many answers to one query wait to be looked at; the others are
// of no use: whoever forges some is faster than that.
const maxAnswers = 8

func (r *relay) enter() (uint32, chan tell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	ch := make(chan tell, maxAnswers)
	r.waiting[r.last] = ch
	return r.last, ch
}

func (r *relay) leave(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
}

// Exchange implements dns.Transport.
func (r *relay) Exchange(ctx context.Context, up dns.Upstream, tcp bool, query []byte, right func([]byte) bool) ([]byte, error) {
	sock, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	id, answers := r.enter()
	defer r.leave(id)
	a := ask{id: id, op: askUDP, up: up, query: query}
	if tcp {
		a.op = askTCP
	}
	if _, err := sock.Write(a.bytes()); err != nil {
		return nil, err
	}
	defer func() {
		done := ask{id: id, op: giveUp}
		_, _ = sock.Write(done.bytes())
	}()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case t := <-answers:
			switch {
			case t.op == tellAbsent:
				return nil, dns.ErrAbsent
			case t.op == tellError:
				return nil, fmt.Errorf("the host: %s", clip(string(t.body)))
			case right(t.body):
				return t.body, nil
			case tcp:
				return nil, errors.New("the answer is to another query")
			}
		}
	}
}
