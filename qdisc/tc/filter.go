// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"sluice/packet"
	"sluice/qdisc"
)

// protocolTable is the names of EtherTypes and of upper-layer protocols.
var (
	protocolTable = [...]struct {
		name string
		typ  uint16
	}{
		{"all", 0},
		{"ip", packet.EtherTypeIPv4},
		{"ipv4", packet.EtherTypeIPv4},
		{"ipv6", packet.EtherTypeIPv6},
		{"arp", packet.EtherTypeARP},
		{"802.1Q", packet.EtherTypeVLAN},
		{"802.1q", packet.EtherTypeVLAN},
		{"802.1ad", packet.EtherTypeQinQ},
	}
	upperTable = [...]struct {
		name  string
		proto uint8
	}{
		{"tcp", packet.ProtoTCP},
		{"udp", packet.ProtoUDP},
		{"sctp", packet.ProtoSCTP},
		{"icmp", packet.ProtoICMP},
		{"icmpv6", packet.ProtoICMPv6},
	}
)

func protocolOf(word string) (uint16, error) {
	for _, p := range protocolTable {
		if p.name == word {
			return p.typ, nil
		}
	}
	if x, err := number[uint16](word); err == nil && x >= packet.EtherTypeMin {
		return x, nil
	}
	return 0, errors.New("want all, ip, ipv6, arp, 802.1q, 802.1ad or a number")
}

func upperOf(word string) (uint8, error) {
	for _, p := range upperTable {
		if p.name == word {
			return p.proto, nil
		}
	}
	x, err := number[uint8](word)
	if err != nil {
		err = errors.New("want tcp, udp, sctp, icmp, icmpv6 or a number")
	}
	return x, err
}

// filterPlace reads a word of where the filter is.
func (c *Command) filterPlace(w *words) (bool, error) {
	switch w.peek() {
	case "protocol":
		w.next()
		return true, set(w, "protocol", &c.Filter.Protocol, protocolOf)
	case "prio", "pref", "priority", "preference":
		w.next()
		c.hasPrio = true
		return true, set(w, "pref", &c.Filter.Prio, number[uint32])
	case "chain":
		w.next()
		n, err := value(w, "chain", number[uint32])
		if err == nil && n != 0 {
			err = errors.New("chain: only chain 0 is supported")
		}
		return true, err
	}
	return false, nil
}

// filterHandle reads a handle, which of fw is the mark.
func (c *Command) filterHandle(w *words) error {
	word := w.peek()
	mark, mask, masked := strings.Cut(word, "/")
	if _, err := number[uint32](mark); err != nil && strings.Contains(word, ":") {
		w.next() // u32's own: 800::800
		x, err := strconv.ParseUint(word[strings.LastIndex(word, ":")+1:], 16, 32)
		if err != nil {
			return fmt.Errorf("handle: %q: want a number, or one like 800::800", word)
		}
		c.Filter.Handle = uint32(x)
		return nil
	}
	w.next()
	f := &c.Filter
	var err error
	if f.Mark, err = number[uint32](mark); err != nil {
		return fmt.Errorf("handle: %q: %w", word, err)
	}
	f.Handle = f.Mark
	if masked {
		if f.Mask, err = number[uint32](mask); err != nil {
			return fmt.Errorf("handle: mask %q: %w", mask, err)
		}
		f.HasMask = true
	}
	return nil
}

func (c *Command) filter(w *words) error {
	f := &c.Filter
	f.Parent = c.parent
	if f.Parent == 0 {
		f.Parent = qdisc.Root
	}
	f.Kind = w.next()
	if c.Verb == "delete" {
		w.left = nil
		return nil
	}
	known := shared(f)
	switch f.Kind {
	case "u32":
		known["match"] = func(w *words, _ string) error { return u32Match(f, w) }
	case "flower":
		f.Flower = &qdisc.Flower{}
		flower(f.Flower, known)
	case "fw", "matchall":
	case "":
		return errors.New("kind: missing, want u32, flower, fw or matchall")
	default:
		return fmt.Errorf("kind: %q is not supported, want u32, flower, fw or matchall", f.Kind)
	}
	if f.Kind != "fw" {
		f.Mark, f.Mask, f.HasMask = 0, 0, false
	}
	return each(w, f.Kind, known)
}

