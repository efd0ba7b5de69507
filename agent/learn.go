// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"sluice/api"
	"sluice/autoconf"
	"sluice/routing"
)

// Theory of operation.
//
// Who asks a nic's link for addresses is the dataplane (autoconf.Learner), since what
// comes back are a stranger's bytes. It tells that there is something new, the agent
// asks what, makes addresses and routes of it in one transaction, and tells the
// dataplane the result. What was learned is in the record: the next dataplane is given
// it, uses it at once, and has it confirmed. Times are of the boot that is noted with
// it; after another one everything is asked anew.

// The origins of routes that were learned, rtnetlink(7).
const (
	protoDHCP routing.Proto = 16
	protoRA   routing.Proto = 9
)

// learnRetry is when the dataplane is asked again, if it could not answer.
const learnRetry = time.Second

// wakeLearner never blocks.
func (a *Agent) wakeLearner() {
	select {
	case a.learned <- struct{}{}:
	default:
	}
}

// learn follows what devices are told by their links. It looks at everything when it
// begins: the dataplane may have been told something while there was no agent.
func (a *Agent) learn(ctx context.Context) {
	a.wakeLearner()
	for {
		wait := tendEvery
		select {
		case <-ctx.Done():
			return
		case <-a.learned:
		case <-time.After(wait):
		}
		if err := a.learnOnce(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("what an uplink was told is not in force", "err", err)
			pause(ctx, learnRetry)
		}
	}
}

func (a *Agent) learnOnce(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	st, err := a.store.read()
	if err != nil {
		return err
	}
	var all []error
	for i := range st.networks {
		n := &st.networks[i]
		if n.Uplink == nil || n.Uplink.NIC == nil || !n.Uplink.NIC.learns() {
			continue
		}
		c := a.plane.client.Load()
		if c == nil {
			return nil // it is being replaced, and will tell
		}
		l, err := c.Learned(ctx, n.space(), n.Name)
		if err == nil {
			err = a.take(ctx, n, l)
		}
		if err != nil {
			all = append(all, fmt.Errorf("uplink %s: %w", n.Name, err))
		}
	}
	return errors.Join(all...)
}

// take makes what a nic was told its addresses and routes, if it is anything new.
func (a *Agent) take(ctx context.Context, n *networkRecord, l *autoconf.Learned) error {
	was := n.Uplink.NIC.Learned
	if l == nil || reflect.DeepEqual(l, was) || was == nil && reflect.DeepEqual(l, new(autoconf.Learned)) {
		return nil
	}
	if err := l.Check(); err != nil {
		return err
	}
	own, err := identify(a.ownNS)
	if err != nil {
		return err
	}
	var e *editor
	undo, err := a.store.attempt(func(t *txn) (err error) {
		if e, err = newEditor(t, n.space(), &a.sets); err != nil {
			return err
		}
		return e.learn(n.Name, l, own.Boot)
	})
	if err != nil {
		return err
	}
	if err := a.tell(ctx, undo); err != nil {
		return err
	}
	e.note(a)
	if !l.Same(was) {
		a.log.Info("learned", "uplink", n.Name, "addresses", l.Addresses(), "routes", len(l.AllRoutes()), "nameservers", l.Nameservers())
	}
	return nil
}

// learn makes the addresses and routes of a nic those that it was told.
func (e *editor) learn(name string, l *autoconf.Learned, boot string) error {
	n := e.st.network(name)
	if n == nil || n.Uplink == nil || n.Uplink.NIC == nil {
		return nil // it went in the meantime
	}
	e.rewire()
	e.kept = slices.DeleteFunc(e.kept, func(r routing.Route) bool { return isLearned(&r, name) })
	nic := n.Uplink.NIC
	nic.Learned, nic.Boot = l, boot
	e.st.readdress(n)
	e.networks[name] = true
	set, err := e.routes()
	if err != nil {
		return err
	}
	e.set = n.withLearned(set, e.own())
	return e.finish()
}

// isLearned reports whether a route was learned by a device.
func isLearned(r *routing.Route, dev string) bool {
	return (r.Proto == protoDHCP || r.Proto == protoRA) && len(r.NextHops) == 1 && r.NextHops[0].Dev == dev
}

// readdress makes the addresses of a nic those that are stated, and those that were
// learned. One of a network of the namespace is left out: whoever is on the link must
// not take containers away.
func (s *state) readdress(n *networkRecord) {
	nic := n.Uplink.NIC
	n.Subnets, n.Gateways, nic.Clash = nil, nil, ""
	for _, p := range nic.Static {
		n.Subnets, n.Gateways = append(n.Subnets, p.Masked()), append(n.Gateways, p.Addr())
	}
	for _, p := range nic.Learned.Addresses() {
		if slices.Contains(n.Gateways, p.Addr()) {
			continue
		}
		if whose := s.meets(n, p.Masked()); whose != "" {
			nic.Clash = fmt.Sprintf("its link gives it %s, which overlaps network %s", p, whose)
			continue
		}
		n.Subnets, n.Gateways = append(n.Subnets, p.Masked()), append(n.Gateways, p.Addr())
	}
}

