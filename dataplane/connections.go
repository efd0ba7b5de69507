// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/netstack"
)

// ConnPageMax is how many connections there are at most in one answer.
const ConnPageMax = 8192

// maxConnEvents is how many events there are at most in one answer.
const maxConnEvents = 4096

// ConnPage is a part of the connections.
type ConnPage struct {
	Entries []conntrack.Entry `json:"entries"` // without Conn
	// Next is where the next part begins; 0: there is none.
	Next uint32 `json:"next,omitempty"`
}

// ConnStats is what the table of connections, and the NAT, have and did.
type ConnStats struct {
	Table conntrack.Stats `json:"table"`
	Cap   int             `json:"cap"`
	NAT   nat.Stats       `json:"nat"`
}

// ConnEvents are what happened to connections since the last answer.
type ConnEvents struct {
	Events []conntrack.Event `json:"events"`
	Lost   uint64            `json:"lost,omitempty"` // before them
	More   bool              `json:"more,omitempty"` // there are some yet
}

// Connections lists the connections that a filter, or nil, chooses: at most
// ConnPageMax. It begins at 0, and goes on with the last answer's Next.
func (c *Client) Connections(ctx context.Context, f *conntrack.Filter, from uint32) (ConnPage, error) {
	return table[ConnPage](ctx, c, query{What: queryConns, Filter: f, From: from})
}

// DeleteConnections ends the connections that a filter, or nil, chooses, and says
// how many.
func (c *Client) DeleteConnections(ctx context.Context, f *conntrack.Filter) (int, error) {
	return table[int](ctx, c, query{What: queryConnsDelete, Filter: f})
}

// ConnStats tells what the table of connections and the NAT did.
func (c *Client) ConnStats(ctx context.Context) (ConnStats, error) {
	return table[ConnStats](ctx, c, query{What: queryConnStats})
}

// ConnEvents tells what happened to connections since it was last asked. The first
// question begins that; the process keeps some thousand events for who is slow.
func (c *Client) ConnEvents(ctx context.Context) (ConnEvents, error) {
	return table[ConnEvents](ctx, c, query{What: queryConnEvents})
}

// CloseConnEvents ends what ConnEvents began. So does the client's end.
func (c *Client) CloseConnEvents(ctx context.Context) error {
	_, err := table[int](ctx, c, query{What: queryConnsDeaf})
	return err
}

// Bindings are the mappings of address translation.
func (c *Client) Bindings(ctx context.Context) ([]nat.Binding, error) {
	return table[[]nat.Binding](ctx, c, query{What: queryBindings})
}

// Backends are the statistics of the backends of services.
func (c *Client) Backends(ctx context.Context) ([]nat.BackendStats, error) {
	return table[[]nat.BackendStats](ctx, c, query{What: queryBackends})
}

// connFile is the file of the other side's connections; nil if it has none, or is
// too old or too new to be asked.
func (c *Client) connFile(ctx context.Context) (*os.File, error) {
	a, err := c.call(ctx, message{kind: kindQuery, body: encode(query{What: queryConnFile})}, true)
	if _, no := errors.AsType[*RefusedError](err); no || errors.Is(err, ErrSkew) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer a.close()
	switch len(a.fds) {
	case 0:
		return nil, nil
	case 1:
		return hold(a.fds[0], unix.S_IFREG, "connections")
	}
	return nil, fmt.Errorf("%w: %d fds for one file", ErrProtocol, len(a.fds))
}

// copyConnections makes one file of connections the copy of another, which is in
// use: what is torn is for whoever opens it. Files of different sizes are left as
// they are, and connections begin anew.
func copyConnections(to, from *os.File) error {
	if to == nil || from == nil {
		return nil
	}
	ts, err := to.Stat()
	if err != nil {
		return fmt.Errorf("connections: %w", err)
	}
	fs, err := from.Stat()
	if err != nil {
		return fmt.Errorf("connections: %w", err)
	}
	if os.SameFile(ts, fs) {
		return errors.New("connections: two processes can't use one file")
	}
	if ts.Size() != fs.Size() {
		return nil
	}
	if _, err := io.Copy(io.NewOffsetWriter(to, 0), io.NewSectionReader(from, 0, fs.Size())); err != nil {
		return fmt.Errorf("copy connections: %w", err)
	}
	return nil
}

// close gives up the old process's file.
func (h *takeover) close() {
	if h.from != nil {
		h.from.Close()
	}
}

// connQuery answers the questions about connections.
func (s *session) connQuery(q *query) (m message, known bool, err error) {
	if q.What == queryConnFile {
		if s.srv.conns != nil {
			m.fds = []int{int(s.srv.conns.Fd())}
		}
		return m, true, nil
	}
	c := s.srv.stack.Connections()
	switch q.What {
	case queryConns:
		m.body = encode(connPage(c, q))
	case queryConnsDelete:
		m.body = encode(deleteConns(c, q))
	case queryQueueing: // of a port, and of no namespace either
		m = s.queueing(q)
	case queryTree:
		m = s.tree(q)
	case queryConnStats:
		m.body = encode(connStats(c))
	case queryConnEvents:
		m.body = encode(s.connEvents(c))
	case queryConnsDeaf:
		s.deafen()
		m.body = encode(0)
	case queryBindings, queryBackends:
		m, err = natList(c, q.What)
	default:
		return m, false, nil
	}
	return m, true, err
}

// natList lists what package nat has; nothing is tracked if c is nil.
func natList(c *netstack.Connections, what string) (message, error) {
	var bindings []nat.Binding
	var backends []nat.BackendStats
	if what == queryBindings {
		if c != nil {
			bindings = c.NAT().Bindings()
		}
		return list(bindings)
	}
	if c != nil {
		backends = c.NAT().Backends(c.Now())
	}
	return list(backends)
}

// connPage lists connections from a place in the table on.
func connPage(c *netstack.Connections, q *query) ConnPage {
	p := ConnPage{Entries: []conntrack.Entry{}}
	if c == nil {
		return p
	}
	room := uint32(c.Table().Cap())
	c.Table().Entries(q.Filter, c.Now(), func(e *conntrack.Entry) bool {
		at := (e.ID-1)%room + 1
		switch {
		case at < q.From:
			return true
		case len(p.Entries) == ConnPageMax:
			p.Next = at
			return false
		}
		p.Entries = append(p.Entries, *e)
		return true
	})
	return p
}

func deleteConns(c *netstack.Connections, q *query) int {
	if c == nil {
		return 0
	}
	return c.Table().Delete(q.Filter, c.Now())
}

func connStats(c *netstack.Connections) (s ConnStats) {
	if c != nil {
		s = ConnStats{Table: c.Table().Stats(), Cap: c.Table().Cap(), NAT: c.NAT().Stats()}
	}
	return s
}

// connEvents are those since it was last asked.
func (s *session) connEvents(c *netstack.Connections) ConnEvents {
	e := ConnEvents{Events: []conntrack.Event{}}
	if c == nil {
		return e
	}
	if s.watch == nil {
		s.watch = c.Table().Watch()
	}
	e.Events = make([]conntrack.Event, maxConnEvents)
	n, lost := s.watch.Read(e.Events)
	e.Events, e.Lost, e.More = e.Events[:n], lost, n == maxConnEvents
	return e
}

// deafen ends listening to events.
func (s *session) deafen() {
	if s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
}
