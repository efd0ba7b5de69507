// SPDX-License-Identifier: Apache-2.0

package qdisc

import "sluice/packet"

// MoveTo makes the tree another worker's: what waits goes into that one's pool, in its
// place, and tokens, deficits, timers and statistics stay. So nobody can tell by what
// leaves that it was moved, unless the pool has no memory for all of it: a packet without
// is lost when it comes to the head. Preconditions: no worker uses either pool, and the
// tree is in no group.
func (t *Tree) MoveTo(p *Pool) {
	if p == t.pool {
		return
	}
	m := mover{from: t.pool, to: p}
	if t.root != nil {
		m.discipline(t.root)
	}
	m.from.mem -= t.mem
	m.to.mem += t.mem
	t.pool = p
}

// mover moves packets from one pool to another.
type mover struct{ from, to *Pool }

// discipline moves what a discipline holds, and what those below it hold.
//
//nolint:gocyclo,cyclop // one case for each kind
func (m *mover) discipline(d discipline) {
	if n := d.base(); n.ahead != 0 {
		n.ahead = m.packet(n.ahead)
	}
	switch q := d.(type) {
	case *fifo:
		m.list(&q.q)
	case *fast:
		for i := range q.q {
			m.list(&q.q[i])
		}
	case *ingress:
		m.list(&q.q)
	case *codel:
		m.list(&q.q)
	case *fqCodel:
		for i := range q.flows {
			m.list(&q.flows[i].q)
		}
	case *sfq:
		for i := range q.flows {
			m.list(&q.flows[i].q)
		}
	case *fq:
		m.list(&q.urgent)
		for i := range q.flows {
			m.list(&q.flows[i].q)
		}
	case *netem:
		m.netem(q)
	case *tbf:
		m.discipline(q.child)
	case *prio:
		for _, b := range q.bands {
			m.discipline(b)
		}
	case *drr:
		for _, c := range q.order {
			m.discipline(c.leaf)
		}
	case *htb:
		m.list(&q.direct)
		for _, c := range q.order {
			if c.leaf != nil {
				m.discipline(c.leaf)
			}
		}
	}
}

func (m *mover) netem(q *netem) {
	m.list(&q.front)
	m.list(&q.line)
	for i := range q.odd {
		q.odd[i].r = m.packet(q.odd[i].r)
	}
	if q.child != nil {
		m.discipline(q.child)
	}
}

func (m *mover) list(l *list) {
	var moved list
	for r := m.from.pop(l); r != 0; r = m.from.pop(l) {
		m.to.push(&moved, m.packet(r))
	}
	*l = moved
}

// packet moves a packet, for which there is room: what a tree may hold does not depend on
// whose it is.
func (m *mover) packet(r Ref) Ref {
	m.from.keep(r)
	was := m.from.at(r)
	moved := m.to.place(was.Meta)
	is := m.to.at(moved)
	*is = *was
	is.next, is.lent, is.buf = 0, 0, 0
	if was.buf != 0 {
		if is.buf = m.to.bufs.take(packet.Headroom + int(was.len)); is.buf == 0 {
			is.lost = true
		} else {
			copy(m.to.bufs.bytes(is.buf), m.from.bufs.bytes(was.buf)[:packet.Headroom+int(was.len)])
		}
	}
	m.from.free(r)
	return moved
}
