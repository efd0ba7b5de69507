// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sluice/packet"
)

// Checker is one statement about a frame. It reports each field that differs
// and goes on.
type Checker func(s *subject)

// subject is the frame under check.
type subject struct {
	t       testing.TB
	b       []byte
	v       packet.View
	fault   packet.Fault
	partial bool   // the vnet header says that the L4 checksum is partial
	where   string // protocol of the check that is running, before the field's name
}

// Check reports with Errorf each statement that isn't true of frame, by the
// name of the field, and then once the frame's bytes.
func Check[F []byte | *packet.Frame](tb testing.TB, frame F, checks ...Checker) {
	tb.Helper()
	r := &recorder{TB: tb}
	s := &subject{t: r}
	switch f := any(frame).(type) {
	case []byte:
		s.b = f
	case *packet.Frame:
		s.b, s.partial = f.Bytes(), f.Vnet.NeedsCsum()
	}
	s.fault = s.v.Parse(s.b)
	for _, c := range checks {
		c(s)
	}
	if r.failed {
		tb.Logf("the frame was %s, fault %v, %d bytes\n%x", Describe(s.b), s.fault, len(s.b), s.b[:min(len(s.b), 128)])
	}
}

// recorder notes whether this check failed, which Failed of the test can't tell.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Errorf(format string, args ...any) {
	r.Helper()
	r.failed = true
	r.TB.Errorf(format, args...)
}

// equal reports the field if got isn't want.
func equal[T comparable](s *subject, field string, got, want T) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s%s = %v, want %v", s.where, field, got, want)
	}
}

// equalHex is equal for numbers that people read in hexadecimal.
func equalHex[T ~uint8 | ~uint16](s *subject, field string, got, want T) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s%s = %#x, want %#x", s.where, field, got, want)
	}
}

// is runs checks on a protocol that the frame must be; else it says what it is.
func (s *subject) is(proto string, ok bool, checks []Checker) {
	s.t.Helper()
	if !ok {
		s.t.Errorf("protocol = %s, want %s", Describe(s.b), proto)
		return
	}
	for _, c := range checks {
		s.where = proto + "."
		c(s)
	}
	s.where = ""
}

// EtherSrc wants a source MAC address.
func EtherSrc(want packet.MAC) Checker {
	return func(s *subject) {
		s.t.Helper()
		if s.whole("ether.src", 12) {
			equal(s, "ether.src", packet.MAC(s.b[6:12]), want)
		}
	}
}

// EtherDst wants a destination MAC address.
func EtherDst(want packet.MAC) Checker {
	return func(s *subject) {
		s.t.Helper()
		if s.whole("ether.dst", 6) {
			equal(s, "ether.dst", packet.MAC(s.b[0:6]), want)
		}
	}
}

// EtherType wants the type after all tags.
func EtherType(want uint16) Checker {
	return func(s *subject) {
		s.t.Helper()
		equalHex(s, "ether.type", s.v.EtherType, want)
	}
}

// whole reports the field if the frame ends before its last byte.
func (s *subject) whole(field string, n int) bool {
	s.t.Helper()
	if len(s.b) < n {
		s.t.Errorf("%s%s is cut off: the frame has %d bytes", s.where, field, len(s.b))
		return false
	}
	return true
}

// VLAN wants exactly these VLANs, outer tag first; none means untagged.
func VLAN(vids ...uint16) Checker {
	return func(s *subject) {
		s.t.Helper()
		got := []uint16{}
		for _, tci := range s.v.TCI[:s.v.Tags] {
			got = append(got, tci&0xfff)
		}
		if !slices.Equal(got, vids) {
			s.t.Errorf("vlan.vid = %v, want %v", got, vids)
		}
	}
}

// Len wants a length of the frame in bytes.
func Len(want int) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "length", len(s.b), want)
	}
}

// Fault wants the parse to refuse the frame so, or with FaultNone to accept it.
func Fault(want packet.Fault) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "fault", s.fault, want)
	}
}

// Data wants the payload of TCP, UDP, SCTP or ICMP, or what follows the headers
// of anything else.
func Data[D ~string | ~[]byte](want D) Checker {
	return func(s *subject) {
		s.t.Helper()
		got, w := s.data(), []byte(want)
		if bytes.Equal(got, w) {
			return
		}
		i := 0
		for i < len(got) && i < len(w) && got[i] == w[i] {
			i++
		}
		s.t.Errorf("data differs at byte %d: %d bytes, want %d: got %s, want %s",
			i, len(got), len(w), excerpt(got, i), excerpt(w, i))
	}
}

// excerpt is up to 16 bytes of b from i.
func excerpt(b []byte, i int) string {
	return fmt.Sprintf("%q", b[min(i, len(b)):min(i+16, len(b))])
}

// data is the payload of the innermost header that the parse read.
func (s *subject) data() []byte {
	p := s.b[s.v.L4:max(s.v.L4, s.v.End)]
	if !s.v.Is(packet.ViewHasL4) {
		return p
	}
	switch s.v.Proto {
	case packet.ProtoTCP:
		return p[int(p[12]>>4)*4:]
	case packet.ProtoSCTP:
		return p[packet.SCTPLen:]
	}
	return p[packet.UDPLen:] // ICMP has as many
}

// Src wants a source address, of an ARP message the sender's.
func Src[A string | netip.Addr](want A) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "src", s.v.SrcAddr(s.b), toAddr(want))
	}
}

// Dst wants a destination address, of an ARP message the target's.
func Dst[A string | netip.Addr](want A) Checker {
	return func(s *subject) {
		s.t.Helper()
		equal(s, "dst", s.v.DstAddr(s.b), toAddr(want))
	}
}

func toAddr[A string | netip.Addr](a A) netip.Addr {
	if addr, ok := any(a).(netip.Addr); ok {
		return addr
	}
	return IP(any(a).(string))
}

// u16 and u32 read a big-endian field at an offset from the L3 or L4 header.
// Preconditions: the enclosing check has seen that the header is whole.
func (s *subject) u16(off int) uint16 { return binary.BigEndian.Uint16(s.b[off:]) }

func (s *subject) u32(off int) uint32 { return binary.BigEndian.Uint32(s.b[off:]) }
