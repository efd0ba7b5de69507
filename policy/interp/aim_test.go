// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/interp"
	"sluice/policy/nft"
	"sluice/policy/policytest"
)

// Packets are aimed at rules: of each rule the comparisons up to its end are solved,
// with those of the rules that lead to its chain, and against those of the rules
// before it that would end the packet's way. From a packet that meets all of them one
// field after the other goes through all values that a rule is about, and their
// neighbours: the first and the last of a range, and the one before and after.

// shot is a packet, and the device that it comes by.
type shot struct {
	frame []byte
	in    int
}

// field is something of a packet that can be chosen.
type field uint8

const (
	fFamily field = iota
	fIn
	fSrc
	fDst
	fProto
	fSport
	fDport
	fFlags
	fTTL
	fTOS
	fData
	numFields
)

// choice is what was chosen for a packet.
type choice struct {
	six          bool
	in           int
	src, dst     [2]byte // network and host
	proto        uint8
	sport, dport uint16
	flags        uint8
	ttl, tos     uint8
	data         int
	set          [numFields]bool // a rule is about it
}

// literal is what is asked of a packet at a hook: that comparisons are all true, or
// that not all are; of a verdict map, that it says this.
type literal struct {
	all  []*nft.Match
	vmap *nft.VMap
	says *nft.Verdict
	want bool
	may  bool // it is well, but not needed
	hook nft.Hook

	test  func(*choice) bool // instead of all these
	about []field
}

// aimer aims.
type aimer struct {
	r       *rand.Rand
	rs      *nft.Ruleset
	table   *nft.Table
	world   *interp.World
	devs    [2]*policy.Device
	v4, v6  bool
	port    uint16 // that nobody has used
	values  [numFields][]uint16
	already map[string]bool // what was sent, but for the ports that nobody asks for
	packet  policy.Packet
	frame   *packet.Frame
	bytes   []byte
	added   map[string]bool // sets that packets add to
	marks   [2]bool         // some rule sets marks of packets, of connections
	notrack bool
	effort  int // nodes of all searches that are left
	nodes   int // that a search may still visit
}

func newAimer(r *rand.Rand, rs *nft.Ruleset) *aimer {
	a := &aimer{r: r, rs: rs, table: rs.Tables[0], world: interp.New(rs), port: 20000, already: map[string]bool{}, frame: pt.NewFrame(), effort: 60_000, added: map[string]bool{}}
	a.v4, a.v6 = a.table.Family != nft.FamilyIP6, a.table.Family != nft.FamilyIP
	for i := range a.devs {
		a.devs[i] = policy.NewDevice(fmt.Sprintf("m%d", i), policy.Device{Index: uint32(10 + i), Type: 1})
	}
	a.values[fFlags] = []uint16{pt.SYN, pt.SYN | pt.ACK, pt.ACK, pt.ACK | pt.PSH, pt.RST, pt.FIN | pt.ACK}
	a.values[fTTL] = []uint16{64, 65, 63, 33}
	a.values[fTOS] = []uint16{0, 46 << 2, 8 << 2}
	a.values[fData] = []uint16{0, 5, 20, 60, 400}
	a.values[fProto] = []uint16{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP}
	a.collect()
	for _, f := range []field{fSport, fDport} {
		if n := len(a.values[f]); n > 24 { // enough for a ruleset
			a.r.Shuffle(n, func(i, j int) { a.values[f][i], a.values[f][j] = a.values[f][j], a.values[f][i] })
			a.values[f] = a.values[f][:24]
		}
	}
	return a
}

// collect finds the values that rules and sets are about.
func (a *aimer) collect() {
	for _, c := range a.table.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Stmts {
				switch s := s.(type) {
				case *nft.Match:
					a.about(s.Left, s.Right)
				case *nft.VMap:
					a.about(s.Key, s.Of)
				case *nft.Notrack:
					a.notrack = true
				case *nft.SetStmt:
					a.added[s.Set] = true
					a.about(s.Key, &nft.SetRef{Name: s.Set})
				case *nft.Mangle:
					switch k := s.Key.(type) {
					case *nft.Meta:
						a.marks[0] = true
					case *nft.CT:
						a.marks[1] = k.Key == "mark" || a.marks[1]
					}
					if m, ok := s.Value.(*nft.Map); ok {
						a.about(m.Key, m.Of)
					}
				}
			}
		}
	}
	for f := range a.values {
		slices.Sort(a.values[f])
		a.values[f] = slices.Compact(a.values[f])
	}
}

