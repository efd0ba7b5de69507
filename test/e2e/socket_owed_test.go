// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/lab"
)

// TestSocketUplinkOwes: what is acknowledged by the next data, in both directions, is
// acknowledged soon if there is none: a server that speaks first is not kept waiting, nor is a
// container whose message has no answer. Eight that come and go at once lose nothing.
func TestSocketUplinkOwes(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	const kernel = 40 * time.Millisecond // TCP_DELACK_MIN, what two kernels may take
	serve(t, w.world, "192.0.2.2:7110", func(c *net.TCPConn) {
		_, _ = c.Write([]byte("hello"))
		_, _ = io.Copy(io.Discard, c)
	})
	best := func(what string, limit time.Duration, f func(c *net.TCPConn)) {
		t.Helper()
		least := time.Hour
		for range 10 {
			began := time.Now()
			c := connect(t, w.red, "192.0.2.2:7110")
			f(c)
			least = min(least, time.Since(began))
			c.Close()
		}
		if t.Logf("%s: %v", what, least); least > limit {
			t.Errorf("%s took %v", what, least)
		}
	}
	hello := make([]byte, 5)
	best("the server's first word", kernel, func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, hello); err != nil || string(hello) != "hello" {
			t.Errorf("%q, %v", hello, err)
		}
	})
	best("an acknowledgement without an answer", kernel, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, hello)
		_, _ = c.Write([]byte("x"))
		for end := time.Now().Add(patience); unacked(t, c) > 0; time.Sleep(200 * time.Microsecond) {
			if time.Now().After(end) {
				t.Error("never acknowledged")
				return
			}
		}
	})
	w.world.Serve()
	r := lab.Report[struct{ Count, Errors int }](w.red.Traffic("crr", "-conns", "8", "-seconds", "1", "-to", w.world.At(lab.V4)), time.Minute)
	if r.Count == 0 || r.Errors != 0 {
		t.Errorf("%d connections, %d errors", r.Count, r.Errors)
	}
}

// unacked is the number of segments that a connection waits to have acknowledged.
func unacked(t *testing.T, c *net.TCPConn) (n uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Error(err)
			return
		}
		n = info.Unacked
	})
	return n
}
