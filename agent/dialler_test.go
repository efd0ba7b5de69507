// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/dial"
	"sluice/fence"
	"sluice/netstack"
)

// host is a network namespace with an agent's dialler, and one who listens everywhere.
type host struct {
	dialler
	port   uint16
	polled dial.Polled // of one who refuses himself nothing
}

// newHost makes it. A thread serves until the test ends.
func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	h := &host{polled: dial.Polled{Connects: true}}
	h.fence = fence.Local()
	if err := h.fence.Load(); err != nil {
		t.Fatal(err)
	}
	h.allow(&netstack.Snapshot{Namespaces: []netstack.NamespaceSpec{{Sockets: []netstack.SocketSpec{{Index: 7}}}}})
	counter, theirs, err := dial.NewCounter(h.policy())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	fd, err := unix.Dup(int(theirs.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread, and the namespace, end with the goroutine
		l, err := h.listen()
		ready <- err
		if err == nil {
			defer l.Close()
		}
		ended <- counter.Serve()
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	h.polled.Attach(fd)
	t.Cleanup(func() { h.polled.Close(); <-ended })
	return h
}

func (h *host) listen() (net.Listener, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	if err := errors.Join(exec.Command("ip", "link", "set", "lo", "up").Run(),
		exec.Command("ip", "addr", "add", "192.0.2.1/32", "dev", "lo").Run()); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err == nil {
		h.port = netip.MustParseAddrPort(l.Addr().String()).Port()
	}
	return l, err
}

// dial is what becomes of a connection in so long: 0, an error, or ETIMEDOUT.
func (h *host) dial(t *testing.T, device uint16, to string, long time.Duration) unix.Errno {
	t.Helper()
	got := make(chan dial.Socket, 1)
	if !h.polled.Dial(dial.Target{Device: device, Proto: dial.TCP, To: netip.AddrPortFrom(netip.MustParseAddr(to), h.port)}, func(s dial.Socket) { got <- s }) {
		t.Fatal("not asked")
	}
	var s dial.Socket
	for wait := true; wait; time.Sleep(time.Millisecond) {
		h.polled.Ready() // a stock too, if there is one
		select {
		case s = <-got:
			wait = false
		default:
		}
	}
	if s.FD < 0 {
		return s.Errno
	}
	defer unix.Close(s.FD)
	p := []unix.PollFd{{Fd: int32(s.FD), Events: unix.POLLOUT}}
	for end := time.Now().Add(long); ; { // a signal ends a call as well
		if n, _ := unix.Poll(p, 10); n == 1 {
			return 0
		}
		if time.Now().After(end) {
			return unix.ETIMEDOUT
		}
	}
}

// TestDiallerBelievesNothing: who has a stock of sockets reaches by it what he would be
// dialled, and no more.
func TestDiallerBelievesNothing(t *testing.T) {
	h := newHost(t)
	if errno := h.dial(t, 7, "127.0.0.1", patience); errno != unix.EACCES {
		t.Errorf("the loopback: %v", errno)
	}
	if errno := h.dial(t, 8, "192.0.2.1", patience); errno != unix.EACCES {
		t.Errorf("for no uplink: %v", errno)
	}
	for h.dial(t, 7, "192.0.2.1", patience) == 0 && !h.stocked(t) {
	}
	for to, want := range map[string]unix.Errno{"127.0.0.1": unix.ETIMEDOUT, "192.0.2.1": 0, "0.0.0.0": unix.ETIMEDOUT} {
		long := patience
		if want != 0 {
			long = 50 * time.Millisecond
		}
		if errno := h.dial(t, 7, to, long); errno != want {
			t.Errorf("%s by a socket of the stock: %v, not %v", to, errno, want)
		}
	}
}

// stocked reports whether there are sockets by now: a dial is answered at once then.
func (h *host) stocked(t *testing.T) bool {
	t.Helper()
	at := false
	dialling := true
	h.polled.Dial(dial.Target{Device: 7, Proto: dial.TCP, To: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), h.port)}, func(s dial.Socket) {
		at = dialling
		_ = unix.Close(s.FD)
	})
	dialling = false
	return at
}
