// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// suppressing has port 1 with Suppress, in VLAN 10 if aware is set; stations 1
// to 4 are on the ports of their number, and 10.44.0.n and fd44::n are theirs.
func suppressing(aware bool) *Bridge {
	all := members(4)
	vlan := uint16(0)
	if aware {
		vlan = 10
		for i := range all {
			all[i].VLAN.PVID = 10
		}
		all[1].VLAN.Tagged = []VIDRange{{10, 10}}
	}
	all[1].Flags = Suppress | Isolated
	all[4].Flags = Isolated
	b := New(Options{})
	b.SetPorts(all)
	static := []StaticEntry{{MAC: ownMAC, VLAN: vlan, Port: localPort, Own: true}}
	known := []Neighbour{{Addr: pt.IP("10.44.0.100"), VLAN: vlan, MAC: ownMAC}, {Addr: pt.IP("fd44::100"), VLAN: vlan, MAC: ownMAC, Router: true}}
	for n := 1; n <= 4; n++ {
		static = append(static, StaticEntry{MAC: station(n), VLAN: vlan, Port: uint16(n)})
		known = append(known,
			Neighbour{Addr: pt.IP("10.44.0." + string(rune('0'+n))), VLAN: vlan, MAC: station(n)},
			Neighbour{Addr: pt.IP("fd44::" + string(rune('0'+n))), VLAN: vlan, MAC: station(n)})
	}
	known = append(known, Neighbour{Addr: pt.IP("10.44.0.9"), VLAN: vlan, MAC: station(9)})
	b.SetStatic(static)
	b.SetNeighbours(known)
	return b
}

// who asks for an IPv4 address; solicit does for an IPv6 address.
func who(src, dst string, tags ...pt.VLANTag) *packet.Frame {
	return pt.Frame(pt.ARPRequest(pt.Packet{SrcMAC: station(1), Src: pt.IP(src), Dst: pt.IP(dst), Tags: tags}))
}

func solicit(src, target string, hops uint8, tags ...pt.VLANTag) *packet.Frame {
	layers := []pt.Layer{pt.EtherHdr{Src: station(1), Dst: packet.MAC{0x33, 0x33, 0xff, 0, 0, 1}}}
	for _, t := range tags {
		layers = append(layers, t)
	}
	return pt.Frame(pt.Build(append(layers,
		pt.IPv6Hdr{Src: pt.IP(src), Dst: pt.IP("ff02::1:ff00:1"), HopLimit: hops},
		pt.ICMPHdr{V6: true, Type: packet.NDNeighbourSol}, pt.Payload(pt.IP(target).AsSlice()))...))
}

func TestSuppress(t *testing.T) {
	tag := pt.VLANTag{TCI: 10}
	tests := []struct {
		name  string
		aware bool
		in    uint16
		f     *packet.Frame
		want  *packet.MAC // who answers
	}{
		{"ARP for a container", false, 1, who("10.44.0.1", "10.44.0.2"), new(station(2))},
		{"ARP for the gateway", false, 1, who("10.44.0.1", "10.44.0.100"), &ownMAC},
		{"solicitation", false, 1, solicit("fd44::1", "fd44::2", 255), new(station(2))},
		{"solicitation for the gateway", false, 1, solicit("fd44::1", "fd44::100", 255), &ownMAC},
		{"in the port's VLAN", true, 1, who("10.44.0.1", "10.44.0.2"), new(station(2))},
		{"with the VLAN's tag", true, 1, solicit("fd44::1", "fd44::2", 255, tag), new(station(2))},

		{"another port", false, 2, who("10.44.0.1", "10.44.0.3"), nil},
		{"unknown", false, 1, who("10.44.0.1", "10.44.0.77"), nil},
		{"known, but its station isn't", false, 1, who("10.44.0.1", "10.44.0.9"), nil},
		{"on the same port", false, 1, who("10.44.0.5", "10.44.0.1"), nil},
		{"isolated from it", false, 1, who("10.44.0.1", "10.44.0.4"), nil},
		{"other VLAN", false, 1, who("10.44.0.1", "10.44.0.2", tag), nil},
		{"announcement", false, 1, who("10.44.0.2", "10.44.0.2"), nil},
		{"probe", false, 1, who("0.0.0.0", "10.44.0.2"), nil},
		{"ARP reply", false, 1, pt.Frame(pt.ARPReply(pt.Packet{SrcMAC: station(1), DstMAC: broadcast, Dst: pt.IP("10.44.0.2")})), nil},
		{"detection of duplicates", false, 1, solicit("::", "fd44::2", 255), nil},
		{"from behind a router", false, 1, solicit("fd44::1", "fd44::2", 64), nil},
		{"asked directly", false, 1, pt.Frame(pt.ARPRequest(pt.Packet{SrcMAC: station(1), DstMAC: station(2), Dst: pt.IP("10.44.0.2")})), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := suppressing(tt.aware)
			v := b.Input(tt.in, tt.f, 0)
			if tt.want == nil {
				if v.Action == Answer || v.AppendAnswer(nil, tt.f) != nil {
					t.Errorf("answered: %+v", v)
				}
				return
			}
			if v.Action != Answer || v.Reason != trace.Suppressed {
				t.Fatalf("%v, %v", v.Action, v.Reason)
			}
			answer := pt.Frame(v.AppendAnswer(nil, tt.f))
			if answer.SrcMAC() != *tt.want || answer.DstMAC() != station(1) || answer.View.Tags != tt.f.View.Tags {
				t.Errorf("%s", pt.Describe(answer.Bytes()))
			}
			src, target := tt.f.View.SrcAddr(tt.f.Bytes()), tt.f.View.DstAddr(tt.f.Bytes())
			if m, ok := tt.f.View.ND(tt.f.Bytes()); ok {
				target = m.Target
			}
			pt.Check(t, answer, pt.Src(target), pt.Dst(src))
		})
	}
}

func TestSuppressAllocatesNothing(t *testing.T) {
	b := suppressing(false)
	buf := make([]byte, 0, 128)
	for name, f := range map[string]*packet.Frame{"ARP": who("10.44.0.1", "10.44.0.2"), "ND": solicit("fd44::1", "fd44::2", 255)} {
		n := testing.AllocsPerRun(100, func() {
			v := b.Input(1, f, 0)
			buf = v.AppendAnswer(buf[:0], f)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
