// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"sluice/veth"
)

const (
	// backlog is how many connections may wait to be accepted; net.core.somaxconn is the
	// kernel's own bound.
	backlog = 1024
	// datagrams is the room for what waits to be read of a datagram socket;
	// net.core.rmem_max is the kernel's own bound.
	datagrams = 1 << 20
)

// Listen is Hold for who answers at the port: the socket listens (TCP), or receives
// datagrams with the address that they are for (UDP). It does not block. SCTP can't be
// listened to. prepare is called with a socket of TCP before it listens.
func (h *Host) Listen(p Port, prepare func(fd int) error) (f *os.File, err error) {
	err = veth.Do(h.ns, func() error {
		fd, err := p.listen(prepare)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			if who := p.holder(); who != "" {
				return fmt.Errorf("%w by %s", ErrInUse, who)
			}
			return ErrInUse
		case errors.Is(err, unix.EACCES):
			return fmt.Errorf("%w: ports below sysctl net.ipv4.ip_unprivileged_port_start take CAP_NET_BIND_SERVICE", err)
		case err != nil:
			return err
		}
		f = os.NewFile(uintptr(fd), p.String())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return f, nil
}

// listen runs in the host's namespace.
func (p Port) listen(prepare func(fd int) error) (int, error) {
	if p.Proto == "sctp" {
		return -1, unix.EPROTONOSUPPORT
	}
	// What is left of connections, which go on without their listener, is in the way of a
	// TCP socket without this option. One of UDP would share its port by it.
	fd, err := p.bind(p.Proto == "tcp")
	if err != nil {
		return -1, err
	}
	if err = unix.SetNonblock(fd, true); err == nil {
		if p.Proto == "tcp" {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, datagrams)
			if err = prepare(fd); err == nil {
				err = unix.Listen(fd, backlog)
			}
		} else {
			err = p.receive(fd)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// receive asks for the address that a datagram was sent to: the answer comes from there.
func (p Port) receive(fd int) error {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, datagrams)
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	if family == unix.AF_INET {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}
