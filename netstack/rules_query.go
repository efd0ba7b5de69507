// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"slices"
	"strings"

	"sluice/policy"
	"sluice/policy/journal"
	"sluice/policy/nft"
)

// RuleQuery asks for a part of a ruleset, with the options of nft(8).
type RuleQuery struct {
	// Port is whose ruleset is meant; 0: the namespace's.
	Port uint16 `json:"port,omitempty"`
	// Text are commands: list, get, reset.
	Text     string `json:"text"`
	TextJSON bool   `json:"text_json,omitempty"`
	// Only are those of them that are to be answered; none: all.
	Only []nft.CmdOp `json:"only,omitempty"`

	JSON         bool `json:"json,omitempty"`
	Handles      bool `json:"handles,omitempty"`
	Stateless    bool `json:"stateless,omitempty"`
	Terse        bool `json:"terse,omitempty"`
	Numeric      bool `json:"numeric,omitempty"`
	NumericPrio  bool `json:"numeric_prio,omitempty"`
	NumericProto bool `json:"numeric_proto,omitempty"`
	NumericTime  bool `json:"numeric_time,omitempty"`
	Services     bool `json:"services,omitempty"`
}

// Options are those of listings.
func (q *RuleQuery) Options() *nft.ListOptions {
	return &nft.ListOptions{
		Handles: q.Handles, Stateless: q.Stateless, Terse: q.Terse, Numeric: q.Numeric,
		NumericPrio: q.NumericPrio, NumericProto: q.NumericProto, NumericTime: q.NumericTime, Services: q.Services,
	}
}

// ErrNoRules is returned for a namespace without a ruleset, ErrNoPortRules for a port
// without one.
var (
	ErrNoRules     = errors.New("the namespace has no ruleset")
	ErrNoPortRules = errors.New("the port has no ruleset")
)

// RuleList answers a query, with what was counted up to now.
func (ns *Namespace) RuleList(q *RuleQuery) (string, error) {
	s := ns.space()
	r, tree := &rules{engine: policy.New([2]uint64{})}, &nft.Ruleset{}
	if s == nil {
		return "", ErrClosed
	}
	if there := s.ruleset(q.Port); there != nil {
		r, tree = there, there.state.Ruleset
	}
	step := journal.Step{Text: q.Text, JSON: q.TextJSON}
	cmds, err := step.Parse()
	if err != nil {
		return "", err
	}
	names := make(map[uint32]string)
	for name, index := range s.spec.RuleDevices() {
		names[index] = name
	}
	o := q.Options()
	o.State = r.engine.States(int64(ns.net.elapsed()))
	o.Env = &nft.Env{IfName: func(index uint32) (string, bool) { n, ok := names[index]; return n, ok }}
	var out strings.Builder
	for _, c := range cmds {
		if c.Op != nft.OpList && c.Op != nft.OpGet && c.Op != nft.OpReset || len(q.Only) > 0 && !slices.Contains(q.Only, c.Op) {
			continue
		}
		text, err := tree.Answer(c, o, q.JSON)
		if err != nil {
			return "", err
		}
		out.WriteString(text)
	}
	return out.String(), nil
}

// ruleset is that of a port, or the namespace's for port 0; nil: there is none.
func (s *space) ruleset(port uint16) *rules {
	switch {
	case s == nil:
		return nil
	case port == 0:
		return s.rules
	}
	return s.own[port]
}

// RulesLive reports whether a set has an element that packets have added, in the ruleset
// of a port, or for 0 the namespace's.
func (ns *Namespace) RulesLive(port uint16, table uint64, set, key string) bool {
	r := ns.space().ruleset(port)
	return r != nil && r.engine.Live(table, set, key, int64(ns.net.elapsed()))
}

// SaveRules is what the rules and sets of a port, or for 0 the namespace's, remember, for
// another process to go on with; nil if there is no ruleset.
func (ns *Namespace) SaveRules(port uint16) *policy.Saved {
	r := ns.space().ruleset(port)
	if r == nil {
		return nil
	}
	return r.engine.Export(int64(ns.net.elapsed()))
}

// RestoreRules is the opposite of SaveRules, and reports whether there is such a ruleset.
// What a port has counted under another tenure was another's.
func (ns *Namespace) RestoreRules(port uint16, tenure uint32, saved *policy.Saved) bool {
	r := ns.space().ruleset(port)
	if r == nil || r.tenure != tenure {
		return false
	}
	r.engine.Import(saved, int64(ns.net.elapsed()))
	return true
}
