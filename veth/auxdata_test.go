// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/trace"
)

// control is a control message as the kernel lays it out.
func control(level, kind uint32, length uint64, status uint32, tci, tpid uint16) []byte {
	h := binary.NativeEndian
	b := make([]byte, controlLen)
	h.PutUint64(b, length)
	h.PutUint32(b[8:], level)
	h.PutUint32(b[12:], kind)
	aux := b[unix.SizeofCmsghdr:]
	h.PutUint32(aux, status)
	h.PutUint16(aux[16:], tci)
	h.PutUint16(aux[18:], tpid)
	return b
}

func TestVLANTag(t *testing.T) {
	const (
		full  = unix.SizeofCmsghdr + auxdataLen
		valid = unix.TP_STATUS_VLAN_VALID
		typed = valid | unix.TP_STATUS_VLAN_TPID_VALID
	)
	for _, tc := range []struct {
		name      string
		control   []byte
		tpid, tci uint16
		ok        bool
	}{
		{"802.1Q", control(unix.SOL_PACKET, unix.PACKET_AUXDATA, full, typed, 0x6007, 0x8100), 0x8100, 0x6007, true},
		{"802.1ad", control(unix.SOL_PACKET, unix.PACKET_AUXDATA, full, typed, 5, 0x88a8), 0x88a8, 5, true},
		{"VLAN 0, priority only", control(unix.SOL_PACKET, unix.PACKET_AUXDATA, full, typed, 0xe000, 0x8100), 0x8100, 0xe000, true},
		{"an old kernel without TPID", control(unix.SOL_PACKET, unix.PACKET_AUXDATA, full, valid, 9, 0), 0x8100, 9, true},
		{"untagged", control(unix.SOL_PACKET, unix.PACKET_AUXDATA, full, unix.TP_STATUS_USER, 9, 0x8100), 0, 0, false},
		{"another level", control(unix.SOL_SOCKET, unix.PACKET_AUXDATA, full, typed, 9, 0x8100), 0, 0, false},
		{"another type", control(unix.SOL_PACKET, 1, full, typed, 9, 0x8100), 0, 0, false},
		{"a length that is too short", control(unix.SOL_PACKET, unix.PACKET_AUXDATA, full-1, typed, 9, 0x8100), 0, 0, false},
		{"cut short", control(unix.SOL_PACKET, unix.PACKET_AUXDATA, full, typed, 9, 0x8100)[:full-1], 0, 0, false},
		{"nothing", nil, 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tpid, tci, ok := vlanTag(tc.control)
			if tpid != tc.tpid || tci != tc.tci || ok != tc.ok {
				t.Errorf("got %#x %#x %v", tpid, tci, ok)
			}
		})
	}
}

// FuzzVLANTag: total on any bytes; a tag comes only out of a whole message.
func FuzzVLANTag(f *testing.F) {
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		tpid, tci, ok := vlanTag(b)
		if ok && len(b) < unix.SizeofCmsghdr+auxdataLen {
			t.Errorf("a tag out of %d bytes", len(b))
		}
		if !ok && (tpid != 0 || tci != 0) {
			t.Errorf("no tag, but %#x %#x", tpid, tci)
		}
	})
}

func TestLossReason(t *testing.T) {
	for _, tc := range []struct {
		errno  unix.Errno
		reason trace.Reason
		rest   bool
	}{
		{unix.EAGAIN, trace.TxFull, true},
		{unix.EINTR, trace.TxFull, true},
		{unix.ENOBUFS, trace.TxNoBuffer, false},
		{unix.ENOMEM, trace.TxNoBuffer, false},
		{unix.ENETDOWN, trace.TxDown, true},
		{unix.ENXIO, trace.TxDown, true},
		{unix.ENODEV, trace.TxDown, true},
		{unix.EPIPE, trace.TxDown, true},
		{unix.EMSGSIZE, trace.TooBig, false},
		{unix.EINVAL, trace.TxError, false},
		{unix.EBADF, trace.TxError, true},
		{unix.EIO, trace.TxError, false},
	} {
		if reason, rest := lossReason(tc.errno); reason != tc.reason || rest != tc.rest {
			t.Errorf("%v: got %s, rest %v", tc.errno, reason, rest)
		}
	}
}

func TestFeatureBits(t *testing.T) {
	names := make([]string, 40)
	names[1], names[33] = "one", "thirty-three"
	got := featureBits(names, []feature{{"one", false}, {"thirty-three", true}, {"unknown", true}}, 2)
	h := binary.NativeEndian
	words := [4]uint32{h.Uint32(got), h.Uint32(got[4:]), h.Uint32(got[8:]), h.Uint32(got[12:])}
	if want := [4]uint32{1 << 1, 0, 1 << 1, 1 << 1}; words != want {
		t.Errorf("got %#x, want %#x", words, want)
	}
}
