// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

// newKernelNAT is a router of the kernel that translates, and its two sides.
func newKernelNAT(t *testing.T, ruleset string) (near, far kt.Side) {
	t.Helper()
	kt.Enter(t, "nft")
	kt.OneCPU(t)
	sides := kt.Router(t, 9000, 2, 7)
	kt.NFT(t, ruleset)
	return sides[0], sides[1]
}

// through sends a packet by one link and returns what the router sends by the
// other.
func through(t *testing.T, from, to kt.Side, b []byte) []byte {
	t.Helper()
	send(from, b)
	return receive(t, to, b)
}

func send(from kt.Side, b []byte) {
	f := pt.Frame(b)
	f.SetMACs(from.Router, from.Station)
	from.Send(f.Bytes())
}

// receive is the next packet that the router sends by a link; about is what was sent.
func receive(t *testing.T, to kt.Side, about []byte) []byte {
	t.Helper()
	for {
		got := to.Receive(2 * time.Second)
		if got == nil {
			t.Fatalf("%s: nothing came through", pt.Describe(about))
		}
		if packet.MAC(got) == to.Station {
			return got
		}
	}
}

// ours is the packet as this package and the router's own rewriting make it.
func ours(t *testing.T, to kt.Side, b []byte, apply func(*packet.Frame) bool) []byte {
	t.Helper()
	f := pt.Frame(b)
	if !apply(f) {
		t.Fatalf("refused: %s", pt.Describe(b))
	}
	f.DecrementTTL()
	f.SetMACs(to.Station, to.Router)
	return f.Bytes()
}

func errorBy(r *nat.Rewrite, named bool) func(*packet.Frame) bool {
	return func(f *packet.Frame) bool { return r.ApplyError(f, named) }
}

func same(t *testing.T, what string, sent, ours, theirs []byte) {
	t.Helper()
	if !bytes.Equal(ours, theirs) {
		t.Fatalf("%s: %s\nours   %d %x\ntheirs %d %x", what, pt.Describe(sent), len(ours), ours[:min(200, len(ours))], len(theirs), theirs[:min(200, len(theirs))])
	}
}

const natRuleset = `
table inet t {
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr 10.71.1.1 meta l4proto { tcp, udp, sctp } th dport 7000 dnat ip to 10.71.2.2:8080
		ip daddr 10.71.1.1 icmp type echo-request dnat ip to 10.71.2.2
		ip6 daddr fd71:1::1 meta l4proto { tcp, udp, sctp } th dport 7000 dnat ip6 to [fd71:2::2]:8080
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "r2" masquerade fully-random
	}
}
`

// question is a first packet of a connection through the translator, and answer
// what comes back to where it arrived.
func question(r *rand.Rand, v6 bool) []pt.Layer {
	dst, port := pt.IP("10.71.2.2"), uint16(1+r.IntN(60000))
	src := pt.IP("10.71.1.2")
	if v6 {
		src, dst = pt.IP("fd71:1::2"), pt.IP("fd71:2::2")
	}
	if r.IntN(2) == 0 { // by destination NAT
		dst, port = pt.IP("10.71.1.1"), 7000
		if v6 {
			dst = pt.IP("fd71:1::1")
		}
	}
	l4 := r.IntN(4)
	if v6 && l4 == 3 {
		dst = pt.IP("fd71:2::2")
	}
	var ip pt.Layer = pt.IPv4Hdr{Src: src, Dst: dst, TTL: 64, TOS: uint8(r.Uint32()), ID: uint16(r.Uint32()), DF: true}
	if v6 {
		ip = pt.IPv6Hdr{Src: src, Dst: dst, HopLimit: 64, FlowLabel: r.Uint32()}
	}
	return append([]pt.Layer{pt.EtherHdr{}, ip}, l4Of(r, l4, v6, 1+uint16(r.IntN(65535)), port, false)...)
}

