// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/conntrack/conntracktest"
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
// Each station has the addresses of all its hosts. The kernel's is in a
// network namespace that belongs to the test's thread and ends with it.
type kernelRouter struct {
	t     *testing.T
	sides [2]side
	lab   *lab
	ct    *conntracktest.Netlink
	watch *conntracktest.Watcher
	buf   []byte
}

type side struct {
	fd              int
	router, station packet.MAC
	marker          []byte // crosses the router behind what was sent before it
}

// The sides, and hosts with a role in the rules.
const (
	near, far = 0, 1
	pooled    = 4 // a source that becomes one of two addresses
	cramped   = 5 // a source that becomes one of some ports
	oneToOne  = 40
)

// hosts are those that a side's station stands for, and addresses that only rules
// know: what is not translated is sent there.
func hosts() []int { return []int{2, 3, pooled, cramped, 6, 7, 8, 9, 20, 21, 30, oneToOne} }

// kernelRules are those of spec, in nft's words.
const kernelRules = `
table inet t {
	chain raw {
		type filter hook prerouting priority raw
		meta l4proto 253 notrack
	}
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr 10.71.2.1 meta l4proto { tcp, udp, sctp } th dport 8080 dnat ip to 10.71.1.2:80
		ip daddr 10.71.2.1 meta l4proto { tcp, udp, sctp } th dport 8081 dnat ip to 10.71.1.3
		ip daddr 10.71.2.1 meta l4proto { tcp, udp, sctp } th dport 8090 dnat ip to 10.71.1.2:81-84
		ip daddr 10.71.2.40 dnat ip to 10.71.1.3
		iifname "slk-r1" meta l4proto { tcp, udp } th dport 7777 redirect to :9
		ip6 daddr fd71:2::1 meta l4proto { tcp, udp, sctp } th dport 8080 dnat ip6 to [fd71:1::2]:80
		ip6 daddr fd71:2::1 meta l4proto { tcp, udp, sctp } th dport 8081 dnat ip6 to fd71:1::3
		ip6 daddr fd71:2::1 meta l4proto { tcp, udp, sctp } th dport 8090 dnat ip6 to [fd71:1::2]:81-84
		ip6 daddr fd71:2::40 dnat ip6 to fd71:1::3
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "slk-r2" ip saddr 10.71.1.4 snat ip to 10.71.2.20-10.71.2.21 persistent
		oifname "slk-r2" ip saddr 10.71.1.5 meta l4proto { tcp, udp, sctp } snat ip to 10.71.2.30:5000-5063
		oifname "slk-r2" ip6 saddr fd71:1::4 snat ip6 to fd71:2::20-fd71:2::21 persistent
		oifname "slk-r2" ip6 saddr fd71:1::5 meta l4proto { tcp, udp, sctp } snat ip6 to [fd71:2::30]:5000-5063
		oifname "slk-r2" masquerade
		iifname "slk-r1" oifname "slk-r1" ct status dnat masquerade
	}
}
`

// at is an address of a side.
func at(v6 bool, n, host int) netip.Addr {
	if v6 {
		return pt.IP(fmt.Sprintf("fd71:%d::%d", n+1, host))
	}
	return pt.IP(fmt.Sprintf("10.71.%d.%d", n+1, host))
}

// dnats are the rules of prerouting of one family.
func dnats(v6 bool) []nat.Rule {
	transports := []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP}
	one := func(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())} }
	own := func(port uint16, to nat.Target) nat.Rule {
		return nat.Rule{Hook: nat.Prerouting, Kind: nat.DNAT, Target: to, Match: nat.Match{
			Dst: one(at(v6, far, 1)), Protos: transports, DstPorts: []nat.PortRange{{Min: port, Max: port}},
		}}
	}
	return []nat.Rule{
		own(8080, nat.Target{Addrs: nat.One(at(v6, near, 2)), Ports: nat.PortRange{Min: 80, Max: 80}}),
		own(8081, nat.Target{Addrs: nat.One(at(v6, near, 3))}),
		own(8090, nat.Target{Addrs: nat.One(at(v6, near, 2)), Ports: nat.PortRange{Min: 81, Max: 84}}),
		{Hook: nat.Prerouting, Kind: nat.DNAT, Match: nat.Match{Dst: one(at(v6, far, oneToOne))}, Target: nat.Target{Addrs: nat.One(at(v6, near, 3))}},
	}
}

