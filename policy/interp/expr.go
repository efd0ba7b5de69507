// SPDX-License-Identifier: Apache-2.0

package interp

import (
	"fmt"
	"math/big"
	"net/netip"
	"strings"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/policy"
	"sluice/policy/nft"
)

// size is how many bytes the value of an expression has.
func size(x nft.Expr) int {
	switch x := x.(type) {
	case *nft.Concat:
		n := 0
		for _, p := range x.Parts {
			n += size(p)
		}
		return n
	case interface{ Bytes() int }:
		return x.Bytes()
	}
	panic(fmt.Sprintf("%T has no size", x))
}

// text is a number in n bytes.
func text(x *big.Int, n int) string {
	b := x.Bytes()
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return strings.Repeat("\x00", n-len(b)) + string(b)
}

func word(x uint64, of nft.Expr) (string, bool) {
	return text(new(big.Int).SetUint64(x), size(of)), true
}

// bytes is the value of an expression; false: there is none.
func (r *run) bytes(x nft.Expr) (string, bool) {
	switch x := x.(type) {
	case *nft.Value:
		return x.Data, true
	case *nft.Concat:
		return r.concat(x)
	case *nft.Payload:
		return r.payload(x)
	case *nft.Meta:
		return r.meta(x)
	case *nft.CT:
		return r.ct(x)
	case *nft.Binary:
		return r.binary(x)
	case *nft.Map:
		e := r.lookup(r.set(x.Of), x.Key)
		if e == nil {
			return "", false
		}
		return e.tree.Data, true
	case *nft.FIB:
		return r.fib(x)
	case *nft.TCPOption:
		return r.option(x)
	case *nft.Numgen:
		n := r.w.counts[x]
		r.w.counts[x]++
		return word(uint64(n%x.Mod+x.Offset), x) // not Random
	}
	panic(fmt.Sprintf("can't compute %T", x))
}

// concat is several values side by side.
func (r *run) concat(x *nft.Concat) (string, bool) {
	var all strings.Builder
	for _, part := range x.Parts {
		s, ok := r.bytes(part)
		if !ok {
			return "", false
		}
		all.WriteString(s)
	}
	return all.String(), true
}

func (r *run) binary(x *nft.Binary) (string, bool) {
	left, ok := r.bytes(x.Left)
	right, ok2 := r.bytes(x.Right)
	if !ok || !ok2 {
		return "", false
	}
	a, b := number(left), number(right)
	n := new(big.Int)
	switch x.Op {
	case nft.BinAnd:
		n.And(a, b)
	case nft.BinOr:
		n.Or(a, b)
	case nft.BinXor:
		n.Xor(a, b)
	case nft.BinShl:
		n.Lsh(a, uint(b.Uint64()))
		n.And(n, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(x.Bits)), big.NewInt(1)))
	case nft.BinShr:
		n.Rsh(a, uint(b.Uint64()))
	}
	return text(n, x.Bytes()), true
}

// opaque reports whether a second VLAN tag hides what is in the packet.
func (r *run) opaque() bool {
	return r.p.Frame.View.Tags > 1 && (r.family == nft.FamilyBridge || r.family == nft.FamilyNetdev)
}

// network is where the network header begins.
func (r *run) network() int {
	if r.opaque() {
		return packet.EthernetLen + packet.VLANLen
	}
	return r.p.Frame.View.L3
}

// transport is the protocol, and where its header begins: that of AH, too, in IPv6.
func (r *run) transport() (proto uint8, at int) {
	v, b := &r.p.Frame.View, r.p.Frame.Bytes()
	if !v.Is(packet.ViewIPv6) {
		return v.Proto, v.L4
	}
	next, at := b[v.L3+6], v.L3+packet.IPv6Len
	for at < v.L4 {
		switch next {
		case packet.ProtoAH:
			return next, at
		case packet.ProtoFragment:
			next, at = b[at], at+8
		default:
			next, at = b[at], at+8*(int(b[at+1])+1)
		}
	}
	return v.Proto, v.L4
}

