// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestParseFindsTheHeaders(t *testing.T) {
	tests := []struct {
		name string
		b    []byte
		want packet.View
	}{
		{
			"ethernet header only",
			pt.Build(pt.EtherHdr{Type: new(uint16(0x88cc))}),
			packet.View{EtherType: 0x88cc, L3: 14, L4: 14, End: 14},
		},
		{
			"802.3 length frame is left as LLC",
			pt.Build(pt.EtherHdr{}, pt.Payload("\x42\x42\x03")),
			packet.View{EtherType: 3, L3: 14, L4: 14, End: 17, Flags: packet.ViewLLC},
		},
		{
			"arp with ethernet padding",
			append(pt.ARPRequest(pt.Packet{}), make([]byte, 18)...),
			packet.View{
				EtherType: packet.EtherTypeARP, L3: 14, L4: 14, End: 42,
				Flags: packet.ViewARP | packet.ViewTrailer,
			},
		},
		{
			"tcp in ipv4",
			pt.TCP4(pt.Packet{SrcPort: 1234, DstPort: 443, Payload: pt.Bytes(10)}),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoTCP, L3: 14, L4: 34, End: 64,
				Flags: packet.ViewIPv4 | packet.ViewHasL4, SrcPort: 1234, DstPort: 443,
			},
		},
		{
			"udp in ipv4 with options",
			pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Options: []byte{1, 1, 1}}, pt.UDPHdr{DstPort: 53}),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoUDP, L3: 14, L4: 38, End: 46,
				Flags: packet.ViewIPv4 | packet.ViewHasL4 | packet.ViewIPOptions, SrcPort: 40000, DstPort: 53,
			},
		},
		{
			"udp whose length field lies",
			pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.UDPHdr{Len: new(uint16(9999))}),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoUDP, L3: 14, L4: 34, End: 42,
				Flags: packet.ViewIPv4 | packet.ViewHasL4, SrcPort: 40000, DstPort: 80,
			},
		},
		{
			"sctp in ipv6",
			pt.SCTP6(pt.Packet{SrcPort: 5, DstPort: 6}),
			packet.View{
				EtherType: packet.EtherTypeIPv6, Proto: packet.ProtoSCTP, L3: 14, L4: 54, End: 66,
				Flags: packet.ViewIPv6 | packet.ViewHasL4, SrcPort: 5, DstPort: 6,
			},
		},
		{
			"ping shows type, code and identifier as ports",
			pt.Ping4(pt.Packet{ID: 77}),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoICMP, L3: 14, L4: 34, End: 42,
				Flags: packet.ViewIPv4 | packet.ViewHasL4, SrcPort: 8 << 8, DstPort: 77,
			},
		},
		{
			"icmp error has no identifier",
			pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.ICMPHdr{Type: 3, Code: 4, ID: 99}),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoICMP, L3: 14, L4: 34, End: 42,
				Flags: packet.ViewIPv4 | packet.ViewHasL4, SrcPort: 3<<8 | 4,
			},
		},
		{
			"ping of ipv6",
			pt.Ping6(pt.Packet{ID: 78}),
			packet.View{
				EtherType: packet.EtherTypeIPv6, Proto: packet.ProtoICMPv6, L3: 14, L4: 54, End: 62,
				Flags: packet.ViewIPv6 | packet.ViewHasL4, SrcPort: 128 << 8, DstPort: 78,
			},
		},
		{
			"icmp in ipv6 is no icmp",
			pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ICMPHdr{Type: 8}),
			packet.View{
				EtherType: packet.EtherTypeIPv6, Proto: packet.ProtoICMP, L3: 14, L4: 54, End: 62,
				Flags: packet.ViewIPv6,
			},
		},
		{
			"unknown protocol",
			pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Proto: new(uint8(89))}, pt.Payload("x")),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: 89, L3: 14, L4: 34, End: 35, Flags: packet.ViewIPv4,
			},
		},
		{
			"no next header",
			pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}),
			packet.View{
				EtherType: packet.EtherTypeIPv6, Proto: packet.ProtoNoNext, L3: 14, L4: 54, End: 54,
				Flags: packet.ViewIPv6,
			},
		},
		{
			"two tags, outer first",
			pt.TCP4(pt.Packet{Tags: []pt.VLANTag{{TPID: packet.EtherTypeQinQ, TCI: 0xa001}, {TCI: 7}}}),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoTCP, L3: 22, L4: 42, End: 62,
				Flags: packet.ViewIPv4 | packet.ViewHasL4, SrcPort: 40000, DstPort: 80, Tags: 2,
				TPID: [2]uint16{packet.EtherTypeQinQ, packet.EtherTypeVLAN}, TCI: [2]uint16{0xa001, 7},
			},
		},
		{
			"first fragment keeps its ports",
			pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true}, pt.UDPHdr{}, pt.Bytes(8)),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoUDP, L3: 14, L4: 34, End: 50,
				Flags:   packet.ViewIPv4 | packet.ViewHasL4 | packet.ViewFragFirst,
				SrcPort: 40000, DstPort: 80,
			},
		},
		{
			"later fragment has no ports",
			pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Offset: 8, Proto: new(uint8(packet.ProtoUDP))}, pt.Bytes(8)),
			packet.View{
				EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoUDP, L3: 14, L4: 34, End: 42,
				Flags: packet.ViewIPv4 | packet.ViewFragLater,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got packet.View
			if fault := got.Parse(tt.b); fault != packet.FaultNone {
				t.Fatalf("fault %v in %x", fault, tt.b)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("view (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseWalksExtensionHeaders(t *testing.T) {
	hopByHop := pt.ExtHdr{Proto: packet.ProtoHopByHop}
	destOpts := pt.ExtHdr{Proto: packet.ProtoDestOpts, Body: make([]byte, 14)}
	routing := pt.ExtHdr{Proto: packet.ProtoRouting, Body: []byte{2, 1}}
	auth := pt.ExtHdr{Proto: packet.ProtoAH, Body: make([]byte, 22)}
	tests := []struct {
		name  string
		chain []pt.Layer
		l4    int
		flags packet.ViewFlags
		proto uint8
	}{
		{"hop by hop", []pt.Layer{hopByHop}, 62, packet.ViewHasL4, packet.ProtoTCP},
		{
			"every kind in the order of RFC 8200",
			[]pt.Layer{hopByHop, destOpts, routing, pt.FragHdr{}, auth, destOpts},
			54 + 8 + 16 + 8 + 8 + 24 + 16, packet.ViewHasL4 | packet.ViewRouted, packet.ProtoTCP,
		},
		{"atomic fragment is whole", []pt.Layer{pt.FragHdr{}}, 62, packet.ViewHasL4, packet.ProtoTCP},
		{"first fragment", []pt.Layer{pt.FragHdr{More: true}}, 62, packet.ViewHasL4 | packet.ViewFragFirst, packet.ProtoTCP},
		{"first fragment with options behind", []pt.Layer{pt.FragHdr{More: true}, destOpts}, 78, packet.ViewHasL4 | packet.ViewFragFirst, packet.ProtoTCP},
		{"later fragment", []pt.Layer{pt.FragHdr{Offset: 1480}}, 62, packet.ViewFragLater, packet.ProtoTCP},
		{"later fragment of options", []pt.Layer{pt.FragHdr{Offset: 1480}, destOpts}, 62, packet.ViewFragLater, packet.ProtoDestOpts},
		{"eight headers", slices.Repeat([]pt.Layer{destOpts}, 8), 54 + 8*16, packet.ViewHasL4, packet.ProtoTCP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			layers := slices.Concat([]pt.Layer{pt.EtherHdr{}, pt.IPv6Hdr{}}, tt.chain, []pt.Layer{pt.TCPHdr{}})
			var v packet.View
			if fault := v.Parse(pt.Build(layers...)); fault != packet.FaultNone {
				t.Fatalf("fault %v", fault)
			}
			want := packet.ViewIPv6 | packet.ViewExtHdrs | tt.flags
			if v.L4 != tt.l4 || v.Flags != want || v.Proto != tt.proto {
				t.Errorf("L4 %d flags %#x proto %d, want %d %#x %d", v.L4, v.Flags, v.Proto, tt.l4, want, tt.proto)
			}
		})
	}
}

func TestParseNamesTheFault(t *testing.T) {
	tcp4, tcp6 := pt.TCP4(pt.Packet{}), pt.TCP6(pt.Packet{})
	v4 := func(h pt.IPv4Hdr) []byte { return pt.Build(pt.EtherHdr{}, h, pt.TCPHdr{}) }
	v6 := func(h pt.IPv6Hdr, chain ...pt.Layer) []byte {
		return pt.Build(slices.Concat([]pt.Layer{pt.EtherHdr{}, h}, chain, []pt.Layer{pt.TCPHdr{}})...)
	}
	tags := func(n int) []byte { return pt.TCP4(pt.Packet{Tags: make([]pt.VLANTag, n)}) }
	destOpts := pt.ExtHdr{Proto: packet.ProtoDestOpts}
	hopByHop := pt.ExtHdr{Proto: packet.ProtoHopByHop}
	tests := []struct {
		name string
		b    []byte
		want packet.Fault
	}{
		{"nothing at all", nil, packet.FaultEthernet},
		{"13 bytes", tcp4[:13], packet.FaultEthernet},
		{"three tags", tags(3), packet.FaultVLAN},
		{"tag cut off", tags(1)[:17], packet.FaultVLAN},
		{"second tag cut off", tags(2)[:21], packet.FaultVLAN},
		{"arp cut off", pt.ARPRequest(pt.Packet{})[:41], packet.FaultARP},
		{"arp of another network", pt.Build(pt.EtherHdr{}, pt.ARPMsg{Hardware: new(uint16(6))}), packet.FaultARP},
		{"arp of another protocol", pt.Build(pt.EtherHdr{}, pt.ARPMsg{Protocol: new(uint16(0x86dd))}), packet.FaultARP},
		{"arp with long addresses", pt.Build(pt.EtherHdr{}, pt.ARPMsg{HardwareLen: new(uint8(8))}), packet.FaultARP},
		{"ipv4 cut off", tcp4[:33], packet.FaultIPv4},
		{"ipv4 with version 6", v4(pt.IPv4Hdr{Version: new(uint8(6))}), packet.FaultIPv4},
		{"ipv4 with a header of 16 bytes", v4(pt.IPv4Hdr{IHL: new(uint8(4))}), packet.FaultIPv4},
		{"ipv4 header longer than the packet", v4(pt.IPv4Hdr{IHL: new(uint8(15))}), packet.FaultIPv4},
		{"ipv4 longer than the frame", v4(pt.IPv4Hdr{TotalLen: new(uint16(41))}), packet.FaultIPv4},
		{"ipv4 shorter than its header", v4(pt.IPv4Hdr{TotalLen: new(uint16(19))}), packet.FaultIPv4},
		{"ipv4 with total length 0 (BIG TCP)", v4(pt.IPv4Hdr{TotalLen: new(uint16(0))}), packet.FaultIPv4},
		{"ipv4 fragment beyond 65535", v4(pt.IPv4Hdr{Offset: 65528}), packet.FaultIPv4},
		{"ipv6 cut off", tcp6[:53], packet.FaultIPv6},
		{"ipv6 with version 4", v6(pt.IPv6Hdr{Version: new(uint8(4))}), packet.FaultIPv6},
		{"ipv6 longer than the frame", v6(pt.IPv6Hdr{PayloadLen: new(uint16(21))}), packet.FaultIPv6},
		{"ipv6 fragment beyond 65535", v6(pt.IPv6Hdr{}, pt.FragHdr{Offset: 65528}), packet.FaultIPv6},
		{"ipv6 jumbogram", v6(pt.IPv6Hdr{PayloadLen: new(uint16(0))}, hopByHop), packet.FaultExtHdr},
		{"nine extension headers", v6(pt.IPv6Hdr{}, slices.Repeat([]pt.Layer{destOpts}, 9)...), packet.FaultExtHdr},
		{"hop by hop is not first", v6(pt.IPv6Hdr{}, destOpts, hopByHop), packet.FaultExtHdr},
		{"fragment of an atomic fragment", v6(pt.IPv6Hdr{}, pt.FragHdr{}, pt.FragHdr{}), packet.FaultExtHdr},
		{"extension header beyond the packet", v6(pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoDestOpts, Len: new(uint8(9))}), packet.FaultExtHdr},
		{"authentication header beyond the packet", v6(pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoAH, Len: new(uint8(40))}), packet.FaultExtHdr},
		{"extension header announced, none there", pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Next: new(uint8(packet.ProtoFragment))}), packet.FaultExtHdr},
		{"tcp cut off", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Proto: new(uint8(6))}, pt.Bytes(19)), packet.FaultL4},
		{"tcp with data offset 4", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{DataOffset: new(uint8(4))}), packet.FaultL4},
		{"tcp options beyond the packet", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{DataOffset: new(uint8(6))}), packet.FaultL4},
		{"tcp only in the ethernet padding", append(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Proto: new(uint8(6))}), make([]byte, 40)...), packet.FaultL4},
		{"udp cut off", pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Next: new(uint8(17))}, pt.Bytes(7)), packet.FaultL4},
		{"sctp cut off", pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Next: new(uint8(132))}, pt.Bytes(11)), packet.FaultL4},
		{"icmp cut off", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Proto: new(uint8(1))}, pt.Bytes(7)), packet.FaultL4},
		{"tiny first fragment", pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{MF: true, Proto: new(uint8(6))}, pt.Bytes(8)), packet.FaultL4},
	}
	seen := map[packet.Fault]bool{packet.FaultNone: true}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pt.Check(t, tt.b, pt.Fault(tt.want))
		})
		seen[tt.want] = true
	}
	for f := packet.FaultNone; f.String() != "unknown"; f++ {
		if !seen[f] {
			t.Errorf("no case for the fault %v", f)
		}
	}
}

