// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"encoding"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

var (
	_ encoding.TextMarshaler   = MapKey{}
	_ encoding.TextUnmarshaler = (*MapKey)(nil)
)

// MarshalText makes the key one of a JSON object: address, port, protocol, the
// address empty if there is none.
func (k MapKey) MarshalText() ([]byte, error) {
	addr, err := k.Addr.MarshalText()
	if err != nil {
		return nil, fmt.Errorf("address of a map's key: %w", err)
	}
	return fmt.Appendf(addr, " %d %d", k.Port, k.Proto), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *MapKey) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), " ")
	if len(parts) != 3 {
		return fmt.Errorf("key of a map %q", text)
	}
	var addr netip.Addr
	if err := addr.UnmarshalText([]byte(parts[0])); err != nil {
		return fmt.Errorf("key of a map: %w", err)
	}
	port, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil {
		return fmt.Errorf("key of a map: %w", err)
	}
	proto, err := strconv.ParseUint(parts[2], 10, 8)
	if err != nil {
		return fmt.Errorf("key of a map: %w", err)
	}
	*k = MapKey{Addr: addr, Port: uint16(port), Proto: uint8(proto)}
	return nil
}
