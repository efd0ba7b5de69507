// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/packet/packettest"
	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// transfer sends n random bytes from one namespace to an address of another, and
// compares their hash.
func transfer(t *testing.T, from, to netns.NsHandle, addr netip.Addr, n int64) {
	t.Helper()
	const port = 4000
	l := listen(t, to, netip.AddrPortFrom(addr, port))
	defer l.Close()
	type received struct {
		sum [sha256.Size]byte
		n   int64
		err error
	}
	done := make(chan received, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- received{err: err}
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(3 * patience))
		h := sha256.New()
		n, err := io.Copy(h, c)
		done <- received{[sha256.Size]byte(h.Sum(nil)), n, err}
	}()
	c := dial(t, from, netip.AddrPortFrom(addr, port))
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	h := sha256.New()
	src := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyBuffer(io.MultiWriter(c, h), struct{ io.Reader }{io.LimitReader(src, n)}, make([]byte, 256<<10)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	r := <-done
	if r.err != nil || r.n != n || r.sum != [sha256.Size]byte(h.Sum(nil)) {
		t.Errorf("%d of %d bytes, %v", r.n, n, r.err)
	}
}

// twoContainers are joined by a hub:
//
//	c1: eth0 --- port --- hub --- port --- eth0 :c2
func twoContainers(t *testing.T, change func(*veth.PairConfig)) (c1, c2 *container, h *hub) {
	t.Helper()
	host := kt.NewNS(t)
	c1, c2 = attach(t, host, 1, change), attach(t, host, 2, change)
	return c1, c2, startHub(t, c1.fd(), c2.fd())
}

// mustBeClean checks that the hub refused nothing. Losses are TCP's business.
func (h *hub) mustBeClean(t *testing.T) {
	t.Helper()
	if bad, refused, truncated := h.bad.Load(), h.refused.Load(), h.truncated.Load(); bad+refused+truncated != 0 {
		t.Errorf("%d with inconsistent metadata, %d refused, %d truncated", bad, refused, truncated)
	}
}

func TestTCPPassesUnsegmented(t *testing.T) {
	for _, mtu := range []int{1500, 9000, veth.MaxMTU} {
		t.Run(fmt.Sprintf("MTU %d", mtu), func(t *testing.T) {
			c1, c2, h := twoContainers(t, func(c *veth.PairConfig) { c.MTU = mtu })
			transfer(t, c1.ns, c2.ns, c2.ip4, 32<<20)
			transfer(t, c2.ns, c1.ns, c1.ip6, 32<<20)
			h.mustBeClean(t)
			// A veth's gso_max_size is 64 KB; TCP fills what divides by its segments.
			if h.largest.Load() < 50_000 {
				t.Errorf("largest frame: %d bytes", h.largest.Load())
			}
			if mtu < veth.MaxMTU && h.gso.Load() == 0 {
				t.Error("no frame had segmentation metadata")
			}
		})
	}
}

func TestTCPWithoutOffloadsIsMergedAndPasses(t *testing.T) {
	c1, c2, h := twoContainers(t, nil)
	for _, c := range []*container{c1, c2} {
		kt.RunIn(t, c.ns, "ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
	}
	transfer(t, c1.ns, c2.ns, c2.ip4, 8<<20)
	transfer(t, c2.ns, c1.ns, c1.ip6, 8<<20)
	h.mustBeClean(t)
	if h.gso.Load() == 0 {
		t.Error("the host end merged nothing")
	}
}

func TestUDPSegmentationPasses(t *testing.T) {
	c1, c2, h := twoContainers(t, nil)
	for _, addr := range []netip.Addr{c2.ip4, c2.ip6} {
		server := udpSocket(t, c2.ns, netip.AddrPortFrom(addr, 4001))
		var client *net.UDPConn
		if err := veth.Do(c1.ns, func() (err error) {
			client, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 4001)))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		setSegment(t, client, 1000)
		want := make([]byte, 40_500)
		_, _ = rand.NewChaCha8([32]byte{2}).Read(want)
		if _, err := client.Write(want); err != nil {
			t.Fatal(err)
		}
		var got []byte
		buf := make([]byte, 2000)
		_ = server.SetDeadline(time.Now().Add(patience))
		for len(got) < len(want) {
			n, err := server.Read(buf)
			if err != nil {
				t.Fatalf("after %d bytes: %v", len(got), err)
			}
			got = append(got, buf[:n]...)
		}
		if !bytes.Equal(got, want) {
			t.Error("the datagrams differ")
		}
	}
	h.mustBeClean(t)
	if h.gso.Load() < 2 || h.largest.Load() < 40_000 {
		t.Errorf("%d offload frames, the largest %d", h.gso.Load(), h.largest.Load())
	}
}

