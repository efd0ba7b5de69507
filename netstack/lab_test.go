// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"net/netip"
	"testing"
	"time"

	"sluice/packet"
	"sluice/packet/packettest"
	"sluice/trace"
	"sluice/veth/vethtest"
)

// The laboratory of these tests: one Netstack whose ports are socket pairs.
//
//	container 1 ── wire ── port 1 ┐
//	container 2 ── wire ── port 2 ┼ bridge "blue" ── port 100 ── host stack
//	container 3 ── wire ── port 3 ┘                  10.44.0.1/24 fd44::1/64
//
// Container i has the address 10.44.0.(10+i), fd44::(10+i) and the MAC that mac
// gives. A still laboratory's workers do not run: rounds do their work, one
// after the other, so that a test sees what happens in which order.

const (
	hostPort = 100
	// patience bounds every wait of a test for something that must happen.
	patience = 30 * time.Second
)

func gatewayMAC() packet.MAC { return packettest.HW("02:00:00:00:00:01") }

func mac(i int) packet.MAC { return packet.MAC{2, 0, 0, 0, 1, byte(i)} }

func addr4(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 44, 0, byte(10 + i)}) }

func addr6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x44, 15: byte(10 + i)})
}

func gateway4() netip.Addr { return packettest.IP("10.44.0.1") }
func gateway6() netip.Addr { return packettest.IP("fd44::1") }

type lab struct {
	t     testing.TB
	n     *Netstack
	snap  Snapshot
	wires map[uint16]*vethtest.Wire
}

// alone is a namespace of one network, with its name.
func alone(s NetworkSpec) NamespaceSpec {
	return NamespaceSpec{Name: s.Name, Networks: []NetworkSpec{s}}
}

// blue is the network of most tests, with so many containers.
func blue(containers int) NetworkSpec {
	s := NetworkSpec{
		Name:      "blue",
		Bridge:    BridgeSpec{Index: hostPort, MAC: gatewayMAC(), MTU: 1500},
		Addresses: []netip.Prefix{netip.PrefixFrom(gateway4(), 24), netip.PrefixFrom(gateway6(), 64)},
	}
	for i := 1; i <= containers; i++ {
		s.Ports = append(s.Ports, container(i))
	}
	return s
}

func container(i int) PortSpec {
	return PortSpec{
		Index: uint16(i), Name: "c", MAC: mac(i), MTU: 1500, Offload: true,
		Addresses: []netip.Addr{addr4(i), addr6(i)},
	}
}

// newLab makes a laboratory of the networks given, each in a namespace of its own, and starts it.
func newLab(t testing.TB, o Options, networks ...NetworkSpec) *lab {
	t.Helper()
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, n, networks)
}

// stillLab is newLab with one worker that does not run, see round.
func stillLab(t testing.TB, networks ...NetworkSpec) *lab {
	t.Helper()
	n, err := build(Options{Workers: 1, FlowEntries: 64})
	if err != nil {
		t.Fatal(err)
	}
	return open(t, n, networks)
}

func open(t testing.TB, n *Netstack, networks []NetworkSpec) *lab {
	t.Helper()
	l := &lab{t: t, n: n, wires: make(map[uint16]*vethtest.Wire)}
	t.Cleanup(n.Close)
	for _, s := range networks {
		l.snap.Namespaces = append(l.snap.Namespaces, alone(s))
	}
	l.apply()
	return l
}

// apply applies l.snap, with wires for the ports that have none yet.
func (l *lab) apply() {
	l.t.Helper()
	fds := make(map[uint16]int)
	for p := range l.snap.Ports() {
		if l.wires[p.Index] == nil {
			l.wires[p.Index] = vethtest.New(l.t)
			fds[p.Index] = l.wires[p.Index].TakeFD()
		}
	}
	l.snap.Generation++
	if err := l.n.Apply(&l.snap, fds); err != nil {
		l.t.Fatal(err)
	}
}

// round does rounds of the still worker until there is nothing left to do.
func (l *lab) round() { l.n.workers[0].settle() }

// settle does rounds of a still worker until there is nothing left to do.
func (w *worker) settle() {
	for {
		n := w.poll.now()
		if n == 0 && w.mail.quiet() && w.due > int64(w.net.since(w.net.start)) {
			return
		}
		w.round(n)
	}
}

// send lets a container send a frame, and the still worker deal with it.
func (l *lab) send(from uint16, frame []byte) {
	l.t.Helper()
	l.wires[from].Inject(packet.Vnet{}, frame)
	l.round()
}

// sendFrame is send for a frame with offload metadata.
func (l *lab) sendFrame(from uint16, f *packet.Frame) {
	l.t.Helper()
	l.wires[from].Inject(f.Vnet, f.Bytes())
	l.round()
}

// got returns the next frame that a container receives, in a buffer of its own;
// nil if there is none now.
func (l *lab) got(at uint16) *packet.Frame {
	l.t.Helper()
	return l.await(at, 0)
}

// await is got, with patience.
func (l *lab) await(at uint16, patience time.Duration) *packet.Frame {
	l.t.Helper()
	vnet, b, ok := l.wires[at].Receive(patience)
	if !ok {
		return nil
	}
	f := packettest.Frame(b)
	f.Vnet = vnet
	return f
}

// silent fails the test if one of the containers has received something.
func (l *lab) silent(at ...uint16) {
	l.t.Helper()
	for _, i := range at {
		if f := l.got(i); f != nil {
			l.t.Errorf("container %d received %s", i, packettest.Describe(f.Bytes()))
		}
	}
}

func (l *lab) stats(port uint16) trace.PortStats {
	return l.n.opts.Counters.Port(port).Snapshot()
}

// drops is the number of frames dropped at a port for a reason.
func (l *lab) drops(port uint16, r trace.Reason) uint64 {
	return l.stats(port).Drops[r.String()]
}

// eventually waits until what must happen has happened.
func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("not in %v: %s", patience, what)
}
