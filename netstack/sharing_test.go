// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/qdisc"
	"sluice/trace"
)

// share is a class of so many bytes a second, up to a ceiling.
func share(rate, ceil uint64) *qdisc.HTBClass {
	return &qdisc.HTBClass{Rate: qdisc.Rate{Bytes: rate}, Ceil: qdisc.Rate{Bytes: ceil}, Burst: 2000, CBurst: 2000, Quantum: 3000}
}

// long is a queue that drops nothing in these tests.
func long() *qdisc.Spec {
	return &qdisc.Spec{Qdiscs: []qdisc.Qdisc{{Kind: "pfifo", Handle: 1 << 16, Parent: qdisc.Root, FIFO: &qdisc.FIFO{Limit: 1000}}}}
}

// deep is another such.
func deep() *qdisc.Spec {
	return &qdisc.Spec{Qdiscs: []qdisc.Qdisc{{Kind: "bfifo", Handle: 2 << 16, Parent: qdisc.Root, FIFO: &qdisc.FIFO{Limit: 10_000_000}}}}
}

// shareOut gives containers 2 and 3 of a namespace shares of 30 and 70 of 100.
func shareOut(n *NamespaceSpec, dir int) {
	ports := n.Networks[0].Ports
	all := []*qdisc.HTBClass{share(300_000, 1_000_000), share(700_000, 1_000_000), share(1_000_000, 1_000_000)}
	for i, to := range []*qdisc.Shares{&ports[1].Shares, &ports[2].Shares, &n.Shares} {
		if dir == ingress {
			to.Ingress = all[i]
		} else {
			to.Egress = all[i]
		}
	}
	ports[1].Egress, ports[2].Egress, ports[1].Ingress, ports[2].Ingress = long(), long(), long(), long()
}

// fill lets numbered frames of 1000 bytes go to containers 2 and 3, or come from them.
func (l *lab) fill(dir, n int) {
	data := string(make([]byte, 1000-42))
	for range n {
		for _, i := range []int{2, 3} {
			if dir == ingress {
				l.wires[uint16(i)].Inject(packet.Vnet{}, datagram(i, 1, data))
			} else {
				l.wires[1].Inject(packet.Vnet{}, datagram(1, i, data))
			}
		}
	}
}

// sent is how many packets the classes of ports 2 and 3 have let go.
func (l *lab) sent(root uint16, dir int) (two, three uint64) {
	reports, err := l.n.Tree(root, dir == ingress)
	if err != nil {
		return 0, 0
	}
	for _, c := range reports[0].Classes {
		switch c.Handle {
		case shareClass(2):
			two = c.Stats.Packets
		case shareClass(3):
			three = c.Stats.Packets
		}
	}
	return two, three
}

// Two ports have of their namespace what they were promised, in each direction, with
// any number of workers, and the one has all when the other is done. With a tree of the
// node it is the same. A busy machine may fill a queue while the other one is empty, or look
// when one is done, but not each time.
func TestSharesHold(t *testing.T) {
	for _, workers := range []int{1, 3} {
		for dir, name := range []string{"egress", "ingress"} {
			for _, node := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%v", name, workers, node), func(t *testing.T) {
					var two, all uint64
					for range 5 {
						if two, all = shared(t, workers, dir, node); two*100 >= all*24 && two*100 <= all*38 {
							return
						}
					}
					t.Errorf("of %d frames %d were container 2's, want 30 %%", all, two)
				})
			}
		}
	}
}

