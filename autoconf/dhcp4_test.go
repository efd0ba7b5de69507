// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// ask4 is a client's message in words. What is zero is left out, or as an honest
// client has it.
type ask4 struct {
	typ                       uint8
	ciaddr, giaddr            string
	requested, server         string
	src, dst                  string // of the packet
	chaddr, mac               string
	flags                     uint16
	options                   []byte // more of them
	file, sname               []byte
	op, htype, hlen           *uint8
	cookie                    *uint32
	truncate                  int
	udpLen, udpSum, fragments bool
}

const xid = 0x11223344

func (q ask4) message() []byte {
	b := make([]byte, optionsAt)
	b[opAt], b[htypeAt], b[hlenAt] = or(q.op, 1), or(q.htype, 1), or(q.hlen, 6)
	binary.BigEndian.PutUint32(b[xidAt:], xid)
	binary.BigEndian.PutUint16(b[flagsAt:], q.flags)
	copy(b[ciaddrAt:], v4(q.ciaddr))
	copy(b[giaddrAt:], v4(q.giaddr))
	ch := mac(text(q.chaddr, clientMAC))
	copy(b[chaddrAt:], ch[:])
	copy(b[snameAt:], q.sname)
	copy(b[fileAt:], q.file)
	binary.BigEndian.PutUint32(b[magicAt:], or(q.cookie, magic))
	if q.typ != 0 {
		b = append(b, optType, 1, q.typ)
	}
	if q.requested != "" {
		b = append(append(b, optRequested, 4), v4(q.requested)...)
	}
	if q.server != "" {
		b = append(append(b, optServer, 4), v4(q.server)...)
	}
	b = append(b, q.options...)
	return append(b, optEnd)
}

