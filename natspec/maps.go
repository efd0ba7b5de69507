// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/nat"
	"sluice/routing"
)

// MaxMapElements bounds a map that has a name.
const MaxMapElements = 65536

// The types of nft(8) that keys and values of a map are made of.
const (
	typeIPv4  = "ipv4_addr"
	typeIPv6  = "ipv6_addr"
	typePort  = "inet_service"
	typeProto = "inet_proto"
)

// selector is one field of a packet that a map is asked with.
type selector struct {
	text string // "ip daddr"
	kind string // its type
	by   nat.Fields
}

// mapUse is what a statement says of a map: "ip daddr . tcp dport map @m".
type mapUse struct {
	keys []selector
	name string // empty: its elements are in the rule
}

func (u *mapUse) given() bool { return len(u.keys) > 0 }

func (u *mapUse) kinds() (out []string) {
	for _, k := range u.keys {
		out = append(out, k.kind)
	}
	return out
}

func (u *mapUse) by() (by nat.Fields) {
	for _, k := range u.keys {
		by |= k.by
	}
	return by
}

// saysProtocol reports whether a key is the port of a protocol, which then need not be
// said before.
func (u *mapUse) saysProtocol() bool {
	return slices.ContainsFunc(u.keys, func(k selector) bool { return k.kind == typePort && !strings.HasPrefix(k.text, "th ") })
}

// isSelector reports whether a word begins the key of a map.
func isSelector(word string) bool {
	return slices.Contains([]string{"ip", "ip6", "tcp", "udp", "sctp", "th", "meta"}, word)
}

// mapped reads the key, and which map it is for.
func (s *Statement) mapped(w *words) error {
	u := &s.uses
	for {
		k, err := s.selector(w)
		if err != nil {
			return err
		}
		if u.by()&overlapping(k.by) != 0 {
			return w.wrong("want at most one address, one port and the protocol")
		}
		if u.keys = append(u.keys, k); !w.accept(".") {
			break
		}
	}
	if err := w.expect("map"); err != nil {
		return err
	}
	s.rule.Map = &nat.Map{By: u.by(), Elements: map[nat.MapKey]nat.Target{}}
	if name, named := strings.CutPrefix(w.next(), "@"); named {
		if w.take(); !isName(name) {
			return w.wrong("want the name of a map, as @ports")
		}
		u.name = name
		return nil
	}
	if w.next() != "{" {
		w.take()
		return w.wrong("want @ and the name of a map, or its elements in braces")
	}
	return s.inline(w)
}

// overlapping are the fields of the same kind.
func overlapping(by nat.Fields) nat.Fields {
	for _, pair := range []nat.Fields{nat.BySrcAddr | nat.ByDstAddr, nat.BySrcPort | nat.ByDstPort} {
		if by&pair != 0 {
			return pair
		}
	}
	return by
}

func (s *Statement) selector(w *words) (k selector, err error) {
	first := w.take()
	field := w.take()
	k.text = first + " " + field
	switch k.text {
	case "ip saddr", "ip6 saddr":
		k.by = nat.BySrcAddr
	case "ip daddr", "ip6 daddr":
		k.by = nat.ByDstAddr
	case "meta l4proto", "ip protocol", "ip6 nexthdr":
		return selector{"meta l4proto", typeProto, nat.ByProto}, nil
	default:
		return k, s.portSelector(w, first, field, &k)
	}
	if k.kind = typeIPv6; first == "ip" {
		k.kind = typeIPv4
	}
	return k, nil
}

// portSelector is for "tcp dport" and the like, which say the protocol, too.
func (s *Statement) portSelector(w *words, first, field string, k *selector) error {
	k.kind, k.by = typePort, nat.ByDstPort
	if field == "sport" {
		k.by = nat.BySrcPort
	} else if field != "dport" {
		return w.wrong("want ip saddr or daddr, tcp, udp, sctp or th sport or dport, or meta l4proto")
	}
	p, named := protocol(first)
	switch m := &s.rule.Match; {
	case first == "th":
		k.text = "th " + field
	case !named || !transport(p):
		return w.wrong("want tcp, udp, sctp or th before a port")
	case len(m.Protos) == 0:
		m.Protos = []uint8{p}
	case !slices.Equal(m.Protos, []uint8{p}):
		return w.wrong("another protocol was said before")
	}
	return nil
}