// where is the first byte of a header, and where the packet ends; false: there is
// no such header.
func (r *run) where(base nft.Base) (from, end int, ok bool) {
	v := &r.p.Frame.View
	switch base {
	case nft.BaseNetwork:
		return r.network(), r.last, true
	case nft.BaseTransport:
		_, at := r.transport()
		return at, r.last, v.Is(packet.ViewIP) && !r.opaque() && !v.Is(packet.ViewFragLater)
	case nft.BaseLink:
	}
	return 0, r.last, true
}

// payload reads bits of a header.
func (r *run) payload(x *nft.Payload) (string, bool) {
	from, to, ok := r.where(x.Base)
	if !ok || from+(x.Offset+int(x.Bits)+7)/8 > to {
		return "", false
	}
	b := r.p.Frame.Bytes()[from:to]
	n := new(big.Int)
	for i := x.Offset; i < x.Offset+int(x.Bits); i++ {
		n.Lsh(n, 1)
		n.SetBit(n, 0, uint(b[i/8]>>(7-i%8)&1))
	}
	return text(n, x.Bytes()), true
}

// options are those of a TCP segment, each by its kind and where it begins.
func (r *run) options() (b []byte, at map[uint8]int, ok bool) {
	v := &r.p.Frame.View
	if v.Proto != packet.ProtoTCP || !v.Is(packet.ViewHasL4) {
		return nil, nil, false
	}
	b = r.p.Frame.Bytes()[v.L4:]
	b = b[:4*int(b[12]>>4)]
	at = map[uint8]int{}
	for i := packet.TCPMinLen; i < len(b); {
		n := 1
		if b[i] > 1 {
			if i+1 >= len(b) || b[i+1] < 2 || i+int(b[i+1]) > len(b) {
				break
			}
			n = int(b[i+1])
		}
		if _, there := at[b[i]]; !there {
			at[b[i]] = i
		}
		if b[i] == 0 {
			break
		}
		i += n
	}
	return b, at, true
}

// option reads a field of a TCP option, of whole bytes.
func (r *run) option(x *nft.TCPOption) (string, bool) {
	b, at, ok := r.options()
	if !ok {
		return "", false
	}
	i, there := at[x.Kind]
	if x.Field == "" {
		if there {
			return word(1, x)
		}
		return word(0, x)
	}
	n := 1
	if there && b[i] > 1 {
		n = int(b[i+1])
	}
	if !there || x.Offset/8+x.Bytes() > n {
		return "", false
	}
	return string(b[i+x.Offset/8:][:x.Bytes()]), true
}

func name(s string) string { return s + strings.Repeat("\x00", 16-len(s)) }

func (r *run) meta(x *nft.Meta) (string, bool) {
	p := r.p
	v := &p.Frame.View
	switch x.Key {
	case "l4proto":
		if !v.Is(packet.ViewIP) || r.opaque() {
			return "", false
		}
		proto, _ := r.transport()
		return word(uint64(proto), x)
	case "nfproto":
		return word(uint64(r.family), x)
	case "protocol":
		if v.Tags > 1 { // the kernel takes off one of them
			return word(uint64(v.TPID[1]), x)
		}
		return word(uint64(v.EtherType), x)
	case "mark":
		return word(uint64(p.Mark), x)
	case "priority":
		return word(uint64(p.Priority), x)
	case "pkttype":
		return word(uint64(p.PktType), x)
	case "length":
		return word(uint64(r.length()), x)
	}
	return r.metaDevice(x)
}

// metaDevice is what is known of the packet's devices.
func (r *run) metaDevice(x *nft.Meta) (string, bool) {
	p := r.p
	switch x.Key {
	case "iif":
		return device(p.In, x)
	case "oif":
		return device(p.Out, x)
	case "iifname":
		return name(p.In.String()), true
	case "oifname":
		return name(p.Out.String()), true
	case "iiftype":
		if p.In == nil {
			return "", false
		}
		return word(uint64(p.In.Type), x)
	case "iifgroup":
		return group(p.In, x)
	case "oifgroup":
		return group(p.Out, x)
	}
	panic("no meta " + x.Key)
}

