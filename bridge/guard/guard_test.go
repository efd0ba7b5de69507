// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// The container is fd44::a and 10.44.0.10 at mine, which makes its link-local
// address fe80::ff:fe00:a; other is its neighbour.
var (
	mine  = packet.MAC{2, 0, 0, 0, 0, 0x0a}
	other = packet.MAC{2, 0, 0, 0, 0, 0x0b}
)

func container() Config {
	return Config{
		Checks: All,
		MACs:   []packet.MAC{mine},
		Addrs:  []netip.Prefix{netip.MustParsePrefix("10.44.0.10/32"), netip.MustParsePrefix("fd44::a/128")},
	}
}

// icmp is an ICMPv6 message with the body after its checksum.
func icmp(typ uint8, src, dst string, body ...byte) []byte {
	return pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: pt.IP(src), Dst: pt.IP(dst), HopLimit: 255},
		pt.ICMPHdr{V6: true, Type: typ}, pt.Payload(body))
}

// about is a target and the bytes of options.
func about(addr string, options ...byte) []byte { return append(pt.IP(addr).AsSlice(), options...) }

func link(opt, last byte) []byte { return []byte{opt, 1, 2, 0, 0, 0, 0, last} }

func udp4(src string, from, to uint16) []byte {
	return pt.UDP4(pt.Packet{Src: pt.IP(src), Dst: pt.IP("255.255.255.255"), SrcPort: from, DstPort: to})
}

func udp6(from, to uint16) []byte {
	return pt.UDP6(pt.Packet{Src: pt.IP("fe80::ff:fe00:a"), Dst: pt.IP("ff02::1:2"), SrcPort: from, DstPort: to})
}

func arp(m pt.ARPMsg) []byte { return pt.Build(pt.EtherHdr{Dst: packet.Broadcast()}, m) }

func raw4(src string, proto uint8, body ...byte) []byte {
	return pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: pt.IP(src), Dst: pt.IP("224.0.0.1"), Proto: &proto}, pt.Payload(body))
}

