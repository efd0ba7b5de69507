// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sluice/netstack"
)

// connectTimeout bounds Connect: the answers of a process that is well come in
// milliseconds.
const connectTimeout = 5 * time.Second

// Connect adopts the dataplane that listens at path, in place of its last agent:
// the connection of one that is still there ends with ErrReplaced. The process's
// snapshot and sockets are in Adopted.
//
// The error wraps ErrNotRunning if there is nobody: Start one; ErrUnresponsive
// or ErrProtocol if there is somebody of no use: Evict it. A process of another
// build or protocol version is no error: Handover to this program.
func Connect(path string) (*Client, error) {
	c, err := connect(path)
	if err != nil {
		return nil, fmt.Errorf("connect to dataplane: %w", err)
	}
	return c, nil
}

func connect(path string) (*Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	cn, p, err := dialPath(path)
	if err != nil {
		return nil, err
	}
	c := newClient(cn, p)
	err = c.greet(ctx)
	if err == nil && c.other.StandsBy { // promoted, by an agent that was killed meanwhile
		err = c.free(ctx)
	}
	if err == nil {
		c.snapshot, c.files, c.counters, err = c.inventory(ctx)
	}
	if err == nil {
		c.conns, err = c.connFile(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: within %v", ErrUnresponsive, connectTimeout)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// dial connects, and finds out to whom.
func dialPath(path string) (*conn, *process, error) {
	d := net.Dialer{Timeout: connectTimeout}
	nc, err := d.Dial("unixpacket", path)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	case errors.Is(err, unix.EAGAIN): // its backlog is full of those who gave up
		return nil, nil, fmt.Errorf("%w: %w", ErrUnresponsive, err)
	case err != nil:
		return nil, nil, err
	}
	sock, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, nil, fmt.Errorf("%w: not a unix socket", ErrProtocol)
	}
	cn := newConn(sock)
	p, err := peer(cn, path)
	if err != nil {
		cn.close()
		return nil, nil, err
	}
	return cn, p, nil
}

// Evict kills the process that listens at path, whatever state it is in, and
// waits until it is gone. It is no error if nobody listens. What is not a
// dataplane, by its credentials, is not killed.
func Evict(path string) error {
	cn, p, err := dialPath(path)
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("evict dataplane: %w", err)
	}
	defer cn.close()
	defer p.release()
	if err := p.kill(); err != nil {
		return fmt.Errorf("evict dataplane: %w", err)
	}
	return nil
}

// Handover starts a new dataplane of this program with the sockets, the snapshot
// and, unless c has others, the counters of old, and then stops old. Connections
// are copied into c's file, which must be another one than old's: those that begin
// in the milliseconds that are left are not in it. It is how
// an upgrade goes: both work on the same sockets for a moment, old lets out what waits
// in queueing disciplines, and no frame is lost but what has to wait for longer than
// drainTime. The new client's Adopted returns what was handed over.
//
// On an error old goes on, and is the caller's as before; if its path had been
// given away by then, it ends with the caller's connection. On success old is
// closed.
//
// If this process is killed meanwhile, never do both go on: two that read the
// same sockets would each take half of the frames. What goes on is what the path
// leads to. In the moment around the change of the path it may be neither, and
// the next agent starts one.
func Handover(ctx context.Context, old *Client, c StartConfig) (*Client, error) {
	h, err := handOver(ctx, old, c)
	defer h.close()
	for _, step := range h.steps() {
		if err == nil {
			err = step(ctx)
		}
	}
	if err != nil {
		h.undo(ctx)
		return nil, fmt.Errorf("hand over dataplane: %w", err)
	}
	old.retire(ctx)
	return h.next, nil
}

// takeover is a hand-over under way.
type takeover struct {
	old, next *Client // next: nil if there is none
	path      *controlPath
	tied      bool // old, perhaps
	published bool

	from, to *os.File // of connections; nil: there are none
}

