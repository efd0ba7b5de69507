// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/iproute"
)

// apply makes the networks what a text declares.
func (a *Agent) apply(ctx context.Context, r *api.ApplyRequest) (*api.ApplyReply, error) {
	c, err := config.ParseWith([]byte(r.YAML), func(name string) (*config.Ruleset, error) {
		f, there := r.Rulesets[name]
		if !there {
			return nil, fs.ErrNotExist
		}
		return &config.Ruleset{File: f.File, Text: f.Text, Included: f.Included}, nil
	})
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
	return a.declareAs(ctx, c, origin{}, dryRun)
}

func (a *Agent) declareAs(ctx context.Context, c *config.Config, by origin, dryRun bool) ([]api.Change, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.holdCommitted()
	changes := []api.Change{}
	host, err := a.survey(ctx, c)
	if err != nil {
		return nil, err
	}
	var edits []*edit
	undo, err := a.store.attempt(func(t *txn) (err error) {
		t.host, t.hold = host, a.hold
		defer func() { edits = t.edits }()
		if changes, err = t.declare(c, by, &a.sets); err == nil && (dryRun || len(changes) == 0 && by.config == "") {
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
	if err := a.carryOut(ctx, undo); err != nil {
		return nil, err
	}
	for _, e := range edits {
		a.committed(e)
		a.log.Info("ruleset changed", "namespace", e.space, "port", e.port, "commit", e.number, "changes", len(e.Changes))
	}
	for _, ch := range changes {
		if ch.Object != "nft" || ch.Action == "confirm" { // else it is a line of one of these rulesets
			a.log.Info("declared", "change", ch)
		}
	}
	return changes, nil
}

// tell makes the dataplane forward by a transaction that was committed. If it can't,
// the transaction is taken back.
func (a *Agent) tell(ctx context.Context, undo func() error) error {
	st, err := a.store.read()
	if err == nil {
		a.resetCounters(st)
		err = a.plane.Apply(ctx, st.snapshot(""), nil)
	}
	if err != nil {
		return errors.Join(err, undo())
	}
	a.sets.keep(st.spaces())
	a.rulesets.keep(st)
	return nil
}

// resetCounters forgets what the numbers of new devices counted for somebody else.
func (a *Agent) resetCounters(st *state) {
	was := a.plane.numbers()
	for port := range st.numbers() {
		if !was[port] {
			a.counters.Port(port).Reset()
		}
	}
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
	if old.space() != n.space() {
		if err := refuseAttached(n.Name, "moved to namespace "+n.space(), attached); err != nil {
			return err
		}
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
		{"dns", jsonOrOff(n.DNS == nil, n.DNS)},
		{"namespace", n.space()},
		{"vrf", orNone(n.VRF)},
		{"device", orNone(strings.Join(n.Device.Words(), " "))},
		{"ports", orNone(strings.Join(n.Settings.Words(), " "))},
		{"ports.vlan", vlanText(n.PortVLAN)},
		{"qdisc", orNone(strings.Join(n.Queue.Lines, ", "))},
		{"ports.qdisc", orNone(strings.Join(n.Qdisc, ", "))},
		{"ports.nft", orNone(strings.Join(rulesetLines(n.PortNFT), " "))},
		{"ports.tree", sharesText(n.Shares)},
		{"vlan", vlanText(n.VLAN)},
		{"snooping", jsonOrOff(n.Snooping == nil, n.Snooping)},
		{"advertise", jsonOrOff(n.Services.Advert == nil, n.Services.Advert)},
		{"dhcp", jsonOrOff(n.Services.DHCP4 == nil, n.Services.DHCP4)},
		{"dhcp6", jsonOrOff(n.Services.DHCP6 == nil, n.Services.DHCP6)},
		{"leases", jsonOrOff(n.Leases.Ranges == nil && n.Leases.Exclude == nil && n.Leases.Quarantine == 0, n.Leases)},
		{"fdb.static", orNone(words(n.Stations))},
		{"mdb.static", orNone(words(n.Groups))},
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func vlanText(v *iproute.VLAN) string {
	if !v.Aware() {
		return "none"
	}
	text := fmt.Sprintf("pvid %d tagged %s untagged %s", v.PVID, orNone(v.Tagged.String()), orNone(v.Untagged.String()))
	if v.QinQ {
		text += " qinq"
	}
	return text
}

// jsonLine is a group of settings in a line, none if it is off.
func jsonLine(off bool, c any) []string {
	if off {
		return nil
	}
	return []string{jsonOrOff(off, c)}
}

// jsonOrOff is a group of settings as text.
func jsonOrOff(off bool, c any) string {
	if off {
		return "off"
	}
	text, err := json.Marshal(c)
	if err != nil {
		return "on"
	}
	return string(text)
}

// words joins prefixes or addresses with commas.
func words[T fmt.Stringer](all []T) string {
	var out []string
	for _, v := range all {
		out = append(out, v.String())
	}
	return strings.Join(out, ", ")
}
