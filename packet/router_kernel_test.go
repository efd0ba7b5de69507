// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

// kernelRouter is a router of the kernel. On its first link is another router, .9.
type kernelRouter struct {
	near, far kt.Side
	link1     netip.Addr // link-local address of r1
	senders   uint16     // that toRouter has made up
}

func thirdMAC() packet.MAC { return packet.MAC{0x02, 0x71, 0, 0, 1, 9} }

func newKernelRouter(t *testing.T) *kernelRouter {
	t.Helper()
	kt.Enter(t)
	kt.Sysctl(t, "ipv4/icmp_ratelimit=0", "ipv4/icmp_msgs_per_sec=1000000", "ipv4/icmp_msgs_burst=1000000",
		"ipv6/icmp/ratelimit=0", "ipv6/auto_flowlabels=0")
	sides := kt.Router(t, 65535, 2)
	kt.IP(t,
		fmt.Sprintf("neigh add 10.71.1.9 lladdr %v dev r1", thirdMAC()),
		fmt.Sprintf("neigh add fe80::9 lladdr %v dev r1", thirdMAC()),
		"route add unreachable 10.72.1.0/24",
		"route add prohibit 10.72.2.0/24",
		"route add 10.72.3.0/24 via 10.71.1.9",
		"route add 10.72.4.0/24 via 10.71.2.2",
		"route add 10.73.0.0/16 via 10.71.1.2",
		"route add 240.0.0.0/4 via 10.71.2.2",
		"route add 0.1.2.0/24 via 10.71.2.2",
		"route add unreachable fd72:1::/64",
		"route add prohibit fd72:2::/64",
		"route add fd72:3::/64 via fe80::9 dev r1",
		"route add fd72:4::/64 via fd71:2::2")
	return &kernelRouter{near: sides[0], far: sides[1], link1: linkLocal(t, "r1")}
}

