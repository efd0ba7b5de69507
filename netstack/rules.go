// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"sluice/conntrack"
	"sluice/policy"
	"sluice/policy/journal"
	"sluice/policy/nft"
)

// Theory of operation.
//
// A namespace may have a ruleset in the language of nft(8). It travels as a journal: a
// namespace that has one already goes on with the transactions since, so that what rules
// have counted stays. They are read and compiled beside the one in force, which changes
// between two rounds of the workers, together with all else in the snapshot.

// rules are the ruleset of a namespace in one view. The engine lives on.
type rules struct {
	engine *policy.Engine
	state  *journal.State
	env    *policy.Env
	evals  []evaluator // by worker
	told   *told

	devices map[uint16]*policy.Device // of the view
	frames  bool                      // some chain sees frames, and not only packets

	// Of a port: its number, whose it is, and how it calls that.
	port   uint16
	tenure uint32
	self   *policy.Device
}

// evaluator is one worker's.
type evaluator struct {
	*policy.Evaluator
	seen   uint64 // the last packet whose trace has begun, see turn.tracks
	pinned bool
	_      [40]byte // a cache line of its own
}

// loopback is the number that rules know the device lo by. What a namespace's own stack
// sends to itself never leaves it: only what its router says comes by lo, see passing.loop.
const loopback = MaxIndex + 1

// arphrdEther is the type of all devices.
const arphrdEther = 1

// RuleDevices are the devices that the ruleset of a namespace can name, with their
// numbers.
func (s *NamespaceSpec) RuleDevices() map[string]uint32 {
	all := map[string]uint32{"lo": loopback}
	for i := range s.Networks {
		all[s.Networks[i].Name] = uint32(s.Networks[i].Bridge.Index)
	}
	for i := range s.Links {
		all[s.Links[i].Name] = uint32(s.Links[i].Index)
	}
	for i := range s.Sockets {
		all[s.Sockets[i].Name] = uint32(s.Sockets[i].Index)
	}
	return all
}

// ruleDevices are what rules know of devices, by number: of ports, too. One number is
// not bound to a name of a port, since it may be another's tomorrow.
func (s *NamespaceSpec) ruleDevices() map[uint16]*policy.Device {
	all := make(map[uint16]*policy.Device)
	for name, index := range s.RuleDevices() {
		kind := "veth"
		if slices.ContainsFunc(s.Networks, func(n NetworkSpec) bool { return n.Name == name }) {
			kind = "bridge"
		}
		all[uint16(index)] = policy.NewDevice(name, policy.Device{Index: index, Type: arphrdEther, Kind: kind})
	}
	for i := range s.Networks {
		n := &s.Networks[i]
		for j := range n.Ports {
			all[n.Ports[j].Index] = n.Ports[j].ruleDevice(n.Ports[j].Device, all[n.Bridge.Index])
		}
	}
	return all
}

func (p *PortSpec) ruleDevice(name string, bridge *policy.Device) *policy.Device {
	return policy.NewDevice(name, policy.Device{Index: uint32(p.Index), Type: arphrdEther, Kind: "veth", Bridge: bridge})
}

// rules prepares the ruleset of a namespace, which comes into force with the view.
func (c *change) rules(next, was *space) error {
	var old *rules
	if was != nil {
		old = was.rules
	}
	next.named, next.told = next.spec.ruleDevices(), &told{space: next.spec.Name}
	if was != nil {
		next.told = was.told
	}
	if next.spec.Rules == nil {
		if old != nil {
			c.retired = append(c.retired, old.close)
		}
		return nil
	}
	r, err := c.ruleset(old, 0, next.told, next.spec.Rules, CheckRules)
	if err != nil {
		return err
	}
	r.devices, next.rules = next.named, r
	return nil
}

