// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice/iproute"
	"sluice/routing"
)

// scope is a namespace while it is validated: what its words may name.
type scope struct {
	tables *routing.Names
	vrfs   map[string]routing.TableID
	// devices are networks, uplinks, links and VRFs by name, each with the field that made it.
	devices map[string]string
	// networks are those that may have neighbours; vrfOf says in which VRF a device is.
	networks map[string]bool
	vrfOf    map[string]string
}

// table is the table of a VRF.
func (s *scope) table(vrf string) (routing.TableID, bool) {
	id, ok := s.vrfs[vrf]
	return id, ok
}

// namespaces checks the list. The scopes are those that networks then join.
func (v *validator) namespaces(f *rawFile) (out []Namespace, scopes map[string]*scope) {
	raw := spaces(f)
	scopes = make(map[string]*scope)
	if n := len(raw); n > MaxNamespaces {
		v.fault("namespaces", "%d namespaces; at most %d are supported", n, MaxNamespaces)
		return nil, scopes
	}
	seen := make(map[string]int)
	for i := range raw {
		field := fmt.Sprintf("namespaces[%d]", i)
		v.name(field+".name", raw[i].Name)
		if first, dup := seen[raw[i].Name]; dup {
			v.fault(field+".name", "%q is already the name of namespaces[%d]", raw[i].Name, first)
		}
		seen[raw[i].Name] = i
		scopes[raw[i].Name] = v.scope(field, &raw[i])
	}
	v.join(scopes, *f.Networks)
	v.plug(f, scopes)
	for i := range raw {
		field := fmt.Sprintf("namespaces[%d]", i)
		out = append(out, v.namespace(field, &raw[i], scopes[raw[i].Name]))
	}
	v.bounds(out)
	v.peers(out)
	return out, scopes
}

