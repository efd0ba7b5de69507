// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"

	"sluice/test/loopback"
	"sluice/trace"
)

// server accepts one connection after the other on the loopback.
func (l *lab) server(handle func(*net.TCPConn)) (port string) {
	l.Helper()
	s, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { s.Close() })
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
	_, port, _ = net.SplitHostPort(s.Addr().String())
	return port
}

// dial connects the container to a port of the world.
func (l *lab) dial(port string) (*gonet.TCPConn, error) {
	l.Helper()
	c, err := gonet.DialTCPWithBind(l.Context(), l.container, full("10.44.0.2:0"), full("192.0.2.2:"+port), ipv4.ProtocolNumber)
	if err == nil {
		l.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

func TestBytesBothWays(t *testing.T) {
	l := newLab(t)
	port := l.server(func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 2<<20)
	_, _ = rand.Read(data)
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if l.entrance.inline.Load() == 0 {
		t.Error("no segment was handled by who brought it")
	}
	c.Close()
	l.eventually("nothing is left", func() bool {
		l.proxy.expire()
		return len(l.proxy.Entries()) == 0
	})
}

// TestErrorsOfDials: a refusal is a reset, what can't be reached an ICMP error, and the
// place is free again.
func TestErrorsOfDials(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.ECONNREFUSED: "connection was refused",
		unix.ENETUNREACH:  "network is unreachable",
		unix.EHOSTUNREACH: "no route to host",
	} {
		l := newLab(t)
		l.errno = errno
		if _, err := l.dial("80"); err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%v: %v", errno, err)
		}
		if n := len(l.proxy.Entries()); n != 0 {
			t.Errorf("%v: %d places are taken", errno, n)
		}
	}
}

// TestDialFirst: nobody is answered before the outside is there.
func TestDialFirst(t *testing.T) {
	l := newLab(t)
	l.mute = true
	_ = l.silent("192.0.2.2:80")
	l.eventually("it is dialled", func() bool { return len(l.proxy.Entries()) > 0 })
	if e := l.proxy.Entries(); len(e) != 1 || e[0].Endpoint != nil {
		t.Errorf("%+v", e)
	}
	l.proxy.Tick(dialLimit + 1)
	l.eventually("it is given up", func() bool { return len(l.proxy.Entries()) == 0 })
}

// silent begins a connection and expects no answer for a moment.
func (l *lab) silent(to string) error {
	done := make(chan error, 1)
	go func() {
		c, err := gonet.DialTCPWithBind(l.Context(), l.container, full("10.44.0.2:0"), full(to), ipv4.ProtocolNumber)
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		l.Errorf("%s: answered with %v", to, err)
		return err
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}

// TestQuotas: a container's dials and flows are bounded, and counted.
func TestQuotas(t *testing.T) {
	l := newLab(t)
	l.mute = true
	for i := range 6 {
		_ = l.silent(fmt.Sprintf("192.0.2.2:%d", 80+i))
	}
	l.eventually("dials are refused", func() bool { return l.dropped(trace.UplinkDials) >= 2 })
	if n := len(l.proxy.Entries()); n != 4 {
		t.Errorf("%d dials", n)
	}
	for i := range 6 {
		l.datagram(fmt.Sprintf("192.0.2.2:%d", 80+i))
	}
	l.eventually("flows are refused", func() bool { return l.dropped(trace.UplinkFlows) == 2 })
	if n := len(l.proxy.Entries()); n != 8 {
		t.Errorf("%d connections and flows", n)
	}
}

// datagram sends one from the container.
func (l *lab) datagram(to string) *gonet.UDPConn {
	l.Helper()
	local, remote := full("10.44.0.2:0"), full(to)
	c, err := gonet.DialUDP(l.container, &local, &remote, ipv4.ProtocolNumber)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		l.Fatal(err)
	}
	return c
}

// TestDatagramThatFailsAtOnce: the container hears of it, though there is an answer before
// the datagram has been sent.
func TestDatagramThatFailsAtOnce(t *testing.T) {
	l := newLab(t)
	l.errno = unix.ECONNREFUSED
	c := l.datagram("192.0.2.2:9")
	if _, err := c.Read(make([]byte, 10)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

func TestDatagrams(t *testing.T) {
	l := newLab(t)
	s, err := net.ListenPacket("udp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := s.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = s.WriteTo(b[:n], from)
		}
	}()
	_, port, _ := net.SplitHostPort(s.LocalAddr().String())
	c := l.datagram("192.0.2.2:" + port)
	b := make([]byte, 1<<16)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("%q, %v", b[:n], err)
	}
	long := make([]byte, 5000) // fragments, both ways
	_, _ = rand.Read(long)
	if _, err := c.Write(long); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], long) {
		t.Errorf("%d bytes of %d, %v", n, len(long), err)
	}
	l.proxy.Tick(idleUnreplied + 1)
	if n := len(l.proxy.Entries()); n != 1 {
		t.Errorf("a flow that was answered is gone: %d", n)
	}
	l.proxy.Tick(idleReplied + 1)
	if n := len(l.proxy.Entries()); n != 0 {
		t.Errorf("an idle flow stays: %d", n)
	}
}

// TestRefusedDatagram: the ICMP error of the outside comes to the container.
func TestRefusedDatagram(t *testing.T) {
	l := newLab(t)
	s, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(s.LocalAddr().String())
	s.Close() // nobody is there
	l.datagram("192.0.2.2:" + port)
	l.eventually("port unreachable", func() bool {
		return l.container.Stats().ICMP.V4.PacketsReceived.DstUnreachable.Value() == 1
	})
}

// TestHalfClose: what the container says after the outside has ended still arrives.
func TestHalfClose(t *testing.T) {
	l := newLab(t)
	late := make(chan string, 1)
	port := l.server(func(c *net.TCPConn) {
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		late <- string(b)
		c.Close()
	})
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	_, _ = c.Write([]byte("late"))
	_ = c.CloseWrite()
	if got := <-late; got != "late" {
		t.Errorf("got %q", got)
	}
}

// TestResetInside: the outside's reset is the container's.
func TestResetInside(t *testing.T) {
	l := newLab(t)
	port := l.server(func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
		c.Close()
	})
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read: %v", err)
	}
}

func TestIPv6(t *testing.T) {
	l := newLab(t)
	s, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		loopback.Missing(t, err)
	}
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Addr().String())
	c, err := gonet.DialTCPWithBind(t.Context(), l.container, full("[fd44::2]:0"), full("[2001:db8::2]:"+port), ipv6.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestQuota(t *testing.T) {
	q := newQuota(3, 2)
	for i, want := range []bool{true, true, false} {
		if got := q.take(1); got != want {
			t.Errorf("take %d: %v", i, got)
		}
	}
	if !q.take(2) || q.take(3) {
		t.Error("the total is not held")
	}
	q.put(1)
	if !q.take(3) || len(q.by) != 3 {
		t.Errorf("%+v", q)
	}
}