func udpSocket(t *testing.T, ns netns.NsHandle, addr netip.AddrPort) (c *net.UDPConn) {
	t.Helper()
	if err := veth.Do(ns, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// setSegment asks for UDP segmentation offload, see udp(7).
func setSegment(t *testing.T, c *net.UDPConn, size int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var opt error
	if err := raw.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size)
	}); err != nil || opt != nil {
		t.Fatal(err, opt)
	}
}

// TestTunnelsPass sends TCP through a VXLAN that two containers made themselves:
// large inner segments must come as many small frames, since no virtio-net header
// could describe them.
func TestTunnelsPass(t *testing.T) {
	c1, c2, h := twoContainers(t, nil)
	for i, c := range []*container{c1, c2} {
		peer := []*container{c2, c1}[i]
		kt.RunIn(t, c.ns, "ip", "link", "add", "vx", "type", "vxlan", "id", "7", "dstport", "4789",
			"local", c.ip4.String(), "remote", peer.ip4.String())
		kt.RunIn(t, c.ns, "ip", "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+1), "dev", "vx")
		kt.RunIn(t, c.ns, "ip", "link", "set", "vx", "up")
	}
	transfer(t, c1.ns, c2.ns, netip.MustParseAddr("10.77.0.2"), 4<<20)
	h.mustBeClean(t)
}

// TestFramesLargerThanABuffer lets the container send "BIG TCP" (IPv4 packets of
// more than 64 KB), which no port can carry.
func TestFramesLargerThanABuffer(t *testing.T) {
	c1, c2, h := twoContainers(t, nil)
	inside := netlinkAt(t, c1.ns)
	if err := inside.LinkSetGSOIPv4MaxSize(linkByName(t, inside, "eth0"), 200_000); err != nil {
		t.Fatal(err)
	}
	l := listen(t, c2.ns, netip.AddrPortFrom(c2.ip4, 4002))
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	c := dial(t, c1.ns, netip.AddrPortFrom(c2.ip4, 4002))
	deadline := time.Now().Add(patience)
	_ = c.SetDeadline(deadline)
	block := make([]byte, 1<<20)
	for h.truncated.Load() == 0 && time.Now().Before(deadline) {
		if _, err := c.Write(block); err != nil {
			break
		}
	}
	if h.truncated.Load() == 0 {
		t.Error("no frame was too large")
	}
	if h.bad.Load() != 0 || h.largest.Load() > packet.MaxFrame {
		t.Errorf("%d inconsistent, the largest %d", h.bad.Load(), h.largest.Load())
	}
}

// tagged is a frame with the tags of a stack, outer first.
func tagged(frame []byte, tags ...[2]uint16) []byte {
	out := bytes.Clone(frame[:12])
	for _, t := range tags {
		out = binary.BigEndian.AppendUint16(out, t[0])
		out = binary.BigEndian.AppendUint16(out, t[1])
	}
	return append(out, frame[12:]...)
}

// hasPayload tells the tagged frames of ethernet() from the kernel's.
func hasPayload(f *packet.Frame) bool {
	return f.View.Parse(f.Bytes()) == packet.FaultNone && f.View.EtherType == 0x88b5
}

// TestVLANTagsPass: the kernel takes the outer tag out of a frame on its way in.
func TestVLANTagsPass(t *testing.T) {
	host := kt.NewNS(t)
	c1, c2 := attach(t, host, 1, nil), attach(t, host, 2, nil)
	in, out := int(c1.rawSocket(t).Fd()), int(c2.rawSocket(t).Fd())
	b, s := newBatch(t, 1), newSender(t, 1)
	for _, tc := range []struct {
		name string
		tags [][2]uint16
	}{
		{"untagged", nil},
		{"802.1Q with priority", [][2]uint16{{0x8100, 0x6005}}},
		{"priority tag", [][2]uint16{{0x8100, 0xe000}}},
		{"802.1ad", [][2]uint16{{0x88a8, 0x0fff}}},
		{"802.1ad over 802.1Q", [][2]uint16{{0x88a8, 7}, {0x8100, 8}}},
		{"802.1Q over 802.1Q", [][2]uint16{{0x8100, 7}, {0x8100, 8}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := tagged(ethernet(1500, 3), tc.tags...)
			if res := sendOne(t, in, frameOf(packet.Vnet{}, want)); res.Sent != 1 {
				t.Fatalf("%+v", res)
			}
			f := awaitFrame(t, c1.fd(), b, hasPayload)
			if !bytes.Equal(f.Bytes(), want) {
				t.Fatalf("the port got\n%x, want\n%x", f.Bytes()[:30], want[:30])
			}
			var res veth.SendResult
			s.Append(f)
			s.Flush(c2.fd(), &res)
			if f := awaitFrame(t, out, b, hasPayload); !bytes.Equal(f.Bytes(), want) {
				t.Errorf("the container got\n%x, want\n%x", f.Bytes()[:30], want[:30])
			}
		})
	}
}

// TestTaggedSegmentsPass sends a 60 KB TCP offload frame with a VLAN tag and
// compares bytes and metadata after each of two crossings.
func TestTaggedSegmentsPass(t *testing.T) {
	host := kt.NewNS(t)
	c1, c2 := attach(t, host, 1, nil), attach(t, host, 2, nil)
	in, out := int(c1.rawSocket(t).Fd()), int(c2.rawSocket(t).Fd())
	b, s := newBatch(t, 1), newSender(t, 1)
	sent := packettest.GSO(packettest.TCP4(packettest.Packet{
		SrcMAC: c1.cfg.MAC, DstMAC: c2.cfg.MAC, Src: c1.ip4, Dst: c2.ip4, Flags: packettest.ACK,
		Tags: []packettest.VLANTag{{TCI: 5}}, Payload: packettest.Bytes(60_000),
	}), 1000)
	if res := sendOne(t, in, sent); res.Sent != 1 {
		t.Fatalf("%+v", res)
	}
	check := func(f *packet.Frame) {
		t.Helper()
		f.Vnet.HdrLen = sent.Vnet.HdrLen // the kernel's linear part, a hint
		if !bytes.Equal(f.Bytes(), sent.Bytes()) || f.Vnet != sent.Vnet || !f.CheckVnet() {
			t.Errorf("%d bytes, %+v", f.Len(), f.Vnet)
		}
	}
	isTCP := func(f *packet.Frame) bool {
		return f.View.Parse(f.Bytes()) == packet.FaultNone && f.View.Proto == packet.ProtoTCP
	}
	f := awaitFrame(t, c1.fd(), b, isTCP)
	check(f)
	var res veth.SendResult
	s.Append(f)
	s.Flush(c2.fd(), &res)
	check(awaitFrame(t, out, b, isTCP))
}

// TestVLANInterface is the same with the kernel's own VLAN interfaces.
func TestVLANInterface(t *testing.T) {
	c1, c2, h := twoContainers(t, nil)
	for i, c := range []*container{c1, c2} {
		err := veth.Do(c.ns, func() error {
			out, err := exec.Command("ip", "link", "add", "link", "eth0", "name", "eth0.5", "type", "vlan", "id", "5").CombinedOutput()
			if strings.Contains(string(out), "Unknown device type") {
				return unix.EOPNOTSUPP
			}
			return err
		})
		if err == unix.EOPNOTSUPP { //nolint:errorlint // made four lines above
			t.Skip("the kernel was built without VLAN interfaces (CONFIG_VLAN_8021Q)")
		}
		if err != nil {
			t.Fatal(err)
		}
		kt.RunIn(t, c.ns, "ip", "addr", "add", fmt.Sprintf("10.55.0.%d/24", i+1), "dev", "eth0.5")
		kt.RunIn(t, c.ns, "ip", "link", "set", "eth0.5", "up")
	}
	transfer(t, c1.ns, c2.ns, netip.MustParseAddr("10.55.0.2"), 8<<20)
	h.mustBeClean(t)
	if h.gso.Load() == 0 {
		t.Error("no offload frame")
	}
}
