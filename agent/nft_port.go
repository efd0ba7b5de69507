// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/policy/journal"
	"sluice/policy/nft"
)

// Theory of operation.
//
// A port's ruleset is that which is recorded of its attachment or, where there is none,
// its network's, as with queueing disciplines. The first transaction of a port makes it
// its own, which goes on with what was counted; one that leaves no table gives it back
// the network's. It has tables of family netdev, in which the port is the device "port":
// so that one text is good for every port.

// rules are the ruleset of the port; nil: it has none.
func (a *attachmentRecord) rules(n *networkRecord) *journal.Journal {
	if a.NFT != nil || n == nil {
		return a.NFT
	}
	return n.PortNFT
}

// rulesKey is the port's place among rulesets that were read.
func (a *attachmentRecord) rulesKey() string { return "port " + a.ID }

// ruledPort is the port of a namespace that a request means; nil if it means none.
func (s *state) ruledPort(space, name string) (*attachmentRecord, error) {
	if name == "" {
		return nil, nil
	}
	for i := range s.attachments {
		rec := &s.attachments[i]
		if n := s.network(rec.Network); n != nil && n.space() == space && (rec.Name == name || rec.ID == name || rec.Uplink && rec.Network == name) {
			return rec, nil
		}
	}
	return nil, refuse(api.CodeNotFound, "port", "namespace %s has no port %q", space, name)
}

// editPort changes the ruleset of a port.
func (a *Agent) editPort(ctx context.Context, e *editor, name string, step *journal.Step) (*edit, error) {
	rec, err := e.st.ruledPort(e.space, name)
	if err != nil {
		return nil, err
	}
	now := rec.rules(e.st.network(rec.Network))
	from, err := a.rulesets.of(rec.rulesKey(), now)
	if err != nil {
		return nil, err
	}
	res, err := step.Try(from.Ruleset, journal.World{
		Live: func(t *nft.Table, s *nft.Set, key string) bool {
			there, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (bool, error) {
				return c.RulesLive(ctx, e.space, rec.Port, t.Handle, s.Name, key)
			})
			return err == nil && there
		},
	})
	if err == nil {
		err = netstack.CheckPortRules(res.Ruleset)
	}
	switch {
	case err != nil:
		return nil, err
	case len(res.Ruleset.Tables) > 0:
		if now == nil {
			now = new(journal.Journal)
		}
		rec.NFT, _ = now.With(from, *step, res.Ruleset)
	case rec.NFT == nil && now != nil:
		return nil, errors.New("the ruleset is the network's, and comes back: change it, or the file (networks[].ports.nft)")
	default:
		rec.NFT = nil
	}
	e.attachments[rec.ID] = true
	return &edit{Result: res, space: e.space}, nil
}

// portRuleset makes the ruleset of a network's ports what the file says. One that says
// what is there already changes nothing.
func (d *declaration) portRuleset(n *networkRecord, c *config.Network) error {
	if c.PortNFT == nil {
		n.PortNFT = nil
		return nil
	}
	step := &journal.Step{File: "nft", Text: *c.PortNFT}
	res, err := step.Try(new(nft.Ruleset), journal.World{})
	if err == nil {
		err = netstack.CheckPortRules(res.Ruleset)
	}
	if err != nil {
		i := slices.IndexFunc(d.c.Networks, func(n config.Network) bool { return n.Name == c.Name })
		return d.fault(fmt.Sprintf("networks[%d].ports.nft", i), err)
	}
	if n.PortNFT != nil && strings.Join(rulesetLines(n.PortNFT), "\n")+"\n" == stateless(res.Ruleset) {
		return nil
	}
	if n.PortNFT, _ = new(journal.Journal).With(journal.Empty(), *step, res.Ruleset); len(res.Ruleset.Tables) == 0 {
		n.PortNFT = nil
	}
	return nil
}

// rulesetLines are the lines of a ruleset, as changes are listed.
func rulesetLines(j *journal.Journal) []string {
	if j == nil {
		return nil
	}
	s, _, err := j.Follow(nil)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(stateless(s.Ruleset), "\n"), "\n")
}

// countedKey is the place of what a port's rules have counted, beside those of
// namespaces. A port that goes to another container has another tenure.
func countedKey(space string, port uint16, tenure uint32) string {
	return fmt.Sprintf("%s port %d %d", space, port, tenure)
}

// countedOf is whose a key is; port 0: the namespace's.
func countedOf(key string) (space string, port uint16, tenure uint32) {
	space, rest, is := strings.Cut(key, " port ")
	if is {
		_, _ = fmt.Sscan(rest, &port, &tenure) // what is no number is nobody's
	}
	return space, port, tenure
}