// inline reads elements in braces.
func (s *Statement) inline(w *words) error {
	e := s.rule.Map.Elements
	kinds, to := s.uses.kinds(), []string(nil)
	err := w.elementsOf(func() error {
		k, t, err := element(w, kinds, to)
		if err != nil {
			return err
		}
		if _, twice := e[k]; twice {
			return w.wrong("its key is there twice")
		}
		e[k] = t
		return nil
	})
	return err
}

// elementsOf reads elements in braces, each by the function.
func (w *words) elementsOf(one func() error) error {
	if err := w.expect("{"); err != nil {
		return err
	}
	for range maxElements {
		if err := one(); err != nil {
			return err
		}
		if w.accept("}") {
			return nil
		}
		if err := w.expect(","); err != nil {
			return err
		}
	}
	return w.wrong("a map has at most " + strconv.Itoa(maxElements) + " elements here; give it a name")
}

// element reads "10.1.1.1 . 80 : 10.2.2.2 . 8080". to are the types of the value; nil:
// an address, and maybe a port.
func element(w *words, kinds, to []string) (k nat.MapKey, t nat.Target, err error) {
	if err := keyOf(w, kinds, &k); err != nil {
		return k, t, err
	}
	ok := false
	if t.Addrs, ok = addrRange(w.take()); !ok || to != nil && t.Addrs.Min.Is4() != (to[0] == typeIPv4) {
		return k, t, w.wrong("want what it becomes, an address of the map's type")
	}
	if len(to) == 1 || to == nil && w.next() != "." {
		return k, t, nil
	}
	if err := w.expect("."); err != nil {
		return k, t, err
	}
	if t.Ports, ok = portRange(w.take()); !ok {
		return k, t, w.wrong("want a port")
	}
	return k, t, nil
}

// keyOf reads a key, and the colon behind it.
func keyOf(w *words, kinds []string, k *nat.MapKey) error {
	for i, kind := range kinds {
		if i > 0 {
			if err := w.expect("."); err != nil {
				return err
			}
		}
		if err := keyPart(w, kind, k); err != nil {
			return err
		}
	}
	return w.expect(":")
}

func keyPart(w *words, kind string, k *nat.MapKey) error {
	word, ok := w.take(), false
	switch kind {
	case typePort:
		var r nat.PortRange
		r, ok = portRange(word)
		k.Port, ok = r.Min, ok && r.Min == r.Max
	case typeProto:
		k.Proto, ok = protocol(word)
	default:
		k.Addr, ok = address(word)
		ok = ok && k.Addr.Is4() == (kind == typeIPv4)
	}
	if !ok {
		return w.wrong("want an element's key of type " + kind)
	}
	return nil
}

// words are those that mapped reads.
func (u *mapUse) words(m *nat.Map) string {
	var keys []string
	for _, k := range u.keys {
		keys = append(keys, k.text)
	}
	text := strings.Join(keys, " . ") + " map "
	if u.name != "" {
		return text + "@" + u.name
	}
	var all []string
	for k, t := range m.Elements {
		all = append(all, elementText(u.kinds(), &k, &t))
	}
	slices.Sort(all)
	return text + "{ " + strings.Join(all, ", ") + " }"
}

func elementText(kinds []string, k *nat.MapKey, t *nat.Target) string {
	var key []string
	for _, kind := range kinds {
		switch kind {
		case typePort:
			key = append(key, strconv.Itoa(int(k.Port)))
		case typeProto:
			key = append(key, ProtocolName(k.Proto))
		default:
			key = append(key, k.Addr.String())
		}
	}
	text := strings.Join(key, " . ") + " : " + t.Addrs.Min.String()
	if t.Addrs.Min != t.Addrs.Max {
		text += "-" + t.Addrs.Max.String()
	}
	if t.Ports != (nat.PortRange{}) {
		text += " . " + portsText(t.Ports)
	}
	return text
}