func TestAddresses(t *testing.T) {
	src, dst := pt.IP("192.0.2.1"), pt.IP("192.0.2.2")
	pt.Check(t, pt.UDP4(pt.Packet{Src: src, Dst: dst}), pt.Src(src), pt.Dst(dst))
	pt.Check(t, pt.ARPRequest(pt.Packet{Src: src, Dst: dst}), pt.Src(src), pt.Dst(dst))
	pt.Check(t, pt.UDP6(pt.Packet{Src: pt.IP("2001:db8::1"), Dst: pt.IP("2001:db8::2")}),
		pt.Src("2001:db8::1"), pt.Dst("2001:db8::2"))
	var v packet.View
	b := pt.Build(pt.EtherHdr{Type: new(uint16(0x88cc))})
	v.Parse(b)
	if v.SrcAddr(b).IsValid() || v.DstAddr(b).IsValid() {
		t.Error("a frame without IP has addresses")
	}
}

func TestVIDIsTheOuter8021QTag(t *testing.T) {
	tests := []struct {
		name string
		tags []pt.VLANTag
		want uint16
	}{
		{"untagged", nil, 0},
		{"priority and VID", []pt.VLANTag{{TCI: 0xe005}}, 5},
		{"service tag", []pt.VLANTag{{TPID: packet.EtherTypeQinQ, TCI: 5}, {TCI: 6}}, 0},
	}
	for _, tt := range tests {
		if got := pt.Frame(pt.UDP4(pt.Packet{Tags: tt.tags})).View.VID(); got != tt.want {
			t.Errorf("%s: VID %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestParseAgreesWithGVisor compares with other eyes: what gVisor's header
// package calls a valid header of IPv4 or TCP.
func TestParseAgreesWithGVisor(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		b := pt.Random(r)
		if r.IntN(2) == 0 {
			b = pt.Mutate(r, b)
		}
		var v packet.View
		fault := v.Parse(b)
		if v.EtherType != packet.EtherTypeIPv4 || fault == packet.FaultVLAN {
			continue
		}
		ip := header.IPv4(b[v.L3:])
		if valid := ip.IsValid(len(ip)); valid != (fault != packet.FaultIPv4) && !beyond65535(ip) {
			t.Fatalf("fault %v, but gVisor says valid: %v\n%x", fault, valid, b)
		}
		if fault != packet.FaultNone {
			continue
		}
		if int(ip.HeaderLength()) != v.L4-v.L3 || int(ip.TotalLength()) != v.End-v.L3 || ip.Protocol() != v.Proto {
			t.Fatalf("view %+v differs from gVisor's\n%x", v, b)
		}
		if v.Is(packet.ViewFrag) != (ip.More() || ip.FragmentOffset() != 0) {
			t.Fatalf("fragment flags %#x differ from gVisor's\n%x", v.Flags, b)
		}
	}
}

// beyond65535 is our own reason to refuse a fragment, which gVisor leaves to
// its reassembly.
func beyond65535(ip header.IPv4) bool {
	return len(ip) >= header.IPv4MinimumSize && ip.FragmentOffset() != 0 &&
		int(ip.FragmentOffset())+int(ip.TotalLength())-int(ip.HeaderLength()) > 0xffff
}

// checkView holds a view to what its documentation promises of any bytes.
func checkView(t *testing.T, b []byte, v *packet.View, fault packet.Fault) {
	t.Helper()
	if v.L3 < 0 || v.L3 > len(b) || v.L4 < 0 || v.L4 > len(b) || v.End < 0 || v.End > len(b) || v.Tags > 2 {
		t.Fatalf("outside the frame: %+v of %d bytes", v, len(b))
	}
	v.SrcAddr(b)
	v.DstAddr(b)
	if fault != packet.FaultNone {
		return
	}
	if v.L3 < packet.EthernetLen || v.L4 < v.L3 || v.End < v.L4 {
		t.Fatalf("offsets out of order: %+v", v)
	}
	if v.Is(packet.ViewTrailer) != (v.End < len(b)) {
		t.Fatalf("trailer flag %#x of %d bytes, end %d", v.Flags, len(b), v.End)
	}
	if v.Is(packet.ViewHasL4) && v.End-v.L4 < packet.UDPLen {
		t.Fatalf("no room for the L4 header: %+v", v)
	}
	packet.VerifyL3(b, v)
	packet.VerifyL4(b, v)
}

func TestParseIsTotal(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2_000 {
		b := pt.Random(r)
		for n := range min(len(b), 150) {
			checkParse(t, b[:n:n]) // no capacity behind which a reading too far would hide
		}
		for range 10 {
			checkParse(t, pt.Mutate(r, b))
		}
	}
}

func checkParse(t *testing.T, b []byte) {
	t.Helper()
	var v, again packet.View
	fault := v.Parse(b)
	checkView(t, b, &v, fault)
	again.Tags = 2 // rubbish of an earlier frame must not show through
	if again.Parse(b) != fault || again != v {
		t.Fatalf("parsed twice: %+v and %+v", v, again)
	}
}

func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		checkParse(t, b)
		pt.Describe(b)
	})
}

// seed adds frames of all kinds; the named ones are in testdata.
func seed(f *testing.F) {
	f.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		f.Add(pt.Random(r))
	}
}