func (q ask4) bytes() []byte {
	m := q.message()
	u := pt.UDPHdr{SrcPort: clientPort4, DstPort: serverPort4}
	if q.udpLen {
		u.Len = new(uint16(len(m) + 9))
	}
	if q.udpSum {
		u.Checksum = new(uint16(0xdead))
	}
	return pt.Build(
		pt.EtherHdr{Src: mac(text(q.mac, clientMAC)), Dst: packet.Broadcast()},
		pt.IPv4Hdr{
			Src: netip.MustParseAddr(text(q.src, "0.0.0.0")), Dst: netip.MustParseAddr(text(q.dst, "255.255.255.255")),
			MF: q.fragments,
		},
		u, pt.Payload(m[:len(m)-q.truncate]))
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func text(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func v4(s string) []byte { return netip.MustParseAddr(text(s, "0.0.0.0")).AsSlice() }

// told4 is an answer as a client reads it.
type told4 struct {
	typ            uint8
	ciaddr, yiaddr string
	options        map[uint8][]byte
	frame          []byte
	size           int // of the message
}

// read4 reads an answer and checks what all of them have in common.
func read4(t *testing.T, b []byte) told4 {
	t.Helper()
	if len(b) == 0 {
		t.Fatal("no answer")
	}
	pt.Check(t, b, pt.EtherSrc(mac(gatewayMAC)), pt.EtherDst(mac(clientMAC)), pt.VLAN(),
		pt.IPv4(pt.TTL(64)), pt.UDP(pt.SrcPort(67), pt.DstPort(68)))
	m := b[headers4:]
	if m[opAt] != 2 || m[htypeAt] != 1 || m[hlenAt] != 6 || binary.BigEndian.Uint32(m[xidAt:]) != xid ||
		!bytes.Equal(m[giaddrAt:chaddrAt], make([]byte, 4)) || packet.MAC(m[chaddrAt:]) != mac(clientMAC) || len(m) < 300 {
		t.Errorf("header % x, %d bytes", m[:44], len(m))
	}
	a := told4{
		ciaddr: netip.AddrFrom4([4]byte(m[ciaddrAt:])).String(), yiaddr: netip.AddrFrom4([4]byte(m[yiaddrAt:])).String(),
		options: map[uint8][]byte{}, frame: b, size: len(m),
	}
	a.area(t, m[optionsAt:])
	if o := a.options[optOverload]; len(o) == 1 {
		if o[0]&1 != 0 {
			a.area(t, m[fileAt:fileAt+fileLen])
		}
		if o[0]&2 != 0 {
			a.area(t, m[snameAt:fileAt])
		}
	} else if !bytes.Equal(m[snameAt:magicAt], make([]byte, snameLen+fileLen)) {
		t.Error("file and sname are used, but not said to be")
	}
	a.typ = a.options[optType][0]
	return a
}

func (a *told4) area(t *testing.T, b []byte) {
	t.Helper()
	for len(b) > 0 && b[0] != optEnd {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			t.Fatalf("option cut short: % x", b)
		}
		a.options[b[0]] = append(a.options[b[0]], b[2:2+int(b[1])]...)
		b = b[2+int(b[1]):]
	}
	if len(b) == 0 {
		t.Error("no end of options")
	}
}

func ask(s *Server, b []byte, c *Client) ([]byte, Verdict) { return s.Input(nil, pt.Frame(b), c, 100) }

// TestAnswersByState is RFC 2131 §4.3.1 to §4.3.5, table 4 for the requests.
func TestAnswersByState(t *testing.T) {
	const own, other, gw = "10.44.0.20", "10.44.0.21", "10.44.0.1"
	for name, tc := range map[string]struct {
		ask     ask4
		typ     uint8 // 0: silence
		yiaddr  string
		to      string
		verdict Verdict
	}{
		"discover":                       {ask4{typ: discover}, offer, own, own, Done},
		"discover, asks for another":     {ask4{typ: discover, requested: other}, offer, own, own, Done},
		"discover, broadcast":            {ask4{typ: discover, flags: 0x8000}, offer, own, "255.255.255.255", Done},
		"selecting":                      {ask4{typ: request, requested: own, server: gw}, ack, own, own, Done},
		"selecting, broadcast":           {ask4{typ: request, requested: own, server: gw, flags: 0x8000}, ack, own, "255.255.255.255", Done},
		"selecting, other gateway addr":  {ask4{typ: request, requested: own, server: "10.45.0.1"}, ack, own, own, Done},
		"selecting, another server":      {ask4{typ: request, requested: own, server: "10.44.0.99"}, 0, "", "", Done},
		"selecting, another's address":   {ask4{typ: request, requested: other, server: gw}, nak, "0.0.0.0", "255.255.255.255", Done},
		"selecting, no address":          {ask4{typ: request, server: gw}, 0, "", "", Done},
		"init-reboot":                    {ask4{typ: request, requested: own}, ack, own, own, Done},
		"init-reboot, moved":             {ask4{typ: request, requested: "192.0.2.7"}, nak, "0.0.0.0", "255.255.255.255", Done},
		"renewing":                       {ask4{typ: request, ciaddr: own, src: own, dst: gw}, ack, own, own, Done},
		"renewing, broadcast bit":        {ask4{typ: request, ciaddr: own, src: own, dst: gw, flags: 0x8000}, ack, own, own, Done},
		"rebinding":                      {ask4{typ: request, ciaddr: own, src: own}, ack, own, own, Done},
		"rebinding, no longer its own":   {ask4{typ: request, ciaddr: other, src: other}, nak, "0.0.0.0", "255.255.255.255", Done},
		"inform":                         {ask4{typ: inform, ciaddr: own, src: own}, ack, "0.0.0.0", own, Done},
		"inform, another's address":      {ask4{typ: inform, ciaddr: other, src: other}, 0, "", "", Done},
		"decline":                        {ask4{typ: decline, requested: own, server: gw}, 0, "", "", Done},
		"release":                        {ask4{typ: release, ciaddr: own, src: own, dst: gw, server: gw}, 0, "", "", Done},
		"a server's message":             {ask4{typ: offer}, 0, "", "", Done},
		"unknown type":                   {ask4{typ: 99}, 0, "", "", Done},
		"rapid commit (RFC 4039)":        {ask4{typ: discover, options: []byte{optRapidCommit4, 0}}, ack, own, own, Done},
		"nested client":                  {ask4{typ: discover, chaddr: "02:00:00:00:00:12"}, 0, "", "", Refused},
		"nested station":                 {ask4{typ: discover, mac: "02:00:00:00:00:12"}, 0, "", "", Refused},
		"relayed":                        {ask4{typ: discover, giaddr: own}, 0, "", "", Refused},
		"on its way to another server":   {ask4{typ: request, ciaddr: own, src: own, dst: "192.0.2.1"}, 0, "", "", Pass},
		"reply":                          {ask4{typ: discover, op: new(uint8(2))}, 0, "", "", Malformed},
		"not Ethernet":                   {ask4{typ: discover, htype: new(uint8(6))}, 0, "", "", Malformed},
		"long hardware address":          {ask4{typ: discover, hlen: new(uint8(16))}, 0, "", "", Malformed},
		"no cookie":                      {ask4{typ: discover, cookie: new(uint32(1))}, 0, "", "", Malformed},
		"BOOTP":                          {ask4{}, 0, "", "", Malformed},
		"option cut short":               {ask4{typ: discover, truncate: 1, options: []byte{12, 3, 'a', 'b'}}, 0, "", "", Malformed},
		"option without length":          {ask4{typ: discover, truncate: 1, options: []byte{12}}, 0, "", "", Malformed},
		"two types":                      {ask4{typ: discover, options: []byte{optType, 1, request}}, 0, "", "", Malformed},
		"type of two bytes":              {ask4{options: []byte{optType, 2, request, 0}}, 0, "", "", Malformed},
		"requested address of two bytes": {ask4{typ: discover, options: []byte{optRequested, 2, 10, 44}}, 0, "", "", Malformed},
		"shorter than a message":         {ask4{typ: discover, truncate: 10}, 0, "", "", Malformed},
		"UDP length beyond the packet":   {ask4{typ: discover, udpLen: true}, 0, "", "", Malformed},
		"wrong UDP checksum":             {ask4{typ: discover, udpSum: true}, 0, "", "", Malformed},
		"first fragment":                 {ask4{typ: discover, fragments: true}, 0, "", "", Malformed},
		"type in the file field":         {ask4{options: []byte{optOverload, 1, 1}, file: []byte{optType, 1, discover, optEnd}}, offer, own, own, Done},
		"type in the sname field":        {ask4{options: []byte{optOverload, 1, 2}, sname: []byte{optType, 1, discover, optEnd}}, offer, own, own, Done},
		"file field cut short":           {ask4{typ: discover, options: []byte{optOverload, 1, 1}, file: []byte{12, 200}}, 0, "", "", Malformed},
		"overload within overload":       {ask4{typ: discover, options: []byte{optOverload, 1, 3}, file: []byte{optOverload, 1, 3, optEnd}, sname: []byte{optEnd}}, 0, "", "", Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			b, verdict := ask(newServer(t, Config{DHCP4: full4()}), tc.ask.bytes(), testClient())
			if verdict != tc.verdict || (len(b) == 0) != (tc.typ == 0) {
				t.Fatalf("verdict %d, %d bytes, want %d, type %d", verdict, len(b), tc.verdict, tc.typ)
			}
			if tc.typ == 0 {
				return
			}
			a := read4(t, b)
			pt.Check(t, b, pt.IPv4(pt.Src("10.44.0.1"), pt.Dst(tc.to)))
			if a.typ != tc.typ || a.yiaddr != tc.yiaddr {
				t.Errorf("type %d for %s, want %d for %s", a.typ, a.yiaddr, tc.typ, tc.yiaddr)
			}
			ciaddr := "0.0.0.0"
			if tc.typ == ack {
				ciaddr = text(tc.ask.ciaddr, ciaddr)
			}
			if a.ciaddr != ciaddr {
				t.Errorf("ciaddr %s, want %s", a.ciaddr, ciaddr)
			}
		})
	}
}

