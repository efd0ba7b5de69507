// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/api"
	"sluice/dataplane"
	"sluice/qdisc"
	"sluice/qdisc/tc"
	"sluice/routing"
)

// queueing carries out `qdisc`, `class` or `filter`: it changes the disciplines that
// are recorded of a port.
func (e *editor) queueing(object string) func([]string) error {
	return func(words []string) error {
		c, err := tc.Parse(append([]string{object}, words...))
		if err != nil {
			return badQueueing(err)
		}
		a := e.attachment(c.Dev)
		if a == nil {
			return noDevice(c.Dev)
		}
		spec := &a.Egress
		if c.Ingress {
			spec = &a.Ingress
		}
		old := *spec
		if old == nil {
			old = &qdisc.Spec{}
		}
		next, err := c.Apply(old)
		if err != nil {
			return badQueueing(err)
		}
		if len(next.Qdiscs) == 0 {
			next = nil
		}
		*spec = next
		e.attachments[a.ID] = true
		return nil
	}
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
		text, err := a.shown(ctx, rec, c)
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
		named := rec.Name == c.Dev || rec.ID == c.Dev
		if named || c.Dev == "" && (rec.Egress != nil || rec.Ingress != nil) {
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
func (a *Agent) shown(ctx context.Context, rec *attachmentRecord, c *tc.Command) (string, error) {
	v := c.View()
	if c.Dev == "" {
		v.Dev = rec.Name
	}
	state := dataplane.Queueing{}
	for _, in := range []bool{false, true} {
		spec := rec.Egress
		if in {
			spec = rec.Ingress
		}
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
