// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"sluice/bridge"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
	"sluice/veth/vethtest"
)

// isOpen reports whether the process has this fd.
func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func TestRemovedPortIsGone(t *testing.T) {
	l := stillLab(t, blue(3))
	guest := pt.HW("02:00:00:00:09:09")
	l.send(3, pt.UDP4(pt.Packet{SrcMAC: guest, DstMAC: mac(1)}))
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: guest}))
	fd := l.n.view.Load().socket(3).fd
	l.wires[3].Inject(packet.Vnet{}, datagram(3, 1, "too late"))

	l.snap.Namespaces[0].Networks[0].Ports = l.snap.Namespaces[0].Networks[0].Ports[:2]
	l.apply()
	if isOpen(fd) {
		t.Error("its fd is open")
	}
	for _, e := range l.n.Namespace("blue").FDB("blue") {
		if e.Port == 3 {
			t.Errorf("the FDB has %v", e)
		}
	}
	for _, e := range l.n.Namespace("blue").Neighbours("blue") {
		if e.MAC == mac(3) {
			t.Errorf("the host stack has the neighbour %v", e)
		}
	}
	for l.got(1) != nil {
	}
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: guest, Payload: []byte("unknown now")}))
	pt.Check(t, l.got(2), pt.Data("unknown now"))
	l.silent(1, 2)
}

func TestPortKeepsFDAndStationsOverApply(t *testing.T) {
	l := stillLab(t, blue(2))
	guest := pt.HW("02:00:00:00:09:09")
	l.send(2, pt.UDP4(pt.Packet{SrcMAC: guest, DstMAC: mac(1)}))
	before := l.n.view.Load().socket(1)
	fdb := l.n.Namespace("blue").FDB("blue")
	l.wires[2].Inject(packet.Vnet{}, datagram(2, 1, "waits meanwhile"))

	l.snap.Namespaces[0].Networks[0].Ports = append(l.snap.Namespaces[0].Networks[0].Ports, container(3))
	l.apply()
	if after := l.n.view.Load().socket(1); after != before {
		t.Error("another socket")
	}
	own := bridge.Entry{MAC: mac(3), Port: 3, Kind: bridge.Static}
	byMAC := cmpopts.SortSlices(func(a, b bridge.Entry) bool { return a.MAC.Key() < b.MAC.Key() })
	if diff := cmp.Diff(append(fdb, own), l.n.Namespace("blue").FDB("blue"), byMAC); diff != "" {
		t.Errorf("FDB (-want +got):\n%s", diff)
	}
	l.got(1)
	l.round()
	pt.Check(t, l.got(1), pt.Data("waits meanwhile"))
	if got := l.n.Generation(); got != 2 {
		t.Errorf("generation %d, want 2", got)
	}
}

func TestChangedPortChangesAtOnce(t *testing.T) {
	l := stillLab(t, blue(2))
	l.send(1, whole(1, 2, 1400))
	l.got(2)
	l.snap.Namespaces[0].Networks[0].Ports[1].MTU = 1000
	l.apply()
	l.send(1, whole(1, 2, 1400)) // was a hit, and would be too long
	l.silent(2)
	pt.Check(t, l.got(1), pt.ICMP(pt.ICMPType(3, 4)))
	if got := l.drops(1, trace.TooBig); got != 1 {
		t.Errorf("%d frames too big, want 1", got)
	}
	l.snap.Namespaces[0].Networks[0].Ports[1].MAC = mac(7)
	l.apply()
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: mac(7)}))
	pt.Check(t, l.got(2), pt.EtherDst(mac(7)))
}

func TestNewFDReplacesTheOldOne(t *testing.T) {
	l := stillLab(t, blue(2))
	old := l.n.view.Load().socket(2).fd
	delete(l.wires, 2)
	l.apply()
	if isOpen(old) {
		t.Error("the old fd is open")
	}
	l.send(1, datagram(1, 2, "by the new one"))
	pt.Check(t, l.got(2), pt.Data("by the new one"))
}

