// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"sluice/test/lab"
)

// refuses expects that nobody serves at an address.
func refuses(t *testing.T, from *lab.NS, to string) {
	t.Helper()
	c, err := dial(t, from, to)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s to %s: %v, want it refused", from.Name(), to, err)
	}
}

// TestPublishedBySocket is TestPublishedOnHost for sockets, by localhost in both families;
// nothing of the host is changed.
func TestPublishedBySocket(t *testing.T) {
	w := doors(t, socketUplink)
	w.published(t, refuses, func() {
		for _, at := range []string{"[::1]:7700", "[::1]:7801"} {
			reach(t, w.host, at)
		}
		refuses(t, w.host, "192.0.2.1:7802") // nobody serves in the container
		w.unchanged(t)
	})
	refuses(t, w.world, "192.0.2.1:7801")
}

// TestPublishedBySocketSources: a container sees who comes, and the gateway for whom its
// answers could not reach.
func TestPublishedBySocketSources(t *testing.T) {
	w := doors(t, socketUplink)
	seen := make(chan string, 1)
	serve(t, w.red, ":7000", func(c *net.TCPConn) { seen <- c.RemoteAddr().String() })
	for _, c := range []struct {
		from     *lab.NS
		to, want string
	}{
		{w.world, "192.0.2.1:7700", "192.0.2.2"},
		{w.world, "[2001:db8::1]:7700", "2001:db8::2"},
		{w.host, "192.0.2.1:7700", "192.0.2.1"},
		{w.host, "127.0.0.1:7700", "10.44.0.1"},
		{w.host, "[::1]:7700", "fd44::1"},
	} {
		out := connect(t, c.from, c.to)
		got := netip.MustParseAddrPort(<-seen)
		if got.Addr().Unmap().String() != c.want {
			t.Errorf("%s to %s: the container sees %s, want %s", c.from.Name(), c.to, got, c.want)
		}
		if at := out.LocalAddr().(*net.TCPAddr); !strings.HasPrefix(c.want, "10.") && !strings.HasPrefix(c.want, "fd") && int(got.Port()) != at.Port {
			t.Errorf("the container sees port %d of %d", got.Port(), at.Port)
		}
	}
}

// TestPublishedBySocketConflicts is TestPublishedConflicts for sockets.
func TestPublishedBySocketConflicts(t *testing.T) { conflicts(t, socketUplink) }

// TestPublishedBySocketEnds: half-close and reset are passed on, both ways.
func TestPublishedBySocketEnds(t *testing.T) {
	w := doors(t, socketUplink)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	ended := make(chan error, 1)
	serve(t, w.red, ":7000", func(c *net.TCPConn) {
		got, err := io.ReadAll(c)
		if err == nil && bytes.Equal(got, data) {
			_, _ = c.Write(got)
			return
		}
		ended <- err
		_ = c.SetLinger(0)
	})
	for _, to := range []string{"192.0.2.1:7700", "127.0.0.1:7700", "[2001:db8::1]:7700", "[::1]:7700"} {
		getsBack(t, w.host, to, data)
		c := connect(t, w.host, to)
		_, _ = c.Write([]byte("x"))
		_ = c.CloseWrite()
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the container's reset: %v", to, err)
		}
		<-ended
		c = connect(t, w.host, to)
		_, _ = c.Write([]byte("x"))
		w.Eventually("the container has the connection", patience, func() bool {
			return strings.Contains(w.red.Run("ss", "-Htn", "state", "established"), ":7000 ")
		})
		_ = c.SetLinger(0)
		c.Close()
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the client's reset: %v", to, err)
		}
	}
}

func TestPublishedBySocketLeavesNothing(t *testing.T) {
	w := doors(t, socketUplink)
	serve(t, w.red, ":7000", echoes)
	w.leavesNothing(t, w.host, 8, "192.0.2.1:7700", "127.0.0.1:7700")
}

// TestPublishedBySocketKilled: with the agent no connection ends, and with another one
// new ones come; with the dataplane all end, and the next one has new ones. Flows of
// datagrams go on.
func TestPublishedBySocketKilled(t *testing.T) {
	w := doors(t, socketUplink)
	w.red.Serve() // datagrams
	serve(t, w.red, ":7001", echoes)
	const at = "192.0.2.1:7802"
	begin := func() *net.TCPConn {
		t.Helper()
		c, err := dial(t, w.world, at)
		if err == nil {
			err = echo(c)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := begin()
	w.d.KillAgent()
	if err := echo(c); err != nil {
		t.Errorf("without the agent: %v", err)
	}
	w.d.Start()
	if err := echo(c); err != nil {
		t.Errorf("with another agent: %v", err)
	}
	begin()
	trips(t, w.world, "192.0.2.1:7700")
	old := w.d.KillDataplane()
	if err := echo(c); err == nil {
		t.Error("the connection goes on without a dataplane")
	}
	w.d.AwaitDataplane(old)
	begin()
	trips(t, w.world, "192.0.2.1:7700")
	trips(t, w.host, "[::1]:7700")
}
