// SPDX-License-Identifier: Apache-2.0

package conntracktest

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Netlink is a socket of ctnetlink, in the network namespace of the thread that
// opened it. Not safe for concurrent use.
type Netlink struct {
	t   testing.TB
	fd  int
	seq uint32
	buf [1 << 16]byte
}

// Open opens one that ends with the test.
func Open(tb testing.TB) *Netlink {
	tb.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		tb.Fatalf("ctnetlink: %v", err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	return &Netlink{t: tb, fd: fd}
}

// Get is the kernel's entry for a tuple, in either direction; false if it has none.
func (n *Netlink) Get(t Tuple) (Entry, bool) {
	n.t.Helper()
	e, err := n.ask(msgGet, 0, t.Src.Is6(), t.append(nil, tupleOrig))
	if errors.Is(err, unix.ENOENT) {
		return Entry{}, false
	}
	n.must("get", err)
	return e, true
}

// Watcher hears of connections that begin.
type Watcher struct {
	t   testing.TB
	fd  int
	buf [1 << 16]byte
}

// Watch listens from now on, until the test ends.
func Watch(tb testing.TB) *Watcher {
	tb.Helper()
	const groupNew = 1 // NFNLGRP_CONNTRACK_NEW, from 1 on
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		tb.Fatalf("ctnetlink: %v", err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (groupNew - 1)}); err != nil {
		tb.Fatalf("ctnetlink: %v", err)
	}
	return &Watcher{t: tb, fd: fd}
}

// Beginning is what both directions of a connection looked like when it began.
type Beginning struct{ Original, Reply Tuple }

// Began are the connections that have begun since it was last asked.
func (w *Watcher) Began() (all []Beginning) {
	w.t.Helper()
	for {
		got, _, err := unix.Recvfrom(w.fd, w.buf[:], 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return all
		case err != nil:
			w.t.Fatalf("ctnetlink: %v", err)
		}
		for b := w.buf[:got]; len(b) >= header; {
			size := int(binary.NativeEndian.Uint32(b))
			m := attrsOf(b[header:size])
			all = append(all, Beginning{m.tuple(tupleOrig), m.tuple(tupleReply)})
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// Delete ends a connection; none is fine.
func (n *Netlink) Delete(t Tuple) {
	n.t.Helper()
	if _, err := n.ask(msgDelete, unix.NLM_F_ACK, t.Src.Is6(), t.append(nil, tupleOrig)); !errors.Is(err, unix.ENOENT) {
		n.must("delete", err)
	}
}

// CreateTCP enters a TCP connection, in some state, with the flags of its peers.
func (n *Netlink) CreateTCP(t, reply Tuple, state uint8, bits uint32, flags [2]uint8, left uint32) {
	n.t.Helper()
	tcp := attr(nil, 1, state)
	tcp = attr(attr(tcp, 4, flags[0], 0xff), 5, flags[1], 0xff)
	b := reply.append(t.append(nil, tupleOrig), tupleReply)
	b = attr(b, timeout, be32(left)...)
	b = attr(b, status, be32(bits)...)
	b = attr(b, protoinfo|nested, attr(nil, 1|nested, tcp...)...)
	_, err := n.ask(msgNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, t.Src.Is6(), b)
	n.must("create", err)
}

func (n *Netlink) must(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("ctnetlink: %s: %v", what, err)
	}
}

// ask sends one request and returns the entry of the answer, if it has one.
func (n *Netlink) ask(typ, flags uint16, v6 bool, body []byte) (Entry, error) {
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	n.seq++
	m := binary.NativeEndian.AppendUint32(nil, uint32(header+len(body)))
	m = binary.NativeEndian.AppendUint16(m, unix.NFNL_SUBSYS_CTNETLINK<<8|typ)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|flags)
	m = binary.NativeEndian.AppendUint32(m, n.seq)
	m = append(m, 0, 0, 0, 0, family, 0, 0, 0)
	m = append(m, body...)
	if err := unix.Sendto(n.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return Entry{}, err
	}
	for {
		got, _, err := unix.Recvfrom(n.fd, n.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Entry{}, err
		}
		b := n.buf[:got]
		if binary.NativeEndian.Uint32(b[8:]) != n.seq {
			continue // the ACK of an answer before
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			if e := int32(binary.NativeEndian.Uint32(b[16:])); e != 0 {
				return Entry{}, unix.Errno(-e)
			}
			return Entry{}, nil
		}
		return attrsOf(b[header:binary.NativeEndian.Uint32(b)]).entry(), nil
	}
}
