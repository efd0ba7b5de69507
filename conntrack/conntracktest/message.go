// SPDX-License-Identifier: Apache-2.0

package conntracktest

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Attributes and messages of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
const (
	msgNew, msgGet, msgDelete = 0, 1, 2

	tupleOrig, tupleReply, status, protoinfo, timeout, mark = 1, 2, 3, 4, 7, 8
	countersOrig, countersReply                             = 9, 10
	tupleIP, tupleProto                                     = 1, 2
	nested                                                  = 0x8000
)

const (
	icmp, icmp6 = 1, 58
	header      = 20 // nlmsghdr and nfgenmsg
)

// Tuple is conntrack.Tuple, to which it converts.
type Tuple struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16 // of ICMP queries: identifier, type<<8|code
	Proto            uint8
}

// Entry is a connection of the kernel's.
type Entry struct {
	Original, Reply Tuple
	Status          uint32 // IPS_*
	Timeout         uint32 // seconds left
	State           uint32 // of TCP and SCTP
	Mark            uint32
	Packets, Bytes  [2]uint64 // by direction
}

// attr appends an attribute of netlink.
func attr(b []byte, typ uint16, data ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func be16(x uint16) []byte { return binary.BigEndian.AppendUint16(nil, x) }
func be32(x uint32) []byte { return binary.BigEndian.AppendUint32(nil, x) }

// append appends the tuple as ctnetlink has it.
func (t *Tuple) append(b []byte, typ uint16) []byte {
	ip := attr(nil, 1, t.Src.AsSlice()...)
	ip = attr(ip, 2, t.Dst.AsSlice()...)
	if t.Src.Is6() {
		ip = attr(attr(nil, 3, t.Src.AsSlice()...), 4, t.Dst.AsSlice()...)
	}
	proto := attr(nil, 1, t.Proto)
	switch t.Proto {
	case icmp:
		proto = attr(attr(attr(proto, 4, be16(t.SrcPort)...), 5, uint8(t.DstPort>>8)), 6, uint8(t.DstPort))
	case icmp6:
		proto = attr(attr(attr(proto, 7, be16(t.SrcPort)...), 8, uint8(t.DstPort>>8)), 9, uint8(t.DstPort))
	default:
		proto = attr(attr(proto, 2, be16(t.SrcPort)...), 3, be16(t.DstPort)...)
	}
	both := attr(nil, tupleIP|nested, ip...)
	return attr(b, typ|nested, attr(both, tupleProto|nested, proto...)...)
}

// attrs are attributes by their numbers.
type attrs map[uint16][]byte

func attrsOf(b []byte) attrs {
	m := attrs{}
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return m
		}
		m[binary.NativeEndian.Uint16(b[2:])&0x3fff] = b[4:n]
		b = b[min((n+3)&^3, len(b)):]
	}
	return m
}

func (m attrs) u8(a uint16) uint8 {
	if len(m[a]) < 1 {
		return 0
	}
	return m[a][0]
}

func (m attrs) u16(a uint16) uint16 {
	if len(m[a]) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(m[a])
}

func (m attrs) u32(a uint16) uint32 {
	if len(m[a]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(m[a])
}

func (m attrs) u64(a uint16) uint64 {
	if len(m[a]) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(m[a])
}

// tuple reads a tuple.
func (m attrs) tuple(a uint16) (t Tuple) {
	both := attrsOf(m[a])
	ip, proto := attrsOf(both[tupleIP]), attrsOf(both[tupleProto])
	t.Src, _ = netip.AddrFromSlice(append(ip[1], ip[3]...)) // one of the two
	t.Dst, _ = netip.AddrFromSlice(append(ip[2], ip[4]...))
	t.Proto = proto.u8(1)
	switch t.Proto {
	case icmp:
		t.SrcPort, t.DstPort = proto.u16(4), uint16(proto.u8(5))<<8|uint16(proto.u8(6))
	case icmp6:
		t.SrcPort, t.DstPort = proto.u16(7), uint16(proto.u8(8))<<8|uint16(proto.u8(9))
	default:
		t.SrcPort, t.DstPort = proto.u16(2), proto.u16(3)
	}
	return t
}

// entry reads a connection.
func (m attrs) entry() Entry {
	e := Entry{
		Original: m.tuple(tupleOrig), Reply: m.tuple(tupleReply),
		Status: m.u32(status), Timeout: m.u32(timeout), Mark: m.u32(mark),
	}
	info := attrsOf(m[protoinfo])
	for _, proto := range []uint16{1, 3} { // TCP, SCTP
		if p := attrsOf(info[proto]); len(p[1]) > 0 {
			e.State = uint32(p.u8(1))
		}
	}
	for d, a := range []uint16{countersOrig, countersReply} {
		c := attrsOf(m[a])
		e.Packets[d], e.Bytes[d] = c.u64(1), c.u64(2)
	}
	return e
}

// StateName is the state in the kernel's words; nothing of protocols without.
func (e *Entry) StateName() string {
	var names []string
	switch e.Original.Proto {
	case unix.IPPROTO_TCP:
		names = []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}
	case unix.IPPROTO_SCTP:
		names = []string{
			"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT",
		}
	default:
		return ""
	}
	return names[min(int(e.State), len(names)-1)]
}
