// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/test/lab"
)

// doors is a way with a socket uplink, and red's ports published on the host's addresses.
func doors(t *testing.T) *way {
	t.Helper()
	w := newWay(t, 1500, socketUplink)
	w.host.Run("ip", "link", "set", "lo", "up")
	red := w.red.Name()
	for _, p := range []string{"tcp", "udp"} {
		w.publish(p, "7700", "to", red+":7000").Expect(0)
		w.publish(p, "7800-7802", "to", red+":6999-7001").Expect(0)
		w.publish(p, "192.0.2.1:7000", "to", red).Expect(0)
		w.publish(p, "127.0.0.1:7900", "to", red+":7000").Expect(0)
	}
	return w
}

func (w *way) publish(words ...string) lab.Result {
	return w.d.CLI(append([]string{"-n", "shop", "publish", "add"}, words...)...)
}

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

// TestPublishedBySocket publishes ports of red with a socket uplink, and reaches them
// from the world, from the host by its addresses and by localhost in both families, from
// another container, and from red itself; nothing of the host is changed.
func TestPublishedBySocket(t *testing.T) {
	w := doors(t)
	w.red.Serve()
	for _, f := range both() {
		at := map[lab.Family]string{lab.V4: "192.0.2.1:", lab.V6: "[2001:db8::1]:"}[f]
		for _, from := range []*lab.NS{w.world, w.host, w.green, w.red} {
			reach(t, from, at+"7700")
			reach(t, from, at+"7801")
		}
	}
	for _, from := range []*lab.NS{w.world, w.host, w.green, w.red} {
		reach(t, from, "192.0.2.1:7000")
	}
	for _, at := range []string{"127.0.0.1:7700", "127.0.0.1:7801", "127.0.0.1:7900", "[::1]:7700", "[::1]:7801"} {
		reach(t, w.host, at)
	}
	refuses(t, w.world, "192.0.2.1:7900") // of the loopback only
	refuses(t, w.host, "192.0.2.1:7802")  // nobody serves in the container
	if has := w.has(); has != w.before {
		t.Errorf("the host had\n%s\nand has\n%s", w.before, has)
	}

	w.red.Detach() // the port leads nowhere, and to the next one of that name
	refuses(t, w.world, "192.0.2.1:7700")
	blue := w.NS("blue").Attach("--network", "web", "--name", w.red.Name(), "--ip", "10.44.0.77")
	blue.Serve()
	reach(t, w.world, "192.0.2.1:7700")
	w.d.KillBoth()
	w.d.Start()
	reach(t, w.world, "192.0.2.1:7700")
	reach(t, w.host, "127.0.0.1:7700")
	w.d.CLI("-n", "shop", "publish", "del", "tcp", "7700").Expect(0)
	refuses(t, w.world, "192.0.2.1:7700")
	w.d.Apply(shopYAML())
	refuses(t, w.world, "192.0.2.1:7801")
}

// TestPublishedBySocketSources: a container sees who comes, and the gateway for whom its
// answers could not reach.
func TestPublishedBySocketSources(t *testing.T) {
	w := doors(t)
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
		out, err := dial(t, c.from, c.to)
		if err != nil {
			t.Fatal(err)
		}
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
func TestPublishedBySocketConflicts(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	w.host.Serve() // 7000
	w.publish("tcp", "7000", "to", w.red.Name()).Expect(1, "port tcp 7000: tcp *:7000: in use on the host by traffic (process ")
	w.publish("udp", "192.0.2.1:6990-7010", "to", w.red.Name()).Expect(1, "udp 192.0.2.1:7000: in use on the host by traffic (process ")
	w.publish("tcp", "7700", "to", w.red.Name()).Expect(0)
	if r := w.host.Traffic("serve", "-port", "7700").Wait(10 * time.Second); r.Code == 0 || !strings.Contains(r.Err, "address already in use") {
		t.Errorf("a program of the host got a published port: %+v", r)
	}
	declared := strings.Replace(shopYAML(socketUplink), "[{name: shop}]", "[{name: shop, publish: [tcp 7000 to "+w.red.Name()+"]}]", 1)
	w.d.TryApply(declared).Expect(1, "namespaces[0].publish[0]: tcp *:7000: in use on the host by traffic (process ")
	w.d.CLI("-n", "shop", "publish").Expect(0, "tcp 7700 to "+w.red.Name())
	w.d.CLI("-n", "shop", "publish", "del", "tcp", "7700").Expect(0)
	w.host.Traffic("serve", "-port", "7700").Ready()
}

// TestPublishedBySocketEnds: half-close and reset are passed on, both ways.
func TestPublishedBySocketEnds(t *testing.T) {
	w := doors(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	sum := sha256.Sum256(data)
	ended := make(chan error, 1)
	serve(t, w.red, ":7000", func(c *net.TCPConn) {
		got, err := io.ReadAll(c)
		if err == nil && sha256.Sum256(got) == sum {
			_, _ = c.Write(got)
			return
		}
		ended <- err
		_ = c.SetLinger(0)
	})
	for _, to := range []string{"192.0.2.1:7700", "127.0.0.1:7700", "[2001:db8::1]:7700", "[::1]:7700"} {
		c, err := dial(t, w.host, to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || sha256.Sum256(got) != sum {
			t.Errorf("%s: got %d bytes, %v", to, len(got), err)
		}
		if c, err = dial(t, w.host, to); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		_ = c.CloseWrite()
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the container's reset: %v", to, err)
		}
		<-ended
		if c, err = dial(t, w.host, to); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		time.Sleep(50 * time.Millisecond)
		_ = c.SetLinger(0)
		c.Close()
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the client's reset: %v", to, err)
		}
	}
}

// TestPublishedBySocketLeavesNothing opens and ends a thousand connections, many at a
// time, and looks what is left of them.
func TestPublishedBySocketLeavesNothing(t *testing.T) {
	w := doors(t)
	serve(t, w.red, ":7000", func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	talk := func(n int) {
		for i := range n {
			to := "192.0.2.1:7700"
			if i%2 == 1 {
				to = "127.0.0.1:7700"
			}
			c, err := dial(t, w.host, to)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte("x"))
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Error(err)
				return
			}
			if i%4 == 3 {
				_ = c.SetLinger(0)
			}
			c.Close()
		}
	}
	talk(10)
	s := w.d.Status()
	plane, agent := files(t, s.Dataplane.PID), files(t, s.PID)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { talk(125) })
	}
	wg.Wait()
	w.Eventually("no descriptor is left", 10*time.Second, func() bool {
		const others = 8 // a dataplane that stands by may have come meanwhile
		return files(t, s.Dataplane.PID) <= plane+others && files(t, s.PID) <= agent+others
	})
}

// TestPublishedBySocketKilled: with the agent no connection ends, and with another one
// new ones come; with the dataplane all end, and the next one has new ones. Flows of
// datagrams go on.
func TestPublishedBySocketKilled(t *testing.T) {
	w := doors(t)
	w.red.Serve() // datagrams
	serve(t, w.red, ":7001", func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	const at = "192.0.2.1:7802"
	echo := func(c net.Conn) error {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
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
	w.Eventually("a new dataplane", 10*time.Second, func() bool {
		s := w.d.Status()
		return s.Dataplane.State == "running" && s.Dataplane.PID != old
	})
	begin()
	trips(t, w.world, "192.0.2.1:7700")
	trips(t, w.host, "[::1]:7700")
}