// snats are those of postrouting that are of one family.
func snats(v6 bool) []nat.Rule {
	from := func(host int) nat.Match {
		a := at(v6, near, host)
		return nat.Match{Out: []uint16{20}, Src: []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}}
	}
	few := from(cramped)
	few.Protos = []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP}
	return []nat.Rule{
		{Hook: nat.Postrouting, Kind: nat.SNAT, Match: from(pooled), Persistent: true, Target: nat.Target{Addrs: nat.AddrRange{Min: at(v6, far, 20), Max: at(v6, far, 21)}}},
		{Hook: nat.Postrouting, Kind: nat.SNAT, Match: few, Target: nat.Target{Addrs: nat.One(at(v6, far, 30)), Ports: nat.PortRange{Min: 5000, Max: 5063}}},
	}
}

// spec is the same router here.
func (k *kernelRouter) spec() NamespaceSpec {
	s := k.between()
	rules := append(dnats(false), dnats(true)...)
	rules = append(rules, nat.Rule{Hook: nat.Prerouting, Kind: nat.Redirect, Target: nat.Target{Ports: nat.PortRange{Min: 9, Max: 9}}, Match: nat.Match{
		In: []uint16{10}, Protos: []uint8{packet.ProtoTCP, packet.ProtoUDP}, DstPorts: []nat.PortRange{{Min: 7777, Max: 7777}},
	}})
	rules = append(append(rules, snats(false)...), snats(true)...)
	rules = append(rules, nat.Rule{Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Out: []uint16{20}}},
		nat.Rule{Hook: nat.Postrouting, Kind: nat.Masquerade, Match: nat.Match{Out: []uint16{10}, Hairpin: nat.Yes}})
	s.Connections.Rules = rules
	return s
}

// between is a router between the two links, without rules.
func (k *kernelRouter) between() NamespaceSpec {
	s := NamespaceSpec{Name: "same", Connections: ConnectionsSpec{Track: true, Zone: 1}}
	for n := range 2 {
		port := PortSpec{Index: uint16(10*(n+1) + 1), MAC: k.sides[n].station, MTU: 1500, Offload: true}
		for _, host := range hosts() {
			port.Addresses = append(port.Addresses, at(false, n, host), at(true, n, host))
		}
		s.Networks = append(s.Networks, NetworkSpec{
			Name: fmt.Sprint("slk-r", n+1), Bridge: BridgeSpec{Index: uint16(10 * (n + 1)), MAC: k.sides[n].router, MTU: 1500},
			Addresses: []netip.Prefix{netip.PrefixFrom(at(false, n, 1), 24), netip.PrefixFrom(at(true, n, 1), 64)},
			Ports:     []PortSpec{port}, Device: DeviceSpec{NoRedirects: true},
		})
	}
	return s
}

func newKernelRouter(t *testing.T) *kernelRouter {
	t.Helper()
	k := bareKernelRouter(t)
	feed(t, kernelRules, "nft", "-f", "-")
	for n := range k.sides {
		s, proto := &k.sides[n], uint8(253)
		s.marker = pt.Build(pt.EtherHdr{Src: s.station, Dst: s.router}, pt.IPv4Hdr{Src: at(false, n, 2), Dst: at(false, 1-n, 2), Proto: &proto}, pt.Bytes(8))
	}
	k.open(k.spec())
	return k
}

// open makes Sluice's router, whose own stack says as much as it is asked, as the kernel's.
func (k *kernelRouter) open(s NamespaceSpec) {
	k.t.Helper()
	k.lab = stillSites(k.t, s)
	host := k.lab.n.Namespace(s.Name).host.stack
	host.SetICMPLimit(1e9)
	host.SetICMPBurst(1e9)
}

