// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"

	"sluice/packet"
)

// Entry is a connection as it was at one moment.
type Entry struct {
	Conn            Conn // to act upon it
	ID              uint32
	Zone, Port      uint16
	OutDevice       uint16
	Original, Reply Tuple
	Status          Status
	State           string // of TCP and SCTP, in the kernel's words
	Timeout         uint32 // seconds left
	Age             uint32 // seconds since its first packet
	Mark            uint32
	Label           Label
	Packets, Bytes  [2]uint64 // by direction

	Origin, Target, Backend Bind
	Aux                     uint64
}

// Entry describes the connection. False if it is gone.
func (c Conn) Entry(e *Entry, now uint32) bool {
	if c.t == nil || !c.record().acquireIf(c.want) {
		return false
	}
	c.record().describe(c.i, e, uint32(len(c.t.recs)), now)
	c.record().release()
	e.Conn = c
	return true
}

// describe reads a record that does not change: its lock is held, or it is dying.
func (r *record) describe(i uint32, e *Entry, n, now uint32) {
	orig, reply := r.keys[Original].load(), r.keys[Reply].load()
	*e = Entry{
		ID:   idOf(i, r.life.Load(), n),
		Zone: orig.zone(), Port: r.port, OutDevice: r.outDevice,
		Original: orig.tuple(), Reply: reply.tuple(),
		Status: Status(r.status.Load()), Mark: r.mark.Load(), Aux: r.aux.Load(), Age: now - r.start,
		Origin: r.bind(bindOrigin), Target: r.bind(bindTarget), Backend: r.bind(bindBackend),
	}
	if left := int32(r.expiry.Load() - now); left > 0 {
		e.Timeout = uint32(left)
	}
	e.State = stateName(orig.proto(), r.state.Load())
	binary.BigEndian.PutUint64(e.Label[:], r.label[0].Load())
	binary.BigEndian.PutUint64(e.Label[8:], r.label[1].Load())
	for d := range r.acct {
		e.Packets[d], e.Bytes[d] = r.acct[d].packets.Load(), r.acct[d].bytes.Load()
	}
}

func (r *record) bind(b int) Bind { return Bind{r.bindID[b], r.bindGen[b]} }

// ListFlags say what a line of a list has beside the usual.
type ListFlags uint8

// The flags, after options of conntrack(8).
const (
	ListExtended  ListFlags = 1 << iota // -o extended: the layer 3 protocol
	ListID                              // -o id
	ListLabels                          // -o labels
	ListAccount                         // counters, as with nf_conntrack_acct=1
	ListTimestamp                       // delta-time, as with nf_conntrack_timestamp=1
)

// Append appends the entry as conntrack -L has it, without a newline.
func (e *Entry) Append(dst []byte, fl ListFlags) []byte { return e.append(dst, fl, true, true) }

// Append appends the event as conntrack -E has it, without a newline. What is
// over has no timeout and no state.
func (ev *Event) Append(dst []byte, fl ListFlags) []byte {
	word := ev.Kind.String()
	dst = append(dst, "         "[:max(0, 7-len(word))]...)
	dst = append(append(append(dst, '['), word...), "] "...)
	return ev.Entry.append(dst, fl, ev.Kind != EventDestroy, false)
}

// append does not use package fmt, which would be most of what a list of a large table
// costs.
func (e *Entry) append(dst []byte, fl ListFlags, alive, listed bool) []byte {
	if fl&ListExtended != 0 {
		family := "ipv4     2 "
		if e.Original.Src.Is6() {
			family = "ipv6     10 "
		}
		dst = append(dst, family...)
	}
	name := protoName(e.Original.Proto)
	dst = append(append(dst, name...), "        "[min(len(name), 8):]...)
	dst = field(dst, " ", uint64(e.Original.Proto))
	if alive {
		dst = field(dst, "", uint64(e.Timeout))
	}
	if e.State != "" {
		dst = append(append(dst, e.State...), ' ')
	}
	dst = e.appendDir(dst, Original, fl)
	if e.Status&SeenReply == 0 {
		dst = append(dst, "[UNREPLIED] "...)
	}
	dst = e.appendDir(dst, Reply, fl)
	if e.Status&Assured != 0 {
		dst = append(dst, "[ASSURED] "...)
	}
	if alive || e.Mark != 0 {
		dst = field(dst, "mark=", uint64(e.Mark))
	}
	return e.appendRest(dst, fl, listed)
}

// field appends a number behind its name, and a space.
func field(dst []byte, name string, n uint64) []byte {
	return append(strconv.AppendUint(append(dst, name...), n, 10), ' ')
}

func (e *Entry) appendRest(dst []byte, fl ListFlags, listed bool) []byte {
	if e.Zone != 0 {
		dst = field(dst, "zone=", uint64(e.Zone))
	}
	if fl&ListTimestamp != 0 {
		dst = field(dst, "delta-time=", uint64(e.Age))
	}
	if fl&ListLabels != 0 && e.Label != (Label{}) {
		dst = append(hex.AppendEncode(append(dst, "labels=0x"...), e.Label[:]), ' ')
	}
	if listed {
		dst = append(dst, "use=1 "...)
	}
	if fl&ListID != 0 {
		dst = field(dst, "id=", uint64(e.ID))
	}
	return dst[:len(dst)-1]
}

func (e *Entry) appendDir(dst []byte, d Dir, fl ListFlags) []byte {
	t := &e.Original
	if d == Reply {
		t = &e.Reply
	}
	dst = t.append(dst)
	if fl&ListAccount != 0 {
		dst = field(field(dst, "packets=", e.Packets[d]), "bytes=", e.Bytes[d])
	}
	return dst
}

// append appends the tuple in the words of conntrack(8), and a space.
func (t *Tuple) append(dst []byte) []byte {
	dst = appendAddr(append(dst, "src="...), t.Src)
	dst = append(appendAddr(append(dst, " dst="...), t.Dst), ' ')
	switch t.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		dst = field(field(dst, "sport=", uint64(t.SrcPort)), "dport=", uint64(t.DstPort))
	case packet.ProtoICMP, packet.ProtoICMPv6:
		dst = field(field(dst, "type=", uint64(t.DstPort>>8)), "code=", uint64(t.DstPort&0xff))
		dst = field(dst, "id=", uint64(t.SrcPort))
	case protoGRE:
		dst = append(dst, "srckey=0x0 dstkey=0x0 "...)
	}
	return dst
}

func appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(dst, '-')
	}
	return a.AppendTo(dst)
}

// String is the tuple in the words of conntrack(8), with the protocol.
func (t Tuple) String() string {
	b := t.append([]byte(protoName(t.Proto) + " "))
	return string(b[:len(b)-1])
}

// protoName is the name that conntrack(8) has for a protocol.
func protoName(proto uint8) string {
	switch proto {
	case packet.ProtoTCP:
		return "tcp"
	case packet.ProtoUDP:
		return "udp"
	case packet.ProtoICMP:
		return "icmp"
	case packet.ProtoICMPv6:
		return "icmpv6"
	case packet.ProtoSCTP:
		return "sctp"
	case protoGRE:
		return "gre"
	}
	return "unknown"
}

// ParseProto is the number of a protocol by conntrack(8)'s name, or as a number.
func ParseProto(s string) (uint8, bool) {
	for _, p := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoSCTP, protoGRE} {
		if protoName(p) == s {
			return p, true
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil
}
