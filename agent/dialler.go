// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sluice/dataplane"
	"sluice/dial"
	"sluice/fence"
	"sluice/netstack"
)

// dialler makes the sockets of socket uplinks. What it believes the dataplane is no more
// than what there is in the configuration.
type dialler struct {
	uplinks atomic.Pointer[map[uint16]bool] // by index
	fence   *fence.Fence                    // is around all of them
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

// may is the policy: what a router of the host could be asked to forward.
func (d *dialler) may(t *dial.Target) unix.Errno {
	all := d.uplinks.Load()
	if all == nil || !(*all)[t.Device] {
		return unix.EACCES
	}
	a := t.To.Addr()
	if !a.IsValid() {
		return unix.ENETUNREACH
	}
	if errno := d.fence.Refuses(a); errno != 0 {
		return errno
	}
	if (t.Proto == dial.Echo4) != a.Is4() && (t.Proto == dial.Echo4 || t.Proto == dial.Echo6) {
		return unix.EAFNOSUPPORT
	}
	return 0
}

// policy is what the dataplane's sockets are made by.
func (d *dialler) policy() dial.Policy {
	return dial.Policy{May: d.may, Fence: d.fence, Stock: d.fence.Loaded()}
}

// accepting is what becomes of a socket that is to listen: nobody who gets what it accepts
// can connect that to somebody.
func (d *dialler) accepting(fd int) error {
	if !d.fence.Loaded() {
		return nil
	}
	return d.fence.Accepting(fd)
}

// dialFor gives a dataplane channels by which it and its workers ask for sockets, and
// answers until the dataplane ends.
func (p *plane) dialFor(c *dataplane.Client) {
	if c.Connects() && !p.dialler.fence.Loaded() { // it was started by who could bound that
		p.log.Error("no socket uplink will work until the dataplane is started anew: it may connect sockets, and there is no fence for them")
		return
	}
	conn, theirs, err := dial.Pair()
	if err != nil {
		p.log.Error("no socket uplink will work", "err", err)
		return
	}
	server := dial.NewServer(conn, p.dialler.policy())
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
		counter, f, err := dial.NewCounter(p.dialler.policy())
		if err != nil {
			p.log.Warn("workers of the dataplane dial slowly", "err", err)
			break
		}
		theirs = append(theirs, f)
		go func() { _ = counter.Serve() }() // its end is told of by the dataplane's own
	}
	return theirs
}
