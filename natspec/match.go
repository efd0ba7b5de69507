// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"net/netip"
	"slices"
	"strconv"

	"sluice/nat"
	"sluice/packet"
)

// match reads one condition.
func (s *Statement) match(w *words) error {
	m := &s.rule.Match
	switch w.take() {
	case "iifname", "iif":
		return s.devices(w, &s.in, &m.NotIn)
	case "oifname", "oif":
		return s.devices(w, &s.out, &m.NotOut)
	case "ip":
		return addresses(w, m, true)
	case "ip6":
		return addresses(w, m, false)
	case "meta":
		return meta(w, m)
	case "tcp", "udp", "sctp", "th":
		return ports(w, m)
	case "fib":
		return own(w, m)
	}
	return w.wrong("want iifname, oifname, ip, ip6, tcp, udp, sctp, th, meta or fib, and then accept, snat, dnat, masquerade or redirect")
}

func (s *Statement) devices(w *words, names *[]string, not *bool) error {
	if len(*names) > 0 {
		return w.wrong("said twice")
	}
	*not = w.accept("!=")
	return w.elements(func(word string) error {
		if word == "" || word == "{" || word == "}" || word == "," {
			return w.wrong("want the name of a device")
		}
		*names = append(*names, word)
		return nil
	})
}

// addresses reads what follows ip or ip6.
func addresses(w *words, m *nat.Match, v4 bool) error {
	list, not := &m.Src, &m.NotSrc
	switch w.take() {
	case "saddr":
	case "daddr":
		list, not = &m.Dst, &m.NotDst
	case "protocol", "nexthdr":
		return protocols(w, m)
	default:
		return w.wrong("want saddr, daddr or protocol")
	}
	if len(*list) > 0 {
		return w.wrong("said twice")
	}
	*not = w.accept("!=")
	return w.elements(func(word string) error {
		p, ok := prefix(word)
		if !ok || p.Addr().Is4() != v4 {
			return w.wrong("want an " + family(v4) + " address or prefix")
		}
		*list = append(*list, p)
		return nil
	})
}

func family(v4 bool) string {
	if v4 {
		return "IPv4"
	}
	return "IPv6"
}

func meta(w *words, m *nat.Match) error {
	switch w.take() {
	case "l4proto":
		return protocols(w, m)
	case "mark":
		return mark(w, m)
	}
	return w.wrong("want l4proto or mark")
}

func protocols(w *words, m *nat.Match) error {
	if len(m.Protos) > 0 {
		return w.wrong("the protocol is said twice")
	}
	return w.elements(func(word string) error {
		p, ok := protocol(word)
		if !ok || slices.Contains(m.Protos, p) {
			return w.wrong("want a protocol, as tcp or 17, once")
		}
		m.Protos = append(m.Protos, p)
		return nil
	})
}

// mark reads "0x1" or "and 0xff == 0x1", also with & and without ==.
func mark(w *words, m *nat.Match) error {
	if m.MarkMask != 0 {
		return w.wrong("said twice")
	}
	m.MarkMask = ^uint32(0)
	if w.accept("and") || w.accept("&") {
		mask, err := strconv.ParseUint(w.take(), 0, 32)
		if err != nil || mask == 0 {
			return w.wrong("want a mask that is not 0")
		}
		m.MarkMask = uint32(mask)
	}
	w.accept("==")
	value, err := strconv.ParseUint(w.take(), 0, 32)
	if m.Mark = uint32(value); err != nil || m.Mark&^m.MarkMask != 0 {
		return w.wrong("want a mark, inside the mask")
	}
	return nil
}

// ports reads what follows tcp, udp, sctp, or th, which is any of them.
func ports(w *words, m *nat.Match) error {
	if p, named := protocol(w.word); named {
		if len(m.Protos) > 0 && !slices.Equal(m.Protos, []uint8{p}) {
			return w.wrong("another protocol was said before")
		}
		m.Protos = []uint8{p}
	}
	list := &m.DstPorts
	switch w.take() {
	case "dport":
	case "sport":
		list = &m.SrcPorts
	default:
		return w.wrong("want dport or sport")
	}
	if len(*list) > 0 {
		return w.wrong("said twice")
	}
	return w.elements(func(word string) error {
		r, ok := portRange(word)
		if !ok {
			return w.wrong("want a port or a range, as 80 or 8000-8010")
		}
		*list = append(*list, r)
		return nil
	})
}

// own reads what follows fib: "daddr type local".
func own(w *words, m *nat.Match) error {
	for _, word := range []string{"daddr", "type"} {
		if err := w.expect(word); err != nil {
			return err
		}
	}
	m.Own = nat.Yes
	if w.accept("!=") {
		m.Own = nat.No
	}
	return w.expect("local")
}

// matchWords is what match reads, less the devices.
func matchWords(m *nat.Match) (out []string) {
	out = addressWords(out, "saddr", m.Src, m.NotSrc)
	out = addressWords(out, "daddr", m.Dst, m.NotDst)
	switch m.Own {
	case nat.Yes:
		out = append(out, "fib daddr type local")
	case nat.No:
		out = append(out, "fib daddr type != local")
	case nat.Either:
	}
	return markWords(append(out, transportWords(m)...), m)
}

func addressWords(out []string, word string, all []netip.Prefix, not bool) []string {
	if len(all) == 0 {
		return out
	}
	ip := "ip6"
	if all[0].Addr().Is4() {
		ip = "ip"
	}
	return append(out, ip, word, notWord(not)+set(all, prefixText))
}

func transportWords(m *nat.Match) (out []string) {
	th := "th"
	switch {
	case len(m.SrcPorts)+len(m.DstPorts) > 0 && len(m.Protos) == 1 && transport(m.Protos[0]):
		th = ProtocolName(m.Protos[0])
	case len(m.Protos) > 0:
		out = append(out, "meta l4proto", set(m.Protos, ProtocolName))
	}
	for _, p := range []struct {
		word string
		all  []nat.PortRange
	}{{"sport", m.SrcPorts}, {"dport", m.DstPorts}} {
		if len(p.all) > 0 {
			out = append(out, th, p.word, set(p.all, portsText))
		}
	}
	return out
}

// transport reports whether a protocol has ports.
func transport(p uint8) bool {
	return p == packet.ProtoTCP || p == packet.ProtoUDP || p == packet.ProtoSCTP
}

func markWords(out []string, m *nat.Match) []string {
	hex := func(x uint32) string { return "0x" + strconv.FormatUint(uint64(x), 16) }
	switch m.MarkMask {
	case 0:
		return out
	case ^uint32(0):
		return append(out, "meta mark", hex(m.Mark))
	}
	return append(out, "meta mark and", hex(m.MarkMask), "==", hex(m.Mark))
}
