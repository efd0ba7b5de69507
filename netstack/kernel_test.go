// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// Tests with the kernel's own stack in the containers:
//
//	container 1: slt-c1 ══ veth ══ slt-h1 ── port 1 ┐
//	container 2: slt-c2 ══ veth ══ slt-h2 ── port 2 ┴ bridge ── port 100: 10.44.0.1 fd44::1

// kernelLab is a Netstack whose containers are network namespaces.
type kernelLab struct {
	t    testing.TB
	n    *Netstack
	blue *Namespace
	host netns.NsHandle
	ns   []netns.NsHandle // by container, from 1
}

func newKernelLab(t testing.TB, o Options, s NetworkSpec) *kernelLab {
	t.Helper()
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l := &kernelLab{t: t, n: n, host: kt.NewNS(t), ns: []netns.NsHandle{netns.None()}}
	fds := make(map[uint16]int)
	for i := range s.Ports {
		fds[s.Ports[i].Index] = l.attach(&s, i+1)
	}
	t.Cleanup(n.Close)
	if err := n.Apply(&Snapshot{Generation: 1, Namespaces: []NamespaceSpec{alone(s)}}, fds); err != nil {
		t.Fatal(err)
	}
	l.blue = n.Namespace("blue")
	return l
}

// attach makes container i and returns its port's fd.
func (l *kernelLab) attach(s *NetworkSpec, i int) int {
	l.t.Helper()
	c := veth.PairConfig{
		HostName: fmt.Sprintf("slt-h%d", i), HostNS: l.host, HostIndex: 1<<20 + i, Name: fmt.Sprintf("slt-c%d", i), NS: kt.NewNS(l.t),
		MAC: mac(i), MTU: s.Ports[i-1].MTU,
		Addresses: []netip.Prefix{netip.PrefixFrom(addr4(i), 24), netip.PrefixFrom(addr6(i), 64)},
		Gateways:  []netip.Addr{gateway4(), gateway6()},
	}
	if err := veth.CreatePair(c); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = veth.DeletePairs(l.host, c.HostName) })
	l.ns = append(l.ns, c.NS)
	return openPort(l.t, l.host, c.HostName)
}

// openPort opens the socket of a port, for a Netstack to take.
func openPort(t testing.TB, ns netns.NsHandle, ifname string) int {
	t.Helper()
	f, err := veth.OpenSocket(ns, ifname, veth.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// run runs a command in container i.
func (l *kernelLab) run(i int, args ...string) string {
	l.t.Helper()
	return kt.RunIn(l.t, l.ns[i], args...)
}

// kernel has the sockets of container i, with the methods of a Namespace.
type kernel struct{ ns netns.NsHandle }

func (k kernel) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = veth.Do(k.ns, func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func (k kernel) Listen(network, address string) (ln net.Listener, err error) {
	err = veth.Do(k.ns, func() (err error) {
		ln, err = net.Listen(network, address)
		return err
	})
	return ln, err
}

func TestKernelPingsGatewayAndNeighbour(t *testing.T) {
	l := newKernelLab(t, Options{Workers: 2}, blue(2))
	for _, address := range []string{"10.44.0.1", "fd44::1", "10.44.0.12", "fd44::c", "fe80::ff:fe00:1%slt-c1"} {
		out := l.run(1, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", "-s", "1400", address)
		if !strings.Contains(out, " 0% packet loss") {
			t.Errorf("%s:\n%s", address, out)
		}
	}
}

func TestKernelTCP(t *testing.T) {
	for _, tc := range []struct {
		mtu     int
		offload bool // of the port
		inside  string
	}{
		{1500, true, "on"},
		{1500, false, "on"},
		{1500, true, "off"},
		{9000, true, "on"},
		{65535, true, "on"},
	} {
		t.Run(fmt.Sprintf("mtu %d offload %v, %s inside", tc.mtu, tc.offload, tc.inside), func(t *testing.T) {
			s := blue(2)
			s.Bridge.MTU = tc.mtu
			for i := range s.Ports {
				s.Ports[i].MTU, s.Ports[i].Offload = tc.mtu, tc.offload
			}
			l := newKernelLab(t, Options{Workers: 2}, s)
			one, two := kernel{l.ns[1]}, kernel{l.ns[2]}
			if tc.inside == "off" {
				l.run(1, "ethtool", "-K", "slt-c1", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
			}
			size := 32 << 20
			if raceEnabled {
				size = 4 << 20
			}
			transfer(t, one, two, "10.44.0.12:80", size)
			transfer(t, two, one, "[fd44::b]:80", size)
			transfer(t, one, l.blue, "10.44.0.1:80", size)
			transfer(t, one, l.blue, "[fd44::1]:80", size)
			transfer(t, l.blue, one, "10.44.0.11:81", size)
			transfer(t, l.blue, two, "[fd44::c]:81", size)
			for _, i := range []uint16{1, 2, hostPort} {
				st := l.n.opts.Counters.Port(i).Snapshot()
				delete(st.Drops, "tx_no_buffer") // the receiver was full: TCP's business
				delete(st.Drops, "tx_full")
				delete(st.Drops, "no_port")
				if len(st.Drops) != 0 {
					t.Errorf("port %d dropped %v", i, st.Drops)
				}
			}
		})
	}
}

func TestKernelUDP(t *testing.T) {
	l := newKernelLab(t, Options{Workers: 2}, blue(2))
	two, err := l.blue.ListenPacket("udp", ":5353")
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	go datagrams(two, true)
	for _, address := range []string{"10.44.0.1:5353", "[fd44::1]:5353"} {
		c, err := kernel{l.ns[1]}.DialContext(within(t), "udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		for _, n := range []int{1, 1472, 1473, 60_000} {
			if _, err := c.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Read(make([]byte, 65536)); err != nil || got != n {
				t.Errorf("%s: %d bytes came back as %d: %v", address, n, got, err)
			}
		}
	}
}

// TestDeletedInterfaceIsReported and its worker does not spin on it.
func TestDeletedInterfaceIsReported(t *testing.T) {
	down := make(chan uint16, 10)
	l := newKernelLab(t, Options{Workers: 2, PortDown: func(i uint16) { down <- i }}, blue(2))
	if err := veth.DeletePairs(l.host, "slt-h1"); err != nil {
		t.Fatal(err)
	}
	select {
	case i := <-down:
		if i != 1 {
			t.Errorf("port %d, want 1", i)
		}
	case <-time.After(patience):
		t.Error("not reported")
	}
}
