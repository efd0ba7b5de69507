// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/api"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/qdisc"
	"sluice/qdisc/tc"
)

// Theory of operation.
//
// Shares are recorded as they were said: of the node, of namespaces, of networks for
// their ports, and of attachments. What is in force follows: where a namespace or the
// node has shares in a direction, all containers' ports have a class in that direction,
// and all namespaces below the node; who was promised nothing has a class that may
// borrow. An uplink's port has one only if something was said of it. Where neither has
// shares, those of ports have no effect.

// nodeRecord is what is recorded of the node itself.
type nodeRecord struct {
	Shares qdisc.Shares `json:"shares,omitzero"`
}

// spaceShare is the class of a namespace in a direction; nil: it has no tree.
func (s *state) spaceShare(rec *namespaceRecord, in bool) *qdisc.HTBClass {
	if c := rec.Shares.Of(in); c != nil {
		return c
	}
	if c := s.node.Shares.Of(in); c != nil {
		return tc.Rest(c)
	}
	return nil
}

// spaceShares is spaceShare of both directions.
func (s *state) spaceShares(rec *namespaceRecord) qdisc.Shares {
	return qdisc.Shares{Egress: s.spaceShare(rec, false), Ingress: s.spaceShare(rec, true)}
}

// portShare is the class of a port of a namespace that has space; nil: none.
func (a *attachmentRecord) portShare(n *networkRecord, space *qdisc.HTBClass, in bool) *qdisc.HTBClass {
	own, theirs := a.Shares.Of(in), n.Shares.Of(in)
	switch {
	case space == nil:
		return nil
	case own != nil:
		return own
	case theirs != nil:
		return theirs
	case a.Uplink:
		return nil
	}
	return tc.Rest(space)
}

// share gives the ports of a namespace, and the namespace, their classes.
func (s *state) share(spec *netstack.NamespaceSpec, rec *namespaceRecord) {
	shares := s.spaceShares(rec)
	if spec.Shares = shares; shares.None() {
		return
	}
	for i := range spec.Networks {
		n := s.network(spec.Networks[i].Name)
		of := make(map[uint16]*attachmentRecord)
		for _, a := range s.of(n.Name) {
			of[a.Port] = a
		}
		for j := range spec.Networks[i].Ports {
			p := &spec.Networks[i].Ports[j]
			p.Shares = qdisc.Shares{
				Egress: of[p.Index].portShare(n, shares.Egress, false), Ingress: of[p.Index].portShare(n, shares.Ingress, true),
			}
		}
	}
}

// oversold reports guarantees of namespaces that are more than the node's.
func (s *state) oversold() error {
	for _, in := range []bool{false, true} {
		node := s.node.Shares.Of(in)
		if node == nil {
			continue
		}
		sum := uint64(0)
		for i := range s.namespaces {
			if c := s.namespaces[i].Shares.Of(in); c != nil {
				sum += c.Rate.Bytes
			}
		}
		if sum > node.Rate.Bytes {
			return fmt.Errorf("the namespaces are promised %d bit/s in all, and the node has %d", sum*8, node.Rate.Bytes*8)
		}
	}
	return nil
}

// shares takes what the daemon's file says of the node.
func (d *declaration) shares() error {
	if d.by.config == "" {
		was := d.was.node.Shares
		d.is.node.Shares = d.c.Node.Shares
		d.compare("tree", "", tc.ShareLines(was), tc.ShareLines(d.is.node.Shares))
		if err := d.t.putNode(&d.is.node); err != nil {
			return err
		}
	}
	if err := d.is.oversold(); err != nil {
		return d.fault("node.tree", err)
	}
	return nil
}

// decideShares takes what an attach says of the port's part.
func (s *state) decideShares(r *api.AttachRequest, rec *attachmentRecord) (err error) {
	if rec.Shares, err = tc.Shares(r.Shares); err != nil {
		return refuse(api.CodeInvalid, "tree", "%s", err)
	}
	n := s.network(rec.Network)
	for _, in := range []bool{false, true} {
		if rec.Shares.Of(in) != nil && s.spaceShare(s.namespace(n.space()), in) == nil {
			return refuse(api.CodeInvalid, "tree", "%s", errNoShares)
		}
	}
	return nil
}

var errNoShares = errors.New("neither the namespace nor the node has shares in that direction")

// tree carries out `tree set` and `tree del`.
func (e *editor) tree(words []string) error {
	if len(words) == 0 || words[0] != "set" && words[0] != "del" {
		return badQueueing(fmt.Errorf("%q: want set or del", strings.Join(words, " ")))
	}
	verb, words := words[0], words[1:]
	shares, changed, what, err := e.sharer(&words)
	if err != nil {
		return err
	}
	in := len(words) > 0 && words[0] == "from"
	to := &shares.Egress
	if in {
		to = &shares.Ingress
	}
	if verb == "set" {
		_, *to, err = tc.Share(words)
	} else {
		err = dropShare(to, words, in, what)
	}
	if err == nil {
		err = e.st.oversold()
	}
	if err != nil {
		return badQueueing(err)
	}
	changed()
	return nil
}