// handOver starts the new process and asks the old one what it has.
func handOver(ctx context.Context, old *Client, c StartConfig) (*takeover, error) {
	h := &takeover{old: old}
	snapshot, files, counters, err := old.inventory(ctx)
	if err != nil {
		return h, err
	}
	if c.Counters == nil {
		c.Counters = counters
	}
	if h.from, err = old.connFile(ctx); err != nil {
		closeAll(files, counters)
		return h, err
	}
	h.to = c.Connections
	n, l, err := start(ctx, c, beside)
	if err != nil {
		closeAll(files, counters)
		return h, err
	}
	n.snapshot, n.files, n.counters = snapshot, files, counters
	h.next, h.path = n, l
	return h, nil
}

// steps are what is left to do, each harmless to be killed after. The new process
// is tied from its birth; it is set free only when old is tied and the path leads
// to the new one.
func (h *takeover) steps() []func(context.Context) error {
	return []func(context.Context) error{h.configure, h.tieOld, h.publish, h.freeNew}
}

func (h *takeover) configure(ctx context.Context) error {
	if h.next.snapshot == nil {
		return nil
	}
	if err := copyConnections(h.to, h.from); err != nil {
		return err
	}
	return h.next.Apply(ctx, h.next.snapshot, h.next.files)
}

func (h *takeover) tieOld(ctx context.Context) error {
	h.tied = true
	return h.old.tie(ctx)
}

func (h *takeover) publish(context.Context) error {
	if err := h.path.publish(); err != nil {
		return err
	}
	h.published = h.path.path != ""
	return nil
}

func (h *takeover) freeNew(ctx context.Context) error { return h.next.free(ctx) }

// undo ends the new process, and lets the old one outlive this side again if it
// can still be found.
func (h *takeover) undo(ctx context.Context) {
	if h.next != nil {
		h.path.remove()
		h.next.Kill()
		h.next.Close()
		closeAll(h.next.files, nil)
	}
	if h.tied && !h.published {
		// The context may be what failed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		// An error is the connection's, and the process ends with that.
		_ = h.old.free(ctx)
	}
}

// drainTime is how long what waits in queueing disciplines may leave yet when a process
// was replaced. The other one sends meanwhile, too, so it must not be long; and what
// waits longer waits mostly for an emulated delay.
const drainTime = time.Second

// retire ends the process that was replaced: by force if it must.
func (c *Client) retire(ctx context.Context) {
	if c.stop(ctx, encode(stop{DrainMS: drainTime.Milliseconds()})) != nil {
		c.Kill()
	}
	c.Close()
}

// inventory asks for all that the process has. The files are the caller's.
func (c *Client) inventory(ctx context.Context) (*netstack.Snapshot, map[uint16]*os.File, *os.File, error) {
	a, err := c.call(ctx, message{kind: kindInventory}, true)
	if err != nil {
		return nil, nil, nil, err
	}
	defer a.close() // what has become a file is a dup of it
	s, hasCounters, err := a.snapshot()
	if err != nil {
		return nil, nil, nil, err
	}
	files, err := a.sockets(s)
	if err != nil {
		return nil, nil, nil, err
	}
	if !hasCounters {
		return s, files, nil, nil
	}
	counters, err := hold(a.fds[0], unix.S_IFREG, "counters")
	if err != nil {
		closeAll(files, nil)
		return nil, nil, nil, err
	}
	return s, files, counters, nil
}

// snapshot decodes the reply of an inventory. The snapshot is nil if there is
// none, and valid otherwise.
func (a answer) snapshot() (s *netstack.Snapshot, counters bool, err error) {
	var inv inventory
	if err := decode(a.body, &inv); err != nil {
		return nil, false, err
	}
	if want := map[bool]int{true: 1}[inv.Counters]; len(a.fds) != want {
		return nil, false, fmt.Errorf("%w: %d fds with an inventory", ErrProtocol, len(a.fds))
	}
	if len(inv.Snapshot) == 0 {
		return nil, inv.Counters, nil
	}
	s = new(netstack.Snapshot)
	if err := decode(inv.Snapshot, s); err != nil {
		return nil, false, err
	}
	if err := readFormer(inv.Snapshot, s); err != nil {
		return nil, false, err
	}
	if err := s.Validate(); err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return s, inv.Counters, nil
}

