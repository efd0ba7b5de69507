// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
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
	"sluice/packet"
)

// kernelTracker is a router of the kernel that tracks what it forwards between
// two links, and writes what it takes each packet for into the packet's DSCP:
//
//	AF_PACKET -- slc-p1 ==== slc-r1   nf_conntrack   slc-r2 ==== slc-p2 -- AF_PACKET
//	             10.74.1.2, fd74:1::2                10.74.2.2, fd74:2::2
//
// It is in a network namespace of the test's thread, and ends with it.
type kernelTracker struct {
	fd  [2]int        // packet sockets: of the original direction's sender, of the other's
	mac [2]packet.MAC // of the router's devices
	nl  *conntracktest.Netlink
	buf [65536]byte
}

// ends are the addresses of both ends, by family.
func ends(v6 bool) [2]netip.Addr {
	if v6 {
		return [2]netip.Addr{netip.MustParseAddr("fd74:1::2"), netip.MustParseAddr("fd74:2::2")}
	}
	return [2]netip.Addr{netip.MustParseAddr("10.74.1.2"), netip.MustParseAddr("10.74.2.2")}
}

// marking are the rules that show a packet's state.
const marking = `
table inet slc {
	chain show {
		type filter hook forward priority 0;
		meta nfproto ipv4 ct state invalid ip dscp set 1
		meta nfproto ipv4 ct state untracked ip dscp set 2
		meta nfproto ipv4 ct state new ip dscp set 3
		meta nfproto ipv4 ct state established ip dscp set 4
		meta nfproto ipv4 ct state related ip dscp set 5
		meta nfproto ipv6 ct state invalid ip6 dscp set 1
		meta nfproto ipv6 ct state untracked ip6 dscp set 2
		meta nfproto ipv6 ct state new ip6 dscp set 3
		meta nfproto ipv6 ct state established ip6 dscp set 4
		meta nfproto ipv6 ct state related ip6 dscp set 5
	}
}
`

