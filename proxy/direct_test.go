// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// acks counts the bare acknowledgements that the stack sends.
func (l *lab) acks() *atomic.Int32 {
	var n atomic.Int32
	l.entrance.sent = make(chan []byte, 64)
	done := make(chan struct{})
	l.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case b := <-l.entrance.sent:
				if h := header.TCP(header.IPv4(b).Payload()); h.Flags() == header.TCPFlagAck && len(h) == int(h.DataOffset()) {
					n.Add(1)
				}
			case <-done:
				return
			}
		}
	}()
	return &n
}

// TestAnswerAcknowledges: the answer to a message acknowledges it. Without one it is
// acknowledged when what is owed is paid, and before that, when a second one comes.
func TestAnswerAcknowledges(t *testing.T) {
	fault := ""
	for range 20 {
		if fault = answers(t); fault == "" {
			return
		}
	}
	t.Error(fault)
}

// answers says what was wrong, if anything was. A busy machine can only add
// acknowledgements: the stack sends one by itself when somebody else has an endpoint's lock,
// and for what comes once more.
func answers(t *testing.T) (fault string) {
	t.Helper()
	l := newLab(t)
	acks := l.acks()
	l.broke.Store(true)
	answer := make(chan struct{})
	defer func() { l.broke.Store(false) }()
	port := l.server(func(c *net.TCPConn) {
		b := make([]byte, 16)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if <-answer; b[n-1] == '?' {
				_, _ = c.Write([]byte("yes"))
			}
		}
	})
	defer close(answer)
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("up?"))
	if !soon(l.proxy.Owes) {
		return "nothing is owed"
	}
	answer <- struct{}{}
	b := make([]byte, 3)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "yes" {
		t.Fatalf("%q, %v", b, err)
	}
	if n := acks.Load(); n != 0 {
		return fmt.Sprintf("%d acknowledgements besides the answer", n)
	}
	_, _ = c.Write([]byte("one."))
	if !soon(func() bool { return l.only().owes.Load() }) || acks.Load() != 0 {
		return fmt.Sprintf("%d acknowledgements before one is due", acks.Load())
	}
	_, _ = c.Write([]byte("two."))
	if !soon(func() bool { return acks.Load() == 1 }) {
		return fmt.Sprintf("%d acknowledgements of the second message", acks.Load())
	}
	l.broke.Store(false)
	_, _ = c.Write([]byte("three."))
	if !soon(func() bool { return acks.Load() >= 2 && !l.proxy.Owes() }) {
		return "what is owed is not paid"
	}
	return ""
}

// soon waits for what takes no time, unless the machine is busy.
func soon(is func() bool) bool {
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if is() {
			return true
		}
	}
	return is()
}

// TestServerSpeaksFirst: whoever is connected to hears of it soon, though its container says
// nothing; until then it does not. The kernel itself waits for 200 ms: a busy machine makes
// some of the answers late, but all are only if it is the kernel that sends the
// acknowledgement.
func TestServerSpeaksFirst(t *testing.T) {
	soonest := time.Hour
	for range 10 {
		if soonest = min(soonest, speaksFirst(t)); soonest < 150*time.Millisecond {
			return
		}
	}
	t.Errorf("the soonest took %v", soonest)
}

// speaksFirst is how long a server's first word takes.
func speaksFirst(t *testing.T) time.Duration {
	t.Helper()
	l := newLab(t)
	l.broke.Store(true)
	var calls atomic.Int32
	port := l.server(func(c *net.TCPConn) {
		calls.Add(1)
		_, _ = c.Write([]byte("hello"))
	})
	began := time.Now()
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	if n := calls.Load(); n != 0 && time.Since(began) < 100*time.Millisecond {
		t.Error("the last acknowledgement of the handshake was sent by itself")
	}
	l.broke.Store(false)
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	return time.Since(began)
}

