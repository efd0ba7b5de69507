// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/json"

	"sluice/netstack"
	"sluice/policy"
)

// RuleList answers what nft(8) is asked about the ruleset of a namespace.
func (c *Client) RuleList(ctx context.Context, namespace string, q *netstack.RuleQuery) (string, error) {
	return table[string](ctx, c, query{What: queryRules, Namespace: namespace, Rules: q})
}

// RulesLive reports whether a set has an element that packets have added: of the table
// with that handle, the set of that name, by its key in the tree. port is whose ruleset
// it is; 0: the namespace's.
func (c *Client) RulesLive(ctx context.Context, namespace string, port uint16, tableHandle uint64, set, key string) (bool, error) {
	return table[bool](ctx, c, query{What: queryRulesLive, Namespace: namespace, Port: port, Table: tableHandle, Words: set, Key: []byte(key)})
}

// RuleLogs are lines of log statements, and how many were too many.
type RuleLogs struct {
	Lines      []netstack.RuleLog `json:"lines"`
	Suppressed uint64             `json:"suppressed,omitempty"`
}

// RuleTraces are lines of `nft monitor trace`, the ports whose rulesets they are of (0:
// the namespace's), and how much was lost.
type RuleTraces struct {
	Lines []string `json:"lines"`
	Ports []uint16 `json:"ports"`
	Lost  uint64   `json:"lost,omitempty"`
}

// RuleLogs takes the lines of log statements of all namespaces that wait.
func (c *Client) RuleLogs(ctx context.Context) (RuleLogs, error) {
	return table[RuleLogs](ctx, c, query{What: queryRuleLogs})
}

// RuleDrops are the rules that have dropped or refused a frame of each port last.
func (c *Client) RuleDrops(ctx context.Context) ([]netstack.RuleDrop, error) {
	return table[[]netstack.RuleDrop](ctx, c, query{What: queryRuleDrops})
}

// RuleTraces takes what is told of packets with nftrace. The first call begins that; it
// ends when nobody asks for some seconds.
func (c *Client) RuleTraces(ctx context.Context, namespace string, q *netstack.RuleQuery) (RuleTraces, error) {
	return table[RuleTraces](ctx, c, query{What: queryRuleTraces, Namespace: namespace, Rules: q})
}

// ExplainRules says what a ruleset does to a packet that nobody has sent.
func (c *Client) ExplainRules(ctx context.Context, namespace string, q *netstack.RuleQuestion) (*netstack.RuleAnswer, error) {
	return table[*netstack.RuleAnswer](ctx, c, query{What: queryRulesExplain, Namespace: namespace, Explain: q})
}

// SaveRules is what the rules and sets of a port, or for 0 of the namespace, remember, in
// JSON; null if it has none.
func (c *Client) SaveRules(ctx context.Context, namespace string, port uint16) (json.RawMessage, error) {
	return table[json.RawMessage](ctx, c, query{What: queryRulesSave, Namespace: namespace, Port: port})
}

// RestoreRules is the opposite of SaveRules, for a port as long as it has that tenure. It
// reports whether there is such a ruleset.
func (c *Client) RestoreRules(ctx context.Context, namespace string, port uint16, tenure uint32, saved json.RawMessage) (bool, error) {
	return table[bool](ctx, c, query{What: queryRulesRestore, Namespace: namespace, Port: port, Tenure: tenure, Saved: saved})
}

// ruleQuery answers the questions about a namespace's ruleset.
func ruleQuery(ns *netstack.Namespace, q *query) (m message, known bool, err error) {
	switch q.What {
	case queryRules:
		var out string
		if q.Rules == nil {
			q.Rules = new(netstack.RuleQuery)
		}
		if out, err = ns.RuleList(q.Rules); err != nil {
			return m, true, refuse("nft", err)
		}
		m, err = whole(out)
	case queryRulesLive:
		m.body = encode(ns.RulesLive(q.Port, q.Table, q.Words, string(q.Key)))
	case queryRuleTraces:
		var l RuleTraces
		if q.Rules == nil {
			q.Rules = new(netstack.RuleQuery)
		}
		var all []netstack.RuleTrace
		all, l.Lost = ns.RuleTraces(q.Rules.Options())
		for i := range all {
			l.Lines, l.Ports = append(l.Lines, all[i].Text), append(l.Ports, all[i].Port)
		}
		m, err = whole(l)
	case queryRulesExplain:
		m, err = explain(ns, q)
	case queryRulesSave:
		m, err = whole(ns.SaveRules(q.Port))
	case queryRulesRestore:
		var saved policy.Saved
		if err = json.Unmarshal(q.Saved, &saved); err != nil {
			return m, true, refuse("saved", err)
		}
		m.body = encode(ns.RestoreRules(q.Port, q.Tenure, &saved))
	default:
		return m, false, nil
	}
	return m, true, err
}

func explain(ns *netstack.Namespace, q *query) (message, error) {
	if q.Explain == nil {
		q.Explain = new(netstack.RuleQuestion)
	}
	a, err := ns.ExplainRules(q.Explain)
	if err != nil {
		return message{}, refuse("nft", err)
	}
	return whole(a)
}
