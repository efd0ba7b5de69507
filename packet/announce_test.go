// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"net/netip"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestGratuitousARP(t *testing.T) {
	mac, ip := pt.HW("02:00:00:00:00:07"), pt.IP("10.44.0.7")
	pt.Check(t, packet.GratuitousARP(nil, mac, ip),
		pt.Len(42), pt.EtherSrc(mac), pt.EtherDst(packet.Broadcast()),
		pt.ARP(pt.Op(1), pt.SenderMAC(mac), pt.TargetMAC(packet.MAC{}), pt.Src(ip), pt.Dst(ip)))
}

func TestUnsolicitedNA(t *testing.T) {
	mac, ip := pt.HW("02:00:00:00:00:07"), pt.IP("fd44::7")
	want := append([]byte(nil), ip.AsSlice()...)
	want = append(append(want, 2, 1), mac[:]...)
	b := packet.UnsolicitedNA(nil, mac, ip)
	pt.Check(t, b,
		pt.Len(86), pt.EtherSrc(mac), pt.EtherDst(pt.HW("33:33:00:00:00:01")),
		pt.IPv6(pt.Src(ip), pt.Dst("ff02::1"), pt.TTL(255)),
		pt.ICMPv6(pt.ICMPType(136, 0)), pt.Data(want))
	if flags := b[14+40+4]; flags != 0x20 {
		t.Errorf("flags %#02x, want override only", flags)
	}
}

func TestAnnouncementsAppend(t *testing.T) {
	room := make([]byte, 3, 200)
	mac := pt.HW("02:00:00:00:00:07")
	for name, b := range map[string][]byte{
		"arp":                packet.GratuitousARP(room, mac, pt.IP("10.44.0.7"))[3:],
		"arp of mapped IPv4": packet.GratuitousARP(room, mac, pt.IP("::ffff:10.44.0.7"))[3:],
	} {
		t.Log(name)
		pt.Check(t, b, pt.ARP(pt.Src("10.44.0.7")))
	}
	pt.Check(t, packet.UnsolicitedNA(room, mac, pt.IP("fd44::7"))[3:], pt.ICMPv6())
}

func TestAnnouncementsOfTheOtherFamilyAreNothing(t *testing.T) {
	mac := pt.HW("02:00:00:00:00:07")
	for _, ip := range []netip.Addr{{}, pt.IP("fd44::7")} {
		if b := packet.GratuitousARP(nil, mac, ip); b != nil {
			t.Errorf("arp of %v: %x", ip, b)
		}
	}
	for _, ip := range []netip.Addr{{}, pt.IP("10.44.0.7"), pt.IP("::ffff:10.44.0.7")} {
		if b := packet.UnsolicitedNA(nil, mac, ip); b != nil {
			t.Errorf("advertisement of %v: %x", ip, b)
		}
	}
}
