// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"sluice/api"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/policy/journal"
	"sluice/policy/nft"
)

// Theory of operation.
//
// A ruleset is a namespace's or a port's. It is changed, remembered and undone in the
// same way, whosever it is; what differs is here: whose record has it, what it may name,
// and that a port without one has its network's.

// rulesRecord is a ruleset in the state file: a part of the record of who has it.
type rulesRecord struct {
	// NFT is the ruleset; nil: there is none, or that of the port's network.
	NFT *journal.Journal `json:"nft,omitempty"`
	// NFTBefore is how many transactions there were before those of NFT; NFTGiven is how
	// many of its first steps are none, since the port had them from its network.
	NFTBefore uint64 `json:"nft_before,omitempty"`
	NFTGiven  int    `json:"nft_given,omitempty"`
	// NFTConfirm is the last transaction while it waits to be confirmed.
	NFTConfirm *pendingCommit `json:"nft_confirm,omitempty"`
}

// ruled is a ruleset, with who has it.
type ruled struct {
	*rulesRecord
	space string
	// key tells it from all others: in the archive, among those that were read, and for
	// who listens.
	key  string
	port *attachmentRecord // nil: it is the namespace's
	// given is the ruleset in force where a port has none of its own; nil: none.
	given *journal.Journal
}

// ruled is the namespace's ruleset.
func (n *namespaceRecord) ruled() *ruled {
	return &ruled{rulesRecord: &n.rulesRecord, space: n.Name, key: n.Name}
}

// ruled is the ruleset that a request means, by a namespace and the name of a port of it;
// without a port, the namespace's. A change of it is one of this state.
func (s *state) ruled(namespace, port string) (*ruled, error) {
	space, err := s.onlySpace(namespace)
	if err != nil {
		return nil, err
	}
	rec, err := s.ruledPort(space, port)
	switch {
	case err != nil:
		return nil, err
	case rec == nil:
		return s.namespace(space).ruled(), nil
	}
	return rec.ruled(s.network(rec.Network)), nil
}

// ruled is the ruleset of the port, which is one of that network.
func (a *attachmentRecord) ruled(n *networkRecord) *ruled {
	return &ruled{rulesRecord: &a.rulesRecord, space: n.space(), key: a.rulesKey(), port: a, given: n.PortNFT}
}

// ruleset is state.ruled for who changes it.
func (e *editor) ruleset(port string) (*ruled, error) {
	if port == "" {
		e.record(e.space) // there is one from now on
	}
	return e.st.ruled(e.space, port)
}

// inForce is what the dataplane goes by; nil: nothing.
func (x *ruled) inForce() *journal.Journal {
	if x.NFT != nil {
		return x.NFT
	}
	return x.given
}

// number is that of the port; 0: the ruleset is the namespace's.
func (x *ruled) number() uint16 {
	if x.port == nil {
		return 0
	}
	return x.port.Port
}

// name is that of the port.
func (x *ruled) name() string {
	if x.port == nil {
		return ""
	}
	return x.port.Name
}

// heard are the keys of the rulesets whose changes are its own: that of its network, as
// long as a port has none.
func (x *ruled) heard() []string {
	if x.port == nil || x.NFT != nil {
		return []string{x.key}
	}
	return []string{x.key, networkRulesKey(x.port.Network)}
}

// tells reports whether what a port's rules say, or the namespace's for 0, is for who
// listens to this ruleset: to the namespace's is to those of its ports, too.
func (x *ruled) tells(port uint16) bool { return x.port == nil || port == x.port.Port }

// at is the ruleset as a transaction has left it. A port that was left without one had
// its network's, which is shown as it is now.
func (x *ruled) at(all []archived, number uint64) (*nft.Ruleset, error) {
	r, err := rulesetAt(all, number)
	if err != nil || len(r.Tables) > 0 || x.given == nil {
		return r, err
	}
	s, _, err := x.given.Follow(nil)
	if err != nil {
		return nil, err
	}
	return s.Ruleset, nil
}

// back is what became of a ruleset by a transaction that has left none: a port has its
// network's again.
func (x *ruled) back(to *nft.Result) (*nft.Result, error) {
	if x.given == nil {
		return to, nil
	}
	s, made, err := x.given.Follow(journal.Empty())
	if err != nil {
		return nil, err
	}
	return &nft.Result{Ruleset: s.Ruleset, Changes: append(slices.Clip(to.Changes), made...)}, nil
}

// await notes that a transaction is to be confirmed.
func (x *ruled) await(number uint64, seconds uint32) {
	if seconds > 0 {
		until := api.Now()
		until.At += time.Duration(seconds) * time.Second
		x.NFTConfirm = &pendingCommit{Number: number, Until: until}
	}
}

// world is what a transaction may ask of what is outside of it.
func (a *Agent) world(ctx context.Context, e *editor, x *ruled) journal.World {
	w := journal.World{Live: func(t *nft.Table, s *nft.Set, key string) bool {
		there, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (bool, error) {
			return c.RulesLive(ctx, x.space, x.number(), t.Handle, s.Name, key)
		})
		return err == nil && there
	}}
	if x.port == nil {
		spec := e.st.namespaceSpec(x.space, "")
		devices := spec.RuleDevices()
		w.Device = func(name string) (uint32, bool) { n, ok := devices[name]; return n, ok }
	}
	return w
}

// may names what of a ruleset it can't be.
func (e *editor) may(x *ruled, r *nft.Ruleset) error {
	switch {
	case x.port == nil:
		spec := e.st.namespaceSpec(x.space, "")
		return spec.CheckRules(r)
	case len(r.Tables) == 0 && x.NFT == nil && x.given != nil:
		return errors.New("the ruleset is the network's, and comes back: change it, or the file (networks[].ports.nft)")
	}
	return netstack.CheckPortRules(r)
}

// editRules changes a ruleset in the record of who has it.
func (a *Agent) editRules(ctx context.Context, e *editor, x *ruled, step *journal.Step) (*edit, error) {
	if c := &e.own().Connections; x.port == nil && c.Track != nil && !*c.Track {
		return nil, refuse(api.CodeInvalid, "nft", "the namespace tracks no connections (conntrack.track: false), which a ruleset needs")
	}
	from, err := a.rulesets.of(x.key, x.inForce())
	if err != nil {
		return nil, err
	}
	res, err := step.Try(from.Ruleset, a.world(ctx, e, x))
	if err == nil {
		err = e.may(x, res.Ruleset)
	}
	if err != nil {
		return nil, err
	}
	done, err := e.t.commitRules(x, from, step, res)
	if err != nil {
		return nil, err
	}
	if x.port != nil {
		e.attachments[x.port.ID] = true
		return done, nil
	}
	e.records[e.space] = true
	rec := e.record(e.space)
	rec.Connections.Filtered = rec.NFT != nil
	return done, e.t.zone(&rec.Connections)
}

// putRules writes the record of who has the ruleset.
func (t *txn) putRules(x *ruled) error {
	if x.port != nil {
		return t.putAttachment(x.port)
	}
	return t.putNamespace(t.state.namespace(x.space))
}

// portKey is the key of the ruleset of an attachment's port. No namespace has that name.
func portKey(id string) string { return "port " + id }

func isPortKey(key string) bool { return strings.HasPrefix(key, portKey("")) }

// rulesKey is that of the port's ruleset.
func (a *attachmentRecord) rulesKey() string { return portKey(a.ID) }

// networkRulesKey is that of the ruleset of a network's ports.
func networkRulesKey(network string) string { return "ports of " + network }
