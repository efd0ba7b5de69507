// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one end of a control connection: messages over SOCK_SEQPACKET
// (unix(7)). Any number of goroutines may send, one may receive.
type conn struct {
	sock *net.UnixConn
	// in and oob are what recv reads into.
	in, oob []byte

	// send has this lock around each message: SOCK_SEQPACKET keeps messages
	// whole, the lock keeps a deadline with its message.
	mu sync.Mutex
}

// newConn takes ownership of sock.
func newConn(sock *net.UnixConn) *conn {
	return &conn{
		sock: sock,
		in:   make([]byte, headerLen+maxInline+1), // one more shows what is too long
		oob:  make([]byte, unix.CmsgSpace(4*(maxFDs+1))),
	}
}

// fileConn makes a connection of a socket's fd, which it closes.
func fileConn(fd int) (*conn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		nc.Close()
		return nil, fmt.Errorf("%w: the control socket is not a unix socket", ErrProtocol)
	}
	return newConn(uc), nil
}

// close ends send and recv at once, in other goroutines too.
func (c *conn) close() error { return c.sock.Close() }

// send sends m, or gives up at the deadline (zero: never). m.fds and m.body
// stay the caller's. After an error the connection is of no use.
func (c *conn) send(m message, deadline time.Time) error {
	if len(m.fds) > maxFDs || len(m.body) > MaxBody {
		return fmt.Errorf("%w: message of %d fds and %d bytes", ErrProtocol, len(m.fds), len(m.body))
	}
	h := header{kind: m.kind, fds: uint16(len(m.fds)), id: m.id, len: uint32(len(m.body))}
	fds, inline := m.fds, m.body
	if len(m.body) > maxInline {
		fd, err := sealedBody(m.body)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		h.flags |= flagMemfd
		fds, inline = append([]int{fd}, m.fds...), nil
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return c.write(append(h.bytes(), inline...), oob, deadline)
}

func (c *conn) write(b, oob []byte, deadline time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.sock.SetWriteDeadline(deadline); err != nil {
		return err
	}
	_, _, err := c.sock.WriteMsgUnix(b, oob, nil)
	return err
}

// recv waits for the next message. The body is the message's own, its fds are
// the caller's and close on exec. On an error no fd is left open, and the
// connection is of no use, save after a deadline.
func (c *conn) recv() (message, error) {
	n, oobn, flags, _, err := c.sock.ReadMsgUnix(c.in, c.oob)
	// Fds first: whatever else is wrong, they are in our table now.
	fds, rightsErr := takeFDs(c.oob[:max(oobn, 0)])
	if err == nil {
		err = rightsErr
	}
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("%w: truncated message", ErrProtocol)
	}
	if err != nil {
		closeFDs(fds)
		return message{}, err
	}
	return unpack(c.in[:n], fds)
}

// unpack turns a datagram and its fds, of which it takes ownership, into a message.
func unpack(b []byte, fds []int) (message, error) {
	h, inline, err := decodeHeader(b)
	if err == nil && len(fds) != h.rights() {
		err = fmt.Errorf("%w: %d fds where %d were announced", ErrProtocol, len(fds), h.rights())
	}
	if err != nil {
		closeFDs(fds)
		return message{}, err
	}
	m := message{kind: h.kind, id: h.id, fds: fds}
	if h.flags&flagMemfd == 0 {
		m.body = append([]byte(nil), inline...)
		return m, nil
	}
	m.body, err = readSealed(fds[0], int(h.len))
	unix.Close(fds[0])
	m.fds = fds[1:]
	if err != nil {
		closeFDs(m.fds)
		return message{}, err
	}
	return m, nil
}

// takeFDs returns all fds in a control message, also if it returns an error.
func takeFDs(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	var all []int
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return all, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		all = append(all, fds...)
	}
	return all, nil
}

// closeFDs closes fds; closing what is already closed is a bug of the caller's.
func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// sealedBody returns a memfd (memfd_create(2)) that holds body and that nobody,
// not even this process, can change any more. The caller closes it.
func sealedBody(body []byte) (int, error) {
	fd, err := unix.MemfdCreate("sluice-message", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	err = writeAll(fd, body)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("memfd of %d bytes: %w", len(body), err)
	}
	return fd, nil
}

// seals are what the memfd of a body must have: its size and its bytes are final.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}

// readSealed returns the n bytes of a body's memfd. What is not a sealed memfd of
// that size is refused before it is read: reading a FIFO, say, might never end.
func readSealed(fd, n int) ([]byte, error) {
	if s, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil || s&seals != seals {
		return nil, fmt.Errorf("%w: the body is not a sealed memfd", ErrProtocol)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != int64(n) {
		return nil, fmt.Errorf("%w: memfd of %d bytes for a body of %d", ErrProtocol, st.Size, n)
	}
	b := make([]byte, n)
	for done := 0; done < n; {
		m, err := unix.Pread(fd, b[done:], int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || m == 0:
			return nil, fmt.Errorf("%w: body ends at %d of %d", ErrProtocol, done, n)
		default:
			done += m
		}
	}
	return b, nil
}