// shared are the words that all filters have: the class, and actions.
func shared(f *qdisc.Filter) fields {
	return fields{
		"flowid": into(&f.Class, classOf), "classid": into(&f.Class, classOf),
		"action":  func(w *words, _ string) error { return action(f, w) },
		"police":  func(w *words, _ string) error { return police(f, w) },
		"skip_hw": skip,
	}
}

// action reads one action.
func action(f *qdisc.Filter, w *words) error {
	word := w.next()
	switch word {
	case "police":
		return police(f, w)
	case "skbedit":
		return skbedit(f, w)
	case "gact":
		word = w.next()
	}
	a, ok := control(word)
	if !ok {
		return fmt.Errorf("action: %q, want police, skbedit, drop, ok, pipe, continue or reclassify", word)
	}
	f.Action = a
	return nil
}

// control reads a control word.
func control(word string) (qdisc.Action, bool) {
	switch word {
	case "ok", "pass":
		return qdisc.ActOK, true
	case "drop", "shot":
		return qdisc.ActDrop, true
	case "continue":
		return qdisc.ActContinue, true
	case "pipe":
		return qdisc.ActPipe, true
	case "reclassify":
		return qdisc.ActReclassify, true
	}
	return 0, false
}

func skbedit(f *qdisc.Filter, w *words) error {
	for {
		switch {
		case w.is("priority"):
			c, err := value(w, "skbedit priority", priorityOf)
			if err != nil {
				return err
			}
			f.SetPriority = &c
		case w.is("mark"):
			m, err := value(w, "skbedit mark", number[uint32])
			if err != nil {
				return err
			}
			f.SetMark = &m
		default:
			if f.SetMark == nil && f.SetPriority == nil {
				return errors.New("skbedit: want priority or mark")
			}
			if a, ok := control(w.peek()); ok {
				f.Action = a
				w.next()
			}
			return nil
		}
	}
}

// priorityOf reads a priority: a class, or a hexadecimal number.
func priorityOf(word string) (uint32, error) {
	if strings.Contains(word, ":") {
		c, err := classOf(word)
		return uint32(c), err
	}
	x, err := hex16(word)
	return uint32(x), err
}

func police(f *qdisc.Filter, w *words) error {
	p := &qdisc.Police{Exceed: qdisc.ActReclassify}
	f.Police = p
	known := fields{
		"rate": into(&p.Rate.Bytes, rate), "peakrate": into(&p.Peak.Bytes, rate),
		"burst": into(&p.Burst, burst), "buffer": into(&p.Burst, burst), "maxburst": into(&p.Burst, burst),
		"mtu": into(&p.MTU, burst), "minburst": into(&p.MTU, burst),
		"conform-exceed": func(w *words, _ string) error { return conformExceed(w, p) },
		"index":          refuse("not supported"), "avrate": refuse("not supported"),
		"pkts_rate": refuse("not supported"), "pkts_burst": refuse("not supported"),
	}.rate(&p.Rate)
	for !w.end() {
		word := w.peek()
		if a, ok := control(word); ok {
			p.Exceed = a
			w.next()
			continue
		}
		read := known[word]
		if read == nil {
			break
		}
		w.next()
		if err := read(w, word); err != nil {
			return fmt.Errorf("police: %w", err)
		}
	}
	if p.Rate.Bytes == 0 && p.MTU == 0 {
		return errors.New("police: rate: missing")
	}
	if p.Rate.Bytes != 0 && p.Burst == 0 {
		return errors.New("police: burst: missing beside a rate")
	}
	return nil
}

func conformExceed(w *words, p *qdisc.Police) error {
	exceed, conform, both := strings.Cut(w.next(), "/")
	var ok bool
	if p.Exceed, ok = control(exceed); !ok {
		return fmt.Errorf("conform-exceed: %q, want drop, ok, pipe, continue or reclassify", exceed)
	}
	if both {
		if p.Conform, ok = control(conform); !ok {
			return fmt.Errorf("conform-exceed: %q, want drop, ok, pipe, continue or reclassify", conform)
		}
	}
	return nil
}

