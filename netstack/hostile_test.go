// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// hostile is a container that sends what nobody should: random frames, broken
// ones, and lies about offload, to its neighbours and to the gateway.
type hostile struct {
	n   *Netstack
	far []int
	buf []byte
	msg []byte
}

func newHostile(t testing.TB) *hostile {
	t.Helper()
	s := blue(3)
	s.Echo = true
	s.Ports[2].Offload = false
	s.Bridge.MaxEntries, s.Bridge.MaxPerPort = 256, 100
	n, err := build(Options{Workers: 1, FlowEntries: 256})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	h := &hostile{n: n, buf: make([]byte, packet.BufLen)}
	var near map[uint16]int
	h.far, near = socketPairs(t, 3)
	if err := n.Apply(&Snapshot{Namespaces: []NamespaceSpec{alone(s)}}, near); err != nil {
		t.Fatal(err)
	}
	return h
}

// send sends one message, whatever it is, and lets the others receive.
func (h *hostile) send(t testing.TB, vnet packet.Vnet, frame []byte) {
	t.Helper()
	h.msg = append(h.msg[:0], make([]byte, packet.VnetLen)...)
	vnet.Encode(h.msg)
	h.msg = append(h.msg, frame...)
	if _, err := unix.Write(h.far[0], h.msg); err != nil {
		t.Fatal(err)
	}
	h.n.workers[0].settle()
	for _, fd := range h.far {
		h.received(t, fd)
	}
}

// received checks what the others get: what the parse refuses never leaves.
func (h *hostile) received(t testing.TB, fd int) {
	t.Helper()
	for {
		n, err := unix.Read(fd, h.buf)
		if err != nil {
			return
		}
		var v packet.View
		if fault := v.Parse(h.buf[packet.VnetLen:n]); fault != packet.FaultNone {
			t.Fatalf("a frame with fault %v was sent: %x", fault, h.buf[:min(n, 200)])
		}
	}
}

// target gives a random frame a destination that is of interest.
func target(r *rand.Rand, b []byte) []byte {
	if len(b) < packet.EthernetLen {
		return b
	}
	macs := []packet.MAC{gatewayMAC(), gatewayMAC(), mac(2), mac(3), packet.Broadcast(), {0x33, 0x33, 0xff, 0, 0, 1}}
	if m := macs[r.IntN(len(macs))]; r.IntN(4) > 0 {
		copy(b, m[:])
	}
	v := packet.View{}
	v.Parse(b)
	if g := gateway4().As4(); v.Is(packet.ViewIPv4) && len(b) >= v.L3+20 && r.IntN(2) > 0 {
		copy(b[v.L3+16:], g[:])
	}
	if g := gateway6().As16(); v.Is(packet.ViewIPv6) && len(b) >= v.L3+40 && r.IntN(2) > 0 {
		copy(b[v.L3+24:], g[:])
	}
	return b
}

// repair makes the header sum right, so that a frame gets deeper.
func repair(b []byte) {
	var v packet.View
	if v.Parse(b) == packet.FaultNone && v.Is(packet.ViewIPv4) {
		b[v.L3+10], b[v.L3+11] = 0, 0
		sum := ^packet.Sum(b[v.L3:v.L4], 0)
		b[v.L3+10], b[v.L3+11] = byte(sum>>8), byte(sum)
	}
}

func TestHostileContainerBreaksNothing(t *testing.T) {
	frames := 100_000
	if testing.Short() || raceEnabled {
		frames = 10_000
	}
	h := newHostile(t)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range frames {
		if i%100 == 0 {
			h.send(t, packet.Vnet{}, datagram(1, 2, "an honest one"))
		}
		b := target(r, pt.Random(r))
		if r.IntN(2) == 0 {
			b = pt.Mutate(r, b)
		}
		if r.IntN(4) > 0 {
			repair(b)
		}
		b = b[:min(len(b), packet.MaxFrame)]
		vnet := packet.Vnet{}
		switch r.IntN(4) {
		case 0:
			vnet = pt.RandomVnet(r, len(b))
		case 1: // a partial sum is believed: the stack sees what is behind it
			if f := pt.Frame(b); f.View.Is(packet.ViewHasL4) && (f.View.Proto == packet.ProtoTCP || f.View.Proto == packet.ProtoUDP) {
				vnet = pt.Partial(b).Vnet
			}
		}
		h.send(t, vnet, b)
	}
	ns := h.n.Namespace("blue")
	if got := ns.FDBStats("blue"); got.Entries > 100 {
		t.Errorf("%d stations learned on one port, want at most 100", got.Entries)
	}
	if got := h.n.WorkerStats()[0]; got.FlowEntries > got.FlowMax {
		t.Errorf("%d flows of %d", got.FlowEntries, got.FlowMax)
	}
	if len(ns.Neighbours("blue")) > 2*(512+10) {
		t.Errorf("%d neighbours", len(ns.Neighbours("blue")))
	}
	h.send(t, packet.Vnet{}, pt.Ping4(pt.Packet{SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4()}))
	if st := h.n.opts.Counters.Port(1).Snapshot(); st.Dropped() == 0 || st.FlowHits == 0 {
		t.Errorf("the frames were not of all kinds: %+v", st)
	}
}

// FuzzFrame sends one frame with any offload metadata.
func FuzzFrame(f *testing.F) {
	h := newHostile(f)
	f.Add(make([]byte, packet.VnetLen), datagram(1, 2, "hello"))
	f.Fuzz(func(t *testing.T, vnet, frame []byte) {
		if len(vnet) < packet.VnetLen || len(frame) == 0 || len(frame) > packet.MaxFrame {
			return
		}
		var v packet.Vnet
		v.Decode(vnet)
		h.send(t, v, frame)
	})
}
