// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/autoconf"
	"sluice/dns"
	"sluice/netstack"
)

const (
	// callTimeout bounds a request whose context has no deadline.
	callTimeout = 10 * time.Second
	// lastWords is how long the end of a connection waits for the end of its
	// process, which follows at once if it is the cause.
	lastWords = 100 * time.Millisecond
	// maxUnasked is the number of events and late answers that are taken in one
	// second. The other side sends at most a tenth, if it is what it should be.
	maxUnasked = 1000
)

// Client is an agent's end of the control connection to one dataplane. It is
// safe for concurrent use.
//
// The dataplane reads hostile bytes, so a Client takes it for hostile: whatever
// it sends is bounded, fds that were not asked for are closed, no call waits for
// ever, and what breaks the protocol breaks the connection (ErrProtocol).
type Client struct {
	conn  *conn
	proc  *process
	other hello // what the process said of itself
	// pathless says that no other agent can ever connect to the process.
	pathless bool

	snapshot *netstack.Snapshot
	files    map[uint16]*os.File
	counters *os.File
	conns    *os.File

	events chan Event
	lost   uint64        // events that nobody read; the reader's
	recent rate          // what came unasked; the reader's
	done   chan struct{} // closed by the reader, after err was set
	ended  chan struct{} // closed by the reader as the last thing

	// apply is held from the first staged socket to the answer, since staged
	// sockets are the connection's and not the call's. Taken before mu.
	apply sync.Mutex

	mu sync.Mutex
	// +checklocks:mu
	lastID uint64
	// pending are the requests without an answer.
	// +checklocks:mu
	pending map[uint64]*call
	// err is why the connection ended; nil while it is up.
	// +checklocks:mu
	err error
}

// newClient takes ownership of both and starts to read.
func newClient(c *conn, p *process) *Client {
	n := &Client{
		conn: c, proc: p,
		events:  make(chan Event, maxQueue),
		done:    make(chan struct{}),
		ended:   make(chan struct{}),
		pending: make(map[uint64]*call),
	}
	go n.read()
	return n
}

// PID is the process's number as this process sees it. In its own PID namespace
// it is 1.
func (c *Client) PID() int { return c.proc.pid }

// Build is the process's BuildID, as it says itself. If it is not this
// program's, Handover replaces the process by this program.
func (c *Client) Build() string { return c.other.Build }

// Connects is what the process says of StartConfig.Connects.
func (c *Client) Connects() bool {
	return slices.Contains(strings.Fields(c.other.Settings), connectsArg(true))
}

// Generation is that of the snapshot that the process had when this side
// connected; 0 if it had none.
func (c *Client) Generation() uint64 { return c.other.Generation }

// Done is closed when the process is gone or the connection broke; Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is nil until Done is closed. Then it wraps ErrExited, ErrReplaced,
// ErrProtocol, ErrClosed or, if the process is still there but not the
// connection, an error of the socket.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Events are what the dataplane tells unasked. Read them: what does not fit into
// the channel is lost and counted (Event.Lost). It is closed after Done.
func (c *Client) Events() <-chan Event { return c.events }

// Adopted is what a process that was already running brought with it: its
// snapshot, nil if it has none, and dups of its port sockets by index, which are
// the caller's to close. After Start both are nil.
//
// The snapshot is valid and each file is a socket, but nothing says that it is
// the right one: a dataplane that was taken over might swap two containers. The
// caller knows better, from its own state and from the interface that each
// socket is bound to (getsockname(2)).
func (c *Client) Adopted() (*netstack.Snapshot, map[uint16]*os.File) { return c.snapshot, c.files }

// Counters is the counter file of an adopted process; nil after Start, or if it
// has none. It belongs to the client, until Close.
func (c *Client) Counters() *os.File { return c.counters }

// ConnectionFile is the file of connections of an adopted process; nil after Start,
// or if it has none. It is closed with the client.
func (c *Client) ConnectionFile() *os.File { return c.conns }

// Apply makes the snapshot real, all of it or nothing (netstack.Apply). newFDs
// has the sockets of the ports that the process does not have yet; they stay the
// caller's, who must keep them open for the call, and longer so as to give them
// to the next process. If the dataplane says no, the error is a *RefusedError.
// After any other error it is unknown which snapshot holds.
func (c *Client) Apply(ctx context.Context, s *netstack.Snapshot, newFDs map[uint16]*os.File) error {
	if err := s.Validate(); err != nil {
		return err
	}
	c.apply.Lock()
	defer c.apply.Unlock()
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.stage(ctx, newFDs); err != nil {
		return err
	}
	_, err := c.call(ctx, message{kind: kindApply, body: encode(s)}, false)
	return err
}

// stage sends the sockets that the next apply refers to.
func (c *Client) stage(ctx context.Context, files map[uint16]*os.File) error {
	var indices []uint16
	for index := range files {
		indices = append(indices, index)
	}
	slices.Sort(indices)
	first := true
	for part := range slices.Chunk(indices, maxFDs) {
		m := message{kind: kindPorts, body: encode(ports{Ports: part, First: first})}
		for _, index := range part {
			fd, err := fdOf(files[index])
			if err != nil {
				return fmt.Errorf("socket of port %d: %w", index, err)
			}
			m.fds = append(m.fds, fd)
		}
		if _, err := c.call(ctx, m, false); err != nil {
			return err
		}
		first = false
	}
	return nil
}