func TestFailedApplyChangesNothing(t *testing.T) {
	_, near := socketPairs(t, 9)
	file, err := unix.MemfdCreate("no socket", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	with := func(f func(*Snapshot)) Snapshot {
		s := Snapshot{Generation: 99, Namespaces: []NamespaceSpec{alone(blue(2))}}
		f(&s)
		return s
	}
	four := func(s *Snapshot) { s.Namespaces = []NamespaceSpec{alone(blue(4))} }
	for name, tc := range map[string]struct {
		snap    Snapshot
		fds     map[uint16]int
		invalid bool
	}{
		"new port without an fd":     {with(four), map[uint16]int{3: near[3]}, false},
		"fd for a port that is none": {with(four), map[uint16]int{3: near[3], 4: near[4], 5: near[5]}, false},
		"fd that cannot be polled":   {with(four), map[uint16]int{3: near[3], 4: file}, false},
		"fd that is closed":          {with(four), map[uint16]int{3: near[3], 4: 9999}, false},
		"one fd for two ports":       {with(four), map[uint16]int{3: near[3], 4: near[3]}, false},
		"snapshot that is wrong":     {with(func(s *Snapshot) { s.Namespaces[0].Networks[0].Bridge.MTU = 1 }), nil, true},
		"service that cannot start": {with(func(s *Snapshot) {
			s.Namespaces[0].Networks[0].Addresses = append(s.Namespaces[0].Networks[0].Addresses, netip.MustParsePrefix("10.45.0.1/24"))
			s.Namespaces[0].Networks[0].Echo = true
			s.Namespaces = append(s.Namespaces, alone(NetworkSpec{Name: "new", Bridge: BridgeSpec{Index: 200, MAC: gatewayMAC(), MTU: 1500}}))
		}), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := stillLab(t, blue(2))
			busy, err := l.n.Namespace("blue").Listen("tcp", "10.44.0.1:7")
			if err != nil {
				t.Fatal(err)
			}
			defer busy.Close()
			view, sockets := l.n.view.Load(), l.n.Namespace("blue").Sockets()
			addrs := len(view.spaces["blue"].ns.host.stack.AllAddresses()[1])

			err = l.n.Apply(&tc.snap, tc.fds)
			if err == nil || errors.Is(err, ErrInvalid) != tc.invalid {
				t.Fatalf("got error %v, invalid: want %v", err, tc.invalid)
			}
			if l.n.view.Load() != view || l.n.Generation() == 99 {
				t.Error("another view")
			}
			if diff := cmp.Diff(sockets, l.n.Namespace("blue").Sockets(), cmp.Comparer(sameAddrPort)); diff != "" {
				t.Errorf("sockets (-before +after):\n%s", diff)
			}
			if got := len(view.spaces["blue"].ns.host.stack.AllAddresses()[1]); got != addrs {
				t.Errorf("%d addresses, had %d", got, addrs)
			}
			for index, fd := range tc.fds {
				if fd != 9999 && !isOpen(fd) {
					t.Errorf("fd of port %d was taken", index)
				}
			}
			l.send(1, datagram(1, 2, "as before"))
			pt.Check(t, l.got(2), pt.Data("as before"))
		})
	}
}

func sameAddrPort(a, b netip.AddrPort) bool { return a == b }

func TestRemovedNamespaceIsGone(t *testing.T) {
	l := newLab(t, Options{Workers: 2}, blue(2))
	ns := l.n.Namespace("blue")
	ln, err := ns.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error)
	go func() {
		_, err := ln.Accept()
		accepted <- err
	}()
	l.snap.Namespaces = nil
	l.apply()
	if err := <-accepted; err == nil {
		t.Error("Accept goes on")
	}
	if l.n.Namespace("blue") != nil || ns.FDB("blue") != nil || ns.Sockets() != nil || ns.Neighbours("blue") != nil || ns.Addresses("blue") != nil {
		t.Error("the namespace still answers")
	}
	if _, err := ns.Listen("tcp", ":81"); !errors.Is(err, ErrClosed) {
		t.Errorf("Listen gives %v, want %v", err, ErrClosed)
	}
}

