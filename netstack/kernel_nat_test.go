// SPDX-License-Identifier: Apache-2.0

package netstack

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

	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// kernelRouter is a router of the kernel that translates, between two links whose
// stations are packet sockets, and Sluice's in its place:
//
//	near -- slk-p1 ==== slk-r1   router, nft   slk-r2 ==== slk-p2 -- far
//	        10.71.1.0/24, fd71:1::/64     10.71.2.0/24, fd71:2::/64
//
// It has a network namespace that belongs to the test's thread and ends with it.
type kernelRouter struct {
	t     *testing.T
	sides [2]side
	lab   *lab
}

type side struct {
	fd              int
	router, station packet.MAC
}

const kernelRules = `
table inet t {
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr 10.71.2.1 meta l4proto { tcp, udp } th dport 8080 dnat ip to 10.71.1.2:80
		ip6 daddr fd71:2::1 meta l4proto { tcp, udp } th dport 8080 dnat ip6 to [fd71:1::2]:80
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "slk-r2" masquerade
	}
}
`

func newKernelRouter(t *testing.T) *kernelRouter {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	runtime.LockOSThread()
	demand(t, "unshare", unix.Unshare(unix.CLONE_NEWNET))
	for name, value := range map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/default/forwarding": "1",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		"ipv4/icmp_ratelimit": "0", "ipv6/auto_flowlabels": "0", "ipv6/icmp/ratelimit": "0", "ipv4/conf/all/send_redirects": "0",
	} {
		demand(t, name, os.WriteFile("/proc/sys/net/"+name, []byte(value), 0))
	}
	for _, name := range []string{"icmp_msgs_per_sec", "icmp_msgs_burst"} { // of old kernels there is one for all
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte("100000"), 0); err != nil {
			t.Skipf("%s is not the namespace's own: %v", name, err)
		}
	}
	var set strings.Builder
	for n := 1; n <= 2; n++ {
		fmt.Fprintf(&set, "link add slk-r%d type veth peer name slk-p%d\nlink set slk-r%d up\nlink set slk-p%d up\n", n, n, n, n)
		fmt.Fprintf(&set, "addr add 10.71.%d.1/24 dev slk-r%d\naddr add fd71:%d::1/64 dev slk-r%d nodad\n", n, n, n, n)
		fmt.Fprintf(&set, "neigh add 10.71.%d.2 lladdr 02:71:00:00:0%d:02 dev slk-r%d\nneigh add fd71:%d::2 lladdr 02:71:00:00:0%d:02 dev slk-r%d\n", n, n, n, n, n, n)
	}
	feed(t, set.String(), "ip", "-batch", "-")
	feed(t, kernelRules, "nft", "-f", "-")
	k := &kernelRouter{t: t, sides: [2]side{newSide(t, 1), newSide(t, 2)}}
	k.lab = stillSites(t, k.spec())
	return k
}

// spec is the same router here.
func (k *kernelRouter) spec() NamespaceSpec {
	s := NamespaceSpec{Name: "same", Connections: ConnectionsSpec{Track: true, Zone: 1, Rules: []nat.Rule{
		{Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Out: []uint16{20}}},
	}}}
	for n := range 2 {
		four, six := netip.AddrFrom4([4]byte{10, 71, byte(n + 1), 1}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x71, 3: byte(n + 1), 15: 1})
		s.Networks = append(s.Networks, NetworkSpec{
			Name: fmt.Sprint("net", n+1), Bridge: BridgeSpec{Index: uint16(10 * (n + 1)), MAC: k.sides[n].router, MTU: 1500},
			Addresses: []netip.Prefix{netip.PrefixFrom(four, 24), netip.PrefixFrom(six, 64)},
			Ports: []PortSpec{{
				Index: uint16(10*(n+1) + 1), MAC: k.sides[n].station, MTU: 1500, Offload: true,
				Addresses: []netip.Addr{four.Next(), six.Next()},
			}},
		})
	}
	for _, a := range []string{"10.71.1.2", "fd71:1::2"} {
		r := publish(8080, netip.MustParseAddr(a), 80)
		r.Match.Own = nat.Either
		to := "10.71.2.1/32"
		if r.Target.Addrs.Min.Is6() {
			to = "fd71:2::1/128"
		}
		r.Match.Dst = []netip.Prefix{netip.MustParsePrefix(to)}
		s.Connections.Rules = append(s.Connections.Rules, r)
	}
	return s
}

