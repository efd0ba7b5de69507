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

// ErrNoRules is returned for a namespace without a ruleset.
var ErrNoRules = errors.New("the namespace has no ruleset")

// RuleList answers a query, with what was counted up to now.
func (ns *Namespace) RuleList(q *RuleQuery) (string, error) {
	s := ns.space()
	r, tree := &rules{engine: policy.New([2]uint64{})}, &nft.Ruleset{}
	if s == nil {
		return "", ErrClosed
	}
	if s.rules != nil {
		r, tree = s.rules, s.rules.state.Ruleset
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

// RulesLive reports whether a set has an element that packets have added.
func (ns *Namespace) RulesLive(table uint64, set, key string) bool {
	s := ns.space()
	return s != nil && s.rules != nil && s.rules.engine.Live(table, set, key, int64(ns.net.elapsed()))
}

// SaveRules is what rules and sets remember, for another process to go on with; nil if
// the namespace has no ruleset.
func (ns *Namespace) SaveRules() *policy.Saved {
	s := ns.space()
	if s == nil || s.rules == nil {
		return nil
	}
	return s.rules.engine.Export(int64(ns.net.elapsed()))
}

// RestoreRules is the opposite of SaveRules.
func (ns *Namespace) RestoreRules(saved *policy.Saved) {
	if s := ns.space(); s != nil && s.rules != nil {
		s.rules.engine.Import(saved, int64(ns.net.elapsed()))
	}
}
