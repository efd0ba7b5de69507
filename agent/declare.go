// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/ipam"
	"sluice/qdisc/tc"
	"sluice/router"
	"sluice/routing"
)

// origin is who declares: the daemon's file (zero), or a network configuration of CNI
// by a text.
type origin struct{ config, text string }

func (o origin) String() string {
	if o.config == "" {
		return "the daemon's file"
	}
	return "the network configuration " + o.config
}

// declaration is a file on its way into the state: all of it, or nothing. What is of
// another origin stays as it is.
type declaration struct {
	t       *txn
	by      origin
	c       *config.Config
	was     *state // before
	is      state  // after, as far as it has come
	taken   map[uint16]bool
	changes []api.Change
}

// declare changes networks and namespaces in one transaction and lists the changes:
// removals first, then what the file names, in its order.
func (t *txn) declare(c *config.Config, by origin, built *sets) ([]api.Change, error) {
	d := &declaration{t: t, by: by, c: c, was: t.state, is: *t.state, taken: t.state.numbers(), changes: []api.Change{}}
	d.is.networks, d.is.namespaces = nil, nil
	d.is.routes = make(map[string]*routeList)
	maps.Copy(d.is.routes, t.state.routes)
	t.state = &d.is
	for _, step := range []func() error{d.keep, d.networks, d.uplinks, d.namespaces, d.shares, d.routing, d.forget, d.apart, d.onHost, d.holds} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return d.changes, d.check(built)
}

// number takes a number for a new device.
func (d *declaration) number() (uint16, error) {
	n := freeNumber(d.taken)
	if n == 0 {
		return 0, errNoPort()
	}
	d.taken[n] = true
	return n, nil
}

// keep takes over what is of another origin, and refuses to have it declared here too.
func (d *declaration) keep() error {
	for i := range d.c.Networks {
		if err := d.refuseOther(fmt.Sprintf("networks[%d]", i), d.c.Networks[i].Name, d.c.Networks[i].Namespace); err != nil {
			return err
		}
	}
	for i := range d.c.Uplinks {
		if err := d.refuseOther(fmt.Sprintf("uplinks[%d]", i), d.c.Uplinks[i].Name, d.c.Uplinks[i].Namespace); err != nil {
			return err
		}
	}
	for i := range d.c.Namespaces {
		if err := d.refuseOther(fmt.Sprintf("namespaces[%d]", i), "", d.c.Namespaces[i].Name); err != nil {
			return err
		}
	}
	for i := range d.was.networks {
		if !d.mine(d.was.networks[i].Origin) {
			d.is.networks = append(d.is.networks, d.was.networks[i])
		}
	}
	for i := range d.was.namespaces {
		if !d.mine(d.was.namespaces[i].Origin) {
			d.is.namespaces = append(d.is.namespaces, d.was.namespaces[i])
		}
	}
	return nil
}

// mine says whether a record's origin is the declaration's.
func (d *declaration) mine(of string) bool { return of == d.by.config }

// refuseOther refuses a network, or a namespace, that another origin has.
func (d *declaration) refuseOther(field, network, space string) error {
	if n := d.was.network(network); n != nil && !d.mine(n.Origin) {
		return d.fault(field, fmt.Errorf("network %s is declared by %s", network, origin{config: n.Origin}))
	}
	if of, there := d.was.spaceOrigin(space); there && !d.mine(of) {
		return d.fault(field, fmt.Errorf("namespace %s is declared by %s", space, origin{config: of}))
	}
	return nil
}

// spaceOrigin is who declares a namespace; false if there is no such.
func (s *state) spaceOrigin(name string) (string, bool) {
	for i := range s.namespaces {
		if s.namespaces[i].Name == name {
			return s.namespaces[i].Origin, true
		}
	}
	for _, n := range s.in(name) {
		return n.Origin, true
	}
	return "", false
}

