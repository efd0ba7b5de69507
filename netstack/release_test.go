// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/qdisc"
	"sluice/trace"
)

// restless changes the laboratory at random many times, and says by the channel why it
// could not, or nil at the end. The test doesn't look at the snapshot meanwhile.
func (l *lab) restless(changes int, seed uint64, change func(*rand.Rand)) <-chan error {
	end := make(chan error, 1)
	go func() {
		r := rand.New(rand.NewPCG(seed, seed))
		for range changes {
			change(r)
			l.snap.Generation++
			if err := l.n.Apply(&l.snap, nil); err != nil {
				end <- err
				return
			}
			time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
		}
		end <- nil
	}()
	return end
}

// inTurn sends numbered frames from one container to another, as fast as a window allows,
// until end, and sees that each comes in its turn. It returns their number.
func (l *lab) inTurn(from, to uint16, frame func(int) []byte, end <-chan error) (got int) {
	l.t.Helper()
	const window = 1500 // of what a ring takes, and a wire
	receive := func(wait time.Duration) bool {
		f := l.await(to, wait)
		if f == nil {
			return false
		}
		if n := numberOf(f); n != got {
			l.t.Fatalf("frame %d came where %d was due", n, got)
		}
		got++
		return true
	}
	for sent := 0; ; {
		select {
		case err := <-end:
			if err != nil {
				l.t.Fatal(err)
			}
			for got < sent {
				if !receive(patience) {
					l.t.Fatalf("%d of %d frames have come", got, sent)
				}
			}
			return got
		default:
		}
		for n := 0; n < 8 && sent-got < window; n++ {
			l.wires[from].Inject(packet.Vnet{}, frame(sent))
			sent++
		}
		if sent-got == window && !receive(patience) {
			l.t.Fatalf("after %d frames none came", got)
		}
		for receive(0) {
			continue
		}
	}
}

// anyOf is a discipline that drops nothing of what these tests send, or none.
func anyOf(r *rand.Rand) *qdisc.Spec {
	return []func() *qdisc.Spec{
		func() *qdisc.Spec { return nil },
		func() *qdisc.Spec { return nil },
		func() *qdisc.Spec { return shaped(2_000_000) },
		func() *qdisc.Spec { return shaped(8_000_000) },
		deep,
	}[r.IntN(5)]()
}

// whole fails if a discipline has dropped something.
func (l *lab) whole() {
	l.t.Helper()
	for p := range l.snap.Ports() {
		for _, reason := range []trace.Reason{trace.QdiscFull, trace.QdiscMemory, trace.QdiscRemoved} {
			if n := l.drops(p.Index, reason); n > 0 {
				l.t.Errorf("port %d dropped %d, %v", p.Index, n, reason)
			}
		}
	}
}

// TestChangesKeepTheOrder of a flow: disciplines of ports come, go and are replaced while
// frames wait, in each direction, and ports come into trees, where they get another
// worker, and leave them. Nothing is lost, and nothing overtakes.
func TestChangesKeepTheOrder(t *testing.T) {
	const changes = 100
	for _, workers := range []int{1, 2, 3} {
		for what, change := range map[string]func(*NamespaceSpec, *rand.Rand){
			"egress":  func(n *NamespaceSpec, r *rand.Rand) { n.Networks[0].Ports[2].Egress = anyOf(r) },
			"ingress": func(n *NamespaceSpec, r *rand.Rand) { n.Networks[0].Ports[1].Ingress = anyOf(r) },
			"tree":    intoTrees,
		} {
			t.Run(fmt.Sprintf("%s/%d", what, workers), func(t *testing.T) {
				l := newLab(t, Options{Workers: workers, FlowEntries: 64}, blue(3))
				end := l.restless(changes, uint64(workers), func(r *rand.Rand) { change(&l.snap.Namespaces[0], r) })
				n := l.inTurn(2, 3, func(i int) []byte {
					return datagram(2, 3, string(numberedData(i)))
				}, end)
				if l.whole(); n < changes {
					t.Errorf("only %d frames for %d changes", n, changes)
				}
			})
		}
	}
}

