// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// readAdvert checks what all adverts have in common, and returns the header
// after the checksum and the options, in hexadecimal.
func readAdvert(t *testing.T, b []byte, to string) (header string, options []string) {
	t.Helper()
	if len(b) == 0 {
		t.Fatal("no advert")
	}
	pt.Check(t, b, pt.EtherSrc(mac(gatewayMAC)), pt.VLAN(), pt.IPv6(pt.Src(gatewayLocal), pt.Dst(to), pt.TTL(255)),
		pt.ICMPv6(pt.ICMPType(134, 0)))
	m := b[headers6:]
	header = hex.EncodeToString(m[4:advertLen])
	for m = m[advertLen:]; len(m) > 0; m = m[int(m[1])*8:] {
		options = append(options, hex.EncodeToString(m[:int(m[1])*8]))
	}
	return header, options
}

// TestAdvertOptions is RFC 4861 §4.2 and §4.6, RFC 4191 §2 and RFC 8106 §5, byte
// by byte.
func TestAdvertOptions(t *testing.T) {
	const always = "0101020000000001 05010000000005dc "
	const fd44, fd45 = "030440800027 8d0000093a8000000000 fd440000000000000000000000000000", "030440800027 8d0000093a8000000000 fd450000000000000000000000000000"
	onlyGlobal := []Prefix{}
	for name, tc := range map[string]struct {
		advert Advert
		header string // hop limit, flags, lifetime, reachable, retrans
		want   string
	}{
		"zero":       {Advert{}, "4000 0708 00000000 00000000", always + fd44 + " " + fd45},
		"no prefix":  {Advert{Prefixes: onlyGlobal}, "4000 0708 00000000 00000000", always},
		"flags":      {Advert{Prefixes: onlyGlobal, Managed: true, Other: true}, "40c0 0708 00000000 00000000", always},
		"high":       {Advert{Prefixes: onlyGlobal, Preference: High}, "4008 0708 00000000 00000000", always},
		"low":        {Advert{Prefixes: onlyGlobal, Preference: Low}, "4018 0708 00000000 00000000", always},
		"no default": {Advert{Prefixes: onlyGlobal, Preference: Low, NoDefault: true}, "4000 0000 00000000 00000000", always},
		"times":      {Advert{Prefixes: onlyGlobal, MaxInterval: 4, HopLimit: 9, ReachableMillis: 1000, RetransMillis: 258}, "0900 000c 000003e8 00000102", always},
		"longest":    {Advert{Prefixes: onlyGlobal, MaxInterval: 65535}, "4000 ffff 00000000 00000000", always},
		"mtu":        {Advert{Prefixes: onlyGlobal, MTU: 1280}, "4000 0708 00000000 00000000", strings.Replace(always, "05dc", "0500", 1)},
		"prefixes": {
			Advert{Prefixes: []Prefix{
				{Prefix: prefix("fd44::1/64"), Autonomous: true, Valid: 256, Preferred: 16},
				{Prefix: prefix("2001:db8::/32"), OffLink: true, Valid: Forever, Preferred: Forever},
				{Prefix: prefix("fd46::/64"), Deprecated: true, Valid: 1},
				{Prefix: prefix("fd47::/64"), Valid: 1},
			}},
			"4000 0708 00000000 00000000",
			always +
				"030440c0000001000000001000000000fd440000000000000000000000000000 " +
				"03042000ffffffffffffffff0000000020010db8000000000000000000000000 " +
				"03044080000000010000000000000000fd460000000000000000000000000000 " +
				"03044080000000010000000100000000fd470000000000000000000000000000",
		},
		"routes": {
			Advert{Prefixes: onlyGlobal, Routes: []AdvertRoute{
				{Dst: prefix("::/0"), Preference: High}, {Dst: prefix("2001:db8::1/48"), Lifetime: Forever}, {Dst: prefix("fd00::7/128"), Preference: Low},
			}},
			"4000 0708 00000000 00000000",
			always + "1801000800000708 " + "18023000ffffffff20010db800000000 " + "1803801800000708fd000000000000000000000000000007",
		},
		"resolvers": {
			Advert{Prefixes: onlyGlobal, DNS: addrs("fd44::53", "fe80::53"), Search: []string{"blue.example", "a."}, DNSLifetime: 77},
			"4000 0708 00000000 00000000",
			always + "190500000000004dfd440000000000000000000000000053fe800000000000000000000000000053 " +
				"1f0400000000004d04626c7565076578616d706c650001610000000000000000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, Config{Advert: &tc.advert})
			b := s.Tick(nil, 1)
			pt.Check(t, b, pt.EtherDst(packet.MAC{0x33, 0x33, 0, 0, 0, 1}))
			header, options := readAdvert(t, b, "ff02::1")
			if want := strings.ReplaceAll(tc.header, " ", ""); header != want {
				t.Errorf("header %s, want %s", header, want)
			}
			if got, want := strings.Join(options, ""), strings.ReplaceAll(tc.want, " ", ""); got != want {
				t.Errorf("options\n%s, want\n%s", got, want)
			}
		})
	}
}