// about notes the values on the right side of a comparison.
func (a *aimer) about(left, right nft.Expr) {
	parts := []nft.Expr{left}
	if k, ok := left.(*nft.Concat); ok {
		parts = k.Parts
	}
	switch x := right.(type) {
	case *nft.Value:
		a.value(parts[0], x.Data, x.Data)
	case *nft.Range:
		a.value(parts[0], x.From.Data, x.To.Data)
	case *nft.Concat:
		for i := range min(len(parts), len(x.Parts)) {
			a.about(parts[i], x.Parts[i])
		}
	case *nft.SetRef:
		set := x.Set
		for _, s := range a.table.Sets {
			if set == nil && s.Name == x.Name {
				set = s
			}
		}
		for e := range set.Elems.All() {
			at := 0
			for i, k := range set.Key {
				if i < len(parts) {
					a.value(parts[i], e.Key[at:at+k.Bytes()], e.End[at:at+k.Bytes()])
				}
				at += k.Bytes()
			}
		}
	}
}

// value notes the ends of a range, and what is next to them.
func (a *aimer) value(of nft.Expr, from, to string) {
	p, ok := of.(*nft.Payload)
	if !ok || len(from) > 2 || p.Field != "sport" && p.Field != "dport" {
		return
	}
	f := fSport
	if p.Field == "dport" {
		f = fDport
	}
	for _, s := range []string{from, to} {
		n := binary.BigEndian.Uint16([]byte("\x00" + s)[len(s)-1:])
		a.values[f] = append(a.values[f], n-1, n, n+1)
	}
}

// fieldsOf are the fields that an expression reads.
func fieldsOf(x nft.Expr) []field {
	switch x := x.(type) {
	case *nft.Concat:
		var all []field
		for _, p := range x.Parts {
			all = append(all, fieldsOf(p)...)
		}
		return all
	case *nft.Binary:
		return fieldsOf(x.Left)
	case *nft.Payload:
		return fieldsOfPayload(x)
	case *nft.Meta:
		switch x.Key {
		case "l4proto":
			return []field{fProto}
		case "nfproto", "protocol":
			return []field{fFamily}
		case "iifname", "oifname", "iif", "oif":
			return []field{fIn}
		case "length":
			return []field{fData}
		}
	}
	return nil
}

func fieldsOfPayload(x *nft.Payload) []field {
	switch x.Field {
	case "saddr":
		return []field{fSrc}
	case "daddr":
		return []field{fDst}
	case "sport":
		return []field{fSport}
	case "dport":
		return []field{fDport}
	case "flags":
		return []field{fFlags}
	case "ttl", "hoplimit":
		return []field{fTTL}
	case "dscp":
		return []field{fTOS}
	case "protocol", "nexthdr":
		return []field{fProto}
	}
	if x.Base == nft.BaseNetwork {
		return []field{fFamily, fTOS, fTTL}
	}
	return []field{fSport, fDport}
}

// isCT reports whether what is asked is not in the packet.
func isCT(x nft.Expr) bool {
	switch x := x.(type) {
	case *nft.CT:
		return true
	case *nft.Meta:
		return x.Key == "mark"
	case *nft.Binary:
		return isCT(x.Left)
	}
	return false
}

// known reports whether the comparison depends on the packet alone, and not on what
// came before it. Marks that nobody sets are 0.
func (a *aimer) known(m *nft.Match, base *nft.Chain) bool {
	if ref, ok := m.Right.(*nft.SetRef); ok && ref.Set == nil && a.added[ref.Name] {
		return false
	}
	left := m.Left
	if b, ok := left.(*nft.Binary); ok {
		left = b.Left
	}
	switch x := left.(type) {
	case *nft.CT:
		return (x.Key != "state" || !a.notrack) && base.Hook == nft.HookPrerouting && base.Prio < ctPrio // there is none yet
	case *nft.Meta:
		v, ok := m.Right.(*nft.Value)
		return x.Key != "mark" || !a.marks[0] || ok && v.Data == "\x00\x00\x10\x92" // noMark
	}
	return true
}

// random is any packet.
func (a *aimer) random() choice {
	c := choice{six: a.v6 && (!a.v4 || a.r.IntN(2) == 0), in: a.r.IntN(2), ttl: 64, sport: a.fresh(), flags: pt.SYN}
	c.proto = []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoTCP, packet.ProtoICMP}[a.r.IntN(4)]
	for _, f := range []field{fSrc, fDst, fDport} {
		a.draw(&c, f)
	}
	c.set = [numFields]bool{}
	return c
}

