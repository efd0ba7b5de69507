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
	var err error
	switch f.Kind {
	case "u32":
		err = each(w, f.Kind, func(word string) (bool, error) {
			if word == "match" {
				return true, u32Match(f, w)
			}
			return shared(f, w, word)
		})
	case "flower":
		f.Flower = &qdisc.Flower{}
		err = each(w, f.Kind, func(word string) (bool, error) {
			if ok, err := flower(f, w, word); ok || err != nil {
				return ok, err
			}
			return shared(f, w, word)
		})
	case "fw", "matchall":
		err = each(w, f.Kind, func(word string) (bool, error) { return shared(f, w, word) })
	case "":
		return errors.New("kind: missing, want u32, flower, fw or matchall")
	default:
		return fmt.Errorf("kind: %q is not supported, want u32, flower, fw or matchall", f.Kind)
	}
	if f.Kind != "fw" {
		f.Mark, f.Mask, f.HasMask = 0, 0, false
	}
	return err
}

// shared reads what all filters have: the class, and actions.
func shared(f *qdisc.Filter, w *words, word string) (bool, error) {
	switch word {
	case "flowid", "classid":
		return true, set(w, word, &f.Class, classOf)
	case "action":
		return true, action(f, w)
	case "police":
		return true, police(f, w)
	case "skip_hw":
		return true, nil
	}
	return false, nil
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
	for !w.end() {
		known := true
		var err error
		switch word := w.peek(); word {
		case "rate":
			w.next()
			err = set(w, "police rate", &p.Rate.Bytes, rate)
		case "burst", "buffer", "maxburst":
			w.next()
			err = set(w, "police burst", &p.Burst, burst)
		case "peakrate":
			w.next()
			err = set(w, "police peakrate", &p.Peak.Bytes, rate)
		case "mtu", "minburst":
			w.next()
			err = set(w, "police mtu", &p.MTU, burst)
		case "overhead", "linklayer", "mpu":
			w.next()
			_, err = rateWord(w, word, &p.Rate)
		case "conform-exceed":
			w.next()
			err = conformExceed(w, p)
		case "index", "avrate", "pkts_rate", "pkts_burst":
			err = fmt.Errorf("police %s: not supported", word)
		default:
			var a qdisc.Action
			if a, known = control(word); known {
				w.next()
				p.Exceed = a
			}
		}
		if err != nil {
			return err
		}
		if !known {
			break
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
		return fmt.Errorf("police conform-exceed: %q, want drop, ok, pipe, continue or reclassify", exceed)
	}
	if both {
		if p.Conform, ok = control(conform); !ok {
			return fmt.Errorf("police conform-exceed: %q, want drop, ok, pipe, continue or reclassify", conform)
		}
	}
	return nil
}

// flower reads one key of flower.
func flower(f *qdisc.Filter, w *words, word string) (bool, error) {
	k := f.Flower
	switch word {
	case "ip_proto":
		return true, set(w, word, &k.Proto, upperOf)
	case "dst_ip":
		return true, set(w, word, &k.DstIP, prefixOf)
	case "src_ip":
		return true, set(w, word, &k.SrcIP, prefixOf)
	case "dst_port":
		return true, set(w, word, &k.DstPort, portsOf)
	case "src_port":
		return true, set(w, word, &k.SrcPort, portsOf)
	case "dst_mac":
		return true, macOf(w, word, &k.DstMAC, &k.DstMask)
	case "src_mac":
		return true, macOf(w, word, &k.SrcMAC, &k.SrcMask)
	case "vlan_id":
		k.HasVLAN = true
		return true, set(w, word, &k.VLAN, number[uint16])
	case "type":
		k.HasICMP = true
		return true, set(w, word, &k.ICMPType, number[uint8])
	case "ip_tos":
		_, err := value(w, word, func(s string) (int, error) { return 0, tosOf(s, k) })
		return true, err
	}
	return false, nil
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
	if !w.is("at") {
		return errors.New("match: at: missing")
	}
	word := w.next()
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