// Map is a map of nft(8) that has a name. Its texts are in one spelling.
type Map struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"` // "ipv4_addr . inet_service : ipv4_addr . inet_service"
	Elements []string `json:"elements"`
}

// ParseMap reads a map; the element at fault is said by its place, -1 is the name or
// type.
func ParseMap(name, kind string, elements []string) (m Map, at int, err error) {
	if !isName(name) {
		return m, -1, &routing.ParseError{Word: name, Reason: "want the name of a map, of letters, digits and - . _"}
	}
	keys, to, err := mapTypes(kind)
	if err != nil {
		return m, -1, err
	}
	m = Map{Name: name, Type: strings.Join(keys, " . ") + " : " + strings.Join(to, " . ")}
	seen := make(map[nat.MapKey]bool)
	for i, text := range elements {
		w := newWords(text)
		k, t, err := element(w, keys, to)
		switch {
		case err != nil:
		case w.more():
			w.take()
			err = w.wrong("nothing may follow here")
		case seen[k]:
			err = &routing.ParseError{Reason: "its key is there twice"}
		}
		if err != nil {
			return m, i, err
		}
		seen[k] = true
		m.Elements = append(m.Elements, elementText(keys, &k, &t))
	}
	slices.Sort(m.Elements)
	return m, 0, nil
}

// mapTypes reads the type of a map.
func mapTypes(text string) (keys, to []string, err error) {
	w := newWords(text)
	side := func(allowed ...string) (out []string) {
		for err == nil {
			kind := w.take()
			if !slices.Contains(allowed, kind) || slices.Contains(out, kind) {
				err = w.wrong("want " + strings.Join(allowed, ", ") + ", each once, joined by dots")
				return out
			}
			if out = append(out, kind); !w.accept(".") {
				return out
			}
		}
		return out
	}
	if keys = side(typeIPv4, typeIPv6, typePort, typeProto); err != nil {
		return nil, nil, err
	}
	if err := w.expect(":"); err != nil {
		return nil, nil, err
	}
	if to = side(typeIPv4, typeIPv6, typePort); err != nil {
		return nil, nil, err
	}
	if to[0] == typePort || len(to) == 2 && to[1] != typePort || len(to) > 2 || w.more() {
		return nil, nil, &routing.ParseError{Word: text, Reason: "want an address as the value, ipv4_addr or ipv6_addr, and maybe . inet_service"}
	}
	return keys, to, nil
}

// elements are the map's for a rule.
func (m *Map) elements() map[nat.MapKey]nat.Target {
	out := make(map[nat.MapKey]nat.Target, len(m.Elements))
	keys, to, err := mapTypes(m.Type)
	if err != nil {
		return out
	}
	for _, text := range m.Elements {
		if k, t, err := element(newWords(text), keys, to); err == nil {
			out[k] = t
		}
	}
	return out
}

// String is the map in a line, without its elements.
func (m Map) String() string { return fmt.Sprintf("%s type %s", m.Name, m.Type) }

// Lines are the map's elements, each with its name and type.
func (m Map) Lines() (out []string) {
	for _, e := range m.Elements {
		out = append(out, m.Name+" { "+e+" }")
	}
	return append(out, m.String())
}

// MapName is the map that the statement asks; empty: none that has a name.
func (s Statement) MapName() string { return s.uses.name }

// Fits says what is wrong with the map for the statement.
func (s Statement) Fits(m *Map) error {
	kinds := strings.Join(s.uses.kinds(), " . ")
	if key, _, _ := strings.Cut(m.Type, " : "); key != kinds {
		return &routing.ParseError{Reason: fmt.Sprintf("map %s has keys of type %s, this one is %s", m.Name, key, kinds)}
	}
	return nil
}
