// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"testing"

	"sluice/autoconf"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// discover is a DHCPDISCOVER of a container (RFC 2131 §4.4.1).
func discover(from packet.MAC) []byte {
	b := make([]byte, 240, 300)
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[4:], "xid1")
	copy(b[28:], from[:])
	copy(b[236:], []byte{99, 130, 83, 99})
	b = append(b, 53, 1, 1, 255)
	b = append(b, make([]byte, 300-len(b))...)
	return pt.UDP4(pt.Packet{
		SrcMAC: from, DstMAC: packet.Broadcast(), Src: netip.IPv4Unspecified(), Dst: pt.IP("255.255.255.255"),
		SrcPort: 68, DstPort: 67, Payload: b,
	})
}

func TestContainersConfigureThemselves(t *testing.T) {
	s := blue(2)
	s.Autoconf = autoconf.Config{Advert: &autoconf.Advert{}, DHCP4: &autoconf.DHCP4{}}
	l := stillLab(t, s)
	l.send(1, discover(mac(1)))
	got := l.got(1)
	pt.Check(t, got, pt.EtherDst(mac(1)), pt.EtherSrc(gatewayMAC()), pt.UDP())
	if yiaddr, _ := netip.AddrFromSlice(got.Bytes()[14+20+8+16 : 14+20+8+20]); yiaddr != addr4(1) {
		t.Errorf("container 1 is offered %v, want %v", yiaddr, addr4(1))
	}
	l.silent(1)
	l.got(2) // the broadcast
	l.silent(2)

	l.send(1, discover(mac(9)))
	l.silent(1)
	if got := l.drops(1, trace.ConfRefused); got != 1 {
		t.Errorf("%d questions of a stranger were refused, want 1", got)
	}
}

func TestNetworksAdvertise(t *testing.T) {
	s := blue(1)
	s.Autoconf = autoconf.Config{Advert: &autoconf.Advert{}}
	l := stillLab(t, s)
	n := l.n.view.Load().spaces["blue"].networks[0]
	for now := range uint32(40) {
		n.advertise(now)
	}
	l.round()
	pt.Check(t, l.got(1), pt.EtherDst(pt.HW("33:33:00:00:00:01")), pt.ICMPv6(pt.ICMPType(134, 0)))
}
