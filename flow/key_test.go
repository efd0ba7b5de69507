// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func addr(s string) (a [16]byte) {
	copy(a[:], netip.MustParseAddr(s).AsSlice())
	return a
}

var (
	srcMAC = packet.MAC{2, 0, 0, 0, 0, 0x0a}
	dstMAC = packet.MAC{2, 0, 0, 0, 0, 0x0b}
)

func TestKeyOfAFrame(t *testing.T) {
	src4, dst4, src6, dst6 := addr("10.44.0.10"), addr("10.44.0.11"), addr("fd44::a"), addr("fd44::b")
	base4 := Key{SrcMAC: srcMAC, DstMAC: dstMAC, InPort: 3, EtherType: 0x0800, Src: src4, Dst: dst4}
	base6 := Key{SrcMAC: srcMAC, DstMAC: dstMAC, InPort: 3, EtherType: 0x86dd, Src: src6, Dst: dst6}
	with := func(k Key, proto uint8, sport, dport uint16) Key {
		k.Proto, k.SrcPort, k.DstPort = proto, sport, dport
		return k
	}
	tagged := with(base4, 17, 5, 53)
	tagged.Tags, tagged.TPID, tagged.TCI = 2, [2]uint16{0x88a8, 0x8100}, [2]uint16{0x2007, 9}
	tests := []struct {
		name  string
		frame []byte
		want  Key
	}{
		{"TCP on IPv4", pt.TCP4(pt.Packet{SrcPort: 1000, DstPort: 80}), with(base4, 6, 1000, 80)},
		{"TCP on IPv6", pt.TCP6(pt.Packet{SrcPort: 1000, DstPort: 80}), with(base6, 6, 1000, 80)},
		{"UDP on IPv6", pt.UDP6(pt.Packet{SrcPort: 5, DstPort: 53}), with(base6, 17, 5, 53)},
		{"SCTP on IPv4", pt.SCTP4(pt.Packet{SrcPort: 7, DstPort: 8}), with(base4, 132, 7, 8)},
		{"ping", pt.Ping4(pt.Packet{ID: 77}), with(base4, 1, 0x0800, 77)},
		{"ping on IPv6", pt.Ping6(pt.Packet{ID: 77}), with(base6, 58, 0x8000, 77)},
		{
			"protocol without ports",
			pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Proto: new(uint8(packet.ProtoESP))}, pt.Bytes(40)), with(base4, 50, 0, 0),
		},
		{
			"two tags",
			pt.UDP4(pt.Packet{SrcPort: 5, DstPort: 53, Tags: []pt.VLANTag{{TPID: 0x88a8, TCI: 0x2007}, {TCI: 9}}}), tagged,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := pt.Frame(tt.frame)
			f.InPort = 3
			k := Key{SrcPort: 9, pad: [2]byte{1, 1}} // rubbish of the last frame
			if !k.Set(f) || k != tt.want {
				t.Errorf("got  %+v\nwant %+v", k, tt.want)
			}
		})
	}
}

func TestNotCacheable(t *testing.T) {
	ext := func(l pt.Layer) []byte {
		return pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, l, pt.UDPHdr{DstPort: 53}, pt.Bytes(20))
	}
	tests := map[string][]byte{
		"ARP":                   pt.ARPRequest(pt.Packet{Dst: pt.IP("10.44.0.1")}),
		"LLC":                   pt.Build(pt.EtherHdr{}, pt.Bytes(50)),
		"first fragment":        pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.UDPHdr{}, pt.Bytes(24)),
		"later fragment":        pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Offset: 64}, pt.UDPHdr{}, pt.Bytes(24)),
		"IPv6 fragment":         ext(pt.FragHdr{Offset: 64}),
		"IPv4 options":          pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Options: []byte{148, 4, 0, 0}}, pt.UDPHdr{}),
		"hop-by-hop header":     ext(pt.ExtHdr{Proto: packet.ProtoHopByHop, Body: make([]byte, 6)}),
		"unreachable":           pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.ICMPHdr{Type: 3, Code: 1}, pt.Bytes(28)),
		"echo with a code":      pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.ICMPHdr{Type: 8, Code: 1}, pt.Bytes(28)),
		"packet too big":        pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ICMPHdr{V6: true, Type: 2}, pt.Bytes(48)),
		"neighbour discovery":   pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ICMPHdr{V6: true, Type: 135}, pt.Bytes(24)),
		"ICMPv6 type in ICMPv4": pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.ICMPHdr{Type: 128}, pt.Bytes(24)),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			f := pt.Frame(b)
			if fault := f.View.Parse(f.Bytes()); fault != packet.FaultNone {
				t.Fatalf("fault %v", fault)
			}
			var k Key
			if k.Set(f) {
				t.Errorf("cacheable as %+v", k)
			}
		})
	}
}

