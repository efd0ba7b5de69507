// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"sluice/fence"
)

// Policy says what may be dialled, and by which sockets.
type Policy struct {
	// May says whether it may be: 0, or the error that the caller gets.
	May func(t *Target) unix.Errno
	// Fence is around the sockets, if it is loaded.
	Fence *fence.Fence
	// Stock says that who asks gets sockets that he can connect himself.
	Stock bool
}

// Server is the end that dials, for one channel. It dials in the network namespace of
// the threads of its process.
type Server struct {
	// Over is told of accepted connections that have ended (Pass); nil: nobody is. It is
	// set before Serve.
	Over   func(id uint64)
	conn   *net.UnixConn
	policy Policy
}

// NewServer takes conn over.
func NewServer(conn *net.UnixConn, p Policy) *Server { return &Server{conn: conn, policy: p} }

// Serve dials what it is asked for, until the channel ends. It waits in recvmsg(2), where
// it is woken sooner than by way of the runtime's poller.
func (s *Server) Serve() error {
	defer s.conn.Close()
	f, err := s.conn.File()
	if err != nil {
		return err
	}
	defer f.Close()
	r := &reader{from: waiting(f.Fd())} // Fd lets it wait
	for {
		var w wire
		fd, err := r.next(&w)
		if fd >= 0 {
			unix.Close(fd)
			err = fmt.Errorf("%w: a descriptor with a request", ErrProtocol)
		}
		if err == nil {
			err = s.answer(&w)
		}
		if err != nil {
			return err
		}
	}
}

// Close ends Serve.
func (s *Server) Close() error {
	_ = s.conn.CloseRead() // wakes Serve
	_ = s.conn.CloseWrite()
	return s.conn.Close()
}

func (s *Server) answer(w *wire) error {
	if w.kind == kindOver && s.Over != nil {
		s.Over(w.id)
		return nil
	}
	if w.kind != kindRequest {
		return fmt.Errorf("%w: message %d from who asks", ErrProtocol, w.kind)
	}
	fd := s.policy.dial(w)
	if fd >= 0 {
		defer unix.Close(fd)
	}
	return send(s.conn, w, fd)
}

// dial does what a request asks for, if it may be, and makes it the answer. The descriptor
// is the caller's; -1: there is none.
func (p *Policy) dial(w *wire) (fd int) {
	t := Target{Device: w.device, Proto: w.proto, To: w.to}
	k := Socket{FD: -1, Errno: p.May(&t)}
	if k.Errno == 0 {
		k = p.Open(&t)
	}
	*w = wire{kind: kindSocket, id: w.id, errno: uint32(k.Errno), raw: k.Raw}
	return k.FD
}

// open makes a socket that can be connected to a target, with the fence around it. With an
// error there is none.
func (p *Policy) open(t *Target) (fd int, raw bool, err error) {
	fd, raw, err = open(t)
	if err == nil && p.Fence.Loaded() {
		err = p.Fence.Around(fd)
	}
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, raw, err
}

// Open makes a socket, with the fence around it, and begins to connect it. The socket is the
// caller's.
func (p *Policy) Open(t *Target) Socket {
	fd, raw, err := p.open(t)
	return begin(fd, raw, err, t.To)
}

// begin begins to connect a socket that was made, if it was.
func begin(fd int, raw bool, err error, to netip.AddrPort) Socket {
	if err == nil {
		err = connect(fd, to)
	}
	if err == nil {
		return Socket{FD: fd, Raw: raw}
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	errno := unix.EIO
	errors.As(err, &errno)
	return Socket{FD: -1, Errno: errno}
}

const socketFlags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC

func (t *Target) family() int {
	if t.To.Addr().Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func open(t *Target) (fd int, raw bool, err error) {
	family := t.family()
	switch t.Proto {
	case TCP:
		fd, err = unix.Socket(family, unix.SOCK_STREAM|socketFlags, unix.IPPROTO_TCP)
		if err == nil {
			err = stream(fd)
		}
	case UDP:
		fd, err = unix.Socket(family, unix.SOCK_DGRAM|socketFlags, unix.IPPROTO_UDP)
		if err == nil {
			err = reporting(fd, family)
		}
	case Echo4, Echo6:
		fd, raw, err = openEcho(family, int(t.Proto))
		if err == nil {
			err = reporting(fd, family)
		}
	default:
		return -1, false, unix.EPROTONOSUPPORT
	}
	return fd, raw, err
}

// openEcho makes a ping socket, which everybody may have whose group is in sysctl
// net.ipv4.ping_group_range, or else a raw one, for which it takes CAP_NET_RAW.
func openEcho(family, proto int) (fd int, raw bool, err error) {
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|socketFlags, proto)
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		return fd, false, err
	}
	fd, err = unix.Socket(family, unix.SOCK_RAW|socketFlags, proto)
	if err != nil {
		return fd, true, err
	}
	return fd, true, onlyReplies(fd, family)
}

// onlyReplies keeps all but echo replies from a raw socket (ICMP_FILTER of raw(7), and
// that of RFC 3542 §3.2).
func onlyReplies(fd, family int) error {
	if family == unix.AF_INET {
		const icmpFilter, echoReply = 1, 0
		return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << echoReply))
	}
	const echoReply6 = 129
	var f unix.ICMPv6Filter // a set bit blocks
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
	return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f)
}

// stream lets what comes in pieces go in pieces, and the last acknowledgement of the
// handshake with the first data, so that the other side is woken once for both: mostly they
// follow at once. Who has the socket sees to it if they don't (TCP_QUICKACK), and to all
// else that a connection is to have if it lasts.
func stream(fd int) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	}
	return os.NewSyscallError("setsockopt", err)
}
