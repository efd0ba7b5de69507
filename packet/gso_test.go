// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestCheckVnetPassesWhatKernelsSend(t *testing.T) {
	data := pt.Packet{Payload: pt.Bytes(4000)}
	vxlan := func() *packet.Frame { // an inner partial checksum in a whole outer packet
		inner := pt.Partial(pt.TCP4(data))
		f := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.UDPHdr{DstPort: 4789}, pt.Bytes(8), pt.Payload(inner.Bytes())))
		f.Vnet = inner.Vnet
		f.Vnet.CsumStart += 50
		return f
	}
	ecn := pt.GSO(pt.TCP6(data), 1400)
	ecn.Vnet.GSOType |= packet.GSOECN
	hint := pt.GSO(pt.TCP4(data), 1400)
	hint.Vnet.HdrLen = 9999
	verified := pt.Frame(pt.TCP4(data))
	verified.Vnet.Flags = packet.FlagDataValid
	other := pt.Frame(pt.Build(pt.EtherHdr{Type: new(uint16(0x8847))}, pt.Bytes(100)))
	other.Vnet = packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: 38, CsumOffset: 16}
	largest := func(size int) *packet.Frame { // with timestamps, as kernels have them
		tcp := pt.TCPHdr{Options: pt.Bytes(12)}
		return pt.GSO(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, tcp, pt.Bytes(65535-52)), size)
	}
	frames := map[string]*packet.Frame{
		"64 KB for an MSS of 536":          largest(536 - 12),
		"64 KB for an MSS of 88":           largest(88 - 12),
		"128 datagrams":                    pt.GSO(pt.UDP4(pt.Packet{Payload: pt.Bytes(128)}), 1),
		"complete":                         pt.Frame(pt.TCP4(data)),
		"verified by the kernel":           verified,
		"partial tcp":                      pt.Partial(pt.TCP6(data)),
		"partial udp":                      pt.Partial(pt.UDP4(data)),
		"partial sctp":                     pt.Partial(pt.SCTP4(data)),
		"tcp segmentation of ipv4":         pt.GSO(pt.TCP4(data), 1400),
		"tcp segmentation with ECN":        ecn,
		"udp segmentation of ipv6":         pt.GSO(pt.UDP6(data), 1400),
		"a hint that is wrong":             hint,
		"partial checksum inside a tunnel": vxlan(),
		"partial checksum behind MPLS":     other,
	}
	for name, f := range frames {
		if !f.CheckVnet() {
			t.Errorf("%s: refused %+v", name, f.Vnet)
		}
	}
}

