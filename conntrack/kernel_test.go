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
	nl  int           // ctnetlink
	seq uint32
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
	var err error
	k.nl, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(k.nl) })
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

// Attributes and messages of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctNew, ctGet, ctDelete = 0, 1, 2

	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaProtoinfo, ctaTimeout = 1, 2, 3, 4, 7
	ctaCountersOrig, ctaCountersReply                                = 9, 10
	ctaTupleIP, ctaTupleProto                                        = 1, 2
	ctaNested                                                        = 0x8000
)

// attr appends an attribute of netlink.
func attr(b []byte, typ uint16, data ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func be16(x uint16) []byte { return binary.BigEndian.AppendUint16(nil, x) }
func be32(x uint32) []byte { return binary.BigEndian.AppendUint32(nil, x) }

// tupleAttr is a tuple as ctnetlink has it.
func tupleAttr(typ uint16, t Tuple) []byte {
	ip := attr(nil, 1, t.Src.AsSlice()...)
	ip = attr(ip, 2, t.Dst.AsSlice()...)
	if t.Src.Is6() {
		ip = attr(attr(nil, 3, t.Src.AsSlice()...), 4, t.Dst.AsSlice()...)
	}
	proto := attr(nil, 1, t.Proto)
	switch t.Proto {
	case packet.ProtoICMP:
		proto = attr(attr(attr(proto, 4, be16(t.SrcPort)...), 5, uint8(t.DstPort>>8)), 6, uint8(t.DstPort))
	case packet.ProtoICMPv6:
		proto = attr(attr(attr(proto, 7, be16(t.SrcPort)...), 8, uint8(t.DstPort>>8)), 9, uint8(t.DstPort))
	default:
		proto = attr(attr(proto, 2, be16(t.SrcPort)...), 3, be16(t.DstPort)...)
	}
	both := attr(nil, ctaTupleIP|ctaNested, ip...)
	return attr(nil, typ|ctaNested, attr(both, ctaTupleProto|ctaNested, proto...)...)
}

// ask sends one request and returns the attributes of the answer.
func (k *kernelTracker) ask(typ, flags uint16, v6 bool, attrs []byte) (map[uint16][]byte, error) {
	family := byte(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	k.seq++
	m := binary.NativeEndian.AppendUint32(nil, uint32(20+len(attrs)))
	m = binary.NativeEndian.AppendUint16(m, unix.NFNL_SUBSYS_CTNETLINK<<8|typ)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|flags)
	m = binary.NativeEndian.AppendUint32(m, k.seq)
	m = append(m, 0, 0, 0, 0, family, 0, 0, 0)
	m = append(m, attrs...)
	if err := unix.Sendto(k.nl, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	for {
		n, _, err := unix.Recvfrom(k.nl, k.buf[:], 0)
		if err != nil {
			return nil, err
		}
		b := k.buf[:n]
		if binary.NativeEndian.Uint32(b[8:]) != k.seq {
			continue // the ACK of an answer before
		}
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
			if e := int32(binary.NativeEndian.Uint32(b[16:])); e != 0 {
				return nil, unix.Errno(-e)
			}
			return nil, nil
		}
		return attrsOf(b[20:binary.NativeEndian.Uint32(b)]), nil
	}
}

func attrsOf(b []byte) map[uint16][]byte {
	m := map[uint16][]byte{}
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		m[binary.NativeEndian.Uint16(b[2:])&0x3fff] = b[4:n]
		b = b[min((n+3)&^3, len(b)):]
	}
	return m
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
func (k *kernelTracker) get(t *testing.T, tu Tuple) *entry {
	t.Helper()
	m, err := k.ask(ctGet, 0, tu.Src.Is6(), tupleAttr(ctaTupleOrig, tu))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	must(t, err)
	ip := attrsOf(attrsOf(m[ctaTupleOrig])[ctaTupleIP])
	e := &entry{
		status:  Status(binary.BigEndian.Uint32(m[ctaStatus])) & compared,
		timeout: binary.BigEndian.Uint32(m[ctaTimeout]),
	}
	if a, ok := ip[1]; ok {
		e.src, _ = netip.AddrFromSlice(a)
	} else {
		e.src, _ = netip.AddrFromSlice(ip[3])
	}
	info := attrsOf(m[ctaProtoinfo])
	for _, proto := range []uint16{1, 3} {
		if p := attrsOf(info[proto]); len(p[1]) > 0 {
			e.state = uint32(p[1][0])
		}
	}
	for d, a := range []uint16{ctaCountersOrig, ctaCountersReply} {
		c := attrsOf(m[a])
		e.packets[d], e.bytes[d] = binary.BigEndian.Uint64(c[1]), binary.BigEndian.Uint64(c[2])
	}
	return e
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
func (k *kernelTracker) create(t *testing.T, tu Tuple, state uint8, status Status, flags [2]uint8, timeout uint32) {
	t.Helper()
	inv, _ := tu.Inverse()
	tcp := attr(nil, 1, state)
	tcp = attr(attr(tcp, 4, flags[0], 0xff), 5, flags[1], 0xff)
	b := append(tupleAttr(ctaTupleOrig, tu), tupleAttr(ctaTupleReply, inv)...)
	b = attr(b, ctaTimeout, be32(timeout)...)
	b = attr(b, ctaStatus, be32(uint32(status))...)
	b = attr(b, ctaProtoinfo|ctaNested, attr(nil, 1|ctaNested, tcp...)...)
	_, err := k.ask(ctNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, tu.Src.Is6(), b)
	must(t, err)
}

func (k *kernelTracker) remove(tu Tuple) {
	_, _ = k.ask(ctDelete, unix.NLM_F_ACK, tu.Src.Is6(), tupleAttr(ctaTupleOrig, tu))
}

func writeSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/netfilter/"+name, []byte(value), 0)
}
