// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/pipe"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"sluice/dial"
	"sluice/trace"
)

// patience bounds every wait for what must come; it takes milliseconds, unless the machine
// is busy.
const patience = 30 * time.Second

// lab is a container, which is a stack, before a proxy whose outside is this process's
// loopback.
type lab struct {
	*testing.T
	container *stack.Stack
	proxy     *Proxy
	entrance  *entrance
	errno     unix.Errno               // of all dials, if not 0
	mute      bool                     // nobody answers dials
	broke     atomic.Bool              // what is owed is not paid
	reuse     atomic.Pointer[chan int] // gets sockets that can be connected again; nil: there are none
	// open makes sockets, if the world is not on the loopback.
	open func(*dial.Target) dial.Socket

	mu    sync.Mutex
	drops map[trace.Reason]int
}

func newStack(t *testing.T, link stack.LinkEndpoint) *stack.Stack {
	t.Helper()
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	if err := s.CreateNIC(1, link); err != nil {
		t.Fatal(err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}, {Destination: header.IPv6EmptySubnet, NIC: 1}})
	t.Cleanup(func() {
		for _, ep := range s.CleanupEndpoints() {
			ep.Abort()
		}
		s.Close()
		s.Wait()
	})
	return s
}

// newLab has small limits.
func newLab(t *testing.T) *lab {
	t.Helper()
	near, far := pipe.New("", "", 1500)
	l := &lab{T: t, container: newStack(t, near), drops: make(map[trace.Reason]int)}
	for _, a := range []string{"10.44.0.2", "fd44::2"} {
		addr := netip.MustParseAddr(a)
		proto := ipv4.ProtocolNumber
		if addr.Is6() {
			proto = ipv6.ProtocolNumber
		}
		if err := l.container.AddProtocolAddress(1, tcpip.ProtocolAddress{
			Protocol: proto, AddressWithPrefix: tcpip.AddrFromSlice(addr.AsSlice()).WithPrefix(),
		}, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	l.entrance = &entrance{LinkEndpoint: far, lab: l}
	up := newStack(t, l.entrance)
	if up.SetPromiscuousMode(1, true) != nil || up.SetSpoofing(1, true) != nil {
		t.Fatal("promiscuous, spoofing")
	}
	l.watch(up)
	return l
}

// watch makes the proxy, and does what a worker would.
func (l *lab) watch(up *stack.Stack) {
	l.Helper()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		l.Fatal(err)
	}
	woken := make(chan struct{}, 1)
	l.proxy = New(Config{
		Stack: up, NIC: 1, Device: 7, Dialer: l, Limits: Limits{ConnsPerPort: 8, DialsPerPort: 4, FlowsPerPort: 4},
		Drop: func(_ uint16, r trace.Reason) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.drops[r]++
		},
		Watch: func(_ uint16, fd int, key int32) error {
			return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: key})
		},
		Reuse: func(_ uint16, fd int, _ bool) bool {
			taken := l.reuse.Load()
			if taken == nil {
				return false
			}
			if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
				l.Error(err)
			}
			*taken <- fd
			return true
		},
		Wake: func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		},
	})
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		var events [16]unix.EpollEvent
		for {
			n, _ := unix.EpollWait(epoll, events[:], 1)
			for i := range n {
				l.proxy.Ready(events[i].Fd, events[i].Events)
			}
			select {
			case <-woken:
				l.proxy.Run()
			case <-done:
				return
			default:
			}
			if n == 0 && !l.broke.Load() {
				l.proxy.Pay()
			}
		}
	})
	l.Cleanup(func() {
		l.proxy.Close()
		close(done)
		wg.Wait()
		unix.Close(epoll)
	})
}

// Dial implements Dialer: the world is on the loopback.
func (l *lab) Dial(t dial.Target, done func(dial.Socket)) {
	switch {
	case l.mute:
	case l.errno != 0 && t.Proto != dial.TCP:
		done(dial.Socket{FD: -1, Errno: l.errno})
	case l.errno != 0:
		go done(dial.Socket{FD: -1, Errno: l.errno}) // the pipe's sender has locks
	case l.open != nil:
		go func() { done(l.open(&t)) }()
	default:
		a := netip.MustParseAddr("127.0.0.1")
		if t.To.Addr().Is6() {
			a = netip.MustParseAddr("::1")
		}
		t.To = netip.AddrPortFrom(a, t.To.Port())
		go func() { done(new(dial.Policy).Open(&t)) }()
	}
}

func (l *lab) dropped(r trace.Reason) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drops[r]
}

// eventually waits for what must come.
func (l *lab) eventually(what string, is func() bool) {
	l.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// full is an address of the world, or the container's.
func full(a string) tcpip.FullAddress {
	p := netip.MustParseAddrPort(a)
	return tcpip.FullAddress{Addr: tcpip.AddrFromSlice(p.Addr().AsSlice()), Port: p.Port()}
}
