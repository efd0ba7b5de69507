// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
	"sluice/trace"
)

// The rules of TestChoicesAgreeWithKernel, in nft's words and in ours. The address
// of the kernel's router by which all leaves is 10.71.2.1.
const choiceRuleset = `
table ip t {
	map published { type ipv4_addr . inet_service : ipv4_addr . inet_service
		elements = { 10.71.1.1 . 8000 : 10.71.2.2 . 80, 10.71.1.1 . 8001 : 10.71.2.7 . 81 } }
	chain pre {
		type nat hook prerouting priority dstnat
		meta l4proto udp dnat ip to ip daddr . udp dport map @published
		ip daddr 10.71.1.1 udp dport 9000-9009 dnat to 10.71.2.2:100-103
		ip daddr 10.71.1.1 udp dport 9100 dnat to 10.71.2.7
	}
	chain post {
		type nat hook postrouting priority srcnat
		ip saddr 10.73.0.0/24 oifname "r2" masquerade
		ip saddr 10.73.1.0/24 meta l4proto udp snat to 10.71.9.1:2000-2003
		ip saddr 10.73.2.0/24 oifname "r2" snat ip prefix to 10.71.8.0/24
		ip saddr 10.73.3.0/24 udp dport 80 accept
		ip saddr 10.73.3.0/24 snat to 10.71.9.7
	}
}
`

func choiceRules() []nat.Rule {
	addr := func(s string) nat.AddrRange { return nat.One(pt.IP(s)) }
	from := func(s string) nat.Match { return nat.Match{Src: []netip.Prefix{netip.MustParsePrefix(s)}} }
	to := func(first, last uint16) nat.Match {
		return nat.Match{Dst: []netip.Prefix{netip.MustParsePrefix("10.71.1.1/32")}, Protos: []uint8{packet.ProtoUDP}, DstPorts: []nat.PortRange{{Min: first, Max: last}}}
	}
	port := func(p uint16) nat.PortRange { return nat.PortRange{Min: p, Max: p} }
	masquerade := nat.Rule{Hook: nat.Postrouting, Kind: nat.Masquerade, Match: from("10.73.0.0/24")}
	masquerade.Match.Out = []uint16{outside}
	netmap := nat.Rule{Hook: nat.Postrouting, Kind: nat.Netmap, Match: from("10.73.2.0/24"), Prefix: netip.MustParsePrefix("10.71.8.0/24")}
	accept := nat.Rule{Hook: nat.Postrouting, Kind: nat.Accept, Match: from("10.73.3.0/24")}
	accept.Match.Protos, accept.Match.DstPorts = []uint8{packet.ProtoUDP}, []nat.PortRange{port(80)}
	ports := nat.Rule{Hook: nat.Postrouting, Kind: nat.SNAT, Match: from("10.73.1.0/24"), Target: nat.Target{Addrs: addr("10.71.9.1"), Ports: nat.PortRange{Min: 2000, Max: 2003}}}
	ports.Match.Protos = []uint8{packet.ProtoUDP}
	return []nat.Rule{
		{Hook: nat.Prerouting, Kind: nat.DNAT, Match: nat.Match{Protos: []uint8{packet.ProtoUDP}}, Map: &nat.Map{By: nat.ByDstAddr | nat.ByDstPort, Elements: map[nat.MapKey]nat.Target{
			{Addr: pt.IP("10.71.1.1"), Port: 8000}: {Addrs: addr("10.71.2.2"), Ports: port(80)},
			{Addr: pt.IP("10.71.1.1"), Port: 8001}: {Addrs: addr("10.71.2.7"), Ports: port(81)},
		}}},
		{Hook: nat.Prerouting, Kind: nat.DNAT, Match: to(9000, 9009), Target: nat.Target{Addrs: addr("10.71.2.2"), Ports: nat.PortRange{Min: 100, Max: 103}}},
		{Hook: nat.Prerouting, Kind: nat.DNAT, Match: to(9100, 9100), Target: nat.Target{Addrs: addr("10.71.2.7")}},
		masquerade, ports, netmap, accept,
		{Hook: nat.Postrouting, Kind: nat.SNAT, Match: from("10.73.3.0/24"), Target: nat.Target{Addrs: addr("10.71.9.7")}},
	}
}

