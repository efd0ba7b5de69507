// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/trace"
)

// tally is what one turn counts. It is added to the input port's counters once,
// at the end of the turn.
type tally struct {
	packets, bytes   uint64 // on the wire: an offload frame counts as its segments
	gso              uint64
	hits, misses     uint64
	flooded, learned uint64
	work             int // see there
}

func (a *tally) frame(f *packet.Frame) {
	n, bytes := f.Segments()
	a.packets += uint64(n)
	a.bytes += uint64(bytes)
	if f.Vnet.IsGSO() {
		a.gso++
	}
}

// refused counts a frame whose offload metadata nobody believes: as one.
func (a *tally) refused(f *packet.Frame) {
	a.packets++
	a.bytes += uint64(f.Len())
}

func (a *tally) addTo(c *trace.PortCounters) {
	c.AddRx(a.packets, a.bytes)
	c.Add(trace.RxTurns, 1)
	c.Add(trace.RxGSO, a.gso)
	c.Add(trace.FlowHits, a.hits)
	c.Add(trace.FlowMisses, a.misses)
	c.Add(trace.Flooded, a.flooded)
	c.Add(trace.Learned, a.learned)
}

// port is one turn of a container's port: receive up to a budget of frames, and
// carry each to its end. If fewer came than were asked for, the socket is
// drained; a second look is left to epoll.
func (t *turn) port(p *port, events uint32) {
	s, k := p.sock, &t.rx
	if s.rests() {
		return
	}
	k.begin()
	if p.queues[ingress] != nil {
		for k.more(s.fd) {
			continue
		}
		if k.n > 0 {
			t.enqueue(p, k.frames[:k.n])
		}
	} else {
		t.intake(p)
	}
	drop(p, trace.BadOffload, k.refused)
	if k.n > 0 {
		s.strikes = 0
	}
	if k.errno != 0 || k.n+k.refused == 0 {
		t.fruitless(s, k.errno, events)
	}
}

// intake carries frames of port p slice by slice, until they were work enough.
func (t *turn) intake(p *port) {
	k := &t.rx
	more := k.more(p.sock.fd)
	if k.n == 0 {
		return
	}
	t.begin(p, k.frames[:k.n])
	for from := 0; ; more = k.more(p.sock.fd) {
		t.frames = k.frames[:k.n]
		for ; from < k.n; from++ {
			t.judge(p, from)
		}
		if !more || t.tally.work > dear {
			break
		}
	}
	t.end(p)
	p.sock.debt += t.tally.work
}

// carry takes the frames of one turn from port p to their ends.
func (t *turn) carry(p *port, frames []packet.Frame) {
	t.begin(p, frames)
	for i := range frames {
		t.judge(p, i)
	}
	t.end(p)
}

// begin prepares the turn for frames of port p.
func (t *turn) begin(p *port, frames []packet.Frame) {
	t.frames, t.tally, t.last, t.watched = frames, tally{}, train{}, false
	t.out.from = p
}

// end sends what the frames of the turn have become, and counts them.
func (t *turn) end(p *port) {
	t.out.flush(t.view, t.frames)
	t.tally.addTo(p.counters)
	t.stats.Turns++
	t.stats.Frames += uint64(len(t.frames))
}

// fruitless is for an event that brought no frame, or an error behind the
// frames. An error is reported. A socket that can bring nothing more, or that
// goes on to report events without frames, is given up, for epoll would report
// it for ever.
func (t *turn) fruitless(s *socket, errno unix.Errno, events uint32) {
	failed := events&(unix.EPOLLERR|unix.EPOLLHUP) != 0
	if errno == 0 && !failed {
		return // what was there, somebody else has read
	}
	t.stats.RxErrors++
	s.strikes++
	if errno != unix.ENETDOWN && errno != 0 || s.strikes >= maxStrikes {
		s.unwatch()
	}
	t.net.down.add(s.index)
}

// drop is the only place where a frame ends without having been sent: n frames,
// for a reason, counted at the port that they came from, or at the port that
// they could not leave by.
func drop(p *port, r trace.Reason, n int) { p.counters.Drop(r, uint64(n)) }