// linkLocal awaits the end of duplicate address detection.
func linkLocal(t *testing.T, name string) netip.Addr {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, name, err)
	for range 100 {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V6)
		must(t, "addresses", err)
		for _, a := range addrs {
			ip, _ := netip.AddrFromSlice(a.IP)
			if ip.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 {
				return ip
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s has no link-local address", name)
	return netip.Addr{}
}

// next is the next frame that the router sends to the station of a side.
func next(t *testing.T, side kt.Side) []byte {
	t.Helper()
	for {
		b := side.Receive(2 * time.Second)
		if b == nil {
			t.Fatal("nothing came")
		}
		if packet.MAC(b) == side.Station {
			return b
		}
	}
}

// toRouter is a random packet to a destination behind the router. Its source has
// a route back to the first station, and is another each time: of a source without
// limit (icmp_ratelimit 0) the kernel takes all tokens with the first error, and then
// says nothing about its routes (ip_error) for a second.
func toRouter(r *rand.Rand, k *kernelRouter, dst string, ttl uint8, maxData int) []byte {
	ether := pt.EtherHdr{Src: k.near.Station, Dst: k.near.Router}
	data := pt.Bytes(r.IntN(maxData))
	l4 := []pt.Layer{pt.UDPHdr{DstPort: uint16(r.Uint32())}, data}
	switch r.IntN(3) {
	case 0:
		l4[0] = pt.TCPHdr{Seq: r.Uint32(), Options: pt.Bytes(4 * r.IntN(11))}
	case 1:
		l4[0] = data
		l4 = l4[:1]
	}
	to := pt.IP(dst)
	if to.Is4() {
		k.senders += 40503 // odd: all of them before one comes again
		return pt.Build(append([]pt.Layer{ether, pt.IPv4Hdr{
			Src: netip.AddrFrom4([4]byte{10, 73, byte(k.senders >> 8), byte(k.senders)}), Dst: to, TTL: ttl, TOS: uint8(r.Uint32()), ID: uint16(r.Uint32()),
			Options: randomOptions(r),
		}}, l4...)...)
	}
	layers := []pt.Layer{ether, pt.IPv6Hdr{
		Src: pt.IP("fd71:1::2"), Dst: to, HopLimit: ttl, TrafficClass: uint8(r.Uint32()), FlowLabel: r.Uint32(),
	}}
	for range r.IntN(3) {
		layers = append(layers, pt.ExtHdr{Proto: packet.ProtoDestOpts, Body: []byte{1, 4, 0, 0, 0, 0}})
	}
	return pt.Build(append(layers, l4...)...)
}

// randomOptions are IPv4 options that no router has to change: no-operations,
// router alert (copied), the stream identifier (copied) and two that nobody
// knows, copied or not.
func randomOptions(r *rand.Rand) []byte {
	var b []byte
	for range r.IntN(4) {
		b = append(b, [][]byte{
			{1}, {1, 1}, {148, 4, 0, 0}, {136, 4, 1, 2}, {30, 6, 1, 2, 3, 4}, {158, 3, 9},
		}[r.IntN(6)]...)
	}
	return b
}

// TestErrorsAgreeWithKernel has the kernel's router and ours report the same
// errors. The identification is the kernel's own affair, and with it the header's
// checksum.
func TestErrorsAgreeWithKernel(t *testing.T) {
	k := newKernelRouter(t)
	kt.IP(t, "link set r2 mtu 1300")
	tests := map[string]struct {
		dst  string
		ttl  uint8
		size int // least of the frame
		df   bool
		want packet.ICMPError
	}{
		"ttl exceeded":        {"10.71.2.2", 1, 0, false, packet.ICMPError{Type: packet.ICMPTimeExceeded}},
		"host unreachable":    {"10.72.1.1", 9, 0, false, packet.ICMPError{Type: packet.ICMPUnreach, Code: packet.ICMPHostUnreach}},
		"net unreachable":     {"10.79.1.1", 9, 0, false, packet.ICMPError{Type: packet.ICMPUnreach, Code: packet.ICMPNetUnreach}},
		"prohibited":          {"10.72.2.1", 9, 0, false, packet.ICMPError{Type: packet.ICMPUnreach, Code: packet.ICMPAdminProhib}},
		"fragmentation":       {"10.72.4.1", 9, 1350, true, packet.ICMPError{Type: packet.ICMPUnreach, Code: packet.ICMPFragNeeded, Info: 1300}},
		"hop limit":           {"fd71:2::2", 1, 0, false, packet.ICMPError{Type: packet.ICMP6TimeExceeded}},
		"unreachable in ipv6": {"fd72:1::1", 9, 0, false, packet.ICMPError{Type: packet.ICMP6Unreach, Code: packet.ICMP6NoRoute}},
		"no route in ipv6":    {"fd79:1::1", 9, 0, false, packet.ICMPError{Type: packet.ICMP6Unreach, Code: packet.ICMP6NoRoute}},
		"prohibited in ipv6":  {"fd72:2::1", 9, 0, false, packet.ICMPError{Type: packet.ICMP6Unreach, Code: packet.ICMP6Prohibited}},
		"too big":             {"fd72:4::1", 9, 1350, false, packet.ICMPError{Type: packet.ICMP6TooBig, Info: 1300}},
	}
	r := rand.New(rand.NewPCG(31, 31))
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for range 40 {
				b := toRouter(r, k, tc.dst, tc.ttl, 2000)
				for len(b) < tc.size {
					b = toRouter(r, k, tc.dst, tc.ttl, 2000)
				}
				f := pt.Frame(b)
				if tc.df {
					setDF(f)
				}
				k.near.Send(f.Bytes())
				theirs := next(t, k.near)
				var ours []byte
				if f.View.Is(packet.ViewIPv4) {
					tc.want.ID = binary.BigEndian.Uint16(theirs[packet.EthernetLen+4:])
					ours = packet.AppendICMP4(ethernetBack(k, packet.EtherTypeIPv4), f, pt.IP("10.71.1.1"), tc.want)
				} else {
					ours = packet.AppendICMP6(ethernetBack(k, packet.EtherTypeIPv6), f, pt.IP("fd71:1::1"), tc.want)
				}
				sameFrame(t, f, ours, theirs)
				if !packet.MayAnswerWithICMP(f, tc.want) {
					t.Errorf("we would not have answered %s", pt.Describe(b))
				}
			}
		})
	}
}

// setDF sets the bit in the header, and makes the checksum follow.
func setDF(f *packet.Frame) {
	h := f.Bytes()[f.View.L3:f.View.L4]
	h[6] |= 0x40
	binary.BigEndian.PutUint16(h[10:], 0)
	binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h, 0))
}

func ethernetBack(k *kernelRouter, etherType uint16) []byte {
	return packet.AppendEthernet(nil, k.near.Station, k.near.Router, etherType)
}

func sameFrame(t *testing.T, about *packet.Frame, ours, theirs []byte) {
	t.Helper()
	if !bytes.Equal(ours, theirs) {
		t.Fatalf("%s\nours   %d %x\ntheirs %d %x", pt.Describe(about.Bytes()),
			len(ours), ours[:min(len(ours), 160)], len(theirs), theirs[:min(len(theirs), 160)])
	}
}

