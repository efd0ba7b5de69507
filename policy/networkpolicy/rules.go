// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// family of addresses: a set has one, and so has a rule that looks into it.
type family uint8

const (
	anyFamily family = 0
	v4        family = 4
	v6        family = 6
)

func families() []family { return []family{v4, v6} }

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

// header is the word of nft for the family's header, typ that for its addresses.
func (f family) header() string { return map[family]string{v4: "ip", v6: "ip6"}[f] }
func (f family) typ() string    { return fmt.Sprintf("ipv%d_addr", f) }

// setName is the name of the half of a set for one family.
func (f family) setName(base string) string { return fmt.Sprintf("%s%d", base, f) }

// members says what a set of peers has: the addresses of a group's pods, or with
// their port of a name, if they have one.
type members struct {
	group group
	port  string // "" for addresses
	proto Protocol
}

// String is the same for the same members.
func (m *members) String() string {
	if m.port == "" {
		return m.group.String()
	}
	return m.group.String() + " port " + string(m.proto) + " " + m.port
}

// base is the name of the sets but for the family.
func (m *members) base() string { return "peers/" + digest(m.String()) + "/" }

// digest is a short name for a long text. 64 bits are enough for names that nobody
// has a reason to make collide: who may write policies may allow anything anyway.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// decl is what stands in the braces of the set for a family.
func (m *members) decl(f family) string {
	typ := f.typ()
	if m.port != "" {
		typ += " . inet_service"
	}
	return fmt.Sprintf("type %s; comment %q;", typ, shortened(m.String(), 120))
}

// shortened keeps text below the length that nft allows for it, and unlike others.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most-20] + "..." + digest(text)
}

// elements are what a pod of the group puts into the sets.
func (m *members) elements(p *Pod) []string {
	suffix := ""
	if m.port != "" {
		port, ok := p.port(m.proto, m.port)
		if !ok {
			return nil
		}
		suffix = fmt.Sprintf(" . %d", port)
	}
	var out []string
	for _, a := range p.Addrs {
		out = append(out, a.String()+suffix)
	}
	return out
}

// clause is a part of a rule, for packets of one family or of both.
type clause struct {
	family family
	text   string
	whole  bool // it says all that there is to say, also of the peer or the port
}

// translation turns the rules of a policy, for one direction, to those of nft.
type translation struct {
	policy *Policy
	dir    direction
	uses   map[string]members // by base
	out    []string
}

// translate returns the rules of nft for one direction of a policy, and the members
// of the sets that they look into.
func translate(p *Policy, d direction) (rules []string, uses map[string]members) {
	t := &translation{policy: p, dir: d, uses: map[string]members{}}
	for i, r := range p.Spec.rules(d) {
		t.rule(i, r)
	}
	return t.out, t.uses
}

// rule writes one rule: a line for each kind of peer and each kind of port.
func (t *translation) rule(i int, r rule) {
	place := fmt.Sprintf("%s[%d]", t.dir, i)
	if len(r.peers) == 0 {
		t.lines(place, []clause{{}}, &r, nil)
	}
	var blocks []span
	for j := range r.peers {
		if b := r.peers[j].IPBlock; b != nil {
			blocks = append(blocks, b.spans()...)
			continue
		}
		t.lines(fmt.Sprintf("%s.%s[%d]", place, t.dir.peers(), j), nil, &r, &r.peers[j])
	}
	if len(blocks) > 0 {
		t.lines(place+"."+t.dir.peers()+" ipBlock", t.blocks(blocks), &r, &Peer{IPBlock: &IPBlock{}})
	}
}

// lines writes the rules for one peer, nil for all; who are its clauses, if they
// don't depend on the port.
func (t *translation) lines(place string, who []clause, r *rule, peer *Peer) {
	for _, port := range t.ports(r.ports, peer) {
		peers := who
		if peers == nil {
			peers = t.selected(peer)
		}
		if port.whole {
			peers = []clause{{}}
		}
		for _, from := range peers {
			if from.family == anyFamily || port.family == anyFamily || from.family == port.family {
				t.line(place, from.text, port.text)
			}
		}
	}
}

func (t *translation) line(place string, clauses ...string) {
	verdict := "accept"
	if t.dir == egress {
		verdict = "goto " + ingressChain // the other pod has its say, too
	}
	words := slices.DeleteFunc(clauses, func(s string) bool { return s == "" })
	t.out = append(t.out, strings.Join(append(words, verdict, fmt.Sprintf("comment %q", place)), " "))
}

// selected are the clauses for a peer that selects pods.
func (t *translation) selected(peer *Peer) []clause {
	base := t.use(members{group: peer.group(t.policy.Namespace)})
	var out []clause
	for _, f := range families() {
		out = append(out, clause{family: f, text: fmt.Sprintf("%s %s @%s", f.header(), t.field(), f.setName(base))})
	}
	return out
}

// field is where a packet has the peer's address.
func (t *translation) field() string { return [...]string{"saddr", "daddr"}[t.dir] }

func (t *translation) use(m members) string {
	base := m.base()
	t.uses[base] = m
	return base
}

// blocks are the clauses for addresses.
func (t *translation) blocks(spans []span) []clause {
	var out []clause
	for _, f := range families() {
		of := slices.DeleteFunc(slices.Clone(spans), func(s span) bool { return familyOf(s.first) != f })
		if len(of) > 0 {
			out = append(out, clause{family: f, text: fmt.Sprintf("%s %s %s", f.header(), t.field(), oneOf(joined(of)))})
		}
	}
	return out
}

// ports are the clauses for a rule's ports; none allows none.
func (t *translation) ports(ports []Port, peer *Peer) []clause {
	if len(ports) == 0 {
		return []clause{{}}
	}
	var out []clause
	for _, proto := range protocols() {
		var spans []portSpan
		var names []string
		for i := range ports {
			p := &ports[i]
			switch {
			case p.protocol() != proto:
			case p.name() != "":
				names = append(names, p.name())
			default:
				first, last := p.bounds()
				spans = append(spans, portSpan{first, last})
			}
		}
		if len(spans) > 0 {
			out = append(out, clause{text: numbered(proto, joinedPorts(spans))})
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			out = append(out, t.named(proto, name, peer)...)
		}
	}
	return out
}

// numbered is the match for ports of a protocol.
func numbered(proto Protocol, spans []portSpan) string {
	word := strings.ToLower(string(proto))
	if spans[0] == (portSpan{0, 65535}) {
		return "meta l4proto " + word
	}
	return word + " dport " + oneOf(spans)
}

// named are the clauses for a named port, which is a number of each destination's
// own: of the pods that the policy selects, or of those that the peer does.
func (t *translation) named(proto Protocol, name string, peer *Peer) []clause {
	to := group{namespace: t.policy.Namespace, pods: &t.policy.Spec.PodSelector}
	whole := false
	switch {
	case t.dir == ingress:
	case peer == nil:
		to = group{namespaces: &Selector{}}
	case peer.IPBlock != nil:
		return nil // addresses have no names for their ports
	default:
		to, whole = peer.group(t.policy.Namespace), true
	}
	base := t.use(members{group: to, port: name, proto: proto})
	var out []clause
	for _, f := range families() {
		text := fmt.Sprintf("%s daddr . %s dport @%s", f.header(), strings.ToLower(string(proto)), f.setName(base))
		out = append(out, clause{family: f, text: text, whole: whole})
	}
	return out
}
