// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"fmt"
	"testing"

	"sluice/bridge"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// vlans is a network of five containers in which
//
//	1  is an access port of VLAN 10
//	2  a trunk of VLANs 10 and 20
//	3  an access port of VLAN 10, without offload
//	4  an access port of VLAN 20
//	5  a provider's trunk of VLAN 10 (802.1ad), without offload
//
// and the gateway is in VLAN 10.
func vlans() NetworkSpec {
	s := blue(5)
	s.Bridge.VLAN.PVID = 10
	s.Ports[0].VLAN.PVID = 10
	s.Ports[1].VLAN.Tagged = []bridge.VIDRange{{First: 10, Last: 10}, {First: 20, Last: 20}}
	s.Ports[2].VLAN.PVID = 10
	s.Ports[3].VLAN.PVID = 20
	s.Ports[4].VLAN = bridge.VLAN{Tagged: []bridge.VIDRange{{First: 10, Last: 10}}, QinQ: true}
	s.Ports[2].Offload, s.Ports[4].Offload = false, false
	return s
}

func tag(tci uint16) []pt.VLANTag { return []pt.VLANTag{{TCI: tci}} }

// retagged is a frame as it should be with another outer tag.
func retagged(b []byte, f func(*packet.Frame) bool) []byte {
	g := pt.Frame(b)
	if !f(g) {
		panic("the tag doesn't fit")
	}
	return bytes.Clone(g.Bytes())
}

func push(tpid, tci uint16) func(*packet.Frame) bool {
	return func(f *packet.Frame) bool { return f.PushVLAN(tpid, tci) }
}

// described is a frame that may not be there.
func described(f *packet.Frame) string {
	if f == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s %+v", pt.Describe(f.Bytes()), f.Vnet)
}

// TestTooBigInAnyVLAN: the sender hears of it where it is, and not where the gateway
// is.
func TestTooBigInAnyVLAN(t *testing.T) {
	s := vlans()
	s.Ports[3].MTU = 1000
	l := stillLab(t, s)
	l.send(4, pt.ARPRequest(pt.Packet{SrcMAC: mac(4), Src: addr4(4), Dst: addr4(2)}))
	l.got(2)
	for range 2 {
		f := pt.Frame(whole(2, 4, 1200))
		f.PushVLAN(packet.EtherTypeVLAN, 20)
		l.send(2, f.Bytes())
		pt.Check(t, l.got(2), pt.VLAN(20), pt.EtherSrc(gatewayMAC()), pt.EtherDst(mac(2)), pt.ICMP(pt.ICMPType(3, 4), pt.NextMTU(1000)))
		l.silent(1, 2, 3, 4, 5)
	}
}

// same checks that a container got this frame and nothing else.
func (l *lab) same(at uint16, want []byte) {
	l.t.Helper()
	got := l.got(at)
	if got == nil || !bytes.Equal(got.Bytes(), want) {
		l.t.Errorf("container %d got %s, want %s", at, described(got), pt.Describe(want))
	}
	l.silent(at)
}

// Between an access port and a trunk, tags are put on and taken off: by the slow
// path, and by each hit of the flow cache.
func TestTagsOfAKnownFlow(t *testing.T) {
	l := stillLab(t, vlans())
	to := datagram(1, 2, "there")
	back := pt.UDP4(pt.Packet{SrcMAC: mac(2), DstMAC: mac(1), Src: addr4(2), Dst: addr4(1), Tags: tag(10)})
	l.send(2, back) // a trunk's container is learned in its VLANs
	l.same(1, retagged(back, (*packet.Frame).PopVLAN))
	for range 3 {
		l.send(1, to)
		l.same(2, retagged(to, push(packet.EtherTypeVLAN, 10)))
		l.send(2, back)
		l.same(1, retagged(back, (*packet.Frame).PopVLAN))
	}
	l.silent(3, 4, 5)
	if s := l.stats(1); s.FlowHits != 2 || s.TxBytes != 4*uint64(len(back)-4) {
		t.Errorf("port 1: %d hits, %d bytes sent", s.FlowHits, s.TxBytes)
	}
	if s := l.stats(2); s.TxBytes != 3*uint64(len(to)+4) {
		t.Errorf("port 2: %d bytes sent", s.TxBytes)
	}
}