// fdOf returns the descriptor of f, which may be in non-blocking mode and stays
// so, unlike with File.Fd.
func fdOf(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// FDB returns the stations that the bridge of a network knows.
func (c *Client) FDB(ctx context.Context, namespace, network string) ([]FDBEntry, error) {
	return table[[]FDBEntry](ctx, c, query{What: queryFDB, Namespace: namespace, Network: network})
}

// Neighbours returns the ARP and ND tables of a network.
func (c *Client) Neighbours(ctx context.Context, namespace, network string) ([]Neighbour, error) {
	return table[[]Neighbour](ctx, c, query{What: queryNeighbours, Namespace: namespace, Network: network})
}

// Sockets returns the endpoints of the namespace's host stack, or, if network is a socket
// uplink, the connections and flows by that.
func (c *Client) Sockets(ctx context.Context, namespace, network string) ([]Socket, error) {
	return table[[]Socket](ctx, c, query{What: querySockets, Namespace: namespace, Network: network})
}

// Groups returns the multicast database of a network.
func (c *Client) Groups(ctx context.Context, namespace, network string) ([]Group, error) {
	return table[[]Group](ctx, c, query{What: queryGroups, Namespace: namespace, Network: network})
}

// Forget forgets dynamic neighbours of a network, one or, if addr is not valid, all,
// and returns how many there were.
func (c *Client) Forget(ctx context.Context, namespace, network string, addr netip.Addr) (int, error) {
	return table[int](ctx, c, query{What: queryForget, Namespace: namespace, Network: network, Addr: addr})
}

// Learned returns what the device of a network was told by its link, nil if it asks
// nothing. It comes from the sandbox: what it says may be anything.
func (c *Client) Learned(ctx context.Context, namespace, network string) (*autoconf.Learned, error) {
	return table[*autoconf.Learned](ctx, c, query{What: queryLearned, Namespace: namespace, Network: network})
}

// Route returns where a packet would go, in the words of `ip route get`.
func (c *Client) Route(ctx context.Context, namespace, words string) (Route, error) {
	return table[Route](ctx, c, query{What: queryRoute, Namespace: namespace, Words: words})
}

// DNS tells what a namespace's DNS did.
func (c *Client) DNS(ctx context.Context, namespace string) (dns.Stats, error) {
	return table[dns.Stats](ctx, c, query{What: queryDNS, Namespace: namespace})
}

// FlushDNS forgets what upstreams said of a name, or with "" of all, and returns how
// many answers that were.
func (c *Client) FlushDNS(ctx context.Context, namespace, name string) (int, error) {
	return table[int](ctx, c, query{What: queryFlushDNS, Namespace: namespace, Words: name})
}

// Status tells how the process is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	s, err := table[Status](ctx, c, query{What: queryStatus})
	s.PID = c.proc.pid // the process itself can't know
	return s, err
}

// table asks for something and decodes it.
func table[T any](ctx context.Context, c *Client, q query) (rows T, err error) {
	a, err := c.call(ctx, message{kind: kindQuery, body: encode(q)}, false)
	if err != nil {
		return rows, err
	}
	return rows, decode(a.body, &rows)
}

// DialBy gives the process channels by which it asks for sockets (package dial): one
// for itself, and one for each of its workers. The files stay the caller's.
func (c *Client) DialBy(ctx context.Context, own *os.File, workers ...*os.File) error {
	var fds []int
	for _, f := range append([]*os.File{own}, workers...) {
		fd, err := fdOf(f)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	_, err := c.call(ctx, message{kind: kindDialler, fds: fds}, false)
	return err
}

// Ping returns nil if the process answers. One that is frozen lets the context's
// deadline pass (10 s if it has none): Kill it.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.call(ctx, message{kind: kindPing}, false)
	return err
}

// Stop ends the process in good order, and waits until it is gone.
func (c *Client) Stop(ctx context.Context) error { return c.stop(ctx, nil) }

func (c *Client) stop(ctx context.Context, how []byte) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if _, err := c.call(ctx, message{kind: kindStop, body: how}, false); err != nil && !errors.Is(err, ErrExited) {
		return err
	}
	select {
	case <-c.proc.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop: %w", ctx.Err())
	}
}

// Kill ends the process at once, and waits until it is gone. It is no error if
// it was gone before. What the containers send meanwhile waits in their sockets,
// as far as those have room, for the next process.
func (c *Client) Kill() error { return c.proc.kill() }

// Close closes the connection and lets the process go on, if it has a control
// path. A second Close does nothing.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	c.conn.close()
	<-c.ended
	c.proc.release()
	if c.conns != nil {
		c.conns.Close()
	}
	if c.counters != nil {
		c.counters.Close()
	}
	return nil
}