// TestChoicesAgreeWithKernel sends first packets of connections that clash through
// the kernel's translator and ours. Both have to agree on the addresses, on the
// destination's port, on whether the source's port stays, on its class where it is
// drawn at random, and on what is dropped. After each, ours takes over what the
// kernel chose, so that both know the same connections.
func TestChoicesAgreeWithKernel(t *testing.T) {
	near, far := newKernelNAT(t, choiceRuleset)
	kt.IP(t, "route add 10.73.0.0/16 via 10.71.1.2")
	w := newWorld(t, nat.ZoneConfig{}, choiceRules()...)
	r := rand.New(rand.NewPCG(51, 4))
	kept, drawn, dropped := 0, 0, 0
	for range 8000 {
		src := fmt.Sprintf("10.73.%d.%d:%d", r.IntN(5), 1+r.IntN(8), []int{100, 700, 2000, 2001, 5000, 5001, 1 + r.IntN(65535), 1 + r.IntN(65535), 1 + r.IntN(65535), 1024 + r.IntN(64000)}[r.IntN(10)])
		dst := []string{"10.71.2.2:80", "10.71.2.2:81", "10.71.2.7:80", "10.71.2.7:9100", "10.71.1.1:8000", "10.71.1.1:8001", "10.71.1.1:9003", "10.71.1.1:9100"}[r.IntN(8)]
		tu := tuple([]uint8{packet.ProtoUDP, packet.ProtoUDP, packet.ProtoTCP, packet.ProtoICMP}[r.IntN(4)], src, dst)
		if tu.Proto != packet.ProtoUDP && tu.Dst == pt.IP("10.71.1.1") {
			continue // the kernel answers itself
		}
		if _, known := w.conns[tu]; known {
			continue
		}
		f, v := beginAt(w, tu)
		theirs := throughOrNot(t, near, far, firstPacket(tu).Bytes())
		if theirs == nil {
			dropped++
			if v.Reason != trace.NATExhausted {
				t.Fatalf("%s > %s: the kernel drops it, ours is %+v, %v", src, dst, f.Pending.Out(), v)
			}
			continue
		}
		if v.Reason != trace.None {
			t.Fatalf("%s > %s: ours is dropped, %v, the kernel's is %s", src, dst, v.Reason, pt.Describe(theirs))
		}
		from, to := endsOf(pt.Frame(theirs))
		got, p := f.Pending.Out(), from.Port()
		if got.Src != from.Addr() || got.Dst != to.Addr() || tu.Proto != packet.ProtoICMP && got.DstPort != to.Port() || (got.SrcPort == tu.SrcPort) != (p == tu.SrcPort) {
			t.Fatalf("%s > %s: ours %+v, the kernel's %s", src, dst, got, pt.Describe(theirs))
		}
		if p == tu.SrcPort {
			kept++
		} else if drawn++; classOf(p) != classOf(got.SrcPort) && tu.Proto != packet.ProtoICMP {
			t.Fatalf("%s > %s: ours %d, the kernel's %d", src, dst, got.SrcPort, p)
		}
		got.SrcPort = p
		f.Pending.Reply, _ = got.Inverse()
		c, out := w.table.Confirm(f.Pending, w.now)
		if out != conntrack.Inserted {
			t.Fatalf("%s > %s: the kernel's choice is taken: %v", src, dst, out)
		}
		w.conns[tu] = c
	}
	t.Logf("%d kept their port, %d got another, %d were dropped", kept, drawn, dropped)
	if kept < 500 || drawn < 100 || dropped < 20 {
		t.Error("that is too few to say much")
	}
}

func classOf(p uint16) int {
	switch {
	case p < 512:
		return 0
	case p < 1024:
		return 1
	}
	return 2
}

// beginAt is world.begin for the addresses of the kernel's router.
func beginAt(w *world, t conntrack.Tuple) (*nat.Flow, nat.Verdict) {
	f := &nat.Flow{Pending: new(conntrack.Pending), In: inside, Out: outside, InAddr: pt.IP("10.71.1.1"), OutAddr: pt.IP("10.71.2.1"), Now: w.now}
	w.table.Look(&conntrack.Packet{Frame: firstPacket(t), Zone: zone, Now: w.now}, f.Pending)
	if v := w.n.Translate(nat.Prerouting, f); v.Reason != trace.None {
		return f, v
	}
	return f, w.n.Translate(nat.Postrouting, f)
}

// throughOrNot is through, and nil if nothing comes. A packet to another port of
// the same router, sent after it, says when to give up.
func throughOrNot(t *testing.T, near, far kt.Side, b []byte) []byte {
	t.Helper()
	sentinel := pt.UDP4(pt.Packet{Src: pt.IP("10.71.1.2"), Dst: pt.IP("10.71.2.2"), SrcPort: 9, DstPort: 9, Payload: []byte("sentinel")})
	send(near, b)
	got := through(t, near, far, sentinel)
	f := pt.Frame(got)
	if f.View.DstPort == 9 {
		return nil
	}
	for f.View.DstPort != 9 {
		f = pt.Frame(receive(t, far, b))
	}
	return got
}
