// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	pt "sluice/packet/packettest"
)

func echoing() NetworkSpec {
	s := blue(1)
	s.Echo = true
	return s
}

func TestEchoAndDiscard(t *testing.T) {
	j := join(t, echoing())
	for _, tc := range []struct {
		network, address string
		echoes           bool
	}{
		{"tcp", "10.44.0.1:7", true},
		{"tcp", "[fd44::1]:7", true},
		{"udp", "10.44.0.1:7", true},
		{"udp", "[fd44::1]:7", true},
		{"tcp", "10.44.0.1:9", false},
		{"udp", "[fd44::1]:9", false},
	} {
		t.Run(tc.network+" "+tc.address, func(t *testing.T) {
			c, err := j.inner.DialContext(within(t), tc.network, tc.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			want := pt.Bytes(1000)
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			if !tc.echoes {
				c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
					t.Error("discard answered")
				}
				return
			}
			got := make([]byte, len(want))
			c.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes: %v", len(got), err)
			}
		})
	}
}

// TestEchoDoesNotAnswerItsLike, or two of them would never stop.
func TestEchoDoesNotAnswerItsLike(t *testing.T) {
	l := stillLab(t, echoing())
	for from, answers := range map[uint16]bool{7: false, 8: true} {
		l.send(1, pt.UDP4(pt.Packet{
			SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4(),
			SrcPort: from, DstPort: 7, Payload: []byte("hello"),
		}))
		if answers {
			eventually(t, "the answer", func() bool { l.round(); return l.got(1) != nil })
		} else {
			l.silent(1)
		}
	}
}

// TestEchoIsSharedFairly: one container gets half of the places and no more.
func TestEchoIsSharedFairly(t *testing.T) {
	j := join(t, echoing())
	served := func() net.Conn {
		c, err := j.inner.DialContext(within(t), "tcp", "10.44.0.1:7")
		if err != nil {
			return nil
		}
		c.SetDeadline(time.Now().Add(patience))
		_, _ = c.Write([]byte("x"))
		if n, _ := c.Read(make([]byte, 1)); n != 1 {
			c.Close()
			return nil
		}
		return c
	}
	var conns []net.Conn
	for c := served(); c != nil; c = served() {
		defer c.Close()
		conns = append(conns, c)
	}
	if len(conns) != maxServed/2 {
		t.Fatalf("%d connections of one container are served, want %d", len(conns), maxServed/2)
	}
	conns[0].Close()
	eventually(t, "a place is free", func() bool {
		c := served()
		if c != nil {
			c.Close()
		}
		return c != nil
	})
}

func TestEchoComesAndGoesWithTheSnapshot(t *testing.T) {
	l := stillLab(t, blue(1))
	ns := l.n.Namespace("blue")
	for _, echo := range []bool{true, false, true, true, false} {
		l.snap.Namespaces[0].Networks[0].Echo = echo
		l.apply()
		want := 0
		if echo {
			want = 3 * 4 // addresses, and what each listens to
		}
		if got := len(ns.Sockets()); got != want {
			t.Errorf("echo %v: %d sockets, want %d: %v", echo, got, want, ns.Sockets())
		}
	}
}

// TestCloseEndsEverything: connections in all states, services and workers.
func TestCloseEndsEverything(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("in use", func(t *testing.T) {
		j := join(t, echoing())
		l, err := j.blue.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		u, err := j.blue.ListenPacket("udp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{}, 4)
		go func() { _, _ = l.Accept(); _, _ = l.Accept(); ended <- struct{}{} }()
		go func() { _, _, _ = u.ReadFrom(make([]byte, 1)); ended <- struct{}{} }()
		for _, address := range []string{"10.44.0.1:7", "10.44.0.1:80", "10.44.0.1:80"} {
			c, err := j.inner.DialContext(within(t), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(make([]byte, 100_000))
			if address == "10.44.0.1:7" {
				c.(halfCloser).CloseWrite()
			}
		}
		c, err := j.inner.DialContext(within(t), "tcp", "10.44.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = c.Read(make([]byte, 1)); ended <- struct{}{} }()
		j.blue.net.Close()
		j.inner.net.Close()
		for range 3 {
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("a call waits for ever")
			}
		}
	})
	goleak.VerifyNone(t, before)
}

// TestCloseInTheMiddle closes while connections come, talk and go.
func TestCloseInTheMiddle(t *testing.T) {
	for i := range 20 {
		j := join(t, echoing())
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		for k := range 6 {
			go func() {
				for talkTo(ctx, j.inner, "10.44.0.1:7", 1000*k*k, k%2 == 0) {
				}
			}()
		}
		time.Sleep(time.Duration(i) * time.Millisecond) // any moment will do
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			j.blue.net.Close()
			j.inner.net.Close()
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Fatal("Close does not return")
		}
		cancel()
	}
}

// talkTo is one short connection, closed in one of two ways; false if it could
// not be made.
func talkTo(ctx context.Context, from *Namespace, address string, n int, politely bool) bool {
	c, err := from.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	_, _ = c.Write(make([]byte, n))
	if politely {
		_ = c.(halfCloser).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}
	return true
}
