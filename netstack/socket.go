// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"sluice/trace"
	"sluice/veth"
)

// socket is a container port's fd and what its worker remembers about it. It
// lives from the snapshot that brought the fd to the one that drops the port or
// replaces the fd, over any number of views.
//
// Each port sends by its own fd and not by one socket for all: a container that
// does not read keeps the memory of what was sent to it charged to the sending
// socket, and a shared one would stall the ports of all the others.
type socket struct {
	fd       int
	index    uint16
	serial   int32 // tells it from earlier sockets of the same index
	line     int32 // the serial of the first one of the same fd, at another worker perhaps
	counters *trace.PortCounters
	worker   *worker
	noStats  bool // has no PACKET_STATISTICS: a socket pair; guarded by Netstack.mu

	culprits culprits // rules that have dropped its frames

	// What follows is guarded by worker.mu.

	debt    int    // work beyond its quantum, see rests
	local   bucket // its ration of the host stack
	strikes uint8  // events in a row that brought neither a frame nor EAGAIN
}

// maxStrikes is how many fruitless events a socket may have in a row. An
// interface that goes down reports one error, which reading clears, and works
// again when it comes up; whatever reports for ever would make the worker spin.
const maxStrikes = 16

// watch puts the socket into its worker's epoll set without asking for any
// event yet, so that what can fail happens before the snapshot is committed.
func (s *socket) watch() error {
	ev := s.event(0)
	if err := unix.EpollCtl(s.worker.poll.fd, unix.EPOLL_CTL_ADD, s.fd, &ev); err != nil {
		return fmt.Errorf("port %d: watch fd %d: %w", s.index, s.fd, err)
	}
	return nil
}

// listen asks for frames. It cannot fail for a socket that watch has added:
// EPOLL_CTL_MOD takes no memory.
func (s *socket) listen() {
	ev := s.event(unix.EPOLLIN)
	_ = unix.EpollCtl(s.worker.poll.fd, unix.EPOLL_CTL_MOD, s.fd, &ev)
}

// unwatch takes it out of the epoll set; a socket that is not in it stays out.
func (s *socket) unwatch() {
	_ = unix.EpollCtl(s.worker.poll.fd, unix.EPOLL_CTL_DEL, s.fd, nil)
}

// event carries index and serial, so that an event that was on its way when the
// port was replaced is not taken for one of its successor.
func (s *socket) event(events uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(s.index), Pad: s.serial}
}

// close gives the fd back. Preconditions: no worker uses the socket.
func (s *socket) close() { _ = unix.Close(s.fd) }

// collectOverruns counts the frames that the kernel dropped since the last call.
// Preconditions: Netstack.mu is held.
func (s *socket) collectOverruns() {
	if s.noStats {
		return
	}
	_, drops, err := veth.Stats(s.fd)
	if err != nil {
		s.noStats = true
		return
	}
	s.counters.Drop(trace.RxOverrun, uint64(drops))
}

// downPorts is a set of ports that wait to be reported. Adding never blocks and
// is never lost: a channel of indices could do only one of both.
type downPorts struct {
	ready chan struct{} // has one element when the set may not be empty

	mu sync.Mutex
	// +checklocks:mu
	set map[uint16]struct{}
}

func newDownPorts() *downPorts {
	return &downPorts{ready: make(chan struct{}, 1), set: make(map[uint16]struct{})}
}

func (d *downPorts) add(index uint16) {
	d.mu.Lock()
	d.set[index] = struct{}{}
	d.mu.Unlock()
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

// report empties the set into f, which may be nil.
func (d *downPorts) report(f func(uint16)) {
	d.mu.Lock()
	set := d.set
	d.set = make(map[uint16]struct{})
	d.mu.Unlock()
	if f == nil {
		return
	}
	for index := range set {
		f(index)
	}
}