// shared is how many frames were container 2's of those that left while both had some.
func shared(t *testing.T, workers, dir int, node bool) (of2, all uint64) {
	t.Helper()
	const frames = 200
	l := newLab(t, Options{Workers: workers, FlowEntries: 64}, blue(3))
	n := &l.snap.Namespaces[0]
	shareOut(n, dir)
	root := n.home()
	if node {
		root, l.snap.Shares = nodeIndex, n.Shares
	}
	l.apply()
	start := time.Now()
	l.fill(dir, frames)
	eventually(t, "half of it has left", func() bool {
		two, three := l.sent(root, dir)
		of2, all = two, two+three
		return all >= frames
	})
	eventually(t, "all that waited has left", func() bool { two, three := l.sent(root, dir); return two+three == 2*frames })
	if took, least := time.Since(start), (2*frames*1000-10_000)*time.Second/1_000_000; took < least {
		t.Errorf("it took %v, want at least %v", took, least)
	}
	for i := uint16(1); i <= 3; i++ {
		for reason, n := range l.stats(i).Drops {
			if strings.HasPrefix(reason, "qdisc") && n > 0 {
				t.Errorf("port %d dropped %d, %s", i, n, reason)
			}
		}
	}
	return of2, all
}

// Shares come, change and go while frames wait, ports change their worker with them:
// none is lost, and none is forgotten in a discipline that stays the same.
func TestSharesChangeUnderTraffic(t *testing.T) {
	const frames, more = 150, 50
	for _, workers := range []int{1, 3} {
		l := newLab(t, Options{Workers: workers, FlowEntries: 64}, blue(3))
		n := &l.snap.Namespaces[0]
		ports := n.Networks[0].Ports
		ports[1].Egress, ports[2].Egress = shaped(100_000), shaped(200_000)
		l.apply()
		l.fill(egress, frames)
		shareOut(n, egress)
		for _, change := range []func(){
			func() {},
			func() { ports[1].Shares.Egress = share(100_000, 400_000) },
			func() { l.snap.Shares = n.Shares },
			func() { ports[1].Egress = deep() },
			func() { l.snap.Shares = qdisc.Shares{} },
			func() {
				n.Shares.Egress, ports[1].Shares.Egress, ports[2].Shares.Egress = share(20_000, 0), share(10_000, 0), share(10_000, 0)
			},
		} {
			change()
			l.apply()
			time.Sleep(20 * time.Millisecond)
		}
		l.fill(egress, more)
		// Frames that came later would have a port's discipline asked anyway.
		eventually(t, "all was read", func() bool { return l.stats(1).RxPackets == 2*(frames+more) })
		for _, i := range []uint16{2, 3} {
			eventually(t, "frames wait", func() bool {
				r, _, err := l.n.Queue(i, false)
				return err == nil && r[0].Stats.Qlen >= more/2
			})
		}
		n.Shares, ports[1].Shares, ports[2].Shares, ports[1].Egress = qdisc.Shares{}, qdisc.Shares{}, qdisc.Shares{}, nil
		l.apply()
		for _, i := range []uint16{2, 3} {
			for k := range frames + more {
				if l.await(i, patience) == nil {
					t.Fatalf("%d workers: container %d: frame %d of %d did not come", workers, i, k, frames+more)
				}
			}
		}
		if _, err := l.n.Tree(n.home(), false); err == nil {
			t.Error("there is still a tree")
		}
	}
}