func (d *declaration) networks() error {
	for i := range d.was.networks {
		name := d.was.networks[i].Name
		if d.was.isUplink(name) || !d.mine(d.was.networks[i].Origin) {
			continue
		}
		if slices.ContainsFunc(d.c.Networks, func(n config.Network) bool { return n.Name == name }) {
			continue
		}
		if err := refuseAttached(name, "removed", d.was.of(name)); err != nil {
			return err
		}
		d.changes = append(d.changes, api.Change{Action: "remove", Network: name})
		if err := d.t.dropNetwork(name); err != nil {
			return err
		}
	}
	for i := range d.c.Networks {
		if err := d.network(&d.c.Networks[i]); err != nil {
			return err
		}
	}
	slices.SortFunc(d.is.networks, func(a, b networkRecord) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

func (d *declaration) network(c *config.Network) error {
	old := d.was.network(c.Name)
	if old == nil || old.Uplink != nil {
		return d.addNetwork(c)
	}
	n := *old
	n.declare(c)
	n.Declared = d.by.text
	if err := d.portRuleset(&n, c); err != nil {
		return err
	}
	d.is.networks = append(d.is.networks, n)
	if err := refuseStranding(old, &n, d.was.of(n.Name)); err != nil {
		return err
	}
	changes := diff(old, &n)
	if len(changes) == 0 && n.Declared == old.Declared {
		return nil
	}
	d.changes = append(d.changes, changes...)
	return d.t.putNetwork(&n)
}

// addNetwork decides the port and the gateway's MAC, which stay for good.
func (d *declaration) addNetwork(c *config.Network) (err error) {
	n := networkRecord{Origin: d.by.config, Declared: d.by.text}
	n.declare(c)
	if err = d.portRuleset(&n, c); err != nil {
		return err
	}
	if n.Port, err = d.number(); err != nil {
		return err
	}
	if n.MAC, err = ipam.MAC(n.Name, newID(), func([6]byte) bool { return false }); err != nil {
		return err
	}
	d.is.networks = append(d.is.networks, n)
	d.changes = append(d.changes, api.Change{Action: "add", Network: n.Name})
	return d.t.putNetwork(&n)
}

// namespaces makes the records of those that are declared, without rules and routes.
func (d *declaration) namespaces() error {
	for i := range d.c.Namespaces {
		c := &d.c.Namespaces[i]
		old := d.was.namespace(c.Name)
		if old == nil {
			old = new(namespaceRecord)
			d.change("add", "namespace", c.Name, "")
		}
		n := namespaceRecord{Name: c.Name, Origin: d.by.config, Tables: c.Tables, Neighbours: c.Neighbours, Connections: old.Connections, DNS: c.DNS, Shares: c.Shares}
		if err := d.devices(&n, old, c); err != nil {
			return err
		}
		n.Connections.declare(&c.Connections)
		if err := d.keepPorts(fmt.Sprintf("namespaces[%d].publish", i), &n); err != nil {
			return err
		}
		n.Connections.Masquerades = len(d.is.masquerades(c.Name)) > 0
		if err := d.ruleset(i, &n, old); err != nil {
			return err
		}
		if n.Connections.Masquerades && !n.Connections.tracks() {
			return d.fault(fmt.Sprintf("namespaces[%d].conntrack.track", i), errors.New("false, but an uplink of the namespace masquerades"))
		}
		d.is.namespaces = append(d.is.namespaces, n)
		d.compare("table", c.Name, tableLines(old.Tables), tableLines(n.Tables))
		d.compare("neighbour", c.Name, lines(old.Neighbours), lines(n.Neighbours))
		d.compare("vrf", c.Name, lines(old.VRFs), lines(n.VRFs))
		d.compare("link", c.Name, lines(old.Links), lines(n.Links))
		d.compareConnections(c.Name, &old.Connections, &n.Connections)
		d.compare("dns", c.Name, jsonLine(old.DNS == nil, old.DNS), jsonLine(n.DNS == nil, n.DNS))
		d.compare("nft", c.Name, old.ruleLines(), n.ruleLines())
		d.compare("tree", c.Name, tc.ShareLines(old.Shares), tc.ShareLines(n.Shares))
	}
	slices.SortFunc(d.is.namespaces, func(a, b namespaceRecord) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// devices keeps the numbers of VRFs and links that were there.
func (d *declaration) devices(n, old *namespaceRecord, c *config.Namespace) (err error) {
	for _, v := range c.VRFs {
		rec := vrfRecord{Name: v.Name, Table: v.Table}
		if was := old.vrf(v.Name); was != nil {
			rec.Index = was.Index
		} else if rec.Index, err = d.number(); err != nil {
			return err
		}
		n.VRFs = append(n.VRFs, rec)
	}
	for _, l := range c.Links {
		rec := linkRecord{
			Name: l.Name, PeerNamespace: l.PeerNamespace, Peer: l.PeerLink,
			Addresses: l.Addresses, MTU: l.MTU, Device: l.Device, VRF: l.VRF,
		}
		if was := old.link(l.Name); was != nil {
			rec.Index, rec.Queue = was.Index, was.Queue
		} else if rec.Index, err = d.number(); err != nil {
			return err
		}
		rec.Queue.declare(&l.Queueing)
		n.Links = append(n.Links, rec)
	}
	return nil
}

// routing makes rules and routes, which need the devices of all namespaces, and
// writes the records down.
func (d *declaration) routing() error {
	for i := range d.c.Namespaces {
		rec := d.is.namespace(d.c.Namespaces[i].Name)
		if err := d.route(i, rec); err != nil {
			return err
		}
		if err := d.is.number(&rec.Connections); err != nil {
			return err
		}
		if err := d.t.zone(&rec.Connections); err != nil {
			return err
		}
		if err := d.t.putNamespace(rec); err != nil {
			return err
		}
	}
	return nil
}

func (d *declaration) route(i int, rec *namespaceRecord) error {
	c, field := &d.c.Namespaces[i], fmt.Sprintf("namespaces[%d]", i)
	spec := d.is.namespaceSpec(rec.Name, "")
	w := wiring(&spec)
	w.Rules = nil
	set, err := router.BuildSet(&w)
	if err != nil {
		return d.fault(field, err)
	}
	if set, err = d.rules(field, rec, c, set); err != nil {
		return err
	}
	changes := make([]routing.Change, len(c.Routes))
	for j := range c.Routes {
		if changes[j].Route = &c.Routes[j]; !users(&c.Routes[j]) {
			return d.fault(fmt.Sprintf("%s.routes[%d]", field, j), errKernel)
		}
	}
	if set, err = d.apply(field+".routes", set, changes); err != nil {
		return err
	}
	if set, err = d.defaults(rec, set); err != nil {
		return err
	}
	was := d.was.routes[rec.Name]
	if err := d.t.putRoutes(rec.Name, set, nil); err != nil {
		return err
	}
	if is := d.is.routes[rec.Name]; is != was {
		before, after := routeLines(rec.names(), was, is)
		d.compare("route", rec.Name, before, after)
	}
	return nil
}

// errKernel says why a change of what the namespace itself makes is refused.
var errKernel = errors.New("proto kernel is what the namespace makes of its own addresses")

// rules notes the rules of a namespace in its record, nil if none was said.
func (d *declaration) rules(field string, rec *namespaceRecord, c *config.Namespace, set *routing.Set) (*routing.Set, error) {
	old := namespaceRecord{}
	if was := d.was.namespace(rec.Name); was != nil {
		old = *was
	}
	if len(c.Rules) > 0 || c.NoDefaultRules {
		var changes []routing.Change
		if c.NoDefaultRules {
			for _, r := range rulesOf(set) {
				changes = append(changes, routing.Change{Op: routing.OpDelete, Rule: &r})
			}
		}
		none, err := set.Apply(changes)
		if err != nil {
			return nil, err
		}
		changes = nil
		for j := range c.Rules {
			changes = append(changes, routing.Change{Rule: &c.Rules[j]})
		}
		if set, err = d.apply(field+".rules", none, changes); err != nil {
			return nil, err
		}
		rec.Rules = rulesOf(set)
	}
	d.compare("rule", rec.Name, ruleLines(rec.names(), d.was.statedRules(&old)), ruleLines(rec.names(), d.is.statedRules(rec)))
	return set, nil
}

// apply changes a Set; the fault names the field's entry.
func (d *declaration) apply(field string, set *routing.Set, changes []routing.Change) (*routing.Set, error) {
	next, err := set.Apply(changes)
	if at, ok := errors.AsType[*routing.ChangeError](err); ok {
		return nil, d.fault(fmt.Sprintf("%s[%d]", field, at.Index), at.Err)
	}
	return next, err
}

// fault is the error of a field of the file.
func (d *declaration) fault(field string, err error) error {
	e := d.c.Fault(field, err.Error())
	return &api.Error{Code: api.CodeInvalid, Field: field, Message: e.Error()}
}

// forget drops the records and routes of namespaces that are not declared.
func (d *declaration) forget() error {
	for i := range d.was.namespaces {
		old := &d.was.namespaces[i]
		if !d.mine(old.Origin) {
			continue
		}
		if slices.ContainsFunc(d.c.Namespaces, func(c config.Namespace) bool { return c.Name == old.Name }) {
			continue
		}
		if !slices.Contains(d.is.spaces(), old.Name) {
			d.change("remove", "namespace", old.Name, "")
			if err := d.t.dropNamespace(old.Name); err != nil {
				return err
			}
			continue
		}
		if err := d.bare(old); err != nil {
			return err
		}
	}
	for name, list := range d.was.routes {
		if of, _ := d.was.spaceOrigin(name); !d.mine(of) {
			continue
		}
		if list.len() == 0 || slices.ContainsFunc(d.c.Namespaces, func(c config.Namespace) bool { return c.Name == name }) {
			continue
		}
		before, _ := routeLines(nil, list, nil)
		d.compare("route", name, before, nil)
		if err := d.t.dropRoutes(name); err != nil {
			return err
		}
	}
	return d.t.forgetHistory(d.is.spaces())
}

// bare leaves of a namespace that stays, and is declared no more, what its attachments
// were made with.
func (d *declaration) bare(old *namespaceRecord) error {
	n := namespaceRecord{Name: old.Name, Origin: old.Origin}
	if err := d.t.endRules(old, "apply"); err != nil {
		return err
	}
	if err := d.keepPorts("namespaces", &n); err != nil {
		return err
	}
	d.changes = append(d.changes, d.lost(old, &n)...)
	if len(n.Connections.Published) == 0 {
		return d.t.dropNamespace(old.Name)
	}
	n.Connections.Zone = old.Connections.Zone
	d.is.namespaces = append(d.is.namespaces, n)
	slices.SortFunc(d.is.namespaces, func(a, b namespaceRecord) int { return cmp.Compare(a.Name, b.Name) })
	return d.t.putNamespace(&n)
}

// keepPorts keeps published the ports of attachments that were made with them.
func (d *declaration) keepPorts(field string, n *namespaceRecord) error {
	for _, rec := range d.was.attachedIn(n.Name) {
		ports, err := rec.CNI.published(rec.Name)
		if err != nil {
			return err
		}
		for _, p := range ports {
			if slices.ContainsFunc(n.Connections.Published, p.Overlaps) {
				return d.fault(field, fmt.Errorf("port %s is published for %s already", p.Outside(), rec.Name))
			}
			n.Connections.Published = append(slices.Clip(n.Connections.Published), p)
		}
	}
	return nil
}

// lost are the changes of a namespace that stays and is declared no more, but for what
// is left of it.
func (d *declaration) lost(old, left *namespaceRecord) []api.Change {
	e := declaration{}
	first := firstRules(d.was.inVRF(old))
	e.compare("table", old.Name, tableLines(old.Tables), nil)
	e.compare("neighbour", old.Name, lines(old.Neighbours), nil)
	e.compare("vrf", old.Name, lines(old.VRFs), nil)
	e.compare("link", old.Name, lines(old.Links), nil)
	e.compare("rule", old.Name, ruleLines(nil, d.was.statedRules(old)), ruleLines(nil, first))
	e.compareConnections(old.Name, &old.Connections, &left.Connections)
	e.compare("dns", old.Name, jsonLine(old.DNS == nil, old.DNS), nil)
	e.compare("nft", old.Name, old.ruleLines(), nil)
	e.compare("tree", old.Name, tc.ShareLines(old.Shares), nil)
	return e.changes
}

// check builds everything as the dataplane will.
func (d *declaration) check(built *sets) error {
	for _, name := range d.is.spaces() {
		if _, err := built.of(&d.is, name); err != nil {
			return refuse(api.CodeInvalid, "namespaces", "namespace %s: %s", name, err)
		}
	}
	if err := d.is.snapshot("").Validate(); err != nil {
		return refuse(api.CodeInvalid, "", "%s", err)
	}
	return nil
}

func (d *declaration) change(action, object, namespace, entry string) {
	d.changes = append(d.changes, api.Change{Action: action, Object: object, Namespace: namespace, Entry: entry})
}

// mostListed is how many lines of a kind are listed in one namespace.
const mostListed = 20

// compare lists what is in one of two lists only, the first ones of it.
func (d *declaration) compare(object, namespace string, before, after []string) {
	d.list("remove", object, namespace, less(before, after))
	d.list("add", object, namespace, less(after, before))
}

func (d *declaration) list(action, object, namespace string, all []string) {
	for _, entry := range all[:min(len(all), mostListed)] {
		d.change(action, object, namespace, entry)
	}
	if n := len(all) - mostListed; n > 0 {
		d.change(action, object, namespace, "and "+strconv.Itoa(n)+" more")
	}
}

// less are the lines of the first list that are not in the second.
func less(of, without []string) []string {
	there := make(map[string]bool, len(without))
	for _, l := range without {
		there[l] = true
	}
	var out []string
	for _, l := range of {
		if !there[l] {
			out = append(out, l)
		}
	}
	return out
}

// lines are the entries as text.
func lines[T fmt.Stringer](all []T) []string {
	var out []string
	for _, e := range all {
		out = append(out, e.String())
	}
	return out
}

func tableLines(tables map[string]routing.TableID) []string {
	var out []string
	for name, id := range tables {
		out = append(out, name+" "+strconv.FormatUint(uint64(id), 10))
	}
	slices.Sort(out)
	return out
}

func ruleLines(names *routing.Names, rules []routing.Rule) []string {
	var out []string
	for i := range rules {
		family := ""
		if rules[i].Family == routing.IPv6 {
			family = "-6 "
		}
		out = append(out, family+names.Rule(&rules[i]))
	}
	return out
}

// routeLines are the routes of which two lists have no equal, as text.
func routeLines(names *routing.Names, was, is *routeList) (before, after []string) {
	differ := was.differing(is)
	text := func(l *routeList) (out []string) {
		for _, r := range l.routes() {
			if differ[leafKey{r.Table, r.Prefix}] {
				out = append(out, names.Route(&r))
			}
		}
		return out
	}
	return text(was), text(is)
}

// String is the VRF in the words of `sluice vrf`.
func (v vrfRecord) String() string {
	return v.Name + " table " + strconv.FormatUint(uint64(v.Table), 10)
}

// String is the link in a line.
func (l linkRecord) String() string {
	text := fmt.Sprintf("%s peer %s netns %s mtu %d", l.Name, l.Peer, l.PeerNamespace, l.MTU)
	if len(l.Addresses) > 0 {
		text += " addr " + words[netip.Prefix](l.Addresses)
	}
	if l.VRF != "" {
		text += " vrf " + l.VRF
	}
	return strings.Join(append([]string{text}, l.Device.Words()...), " ") + qdiscText(l.Queue.Lines)
}
