// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// rawSocket is an AF_PACKET socket of one interface, packet(7). It is bound
// only after its options are set. vnet puts a virtio-net header before each
// frame; incoming leaves out what the container itself sends.
func rawSocket(ifname string, vnet, incoming bool) (int, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	options := map[int]bool{unix.PACKET_AUXDATA: true, unix.PACKET_VNET_HDR: vnet, unix.PACKET_IGNORE_OUTGOING: incoming}
	for o, on := range options {
		if !on {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o, 1); err != nil {
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	growBuffers(fd)
	all := uint16(unix.ETH_P_ALL)
	sa := &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: ifi.Index}
	return fd, os.NewSyscallError("bind", unix.Bind(fd, sa))
}

// vlanTag is a VLAN tag: 802.1Q or 802.1ad, and priority, DEI and VID.
type vlanTag struct{ tpid, tci uint16 }

// auxTag is the tag that the kernel took out of a frame, if it did: it tells
// in struct tpacket_auxdata, where vlan_tci and vlan_tpid are the last fields.
func auxTag(oob []byte) (vlanTag, bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return vlanTag{}, false
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		if binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID == 0 {
			return vlanTag{}, false
		}
		return vlanTag{tci: binary.NativeEndian.Uint16(m.Data[16:]), tpid: binary.NativeEndian.Uint16(m.Data[18:])}, true
	}
	return vlanTag{}, false
}

// kernelDrops is how many frames the socket could not queue since the last call.
func kernelDrops(fd int) uint64 {
	s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return uint64(s.Drops)
}