// TestRedirectsAgreeWithKernel: a kernel sends few redirects to one sender, so
// that each has another one.
func TestRedirectsAgreeWithKernel(t *testing.T) {
	k := newKernelRouter(t)
	r := rand.New(rand.NewPCG(32, 32))
	for i := range 20 {
		host := byte(20 + i)
		src := netip.AddrFrom4([4]byte{10, 71, 1, host})
		kt.IP(t, fmt.Sprintf("neigh add %v lladdr %v dev r1", src, k.near.Station))
		f := pt.Frame(pt.Build(pt.EtherHdr{Src: k.near.Station, Dst: k.near.Router},
			pt.IPv4Hdr{Src: src, Dst: pt.IP("10.72.3.1"), TTL: 9, TOS: uint8(r.Uint32())}, pt.UDPHdr{}, pt.Bytes(r.IntN(1400))))
		k.near.Send(f.Bytes())
		theirs := next(t, k.near)
		f.DecrementTTL() // ip_forward redirects after it
		e := packet.Redirect4(packet.ICMPRedirectHost, pt.IP("10.71.1.9"))
		e.ID = binary.BigEndian.Uint16(theirs[packet.EthernetLen+4:])
		sameFrame(t, f, packet.AppendICMP4(ethernetBack(k, packet.EtherTypeIPv4), f, pt.IP("10.71.1.1"), e), theirs)
	}
	for i := range 20 {
		to := pt.IP("fd71:1::").As16()
		to[15] = byte(20 + i)
		src := netip.AddrFrom16(to)
		kt.IP(t, fmt.Sprintf("neigh add %v lladdr %v dev r1", src, k.near.Station))
		dst := pt.IP("fd72:3::").As16()
		dst[15] = to[15]
		f := pt.Frame(pt.Build(pt.EtherHdr{Src: k.near.Station, Dst: k.near.Router},
			pt.IPv6Hdr{Src: src, Dst: netip.AddrFrom16(dst), HopLimit: 9}, pt.UDPHdr{}, pt.Bytes(r.IntN(1400))))
		k.near.Send(f.Bytes())
		theirs := next(t, k.near)
		ours := packet.AppendRedirect6(ethernetBack(k, packet.EtherTypeIPv6), f, k.link1, pt.IP("fe80::9"), thirdMAC())
		sameFrame(t, f, ours, theirs)
	}
}

// TestMayAnswerAgreesWithKernel asks the kernel about packets whose TTL ends at
// the router. After each comes one that is answered in any case; if its answer is
// the first, the other had none.
func TestMayAnswerAgreesWithKernel(t *testing.T) {
	k := newKernelRouter(t)
	for name, b := range answerCases(k) {
		f := pt.Frame(b)
		e := packet.ICMPError{Type: packet.ICMPTimeExceeded}
		if f.View.Is(packet.ViewIPv6) {
			e.Type = packet.ICMP6TimeExceeded
		}
		sentinel := pt.UDP4(pt.Packet{
			SrcMAC: k.near.Station, DstMAC: k.near.Router, Src: pt.IP("10.71.1.2"), Dst: pt.IP("10.71.2.2"), TTL: 1, ID: 0x5e17,
		})
		k.near.Send(b)
		k.near.Send(sentinel)
		answer := pt.Frame(next(t, k.near))
		theirs := !bytes.Contains(answer.Bytes(), sentinel[packet.EthernetLen:])
		if theirs {
			next(t, k.near)
		}
		if ours := packet.MayAnswerWithICMP(f, e); ours != theirs {
			t.Errorf("%s: we may answer: %v, the kernel: %v", name, ours, theirs)
		}
	}
}

func answerCases(k *kernelRouter) map[string][]byte {
	ether := pt.EtherHdr{Src: k.near.Station, Dst: k.near.Router}
	ip4 := pt.IPv4Hdr{Src: pt.IP("10.71.1.2"), Dst: pt.IP("10.71.2.2"), TTL: 1}
	ip6 := pt.IPv6Hdr{Src: pt.IP("fd71:1::2"), Dst: pt.IP("fd71:2::2"), HopLimit: 1}
	later4, first4 := ip4, ip4
	later4.Offset, first4.MF = 80, true
	cases := map[string][]byte{
		"udp":                    pt.Build(ether, ip4, pt.UDPHdr{}),
		"later fragment":         pt.Build(ether, later4, pt.UDPHdr{}),
		"first fragment":         pt.Build(ether, first4, pt.UDPHdr{}, pt.Bytes(16)),
		"udp in ipv6":            pt.Build(ether, ip6, pt.UDPHdr{}),
		"later fragment of ipv6": pt.Build(ether, ip6, pt.FragHdr{Offset: 80}, pt.UDPHdr{}),
		"first fragment of ipv6": pt.Build(ether, ip6, pt.FragHdr{More: true}, pt.UDPHdr{}, pt.Bytes(16)),
		"a later one of icmpv6":  pt.Build(ether, ip6, pt.FragHdr{Offset: 80}, pt.ICMPHdr{V6: true, Type: 1}),
		"error behind options":   pt.Build(ether, ip6, pt.ExtHdr{Proto: packet.ProtoDestOpts}, pt.ICMPHdr{V6: true, Type: 1}),
		"broadcast MAC":          pt.Build(pt.EtherHdr{Src: k.near.Station, Dst: packet.Broadcast()}, ip4, pt.UDPHdr{}),
		"group MAC, ipv6":        pt.Build(pt.EtherHdr{Src: k.near.Station, Dst: packet.MAC{0x33, 0x33, 0, 0, 0, 9}}, ip6, pt.UDPHdr{}),
	}
	for _, src := range []string{"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"} {
		ip := ip4
		ip.Src = pt.IP(src)
		cases["from "+src] = pt.Build(ether, ip, pt.UDPHdr{})
	}
	for _, dst := range []string{"255.255.255.255", "240.0.0.1", "224.0.0.7", "0.1.2.3"} {
		ip := ip4
		ip.Dst = pt.IP(dst)
		cases["to "+dst] = pt.Build(ether, ip, pt.UDPHdr{})
	}
	for _, src := range []string{"::", "::1", "ff02::1"} {
		ip := ip6
		ip.Src = pt.IP(src)
		cases["from "+src] = pt.Build(ether, ip, pt.UDPHdr{})
	}
	for typ := range 256 {
		cases[fmt.Sprint("icmp type ", typ)] = pt.Build(ether, ip4, pt.ICMPHdr{Type: uint8(typ)})
		if typ != packet.NDRedirect { // RFC 4443 §2.4 e.2, which the kernel doesn't know
			cases[fmt.Sprint("icmpv6 type ", typ)] = pt.Build(ether, ip6, pt.ICMPHdr{V6: true, Type: uint8(typ)})
		}
	}
	return cases
}