// TestApplyUnderTraffic changes everything around two containers that talk all
// the time: none of their frames may be lost. A third one's MAC wanders from
// port to port with each snapshot; a frame to it must go to one of the two, and
// never to nobody, to both, or be dropped, as a mixture of snapshots would do.
func TestApplyUnderTraffic(t *testing.T) {
	const rounds = 60
	first := blue(4)
	first.Ports[2].MAC = mac(50)
	l := newLab(t, Options{Workers: 2}, first)
	var sent, wandering atomic.Int64
	start := make(chan struct{})
	var wg sync.WaitGroup
	wire := l.wires[1]
	wg.Go(func() { talk(wire, start, &sent, &wandering) })
	for i := range rounds {
		start <- struct{}{} // frames are on their way now
		s := blue(4)
		s.Ports[2].MAC, s.Ports[3].MAC = mac(50+i%2), mac(51-i%2)
		if i%3 == 0 {
			s.Ports = append(s.Ports, container(5))
		} else {
			delete(l.wires, 5)
		}
		s.Bridge.MTU = 1500 + i%2
		l.snap.Namespaces = []NamespaceSpec{alone(s)}
		l.apply()
	}
	close(start)
	wg.Wait()
	eventually(t, "all frames are counted", func() bool {
		return l.stats(1).RxPackets == uint64(sent.Load()+wandering.Load())
	})
	got := map[uint16]int64{}
	eventually(t, "all frames arrive", func() bool {
		for _, at := range []uint16{2, 3, 4} {
			for l.got(at) != nil {
				got[at]++
			}
		}
		return got[2] >= sent.Load() && got[3]+got[4] >= wandering.Load()
	})
	if got[2] != sent.Load() || got[3]+got[4] != wandering.Load() {
		t.Errorf("arrived %v, want %d at 2 and %d at 3 and 4", got, sent.Load(), wandering.Load())
	}
	if d := l.stats(1).Drops; d != nil {
		t.Errorf("drops %v", d)
	}
}

// talk sends from container 1 to container 2, and to the MAC that wanders, a few
// frames for each start: as many as the wires hold in all.
func talk(wire *vethtest.Wire, start chan struct{}, sent, wandering *atomic.Int64) {
	for range start {
		for range 50 {
			wire.Inject(packet.Vnet{}, datagram(1, 2, "x"))
			sent.Add(1)
			wire.Inject(packet.Vnet{}, datagram(1, 50, "y"))
			wandering.Add(1)
		}
	}
}

func TestPortDownIsReportedAndDoesNotSpin(t *testing.T) {
	down := make(chan uint16, 10)
	l := newLab(t, Options{Workers: 1, PortDown: func(i uint16) { down <- i }}, blue(2))
	l.wires[2].Close()
	if got := <-down; got != 2 {
		t.Fatalf("port %d reported, want 2", got)
	}
	rounds := func() uint64 { return l.n.WorkerStats()[0].Rounds }
	before := rounds()
	for i := range 10 {
		l.wires[1].Inject(packet.Vnet{}, datagram(1, 2, "nobody hears it"))
		eventually(t, "the frame is counted", func() bool { return l.drops(2, trace.TxDown) == uint64(i+1) })
	}
	if got := rounds() - before; got > 100 {
		t.Errorf("%d rounds for 10 frames: the worker spins", got)
	}
}