// intoTrees gives the ports any disciplines, and shares or none: with those one of their
// own, since the default one drops what has waited for long.
func intoTrees(n *NamespaceSpec, r *rand.Rand) {
	all := share(100_000_000, 100_000_000)
	n.Shares = qdisc.Shares{Egress: all, Ingress: all}
	for i := range n.Networks[0].Ports {
		p := &n.Networks[0].Ports[i]
		p.Egress, p.Ingress, p.Shares = anyOf(r), anyOf(r), qdisc.Shares{}
		if r.IntN(2) == 0 && p.Egress != nil {
			p.Shares.Egress = share(20_000_000, 100_000_000)
		}
		if r.IntN(2) == 0 && p.Ingress != nil {
			p.Shares.Ingress = share(20_000_000, 100_000_000)
		}
	}
}

// TestChangesOfDevicesKeepTheOrder: disciplines of a link, of the network behind it and of
// the port there come and go under a flow that goes through all of them.
func TestChangesOfDevicesKeepTheOrder(t *testing.T) {
	const changes = 100
	for _, workers := range []int{1, 2, 4} {
		for _, what := range []string{"link", "network", "all"} {
			t.Run(fmt.Sprintf("%s/%d", what, workers), func(t *testing.T) {
				n, err := New(Options{Workers: workers, FlowEntries: 64})
				if err != nil {
					t.Fatal(err)
				}
				l := open(t, n, nil)
				l.snap.Namespaces = chain(2)
				l.apply()
				end := l.restless(changes, uint64(workers), func(r *rand.Rand) {
					if what != "network" {
						l.snap.Namespaces[0].Links[0].Egress = anyOf(r)
					}
					if what != "link" {
						l.network(2).Egress = anyOf(r)
					}
					if what == "all" {
						l.portOf(bob).Egress, l.portOf(alice).Ingress = anyOf(r), anyOf(r)
					}
				})
				got := l.inTurn(alice.port(), bob.port(), func(i int) []byte {
					p := alice.to(bob)
					p.Payload = numberedData(i)
					return pt.UDP4(p)
				}, end)
				if l.whole(); got < changes {
					t.Errorf("only %d frames for %d changes", got, changes)
				}
				for _, index := range []uint16{linkIndex(1, 2), gate(2).port()} {
					if lost := l.drops(index, trace.QdiscRemoved) + l.drops(index, trace.QdiscFull); lost > 0 {
						t.Errorf("device %d dropped %d", index, lost)
					}
				}
			})
		}
	}
}

// TestReleasedQueuesEnd with Apply, also when no worker runs: what waited has left then, and
// nothing goes by the queue any more, of flows that went there before either.
func TestReleasedQueuesEnd(t *testing.T) {
	spaces := chain(2)
	link, port := &spaces[0].Links[0].Egress, &spaces[1].Networks[0].Ports[0].Egress
	*link, *port = shaped(1), shaped(1)
	l := stillSites(t, spaces...)
	send := func() {
		p := alice.to(bob)
		p.Payload = numberedData(0)
		l.send(alice.port(), pt.UDP4(p))
	}
	for range 25 { // ten are the burst of each
		send()
	}
	*link, *port = nil, nil
	l.apply()
	for i := range 25 {
		if l.got(bob.port()) == nil {
			t.Fatalf("after Apply, frame %d of 25 is not there", i)
		}
	}
	for _, index := range []uint16{linkIndex(1, 2), bob.port()} {
		if _, _, err := l.n.Queue(index, false); err == nil {
			t.Errorf("port %d: there is still a queue", index)
		}
		if p := l.n.view.Load().port(index); p.released || p.queues[egress] != nil {
			t.Errorf("port %d: the view says %v", index, p.queues[egress])
		}
	}
	send()
	l.arrived(bob, pt.UDP())
	if v := l.n.view.Load(); v.queued || l.n.waiting() > 0 {
		t.Errorf("queued %v, %d wait", v.queued, l.n.waiting())
	}
}
