// SPDX-License-Identifier: Apache-2.0

package router

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/packet"
)

// kernel is the oracle: a network namespace that routes, and another one that has
// the far ends of its devices, each with a packet socket. What is sent into a far
// end has come out of one of them, or not at all, when the call returns.
//
// Neither namespace has a name; they belong to the thread of the test's goroutine
// and are gone with it.
type kernel struct {
	t    *testing.T
	near int // the namespace that routes
	devs []Device
	ends []*farEnd
}

// farEnd is the other end of a device.
type farEnd struct {
	fd  int
	mac packet.MAC
}

func newKernel(t *testing.T, devs []Device) *kernel {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
	far := freshNamespace(t)
	k := &kernel{t: t, near: freshNamespace(t), devs: devs}
	for _, s := range []string{
		"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv6/conf/default/forwarding=1",
		"ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0",
		"ipv6/conf/default/addr_gen_mode=1", "ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
	} {
		k.sysctl(s)
	}
	k.ip("link set lo up")
	for i := range devs {
		k.addDevice(&devs[i], far)
	}
	k.inside(far, func() {
		for i := range devs {
			k.ends = append(k.ends, k.openFar(&devs[i]))
		}
	})
	for i := range devs {
		k.address(&devs[i])
	}
	return k
}

// freshNamespace moves the thread into a new namespace and returns it.
func freshNamespace(t *testing.T) int {
	t.Helper()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// inside does something in another namespace and comes back.
func (k *kernel) inside(ns int, do func()) {
	k.t.Helper()
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		k.t.Fatal(err)
	}
	do()
	if err := unix.Setns(k.near, unix.CLONE_NEWNET); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) sysctl(assignment string) {
	k.t.Helper()
	name, value, _ := strings.Cut(assignment, "=")
	if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
		k.t.Fatal(err)
	}
}

// ip gives lines to `ip -batch`.
func (k *kernel) ip(lines ...string) {
	k.t.Helper()
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		k.t.Fatalf("ip: %v: %s\n%s", err, out, strings.Join(lines, "\n"))
	}
}

// try gives one line to ip(8), which may refuse it.
func (k *kernel) try(line string) bool {
	return exec.Command("ip", strings.Fields(line)...).Run() == nil
}

func farName(d *Device) string { return d.Name + "x" }

// addDevice makes a pair, whose link-layer addresses tell nobody but the test.
func (k *kernel) addDevice(d *Device, far int) {
	k.t.Helper()
	near := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: d.Name, Index: int(d.Index), MTU: 9000, HardwareAddr: net.HardwareAddr(d.MAC[:])},
		PeerName:  farName(d),
	}
	if err := netlink.LinkAdd(near); err != nil {
		k.t.Fatal(err)
	}
	peer, err := netlink.LinkByName(farName(d))
	if err == nil {
		err = netlink.LinkSetNsFd(peer, far)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// openFar brings a far end up, without an address of its own, and opens it.
func (k *kernel) openFar(d *Device) *farEnd {
	k.t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+farName(d)+"/disable_ipv6", []byte("1"), 0); err != nil {
		k.t.Fatal(err)
	}
	link, err := netlink.LinkByName(farName(d))
	if err == nil {
		err = errors.Join(netlink.LinkSetARPOff(link), netlink.LinkSetMTU(link, 9000), netlink.LinkSetUp(link))
	}
	if err != nil {
		k.t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 3<<8)
	if err == nil {
		err = errors.Join(
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 3 << 8, Ifindex: link.Attrs().Index}),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, 23, 1)) // PACKET_IGNORE_OUTGOING
	}
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = unix.Close(fd) })
	return &farEnd{fd: fd, mac: packet.MAC(link.Attrs().HardwareAddr)}
}

// address gives a device its MTU and its addresses.
func (k *kernel) address(d *Device) {
	k.t.Helper()
	lines := []string{fmt.Sprintf("link set %s mtu %d up", d.Name, d.MTU)}
	for _, p := range d.Addrs {
		nodad := ""
		if p.Addr().Is6() {
			nodad = " nodad"
		}
		lines = append(lines, fmt.Sprintf("addr add %v dev %s%s", p, d.Name, nodad))
	}
	k.ip(lines...)
	if d.NoRedirects {
		k.sysctl("ipv4/conf/all/send_redirects=0")
		k.sysctl("ipv4/conf/" + d.Name + "/send_redirects=0")
	}
	if d.NoForward {
		k.sysctl("ipv4/conf/" + d.Name + "/forwarding=0")
		k.sysctl("ipv6/conf/" + d.Name + "/forwarding=0")
	}
	k.sysctl(fmt.Sprintf("ipv4/conf/%s/rp_filter=%d", d.Name, d.ReversePath))
}

// routes are all routes of both families as ip(8) shows them.
func (k *kernel) routes() (all []string) {
	k.t.Helper()
	for _, family := range []string{"-4", "-6"} {
		out, err := exec.Command("ip", family, "route", "show", "table", "all").Output()
		if err != nil {
			k.t.Fatal(err)
		}
		for l := range strings.Lines(string(out)) {
			all = append(all, strings.TrimRight(l, " \n"))
		}
	}
	return all
}

// send sends a frame into a far end; false if it is too long for it.
func (k *kernel) send(end int, frame []byte) bool {
	k.t.Helper()
	_, err := unix.Write(k.ends[end].fd, frame)
	if err != nil && !errors.Is(err, unix.EMSGSIZE) {
		k.t.Fatal(err)
	}
	return err == nil
}

// heard takes what came to a far end since it was asked last.
func (k *kernel) heard(end int) (frames [][]byte) {
	k.t.Helper()
	buf := make([]byte, 16384)
	for {
		n, err := unix.Read(k.ends[end].fd, buf)
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				k.t.Fatal(err)
			}
			return frames
		}
		frames = append(frames, append([]byte(nil), buf[:n]...))
	}
}
