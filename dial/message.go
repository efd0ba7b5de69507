// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ErrProtocol says that the other side sent what no right program sends.
var ErrProtocol = errors.New("dial: not of the protocol")

// Protocols that can be dialled, by their IP numbers.
const (
	TCP   = unix.IPPROTO_TCP
	UDP   = unix.IPPROTO_UDP
	Echo4 = unix.IPPROTO_ICMP
	Echo6 = unix.IPPROTO_ICMPV6
)

// Target is what to dial, and for which uplink.
type Target struct {
	Device uint16 // the uplink's index
	Proto  uint8
	To     netip.AddrPort // port 0 for echo
	Port   uint16         // of the container that it is for; the other side is not told
}

// Socket is the outcome of a dial: a descriptor, or why there is none.
type Socket struct {
	FD    int        // not blocking, closes on exec; -1: none
	Raw   bool       // it is a raw socket, and gets echo replies of others too
	Errno unix.Errno // with FD -1
}

// The kinds of messages.
const (
	kindRequest = 1 + iota
	kindSocket
	kindAccepted
	kindOver
	kindMore  // sockets that are not connected are asked for, of the family of to
	kindStock // those
)

// Each message, big endian:
//
//	0      1       2        4        8      10      12      14      16     24     40     56
//	+------+-------+--------+--------+-------+-------+-------+-------+------+------+------+
//	| kind | proto | device | errno  | member| port  | port  | flags |  id  |  to  | from |
//	|      |       |        |        |       | of to |of from|       |      |      |      |
//	+------+-------+--------+--------+-------+-------+-------+-------+------+------+------+
//
// An address has 16 bytes; that of IPv4 is mapped (RFC 4291 §2.5.5.2).
const messageLen = 56

const flagRaw = 1

// wire is a message as it travels, without its descriptor.
type wire struct {
	kind, proto uint8
	device      uint16
	errno       uint32
	member      uint16 // the container's port
	raw         bool
	id          uint64
	to, from    netip.AddrPort
}

func (w *wire) encode(b *[messageLen]byte) []byte {
	clear(b[:])
	b[0], b[1] = w.kind, w.proto
	binary.BigEndian.PutUint16(b[2:], w.device)
	binary.BigEndian.PutUint32(b[4:], w.errno)
	binary.BigEndian.PutUint16(b[8:], w.member)
	binary.BigEndian.PutUint16(b[10:], w.to.Port())
	binary.BigEndian.PutUint16(b[12:], w.from.Port())
	if w.raw {
		b[15] = flagRaw
	}
	binary.BigEndian.PutUint64(b[16:], w.id)
	putAddr(b[24:], w.to.Addr())
	putAddr(b[40:], w.from.Addr())
	return b[:]
}

func putAddr(b []byte, a netip.Addr) {
	if a.IsValid() {
		a16 := a.As16()
		copy(b, a16[:])
	}
}

// decode is total: any bytes give a message, or ErrProtocol.
func (w *wire) decode(b []byte) error {
	if len(b) != messageLen || b[0] < kindRequest || b[0] > kindStock {
		return fmt.Errorf("%w: message of %d bytes", ErrProtocol, len(b))
	}
	*w = wire{
		kind: b[0], proto: b[1], device: binary.BigEndian.Uint16(b[2:]), errno: binary.BigEndian.Uint32(b[4:]),
		raw: b[15]&flagRaw != 0, id: binary.BigEndian.Uint64(b[16:]),
		to:     addrPort(b[24:40], binary.BigEndian.Uint16(b[10:])),
		member: binary.BigEndian.Uint16(b[8:]), from: addrPort(b[40:56], binary.BigEndian.Uint16(b[12:])),
	}
	return nil
}

func addrPort(b []byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), port)
}
