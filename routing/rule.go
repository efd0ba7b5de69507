// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Action is what a rule does with a packet that it selects. Zero is to look it up
// in a table; in a Delete it is any action.
type Action uint8

// The actions of ip-rule(8).
const (
	ActionLookup      Action = iota // look up in Table; go on if it has no route
	ActionGoto                      // go on with the first rule of priority Goto
	ActionNop                       // go on
	ActionBlackhole                 // drop without a word
	ActionUnreachable               // drop; network unreachable
	ActionProhibit                  // drop; administratively prohibited
)

var actionNames = [...]string{"lookup", "goto", "nop", "blackhole", "unreachable", "prohibit"}

// String is the action in ip-rule(8)'s word.
func (a Action) String() string { return nameOf(actionNames[:], int(a)) }

// MarshalText makes JSON show the word.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (a *Action) UnmarshalText(text []byte) error {
	n, ok := indexOf(actionNames[:], string(text))
	if !ok {
		return fmt.Errorf("unknown rule action %q", text)
	}
	*a = Action(n)
	return nil
}

// resultType is the answer of an action that ends the look-up.
func (a Action) resultType() Type {
	switch a {
	case ActionBlackhole:
		return Blackhole
	case ActionProhibit:
		return Prohibit
	default:
		return Unreachable
	}
}

// Ports is a range of ports, both ends in it. Zero selects nothing and means any.
type Ports struct {
	From uint16 `json:"from"`
	To   uint16 `json:"to"`
}

func (p Ports) has(port uint16) bool { return p == Ports{} || p.From <= port && port <= p.To }

// Family of a rule that states no prefix to tell by.
type Family uint8

// The families; zero is IPv4, as it is for ip-rule(8).
const (
	IPv4 Family = iota
	IPv6
)

// Rule is one line of the policy database of a family, ip-rule(8). It selects a
// packet if all that it states applies to it, or, with Not, if that is not so.
type Rule struct {
	Family      Family       `json:"family,omitempty"`      // told by From and To if one is there
	Priority    uint32       `json:"priority"`              // lowest first; equal ones in the order of arrival
	PrioritySet bool         `json:"prioritySet,omitempty"` // false in a Change: Add puts it before all but the first, Delete takes any
	Not         bool         `json:"not,omitempty"`
	From        netip.Prefix `json:"from,omitzero"` // not valid: all
	To          netip.Prefix `json:"to,omitzero"`   // not valid: all
	IIF         string       `json:"iif,omitempty"` // "lo": sent by the namespace itself
	OIF         string       `json:"oif,omitempty"` // only a query with OIF has one
	Mark        uint32       `json:"fwmark,omitempty"`
	Mask        uint32       `json:"fwmask,omitempty"`  // bits of Mark that count; 0: any mark
	TOS         uint8        `json:"tos,omitempty"`     // 0: any
	Proto       uint8        `json:"ipproto,omitempty"` // IP protocol; 0: any
	Sport       Ports        `json:"sport,omitzero"`
	Dport       Ports        `json:"dport,omitzero"`
	L3mdev      bool         `json:"l3mdev,omitempty"` // packet of a VRF's device; Table is the VRF's

	Action   Action  `json:"action"`
	Table    TableID `json:"table,omitempty"` // of ActionLookup; 0: main
	Goto     uint32  `json:"goto,omitempty"`  // of ActionGoto: a priority above the own
	Suppress bool    `json:"suppress,omitempty"`
	// SuppressLen: with Suppress, a route whose prefix is this long or shorter
	// doesn't count, and the next rule is tried.
	SuppressLen uint8 `json:"suppressPrefixlength,omitempty"`
	Origin      Proto `json:"protocol,omitempty"` // who made the rule
}

// is6 reports the family of the rule.
func (r *Rule) is6() bool {
	switch {
	case r.From.IsValid():
		return r.From.Addr().Is6()
	case r.To.IsValid():
		return r.To.Addr().Is6()
	}
	return r.Family == IPv6
}

// complete returns the rule with everything stated but the priority.
func (r *Rule) complete() (*Rule, error) {
	c := *r
	c.Family = IPv4
	if r.is6() {
		c.Family = IPv6
	}
	if c.Action == ActionLookup && !c.L3mdev {
		c.Table = orElse(c.Table, TableMain)
	}
	for _, p := range []*netip.Prefix{&c.From, &c.To} {
		if !p.IsValid() {
			continue
		}
		if p.Addr().Is6() != r.is6() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("prefix %v is not of the rule's family", *p)
		}
		if *p = p.Masked(); p.Bits() == 0 {
			*p = netip.Prefix{}
		}
	}
	c.Mark &= c.Mask
	return &c, c.check()
}

