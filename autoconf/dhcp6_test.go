// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// o6 is one option, or several.
func o6(code uint16, parts ...any) []byte {
	var data []byte
	for _, p := range parts {
		switch v := p.(type) {
		case []byte:
			data = append(data, v...)
		case string:
			data = append(data, netip.MustParseAddr(v).AsSlice()...)
		case uint32:
			data = binary.BigEndian.AppendUint32(data, v)
		case int:
			data = binary.BigEndian.AppendUint16(data, uint16(v))
		}
	}
	b := binary.BigEndian.AppendUint16(nil, code)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
}

var (
	clientID = o6(opt6ClientID, []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 0x11})
	serverID = o6(opt6ServerID, []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 1})
	otherID  = o6(opt6ServerID, []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 9})
	rapid    = o6(opt6RapidCommit)
)

// na is an IA_NA with addresses.
func na(id uint32, list ...string) []byte {
	parts := []any{id, uint32(0), uint32(0)}
	for _, a := range list {
		parts = append(parts, o6(opt6Addr, a, uint32(1), uint32(2)))
	}
	return o6(opt6NA, parts...)
}

func pd(id uint32) []byte { return o6(opt6PD, id, uint32(0), uint32(0)) }

// ask6 is a client's message in words.
type ask6 struct {
	typ      uint8
	options  [][]byte
	src, dst string
	mac      string
	udpSum   *uint16
	truncate int
}

func (q ask6) bytes() []byte {
	m := []byte{q.typ, 0xa, 0xb, 0xc}
	for _, o := range q.options {
		m = append(m, o...)
	}
	return pt.Build(
		pt.EtherHdr{Src: mac(text(q.mac, clientMAC)), Dst: packet.MAC{0x33, 0x33, 0, 1, 0, 2}},
		pt.IPv6Hdr{Src: netip.MustParseAddr(text(q.src, clientLocal)), Dst: netip.MustParseAddr(text(q.dst, "ff02::1:2"))},
		pt.UDPHdr{SrcPort: clientPort6, DstPort: serverPort6, Checksum: q.udpSum},
		pt.Payload(m[:len(m)-q.truncate]))
}

// read6 is an answer in words: its type, then its options in order.
func read6(t *testing.T, b []byte) string {
	t.Helper()
	pt.Check(t, b, pt.EtherSrc(mac(gatewayMAC)), pt.EtherDst(mac(clientMAC)), pt.VLAN(),
		pt.IPv6(pt.Src(gatewayLocal), pt.Dst(clientLocal)), pt.UDP(pt.SrcPort(547), pt.DstPort(546)))
	m := b[headers6+packet.UDPLen:]
	if m[1] != 0xa || m[2] != 0xb || m[3] != 0xc {
		t.Errorf("transaction % x", m[1:4])
	}
	kind := map[uint8]string{2: "advertise", 7: "reply"}[m[0]]
	return kind + words6(t, m[4:])
}

func words6(t *testing.T, b []byte) string {
	t.Helper()
	var said strings.Builder
	for code, d := range options6(b) {
		if d == nil {
			t.Fatalf("option cut short in % x", b)
		}
		u32 := func(at int) uint32 { return binary.BigEndian.Uint32(d[at:]) }
		switch code {
		case opt6ClientID:
			said.WriteString(" client")
		case opt6ServerID:
			said.WriteString(" server")
		case opt6Preference:
			fmt.Fprintf(&said, " preference=%d", d[0])
		case opt6RapidCommit:
			said.WriteString(" rapid")
		case opt6Status:
			fmt.Fprintf(&said, " status=%d", binary.BigEndian.Uint16(d))
		case opt6Addr:
			fmt.Fprintf(&said, " %v/%d/%d", netip.AddrFrom16([16]byte(d)), u32(16), u32(20))
		case opt6NA, opt6PD:
			fmt.Fprintf(&said, " ia%d:%d[%d/%d%s]", code, u32(0), u32(4), u32(8), words6(t, d[12:]))
		default:
			fmt.Fprintf(&said, " %d=%x", code, d)
		}
	}
	return said.String()
}

