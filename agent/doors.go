// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/dial"
	"sluice/uplink"
)

// Theory of operation.
//
// What a namespace with an uplink of type socket publishes is a door: a socket of the
// host's that listens, which is what holds the port as well. What comes is accepted
// here, and passed on to the dataplane (package dial), which calls the container. From
// then on it is the dataplane's: it survives this process, and not that one.
//
// Nothing is accepted beyond what a door and a container may have, nor while there is
// no dataplane: it waits in the kernel's backlog, and the client's kernel tries again
// when that is full. Whoever comes while the container is not there is reset.
//
// What comes by a door of datagrams is relayed, see doors_datagram.go.

// Bounds of what comes in, in connections. A container may have more of those that it
// begins itself: half of what it may have is never taken by others.
const (
	maxDoorConns   = 1024
	maxMemberConns = 2048
)

// doors are those of an agent.
type doors struct {
	log *slog.Logger

	mu      sync.Mutex
	changed *sync.Cond
	// +checklocks:mu
	open map[uplink.Port]*door
	// +checklocks:mu
	server *dial.Server // the present dataplane's; nil: there is none
	// +checklocks:mu
	last uint64
	// passed are the connections that the server has, by number, conns counts them by
	// container, flows are those of datagrams.
	// +checklocks:mu
	passed map[uint64]passage
	// +checklocks:mu
	conns map[uint16]int
	// +checklocks:mu
	flows map[uint16]int
	// +checklocks:mu
	allFlows int
}

// passage is whose a connection is.
type passage struct {
	door   *door
	member uint16
}

// door is one published port of the host. Its fields are of doors.mu.
type door struct {
	port   uplink.Port
	file   *os.File
	raw    syscall.RawConn
	to     behind
	conns  int
	closed bool
	relays map[relayKey]*relay // of datagrams
}

// behind is the container that a door leads to; zero: there is none now.
type behind struct {
	uplink uint16 // its index
	member uint16 // the container's port
	v4, v6 netip.AddrPort
}

func (b *behind) there() bool { return b.v4.IsValid() || b.v6.IsValid() }

// address is the container's: of the client's family, if it has one.
func (b *behind) address(client netip.Addr) netip.AddrPort {
	if client.Is4() && b.v4.IsValid() || !b.v6.IsValid() {
		return b.v4
	}
	return b.v6
}

func newDoors(log *slog.Logger) *doors {
	d := &doors{
		log: log, open: make(map[uplink.Port]*door), passed: make(map[uint64]passage),
		conns: make(map[uint16]int), flows: make(map[uint16]int),
	}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// has reports whether a port has a door.
func (d *doors) has(p uplink.Port) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[p] != nil
}

// add makes a door of a socket, which it takes over. It leads nowhere yet.
func (d *doors) add(p uplink.Port, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return err
	}
	one := &door{port: p, file: f, raw: raw, relays: make(map[relayKey]*relay)}
	d.mu.Lock()
	d.open[p] = one
	d.mu.Unlock()
	if p.Proto == "udp" {
		go d.receive(one)
	} else {
		go d.accept(one)
	}
	return nil
}

// shut closes doors. What came by them goes on, but datagrams.
func (d *doors) shut(ports []uplink.Port) {
	for _, p := range ports {
		d.mu.Lock()
		one := d.open[p]
		delete(d.open, p)
		if one != nil {
			one.closed = true
		}
		d.mu.Unlock()
		if one != nil {
			one.file.Close()
			d.endRelays(one)
		}
	}
	d.mu.Lock()
	d.changed.Broadcast()
	d.mu.Unlock()
}

// aim lets each door lead to where it should. Those that are not named lead nowhere.
func (d *doors) aim(to map[uplink.Port]behind) {
	var turned []*door
	d.mu.Lock()
	for p, one := range d.open {
		if next := to[p]; next != one.to {
			one.to, turned = next, append(turned, one)
		}
	}
	d.changed.Broadcast()
	d.mu.Unlock()
	for _, one := range turned {
		d.endRelays(one)
	}
}

