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
	"sluice/routing"
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
}

// evaluator is one worker's.
type evaluator struct {
	*policy.Evaluator
	pinned bool
	_      [48]byte // a cache line of its own
}

// loopback is the number that rules know the device lo by. No packet has it: what a
// namespace sends to itself never leaves its host stack.
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

// deviceKinds are what meta iifkind says of them.
func (s *NamespaceSpec) ruleDevices() map[uint16]*policy.Device {
	all := make(map[uint16]*policy.Device)
	for name, index := range s.RuleDevices() {
		kind := "veth"
		if slices.ContainsFunc(s.Networks, func(n NetworkSpec) bool { return n.Name == name }) {
			kind = "bridge"
		}
		all[uint16(index)] = policy.NewDevice(name, policy.Device{Index: index, Type: arphrdEther, Kind: kind})
	}
	return all
}

// CheckRules names what of a ruleset no namespace can have.
func CheckRules(r *nft.Ruleset) error {
	for _, t := range r.Tables {
		if t.Family != nft.FamilyIP && t.Family != nft.FamilyIP6 && t.Family != nft.FamilyInet {
			return fmt.Errorf("table %v %s: family %v is not supported", t.Family, t.Name, t.Family)
		}
		for _, c := range t.Chains {
			if c.Base && (c.Hook == nft.HookIngress || c.Hook == nft.HookEgress) {
				return fmt.Errorf("chain %v %s %s: hook ingress is not supported", t.Family, t.Name, c.Name)
			}
		}
	}
	return nil
}

// rules prepares the ruleset of a namespace, which comes into force with the view.
func (c *change) rules(next, was *space) error {
	var old *rules
	if was != nil {
		old = was.rules
	}
	if next.spec.Rules == nil {
		if old != nil {
			c.retired = append(c.retired, old.close)
		}
		return nil
	}
	r := &rules{devices: next.spec.ruleDevices()}
	if old != nil {
		r.engine, r.evals, r.state, r.told = old.engine, old.evals, old.state, old.told
	} else if err := c.newEngine(r, next.spec.Name); err != nil {
		return err
	}
	state, changes, err := next.spec.Rules.Follow(r.state)
	if err == nil {
		err = CheckRules(state.Ruleset)
	}
	if err != nil {
		return fmt.Errorf("%w: nft: %w", ErrInvalid, err)
	}
	if old == nil || state.Sum != old.state.Sum || state.Serial != old.state.Serial {
		publish, err := r.engine.Prepare(state.Ruleset, changes, int64(c.net.elapsed()))
		if err != nil {
			return fmt.Errorf("%w: nft: %w", ErrInvalid, err)
		}
		c.swaps = append(c.swaps, publish)
	}
	r.state, next.rules = state, r
	return nil
}

func (c *change) newEngine(r *rules, space string) error {
	var b [20]byte
	if _, err := rand.Read(b[:]); err != nil {
		return err
	}
	r.engine = policy.New([2]uint64{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:16])})
	r.evals, r.told = make([]evaluator, len(c.net.workers)), &told{space: space}
	for i := range r.evals {
		e := r.engine.Evaluator()
		e.SetTracer(r.told.take)
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
		FIB: s.fib,
		Connection: func(zone uint16, t *conntrack.Tuple) conntrack.Conn {
			conn, _ := conns.table.Find(zone, *t)
			return conn
		},
	}
}

// fib asks the routes: nft_fib of Linux.
func (s *space) fib(p *policy.Packet, q *policy.FIBQuery) (a policy.FIBAnswer) {
	query := routing.Query{Dst: q.Addr}
	if q.Mark {
		query.Mark = p.Mark
	}
	dev := (*policy.Device)(nil)
	switch {
	case q.IIF:
		dev = p.In
	case q.OIF:
		dev = p.Out
	}
	if dev != nil && !q.Type {
		query.OIF = uint16(dev.Index)
	}
	if q.Addr.IsMulticast() {
		a.Type = uint8(routing.Multicast)
		return a
	}
	res := s.router.Set().Lookup(&query)
	a.Type = uint8(res.Type)
	if res.Type == routing.Unicast && res.NextHop != nil {
		a.Device = s.rules.device(res.NextHop.Index)
	}
	return a
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