// bareKernelRouter is the kernel's, without rules.
func bareKernelRouter(t *testing.T) *kernelRouter {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	runtime.LockOSThread()
	oneCPU(t)
	demand(t, "unshare", unix.Unshare(unix.CLONE_NEWNET))
	for name, value := range map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/default/forwarding": "1",
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		"ipv6/conf/default/addr_gen_mode": "1", "ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0",
		"ipv4/icmp_ratelimit": "0", "ipv6/auto_flowlabels": "0", "ipv6/icmp/ratelimit": "0", "ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
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
		for _, host := range hosts() {
			for _, a := range []netip.Addr{at(false, n-1, host), at(true, n-1, host)} {
				fmt.Fprintf(&set, "neigh add %v lladdr 02:71:00:00:0%d:02 dev slk-r%d\n", a, n, n)
			}
		}
	}
	feed(t, set.String(), "ip", "-batch", "-")
	for n := 1; n <= 2; n++ { // the kernel makes its own addresses local when a work queue has come to it
		eventually(t, "an address of IPv6", func() bool {
			out, err := exec.Command("ip", "-6", "route", "get", fmt.Sprintf("fd71:%d::1", n)).Output()
			return err == nil && bytes.HasPrefix(out, []byte("local"))
		})
	}
	feed(t, "add table inet x; add chain inet x c; add rule inet x c ct state new; delete table inet x", "nft", "-f", "-") // connections are counted from now on
	demand(t, "counters", os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_acct", []byte("1"), 0))
	for n := 1; n <= 2; n++ { // what the router says itself has whole checksums
		feed(t, "", "ethtool", "-K", fmt.Sprintf("slk-r%d", n), "tx", "off")
	}
	k := &kernelRouter{t: t, sides: [2]side{newSide(t, 1), newSide(t, 2)}, ct: conntracktest.Open(t), watch: conntracktest.Watch(t), buf: make([]byte, packet.BufLen)}
	return k
}

// oneCPU keeps the thread on one of its CPUs: what two have in their queues changes
// places.
func oneCPU(t *testing.T) {
	t.Helper()
	var all, one unix.CPUSet
	demand(t, "affinity", unix.SchedGetaffinity(0, &all))
	for i := range 1024 {
		if all.IsSet(i) {
			one.Set(i)
			break
		}
	}
	demand(t, "affinity", unix.SchedSetaffinity(0, &one))
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
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	demand(t, "packet socket", err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	demand(t, "ignore outgoing", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	demand(t, "bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: station.Attrs().Index}))
	return side{fd: fd, router: packet.MAC(router.Attrs().HardwareAddr), station: packet.MAC{2, 0x71, 0, 0, byte(n), 2}}
}

// sent are the frames that a router sent to the stations of both sides.
type sent [2][][]byte

// pass lets a frame into each router on one side, and returns what they sent because
// of it: all of it, since a marker comes behind it, or since that had come out again, on
// one CPU, when the call returned.
func (k *kernelRouter) pass(from int, theirs, ours []byte) (kernel, own sent) {
	k.t.Helper()
	s := &k.sides[from]
	_, err := unix.Write(s.fd, addressed(s, theirs))
	demand(k.t, "send", err)
	if s.marker != nil {
		_, err = unix.Write(s.fd, s.marker)
		demand(k.t, "send", err)
	}
	for !k.collect(1-from, &kernel) && s.marker != nil {
		fds := []unix.PollFd{{Fd: int32(k.sides[1-from].fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 5000); n == 0 && err == nil {
			k.t.Fatalf("%s: the kernel's router stands still", pt.Describe(theirs))
		}
	}
	k.collect(from, &kernel)
	k.lab.send(uint16(10*(from+1)+1), addressed(s, ours))
	for n := range own {
		for {
			_, b, ok := k.lab.wires[uint16(10*(n+1)+1)].Receive(0)
			if !ok {
				break
			}
			if packet.MAC(b) == k.sides[n].station {
				own[n] = append(own[n], bytes.Clone(b))
			}
		}
	}
	return kernel, own
}

// addressed is a frame of a side's station.
func addressed(s *side, b []byte) []byte {
	b = bytes.Clone(b)
	copy(b, s.router[:])
	copy(b[6:], s.station[:])
	return b
}

// collect reads what there is for the station of a side, and reports whether the
// marker was with it.
func (k *kernelRouter) collect(n int, out *sent) (marked bool) {
	k.t.Helper()
	for {
		got, err := unix.Read(k.sides[n].fd, k.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return marked
		case err != nil:
			k.t.Fatalf("receive: %v", err)
		}
		b := k.buf[:got]
		switch {
		case packet.MAC(b) != k.sides[n].station || redirect6(b):
		case got > 24 && b[12] == 8 && b[13] == 0 && b[23] == 253:
			marked = true
		default:
			out[n] = append(out[n], bytes.Clone(b))
		}
	}
}

// redirect6 reports whether a frame is a redirect of IPv6, which no sysctl forbids the
// kernel to send.
func redirect6(b []byte) bool {
	return len(b) > 54 && b[12] == 0x86 && b[13] == 0xdd && b[20] == packet.ProtoICMPv6 && b[54] == 137
}