// TestFrameThatTheKernelRefusesIsNoFault of the port. A stream socket without a peer
// answers as a port does for such a frame.
func TestFrameThatTheKernelRefusesIsNoFault(t *testing.T) {
	n, err := build(Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Apply(&Snapshot{Namespaces: []NamespaceSpec{alone(blue(1))}}, map[uint16]int{1: fd}); err != nil {
		t.Fatal(err)
	}
	w := n.workers[0]
	for range 2 * maxStrikes {
		if events := w.poll.now(); events != 1 || w.poll.events[0].Events&unix.EPOLLHUP == 0 {
			t.Fatalf("%d events", events)
		}
		w.round(1)
	}
	s := n.view.Load().port(1).sock
	n.down.mu.Lock()
	defer n.down.mu.Unlock()
	if s.strikes != 0 || len(n.down.set) != 0 || w.snapshot().RxErrors != 0 {
		t.Errorf("%d strikes, reported %v, %d errors", s.strikes, n.down.set, w.snapshot().RxErrors)
	}
	if n.opts.Counters.Port(1).Snapshot().Drops["bad_offload"] == 0 {
		t.Error("not counted")
	}
}

// TestCloseWhilePortDownApplies: neither waits for the other for ever.
func TestCloseWhilePortDownApplies(t *testing.T) {
	entered, proceed, applied := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var l *lab
	l = newLab(t, Options{Workers: 1, PortDown: func(uint16) {
		close(entered)
		<-proceed
		applied <- l.n.Apply(&l.snap, nil)
	}}, blue(2))
	l.wires[2].Close()
	<-entered
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		l.n.Close()
	}()
	<-l.n.done // Close has begun
	close(proceed)
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close does not return")
	}
	if err := <-applied; !errors.Is(err, ErrClosed) {
		t.Errorf("Apply gives %v, want %v", err, ErrClosed)
	}
}

// TestBusyPollEndsInSleep, and carries frames meanwhile.
func TestBusyPollEndsInSleep(t *testing.T) {
	l := newLab(t, Options{Workers: 1, BusyPoll: 2 * time.Millisecond}, blue(2))
	for range 20 {
		l.wires[1].Inject(packet.Vnet{}, datagram(1, 2, "x"))
		if l.await(2, patience) == nil {
			t.Fatal("lost")
		}
	}
	eventually(t, "the worker sleeps", l.n.workers[0].mail.sleeping.Load)
}

func TestCloseClosesAndIsFinal(t *testing.T) {
	l := newLab(t, Options{}, blue(2))
	fds := []int{l.n.view.Load().socket(1).fd, l.n.view.Load().socket(2).fd}
	l.n.Close()
	if slices.ContainsFunc(fds, isOpen) {
		t.Error("a port's fd is open")
	}
	if err := l.n.Apply(&l.snap, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Apply gives %v, want %v", err, ErrClosed)
	}
	l.n.Close()
}

// TestSwapIsShort: workers stand still for the moment of the swap only, however
// many containers there are.
func TestSwapIsShort(t *testing.T) {
	const ports, limit = 1000, time.Millisecond
	n, err := build(Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	_, near := socketPairs(t, ports)
	s := manyPorts(ports)
	s.Bridge.Index = 1
	fds := make(map[uint16]int)
	for i := range s.Ports {
		s.Ports[i].Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 44, byte(1 + i>>8), byte(i)})}
		fds[s.Ports[i].Index] = near[uint16(i+1)]
	}
	snap := Snapshot{Namespaces: []NamespaceSpec{alone(s)}}
	if err := n.Apply(&snap, fds); err != nil {
		t.Fatal(err)
	}
	best := time.Hour
	for i := range 5 {
		s.Ports[0].MTU = 1400 + i
		s.Ports[1].MAC[0] ^= 4 // another station, with a static entry to change
		n.mu.Lock()
		c := &change{net: n, old: n.view.Load(), fresh: make(map[uint16]*socket)}
		if err := c.prepare(&snap, nil); err != nil {
			t.Fatal(err)
		}
		c.leave()
		start := time.Now()
		c.swap()
		best = min(best, time.Since(start))
		c.retire()
		n.mu.Unlock()
	}
	t.Logf("the swap took %v", best)
	if best > limit && !raceEnabled {
		t.Errorf("workers stood still for %v, want less than %v", best, limit)
	}
}