// flower adds the keys of flower.
func flower(k *qdisc.Flower, known fields) {
	known["ip_proto"] = into(&k.Proto, upperOf)
	known["dst_ip"], known["src_ip"] = into(&k.DstIP, prefixOf), into(&k.SrcIP, prefixOf)
	known["dst_port"], known["src_port"] = into(&k.DstPort, portsOf), into(&k.SrcPort, portsOf)
	known["dst_mac"] = func(w *words, word string) error { return macOf(w, word, &k.DstMAC, &k.DstMask) }
	known["src_mac"] = func(w *words, word string) error { return macOf(w, word, &k.SrcMAC, &k.SrcMask) }
	known["vlan_id"] = func(w *words, word string) error { k.HasVLAN = true; return set(w, word, &k.VLAN, number[uint16]) }
	known["type"] = func(w *words, word string) error { k.HasICMP = true; return set(w, word, &k.ICMPType, number[uint8]) }
	known["ip_tos"] = func(w *words, word string) error {
		_, err := value(w, word, func(s string) (int, error) { return 0, tosOf(s, k) })
		return err
	}
}

func tosOf(word string, k *qdisc.Flower) error {
	v, m, masked := strings.Cut(word, "/")
	x, err := strconv.ParseUint(strings.TrimPrefix(v, "0x"), 16, 8)
	if err != nil {
		return errors.New("want a hexadecimal value, with a mask after a slash")
	}
	k.TOS, k.TOSMask = uint8(x), 0xff
	if masked {
		if x, err = strconv.ParseUint(strings.TrimPrefix(m, "0x"), 16, 8); err != nil {
			return errors.New("want a hexadecimal mask")
		}
		k.TOSMask = uint8(x)
	}
	return nil
}

func prefixOf(word string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(word); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(word)
	if err != nil {
		return p, errors.New("want an address or a prefix")
	}
	return p.Masked(), nil
}

func portsOf(word string) (p [2]uint16, err error) {
	from, to, isRange := strings.Cut(word, "-")
	if p[0], err = number[uint16](from); err != nil || p[0] == 0 {
		return p, errors.New("want a port, or two with a dash between them")
	}
	p[1] = p[0]
	if isRange {
		if p[1], err = number[uint16](to); err != nil || p[1] < p[0] {
			return p, errors.New("want a port, or two with a dash between them")
		}
	}
	return p, nil
}

