// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sluice/dataplane"
	"sluice/dial"
	"sluice/netstack"
)

// dialler makes the sockets of socket uplinks. What it believes the dataplane is no more
// than what there is in the configuration.
type dialler struct {
	uplinks atomic.Pointer[map[uint16]bool] // by index
}

// allow takes note of the socket uplinks of a snapshot.
func (d *dialler) allow(s *netstack.Snapshot) {
	all := make(map[uint16]bool)
	if s == nil {
		s = new(netstack.Snapshot)
	}
	for i := range s.Namespaces {
		for j := range s.Namespaces[i].Sockets {
			all[s.Namespaces[i].Sockets[j].Index] = true
		}
	}
	d.uplinks.Store(&all)
}

// may is the policy: what a router of the host could be asked to forward. Its own
// loopback is not for containers, and a group is no peer.
func (d *dialler) may(t *dial.Target) unix.Errno {
	all := d.uplinks.Load()
	if all == nil || !(*all)[t.Device] {
		return unix.EACCES
	}
	a := t.To.Addr()
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return unix.ENETUNREACH
	case a.IsLoopback() || a.IsLinkLocalUnicast():
		return unix.EACCES
	case (t.Proto == dial.Echo4) != a.Is4() && (t.Proto == dial.Echo4 || t.Proto == dial.Echo6):
		return unix.EAFNOSUPPORT
	}
	return 0
}

// dialFor gives a dataplane channels by which it and its workers ask for sockets, and
// answers until the dataplane ends.
func (p *plane) dialFor(c *dataplane.Client) {
	conn, theirs, err := dial.Pair()
	if err != nil {
		p.log.Error("no socket uplink will work", "err", err)
		return
	}
	server := dial.NewServer(conn, p.dialler.may)
	server.Over = func(id uint64) { p.doors.over(server, id) }
	p.doors.use(server)
	go func() {
		defer theirs.Close()
		ctx, cancel := context.WithTimeout(context.Background(), applyTimeout)
		defer cancel()
		workers := p.dialForWorkers(ctx, c)
		defer func() {
			for _, f := range workers {
				f.Close()
			}
		}()
		if err := c.DialBy(ctx, theirs, workers...); err != nil && alive(c) {
			p.log.Error("no socket uplink will work", "err", err)
		}
	}()
	go func() {
		if err := server.Serve(); !errors.Is(err, io.EOF) && alive(c) {
			p.log.Warn("the dataplane asks for no more sockets", "err", err)
		}
		p.doors.lose(server)
	}()
}

// dialForWorkers makes a channel for each of a dataplane's workers, and answers. Should
// it have none, they ask by the dataplane's own.
func (p *plane) dialForWorkers(ctx context.Context, c *dataplane.Client) (theirs []*os.File) {
	s, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	for range s.Workers {
		counter, f, err := dial.NewCounter(p.dialler.may)
		if err != nil {
			p.log.Warn("workers of the dataplane dial slowly", "err", err)
			break
		}
		theirs = append(theirs, f)
		go func() { _ = counter.Serve() }() // its end is told of by the dataplane's own
	}
	return theirs
}
