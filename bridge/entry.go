// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"fmt"

	"sluice/packet"
)

// Kind is how an FDB entry came to be. Zero is no entry.
type Kind uint8

// The kinds. There are no more than two bits for them in a slot.
const (
	kindNone Kind = iota
	Dynamic       // learned from a frame's source; ages and moves
	Static        // an attached container's; neither ages nor moves
	Own           // the bridge's own, on its local port; neither ages nor moves
)

// kindWords is constant.
var kindWords = [...]string{kindNone: "none", Dynamic: "dynamic", Static: "static", Own: "own"}

// String is the kind in one word.
func (k Kind) String() string {
	if int(k) >= len(kindWords) {
		return "unknown"
	}
	return kindWords[k]
}

// MarshalText makes JSON show the kind as its word.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (k *Kind) UnmarshalText(text []byte) error {
	for i, w := range kindWords {
		if w == string(text) {
			*k = Kind(i)
			return nil
		}
	}
	return fmt.Errorf("unknown kind of FDB entry %q", text)
}

// Entry is one line of the FDB, as `bridge fdb` shows it.
type Entry struct {
	MAC  packet.MAC `json:"mac"`
	VLAN uint16     `json:"vlan,omitempty"` // VID, 0: untagged
	Port uint16     `json:"port"`
	Kind Kind       `json:"kind"`
	Age  uint32     `json:"age"` // seconds since it was heard; 0 for static and own
}

// StaticEntry is an entry that the control path sets. Own is for the bridge's
// own MAC and its local port.
type StaticEntry struct {
	MAC  packet.MAC
	VLAN uint16 // VID, 0: untagged
	Port uint16
	Own  bool
}

// key is the word that names a station in a VLAN; never zero.
func key(mac packet.MAC, vlan uint16) uint64 {
	return mac.Key() | uint64(vlan&0xfff)<<vlanShift | keyValid
}

// entry is the inverse of key with the state that was found under it.
func entry(key, state uint64, age uint32) Entry {
	return Entry{
		MAC: packet.MAC{
			byte(key >> 40), byte(key >> 32), byte(key >> 24),
			byte(key >> 16), byte(key >> 8), byte(key),
		},
		VLAN: uint16(key >> vlanShift & 0xfff),
		Port: portOf(state), Kind: kindOf(state), Age: age,
	}
}
