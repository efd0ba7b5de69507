// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"slices"
	"sync"

	"sluice/policy"
	"sluice/policy/nft"
	"sluice/trace"
)

// RuleDrop is which rule has dropped or refused a frame of a port last. Of a flow whose
// frames are dropped by what the flow cache remembers, it is the first one.
type RuleDrop struct {
	Port   uint16 `json:"port"`
	Reason string `json:"reason"`
	// Namespace is whose ruleset it was if not of that which the port is in: the frame has
	// come to it by a link. Own says that the ruleset was the port's.
	Namespace string `json:"namespace,omitempty"`
	Own       bool   `json:"own,omitempty"`
	// Table and Chain say where the rule is; Chain is empty if it is gone.
	Table  string `json:"table"`
	Chain  string `json:"chain,omitempty"`
	Handle uint64 `json:"handle,omitempty"` // 0: the chain's policy
	Rule   string `json:"rule,omitempty"`
	Pos    string `json:"pos,omitempty"` // file and line
}

// culprit is one that a port remembers: by handles, so that no ruleset is kept for it.
type culprit struct {
	told          *told // nil: nothing was dropped
	own, isPolicy bool
	table, handle uint64 // the handle of a rule or, with isPolicy, of a chain
}

// culprits are those of a port: of frames that are dropped, and refused.
type culprits struct {
	mu sync.Mutex
	// +checklocks:mu
	dropped culprit
	// +checklocks:mu
	refused culprit
}

// culprits are the port's; they are as old as its socket, or its host stack's interface.
func (p *port) culprits() *culprits {
	if p.sock != nil {
		return &p.sock.culprits
	}
	return &p.link.culprits
}

// note remembers what gave a verdict about a frame of the port.
func (c *culprits) note(r *rules, own bool, v *policy.Verdict) {
	w := &v.Why
	if w.Chain == nil {
		return
	}
	is := culprit{told: r.told, own: own, table: w.Table.Handle, isPolicy: w.Rule == nil, handle: w.Chain.Handle}
	if w.Rule != nil {
		is.handle = w.Rule.Handle
	}
	c.mu.Lock()
	if v.Code == policy.Reject {
		c.refused = is
	} else {
		c.dropped = is
	}
	c.mu.Unlock()
}

// RuleDrops are the last ones of all ports.
func (n *Netstack) RuleDrops() []RuleDrop {
	out := []RuleDrop{}
	v := n.view.Load()
	for _, p := range v.ports {
		if p == nil || p.sock == nil && p.link == nil {
			continue
		}
		c := p.culprits()
		c.mu.Lock()
		dropped, refused := c.dropped, c.refused
		c.mu.Unlock()
		out = v.appendDrop(out, p, trace.NFTDrop, &dropped)
		out = v.appendDrop(out, p, trace.NFTReject, &refused)
	}
	return out
}

// appendDrop appends what a culprit is called, if there is one, and its ruleset.
func (v *view) appendDrop(out []RuleDrop, p *port, reason trace.Reason, c *culprit) []RuleDrop {
	if c.told == nil {
		return out
	}
	s := v.spaces[c.told.space]
	if s == nil {
		return out
	}
	r := s.rules
	if c.own {
		r = s.own[p.index]
	}
	if r == nil {
		return out
	}
	d := RuleDrop{Port: p.index, Reason: reason.String(), Own: c.own}
	if p.space != s {
		d.Namespace = s.spec.Name
	}
	if !c.describe(r.state.Ruleset, &d) {
		return out
	}
	return append(out, d)
}

// maxRuleLine is how much of a rule is told: it may have a set of any length.
const maxRuleLine = 200

// describe finds the culprit in a ruleset, false if its table is gone.
func (c *culprit) describe(rs *nft.Ruleset, d *RuleDrop) bool {
	i := slices.IndexFunc(rs.Tables, func(t *nft.Table) bool { return t.Handle == c.table })
	if i < 0 {
		return false
	}
	t := rs.Tables[i]
	d.Table = t.Family.String() + " " + t.Name
	if !c.isPolicy {
		d.Handle = c.handle
	}
	for _, chain := range t.Chains {
		if c.isPolicy && chain.Handle == c.handle {
			d.Chain = chain.Name
		}
		for _, r := range chain.Rules {
			if !c.isPolicy && r.Handle == c.handle {
				d.Chain = chain.Name
				d.say(t.Family, r)
			}
		}
	}
	return true
}

// say fills in what the rule says, and where it was written.
func (d *RuleDrop) say(f nft.Family, r *nft.Rule) {
	d.Rule = nft.RuleText(f, r, &nft.ListOptions{Stateless: true})
	if len(d.Rule) > maxRuleLine {
		d.Rule = d.Rule[:maxRuleLine] + "…"
	}
	if r.Pos.File != "" {
		d.Pos = fmt.Sprintf("%s:%d", r.Pos.File, r.Pos.Line)
	}
}
