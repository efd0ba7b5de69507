// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"sync"

	"sluice/conntrack"
)

// connList counts connections, for `ct count`: those whose packets came by, as
// long as they are in the table of connections.
type connList struct {
	mu    sync.Mutex
	conns []counted
}

// counted is a connection; a new one is known by its tuple until it is confirmed.
type counted struct {
	conn  conntrack.Conn
	tuple conntrack.Tuple
	zone  uint16
	at    int64
}

// maxCounted bounds one list.
const maxCounted = 1 << 16

// unconfirmed is for how long a connection counts that was never confirmed: two
// ticks of the kernel's clock, as in nf_conncount.
const unconfirmed = 8_000_000

func (l *connList) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = l.conns[:0]
}

// count is how many connections there are, the packet's included.
func (l *connList) count(p *Packet) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	me := counted{conn: p.Conn, at: p.Now}
	switch {
	case p.Conn != (conntrack.Conn{}):
		me.tuple, me.zone = p.Conn.Tuple(conntrack.Original), p.Conn.Zone()
	case p.Pending != nil && p.Pending.Active():
		me.tuple, me.zone = p.Pending.Original, p.Pending.Zone
	default:
		return len(l.conns)
	}
	n, found := 0, false
	for i := range l.conns {
		c := &l.conns[i]
		if c.zone == me.zone && c.tuple == me.tuple {
			if !found {
				l.conns[n] = me
				n++
			}
			found = true
			continue
		}
		if c.lives(p) {
			l.conns[n] = *c
			n++
		}
	}
	l.conns = l.conns[:n]
	if !found && n < maxCounted {
		l.conns = append(l.conns, me)
		n++
	}
	return n
}

// lives reports whether the connection still counts.
func (c *counted) lives(p *Packet) bool {
	if c.conn == (conntrack.Conn{}) && p.Env != nil && p.Env.Connection != nil {
		c.conn = p.Env.Connection(c.zone, &c.tuple)
	}
	if c.conn == (conntrack.Conn{}) {
		return p.Now-c.at < unconfirmed
	}
	return c.conn.Valid()
}
