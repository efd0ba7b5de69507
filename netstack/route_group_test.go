// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"testing"

	"sluice/bridge"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
	"sluice/trace"
)

// TestGroupsAreCheckedAsWell: what is sent to everybody on the link comes to the host
// stack by the bridge's flood, and must not pass by what the router checks of sources.
func TestGroupsAreCheckedAsWell(t *testing.T) {
	one := site(1, 2)
	one.Device.ReversePath = routing.ReverseStrict
	l := stillSites(t, sites("lab", one, site(2, 1)))
	for name, tt := range map[string]struct {
		edit func(*pt.Packet)
		want trace.Reason
	}{
		"another network's container": {func(p *pt.Packet) { p.Src = bob.addr4() }, trace.ReversePath},
		"and by IPv6":                 {func(p *pt.Packet) { p.Src, p.Dst = bob.addr6(), gate(1).addr6() }, trace.ReversePath},
		"another network's gateway":   {func(p *pt.Packet) { p.Src = gate(2).addr4() }, trace.MartianSource},
		"loopback":                    {func(p *pt.Packet) { p.Src = pt.IP("127.0.0.1") }, trace.MartianSource},
		"a host of another network":   {func(p *pt.Packet) { p.Dst = bob.addr4() }, trace.NoForward},
		"a group":                     {func(p *pt.Packet) { p.Src, p.Dst = bob.addr4(), pt.IP("224.0.0.1") }, trace.ReversePath},
		"itself":                      {func(*pt.Packet) {}, trace.None},
	} {
		p := alice.to(bob)
		p.Dst, p.DstMAC = gate(1).addr4(), packet.Broadcast()
		tt.edit(&p)
		ping := pt.Ping4
		if p.Dst.Is6() {
			ping = pt.Ping6
		}
		before := l.drops(alice.port(), tt.want)
		l.send(alice.port(), ping(p))
		if l.got(party{1, 2}.port()) == nil {
			t.Errorf("%s: the other container did not get it", name)
		}
		if tt.want == trace.None {
			l.arrived(alice, pt.ICMP(pt.ICMPType(0, 0)))
			continue
		}
		if got := l.drops(alice.port(), tt.want) - before; got != 1 {
			t.Errorf("%s: %d dropped for %v, all drops are %v", name, got, tt.want, l.stats(alice.port()).Drops)
		}
		l.silent(alice.port(), party{1, 2}.port(), bob.port())
	}
}

// TestFragmentsForSmallerPorts go there, in smaller ones, also if their flow has several
// ways to go: all of a flow by the same one.
func TestFragmentsForSmallerPorts(t *testing.T) {
	s := sites("lab", site(1, 1), site(2, 2))
	s.Networks[1].Ports[0].MTU, s.Networks[1].Ports[1].MTU = 600, 600
	s.Routing.Routes = []routing.Route{via("10.77.0.0/16", "site2", bob.addr4(), party{2, 2}.addr4())}
	for _, c := range []ConnectionsSpec{{}, {Track: true, Zone: 3}} {
		s.Connections = c
		l := stillSites(t, s)
		for id := range uint16(20) {
			head := func(offset uint16, more bool) pt.IPv4Hdr {
				return pt.IPv4Hdr{Src: alice.addr4(), Dst: pt.IP("10.77.0.1"), ID: id, Offset: offset, MF: more, Proto: new(uint8(17))}
			}
			ether := pt.EtherHdr{Src: alice.mac(), Dst: gate(1).mac()}
			l.send(alice.port(), pt.Build(ether, head(0, true), pt.UDPHdr{SrcPort: id + 1}, pt.Bytes(792)))
			l.send(alice.port(), pt.Build(ether, head(800, false), pt.Bytes(800)))
			var got [2]int
			for i, at := range []party{bob, {2, 2}} {
				for f := l.got(at.port()); f != nil; f = l.got(at.port()) {
					got[i]++
				}
			}
			if got != [2]int{4, 0} && got != [2]int{0, 4} {
				t.Errorf("tracking %v: %v fragments arrived; drops %v", c.Track, got, l.stats(alice.port()).Drops)
			}
		}
	}
}

// TestTaggedNeighboursTeachNothing: the host stack is not in their VLAN.
func TestTaggedNeighboursTeachNothing(t *testing.T) {
	l := stillSites(t, sites("lab", site(1, 2)))
	for i, tags := range [][]pt.VLANTag{{{TCI: 0}, {TCI: 5}}, {{TPID: packet.EtherTypeQinQ, TCI: 5}}, {{TCI: 0}}} {
		p := alice.to(alice)
		p.Src, p.Dst, p.DstMAC, p.Tags = party{1, 50 + i}.addr4(), gate(1).addr4(), gate(1).mac(), tags
		b := pt.ARPRequest(p)
		copy(b, p.DstMAC[:])
		l.send(alice.port(), b)
		if got := len(l.n.Namespace("lab").Neighbours("")) - 4; got != i/2 {
			t.Errorf("%v: %d neighbours have been learned", tags, got)
		}
	}
}

// TestTrailersAreLeftBehind: what stands behind a packet is of the link that it came
// by, and no MTU counts it.
func TestTrailersAreLeftBehind(t *testing.T) {
	l := stillSites(t, twoSites())
	for range 2 {
		for _, b := range [][]byte{pt.UDP4(alice.to(bob)), pt.TCP6(alice.to6(bob))} {
			l.send(alice.port(), append(b, make([]byte, 3000)...))
			if f := l.got(bob.port()); f == nil || f.Len() != len(b) {
				t.Error("bob did not get the packet alone")
			}
		}
	}
}

// TestNeighboursOfOtherVLANs are none of the gateway's, even if it knows their MACs: what
// is sent to them is not flooded in its own VLAN.
func TestNeighboursOfOtherVLANs(t *testing.T) {
	two := site(2, 3)
	two.Bridge.VLAN.PVID, two.Ports[0].VLAN.PVID, two.Ports[1].VLAN.PVID = 20, 20, 30
	two.Ports[2].VLAN.Tagged = []bridge.VIDRange{{First: 10, Last: 25}}
	l := stillSites(t, sites("lab", site(1, 1), two))
	l.send(alice.port(), pt.UDP4(alice.to(party{2, 2})))
	for _, at := range []party{bob, {2, 3}} {
		if f := l.got(at.port()); f == nil || !f.View.Is(packet.ViewARP) {
			t.Errorf("%v got no question", at)
		}
	}
	l.silent(bob.port(), party{2, 2}.port(), party{2, 3}.port())
	l.send(alice.port(), pt.UDP4(alice.to(bob)))
	l.arrived(bob, pt.UDP())
}

// TestAnswerToTheGatewayItself: whoever says in ARP to have the gateway's MAC gets its
// answer nowhere; it is no packet to be routed.
func TestAnswerToTheGatewayItself(t *testing.T) {
	l := stillSites(t, twoSites())
	m := pt.ARPMsg{SenderMAC: gate(1).mac(), SenderIP: bob.addr4(), TargetIP: gate(1).addr4()}
	l.send(alice.port(), pt.Build(pt.EtherHdr{Src: alice.mac(), Dst: packet.Broadcast()}, m))
	l.silent(alice.port(), bob.port())
}
