// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"sluice/dial"
	"sluice/trace"
)

// client is a connection on the loopback whose other end is the proxy's.
func (l *lab) client(port uint16) (*net.TCPConn, *atomic.Int32) {
	l.Helper()
	at, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		l.Fatal(err)
	}
	defer at.Close()
	c, err := net.DialTCP("tcp4", nil, at.Addr().(*net.TCPAddr))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	in, err := at.AcceptTCP()
	if err != nil {
		l.Fatal(err)
	}
	f, err := in.File()
	if err != nil {
		l.Fatal(err)
	}
	in.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		l.Fatal(err)
	}
	f.Close()
	_ = unix.SetNonblock(fd, true)
	over := new(atomic.Int32)
	from := netip.MustParseAddrPort("192.0.2.9:4444")
	l.proxy.Connect(&Call{
		Accepted: &dial.Accepted{
			Proto: dial.TCP, Member: 3, FD: fd, From: from, To: netip.AddrPortFrom(netip.MustParseAddr("10.44.0.2"), port),
			Over: func() { over.Add(1) },
		},
		Open: func(wq *waiter.Queue) (tcpip.Endpoint, error) {
			ep, refused := l.proxy.Stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, wq)
			if refused != nil {
				return nil, errors.New(refused.String())
			}
			if refused := ep.Bind(tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(from.Addr().AsSlice())}); refused != nil {
				return nil, errors.New(refused.String())
			}
			return ep, nil
		},
	})
	return c, over
}

// visited is a client that the container, which listens at port 80, has accepted.
func (l *lab) visited() (c *net.TCPConn, in net.Conn, over *atomic.Int32) {
	l.Helper()
	at, err := gonet.ListenTCP(l.container, full("10.44.0.2:80"), ipv4.ProtocolNumber)
	if err != nil {
		l.Fatal(err)
	}
	defer at.Close()
	c, over = l.client(80)
	if in, err = at.Accept(); err != nil {
		l.Fatal(err)
	}
	return c, in, over
}

func (l *lab) ended(over *atomic.Int32) {
	l.Helper()
	l.eventually("it is told once that it has ended", func() bool { return over.Load() == 1 })
	l.eventually("no place is taken", func() bool {
		l.proxy.Tick(0)
		l.proxy.mu.Lock()
		defer l.proxy.mu.Unlock()
		return l.proxy.connQuota.used == 0
	})
}

// TestConnect: bytes are carried both ways, half-close is passed on, and the container
// sees the client's address.
func TestConnect(t *testing.T) {
	l := newLab(t)
	c, in, over := l.visited()
	if host, _, _ := net.SplitHostPort(in.RemoteAddr().String()); host != "192.0.2.9" {
		t.Errorf("the container sees %s", in.RemoteAddr())
	}
	data := bytes.Repeat([]byte("0123456789"), 100000)
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := in.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "late" {
		t.Errorf("%q, %v", got, err)
	}
	l.ended(over)
}

// TestConnectRefused: who refuses has the client reset, and so has who has no place.
func TestConnectRefused(t *testing.T) {
	l := newLab(t)
	c, over := l.client(81)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
	l.ended(over)
	l.proxy.mu.Lock()
	l.proxy.connQuota.each = 0
	l.proxy.mu.Unlock()
	c, over = l.client(81)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
	if l.ended(over); l.dropped(trace.UplinkConns) != 1 {
		t.Error("it is not counted")
	}
}

// TestConnectClosed: a call that is not answered yet ends with the proxy.
func TestConnectClosed(t *testing.T) {
	l := newLab(t)
	l.container.DisableNIC(1) // nobody answers
	c, over := l.client(80)
	l.proxy.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v", err)
	}
	l.ended(over)
}

// TestRelay: the messages of the socket are the datagrams, also those of no length, and
// its end is the flow's.
func TestRelay(t *testing.T) {
	l := newLab(t)
	at, err := gonet.DialUDP(l.container, new(full("10.44.0.2:53")), nil, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	_ = at.SetDeadline(time.Now().Add(patience))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	from := netip.MustParseAddrPort("192.0.2.9:5555")
	l.proxy.Relay(&dial.Accepted{
		Proto: dial.UDP, Member: 3, FD: fds[1], From: from, To: netip.MustParseAddrPort("10.44.0.2:53"), Over: func() {},
	}, from)
	b := make([]byte, 64)
	for _, want := range []string{"question", "", "more"} {
		if _, err := unix.SendmsgN(fds[0], []byte(want), nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		n, who, err := at.ReadFrom(b)
		if err != nil || string(b[:n]) != want || who.String() != from.String() {
			t.Fatalf("%q from %v, %v", b[:n], who, err)
		}
		if _, err := at.WriteTo([]byte("answer"), who); err != nil {
			t.Fatal(err)
		}
		l.eventually("an answer", func() bool { n, err = unix.Read(fds[0], b); return err == nil })
		if string(b[:n]) != "answer" {
			t.Errorf("%q", b[:n])
		}
	}
	unix.Close(fds[0])
	l.eventually("the flow ends", func() bool {
		l.proxy.mu.Lock()
		defer l.proxy.mu.Unlock()
		return len(l.proxy.flows) == 0 && l.proxy.flowQuota.used == 0
	})
}
