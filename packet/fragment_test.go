// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// reassemble puts the data of fragments together, in the slow way; nil if they
// don't make one whole piece. more is what the last one says.
func reassemble(t *testing.T, frames [][]byte) (data []byte, offset int, more bool) {
	t.Helper()
	more = true
	for i, b := range frames {
		h := b[pt.Frame(b).View.L3:]
		hdr, field := int(h[0]&0xf)*4, binary.BigEndian.Uint16(h[6:])
		at := int(field&0x1fff) * 8
		if i == 0 {
			offset = at
		}
		if at != offset+len(data) || i < len(frames)-1 && field&0x2000 == 0 {
			t.Fatalf("fragment %d is at %d, %d bytes are there", i, at, len(data))
		}
		data = append(data, h[hdr:binary.BigEndian.Uint16(h[2:])]...)
		more = field&0x2000 != 0
	}
	return data, offset, more
}

// TestFragmenterAgreesWithTwin: what is reassembled is the data of the packet
// with its checksum complete, and each fragment but the last is as large as the
// MTU allows.
func TestFragmenterAgreesWithTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(61, 61))
	for range 2000 {
		layers := []pt.Layer{pt.EtherHdr{}}
		for range r.IntN(3) {
			layers = append(layers, pt.VLANTag{TCI: uint16(r.Uint32())})
		}
		layers = append(layers, pt.IPv4Hdr{ID: uint16(r.Uint32()), Options: randomOptions(r)}, []pt.Layer{
			pt.UDPHdr{}, pt.TCPHdr{Options: make([]byte, 4*r.IntN(11))}, pt.SCTPHdr{},
		}[r.IntN(3)], pt.Bytes(r.IntN(3000)))
		b := pt.Build(layers...)
		f := pt.Frame(b)
		if r.IntN(2) == 0 {
			f = pt.Partial(b)
		}
		if r.IntN(4) == 0 { // Ethernet padding goes no further
			padded := append(bytes.Clone(f.Bytes()), 1, 2, 3)
			vnet := f.Vnet
			f = pt.Frame(padded)
			f.Vnet = vnet
		}
		f.InPort = 7
		before := bytes.Clone(f.Bytes())
		hdr, mtu := f.View.L4-f.View.L3, 68+r.IntN(2000)
		got := fragments(t, f, mtu)
		data, offset, more := reassemble(t, got)
		if offset != 0 || more || !bytes.Equal(data, b[f.View.L4:]) {
			t.Fatalf("%s in %d: reassembled %d bytes from %d, more: %v", pt.Describe(b), mtu, len(data), offset, more)
		}
		for i, g := range got {
			pt.Check(t, g, pt.IPv4(), pt.VLAN(vids(f)...))
			n := len(g) - f.View.L3
			if n > mtu || i < len(got)-1 && n != hdr+(mtu-hdr)&^7 {
				t.Fatalf("fragment %d of %d has %d bytes for an MTU of %d", i, len(got), n, mtu)
			}
		}
		if !bytes.Equal(before, f.Bytes()) {
			t.Fatal("the packet was changed")
		}
	}
}

func vids(f *packet.Frame) []uint16 {
	all := []uint16{}
	for _, tci := range f.View.TCI[:f.View.Tags] {
		all = append(all, tci&0xfff)
	}
	return all
}

func TestFragmenterRefuses(t *testing.T) {
	data := pt.Bytes(1000)
	df := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{DF: true}, pt.UDPHdr{}, data)
	options := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Options: pt.Bytes(40)}, pt.UDPHdr{}, data)
	lying := pt.Partial(pt.UDP4(pt.Packet{Payload: data}))
	lying.Vnet.CsumStart = 5
	for name, tc := range map[string]struct {
		f    *packet.Frame
		mtu  int
		want bool
	}{
		"df":                     {pt.Frame(df), 500, false},
		"df that fits":           {pt.Frame(df), 1028, true},
		"ipv6":                   {pt.Frame(pt.UDP6(pt.Packet{Payload: data})), 1280, false},
		"arp":                    {pt.Frame(pt.ARPRequest(pt.Packet{})), 1280, false},
		"gso":                    {pt.GSO(pt.UDP4(pt.Packet{Payload: data}), 100), 500, false},
		"checksum elsewhere":     {lying, 500, false},
		"no room for 8 bytes":    {pt.Frame(options), 67, false},
		"room for 8 bytes":       {pt.Frame(options), 68, true},
		"mtu zero":               {pt.Frame(pt.UDP4(pt.Packet{})), 0, false},
		"mtu less than a header": {pt.Frame(pt.UDP4(pt.Packet{})), -9, false},
	} {
		var g packet.Fragmenter
		if got := g.Init(tc.f, tc.mtu); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		} else if !got && g.Next(pt.NewFrame()) {
			t.Errorf("%s: a fragment all the same", name)
		}
	}
}

