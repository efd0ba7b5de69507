// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/packet"
)

// notes is a testing.TB that keeps what it is told.
type notes struct {
	testing.TB
	errors []string
}

func (n *notes) Helper() {}

func (n *notes) Logf(string, ...any) {}

func (n *notes) Errorf(format string, args ...any) {
	n.errors = append(n.errors, fmt.Sprintf(format, args...))
}

func TestChecksNameTheFieldThatDiffers(t *testing.T) {
	tcp4, udp6 := TCP4(Packet{Tags: []VLANTag{{TCI: 7}}, Payload: []byte("hello")}), UDP6(Packet{})
	arp, ping := ARPRequest(Packet{}), Ping4(Packet{ID: 9})
	wrong := Build(EtherHdr{}, IPv4Hdr{Checksum: new(uint16(1))}, UDPHdr{Checksum: new(uint16(1)), Len: new(uint16(9))})
	sctp := Build(EtherHdr{}, IPv4Hdr{}, SCTPHdr{Checksum: new(uint32(1))})
	mac := HW("02:00:00:00:00:99")
	tests := []struct {
		frame []byte
		check Checker
		want  string
	}{
		{tcp4, EtherSrc(mac), "ether.src = 02:00:00:00:00:0a, want 02:00:00:00:00:99"},
		{tcp4, EtherDst(mac), "ether.dst = 02:00:00:00:00:0b, want 02:00:00:00:00:99"},
		{nil, EtherDst(mac), "ether.dst is cut off"},
		{nil, EtherSrc(mac), "ether.src is cut off"},
		{tcp4, EtherType(0x806), "ether.type = 0x800, want 0x806"},
		{tcp4, VLAN(), "vlan.vid = [7], want []"},
		{tcp4, VLAN(7, 8), "vlan.vid = [7], want [7 8]"},
		{tcp4, Len(1), "length = 63, want 1"},
		{tcp4, Fault(packet.FaultL4), "fault = none, want l4"},
		{tcp4, IPv6(), "protocol = vlan 7 ipv4 10.44.0.10:40000 > 10.44.0.11:80 tcp ACK, want ipv6"},
		{tcp4, UDP(), "tcp ACK, want udp"},
		{tcp4, IPv4(Src("1.2.3.4")), "ipv4.src = 10.44.0.10, want 1.2.3.4"},
		{tcp4, IPv4(Dst(IP("1.2.3.4"))), "ipv4.dst = 10.44.0.11, want 1.2.3.4"},
		{tcp4, IPv4(TTL(1)), "ipv4.ttl = 64, want 1"},
		{tcp4, IPv4(TOS(1)), "ipv4.tos = 0x0, want 0x1"},
		{tcp4, IPv4(ID(1)), "ipv4.id = 0, want 1"},
		{tcp4, IPv4(Proto(1)), "ipv4.proto = 6, want 1"},
		{tcp4, IPv4(Flags(packet.ViewFragLater)), "ipv4.flags = 0x0, want 0x40"},
		{tcp4, IPv4(NoFlags(packet.ViewIPv4)), "ipv4.flags = 0x1, want 0x0"},
		{tcp4, TCP(SrcPort(1)), "tcp.src_port = 40000, want 1"},
		{tcp4, TCP(DstPort(1)), "tcp.dst_port = 80, want 1"},
		{tcp4, TCP(Seq(1)), "tcp.seq = 0, want 1"},
		{tcp4, TCP(AckNum(1)), "tcp.ack = 0, want 1"},
		{tcp4, TCP(TCPFlags(SYN | ECE)), "tcp.flags = ACK, want SYN|ECE"},
		{tcp4, Data("help!"), "data differs at byte 3"},
		{udp6, IPv6(TTL(1)), "ipv6.ttl = 64, want 1"},
		{udp6, IPv6(TOS(1)), "ipv6.tos = 0x0, want 0x1"},
		{arp, ARP(Op(2)), "arp.op = 1, want 2"},
		{arp, ARP(SenderMAC(mac)), "arp.sender_mac = 02:00:00:00:00:0a"},
		{arp, ARP(TargetMAC(mac)), "arp.target_mac = 00:00:00:00:00:00"},
		{ping, ICMP(ICMPType(0, 0)), "icmp.type = 8, want 0"},
		{ping, ICMP(ICMPType(8, 1)), "icmp.code = 0, want 1"},
		{ping, ICMP(EchoID(1)), "icmp.echo_id = 9, want 1"},
		{ping, ICMPv6(), "want icmpv6"},
		{ping, SCTP(), "want sctp"},
		{wrong, IPv4(), "ipv4.checksum is wrong: 0x0001"},
		{wrong, UDP(), "udp.length = 9, want 8"},
		{wrong, UDP(), "udp.checksum is wrong"},
		{sctp, SCTP(), "sctp.checksum is wrong"},
	}
	for _, tt := range tests {
		n := &notes{TB: t}
		Check(n, tt.frame, tt.check)
		if got := strings.Join(n.errors, "\n"); !strings.Contains(got, tt.want) {
			t.Errorf("want %q, got %q", tt.want, got)
		}
	}
}

