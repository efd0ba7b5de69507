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
	"sluice/qdisc"
	"sluice/qdisc/tc"
	"sluice/routing"
)

// Theory of operation.
//
// A port's disciplines are those that are recorded of its attachment or, where there are
// none, its network's, for each direction by itself. That is as with the kernel's default
// discipline: `add` of a root takes its place, `del` brings it back, and what changes a
// part of it makes a copy for the port. CNI's bandwidth, and what an attach says, are
// recorded of the attachment, too.

// declareQueueing takes what a file says.
func (n *networkRecord) declareQueueing(q *config.Queueing) {
	n.Qdisc, n.Egress, n.Ingress, n.Shares = q.Lines, q.Egress, q.Ingress, q.Shares
}

// queueing is what a direction of a port has.
func (a *attachmentRecord) queueing(n *networkRecord, in bool) *qdisc.Spec {
	own, theirs := a.Egress, n.Egress
	if in {
		own, theirs = a.Ingress, n.Ingress
	}
	if own != nil {
		return own
	}
	return theirs
}

// queueing carries out `qdisc`, `class` or `filter`: it changes the disciplines that
// are recorded of a port.
func (e *editor) queueing(object string) func([]string) error {
	return func(words []string) error {
		c, err := tc.Parse(append([]string{object}, words...))
		if err != nil {
			return badQueueing(err)
		}
		a := e.shapeable(c.Dev)
		if a == nil {
			return noDevice(c.Dev)
		}
		own := &a.Egress
		if c.Ingress {
			own = &a.Ingress
		}
		next, err := requeued(*own, a.queueing(e.st.network(a.Network), c.Ingress), c)
		if err != nil {
			return badQueueing(err)
		}
		*own = next
		e.attachments[a.ID] = true
		return nil
	}
}

// shapeable is the attachment of a name, or the port of the uplink of that name.
func (e *editor) shapeable(name string) *attachmentRecord {
	if a := e.attachment(name); a != nil {
		return a
	}
	if a := e.st.uplinkPort(name); a != nil && e.isNetwork(name) {
		return a
	}
	return nil
}

// requeued is a port's own discipline after a command; now is what is in force.
func requeued(own, now *qdisc.Spec, c *tc.Command) (*qdisc.Spec, error) {
	top := c.Object == "qdisc" && (c.Qdisc.Parent == qdisc.Root || c.Qdisc.Parent == qdisc.Ingress)
	if now == nil || own == nil && top && c.Verb == "add" {
		now = &qdisc.Spec{}
	}
	next, err := c.Apply(now)
	switch {
	case err != nil:
		return nil, err
	case len(next.Qdiscs) > 0:
		return next, nil
	case own == nil:
		return nil, errors.New("the discipline is the network's, and comes back: replace it, or change the file")
	}
	return nil, nil
}

// decideQueueing takes the disciplines that an attach names, and the bandwidth that a
// runtime wants.
func decideQueueing(r *api.AttachRequest, rec *attachmentRecord) (err error) {
	rec.Egress, rec.Ingress, err = tc.Declare(r.Qdisc)
	if err != nil {
		return refuse(api.CodeInvalid, "qdisc", "%s", err)
	}
	return rec.CNI.shape(rec)
}

// badQueueing is a fault of a command of tc's.
func badQueueing(err error) error { return refuse(api.CodeInvalid, "words", "%s", err) }

// queueing is `tc qdisc show` and its like.
func (a *Agent) queueing(ctx context.Context, q query) (*api.Queueing, error) {
	c, err := tc.Parse(q.words)
	if err != nil {
		return nil, badQueueing(err)
	}
	if c.Verb != "show" {
		return nil, refuse(api.CodeInvalid, "words", "%q: want show", c.Verb)
	}
	st, names, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	all, err := queued(st, names, c)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rec := range all {
		text, err := a.shown(ctx, st, rec, c)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return &api.Queueing{Text: joined(out, c.JSON)}, nil
}

// queued are the attachments that a command is about: the one that it names, or all
// that have disciplines.
func queued(st *state, names []string, c *tc.Command) ([]*attachmentRecord, error) {
	var all []*attachmentRecord
	for i := range st.attachments {
		rec := &st.attachments[i]
		n := st.network(rec.Network)
		if n == nil || !slices.Contains(names, n.space()) {
			continue
		}
		named := rec.Name == c.Dev || rec.ID == c.Dev || rec.Uplink && rec.Network == c.Dev
		if named || c.Dev == "" && (rec.queueing(n, false) != nil || rec.queueing(n, true) != nil) {
			all = append(all, rec)
		}
	}
	if c.Dev != "" && len(all) == 0 {
		return nil, refuse(api.CodeNotFound, "words", "%s", fmt.Errorf("%w %q", routing.ErrDevice, c.Dev))
	}
	return all, nil
}

// shown is the state of a port, as the command wants it. Like tc it shows the ingress
// qdisc with the others; a whole tree of what the container sends is asked for by
// "from".
func (a *Agent) shown(ctx context.Context, st *state, rec *attachmentRecord, c *tc.Command) (string, error) {
	v := c.View()
	if c.Dev == "" {
		v.Dev = rec.Name
	}
	state := dataplane.Queueing{}
	for _, in := range []bool{false, true} {
		spec := rec.queueing(st.network(rec.Network), in)
		asTC := in && spec != nil && spec.Qdiscs[0].Kind == "ingress"
		if spec == nil || in != c.Ingress && !asTC {
			continue
		}
		more, err := asked(ctx, a.plane, func(ctx context.Context, p *dataplane.Client) (dataplane.Queueing, error) {
			return p.Queueing(ctx, rec.Port, in)
		})
		if err != nil {
			return "", err
		}
		state.Qdiscs = append(state.Qdiscs, more.Qdiscs...)
		if in == c.Ingress {
			state.Filters = append(state.Filters, more.Filters...)
		}
	}
	switch c.Object {
	case "class":
		return tc.Classes(state.Qdiscs, v), nil
	case "filter":
		return tc.Filters(state.Filters, v), nil
	}
	return tc.Qdiscs(state.Qdiscs, v), nil
}

// joined is the texts of several ports as one: of lists in JSON, one list.
func joined(texts []string, asJSON bool) string {
	if !asJSON {
		return strings.Join(texts, "")
	}
	var parts []string
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "[]" {
			parts = append(parts, strings.TrimSuffix(strings.TrimPrefix(t, "["), "]"))
		}
	}
	return "[" + strings.Join(parts, ",") + "]\n"
}
