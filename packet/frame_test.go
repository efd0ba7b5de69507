// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestReceivedTakesVnetHeaderAndFrame(t *testing.T) {
	want := pt.Partial(pt.TCP4(pt.Packet{Payload: pt.Bytes(100)}))
	f := pt.NewFrame()
	n := copy(f.Buf()[packet.Headroom-packet.VnetLen:], want.Wire())
	f.Received(n)
	if diff := cmp.Diff(want.Vnet, f.Vnet); diff != "" {
		t.Errorf("vnet (-want +got):\n%s", diff)
	}
	if !bytes.Equal(f.Bytes(), want.Bytes()) || f.Len() != 154 {
		t.Errorf("%d bytes: %x", f.Len(), f.Bytes())
	}
	if f.View != (packet.View{}) {
		t.Errorf("view before the parse: %+v", f.View)
	}
}

func TestReceivedRefusesImpossibleLengths(t *testing.T) {
	f := pt.NewFrame()
	for _, n := range []int{-1, 0, packet.VnetLen - 1, packet.BufLen - packet.Headroom + packet.VnetLen + 1} {
		f.Vnet.Flags = packet.FlagNeedsCsum
		f.Received(n)
		if f.Len() != 0 || f.Vnet != (packet.Vnet{}) {
			t.Errorf("received %d: %d bytes, vnet %+v", n, f.Len(), f.Vnet)
		}
		if fault := f.View.Parse(f.Bytes()); fault != packet.FaultEthernet {
			t.Errorf("received %d: fault %v", n, fault)
		}
	}
	f.Received(packet.BufLen - packet.Headroom + packet.VnetLen)
	if f.Len() != packet.BufLen-packet.Headroom {
		t.Errorf("a full buffer has %d bytes", f.Len())
	}
}

func TestBufferHoldsTheLargestFrame(t *testing.T) {
	if room := packet.BufLen - packet.Headroom; room < packet.MaxFrame || packet.BufLen%64 != 0 {
		t.Errorf("room for %d of %d bytes in %d", room, packet.MaxFrame, packet.BufLen)
	}
}

func TestWirePutsTheVnetHeaderBefore(t *testing.T) {
	f := pt.GSO(pt.TCP6(pt.Packet{Payload: pt.Bytes(3000)}), 1000)
	wire := f.Wire()
	var v packet.Vnet
	v.Decode(wire)
	if v != f.Vnet || !bytes.Equal(wire[packet.VnetLen:], f.Bytes()) {
		t.Errorf("vnet %+v, want %+v; frame the same: %v", v, f.Vnet, bytes.Equal(wire[packet.VnetLen:], f.Bytes()))
	}
}

func TestVnetLayout(t *testing.T) {
	v := packet.Vnet{Flags: 1, GSOType: 4, HdrLen: 0x1234, GSOSize: 1400, CsumStart: 54, CsumOffset: 16}
	var b [packet.VnetLen]byte
	v.Encode(b[:])
	want := []byte{1, 4}
	for _, x := range []uint16{0x1234, 1400, 54, 16} {
		want = binary.NativeEndian.AppendUint16(want, x)
	}
	if !bytes.Equal(b[:], want) {
		t.Errorf("%x, want %x", b, want)
	}
	var got packet.Vnet
	got.Decode(b[:])
	if got != v {
		t.Errorf("%+v, want %+v", got, v)
	}
}

func TestMACsOfAFrame(t *testing.T) {
	src, dst := pt.HW("02:00:00:00:00:01"), pt.HW("02:00:00:00:00:02")
	f := pt.Frame(pt.UDP4(pt.Packet{SrcMAC: src, DstMAC: dst}))
	if f.SrcMAC() != src || f.DstMAC() != dst {
		t.Errorf("%v > %v", f.SrcMAC(), f.DstMAC())
	}
	f = pt.Frame(make([]byte, 13))
	if !f.SrcMAC().IsZero() || !f.DstMAC().IsZero() {
		t.Errorf("13 bytes have addresses: %v > %v", f.SrcMAC(), f.DstMAC())
	}
}

func TestPushVLANKeepsMetadataRight(t *testing.T) {
	f := pt.GSO(pt.TCP4(pt.Packet{Payload: pt.Bytes(3000)}), 1000)
	before := f.Vnet
	if !f.PushVLAN(packet.EtherTypeVLAN, 7) || !f.PushVLAN(packet.EtherTypeQinQ, 100) {
		t.Fatal("refused")
	}
	pt.Check(t, f, pt.VLAN(100, 7), pt.IPv4(), pt.TCP(), pt.Data(pt.Bytes(3000)))
	want := before
	want.CsumStart += 8
	want.HdrLen += 8
	if f.Vnet != want {
		t.Errorf("vnet %+v, want %+v", f.Vnet, want)
	}
	checkReparse(t, f)
	if !f.CheckVnet() {
		t.Error("metadata no longer fits the frame")
	}
	if f.PushVLAN(packet.EtherTypeVLAN, 8) {
		t.Error("took a third tag")
	}
	popped := 0
	for f.PopVLAN() {
		popped++
	}
	if popped != 2 {
		t.Errorf("two tags went in, %d came out", popped)
	}
	if f.Vnet != before {
		t.Errorf("vnet %+v, want %+v", f.Vnet, before)
	}
	checkReparse(t, f)
}

