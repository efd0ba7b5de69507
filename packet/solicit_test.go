// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"net/netip"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestAppendSolicitation(t *testing.T) {
	mac, to := packet.MAC{2, 0, 0, 0, 0, 1}, packet.MAC{2, 0, 0, 0, 0, 9}
	ask := func(src, target string, to packet.MAC) []byte {
		return packet.AppendSolicitation(nil, packet.Solicitation{MAC: mac, Source: pt.IP(src), Target: pt.IP(target), To: to})
	}
	arp := pt.ARP(pt.Op(packet.ARPOpRequest), pt.SenderMAC(mac), pt.TargetMAC(packet.MAC{}), pt.Src("10.44.0.1"), pt.Dst("10.44.0.9"))
	pt.Check(t, ask("10.44.0.1", "10.44.0.9", packet.MAC{}), pt.EtherSrc(mac), pt.EtherDst(packet.Broadcast()), pt.Len(42), arp)
	pt.Check(t, ask("10.44.0.1", "10.44.0.9", to), pt.EtherSrc(mac), pt.EtherDst(to), pt.Len(42), arp)

	nd := pt.ICMPv6(pt.ICMPType(packet.NDNeighbourSol, 0)) // checks the sum too
	group := packet.MAC{0x33, 0x33, 0xff, 0x12, 0x34, 0x56}
	pt.Check(t, ask("fe80::1", "fd44::aa12:3456", packet.MAC{}), pt.EtherSrc(mac), pt.EtherDst(group), pt.Len(86),
		pt.IPv6(pt.Src("fe80::1"), pt.Dst("ff02::1:ff12:3456"), pt.TTL(255)), nd)
	b := ask("fe80::1", "fd44::aa12:3456", to)
	pt.Check(t, b, pt.EtherDst(to), pt.IPv6(pt.Dst("fd44::aa12:3456"), pt.TTL(255)), nd)
	f := pt.Frame(b)
	want := packet.ND{
		Type: packet.NDNeighbourSol, Target: pt.IP("fd44::aa12:3456"), Link: mac, HasLink: true, LinkOpts: packet.NDSourceLink,
	}
	if m, ok := f.View.ND(b); !ok || m != want {
		t.Errorf("%+v, %v", m, ok)
	}
	for _, bad := range [][2]string{{"10.44.0.1", "fd44::1"}, {"fd44::1", "10.44.0.1"}, {"::", "fd44::1"}} {
		if got := ask(bad[0], bad[1], to); got != nil {
			t.Errorf("%v: %v", bad, pt.Describe(got))
		}
	}
	if got := ask("0.0.0.0", "10.44.0.9", to); len(got) != 42 {
		t.Errorf("%d bytes", len(got))
	}
	pre := []byte("x")
	got := packet.AppendSolicitation(pre, packet.Solicitation{MAC: mac, Source: netip.IPv6LinkLocalAllNodes(), Target: pt.IP("fd44::1")})
	if !bytes.HasPrefix(got, pre) || len(got) != 87 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestARPOf(t *testing.T) {
	b := pt.ARPReply(pt.Packet{Tags: []pt.VLANTag{{TCI: 5}}})
	f := pt.Frame(b)
	want := packet.ARP{
		Op: packet.ARPOpReply, SenderMAC: packet.MAC{2, 0, 0, 0, 0, 10}, Sender: pt.IP("10.44.0.10"),
		TargetMAC: packet.MAC{2, 0, 0, 0, 0, 11}, Target: pt.IP("10.44.0.11"),
	}
	if m, ok := f.View.ARP(b); !ok || m != want {
		t.Errorf("%+v, %v", m, ok)
	}
	if _, ok := f.View.ARP(b[:30]); ok {
		t.Error("read from a frame that was cut")
	}
	f = pt.Frame(pt.TCP4(pt.Packet{}))
	if _, ok := f.View.ARP(f.Bytes()); ok {
		t.Error("TCP read as ARP")
	}
}