// meets is another network of the namespace and VRF that a prefix overlaps; empty: none.
func (s *state) meets(n *networkRecord, p netip.Prefix) string {
	for _, o := range s.in(n.space()) {
		if o.Name != n.Name && o.VRF == n.VRF && slices.ContainsFunc(o.Subnets, p.Overlaps) {
			return o.Name
		}
	}
	return ""
}

// withLearned adds the routes that a nic was told of, but for those that can't be, or
// that the user has.
func (n *networkRecord) withLearned(set *routing.Set, rec *namespaceRecord) *routing.Set {
	nic := n.Uplink.NIC
	table, _ := rec.vrfTable(n.VRF)
	for _, r := range nic.Learned.AllRoutes() {
		if r.Dst.Bits() == 0 && !n.Uplink.DefaultRoute {
			continue
		}
		proto := protoRA
		if r.DHCP {
			proto = protoDHCP
		}
		hop := routing.NextHop{Via: r.Via, Dev: n.Name}
		hop.Onlink = r.Via.Is4() && !slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(r.Via) })
		next, err := set.Apply([]routing.Change{{Route: &routing.Route{
			Prefix: r.Dst.Masked(), Table: table, Proto: proto, NextHops: []routing.NextHop{hop},
		}}})
		if err == nil {
			set = next
		}
	}
	return set
}

// learns reports whether anything is asked of the link.
func (r *nicRecord) learns() bool { return r.DHCP || r.SLAAC || r.DHCP6 }

// nameservers are those that are stated, and those that were learned.
func (r *nicRecord) nameservers() []netip.Addr {
	out := slices.Clone(r.DNS)
	for _, a := range r.Learned.Nameservers() {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// learnSpec is what the dataplane is to ask of a nic's link.
func (n *networkRecord) learnSpec() autoconf.Learn {
	if n.Uplink == nil || n.Uplink.NIC == nil || !n.Uplink.NIC.learns() {
		return autoconf.Learn{}
	}
	nic := n.Uplink.NIC
	return autoconf.Learn{DHCP: nic.DHCP, SLAAC: nic.SLAAC, DHCP6: nic.DHCP6, Again: nic.Again, Held: nic.Learned}
}

// forgetOldBoot forgets what was learned in another boot, or is told by nobody any more.
func (t *txn) forgetOldBoot(boot string, built *sets) error {
	for i := range t.state.networks {
		n := &t.state.networks[i]
		if n.Uplink == nil || n.Uplink.NIC == nil || n.Uplink.NIC.Learned == nil || n.Uplink.NIC.Boot == boot {
			continue
		}
		e, err := newEditor(t, n.space(), built)
		if err != nil {
			return err
		}
		if err := e.learn(n.Name, nil, ""); err != nil {
			return err
		}
	}
	return nil
}

// trim leaves out what is not asked for any more.
func (r *nicRecord) trim() {
	if r.Learned == nil {
		return
	}
	l := *r.Learned
	if !r.DHCP {
		l.DHCP = nil
	}
	if !r.DHCP6 {
		l.DHCP6 = nil
	}
	if !r.SLAAC {
		l.Routers, l.Prefixes, l.Routes, l.DNS = nil, nil, nil, nil
	}
	r.Learned = &l
}

// asker is the network of a nic that asks its link, and has a port; nil: there is none.
func (s *state) asker(port uint16) *networkRecord {
	rec := s.find(func(r *attachmentRecord) bool { return r.Uplink && r.Port == port && r.State == api.StateReady })
	if rec == nil {
		return nil
	}
	if n := s.network(rec.Network); n != nil && n.Uplink != nil && n.Uplink.NIC != nil && n.Uplink.NIC.learns() {
		return n
	}
	return nil
}

// reconfirm has what a nic was told confirmed, whose link was interrupted.
func (a *Agent) reconfirm(ctx context.Context, port uint16) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	st, err := a.store.read()
	if err != nil || st.asker(port) == nil {
		return err
	}
	undo, err := a.store.attempt(func(t *txn) error {
		n := t.state.asker(port)
		n.Uplink.NIC.Again++
		return t.putNetwork(n)
	})
	if err != nil {
		return err
	}
	return a.tell(ctx, undo)
}
