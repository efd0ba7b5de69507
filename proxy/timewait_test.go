// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// waiting is the number of connections in TIME-WAIT.
func (l *lab) waiting() int {
	l.proxy.waits.mu.Lock()
	defer l.proxy.waits.mu.Unlock()
	return len(l.proxy.waits.byID)
}

// passing has the outside end a connection first, from a port of the container.
func (l *lab) passing(from, port string) {
	l.Helper()
	before := l.entrance.opens.Load()
	c, err := gonet.DialTCPWithBind(l.Context(), l.container, full(from), full("192.0.2.2:"+port), ipv4.ProtocolNumber)
	if err != nil {
		l.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if n := l.entrance.opens.Load() - before; n != 1 {
		l.Errorf("the SYN was sent %d times", n)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
		l.Errorf("%q, %v", b, err)
	}
	c.Close()
	l.eventually("it is in TIME-WAIT", func() bool { return l.waiting() > 0 && len(l.proxy.Entries()) == 0 })
}

// TestPortAgain: a container may use the ports of a connection again as soon as it has
// closed it.
func TestPortAgain(t *testing.T) {
	l := newLab(t)
	port := l.server(func(c *net.TCPConn) { c.Close() })
	for range 3 {
		l.passing("10.44.0.2:4000", port)
	}
	if n := l.waiting(); n != 1 {
		t.Errorf("%d wait", n)
	}
}

// TestTimeWaitEnds: by the tick, or with the connections that come.
func TestTimeWaitEnds(t *testing.T) {
	l := newLab(t)
	port := l.server(func(c *net.TCPConn) { c.Close() })
	l.passing("10.44.0.2:4000", port)
	l.proxy.Tick(timeWaitTicks)
	if n := l.waiting(); n != 1 {
		t.Fatalf("%d wait before the time is over", n)
	}
	l.proxy.now.Store(timeWaitTicks + 1)
	l.passing("10.44.0.2:4001", port)
	if n := l.waiting(); n != 1 {
		t.Errorf("%d wait: the older one was not ended by the younger", n)
	}
	l.proxy.Tick(2*timeWaitTicks + 3)
	if n := l.waiting(); n != 0 {
		t.Errorf("%d wait for ever", n)
	}
	if n := l.proxy.Stack.Stats().TCP.CurrentConnected.Value(); n != 0 {
		t.Errorf("%d endpoints are left", n)
	}
}

// TestTimeWaitsBounded: of too many the oldest go.
func TestTimeWaitsBounded(t *testing.T) {
	var w timeWaits
	w.mu.Lock()
	w.queue = make([]timeWait, enoughWaits+1)
	w.mu.Unlock()
	if _, ok := w.next(0, 0); !ok {
		t.Error("one too many stays")
	}
	if _, ok := w.next(0, 0); ok {
		t.Error("one of enough goes")
	}
}
