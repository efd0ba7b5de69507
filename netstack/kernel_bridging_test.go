// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bridge"
	"sluice/bridge/guard"
	"sluice/bridge/snoop"
	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// Two bridges with a trunk between them, which is a pair of interfaces of the
// kernel's:
//
//	container 1 ── port 1, VLAN 10 ┐                                          ┌ port 2, VLAN 10 ── container 2
//	                               ┴ blue ── port 3 ══ veth ══ port 13 ── red ┴
//
// Bulk data shows that tags and offloads go together.
func TestKernelTrunk(t *testing.T) {
	for _, tc := range []struct{ offload, qinq bool }{{true, false}, {false, false}, {true, true}} {
		t.Run(fmt.Sprintf("offload %v, 802.1ad %v", tc.offload, tc.qinq), func(t *testing.T) {
			trunk := bridge.VLAN{Tagged: []bridge.VIDRange{{First: 10, Last: 20}}, QinQ: tc.qinq}
			all := blue(3)
			all.Addresses, all.Bridge.VLAN.PVID = nil, 20
			l := newKernelLab(t, Options{Workers: 2}, all)
			if tc.qinq { // see bridge.VLAN
				kt.RunIn(t, l.host, "ip", "link", "set", "slt-h3", "mtu", "1504")
				l.run(3, "ip", "link", "set", "slt-c3", "mtu", "1504")
			}
			left, right := all, all
			right.Name, right.Bridge.Index = "red", 200
			left.Ports = []PortSpec{all.Ports[0], all.Ports[2]}
			far := container(4)
			far.Index = 13
			right.Ports = []PortSpec{all.Ports[1], far}
			for _, s := range []NetworkSpec{left, right} {
				s.Ports[0].VLAN.PVID = 10
				s.Ports[1].VLAN, s.Ports[1].Offload = trunk, tc.offload
			}
			err := l.n.Apply(&Snapshot{Namespaces: []NamespaceSpec{alone(left), alone(right)}}, map[uint16]int{13: openPort(t, l.ns[3], "slt-c3")})
			if err != nil {
				t.Fatal(err)
			}
			l.pings(1, "10.44.0.12")
			l.pings(1, "fd44::c")
			one, two := kernel{l.ns[1]}, kernel{l.ns[2]}
			size := 16 << 20
			if raceEnabled {
				size = 2 << 20
			}
			transfer(t, one, two, "10.44.0.12:80", size)
			transfer(t, two, one, "[fd44::b]:80", size)
			if s := l.n.opts.Counters.Port(3).Snapshot(); tc.offload && s.TxGSO == 0 {
				t.Errorf("no offload frame went over the trunk: %+v", s)
			}
			right.Ports[0].VLAN.PVID = 20
			if err := l.n.Apply(&Snapshot{Namespaces: []NamespaceSpec{alone(left), alone(right)}}, nil); err != nil {
				t.Fatal(err)
			}
			if out := l.try(1, "ping", "-n", "-c", "1", "-W", "1", "10.44.0.12"); !strings.Contains(out, "100% packet loss") {
				t.Errorf("a container of VLAN 20 answers in VLAN 10:\n%s", out)
			}
		})
	}
}

// pings expects all answers to some pings.
func (l *kernelLab) pings(i int, address string, args ...string) {
	l.t.Helper()
	args = append([]string{"ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", "-s", "1400"}, args...)
	if out := l.run(i, append(args, address)...); !strings.Contains(out, " 0% packet loss") {
		l.t.Errorf("%s:\n%s", address, out)
	}
}

// try is run for a command that may fail.
func (l *kernelLab) try(i int, args ...string) string {
	l.t.Helper()
	return l.run(i, "sh", "-c", strings.Join(args, " ")+" || true")
}

