// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/dns"
)

const (
	// maxAsks bounds the queries that are under way for a dataplane, each with a socket.
	maxAsks = 2048
	// askTime is how long one is waited for; who asked gives up sooner.
	askTime = 5 * time.Second
	// maxTells is how many answers to one query are handed in.
	maxTells = 32
)

// Resolvers says which resolver an upstream is, or that the dataplane may not ask it.
type Resolvers func(dns.Upstream) (netip.AddrPort, error)

// asks are the agent's end of a relay.
type asks struct {
	sock *net.UnixConn
	of   Resolvers

	mu sync.Mutex
	// +checklocks:mu
	open map[uint32]context.CancelFunc
}

// Relay asks resolvers for the dataplane, from this process's network namespace, until
// the context is done or the connection ends. It looks at nothing of what it carries.
func (c *Client) Relay(ctx context.Context, of Resolvers) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	own, err := fileConn(pair[0])
	if err != nil {
		unix.Close(pair[1])
		return err
	}
	defer own.close()
	_, err = c.call(ctx, message{kind: kindRelay, fds: []int{pair[1]}}, false)
	unix.Close(pair[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { own.close() })()
	go func() {
		select {
		case <-c.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	a := &asks{sock: own.sock, of: of, open: make(map[uint32]context.CancelFunc)}
	return a.serve(ctx)
}

// serve reads asks, which come from the sandbox: they are bounded, and decide nothing
// but which of the known resolvers gets their bytes.
func (a *asks) serve(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	b := make([]byte, askLen+dns.MaxQuery+1)
	for {
		n, err := a.sock.Read(b)
		if n == 0 || err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) || n == 0 && err == nil {
				return nil
			}
			return err
		}
		q, ok := decodeAsk(b[:n])
		if !ok {
			continue
		}
		if q.op == giveUp {
			a.end(q.id)
			continue
		}
		q.query = append([]byte(nil), q.query...)
		own, ok := a.begin(ctx, q.id)
		if !ok {
			a.tell(q.id, tellError, []byte("too many queries are under way"))
			continue
		}
		wg.Go(func() {
			defer a.end(q.id)
			a.carry(own, &q)
		})
	}
}

func (a *asks) begin(ctx context.Context, id uint32) (context.Context, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, twice := a.open[id]; twice || len(a.open) >= maxAsks {
		return nil, false
	}
	own, cancel := context.WithTimeout(ctx, askTime)
	a.open[id] = cancel
	return own, true
}

func (a *asks) end(id uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cancel := a.open[id]; cancel != nil {
		cancel()
		delete(a.open, id)
	}
}

func (a *asks) tell(id uint32, op byte, body []byte) {
	b := make([]byte, tellLen, tellLen+len(body))
	binary.BigEndian.PutUint32(b, id)
	b[4] = op
	_ = a.sock.SetWriteDeadline(time.Now().Add(eventTimeout))
	_, _ = a.sock.Write(append(b, body...))
}

// carry asks one resolver, and hands in what it answers until nobody wants more.
func (a *asks) carry(ctx context.Context, q *ask) {
	err := a.exchange(ctx, q)
	switch {
	case errors.Is(err, dns.ErrAbsent):
		a.tell(q.id, tellAbsent, nil)
	case err != nil && ctx.Err() == nil:
		a.tell(q.id, tellError, []byte(clip(err.Error())))
	}
}

func (a *asks) exchange(ctx context.Context, q *ask) error {
	to, err := a.of(q.up)
	if err != nil {
		return err
	}
	network := "udp"
	if q.op == askTCP {
		network = "tcp"
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, to.String()) // from a random port, the kernel's choice
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if q.op == askTCP {
		return a.overTCP(c, q)
	}
	if _, err := c.Write(q.query); err != nil {
		return err
	}
	b := make([]byte, 1<<16)
	for range maxTells {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		a.tell(q.id, tellAnswer, b[:n])
	}
	return nil
}

// overTCP has the length before each message (RFC 1035 §4.2.2).
func (a *asks) overTCP(c net.Conn, q *ask) error {
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(q.query)))
	if _, err := c.Write(append(framed, q.query...)); err != nil {
		return err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	a.tell(q.id, tellAnswer, b)
	return nil
}
