// SPDX-License-Identifier: Apache-2.0

package router

import (
	"errors"
	"fmt"

	"sluice/routing"
)

// Port is a port of one of the namespace's networks that rules know by a name.
type Port struct {
	Index uint16 // unique among devices and ports
	Name  string // what `iif` calls it
}

// Spec is what the routing of a namespace is made of.
type Spec struct {
	Devices []Device
	Ports   []Port
	// Routes beside those that the addresses bring. Each may lean on those before
	// it, as a gateway on the route to it; of several with the same key all stay,
	// as `ip route append` has it.
	Routes []routing.Route
	// Restored: the routes are complete, and were checked when they came into an
	// earlier Set. What they leaned on may have gone since, or stand behind them.
	Restored bool
	// Rules of both families, in place of those of a new namespace. Nil: those,
	// and the one for VRFs if a device is in one.
	Rules  []routing.Rule
	Limits routing.Limits
}

// RouteError says which route of a Spec can't be, and why.
type RouteError struct {
	Index int // in Spec.Routes
	Route routing.Route
	Err   error
}

// Error is the route as ip-route(8) writes it, and the fault.
func (e *RouteError) Error() string { return fmt.Sprintf("route %v: %v", &e.Route, e.Err) }

// Unwrap is the fault, one of package routing's where that has one.
func (e *RouteError) Unwrap() error { return e.Err }

// RuleError says which rule of a Spec can't be, and why.
type RuleError struct {
	Index int // in Spec.Rules
	Rule  routing.Rule
	Err   error
}

// Error is the rule as ip-rule(8) writes it, and the fault.
func (e *RuleError) Error() string { return fmt.Sprintf("rule %v: %v", &e.Rule, e.Err) }

// Unwrap is the fault, one of package routing's where that has one.
func (e *RuleError) Unwrap() error { return e.Err }

// l3mdevPriority is that of the rule which Linux makes with the first VRF.
const l3mdevPriority = 1000

// BuildSet makes the routing of a namespace: devices, what their addresses bring,
// rules, and then the routes, which may be in need of all that. The error is a
// *RouteError or a *RuleError if one of those is at fault.
func BuildSet(s *Spec) (*routing.Set, error) {
	list := deviceChanges(s)
	for i := range s.Devices {
		list = appendRoutes(list, routing.OpAppend, Connected(&s.Devices[i]))
	}
	list = appendRoutes(list, routing.OpAppend, ownRoutes())
	list, rules := s.ruleChanges(list)
	routes := len(list)
	op := routing.OpAppend
	if s.Restored {
		op = routing.OpRestore
	}
	list = appendRoutes(list, op, s.Routes)

	set, err := routing.New(s.Limits).Apply(list)
	if at, ok := errors.AsType[*routing.ChangeError](err); ok {
		switch {
		case at.Index >= routes:
			n := at.Index - routes
			return nil, &RouteError{Index: n, Route: s.Routes[n], Err: at.Err}
		case at.Index >= rules && s.Rules != nil:
			n := at.Index - rules
			return nil, &RuleError{Index: n, Rule: s.Rules[n], Err: at.Err}
		case list[at.Index].Device != nil:
			return nil, fmt.Errorf("device %q: %w", list[at.Index].Device.Name, at.Err)
		}
		return nil, fmt.Errorf("route %v: %w", list[at.Index].Route, at.Err)
	}
	return set, err
}

func deviceChanges(s *Spec) []routing.Change {
	list := make([]routing.Change, 0, len(s.Devices)+len(s.Ports)+len(s.Routes))
	for i := range s.Devices {
		d := &s.Devices[i]
		list = append(list, routing.Change{Device: &routing.Device{Name: d.Name, Index: d.Index, Table: d.VRF, Down: d.Down}})
	}
	for _, p := range s.Ports {
		list = append(list, routing.Change{Device: &routing.Device{Name: p.Name, Index: p.Index, Port: true}})
	}
	return list
}

func appendRoutes(list []routing.Change, op routing.Op, routes []routing.Route) []routing.Change {
	for i := range routes {
		list = append(list, routing.Change{Op: op, Route: &routes[i]})
	}
	return list
}

// ruleChanges adds what makes the rules those of the Spec; first is the place of
// its first rule.
func (s *Spec) ruleChanges(list []routing.Change) (_ []routing.Change, first int) {
	if s.Rules == nil {
		return append(list, s.vrfRules()...), len(list)
	}
	for _, f := range []routing.Family{routing.IPv4, routing.IPv6} {
		for _, r := range routing.New(routing.Limits{}).Rules(f) {
			list = append(list, routing.Change{Op: routing.OpDelete, Rule: r})
		}
	}
	first = len(list)
	for i := range s.Rules {
		list = append(list, routing.Change{Rule: &s.Rules[i]})
	}
	return list, first
}

// vrfRules are the rules that come with the first VRF (vrf_add_fib_rules).
func (s *Spec) vrfRules() (list []routing.Change) {
	for i := range s.Devices {
		if s.Devices[i].VRF == 0 {
			continue
		}
		for _, f := range []routing.Family{routing.IPv4, routing.IPv6} {
			list = append(list, routing.Change{Rule: &routing.Rule{
				Family: f, Priority: l3mdevPriority, PrioritySet: true, L3mdev: true, Origin: routing.ProtoKernel,
			}})
		}
		break
	}
	return list
}
