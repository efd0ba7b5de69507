// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/netstack"
)

// MaxDelete is how many connections can be ended by one request.
const MaxDelete = 4096

// maxConnEvents is how many events there are at most in one answer.
const maxConnEvents = 1 << 14

// ConnStats is what the table of connections, and the NAT, have and did.
type ConnStats struct {
	Table conntrack.Stats `json:"table"`
	Cap   int             `json:"cap"`
	NAT   nat.Stats       `json:"nat"`
}

// ConnEvents are what happened to connections since the last answer.
type ConnEvents struct {
	Events []byte // for conntrack.DecodeEvents
	Lost   uint64 // before them
	More   bool   // there are some yet
}

// DeleteConnections ends those of some connections, MaxDelete at most, that are there
// yet and that the filter still chooses, and says which. The list itself comes from the
// file, which costs the process nothing (conntrack.View).
func (c *Client) DeleteConnections(ctx context.Context, f *conntrack.Filter, ids []uint32) ([]uint32, error) {
	return table[[]uint32](ctx, c, query{What: queryConnsDelete, Filter: f, IDs: ids})
}

// ConnStats tells what the table of connections and the NAT did.
func (c *Client) ConnStats(ctx context.Context) (ConnStats, error) {
	return table[ConnStats](ctx, c, query{What: queryConnStats})
}

// ConnEvents tells what happened to connections since it was last asked. The first
// question begins that; the process keeps some thousand events for who is slow.
func (c *Client) ConnEvents(ctx context.Context) (e ConnEvents, err error) {
	a, err := c.call(ctx, message{kind: kindQuery, body: encode(query{What: queryConnEvents})}, false)
	if err != nil {
		return e, err
	}
	return e, e.decode(a.body)
}

// The body of events: how many were lost, eight bytes, then the events as they are kept.
// As JSON, ten thousand connections a second would cost both sides a processor.
func (e *ConnEvents) encode() []byte {
	return append(binary.BigEndian.AppendUint64(nil, e.Lost), e.Events...)
}

func (e *ConnEvents) decode(b []byte) error {
	if len(b) < 8 || (len(b)-8)%conntrack.EventSize != 0 {
		return fmt.Errorf("%w: events of %d bytes", ErrProtocol, len(b))
	}
	e.Lost, e.Events = binary.BigEndian.Uint64(b), b[8:]
	e.More = len(e.Events) >= maxConnEvents*conntrack.EventSize
	return nil
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
	case queryConnsDelete:
		m, err = deleteConns(c, q)
	case queryQueueing: // of a port, and of no namespace either
		m = s.queueing(q)
	case queryTree:
		m = s.tree(q)
	case queryConnStats:
		m.body = encode(connStats(c))
	case queryConnEvents:
		e := s.connEvents(c)
		m.body = e.encode()
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

func deleteConns(c *netstack.Connections, q *query) (message, error) {
	if len(q.IDs) > MaxDelete {
		return message{}, refuse("ids", fmt.Errorf("%d, want %d at most", len(q.IDs), MaxDelete))
	}
	var ended []uint32
	if c != nil {
		ended = c.Table().DeleteListed(q.Filter, q.IDs, c.Now())
	}
	return list(ended)
}

func connStats(c *netstack.Connections) (s ConnStats) {
	if c != nil {
		s = ConnStats{Table: c.Table().Stats(), Cap: c.Table().Cap(), NAT: c.NAT().Stats()}
	}
	return s
}

// connEvents are those since it was last asked.
func (s *session) connEvents(c *netstack.Connections) (e ConnEvents) {
	if c == nil {
		return e
	}
	if s.watch == nil {
		s.watch = c.Table().Watch()
	}
	e.Events, e.Lost = s.watch.Read(nil, maxConnEvents)
	return e
}

// deafen ends listening to events.
func (s *session) deafen() {
	if s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
}