// Kernel hosts notice nothing of guards and suppression, and those that forge are
// stopped.
func TestKernelGuardedAndSuppressed(t *testing.T) {
	s := blue(3)
	for i := range s.Ports {
		s.Ports[i].Guard, s.Ports[i].Flags = guard.All, bridge.Suppress|bridge.FilterBPDU
	}
	s.Bridge.Snooping = &snoop.Config{Querier: true}
	l := newKernelLab(t, Options{Workers: 2}, s)
	for _, address := range []string{"10.44.0.1", "10.44.0.12", "fd44::1", "fd44::c"} {
		l.pings(1, address)
	}
	transfer(t, kernel{l.ns[1]}, kernel{l.ns[2]}, "10.44.0.12:80", 1<<20)
	transfer(t, kernel{l.ns[3]}, kernel{l.ns[2]}, "[fd44::c]:80", 1<<20)
	if got := l.n.opts.Counters.Port(1).Snapshot(); got.Drops["suppressed"] == 0 {
		t.Errorf("no question was suppressed: %v", got.Drops)
	}

	l.run(3, "ip", "addr", "add", "10.44.0.77/24", "dev", "slt-c3")
	if out := l.try(3, "ping", "-n", "-c", "1", "-W", "1", "-I", "10.44.0.77", "10.44.0.12"); !strings.Contains(out, "100% packet loss") {
		t.Errorf("a forged address is answered:\n%s", out)
	}
	l.run(3, "ip", "link", "set", "dev", "slt-c3", "address", mac(2).String())
	if out := l.try(3, "ping", "-n", "-c", "1", "-W", "1", "10.44.0.11"); !strings.Contains(out, "100% packet loss") {
		t.Errorf("a forged MAC is answered:\n%s", out)
	}
	got := l.n.opts.Counters.Port(3).Snapshot().Drops
	if got["guard_mac"] == 0 || got["guard_ip"]+got["guard_arp"] == 0 {
		t.Errorf("drops at the port that forges: %v", got)
	}
	l.pings(1, "10.44.0.12")
	transfer(t, kernel{l.ns[1]}, kernel{l.ns[2]}, "10.44.0.12:80", 1<<20)
}

// A host joins with its kernel's IGMP and MLD, and leaves: others get nothing of its
// group (bridge_igmp, bridge_mld).
func TestKernelMulticast(t *testing.T) {
	s := blue(3)
	s.Bridge.Snooping = &snoop.Config{Querier: true, ResponseInterval: time.Second, QueryInterval: 20 * time.Second}
	l := newKernelLab(t, Options{Workers: 2}, s)
	// A host tells that it leaves only if it has reported last (RFC 2236 §3, RFC 2710 §4),
	// which a kernel that has joined by IGMPv3 or MLDv2 and then hears an older query has
	// not: it joins when it knows the version.
	eventually(t, "the host has heard the querier", func() bool {
		heard := regexp.MustCompile(`slt-c2 *: +\d+ +V2`).MatchString(l.run(2, "cat", "/proc/net/igmp"))
		return heard && !regexp.MustCompile(`Icmp6InGroupMembQueries\s+0`).MatchString(l.run(2, "cat", "/proc/net/snmp6"))
	})
	for network, group := range map[string]string{"udp4": "239.1.1.1", "udp6": "ff05::1:1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(group), 5353)
		c := l.join(2, network, to)
		eventually(t, "the group goes to its member, and not to container 3", func() bool {
			before := l.n.opts.Counters.Port(3).Snapshot().TxPackets
			got := l.multicast(network, to, c)
			return l.member(to.Addr(), 2) && got && l.n.opts.Counters.Port(3).Snapshot().TxPackets == before
		})
		_ = c.Close()
		eventually(t, "the host has left", func() bool { return !l.member(to.Addr(), 2) })
	}
}

func (l *kernelLab) member(group netip.Addr, port uint16) bool {
	members, _ := l.blue.Groups("blue")
	return slices.ContainsFunc(members, func(e snoop.Entry) bool { return e.Group == group && e.Port == port })
}

// join makes container i a member of a group.
func (l *kernelLab) join(i int, network string, to netip.AddrPort) (c *net.UDPConn) {
	l.t.Helper()
	err := veth.Do(l.ns[i], func() error {
		ifi, err := net.InterfaceByName(fmt.Sprintf("slt-c%d", i))
		if err != nil {
			return err
		}
		c, err = net.ListenMulticastUDP(network, ifi, net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

// multicast sends a datagram from container 1 and reports whether c got it.
func (l *kernelLab) multicast(network string, to netip.AddrPort, c *net.UDPConn) bool {
	l.t.Helper()
	out, err := kernel{l.ns[1]}.DialContext(within(l.t), network, to.String())
	if err != nil {
		l.t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write([]byte("all")); err != nil {
		l.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	n, err := c.Read(make([]byte, 10))
	return err == nil && n == 3
}
