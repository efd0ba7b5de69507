// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// auxdataLen is sizeof(struct tpacket_auxdata), see packet(7):
//
//	offset  0  u32 tp_status   4  u32 tp_len       8  u32 tp_snaplen
//	       12  u16 tp_mac     14  u16 tp_net      16  u16 tp_vlan_tci  18  u16 tp_vlan_tpid
const auxdataLen = 20

// vlanTag finds the 802.1Q or 802.1ad tag that the kernel took out of a received
// frame and put into its PACKET_AUXDATA control message. Total on any bytes; it
// reads only the first control message, since a port has asked for no other.
func vlanTag(control []byte) (tpid, tci uint16, ok bool) {
	if len(control) < unix.SizeofCmsghdr+auxdataLen {
		return 0, 0, false
	}
	// struct cmsghdr: u64 length with header, i32 level, i32 type.
	h := binary.NativeEndian
	if h.Uint64(control) < unix.SizeofCmsghdr+auxdataLen ||
		h.Uint32(control[8:]) != unix.SOL_PACKET || h.Uint32(control[12:]) != unix.PACKET_AUXDATA {
		return 0, 0, false
	}
	aux := control[unix.SizeofCmsghdr:]
	status := h.Uint32(aux)
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return 0, 0, false
	}
	tpid = unix.ETH_P_8021Q
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = h.Uint16(aux[18:])
	}
	return tpid, h.Uint16(aux[16:]), true
}
