// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// super is a segmentation-offload frame in the test's own terms, from which
// both the frame and what it must become are built.
type super struct {
	tags []pt.VLANTag
	ip   pt.IPv4Hdr
	ip6  *pt.IPv6Hdr // instead of ip
	ext  []pt.Layer
	tcp  *pt.TCPHdr
	udp  pt.UDPHdr // if there is no tcp
	data pt.Payload
	size int
	ecn  bool
}

// build is the frame with data, the n-th segment of which off bytes are before.
func (u super) build(n, off int, data pt.Payload, last bool) []byte {
	layers := []pt.Layer{pt.EtherHdr{}}
	for _, t := range u.tags {
		layers = append(layers, t)
	}
	if u.ip6 != nil {
		layers = append(append(layers, *u.ip6), u.ext...)
	} else {
		ip := u.ip
		ip.ID += uint16(n)
		layers = append(layers, ip)
	}
	if u.tcp == nil {
		return pt.Build(append(layers, u.udp, data)...)
	}
	tcp := *u.tcp
	tcp.Seq += uint32(off)
	if n > 0 {
		tcp.Flags &^= pt.CWR
	}
	if !last {
		tcp.Flags &^= pt.FIN | pt.PSH
	}
	return pt.Build(append(layers, tcp, data)...)
}

// frame is the frame as a kernel hands it over.
func (u super) frame() *packet.Frame {
	f := pt.GSO(u.build(0, 0, u.data, true), u.size)
	if u.ecn && u.tcp != nil {
		f.Vnet.GSOType |= packet.GSOECN
	}
	return f
}

// segments are built one by one with the builders, which know nothing of
// offloads and sum each in the slow way: the twin of the Segmenter.
func (u super) segments() [][]byte {
	if len(u.data) <= u.size {
		return [][]byte{u.build(0, 0, u.data, true)}
	}
	var out [][]byte
	off := 0
	for chunk := range slices.Chunk(u.data, u.size) {
		out = append(out, u.build(len(out), off, chunk, off+len(chunk) == len(u.data)))
		off += len(chunk)
	}
	return out
}

func (u super) String() string {
	return fmt.Sprintf("%s, %d bytes in segments of %d", pt.Describe(u.build(0, 0, u.data, true)), len(u.data), u.size)
}

// segment is what the Segmenter makes of f.
func segment(t *testing.T, f *packet.Frame) [][]byte {
	t.Helper()
	var s packet.Segmenter
	if !s.Init(f) {
		t.Fatalf("can't be segmented: %s, %+v", pt.Describe(f.Bytes()), f.Vnet)
	}
	var out [][]byte
	for dst := pt.NewFrame(); s.Next(dst); {
		if dst.Vnet != (packet.Vnet{}) || dst.InPort != f.InPort {
			t.Fatalf("segment from port %d with %+v", dst.InPort, dst.Vnet)
		}
		checkReparse(t, dst)
		out = append(out, bytes.Clone(dst.Bytes()))
	}
	if s.Next(pt.NewFrame()) {
		t.Fatal("a segment after the last")
	}
	return out
}

// compare names the first segment that differs and how.
func compare(t *testing.T, of fmt.Stringer, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%v: %d segments, want %d", of, len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("%v: segment %d of %d differs\ngot  %d %x\nwant %d %x", of, i, len(got),
				len(got[i]), got[i][:min(len(got[i]), 120)], len(want[i]), want[i][:min(len(want[i]), 120)])
		}
	}
}

// randomSuper is a frame of at most maxSegs segments with everything that a
// segmenter could get wrong.
func randomSuper(r *rand.Rand, maxSegs int) super {
	u := super{
		ip:  pt.IPv4Hdr{ID: uint16(r.Uint32()), TOS: uint8(r.IntN(256)), DF: r.IntN(2) == 0, TTL: uint8(1 + r.IntN(255))},
		udp: pt.UDPHdr{SrcPort: uint16(1 + r.IntN(65535)), DstPort: uint16(1 + r.IntN(65535))},
		ecn: r.IntN(2) == 0,
	}
	for range r.IntN(3) {
		tpid := []uint16{packet.EtherTypeVLAN, packet.EtherTypeQinQ}[r.IntN(2)]
		u.tags = append(u.tags, pt.VLANTag{TPID: tpid, TCI: uint16(r.Uint32())})
	}
	if r.IntN(3) == 0 {
		u.ip.Options = bytes.Repeat([]byte{1}, 4*r.IntN(11)) // no-operation
	}
	if r.IntN(2) == 0 {
		u.ip6 = &pt.IPv6Hdr{TrafficClass: uint8(r.IntN(256)), FlowLabel: r.Uint32(), HopLimit: uint8(1 + r.IntN(255))}
		u.ext = randomChain(r)
	}
	if r.IntN(3) > 0 {
		u.tcp = &pt.TCPHdr{
			SrcPort: uint16(r.Uint32()), DstPort: uint16(r.Uint32()), Seq: r.Uint32(), Ack: r.Uint32(),
			Flags: uint8(r.IntN(256)), Window: uint16(r.Uint32()), Urgent: uint16(r.Uint32()),
			Options: pt.Bytes(4 * r.IntN(11)),
		}
	}
	u.size = 1 + r.IntN(1<<(1+r.IntN(14)))
	u.data = pt.Bytes(1 + r.IntN(min(u.size*maxSegs, 65000)))
	for i := range u.data {
		u.data[i] ^= byte(r.Uint32())
	}
	return u
}