// ownRules prepares the rulesets of a namespace's ports. One that is another container's
// now begins anew.
func (c *change) ownRules(next, was *space) error {
	next.own = make(map[uint16]*rules)
	old := map[uint16]*rules{}
	if was != nil {
		old = was.own
	}
	for i := range next.spec.Networks {
		n := &next.spec.Networks[i]
		for j := range n.Ports {
			p := &n.Ports[j]
			if p.Rules == nil {
				continue
			}
			before := old[p.Index]
			if before != nil && before.tenure != p.Tenure {
				before = nil
			}
			r, err := c.ruleset(before, p.Index, next.told, p.Rules, CheckPortRules)
			if err != nil {
				return fmt.Errorf("port %d: %w", p.Index, err)
			}
			r.tenure, r.self = p.Tenure, p.ruleDevice(ownDevice, next.named[n.Bridge.Index])
			r.devices, r.env = next.named, &policy.Env{FIB: next.fib}
			next.own[p.Index] = r
		}
	}
	for index, r := range old {
		if next.own[index] == nil || next.own[index].engine != r.engine {
			c.retired = append(c.retired, r.close)
		}
	}
	return nil
}

// ruleset prepares the next state of the ruleset of a port, or for 0 of the namespace; old
// is the one before, or nil.
func (c *change) ruleset(old *rules, port uint16, told *told, j *journal.Journal, check func(*nft.Ruleset) error) (*rules, error) {
	r := &rules{port: port}
	if old != nil {
		r.engine, r.evals, r.state, r.told, r.frames = old.engine, old.evals, old.state, old.told, old.frames
	} else if err := c.newEngine(r, told); err != nil {
		return nil, err
	}
	state, changes, err := j.Follow(r.state)
	if err == nil {
		err = check(state.Ruleset)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: nft: %w", ErrInvalid, err)
	}
	if old == nil || state.Sum != old.state.Sum || state.Serial != old.state.Serial {
		publish, err := r.engine.Prepare(state.Ruleset, changes, int64(c.net.elapsed()))
		if err != nil {
			return nil, fmt.Errorf("%w: nft: %w", ErrInvalid, err)
		}
		c.swaps = append(c.swaps, publish)
		r.frames = SeesFrames(state.Ruleset)
	}
	r.state = state
	return r, nil
}

// frameRules are the namespace's rules if they see frames.
func (s *space) frameRules() *rules {
	if s.rules == nil || !s.rules.frames {
		return nil
	}
	return s.rules
}

func (c *change) newEngine(r *rules, told *told) error {
	var b [20]byte
	if _, err := rand.Read(b[:]); err != nil {
		return err
	}
	r.engine = policy.New([2]uint64{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:16])})
	r.evals, r.told = make([]evaluator, len(c.net.workers)), told
	for i := range r.evals {
		e := r.engine.Evaluator()
		e.SetTracer(func(e *policy.TraceEvent) { told.take(traced{e, r.port}) })
		e.LimitTraces(binary.LittleEndian.Uint32(b[16:])^uint32(i)<<24, r.told.admit) // numbers that look as the kernel's
		r.evals[i].Evaluator = e
	}
	return nil
}

// close ends the evaluators. No worker uses them any more.
func (r *rules) close() {
	for i := range r.evals {
		r.evals[i].Close()
	}
}

// device is what rules know of a device; nil of none.
func (r *rules) device(index uint16) *policy.Device { return r.devices[index] }

// ruleEnv is what rules may ask of the namespace.
func (s *space) ruleEnv(conns *Connections) *policy.Env {
	return &policy.Env{
		FIB:   s.fib,
		Route: s.route,
		Connection: func(zone uint16, t *conntrack.Tuple) conntrack.Conn {
			conn, _ := conns.table.Find(zone, *t)
			return conn
		},
	}
}

// evaluator is the worker's, pinned for the round.
func (t *turn) evaluator(r *rules) *policy.Evaluator {
	e := &r.evals[t.worker]
	if !e.pinned {
		e.Pin()
		e.pinned = true
		t.pinned = append(t.pinned, e)
	}
	return e.Evaluator
}

// unpin ends the round for the evaluators that it used.
func (t *turn) unpin() {
	for i, e := range t.pinned {
		e.Unpin()
		e.pinned, t.pinned[i] = false, nil
	}
	t.pinned = t.pinned[:0]
}

// everySecond lets elements expire.
func (r *rules) everySecond(now time.Duration) { r.engine.Tick(int64(now)) }
