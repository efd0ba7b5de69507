// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

// HeadLen is the room that Frame.Head needs.
const HeadLen = VnetLen + macsLen + VLANLen

// Head makes what stands at the beginning of the frame if it leaves with another
// outer tag than it has: the vnet header, the addresses and the tag. It is written
// into dst, n bytes, and stands for the vnet header and the first skip bytes of the
// frame; so ports that want different tags can send the same buffer, which is not
// changed. pop leaves the outer tag out; tpid and tci are the tag that is put in,
// tpid 0: none. ok is false if there is no tag to leave out, or there would be more
// tags than View.Parse allows.
//
// Preconditions: f.View was parsed without fault.
func (f *Frame) Head(dst *[HeadLen]byte, pop bool, tpid, tci uint16) (n, skip int, ok bool) {
	tags := int(f.View.Tags)
	n, skip = VnetLen+macsLen, macsLen
	if pop {
		if tags == 0 {
			return 0, 0, false
		}
		skip += VLANLen
		tags--
	}
	if tpid != 0 {
		binary.BigEndian.PutUint16(dst[n:], tpid)
		binary.BigEndian.PutUint16(dst[n+2:], tci)
		n += VLANLen
		tags++
	}
	if tags > maxTags {
		return 0, 0, false
	}
	copy(dst[VnetLen:], f.Bytes()[:macsLen])
	v := f.Vnet
	v.shift(n - VnetLen - skip)
	v.Encode(dst[:])
	return n, skip, true
}