// A flooded frame stays whole for each of its ports, whatever tags they want and
// whatever waits for them besides.
func TestFloodWithDifferentTags(t *testing.T) {
	l := stillLab(t, vlans())
	all := func(k int) []byte {
		return pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: packet.Broadcast(), SrcPort: uint16(k + 1)})
	}
	for k := range 2 * slice {
		l.wires[1].Inject(packet.Vnet{}, all(k))
	}
	l.round()
	for k := range 2 * slice {
		for at, want := range map[uint16][]byte{
			2: retagged(all(k), push(packet.EtherTypeVLAN, 10)),
			3: all(k),
			5: retagged(all(k), push(packet.EtherTypeQinQ, 10)),
		} {
			if got := l.got(at); got == nil || !bytes.Equal(got.Bytes(), want) {
				t.Fatalf("frame %d at %d: %s", k, at, described(got))
			}
		}
	}
	l.silent(1, 2, 3, 4, 5)
	if s := l.stats(2); s.TxCalls != 1 {
		t.Errorf("%d calls for a turn, want 1", s.TxCalls)
	}

	// From the trunk: with a priority, and with a tag behind the bridge's.
	for _, inner := range [][]pt.VLANTag{nil, tag(77)} {
		f := pt.UDP4(pt.Packet{SrcMAC: mac(2), DstMAC: packet.Broadcast(), Tags: append(tag(5<<13|10), inner...)})
		plain := retagged(f, (*packet.Frame).PopVLAN)
		l.send(2, f)
		l.same(1, plain)
		l.same(3, plain)
		l.same(5, retagged(plain, push(packet.EtherTypeQinQ, 5<<13|10)))
		l.silent(2, 4)
	}
	l.send(2, pt.UDP4(pt.Packet{SrcMAC: mac(2), DstMAC: packet.Broadcast(), Tags: tag(20), Payload: []byte("20")}))
	pt.Check(t, l.got(4), pt.VLAN(), pt.Data("20"))
	l.silent(1, 2, 3, 4, 5)
}

// What must be cut or summed for a port gets the port's tag too.
func TestTagsAndOffload(t *testing.T) {
	for name, dst := range map[string]packet.MAC{"known": mac(5), "flooded": packet.Broadcast()} {
		t.Run(name, func(t *testing.T) {
			l := stillLab(t, vlans())
			l.send(5, pt.UDP4(pt.Packet{SrcMAC: mac(5), DstMAC: packet.Broadcast(), Tags: []pt.VLANTag{{TPID: packet.EtherTypeQinQ, TCI: 10}}}))
			for at := range l.wires {
				for l.got(at) != nil {
				}
			}
			f := pt.GSO(pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: dst, Payload: pt.Bytes(4000)}), 1000)
			l.inject(1, f, pt.Partial(pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: dst, Payload: pt.Bytes(1000)})))
			for i := range 5 {
				got := l.got(5)
				if got == nil || got.Vnet.NeedsCsum() || got.Vnet.IsGSO() || got.View.TPID[0] != packet.EtherTypeQinQ {
					t.Fatalf("segment %d: %s", i, described(got))
				}
				pt.Check(t, got, pt.VLAN(10), pt.UDP(), pt.Data(pt.Bytes(4000)[1000*(i%4):1000*(i%4+1)]))
			}
			if got := l.got(2); name == "flooded" {
				want := f.Vnet
				want.CsumStart += 4
				want.HdrLen += 4
				if got == nil || got.Vnet != want || !got.CheckVnet() || got.View.VID() != 10 {
					t.Fatalf("the trunk got %s, want %+v", described(got), want)
				}
			}
		})
	}
}

