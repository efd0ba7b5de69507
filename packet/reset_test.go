// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestReset(t *testing.T) {
	eth := packet.AppendEthernet(nil, packet.MAC{}, packet.MAC{}, packet.EtherTypeIPv4)
	eth6 := packet.AppendEthernet(nil, packet.MAC{}, packet.MAC{}, packet.EtherTypeIPv6)
	for name, tc := range map[string]struct {
		flags    uint8
		seq, ack uint32
		want     uint8
	}{
		"SYN":     {pt.SYN, 0, 1000 + 20 + 1, pt.RST | pt.ACK},
		"ACK":     {pt.ACK, 77, 0, pt.RST},
		"FIN,ACK": {pt.ACK | 1, 77, 0, pt.RST},
		"FIN":     {1, 0, 1000 + 20 + 1, pt.RST | pt.ACK},
	} {
		p := pt.Packet{SrcPort: 5, DstPort: 6, Seq: 1000, Ack: 77, Flags: tc.flags, Payload: pt.Bytes(20)}
		tcp := pt.TCP(pt.SrcPort(6), pt.DstPort(5), pt.TCPFlags(tc.want), pt.Seq(tc.seq), pt.AckNum(tc.ack))
		f := pt.Frame(pt.TCP4(p))
		got := packet.AppendReset(eth, f)
		pt.Check(t, got, pt.IPv4(pt.Src(f.View.DstAddr(f.Bytes())), pt.Dst(f.View.SrcAddr(f.Bytes())), pt.TTL(64)), tcp)
		f = pt.Frame(pt.TCP6(p))
		got = packet.AppendReset(eth6, f)
		pt.Check(t, got, pt.IPv6(pt.Src(f.View.DstAddr(f.Bytes())), pt.Dst(f.View.SrcAddr(f.Bytes())), pt.TTL(64)), tcp)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for name, b := range map[string][]byte{"reset": pt.TCP4(pt.Packet{Flags: pt.RST}), "UDP": pt.UDP4(pt.Packet{})} {
		if got := packet.AppendReset(eth, pt.Frame(b)); len(got) != len(eth) {
			t.Errorf("%s is answered", name)
		}
	}
}
