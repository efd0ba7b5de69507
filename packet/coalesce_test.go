// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// segmentsOf is every frame that f stands for.
func segmentsOf(t *testing.T, f *packet.Frame) (out [][]byte) {
	t.Helper()
	var s packet.Segmenter
	if !s.Init(f) {
		t.Fatalf("can't be segmented: %+v %+v", f.Vnet, f.View)
	}
	for dst := pt.NewFrame(); s.Next(dst); {
		out = append(out, slices.Clone(dst.Bytes()))
	}
	return out
}

// TestAbsorbIsUndoneBySegmentation coalesces random trains of datagrams and
// wants every byte back.
func TestAbsorbIsUndoneBySegmentation(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	absorbed := 0
	for range 300 {
		build := pt.UDP4
		if r.IntN(2) == 0 {
			build = pt.UDP6
		}
		p := pt.Packet{ID: uint16(r.Uint32())}
		for range r.IntN(3) {
			p.Tags = append(p.Tags, pt.VLANTag{TCI: uint16(r.IntN(4096))})
		}
		size := 1 + r.IntN(1400)
		var want, got [][]byte
		var f *packet.Frame
		for range 1 + r.IntN(80) {
			n := size
			if r.IntN(20) == 0 {
				n = r.IntN(1472)
			}
			p.Payload = make([]byte, n)
			for i := range p.Payload {
				p.Payload[i] = byte(r.Uint32())
			}
			frame := build(p)
			want = append(want, frame)
			g := pt.Partial(frame)
			if p.ID++; f != nil && f.Absorb(g) {
				absorbed++
				continue
			}
			if f != nil {
				got = append(got, segmentsOf(t, f)...)
			}
			f = g
		}
		if got = append(got, segmentsOf(t, f)...); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("%d datagrams of about %d bytes came back as %d others", len(want), size, len(got))
		}
	}
	if absorbed < 5000 {
		t.Errorf("only %d datagrams were absorbed: the test shows little", absorbed)
	}
}

// TestAbsorbedFrame looks at what a receiver sees of a coalesced frame.
func TestAbsorbedFrame(t *testing.T) {
	f := pt.Partial(pt.UDP4(pt.Packet{ID: 9, Payload: []byte("abcd")}))
	for i, s := range []string{"efgh", "ijkl", "mn"} {
		if !f.Absorb(pt.Partial(pt.UDP4(pt.Packet{ID: uint16(10 + i), Payload: []byte(s)}))) {
			t.Fatalf("%q is not absorbed", s)
		}
	}
	v := f.View
	f.View = packet.View{}
	if fault := f.View.Parse(f.Bytes()); fault != packet.FaultNone || f.View != v {
		t.Errorf("parsed again: %v, %+v, kept %+v", fault, f.View, v)
	}
	if !f.CheckVnet() || !packet.PartialOK(f) || !packet.VerifyL3(f.Bytes(), &f.View) {
		t.Errorf("a kernel would refuse %+v of % x", f.Vnet, f.Bytes())
	}
	if n, _ := f.Segments(); n != 4 || f.Vnet.GSOSize != 4 {
		t.Errorf("%d segments of %d bytes, want 4 of 4", n, f.Vnet.GSOSize)
	}
	if f.Absorb(pt.Partial(pt.UDP4(pt.Packet{ID: 13, Payload: []byte("op")}))) {
		t.Error("a datagram is absorbed behind a short one")
	}
}

