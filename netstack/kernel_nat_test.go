// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/conntrack/conntracktest"
	"sluice/nat"
	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

// kernelRouter is a router of the kernel that translates, and Sluice's in its place.
// Each station has the addresses of all its hosts.
type kernelRouter struct {
	t     *testing.T
	sides [2]side
	lab   *lab
	ct    *conntracktest.Netlink
	watch *conntracktest.Watcher
}

type side struct {
	kt.Side
	marker []byte // crosses the router behind what was sent before it
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
		iifname "r1" meta l4proto { tcp, udp } th dport 7777 redirect to :9
		ip6 daddr fd71:2::1 meta l4proto { tcp, udp, sctp } th dport 8080 dnat ip6 to [fd71:1::2]:80
		ip6 daddr fd71:2::1 meta l4proto { tcp, udp, sctp } th dport 8081 dnat ip6 to fd71:1::3
		ip6 daddr fd71:2::1 meta l4proto { tcp, udp, sctp } th dport 8090 dnat ip6 to [fd71:1::2]:81-84
		ip6 daddr fd71:2::40 dnat ip6 to fd71:1::3
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "r2" ip saddr 10.71.1.4 snat ip to 10.71.2.20-10.71.2.21 persistent
		oifname "r2" ip saddr 10.71.1.5 meta l4proto { tcp, udp, sctp } snat ip to 10.71.2.30:5000-5063
		oifname "r2" ip6 saddr fd71:1::4 snat ip6 to fd71:2::20-fd71:2::21 persistent
		oifname "r2" ip6 saddr fd71:1::5 meta l4proto { tcp, udp, sctp } snat ip6 to [fd71:2::30]:5000-5063
		oifname "r2" masquerade
		iifname "r1" oifname "r1" ct status dnat masquerade
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
		port := PortSpec{Index: uint16(10*(n+1) + 1), MAC: k.sides[n].Station, MTU: 1500, Offload: true}
		for _, host := range hosts() {
			port.Addresses = append(port.Addresses, at(false, n, host), at(true, n, host))
		}
		s.Networks = append(s.Networks, NetworkSpec{
			Name: fmt.Sprint("r", n+1), Bridge: BridgeSpec{Index: uint16(10 * (n + 1)), MAC: k.sides[n].Router, MTU: 1500},
			Addresses: []netip.Prefix{netip.PrefixFrom(at(false, n, 1), 24), netip.PrefixFrom(at(true, n, 1), 64)},
			Ports:     []PortSpec{port}, Device: DeviceSpec{NoRedirects: true},
		})
	}
	return s
}

func newKernelRouter(t *testing.T) *kernelRouter {
	t.Helper()
	k := bareKernelRouter(t)
	kt.NFT(t, kernelRules)
	for n := range k.sides {
		s, proto := &k.sides[n], uint8(253)
		s.marker = pt.Build(pt.EtherHdr{Src: s.Station, Dst: s.Router}, pt.IPv4Hdr{Src: at(false, n, 2), Dst: at(false, 1-n, 2), Proto: &proto}, pt.Bytes(8))
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
	kt.Enter(t, "nft")
	kt.OneCPU(t)
	kt.Sysctl(t, "ipv6/conf/default/addr_gen_mode=1", "ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
		"ipv4/icmp_ratelimit=0", "ipv6/auto_flowlabels=0", "ipv6/icmp/ratelimit=0",
		"ipv4/conf/all/send_redirects=0", "ipv4/conf/default/send_redirects=0")
	for _, name := range []string{"icmp_msgs_per_sec", "icmp_msgs_burst"} { // of old kernels there is one for all
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte("100000"), 0); err != nil {
			t.Skipf("%s is not the namespace's own: %v", name, err)
		}
	}
	kt.IP(t, "link set lo up") // what the router says to itself comes by it
	sides := kt.Router(t, 1500, hosts()...)
	for n := 1; n <= 2; n++ { // the kernel makes its own addresses local when a work queue has come to it
		eventually(t, "an address of IPv6", func() bool {
			out, err := kt.Try("", "ip", "-6", "route", "get", fmt.Sprintf("fd71:%d::1", n))
			return err == nil && strings.HasPrefix(out, "local")
		})
	}
	kt.NFT(t, "add table inet x; add chain inet x c; add rule inet x c ct state new; delete table inet x") // connections are counted from now on
	kt.Sysctl(t, "netfilter/nf_conntrack_acct=1")
	for n := 1; n <= 2; n++ { // what the router says itself has whole checksums
		kt.Run(t, "ethtool", "-K", fmt.Sprint("r", n), "tx", "off")
	}
	return &kernelRouter{t: t, sides: [2]side{{Side: sides[0]}, {Side: sides[1]}}, ct: conntracktest.Open(t), watch: conntracktest.Watch(t)}
}

func demand(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// sent are the frames that a router sent to the stations of both sides.
type sent [2][][]byte

// pass lets a frame into each router on one side, and returns what they sent because
// of it: all of it, since a marker comes behind it, or since that had come out again, on
// one CPU, when the call returned. What is late there, since the CPU had much else to do, is
// waited for if we have sent more.
func (k *kernelRouter) pass(from int, theirs, ours []byte) (kernel, own sent) {
	k.t.Helper()
	s := &k.sides[from]
	s.Send(addressed(s, theirs))
	if s.marker != nil {
		s.Send(s.marker)
	}
	for !k.collect(1-from, &kernel) && s.marker != nil {
		if !k.sides[1-from].Wait(patience) {
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
			if packet.MAC(b) == k.sides[n].Station {
				own[n] = append(own[n], bytes.Clone(b))
			}
		}
		if len(kernel[n]) < len(own[n]) && s.marker == nil && k.sides[n].Wait(time.Second) {
			k.collect(n, &kernel)
		}
	}
	return kernel, own
}

// addressed is a frame of a side's station.
func addressed(s *side, b []byte) []byte {
	b = bytes.Clone(b)
	copy(b, s.Router[:])
	copy(b[6:], s.Station[:])
	return b
}

// collect reads what there is for the station of a side, and reports whether the
// marker was with it.
func (k *kernelRouter) collect(n int, out *sent) (marked bool) {
	for _, b := range k.sides[n].Heard() {
		switch {
		case packet.MAC(b) != k.sides[n].Station || redirect6(b):
		case len(b) > 24 && b[12] == 8 && b[13] == 0 && b[23] == 253:
			marked = true
		default:
			out[n] = append(out[n], b)
		}
	}
	return marked
}

// redirect6 reports whether a frame is a redirect of IPv6, which no sysctl forbids the
// kernel to send.
func redirect6(b []byte) bool {
	return len(b) > 54 && b[12] == 0x86 && b[13] == 0xdd && b[20] == packet.ProtoICMPv6 && b[54] == 137
}
