// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/qdisc"
	"sluice/trace"
)

// shaped is a token bucket of so many bytes a second and a burst of 10000.
func shaped(rate uint64) *qdisc.Spec {
	return &qdisc.Spec{Qdiscs: []qdisc.Qdisc{{
		Kind: "tbf", Handle: 1 << 16, Parent: qdisc.Root,
		TBF: &qdisc.TBF{Rate: qdisc.Rate{Bytes: rate}, Burst: 10_000, Limit: 10_000_000},
	}}}
}

// numbered is a datagram from container 1 to container 2 of 1000 bytes, with a number.
func numbered(i int) []byte {
	return datagram(1, 2, string(numberedData(i)))
}

// numberedData is the payload of such a datagram.
func numberedData(i int) []byte {
	data := make([]byte, 1000-42)
	binary.BigEndian.PutUint32(data, uint32(i))
	return data
}

// numberOf is the number of such a datagram.
func numberOf(f *packet.Frame) int { return int(binary.BigEndian.Uint32(f.Bytes()[42:])) }

// collect receives n numbered frames at a container, in order, and says how long it
// took from a start.
func (l *lab) collect(at uint16, n int, start time.Time) time.Duration {
	l.t.Helper()
	for i := range n {
		f := l.await(at, patience)
		if f == nil {
			l.t.Fatalf("frame %d of %d did not come", i, n)
		}
		if got := numberOf(f); got != i {
			l.t.Fatalf("frame %d came where %d was due", got, i)
		}
	}
	return time.Since(start)
}

// A rate holds for what leaves by a port, and for what a container sends; with one
// worker and with two, of which one reads and the other one's port it is.
func TestQueuesHoldTheRate(t *testing.T) {
	const frames, rate = 200, 1_000_000
	for _, workers := range []int{1, 2} {
		for _, dir := range []string{"egress", "ingress"} {
			t.Run(fmt.Sprintf("%s/%d", dir, workers), func(t *testing.T) {
				net := blue(2)
				if dir == "egress" {
					net.Ports[1].Egress = shaped(rate)
				} else {
					net.Ports[0].Ingress = shaped(rate)
				}
				l := newLab(t, Options{Workers: workers, FlowEntries: 64}, net)
				start := time.Now()
				for i := range frames {
					l.wires[1].Inject(packet.Vnet{}, numbered(i))
				}
				took := l.collect(2, frames, start)
				least := time.Duration(frames*1000-10_000) * time.Second / rate
				// How late it may be depends on the machine; too early is always wrong.
				if t.Logf("it took %v, the rate allows %v", took, least); took < least {
					t.Errorf("it took %v, want at least %v", took, least)
				}
				port := uint16(2)
				if dir == "ingress" {
					port = 1
				}
				reports, _, err := l.n.Queue(port, dir == "ingress")
				if err != nil {
					t.Fatal(err)
				}
				if st := reports[0].Stats; st.Bytes != frames*1000 || st.Packets != frames || st.Qlen != 0 || st.Drops != 0 || st.Overlimits == 0 {
					t.Errorf("statistics %+v", st)
				}
			})
		}
	}
}

// Disciplines are changed, and taken away, while frames wait: none is lost.
func TestQueuesChangeUnderTraffic(t *testing.T) {
	const frames = 300
	net := blue(2)
	net.Ports[1].Egress, net.Ports[0].Ingress = shaped(50_000), shaped(400_000)
	l := newLab(t, Options{Workers: 2, FlowEntries: 64}, net)
	start := time.Now()
	for i := range frames {
		l.wires[1].Inject(packet.Vnet{}, numbered(i))
	}
	port := func(i int) *PortSpec { return &l.snap.Namespaces[0].Networks[0].Ports[i-1] }
	time.Sleep(50 * time.Millisecond)
	port(2).Egress = shaped(1_000_000)
	l.apply()
	time.Sleep(50 * time.Millisecond)
	port(2).Egress = &qdisc.Spec{Qdiscs: []qdisc.Qdisc{{Kind: "fq_codel", Handle: 2 << 16, Parent: qdisc.Root}}}
	port(1).Ingress = nil
	l.apply()
	time.Sleep(20 * time.Millisecond)
	port(2).Egress = nil
	l.apply()
	l.collect(2, frames, start)
	if _, _, err := l.n.Queue(2, false); err == nil {
		t.Error("there is still a queue")
	}
	for i := uint16(1); i <= 2; i++ {
		for reason, n := range l.stats(i).Drops {
			if strings.HasPrefix(reason, "qdisc") && n > 0 {
				t.Errorf("port %d dropped %d, %s", i, n, reason)
			}
		}
	}
}

