// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// pieces6 are the fragments of an IPv6 frame.
func pieces6(t *testing.T, f *packet.Frame, mtu int, id uint32) (all []*packet.Frame) {
	t.Helper()
	var g packet.Fragmenter
	if !g.Init6(f, mtu, id) {
		t.Fatalf("%s is not to be fragmented to %d", pt.Describe(f.Bytes()), mtu)
	}
	for {
		p := pt.Frame(nil)
		if !g.Next(p) {
			return all
		}
		all = append(all, p)
	}
}

// TestFragments6 are as long as fits, have their place, and together are the packet; a
// fragment that is cut once more keeps its place and identification.
func TestFragments6(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 4))
	for range 300 {
		size, mtu := r.IntN(5000), 1280+r.IntN(300)
		p := pt.Packet{Payload: pt.Bytes(size)}
		whole := pt.UDP6(p)
		first := pieces6(t, pt.Frame(whole), mtu, 7)
		data := make([]byte, size+packet.UDPLen)
		for i, f := range first {
			if n := f.L3Len(); n > mtu || n < mtu-8 && i < len(first)-1 {
				t.Errorf("%d bytes in fragment %d of %d, MTU %d", n, i, len(first), mtu)
			}
			for j, g := range pieces6(t, f, 1280, 9) {
				if len(first) == 1 && size+48 <= 1280 {
					if !bytes.Equal(g.Bytes(), whole) {
						t.Errorf("%s is not the packet, which fits", pt.Describe(g.Bytes()))
					}
					copy(data, g.Bytes()[g.View.L4:])
					continue
				}
				fr, ok := g.View.Fragment(g.Bytes())
				want := uint32(7)
				if len(first) == 1 {
					want = 9
				}
				if !ok || fr.ID != want || g.L3Len() > 1280 || fr.More != (fr.Offset+fr.Len < len(data)) {
					t.Errorf("piece %d of %d: %s %+v", j, i, pt.Describe(g.Bytes()), fr)
				}
				copy(data[fr.Offset:], g.Bytes()[g.View.L4:g.View.End])
			}
		}
		if !bytes.Equal(data, whole[54:]) {
			t.Fatalf("%d bytes to %d: not what was cut", size, mtu)
		}
	}
}

// TestFragments6CompleteTheSum of what has a partial one.
func TestFragments6CompleteTheSum(t *testing.T) {
	want := pt.UDP6(pt.Packet{Payload: pt.Bytes(3000)})
	var data []byte
	for _, f := range pieces6(t, pt.Partial(want), 1280, 1) {
		data = append(data, f.Bytes()[f.View.L4:f.View.End]...)
	}
	if !bytes.Equal(data, want[54:]) {
		t.Error("another sum")
	}
}

func TestNotFragmented6(t *testing.T) {
	for name, f := range map[string]*packet.Frame{
		"IPv4":              pt.Frame(pt.UDP4(pt.Packet{Payload: pt.Bytes(2000)})),
		"offload":           pt.GSO(pt.TCP6(pt.Packet{Payload: pt.Bytes(4000)}), 1400),
		"extension headers": pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoDestOpts}, pt.UDPHdr{}, pt.Bytes(2000))),
	} {
		var g packet.Fragmenter
		if g.Init6(f, 1280, 1) {
			t.Errorf("%s is fragmented", name)
		}
	}
	var g packet.Fragmenter
	if f := pt.Frame(pt.UDP6(pt.Packet{Payload: pt.Bytes(200)})); g.Init6(f, 55, 1) {
		t.Error("there is no room for anything")
	}
}

func FuzzFragment6(f *testing.F) {
	r := rand.New(rand.NewPCG(64, 64))
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
		packet.AppendReset(nil, frame)
		frame.Vnet = packet.Vnet{Flags: flags, CsumStart: start, CsumOffset: offset}
		var g packet.Fragmenter
		if !g.Init6(frame, int(mtu), 7) {
			return
		}
		n, whole := 0, frame.View.End-frame.View.L4
		for p := pt.Frame(nil); g.Next(p); {
			if p.Len() > packet.MaxFrame || p.L3Len() > max(int(mtu), frame.View.End-frame.View.L3) {
				t.Fatalf("a piece of %d bytes", p.Len())
			}
			n += p.View.End - p.View.L3 - packet.IPv6Len
		}
		if n < whole {
			t.Fatalf("%d bytes of %d", n, whole)
		}
	})
}