func (r *Rule) check() error {
	switch {
	case r.TOS&3 != 0:
		return errors.New("invalid dsfield (tos): ECN bits must be 0")
	case r.TOS&^r.tosMask() != 0:
		return errors.New("invalid tos: IPv4 rules see its lower five bits only")
	case r.Sport.From > r.Sport.To, r.Dport.From > r.Dport.To:
		return errors.New("port range is upside down")
	case r.IIF != "" && !validDevName(r.IIF), r.OIF != "" && !validDevName(r.OIF):
		return errors.New("invalid device name")
	}
	return r.checkAction()
}

// tosMask are the bits of a packet's type of service that a rule sees: those of RFC
// 1349 in IPv4 (IPTOS_RT_MASK), those of RFC 2474 in IPv6.
func (r *Rule) tosMask() uint8 {
	if r.is6() {
		return 0xfc
	}
	return 0x1c
}

func (r *Rule) checkAction() error {
	switch {
	case r.Action > ActionProhibit:
		return errors.New("unknown action")
	case r.Action != ActionGoto && r.Goto != 0, r.Action != ActionLookup && (r.Table != 0 || r.Suppress || r.L3mdev):
		return fmt.Errorf("action %v can't have a table, goto or suppress_prefixlength too", r.Action)
	case r.L3mdev && r.Table != 0:
		return errors.New("l3mdev and table can't both be specified")
	case r.SuppressLen > 128 || r.SuppressLen != 0 && !r.Suppress:
		return errors.New("invalid suppress_prefixlength")
	}
	return nil
}

// matches reports whether the rule is meant by a Delete that states want, in the
// kernel's way (rule_find): what is zero is not compared, nor is Not.
func (r *Rule) matches(want *Rule) bool {
	return (!want.PrioritySet || want.Priority == r.Priority) &&
		(!want.Suppress || r.Suppress && want.SuppressLen == r.SuppressLen) &&
		meant(want.Action, r.Action) && meant(want.Table, r.Table) && meant(want.Goto, r.Goto) &&
		meant(want.L3mdev, r.L3mdev) && meant(want.Origin, r.Origin) && r.matchesSelector(want)
}

func (r *Rule) matchesSelector(want *Rule) bool {
	return (want.From.Bits() <= 0 || want.From.Masked() == r.From) &&
		(want.To.Bits() <= 0 || want.To.Masked() == r.To) &&
		(want.Mask == 0 || want.Mask == r.Mask && want.Mark&want.Mask == r.Mark) &&
		meant(want.IIF, r.IIF) && meant(want.OIF, r.OIF) && meant(want.TOS, r.TOS) &&
		meant(want.Proto, r.Proto) && meant(want.Sport, r.Sport) && meant(want.Dport, r.Dport)
}

// defaultRules are those of a new network namespace.
func defaultRules(f Family) []*Rule {
	rules := []*Rule{
		{Family: f, Priority: 0, PrioritySet: true, Table: TableLocal, Origin: ProtoKernel},
		{Family: f, Priority: 32766, PrioritySet: true, Table: TableMain, Origin: ProtoKernel},
	}
	if f == IPv4 {
		rules = append(rules, &Rule{Priority: 32767, PrioritySet: true, Table: TableDefault, Origin: ProtoKernel})
	}
	return rules
}

// nextPriority is the priority of a rule that states none: just before the second
// rule, as fib_default_rule_pref has it.
func nextPriority(rules []*Rule) uint32 {
	if len(rules) > 1 && rules[1].Priority > 0 {
		return rules[1].Priority - 1
	}
	return 0
}

// placeOf is where a rule of a priority belongs: behind those of the same.
func placeOf(rules []*Rule, priority uint32) int {
	at, _ := slices.BinarySearchFunc(rules, uint64(priority)+1, func(o *Rule, p uint64) int {
		return cmp.Compare(uint64(o.Priority), p)
	})
	return at
}

// same reports whether two rules differ in nothing but the order of arrival.
func (r *Rule) same(o *Rule) bool { return *r == *o }

// selectsAll reports whether the rule states nothing that a packet could fail.
func (r *Rule) selectsAll() bool {
	c := *r
	c.Family, c.Priority, c.PrioritySet, c.Origin = 0, 0, false, 0
	c.Action, c.Table, c.Goto, c.Suppress, c.SuppressLen = 0, 0, 0, false, 0
	return c == Rule{}
}
