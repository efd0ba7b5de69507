// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strings"
)

// Event is one thing that happened to a ruleset, as "nft monitor" writes it.
type Event struct {
	Destroyed bool
	// About is the word of nft(8) for things of the kind: "tables", "chains", "sets",
	// "elements", "rules" or "objects".
	About string
	// Text and JSON are lines without their end.
	Text string
	JSON string
}

// Wanted reports whether words of nft(8) behind "monitor" ask for the event: new or
// destroy, and what about. It is false for other words.
func (e *Event) Wanted(words []string) bool {
	for i, w := range words {
		switch w {
		case "new", "destroy":
			if i > 0 || e.Destroyed != (w == "destroy") {
				return false
			}
		case "ruleset":
		default:
			if w != e.About {
				return false
			}
		}
	}
	return true
}

// Monitored reports whether those are words behind "monitor".
func Monitored(words []string) bool {
	if len(words) > 0 && (words[0] == "new" || words[0] == "destroy") {
		words = words[1:]
	}
	return len(words) == 0 || len(words) == 1 && slices.Contains([]string{"tables", "chains", "sets", "elements", "rules", "objects", "ruleset"}, words[0])
}

// Events are what "nft monitor" tells of a change. What is reset it doesn't tell of.
func (c *Change) Events(o *ListOptions) []Event {
	w := &eventWriter{change: c, p: newPrinter(o)}
	w.p.table = c.Table
	switch {
	case c.Op == ChangeReset:
	case c.Op == ChangeFlush:
		w.add("flush", "elements", strings.TrimRight(c.Text(o), "\n"), one("set", w.base(c.Set.Name)))
	case c.Rule != nil:
		w.rule(c.Op, c.Chain, c.Rule)
	case c.Chain != nil:
		w.chain(c.Op, c.Chain)
	case c.Elems != nil:
		for _, e := range c.Elems {
			w.element(c.Op, e)
		}
	case c.Set != nil:
		w.set(c.Op, c.Set)
	case c.Object != nil:
		w.object(c.Op, c.Object)
	default:
		w.table(c.Op, c.Table)
	}
	return w.all
}

// Echoed are the events that "nft -e" shows of a change: what is new.
func (c *Change) Echoed(o *ListOptions) []Event {
	if c.Op == ChangeDelete || c.Op == ChangeFlush || c.Op == ChangeRename {
		return nil
	}
	return c.Events(o)
}

// EchoJSON are all of them as "nft -j -e" writes them.
func EchoJSON(all []Event) string {
	var lines []string
	for i := range all {
		lines = append(lines, all[i].JSON)
	}
	return `{"nftables": [` + strings.Join(lines, ", ") + "]}"
}

// eventWriter writes the events of a change.
type eventWriter struct {
	change *Change
	p      *printer
	all    []Event
}

func (w *eventWriter) add(verb, about, text string, x any) {
	var b strings.Builder
	writeJSON(&b, one(verb, x))
	w.all = append(w.all, Event{Destroyed: verb == "delete", About: about, Text: text, JSON: b.String()})
}

// base is what JSON says of everything.
func (w *eventWriter) base(name string) object {
	return object{{"family", w.change.Table.Family.String()}, {"name", name}, {"table", w.change.Table.Name}}
}

func (w *eventWriter) where() string {
	return w.change.Table.Family.String() + " " + w.change.Table.Name
}

// verb is "add" or "delete".
func verb(op ChangeOp) string {
	if op == ChangeDelete {
		return "delete"
	}
	return "add"
}

// table also tells of all that goes with a table.
func (w *eventWriter) table(op ChangeOp, t *Table) {
	if op == ChangeDelete {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				w.rule(op, c, r)
			}
		}
		for _, s := range t.Sets {
			w.set(op, s)
		}
		for _, o := range t.Objects {
			w.object(op, o)
		}
		for _, c := range t.Chains {
			w.chain(op, c)
		}
	}
	alone := &Table{Family: t.Family, Name: t.Name, Handle: t.Handle, Dormant: t.Dormant, Owner: t.Owner, Persist: t.Persist, Comment: t.Comment}
	w.add(verb(op), "tables", verb(op)+" table "+w.where()+w.p.handleText(t.Handle), w.p.tableJSON(alone)[0])
}

func (w *eventWriter) chain(op ChangeOp, c *Chain) {
	if c.Anonymous {
		return
	}
	head := ""
	if op != ChangeDelete {
		head = w.p.chainHead(c, ChangeAdd)
	}
	w.add(verb(op), "chains", verb(op)+" chain "+w.where()+" "+c.Name+head+w.p.handleText(c.Handle), w.p.chainJSON(w.change.Table, c))
}

func (w *eventWriter) rule(op ChangeOp, c *Chain, r *Rule) {
	is := w.p.ruleJSON(w.change.Table, c, r)
	where := w.where() + " " + c.Name + " "
	if op == ChangeDelete || op == ChangeReplace {
		w.add("delete", "rules", fmt.Sprintf("delete rule %shandle %d", where, r.Handle), is)
	}
	if op == ChangeDelete {
		return
	}
	word := "add"
	if op == ChangeInsert {
		word = "insert"
	}
	w.add(word, "rules", word+" rule "+where+RuleText(w.change.Table.Family, r, &w.p.ListOptions)+w.p.handleText(r.Handle), is)
}

func (w *eventWriter) set(op ChangeOp, s *Set) {
	empty := *s
	empty.Elems, empty.Default = Elems{}, nil
	head := ""
	if op != ChangeDelete {
		head = w.p.setHead(&empty, ChangeAdd) + " "
	}
	w.add(verb(op), "sets", verb(op)+" "+s.word()+" "+w.where()+" "+s.Name+head+w.p.handleText(s.Handle), w.p.setJSON(w.change.Table, &empty))
}

func (w *eventWriter) object(op ChangeOp, o *Object) {
	text := fmt.Sprintf("%s %s %s %s", verb(op), o.Kind, w.where(), o.Name)
	if op != ChangeDelete {
		q := newPrinter(&w.p.ListOptions)
		q.Handles = false
		q.object(o)
		_, body, _ := strings.Cut(q.String(), "{")
		text += " { " + strings.Join(strings.Fields(body), " ") + " "
	}
	w.add(verb(op), "objects", text+w.p.handleText(o.Handle), w.p.objectJSON(w.change.Table, o))
}

// element tells of an element, with the time that it has.
func (w *eventWriter) element(op ChangeOp, e *Elem) {
	s := w.change.Set
	if e.Expires == 0 && op != ChangeDelete {
		timed := *e
		if timed.Expires = e.Timeout; timed.Expires == 0 {
			timed.Expires = s.Timeout
		}
		e = &timed
	}
	q := newPrinter(&w.p.ListOptions)
	q.table = w.change.Table
	q.element(s, e)
	is := one("element", object{
		{"family", w.change.Table.Family.String()}, {"table", w.change.Table.Name}, {"name", s.Name}, {"elem", one("set", list{w.p.elemJSON(s, e)})},
	})
	w.add(verb(op), "elements", verb(op)+" element "+w.where()+" "+s.Name+" { "+q.String()+" }", is)
}
