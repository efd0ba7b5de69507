// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

// kernelHost is the kernel's own neighbour table in a network namespace of its own,
// with the addresses of theDevice on one end of a veth pair:
//
//	slt-n1 ---- slt-n0 10.9.0.1 fd09::1 fe80::1
//
// Its timers are so long that no state changes by itself.
type kernelHost struct {
	t        *testing.T
	end      *kt.End
	udp, ud6 int // to use neighbours with
	barriers int
}

// patience is how long the kernel may take to say something.
const patience = 20 * time.Second

func newKernelHost(t *testing.T) *kernelHost {
	t.Helper()
	kt.Enter(t)
	kt.OneCPU(t) // frames are taken up in the order in which they were sent
	kt.IP(t, fmt.Sprintf("link add slt-n0 address %v type veth peer name slt-n1", ownMAC))
	kt.Sysctl(t, "ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv6/conf/slt-n1/disable_ipv6=1",
		"ipv6/conf/slt-n0/addr_gen_mode=1", "ipv6/conf/slt-n0/accept_dad=0", "ipv6/conf/slt-n0/router_solicitations=0")
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, s := range []string{
			"base_reachable_time_ms=3600000", "delay_first_probe_time=3600", "gc_stale_time=3600",
			"ucast_solicit=10000", "mcast_solicit=10000", "locktime=0",
		} {
			kt.Sysctl(t, family+"/neigh/slt-n0/"+s)
		}
	}
	kt.IP(t, "link set slt-n1 arp off up", "link set slt-n0 up")
	for _, p := range theDevice().Addrs {
		nodad := map[bool]string{true: " nodad"}[p.Addr().Is6()]
		kt.IP(t, fmt.Sprintf("addr add %v dev slt-n0%s", p, nodad))
	}
	k := &kernelHost{t: t, end: kt.Open(t, "slt-n1")}
	k.udp = k.udpSocket(unix.AF_INET)
	k.ud6 = k.udpSocket(unix.AF_INET6)
	k.barrier()
	return k
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
		k.end.Send(b)
	}
	k.barrier()
}

// barrier asks the kernel something from a host of its own, and waits for the
// answer: what was sent before has been taken up then.
func (k *kernelHost) barrier() {
	k.t.Helper()
	k.barriers++
	mac := packet.MAC{2, 0xcc, 0, 0, byte(k.barriers >> 8), byte(k.barriers)}
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) { // the kernel notices in its own time that the pair is up
		k.end.Send(pt.ARPRequest(pt.Packet{SrcMAC: mac, Src: ip4(240), Dst: own4}))
		for b := k.end.Receive(time.Second); b != nil; b = k.end.Receive(time.Second) {
			if pt.Frame(b).DstMAC() == mac {
				return
			}
		}
	}
	k.t.Fatal("the kernel doesn't answer")
}

// questions are the next n questions of the kernel about an address.
func (k *kernelHost) questions(a netip.Addr, n int) [][]byte {
	k.t.Helper()
	var all [][]byte
	for len(all) < n {
		b := k.end.Receive(patience)
		if b == nil {
			k.t.Fatalf("question %d about %v did not come", len(all), a)
		}
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
	if err := json.Unmarshal([]byte(kt.Run(k.t, "ip", "-json", "neigh", "show", "nud", "all", "dev", "slt-n0")), &all); err != nil {
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
