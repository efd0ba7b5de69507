// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// TestReuse: the socket of a connection that has ended well on both sides, whichever was
// first, is given to who connects it again, and the world has heard of the end. All others
// are closed.
func TestReuse(t *testing.T) {
	tests := map[string]struct {
		container func(*lab, *gonet.TCPConn)
		world     func(*net.TCPConn)
		reused    bool
	}{
		"the container ends first": {
			container: func(l *lab, c *gonet.TCPConn) { _ = c.CloseWrite(); reads(l.T, c, "late") },
			world:     func(c *net.TCPConn) { _, _ = io.ReadAll(c); _, _ = c.Write([]byte("late")); c.Close() },
			reused:    true,
		},
		"the world ends first": {
			container: func(l *lab, c *gonet.TCPConn) { reads(l.T, c, "soon"); c.Close() },
			world: func(c *net.TCPConn) {
				_, _ = c.Write([]byte("soon"))
				_ = c.CloseWrite()
				_, _ = io.ReadAll(c)
				c.Close()
			},
			reused: true,
		},
		"the container resets": {
			container: func(_ *lab, c *gonet.TCPConn) { _, _ = c.Read(make([]byte, 1)); c.Close() }, // the rest is unread
			world:     func(c *net.TCPConn) { _, _ = c.Write([]byte("unread")); _, _ = io.ReadAll(c); c.Close() },
		},
		"the world resets": {
			container: func(_ *lab, c *gonet.TCPConn) { _, _ = io.ReadAll(c) },
			world:     func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() },
		},
		"it was kept alive": {
			container: func(l *lab, c *gonet.TCPConn) {
				s := l.only()
				l.eventually("it is kept alive", func() bool {
					l.proxy.Tick(2)
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.altered
				})
				_ = c.CloseWrite()
				reads(l.T, c, "")
			},
			world: func(c *net.TCPConn) { _, _ = io.ReadAll(c); c.Close() },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			taken := make(chan int, 1)
			l.reuse.Store(&taken)
			over := make(chan struct{})
			port := l.server(func(c *net.TCPConn) { test.world(c); close(over) })
			c, err := l.dial(port)
			if err != nil {
				t.Fatal(err)
			}
			test.container(l, c)
			<-over
			l.eventually("nothing is left", func() bool {
				l.proxy.expire()
				return len(l.proxy.Entries()) == 0
			})
			select {
			case fd := <-taken:
				_ = unix.Close(fd)
				if !test.reused {
					t.Error("reused")
				}
			default:
				if test.reused {
					t.Error("closed")
				}
			}
		})
	}
}

// reads reads all that there is.
func reads(t *testing.T, c io.Reader, want string) {
	t.Helper()
	if b, err := io.ReadAll(c); string(b) != want || err != nil {
		t.Errorf("read %.80q (%d bytes), %v; want %.80q (%d bytes)", b, len(b), err, want, len(want))
	}
}

// TestReuseOfAccepted: what came from outside is closed.
func TestReuseOfAccepted(t *testing.T) {
	l := newLab(t)
	taken := make(chan int, 1)
	l.reuse.Store(&taken)
	c, in, over := l.visited()
	_ = c.CloseWrite()
	reads(t, in, "")
	in.Close()
	reads(t, c, "")
	l.ended(over)
	if len(taken) != 0 {
		t.Error("reused")
	}
}