// TestExchanges6 is RFC 8415 §18.3 and §16.
func TestExchanges6(t *testing.T) {
	none := o6(opt6Request, 0xffff) // wants nothing that there is
	const given = "[600/960 fd44::20/1200/2400 fd45::20/1200/2400]"
	for name, tc := range map[string]struct {
		ask     ask6
		want    string
		verdict Verdict
	}{
		"solicit":                    {ask6{typ: solicit6, options: [][]byte{clientID, na(7), none}}, "advertise client server preference=255 ia3:7" + given, Done},
		"solicit, rapid commit":      {ask6{typ: solicit6, options: [][]byte{clientID, rapid, na(7), none}}, "reply client server rapid ia3:7" + given, Done},
		"solicit, two IAs":           {ask6{typ: solicit6, options: [][]byte{clientID, na(7), na(8), none}}, "advertise client server preference=255 ia3:7" + given + " ia3:8[0/0 status=2]", Done},
		"solicit, prefix":            {ask6{typ: solicit6, options: [][]byte{clientID, pd(9), na(7), none}}, "advertise client server preference=255 ia25:9[0/0 status=6] ia3:7" + given, Done},
		"solicit, hint of another":   {ask6{typ: solicit6, options: [][]byte{clientID, na(7, "fd44::99"), none}}, "advertise client server preference=255 ia3:7" + given, Done},
		"solicit with server":        {ask6{typ: solicit6, options: [][]byte{clientID, serverID, na(7)}}, "", Malformed},
		"solicit without client":     {ask6{typ: solicit6, options: [][]byte{na(7)}}, "", Malformed},
		"solicit, unicast":           {ask6{typ: solicit6, dst: gatewayLocal, options: [][]byte{clientID, na(7)}}, "", Done},
		"request":                    {ask6{typ: request6, options: [][]byte{clientID, serverID, na(7, "fd44::20"), none}}, "reply client server ia3:7" + given, Done},
		"request, other link":        {ask6{typ: request6, options: [][]byte{clientID, serverID, na(7, "2001:db8::1"), none}}, "reply client server ia3:7[0/0 status=4]", Done},
		"request, another server":    {ask6{typ: request6, options: [][]byte{clientID, otherID, na(7), none}}, "", Done},
		"request without server":     {ask6{typ: request6, options: [][]byte{clientID, na(7)}}, "", Malformed},
		"request, unicast":           {ask6{typ: request6, dst: "fd44::1", options: [][]byte{clientID, serverID, na(7)}}, "reply client server status=5", Done},
		"confirm":                    {ask6{typ: confirm6, options: [][]byte{clientID, na(7, "fd44::20")}}, "reply client server status=0", Done},
		"confirm, moved":             {ask6{typ: confirm6, options: [][]byte{clientID, na(7, "fd44::20", "fd99::1")}}, "reply client server status=4", Done},
		"confirm without addresses":  {ask6{typ: confirm6, options: [][]byte{clientID, na(7)}}, "", Done},
		"renew":                      {ask6{typ: renew6, options: [][]byte{clientID, serverID, na(7, "fd44::20", "fd45::20"), none}}, "reply client server ia3:7" + given, Done},
		"renew, one gone":            {ask6{typ: renew6, options: [][]byte{clientID, serverID, na(7, "fd44::99"), none}}, "reply client server ia3:7[600/960 fd44::20/1200/2400 fd45::20/1200/2400 fd44::99/0/0]", Done},
		"renew, prefix":              {ask6{typ: renew6, options: [][]byte{clientID, serverID, pd(1), none}}, "reply client server ia25:1[0/0 status=3]", Done},
		"rebind":                     {ask6{typ: rebind6, options: [][]byte{clientID, na(7, "fd44::20"), none}}, "reply client server ia3:7" + given, Done},
		"rebind with server":         {ask6{typ: rebind6, options: [][]byte{clientID, serverID, na(7)}}, "", Malformed},
		"release":                    {ask6{typ: release6, options: [][]byte{clientID, serverID, na(7, "fd44::20")}}, "reply client server status=0", Done},
		"release of another's":       {ask6{typ: release6, options: [][]byte{clientID, serverID, na(7, "fd44::99")}}, "reply client server ia3:7[0/0 status=3] status=0", Done},
		"decline":                    {ask6{typ: decline6, options: [][]byte{clientID, serverID, na(7, "fd44::20")}}, "reply client server status=0", Done},
		"information":                {ask6{typ: information6, options: [][]byte{none}}, "reply server", Done},
		"information, one option":    {ask6{typ: information6, options: [][]byte{clientID, o6(opt6Request, opt6DNS)}}, "reply client server 23=fd440000000000000000000000000053", Done},
		"information, refresh":       {ask6{typ: information6, options: [][]byte{o6(opt6Request, opt6Refresh)}}, "reply server 32=00001c20", Done},
		"information, other server":  {ask6{typ: information6, options: [][]byte{otherID}}, "", Done},
		"information with IA":        {ask6{typ: information6, options: [][]byte{clientID, na(7)}}, "", Malformed},
		"advertise":                  {ask6{typ: advertise6, options: [][]byte{clientID, serverID}}, "", Malformed},
		"relayed":                    {ask6{typ: 12}, "", Malformed},
		"from a global address":      {ask6{typ: solicit6, src: "fd44::20", options: [][]byte{clientID, na(7)}}, "", Refused},
		"nested station":             {ask6{typ: solicit6, mac: "02:00:00:00:00:12", options: [][]byte{clientID, na(7)}}, "", Refused},
		"on its way":                 {ask6{typ: solicit6, dst: "fd99::1", options: [][]byte{clientID}}, "", Pass},
		"to all servers of the site": {ask6{typ: solicit6, dst: "ff05::1:3", options: [][]byte{clientID}}, "", Pass},
		"no message":                 {ask6{truncate: 1}, "", Malformed},
		"option cut short":           {ask6{typ: solicit6, truncate: 1, options: [][]byte{clientID, na(7)}}, "", Malformed},
		"half an option's head":      {ask6{typ: solicit6, options: [][]byte{clientID, {0, 3, 0}}}, "", Malformed},
		"IA cut short":               {ask6{typ: solicit6, options: [][]byte{clientID, o6(opt6NA, uint32(1))}}, "", Malformed},
		"address cut short":          {ask6{typ: solicit6, options: [][]byte{clientID, o6(opt6NA, uint32(1), uint32(0), uint32(0), o6(opt6Addr, "fd44::1"))}}, "", Malformed},
		"option in IA cut short":     {ask6{typ: solicit6, options: [][]byte{clientID, o6(opt6NA, uint32(1), uint32(0), uint32(0), []byte{0, 5, 0, 99})}}, "", Malformed},
		"two clients":                {ask6{typ: solicit6, options: [][]byte{clientID, clientID}}, "", Malformed},
		"client without name":        {ask6{typ: solicit6, options: [][]byte{o6(opt6ClientID)}}, "", Malformed},
		"client's name too long":     {ask6{typ: solicit6, options: [][]byte{o6(opt6ClientID, make([]byte, 131))}}, "", Malformed},
		"odd option request":         {ask6{typ: solicit6, options: [][]byte{clientID, o6(opt6Request, []byte{0, 23, 0})}}, "", Malformed},
		"nine IAs":                   {ask6{typ: solicit6, options: [][]byte{clientID, na(1), na(2), na(3), na(4), na(5), na(6), na(7), na(8), na(9)}}, "", Malformed},
		"wrong checksum":             {ask6{typ: solicit6, udpSum: new(uint16(0xbad)), options: [][]byte{clientID, na(7)}}, "", Malformed},
		"no checksum":                {ask6{typ: solicit6, udpSum: new(uint16(0)), options: [][]byte{clientID, na(7)}}, "", Malformed},
		"temporary addresses":        {ask6{typ: solicit6, options: [][]byte{clientID, o6(opt6TA, uint32(5)), na(7), none}}, "advertise client server preference=255 ia3:7" + given, Done},
	} {
		t.Run(name, func(t *testing.T) {
			c := testClient()
			c.Addrs = addrs("10.44.0.20", "fe80::1", "fd44::20", "fd45::20")
			b, verdict := ask(newServer(t, Config{DHCP6: full6()}), tc.ask.bytes(), c)
			got := ""
			if len(b) > 0 {
				got = read6(t, b)
			}
			if got != tc.want || verdict != tc.verdict {
				t.Errorf("verdict %d, %q\nwant %d, %q", verdict, got, tc.verdict, tc.want)
			}
		})
	}
}