func TestCheck(t *testing.T) {
	tag := []pt.VLANTag{{TCI: 5}}
	tests := []struct {
		name  string
		frame []byte
		want  trace.Reason
	}{
		{"TCP over IPv4", pt.TCP4(pt.Packet{}), trace.None},
		{"TCP over IPv6", pt.TCP6(pt.Packet{}), trace.None},
		{"link-local", pt.TCP6(pt.Packet{Src: pt.IP("fe80::ff:fe00:a")}), trace.None},
		{"an unknown protocol", pt.Build(pt.EtherHdr{Type: new(uint16(0x88b5))}, pt.Payload("x")), trace.None},

		{"forged MAC", pt.TCP4(pt.Packet{SrcMAC: other}), trace.GuardMAC},
		{"forged MAC of an unknown protocol", pt.Build(pt.EtherHdr{Src: other, Type: new(uint16(0x88b5))}, pt.Payload("x")), trace.GuardMAC},

		{"forged IPv4", pt.TCP4(pt.Packet{Src: pt.IP("10.44.0.11")}), trace.GuardIP},
		{"forged IPv6", pt.TCP6(pt.Packet{Src: pt.IP("fd44::b")}), trace.GuardIP},
		{"forged link-local", pt.TCP6(pt.Packet{Src: pt.IP("fe80::ff:fe00:b")}), trace.GuardIP},
		{"forged in a tag", pt.TCP4(pt.Packet{Src: pt.IP("10.44.0.11"), Tags: tag}), trace.GuardIP},
		{"no IPv4 address", pt.TCP4(pt.Packet{Src: pt.IP("0.0.0.0")}), trace.GuardIP},
		{"no IPv6 address", pt.TCP6(pt.Packet{Src: pt.IP("::")}), trace.GuardIP},
		{"mapped IPv4", pt.TCP6(pt.Packet{Src: pt.IP("::ffff:10.44.0.10")}), trace.GuardIP},
		{"later fragment, forged", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: pt.IP("10.44.0.11"), Offset: 8}, pt.Payload("12345678")), trace.GuardIP},

		{"ARP request", pt.ARPRequest(pt.Packet{}), trace.None},
		{"ARP reply", pt.ARPReply(pt.Packet{}), trace.None},
		{"ARP announcement", arp(pt.ARPMsg{TargetIP: pt.IP("10.44.0.10")}), trace.None},
		{"ARP probe", arp(pt.ARPMsg{SenderIP: pt.IP("0.0.0.0"), TargetIP: pt.IP("10.44.0.10")}), trace.None},
		{"ARP probe for another's", arp(pt.ARPMsg{SenderIP: pt.IP("0.0.0.0"), TargetIP: pt.IP("10.44.0.11")}), trace.GuardARP},
		{"ARP reply of nobody", arp(pt.ARPMsg{Op: 2, SenderIP: pt.IP("0.0.0.0"), TargetIP: pt.IP("10.44.0.10")}), trace.GuardARP},
		{"ARP sender's address forged", pt.ARPRequest(pt.Packet{Src: pt.IP("10.44.0.11")}), trace.GuardARP},
		{"ARP sender's MAC forged", arp(pt.ARPMsg{SenderMAC: other}), trace.GuardARP},
		{"ARP forged in a tag", pt.ARPReply(pt.Packet{Src: pt.IP("10.44.0.11"), Tags: tag}), trace.GuardARP},

		{"solicitation", icmp(135, "fd44::a", "ff02::1:ff00:b", about("fd44::b", link(1, 0x0a)...)...), trace.None},
		{"advertisement", icmp(136, "fd44::a", "fd44::b", about("fd44::a", link(2, 0x0a)...)...), trace.None},
		{"duplicate address detection", icmp(135, "::", "ff02::1:ff00:a", about("fd44::a")...), trace.None},
		{"router solicitation", icmp(133, "::", "ff02::2"), trace.None},
		{"detection of another's", icmp(135, "::", "ff02::1:ff00:b", about("fd44::b")...), trace.GuardND},
		{"advertisement of another's", icmp(136, "fd44::a", "ff02::1", about("fd44::b", link(2, 0x0a)...)...), trace.GuardND},
		{"target's MAC forged", icmp(136, "fd44::a", "ff02::1", about("fd44::a", link(2, 0x0b)...)...), trace.GuardND},
		{"source's MAC forged", icmp(135, "fd44::a", "ff02::1:ff00:b", about("fd44::b", link(1, 0x0b)...)...), trace.GuardND},
		{"redirect", icmp(137, "fd44::a", "fd44::b", append(about("fd44::c"), about("fd44::d")...)...), trace.GuardND},
		{"option of length zero", icmp(135, "fd44::a", "ff02::1:ff00:b", about("fd44::b", 1, 0, 2, 0, 0, 0, 0, 0x0a)...), trace.GuardND},
		{"from another's address", icmp(135, "fd44::b", "ff02::1:ff00:b", about("fd44::b")...), trace.GuardIP},

		{"router advertisement", icmp(134, "fe80::ff:fe00:a", "ff02::1", make([]byte, 8)...), trace.GuardRA},
		{"router advertisement behind options", pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoDestOpts},
			pt.ICMPHdr{V6: true, Type: 134}, pt.Payload(make([]byte, 8))), trace.GuardRA},
		{"first fragment of one", pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.FragHdr{More: true},
			pt.ICMPHdr{V6: true, Type: 134}, pt.Payload(make([]byte, 8))), trace.GuardRA},
		{"first fragment of a solicitation", pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.FragHdr{More: true},
			pt.ICMPHdr{V6: true, Type: 135}, pt.Payload(about("fd44::b"))), trace.GuardND},

		{"DHCP client", udp4("0.0.0.0", 68, 67), trace.None},
		{"DHCP client with an address", udp4("10.44.0.10", 68, 67), trace.None},
		{"DHCP server", udp4("10.44.0.10", 67, 68), trace.GuardDHCP},
		{"DHCP server on another port", udp4("10.44.0.10", 1067, 68), trace.GuardDHCP},
		{"DHCP relay", udp4("10.44.0.10", 67, 67), trace.GuardDHCP},
		{"other UDP without address", udp4("0.0.0.0", 68, 53), trace.GuardIP},
		{"TCP from port 67", pt.TCP4(pt.Packet{SrcPort: 67}), trace.None},

		{"DHCPv6 client", udp6(546, 547), trace.None},
		{"DHCPv6 server", udp6(547, 546), trace.GuardDHCP6},
		{"DHCPv6 server on another port", udp6(1547, 546), trace.GuardDHCP6},

		{"IGMP report", raw4("10.44.0.10", 2, 0x16, 0, 0, 0, 239, 1, 1, 1), trace.None},
		{"IGMP report without address", raw4("0.0.0.0", 2, 0x16, 0, 0, 0, 239, 1, 1, 1), trace.None},
		{"IGMP query", raw4("10.44.0.10", 2, 0x11, 0, 0, 0, 0, 0, 0, 0), trace.GuardQuery},
		{"PIM", raw4("10.44.0.10", 103, 0x20, 0, 0, 0), trace.GuardQuery},
		{"MLD report without address", icmp(143, "::", "ff02::16"), trace.None},
		{"MLD query", icmp(130, "fe80::ff:fe00:a", "ff02::1", about("::")...), trace.GuardQuery},
		{"multicast router advertisement", icmp(151, "fe80::ff:fe00:a", "ff02::6a"), trace.GuardQuery},
	}
	p := New(container())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := pt.Frame(tt.frame)
			if fault := f.View.Parse(f.Bytes()); fault != packet.FaultNone {
				t.Fatalf("the test's frame is faulty: %v", fault)
			}
			if got := p.Check(f); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			checkAlone(t, f, tt.want)
		})
	}
}