func randomChain(r *rand.Rand) []pt.Layer {
	var chain []pt.Layer
	for i := range r.IntN(3) {
		proto := []uint8{packet.ProtoDestOpts, packet.ProtoHopByHop}[r.IntN(2)]
		if i > 0 {
			proto = packet.ProtoDestOpts
		}
		chain = append(chain, pt.ExtHdr{Proto: proto, Body: make([]byte, r.IntN(40))})
	}
	return chain
}

func TestSegmenterAgreesWithTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	for range 300 {
		u := randomSuper(r, 100)
		if tooLong(u) {
			continue
		}
		f := u.frame()
		n, wire := f.Segments()
		got := segment(t, f)
		compare(t, u, got, u.segments())
		sum, longest := 0, 0
		for _, b := range got {
			sum += len(b)
			longest = max(longest, len(b)-f.View.L3)
		}
		if n != len(got) || wire != sum || f.L3Len() != longest {
			t.Fatalf("%v: Segments %d, %d, L3Len %d; they are %d, %d, %d", u, n, wire, f.L3Len(), len(got), sum, longest)
		}
	}
}

// tooLong reports whether headers and data are more than an IP packet.
func tooLong(u super) bool { return len(u.build(0, 0, u.data, true)) > 65535 }

func TestSegmenterCases(t *testing.T) {
	all := uint8(pt.FIN | pt.PSH | pt.CWR | pt.ECE | pt.ACK)
	tests := map[string]super{
		"flags at the ends only":       {tcp: &pt.TCPHdr{Flags: all}, data: pt.Bytes(3000), size: 1000},
		"last segment of one byte":     {tcp: &pt.TCPHdr{Flags: all}, data: pt.Bytes(2001), size: 1000},
		"exactly one segment":          {tcp: &pt.TCPHdr{Flags: all}, data: pt.Bytes(1000), size: 1000},
		"no payload":                   {tcp: &pt.TCPHdr{Flags: pt.SYN}, size: 1000},
		"sequence number wraps":        {tcp: &pt.TCPHdr{Seq: 0xfffffff0}, data: pt.Bytes(100), size: 10},
		"identification wraps":         {ip: pt.IPv4Hdr{ID: 0xfffe}, data: pt.Bytes(100), size: 10},
		"the largest packet":           {tcp: &pt.TCPHdr{}, data: pt.Bytes(65535 - 40), size: 1460},
		"as many segments as allowed":  {tcp: &pt.TCPHdr{}, data: pt.Bytes(packet.MaxSegments * 8), size: 8},
		"as many datagrams as allowed": {data: pt.Bytes(packet.MaxDatagrams * 8), size: 8},
		"options in IP and TCP":        {ip: pt.IPv4Hdr{Options: pt.Bytes(40)}, tcp: &pt.TCPHdr{Options: pt.Bytes(40)}, data: pt.Bytes(999), size: 100},
		"two tags":                     {tags: []pt.VLANTag{{TCI: 1}, {TCI: 2}}, data: pt.Bytes(999), size: 100},
		"hop by hop options":           {ip6: &pt.IPv6Hdr{}, ext: []pt.Layer{pt.ExtHdr{}}, data: pt.Bytes(999), size: 100},
		"odd segments of udp and ipv6": {ip6: &pt.IPv6Hdr{}, data: pt.Bytes(999), size: 33},
	}
	for name, u := range tests {
		t.Run(name, func(t *testing.T) { compare(t, u, segment(t, u.frame()), u.segments()) })
	}
}

// TestSegmenterPassesPlainFrames: a frame that isn't GSO comes out once, with a
// complete checksum and all its bytes.
func TestSegmenterPassesPlainFrames(t *testing.T) {
	for name, b := range summed() {
		f := pt.Frame(b)
		if f.View.Proto != packet.ProtoICMP && f.View.Proto != packet.ProtoICMPv6 {
			f = pt.Partial(b)
		}
		f.InPort = 7
		got := segment(t, f)
		if len(got) != 1 || !bytes.Equal(got[0], b) {
			t.Errorf("%s: %x, want %x", name, got, b)
		}
	}
	for _, b := range [][]byte{pt.ARPRequest(pt.Packet{}), append(pt.UDP4(pt.Packet{}), 1, 2, 3)} {
		if got := segment(t, pt.Frame(b)); len(got) != 1 || !bytes.Equal(got[0], b) {
			t.Errorf("%x, want %x", got, b)
		}
	}
}

