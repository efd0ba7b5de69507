// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
)

const (
	firstBarrier = 1 << 32 // numbers of the frames that end a batch
	kernelBatch  = 25      // frames at once: with their copies far less than a busy CPU's backlog holds
	hosts        = 24      // stations of the differential test
)

// rivals are our bridge and the kernel's, which get the same frames.
type rivals struct {
	t      *testing.T
	rnd    *rand.Rand
	k      *kernelBridge
	b      *Bridge
	fr     *framer
	number uint64 // of the last frame
	sent   map[uint64]string
}

// vlanOf is the VLAN of a station, in which it speaks and is spoken to. A
// kernel bridge that does not filter VLANs takes no notice of them; since each
// station is in one only, our table must then be the same.
func vlanOf(n int) uint16 { return []uint16{0, 10, 20}[n%3] }

func newRivals(t *testing.T) *rivals {
	t.Helper()
	r := &rivals{
		t: t, rnd: rand.New(rand.NewPCG(11, 12)), k: newKernelBridge(t),
		b: New(Options{}), fr: newFramer(), sent: map[uint64]string{},
	}
	static := StaticEntry{MAC: station(0), VLAN: vlanOf(0), Port: 3}
	set := []StaticEntry{static}
	for n := range 3 {
		set = append(set, StaticEntry{MAC: ownMAC, VLAN: vlanOf(n), Port: localPort, Own: true})
	}
	r.k.setStatic(static)
	r.b.SetPorts(members(kernelPorts))
	r.b.SetStatic(set)
	return r
}

// source is station n and the port that it speaks on: mostly its home, now and
// then another; or the host; or an address that no source may have. The own MAC
// from outside is left out: there we differ on purpose.
func (r *rivals) source(n int) (uint16, packet.MAC) {
	port := uint16(1 + n%kernelPorts)
	switch x := r.rnd.IntN(20); {
	case x == 0:
		return localPort, ownMAC
	case x == 1:
		return port, packet.MAC{}
	case x == 2:
		return port, group
	case x < 6:
		port = uint16(1 + r.rnd.IntN(kernelPorts))
	}
	return port, station(n)
}

// destination is a station of the VLAN, known or not, or any kind of group. The
// bridge group address (01-80-C2-00-00-00) is left out, and every reserved one
// when the host speaks: there we differ on purpose.
func (r *rivals) destination(in, vlan uint16) packet.MAC {
	kind := r.rnd.IntN(12)
	if in == localPort && kind == 2 {
		kind = 1
	}
	switch kind {
	case 0:
		return broadcast
	case 1:
		return group
	case 2:
		return packet.MAC{1, 0x80, 0xc2, 0, 0, byte(1 + r.rnd.IntN(32))}
	case 3:
		return ownMAC
	case 4:
		return station(1000 + r.rnd.IntN(100))
	}
	n := r.rnd.IntN(hosts)
	for vlanOf(n) != vlan {
		n = r.rnd.IntN(hosts)
	}
	return station(n)
}

// send gives one frame to both and notes where ours says it goes.
func (r *rivals) send(in uint16, dst, src packet.MAC, vlan uint16, number uint64, want outputs) {
	b := frameBytes(dst, src, vlan, number)
	r.sent[number] = fmt.Sprintf("port %d, %v -> %v, VLAN %d", in, src, dst, vlan)
	r.k.ends[in].Send(b)
	v := r.b.Input(in, r.fr.parse(b), 0)
	switch v.Action {
	case Forward:
		want.add(number, v.Port)
	case Flood:
		var c Cursor
		for o, ok := v.Next(&c); ok; o, ok = v.Next(&c) {
			want.add(number, o.Port)
		}
	}
}

func (r *rivals) random(want outputs) {
	n := r.rnd.IntN(hosts)
	vlan := vlanOf(n)
	in, src := r.source(n)
	r.number++
	r.send(in, r.destination(in, vlan), src, vlan, r.number, want)
}

// batch sends some frames and compares, for each, the ports that got it. Two
// broadcasts at the end, from two ports, tell each socket that nothing more
// comes.
func (r *rivals) batch(frames int) {
	r.t.Helper()
	got, want := outputs{}, outputs{}
	first := r.number + 1
	for range frames {
		r.random(want)
	}
	barriers := outputs{}
	r.send(1, broadcast, station(3), vlanOf(3), firstBarrier+2*first, barriers)
	r.send(2, broadcast, station(6), vlanOf(6), firstBarrier+2*first+1, barriers)
	for port := range r.k.ends {
		last := firstBarrier + 2*first
		if port == 1 {
			last++
		}
		r.k.collect(port, last, got)
	}
	for n := first; n <= r.number; n++ {
		if diff := cmp.Diff(got[n], want[n]); diff != "" {
			r.t.Fatalf("frame %d, %s: output ports (-kernel +bridge):\n%s", n, r.sent[n], diff)
		}
	}
}

// compareFDB compares what the two have learned.
func (r *rivals) compareFDB() {
	r.t.Helper()
	ours := map[string]uint16{}
	for _, e := range r.b.Entries(nil, 0) {
		if e.Kind == Dynamic {
			ours[e.MAC.String()] = e.Port
		}
	}
	if diff := cmp.Diff(r.k.learned(), ours); diff != "" {
		r.t.Fatalf("FDB (-kernel +bridge):\n%s", diff)
	}
}

// The same thousands of frames, in the same order, through the kernel's bridge
// and ours reach the same ports. Stations move, the FDB of a port is flushed
// now and then, and one station is static.
func TestSameAsTheKernel(t *testing.T) {
	r := newRivals(t)
	for n := range 1200 {
		r.batch(kernelBatch)
		if n%32 == 0 {
			r.compareFDB()
			port := uint16(1 + r.rnd.IntN(kernelPorts))
			r.k.flush(port)
			r.b.Flush(port)
		}
	}
	r.compareFDB()
	t.Logf("%d frames; %+v", r.number, r.b.Stats())
}