// fresh is a port that no flow has.
func (a *aimer) fresh() uint16 {
	a.port++
	return a.port
}

const hosts = 10 // of each network, from 2 on

// domain is how many values a field goes through.
func (a *aimer) domain(f field) int {
	switch f {
	case fFamily, fIn:
		return 2
	case fSrc, fDst:
		return hosts
	case fSport:
		return len(a.values[f]) + 1
	case fDport:
		return len(a.values[f]) + len(policytest.Ports())
	case fProto, fFlags, fTTL, fTOS, fData, numFields:
	}
	return len(a.values[f])
}

// give sets a field to the i-th of its values.
func (a *aimer) give(c *choice, f field, i int) {
	c.set[f] = true
	switch f {
	case fFamily:
		c.six = a.v6 && (!a.v4 || i == 1)
	case fIn:
		c.in = i
	case fSrc:
		c.src[1] = byte(2 + i)
	case fDst:
		c.dst[1] = byte(2 + i)
	case fSport:
		if c.sport = a.fresh(); i < len(a.values[f]) {
			c.sport = a.values[f][i]
		}
	case fDport:
		if i < len(a.values[f]) {
			c.dport = a.values[f][i]
		} else {
			fmt.Sscan(policytest.Ports()[i-len(a.values[f])], &c.dport)
		}
	case fProto:
		c.proto = uint8(a.values[f][i])
	case fFlags:
		c.flags = uint8(a.values[f][i])
	case fTTL:
		c.ttl = uint8(a.values[f][i])
	case fTOS:
		c.tos = uint8(a.values[f][i])
	case fData:
		c.data = int(a.values[f][i])
	case numFields:
	}
	c.src[0], c.dst[0] = byte(c.in), byte(1-c.in)
}

func (a *aimer) draw(c *choice, f field) { a.give(c, f, a.r.IntN(a.domain(f))) }

func (c *choice) addr(x [2]byte) netip.Addr {
	if c.six {
		return netip.AddrFrom16([16]byte{0: 0xfd, 3: x[0], 15: x[1]})
	}
	return netip.AddrFrom4([4]byte{10, 0, x[0], x[1]})
}

// other is the packet the other way.
func (c choice) other() choice {
	c.src, c.dst, c.sport, c.dport, c.in = c.dst, c.src, c.dport, c.sport, 1-c.in
	return c
}

// frame is the packet. reply: it answers, of queries.
func (c *choice) frame(reply bool) []byte {
	src, dst := c.addr(c.src), c.addr(c.dst)
	var ip pt.Layer = pt.IPv4Hdr{Src: src, Dst: dst, TTL: c.ttl, TOS: c.tos, ID: 7, DF: true}
	if c.six {
		ip = pt.IPv6Hdr{Src: src, Dst: dst, HopLimit: c.ttl, TrafficClass: c.tos}
	}
	switch c.proto {
	case packet.ProtoTCP:
		return pt.Build(pt.EtherHdr{}, ip, pt.TCPHdr{SrcPort: c.sport, DstPort: c.dport, Seq: 1000, Ack: 1000, Flags: c.flags}, pt.Bytes(c.data))
	case packet.ProtoUDP:
		return pt.Build(pt.EtherHdr{}, ip, pt.UDPHdr{SrcPort: c.sport, DstPort: c.dport}, pt.Bytes(c.data))
	}
	h := pt.ICMPHdr{V6: c.six, Type: 8, ID: c.sport ^ c.dport, Seq: 1}
	switch {
	case c.six && reply:
		h.Type = 129
	case c.six:
		h.Type = 128
	case reply:
		h.Type = 0
	}
	return pt.Build(pt.EtherHdr{}, ip, h, pt.Bytes(c.data))
}

