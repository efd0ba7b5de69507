// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/test/lab"
)

// prober makes packets of one host.
type prober struct {
	rnd  *rand.Rand
	plan *lab.Plan
	host *lab.Host
	gw   packet.MAC
	mtu  int
	n    int // packets so far; stands in each
}

// source is one of the host's addresses: another for every fourth packet, since
// each is sent six errors at once and then one a second.
func (p *prober) source(f lab.Family) netip.Addr {
	numbers := append([]int{p.host.Number}, p.host.More...)
	return p.plan.Addr(p.host.Net, f, numbers[p.n/4%len(numbers)])
}

// target is somebody, or nobody.
func (p *prober) target(f lab.Family) netip.Addr {
	if p.rnd.IntN(3) > 0 {
		h := p.plan.Hosts[p.rnd.IntN(len(p.plan.Hosts))]
		if h.Net != p.host.Net {
			return p.plan.Addr(h.Net, f, h.Number)
		}
	}
	v4 := []string{
		"192.168.8.%d", "192.168.8.%d", "192.168.9.%d", "192.168.9.%d", "172.31.0.%d",
		"10.80.0.255", "10.81.0.0", "127.0.0.%d", "0.0.0.0", "240.0.0.%d", "10.255.0.1", "192.168.10.%d",
	}
	v6 := []string{
		"fdee:8::%x", "fdee:8::9:%x", "fdee:9::%x", "fdee:a::%x", "fdee:b::%x", "2001:db8::%x", "fdff::2", "::1", "fdee:8::1:80%02x",
	}
	n := 1 + p.rnd.IntN(254)
	text := v6[p.rnd.IntN(len(v6))]
	if f == lab.V4 {
		text = v4[p.rnd.IntN(len(v4))]
	}
	if p.isDeadNeighbour(text) {
		text = "172.31.0.%d"
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return a
	}
	return netip.MustParseAddr(fmt.Sprintf(text, n))
}

// isDeadNeighbour reports a target by way of somebody on the host's own network who
// is not there. The redirect that the host gets for it takes from the credit that
// the error has three seconds later, to the tenth of a second.
func (p *prober) isDeadNeighbour(target string) bool {
	hub := p.plan.Hosts[slices.IndexFunc(p.plan.Hosts, func(h lab.Host) bool { return h.Name == "hub" })]
	return target == "10.81.0.0" && p.host.Net == "n1" || target == "192.168.10.%d" && p.host.Net == hub.Net
}

// hops is mostly enough.
func (p *prober) hops() uint8 {
	return []uint8{64, 64, 64, 255, 1, 2, 3, 4}[p.rnd.IntN(8)]
}

// next is a packet, or a packet in fragments.
func (p *prober) next(f lab.Family) [][]byte {
	defer func() { p.n++ }()
	src, dst := p.source(f), p.target(f)
	size := []int{8, 64, 600, 980, 1200, 1252, 1300, 1372, 1400, 3000}[p.rnd.IntN(10)]
	size = min(size, p.mtu-100) // headers and options
	if dst == netip.MustParseAddr("10.255.0.1") || dst == netip.MustParseAddr("fdff::2") {
		size = min(size, 1000) // a router answers in fragments as it likes
	}
	eth := pt.EtherHdr{Src: pt.HW(p.plan.HostMAC(p.host)), Dst: p.gw}
	l4 := p.transport(f, src, dst, size)
	if f == lab.V4 {
		h := pt.IPv4Hdr{
			Src: src, Dst: dst, TTL: p.hops(), DF: p.rnd.IntN(2) == 0, ID: uint16(p.n), Options: p.options4(),
			TOS: []uint8{0, 0, 0x10, 0xb8, 1}[p.rnd.IntN(5)],
		}
		return [][]byte{pt.Build(append([]pt.Layer{eth, h}, l4...)...)}
	}
	h := pt.IPv6Hdr{Src: src, Dst: dst, HopLimit: p.hops(), FlowLabel: uint32(p.n)}
	layers := append([]pt.Layer{eth, h}, p.extension()...)
	return [][]byte{pt.Build(append(layers, l4...)...)}
}

// transport is a ping, a datagram to a closed port or the beginning of a connection
// to one. The data begins with the packet's number.
func (p *prober) transport(f lab.Family, src, dst netip.Addr, size int) []pt.Layer {
	data := pt.Bytes(size)
	binary.BigEndian.PutUint32(data, uint32(p.n))
	port := uint16(20000 + p.n)
	switch p.rnd.IntN(4) {
	case 0:
		return []pt.Layer{pt.UDPHdr{SrcPort: port, DstPort: uint16(33434 + p.rnd.IntN(30))}, data}
	case 1:
		return []pt.Layer{pt.TCPHdr{SrcPort: port, DstPort: uint16(1 + p.rnd.IntN(100)), Seq: uint32(p.n), Flags: pt.SYN}}
	}
	if f == lab.V4 {
		return []pt.Layer{pt.ICMPHdr{Type: 8, ID: port, Seq: uint16(p.n)}, data}
	}
	return []pt.Layer{pt.ICMPHdr{V6: true, Type: 128, ID: port, Seq: uint16(p.n)}, data}
}

// options4 is nothing mostly, or record route, a timestamp, router alert, a source
// route, or nonsense.
func (p *prober) options4() []byte {
	switch p.rnd.IntN(24) {
	case 0:
		return append([]byte{7, 15, 4}, make([]byte, 12)...)
	case 1:
		return []byte{148, 4, 0, 0}
	case 2:
		return []byte{131, 7, 4, 10, 80, 0, 1}
	case 3:
		return []byte{7, 200, 4, 0}
	case 4:
		return []byte{1, 1, 1, 0}
	}
	return nil
}

// extension is nothing mostly, or an extension header.
func (p *prober) extension() []pt.Layer {
	switch p.rnd.IntN(24) {
	case 0:
		return []pt.Layer{pt.ExtHdr{Proto: 0, Body: []byte{5, 2, 0, 0, 1, 0}}} // router alert
	case 1:
		return []pt.Layer{pt.ExtHdr{Proto: 60, Body: []byte{1, 4, 0, 0, 0, 0}}}
	case 2:
		return []pt.Layer{pt.ExtHdr{Proto: 0, Body: []byte{0x3e, 4, 0, 0, 0, 0}}} // unknown: skip
	case 3:
		return []pt.Layer{pt.ExtHdr{Proto: 0, Body: []byte{0xbe, 4, 0, 0, 0, 0}}} // unknown: report
	}
	return nil
}
