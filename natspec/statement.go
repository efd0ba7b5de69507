// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/nat"
	"sluice/routing"
)

// MaxStatement bounds a statement, in bytes.
const MaxStatement = 16 << 10

// Statement is a rule of address translation in nft's words, as
// "postrouting ip saddr 10.44.0.0/24 oifname wan masquerade". Its devices have
// names. It is immutable.
type Statement struct {
	rule    nat.Rule // without devices, and elements of a map that has a name
	in, out []string
	uses    mapUse
}

// Parse reads a statement. Its error is a *routing.ParseError.
func Parse(text string) (*Statement, error) {
	if len(text) > MaxStatement {
		return nil, &routing.ParseError{Reason: fmt.Sprintf("a statement has at most %d bytes", MaxStatement)}
	}
	w, s := newWords(text), new(Statement)
	if err := s.hook(w); err != nil {
		return nil, err
	}
	for {
		if done, err := s.verdict(w); err != nil {
			return nil, err
		} else if done {
			break
		}
		if err := s.match(w); err != nil {
			return nil, err
		}
	}
	if w.take() != "" {
		return nil, w.wrong("nothing may follow here")
	}
	return s, s.check()
}

func (s *Statement) hook(w *words) error {
	w.take()
	for _, h := range []nat.Hook{nat.Prerouting, nat.Output, nat.Input, nat.Postrouting} {
		if w.word == h.String() {
			s.rule.Hook = h
			return nil
		}
	}
	return w.wrong("want prerouting, output, input or postrouting")
}

// check tries the rule with devices that are there.
func (s *Statement) check() error {
	if len(s.in) > 0 && s.rule.Hook == nat.Output || len(s.out) > 0 && s.rule.Hook != nat.Output && s.rule.Hook != nat.Postrouting {
		return &routing.ParseError{Reason: fmt.Sprintf("%v knows no such device: iifname is for all but output, oifname for output and postrouting", s.rule.Hook)}
	}
	rule, _ := s.Rule(func(string) (uint16, bool) { return 1, true }, nil)
	if _, err := nat.Compile([]nat.Rule{rule}); err != nil {
		return &routing.ParseError{Reason: strings.ReplaceAll(innermost(err).Error(), "\n", "; ")}
	}
	return nil
}

// innermost is what is wrong, without which rule it is.
func innermost(err error) error {
	if e := errors.Unwrap(err); e != nil {
		return e
	}
	return err
}

// Devices are the names of the devices that the statement speaks of.
func (s Statement) Devices() []string { return slices.Concat(s.in, s.out) }

// Rule is the rule, with the numbers of its devices, and the map that it names. False
// if a device is not there: the rule then matches nothing, or means another thing.
func (s Statement) Rule(index func(string) (uint16, bool), named *Map) (nat.Rule, bool) {
	r, ok := s.rule, true
	number := func(names []string) (out []uint16) {
		for _, name := range names {
			n, known := index(name)
			ok = ok && known
			out = append(out, n)
		}
		return out
	}
	r.Match.In, r.Match.Out = number(s.in), number(s.out)
	if named != nil && s.uses.name != "" {
		r.Map = &nat.Map{By: s.uses.by(), Elements: named.elements()}
	}
	r.Name = s.String()
	return r, ok
}

// String is the statement in the one spelling.
func (s Statement) String() string {
	parts := []string{s.rule.Hook.String()}
	add := func(more ...string) { parts = append(parts, more...) }
	devices := func(word string, names []string, not bool) {
		if len(names) > 0 {
			add(word, notWord(not)+set(names, func(n string) string { return n }))
		}
	}
	devices("iifname", s.in, s.rule.Match.NotIn)
	devices("oifname", s.out, s.rule.Match.NotOut)
	m := s.rule.Match
	if s.uses.saysProtocol() && len(m.SrcPorts)+len(m.DstPorts) == 0 {
		m.Protos = nil
	}
	add(matchWords(&m)...)
	add(s.verdictWords(&s.rule)...)
	return strings.Join(parts, " ")
}

func notWord(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

// MarshalText is the statement's text.
func (s Statement) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the text.
func (s *Statement) UnmarshalText(text []byte) error {
	read, err := Parse(string(text))
	if err == nil {
		*s = *read
	}
	return err
}