// What belongs to a flow changes its key, what changes from packet to packet
// does not.
func TestWhatMakesAFlow(t *testing.T) {
	base := pt.Packet{SrcPort: 1000, DstPort: 80, TTL: 64}
	key := func(p pt.Packet, port uint16) (k Key) {
		f := pt.Frame(pt.TCP4(p))
		f.InPort = port
		if !k.Set(f) {
			t.Fatal("not cacheable")
		}
		return k
	}
	tests := []struct {
		name   string
		change func(p *pt.Packet)
		same   bool
	}{
		{"source MAC", func(p *pt.Packet) { p.SrcMAC = packet.MAC{2, 9} }, false},
		{"destination MAC", func(p *pt.Packet) { p.DstMAC = packet.MAC{2, 9} }, false},
		{"tag", func(p *pt.Packet) { p.Tags = []pt.VLANTag{{}} }, false},
		{"source address", func(p *pt.Packet) { p.Src = pt.IP("10.44.0.9") }, false},
		{"destination address", func(p *pt.Packet) { p.Dst = pt.IP("10.44.0.9") }, false},
		{"source port", func(p *pt.Packet) { p.SrcPort++ }, false},
		{"destination port", func(p *pt.Packet) { p.DstPort++ }, false},
		{"TTL", func(p *pt.Packet) { p.TTL-- }, true},
		{"sequence number", func(p *pt.Packet) { p.Seq, p.Ack = 5, 6 }, true},
		{"TCP flags", func(p *pt.Packet) { p.Flags = 0x18 }, true},
		{"IP identification", func(p *pt.Packet) { p.ID = 7 }, true},
		{"payload", func(p *pt.Packet) { p.Payload = []byte("more") }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := base
			tt.change(&p)
			if same := key(base, 1) == key(p, 1); same != tt.same {
				t.Errorf("same flow %v, want %v", same, tt.same)
			}
		})
	}
	if key(base, 1) == key(base, 2) {
		t.Error("two input ports have one key")
	}
}

// slowKey is the twin of Set, by the accessors of the view, which check all
// bounds themselves.
func slowKey(f *packet.Frame) Key {
	v, b := &f.View, f.Bytes()
	k := Key{
		SrcMAC: f.SrcMAC(), DstMAC: f.DstMAC(), InPort: f.InPort, EtherType: v.EtherType,
		Tags: v.Tags, TPID: v.TPID, TCI: v.TCI, Proto: v.Proto, SrcPort: v.SrcPort, DstPort: v.DstPort,
	}
	copy(k.Src[:], v.SrcAddr(b).AsSlice())
	copy(k.Dst[:], v.DstAddr(b).AsSlice())
	return k
}

// checkKey is what must hold for any bytes.
func checkKey(t *testing.T, b []byte) (cacheable bool) {
	t.Helper()
	f := pt.NewFrame()
	f.Reset(packet.Headroom, len(b))
	copy(f.Bytes(), b)
	if f.View.Parse(f.Bytes()) != packet.FaultNone {
		return false
	}
	var k Key
	if !k.Set(f) {
		return false
	}
	if want := slowKey(f); k != want {
		t.Errorf("frame %x:\ngot  %+v\nwant %+v", b, k, want)
	}
	return true
}

func TestKeyOfRandomFrames(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	cacheable := 0
	for range 3000 {
		b := pt.Random(rnd)
		if checkKey(t, b) {
			cacheable++
		}
		checkKey(t, pt.Mutate(rnd, b))
	}
	if cacheable < 300 {
		t.Errorf("only %d of 3000 frames are cacheable", cacheable)
	}
}

func FuzzKey(f *testing.F) {
	f.Add(pt.TCP4(pt.Packet{}))
	f.Add(pt.UDP6(pt.Packet{Tags: []pt.VLANTag{{TCI: 7}}}))
	f.Add(pt.Ping6(pt.Packet{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) <= packet.MaxFrame {
			checkKey(t, b)
		}
	})
}

func TestHashIsKeyed(t *testing.T) {
	a, b := maphash.MakeSeed(), maphash.MakeSeed()
	k, same := named(1), named(1)
	if k.Hash(a) != same.Hash(a) {
		t.Error("equal keys have two hashes")
	}
	differ := false
	for n := range 10 {
		k = named(n)
		differ = differ || k.Hash(a) != k.Hash(b)
	}
	if !differ {
		t.Error("the seed changes nothing")
	}
}

// Every byte of a key takes part in its hash and in the comparison.
func TestEveryByteCounts(t *testing.T) {
	seed := maphash.MakeSeed()
	var zero Key
	for i := range KeySize {
		var k Key
		k.bytes()[i] = 1
		if k == zero || k.Hash(seed) == zero.Hash(seed) {
			t.Errorf("byte %d does not count", i)
		}
	}
	if got := binary.Size(zero); got != KeySize {
		t.Errorf("fields add up to %d bytes, want %d: there is a gap", got, KeySize)
	}
}

func TestKeyAllocatesNothing(t *testing.T) {
	seed := maphash.MakeSeed()
	for name, b := range map[string][]byte{
		"IPv4": pt.TCP4(pt.Packet{}), "IPv6": pt.TCP6(pt.Packet{}), "ARP": pt.ARPRequest(pt.Packet{Dst: pt.IP("10.44.0.1")}),
	} {
		f := pt.Frame(b)
		allocs := testing.AllocsPerRun(100, func() {
			var k Key
			if k.Set(f) {
				k.Hash(seed)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations, want 0", name, allocs)
		}
	}
}

func BenchmarkKeySet(b *testing.B) {
	for _, bb := range []struct {
		name  string
		frame []byte
	}{{"IPv4", pt.TCP4(pt.Packet{})}, {"IPv6", pt.TCP6(pt.Packet{})}} {
		b.Run(bb.name, func(b *testing.B) {
			f := pt.Frame(bb.frame)
			var k Key
			b.ReportAllocs()
			for b.Loop() {
				k.Set(f)
			}
		})
	}
}
