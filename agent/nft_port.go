// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/netstack"
	"sluice/policy/journal"
	"sluice/policy/nft"
)

// Theory of operation.
//
// A port's ruleset is that which is recorded of its attachment or, where there is none,
// its network's, as with queueing disciplines. The first transaction of a port makes it
// its own, which goes on with what was counted; one that leaves no table gives it back
// the network's. Its history is that of its own transactions: what the file makes of the
// network's is none of them. It has tables of family netdev, in which the port is the device "port":
// so that one text is good for every port.

// rules are the ruleset of the port; nil: it has none.
func (a *attachmentRecord) rules(n *networkRecord) *journal.Journal {
	if a.NFT != nil || n == nil {
		return a.NFT
	}
	return n.PortNFT
}

// ruledPort is the port of a namespace that a request means; nil if it means none. An
// uplink's also has the uplink's name, unless an attachment has that.
func (s *state) ruledPort(space, name string) (*attachmentRecord, error) {
	if name == "" {
		return nil, nil
	}
	var uplink *attachmentRecord
	for i := range s.attachments {
		rec := &s.attachments[i]
		n := s.network(rec.Network)
		switch {
		case rec.State == api.StateDeleting || n == nil || n.space() != space: // an uplink's may have a successor
		case rec.Name == name || rec.ID == name:
			return rec, nil
		case rec.Uplink && rec.Network == name:
			uplink = rec
		}
	}
	if uplink != nil {
		return uplink, nil
	}
	return nil, refuse(api.CodeNotFound, "port", "namespace %s has no port %q", space, name)
}

// portRuleset makes the ruleset of a network's ports what the file says. One that says
// what is there already changes nothing.
func (d *declaration) portRuleset(n *networkRecord, c *config.Network) error {
	step := &journal.Step{File: "nft"}
	if c.PortNFT != nil {
		step.Text = *c.PortNFT
	}
	res, err := step.Try(new(nft.Ruleset), journal.World{})
	if err == nil {
		err = netstack.CheckPortRules(res.Ruleset)
	}
	if err != nil {
		i := slices.IndexFunc(d.c.Networks, func(n config.Network) bool { return n.Name == c.Name })
		return d.fault(fmt.Sprintf("networks[%d].ports.nft", i), err)
	}
	was := journal.Empty()
	if n.PortNFT != nil {
		if was, _, err = n.PortNFT.Follow(nil); err != nil {
			return err
		}
	}
	if stateless(was.Ruleset) == stateless(res.Ruleset) {
		return nil
	}
	gone, err := (&journal.Step{Text: "flush ruleset"}).Apply(was.Ruleset)
	if err != nil {
		return err
	}
	if n.PortNFT, _ = new(journal.Journal).With(journal.Empty(), *step, res.Ruleset); len(res.Ruleset.Tables) == 0 {
		n.PortNFT = nil
	}
	res.Changes = append(gone.Changes, res.Changes...)
	d.t.edits = append(d.t.edits, &edit{Result: res, space: n.space(), ruleset: networkRulesKey(c.Name)})
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
