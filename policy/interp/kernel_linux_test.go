// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/policytest"
)

// kernel is the oracle: a network namespace that routes between m0 and m1, with nft,
// and another one that has their far ends, each with a packet socket. What is sent
// into one of them has come out again, or not at all, when the call returns.
//
// Neither namespace has a name; they belong to the thread of the test's goroutine
// and are gone with it.
type kernel struct {
	t    *testing.T
	near int
	ends [2]int // packet sockets
	nft  *policytest.Session

	frame *packet.Frame
	buf   [4096]byte
	macs  [2]packet.MAC
	far   [2]packet.MAC
}

func newKernel(t *testing.T) *kernel {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine. A subtest would be in another one
	var one unix.CPUSet    // what two have in their queues changes places
	var all unix.CPUSet
	k := &kernel{t: t, frame: pt.NewFrame()}
	k.must(unix.SchedGetaffinity(0, &all))
	for i := range 1024 {
		if all.IsSet(i) {
			one.Set(i)
			break
		}
	}
	k.must(unix.SchedSetaffinity(0, &one))
	far := k.namespace()
	k.near = k.namespace()
	for _, s := range []string{
		"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv6/conf/default/forwarding=1",
		"ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0", "ipv4/conf/all/send_redirects=0", "ipv4/conf/default/send_redirects=0",
		"ipv6/conf/default/addr_gen_mode=1", "ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
		"ipv4/icmp_ratelimit=0", "ipv6/icmp/ratelimit=0", "ipv4/icmp_msgs_per_sec=100000", "ipv4/icmp_msgs_burst=100000",
	} {
		name, value, _ := strings.Cut(s, "=")
		k.must(os.WriteFile("/proc/sys/net/"+name, []byte(value), 0))
	}
	k.run("link set lo up", "ip", "-batch", "-")
	for i := range k.ends {
		k.device(i, far)
	}
	k.nft = policytest.NewSession(t)
	k.settle()
	return k
}

// settle waits until the namespace has said what it says of itself, about the groups
// that it is in: rules of postrouting would count it.
func (k *kernel) settle() {
	k.t.Helper()
	defer k.nft.Do("flush ruleset")
	k.nft.Do("table ip6 t { chain c { type filter hook postrouting priority 0; counter; }; }")
	was := ""
	for range 20 {
		time.Sleep(1200 * time.Millisecond)
		is := k.nft.Do("list ruleset")
		if is == was {
			return
		}
		was = is
	}
	k.t.Fatal("the namespace doesn't come to rest")
}

func (k *kernel) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// namespace moves the thread into a new namespace and returns it.
func (k *kernel) namespace() int {
	k.t.Helper()
	k.must(unix.Unshare(unix.CLONE_NEWNET))
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	k.must(err)
	k.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func (k *kernel) run(input string, words ...string) string {
	k.t.Helper()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		k.t.Fatalf("%v: %v: %s\n%s", words, err, bad.String(), input)
	}
	return out.String()
}

// device makes m0 or m1 with its addresses and neighbours.
func (k *kernel) device(i, far int) {
	k.t.Helper()
	name := fmt.Sprintf("m%d", i)
	k.macs[i] = packet.MAC{2, 0, 0, 0, byte(i), 1}
	k.far[i] = packet.MAC{2, 0, 0, 0, byte(i), 2}
	k.must(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, Index: 10 + i, HardwareAddr: net.HardwareAddr(k.macs[i][:])}, PeerName: name + "x",
	}))
	peer, err := netlink.LinkByName(name + "x")
	k.must(err)
	k.must(netlink.LinkSetNsFd(peer, far))
	k.must(unix.Setns(far, unix.CLONE_NEWNET))
	k.must(os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"x/disable_ipv6", []byte("1"), 0))
	peer, err = netlink.LinkByName(name + "x")
	k.must(err)
	k.must(errors.Join(netlink.LinkSetARPOff(peer), netlink.LinkSetUp(peer)))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 3<<8)
	k.must(err)
	k.t.Cleanup(func() { _ = unix.Close(fd) })
	k.must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 3 << 8, Ifindex: peer.Attrs().Index}))
	k.must(unix.SetsockoptInt(fd, unix.SOL_PACKET, 23, 1)) // PACKET_IGNORE_OUTGOING
	k.ends[i] = fd
	k.must(unix.Setns(k.near, unix.CLONE_NEWNET))
	var lines strings.Builder
	fmt.Fprintf(&lines, "link set %s up\naddr add 10.0.%d.1/24 dev %s\naddr add fd00:%d::1/64 dev %s nodad\n", name, i, name, i, name)
	for a := 2; a < 2+hosts; a++ {
		fmt.Fprintf(&lines, "neigh add 10.0.%d.%d lladdr %v dev %s nud permanent\n", i, a, k.far[i], name)
		fmt.Fprintf(&lines, "neigh add fd00:%d::%x lladdr %v dev %s nud permanent\n", i, a, k.far[i], name)
	}
	k.run(lines.String(), "ip", "-batch", "-")
}

// pass sends a frame into the far end of a device, and says what came out.
func (k *kernel) pass(b []byte, in int) outcome {
	k.t.Helper()
	sent := bytes.Clone(b)
	copy(sent, k.macs[in][:])
	copy(sent[6:], k.far[in][:])
	if _, err := unix.Write(k.ends[in], sent); err != nil {
		k.t.Fatal(err)
	}
	o := outcome{what: "drop"}
	g := k.frame
	for side := range k.ends {
		for _, got := range k.receive(side) {
			g.Reset(packet.Headroom, len(got))
			copy(g.Bytes(), got)
			if g.View.Parse(g.Bytes()) != packet.FaultNone || !g.View.Is(packet.ViewIP) || g.DstMAC() != k.far[side] {
				continue // what the kernel says of itself
			}
			if side != in {
				o = outcome{what: "forward", out: bytes.Clone(g.Bytes()[g.View.L3:g.View.End])}
				continue
			}
			o.what = refusal(g)
		}
	}
	return o
}

func (k *kernel) receive(side int) (frames [][]byte) {
	k.t.Helper()
	for {
		n, err := unix.Read(k.ends[side], k.buf[:])
		if errors.Is(err, unix.EAGAIN) {
			return frames
		}
		k.must(err)
		frames = append(frames, bytes.Clone(k.buf[:n]))
	}
}

// refusal is what the sender of a packet was told.
func refusal(g *packet.Frame) string {
	if g.View.Proto == packet.ProtoTCP {
		return resetSent
	}
	return fmt.Sprintf("reject %d %d/%d", policy.RejectICMP, g.View.SrcPort>>8, g.View.SrcPort&0xff)
}