// TestLinkLocal: the address of the gateway may be another than its MAC says.
func TestLinkLocal(t *testing.T) {
	s, l := New(1), testLink()
	l.LinkLocal = netip.MustParseAddr("fe80::1")
	apply(t, s, l, Config{Advert: &Advert{}})
	pt.Check(t, s.Tick(nil, 1), pt.IPv6(pt.Src("fe80::1")))
}

// solicit is a router solicitation.
func solicit(src string, options ...byte) []byte {
	return pt.Build(
		pt.EtherHdr{Src: mac(clientMAC), Dst: packet.MAC{0x33, 0x33, 0, 0, 0, 2}},
		pt.IPv6Hdr{Src: netip.MustParseAddr(src), Dst: netip.IPv6LinkLocalAllRouters(), HopLimit: 255},
		pt.ICMPHdr{V6: true, Type: packet.NDRouterSolicit}, pt.Payload(options))
}

// TestSolicitations is RFC 4861 §6.1.1 and §6.2.6.
func TestSolicitations(t *testing.T) {
	link := []byte{1, 1, 2, 0, 0, 0, 0, 0x11}
	all, own := netip.IPv6LinkLocalAllRouters(), netip.MustParseAddr(clientLocal)
	eth := pt.EtherHdr{Src: mac(clientMAC), Dst: packet.MAC{0x33, 0x33, 0, 0, 0, 2}}
	rs := pt.ICMPHdr{V6: true, Type: packet.NDRouterSolicit}
	for name, tc := range map[string]struct {
		frame []byte
		to    string // "": none
		want  Verdict
	}{
		"with an address":        {solicit(clientLocal, link...), clientLocal, Done},
		"without option":         {solicit(clientLocal), clientLocal, Done},
		"global source":          {solicit("fd44::20", link...), "fd44::20", Done},
		"unknown option":         {solicit(clientLocal, 99, 1, 0, 0, 0, 0, 0, 0), clientLocal, Done},
		"without an address":     {solicit("::"), "ff02::1", Done},
		"unspecified, with link": {solicit("::", link...), "", Malformed},
		"option of length zero":  {solicit(clientLocal, 1, 0, 0, 0, 0, 0, 0, 0), "", Malformed},
		"option cut short":       {solicit(clientLocal, 1, 2, 0, 0, 0, 0, 0, 0), "", Malformed},
		"group as source":        {solicit("ff02::1"), "", Malformed},
		"from a router away":     {pt.Build(eth, pt.IPv6Hdr{Src: own, Dst: all, HopLimit: 254}, rs), "", Malformed},
		"code":                   {pt.Build(eth, pt.IPv6Hdr{Src: own, Dst: all, HopLimit: 255}, pt.ICMPHdr{V6: true, Type: 133, Code: 1}), "", Malformed},
		"wrong checksum":         {pt.Build(eth, pt.IPv6Hdr{Src: own, Dst: all, HopLimit: 255}, pt.ICMPHdr{V6: true, Type: 133, Checksum: new(uint16(1))}), "", Malformed},
		"fragment (RFC 6980)":    {pt.Build(eth, pt.IPv6Hdr{Src: own, Dst: all, HopLimit: 255}, pt.FragHdr{More: true}, rs), "", Malformed},
		"to the gateway":         {pt.Build(eth, pt.IPv6Hdr{Src: own, Dst: netip.MustParseAddr("fd44::1"), HopLimit: 255}, rs), clientLocal, Done},
		"to another":             {pt.Build(eth, pt.IPv6Hdr{Src: own, Dst: netip.MustParseAddr("fd44::9"), HopLimit: 255}, rs), "", Pass},
		"neighbour solicitation": {pt.Build(eth, pt.IPv6Hdr{Src: own, Dst: all, HopLimit: 255}, pt.ICMPHdr{V6: true, Type: 135}, pt.Payload(make([]byte, 16))), "", Pass},
		"ping":                   {pt.Ping6(pt.Packet{}), "", Pass},
		"in a VLAN":              {pt.Build(eth, pt.VLANTag{TCI: 5}, pt.IPv6Hdr{Src: own, Dst: all, HopLimit: 255}, rs), "", Pass},
	} {
		t.Run(name, func(t *testing.T) {
			b, v := ask(newServer(t, Config{Advert: &Advert{}}), tc.frame, testClient())
			if v != tc.want || (len(b) == 0) != (tc.to == "") {
				t.Fatalf("verdict %d, %d bytes, want %d", v, len(b), tc.want)
			}
			if tc.to != "" {
				readAdvert(t, b, tc.to)
			}
			if tc.to == clientLocal {
				pt.Check(t, b, pt.EtherDst(mac(clientMAC)))
			}
		})
	}
}

// TestOffPassesAll: a service that is off takes nothing.
func TestOffPassesAll(t *testing.T) {
	s := New(1)
	for _, b := range [][]byte{solicit(clientLocal), ask4{typ: discover}.bytes(), ask6{typ: solicit6, options: [][]byte{clientID}}.bytes()} {
		if got, v := ask(s, b, testClient()); v != Pass || len(got) != 0 {
			t.Errorf("%s: verdict %d, %d bytes", pt.Describe(b), v, len(got))
		}
	}
	if b := s.Tick(nil, 1); b != nil {
		t.Errorf("%d bytes of advert", len(b))
	}
	if b := s.Final(nil); b != nil {
		t.Errorf("%d bytes of final advert", len(b))
	}
}
