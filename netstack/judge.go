// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"hash/maphash"

	"sluice/bridge"
	"sluice/flow"
	"sluice/packet"
	"sluice/trace"
)

// decision is what the flow cache remembers: the output port and the entries of
// the FDB that it rests upon. It is right while both are valid and the view is
// the same, which is the cache's generation.
type decision struct {
	src, dst bridge.Ref
	out      uint16
}

func (d *decision) valid() bool { return d.src.Valid() && d.dst.Valid() }

// train is the frame that the next one of the turn may join: it waits on an
// output list, and went there by this decision. Zero is none.
type train struct {
	flow  *decision
	frame int
}

// flows is a worker's flow cache and what look-ups in it need.
type flows struct {
	cache *flow.Cache[decision]
	seed  maphash.Seed
	key   flow.Key // of the frame at hand
	hash  uint64
}

// find returns the decision for a frame if there is one that is still right.
// cacheable says whether a new one may be remembered.
func (c *flows) find(f *packet.Frame, gen uint64) (d *decision, cacheable bool) {
	if !c.key.Set(f) {
		return nil, false
	}
	c.hash = c.key.Hash(c.seed)
	d = c.cache.Lookup(&c.key, c.hash, gen)
	if d != nil && !d.valid() {
		return nil, true
	}
	return d, true
}

// remember keeps a verdict for the frame that find was called for.
func (c *flows) remember(v *bridge.Verdict, gen uint64) {
	*c.cache.Insert(&c.key, c.hash, gen) = decision{src: v.Src, dst: v.Dst, out: v.Port}
}

// judge decides what becomes of frame i, which came from port in, and puts it on
// the way: on the output lists, or nowhere.
func (t *turn) judge(in *port, i int) {
	f := &t.frames[i]
	f.InPort = in.index
	if reason := inspect(f); reason != trace.None {
		t.tally.refused(f)
		drop(in, reason, 1)
		return
	}
	t.tally.frame(f)
	d, cacheable := t.flows.find(f, t.view.gen)
	if d != nil {
		t.replay(in, d, i)
		return
	}
	t.tally.misses++
	v := decide(in, f, t.now)
	if cacheable && v.Action == bridge.Forward && v.Src.Valid() && v.Dst.Valid() {
		t.flows.remember(&v, t.view.gen)
	}
	t.apply(in, &v, i)
}

// replay does what the flow cache remembers. A datagram that continues the one
// before it joins its frame, as GRO would have it: from here on the train is one
// frame, for which the way to the receiver's socket is gone only once.
func (t *turn) replay(in *port, d *decision, i int) {
	d.src.Touch(t.now)
	t.tally.hits++
	if d == t.last.flow && t.frames[t.last.frame].Absorb(&t.frames[i]) {
		return
	}
	t.last = train{}
	if t.send(in, t.view.port(d.out), i) {
		t.last = train{flow: d, frame: i}
	}
}

// inspect parses the frame and refuses what no step behind it should have to
// expect: headers that contradict themselves, and offload metadata that
// contradicts the headers.
func inspect(f *packet.Frame) trace.Reason {
	if f.Len() == 0 {
		return trace.Truncated
	}
	if r := faultReason(f.View.Parse(f.Bytes())); r != trace.None {
		return r
	}
	if !f.CheckVnet() {
		return trace.BadOffload
	}
	return trace.None
}

// faultReason names the drop reason of a parse fault.
func faultReason(f packet.Fault) trace.Reason {
	switch f {
	case packet.FaultNone:
		return trace.None
	case packet.FaultEthernet:
	case packet.FaultVLAN:
		return trace.MalformedVLAN
	case packet.FaultARP:
		return trace.MalformedARP
	case packet.FaultIPv4:
		return trace.MalformedIPv4
	case packet.FaultIPv6:
		return trace.MalformedIPv6
	case packet.FaultExtHdr:
		return trace.MalformedExtHdr
	case packet.FaultL4:
		return trace.MalformedL4
	}
	return trace.MalformedEthernet
}

// decide is the slow path: one function of the view (through its port), the
// tables of the bridge, the frame and the clock. It sends and counts nothing;
// its result is all that happens. The fast path replays it.
func decide(in *port, f *packet.Frame, now bridge.Tick) bridge.Verdict {
	return in.bridge.Input(in.index, f, now)
}

// apply does what a verdict of the slow path says.
func (t *turn) apply(in *port, v *bridge.Verdict, i int) {
	if v.Learned {
		t.tally.learned++
	}
	switch v.Action {
	case bridge.Forward:
		t.send(in, t.view.port(v.Port), i)
	case bridge.Flood:
		t.flood(in, v.Local, i)
	default:
		drop(in, v.Reason, 1)
	}
}

// flood sends frame i to every port of the bridge but the one that it came from.
// All of them get the same buffer: a flood copies nothing, and what must be cut
// is cut once for all ports without offload. The host stack gets only what it can
// have a use for, as a network card filters for its host.
func (t *turn) flood(in *port, local bool, i int) {
	t.tally.flooded++
	gso := t.frames[i].Vnet.IsGSO()
	for _, index := range in.bridge.FloodPorts() {
		out := t.view.port(index)
		switch {
		case index == in.index:
		case gso && out != nil && !out.offload:
			if t.admits(in, out, i) {
				t.out.share = append(t.out.share, out)
			}
		default:
			t.send(in, out, i)
		}
	}
	if local && wants(&t.frames[i].View) {
		t.send(in, in.local, i)
	}
	if len(t.out.share) > 0 {
		t.flush() // what is before it goes first
		t.out.scatter(&t.frames[i])
	}
}

// send puts frame i on the list of an output port. It reports whether the frame
// is on the list.
func (t *turn) send(in, out *port, i int) bool {
	if !t.admits(in, out, i) {
		return false
	}
	if t.out.full() {
		t.flush()
	}
	t.out.add(out.index, i)
	return true
}

// flush sends what waits for the end of the turn now.
func (t *turn) flush() {
	t.out.flush(t.view, t.frames)
	t.last = train{} // it has left
}

// admits reports whether frame i may leave by an output port; if not, it is
// dropped, and counted at the input port, once for each output port. The bridge's
// tables change together with the view, so that out exists; nil would be a
// defect, and costs the frame but not the process.
func (t *turn) admits(in, out *port, i int) bool {
	f := &t.frames[i]
	if out == nil {
		drop(in, trace.PortRemoved, 1)
		return false
	}
	if ipLen(f) > out.mtu {
		drop(in, trace.TooBig, 1)
		return false
	}
	n := work(f, out)
	if t.tally.work+n > maxWork {
		drop(in, trace.OutputBudget, 1)
		return false
	}
	t.tally.work += n
	return true
}

// ipLen is what an MTU limits: the largest IP packet that the frame stands for,
// or the payload of what is not IP.
func ipLen(f *packet.Frame) int {
	if n := f.L3Len(); n != 0 {
		return n
	}
	return f.Len() - f.View.L3
}
