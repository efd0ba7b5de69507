// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// kernelHost is the kernel's own neighbour table in a network namespace of its own,
// with the addresses of theDevice on one end of a veth pair and a packet socket on
// the other:
//
//	packet socket on slt-n1 ---- slt-n0 10.9.0.1 fd09::1 fe80::1
//
// Its timers are so long that no state changes by itself. The namespace has no name
// and is gone with the test's thread.
type kernelHost struct {
	t        *testing.T
	fd       int // packet socket
	udp, ud6 int // to use neighbours with
	barriers int
	buf      []byte
}

func newKernelHost(t *testing.T) *kernelHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	stayOnOneCPU(t)
	k := &kernelHost{t: t, buf: make([]byte, 2048)}
	k.run("ip", "link", "add", "slt-n0", "address", ownMAC.String(), "type", "veth", "peer", "name", "slt-n1")
	for _, s := range []string{
		"ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv6.conf.slt-n1.disable_ipv6=1",
		"ipv6.conf.slt-n0.addr_gen_mode=1", "ipv6.conf.slt-n0.accept_dad=0", "ipv6.conf.slt-n0.router_solicitations=0",
	} {
		k.sysctl(s)
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, s := range []string{
			"base_reachable_time_ms=3600000", "delay_first_probe_time=3600", "gc_stale_time=3600",
			"ucast_solicit=10000", "mcast_solicit=10000", "locktime=0",
		} {
			k.sysctl(family + ".neigh.slt-n0." + s)
		}
	}
	k.run("ip", "link", "set", "slt-n1", "arp", "off", "up")
	k.run("ip", "link", "set", "slt-n0", "up")
	for _, p := range theDevice().Addrs {
		args := []string{"addr", "add", p.String(), "dev", "slt-n0"}
		if p.Addr().Is6() {
			args = append(args, "nodad")
		}
		k.run("ip", args...)
	}
	k.fd = k.packetSocket("slt-n1")
	k.udp = k.udpSocket(unix.AF_INET)
	k.ud6 = k.udpSocket(unix.AF_INET6)
	k.barrier()
	return k
}

// stayOnOneCPU keeps the thread, and with it the softirq queue that its frames go
// through, on one CPU: they are taken up in the order in which they were sent.
func stayOnOneCPU(t *testing.T) {
	t.Helper()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in the namespace: it is forked from this thread.
func (k *kernelHost) run(name string, args ...string) []byte {
	k.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		k.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// batch runs lines of ip(8).
func (k *kernelHost) batch(lines []string) {
	k.t.Helper()
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		k.t.Fatalf("ip -batch: %v: %s", err, out)
	}
}

// sysctl sets name=value of the namespace, with dots for slashes.
func (k *kernelHost) sysctl(setting string) {
	k.t.Helper()
	name, value, _ := strings.Cut(setting, "=")
	if err := os.WriteFile("/proc/sys/net/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernelHost) packetSocket(ifname string) int {
	k.t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = unix.Close(fd) })
	ifr, err := unix.NewIfreq(ifname)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: int(ifr.Uint32())}) // ETH_P_ALL
	}
	if err != nil {
		k.t.Fatalf("packet socket on %s: %v", ifname, err)
	}
	return fd
}

func (k *kernelHost) udpSocket(family int) int {
	k.t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// use sends a packet to a neighbour.
func (k *kernelHost) use(a netip.Addr) {
	k.t.Helper()
	var err error
	if a.Is4() {
		err = unix.Sendto(k.udp, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: a.As4()})
	} else {
		err = unix.Sendto(k.ud6, []byte("x"), 0, &unix.SockaddrInet6{Port: 9, Addr: a.As16()})
	}
	if err != nil {
		k.t.Fatalf("send to %v: %v", a, err)
	}
}

// hear sends frames to the kernel, and waits until it has taken them up.
func (k *kernelHost) hear(frames ...[]byte) {
	k.t.Helper()
	for _, b := range frames {
		if _, err := unix.Write(k.fd, b); err != nil {
			k.t.Fatal(err)
		}
	}
	k.barrier()
}

// barrier asks the kernel something from a host of its own, and waits for the
// answer: what was sent before has been taken up then.
func (k *kernelHost) barrier() {
	k.t.Helper()
	k.barriers++
	mac := packet.MAC{2, 0xcc, 0, 0, byte(k.barriers >> 8), byte(k.barriers)}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) { // the kernel notices in its own time that the pair is up
		if _, err := unix.Write(k.fd, pt.ARPRequest(pt.Packet{SrcMAC: mac, Src: ip4(240), Dst: own4})); err != nil {
			k.t.Fatal(err)
		}
		for {
			n, err := k.receive()
			if err != nil {
				break
			}
			if f := pt.Frame(k.buf[:n]); f.DstMAC() == mac {
				return
			}
		}
	}
	k.t.Fatal("the kernel doesn't answer")
}

// receive fills the buffer with the next frame, within the socket's timeout.
func (k *kernelHost) receive() (int, error) {
	for {
		n, _, err := unix.Recvfrom(k.fd, k.buf, 0)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// questions are the next n questions of the kernel about an address.
func (k *kernelHost) questions(a netip.Addr, n int) [][]byte {
	k.t.Helper()
	var all [][]byte
	for len(all) < n {
		got, err := k.receive()
		if err != nil {
			k.t.Fatalf("question %d about %v: %v", len(all), a, err)
		}
		b := slices.Clone(k.buf[:got])
		f := pt.Frame(b)
		m, isND := f.View.ND(b)
		if isND && m.Type == packet.NDNeighbourSol && m.Target == a || f.View.Is(packet.ViewARP) && f.View.DstAddr(b) == a {
			all = append(all, b)
		}
	}
	return all
}

// neighbours is what the kernel knows, but for the host of the barriers.
func (k *kernelHost) neighbours() map[netip.Addr]Entry {
	k.t.Helper()
	var all []struct {
		Dst    netip.Addr
		LLAddr packet.MAC
		State  []string
		Router *struct{}
	}
	if err := json.Unmarshal(k.run("ip", "-json", "neigh", "show", "nud", "all", "dev", "slt-n0"), &all); err != nil {
		k.t.Fatal(err)
	}
	m := map[netip.Addr]Entry{}
	for _, n := range all {
		e := Entry{Addr: n.Dst, MAC: n.LLAddr, Router: n.Router != nil}
		if len(n.State) != 1 {
			k.t.Fatalf("%v is %v", n.Dst, n.State)
		}
		word := strings.ToLower(n.State[0])
		if n.Dst == ip4(240) || n.Dst.IsMulticast() || word == "none" || word == "noarp" {
			continue
		}
		if err := e.State.UnmarshalText([]byte(word)); err != nil {
			k.t.Fatal(err)
		}
		if !e.State.Usable() {
			e.MAC = packet.MAC{} // the last one
		}
		m[n.Dst] = e
	}
	return m
}
