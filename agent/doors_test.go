// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/dial"
	"sluice/uplink"
)

// doorway is a door at a port of the loopback, and what a dataplane gets by it.
type doorway struct {
	*testing.T
	doors *doors
	port  uplink.Port
	at    string
	got   chan *dial.Accepted
}

func newDoorway(t *testing.T, proto string) *doorway {
	t.Helper()
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	var log bytes.Buffer
	w := &doorway{
		T: t, doors: newDoors(testLog(&log)), got: make(chan *dial.Accepted, 8),
		port: uplink.Port{Proto: proto, Addr: netip.MustParseAddr("127.0.0.1")},
	}
	f, err := uplink.NewHost(own).Listen(w.port, func(int) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		sa, _ := unix.Getsockname(int(fd))
		w.at = addrPortOf(sa).String()
	})
	if err := w.doors.add(w.port, f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.doors.close)
	return w
}

// open lets the door lead to a container.
func (w *doorway) open() {
	w.doors.aim(map[uplink.Port]behind{w.port: {uplink: 7, member: 3, v4: netip.MustParseAddrPort("10.44.0.2:80")}})
}

// dataplane is one that takes what comes; it ends with the function.
func (w *doorway) dataplane() (end func()) {
	w.Helper()
	conn, theirs, err := dial.Pair()
	if err != nil {
		w.Fatal(err)
	}
	fd, err := unix.Dup(int(theirs.Fd()))
	if err != nil {
		w.Fatal(err)
	}
	theirs.Close()
	mine, err := dial.Conn(fd)
	if err != nil {
		w.Fatal(err)
	}
	c := &dial.Client{Accepted: func(a *dial.Accepted) { w.got <- a }}
	c.Attach(mine)
	s := dial.NewServer(conn, dial.Policy{May: func(*dial.Target) unix.Errno { return unix.EACCES }})
	s.Over = func(id uint64) { w.doors.over(s, id) }
	w.doors.use(s)
	go func() {
		_ = s.Serve()
		w.doors.lose(s)
	}()
	w.Cleanup(c.Close)
	return c.Close
}

func (w *doorway) dial(network string) net.Conn {
	w.Helper()
	c, err := net.Dial(network, w.at)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func (w *doorway) next() *dial.Accepted {
	w.Helper()
	select {
	case a := <-w.got:
		return a
	case <-time.After(patience):
		w.Fatal("nothing was passed on")
		return nil
	}
}

func (w *doorway) none(why string) {
	w.Helper()
	select {
	case a := <-w.got:
		w.Fatalf("%s: %+v was passed on", why, a)
	case <-time.After(50 * time.Millisecond):
	}
}

// TestDoor: who comes is passed on as soon as there is a dataplane and room, and reset if
// the door leads nowhere.
func TestDoor(t *testing.T) {
	w := newDoorway(t, "tcp")
	nowhere, err := net.Dial("tcp", w.at)
	if err == nil { // else it has heard already
		_, err = nowhere.Read(make([]byte, 1))
		nowhere.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a door that leads nowhere: %v", err)
	}
	w.open()
	c := w.dial("tcp")
	w.none("without a dataplane")
	end := w.dataplane()
	a := w.next()
	if a.Device != 7 || a.Member != 3 || a.To.String() != "10.44.0.2:80" || a.From.String() != c.LocalAddr().String() {
		t.Errorf("%+v", a)
	}

	w.doors.mu.Lock()
	w.doors.conns[3] = maxMemberConns
	w.doors.mu.Unlock()
	w.dial("tcp")
	w.none("with no room")
	a.Refuse()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refused: %v", err)
	}
	b := w.next()

	end()
	unix.Close(b.FD)
	w.Cleanup(w.dataplane())
	w.dial("tcp")
	w.next().Refuse()
	w.doors.mu.Lock()
	defer w.doors.mu.Unlock()
	if n := w.doors.conns[3]; n > 1 {
		t.Errorf("%d connections are left of another dataplane", n)
	}
}

// TestDoorOfDatagrams: each client has a flow, and gets the answers.
func TestDoorOfDatagrams(t *testing.T) {
	w := newDoorway(t, "udp")
	w.open()
	w.dataplane()
	c := w.dial("udp")
	if _, err := c.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	a := w.next()
	b := make([]byte, 64)
	n := -1 // the flow is passed on before what it begins with
	for end := time.Now().Add(patience); n < 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		n, _ = unix.Read(a.FD, b)
	}
	if a.Proto != dial.UDP || string(b[:max(n, 0)]) != "question" {
		t.Errorf("%+v: %q", a, b[:max(n, 0)])
	}
	for _, answer := range []string{"answer", "", "more"} {
		if _, err := unix.SendmsgN(a.FD, []byte(answer), nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); err != nil && !errors.Is(err, io.EOF) || string(b[:n]) != answer {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	if domain, err := unix.GetsockoptInt(a.FD, unix.SOL_SOCKET, unix.SO_DOMAIN); domain != unix.AF_UNIX || err != nil {
		t.Errorf("the dataplane has a socket of family %d, %v", domain, err)
	}
	unix.Close(a.FD) // it was idle
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		w.doors.mu.Lock()
		left := w.doors.allFlows
		w.doors.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d flows are left", left)
		}
	}
	_, _ = c.Write([]byte("again"))
	unix.Close(w.next().FD)
}
