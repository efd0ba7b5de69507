// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// only is the lab's one connection, once it is established.
func (l *lab) only() (c *conn) {
	l.Helper()
	l.eventually("a connection", func() bool {
		l.proxy.mu.Lock()
		defer l.proxy.mu.Unlock()
		for _, c = range l.proxy.conns {
			return c.shown.Load() != nil
		}
		return false
	})
	return c
}

// TestPullMany: what waits in the socket goes to the stack in many segments, and comes out
// as it was. A container that does not read is waited for.
func TestPullMany(t *testing.T) {
	l := newLab(t)
	data := make([]byte, 4<<20)
	_, _ = rand.Read(data)
	port := l.server(func(c *net.TCPConn) {
		defer c.Close()
		_, _ = c.Write(data)
	})
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // all buffers are full
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
}

// TestPullBrokenPromise: should there be less than was promised, the container's
// connection is reset, and it never sees what nobody wrote.
func TestPullBrokenPromise(t *testing.T) {
	l := newLab(t)
	port := l.server(func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	inner, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	c := l.only()
	l.eventually("the end of the handshake", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.ep != nil })
	c.mu.Lock()
	done, fault := c.pull(3 * maxRead)
	c.gone = true
	c.step()
	c.mu.Unlock()
	if _, ok := fault.(*tcpip.ErrConnectionAborted); !ok || done != 0 {
		t.Errorf("%d, %v", done, fault)
	}
	n, err := inner.Read(make([]byte, 10))
	if n != 0 || err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestPullAllocates nothing: the buffers are the stack's, which has pools of them.
func TestPullAllocates(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	var p pieces
	from, to := make([]byte, 3000), make([]byte, 3000)
	_, _ = rand.Read(from)
	var n int
	if allocs := testing.AllocsPerRun(100, func() {
		n, _ = unix.Write(fds[1], from)
		p.n = 0
		for _, b := range [][]byte{to[:1000], to[1000:1001], nil, to[1001:]} {
			_, _ = p.Read(b)
		}
		if !p.fill(fds[0], 3000) {
			n = 0
		}
	}); allocs != 0 || n != 3000 || !bytes.Equal(from, to) {
		t.Errorf("%v allocations, %d bytes written, %d pieces", allocs, n, p.n)
	}
	for i := range p.iov {
		if p.iov[i].Base != nil {
			t.Errorf("piece %d is held on to", i)
		}
	}
}

// TestAdvance: what one call of readv(2) has left belongs where the next one puts it.
func TestAdvance(t *testing.T) {
	b := make([]byte, 10)
	for n, want := range map[int][]int{
		0: {0, 3, 3, 1, 4, 6}, 2: {2, 1, 3, 1, 4, 6}, 3: {3, 1, 4, 6}, 5: {5, 5}, 9: {9, 1}, 10: nil,
	} {
		iov := make([]unix.Iovec, 3)
		for i, at := range []int{0, 3, 4} {
			iov[i].Base = &b[at]
			iov[i].SetLen([]int{3, 1, 6}[i])
		}
		var got []int
		for _, v := range advance(iov, n) {
			for at := range b {
				if v.Base == &b[at] {
					got = append(got, at, int(v.Len))
				}
			}
		}
		if len(got) != len(want) {
			t.Errorf("after %d: %v, want %v", n, got, want)
			continue
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("after %d: %v, want %v", n, got, want)
				break
			}
		}
	}
}
