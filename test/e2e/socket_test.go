// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
	"sluice/veth"
)

// within calls f in a namespace.
func within(t *testing.T, n *lab.NS, f func()) {
	t.Helper()
	ns, err := veth.OpenNetNS(n.Path())
	if err == nil {
		defer ns.Close()
		err = veth.Do(ns, func() error { f(); return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// dial connects from a namespace.
func dial(t *testing.T, from *lab.NS, to string) (c *net.TCPConn, err error) {
	t.Helper()
	within(t, from, func() {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", to, patience); err == nil {
			c = conn.(*net.TCPConn)
			t.Cleanup(func() { c.Close() })
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		}
	})
	return c, err
}

// connect is dial, which must succeed.
func connect(t *testing.T, from *lab.NS, to string) *net.TCPConn {
	t.Helper()
	c, err := dial(t, from, to)
	if err != nil {
		t.Fatalf("%s to %s: %v", from.Name(), to, err)
	}
	return c
}

// getsBack sends data to who returns it at the end of it.
func getsBack(t *testing.T, from *lab.NS, to string, data []byte) {
	t.Helper()
	c := connect(t, from, to)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s: got %d bytes, %v", to, len(got), err)
	}
}

// serve accepts connections in a namespace until the test ends.
func serve(t *testing.T, at *lab.NS, addr string, handle func(*net.TCPConn)) {
	t.Helper()
	var l net.Listener
	var err error
	within(t, at, func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				handle(c.(*net.TCPConn))
			})
		}
	})
}