// sketch is the packet as rules see it at a hook, but for its checksums.
func (a *aimer) sketch(c *choice, hook nft.Hook) *policy.Packet {
	ttl := c.ttl
	p := &a.packet
	p.In, p.Out, p.Now = a.devs[c.in], nil, 1
	if hook != nft.HookPrerouting {
		p.Out = a.devs[1-c.in]
		ttl--
	}
	b := append(a.bytes[:0], 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2)
	n := map[uint8]int{packet.ProtoTCP: 20, packet.ProtoUDP: 8, packet.ProtoICMP: 8}[c.proto] + c.data
	src, dst := c.addr(c.src), c.addr(c.dst)
	if proto := c.proto; c.six {
		if proto == packet.ProtoICMP {
			proto = packet.ProtoICMPv6
		}
		b = append(b, 0x86, 0xdd, 0x60|c.tos>>4, c.tos<<4, 0, 0, byte(n>>8), byte(n), proto, ttl)
	} else {
		b = append(b, 8, 0, 0x45, c.tos, byte((n+20)>>8), byte(n+20), 0, 7, 0x40, 0, ttl, proto, 0, 0)
	}
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	l4 := len(b)
	b = append(b, make([]byte, n)...)
	switch c.proto {
	case packet.ProtoTCP:
		b[l4+12], b[l4+13] = 5<<4, c.flags
		fallthrough
	case packet.ProtoUDP:
		binary.BigEndian.PutUint16(b[l4:], c.sport)
		binary.BigEndian.PutUint16(b[l4+2:], c.dport)
		if c.proto == packet.ProtoUDP {
			binary.BigEndian.PutUint16(b[l4+4:], uint16(n))
		}
	default:
		if b[l4] = 8; c.six {
			b[l4] = 128
		}
	}
	a.bytes, p.Frame = b, a.frame
	a.frame.Reset(packet.Headroom, len(b))
	copy(a.frame.Bytes(), b)
	a.frame.View.Parse(a.frame.Bytes())
	return p
}

// family is the packet's.
func (c *choice) family() nft.Family {
	if c.six {
		return nft.FamilyIP6
	}
	return nft.FamilyIP
}

// says is what the literal's verdict map has for a packet.
func (a *aimer) says(c *choice, l *literal) *nft.Verdict {
	return a.world.Says(a.sketch(c, l.hook), c.family(), a.table, l.vmap)
}

// holds reports whether the packet is as the literal asks.
func (a *aimer) holds(c *choice, l *literal) bool {
	if l.test != nil {
		return l.test(c)
	}
	if l.vmap != nil {
		v := a.says(c, l)
		is := v != nil && (l.says == nil || v.Kind == l.says.Kind && v.Chain == l.says.Chain)
		return is == l.want
	}
	p := a.sketch(c, l.hook)
	for _, m := range l.all {
		if !a.world.Holds(p, c.family(), a.table, m) {
			return !l.want
		}
	}
	return l.want
}

func (l *literal) fields() (all []field) {
	if l.test != nil {
		return l.about
	}
	if l.vmap != nil {
		return fieldsOf(l.vmap.Key)
	}
	for _, m := range l.all {
		all = append(all, fieldsOf(m.Left)...)
	}
	return all
}

// solve finds a packet that is as all literals ask: with those that are only well, or
// without. never: there is none at all, all values having been tried.
func (a *aimer) solve(all []literal) (c choice, ok, never bool) {
	needed := slices.DeleteFunc(slices.Clone(all), func(l literal) bool { return l.may })
	some := slices.DeleteFunc(slices.Clone(all), func(l literal) bool { return l.may && a.r.IntN(2) == 0 })
	for _, asks := range [][]literal{all, some, needed} {
		c = a.random()
		most := min(3000, a.effort)
		a.nodes = most
		ok = a.search(&c, asks)
		if a.effort -= most - max(a.nodes, 0); ok {
			return c, true, false
		}
	}
	return c, false, a.nodes > 0
}

// search chooses one field after the other, and goes back where it can't go on.
func (a *aimer) search(c *choice, asks []literal) bool {
	order := []field{fFamily, fIn, fProto}
	for _, l := range asks {
		for _, f := range l.fields() {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	ripe := make([][]*literal, len(order)) // by the last field that they are about
	for i := range asks {
		last := 2
		for _, f := range asks[i].fields() {
			last = max(last, slices.Index(order, f))
		}
		ripe[last] = append(ripe[last], &asks[i])
	}
	return a.descend(c, order, ripe)
}

func (a *aimer) descend(c *choice, order []field, ripe [][]*literal) bool {
	if len(order) == 0 {
		return true
	}
	was := *c
	for _, i := range a.r.Perm(a.domain(order[0])) {
		if a.nodes--; a.nodes < 0 {
			return false
		}
		*c = was
		a.give(c, order[0], i)
		fits := true
		for _, l := range ripe[0] {
			if fits = a.holds(c, l); !fits {
				break
			}
		}
		if fits && a.descend(c, order[1:], ripe[1:]) {
			return true
		}
	}
	return false
}