// l4Of is a packet that begins a connection, or answers the one that did.
func l4Of(r *rand.Rand, kind int, v6 bool, src, dst uint16, reply bool) []pt.Layer {
	data := pt.Bytes(1000)
	if r != nil {
		data = data[:r.IntN(1000)]
	}
	for i := range data {
		data[i] = byte(i * 7)
	}
	switch kind {
	case 0:
		h := pt.TCPHdr{SrcPort: src, DstPort: dst, Seq: 1000, Flags: pt.SYN}
		if reply {
			h.Ack, h.Flags = 1001, pt.SYN|pt.ACK
		}
		return []pt.Layer{h}
	case 1:
		h := pt.UDPHdr{SrcPort: src, DstPort: dst}
		if zero := uint16(0); !v6 && r != nil && r.IntN(4) == 0 {
			h.Checksum = &zero
		}
		return []pt.Layer{h, data}
	case 2:
		chunk := pt.Payload{1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1}
		h := pt.SCTPHdr{SrcPort: src, DstPort: dst}
		if reply {
			chunk[0], h.Tag = 2, 9
		}
		return []pt.Layer{h, chunk}
	}
	h := pt.ICMPHdr{V6: v6, Type: 8, ID: src, Seq: dst}
	switch {
	case v6 && reply:
		h.Type = 129
	case v6:
		h.Type = 128
	case reply:
		h.Type = 0
	}
	return []pt.Layer{h, data}
}

// TestRewritingAgreesWithKernel compares byte for byte what the kernel's NAT and
// ours make of first packets, answers, and errors of both sides, whatever they
// quote. Which ports were chosen is read from the kernel's packet.
func TestRewritingAgreesWithKernel(t *testing.T) {
	near, far := newKernelNAT(t, natRuleset)
	r := rand.New(rand.NewPCG(41, 4))
	for i := range 2000 {
		v6 := i%2 == 1
		sent := pt.Build(question(r, v6)...)
		arrived := through(t, near, far, sent)
		src, dst := endsOf(pt.Frame(sent))
		toSrc, toDst := endsOf(pt.Frame(arrived))
		there, back := between(src, dst, toSrc, toDst), between(toDst, toSrc, dst, src)
		same(t, "first packet", sent, ours(t, far, sent, there.Apply), arrived)

		reply := replyTo(r, arrived)
		theirs := through(t, far, near, reply)
		same(t, "answer", reply, ours(t, near, reply, back.Apply), theirs)

		if skipQuote(arrived) {
			continue
		}
		about := errorAbout(arrived, hopOf(r, v6, 2), quoteRoom(r, arrived))
		theirs = through(t, far, near, about)
		same(t, "error from outside", about, ours(t, near, about, errorBy(&back, false)), theirs)
		delivered := ours(t, near, reply, back.Apply)
		about = errorAbout(delivered, hopOf(r, v6, 1), quoteRoom(r, delivered))
		theirs = through(t, near, far, about)
		same(t, "error from inside", about, ours(t, far, about, errorBy(&there, true)), theirs)
	}
}

// skipQuote is true of SCTP: the kernel sums what is quoted as if it were whole.
func skipQuote(b []byte) bool { return pt.Frame(b).View.Proto == packet.ProtoSCTP }

func hopOf(r *rand.Rand, v6 bool, n int) netip.Addr {
	host := 2 + 5*r.IntN(2)
	if v6 {
		return pt.IP(fmt.Sprintf("fd71:%d::%d", n, host))
	}
	return pt.IP(fmt.Sprintf("10.71.%d.%d", n, host))
}

func quoteRoom(r *rand.Rand, b []byte) int {
	v := pt.Frame(b).View
	return v.L4 - v.L3 + 8 + r.IntN(1000)
}

func replyTo(r *rand.Rand, b []byte) []byte {
	f := pt.Frame(b)
	v := &f.View
	src, dst := endsOf(f)
	v6 := v.Is(packet.ViewIPv6)
	kind := map[uint8]int{packet.ProtoTCP: 0, packet.ProtoUDP: 1, packet.ProtoSCTP: 2, packet.ProtoICMP: 3, packet.ProtoICMPv6: 3}[v.Proto]
	var ip pt.Layer = pt.IPv4Hdr{Src: dst.Addr(), Dst: src.Addr(), TTL: 64}
	if v6 {
		ip = pt.IPv6Hdr{Src: dst.Addr(), Dst: src.Addr(), HopLimit: 64}
	}
	sport := dst.Port()
	return pt.Build(append([]pt.Layer{pt.EtherHdr{}, ip}, l4Of(r, kind, v6, sport, src.Port(), true)...)...)
}