// TestNothingToGive: a client without IPv6 addresses, and one of a network that
// gives none.
func TestNothingToGive(t *testing.T) {
	stateless := full6()
	stateless.Stateless = true
	none := o6(opt6Request, 0xffff)
	for name, tc := range map[string]struct {
		config *DHCP6
		ask    ask6
		want   string
	}{
		"solicit, rapid":   {full6(), ask6{typ: solicit6, options: [][]byte{clientID, rapid, na(7), none}}, "advertise client server preference=255 ia3:7[0/0 status=2]"},
		"request":          {full6(), ask6{typ: request6, options: [][]byte{clientID, serverID, na(7), none}}, "reply client server ia3:7[0/0 status=2]"},
		"renew":            {full6(), ask6{typ: renew6, options: [][]byte{clientID, serverID, na(7, "fd44::20"), none}}, "reply client server ia3:7[0/0 status=3]"},
		"confirm":          {full6(), ask6{typ: confirm6, options: [][]byte{clientID, na(7, "fd44::20")}}, "reply client server status=4"},
		"stateless":        {stateless, ask6{typ: solicit6, options: [][]byte{clientID, na(7), none}}, "advertise client server preference=255 ia3:7[0/0 status=2]"},
		"stateless, asked": {stateless, ask6{typ: information6, options: [][]byte{clientID, none}}, "reply client server"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testClient()
			if tc.config != stateless {
				c.Addrs = addrs("10.44.0.20")
			}
			b, _ := ask(newServer(t, Config{DHCP6: tc.config}), tc.ask.bytes(), c)
			if got := read6(t, b); got != tc.want {
				t.Errorf("%q\nwant %q", got, tc.want)
			}
		})
	}
}