// echoes is a handler of serve.
func echoes(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// echo sends a byte and awaits it.
func echo(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// socketUplink is a line of shopYAML.
const socketUplink = "{name: out, type: socket}"

// goesOut is goes for who is not to be reached from outside.
func goesOut(from, to *lab.NS) {
	for _, f := range both() {
		from.Ping(to.IP(f))
		lab.TCP(from, to, f, 8<<20)
		lab.UDPTo(from, to, f, lab.Datagrams{Bytes: 1 << 20})
		lab.UDPTo(from, to, f, lab.Datagrams{Bytes: 1 << 20, GSO: true})
		lab.UDPTo(from, to, f, lab.Datagrams{Bytes: 256 << 10, Size: 4000})
	}
}

// TestSocketUplink: TCP, UDP and pings of a container end in the dataplane and reach
// the world from the host, on which nothing was changed.
func TestSocketUplink(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	goesOut(w.red, w.world)
	goesOut(w.green, w.world)
	goesOut(w.red, w.host)
	goes(w.red, w.green) // within the namespace as before
	w.unchanged(t)
	for _, f := range both() {
		if r := w.world.TryPing(w.red.IP(f), 1); r.Code == 0 {
			t.Errorf("%v: the world reaches a container", f)
		}
		from := make(chan string, 1)
		at := netip.AddrPortFrom(w.world.IP(f), 7100).String()
		serve(t, w.world, at, func(c *net.TCPConn) { from <- c.RemoteAddr().String() })
		connect(t, w.red, at)
		if got := netip.MustParseAddrPort(<-from).Addr().String(); got != wan(f) {
			t.Errorf("%v: the world sees %s, not the host", f, got)
		}
	}
	w.d.CLI("uplink").Expect(0, "out: <POINTOPOINT,UP,LOWER_UP> mtu 1500 state READY", "type socket default_route on")
	w.d.CLI("route").Expect(0, "default dev out proto static")
	serve(t, w.world, "192.0.2.2:7108", echoes)
	connect(t, w.red, "192.0.2.2:7108")
	w.d.CLI("ss", "-t").Expect(0, "Process", "192.0.2.2:7108", w.red.IP(lab.V4).String()+":", w.red.Name())
	w.d.CLI("-n", "shop", "ss", "-u", "-o", "json").Expect(0, `"process":"`+w.red.Name())
	w.d.Apply(shopYAML())
	if r := w.red.TryPing(w.world.IP(lab.V4), 1); r.Code == 0 {
		t.Error("without the uplink, the world is reached")
	}
}

// TestSocketUplinkErrors: what the outside says of a connection, its container hears.
func TestSocketUplinkErrors(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	w.host.Run("ip", "route", "add", "unreachable", "198.51.100.0/24")
	w.host.Run("ip", "-6", "route", "add", "unreachable", "2001:db8:1::/48")
	for _, f := range both() {
		nowhere := map[lab.Family]string{lab.V4: "203.0.113.1:80", lab.V6: "[2001:db8:2::1]:80"}[f]
		closed := map[lab.Family]string{lab.V4: "198.51.100.1:80", lab.V6: "[2001:db8:1::1]:80"}[f]
		for to, want := range map[string]syscall.Errno{
			netip.AddrPortFrom(w.world.IP(f), 9).String(): syscall.ECONNREFUSED,
			nowhere: syscall.ENETUNREACH,
			closed:  syscall.EHOSTUNREACH,
		} {
			inTime(t, "an error within two seconds", func() bool {
				start := time.Now()
				_, err := dial(t, w.red, to)
				took := time.Since(start)
				if !errors.Is(err, want) {
					t.Errorf("%v: dial %s: %v after %v, want %v", f, to, err, took, want)
				}
				return took <= 2*time.Second
			})
		}
		w.red.Try("ping", "-n", "-c", "1", "-W", "2", strings.Trim(strings.TrimSuffix(nowhere, ":80"), "[]")).Expect(1, "nreachable")
		within(t, w.red, func() {
			c, err := net.Dial("udp", netip.AddrPortFrom(w.world.IP(f), 9).String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = c.Write([]byte("x"))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%v: a datagram to a closed port: %v", f, err)
			}
		})
	}
	// The host's own loopback is not for containers.
	if _, err := dial(t, w.red, "127.0.0.1:22"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a container's loopback: %v", err) // it is the container's own
	}
}

// TestSocketUplinkEnds: half-close and reset are passed on, both ways.
func TestSocketUplinkEnds(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	for _, f := range both() {
		// The server answers when it has seen the end of what it got.
		at := netip.AddrPortFrom(w.world.IP(f), 7101).String()
		serve(t, w.world, at, func(c *net.TCPConn) {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%v: server got %d bytes, %v", f, len(got), err)
			}
			_, _ = c.Write(got)
		})
		getsBack(t, w.red, at, data)

		// The server ends first, and goes on reading.
		at = netip.AddrPortFrom(w.world.IP(f), 7102).String()
		late := make(chan string, 1)
		serve(t, w.world, at, func(c *net.TCPConn) {
			_ = c.CloseWrite()
			got, _ := io.ReadAll(c)
			late <- string(got)
		})
		c := connect(t, w.red, at)
		if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
			t.Errorf("%v: %q, %v", f, got, err)
		}
		_, _ = c.Write([]byte("late"))
		_ = c.CloseWrite()
		if got := <-late; got != "late" {
			t.Errorf("%v: after its own end the server got %q", f, got)
		}

		// Resets.
		at = netip.AddrPortFrom(w.world.IP(f), 7103).String()
		ended := make(chan error, 1)
		serve(t, w.world, at, func(c *net.TCPConn) {
			b := make([]byte, 1)
			_, _ = c.Read(b)
			if b[0] == 's' { // the server resets
				_ = c.SetLinger(0)
				return
			}
			_, _ = c.Write(b)
			_, err := c.Read(b)
			ended <- err
		})
		c = connect(t, w.red, at)
		_, _ = c.Write([]byte("s"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v: the server's reset: %v", f, err)
		}
		c = connect(t, w.red, at)
		_, _ = c.Write([]byte("c"))
		_, _ = c.Read(make([]byte, 1)) // so that the server has read it, and waits
		_ = c.SetLinger(0)
		c.Close()
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v: the client's reset: %v", f, err)
		}
	}
}

// TestSocketUplinkPressure: who does not read stops who writes, through the uplink.
func TestSocketUplinkPressure(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	const enough = 32 << 20 // more than there are buffers for on the way
	at := netip.AddrPortFrom(w.world.IP(lab.V4), 7104).String()
	hold, read := make(chan struct{}), make(chan int64, 1)
	serve(t, w.world, at, func(c *net.TCPConn) {
		<-hold
		n, _ := io.Copy(io.Discard, c)
		read <- n
	})
	c := connect(t, w.red, at)
	_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	sent, err := c.Write(make([]byte, enough))
	if !errors.Is(err, os.ErrDeadlineExceeded) || sent > enough/2 {
		t.Errorf("%d bytes were sent to nobody, %v", sent, err)
	}
	close(hold)
	_ = c.CloseWrite()
	if got := <-read; got != int64(sent) {
		t.Errorf("%d bytes arrived of %d", got, sent)
	}
}

