// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// socketBuffer is asked for in every datagram socket: a receiver that is late
// by a scheduling quantum must not be what a test measures.
const socketBuffer = 8 << 20

// udpSocket is a blocking UDP socket on a port of all addresses. It is a bare
// descriptor: datagram tests need control messages and no poller.
func udpSocket(port int, gro bool) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	growBuffers(fd)
	if gro {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
			return -1, os.NewSyscallError("UDP_GRO", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: port}); err != nil {
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

// dialSocket is a blocking, connected socket of the given type.
func dialSocket(kind int, to string) (int, error) {
	ap, err := netip.ParseAddrPort(to)
	if err != nil {
		return -1, err
	}
	family, sa := sockaddr(ap)
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if kind == unix.SOCK_DGRAM {
		growBuffers(fd)
	}
	if err := unix.Connect(fd, sa); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect %s: %w", to, err)
	}
	return fd, nil
}

func sockaddr(ap netip.AddrPort) (int, unix.Sockaddr) {
	if ap.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

// growBuffers asks for large buffers; root may exceed rmem_max.
func growBuffers(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer)
}

// setTimeout bounds each blocking read of a socket.
func setTimeout(fd int, ms int) error {
	tv := unix.NsecToTimeval(int64(ms) * 1e6)
	return os.NewSyscallError("SO_RCVTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
}
