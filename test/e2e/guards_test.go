// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/test/lab"
)

// patience is how long something that should come at once may take.
const patience = 20 * time.Second

// attack is frames of a kind that a guard stops, and the reason that it counts.
type attack struct {
	name, reason string
	frames       [][]byte
}

// scene is who is there: mallory attacks, red and green are not to notice.
type scene struct {
	mallory, red, green, gateway packet.MAC
	own, victim, router          [2]netip.Addr // IPv4 and IPv6
}

func toAll6() packet.MAC { return packet.MAC{0x33, 0x33, 0, 0, 0, 1} }

// linkLocalOf is the address of fe80::/64 that goes with a MAC.
func linkLocalOf(m packet.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// attacks are all that a container may try.
func attacks(s *scene) []attack {
	to := func(dst packet.MAC) pt.EtherHdr { return pt.EtherHdr{Src: s.mallory, Dst: dst} }
	own6 := pt.IPv6Hdr{Src: linkLocalOf(s.mallory), Dst: pt.IP("ff02::1"), HopLimit: 255}
	nd := func(typ uint8, dst packet.MAC, ip pt.IPv6Hdr, body []byte) []byte {
		return pt.Build(to(dst), ip, pt.ICMPHdr{V6: true, Type: typ}, pt.Payload(body))
	}
	link := func(kind uint8, m packet.MAC) []byte { return append([]byte{kind, 1}, m[:]...) }
	victim6, router6 := s.victim[1].As16(), s.router[1].As16()
	fromVictim := own6
	fromVictim.Src = s.victim[1]
	return []attack{
		{"another's MAC", "guard_mac", [][]byte{
			pt.UDP4(pt.Packet{SrcMAC: s.green, DstMAC: s.red, Src: s.own[0], Dst: s.victim[0]}),
			pt.ARPRequest(pt.Packet{SrcMAC: s.gateway, Src: s.own[0], Dst: s.victim[0]}),
			pt.Build(pt.EtherHdr{Src: pt.HW("02:00:00:99:99:99"), Dst: packet.Broadcast()}, pt.Payload("hello")),
		}},
		{"another's IPv4 address", "guard_ip", [][]byte{
			pt.UDP4(pt.Packet{SrcMAC: s.mallory, DstMAC: s.red, Src: s.router[0], Dst: s.victim[0]}),
			pt.Ping4(pt.Packet{SrcMAC: s.mallory, DstMAC: s.gateway, Src: s.victim[0], Dst: s.router[0]}),
			pt.TCP4(pt.Packet{SrcMAC: s.mallory, DstMAC: s.red, Src: pt.IP("8.8.8.8"), Dst: s.victim[0], Flags: pt.RST}),
		}},
		{"another's IPv6 address", "guard_ip", [][]byte{
			pt.UDP6(pt.Packet{SrcMAC: s.mallory, DstMAC: s.red, Src: s.router[1], Dst: s.victim[1]}),
			pt.TCP6(pt.Packet{SrcMAC: s.mallory, DstMAC: s.red, Src: linkLocalOf(s.gateway), Dst: s.victim[1]}),
		}},
		{"ARP for another", "guard_arp", [][]byte{
			pt.ARPReply(pt.Packet{SrcMAC: s.mallory, DstMAC: s.red, Src: s.router[0], Dst: s.victim[0]}),
			pt.ARPRequest(pt.Packet{SrcMAC: s.mallory, Src: s.router[0], Dst: s.router[0]}), // gratuitous
			pt.Build(to(packet.Broadcast()), pt.ARPMsg{SenderMAC: s.gateway, SenderIP: s.own[0], TargetIP: s.victim[0]}),
			pt.Build(to(packet.Broadcast()), pt.ARPMsg{SenderMAC: s.mallory, SenderIP: netip.IPv4Unspecified(), TargetIP: s.victim[0]}),
		}},
		{"neighbour advertisement for another", "guard_nd", [][]byte{
			nd(packet.NDNeighbourAdvert, toAll6(), own6, append(router6[:], link(2, s.mallory)...)),
			nd(packet.NDNeighbourAdvert, s.red, own6, append(victim6[:], link(2, s.mallory)...)),
			nd(packet.NDNeighbourSol, toAll6(), own6, append(victim6[:], link(1, s.green)...)),
			nd(packet.NDRedirect, s.red, own6, append(append(victim6[:], router6[:]...), link(2, s.mallory)...)),
		}},
		{"a neighbour's IPv6 source in ND", "guard_ip", [][]byte{
			nd(packet.NDNeighbourAdvert, toAll6(), fromVictim, append(victim6[:], link(2, s.mallory)...)),
		}},
		{"router advertisement", "guard_ra", [][]byte{
			pt.Build(to(toAll6()), own6, pt.ICMPHdr{V6: true, Type: packet.NDRouterAdvert, ID: 64 << 8, Seq: 1800}, pt.Payload(make([]byte, 8))),
		}},
		{"DHCP server", "guard_dhcp", [][]byte{
			pt.Build(to(packet.Broadcast()), pt.IPv4Hdr{Src: s.own[0], Dst: pt.IP("255.255.255.255")}, pt.UDPHdr{SrcPort: 67, DstPort: 68}, dhcpOffer(s)),
		}},
		{"DHCPv6 server", "guard_dhcp6", [][]byte{
			pt.Build(to(s.red), pt.IPv6Hdr{Src: linkLocalOf(s.mallory), Dst: linkLocalOf(s.red)}, pt.UDPHdr{SrcPort: 547, DstPort: 546}, pt.Payload([]byte{2, 1, 2, 3})),
		}},
		{"querier", "guard_query", [][]byte{
			pt.Build(to(packet.MAC{1, 0, 0x5e, 0, 0, 1}), pt.IPv4Hdr{Src: s.own[0], Dst: pt.IP("224.0.0.1"), TTL: 1, Options: []byte{148, 4, 0, 0}, Proto: new(uint8(2))},
				pt.Payload([]byte{0x11, 0, 0xee, 0xff, 0, 0, 0, 0})),
			nd(130, toAll6(), pt.IPv6Hdr{Src: linkLocalOf(s.mallory), Dst: pt.IP("ff02::1"), HopLimit: 1}, make([]byte, 20)),
		}},
	}
}

// dhcpOffer is the fixed part of an offer, RFC 2131 §2.
func dhcpOffer(s *scene) pt.Payload {
	b := make([]byte, 240)
	b[0], b[1], b[2] = 2, 1, 6
	copy(b[28:], s.red[:])
	copy(b[236:], []byte{0x63, 0x82, 0x53, 0x63})
	return append(b, 53, 1, 2, 255)
}

// drops is what was counted of an attachment for a reason.
func drops(d *lab.Daemon, name, reason string) uint64 {
	for _, l := range d.Links() {
		if l.Name == name {
			return l.Stats.Drops[reason]
		}
	}
	return 0
}

// TestGuards has a container pretend to be others, in every way there is a guard
// against, while its neighbours talk: each frame is stopped and counted with its
// own reason, and nobody is sent any of them.
//
//	mallory ---- blue ---- red ==== prober ==== green
func TestGuards(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	mallory := d.Lab().NS("mallory").Attach("--network", "blue")
	s := &scene{
		mallory: pt.HW(mallory.MAC()), red: pt.HW(red.MAC()), green: pt.HW(green.MAC()), gateway: pt.HW(d.Networks()[0].MAC),
		own:    [2]netip.Addr{mallory.IP(lab.V4), mallory.IP(lab.V6)},
		victim: [2]netip.Addr{red.IP(lab.V4), red.IP(lab.V6)},
		router: [2]netip.Addr{d.Gateway(lab.V4), d.Gateway(lab.V6)},
	}
	mallory.Ping(red.IP(lab.V4)) // who is honest may
	mallory.Ping(d.Gateway(lab.V6))
	red.Ping(green.IP(lab.V4))
	lab.TCP(red, green, lab.V6, 1<<20)
	probe, control := lab.Probe(red, green, lab.V4), d.Lab().Control()
	before := neighbours(red, green)
	recs := []*lab.Recording{red.Record(), green.Record()}
	var sent [][]byte
	for _, a := range attacks(s) {
		had := drops(d, mallory.Name(), a.reason)
		mallory.Send(a.frames...)
		sent = append(sent, a.frames...)
		d.Lab().Eventually(a.name+" is counted", patience, func() bool {
			return drops(d, mallory.Name(), a.reason) >= had+uint64(len(a.frames))
		})
		if got := drops(d, mallory.Name(), a.reason) - had; got != uint64(len(a.frames)) {
			t.Errorf("%s: %d frames, counted %d as %s", a.name, len(a.frames), got, a.reason)
		}
	}
	d.CLI("-s", "link", "show", mallory.Name()).Expect(0, "guard_mac 3", "guard_arp 4", "guard_nd 4", "guard_ra 1", "guard_dhcp 1", "guard_dhcp6 1", "guard_query 2")
	for i, r := range recs {
		for _, b := range r.Stop() {
			if containsFrame(sent, b) {
				t.Errorf("%s was sent %s", []string{"red", "green"}[i], pt.Describe(b))
			}
		}
	}
	if p, c := probe.Stop(), control.Stop(); p.MaxGapMS > 250+c.MaxGapMS {
		t.Errorf("nothing was forwarded for %.0f ms, the control stood still for %.0f ms", p.MaxGapMS, c.MaxGapMS)
	}
	if after := neighbours(red, green); after != before {
		t.Errorf("neighbours before:\n%s\nafter:\n%s", before, after)
	}
	// Without guards it goes through: the frames were right.
	d.CLI("link", "set", mallory.Name(), "guard", "off").Expect(0)
	rec, forged := red.Record(), attacks(s)[1].frames[0]
	mallory.Send(forged)
	rec.Expect("forged datagram", 1, func(b []byte) bool { return bytes.Equal(b, forged) })
	rec.Stop()
}

func containsFrame(all [][]byte, b []byte) bool {
	for _, a := range all {
		if bytes.HasPrefix(b, a) {
			return true
		}
	}
	return false
}

// neighbours are the MAC addresses that containers believe in, without states.
func neighbours(all ...*lab.NS) string {
	var b strings.Builder
	for _, n := range all {
		for line := range strings.Lines(n.Run("ip", "neigh")) {
			if f := strings.Fields(line); len(f) > 4 && f[3] == "lladdr" && !strings.HasPrefix(f[0], "fe80") {
				b.WriteString(n.Name() + " " + f[0] + " " + f[4] + "\n")
			}
		}
	}
	return b.String()
}