// TestEveryOption reads each option of an answer to a client that has no list.
func TestEveryOption(t *testing.T) {
	b, _ := ask(newServer(t, Config{DHCP4: full4()}), ask4{typ: discover}.bytes(), testClient())
	got := read4(t, b).options
	want := map[uint8]string{
		optType: "\x02", optServer: "\x0a\x2c\x00\x01", optLease: "\x00\x00\x04\xb0", optT1: "\x00\x00\x02\x58",
		optT2: "\x00\x00\x04\x1a", optMask: "\xff\xff\xff\x00", optRouter: "\x0a\x2c\x00\x01",
		optDNS: "\x0a\x2c\x00\x35\x0a\x2c\x00\x36", optDomain: "blue.example", optMTU4: "\x05\x78", optNTP: "\x0a\x2c\x00\x7b",
		optSearch: "\x04blue\x07example\x00\x07example\x00", optHostName: "red", optBroadcast: "\x0a\x2c\x00\xff",
		optRoutes: "\x18\xc0\x00\x02\x0a\x2c\x00\x01" + "\x18\xc6\x33\x64\x0a\x2c\x00\x09" +
			"\x20\xcb\x00\x71\x07\x00\x00\x00\x00" + "\x00\x0a\x2c\x00\x01",
	}
	for code, value := range want {
		if string(got[code]) != value {
			t.Errorf("option %d: % x, want % x", code, got[code], value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d options, want %d: %v", len(got), len(want), got)
	}
}

// TestOptionsByWish: RFC 2131 §3.5, and what needs no wish.
func TestOptionsByWish(t *testing.T) {
	s := newServer(t, Config{DHCP4: full4()})
	list := func(codes ...byte) []byte { return append([]byte{optParameters, byte(len(codes))}, codes...) }
	for name, tc := range map[string]struct {
		ask       ask4
		has, not  []uint8
		wantBytes map[uint8]string
	}{
		"list":              {ask: ask4{typ: discover, options: list(optDNS)}, has: []uint8{optMask, optDNS, optLease}, not: []uint8{optRouter, optDomain, optHostName}},
		"empty list":        {ask: ask4{typ: discover, options: list()}, has: []uint8{optMask, optLease}, not: []uint8{optDNS}},
		"list in two":       {ask: ask4{typ: discover, options: append(list(optDNS), list(optMTU4)...)}, has: []uint8{optDNS, optMTU4}, not: []uint8{optRouter}},
		"inform: no lease":  {ask: ask4{typ: inform, ciaddr: "10.44.0.20"}, has: []uint8{optMask, optDNS}, not: []uint8{optLease, optT1, optT2}},
		"nak: nothing":      {ask: ask4{typ: request, requested: "192.0.2.1"}, has: []uint8{optServer}, not: []uint8{optMask, optLease, optDNS}},
		"no rapid commit":   {ask: ask4{typ: request, requested: "10.44.0.20", options: []byte{optRapidCommit4, 0}}, not: []uint8{optRapidCommit4}},
		"rapid commit":      {ask: ask4{typ: discover, options: []byte{optRapidCommit4, 0}}, has: []uint8{optRapidCommit4, optLease}},
		"client identifier": {ask: ask4{typ: discover, options: []byte{optClientID, 3, 0, 'a', 'b'}}, wantBytes: map[uint8]string{optClientID: "\x00ab"}},
		"and in a nak (RFC 6842)": {
			ask:       ask4{typ: request, requested: "192.0.2.1", options: []byte{optClientID, 3, 255, 1, 2}},
			wantBytes: map[uint8]string{optClientID: "\xff\x01\x02"},
		},
		"its other address": {ask: ask4{typ: discover, requested: "10.45.7.7"}, wantBytes: map[uint8]string{optMask: "\xff\xff\x00\x00", optRouter: "\x0a\x2d\x00\x01"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := testClient()
			c.Addrs = append(c.Addrs, addrs("10.45.7.7")...)
			b, _ := ask(s, tc.ask.bytes(), c)
			got := read4(t, b).options
			for _, code := range tc.has {
				if _, has := got[code]; !has {
					t.Errorf("no option %d", code)
				}
			}
			for _, code := range tc.not {
				if _, has := got[code]; has {
					t.Errorf("option %d", code)
				}
			}
			for code, want := range tc.wantBytes {
				if string(got[code]) != want {
					t.Errorf("option %d: % x, want % x", code, got[code], want)
				}
			}
		})
	}
}

// TestOnlyOwnAddresses: RFC 2131 knows one address; which one, the container's
// attachment says.
func TestOnlyOwnAddresses(t *testing.T) {
	s := newServer(t, Config{DHCP4: &DHCP4{}})
	for name, tc := range map[string]struct {
		addrs  []netip.Addr
		yiaddr string // "": refused
	}{
		"first of the network's":  {addrs("fd44::20", "192.0.2.1", "10.45.0.9", "10.44.0.9"), "10.45.0.9"},
		"none":                    {nil, ""},
		"IPv6 only":               {addrs("fd44::20"), ""},
		"of no subnet":            {addrs("192.0.2.1"), ""},
		"the gateway's":           {addrs("10.44.0.1"), ""},
		"network and another one": {addrs("10.44.0.77"), "10.44.0.77"},
	} {
		t.Run(name, func(t *testing.T) {
			b, v := ask(s, ask4{typ: discover}.bytes(), &Client{MAC: mac(clientMAC), Addrs: tc.addrs})
			if tc.yiaddr == "" {
				if v != Refused || len(b) != 0 {
					t.Errorf("verdict %d, %d bytes, want refused", v, len(b))
				}
				return
			}
			if a := read4(t, b); a.yiaddr != tc.yiaddr {
				t.Errorf("got %s, want %s", a.yiaddr, tc.yiaddr)
			}
		})
	}
}

// TestSizes: RFC 2131 §2 and §4.1, RFC 2132 §9.10: options that don't fit in are
// put into file and sname, then left out.
func TestSizes(t *testing.T) {
	d := full4()
	d.Search = []string{strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example"}
	d.Routes = nil
	for i := range byte(50) {
		d.Routes = append(d.Routes, Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, i, 0}), 24)})
	}
	s := newServer(t, Config{DHCP4: d})
	maxSize := func(n uint16) []byte { return append([]byte{optMaxSize, 2}, byte(n>>8), byte(n)) }
	for name, tc := range map[string]struct {
		options []byte
		limit   int // of the message
		routes  bool
	}{
		"no size":    {nil, 548, false},
		"too small":  {maxSize(100), 548, false},
		"1000":       {maxSize(1000), 972, true},
		"beyond MTU": {maxSize(9000), 1472, true},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := ask(s, ask4{typ: discover, options: tc.options}.bytes(), testClient())
			a := read4(t, b)
			if a.size > tc.limit {
				t.Errorf("%d bytes, want %d at most", a.size, tc.limit)
			}
			if got := len(a.options[optRoutes]) == 50*8+5; got != tc.routes {
				t.Errorf("%d bytes of routes", len(a.options[optRoutes]))
			}
			for _, code := range []uint8{optMask, optRouter, optDNS, optDomain, optMTU4, optSearch} {
				if a.options[code] == nil {
					t.Errorf("no option %d", code)
				}
			}
		})
	}
}

