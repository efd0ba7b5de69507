// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"

	"sluice/policy/nft"
)

// mangle compiles `… set …`.
func (c *compiler) mangle(m *nft.Mangle) error {
	switch key := m.Key.(type) {
	case *nft.Payload:
		return c.write(key, m.Value)
	case *nft.Meta:
		id := c.stage.metas[key.Key]
		if !slices.Contains([]metaKey{metaMark, metaPriority, metaPktType, metaNFTrace}, id) {
			return fmt.Errorf("meta %s can't be set", key.Key)
		}
		return c.assign(inst{op: opSetMeta, aux: uint8(id), n: 1}, m.Value)
	case *nft.CT:
		id := c.stage.cts[key.Key]
		if !slices.Contains([]ctKey{ctKeyMark, ctKeyLabel}, id) {
			return fmt.Errorf("ct %s can't be set", key.Key)
		}
		return c.assign(inst{op: opSetCT, aux: uint8(id), n: uint8(words(int(key.Bits)))}, m.Value)
	case *nft.TCPOption:
		in := place(key.Offset, int(key.Bits))
		if in.shift != 0 || key.Field == "" || in.n > 8 {
			return errors.New("only whole bytes of a TCP option can be set")
		}
		in.op, in.aux = opSetOption, key.Kind
		return c.assign(in, m.Value)
	}
	return fmt.Errorf("%T can't be set", m.Key)
}

// assign computes what is assigned, and does it.
func (c *compiler) assign(in inst, x nft.Expr) error {
	n := 1
	if in.op == opSetCT {
		n = int(in.n)
	}
	r, err := c.take(n)
	if err != nil {
		return err
	}
	if err := c.value(x, r, n); err != nil {
		return err
	}
	in.dst = r
	c.emit(in)
	return nil
}

// write compiles the rewriting of a header.
func (c *compiler) write(p *nft.Payload, x nft.Expr) error {
	in := place(p.Offset, int(p.Bits))
	in.op, in.src = opWrite, srcLink+source(p.Base)
	in.mask = 0
	if in.partial(int(p.Bits)) || in.shift != 0 {
		if in.n > 8 {
			return errors.New("so long a field has to consist of whole bytes")
		}
		in.mask = ones(8*int(in.n)).lo &^ (ones(int(p.Bits)).lo << in.shift)
	}
	in.flag = sums(p)
	n := words(8 * int(in.n))
	r, err := c.take(n)
	if err != nil {
		return err
	}
	if err := c.value(x, r, n); err != nil {
		return err
	}
	in.dst = r
	c.emit(in)
	return nil
}

// sums says which checksums follow a field, as nft(8) tells the kernel: none if the
// field was given by its place only.
func sums(p *nft.Payload) uint8 {
	switch p.Proto {
	case "ip":
		if p.Field == "saddr" || p.Field == "daddr" {
			return sumHeader | sumPseudo
		}
		return sumHeader
	case "ip6":
		if p.Field == "saddr" || p.Field == "daddr" {
			return sumPseudo
		}
	case "tcp", "udp", "udplite", "icmp", "icmpv6":
		return sumL4
	}
	return 0
}

// nat compiles a NAT statement.
func (c *compiler) nat(s *nft.NAT) error {
	n := natCode{v6: s.Family == nft.FamilyIP6, only: s.Family, fixed: NATRequest{
		Kind: s.Kind, Random: s.Random, FullyRandom: s.FullyRandom, Persistent: s.Persistent, Netmap: s.Netmap,
	}}
	var err error
	if s.AddrPort {
		err = c.natPair(&n, s)
	} else if s.Addr != nil {
		err = c.natAddr(&n, s)
	}
	if err == nil && s.Port != nil {
		err = c.natPort(&n, s.Port)
	}
	if err != nil {
		return err
	}
	c.code.nats = append(c.code.nats, n)
	c.emit(inst{op: opNAT, arg: uint32(len(c.code.nats) - 1)})
	return nil
}

func (n *natCode) words() int {
	if n.v6 {
		return 2
	}
	return 1
}

// natAddr is an address, or a range of them.
func (c *compiler) natAddr(n *natCode, s *nft.NAT) (err error) {
	if from, to, err := bounds(s.Addr); err == nil {
		n.fixed.MinAddr = addrOf(number([]byte(from)), n.v6)
		n.fixed.MaxAddr = addrOf(number([]byte(to)), n.v6)
		return nil
	}
	w := n.words()
	if n.addr, err = c.take(2 * w); err != nil {
		return err
	}
	if m, ok := s.Addr.(*nft.Map); ok { // its values may be ranges
		n.last = n.addr + uint8(w)
		return c.mapRange(m, n.addr)
	}
	return c.value(s.Addr, n.addr, w)
}

// mapRange computes a map's value, of which there is a first and a last.
func (c *compiler) mapRange(m *nft.Map, to uint8) error {
	if err := c.lookup(opMap, m.Key, m.Of, to); err != nil {
		return err
	}
	c.code.insts[len(c.code.insts)-1].flag = flagWide
	return nil
}

// natPair is an address with a port.
func (c *compiler) natPair(n *natCode, s *nft.NAT) (err error) {
	w := n.words()
	if n.addr, err = c.take(2 * (w + 1)); err != nil {
		return err
	}
	n.port = n.addr + uint8(w)
	switch x := s.Addr.(type) {
	case *nft.Map:
		set, err := c.set(x.Of)
		if err != nil {
			return err
		}
		if set.dwidth != w+1 {
			return errors.New("the map's values are no address with a port")
		}
		n.last, n.lastPort = n.addr+uint8(w)+1, n.port+uint8(w)+1
		return c.mapRange(x, n.addr)
	case *nft.Concat:
		if len(x.Parts) != 2 {
			return errors.New("an address and a port are wanted")
		}
		if err := c.value(x.Parts[0], n.addr, w); err != nil {
			return err
		}
		return c.value(x.Parts[1], n.port, 1)
	}
	return fmt.Errorf("%T is no address with a port", s.Addr)
}

func (c *compiler) natPort(n *natCode, x nft.Expr) (err error) {
	if from, to, err := bounds(x); err == nil {
		n.fixed.MinPort = uint16(number([]byte(from)).lo)
		n.fixed.MaxPort = uint16(number([]byte(to)).lo)
		return nil
	}
	if n.port, err = c.take(2); err != nil {
		return err
	}
	return c.value(x, n.port, 1)
}
