// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"sluice/fence"
)

// Theory of operation.
//
// A Client has a goroutine that waits for answers, and to wake one takes longer than all
// the rest of a dial. Whoever has a thread that looks at an epoll set anyway puts a channel
// of its own into that, and takes the answers itself. Most connections need no answer, see
// stock.go.

// Polled is a Client for one thread, which only dials. It outlives its channels, too. Its
// zero value has none. It is safe for concurrent use.
type Polled struct {
	// Fence is around the sockets that come, so that who is behind it is refused at once;
	// nil: there is none. Connects says that this process may connect them itself. Both are
	// set before the first Attach.
	Fence    *fence.Fence
	Connects bool

	mu sync.Mutex
	// +checklocks:mu
	open bool
	// +checklocks:mu
	letter letter
	// +checklocks:mu
	fd int // if open
	// +checklocks:mu
	last uint64
	// +checklocks:mu
	pending map[uint64]func(Socket)
	// +checklocks:mu
	stocks [2]stock // of IPv4 and of IPv6
}

// Attach makes a descriptor the channel and takes it over. Dials that the one before has
// not answered fail, and its sockets are given up. Ready is to be called when it is readable.
func (p *Polled) Attach(fd int) {
	p.mu.Lock()
	lost := p.drop()
	p.discard()
	p.open, p.fd, p.pending = true, fd, make(map[uint64]func(Socket))
	p.mu.Unlock()
	fail(lost)
}

// Close ends the channel.
func (p *Polled) Close() {
	p.mu.Lock()
	lost := p.drop()
	p.discard()
	p.mu.Unlock()
	fail(lost)
}

// drop ends the channel, and returns the dials that it has not answered. The sockets that
// came by it are good until there is another one.
//
// +checklocks:p.mu
func (p *Polled) drop() (lost map[uint64]func(Socket)) {
	if !p.open {
		return nil
	}
	_ = unix.Close(p.fd)
	lost = p.pending
	p.open, p.pending = false, nil
	return lost
}

// Dial is that of a Client. It reports false, and calls nobody, if there is neither a socket
// nor a channel, or one that is full.
func (p *Polled) Dial(t Target, done func(Socket)) bool {
	if errno := p.Fence.Refuses(t.To.Addr()); errno != 0 {
		done(Socket{FD: -1, Errno: errno})
		return true
	}
	p.mu.Lock()
	fd := -1
	if t.Proto == TCP && p.Connects {
		fd = p.take(&t)
	}
	if fd < 0 {
		defer p.mu.Unlock()
		return p.ask(&t, done)
	}
	p.mu.Unlock()
	done(begin(fd, false, nil, t.To))
	return true
}

// ask asks for a socket that is connected, or about to be.
//
// +checklocks:p.mu
func (p *Polled) ask(t *Target, done func(Socket)) bool {
	if !p.open {
		return false
	}
	p.last++
	w := wire{kind: kindRequest, proto: t.Proto, device: t.Device, id: p.last, to: t.To}
	if p.letter.send(&w, p.fd, unix.MSG_DONTWAIT) != nil {
		return false
	}
	p.pending[p.last] = done
	return true
}

// Ready takes one message, if there is any. It does not wait, and calls who dialled.
func (p *Polled) Ready() {
	p.mu.Lock()
	if !p.open {
		p.mu.Unlock()
		return
	}
	var w wire
	fds, err := p.letter.next(&w, p.fd, unix.MSG_DONTWAIT)
	if err != nil {
		var lost map[uint64]func(Socket)
		if !errors.Is(err, unix.EAGAIN) {
			lost = p.drop()
		}
		p.mu.Unlock()
		fail(lost)
		return
	}
	if w.kind == kindStock {
		p.fill(&w, fds)
		p.mu.Unlock()
		return
	}
	done := p.pending[w.id]
	delete(p.pending, w.id)
	fd := only(fds)
	p.mu.Unlock()
	w.give(fd, done)
}
