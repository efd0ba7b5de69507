// SPDX-License-Identifier: Apache-2.0

package iproute

import (
	"net/netip"
	"slices"
	"strings"

	"sluice/packet"
	"sluice/routing"
)

// Neighbour is a static neighbour, ip-neighbour(8) with nud permanent.
type Neighbour struct {
	Addr netip.Addr `json:"addr"`
	MAC  packet.MAC `json:"lladdr"`
	Dev  string     `json:"dev"`
}

// String is the neighbour as `ip neigh` shows it.
func (n Neighbour) String() string {
	return n.Addr.String() + " dev " + n.Dev + " lladdr " + n.MAC.String() + " PERMANENT"
}

// NeighbourChange is a line of ip-neighbour(8).
type NeighbourChange struct {
	// Op is add, change, replace, del or flush.
	Op routing.Op
	// Neighbour is what is changed; MAC is zero in del. In flush what is zero is not
	// compared.
	Neighbour
	// To selects, in flush, the addresses in it, and State the entries that are in
	// it. Without a state it is all that were learned, as there; "all" is really all.
	To    netip.Prefix
	State string
}

// Flushes reports whether a flush is about what is in a state.
func (c *NeighbourChange) Flushes(state string) bool {
	if c.State == "" {
		return state != permanent
	}
	return c.State == "all" || c.State == state
}

const permanent = "permanent"

// neighbourLine is a neighbour while it is read.
type neighbourLine struct {
	NeighbourChange
	filter bool
}

// ParseNeighbour reads what follows `ip neigh`.
func ParseNeighbour(list []string) (NeighbourChange, error) {
	w := newWords(list)
	op, err := w.operation("add", "change", "delete", "replace", "flush")
	if err != nil {
		return NeighbourChange{}, err
	}
	l := neighbourLine{filter: op == routing.OpFlush}
	l.Op = op
	if l.filter {
		if !w.more() {
			return NeighbourChange{}, w.wrong("needs arguments") // it would forget them all
		}
		l.To = w.everything()
	}
	if err := neighbourWords().each(w, &l, plainNeighbour); err != nil {
		return NeighbourChange{}, err
	}
	return l.NeighbourChange, l.check()
}

// ParseStaticNeighbour reads a neighbour without the operation.
func ParseStaticNeighbour(list []string) (Neighbour, error) {
	c, err := ParseNeighbour(append([]string{"add"}, list...))
	return c.Neighbour, err
}

func neighbourWords() keywords[neighbourLine] {
	return keywords[neighbourLine]{
		"to":     func(w *words, l *neighbourLine) error { w.take(); return plainNeighbour(w, l) },
		"dev":    func(w *words, l *neighbourLine) error { return w.device(&l.Dev) },
		"lladdr": func(w *words, l *neighbourLine) error { w.take(); return w.thisMAC(&l.MAC) },
		"nud":    neighbourState,
		"state":  neighbourState,
		"permanent": func(w *words, _ *neighbourLine) error {
			return w.wrong("want nud permanent")
		},
	}
}

// neighbourState reads the one state that can be set, or one that is to be flushed.
func neighbourState(w *words, l *neighbourLine) error {
	arg, err := w.argument()
	switch {
	case err != nil:
		return err
	case !l.filter && arg != permanent:
		return w.wrong("only permanent neighbours can be set")
	case l.filter && !slices.Contains(neighbourStates(), arg):
		return w.wrong("want " + strings.Join(neighbourStates(), ", "))
	}
	l.State = arg
	return nil
}

func neighbourStates() []string {
	return []string{"all", permanent, "reachable", "stale", "delay", "probe", "incomplete", "failed"}
}

func plainNeighbour(w *words, l *neighbourLine) error {
	if !l.filter {
		if l.Addr.IsValid() {
			return w.wrong("unknown word")
		}
		return w.thisAddress(&l.Addr)
	}
	if w.word == "all" || w.word == "any" || w.word == "default" {
		return nil
	}
	w.list = append([]string{w.word}, w.list...)
	return w.prefix(&l.To)
}

func (l *neighbourLine) check() error {
	switch {
	case l.filter:
		return nil
	case !l.Addr.IsValid():
		return missing("an address")
	case l.Addr.IsUnspecified() || l.Addr.IsMulticast() || l.Addr.IsLoopback():
		return &routing.ParseError{Word: l.Addr.String(), Reason: "nobody's address"}
	case l.Dev == "":
		return missing("dev")
	case l.MAC.IsZero() && l.Op != routing.OpDelete:
		return missing("lladdr")
	}
	return nil
}
