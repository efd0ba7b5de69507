// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"bytes"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"sluice/packet"
	"sluice/packet/packettest"
	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// The host end as a probing container would imagine it.
const (
	host4 = "10.9.0.254"
	host6 = "fd09::254"
)

// probes are all frames that a kernel could feel called upon to answer, to a host
// end with the given MAC.
func probes(from *container, hostMAC packet.MAC) [][]byte {
	to4 := []netip.Addr{
		netip.MustParseAddr(host4), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("255.255.255.255"),
		netip.MustParseAddr("10.9.0.255"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("8.8.8.8"),
	}
	linkLocal := netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: hostMAC[0] ^ 2, hostMAC[1], hostMAC[2], 0xff, 0xfe, hostMAC[3], hostMAC[4], hostMAC[5],
	})
	to6 := []netip.Addr{
		netip.MustParseAddr(host6), linkLocal, netip.IPv6LinkLocalAllNodes(), netip.IPv6LinkLocalAllRouters(),
		netip.IPv6Loopback(), netip.MustParseAddr("2001:db8::1"),
	}
	var all [][]byte
	for _, dst := range []packet.MAC{hostMAC, packet.Broadcast(), {0x33, 0x33, 0, 0, 0, 1}, {1, 0, 0x5e, 0, 0, 1}} {
		p := packettest.Packet{SrcMAC: from.cfg.MAC, DstMAC: dst, DstPort: 7, Flags: packettest.SYN, ID: 1}
		for _, a := range to4 {
			p.Src, p.Dst = from.ip4, a
			all = append(all, packettest.ARPRequest(p), packettest.Ping4(p), packettest.TCP4(p), packettest.UDP4(p))
		}
		for _, a := range to6 {
			p.Src, p.Dst = from.ip6, a
			all = append(all, packettest.Ping6(p), packettest.TCP6(p), packettest.UDP6(p), solicit(p))
		}
	}
	return all
}

// solicit is a neighbour solicitation for Dst, sent to Dst itself.
func solicit(p packettest.Packet) []byte {
	target := p.Dst.As16()
	return packettest.Build(
		packettest.EtherHdr{Src: p.SrcMAC, Dst: p.DstMAC},
		packettest.IPv6Hdr{Src: p.Src, Dst: p.Dst, HopLimit: 255},
		packettest.ICMPHdr{V6: true, Type: 135},
		packettest.Payload(append(append(target[:], 1, 1), p.SrcMAC[:]...)))
}

// answers sends the probes out of the container and returns all frames that come
// into it.
func answers(t *testing.T, c *container, hostMAC packet.MAC) [][]byte {
	t.Helper()
	inside, b := int(c.rawSocket(t).Fd()), newBatch(t, 64)
	list := probes(c, hostMAC)
	for _, p := range list {
		if res := sendOne(t, inside, packettest.Frame(p)); res.Sent != 1 {
			t.Fatalf("probe: %+v", res)
		}
	}
	// An answer is sent while the probe is received. When the port has the last
	// probe, all others are through; a frame of our own then ends the answers.
	sendOne(t, inside, frameOf(packet.Vnet{}, ethernet(60, 1)))
	awaitFrame(t, c.fd(), b, isOurs)
	waitFor(inside, 100*time.Millisecond)
	sendOne(t, c.fd(), frameOf(packet.Vnet{}, ethernet(61, 1)))
	var got [][]byte
	awaitFrame(t, inside, b, func(f *packet.Frame) bool {
		if isOurs(f) {
			return true
		}
		got = append(got, bytes.Clone(f.Bytes()))
		return false
	})
	return got
}

func TestHostKernelAnswersNothing(t *testing.T) {
	hostMAC := packet.MAC{2, 0xfe, 0, 0, 0, 1}
	for _, tc := range []struct {
		name string
		host func(t *testing.T) netns.NsHandle
	}{
		{"in a namespace of CreateNetNS", func(t *testing.T) netns.NsHandle {
			t.Helper()
			ns, err := veth.CreateNetNS(newPath(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ns.Close() })
			return ns
		}},
		{"in any namespace", func(t *testing.T) netns.NsHandle { t.Helper(); return kt.NewNS(t) }},
		{"in any namespace with loopback up and forwarding on", func(t *testing.T) netns.NsHandle {
			t.Helper()
			ns := kt.NewNS(t)
			if os.Getenv(readOnly) != "" {
				return ns
			}
			kt.RunIn(t, ns, "ip", "link", "set", "lo", "up")
			kt.RunIn(t, ns, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
			return ns
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := attach(t, tc.host(t), 1, func(c *veth.PairConfig) { c.HostMAC = hostMAC })
			for _, a := range answers(t, c, hostMAC) {
				t.Errorf("an answer: %s", packettest.Describe(a))
			}
		})
	}
}

// TestProbesAreAnsweredByAHostThatMay shows that the probes are good ones.
func TestProbesAreAnsweredByAHostThatMay(t *testing.T) {
	hostMAC := packet.MAC{2, 0xfe, 0, 0, 0, 1}
	host := kt.NewNS(t)
	c := attach(t, host, 1, func(c *veth.PairConfig) { c.HostMAC = hostMAC })
	kt.RunIn(t, host, "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/slt-1/disable_ipv6")
	kt.RunIn(t, host, "ip", "link", "set", "slt-1", "arp", "on")
	kt.RunIn(t, host, "ip", "addr", "add", host4+"/24", "dev", "slt-1")
	kt.RunIn(t, host, "ip", "addr", "add", host6+"/64", "dev", "slt-1", "nodad")
	kinds := map[uint8]int{}
	arp := 0
	for _, frame := range answers(t, c, hostMAC) {
		var v packet.View
		v.Parse(frame)
		if v.EtherType == packet.EtherTypeARP {
			arp++
		}
		kinds[v.Proto]++
	}
	if arp == 0 || kinds[packet.ProtoICMP] == 0 || kinds[packet.ProtoTCP] == 0 || kinds[packet.ProtoICMPv6] == 0 {
		t.Errorf("%d ARP replies, by protocol %v", arp, kinds)
	}
}