// checkReparse holds the view that push and pop kept to a fresh one.
func checkReparse(t *testing.T, f *packet.Frame) {
	t.Helper()
	var fresh packet.View
	fresh.Parse(f.Bytes())
	if diff := cmp.Diff(fresh, f.View); diff != "" {
		t.Errorf("view (-fresh +kept):\n%s", diff)
	}
}

func TestPushVLANBeforeTheParse(t *testing.T) {
	f := pt.Frame(pt.UDP4(pt.Packet{Tags: []pt.VLANTag{{TCI: 7}}}))
	f.View = packet.View{} // as a port does, which restores a tag that the kernel took off
	if !f.PushVLAN(packet.EtherTypeVLAN, 6) {
		t.Fatal("refused")
	}
	if f.View != (packet.View{}) {
		t.Errorf("a view out of nothing: %+v", f.View)
	}
	pt.Check(t, f, pt.VLAN(6, 7))
}

func TestPushVLANNeedsHeadroom(t *testing.T) {
	b := pt.UDP4(pt.Packet{})
	f := pt.NewFrame()
	f.Reset(packet.VnetLen+3, len(b))
	copy(f.Bytes(), b)
	if f.PushVLAN(packet.EtherTypeVLAN, 6) || !bytes.Equal(f.Bytes(), b) {
		t.Errorf("pushed over the vnet header: %x", f.Bytes())
	}
	f.Reset(packet.VnetLen+4, len(b))
	copy(f.Bytes(), b)
	if !f.PushVLAN(packet.EtherTypeVLAN, 6) || len(f.Wire()) != packet.VnetLen+len(b)+4 {
		t.Error("refused though there is room")
	}
}

func TestTagsNeedAnEthernetHeader(t *testing.T) {
	f := pt.Frame(make([]byte, 13))
	if f.PushVLAN(packet.EtherTypeVLAN, 1) || f.PopVLAN() {
		t.Error("tagged 13 bytes")
	}
	cut := pt.UDP4(pt.Packet{Tags: []pt.VLANTag{{}}})[:17]
	if f := pt.Frame(cut); f.PopVLAN() {
		t.Error("took half a tag off")
	}
}

func FuzzVLAN(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 30 {
		f.Add(pt.Random(r), uint16(r.Uint32()), uint16(r.IntN(2)))
	}
	f.Fuzz(func(t *testing.T, b []byte, tci, csumStart uint16) {
		if len(b) > packet.MaxFrame {
			t.Skip("longer than a buffer")
		}
		frame := pt.Frame(b)
		frame.Vnet = packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: csumStart}
		fault := (&packet.View{}).Parse(b)
		if !frame.PushVLAN(packet.EtherTypeVLAN, tci) {
			if len(b) >= packet.EthernetLen && frame.View.Tags < 2 {
				t.Fatal("refused a tag")
			}
			return
		}
		if frame.Len() != len(b)+4 || binary.BigEndian.Uint16(frame.Bytes()[14:]) != tci {
			t.Fatalf("no tag %#x in %x", tci, frame.Bytes())
		}
		if fault == packet.FaultNone {
			checkReparse(t, frame)
		}
		if !frame.PopVLAN() || !bytes.Equal(frame.Bytes(), b) {
			t.Fatalf("pop is not the opposite of push: %x", frame.Bytes())
		}
		if frame.Vnet.CsumStart != csumStart && csumStart < 0xfffc {
			t.Fatalf("csum_start %d, was %d", frame.Vnet.CsumStart, csumStart)
		}
	})
}

func TestFrameWithoutAllocation(t *testing.T) {
	tcp := pt.TCP6(pt.Packet{Payload: pt.Bytes(1000), Tags: []pt.VLANTag{{TCI: 1}}})
	f := pt.Partial(tcp)
	vnet := f.Vnet
	big := pt.GSO(pt.TCP4(pt.Packet{Payload: pt.Bytes(9000)}), 1400)
	sctp := pt.Partial(pt.SCTP4(pt.Packet{Payload: pt.Bytes(900)}))
	sctpVnet := sctp.Vnet
	out := pt.NewFrame()
	var s packet.Segmenter
	steps := map[string]func(){
		"Parse":    func() { f.View.Parse(f.Bytes()) },
		"PushVLAN": func() { f.PushVLAN(packet.EtherTypeVLAN, 3) },
		"PopVLAN":  func() { f.PushVLAN(packet.EtherTypeVLAN, 3); f.PopVLAN() },
		"Wire":     func() { f.Wire() },
		"Verify":   func() { packet.VerifyL3(f.Bytes(), &f.View); packet.VerifyL4(f.Bytes(), &f.View) },
		"CheckVnet, Segments, L3Len": func() {
			big.CheckVnet()
			big.Segments()
			big.L3Len()
		},
		"CompleteChecksum": func() {
			f.Vnet = vnet
			packet.CompleteChecksum(f)
		},
		"CompleteChecksum of SCTP": func() {
			sctp.Vnet = sctpVnet
			packet.CompleteChecksum(sctp)
		},
		"Segmenter": func() {
			for s.Init(big); s.Next(out); {
			}
		},
	}
	names := make([]string, 0, len(steps))
	for name := range steps {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if n := testing.AllocsPerRun(100, steps[name]); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