// files are the descriptors of a process.
func files(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(pid), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// leavesNothing opens and ends a thousand connections to what echoes, so many at a time,
// and looks what is left of them.
func (w *way) leavesNothing(t *testing.T, from *lab.NS, atOnce int, to ...string) {
	t.Helper()
	talk := func(n int) {
		for i := range n {
			c, err := dial(t, from, to[i%len(to)])
			if err == nil {
				err = echo(c)
			}
			if err != nil {
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
	for range atOnce {
		wg.Go(func() { talk(1000 / atOnce) })
	}
	wg.Wait()
	// Some are those of the dataplane that stands by, which comes when it likes.
	const standby = 8
	w.Eventually("no descriptor is left", patience, func() bool {
		return files(t, s.Dataplane.PID) <= plane+standby && files(t, s.PID) <= agent+standby
	})
	t.Logf("descriptors: dataplane %d, then %d; agent %d, then %d", plane, files(t, s.Dataplane.PID), agent, files(t, s.PID))
}

func TestSocketUplinkLeavesNothing(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	at := netip.AddrPortFrom(w.world.IP(lab.V4), 7105).String()
	serve(t, w.world, at, echoes)
	w.leavesNothing(t, w.red, 1, at)
}

// TestSocketUplinkScanned: a container that scans has its quota, and its neighbour
// notices nothing.
func TestSocketUplinkScanned(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	w.host.Run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.99") // where nobody is
	w.host.Run("ip", "neigh", "add", "192.0.2.99", "lladdr", "02:00:00:00:00:99", "dev", "wan")
	scan := func() {
		within(t, w.red, func() {
			for port := range 2000 {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
					return
				}
				_ = unix.Connect(fd, &unix.SockaddrInet4{Port: 1 + port, Addr: [4]byte{198, 51, 100, 7}})
				unix.Close(fd)
			}
		})
	}
	at := netip.AddrPortFrom(w.world.IP(lab.V4), 7106).String()
	serve(t, w.world, at, echoes)
	if _, err := dial(t, w.green, at); err != nil { // the daemon dials, from now on
		t.Fatal(err)
	}
	scan()
	pid := w.d.Status().Dataplane.PID
	if n := files(t, pid); n > 600 {
		t.Errorf("the dataplane has %d descriptors", n)
	}
	var links []api.Link
	w.d.CLI("-s", "link", "show", w.red.Name(), "-o", "json").JSON(&links)
	if len(links) != 1 || links[0].Stats.Drops["uplink_dials"] == 0 {
		t.Errorf("drops: %+v", links)
	}
	if _, err := dial(t, w.green, at); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
}

// TestSocketUplinkAtOnce: many connections at a time, one after the other as fast as they
// are made, wait for nothing that was lost.
func TestSocketUplinkAtOnce(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	w.world.Serve()
	r := lab.Report[report.Rate](w.red.Traffic("crr", "-seconds", "1", "-conns", "32", "-to", w.world.At(lab.V4)), time.Minute)
	if r.Errors > 0 || r.Count < 32 {
		t.Errorf("%+v", r)
	}
	if out := w.d.CLI("-s", "link", "show", w.red.Name()).Out; strings.Contains(out, "local_rate") {
		t.Errorf("%+v\n%s", r, out)
	}
}

// TestSocketUplinkKilled: connections end with the dataplane, at once and on both
// sides, and new ones work with the next one. With the agent nothing ends.
func TestSocketUplinkKilled(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	at := netip.AddrPortFrom(w.world.IP(lab.V4), 7107).String()
	ended := make(chan struct{}, 16)
	serve(t, w.world, at, func(c *net.TCPConn) { _, _ = io.Copy(c, c); ended <- struct{}{} })
	c := connect(t, w.red, at)
	w.d.KillAgent()
	if err := echo(c); err != nil {
		t.Errorf("without the agent: %v", err)
	}
	w.d.Start()
	if err := echo(c); err != nil {
		t.Errorf("with another agent: %v", err)
	}
	if _, err := dial(t, w.red, at); err != nil {
		t.Errorf("a new one, with another agent: %v", err)
	}
	w.d.AwaitDataplane(w.d.KillDataplane())
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the outer connection goes on without a dataplane")
	}
	if err := echo(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the inner connection: %v", err)
	}
	if err := echo(connect(t, w.red, at)); err != nil {
		t.Error(err)
	}
}