// ports are those that have a door.
func (d *doors) ports() (out []uplink.Port) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range d.open {
		out = append(out, p)
	}
	return out
}

// close shuts all.
func (d *doors) close() { d.shut(d.ports()) }

// use passes on to this dataplane from now on; it has nothing yet.
func (d *doors) use(s *dial.Server) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget()
	d.server = s
	d.changed.Broadcast()
}

// lose is the end of a dataplane, and of all connections that it has.
func (d *doors) lose(s *dial.Server) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == s {
		d.forget()
		d.server = nil
		d.changed.Broadcast()
	}
}

// forget is nobody's connections.
//
// +checklocks:d.mu
func (d *doors) forget() {
	for _, p := range d.passed {
		p.door.conns = 0
	}
	clear(d.passed)
	clear(d.conns)
}

// over takes note that a connection has ended. The number is the dataplane's word.
func (d *doors) over(s *dial.Server, id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == s {
		d.free(id)
	}
}

// free gives the place of a connection to others.
//
// +checklocks:d.mu
func (d *doors) free(id uint64) {
	p, ok := d.passed[id]
	if !ok {
		return
	}
	delete(d.passed, id)
	p.door.conns--
	if d.conns[p.member]--; d.conns[p.member] <= 0 {
		delete(d.conns, p.member)
	}
	d.changed.Broadcast()
}

// accept serves a door of connections until it is closed.
func (d *doors) accept(one *door) {
	for {
		fd, from, err := one.accept()
		switch {
		case err == nil:
			d.enter(one, fd, from)
		case errors.Is(err, os.ErrClosed):
			return
		default:
			time.Sleep(50 * time.Millisecond) // EMFILE, ENOMEM: it waits in the backlog
		}
	}
}

// accept waits for a connection.
func (d *door) accept() (fd int, from netip.AddrPort, err error) {
	var sa unix.Sockaddr
	waited := d.raw.Read(func(l uintptr) bool {
		fd, sa, err = unix.Accept4(int(l), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return !errors.Is(err, unix.EAGAIN)
	})
	if waited != nil {
		return -1, from, waited
	}
	return fd, addrPortOf(sa), err
}

// addrPortOf is the address of a socket of IPv4 or IPv6.
func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// zoneOf is the interface of a link-local address, 0 for none.
func zoneOf(a netip.Addr) uint32 {
	n, _ := strconv.ParseUint(a.Zone(), 10, 32)
	return uint32(n)
}

// enter passes a connection on, when there is room for it. It takes it over.
func (d *doors) enter(one *door, fd int, from netip.AddrPort) {
	for {
		server, a, id := d.reserve(one, from)
		if server == nil {
			dial.Reset(fd)
			return
		}
		a.Proto, a.FD = dial.TCP, fd
		if err := server.Pass(a, id); err == nil {
			unix.Close(fd)
			return
		}
		d.lose(server) // the next one has it
	}
}

// reserve waits for a place, and a dataplane. nil: the door leads nowhere.
func (d *doors) reserve(one *door, from netip.AddrPort) (*dial.Server, *dial.Accepted, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for one.to.there() && !one.closed &&
		(d.server == nil || one.conns >= maxDoorConns || d.conns[one.to.member] >= maxMemberConns) {
		d.changed.Wait()
	}
	if !one.to.there() || one.closed {
		return nil, nil, 0
	}
	d.last++
	d.passed[d.last] = passage{one, one.to.member}
	one.conns++
	d.conns[one.to.member]++
	return d.server, one.accepted(from), d.last
}

// accepted is what came by a door from an address. Of doors.mu.
func (d *door) accepted(from netip.AddrPort) *dial.Accepted {
	return &dial.Accepted{Device: d.to.uplink, Member: d.to.member, To: d.to.address(from.Addr()), From: from}
}