// TestOverload fills the options with a long client identifier.
func TestOverload(t *testing.T) {
	id := append([]byte{optClientID, 255}, bytes.Repeat([]byte{7}, 255)...)
	b, _ := ask(newServer(t, Config{DHCP4: full4()}), ask4{typ: discover, options: id}.bytes(), testClient())
	a := read4(t, b)
	if o := a.options[optOverload]; len(o) != 1 || o[0] == 0 {
		t.Errorf("overload % x", o)
	}
	if a.size > 548 || len(a.options[optClientID]) != 255 || a.options[optDNS] == nil || a.options[optMask] == nil {
		t.Errorf("%d bytes, options %v", a.size, a.options)
	}
}

func TestForever4(t *testing.T) {
	b, _ := ask(newServer(t, Config{DHCP4: &DHCP4{Lease: Forever}}), ask4{typ: discover}.bytes(), testClient())
	o := read4(t, b).options
	for _, code := range []uint8{optLease, optT1, optT2} {
		if string(o[code]) != "\xff\xff\xff\xff" {
			t.Errorf("option %d: % x", code, o[code])
		}
	}
}

// TestHostNames: only what is one is told, and only if it is wanted.
func TestHostNames(t *testing.T) {
	s := newServer(t, Config{DHCP4: full4()})
	for name, told := range map[string]bool{
		"red": true, "red.blue.example": true, "": false, "a b": false, "-x": false, "x;reboot": false,
		strings.Repeat("a", 64): false, "ünix": false, "a..b": false,
	} {
		c := testClient()
		c.Name = name
		b, _ := ask(s, ask4{typ: discover}.bytes(), c)
		got, has := read4(t, b).options[optHostName]
		if has != told || told && string(got) != name {
			t.Errorf("%q: told %v %q", name, has, got)
		}
	}
}

// TestPartialChecksum: a renewal by the kernel's own socket has one.
func TestPartialChecksum(t *testing.T) {
	s := newServer(t, Config{DHCP4: &DHCP4{}})
	f := pt.Partial(ask4{typ: request, ciaddr: "10.44.0.20", src: "10.44.0.20", dst: "10.44.0.1"}.bytes())
	if b, v := s.Input(nil, f, testClient(), 1); v != Done || len(b) == 0 {
		t.Errorf("verdict %d, %d bytes", v, len(b))
	}
}

func TestCounts(t *testing.T) {
	s := newServer(t, Config{DHCP4: &DHCP4{}})
	for _, q := range []ask4{
		{typ: discover},
		{typ: request, requested: "10.44.0.20"},
		{typ: request, requested: "192.0.2.1"},
		{typ: decline, requested: "10.44.0.20", server: "10.44.0.1"},
		{typ: decline, requested: "10.44.0.20", server: "192.0.2.1"},
		{typ: release, ciaddr: "10.44.0.20", server: "10.44.0.1"},
	} {
		ask(s, q.bytes(), testClient())
	}
	if got, want := s.Stats(), (Stats{Offers: 1, Acks: 1, Naks: 1, Declines: 1, Releases: 1}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
}
