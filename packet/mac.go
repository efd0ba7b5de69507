// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"fmt"
	"net"
)

// MAC is a 48-bit Ethernet address in the order of the wire. It is comparable.
// Zero is no address.
type MAC [6]byte

// Broadcast is the address of every station, IEEE 802.3 §3.2.3.
func Broadcast() MAC { return MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// ParseMAC reads an address in any of the forms of [net.ParseMAC] that has 48 bits.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("parse MAC: %w", err)
	}
	if len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("parse MAC %q: %d bits, want 48", s, 8*len(hw))
	}
	return MAC(hw), nil
}

// String is the address in lower-case hexadecimal with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText makes JSON and YAML show the address as String does.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what ParseMAC reads.
func (m *MAC) UnmarshalText(text []byte) error {
	p, err := ParseMAC(string(text))
	if err != nil {
		return err
	}
	*m = p
	return nil
}

// IsZero reports whether the address is 00:00:00:00:00:00, which no station has.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsMulticast reports whether the group bit is set; broadcast is a group too.
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// IsBroadcast reports whether the address is that of every station.
func (m MAC) IsBroadcast() bool { return m == Broadcast() }

// IsReserved reports whether the address is one of 01-80-C2-00-00-00 to -0F,
// which a bridge never forwards (IEEE 802.1D-2004 §7.12.6).
func (m MAC) IsReserved() bool { return m.Key()&^0xf == 0x0180c2000000 }

// Key is the address as a 48-bit number, first byte of the wire most significant.
func (m MAC) Key() uint64 {
	return uint64(m[0])<<40 | uint64(m[1])<<32 | uint64(m[2])<<24 |
		uint64(m[3])<<16 | uint64(m[4])<<8 | uint64(m[5])
}
