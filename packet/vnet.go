// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

// VnetLen is the size in bytes of struct virtio_net_hdr, the header that
// PACKET_VNET_HDR puts before each frame (packet(7); virtio 1.2 §5.1.6).
const VnetLen = 10

// Values of Vnet.Flags.
const (
	FlagNeedsCsum = 1 // the L4 checksum holds the pseudo-header sum only
	FlagDataValid = 2 // the sender's kernel takes the L4 checksum for right: a hint that only conntrack follows, as the kernel's does
)

// Values of Vnet.GSOType. GSOECN is a bit beside the TCP types.
const (
	GSONone  = 0
	GSOTCP4  = 1
	GSOUDP   = 3 // legacy UDP fragmentation offload: refused, see Frame.CheckVnet
	GSOTCP6  = 4
	GSOUDPL4 = 5
	GSOECN   = 0x80
)

// Vnet is the decoded virtio-net header of a frame. Offsets count from the
// Ethernet header. It comes from the sender and may lie, see Frame.CheckVnet.
// Zero means: checksums are complete, nothing to segment.
type Vnet struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // bytes of headers, a hint only: nothing relies on it
	GSOSize    uint16 // L4 payload bytes of each segment
	CsumStart  uint16 // first byte that the checksum covers
	CsumOffset uint16 // place of the checksum, counted from CsumStart
}

// Decode reads the header from b. The legacy layout has the byte order of the
// machine. Preconditions: len(b) >= VnetLen.
func (v *Vnet) Decode(b []byte) {
	_ = b[VnetLen-1]
	v.Flags, v.GSOType = b[0], b[1]
	v.HdrLen = binary.NativeEndian.Uint16(b[2:4])
	v.GSOSize = binary.NativeEndian.Uint16(b[4:6])
	v.CsumStart = binary.NativeEndian.Uint16(b[6:8])
	v.CsumOffset = binary.NativeEndian.Uint16(b[8:10])
}

// Encode writes the header to b. Preconditions: len(b) >= VnetLen.
func (v Vnet) Encode(b []byte) {
	_ = b[VnetLen-1]
	b[0], b[1] = v.Flags, v.GSOType
	binary.NativeEndian.PutUint16(b[2:4], v.HdrLen)
	binary.NativeEndian.PutUint16(b[4:6], v.GSOSize)
	binary.NativeEndian.PutUint16(b[6:8], v.CsumStart)
	binary.NativeEndian.PutUint16(b[8:10], v.CsumOffset)
}

// NeedsCsum reports whether the frame's L4 checksum is partial.
func (v Vnet) NeedsCsum() bool { return v.Flags&FlagNeedsCsum != 0 }

// IsGSO reports whether the frame stands for several frames on the wire.
func (v Vnet) IsGSO() bool { return v.GSOType&^GSOECN != GSONone }
