// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/conntrack"
	"sluice/nat"
	"sluice/natspec"
	"sluice/netstack"
	"sluice/routing"
)

// connectionsRecord is what a namespace's record says of connections.
type connectionsRecord struct {
	// Track is what was said; nil: whatever is translated or published decides.
	Track         *bool  `json:"track,omitempty"`
	Profile       string `json:"profile,omitempty"`
	Filtering     string `json:"filtering,omitempty"`
	LingerSeconds uint32 `json:"linger_seconds,omitempty"`
	QuotaPerPort  int    `json:"quota_per_port,omitempty"`
	// Zone is the namespace's in the table of connections, from the first time that
	// it tracks some until it is gone; 0: not yet.
	Zone uint16 `json:"zone,omitempty"`
	// Masquerades says that an uplink of the namespace hides what leaves by it.
	Masquerades bool `json:"masquerades,omitempty"`
	// NAT and Published are kept as text.
	NAT       []natspec.Statement `json:"nat,omitempty"`
	Published []natspec.Publish   `json:"published,omitempty"`
	NAT64     *natspec.NAT64      `json:"nat64,omitempty"`
	Services  []serviceRecord     `json:"services,omitempty"`
	Maps      []natspec.Map       `json:"maps,omitempty"`
	Bridged   bool                `json:"bridged,omitempty"`
	// Filtered says that the namespace has a ruleset.
	Filtered bool `json:"filtered,omitempty"`
}

// tracks reports whether connections are tracked.
func (c *connectionsRecord) tracks() bool {
	if c.Track != nil {
		return *c.Track
	}
	return len(c.NAT)+len(c.Published)+len(c.Services) > 0 || c.NAT64 != nil || c.Bridged || c.Masquerades || c.Filtered
}

// declare takes over what the file says, and keeps the zone.
func (c *connectionsRecord) declare(f *config.Connections) {
	*c = connectionsRecord{
		Track: f.Track, Profile: f.Profile, Filtering: f.Filtering, LingerSeconds: f.LingerSeconds, QuotaPerPort: f.QuotaPerPort,
		Zone: c.Zone, NAT: f.NAT, Published: f.Published, NAT64: f.NAT64, Maps: f.Maps, Bridged: f.Bridged,
		Services: declareServices(c.Services, f.Services),
	}
}

// settings are in a line, none if nothing was said.
func (c *connectionsRecord) settings() []string {
	var out []string
	add := func(said bool, word, value string) {
		if said {
			out = append(out, word+" "+value)
		}
	}
	add(c.Track != nil, "track", strconv.FormatBool(c.tracks()))
	add(c.Profile != "", "profile", c.Profile)
	add(c.Filtering != "", "filtering", c.Filtering)
	add(c.LingerSeconds != 0, "linger", fmt.Sprintf("%ds", c.LingerSeconds))
	add(c.QuotaPerPort != 0, "quotaPerPort", strconv.Itoa(c.QuotaPerPort))
	add(c.Bridged, "bridged", "true")
	if len(out) == 0 {
		return nil
	}
	return []string{strings.Join(out, " ")}
}

// compareConnections lists what differs between two records.
func (d *declaration) compareConnections(name string, old, is *connectionsRecord) {
	d.compare("conntrack", name, old.settings(), is.settings())
	d.compare("nat", name, lines(old.NAT), lines(is.NAT))
	d.compare("publish", name, lines(old.Published), lines(is.Published))
	d.compare("service", name, lines(old.Services), lines(is.Services))
	d.compare("map", name, mapLines(old.Maps), mapLines(is.Maps))
	d.compare("nat64", name, nat64Lines(old.NAT64), nat64Lines(is.NAT64))
}

func mapLines(all []natspec.Map) (out []string) {
	for i := range all {
		out = append(out, all[i].Lines()...)
	}
	return out
}

func nat64Lines(n *natspec.NAT64) []string {
	if n == nil {
		return nil
	}
	return []string{n.String()}
}

// zone gives the record a zone if it needs one and has none: the next after the one
// that was given last, since connections of whoever had it before may be in the table.
func (t *txn) zone(c *connectionsRecord) error {
	if c.Zone != 0 || !c.tracks() {
		return nil
	}
	taken := make(map[uint16]bool)
	for i := range t.state.namespaces {
		taken[t.state.namespaces[i].Connections.Zone] = true
	}
	next := t.lastZone() + 1
	for next == 0 || taken[next] {
		next++
	}
	c.Zone = next
	return t.write(bucketMeta, "", []byte("zone"), binary.BigEndian.AppendUint16(nil, next))
}