// TestQueuesMoveWithTheirPort, when it becomes a part of a tree and another worker's, and
// when it leaves: what waits comes in order, all of it, and never before the rate allows.
func TestQueuesMoveWithTheirPort(t *testing.T) {
	const frames, rate = 100, 200_000
	for _, dir := range []int{egress, ingress} {
		net := blue(3)
		from, to, shapedPort := 1, 3, &net.Ports[2]
		if dir == ingress {
			from, to = 3, 1
			shapedPort.Ingress = shaped(rate)
		} else {
			shapedPort.Egress = shaped(rate)
		}
		l := newLab(t, Options{Workers: 2, FlowEntries: 64}, net)
		start := time.Now()
		for i := range frames {
			l.wires[uint16(from)].Inject(packet.Vnet{}, datagram(from, to, string(numberedData(i))))
		}
		n := &l.snap.Namespaces[0]
		port := &n.Networks[0].Ports[2]
		workers := map[*worker]bool{l.n.view.Load().socket(3).worker: true}
		for i := range frames {
			switch i {
			case 20, 60:
				n.Shares = qdisc.Shares{Egress: share(10_000_000, 10_000_000), Ingress: share(10_000_000, 10_000_000)}
				port.Shares = qdisc.Shares{Egress: share(5_000_000, 10_000_000), Ingress: share(5_000_000, 10_000_000)}
				l.apply()
			case 40, 80:
				n.Shares, port.Shares = qdisc.Shares{}, qdisc.Shares{}
				l.apply()
			}
			workers[l.n.view.Load().socket(3).worker] = true
			f := l.await(uint16(to), patience)
			if f == nil || numberOf(f) != i {
				t.Fatalf("direction %d: frame %d did not come in its turn", dir, i)
			}
			if took, least := time.Since(start), time.Duration((i+1)*1000-10_000)*time.Second/rate; took < least {
				t.Fatalf("direction %d: frame %d came after %v, want at least %v", dir, i, took, least)
			}
		}
		if len(workers) != 2 {
			t.Error("the port never had another worker: this shows nothing")
		}
		if reports, _, err := l.n.Queue(3, dir == ingress); err != nil || reports[0].Stats.Packets != frames || reports[0].Stats.Drops != 0 {
			t.Errorf("direction %d: statistics %+v, %v", dir, reports, err)
		}
	}
}

// A port that goes takes what waits with it, and its class; the others go on.
func TestSharesOfAPortThatGoes(t *testing.T) {
	l := newLab(t, Options{Workers: 2, FlowEntries: 64}, blue(3))
	n := &l.snap.Namespaces[0]
	shareOut(n, egress)
	n.Shares.Egress = share(2000, 2000)
	n.Networks[0].Ports[1].Shares.Egress, n.Networks[0].Ports[2].Shares.Egress = share(500, 2000), share(1500, 2000)
	l.apply()
	l.fill(egress, 20)
	eventually(t, "frames wait", func() bool {
		r, err := l.n.Tree(n.home(), false)
		return err == nil && r[0].Stats.Qlen > 20
	})
	n.Networks[0].Ports = n.Networks[0].Ports[:2:2]
	n.Shares.Egress, n.Networks[0].Ports[1].Shares.Egress = share(1_000_000, 1_000_000), share(300_000, 1_000_000)
	l.apply()
	eventually(t, "the frames that waited are counted", func() bool { return l.drops(3, trace.QdiscRemoved) > 0 })
	for i := range 20 {
		if l.await(2, patience) == nil {
			t.Fatalf("frame %d did not come", i)
		}
	}
}

// A super-frame is cut that is more than a port's turn, and what is refused is counted
// at the port.
func TestSharesCut(t *testing.T) {
	l := newLab(t, Options{Workers: 1, FlowEntries: 64}, blue(3))
	n := &l.snap.Namespaces[0]
	shareOut(n, egress)
	n.Networks[0].Ports[1].Egress.Qdiscs[0].FIFO.Limit = 10
	n.Shares.Egress = share(50_000, 50_000)
	l.apply()
	f := pt.GSO(segment(1, 2, 40_000), 1448)
	l.wires[1].Inject(f.Vnet, f.Bytes())
	got := l.segments(2, 28, func(*packet.Frame) {})
	if lost := l.drops(2, trace.QdiscFull); got+int(lost) != 28 || lost == 0 {
		t.Errorf("%d segments came, %d were lost", got, lost)
	}
}

// Shares that can't be are refused, and say of whom.
func TestSharesAreValidated(t *testing.T) {
	net := blue(1)
	net.Ports[0].Shares.Egress = share(1000, 1000)
	s := &Snapshot{Namespaces: []NamespaceSpec{alone(net)}}
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "port 1 (c): shares of a namespace that has none") {
		t.Errorf("error %v", err)
	}
	s.Namespaces[0].Shares.Egress = share(1000, 10)
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "ceil: 10 bytes/s is below the rate of 1000") {
		t.Errorf("error %v", err)
	}
	if s.Namespaces[0].Shares.Egress = share(1000, 1000); s.Validate() != nil {
		t.Errorf("error %v", s.Validate())
	}
}
