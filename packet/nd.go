// SPDX-License-Identifier: Apache-2.0

package packet

import "net/netip"

// The types of neighbour discovery messages, RFC 4861 §4.
const (
	NDRouterSolicit   = 133
	NDRouterAdvert    = 134
	NDNeighbourSol    = 135
	NDNeighbourAdvert = 136
	NDRedirect        = 137
)

// The flags of a neighbour advertisement, RFC 4861 §4.4.
const (
	NAFlagRouter    = 0x80
	NAFlagSolicited = 0x40
	NAFlagOverride  = 0x20
)

// The link-layer address options, RFC 4861 §4.6.1. Their numbers are two bits, as
// ND.LinkOpts needs them.
const (
	optSourceLink = 1
	optTargetLink = 2

	NDSourceLink = optSourceLink
	NDTargetLink = optTargetLink
)

// ND is what a neighbour discovery message says about addresses. Zero is none.
type ND struct {
	Target  netip.Addr // of solicitation, advertisement and redirect; else the zero Addr
	Link    MAC        // link-layer address of the sender or the target, if HasLink
	HasLink bool
	// LinkOpts are the options that Link stands in: NDSourceLink, NDTargetLink or both.
	LinkOpts uint8
	Type     uint8 // NDRouterSolicit to NDRedirect
	Flags    uint8 // of an advertisement, NAFlagRouter and so on
}

// IsND reports whether v is of a neighbour discovery message, whole or the
// first fragment of one.
func (v *View) IsND() bool {
	return v.Proto == ProtoICMPv6 && v.Is(ViewIPv6) && v.Is(ViewHasL4) &&
		v.SrcPort>>8 >= NDRouterSolicit && v.SrcPort>>8 <= NDRedirect
}

// ND reads the neighbour discovery message in b, the frame that v was parsed
// from. False if it is none, is cut short, has an option of length zero or one
// that is cut short, or names two different link-layer addresses: what one
// receiver takes from the first, another would take from the last. Checksum and
// hop limit are not looked at.
func (v *View) ND(b []byte) (m ND, ok bool) {
	if !v.IsND() || v.End > len(b) {
		return ND{}, false
	}
	p := b[v.L4:v.End]
	m.Type = p[0]
	n := ndLen(m.Type)
	if len(p) < n {
		return ND{}, false
	}
	switch m.Type {
	case NDNeighbourSol, NDNeighbourAdvert, NDRedirect:
		m.Target = netip.AddrFrom16([16]byte(p[8:24]))
	}
	if m.Type == NDNeighbourAdvert {
		m.Flags = p[4]
	}
	if !m.options(p[n:]) {
		return ND{}, false
	}
	return m, true
}

// ndLen is the length of a message before its options.
func ndLen(typ uint8) int {
	switch typ {
	case NDRouterSolicit:
		return 8
	case NDRouterAdvert:
		return 16
	case NDRedirect:
		return 40
	}
	return 24
}

// options walks the options of RFC 4861 §4.6, whose lengths are in units of 8.
func (m *ND) options(p []byte) bool {
	for len(p) > 0 {
		if len(p) < 8 || p[1] == 0 || int(p[1])*8 > len(p) {
			return false
		}
		if p[0] == optSourceLink || p[0] == optTargetLink {
			link := MAC(p[2:8])
			if p[1] != 1 || m.HasLink && link != m.Link {
				return false
			}
			m.Link, m.HasLink = link, true
			m.LinkOpts |= p[0]
		}
		p = p[int(p[1])*8:]
	}
	return true
}