func newKernelTracker(t *testing.T) *kernelTracker {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	runtime.LockOSThread() // never unlocked: the thread ends with its namespace
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	setup(t)
	k := &kernelTracker{}
	for n := range k.fd {
		far, err := netlink.LinkByName(fmt.Sprintf("slc-p%d", n+1))
		must(t, err)
		router, err := netlink.LinkByName(fmt.Sprintf("slc-r%d", n+1))
		must(t, err)
		copy(k.mac[n][:], router.Attrs().HardwareAddr)
		k.fd[n] = packetSocket(t, far.Attrs().Index)
	}
	k.nl = conntracktest.Open(t)
	return k
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// setup makes the links and the rules. A kernel without conntrack skips the test.
func setup(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		"ipv4/conf/all/send_redirects": "0",
	} {
		must(t, os.WriteFile("/proc/sys/net/"+name, []byte(value), 0))
	}
	var set strings.Builder
	for n := 1; n <= 2; n++ {
		fmt.Fprintf(&set, "link add slc-r%d type veth peer name slc-p%d\n", n, n)
		fmt.Fprintf(&set, "link set slc-r%d up\nlink set slc-p%d up\n", n, n)
		fmt.Fprintf(&set, "addr add 10.74.%d.1/24 dev slc-r%d\naddr add fd74:%d::1/64 dev slc-r%d nodad\n", n, n, n, n)
		fmt.Fprintf(&set, "neigh add 10.74.%d.2 lladdr 02:74:00:00:00:%02d dev slc-r%d\n", n, n, n)
		fmt.Fprintf(&set, "neigh add fd74:%d::2 lladdr 02:74:00:00:00:%02d dev slc-r%d\n", n, n, n)
	}
	feed(t, set.String(), "ip", "-batch", "-")
	for n := 1; n <= 2; n++ {
		_ = os.WriteFile(fmt.Sprintf("/proc/sys/net/ipv6/conf/slc-p%d/disable_ipv6", n), []byte("1"), 0)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(marking)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("this kernel does not track connections: %s", out)
	}
	must(t, os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_acct", []byte("1"), 0))
	for n := 1; n <= 2; n++ {
		awaitUp(t, fmt.Sprintf("slc-r%d", n))
	}
}

func feed(t *testing.T, text, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

func awaitUp(t *testing.T, name string) {
	t.Helper()
	for range 100 {
		if l, err := netlink.LinkByName(name); err == nil && l.Attrs().OperState == netlink.OperUp {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not come up", name)
}

func packetSocket(t *testing.T, index int) int {
	t.Helper()
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500_000}))
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
	return fd
}

// send lets the router forward a frame that comes from one of the ends, and
// returns what it took it for; Gone if it did not come through.
func (k *kernelTracker) send(t *testing.T, from Dir, frame []byte) State {
	t.Helper()
	b := append([]byte(nil), frame...)
	copy(b, k.mac[from][:])
	must(t, unix.Send(k.fd[from], b, 0))
	for {
		n, _, err := unix.Recvfrom(k.fd[from.Other()], k.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Gone
		}
		if state, ok := shown(k.buf[:n], b); ok {
			return state
		}
	}
}

// shown reads the state from what became of the frame sent.
func shown(got, sent []byte) (State, bool) {
	var v, w packet.View
	if v.Parse(got) != packet.FaultNone || w.Parse(sent) != packet.FaultNone || v.Proto != w.Proto ||
		v.SrcAddr(got) != w.SrcAddr(sent) || v.SrcPort != w.SrcPort {
		return 0, false
	}
	dscp := got[v.L3+1] >> 2
	if v.Is(packet.ViewIPv6) {
		dscp = uint8(binary.BigEndian.Uint16(got[v.L3:]) >> 6 & 0x3f)
	}
	if dscp < 1 || dscp > 5 {
		return 0, false
	}
	return State(dscp - 1), true
}

// entry is what both trackers say of a connection.
type entry struct {
	src            netip.Addr // of the original direction
	status         Status
	state          uint32
	timeout        uint32
	packets, bytes [2]uint64
}

// compared are the bits that both have.
const compared = SeenReply | Assured | Confirmed

// get is the kernel's entry for a tuple, in either direction; nil if it has none.
func (k *kernelTracker) get(tu Tuple) *entry {
	e, ok := k.nl.Get(conntracktest.Tuple(tu))
	if !ok {
		return nil
	}
	return &entry{
		src: e.Original.Src, status: Status(e.Status) & compared, state: e.State, timeout: e.Timeout,
		packets: e.Packets, bytes: e.Bytes,
	}
}

// ours is the table's entry for a tuple; nil if it has none.
func ours(tab *Table, tu Tuple, now uint32) *entry {
	c, _ := tab.Find(0, tu)
	var e Entry
	if !c.Entry(&e, now) || c.record().over(now) {
		return nil
	}
	return &entry{
		src: e.Original.Src, status: e.Status & compared, state: c.record().state.Load(), timeout: e.Timeout,
		packets: e.Packets, bytes: e.Bytes,
	}
}

// differ says what two entries differ in. The kernel's clock goes on.
func differ(kernel, own *entry) string {
	switch {
	case kernel == nil && own == nil:
		return ""
	case kernel == nil:
		return fmt.Sprintf("the kernel has none, we have %+v", *own)
	case own == nil:
		return fmt.Sprintf("the kernel has %+v, we have none", *kernel)
	}
	a, b := *kernel, *own
	if a.timeout <= b.timeout && b.timeout-a.timeout <= 2 {
		a.timeout = b.timeout
	}
	if a != b {
		return fmt.Sprintf("\nkernel %+v\n   own %+v", *kernel, *own)
	}
	return ""
}

// create enters a TCP connection into the kernel's table, in some state.
func (k *kernelTracker) create(tu Tuple, state uint8, status Status, flags [2]uint8, timeout uint32) {
	inv, _ := tu.Inverse()
	k.nl.CreateTCP(conntracktest.Tuple(tu), conntracktest.Tuple(inv), state, uint32(status), flags, timeout)
}

func (k *kernelTracker) remove(tu Tuple) { k.nl.Delete(conntracktest.Tuple(tu)) }

func writeSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/netfilter/"+name, []byte(value), 0)
}
