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
//
// Devices that are no ports have one for what is routed there: a network's gateway, a
// link, a socket uplink. What commands said of it is kept as long as the device, and goes
// before what the file says.

// deviceQueue is the discipline of such a device. What it points to does not change.
type deviceQueue struct {
	Lines []string    `json:"lines,omitempty"` // what the file says
	File  *qdisc.Spec `json:"file,omitempty"`  // the same
	Own   *qdisc.Spec `json:"own,omitempty"`   // instead of it
}

// routes reports whether the network's own device is what has a discipline; that of another
// uplink is its port's.
func (n *networkRecord) routes() bool { return n.Uplink == nil || n.bySocket() }

// declare takes what a file says.
func (q *deviceQueue) declare(c *config.Queueing) { q.Lines, q.File = c.Lines, c.Egress }

// keepQueue takes what commands said of an uplink's device before, if that had one.
func (n *networkRecord) keepQueue(old *networkRecord) {
	if old != nil && n.bySocket() {
		n.Queue.Own = old.Queue.Own
	}
}

// spec is what is in force; nil: none.
func (q *deviceQueue) spec() *qdisc.Spec {
	if q.Own != nil {
		return q.Own
	}
	return q.File
}

// qdiscText is the end of a line that tells of a device, with what the file says.
func qdiscText(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return " qdisc " + strings.Join(lines, ", ")
}

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
			return e.requeueDevice(c)
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

// requeueDevice is queueing for a device that is no port.
func (e *editor) requeueDevice(c *tc.Command) error {
	q, changed := e.queueOf(c.Dev)
	switch {
	case q == nil:
		return noDevice(c.Dev)
	case c.Ingress:
		return badQueueing(errNoIngress(c.Dev))
	}
	next, err := requeued(q.Own, q.spec(), c)
	if err != nil {
		return badQueueing(err)
	}
	q.Own = next
	changed()
	return nil
}

// queueOf is the record of a device's discipline, to be changed; nil if there is no such
// device in the namespace.
func (e *editor) queueOf(name string) (*deviceQueue, func()) {
	if n := e.st.network(name); e.isNetwork(name) && n.routes() {
		return &n.Queue, func() { e.networks[name] = true }
	}
	if e.own().link(name) == nil {
		return nil, nil
	}
	rec := e.record(e.space)
	rec.Links = slices.Clone(rec.Links)
	return &rec.link(name).Queue, func() { e.records[e.space] = true }
}

func errNoIngress(dev string) error {
	return fmt.Errorf("what comes by %s has no discipline; expected a port, or the other end of the link", dev)
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
		return nil, errors.New("the discipline is the network's, or the file's, and comes back: replace it, or change the file")
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
	for i := range all {
		text, err := a.shown(ctx, &all[i], c)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return &api.Queueing{Text: joined(out, c.JSON)}, nil
}

// shaped is what may have disciplines.
type shaped struct {
	name            string
	index           uint16
	egress, ingress *qdisc.Spec
}

// queued are those that a command is about: the one that it names, or all that have
// disciplines.
func queued(st *state, names []string, c *tc.Command) ([]shaped, error) {
	all, err := ports(st, names, c), error(nil)
	if c.Dev != "" && len(all) > 0 {
		return all, nil // as commands find it, a port before a device
	}
	for _, d := range devices(st, names) {
		if d.name == c.Dev && c.Ingress {
			return nil, badQueueing(errNoIngress(c.Dev))
		}
		if d.name == c.Dev || c.Dev == "" && d.egress != nil {
			all = append(all, d)
		}
	}
	if c.Dev != "" && len(all) == 0 {
		err = refuse(api.CodeNotFound, "words", "%s", fmt.Errorf("%w %q", routing.ErrDevice, c.Dev))
	}
	return all, err
}

// ports is queued for ports.
func ports(st *state, names []string, c *tc.Command) (all []shaped) {
	for i := range st.attachments {
		rec := &st.attachments[i]
		n := st.network(rec.Network)
		if n == nil || !slices.Contains(names, n.space()) {
			continue
		}
		p := shaped{name: rec.Name, index: rec.Port, egress: rec.queueing(n, false), ingress: rec.queueing(n, true)}
		named := rec.Name == c.Dev || rec.ID == c.Dev || rec.Uplink && rec.Network == c.Dev
		if named || c.Dev == "" && (p.egress != nil || p.ingress != nil) {
			all = append(all, p)
		}
	}
	return all
}

// devices are those that are no ports.
func devices(st *state, names []string) (all []shaped) {
	for _, name := range names {
		for _, n := range st.in(name) {
			if n.routes() {
				all = append(all, shaped{name: n.Name, index: n.Port, egress: n.Queue.spec()})
			}
		}
		if rec := st.namespace(name); rec != nil {
			for i := range rec.Links {
				l := &rec.Links[i]
				all = append(all, shaped{name: l.Name, index: l.Index, egress: l.Queue.spec()})
			}
		}
	}
	return all
}

// shown is the state of a port or device, as the command wants it. Like tc it shows the
// ingress qdisc with the others; a whole tree of what the container sends is asked for by
// "from".
func (a *Agent) shown(ctx context.Context, s *shaped, c *tc.Command) (string, error) {
	v := c.View()
	if c.Dev == "" {
		v.Dev = s.name
	}
	state := dataplane.Queueing{}
	for _, in := range []bool{false, true} {
		spec := s.egress
		if in {
			spec = s.ingress
		}
		asTC := in && spec != nil && spec.Qdiscs[0].Kind == "ingress"
		if spec == nil || in != c.Ingress && !asTC {
			continue
		}
		more, err := asked(ctx, a.plane, func(ctx context.Context, p *dataplane.Client) (dataplane.Queueing, error) {
			return p.Queueing(ctx, s.index, in)
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
