// SPDX-License-Identifier: Apache-2.0

//go:build tayga

package nat_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

// The prefix of TestTranslationAgreesWithTayga, which refuses some addresses in the
// well-known one.
const taygaPrefix = "2001:db8:64::/96"

// newTayga starts tayga(8), another translator, in a namespace of the test's own, and
// opens its device.
func newTayga(t *testing.T) *kt.End {
	t.Helper()
	kt.Enter(t, "tayga")
	conf := filepath.Join(t.TempDir(), "tayga.conf")
	text := fmt.Sprintf("tun-device slt-64\nipv4-addr 198.18.0.1\nipv6-addr fd44:64::1\nprefix %s\nmap %s %s\n", taygaPrefix, pool4, client6)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	kt.Run(t, "tayga", "-c", conf, "--mktun")
	kt.Sysctl(t, "ipv6/conf/slt-64/disable_ipv6=1")
	kt.IP(t, "link set slt-64 up")
	cmd := exec.Command("tayga", "-c", conf, "--nodetach")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for i := 0; !strings.Contains(kt.Run(t, "ip", "link", "show", "slt-64"), "LOWER_UP"); i++ { // until it has opened the device
		if i == 200 {
			t.Skip("tayga doesn't start")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return kt.Open(t, "slt-64")
}

// byTayga is what it makes of an IP packet.
func byTayga(t *testing.T, e *kt.End, p []byte) []byte {
	t.Helper()
	e.Send(p)
	b := e.Receive(2 * time.Second)
	if b == nil {
		t.Fatalf("nothing came back for %d %x", len(p), p[:min(len(p), 120)])
	}
	return b
}

// TestTranslationAgreesWithTayga compares what two translators make of the same
// packets. What is the translator's own affair is left out: the hop limit, which
// here is the router's, identification and DF of an IPv4 header, and its checksum.
func TestTranslationAgreesWithTayga(t *testing.T) {
	e := newTayga(t)
	r := rand.New(rand.NewPCG(77, 4))
	for range 100 {
		for name, s := range samples(r) {
			if s.proto4 == packet.ProtoSCTP || name == "atomic fragment" || name == "extension headers" {
				continue
			}
			out, back := taygaPair(s.proto4)
			sent6, sent4 := samePorts(s.v6), samePorts(swapped(s.v4))
			if name == "later fragment" && len(sent4) == packet.EthernetLen+packet.IPv4MinLen {
				continue // tayga drops a fragment of nothing
			}
			ours6 := agree(t, e, name+" to IPv4", sent6, out.Translate)
			ours4 := agree(t, e, name+" to IPv6", sent4, back.Translate)
			if name == "later fragment" {
				continue // tayga leaves out the fragment header of a quote
			}
			about4 := errorAbout(ours6, pt.IP("198.51.100.9"), 120+r.IntN(300))
			agree(t, e, name+", error to IPv6", about4, func(f *packet.Frame, id uint16) bool {
				return back.TranslateError(f, nat.Border{Prefix: prefixOf(taygaPrefix)}, id)
			})
			if name == "ping" {
				continue // tayga drops an error about an answer
			}
			about6 := errorAbout(ours4, pt.IP(client6), 140+r.IntN(300))
			agree(t, e, name+", error to IPv4", about6, func(f *packet.Frame, id uint16) bool { return out.TranslateError(f, nat.Border{}, id) })
		}
	}
}

func agree(t *testing.T, e *kt.End, name string, sent []byte, translate func(*packet.Frame, uint16) bool) []byte {
	t.Helper()
	f := pt.Frame(sent)
	if !translate(f, 0) {
		t.Fatalf("%s: refused %s", name, pt.Describe(sent))
	}
	ours := bytes.Clone(f.Bytes()[f.View.L3:f.View.End])
	theirs := byTayga(t, e, sent[packet.EthernetLen:])
	a, b := canonical(ours), canonical(theirs)
	if !bytes.Equal(a, b) {
		t.Fatalf("%s: %s\nours   %d %x\ntheirs %d %x", name, pt.Describe(sent), len(a), a[:min(160, len(a))], len(b), b[:min(160, len(b))])
	}
	return f.Bytes()
}

// canonical is a packet without what translators may choose.
func canonical(p []byte) []byte {
	p = bytes.Clone(p)
	if p[0]>>4 == 6 {
		p[7] = 0
		return p
	}
	header := func(h []byte) {
		h[10], h[11] = 0, 0
		if h[6]&0x3f == 0 && h[7] == 0 {
			h[4], h[5], h[6] = 0, 0, 0
		}
	}
	header(p)
	p[8] = 0
	if p[9] == packet.ProtoICMP && p[20] == 3 { // and so on in what is quoted
		header(p[28:])
		p[22], p[23] = 0, 0
	}
	return p
}

func taygaPair(proto4 uint8) (out, back nat.Rewrite) {
	proto6 := proto4
	six, four := uint16(0), uint16(0)
	if proto4 == packet.ProtoICMP {
		proto6, six, four = packet.ProtoICMPv6, 128<<8, 8<<8
	}
	server := nat.Embed(prefixOf(taygaPrefix), pt.IP(server4))
	a := conntrack.Tuple{Src: pt.IP(client6), Dst: server, SrcPort: 5000, DstPort: 80 | six, Proto: proto6}
	b := conntrack.Tuple{Src: pt.IP(pool4), Dst: pt.IP(server4), SrcPort: 5000, DstPort: 80 | four, Proto: proto4}
	if proto4 == packet.ProtoICMP {
		a.DstPort, b.DstPort = six, four
	}
	replyA, _ := a.Inverse()
	replyB, _ := b.Inverse()
	return nat.Of(a, b), nat.Of(replyB, replyA)
}

func prefixOf(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// samePorts is a sample whose ports are translated to themselves.
func samePorts(layers []pt.Layer) []byte {
	var out []pt.Layer
	for _, l := range layers {
		switch h := l.(type) {
		case pt.TCPHdr:
			if h.SrcPort == 4000 {
				h.SrcPort = 5000
			}
			l = h
		case pt.UDPHdr:
			if h.SrcPort == 4000 {
				h.SrcPort = 5000
			}
			l = h
		case pt.ICMPHdr:
			h.ID = 5000
			l = h
		case pt.IPv6Hdr:
			h.Dst = nat.Embed(prefixOf(taygaPrefix), pt.IP(server4))
			l = h
		}
		out = append(out, l)
	}
	return frameOf(false, out)
}
