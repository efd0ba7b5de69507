// SPDX-License-Identifier: Apache-2.0

package interp

import (
	"encoding/binary"
	"math/big"
	"net/netip"
	"slices"

	"sluice/packet"
	"sluice/policy"
	"sluice/policy/nft"
)

// mangle sets something.
func (r *run) mangle(m *nft.Mangle) bool {
	v, ok := r.bytes(m.Value)
	if !ok {
		return false
	}
	n := number(v).Uint64()
	p := r.p
	switch key := m.Key.(type) {
	case *nft.Payload:
		return r.write(key, number(v))
	case *nft.TCPOption:
		return r.setOption(key, uint16(n))
	case *nft.Meta:
		r.setMeta(key.Key, n)
	case *nft.CT:
		_, ok := original(p)
		fresh := p.Pending != nil && p.Pending.Active()
		switch {
		case !ok || key.Key != "mark":
		case fresh:
			p.Pending.Mark = uint32(n)
		default:
			p.Conn.SetMark(uint32(n))
		}
	}
	return true
}

func (r *run) setMeta(key string, n uint64) {
	switch key {
	case "mark":
		r.p.Mark = uint32(n)
	case "priority":
		r.p.Priority = uint32(n)
	case "pkttype":
		r.p.PktType = uint8(n)
	case "nftrace":
		r.p.Trace = n != 0
	}
}

// write sets bits of a header, and what the checksums are over.
func (r *run) write(key *nft.Payload, n *big.Int) bool {
	from, to, ok := r.where(key.Base)
	if !ok || from+(key.Offset+int(key.Bits)+7)/8 > to {
		return false
	}
	f := r.p.Frame
	v := f.View
	before := [2]uint16{header(f, &v), transport(f, &v)}
	b := f.Bytes()[from:]
	for i := range int(key.Bits) {
		at := key.Offset + int(key.Bits) - 1 - i
		b[at/8] &^= 1 << (7 - at%8)
		b[at/8] |= byte(n.Bit(i)) << (7 - at%8)
	}
	r.sums(key, &v, before)
	if fault := f.View.Parse(f.Bytes()); fault != packet.FaultNone {
		r.p.Fault = fault
	}
	return true
}

// setOption sets a field of a TCP option of two bytes; a segment size only becomes
// smaller.
func (r *run) setOption(key *nft.TCPOption, n uint16) bool {
	b, at, ok := r.options()
	if !ok {
		return false
	}
	i, there := at[key.Kind]
	if !there || i+key.Offset/8+2 > len(b) || key.Offset/8+2 > int(b[i+1]) {
		return true
	}
	field := b[i+key.Offset/8:]
	if key.Kind == 2 && binary.BigEndian.Uint16(field) <= n {
		return true
	}
	v := r.p.Frame.View
	before := transport(r.p.Frame, &v)
	binary.BigEndian.PutUint16(field, n)
	shift(r.p.Frame.Bytes()[v.L4+16:], before, transport(r.p.Frame, &v))
	return true
}

// header is the sum over the IPv4 header, its checksum left out.
func header(f *packet.Frame, v *packet.View) uint16 {
	if !v.Is(packet.ViewIPv4) {
		return 0
	}
	h := append([]byte(nil), f.Bytes()[v.L3:v.L4]...)
	h[10], h[11] = 0, 0
	return packet.Sum(h, 0)
}

// transport is the sum over the transport header, the payload, and the addresses;
// the checksum is left out.
func transport(f *packet.Frame, v *packet.View) uint16 {
	if !v.Is(packet.ViewIP) || v.Is(packet.ViewFragLater) {
		return 0
	}
	h := append([]byte(nil), f.Bytes()[v.L4:v.End]...)
	if at := place(v); at >= 0 && at+2 <= len(h) {
		h[at], h[at+1] = 0, 0
	}
	if v.Proto == packet.ProtoICMP {
		return packet.Sum(h, 0)
	}
	return packet.Sum(h, packet.PseudoHeader(f.Bytes(), v, 0))
}