func TestCheckVnetRefusesLies(t *testing.T) {
	data := pt.Packet{Payload: pt.Bytes(4000)}
	tcp4 := func() *packet.Frame { return pt.GSO(pt.TCP4(data), 1400) }
	udp4 := func() *packet.Frame { return pt.GSO(pt.UDP4(data), 1400) }
	fragment := func() *packet.Frame {
		return pt.Partial(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.UDPHdr{}, pt.Bytes(8)))
	}
	tests := []struct {
		name string
		f    *packet.Frame
		lie  func(f *packet.Frame)
	}{
		{"segments of 0 bytes", tcp4(), func(f *packet.Frame) { f.Vnet.GSOSize = 0 }},
		{"segments by fragments", tcp4(), func(f *packet.Frame) { f.Vnet.GSOSize = 0xffff }},
		{"2000 segments", pt.GSO(pt.TCP4(pt.Packet{Payload: pt.Bytes(64_000)}), 1400), func(f *packet.Frame) { f.Vnet.GSOSize = 32 }},
		{"129 datagrams", pt.GSO(pt.UDP4(pt.Packet{Payload: pt.Bytes(129)}), 2), func(f *packet.Frame) { f.Vnet.GSOSize = 1 }},
		{"segmentation with a complete checksum", tcp4(), func(f *packet.Frame) { f.Vnet.Flags = 0 }},
		{"segmentation of the other IP version", tcp4(), func(f *packet.Frame) { f.Vnet.GSOType = packet.GSOTCP6 }},
		{"tcp segmentation of udp", udp4(), func(f *packet.Frame) { f.Vnet.GSOType = packet.GSOTCP4 }},
		{"udp segmentation of tcp", tcp4(), func(f *packet.Frame) { f.Vnet.GSOType = packet.GSOUDPL4 }},
		{"udp fragmentation offload", udp4(), func(f *packet.Frame) { f.Vnet.GSOType = packet.GSOUDP }},
		{"a type that doesn't exist", tcp4(), func(f *packet.Frame) { f.Vnet.GSOType = 0x22 }},
		{"udp with ECN", udp4(), func(f *packet.Frame) { f.Vnet.GSOType |= packet.GSOECN }},
		{"udp length that isn't the packet's", udp4(), func(f *packet.Frame) { f.Bytes()[f.View.L4+5]++ }},
		{"checksum in the wrong place", tcp4(), func(f *packet.Frame) { f.Vnet.CsumOffset = 6 }},
		{"checksum from the wrong place", tcp4(), func(f *packet.Frame) { f.Vnet.CsumStart++ }},
		{"segmentation of a ping", pt.Frame(pt.Ping4(data)), func(f *packet.Frame) { f.Vnet = tcp4().Vnet }},
		{"segmentation of arp", pt.Frame(pt.ARPRequest(data)), func(f *packet.Frame) { f.Vnet = tcp4().Vnet }},
		{"segmentation inside a tunnel", udp4(), func(f *packet.Frame) { f.Vnet.CsumStart += 50 }},
		{"partial fragment", fragment(), func(*packet.Frame) {}},
		{"partial ping in the IP header", pt.Frame(pt.Ping4(data)), func(f *packet.Frame) {
			f.Vnet = packet.Vnet{Flags: packet.FlagNeedsCsum, CsumStart: 14, CsumOffset: 10}
		}},
		{"partial tcp elsewhere", pt.Partial(pt.TCP4(data)), func(f *packet.Frame) { f.Vnet.CsumStart = 100 }},
		{"partial udp with the field of tcp", pt.Partial(pt.UDP4(data)), func(f *packet.Frame) { f.Vnet.CsumOffset = 16 }},
		{"partial beyond the packet", pt.Partial(pt.UDP4(data)), func(f *packet.Frame) {
			f.Vnet.CsumStart = uint16(f.View.End - 7)
		}},
		{"partial in the padding", pt.Partial(append(pt.UDP4(pt.Packet{}), pt.Bytes(99)...)), func(f *packet.Frame) {
			f.Vnet.CsumStart = uint16(f.View.End + 2)
		}},
		{"segmentation with padding", pt.Frame(append(pt.TCP4(data), 0)), func(f *packet.Frame) { f.Vnet = tcp4().Vnet }},
	}
	for _, tt := range tests {
		if tt.lie(tt.f); tt.f.CheckVnet() {
			t.Errorf("%s: passed %+v", tt.name, tt.f.Vnet)
		}
		var s packet.Segmenter
		if s.Init(tt.f) || s.Next(pt.NewFrame()) {
			t.Errorf("%s: segmented", tt.name)
		}
	}
}

func TestSegmentsAndL3Len(t *testing.T) {
	data := pt.Packet{Payload: pt.Bytes(4000)}
	lying := pt.GSO(pt.TCP4(data), 1400)
	lying.Vnet.GSOSize = 0
	tests := []struct {
		name        string
		f           *packet.Frame
		n, wire, l3 int
	}{
		{name: "no offload", f: pt.Frame(pt.TCP4(data)), n: 1, wire: 4054, l3: 4040},
		{name: "ethernet padding", f: pt.Frame(append(pt.TCP4(pt.Packet{}), make([]byte, 6)...)), n: 1, wire: 60, l3: 40},
		{name: "arp", f: pt.Frame(pt.ARPRequest(data)), n: 1, wire: 4042, l3: 0},
		{name: "tcp in three", f: pt.GSO(pt.TCP4(data), 1400), n: 3, wire: 4054 + 2*54, l3: 1440},
		{name: "tcp of ipv6 in four", f: pt.GSO(pt.TCP6(data), 1000), n: 4, wire: 4074 + 3*74, l3: 1060},
		{name: "udp in three", f: pt.GSO(pt.UDP4(data), 1472), n: 3, wire: 4042 + 2*42, l3: 1500},
		{name: "tagged", f: pt.GSO(pt.UDP4(pt.Packet{Payload: pt.Bytes(10), Tags: []pt.VLANTag{{}}}), 4), n: 3, wire: 56 + 2*46, l3: 32},
		{name: "fewer bytes than a segment", f: pt.GSO(pt.TCP4(data), 9000), n: 1, wire: 4054, l3: 4040},
		{name: "no payload", f: pt.GSO(pt.TCP4(pt.Packet{}), 100), n: 1, wire: 54, l3: 40},
		{name: "segments of 0 bytes", f: lying, n: 1, wire: 4054, l3: 4040},
	}
	for _, tt := range tests {
		n, wire := tt.f.Segments()
		if l3 := tt.f.L3Len(); n != tt.n || wire != tt.wire || l3 != tt.l3 {
			t.Errorf("%s: %d segments, %d bytes, L3 %d; want %d, %d, %d", tt.name, n, wire, l3, tt.n, tt.wire, tt.l3)
		}
	}
}
