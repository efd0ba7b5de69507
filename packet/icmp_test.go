// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func gateway4() netip.Addr { return pt.IP("10.44.0.1") }
func gateway6() netip.Addr { return pt.IP("fd44::1") }

// errorAbout is the error, of either family, as a frame.
func errorAbout(f *packet.Frame) []byte {
	if f.View.Is(packet.ViewIPv4) {
		return packet.AppendICMP4(packet.AppendEthernet(nil, f.SrcMAC(), f.DstMAC(), packet.EtherTypeIPv4),
			f, gateway4(), packet.ICMPError{Type: packet.ICMPTimeExceeded})
	}
	return packet.AppendICMP6(packet.AppendEthernet(nil, f.SrcMAC(), f.DstMAC(), packet.EtherTypeIPv6),
		f, gateway6(), packet.ICMPError{Type: packet.ICMP6TimeExceeded})
}

// quoted is what an error quotes.
func quoted(b []byte) []byte {
	f := pt.Frame(b)
	return b[f.View.L4+packet.ICMPLen : f.View.End]
}

// TestErrorsQuoteTheWire: whatever the offloads left undone is done in the quote:
// it is the beginning of the first segment that the Segmenter makes.
func TestErrorsQuoteTheWire(t *testing.T) {
	r := rand.New(rand.NewPCG(51, 51))
	frames := map[string]*packet.Frame{}
	for name, b := range summed() {
		frames[name] = pt.Frame(b)
		switch frames[name].View.Proto {
		case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP:
			frames["partial "+name] = pt.Partial(b)
		}
	}
	for range 300 {
		if u := randomSuper(r, 20); !tooLong(u) {
			frames[u.String()] = u.frame()
		}
	}
	for name, f := range frames {
		before := bytes.Clone(f.Bytes())
		b := errorAbout(f)
		want := segment(t, f)[0][f.View.L3:]
		room := 576 - 28
		if f.View.Is(packet.ViewIPv6) {
			room = 1280 - 48
		}
		if got := quoted(b); !bytes.Equal(got, want[:min(len(want), room)]) {
			t.Errorf("%s\ngot  %x\nwant %x", name, got, want)
		}
		if !bytes.Equal(f.Bytes(), before) {
			t.Errorf("%s: the frame was changed", name)
		}
	}
}

func TestErrorsAreValid(t *testing.T) {
	pt.Check(t, errorAbout(pt.Frame(pt.UDP4(pt.Packet{Payload: pt.Bytes(1000)}))),
		pt.IPv4(pt.Src(gateway4()), pt.Dst("10.44.0.10"), pt.TTL(64), pt.TOS(0xc0)),
		pt.ICMP(pt.ICMPType(11, 0)), pt.Len(14+576))
	pt.Check(t, errorAbout(pt.Frame(pt.UDP6(pt.Packet{Payload: pt.Bytes(2000)}))),
		pt.IPv6(pt.Src(gateway6()), pt.Dst("fd44::a"), pt.TTL(64), pt.TOS(0)),
		pt.ICMPv6(pt.ICMPType(3, 0)), pt.Len(14+1280))
	small := packet.AppendICMP4(nil, pt.Frame(pt.UDP4(pt.Packet{Payload: pt.Bytes(1000)})), gateway4(),
		packet.ICMPError{Type: packet.ICMPUnreach, MTU: 68})
	if len(small) != 68 {
		t.Errorf("%d bytes for an MTU of 68", len(small))
	}
}