// The host stack is in VLAN 10, and knows no tags.
func TestGatewayInAVLAN(t *testing.T) {
	l := stillLab(t, vlans())
	for _, in := range []struct {
		port uint16
		tags []pt.VLANTag
	}{{1, nil}, {2, tag(10)}, {2, tag(3<<13 | 10)}} {
		n := int(in.port)
		ask := pt.ARPRequest(pt.Packet{SrcMAC: mac(n), Src: addr4(n), Dst: gateway4(), Tags: in.tags})
		for range 2 {
			l.send(in.port, ask)
			got := l.got(in.port)
			pt.Check(t, got, pt.ARP(pt.Op(2), pt.SenderMAC(gatewayMAC()), pt.Src(gateway4())))
			if int(got.View.Tags) != len(in.tags) || len(in.tags) > 0 && got.View.VID() != 10 {
				t.Errorf("the answer has tags %v", got.View.TCI)
			}
			l.silent(in.port)
		}
		ping := pt.Ping4(pt.Packet{SrcMAC: mac(n), DstMAC: gatewayMAC(), Src: addr4(n), Dst: gateway4(), Tags: in.tags})
		for range 2 { // the second is a hit
			l.send(in.port, ping)
			pt.Check(t, l.got(in.port), pt.ICMP(), pt.Src(gateway4()))
		}
		for at := range l.wires {
			for l.got(at) != nil {
			}
		}
	}
	l.send(4, pt.ARPRequest(pt.Packet{SrcMAC: mac(4), Src: addr4(4), Dst: gateway4()}))
	l.silent(4)
	l.send(4, pt.UDP4(pt.Packet{SrcMAC: gatewayMAC(), DstMAC: mac(9)}))
	if got := l.stats(4).Drops["source_own_mac"]; got != 1 {
		t.Errorf("the gateway's MAC in another VLAN: drops %v", l.stats(4).Drops)
	}
}

func TestTaggedPathAllocatesNothing(t *testing.T) {
	s := vlans()
	s.Ports[0].MirrorIn, s.Ports[1].MirrorOut = 4, 4
	s.Ports[0].Storm.Unknown = bridge.Rate{PPS: 1 << 30}
	s.Ports[0].Flags = bridge.Suppress
	trunk := pt.Packet{SrcMAC: mac(2), DstMAC: mac(1), Tags: tag(10)}
	for name, f := range map[string]*packet.Frame{
		"known": pt.Frame(datagram(1, 2, "hello")), "to no offload": pt.GSO(segment(1, 3, 20_000), 1448),
		"flooded":     pt.Frame(pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: mac(9)})),
		"flooded GSO": pt.GSO(pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: mac(9), Payload: pt.Bytes(4000)}), 1000),
		"answered":    pt.Frame(pt.ARPRequest(pt.Packet{SrcMAC: mac(1), Src: addr4(1), Dst: gateway4()})),
	} {
		t.Run(name, func(t *testing.T) {
			l := stillLab(t, s)
			l.send(2, pt.UDP4(trunk))
			w := l.n.workers[0]
			w.round(0)
			w.mu.Lock()
			defer w.mu.Unlock()
			turn := &w.turn
			in, frames := turn.view.port(1), []packet.Frame{*f}
			if got := testing.AllocsPerRun(100, func() { turn.carry(in, frames) }); got != 0 {
				t.Errorf("%v allocations", got)
			}
		})
	}
}

// BenchmarkTags is BenchmarkTurn from an access port: to another, and to a trunk.
func BenchmarkTags(b *testing.B) {
	for name, to := range map[string]int{"none": 3, "push": 2} {
		for kind, f := range map[string]*packet.Frame{
			"UDP 64 B": pt.Frame(datagram(1, to, "0123456789012345678901")), "TCP 1500 B": pt.Frame(segment(1, to, 1446)),
		} {
			b.Run(fmt.Sprintf("%s/%s", name, kind), func(b *testing.B) {
				s := vlans()
				s.Ports[2].Offload = true
				s.Bridge.Static = []StationSpec{{MAC: mac(2), VLAN: 10, Port: 2}}
				benchmarkTurn(b, s, to, f)
			})
		}
	}
}