// TestSegmenterKeepsRoutedChecksums: behind a routing header the address in the
// IPv6 header is not the one that the checksum covers, so that only the partial
// sum can tell.
func TestSegmenterKeepsRoutedChecksums(t *testing.T) {
	final := pt.IP("2001:db8::99")
	route := append([]byte{0, 1, 0, 0, 0, 0}, final.AsSlice()...)
	build := func(hdr pt.IPv6Hdr, udp pt.Layer, data pt.Payload) []byte {
		return pt.Build(pt.EtherHdr{}, hdr, pt.ExtHdr{Proto: packet.ProtoRouting, Body: route}, udp, data)
	}
	f := pt.GSO(build(pt.IPv6Hdr{}, pt.UDPHdr{}, pt.Bytes(100)), 50)
	direct := pt.GSO(build(pt.IPv6Hdr{Dst: final}, pt.UDPHdr{}, pt.Bytes(100)), 50)
	copy(f.Bytes()[f.View.L4+6:][:2], direct.Bytes()[direct.View.L4+6:][:2])
	got, want := segment(t, f), segment(t, direct)
	for i := range got {
		if !bytes.Equal(got[i][f.View.L4:], want[i][f.View.L4:]) {
			t.Errorf("segment %d: %x, want %x", i, got[i][f.View.L4:], want[i][f.View.L4:])
		}
	}
}

func TestSegmenterIsBounded(t *testing.T) {
	for name, u := range map[string]super{
		"TCP": {tcp: &pt.TCPHdr{}, data: pt.Bytes(packet.MaxSegments*8 + 1), size: 8},
		"UDP": {data: pt.Bytes(packet.MaxDatagrams*8 + 1), size: 8},
	} {
		var s packet.Segmenter
		if s.Init(u.frame()) || s.Next(pt.NewFrame()) {
			t.Errorf("%s: more segments than the bound", name)
		}
	}
}

// TestSegmenterKeepsHeadroom: a frame that grew downwards in its buffer is
// segmented with the same room.
func TestSegmenterKeepsHeadroom(t *testing.T) {
	f := super{data: pt.Bytes(100), size: 50}.frame()
	f.PushVLAN(packet.EtherTypeVLAN, 9)
	for _, b := range segment(t, f) {
		pt.Check(t, b, pt.VLAN(9), pt.IPv4(), pt.UDP(), pt.Len(14+4+20+8+50))
	}
}

func FuzzSegment(f *testing.F) {
	r := rand.New(rand.NewPCG(13, 13))
	for range 30 {
		b := pt.Random(r)
		v := pt.RandomVnet(r, len(b))
		f.Add(b, v.Flags, v.GSOType, v.HdrLen, v.GSOSize, v.CsumStart, v.CsumOffset)
	}
	for range 30 {
		g := randomSuper(r, 20).frame()
		v := g.Vnet
		f.Add(bytes.Clone(g.Bytes()), v.Flags, v.GSOType, v.HdrLen, v.GSOSize, v.CsumStart, v.CsumOffset)
	}
	f.Fuzz(func(t *testing.T, b []byte, flags, gso uint8, hdrLen, size, start, offset uint16) {
		if len(b) > packet.MaxFrame {
			t.Skip("longer than a buffer")
		}
		frame := pt.Frame(b)
		if (&packet.View{}).Parse(b) != packet.FaultNone {
			return
		}
		frame.Vnet = packet.Vnet{
			Flags: flags, GSOType: gso, HdrLen: hdrLen, GSOSize: size, CsumStart: start, CsumOffset: offset,
		}
		checkSegmentation(t, frame)
	})
}

// checkSegmentation holds the Segmenter to what is true of any frame: the
// segments are as many and as long as Segments says, are valid, and hold the
// payload in its order. The frame is left as it was.
func checkSegmentation(t *testing.T, f *packet.Frame) {
	t.Helper()
	before := bytes.Clone(f.Bytes())
	n, wire := f.Segments()
	var s packet.Segmenter
	if !s.Init(f) {
		return
	}
	count, sum, dst := 0, 0, pt.NewFrame()
	var data []byte
	for s.Next(dst) {
		count++
		sum += dst.Len()
		if hdr := dst.View.End - payloadLen(dst); n > 1 {
			data = append(data, dst.Bytes()[hdr:]...)
		}
		checkReparse(t, dst)
		if n > 1 && !packet.VerifyL3(dst.Bytes(), &dst.View) {
			t.Fatalf("segment %d: IPv4 checksum", count)
		}
	}
	if count != n || sum != wire {
		t.Fatalf("%d segments, %d bytes; Segments says %d, %d", count, sum, n, wire)
	}
	if n > 1 && !bytes.Equal(data, f.Bytes()[f.View.End-payloadLen(f):]) {
		t.Fatal("the payload is not the same")
	}
	if !bytes.Equal(before, f.Bytes()) {
		t.Fatal("the frame was changed")
	}
}

func payloadLen(f *packet.Frame) int {
	v := &f.View
	if v.Proto == packet.ProtoTCP {
		return v.End - v.L4 - int(f.Bytes()[v.L4+12]>>4)*4
	}
	return v.End - v.L4 - packet.UDPLen
}
