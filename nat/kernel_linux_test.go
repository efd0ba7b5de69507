// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// kernelNAT is a router of the kernel that translates, between two links whose
// stations are packet sockets:
//
//	near -- slt-p1 ==== slt-r1   router, nft   slt-r2 ==== slt-p2 -- far
//	        10.71.1.0/24, fd71:1::/64     10.71.2.0/24, fd71:2::/64
//
// It has a network namespace that belongs to the test's thread and ends with it.
type kernelNAT struct {
	near, far link
}

// link is one side of the router.
type link struct {
	fd              int
	router, station packet.MAC
}

func newKernelNAT(t *testing.T, ruleset string) *kernelNAT {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	runtime.LockOSThread()
	var one unix.CPUSet // what two have in their queues changes places
	one.Set(anyCPU(t))
	must(t, "affinity", unix.SchedSetaffinity(0, &one))
	must(t, "unshare", unix.Unshare(unix.CLONE_NEWNET))
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding"} {
		must(t, name, os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0))
	}
	for _, name := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"} {
		must(t, name, os.WriteFile("/proc/sys/net/"+name, []byte("0"), 0))
	}
	var set strings.Builder
	for n := 1; n <= 2; n++ {
		fmt.Fprintf(&set, "link add slt-r%d mtu 9000 type veth peer name slt-p%d mtu 9000\n", n, n)
		fmt.Fprintf(&set, "link set slt-r%d up\nlink set slt-p%d up\n", n, n)
		fmt.Fprintf(&set, "addr add 10.71.%d.1/24 dev slt-r%d\naddr add fd71:%d::1/64 dev slt-r%d nodad\n", n, n, n, n)
		for _, a := range []string{fmt.Sprintf("10.71.%d.2", n), fmt.Sprintf("10.71.%d.7", n), fmt.Sprintf("fd71:%d::2", n), fmt.Sprintf("fd71:%d::7", n)} {
			fmt.Fprintf(&set, "neigh add %s lladdr 02:71:00:00:%02d:02 dev slt-r%d\n", a, n, n)
		}
	}
	run(t, set.String(), "ip", "-batch", "-")
	run(t, ruleset, "nft", "-f", "-")
	return &kernelNAT{near: newLink(t, 1), far: newLink(t, 2)}
}

// anyCPU is one that the thread may use.
func anyCPU(t *testing.T) int {
	t.Helper()
	var all unix.CPUSet
	must(t, "affinity", unix.SchedGetaffinity(0, &all))
	for i := range 1024 {
		if all.IsSet(i) {
			return i
		}
	}
	t.Fatal("no CPU")
	return 0
}

func run(t *testing.T, input string, words ...string) {
	t.Helper()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		if words[0] == "nft" {
			t.Skipf("the kernel here lacks some of nft's address translation: %v: %s", err, out)
		}
		t.Fatalf("%s: %v: %s", words[0], err, out)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func newLink(t *testing.T, n int) link {
	t.Helper()
	var router netlink.Link
	for range 200 {
		var err error
		router, err = netlink.LinkByName(fmt.Sprintf("slt-r%d", n))
		must(t, "router's end", err)
		if router.Attrs().OperState == netlink.OperUp {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	station, err := netlink.LinkByName(fmt.Sprintf("slt-p%d", n))
	must(t, "station", err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, "packet socket", err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, "ignore outgoing", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	wait := unix.NsecToTimeval((2 * time.Second).Nanoseconds())
	must(t, "timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	must(t, "bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: station.Attrs().Index}))
	return link{
		fd: fd, router: packet.MAC(router.Attrs().HardwareAddr),
		station: packet.MAC{0x02, 0x71, 0, 0, byte(n), 2},
	}
}

// through sends a packet by one link and returns what the router sends by the
// other.
func through(t *testing.T, from, to link, b []byte) []byte {
	t.Helper()
	send(t, from, b)
	return receive(t, to, b)
}

func send(t *testing.T, from link, b []byte) {
	t.Helper()
	f := pt.Frame(b)
	f.SetMACs(from.router, from.station)
	_, err := unix.Write(from.fd, f.Bytes())
	must(t, "send", err)
}

// receive is the next packet that the router sends by a link; about is what was sent.
func receive(t *testing.T, to link, about []byte) []byte {
	t.Helper()
	got := make([]byte, packet.BufLen)
	for {
		n, err := unix.Read(to.fd, got)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("%s: nothing came through: %v", pt.Describe(about), err)
		}
		if packet.MAC(got) == to.station {
			return bytes.Clone(got[:n])
		}
	}
}

// ours is the packet as this package and the router's own rewriting make it.
func ours(t *testing.T, to link, b []byte, apply func(*packet.Frame) bool) []byte {
	t.Helper()
	f := pt.Frame(b)
	if !apply(f) {
		t.Fatalf("refused: %s", pt.Describe(b))
	}
	f.DecrementTTL()
	f.SetMACs(to.station, to.router)
	return f.Bytes()
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
		oifname "slt-r2" masquerade fully-random
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
	k := newKernelNAT(t, natRuleset)
	r := rand.New(rand.NewPCG(41, 4))
	for i := range 2000 {
		v6 := i%2 == 1
		sent := pt.Build(question(r, v6)...)
		arrived := through(t, k.near, k.far, sent)
		src, dst := endsOf(pt.Frame(sent))
		toSrc, toDst := endsOf(pt.Frame(arrived))
		there, back := between(src, dst, toSrc, toDst), between(toDst, toSrc, dst, src)
		same(t, "first packet", sent, ours(t, k.far, sent, there.Apply), arrived)

		reply := replyTo(r, arrived)
		theirs := through(t, k.far, k.near, reply)
		same(t, "answer", reply, ours(t, k.near, reply, back.Apply), theirs)

		if skipQuote(arrived) {
			continue
		}
		about := errorAbout(arrived, hopOf(r, v6, 2), quoteRoom(r, arrived))
		theirs = through(t, k.far, k.near, about)
		same(t, "error from outside", about, ours(t, k.near, about, back.ApplyError), theirs)
		delivered := ours(t, k.near, reply, back.Apply)
		about = errorAbout(delivered, hopOf(r, v6, 1), quoteRoom(r, delivered))
		theirs = through(t, k.near, k.far, about)
		same(t, "error from inside", about, ours(t, k.far, about, there.ApplyError), theirs)
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
