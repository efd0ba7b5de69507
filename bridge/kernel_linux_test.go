// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
)

// kernelBridge is the kernel's own bridge in a network namespace of its own:
//
//	slt-p1 ---- slt-b1 \
//	slt-p2 ---- slt-b2  \ slt-br (local port)
//	slt-p3 ---- slt-b3  /
//	slt-p4 ---- slt-b4 /
//
// with a packet socket on each slt-p and on slt-br. The namespace has no name
// and belongs to the thread of the test's goroutine: it is gone, with all that
// is in it, when the goroutine ends or the process dies.
type kernelBridge struct {
	t   *testing.T
	fds map[uint16]int // packet sockets by port
	buf []byte
}

// kernelPorts is the number of ports besides the local one.
const kernelPorts = 4

func newKernelBridge(t *testing.T) *kernelBridge {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	enterNamespace(t)
	k := &kernelBridge{t: t, fds: map[uint16]int{}, buf: make([]byte, 2048)}
	k.run("ip", "link", "add", "slt-br", "address", ownMAC.String(), "type", "bridge",
		"stp_state", "0", "mcast_snooping", "0", "no_linklocal_learn", "1", "ageing_time", "100000")
	k.run("ip", "link", "set", "slt-br", "arp", "off", "up")
	k.fds[localPort] = k.socket("slt-br")
	for port := uint16(1); port <= kernelPorts; port++ {
		k.addPort(port)
	}
	return k
}

// enterNamespace gives the goroutine a thread of its own, in a new network
// namespace without IPv6. The thread stays on one CPU, whose softirq queue then
// keeps all frames in the order in which they were sent.
func enterNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
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
	const noIPv6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6"
	if err := os.WriteFile(noIPv6, []byte("1"), 0); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

func (k *kernelBridge) addPort(port uint16) {
	inner, outer := fmt.Sprintf("slt-b%d", port), fmt.Sprintf("slt-p%d", port)
	k.run("ip", "link", "add", inner, "type", "veth", "peer", "name", outer)
	k.run("ip", "link", "set", outer, "arp", "off", "up")
	k.run("ip", "link", "set", inner, "arp", "off", "master", "slt-br", "up")
	k.fds[port] = k.socket(outer)
	k.await(inner)
}

// await waits until a port forwards: the kernel notices in its own time that the
// peer of a veth is up.
func (k *kernelBridge) await(inner string) {
	k.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var links []struct{ State string }
		if err := json.Unmarshal(k.run("bridge", "-json", "link", "show", "dev", inner), &links); err != nil {
			k.t.Fatal(err)
		}
		if len(links) == 1 && links[0].State == "forwarding" {
			return
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("%s does not forward: %+v", inner, links)
		}
		time.Sleep(time.Millisecond)
	}
}

// run runs a command in the namespace: it is forked from this thread.
func (k *kernelBridge) run(name string, args ...string) []byte {
	k.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		k.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (k *kernelBridge) socket(ifname string) int {
	k.t.Helper()
	var ifr *unix.Ifreq
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		k.t.Cleanup(func() { _ = unix.Close(fd) })
		ifr, err = unix.NewIfreq(ifname)
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	for _, set := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) },
		func() error {
			return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
		},
		func() error {
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: int(ifr.Uint32())}) // ETH_P_ALL
		},
	} {
		if err == nil {
			err = set()
		}
	}
	if err != nil {
		k.t.Fatalf("packet socket on %s: %v", ifname, err)
	}
	return fd
}

func (k *kernelBridge) send(port uint16, frame []byte) {
	k.t.Helper()
	if _, err := unix.Write(k.fds[port], frame); err != nil {
		k.t.Fatalf("send on port %d: %v", port, err)
	}
}

// outputs counts, for each frame by its number, how often each port got it.
type outputs map[uint64]map[uint16]int

func (o outputs) add(frame uint64, port uint16) {
	if o[frame] == nil {
		o[frame] = map[uint16]int{}
	}
	o[frame][port]++
}

// collect reads what the port got, up to the frame with the number last, which
// is a broadcast that was sent after all others.
func (k *kernelBridge) collect(port uint16, last uint64, got outputs) {
	k.t.Helper()
	for {
		n, _, err := unix.Recvfrom(k.fds[port], k.buf, 0)
		if err != nil {
			k.t.Fatalf("port %d: last frame did not come: %v", port, err)
		}
		number, ok := frameNumber(k.buf[:n])
		if ok && number == last {
			return
		}
		if ok && number < firstBarrier {
			got.add(number, port)
		}
	}
}

// frameNumber is the payload of one of our frames.
func frameNumber(b []byte) (uint64, bool) {
	var v packet.View
	if v.Parse(b) != packet.FaultNone || v.EtherType != etherTypeTest || len(b) < v.L3+8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[v.L3:]), true
}

// setStatic makes an entry that never moves: in Linux static alone is only
// spared by ageing.
func (k *kernelBridge) setStatic(e StaticEntry) {
	k.t.Helper()
	k.run("bridge", "fdb", "add", e.MAC.String(), "dev", fmt.Sprintf("slt-b%d", e.Port),
		"master", "static", "sticky")
}

func (k *kernelBridge) flush(port uint16) {
	k.t.Helper()
	k.run("ip", "link", "set", fmt.Sprintf("slt-b%d", port), "type", "bridge_slave", "fdb_flush")
}

// learned is the dynamic part of the kernel's FDB.
func (k *kernelBridge) learned() map[string]uint16 {
	k.t.Helper()
	var all []struct {
		MAC    string
		IfName string
		State  string
	}
	if err := json.Unmarshal(k.run("bridge", "-json", "fdb", "show", "br", "slt-br"), &all); err != nil {
		k.t.Fatal(err)
	}
	m := map[string]uint16{}
	for _, e := range all {
		var port uint16
		if _, err := fmt.Sscanf(e.IfName, "slt-b%d", &port); err == nil && e.State == "" {
			m[e.MAC] = port
		}
	}
	return m
}
