// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// span is a range of addresses of one family, both ends included.
type span struct{ first, last netip.Addr }

func (s span) String() string {
	if s.first == s.last {
		return s.first.String()
	}
	for bits := range s.first.BitLen() {
		if p := netip.PrefixFrom(s.first, bits); p.Masked() == p && lastOf(p) == s.last {
			return p.String()
		}
	}
	return s.first.String() + "-" + s.last.String()
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func spanOf(p netip.Prefix) span { return span{p.Masked().Addr(), lastOf(p)} }

// without takes a hole out of spans.
func without(spans []span, hole span) []span {
	var out []span
	for _, s := range spans {
		if hole.last.Less(s.first) || s.last.Less(hole.first) {
			out = append(out, s)
			continue
		}
		if s.first.Less(hole.first) {
			out = append(out, span{s.first, hole.first.Prev()})
		}
		if hole.last.Less(s.last) {
			out = append(out, span{hole.last.Next(), s.last})
		}
	}
	return out
}

// spans returns what the block has, in order.
func (b *IPBlock) spans() []span {
	out := []span{spanOf(netip.MustParsePrefix(b.CIDR))} // checked when it was read
	for _, e := range b.Except {
		out = without(out, spanOf(netip.MustParsePrefix(e)))
	}
	return out
}

// joined returns spans in order, those that touch made one.
func joined(spans []span) []span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && !out[n-1].last.Next().Less(s.first) && out[n-1].last.Next().IsValid() {
			out[n-1].last = later(out[n-1].last, s.last)
		} else if n == 0 || out[n-1].last.Less(s.first) {
			out = append(out, s)
		}
	}
	return out
}

func later(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

// portSpan is a range of ports.
type portSpan struct{ first, last uint16 }

func (s portSpan) String() string {
	if s.first == s.last {
		return fmt.Sprint(s.first)
	}
	return fmt.Sprintf("%d-%d", s.first, s.last)
}

func joinedPorts(spans []portSpan) []portSpan {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b portSpan) int { return cmp.Compare(a.first, b.first) })
	var out []portSpan
	for _, s := range spans {
		if n := len(out); n > 0 && int(s.first) <= int(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, s.last)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// oneOf writes the right side of a match: a thing, or an anonymous set.
func oneOf[T fmt.Stringer](things []T) string {
	if len(things) == 1 {
		return things[0].String()
	}
	var words []string
	for _, t := range things {
		words = append(words, t.String())
	}
	return "{ " + strings.Join(words, ", ") + " }"
}
