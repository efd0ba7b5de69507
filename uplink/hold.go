// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/veth"
)

// ErrInUse says that a port of the host is somebody's already.
var ErrInUse = errors.New("in use on the host")

// Port is a port of the host.
type Port struct {
	Proto  string     // tcp, udp or sctp
	Addr   netip.Addr // not valid: any
	Number uint16
}

// String is the port as ss(8) writes it.
func (p Port) String() string {
	host := "*"
	if p.Addr.IsValid() {
		host = p.Addr.String()
		if p.Addr.Is6() {
			host = "[" + host + "]"
		}
	}
	return fmt.Sprintf("%s %s:%d", p.Proto, host, p.Number)
}

// Hold binds a socket to a port, so that nobody on the host gets it while what is sent
// to it goes elsewhere. Nothing ever arrives at the socket, which does not listen.
// ErrInUse: somebody has it, and is named if that can be found out. A protocol that the
// kernel lacks is nobody's, and there is no file.
func (h *Host) Hold(p Port) (f *os.File, err error) {
	err = veth.Do(h.ns, func() error {
		fd, err := p.bind(false)
		if errors.Is(err, unix.EADDRINUSE) {
			if who := p.holder(); who != "" {
				return fmt.Errorf("%w by %s", ErrInUse, who)
			}
			// What is left of connections is in the way of a socket without this option.
			fd, err = p.bind(true)
		}
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return ErrInUse
		case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT):
			return nil
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

// bind runs in the host's namespace.
func (p Port) bind(reuse bool) (int, error) {
	kind, proto := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch p.Proto {
	case "udp":
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		proto = unix.IPPROTO_SCTP
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: int(p.Number)}
	family := unix.AF_INET6
	switch {
	case p.Addr.Is4():
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(p.Number), Addr: p.Addr.As4()}
	case p.Addr.Is6():
		to = &unix.SockaddrInet6{Port: int(p.Number), Addr: p.Addr.As16()}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	if errors.Is(err, unix.EAFNOSUPPORT) && !p.Addr.IsValid() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(p.Number)}
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	}
	if err != nil {
		return -1, err
	}
	// An address may come later than what is published for it. What a datagram socket
	// is sent all the same is not kept.
	_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	if family == unix.AF_INET6 {
		only := 0
		if p.Addr.IsValid() {
			only = 1
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	if reuse {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err := unix.Bind(fd, to); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// listening is the state of a listening socket in proc_net_tcp of the kernel's
// documentation.
const listening = "0A"

// holder is the program that has a port, as far as can be seen; empty: nobody listens.
func (p Port) holder() string {
	if p.Proto == "sctp" {
		return "another program"
	}
	for _, table := range []string{p.Proto, p.Proto + "6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 10 || p.Proto == "tcp" && f[3] != listening || !p.has(f[1]) {
				continue
			}
			return program(f[9])
		}
	}
	return ""
}

// has reports whether an address of procfs, ADDR:PORT in hexadecimal, is in the way.
func (p Port) has(text string) bool {
	host, port, _ := strings.Cut(text, ":")
	if n, err := strconv.ParseUint(port, 16, 16); err != nil || uint16(n) != p.Number {
		return false
	}
	a := procAddr(host)
	return !p.Addr.IsValid() || a.IsUnspecified() || a == p.Addr
}

// procAddr reads an address whose words of 32 bits are in the machine's order.
func procAddr(text string) netip.Addr {
	var b []byte
	for ; len(text) >= 8; text = text[8:] {
		n, err := strconv.ParseUint(text[:8], 16, 32)
		if err != nil {
			return netip.Addr{}
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(n))
	}
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}

// program names the process that has a socket open.
func program(inode string) string {
	const unknown = "another program"
	if inode == "0" {
		return unknown
	}
	all, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return unknown
	}
	for _, fd := range all {
		if to, err := os.Readlink(fd); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, _ := os.ReadFile("/proc/" + pid + "/comm")
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
	}
	return unknown
}
