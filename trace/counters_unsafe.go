// SPDX-License-Identifier: Apache-2.0

package trace

import "unsafe"

// A slot in memory is a slot in the file; this does not compile otherwise.
var _ [slotSize]byte = [unsafe.Sizeof(PortCounters{})]byte{}

// slotsOf views a mapped file as its slots.
//
// Preconditions: mem is page aligned and fileSize(slots) long, both of which
// MapCounters has made sure of; it is unmapped only after the last use.
func slotsOf(mem []byte, slots int) []PortCounters {
	return unsafe.Slice((*PortCounters)(unsafe.Pointer(&mem[headerSize])), slots)
}
