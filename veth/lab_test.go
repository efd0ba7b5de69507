// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// patience bounds every wait of these tests.
const patience = 30 * time.Second

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: makes network namespaces")
	}
}

// container is a namespace with one pair.
//
//	ns: eth0 <== veth ==> host: slt-N
type container struct {
	ns   netns.NsHandle
	cfg  veth.PairConfig
	ip4  netip.Addr
	ip6  netip.Addr
	port *os.File
}

// mac is the n-th container's address.
func mac(n int) packet.MAC { return packet.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// config is the n-th container's configuration.
func config(host, ns netns.NsHandle, n int) veth.PairConfig {
	return veth.PairConfig{
		HostName: fmt.Sprintf("slt-%d", n), HostNS: host, Name: "eth0", NS: ns,
		MAC: mac(n), MTU: 1500, Alias: fmt.Sprintf("sluice:%d", n),
		Addresses: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.9.0.%d/24", n)),
			netip.MustParsePrefix(fmt.Sprintf("fd09::%d/64", n)),
		},
	}
}

// attach makes the n-th container on a host namespace, with its port open.
func attach(tb testing.TB, host netns.NsHandle, n int, change func(*veth.PairConfig)) *container {
	tb.Helper()
	ns := kt.NewNS(tb)
	cfg := config(host, ns, n)
	if change != nil {
		change(&cfg)
	}
	if err := veth.CreatePair(cfg); err != nil {
		tb.Fatalf("CreatePair: %v", err)
	}
	tb.Cleanup(func() {
		if err := veth.DeletePairs(host, cfg.HostName); err != nil {
			tb.Errorf("DeletePairs: %v", err)
		}
	})
	c := &container{ns: ns, cfg: cfg, port: openPort(tb, host, cfg.HostName)}
	for _, a := range cfg.Addresses {
		if a.Addr().Is4() {
			c.ip4 = a.Addr()
		} else {
			c.ip6 = a.Addr()
		}
	}
	return c
}

func openPort(tb testing.TB, host netns.NsHandle, name string) *os.File {
	tb.Helper()
	f, err := veth.OpenSocket(host, name, veth.SocketOptions{})
	if err != nil {
		tb.Fatalf("OpenSocket: %v", err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}

func (c *container) fd() int { return int(c.port.Fd()) }

// rawSocket is what a process in the container has with CAP_NET_RAW.
func (c *container) rawSocket(tb testing.TB) *os.File {
	tb.Helper()
	f, err := veth.OpenSocket(c.ns, c.cfg.Name, veth.SocketOptions{})
	if err != nil {
		tb.Fatalf("OpenSocket in the container: %v", err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}

func newBatch(tb testing.TB, n int) *veth.Batch {
	tb.Helper()
	b, err := veth.NewBatch(n)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Close() })
	return b
}

func newSender(tb testing.TB, n int) *veth.Sender {
	tb.Helper()
	s, err := veth.NewSender(n)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// frameOf is a frame with a buffer of its own.
func frameOf(vnet packet.Vnet, b []byte) *packet.Frame {
	f := new(packet.Frame)
	f.SetBuf(make([]byte, packet.BufLen))
	f.Reset(packet.Headroom, len(b))
	copy(f.Bytes(), b)
	f.Vnet = vnet
	return f
}

// sendOne sends a frame by a port and returns what became of it.
func sendOne(tb testing.TB, fd int, f *packet.Frame) veth.SendResult {
	tb.Helper()
	s := newSender(tb, 1)
	if !s.Append(f) {
		tb.Fatal("Append refused the frame")
	}
	var res veth.SendResult
	s.Flush(fd, &res)
	return res
}

// waitFor polls an fd until it can be read; false after the patience is over.
func waitFor(fd int, d time.Duration) bool {
	deadline := time.Now().Add(d)
	for time.Now().Before(deadline) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(time.Until(deadline).Milliseconds())+1); err == nil && n > 0 {
			return true
		}
	}
	return false
}

// awaitFrame receives until a frame satisfies want, and leaves it in b.
func awaitFrame(tb testing.TB, fd int, b *veth.Batch, want func(*packet.Frame) bool) *packet.Frame {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		n, errno := b.Recv(fd, 1)
		if errno != 0 {
			tb.Fatalf("Recv: %v", errno)
		}
		if n == 1 && want(&b.Frames[0]) {
			return &b.Frames[0]
		}
		if n == 0 {
			waitFor(fd, time.Until(deadline))
		}
	}
	tb.Fatal("the frame did not come")
	return nil
}

// hub forwards everything between two ports, as the smallest data plane does.
type hub struct {
	largest   atomic.Int64 // bytes of the largest frame that passed
	gso       atomic.Int64 // frames with segmentation metadata
	lost      atomic.Int64
	bad       atomic.Int64 // frames whose metadata contradicts their bytes
	refused   atomic.Int64
	truncated atomic.Int64
}

// startHub runs a hub until the test ends.
func startHub(tb testing.TB, a, b int) *hub {
	tb.Helper()
	h := new(hub)
	stop, done := make(chan struct{}), make(chan struct{})
	batch, sender := newBatch(tb, 32), newSender(tb, 32)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if h.turn(batch, sender, a, b)+h.turn(batch, sender, b, a) == 0 {
				p := []unix.PollFd{{Fd: int32(a), Events: unix.POLLIN}, {Fd: int32(b), Events: unix.POLLIN}}
				_, _ = unix.Poll(p, 20)
			}
		}
	}()
	tb.Cleanup(func() { close(stop); <-done })
	return h
}

// turn moves one batch from a port to another.
func (h *hub) turn(b *veth.Batch, s *veth.Sender, from, to int) int {
	n, _ := b.Recv(from, len(b.Frames))
	h.refused.Add(int64(b.Refused))
	h.truncated.Add(int64(b.Truncated))
	for i := range n {
		f := &b.Frames[i]
		if f.Len() == 0 {
			continue
		}
		h.largest.Store(max(h.largest.Load(), int64(f.Len())))
		if f.Vnet.IsGSO() {
			h.gso.Add(1)
		}
		if f.View.Parse(f.Bytes()) != packet.FaultNone || !f.CheckVnet() {
			h.bad.Add(1)
			continue
		}
		s.Append(f)
	}
	var res veth.SendResult
	s.Flush(to, &res)
	h.lost.Add(int64(res.Lost))
	return n
}

// listen and dial open sockets of a namespace; the connections work anywhere.
func listen(tb testing.TB, ns netns.NsHandle, addr netip.AddrPort) net.Listener {
	tb.Helper()
	var l net.Listener
	err := veth.Do(ns, func() (err error) {
		l, err = net.Listen("tcp", addr.String())
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

func dial(tb testing.TB, ns netns.NsHandle, addr netip.AddrPort) net.Conn {
	tb.Helper()
	var c net.Conn
	err := veth.Do(ns, func() (err error) {
		c, err = net.DialTimeout("tcp", addr.String(), patience)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}
