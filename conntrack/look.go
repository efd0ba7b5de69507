// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"

	"sluice/packet"
)

// Packet is what the table wants to know of a packet.
type Packet struct {
	Frame *packet.Frame // parsed without fault
	Zone  uint16        // of its namespace
	Port  uint16        // by which it came, and whose quota a new connection uses; 0 is nobody
	Now   uint32        // seconds

	// Of a fragment: the ports of its flow, as the View of the first one has them
	// (of ICMP type<<8|code and the identifier).
	SrcPort, DstPort uint16
}

// Verdict is what a packet is. Zero is Invalid.
type Verdict struct {
	State State
	Dir   Dir  // of the packet; of an ICMP error the way that itself goes, and the quoted packet went the other
	Error bool // an ICMP error or redirect about a packet of Conn
	Conn  Conn // zero if there is none, or, if State is New, none yet
}

// Look finds the connection of a packet, and tracks the packet in it. One that
// may begin a connection is New, and n is filled in for Confirm; nobody else
// sees that connection before. It takes no lock and allocates nothing.
// Preconditions: p.Frame.View was parsed without fault.
func (t *Table) Look(p *Packet, n *Pending) Verdict {
	n.active = false
	v := &p.Frame.View
	if !v.Is(packet.ViewIP) {
		return Verdict{State: Untracked}
	}
	if isICMP(v) {
		switch typ := uint8(v.SrcPort >> 8); {
		case isError(v.Proto, typ):
			return t.related(p)
		case v.Proto == packet.ProtoICMPv6 && isUntracked(typ):
			return Verdict{State: Untracked}
		}
	}
	var k key
	if !k.read(p) {
		return t.invalid()
	}
	verdict := t.lookup(p, &k, n)
	if verdict.State == Invalid {
		t.stats.invalid.Add(1)
	}
	return verdict
}

func (t *Table) invalid() Verdict {
	t.stats.invalid.Add(1)
	return Verdict{}
}

// lookup tracks the packet in its connection, or else lets it begin one. A SYN
// that ends a connection of the same ports is looked up again.
func (t *Table) lookup(p *Packet, k *key, n *Pending) Verdict {
	h := t.secret.hash(k)
	for range 4 {
		c, d, ok := t.find(k, h)
		if !ok {
			return t.begin(p, k, n)
		}
		if state := c.see(d, p.Frame, p.Now); state != Gone {
			if state == Invalid {
				return Verdict{}
			}
			return Verdict{State: state, Dir: d, Conn: c}
		}
	}
	return Verdict{}
}

// read makes k the key of a packet. False if it has what its protocol does not
// name: an ICMP header that was cut off by fragmentation.
func (k *key) read(p *Packet) bool {
	b, v := p.Frame.Bytes(), &p.Frame.View
	src, dst := v.SrcPort, v.DstPort
	if v.Is(packet.ViewFrag) {
		src, dst = p.SrcPort, p.DstPort
	}
	family := uint8(4)
	ip := b[v.L3:]
	if v.Is(packet.ViewIPv6) {
		family = 6
		k.setAddrs6(ip[8:24], ip[24:40])
	} else {
		k[0] = uint64(binary.BigEndian.Uint32(ip[12:])) << 32
		k[2] = uint64(binary.BigEndian.Uint32(ip[16:])) << 32
	}
	switch v.Proto {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
		k[4] = rest(src, dst, p.Zone, v.Proto, family)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if isICMP(v) && !v.Is(packet.ViewFrag) {
			dst = binary.BigEndian.Uint16(b[v.L4+4:]) // the View has it of echo only
		}
		k[4] = rest(dst, src, p.Zone, v.Proto, family) // identifier, then type and code
	default:
		k[4] = rest(0, 0, p.Zone, v.Proto, family)
	}
	return true
}

// related finds the connection of the packet that an ICMP error quotes. The error
// must be for whoever sent that packet.
func (t *Table) related(p *Packet) Verdict {
	cfg := t.zone(p.Zone)
	if !cfg.NoChecksum && !checksumOK(p.Frame) {
		return t.wrongError()
	}
	q, ok := Quoted(p.Frame)
	if !ok {
		return t.wrongError()
	}
	b := p.Frame.Bytes()
	if cfg.CheckQuoted && q.Tuple.Src.Is4() && packet.Sum(b[q.L3:q.L4], 0) != 0xffff {
		return t.wrongError()
	}
	quoted, ok := keyOf(p.Zone, &q.Tuple)
	answer, answered := quoted.inverse()
	if !ok || !answered {
		return t.wrongError()
	}
	c, d, ok := t.find(&answer, t.secret.hash(&answer))
	if !ok || c.record().over(p.Now) || p.Frame.View.DstAddr(b) != q.Tuple.Src {
		return t.wrongError()
	}
	return Verdict{State: Related, Dir: d, Error: true, Conn: c}
}

// wrongError is an ICMP error about no connection.
func (t *Table) wrongError() Verdict {
	t.stats.icmpError.Add(1)
	return t.invalid()
}

// checksumOK verifies the L4 checksum, unless it is not complete yet or the
// kernel vouches for it.
func checksumOK(f *packet.Frame) bool {
	if f.Vnet.Flags&(packet.FlagNeedsCsum|packet.FlagDataValid) != 0 {
		return true
	}
	return packet.VerifyL4(f.Bytes(), &f.View)
}

// begin lets the packet begin a connection, if it may.
func (t *Table) begin(p *Packet, k *key, n *Pending) Verdict {
	v := &p.Frame.View
	answer, ok := k.inverse()
	if !ok || k.proto() == packet.ProtoICMP && !mayBegin(k.proto(), uint8(k.dstPort()>>8)) ||
		k.proto() == packet.ProtoICMPv6 && !mayBegin(k.proto(), uint8(k.dstPort()>>8)) {
		return Verdict{}
	}
	cfg := t.zone(p.Zone)
	if !cfg.NoChecksum && !checksumOK(p.Frame) {
		return Verdict{}
	}
	n.reset(p, k, &answer)
	s := subject{cfg: cfg, track: &n.track, fresh: true}
	var a action
	if k.statefully() && !v.Is(packet.ViewHasL4) {
		return Verdict{} // a fragment without header begins nothing
	}
	a = s.judge(p.Frame.Bytes(), v, k.proto())
	if a.verdict != accept {
		return Verdict{}
	}
	n.state, n.timeout = s.state, a.timeout
	if a.assured {
		n.Status |= Assured
	}
	n.active = true
	return Verdict{State: New}
}

// statefully reports whether the protocol is judged by its header.
func (k *key) statefully() bool { return k.proto() == packet.ProtoTCP || k.proto() == packet.ProtoSCTP }
