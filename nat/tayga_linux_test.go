// SPDX-License-Identifier: Apache-2.0

//go:build tayga

package nat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// The prefix of TestTranslationAgreesWithTayga, which refuses some addresses in the
// well-known one.
const taygaPrefix = "2001:db8:64::/96"

// newTayga starts tayga(8), another translator, in a namespace that belongs to the
// test's thread, and returns a socket on its device.
func newTayga(t *testing.T) int {
	t.Helper()
	path, err := exec.LookPath("tayga")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root, and tayga")
	}
	runtime.LockOSThread()
	must(t, "unshare", unix.Unshare(unix.CLONE_NEWNET))
	conf := filepath.Join(t.TempDir(), "tayga.conf")
	text := fmt.Sprintf("tun-device slt-64\nipv4-addr 198.18.0.1\nipv6-addr fd44:64::1\nprefix %s\nmap %s %s\n", taygaPrefix, pool4, client6)
	must(t, "conf", os.WriteFile(conf, []byte(text), 0o600))
	run(t, "", path, "-c", conf, "--mktun")
	l, err := netlink.LinkByName("slt-64")
	must(t, "device", err)
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/slt-64/disable_ipv6", []byte("1"), 0)
	must(t, "up", netlink.LinkSetUp(l))
	cmd := exec.Command(path, "-c", conf, "--nodetach")
	must(t, "start", cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for i := 0; l.Attrs().RawFlags&unix.IFF_RUNNING == 0; i++ { // until it has opened the device
		if i == 200 {
			t.Skip("tayga doesn't start")
		}
		time.Sleep(10 * time.Millisecond)
		l, err = netlink.LinkByName("slt-64")
		must(t, "device", err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, "socket", err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, "ignore outgoing", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	wait := unix.NsecToTimeval((2 * time.Second).Nanoseconds())
	must(t, "timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	must(t, "bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index}))
	return fd
}

// byTayga is what it makes of an IP packet.
func byTayga(t *testing.T, fd int, p []byte) []byte {
	t.Helper()
	l, err := netlink.LinkByName("slt-64")
	must(t, "device", err)
	proto := uint16(unix.ETH_P_IP)
	if p[0]>>4 == 6 {
		proto = unix.ETH_P_IPV6
	}
	proto = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, proto))
	must(t, "send", unix.Sendto(fd, p, 0, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: l.Attrs().Index}))
	b := make([]byte, packet.BufLen)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		t.Fatalf("nothing came back for %s: %v", fmt.Sprintf("%d %x", len(p), p[:min(len(p), 120)]), err)
	}
	return b[:n]
}

// TestTranslationAgreesWithTayga compares what two translators make of the same
// packets. What is the translator's own affair is left out: the hop limit, which
// here is the router's, identification and DF of an IPv4 header, and its checksum.
func TestTranslationAgreesWithTayga(t *testing.T) {
	fd := newTayga(t)
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
			ours6 := agree(t, fd, name+" to IPv4", sent6, out.Translate)
			ours4 := agree(t, fd, name+" to IPv6", sent4, back.Translate)
			if name == "later fragment" {
				continue // tayga leaves out the fragment header of a quote
			}
			about4 := errorAbout(ours6, pt.IP("198.51.100.9"), 120+r.IntN(300))
			agree(t, fd, name+", error to IPv6", about4, func(f *packet.Frame, id uint16) bool {
				return back.TranslateError(f, nat.Border{Prefix: prefixOf(taygaPrefix)}, id)
			})
			if name == "ping" {
				continue // tayga drops an error about an answer
			}
			about6 := errorAbout(ours4, pt.IP(client6), 140+r.IntN(300))
			agree(t, fd, name+", error to IPv4", about6, func(f *packet.Frame, id uint16) bool { return out.TranslateError(f, nat.Border{}, id) })
		}
	}
}

func agree(t *testing.T, fd int, name string, sent []byte, translate func(*packet.Frame, uint16) bool) []byte {
	t.Helper()
	f := pt.Frame(sent)
	if !translate(f, 0) {
		t.Fatalf("%s: refused %s", name, pt.Describe(sent))
	}
	ours := bytes.Clone(f.Bytes()[f.View.L3:f.View.End])
	theirs := byTayga(t, fd, sent[packet.EthernetLen:])
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
