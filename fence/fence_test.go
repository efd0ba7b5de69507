// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	kt "sluice/test/kerneltest"
)

// enter moves the test into a network namespace of its own, whose loopback has addresses on
// both sides of the fence.
func enter(t *testing.T) {
	t.Helper()
	kt.Enter(t)
	kt.IP(t, "link set lo up", "addr add 192.0.2.1/32 dev lo", "addr add 169.254.7.7/16 dev lo scope link", "addr add 2001:db8::1/128 dev lo")
}

// loaded is what the agent has.
func loaded(t *testing.T) *Fence {
	t.Helper()
	f := Local()
	if f.Loaded() {
		t.Error("not yet")
	}
	if err := f.Load(); err != nil || !f.Loaded() {
		t.Fatal(err)
	}
	return f
}

// sockaddr is an address with its family, and at is the family of sockets that reach it.
func sockaddr(to netip.AddrPort) (sa unix.Sockaddr, at int) {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}, unix.AF_INET6
}

func socket(t *testing.T, family, kind int) int {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// briefly is how long what should not come is waited for: on the loopback nothing takes time.
// What should is waited for longer: the machine may be busy.
func briefly(should bool) time.Time {
	if should {
		return time.Now().Add(30 * time.Second)
	}
	return time.Now().Add(50 * time.Millisecond)
}

// connects reports whether a socket gets a connection, as it should or not.
func connects(t *testing.T, fd int, to netip.AddrPort, should bool) bool {
	t.Helper()
	sa, _ := sockaddr(to)
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Fatalf("%s: %v", to, err)
	}
	return ready(t, fd, unix.POLLOUT, should)
}

// ready waits until nothing else than an event is there.
func ready(t *testing.T, fd int, event int16, should bool) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: event}}
	for end := briefly(should); ; {
		n, err := unix.Poll(p, 10)
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if n == 1 || time.Now().After(end) {
			return n == 1 && p[0].Revents == event
		}
	}
}

// where are addresses by which the one program that listens is reached, and whether they are
// behind the fence.
func where() map[string]bool {
	return map[string]bool{
		"192.0.2.1": false, "2001:db8::1": false, "::ffff:192.0.2.1": false,
		"127.0.0.1": true, "127.1.2.3": true, "169.254.7.7": true, "0.0.0.0": true,
		"::1": true, "::": true, "::ffff:127.0.0.1": true, "::ffff:169.254.7.7": true,
	}
}

// TestConnections: what is behind the fence is not reached, not even to be refused by it, also
// if the socket was connected to somebody else before. All else is.
func TestConnections(t *testing.T) {
	enter(t)
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	f := loaded(t)
	for a, behind := range where() {
		to := netip.AddrPortFrom(netip.MustParseAddr(a), port)
		_, family := sockaddr(to)
		fd := socket(t, family, unix.SOCK_STREAM)
		if !connects(t, fd, to, true) {
			t.Errorf("%s: not reached without a fence", to)
		}
		if err := f.Around(fd); err != nil {
			t.Fatal(err)
		}
		disconnect(t, fd)
		if got := connects(t, fd, to, !behind); got == behind {
			t.Errorf("%s: connected: %v", to, got)
		}
		if (f.Refuses(to.Addr()) != 0) != behind {
			t.Errorf("%s: refused with %v", to, f.Refuses(to.Addr()))
		}
	}
}

// disconnect is connect(2) with AF_UNSPEC.
func disconnect(t *testing.T, fd int) {
	t.Helper()
	if err := unconnect(fd); err != nil {
		t.Fatal(err)
	}
}

// TestDatagrams: nothing is heard from behind the fence.
func TestDatagrams(t *testing.T) {
	enter(t)
	f := loaded(t)
	for a, behind := range where() {
		to := netip.AddrPortFrom(netip.MustParseAddr(a), 0)
		_, family := sockaddr(to)
		fd := socket(t, family, unix.SOCK_DGRAM)
		if err := f.Around(fd); err != nil {
			t.Fatal(err)
		}
		if got := hears(t, fd, to.Addr(), !behind); got == behind {
			t.Errorf("%s: heard: %v", to, got)
		}
	}
}

// hears reports whether a socket hears an echo from an address, as it should or not.
func hears(t *testing.T, fd int, a netip.Addr, should bool) bool {
	t.Helper()
	l, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sa, _ := sockaddr(netip.AddrPortFrom(a, uint16(l.LocalAddr().(*net.UDPAddr).Port))) //nolint:forcetypeassert // it is UDP
	if err := unix.Sendto(fd, []byte("?"), 0, sa); err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	b := make([]byte, 8)
	_ = l.SetDeadline(time.Now().Add(30 * time.Second))
	n, from, err := l.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	if _, err := l.WriteToUDPAddrPort(b[:n], from); err != nil {
		t.Fatal(err)
	}
	ready(t, fd, unix.POLLIN, should)
	_, err = unix.Read(fd, b)
	return err == nil
}

// TestLocked: nobody takes the fence down.
func TestLocked(t *testing.T) {
	enter(t)
	f := loaded(t)
	all := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1}}
	fd := socket(t, unix.AF_INET, unix.SOCK_STREAM)
	if err := f.Around(fd); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"detached":       unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0),
		"unlocked":       unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 0),
		"replaced":       unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all[0]}),
		"by another one": f.Accepting(fd),
	} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAccepting: who listens accepts from everybody, and what was accepted can't be connected
// to anybody, himself no more than others.
func TestAccepting(t *testing.T) {
	enter(t)
	f := loaded(t)
	for _, a := range []string{"192.0.2.1:0", "127.0.0.1:0", "[::1]:0"} {
		sa, family := sockaddr(netip.MustParseAddrPort(a))
		l := socket(t, family, unix.SOCK_STREAM)
		if err := errors.Join(unix.Bind(l, sa), f.Accepting(l), unix.Listen(l, 8)); err != nil {
			t.Fatal(err)
		}
		name, err := unix.Getsockname(l)
		if err != nil {
			t.Fatal(err)
		}
		to := addrPort(name)
		client := socket(t, family, unix.SOCK_STREAM)
		if !connects(t, client, to, true) || !ready(t, l, unix.POLLIN, true) {
			t.Fatalf("%s does not accept", to)
		}
		fd, _, err := unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		b := make([]byte, 8)
		if _, err := unix.Write(client, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		ready(t, fd, unix.POLLIN, true)
		if n, err := unix.Read(fd, b); string(b[:max(n, 0)]) != "hello" {
			t.Errorf("%s: %q, %v", to, b, err)
		}
		disconnect(t, fd)
		if connects(t, fd, to, false) {
			t.Errorf("%s: what was accepted is connected", to)
		}
	}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// TestNoFence: a nil one keeps from nothing.
func TestNoFence(t *testing.T) {
	var f *Fence
	if errno := f.Refuses(netip.MustParseAddr("127.0.0.1")); errno != 0 || f.Loaded() {
		t.Error(errno)
	}
}