func device(d *policy.Device, x nft.Expr) (string, bool) {
	if d == nil {
		return word(0, x)
	}
	return word(uint64(d.Index), x)
}

func group(d *policy.Device, x nft.Expr) (string, bool) {
	if d == nil {
		return "", false
	}
	return word(uint64(d.Group), x)
}

// original is the tuple of the packet's connection.
func original(p *policy.Packet) (conntrack.Tuple, bool) {
	switch {
	case p.NoTrack:
	case p.Pending != nil && p.Pending.Active():
		return p.Pending.Original, true
	case p.Conn != (conntrack.Conn{}):
		return p.Conn.Tuple(conntrack.Original), true
	}
	return conntrack.Tuple{}, false
}

func (r *run) ct(x *nft.CT) (string, bool) {
	p := r.p
	if x.Key == "state" {
		return word(state(p), x)
	}
	if _, ok := original(p); !ok {
		return "", false
	}
	fresh := p.Pending != nil && p.Pending.Active()
	switch x.Key {
	case "direction":
		return word(uint64(p.Dir), x)
	case "mark":
		if fresh {
			return word(uint64(p.Pending.Mark), x)
		}
		return word(uint64(p.Conn.Mark()), x)
	case "status":
		if fresh {
			return word(uint64(p.Pending.Status), x)
		}
		return word(uint64(p.Conn.Status()), x)
	}
	return r.tuple(x)
}

func state(p *policy.Packet) uint64 {
	if p.NoTrack {
		return 64
	}
	if p.Tracked {
		switch p.State {
		case conntrack.Established:
			return 2
		case conntrack.Related:
			return 4
		case conntrack.New:
			return 8
		case conntrack.Untracked:
			return 64
		case conntrack.Invalid, conntrack.Gone:
		}
	}
	return 1
}

func (r *run) tuple(x *nft.CT) (string, bool) {
	t := r.direction(x.Dir)
	switch x.Key {
	case "saddr":
		return addr(t.Src, x)
	case "daddr":
		return addr(t.Dst, x)
	case "proto-src":
		return word(uint64(t.SrcPort), x)
	case "proto-dst":
		return word(uint64(t.DstPort), x)
	case "protocol":
		return word(uint64(t.Proto), x)
	case "l3proto":
		if t.Src.Is4() {
			return word(2, x)
		}
		return word(10, x)
	}
	panic("no ct " + x.Key)
}

// direction is the tuple of a direction, by default the packet's.
func (r *run) direction(dir nft.Dir) conntrack.Tuple {
	p := r.p
	original := p.Dir == conntrack.Original
	if dir != nft.DirNone {
		original = dir == nft.DirOriginal
	}
	fresh := p.Pending != nil && p.Pending.Active()
	switch {
	case fresh && original:
		return p.Pending.Original
	case fresh:
		return p.Pending.Reply
	case original:
		return p.Conn.Tuple(conntrack.Original)
	}
	return p.Conn.Tuple(conntrack.Reply)
}

func addr(a netip.Addr, x nft.Expr) (string, bool) {
	s := string(a.AsSlice())
	return s, len(s) == size(x)
}

func (r *run) fib(x *nft.FIB) (string, bool) {
	p := r.p
	if p.Env == nil || p.Env.FIB == nil {
		return "", false
	}
	q := policy.FIBQuery{Source: x.SAddr, Mark: x.Mark, IIF: x.IIF, OIF: x.OIF, Type: x.Result == "type"}
	if q.Addr = p.Frame.View.DstAddr(p.Frame.Bytes()); x.SAddr {
		q.Addr = p.Frame.View.SrcAddr(p.Frame.Bytes())
	}
	a := p.Env.FIB(p, &q)
	switch {
	case x.Result == "type":
		return word(uint64(a.Type), x)
	case x.Exists && a.Device != nil:
		return word(1, x)
	case x.Exists:
		return word(0, x)
	case x.Result == "oifname":
		return name(a.Device.String()), true
	}
	return device(a.Device, x)
}