// TestFragmentsAgreeWithKernel forwards packets over links of all sizes: whole
// frames are compared, so TTL and MAC addresses are seen too.
func TestFragmentsAgreeWithKernel(t *testing.T) {
	k := newKernelRouter(t)
	r := rand.New(rand.NewPCG(33, 33))
	for range 60 {
		mtu := 68 + r.IntN(1<<(1+r.IntN(11)))
		kt.IP(t, fmt.Sprintf("link set r2 mtu %d", mtu))
		for range 10 {
			f := pt.Frame(toRouter(r, k, "10.72.4.1", uint8(2+r.IntN(254)), 1+min(40*mtu, 30000)))
			if r.IntN(4) == 0 {
				makeFragment(r, f)
			}
			k.near.Send(f.Bytes())
			f.DecrementTTL()
			f.SetMACs(k.far.Station, k.far.Router)
			ours := fragments(t, f, mtu)
			for _, b := range ours {
				sameFrame(t, f, b, next(t, k.far))
			}
		}
	}
}

// makeFragment makes of a packet one that has been cut before.
func makeFragment(r *rand.Rand, f *packet.Frame) {
	h := f.Bytes()[f.View.L3:f.View.L4]
	field := uint16(r.IntN(2)) << 13
	if room := (0xffff - f.View.End + f.View.L4) / 8; r.IntN(2) == 0 {
		field |= uint16(r.IntN(room))
	}
	binary.BigEndian.PutUint16(h[6:], field)
	binary.BigEndian.PutUint16(h[10:], 0)
	binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h, 0))
	f.View.Parse(f.Bytes())
}

// fragments is what the Fragmenter makes of f.
func fragments(t *testing.T, f *packet.Frame, mtu int) [][]byte {
	t.Helper()
	var g packet.Fragmenter
	if !g.Init(f, mtu) {
		t.Fatalf("can't be fragmented for %d: %s, %+v", mtu, pt.Describe(f.Bytes()), f.Vnet)
	}
	var out [][]byte
	for dst := pt.NewFrame(); g.Next(dst); {
		if dst.Vnet != (packet.Vnet{}) || dst.InPort != f.InPort {
			t.Fatalf("fragment from port %d with %+v", dst.InPort, dst.Vnet)
		}
		checkReparse(t, dst)
		out = append(out, bytes.Clone(dst.Bytes()))
	}
	if g.Next(pt.NewFrame()) {
		t.Fatal("a fragment after the last")
	}
	return out
}

// TestHopsAgreeWithKernel: a packet that fits goes on with another TTL or hop
// limit, other MAC addresses, and nothing else.
func TestHopsAgreeWithKernel(t *testing.T) {
	k := newKernelRouter(t)
	r := rand.New(rand.NewPCG(34, 34))
	for range 500 {
		dst := []string{"10.72.4.1", "fd72:4::1"}[r.IntN(2)]
		f := pt.Frame(toRouter(r, k, dst, uint8(2+r.IntN(254)), 1400))
		k.near.Send(f.Bytes())
		f.DecrementTTL()
		f.SetMACs(k.far.Station, k.far.Router)
		sameFrame(t, f, f.Bytes(), next(t, k.far))
	}
}