func macOf(w *words, field string, mac, mask *packet.MAC) error {
	read := func(word string) (packet.MAC, error) {
		var m packet.MAC
		n, err := fmt.Sscanf(word, "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5])
		if err != nil || n != len(m) {
			return m, errors.New("want a MAC address")
		}
		return m, nil
	}
	if w.end() {
		return fmt.Errorf("%s: a value is missing", field)
	}
	word := w.next()
	addr, m, masked := strings.Cut(word, "/")
	var err error
	if *mac, err = read(addr); err != nil {
		return fmt.Errorf("%s: %q: %w", field, word, err)
	}
	*mask = packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if masked {
		if *mask, err = read(m); err != nil {
			return fmt.Errorf("%s: mask %q: %w", field, m, err)
		}
	}
	return nil
}

// u32Match reads a match of u32, in the words for protocols or as a raw one.
func u32Match(f *qdisc.Filter, w *words) error {
	kind := w.next()
	field := "match " + kind
	switch kind {
	case "u32":
		return u32Raw(f, w, 4)
	case "u16":
		return u32Raw(f, w, 2)
	case "u8":
		return u32Raw(f, w, 1)
	case "ip", "ip6", "tcp", "udp", "icmp":
		name := w.next()
		field += " " + name
		switch {
		case kind == "ip" && (name == "src" || name == "dst"), kind == "ip6" && (name == "src" || name == "dst"):
			return u32Address(f, w, kind, name, field)
		}
		return u32Field(f, w, kind, name, field)
	}
	return fmt.Errorf("match: %q, want u32, u16, u8, ip, ip6, tcp, udp or icmp", kind)
}

// u32FieldTable is the fields of headers: place and length in bytes.
var u32FieldTable = [...]struct {
	kind, name string
	off, size  int
	next       bool
}{
	{"ip", "tos", 1, 1, false},
	{"ip", "dsfield", 1, 1, false},
	{"ip", "precedence", 1, 1, false},
	{"ip", "protocol", 9, 1, false},
	{"ip", "ihl", 0, 1, false},
	{"ip", "nofrag", 6, 2, false},
	{"ip", "sport", 20, 2, false},
	{"ip", "dport", 22, 2, false},
	{"ip", "icmp_type", 20, 1, false},
	{"ip", "icmp_code", 21, 1, false},
	{"ip6", "protocol", 6, 1, false},
	{"ip6", "sport", 40, 2, false},
	{"ip6", "dport", 42, 2, false},
	{"tcp", "src", 0, 2, true},
	{"tcp", "dst", 2, 2, true},
	{"udp", "src", 0, 2, true},
	{"udp", "dst", 2, 2, true},
	{"icmp", "type", 0, 1, true},
	{"icmp", "code", 1, 1, true},
}

func u32Field(f *qdisc.Filter, w *words, kind, name, field string) error {
	for _, k := range u32FieldTable {
		if k.kind != kind || k.name != name {
			continue
		}
		v, err := value(w, field, number[uint32])
		if err != nil {
			return err
		}
		m, err := value(w, field+" mask", number[uint32])
		if err != nil {
			return err
		}
		f.Keys = append(f.Keys, keyAt(v, m, k.off, k.size, k.next))
		return nil
	}
	return fmt.Errorf("%s: not supported", field)
}

// keyAt puts a value of size bytes at off into its word of four.
func keyAt(v, m uint32, off, size int, next bool) qdisc.Key {
	shift := 8 * (4 - size - off%4)
	limit := uint32(uint64(1)<<(8*size) - 1)
	m &= limit
	return qdisc.Key{Value: v & m << shift, Mask: m << shift, Off: int32(off &^ 3), AtNext: next}
}

func u32Raw(f *qdisc.Filter, w *words, n int) error {
	v, err := value(w, "match value", hexOrNumber)
	if err != nil {
		return err
	}
	m, err := value(w, "match mask", hexOrNumber)
	if err != nil {
		return err
	}
	word := "0"
	if w.is("at") {
		word = w.next()
	}
	off, next := strings.CutPrefix(word, "nexthdr+")
	x, err := strconv.ParseInt(off, 0, 16)
	if err != nil {
		return fmt.Errorf("match at: %q: want an offset, or nexthdr+ and one", word)
	}
	if n == 4 && x%4 != 0 || n == 2 && x%2 != 0 {
		return fmt.Errorf("match at: %d: want a multiple of %d", x, n)
	}
	base := int(x) &^ 3
	k := keyAt(v, m, int(x)-base, n, next)
	k.Off += int32(base)
	f.Keys = append(f.Keys, k)
	return nil
}

// hexOrNumber reads a number, which without 0x is decimal if it can be.
func hexOrNumber(word string) (uint32, error) {
	if x, err := number[uint32](word); err == nil {
		return x, nil
	}
	x, err := strconv.ParseUint(word, 16, 32)
	if err != nil {
		return 0, errors.New("want a number")
	}
	return uint32(x), nil
}

func u32Address(f *qdisc.Filter, w *words, kind, name, field string) error {
	p, err := value(w, field, prefixOf)
	if err != nil {
		return err
	}
	if p.Addr().Is4() != (kind == "ip") {
		return fmt.Errorf("%s: %v is of the other family", field, p)
	}
	off := map[string]int32{"ip src": 12, "ip dst": 16, "ip6 src": 8, "ip6 dst": 24}[kind+" "+name]
	b := p.Addr().AsSlice()
	for i, bits := 0, p.Bits(); i < len(b); i, bits = i+4, bits-32 {
		if bits <= 0 && i > 0 {
			break
		}
		mask := uint32(uint64(math.MaxUint32) << (32 - min(max(bits, 0), 32)))
		v := uint32(b[i])<<24 | uint32(b[i+1])<<16 | uint32(b[i+2])<<8 | uint32(b[i+3])
		f.Keys = append(f.Keys, qdisc.Key{Value: v & mask, Mask: mask, Off: off + int32(i)})
	}
	return nil
}