func TestErrorsOfTheWrongFamily(t *testing.T) {
	four, six, dst := pt.Frame(pt.UDP4(pt.Packet{})), pt.Frame(pt.UDP6(pt.Packet{})), []byte("kept")
	for name, got := range map[string][]byte{
		"icmp about ipv6":        packet.AppendICMP4(dst, six, gateway4(), packet.ICMPError{}),
		"icmp from ipv6":         packet.AppendICMP4(dst, four, gateway6(), packet.ICMPError{}),
		"icmpv6 about ipv4":      packet.AppendICMP6(dst, four, gateway6(), packet.ICMPError{}),
		"icmpv6 from ipv4":       packet.AppendICMP6(dst, six, gateway4(), packet.ICMPError{}),
		"redirect about ipv4":    packet.AppendRedirect6(dst, four, gateway6(), gateway6(), packet.MAC{}),
		"redirect to ipv4":       packet.AppendRedirect6(dst, six, gateway6(), gateway4(), packet.MAC{}),
		"redirect from ipv4":     packet.AppendRedirect6(dst, six, gateway4(), gateway6(), packet.MAC{}),
		"icmp about an arp":      packet.AppendICMP4(dst, pt.Frame(pt.ARPRequest(pt.Packet{})), gateway4(), packet.ICMPError{}),
		"icmpv6 about an arp":    packet.AppendICMP6(dst, pt.Frame(pt.ARPRequest(pt.Packet{})), gateway6(), packet.ICMPError{}),
		"may answer about arp":   may(pt.Frame(pt.ARPRequest(pt.Packet{})), packet.ICMPError{}, dst),
		"may answer what is LLC": may(pt.Frame(pt.Build(pt.EtherHdr{}, pt.Bytes(60))), packet.ICMPError{}, dst),
	} {
		if string(got) != "kept" {
			t.Errorf("%s: %x", name, got)
		}
	}
}

// may is dst, or nothing if an answer is allowed.
func may(f *packet.Frame, e packet.ICMPError, dst []byte) []byte {
	if packet.MayAnswerWithICMP(f, e) {
		return nil
	}
	return dst
}

func TestRedirectsCanBeRead(t *testing.T) {
	link := packet.MAC{2, 0, 0, 0, 0, 9}
	for size := range 40 {
		f := pt.Frame(pt.UDP6(pt.Packet{Payload: pt.Bytes(33 * size)}))
		for _, known := range []packet.MAC{{}, link} {
			b := packet.AppendEthernet(nil, f.SrcMAC(), f.DstMAC(), packet.EtherTypeIPv6)
			b = packet.AppendRedirect6(b, f, pt.IP("fe80::1"), pt.IP("fe80::9"), known)
			pt.Check(t, b, pt.IPv6(pt.TTL(255), pt.Src("fe80::1")), pt.ICMPv6(pt.ICMPType(packet.NDRedirect, 0)))
			g := pt.Frame(b)
			m, ok := g.View.ND(b)
			if !ok || m.Target != pt.IP("fe80::9") || m.Link != known || m.HasLink != !known.IsZero() {
				t.Errorf("%d bytes: %+v, %v", 33*size, m, ok)
			}
			if g.View.End-g.View.L3 > 1280 {
				t.Errorf("%d bytes", g.View.End-g.View.L3)
			}
		}
	}
}