// TestEveryOption6 reads each option of an answer to a client that has no list.
func TestEveryOption6(t *testing.T) {
	b, _ := ask(newServer(t, Config{DHCP6: full6()}), ask6{typ: information6}.bytes(), testClient())
	const want = "reply server 32=00001c20 23=fd440000000000000000000000000053" +
		" 24=04626c7565076578616d706c6500076578616d706c6500" +
		" 56=00010010fd440000000000000000000000000123 31=fd440000000000000000000000000123"
	if got := read6(t, b); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// TestFits6: the longest answer is within the smallest MTU.
func TestFits6(t *testing.T) {
	d := full6()
	d.Search = []string{strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63)}
	l := testLink()
	l.MTU = 1280
	s := New(1)
	for i := range byte(8) {
		a := netip.AddrFrom16([16]byte{0: 0xfd, 15: i})
		if i > 0 {
			d.DNS, d.NTP = append(d.DNS, a), append(d.NTP, a)
		}
	}
	apply(t, s, l, Config{DHCP6: d})
	c := testClient()
	var theirs []string
	for i := range 20 {
		c.Addrs = append(c.Addrs, netip.MustParseAddr(fmt.Sprintf("fd44::a:%d", i)))
		theirs = append(theirs, fmt.Sprintf("fd99::%d", i))
	}
	q := ask6{typ: renew6, options: [][]byte{
		o6(opt6ClientID, make([]byte, 130)), serverID,
		na(1, theirs[:8]...), na(2), na(3), na(4), na(5), na(6), na(7), na(8),
	}}
	b, v := ask(s, q.bytes(), c)
	if v != Done || len(b) < 1000 || len(b) > 1280+packet.EthernetLen {
		t.Errorf("verdict %d, %d bytes", v, len(b))
	}
	got := read6(t, b)
	for _, want := range []string{"fd44::a:6/1200/2400 fd99::/0/0", "fd99::7/0/0]", "ia3:8[0/0 status=3]", "23="} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

func TestForever6(t *testing.T) {
	b, _ := ask(newServer(t, Config{DHCP6: &DHCP6{Preferred: Forever}}), ask6{typ: solicit6, options: [][]byte{clientID, na(7)}}.bytes(), testClient())
	const want = "advertise client server preference=255 ia3:7[4294967295/4294967295 fd44::20/4294967295/4294967295]"
	if got := read6(t, b); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestCounts6(t *testing.T) {
	s := newServer(t, Config{DHCP6: &DHCP6{}})
	for _, typ := range []uint8{request6, release6, decline6} {
		ask(s, ask6{typ: typ, options: [][]byte{clientID, serverID, na(7, "fd44::20")}}.bytes(), testClient())
	}
	ask(s, ask6{typ: release6, dst: gatewayLocal, options: [][]byte{clientID, serverID, na(7)}}.bytes(), testClient())
	ask(s, ask6{typ: solicit6, options: [][]byte{clientID, na(7)}}.bytes(), testClient())
	if got, want := s.Stats(), (Stats{Releases: 1, Declines: 1, Advertises6: 1, Replies6: 4}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
}
