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

// TestDeviceLearns: a device without an address asks its link, hears the answer, as a
// broadcast or for the address that it is to have, and tells.
func TestDeviceLearns(t *testing.T) {
	for _, unicast := range []bool{false, true} {
		s := blue(1)
		s.Addresses, s.Learn = nil, autoconf.Learn{DHCP: true}
		s.Ports[0].MAC, s.Ports[0].Addresses = packet.MAC{}, nil
		l := stillLab(t, s)
		n := l.n.view.Load().spaces["blue"].networks[0]
		server := autoconf.New(1)
		ready, err := server.Prepare(autoconf.Link{MAC: mac(7), MTU: 1500, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
			autoconf.Config{DHCP4: &autoconf.DHCP4{}})
		if err != nil {
			t.Fatal(err)
		}
		ready.Commit()
		for range 2 { // DISCOVER and REQUEST
			n.inquire(l.n)
			l.round()
			answer, _ := server.Input(nil, l.got(1), &autoconf.Client{MAC: gatewayMAC(), Addrs: []netip.Addr{pt.IP("192.0.2.9")}}, 1)
			if unicast { // as of a server that does not heed the flag
				own := gatewayMAC()
				copy(answer, own[:])
				copy(answer[14+16:], []byte{192, 0, 2, 9})
				copy(answer[14+10:], []byte{0, 0})
				sum := ^packet.Sum(answer[14:34], 0)
				answer[14+10], answer[14+11] = byte(sum>>8), byte(sum)
				copy(answer[34+6:], []byte{0, 0}) // RFC 768: no sum
			}
			l.send(1, answer)
		}
		l.n.boot.Add(1)
		n.inquire(l.n) // asks whether somebody has it
		l.n.boot.Add(2)
		n.inquire(l.n)
		got := l.n.Namespace("blue").Learned("blue")
		if a := got.Addresses(); len(a) != 1 || a[0] != netip.MustParsePrefix("192.0.2.9/24") {
			t.Errorf("unicast %t: learned %+v", unicast, got)
		}
		select {
		case <-l.n.learned:
		default:
			t.Error("nobody is told")
		}
	}
}