// TestUnreadIsBounded: what the outside does not read counts against the receive buffer of
// its connection, and shuts the window.
func TestUnreadIsBounded(t *testing.T) {
	l := newLab(t)
	stop := make(chan struct{})
	defer close(stop)
	port := l.server(func(c *net.TCPConn) {
		_ = c.SetReadBuffer(1) // little is in the kernel then, and the stack's buffer fills soon
		<-stop
	})
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 64<<20))
		ended <- err
	}()
	ep := (*l.only().shown.Load()).(*tcp.Endpoint)
	buffer := func() int { return int(ep.SocketOptions().GetReceiveBufferSize()) }
	was, since := 0, time.Now()
	l.eventually("the buffer fills, and nothing moves any more", func() bool {
		if used := receiveMemUsed(ep); used != was || used < buffer()/2 {
			was, since = used, time.Now()
		}
		return time.Since(since) > 200*time.Millisecond
	})
	if used := receiveMemUsed(ep); used < buffer()/2 || used > buffer()+buffer()/8 {
		t.Errorf("%d bytes are accounted for, the buffer has %d", used, buffer())
	}
	c.Close()
	if err := <-ended; err == nil {
		t.Error("64 MB were taken")
	}
}

// TestNoRoomForASip: what was read and has no room in the stack is given to it later.
func TestNoRoomForASip(t *testing.T) {
	l := newLab(t)
	tiny := tcpip.TCPSendBufferSizeRangeOption{Min: 1, Default: 2048, Max: 2048}
	if l.proxy.Stack.SetTransportProtocolOption(tcp.ProtocolNumber, &tiny) != nil {
		t.Fatal("no small buffer")
	}
	port := l.server(func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)) })
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	s, data := l.only(), make([]byte, 20<<10)
	for i := range data {
		data[i] = byte(i >> 8)
	}
	l.eventually("it is connected", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ep == nil {
			return false
		}
		s.rest = s.push(data)
		return true
	})
	s.mu.Lock()
	if len(s.rest) == 0 {
		t.Error("all of it had room")
	}
	s.readable = true
	s.mu.Unlock()
	got := make([]byte, len(data))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", n, len(data), err)
	}
}

// TestUrgent: a read stops at urgent data, which is not the end of what there is.
func TestUrgent(t *testing.T) {
	l := newLab(t)
	port := l.server(func(c *net.TCPConn) {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Error(err)
			return
		}
		_ = raw.Control(func(fd uintptr) {
			for _, flags := range []int{0, unix.MSG_OOB, 0} {
				_ = unix.Send(int(fd), []byte("ab"), flags)
			}
		})
		_, _ = c.Read(make([]byte, 1))
	})
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "abaab" { // the last of the urgent bytes is apart
		t.Errorf("%q, %v", b, err)
	}
}

// TestEndOfWhatWaits: what a server sends and ends at once comes whole, though some of it has
// no room in the stack yet, or lies behind urgent data.
func TestEndOfWhatWaits(t *testing.T) {
	l := newLab(t)
	tiny := tcpip.TCPSendBufferSizeRangeOption{Min: 1, Default: 2048, Max: 2048}
	if l.proxy.Stack.SetTransportProtocolOption(tcp.ProtocolNumber, &tiny) != nil {
		t.Fatal("no small buffer")
	}
	much := bytes.Repeat([]byte("0123456"), little/7)
	for want, send := range map[string]func(fd int){
		string(much): func(fd int) { _, _ = unix.Write(fd, much) },
		"abaab": func(fd int) {
			for _, flags := range []int{0, unix.MSG_OOB, 0} {
				_ = unix.Send(fd, []byte("ab"), flags)
			}
		},
	} {
		port := l.server(func(c *net.TCPConn) {
			raw, err := c.SyscallConn()
			if err != nil {
				t.Error(err)
				return
			}
			_ = raw.Control(func(fd uintptr) { send(int(fd)) })
			c.Close()
		})
		for range 20 {
			c, err := l.dial(port)
			if err != nil {
				t.Fatal(err)
			}
			reads(t, c, want)
			c.Close()
			l.eventually("nothing is left", func() bool {
				l.proxy.expire()
				return len(l.proxy.Entries()) == 0
			})
		}
	}
}

// TestKept: the host looks after a connection that lasts.
func TestKept(t *testing.T) {
	l := newLab(t)
	port := l.server(func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)) })
	c, err := l.dial(port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := l.only()
	l.eventually("it is connected", func() bool {
		return (*s.shown.Load()).State() == uint32(tcp.StateEstablished) && s.shaking.Load() == nil
	})
	kept := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		v, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if kept() != 0 {
		t.Error("at once")
	}
	l.proxy.Tick(2)
	if kept() != 1 {
		t.Error("not after two seconds")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); err != nil || v != 15 {
		t.Errorf("after %d s, %v", v, err)
	}
}