func feed(t *testing.T, input string, words ...string) {
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

func demand(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func newSide(t *testing.T, n int) side {
	t.Helper()
	var router netlink.Link
	for range 200 {
		var err error
		router, err = netlink.LinkByName(fmt.Sprintf("slk-r%d", n))
		demand(t, "router's end", err)
		if router.Attrs().OperState == netlink.OperUp {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	station, err := netlink.LinkByName(fmt.Sprintf("slk-p%d", n))
	demand(t, "station", err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	demand(t, "packet socket", err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	demand(t, "ignore outgoing", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	wait := unix.NsecToTimeval((2 * time.Second).Nanoseconds())
	demand(t, "timeout", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	demand(t, "bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: station.Attrs().Index}))
	return side{fd, packet.MAC(router.Attrs().HardwareAddr), packet.MAC{2, 0x71, 0, 0, byte(n), 2}}
}

// both lets a packet go into both routers on one side, and compares what comes out on
// the other, or the same. It returns that.
func (k *kernelRouter) both(from, to int, b []byte) []byte {
	k.t.Helper()
	f := pt.Frame(b)
	f.SetMACs(k.sides[from].router, k.sides[from].station)
	_, err := unix.Write(k.sides[from].fd, f.Bytes())
	demand(k.t, "send", err)
	k.lab.send(uint16(10*(from+1)+1), f.Bytes())
	theirs := k.receive(to, b)
	got := k.lab.got(uint16(10*(to+1) + 1))
	if got == nil {
		k.t.Fatalf("%s: nothing came through", pt.Describe(b))
	}
	ours := bytes.Clone(got.Bytes())
	for _, x := range [][]byte{ours, theirs} { // the identification of what a router makes
		if v := pt.Frame(x).View; v.Proto == packet.ProtoICMP && v.Is(packet.ViewIPv4) {
			clear(x[v.L3+4 : v.L3+6])
			clear(x[v.L3+10 : v.L3+12])
		}
	}
	if !bytes.Equal(ours, theirs) {
		k.t.Fatalf("%s\nours   %s %x\ntheirs %s %x", pt.Describe(b), pt.Describe(ours), ours, pt.Describe(theirs), theirs)
	}
	return ours
}

// receive is the next packet for the station that the kernel sends.
func (k *kernelRouter) receive(to int, about []byte) []byte {
	k.t.Helper()
	buf := make([]byte, packet.BufLen)
	for {
		n, err := unix.Read(k.sides[to].fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			k.t.Fatalf("%s: nothing came through the kernel: %v", pt.Describe(about), err)
		}
		if packet.MAC(buf) == k.sides[to].station {
			return bytes.Clone(buf[:n])
		}
	}
}

// TestTranslatingRouterAgreesWithKernel byte for byte: first packets from both sides,
// answers, more of them, and the router's own errors about both.
func TestTranslatingRouterAgreesWithKernel(t *testing.T) {
	k := newKernelRouter(t)
	r := rand.New(rand.NewPCG(4, 71))
	for i := range 1000 {
		k.lab.pass(2) // the kernel's rates of errors are off
		v6, tcp, from := r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2)
		addr := func(net, host int) netip.Addr {
			if v6 {
				return pt.IP(fmt.Sprintf("fd71:%d::%d", net+1, host))
			}
			return pt.IP(fmt.Sprintf("10.71.%d.%d", net+1, host))
		}
		p := pt.Packet{
			Src: addr(from, 2), Dst: addr(1-from, 2), SrcPort: uint16(2000 + i), DstPort: uint16(1 + r.IntN(60000)),
			TTL: 64, Seq: 1000, Flags: pt.SYN, Payload: pt.Bytes(r.IntN(700)),
		}
		if from == 1 {
			p.Dst, p.DstPort = addr(1, 1), 8080
		}
		if tcp {
			p.Payload = nil
		}
		build := func(p pt.Packet) []byte {
			switch {
			case tcp && v6:
				return pt.TCP6(p)
			case tcp:
				return pt.TCP4(p)
			case v6:
				return pt.UDP6(p)
			}
			return pt.UDP4(p)
		}
		short := p
		short.TTL = 1
		k.both(from, from, build(short))
		f := pt.Frame(k.both(from, 1-from, build(p)))
		back := pt.Packet{
			Src: f.View.DstAddr(f.Bytes()), Dst: f.View.SrcAddr(f.Bytes()), SrcPort: f.View.DstPort, DstPort: f.View.SrcPort,
			TTL: 64, Seq: 5000, Ack: 1001, Flags: pt.SYN | pt.ACK, Payload: p.Payload,
		}
		k.both(1-from, from, build(back))
		if tcp {
			p.Seq, p.Ack, p.Flags = 1001, 5001, pt.ACK
			back.Seq, back.Flags = 5001, pt.ACK
		}
		k.both(from, 1-from, build(p))
		back.TTL = 1
		k.both(1-from, 1-from, build(back))
		back.TTL = 64
		k.both(1-from, from, build(back))
	}
}
