// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/iproute"
	"sluice/router"
	"sluice/routing"
)

// command carries out commands in one transaction, as apply does a file: the state
// file comes first; if the dataplane then refuses, the file goes back.
func (a *Agent) command(ctx context.Context, r *api.CommandRequest) (*api.CommandReply, error) {
	ctx = context.WithoutCancel(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(r.Commands); n > api.MaxCommands {
		return nil, refuse(api.CodeInvalid, "commands", "%d commands; at most %d are supported", n, api.MaxCommands)
	}
	var e *editor
	undo, err := a.store.attempt(func(t *txn) (err error) {
		if e, err = newEditor(t, t.state.meant(r), &a.sets); err != nil {
			return err
		}
		t.hold, e.learned = a.hold, a.listener(ctx, e.space)
		if err := e.run(r.Commands, r.Force); err != nil {
			return err
		}
		if err := e.finish(); err != nil {
			return err
		}
		return e.holds()
	})
	if e != nil && e.published {
		defer a.holdCommitted()
	}
	if err != nil {
		return nil, err
	}
	reply := &api.CommandReply{Done: len(r.Commands) - len(e.failed), Failed: e.failed}
	if len(e.t.undo) > 0 {
		if err := a.tell(ctx, undo); err != nil {
			return nil, err
		}
		e.note(a)
		a.redress(ctx, len(e.networks) > 0 || e.published)
	}
	a.forget(ctx, e.space, e.forgotten)
	if err := a.flushDNS(ctx, e.space, e.flushed); err != nil {
		return nil, err
	}
	a.log.Info("commands carried out", "namespace", e.space, "done", reply.Done, "failed", len(reply.Failed))
	return reply, nil
}

// editor changes one namespace, command by command. Each one sees those before it;
// one that fails has changed nothing.
type editor struct {
	t     *txn
	st    *state // t's, which nobody else sees
	space string

	// What has changed: records by name or identifier, and the namespaces of which
	// devices or rules did.
	networks, attachments, records, spaces map[string]bool

	// set is the routing; nil: to be built anew, of the records and of kept.
	set  *routing.Set
	kept []routing.Route
	// touched are the places of routes that may differ; all says that any may. ruled
	// says that the rules of set are not those of the record.
	touched    map[leafKey]bool
	all, ruled bool
	// published says that what is published changed, noded that the node's record did.
	published, noded bool

	failed []api.CommandFault
	// learned asks the dataplane for the neighbours of a network that were not set, and
	// heard is what it said; forgotten are those that it is to forget.
	learned   func(network string) []learned
	heard     map[string][]learned
	forgotten []forgotten
	// flushed are names whose answers the dataplane is to forget.
	flushed []string
	// pending are changes of routes and rules to be made at once, of the commands
	// pendingOf.
	pending   []routing.Change
	pendingOf []int
}

func newEditor(t *txn, namespace string, built *sets) (*editor, error) {
	name, err := t.state.onlySpace(namespace)
	if err != nil {
		return nil, err
	}
	e := &editor{
		t: t, st: t.state, space: name, failed: []api.CommandFault{}, learned: func(string) []learned { return nil }, heard: make(map[string][]learned), touched: make(map[leafKey]bool),
		networks: make(map[string]bool), attachments: make(map[string]bool), records: make(map[string]bool), spaces: make(map[string]bool),
	}
	e.set, err = built.of(e.st, name)
	return e, err
}

// onlySpace is the namespace that a request means.
func (s *state) onlySpace(name string) (string, error) {
	all := s.spaces()
	switch {
	case name == "" && len(all) == 1:
		return all[0], nil
	case name == "" && len(all) == 0:
		return "", refuse(api.CodeNotFound, "namespace", "no network is declared; apply a file first")
	case name == "":
		return "", refuse(api.CodeInvalid, "namespace", "there are %d namespaces; say which one: %s", len(all), strings.Join(all, ", "))
	case !slices.Contains(all, name):
		return "", refuse(api.CodeNotFound, "namespace", "no namespace %q", name)
	}
	return name, nil
}

// record is a namespace's record to be changed; one is made if it has none yet.
func (e *editor) record(namespace string) *namespaceRecord {
	for i := range e.st.namespaces {
		if e.st.namespaces[i].Name == namespace {
			return &e.st.namespaces[i]
		}
	}
	of, _ := e.st.spaceOrigin(namespace)
	e.st.namespaces = append(e.st.namespaces, namespaceRecord{Name: namespace, Origin: of})
	return &e.st.namespaces[len(e.st.namespaces)-1]
}

// own is the record of the namespace, to be read.
func (e *editor) own() *namespaceRecord { return e.st.namespace(e.space) }

// run carries out all commands; with force it leaves out those that fail.
func (e *editor) run(all []api.Command, force bool) error {
	for i := range all {
		at, err := e.one(i, &all[i], force)
		if err == nil {
			continue
		}
		if !force {
			// A change that waits may be at fault, too, and was before.
			if first, earlier := e.flush(); earlier != nil {
				at, err = first, earlier
			}
			return fault(at, err)
		}
		e.failed = append(e.failed, api.CommandFault{Index: at, Message: api.Printable(wording(err))})
	}
	if at, err := e.flush(); err != nil {
		return fault(at, err)
	}
	return nil
}

// one carries out a command; the number is that of the command at fault. Changes of
// routes and rules wait for a command of another kind, since many at once cost little
// more than one.
func (e *editor) one(i int, c *api.Command, force bool) (int, error) {
	if c.Object != "route" && c.Object != "rule" {
		if at, err := e.flush(); err != nil {
			return at, err
		}
		return i, e.do(c)
	}
	change, err := e.parse(c)
	switch {
	case err != nil:
		return i, err
	case change.Op == routing.OpFlush:
		if at, err := e.flush(); err != nil {
			return at, err
		}
		return i, e.flushAll(change)
	case change.Route != nil && change.Op != routing.OpDelete && !users(change.Route):
		return i, errNotPermitted
	}
	e.pending, e.pendingOf = append(e.pending, change), append(e.pendingOf, i)
	if force {
		return e.flush()
	}
	return i, nil
}

// do carries out a command that is not on routes or rules.
func (e *editor) do(c *api.Command) error {
	run, known := map[string]func([]string) error{
		"neigh": e.neighbour, "vrf": e.vrf, "link": e.link, "addr": e.address,
		"fdb": e.station, "vlan": e.vlan, "mdb": e.group, "publish": e.publish, "dns": e.dns, "service": e.service,
		"qdisc": e.queueing("qdisc"), "class": e.queueing("class"), "filter": e.queueing("filter"), "tree": e.tree,
	}[c.Object]
	if !known {
		return &routing.ParseError{Word: c.Object, Reason: "want route, rule, neigh, vrf, link, addr, fdb, vlan, mdb, publish, dns, service, qdisc, class, filter or tree"}
	}
	return run(c.Words)
}

// parse reads a command on routes or rules. A flush of rules is a rule with OpFlush.
func (e *editor) parse(c *api.Command) (routing.Change, error) {
	if family, flush := ruleFlush(c); flush {
		return routing.Change{Op: routing.OpFlush, Rule: &routing.Rule{Family: family}}, nil
	}
	rec := e.own()
	words, err := iproute.ExpandVRF(c.Words, rec.vrfTable)
	if err != nil {
		return routing.Change{}, err
	}
	line := strings.Join(words, " ")
	if c.Object == "rule" {
		return rec.names().ParseRule(line)
	}
	return rec.names().ParseRoute(line)
}

// ruleFlush reports whether a command is `rule flush`, and of which family.
func ruleFlush(c *api.Command) (family routing.Family, flush bool) {
	rest := c.Words
	for len(rest) > 0 && (rest[0] == "-4" || rest[0] == "-6") {
		if family = routing.IPv4; rest[0] == "-6" {
			family = routing.IPv6
		}
		rest = rest[1:]
	}
	return family, c.Object == "rule" && len(rest) == 1 && rest[0] != "" && strings.HasPrefix("flush", rest[0])
}

// flush makes the changes that wait, all or none.
func (e *editor) flush() (at int, err error) {
	if len(e.pending) == 0 {
		return 0, nil
	}
	changes, of := e.pending, e.pendingOf
	e.pending, e.pendingOf = nil, nil
	was, err := e.routes()
	if err != nil {
		return of[0], err
	}
	next, err := was.Apply(changes)
	if fault, ok := errors.AsType[*routing.ChangeError](err); ok {
		return of[fault.Index], fault.Err
	}
	if err != nil {
		return of[0], err
	}
	if i, err := e.permitted(was, next, changes); err != nil {
		return of[i], err
	}
	for i := range changes {
		if r := changes[i].Route; r != nil {
			table, prefix := r.Place()
			e.touched[leafKey{table, prefix}] = true
		} else {
			e.ruled = true
		}
	}
	e.set = next
	return 0, nil
}

// errNotPermitted is what is said of a change of what the namespace itself makes, or
// an attachment.
var errNotPermitted = errors.New("operation not permitted")

// errNotSupported is what is said of a change that has no meaning here.
var errNotSupported = errors.New("operation not supported")

// permitted refuses changes that took away what is not the user's; i is the first of
// them.
func (e *editor) permitted(was, next *routing.Set, changes []routing.Change) (i int, err error) {
	ruled := -1
	for i := range changes {
		r := changes[i].Route
		if r == nil {
			ruled = i
			continue
		}
		table, prefix := r.Place()
		if !slices.Equal(kernels(was, table, prefix), kernels(next, table, prefix)) {
			return i, errNotPermitted
		}
	}
	if ruled < 0 {
		return 0, nil
	}
	left := rulesOf(next)
	if len(left) == 0 || len(lessRules(e.st.ownedRules(e.space, ""), left)) > 0 {
		return ruled, errNotPermitted
	}
	return 0, nil
}

// kernels are the routes of one place that the namespace itself makes.
func kernels(s *routing.Set, table routing.TableID, prefix netip.Prefix) []*routing.Route {
	return slices.DeleteFunc(slices.Clone(s.At(table, prefix)), users)
}

// routes is the routing as it is now, built anew if need be.
func (e *editor) routes() (*routing.Set, error) {
	if e.set != nil {
		return e.set, nil
	}
	set, err := e.st.rebuild(e.space, e.kept)
	if err != nil {
		return nil, err
	}
	e.set, e.kept = set, nil
	return set, nil
}

// rebuild makes the routing of a namespace of its records and of routes, less those
// whose devices are gone.
func (s *state) rebuild(namespace string, routes []routing.Route) (*routing.Set, error) {
	spec := s.namespaceSpec(namespace, "")
	w := wiring(&spec)
	there := map[string]bool{"lo": true}
	for _, d := range w.Devices {
		there[d.Name] = true
	}
	gone := func(h routing.NextHop) bool { return !there[h.Dev] }
	for _, r := range routes {
		if slices.ContainsFunc(r.NextHops, gone) {
			if r.NextHops = slices.DeleteFunc(slices.Clone(r.NextHops), gone); len(r.NextHops) == 0 {
				continue
			}
		}
		w.Routes = append(w.Routes, r)
	}
	return router.BuildSet(&w)
}

// rewire notes that devices or rules of the records change: the routing has to be
// built anew. It must be called before the change.
func (e *editor) rewire() {
	if e.set == nil {
		return
	}
	e.saveRules()
	e.kept, e.set, e.all = usersRoutes(e.set), nil, true
}

// saveRules writes the rules of the routing into the record.
func (e *editor) saveRules() {
	if !e.ruled {
		return
	}
	rec := e.record(e.space)
	rec.Rules = lessRules(rulesOf(e.set), e.st.ownedRules(e.space, ""))
	e.records[e.space], e.ruled = true, false
}

// flushAll is `route flush` or `rule flush`.
func (e *editor) flushAll(c routing.Change) error {
	set, err := e.routes()
	if err != nil {
		return err
	}
	if c.Filter != nil {
		if dev := c.Filter.Dev; dev != "" && dev != "lo" && !e.st.isDevice(e.space, dev) {
			return noDevice(dev)
		}
		withFamily(c.Filter)
		var kept []routing.Route
		for r := range set.Routes(0) {
			if users(r) && !c.Filter.Matches(r) {
				kept = append(kept, recorded(r))
			}
		}
		e.rewire()
		e.kept = kept
		return nil
	}
	e.rewire()
	rec := e.record(e.space)
	rec.Rules = slices.DeleteFunc(slices.Clone(e.st.statedRules(rec)), func(r routing.Rule) bool {
		return r.Family == c.Rule.Family && r.Priority > 0
	})
	e.records[e.space] = true
	return nil
}

// finish writes everything that has changed, when it is right as a whole.
func (e *editor) finish() error {
	set, err := e.routes()
	if err != nil {
		return err
	}
	e.saveRules()
	if rec := e.own(); slices.Equal(rec.Rules, firstRules(e.st.inVRF(rec))) {
		rec.Rules = nil
	}
	if e.all {
		e.touched = nil
	}
	if err := e.t.putRoutes(e.space, set, e.touched); err != nil {
		return err
	}
	if n := e.st.routeCount(); n > config.MaxRoutes {
		return refuse(api.CodeExhausted, "commands", "Error: %d routes in all; at most %d are supported.", n, config.MaxRoutes)
	}
	for name := range e.spaces {
		if err := e.rewired(name); err != nil {
			return err
		}
	}
	if err := e.write(); err != nil {
		return err
	}
	if err := e.st.snapshot("").Validate(); err != nil {
		return refuse(api.CodeInvalid, "", "%s", err)
	}
	return nil
}

// write writes the records that have changed.
func (e *editor) write() error {
	if e.noded {
		if err := e.t.putNode(&e.st.node); err != nil {
			return err
		}
	}
	for name := range e.records {
		if err := e.t.putNamespace(e.record(name)); err != nil {
			return err
		}
	}
	for name := range e.networks {
		if err := e.t.putNetwork(e.st.network(name)); err != nil {
			return err
		}
	}
	for id := range e.attachments {
		rec := e.st.find(func(a *attachmentRecord) bool { return a.ID == id })
		if err := e.t.putAttachment(rec); err != nil {
			return err
		}
	}
	return nil
}

// rewired writes the routes of another namespace that has lost devices.
func (e *editor) rewired(name string) error {
	set, err := e.st.rebuild(name, e.st.routes[name].routes())
	if err != nil {
		return err
	}
	return e.t.putRoutes(name, set, nil)
}

// note keeps what was built, for who needs it next.
func (e *editor) note(a *Agent) {
	if st, err := a.store.read(); err == nil {
		a.sets.note(st, e.space, e.set)
	}
}

// fault is the error of a whole request, for one of its commands.
func fault(i int, err error) error {
	out := &api.Error{Code: api.CodeInvalid, Field: "commands", Message: wording(err), Index: &i}
	if refused, ok := errors.AsType[*api.Error](err); ok {
		out.Code = refused.Code
	}
	switch {
	case errors.Is(err, routing.ErrExist):
		out.Code = api.CodeExists
	case errors.Is(err, routing.ErrNoEnt), errors.Is(err, routing.ErrNoRoute), errors.Is(err, routing.ErrDevice):
		out.Code = api.CodeNotFound
	case errors.Is(err, routing.ErrLimit):
		out.Code = api.CodeExhausted
	}
	return out
}

// wording is an error in the words of ip(8).
func wording(err error) string {
	for _, w := range []struct {
		err  error
		text string
	}{
		{routing.ErrExist, "RTNETLINK answers: File exists"},
		{routing.ErrNoEnt, "RTNETLINK answers: No such file or directory"},
		{routing.ErrNoRoute, "RTNETLINK answers: No such process"},
		{errNotSupported, "RTNETLINK answers: Operation not supported"},
		{errNotPermitted, "RTNETLINK answers: Operation not permitted"},
		{routing.ErrGateway, "Error: Nexthop has invalid gateway."},
		{routing.ErrPrefSrc, "Error: Invalid prefsrc address."},
	} {
		if errors.Is(err, w.err) {
			return w.text
		}
	}
	text := err.Error()
	if errors.Is(err, routing.ErrDevice) {
		return "C" + strings.TrimPrefix(text, "c")
	}
	if p, ok := errors.AsType[*routing.ParseError](err); ok && p.Word != "" {
		return "Error: argument \"" + p.Word + "\" is wrong: " + p.Reason
	}
	return "Error: " + strings.ToUpper(text[:1]) + text[1:] + "."
}

// noDevice is the error for a device that is not there.
func noDevice(name string) error { return fmt.Errorf("%w %q", routing.ErrDevice, name) }
