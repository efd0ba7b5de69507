// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/ipam"
)

// apply makes the networks what a text declares.
func (a *Agent) apply(ctx context.Context, r *api.ApplyRequest) (*api.ApplyReply, error) {
	c, err := config.Parse([]byte(r.YAML))
	if err != nil {
		e := &api.Error{Code: api.CodeInvalid, Message: err.Error()}
		if fault, ok := errors.AsType[*config.Error](err); ok {
			e.Field = fault.Field
		}
		return nil, e
	}
	changes, err := a.declare(context.WithoutCancel(ctx), c, r.DryRun)
	if err != nil {
		return nil, err
	}
	if !r.DryRun {
		a.configErr.Store(nil)
	}
	return &api.ApplyReply{Changes: changes}, nil
}

// errDryRun ends a transaction that must leave nothing behind.
var errDryRun = errors.New("dry run")

// declare compares the configuration with the networks as they are, and makes
// the difference: all of it or nothing. The state file comes first; if the
// dataplane then refuses, the file goes back.
func (a *Agent) declare(ctx context.Context, c *config.Config, dryRun bool) ([]api.Change, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var before *state
	changes := []api.Change{}
	err := a.store.update(func(t *txn) (err error) {
		before = t.state
		if changes, err = t.declare(c); err == nil && (dryRun || len(changes) == 0) {
			return errDryRun
		}
		return err
	})
	if errors.Is(err, errDryRun) {
		return changes, nil
	}
	if err != nil {
		return nil, err
	}
	st, err := a.store.read()
	if err == nil {
		a.resetCounters(st, changes)
		err = a.plane.Apply(ctx, st.snapshot(""), nil)
	}
	if err != nil {
		return nil, errors.Join(err, a.store.update(func(t *txn) error { return t.restoreNetworks(before) }))
	}
	for _, ch := range changes {
		a.log.Info("network declared", "change", ch)
	}
	return changes, nil
}

// resetCounters forgets what the ports of new networks counted for somebody else.
func (a *Agent) resetCounters(st *state, changes []api.Change) {
	for _, ch := range changes {
		if n := st.network(ch.Network); n != nil && ch.Action == "add" {
			a.counters.Port(n.Port).Reset()
		}
	}
}

// restoreNetworks puts the networks back to what they were.
func (t *txn) restoreNetworks(before *state) error {
	for i := range t.state.networks {
		if err := t.dropNetwork(t.state.networks[i].Name); err != nil {
			return err
		}
	}
	for i := range before.networks {
		if err := t.putNetwork(&before.networks[i]); err != nil {
			return err
		}
	}
	return nil
}

// declare changes the networks in one transaction and lists the changes:
// removals first, then what the file names, in its order.
func (t *txn) declare(c *config.Config) ([]api.Change, error) {
	changes := []api.Change{}
	for i := range t.state.networks {
		name := t.state.networks[i].Name
		if slices.ContainsFunc(c.Networks, func(n config.Network) bool { return n.Name == name }) {
			continue
		}
		if err := refuseAttached(name, "removed", t.state.of(name)); err != nil {
			return nil, err
		}
		changes = append(changes, api.Change{Action: "remove", Network: name})
		if err := t.dropNetwork(name); err != nil {
			return nil, err
		}
	}
	for i := range c.Networks {
		more, err := t.declareOne(&c.Networks[i])
		if err != nil {
			return nil, err
		}
		changes = append(changes, more...)
	}
	return changes, nil
}

func (t *txn) declareOne(c *config.Network) ([]api.Change, error) {
	old := t.state.network(c.Name)
	if old == nil {
		return t.addNetwork(c)
	}
	n := *old
	n.declare(c)
	if err := refuseStranding(old, &n, t.state.of(n.Name)); err != nil {
		return nil, err
	}
	changes := diff(old, &n)
	if len(changes) == 0 {
		return nil, nil
	}
	return changes, t.putNetwork(&n)
}

// addNetwork decides the port and the gateway's MAC, which stay for good.
func (t *txn) addNetwork(c *config.Network) ([]api.Change, error) {
	var n networkRecord
	n.declare(c)
	n.Port = t.state.freePort()
	if n.Port == 0 {
		return nil, errNoPort()
	}
	mac, err := ipam.MAC(n.Name, newID(), func([6]byte) bool { return false })
	if err != nil {
		return nil, err
	}
	n.MAC = mac
	// The next network of this transaction must see that the port is taken.
	t.state.networks = append(t.state.networks, n)
	return []api.Change{{Action: "add", Network: n.Name}}, t.putNetwork(&n)
}

// refuseAttached refuses to do something to a network because of attachments.
func refuseAttached(network, what string, all []*attachmentRecord) error {
	if len(all) == 0 {
		return nil
	}
	const most = 8 // names in one message
	var names []string
	for _, a := range all[:min(len(all), most)] {
		names = append(names, a.Name)
	}
	if len(all) > most {
		names = append(names, fmt.Sprintf("and %d more", len(all)-most))
	}
	return refuse(api.CodeInUse, "networks", "network %s can't be %s: attached are %s", network, what, strings.Join(names, ", "))
}

// refuseStranding refuses a change that attached containers could not follow:
// their addresses, default routes and MTU are set once, when they are attached.
func refuseStranding(old, n *networkRecord, attached []*attachmentRecord) error {
	var outside []*attachmentRecord
	for _, a := range attached {
		for _, addr := range a.addrs() {
			if !n.holds(addr) {
				outside = append(outside, a)
				break
			}
		}
	}
	if err := refuseAttached(n.Name, fmt.Sprintf("changed to subnets %s", words(n.Subnets)), outside); err != nil {
		return err
	}
	var larger []*attachmentRecord
	for _, a := range attached {
		if a.MTU > n.MTU {
			larger = append(larger, a)
		}
	}
	if err := refuseAttached(n.Name, fmt.Sprintf("changed to mtu %d", n.MTU), larger); err != nil {
		return err
	}
	for _, g := range old.Gateways {
		if !slices.Contains(n.Gateways, g) {
			return refuseAttached(n.Name, fmt.Sprintf("changed to gateways %s", words(n.Gateways)), attached)
		}
	}
	return nil
}

// holds says whether an attachment may have the address.
func (n *networkRecord) holds(addr netip.Addr) bool {
	for i := range n.Subnets {
		if n.pool(i).Check(addr, func(netip.Addr) string { return "" }) == nil {
			return true
		}
	}
	return false
}

// diff lists the fields that differ, in the words and the order of the file.
func diff(old, n *networkRecord) []api.Change {
	before, after := old.fields(), n.fields()
	var out []api.Change
	for i := range after {
		if before[i].value != after[i].value {
			out = append(out, api.Change{
				Action: "change", Network: n.Name, Field: after[i].name, From: before[i].value, To: after[i].value,
			})
		}
	}
	return out
}

// field is one declared field as text.
type field struct{ name, value string }

func (n *networkRecord) fields() []field {
	return []field{
		{"subnets", words(n.Subnets)},
		{"gateways", words(n.Gateways)},
		{"mtu", fmt.Sprint(n.MTU)},
		{"ageing", fmt.Sprintf("%ds", n.AgeingSeconds)},
		{"fdb.max", fmt.Sprint(n.FDBMax)},
		{"fdb.maxPerPort", fmt.Sprint(n.FDBMaxPerPort)},
		{"echo", fmt.Sprint(n.Echo)},
	}
}

// words joins prefixes or addresses with commas.
func words[T fmt.Stringer](all []T) string {
	var out []string
	for _, v := range all {
		out = append(out, v.String())
	}
	return strings.Join(out, ", ")
}