// readFormer fills the namespaces of a snapshot as the first builds have it: there a
// namespace is one network, which has the fields. Without this an upgrade could not
// take over the ports of their dataplane, and would kill it.
func readFormer(text []byte, s *netstack.Snapshot) error {
	if slices.ContainsFunc(s.Namespaces, func(n netstack.NamespaceSpec) bool { return len(n.Networks) > 0 }) {
		return nil
	}
	var former struct {
		Namespaces []netstack.NetworkSpec `json:"namespaces"`
	}
	if err := decode(text, &former); err != nil {
		return err
	}
	for i := range s.Namespaces {
		if n := former.Namespaces[i]; n.Bridge.Index != 0 {
			s.Namespaces[i].Networks = []netstack.NetworkSpec{n}
		}
	}
	return nil
}

// sockets returns dups of the sockets in the parts of an inventory: exactly one
// for each port of the snapshot.
func (a answer) sockets(s *netstack.Snapshot) (map[uint16]*os.File, error) {
	if s == nil && len(a.parts) == 0 {
		return nil, nil
	}
	names := portNames(s)
	files := make(map[uint16]*os.File, len(names))
	for _, p := range a.parts {
		if err := p.sockets(names, files); err != nil {
			closeAll(files, nil)
			return nil, err
		}
	}
	if len(files) != len(names) {
		closeAll(files, nil)
		return nil, fmt.Errorf("%w: %d sockets for %d ports", ErrProtocol, len(files), len(names))
	}
	return files, nil
}

// sockets adds the sockets of one part to files.
func (m message) sockets(names map[uint16]string, files map[uint16]*os.File) error {
	var p ports
	if err := decode(m.body, &p); err != nil {
		return err
	}
	if len(p.Ports) != len(m.fds) {
		return fmt.Errorf("%w: %d ports with %d fds", ErrProtocol, len(p.Ports), len(m.fds))
	}
	for i, index := range p.Ports {
		name, known := names[index]
		if _, twice := files[index]; twice || !known {
			return fmt.Errorf("%w: socket of port %d, which is twice or not in the snapshot", ErrProtocol, index)
		}
		f, err := hold(m.fds[i], unix.S_IFSOCK, name)
		if err != nil {
			return err
		}
		files[index] = f
	}
	return nil
}

// portNames are the ports of a snapshot, nil being an empty one.
func portNames(s *netstack.Snapshot) map[uint16]string {
	names := make(map[uint16]string)
	if s == nil {
		return names
	}
	for p := range s.Ports() {
		names[p.Index] = p.Name
	}
	return names
}

// hold returns a dup of fd as a file, if fd is of the type. The file is to be
// kept and passed on, not read: it must not be registered with the runtime's
// poller, which would wake this process for each frame of each container.
// os.NewFile does register a non-blocking one, so it is a blocking one for that
// moment, for all who share it; the dataplane's calls are MSG_DONTWAIT.
func hold(fd int, format uint32, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != format {
		return nil, fmt.Errorf("%w: fd %q of type %#o, not %#o", ErrProtocol, name, st.Mode&unix.S_IFMT, format)
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	if err := unix.SetNonblock(dup, false); err != nil {
		unix.Close(dup)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(dup), name)
	if format == unix.S_IFSOCK {
		err = unix.SetNonblock(dup, true)
	}
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}

// closeAll closes what an inventory returned; extra may be nil.
func closeAll(files map[uint16]*os.File, extra *os.File) {
	for _, f := range slices.Collect(maps.Values(files)) {
		f.Close()
	}
	if extra != nil {
		extra.Close()
	}
}
