// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"net/netip"
	"strconv"
	"strings"

	"sluice/nat"
	"sluice/packet"
	"sluice/routing"
)

// maxElements bounds a set in braces.
const maxElements = 1024

// words is a statement on its way through the parser.
type words struct {
	list []string // still to come
	word string   // the last one taken
}

// newWords cuts a statement. Braces and commas are words of their own.
func newWords(text string) *words {
	apart := strings.NewReplacer("{", " { ", "}", " } ", ",", " , ").Replace(text)
	return &words{list: strings.Fields(apart)}
}

func (w *words) more() bool { return len(w.list) > 0 }

// next is the word to come; "" at the end.
func (w *words) next() string {
	if w.more() {
		return w.list[0]
	}
	return ""
}

// take takes the next word; "" at the end.
func (w *words) take() string {
	w.word = w.next()
	if w.more() {
		w.list = w.list[1:]
	}
	return w.word
}

// accept takes the next word if it is this one.
func (w *words) accept(word string) bool {
	if w.next() != word || word == "" {
		return false
	}
	w.take()
	return true
}

// wrong is the error of the last word taken.
func (w *words) wrong(reason string) error {
	if w.word == "" {
		return &routing.ParseError{Reason: reason + " at the end"}
	}
	return &routing.ParseError{Word: w.word, Reason: reason}
}

// expect takes a word that has to be there.
func (w *words) expect(word string) error {
	if w.take() != word {
		return w.wrong("want " + word)
	}
	return nil
}

// elements takes one element, or several in braces.
func (w *words) elements(one func(string) error) error {
	if !w.accept("{") {
		return one(w.take())
	}
	for n := 0; ; n++ {
		if n == maxElements {
			return w.wrong("a set has at most " + strconv.Itoa(maxElements) + " elements")
		}
		if err := one(w.take()); err != nil {
			return err
		}
		if w.accept("}") {
			return nil
		}
		if err := w.expect(","); err != nil {
			return err
		}
	}
}

// protocol is the number of a protocol in nft's words.
func protocol(word string) (uint8, bool) {
	switch word {
	case "tcp":
		return packet.ProtoTCP, true
	case "udp":
		return packet.ProtoUDP, true
	case "sctp":
		return packet.ProtoSCTP, true
	case "icmp":
		return packet.ProtoICMP, true
	case "icmpv6", "ipv6-icmp":
		return packet.ProtoICMPv6, true
	}
	n, err := strconv.ParseUint(word, 10, 8)
	return uint8(n), err == nil && n > 0
}

// ProtocolName is the word for a protocol, or its number.
func ProtocolName(proto uint8) string {
	for _, name := range []string{"tcp", "udp", "sctp", "icmp", "icmpv6"} {
		if p, _ := protocol(name); p == proto {
			return name
		}
	}
	return strconv.Itoa(int(proto))
}

// portRange reads "80" or "80-90".
func portRange(word string) (r nat.PortRange, ok bool) {
	first, last, ranged := strings.Cut(word, "-")
	if !ranged {
		last = first
	}
	low, errLow := strconv.ParseUint(first, 10, 16)
	high, errHigh := strconv.ParseUint(last, 10, 16)
	ok = errLow == nil && errHigh == nil && low > 0 && low <= high
	return nat.PortRange{Min: uint16(low), Max: uint16(high)}, ok
}

// portsText is a range as portRange reads it.
func portsText(r nat.PortRange) string {
	if r.Min == r.Max {
		return strconv.Itoa(int(r.Min))
	}
	return strconv.Itoa(int(r.Min)) + "-" + strconv.Itoa(int(r.Max))
}

// address reads an address that a packet can have.
func address(word string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(word)
	return a, err == nil && a.Zone() == "" && !a.Is4In6()
}

// prefix reads an address or a prefix, of which the host bits don't count.
func prefix(word string) (netip.Prefix, bool) {
	if a, ok := address(word); ok {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(word)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}

// prefixText is a prefix, or an address if it is no more.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// set writes elements, in braces if there are several.
func set[T any](all []T, text func(T) string) string {
	var out []string
	for _, e := range all {
		out = append(out, text(e))
	}
	if len(out) == 1 {
		return out[0]
	}
	return "{ " + strings.Join(out, ", ") + " }"
}
