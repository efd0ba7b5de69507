// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"slices"

	"sluice/api"
	"sluice/dataplane"
)

// Theory of operation.
//
// What the dataplane lists of a network it lists at once, and a socket uplink may have forty
// thousand connections. A part of the list is as many networks as have room in it, or as
// much of one. The place to go on from is the network's number, and in it how many were told:
// an order that lasts, in which connections that come or go meanwhile move others.

// socketPageBytes is when a part of a list of sockets is long enough: of nearly all networks
// there is one part, since for the next one the dataplane lists all of it once more.
const socketPageBytes = 4 << 20

// socketPart is a part of ss.
type socketPart struct {
	api.Page
	from uint64
	room int // bytes
	list func(n *networkRecord) ([]api.Socket, error)
}

// socketPage is a part of ss.
func (a *Agent) socketPage(ctx context.Context, q query) (*api.Page, error) {
	st, all, err := a.look(q)
	if err != nil {
		return nil, err
	}
	names := st.portNames()
	p := socketPart{from: q.from, room: socketPageBytes}
	p.list = func(n *networkRecord) ([]api.Socket, error) {
		return ask(ctx, a.plane, []*networkRecord{n}, atMostTold, socketsOf, func(n *networkRecord, e *dataplane.Socket) api.Socket {
			s := publicSocket(n, e)
			s.Namespace, s.Process = n.space(), names[e.Port]
			return s
		})
	}
	return &p.Page, p.make(all)
}

// make fills the part.
func (p *socketPart) make(all []*networkRecord) error {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *networkRecord) int { return cmp.Compare(a.Port, b.Port) })
	for _, n := range all {
		told := p.told(n)
		if told < 0 {
			continue
		}
		if len(p.Body) >= p.room {
			p.Next = uint64(n.Port) << 32
			return nil
		}
		sockets, err := p.list(n)
		if err != nil {
			return err
		}
		if left := p.add(sockets[min(told, len(sockets)):]); left > 0 {
			p.Next = uint64(n.Port)<<32 | uint64(len(sockets)-left)
			return nil
		}
	}
	return nil
}

// told is how many sockets of a network were in parts before; negative: all.
func (p *socketPart) told(n *networkRecord) int {
	switch at := p.from >> 32; {
	case uint64(n.Port) < at:
		return -1
	case uint64(n.Port) > at:
		return 0
	}
	return int(p.from & (1<<32 - 1))
}

// add adds sockets, and says how many are left.
func (p *socketPart) add(all []api.Socket) (left int) {
	for i := range all {
		if len(p.Body) >= p.room {
			return len(all) - i
		}
		p.Body = appendJSON(p.Body, &all[i])
		p.Entries++
	}
	return 0
}

// socketsOf lists the sockets of a namespace, for ask.
func socketsOf(c *dataplane.Client, ctx context.Context, namespace, network string) ([]dataplane.Socket, error) { //nolint:revive // as a method expression
	return c.Sockets(ctx, namespace, network)
}
