// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"fmt"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// What Head says is what PopVLAN and PushVLAN make of the frame, and the frame
// itself stays as it was.
func TestHead(t *testing.T) {
	for tags := range 3 {
		for _, pop := range []bool{false, true} {
			for _, tpid := range []uint16{0, packet.EtherTypeVLAN, packet.EtherTypeQinQ} {
				t.Run(fmt.Sprintf("%d tags, pop %v, push %04x", tags, pop, tpid), func(t *testing.T) {
					checkHead(t, tags, pop, tpid)
				})
			}
		}
	}
}

func checkHead(t *testing.T, tags int, pop bool, tpid uint16) {
	t.Helper()
	p := pt.Packet{Payload: make([]byte, 3000), Tags: make([]pt.VLANTag, tags)}
	f, want := pt.Frame(pt.TCP4(p)), pt.Frame(pt.TCP4(p))
	for _, x := range []*packet.Frame{f, want} {
		x.Vnet = packet.Vnet{
			Flags: packet.FlagNeedsCsum, GSOType: packet.GSOTCP4, GSOSize: 1000, HdrLen: uint16(x.View.L4 + 20),
			CsumStart: uint16(x.View.L4), CsumOffset: 16,
		}
	}
	before := bytes.Clone(f.Bytes())
	legal := (!pop || want.PopVLAN()) && (tpid == 0 || want.PushVLAN(tpid, 5<<13|77))
	var head [packet.HeadLen]byte
	n, skip, ok := f.Head(&head, pop, tpid, 5<<13|77)
	if ok != legal {
		t.Fatalf("ok is %v, want %v", ok, legal)
	}
	if !bytes.Equal(before, f.Bytes()) {
		t.Error("the frame was changed")
	}
	if got := append(head[:n], f.Bytes()[skip:]...); ok && !bytes.Equal(got, want.Wire()) {
		t.Errorf("got  %x\nwant %x", got[:60], want.Wire()[:60])
	}
}

func TestHeadAllocatesNothing(t *testing.T) {
	f := pt.Frame(pt.TCP4(pt.Packet{}))
	var head [packet.HeadLen]byte
	if n := testing.AllocsPerRun(100, func() { f.Head(&head, false, packet.EtherTypeVLAN, 7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