// join makes the networks devices of their namespaces.
func (v *validator) join(scopes map[string]*scope, networks []rawNetwork) {
	for i := range networks {
		n := &networks[i]
		field := fmt.Sprintf("networks[%d]", i)
		s := scopes[orElse(n.Namespace, n.Name)]
		switch {
		case s == nil && n.Namespace != "" && n.Namespace != n.Name:
			v.fault(field+".namespace", "no namespace %q is declared", n.Namespace)
		case s == nil && n.VRF != "":
			v.fault(field+".vrf", "no VRF %q: the network's namespace is not declared", n.VRF)
		case s == nil:
		default:
			s.add(v, field+".name", n.Name)
			s.networks[n.Name] = true
			s.enslave(v, field+".vrf", n.Name, n.VRF)
		}
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// scope collects what is there to be named, but for networks.
func (v *validator) scope(field string, r *rawNamespace) *scope {
	s := &scope{
		vrfs: make(map[string]routing.TableID), devices: make(map[string]string),
		networks: make(map[string]bool), vrfOf: make(map[string]string),
	}
	s.tables = v.tables(field+".tables", r.Tables)
	taken := make(map[routing.TableID]string)
	for i, vrf := range r.VRFs {
		at := fmt.Sprintf("%s.vrfs[%d]", field, i)
		id := v.vrfTable(at+".table", vrf.Table, s.tables)
		if other := taken[id]; other != "" && id != 0 {
			v.fault(at+".table", "table %s is that of VRF %s", vrf.Table, other)
		}
		taken[id], s.vrfs[vrf.Name] = vrf.Name, id
		v.device(at+".name", vrf.Name)
		s.add(v, at+".name", vrf.Name)
	}
	for i := range r.Links {
		at := fmt.Sprintf("%s.links[%d]", field, i)
		v.device(at+".name", r.Links[i].Name)
		s.add(v, at+".name", r.Links[i].Name)
	}
	return s
}

// add makes a device, whose name must be its own.
func (s *scope) add(v *validator, field, name string) {
	if other, dup := s.devices[name]; dup && name != "" {
		v.fault(field, "%q is already the name of a device of the namespace, see %s", name, other)
	}
	s.devices[name] = field
}

// enslave puts a device into a VRF; in "" it changes nothing.
func (s *scope) enslave(v *validator, field, device, vrf string) {
	if vrf == "" {
		return
	}
	if _, known := s.vrfs[vrf]; !known {
		v.fault(field, "no VRF %q in the namespace", vrf)
	}
	if other := s.vrfOf[device]; other != "" && other != vrf {
		v.fault(field, "%s is in VRF %s already", device, other)
	}
	s.vrfOf[device] = vrf
}

func (v *validator) device(field, name string) {
	switch {
	case name == "":
		v.fault(field, "missing")
	case !iproute.IsDeviceName(name):
		v.fault(field, "%q: 1 to 15 printable characters without space, / and :", name)
	}
}

func (v *validator) tables(field string, raw map[string]int) *routing.Names {
	if n := len(raw); n > MaxEntries {
		v.fault(field, "%d tables; at most %d are supported", n, MaxEntries)
		return nil
	}
	tables := make(map[string]routing.TableID, len(raw))
	for name, id := range raw {
		if id < 1 || uint64(id) > 1<<32-1 {
			v.fault(field+"."+name, "%d is out of range; expected 1 to 4294967295", id)
		}
		tables[name] = routing.TableID(uint32(id))
	}
	names, err := routing.NewNames(tables)
	if err != nil {
		v.fault(field, "%s", err)
		return nil
	}
	return names
}

func (v *validator) vrfTable(field, text string, names *routing.Names) routing.TableID {
	id, ok := names.Table(text)
	switch {
	case text == "":
		v.fault(field, "missing")
	case !ok:
		v.fault(field, "%q is no table: want a number or a name of tables", text)
	case id >= routing.TableDefault && id <= routing.TableLocal:
		v.fault(field, "table %s is everybody's", text)
	}
	return id
}

func (v *validator) namespace(field string, r *rawNamespace, s *scope) Namespace {
	n := Namespace{Name: r.Name, Tables: make(map[string]routing.TableID)}
	for name, id := range r.Tables {
		n.Tables[name] = routing.TableID(uint32(id))
	}
	for i, vrf := range r.VRFs {
		n.VRFs = append(n.VRFs, VRF{Name: vrf.Name, Table: s.vrfs[vrf.Name]})
		for j, dev := range vrf.Devices {
			v.slave(fmt.Sprintf("%s.vrfs[%d].devices[%d]", field, i, j), dev, vrf.Name, s)
		}
	}
	for i := range r.Links {
		n.Links = append(n.Links, v.link(fmt.Sprintf("%s.links[%d]", field, i), &r.Links[i], s))
	}
	for i := range n.Links { // VRFs may name those that come later
		n.Links[i].VRF = s.vrfOf[n.Links[i].Name]
	}
	n.NoDefaultRules = r.DefaultRules != nil && !*r.DefaultRules
	n.Rules = v.rules(field+".rules", r.Rules, s)
	if n.NoDefaultRules && len(n.Rules) == 0 {
		v.fault(field+".defaultRules", "without any rule nothing is routed; give rules")
	}
	n.Routes = v.routes(field+".routes", r.Routes, s)
	n.Neighbours = v.neighbours(field+".neighbours", r.Neighbours, s)
	n.Connections = v.connections(field, r, s)
	n.DNS = v.dns(field+".dns", r.DNS)
	n.Shares = v.shares(field+".tree", r.Shares)
	if v.ruleset(field, r, &n); n.NFT != nil && n.Connections.Track != nil && !*n.Connections.Track {
		v.fault(field+".conntrack.track", "false, but nft needs it: leave it out, or that")
	}
	return n
}

func (v *validator) slave(field, device, vrf string, s *scope) {
	_, known := s.devices[device]
	if _, isVRF := s.vrfs[device]; !known || isVRF {
		v.fault(field, "no network or link %q in the namespace", device)
	}
	s.enslave(v, field, device, vrf)
}

// rules reads ip-rule(8)'s words.
func (v *validator) rules(field string, raw []string, s *scope) []routing.Rule {
	if n := len(raw); n > MaxEntries {
		v.fault(field, "%d rules; at most %d are supported", n, MaxEntries)
		return nil
	}
	var out []routing.Rule
	for i, text := range raw {
		c, err := s.tables.ParseRule(verb("add", text))
		if err != nil {
			v.fault(fmt.Sprintf("%s[%d]", field, i), "%q: %s", text, err)
			break
		}
		out = append(out, *c.Rule)
	}
	return out
}

// routes reads ip-route(8)'s words.
func (v *validator) routes(field string, raw []string, s *scope) []routing.Route {
	if n := len(raw); n > MaxRoutes {
		v.fault(field, "%d routes; at most %d are supported", n, MaxRoutes)
		return nil
	}
	out := make([]routing.Route, 0, len(raw))
	for i, text := range raw {
		r, err := s.route(text)
		if err != nil {
			v.fault(fmt.Sprintf("%s[%d]", field, i), "%q: %s", text, err)
			break
		}
		out = append(out, *r)
	}
	return out
}

func (s *scope) route(text string) (*routing.Route, error) {
	if strings.Contains(text, "vrf") {
		words, err := iproute.ExpandVRF(strings.Fields(text), s.table)
		if err != nil {
			return nil, err
		}
		text = strings.Join(words, " ")
	}
	c, err := s.tables.ParseRoute(verb("add", text))
	if err != nil {
		return nil, err
	}
	return c.Route, nil
}

// verb puts a verb before the words of a line, behind its family option.
func verb(verb, text string) string {
	family, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	if family == "-4" || family == "-6" {
		return family + " " + verb + " " + rest
	}
	return verb + " " + text
}

// neighbours reads ip-neighbour(8)'s words.
func (v *validator) neighbours(field string, raw []string, s *scope) []iproute.Neighbour {
	if n := len(raw); n > MaxEntries {
		v.fault(field, "%d neighbours; at most %d are supported", n, MaxEntries)
		return nil
	}
	type key struct {
		addr netip.Addr
		dev  string
	}
	seen := make(map[key]int)
	var out []iproute.Neighbour
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		n, err := iproute.ParseStaticNeighbour(strings.Fields(text))
		if err != nil {
			v.fault(at, "%q: %s", text, err)
			continue
		}
		if !s.networks[n.Dev] {
			v.fault(at, "no network %q in the namespace", n.Dev)
		}
		if first, dup := seen[key{n.Addr, n.Dev}]; dup {
			v.fault(at, "%s dev %s is neighbours[%d] already", n.Addr, n.Dev, first)
		}
		seen[key{n.Addr, n.Dev}] = i
		out = append(out, n)
	}
	return out
}

func (v *validator) link(field string, r *rawLink, s *scope) Link {
	l := Link{Name: r.Name, PeerNamespace: r.Peer.Namespace, PeerLink: r.Peer.Link, MTU: DefaultMTU, Device: iproute.Settings{}}
	if r.Peer.Namespace == "" || r.Peer.Link == "" {
		v.fault(field+".peer", "missing: the namespace and the link of the other end")
	}
	seen := make(map[netip.Addr]bool)
	for i, text := range r.Addresses {
		at := fmt.Sprintf("%s.addresses[%d]", field, i)
		p, err := netip.ParsePrefix(text)
		if err != nil {
			v.fault(at, "%q is not an address with a length, as 10.255.0.1/31", text)
			continue
		}
		if err := iproute.CheckAddress(p); err != nil || seen[p.Addr()] {
			v.fault(at, "%s is not an address that a link can have, or there twice", p)
		}
		seen[p.Addr()] = true
		l.Addresses = append(l.Addresses, p)
	}
	if r.MTU != nil {
		l.MTU = v.between(field+".mtu", r.MTU, MinMTU6, MaxMTU)
	}
	v.routed(field, r.Forwarding, r.RPFilter, r.Redirects, r.ClampMSS, l.Device)
	s.enslave(v, field+".vrf", r.Name, r.VRF)
	l.Queueing = v.routedQueueing(field+".qdisc", r.Qdisc)
	return l
}

// bounds are those of the whole file.
func (v *validator) bounds(all []Namespace) {
	var vrfs, links, routes int
	for i := range all {
		vrfs, links, routes = vrfs+len(all[i].VRFs), links+len(all[i].Links), routes+len(all[i].Routes)
	}
	for _, b := range []struct {
		what    string
		n, most int
	}{{"VRFs", vrfs, MaxVRFs}, {"links", links, MaxLinks}, {"routes", routes, MaxRoutes}} {
		if b.n > b.most {
			v.fault("namespaces", "%d %s in all; at most %d are supported", b.n, b.what, b.most)
		}
	}
}

// peers holds the two ends of each link together.
func (v *validator) peers(all []Namespace) {
	type end struct{ namespace, link string }
	ends := make(map[end]*Link)
	for i := range all {
		for j := range all[i].Links {
			ends[end{all[i].Name, all[i].Links[j].Name}] = &all[i].Links[j]
		}
	}
	for i := range all {
		for j, l := range all[i].Links {
			field := fmt.Sprintf("namespaces[%d].links[%d].peer", i, j)
			peer := ends[end{l.PeerNamespace, l.PeerLink}]
			switch {
			case l.PeerNamespace == all[i].Name:
				v.fault(field, "the other end must be in another namespace")
			case peer == nil:
				v.fault(field, "no link %q in a namespace %q", l.PeerLink, l.PeerNamespace)
			case peer.PeerNamespace != all[i].Name || peer.PeerLink != l.Name:
				v.fault(field, "link %s of namespace %s names another one as its peer", l.PeerLink, l.PeerNamespace)
			}
		}
	}
}