// place is where the checksum of the protocol is.
func place(v *packet.View) int {
	switch v.Proto {
	case packet.ProtoTCP:
		return 16
	case packet.ProtoUDP:
		return 6
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return 2
	}
	return -1
}

// sums lets the checksums follow that nft knows to be over the field.
func (r *run) sums(key *nft.Payload, v *packet.View, before [2]uint16) {
	b := r.p.Frame.Bytes()
	pseudo := slices.Contains([]string{"ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr"}, key.Proto+" "+key.Field)
	inside := slices.Contains([]string{"tcp", "udp", "icmp", "icmpv6"}, key.Proto)
	if key.Proto == "ip" && v.Is(packet.ViewIPv4) {
		shift(b[v.L3+10:], before[0], header(r.p.Frame, v))
	}
	at := place(v)
	if !pseudo && !inside || at < 0 || v.Is(packet.ViewFragLater) || v.L4+at+2 > v.End {
		return
	}
	field := b[v.L4+at:]
	if pseudo && v.Proto == packet.ProtoUDP && field[0]|field[1] == 0 { // it has none
		return
	}
	shift(field, before[1], transport(r.p.Frame, v))
}

// shift adds to a checksum what its sum changed by.
func shift(field []byte, before, after uint16) {
	was := uint32(^binary.BigEndian.Uint16(field))
	n := (was + 0xffff - uint32(before) + uint32(after)) % 0xffff
	sum := ^uint16(n)
	if n == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
}

// nat says what a connection is to become.
func (r *run) nat(c *nft.Chain, rule *nft.Rule, s *nft.NAT) outcome {
	if six := r.p.Frame.View.Is(packet.ViewIPv6); s.Family != nft.FamilyNone && six != (s.Family == nft.FamilyIP6) {
		return goesOn
	}
	q := policy.NATRequest{
		Kind: s.Kind, Random: s.Random, FullyRandom: s.FullyRandom, Persistent: s.Persistent, Netmap: s.Netmap,
	}
	width := 4
	if s.Family == nft.FamilyIP6 {
		width = 16
	}
	if s.Addr != nil {
		from, to, ok := r.span(s.Addr)
		if !ok {
			return breaks
		}
		q.MinAddr, q.MaxAddr = parseAddr(from[:width]), parseAddr(to[:width])
		if s.AddrPort {
			q.MinPort, q.MaxPort = uint16(number(from[width:]).Uint64()), uint16(number(to[width:]).Uint64())
		}
	}
	if s.Port != nil {
		from, to, ok := r.span(s.Port)
		if !ok {
			return breaks
		}
		q.MinPort, q.MaxPort = uint16(number(from).Uint64()), uint16(number(to).Uint64())
	}
	r.verd = policy.Verdict{
		Code: policy.Translate, NAT: q,
		Why: policy.Evidence{Table: r.table, Chain: c, Rule: rule},
	}
	return done
}

func parseAddr(s string) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(s))
	return a
}

// span is the first and the last of what an expression stands for.
func (r *run) span(x nft.Expr) (from, to string, ok bool) {
	switch x := x.(type) {
	case *nft.Range:
		return x.From.Data, x.To.Data, true
	case *nft.Prefix:
		host := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(int(x.Addr.Bits)-x.Len)), big.NewInt(1))
		return x.Addr.Data, text(host.Or(host, number(x.Addr.Data)), x.Addr.Bytes()), true
	case *nft.Map:
		e := r.lookup(r.set(x.Of), x.Key)
		if e == nil {
			return "", "", false
		}
		if e.tree.DataEnd == "" {
			return e.tree.Data, e.tree.Data, true
		}
		return e.tree.Data, e.tree.DataEnd, true
	}
	from, ok = r.bytes(x)
	return from, from, ok
}