// lastZone is the zone that was given last, 0 if none was.
func (t *txn) lastZone() uint16 {
	if b := t.tx.Bucket([]byte(bucketMeta)).Get([]byte("zone")); len(b) == 2 {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// connectionsSpec is what the dataplane is told: the statements, then what is
// published for containers that are there.
func (s *state) connectionsSpec(n *namespaceRecord, also string) netstack.ConnectionsSpec {
	c := &n.Connections
	if !c.tracks() {
		return netstack.ConnectionsSpec{}
	}
	spec := netstack.ConnectionsSpec{
		Track: true, Zone: c.Zone, Profile: c.Profile, Filtering: c.Filtering, Linger: c.LingerSeconds,
		Services: c.natServices(), Bridged: c.Bridged,
	}
	for _, r := range s.natRules(n, also) {
		if r.active {
			spec.Rules = append(spec.Rules, r.Rule)
		}
	}
	return spec
}

// natRule is a rule, and what made it.
type natRule struct {
	nat.Rule
	text   string
	active bool // false: a device or the container isn't there
}

// natRules are all of a namespace in their order.
func (s *state) natRules(n *namespaceRecord, also string) (out []natRule) {
	index := s.deviceNumbers(n.Name)
	number := func(name string) (uint16, bool) { i, ok := index[name]; return i, ok }
	for i := range n.Connections.NAT {
		rule, ok := n.Connections.NAT[i].Rule(number, n.Connections.mapOf(&n.Connections.NAT[i]))
		out = append(out, natRule{rule, rule.Name, ok})
	}
	if n.Connections.NAT64 != nil {
		out = append(out, s.nat64Rule(n))
	}
	for _, r := range n.Connections.serviceRules() {
		out = append(out, natRule{r, r.Name, true})
	}
	containers := make(map[string][]netip.Addr)
	for _, a := range s.attachedIn(n.Name) {
		if a.forwards(also) {
			containers[a.Name] = a.addrs()
		}
	}
	hairpin := len(n.Connections.Services) > 0
	for _, p := range n.Connections.Published {
		rules := p.Rules(containers[p.To])
		for i := range rules {
			out = append(out, natRule{rules[i], "publish " + p.String(), true})
		}
		hairpin = hairpin || len(rules) > 0
	}
	for _, rule := range s.masquerades(n.Name) {
		out = append(out, natRule{rule, rule.Name, true})
	}
	if hairpin {
		out = append(out, natRule{natspec.Hairpin(), natspec.Hairpin().Name, true})
	}
	return out
}

// mapOf is the map that a statement names; nil if it names none.
func (c *connectionsRecord) mapOf(s *natspec.Statement) *natspec.Map {
	i := slices.IndexFunc(c.Maps, func(m natspec.Map) bool { return m.Name == s.MapName() })
	if i < 0 {
		return nil
	}
	return &c.Maps[i]
}

// deviceNumbers are those of the devices that packets come and leave by.
func (s *state) deviceNumbers(namespace string) map[string]uint16 {
	out := make(map[string]uint16)
	for _, n := range s.in(namespace) {
		out[n.Name] = n.Port
	}
	if n := s.namespace(namespace); n != nil {
		for i := range n.Links {
			out[n.Links[i].Name] = n.Links[i].Index
		}
	}
	return out
}

// portLimits are those of a container's connections. Behind an uplink's port is the
// world, which has no quota.
func (s *state) portLimits(n *networkRecord) conntrack.PortLimits {
	rec := s.namespace(n.space())
	if rec == nil || n.Uplink != nil || !rec.Connections.tracks() {
		return conntrack.PortLimits{}
	}
	return conntrack.PortLimits{Quota: rec.Connections.QuotaPerPort}
}

// tenure tells an attachment from the others that have had its port. It is made of the
// identifier, which no other one ever has.
func (a *attachmentRecord) tenure() uint32 {
	sum := sha256.Sum256([]byte(a.ID))
	return binary.BigEndian.Uint32(sum[:])&^(1<<31) | 1
}

// publish is `publish add` and `publish del`.
func (e *editor) publish(words []string) error {
	verb, line := "", ""
	if len(words) > 0 {
		verb, line = words[0], strings.Join(words[1:], " ")
	}
	switch verb {
	case "add":
		p, err := natspec.ParsePublish(line)
		if err != nil {
			return err
		}
		return e.addPublished(p)
	case "del":
		p, err := natspec.ParsePublished(line)
		if err != nil {
			return err
		}
		return e.dropPublished(p)
	}
	return &routing.ParseError{Word: verb, Reason: "want add or del"}
}

func (e *editor) addPublished(p natspec.Publish) error {
	have := e.own().Connections.Published
	if i := slices.IndexFunc(have, p.Overlaps); i >= 0 {
		return refuse(api.CodeExists, "commands", "port %s is published for %s already", have[i].Outside(), have[i].To)
	}
	if len(have) == config.MaxPublished {
		return refuse(api.CodeExhausted, "commands", "%d ports are published; more are not supported", len(have))
	}
	if c := e.own().Connections; c.Track != nil && !*c.Track {
		return refuse(api.CodeInvalid, "commands", "the namespace tracks no connections (conntrack.track: false)")
	}
	return e.setPublished(append(slices.Clone(have), p))
}

func (e *editor) dropPublished(p natspec.Publish) error {
	have := e.own().Connections.Published
	i := slices.IndexFunc(have, func(o natspec.Publish) bool { return o.Same(p) && (p.To == "" || o == p) })
	if i < 0 {
		return refuse(api.CodeNotFound, "commands", "port %s is not published", p.Outside())
	}
	return e.setPublished(slices.Delete(slices.Clone(have), i, i+1))
}

func (e *editor) setPublished(all []natspec.Publish) error {
	rec := e.record(e.space)
	rec.Connections.Published = all
	e.records[e.space], e.published = true, true
	return e.t.zone(&rec.Connections)
}