// A super-frame is cut where it is too slow, and drops are counted with their reason.
func TestQueueCutsAndDrops(t *testing.T) {
	net := blue(2)
	spec := shaped(1_000_000)
	spec.Qdiscs[0].TBF.Limit = 20_000
	net.Ports[1].Egress = spec
	l := newLab(t, Options{Workers: 1, FlowEntries: 64}, net)
	f := pt.GSO(segment(1, 2, 40_000), 1448)
	l.wires[1].Inject(f.Vnet, f.Bytes())
	n := l.segments(2, 28, func(g *packet.Frame) { pt.Check(t, g, pt.TCP()) })
	if lost := l.drops(2, trace.QdiscFull); n+int(lost) != 28 || lost == 0 {
		t.Errorf("%d segments came, %d were lost", n, lost)
	}
}

// segments receives those of a super-frame of so many at a container, until none is left
// that is neither here nor lost, and no more come.
func (l *lab) segments(at uint16, all int, check func(*packet.Frame)) (n int) {
	l.t.Helper()
	for end := time.Now().Add(patience); ; {
		g := l.await(at, 50*time.Millisecond)
		switch {
		case g == nil && (n+int(l.drops(at, trace.QdiscFull)) >= all || time.Now().After(end)):
			return n
		case g == nil:
		case g.Vnet.IsGSO():
			l.t.Fatal("a super-frame came")
		default:
			check(g)
			n++
		}
	}
}

// Datagrams with a partial sum, of which trains are made, do not lose their way when they
// have waited: their buffers have no room for others.
func TestTrainsBehindAQueue(t *testing.T) {
	net := blue(2)
	net.Ports[0].Ingress = shaped(1_000_000)
	l := newLab(t, Options{Workers: 1, FlowEntries: 64}, net)
	for i := range 60 {
		f := pt.Partial(datagram(1, 2, string(append([]byte{byte(i)}, make([]byte, 999)...))))
		binary.BigEndian.PutUint16(f.Bytes()[18:], uint16(i)) // identification
		binary.BigEndian.PutUint16(f.Bytes()[24:], 0)
		binary.BigEndian.PutUint16(f.Bytes()[24:], ^packet.Sum(f.Bytes()[14:34], 0))
		l.wires[1].Inject(f.Vnet, f.Bytes())
	}
	for n := 0; n < 60; {
		f := l.await(2, patience)
		if f == nil {
			t.Fatalf("%d datagrams came", n)
		}
		if int(f.Bytes()[42]) != n {
			t.Fatalf("datagram %d came where %d was due", f.Bytes()[42], n)
		}
		segs, _ := f.Segments()
		n += segs
	}
}