// TestUncopiedOptions are the cases that random options seldom are.
func TestUncopiedOptions(t *testing.T) {
	for name, tc := range map[string]struct{ options, later []byte }{
		"copied stay":        {[]byte{0x94, 4, 0, 0}, []byte{0x94, 4, 0, 0}},
		"others go":          {[]byte{0x1e, 4, 9, 9}, []byte{1, 1, 1, 1}},
		"after the end":      {[]byte{0, 0x1e, 2, 0}, []byte{0, 0x1e, 2, 0}},
		"length of zero":     {[]byte{0x1e, 0, 0x1e, 2}, []byte{0x1e, 0, 0x1e, 2}},
		"beyond the header":  {[]byte{0x1e, 5, 9, 9}, []byte{0x1e, 5, 9, 9}},
		"type without space": {[]byte{1, 1, 1, 0x1e}, []byte{1, 1, 1, 0x1e}},
	} {
		f := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Options: tc.options}, pt.UDPHdr{}, pt.Bytes(100)))
		got := fragments(t, f, 68)
		if first := got[0][34:38]; !bytes.Equal(first, tc.options) {
			t.Errorf("%s: the first has % x", name, first)
		}
		for _, b := range got[1:] {
			if !bytes.Equal(b[34:38], tc.later) {
				t.Errorf("%s: % x, want % x", name, b[34:38], tc.later)
			}
		}
	}
}

func TestFragmentIsRead(t *testing.T) {
	tests := map[string]struct {
		b    []byte
		want packet.Fragment
		ok   bool
	}{
		"whole":        {pt.UDP4(pt.Packet{}), packet.Fragment{}, false},
		"arp":          {pt.ARPRequest(pt.Packet{}), packet.Fragment{}, false},
		"first":        {pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{ID: 7, MF: true}, pt.UDPHdr{}, pt.Bytes(16)), packet.Fragment{ID: 7, Len: 24, More: true}, true},
		"last, padded": {append(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{ID: 7, Offset: 24, Options: pt.Bytes(4)}, pt.Bytes(5)), 0, 0), packet.Fragment{ID: 7, Offset: 24, Len: 5}, true},
		"atomic":       {pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.FragHdr{}, pt.UDPHdr{}), packet.Fragment{}, false},
		"first of ipv6, in a chain": {pt.Build(pt.EtherHdr{}, pt.VLANTag{}, pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoHopByHop, Body: make([]byte, 20)},
			pt.FragHdr{ID: 1 << 31, More: true}, pt.ExtHdr{Proto: packet.ProtoDestOpts}, pt.UDPHdr{}), packet.Fragment{ID: 1 << 31, Len: 16, More: true}, true},
		"last of ipv6": {pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoAH}, pt.FragHdr{ID: 9, Offset: 16}, pt.Bytes(3)), packet.Fragment{ID: 9, Offset: 16, Len: 3}, true},
	}
	for name, tc := range tests {
		f := pt.Frame(tc.b)
		if got, ok := f.View.Fragment(tc.b); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, ok, tc.want, tc.ok)
		}
	}
}

func TestFragmenterDoesNotAllocate(t *testing.T) {
	f, out := pt.Partial(pt.SCTP4(pt.Packet{Payload: pt.Bytes(9000)})), pt.NewFrame()
	var g packet.Fragmenter
	if n := testing.AllocsPerRun(100, func() {
		for g.Init(f, 1500); g.Next(out); {
			out.View.Fragment(out.Bytes())
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFragment: whatever the packet, its fragments fit, are valid and hold its
// data; and what a header says of a fragment lies within the frame.
func FuzzFragment(f *testing.F) {
	r := rand.New(rand.NewPCG(63, 63))
	for range 50 {
		b := pt.Random(r)
		v := pt.RandomVnet(r, len(b))
		f.Add(b, v.Flags, v.CsumStart, v.CsumOffset, uint16(r.IntN(2000)))
	}
	f.Fuzz(func(t *testing.T, b []byte, flags uint8, start, offset, mtu uint16) {
		if len(b) > packet.MaxFrame {
			t.Skip("longer than a buffer")
		}
		frame := pt.Frame(b)
		if (&packet.View{}).Parse(b) != packet.FaultNone {
			return
		}
		v := &frame.View
		whole, cut := v.Fragment(b)
		if cut != v.Is(packet.ViewFrag) || whole.Offset+whole.Len > 0xffff || whole.Len > v.End-v.L3 {
			t.Fatalf("%+v, %v", whole, cut)
		}
		frame.Vnet = packet.Vnet{Flags: flags, CsumStart: start, CsumOffset: offset}
		var g packet.Fragmenter
		if !g.Init(frame, int(mtu)) {
			return
		}
		if frame.Vnet.NeedsCsum() {
			completed := pt.Frame(b)
			completed.Vnet = frame.Vnet
			packet.CompleteChecksum(completed)
			b = completed.Bytes()
		}
		got := fragments(t, frame, int(mtu))
		data, offs, more := reassemble(t, got)
		if offs != whole.Offset || more != whole.More || !bytes.Equal(data, b[v.L4:v.End]) {
			t.Fatalf("%d bytes at %d, more: %v; want %d at %d, %v", len(data), offs, more, v.End-v.L4, whole.Offset, whole.More)
		}
		for _, c := range got {
			h := pt.Frame(c)
			if len(got) > 1 && (h.View.End-h.View.L3 > int(mtu) || !packet.VerifyL3(c, &h.View)) {
				t.Fatalf("%x", c)
			}
		}
	})
}
