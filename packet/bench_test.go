// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func BenchmarkParse(b *testing.B) {
	data := pt.Packet{Payload: pt.Bytes(1000)}
	for name, f := range map[string][]byte{
		"tcp4": pt.TCP4(data), "tcp6": pt.TCP6(data), "arp": pt.ARPRequest(pt.Packet{}),
		"tagged-udp4": pt.UDP4(pt.Packet{Tags: []pt.VLANTag{{}}}),
		"ipv6-chain": pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoHopByHop},
			pt.ExtHdr{Proto: packet.ProtoDestOpts}, pt.TCPHdr{}),
	} {
		b.Run(name, func(b *testing.B) {
			var v packet.View
			b.ReportAllocs()
			for b.Loop() {
				v.Parse(f)
			}
		})
	}
}

func BenchmarkSegmenter(b *testing.B) {
	f := pt.GSO(pt.TCP4(pt.Packet{Payload: pt.Bytes(65000)}), 1448)
	dst := pt.NewFrame()
	var s packet.Segmenter
	b.SetBytes(int64(f.Len()))
	b.ReportAllocs()
	for b.Loop() {
		for s.Init(f); s.Next(dst); {
		}
	}
}

func BenchmarkCompleteChecksum(b *testing.B) {
	f := pt.Partial(pt.TCP4(pt.Packet{Payload: pt.Bytes(1448)}))
	vnet := f.Vnet
	b.SetBytes(int64(f.Len()))
	b.ReportAllocs()
	for b.Loop() {
		f.Vnet = vnet
		packet.CompleteChecksum(f)
	}
}