// TestMayAnswerAboutGroups: what the kernel test can't ask, as nothing is routed
// to a group there.
func TestMayAnswerAboutGroups(t *testing.T) {
	group := pt.Packet{Dst: pt.IP("ff05::9"), DstMAC: packet.MAC{0x33, 0x33, 0, 0, 0, 9}}
	options := func(typ byte) *packet.Frame {
		return pt.Frame(pt.Build(pt.EtherHdr{Dst: group.DstMAC}, pt.IPv6Hdr{Dst: group.Dst},
			pt.ExtHdr{Proto: packet.ProtoDestOpts, Body: []byte{typ, 4, 0, 0, 0, 0}}, pt.UDPHdr{}))
	}
	unknown := packet.ICMPError{Type: packet.ICMP6ParamProblem, Code: packet.ICMP6UnknownOption, Info: 42}
	beyond := unknown
	beyond.Info = 1 << 31
	tests := map[string]struct {
		f    *packet.Frame
		e    packet.ICMPError
		want bool
	}{
		"time exceeded":              {pt.Frame(pt.UDP6(group)), packet.ICMPError{Type: packet.ICMP6TimeExceeded}, false},
		"too big":                    {pt.Frame(pt.UDP6(group)), packet.ICMPError{Type: packet.ICMP6TooBig}, true},
		"unknown option":             {options(0x9e), unknown, true},
		"unknown option, not groups": {options(0xde), unknown, false},
		"option to be skipped":       {options(0x1e), unknown, false},
		"pointer beyond the packet":  {options(0x9e), beyond, false},
		"erroneous field":            {options(0x9e), packet.ICMPError{Type: packet.ICMP6ParamProblem, Info: 42}, false},
		"group of ipv4":              {pt.Frame(pt.UDP4(pt.Packet{Dst: pt.IP("224.1.1.1")})), packet.ICMPError{Type: packet.ICMPUnreach}, false},
		"redirect":                   {pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.ICMPHdr{V6: true, Type: packet.NDRedirect})), packet.ICMPError{Type: packet.ICMP6TimeExceeded}, false},
	}
	for name, tc := range tests {
		if got := packet.MayAnswerWithICMP(tc.f, tc.e); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// FuzzICMPError: whatever is quoted, the error is a valid packet of a bounded
// length to the sender.
func FuzzICMPError(f *testing.F) {
	r := rand.New(rand.NewPCG(53, 53))
	for range 50 {
		b := pt.Random(r)
		v := pt.RandomVnet(r, len(b))
		f.Add(b, v.Flags, v.GSOType, v.GSOSize, v.CsumStart, v.CsumOffset, uint8(r.Uint32()), r.Uint32())
	}
	f.Fuzz(func(t *testing.T, b []byte, flags, gso uint8, size, start, offset uint16, typ uint8, info uint32) {
		if len(b) > packet.MaxFrame {
			t.Skip("longer than a buffer")
		}
		frame := pt.Frame(b)
		if (&packet.View{}).Parse(b) != packet.FaultNone {
			return
		}
		frame.Vnet = packet.Vnet{Flags: flags, GSOType: gso, GSOSize: size, CsumStart: start, CsumOffset: offset}
		e := packet.ICMPError{Type: typ, Code: uint8(info), Info: info, ID: offset, MTU: int(size)}
		packet.MayAnswerWithICMP(frame, e)
		eth := slices.Clip(packet.AppendEthernet(nil, frame.SrcMAC(), frame.DstMAC(), frame.View.EtherType))
		for _, got := range [][]byte{
			packet.AppendICMP4(eth, frame, gateway4(), e),
			packet.AppendICMP6(eth, frame, gateway6(), e),
			packet.AppendRedirect6(eth, frame, gateway6(), gateway6(), packet.MAC{2}),
		} {
			if len(got) == len(eth) {
				continue
			}
			if len(got) > 14+1280 {
				t.Fatalf("%d bytes", len(got))
			}
			checkError(t, frame, got)
		}
		if !bytes.Equal(b, frame.Bytes()) {
			t.Fatal("the frame was changed")
		}
	})
}

func checkError(t *testing.T, about *packet.Frame, got []byte) {
	t.Helper()
	g := pt.Frame(got)
	pt.Check(t, got, pt.Fault(packet.FaultNone), pt.NoFlags(packet.ViewFrag|packet.ViewTrailer),
		pt.Dst(about.View.SrcAddr(about.Bytes())))
	if !packet.VerifyL3(got, &g.View) || !packet.VerifyL4(got, &g.View) {
		t.Fatalf("wrong checksum: %x", got)
	}
}

func TestErrorsDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1500)
	big := pt.GSO(pt.TCP6(pt.Packet{Payload: pt.Bytes(9000)}), 1000)
	four := pt.Partial(pt.UDP4(pt.Packet{Payload: pt.Bytes(1000)}))
	for name, step := range map[string]func(){
		"icmp":     func() { packet.AppendICMP4(buf, four, gateway4(), packet.ICMPError{Type: 3}) },
		"icmpv6":   func() { packet.AppendICMP6(buf, big, gateway6(), packet.ICMPError{Type: 3}) },
		"redirect": func() { packet.AppendRedirect6(buf, big, gateway6(), gateway6(), packet.MAC{2}) },
		"may":      func() { packet.MayAnswerWithICMP(big, packet.ICMPError{Type: 3}) },
	} {
		if n := testing.AllocsPerRun(100, step); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