func TestChecksPassWhatIsRight(t *testing.T) {
	p := Packet{
		SrcMAC: HW("02:00:00:00:00:01"), DstMAC: HW("02:00:00:00:00:02"), Tags: []VLANTag{{TCI: 5}}, TTL: 3,
		SrcPort: 11, DstPort: 22, Seq: 33, Ack: 44, Flags: SYN, ID: 55, Payload: []byte("data"),
	}
	p4, p6 := p, p
	p4.Src, p4.Dst = IP("192.0.2.1"), IP("192.0.2.2")
	p6.Src, p6.Dst = IP("2001:db8::1"), IP("2001:db8::2")
	ether := []Checker{EtherSrc(p.SrcMAC), EtherDst(p.DstMAC), VLAN(5), Data("data"), Fault(packet.FaultNone)}
	ip4 := IPv4(Src(p4.Src), Dst(p4.Dst), TTL(3), ID(55))
	ip6 := IPv6(Src(p6.Src), Dst(p6.Dst), TTL(3))
	tcp := TCP(SrcPort(11), DstPort(22), Seq(33), AckNum(44), TCPFlags(SYN))
	Check(t, TCP4(p4), append(ether, ip4, tcp)...)
	Check(t, TCP6(p6), append(ether, ip6, tcp)...)
	Check(t, UDP4(p4), append(ether, ip4, UDP(SrcPort(11), DstPort(22)))...)
	Check(t, UDP6(p6), append(ether, ip6, UDP(SrcPort(11), DstPort(22)))...)
	Check(t, SCTP4(p4), append(ether, ip4, SCTP(SrcPort(11), DstPort(22)))...)
	Check(t, SCTP6(p6), append(ether, ip6, SCTP(SrcPort(11), DstPort(22)))...)
	Check(t, Ping4(p4), append(ether, ip4, ICMP(ICMPType(8, 0), EchoID(55)))...)
	Check(t, Ping6(p6), append(ether, ip6, ICMPv6(ICMPType(128, 0), EchoID(55)))...)
	Check(t, ARPReply(Packet{}), ARP(Op(2), TargetMAC(HW("02:00:00:00:00:0b"))))
	Check(t, Partial(TCP4(p4)), ip4, tcp)
	Check(t, Partial(SCTP4(p4)), ip4, SCTP())
	Check(t, GSO(UDP6(p6), 2), ip6, UDP())
}

func TestDescribe(t *testing.T) {
	tests := map[string][]byte{
		"malformed ethernet":                               nil,
		"arp 10.44.0.10 > 10.44.0.11":                      ARPRequest(Packet{}),
		"vlan 3 ipv4 10.44.0.10:40000 > 10.44.0.11:80 udp": UDP4(Packet{Tags: []VLANTag{{TCI: 3}}}),
		"ipv6 [fd44::a]:40000 > [fd44::b]:80 tcp SYN|ACK":  TCP6(Packet{Flags: SYN | ACK}),
		"ipv6 [fd44::a]:40000 > [fd44::b]:80 sctp":         SCTP6(Packet{}),
		"ipv6 fd44::a > fd44::b icmp type 128 code 0":      Ping6(Packet{}),
		"ipv4 10.44.0.10 > 10.44.0.11 proto 89":            Build(EtherHdr{}, IPv4Hdr{Proto: new(uint8(89))}),
		"type 0x88cc":                                      Build(EtherHdr{Type: new(uint16(0x88cc))}),
	}
	for want, b := range tests {
		if got := Describe(b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestRandomIsMostlyValidAndReachesEverything: a generator that makes only
// rubbish, or leaves a kind out, would let its users believe too much.
func TestRandomIsMostlyValidAndReachesEverything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	const n = 10_000
	faults, flags, protos := map[packet.Fault]int{}, packet.ViewFlags(0), map[uint8]bool{}
	for range n {
		b := Random(r)
		if len(b) > 9014 {
			t.Fatalf("%d bytes", len(b))
		}
		var v packet.View
		faults[v.Parse(b)]++
		flags |= v.Flags
		protos[v.Proto] = true
	}
	if faults[packet.FaultNone] < n*7/10 {
		t.Errorf("too few are valid: %v", faults)
	}
	if want := packet.ViewRouted<<1 - 1; flags&want != want {
		t.Errorf("some flag never comes: %#x", flags)
	}
	for _, p := range []uint8{1, 6, 17, 58, 132} {
		if !protos[p] {
			t.Errorf("protocol %d never comes", p)
		}
	}
}

func TestMutateReachesEveryFault(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	faults := map[packet.Fault]int{}
	for range 10_000 {
		b := Random(r)
		keep := string(b)
		m := Mutate(r, b)
		if string(b) != keep {
			t.Fatal("the original was changed")
		}
		if len(m) > len(b)+64 {
			t.Fatalf("%d bytes became %d", len(b), len(m))
		}
		faults[new(packet.View).Parse(m)]++
	}
	for f := packet.FaultNone; f.String() != "unknown"; f++ {
		if faults[f] == 0 {
			t.Errorf("no mutation gives %v: %v", f, faults)
		}
	}
}

func TestSameSeedSameFrames(t *testing.T) {
	a, b := rand.New(rand.NewPCG(3, 3)), rand.New(rand.NewPCG(3, 3))
	for range 100 {
		x, y := Random(a), Random(b)
		if string(Mutate(a, x)) != string(Mutate(b, y)) || RandomVnet(a, 100) != RandomVnet(b, 100) {
			t.Fatal("two frames from one seed")
		}
	}
}