// dropShare is `tree del`.
func dropShare(to **qdisc.HTBClass, words []string, in bool, what string) error {
	switch {
	case in && len(words) > 1 || !in && len(words) > 0:
		return fmt.Errorf("what is %q?", words[len(words)-1])
	case *to == nil:
		return fmt.Errorf("%s has no shares in that direction", what)
	}
	*to = nil
	return nil
}

// sharer is whose shares the words are about, which it takes: the node's, those of a
// port, or the namespace's.
func (e *editor) sharer(words *[]string) (of *qdisc.Shares, changed func(), what string, err error) {
	left := *words
	switch {
	case len(left) > 0 && left[0] == "node":
		*words = left[1:]
		return &e.st.node.Shares, func() { e.noded = true }, "the node", nil
	case len(left) > 0 && left[0] == "dev":
		if len(left) < 2 {
			return nil, nil, "", badQueueing(errors.New("dev: a name is missing"))
		}
		*words = left[2:]
		a := e.shapeable(left[1])
		if a == nil {
			return nil, nil, "", noDevice(left[1])
		}
		return &a.Shares, func() { e.attachments[a.ID] = true }, left[1], nil
	}
	return &e.record(e.space).Shares, func() { e.records[e.space] = true }, "namespace " + e.space, nil
}

// meant is the namespace of a request: any will do if all its commands are about the
// node.
func (s *state) meant(r *api.CommandRequest) string {
	all := s.spaces()
	if r.Namespace != "" || len(all) == 0 || len(r.Commands) == 0 {
		return r.Namespace
	}
	for _, c := range r.Commands {
		if c.Object != "tree" || len(c.Words) < 2 || c.Words[1] != "node" {
			return ""
		}
	}
	return all[0]
}

// trees lists the classes of all trees, with what they have let go.
func (a *Agent) trees(ctx context.Context, q query) ([]api.Share, error) {
	st, names, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.Share{}
	for _, in := range []bool{false, true} {
		var more []api.Share
		if st.node.Shares.Of(in) != nil {
			more, err = a.shares(ctx, st, st.spaces(), 0, in)
			if len(more) > 0 && q.namespace != "" {
				more = slices.DeleteFunc(more, func(s api.Share) bool { return s.Of != "node" && !slices.Contains(names, s.Namespace) })
			}
			out = append(out, more...)
		} else {
			for _, name := range names {
				if root := st.home(name); root != 0 {
					more, err = a.shares(ctx, st, []string{name}, root, in)
					out = append(out, more...)
				}
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// home is the number of a namespace in trees; 0 if it has no network.
func (s *state) home(name string) uint16 {
	least := uint16(0)
	for _, n := range s.in(name) {
		if !n.bySocket() && (least == 0 || n.Port < least) {
			least = n.Port
		}
	}
	return least
}

// shares are the classes of one tree, each namespace's before those of its ports.
func (a *Agent) shares(ctx context.Context, st *state, spaces []string, root uint16, in bool) ([]api.Share, error) {
	tree, err := asked(ctx, a.plane, func(ctx context.Context, p *dataplane.Client) (dataplane.Queueing, error) {
		return p.Tree(ctx, root, in)
	})
	if err != nil || len(tree.Qdiscs) == 0 {
		return nil, err
	}
	classes := make(map[uint16]*qdisc.ClassReport)
	for i := range tree.Qdiscs[0].Classes {
		c := &tree.Qdiscs[0].Classes[i]
		classes[c.Handle.Minor()] = c
	}
	var out []api.Share
	put := func(of, space, name string, index uint16, depth int) {
		if c := classes[index]; c != nil && c.Spec != nil && c.Spec.HTB != nil {
			out = append(out, shareOf(c, api.Share{From: in, Of: of, Namespace: space, Name: name, Depth: depth}))
		}
	}
	below := 0
	if root == 0 {
		put("node", "", "node", netstack.NodeClass, 0)
		below = 1
	}
	for _, space := range spaces {
		put("namespace", space, space, st.home(space), below)
		for _, rec := range st.attachedIn(space) {
			of, name := "container", rec.Name
			if rec.Uplink {
				of, name = "uplink", rec.Network
			}
			put(of, space, name, rec.Port, below+1)
		}
	}
	return out, nil
}

func shareOf(c *qdisc.ClassReport, s api.Share) api.Share {
	h := c.Spec.HTB
	s.Rate, s.Ceil, s.Burst, s.CBurst = h.Rate.Bytes*8, cmp.Or(h.Ceil.Bytes, h.Rate.Bytes)*8, h.Burst, h.CBurst
	s.Prio, s.Quantum, s.Line = h.Prio, h.Quantum, tc.ShareText(h)
	s.Bytes, s.Packets, s.Drops, s.Overlimits = c.Stats.Bytes, c.Stats.Packets, c.Stats.Drops, c.Stats.Overlimits
	s.Backlog, s.Qlen = c.Stats.Backlog, c.Stats.Qlen
	if c.HTB != nil {
		s.Lent, s.Borrowed = c.HTB.Lends, c.HTB.Borrows
	}
	return s
}

// sharesText is what was said, for lists of changes.
func sharesText(s qdisc.Shares) string { return orNone(strings.Join(tc.ShareLines(s), ", ")) }