// TestDrain: what waits leaves as its discipline says, also at a port that another worker
// feeds, and nothing else is taken; but it doesn't take for ever.
func TestDrain(t *testing.T) {
	const frames = 50
	for _, rate := range []uint64{200_000, 10} {
		net := blue(3)
		net.Ports[2].Egress = shaped(rate)
		l := newLab(t, Options{Workers: 2, FlowEntries: 64}, net)
		start := time.Now()
		for i := range frames {
			l.wires[1].Inject(packet.Vnet{}, datagram(1, 3, string(numberedData(i))))
		}
		eventually(t, "all are in the queue", func() bool {
			r, _, err := l.n.Queue(3, false)
			return err == nil && int(r[0].Stats.Packets)+r[0].Stats.Qlen == frames
		})
		limit := 500 * time.Millisecond
		if rate > 10 {
			limit = patience
		}
		drain := time.Now()
		left := l.n.Drain(limit)
		took := time.Since(start)
		l.wires[1].Inject(packet.Vnet{}, numbered(99))
		switch rate {
		case 10: // the next one is due in 100 s
			if took := time.Since(drain); left != frames-10 || took > 2*time.Second {
				t.Errorf("%d are left after %v, want %d", left, took, frames-10)
			}
		default:
			if least := time.Duration(frames*1000-10_000) * time.Second / time.Duration(rate); left != 0 || took < least {
				t.Errorf("%d are left after %v, want none, and not before %v", left, took, least)
			}
			l.collect(3, frames, start)
		}
		if f := l.await(2, 50*time.Millisecond); f != nil {
			t.Error("a frame was taken from a socket")
		}
	}
}

// Nothing that leaves by a port goes past its queue: fragments of what does not fit, and
// segments of what is flooded.
func TestQueuesSeeWhatIsCut(t *testing.T) {
	net := blue(3)
	net.Ports[1].MTU, net.Ports[1].Egress = 600, pfifo()
	net.Ports[2].Offload, net.Ports[2].Egress = false, pfifo()
	l := stillLab(t, net)
	l.send(2, datagram(2, 1, "here I am"))
	l.got(1)
	l.send(1, datagram(1, 2, string(make([]byte, 1000))))
	for i := range 2 {
		if f := l.got(2); f == nil || !f.View.Is(packet.ViewFrag) {
			t.Errorf("fragment %d did not come", i)
		}
	}
	if st := l.queuedAt(2); st.Packets != 2 {
		t.Errorf("the queue has seen %+v of fragments", st)
	}
	before := l.queuedAt(3).Packets
	f := pt.GSO(segment(1, 9, 4000), 1000) // nobody knows where that is
	l.sendFrame(1, f)
	for i := range 4 {
		if f := l.got(3); f == nil || f.Vnet.IsGSO() {
			t.Errorf("segment %d did not come", i)
		}
	}
	if n := l.queuedAt(3).Packets - before; n != 4 {
		t.Errorf("the queue has seen %d segments", n)
	}
}

// A port that goes takes what waits with it.
func TestQueueOfAPortThatGoes(t *testing.T) {
	net := blue(3)
	net.Ports[1].Egress = shaped(10_000)
	l := newLab(t, Options{Workers: 1, FlowEntries: 64}, net)
	for i := range 50 {
		l.wires[1].Inject(packet.Vnet{}, numbered(i))
	}
	eventually(t, "frames wait", func() bool {
		r, _, err := l.n.Queue(2, false)
		return err == nil && r[0].Stats.Qlen > 0
	})
	ports := &l.snap.Namespaces[0].Networks[0].Ports
	gone := (*ports)[1]
	*ports = append((*ports)[:1:1], (*ports)[2:]...)
	l.apply()
	eventually(t, "the frames that waited are counted", func() bool { return l.drops(2, trace.QdiscRemoved) > 0 })
	delete(l.wires, 2)
	*ports = append(*ports, gone)
	l.apply()
	l.wires[1].Inject(packet.Vnet{}, numbered(0))
	if l.await(2, patience) == nil {
		t.Error("the port does not work when it is back")
	}
}

// What can't be is refused, and names the direction and the field.
func TestQueuesAreValidated(t *testing.T) {
	net := blue(1)
	net.Ports[0].Egress = &qdisc.Spec{Qdiscs: []qdisc.Qdisc{{Kind: "tbf", Handle: 1 << 16, Parent: qdisc.Root}}}
	s := &Snapshot{Namespaces: []NamespaceSpec{alone(net)}}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "egress: qdisc 1: tbf: rate: missing") {
		t.Errorf("error %v", err)
	}
}