// TestAbsorbRefuses tells what does not continue a datagram of four bytes with
// the identification 9.
func TestAbsorbRefuses(t *testing.T) {
	next := func(change func(*pt.Packet)) *packet.Frame {
		p := pt.Packet{ID: 10, Payload: []byte("efgh")}
		change(&p)
		return pt.Partial(pt.UDP4(p))
	}
	marked := next(func(*pt.Packet) {})
	marked.Mark = 1
	for name, g := range map[string]*packet.Frame{
		"complete sum":     pt.Frame(pt.UDP4(pt.Packet{ID: 10, Payload: []byte("efgh")})),
		"tcp":              pt.Partial(pt.TCP4(pt.Packet{ID: 10, Payload: []byte("efgh")})),
		"ipv6":             pt.Partial(pt.UDP6(pt.Packet{Payload: []byte("efgh")})),
		"gso":              pt.GSO(pt.UDP4(pt.Packet{ID: 10, Payload: []byte("efgh")}), 2),
		"longer":           next(func(p *pt.Packet) { p.Payload = []byte("efghi") }),
		"empty":            next(func(p *pt.Packet) { p.Payload = nil }),
		"identification":   next(func(p *pt.Packet) { p.ID = 11 }),
		"ttl":              next(func(p *pt.Packet) { p.TTL = 3 }),
		"source":           next(func(p *pt.Packet) { p.Src = netip.MustParseAddr("10.44.0.77") }),
		"destination":      next(func(p *pt.Packet) { p.Dst = netip.MustParseAddr("10.44.0.77") }),
		"source port":      next(func(p *pt.Packet) { p.SrcPort = 7 }),
		"destination port": next(func(p *pt.Packet) { p.DstPort = 7 }),
		"mac":              next(func(p *pt.Packet) { p.SrcMAC = packet.MAC{2, 9} }),
		"mark":             marked,
		"tag":              next(func(p *pt.Packet) { p.Tags = []pt.VLANTag{{TCI: 5}} }),
	} {
		t.Run(name, func(t *testing.T) {
			f := pt.Partial(pt.UDP4(pt.Packet{ID: 9, Payload: []byte("abcd")}))
			before := slices.Clone(f.Bytes())
			vnet := f.Vnet
			if f.Absorb(g) || !bytes.Equal(f.Bytes(), before) || f.Vnet != vnet {
				t.Errorf("absorbed, or changed: %+v % x", f.Vnet, f.Bytes())
			}
		})
	}
}

// TestAbsorbInAShortBuffer: what waited in a queue has no room behind it.
func TestAbsorbInAShortBuffer(t *testing.T) {
	whole := pt.Partial(pt.UDP4(pt.Packet{ID: 9, Payload: []byte("abcd")}))
	next := pt.Partial(pt.UDP4(pt.Packet{ID: 10, Payload: []byte("efgh")}))
	for room := range 6 {
		var f packet.Frame
		f.SetBuf(make([]byte, packet.Headroom+whole.Len()+room, packet.BufLen))
		f.Reset(packet.Headroom, whole.Len())
		copy(f.Bytes(), whole.Bytes())
		f.Vnet, f.View = whole.Vnet, whole.View
		if got := f.Absorb(next); got != (room >= 4) {
			t.Errorf("with room for %d bytes: %v", room, got)
		}
	}
}

// TestAbsorbIsBounded fills a frame with as much as it may hold.
func TestAbsorbIsBounded(t *testing.T) {
	for _, size := range []int{1, 1472, 9000, 40000} {
		f := pt.Partial(pt.UDP6(pt.Packet{Payload: make([]byte, size)}))
		n := 1
		for f.Absorb(pt.Partial(pt.UDP6(pt.Packet{Payload: make([]byte, size)}))) {
			n++
		}
		if n > 64 || f.View.End-f.View.L3 > 65535 {
			t.Errorf("size %d: %d datagrams, %d bytes", size, n, f.View.End)
		}
	}
}

// FuzzAbsorb lets two frames of any bytes meet: none may panic, and a frame that
// took another up must still be one that a kernel takes.
func FuzzAbsorb(f *testing.F) {
	a := pt.UDP4(pt.Packet{ID: 1, Payload: []byte("abcd")})
	f.Add(a, pt.UDP4(pt.Packet{ID: 2, Payload: []byte("efgh")}), uint16(0))
	f.Add(a, pt.UDP4(pt.Packet{ID: 3, Payload: []byte("e")}), uint16(2))
	f.Fuzz(func(t *testing.T, a, b []byte, size uint16) {
		x, y := pt.Frame(a), pt.Frame(b)
		for _, z := range []*packet.Frame{x, y} {
			z.Vnet = packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: uint16(z.View.L4), CsumOffset: 6}
		}
		if size > 0 {
			x.Vnet.GSOType, x.Vnet.GSOSize = packet.GSOUDPL4, size
		}
		if x.View.Parse(x.Bytes()) != packet.FaultNone || y.View.Parse(y.Bytes()) != packet.FaultNone ||
			!x.CheckVnet() || !y.CheckVnet() {
			return
		}
		if x.Absorb(y) && (!x.CheckVnet() || !packet.PartialOK(x)) {
			t.Errorf("a kernel would refuse %+v of % x", x.Vnet, x.Bytes())
		}
	})
}