// checkAlone asks each guard by itself: one that is off refuses nothing, and the
// one that refused does so without the others.
func checkAlone(t *testing.T, f *packet.Frame, want trace.Reason) {
	t.Helper()
	reasons := []trace.Reason{
		trace.GuardMAC, trace.GuardIP, trace.GuardARP, trace.GuardND,
		trace.GuardRA, trace.GuardDHCP, trace.GuardDHCP6, trace.GuardQuery,
	}
	for i, r := range reasons {
		c := container()
		c.Checks = 1 << i
		got := New(c).Check(f)
		if got != trace.None && got != r || r == want && got != r {
			t.Errorf("check %#x alone: %v", c.Checks, got)
		}
		c.Checks = All &^ c.Checks
		if got := New(c).Check(f); got == r {
			t.Errorf("all but check %#x: %v", 1<<i, got)
		}
	}
}

func TestNoChecks(t *testing.T) {
	p := New(Config{MACs: []packet.MAC{other}})
	if p != nil || p.Check(pt.Frame(pt.TCP4(pt.Packet{}))) != trace.None {
		t.Error("a profile without checks refuses")
	}
}

func TestPrefixes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var prefixes []netip.Prefix
		for range rnd.IntN(4) {
			prefixes = append(prefixes, netip.PrefixFrom(randomAddr(rnd), 0))
			last := &prefixes[len(prefixes)-1]
			*last = netip.PrefixFrom(last.Addr(), rnd.IntN(last.Addr().BitLen()+1))
		}
		p := New(Config{Checks: IP, Addrs: prefixes})
		for range 30 {
			a := randomAddr(rnd)
			if len(prefixes) > 0 && rnd.IntN(2) == 0 {
				a = prefixes[rnd.IntN(len(prefixes))].Masked().Addr()
			}
			want := slices.ContainsFunc(prefixes, func(x netip.Prefix) bool { return x.Contains(a) })
			b := a.AsSlice()
			got := a.Is4() && p.has4(b) || a.Is6() && p.has6(b)
			if got != want {
				t.Fatalf("%v in %v: %v, want %v", a, prefixes, got, want)
			}
		}
	}
	if p := New(Config{Checks: IP, Addrs: make([]netip.Prefix, 1)}); len(p.v4)+len(p.v6) != 0 {
		t.Error("the zero prefix allows something")
	}
}

// randomAddr is near another one often enough.
func randomAddr(rnd *rand.Rand) netip.Addr {
	if rnd.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, byte(rnd.IntN(2)), 0, byte(rnd.IntN(8))})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(rnd.IntN(2)), 8: byte(rnd.IntN(2)), 15: byte(rnd.IntN(8))})
}

func TestCheckAllocatesNothing(t *testing.T) {
	p := New(container())
	for name, b := range map[string][]byte{
		"TCP4": pt.TCP4(pt.Packet{}), "TCP6": pt.TCP6(pt.Packet{}), "ARP": pt.ARPRequest(pt.Packet{}),
		"ND": icmp(135, "fd44::a", "ff02::1:ff00:b", about("fd44::b", link(1, 0x0a)...)...),
	} {
		f := pt.Frame(b)
		if n := testing.AllocsPerRun(100, func() { p.Check(f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Whatever the bytes, Check reads only them; and a frame that passes shows no
// foreign source.
func FuzzCheck(f *testing.F) {
	f.Add(pt.TCP4(pt.Packet{}))
	f.Add(pt.ARPReply(pt.Packet{Src: pt.IP("10.44.0.11")}))
	f.Add(icmp(136, "fd44::a", "ff02::1", about("fd44::b", link(2, 0x0a)...)...))
	f.Add(udp4("10.44.0.10", 67, 68))
	p := New(container())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > packet.MaxFrame {
			return
		}
		fr := pt.Frame(b)
		if p.Check(fr) != trace.None || fr.Len() < packet.EthernetLen {
			return
		}
		if fr.SrcMAC() != mine {
			t.Errorf("passed from %v", fr.SrcMAC())
		}
		src := fr.View.SrcAddr(fr.Bytes())
		own := []string{"10.44.0.10", "fd44::a", "fe80::ff:fe00:a", "0.0.0.0", "::"}
		if src.IsValid() && !slices.Contains(own, src.String()) {
			t.Errorf("passed from %v", src)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	p := New(container())
	for name, frame := range map[string][]byte{"TCP4": pt.TCP4(pt.Packet{}), "TCP6": pt.TCP6(pt.Packet{}), "ARP": pt.ARPRequest(pt.Packet{})} {
		f := pt.Frame(frame)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Check(f)
			}
		})
	}
}
