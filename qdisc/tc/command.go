// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/qdisc"
)

// Command is one tc command, read.
type Command struct {
	Object string // qdisc, class, filter
	Verb   string // add, change, replace, delete, show
	Dev    string // empty: all, of show
	// Ingress is what the port sends; else what leaves by it. Tc has no words for a
	// whole discipline there: "from" after the device is ours.
	Ingress bool

	Stats, Details, JSON, Pretty bool // -s, -d, -j, -p

	Qdisc  qdisc.Qdisc
	Class  qdisc.Class
	Filter qdisc.Filter

	from    bool         // "from" was said
	parent  qdisc.Handle // as it was said; 0: not
	handle  qdisc.Handle
	hasPrio bool
}

// verbs are the words for each verb, shortest first where tc takes them short.
func verbOf(word string) (string, error) {
	switch word {
	case "add", "a":
		return "add", nil
	case "change", "chg":
		return "change", nil
	case "replace":
		return "replace", nil
	case "link":
		return "", errors.New("link is not supported, use replace")
	case "delete", "del":
		return "delete", nil
	case "show", "list", "ls", "lst", "":
		return "show", nil
	}
	return "", fmt.Errorf("command %q, want add, change, replace, delete or show", word)
}

// Parse reads the words after tc: options, the object, the verb and its arguments.
func Parse(args []string) (*Command, error) {
	c := &Command{}
	w := &words{slices.Clone(args)}
	if err := c.flags(w); err != nil {
		return nil, err
	}
	object := w.next()
	switch object {
	case "qdisc", "class", "filter":
		c.Object = object
	default:
		return nil, fmt.Errorf("object %q, want qdisc, class or filter", object)
	}
	if err := c.flags(w); err != nil {
		return nil, err
	}
	var err error
	if c.Verb, err = verbOf(w.next()); err != nil {
		return nil, err
	}
	if err = c.arguments(w); err != nil {
		return nil, fmt.Errorf("%s %s: %w", c.Object, c.Verb, err)
	}
	return c, nil
}

// flags reads options, which may stand together as in -sdj.
func (c *Command) flags(w *words) error {
	for strings.HasPrefix(w.peek(), "-") {
		word := w.next()
		switch word {
		case "-stats", "-statistics", "--stats":
			word = "-s"
		case "-details", "--details":
			word = "-d"
		case "-json", "--json":
			word = "-j"
		case "-pretty", "--pretty":
			word = "-p"
		}
		for _, letter := range word[1:] {
			switch letter {
			case 's':
				c.Stats = true
			case 'd':
				c.Details = true
			case 'j':
				c.JSON = true
			case 'p':
				c.Pretty = true
			default:
				return fmt.Errorf("option %q, want -s, -d, -j or -p", word)
			}
		}
	}
	return nil
}

// arguments reads what follows the verb: the place, then the kind and its options.
func (c *Command) arguments(w *words) error {
	for !w.end() {
		word := w.peek()
		var err error
		switch {
		case strings.HasPrefix(word, "-"):
			err = c.flags(w)
		case word == "dev":
			w.next()
			c.Dev, err = value(w, "dev", func(s string) (string, error) { return s, nil })
		default:
			var done bool
			if done, err = c.place(w); err == nil && !done {
				return c.finish(w)
			}
		}
		if err != nil {
			return err
		}
	}
	return c.finish(w)
}

// place reads a word of where the object is; done is false if the next word isn't
// one.
func (c *Command) place(w *words) (done bool, err error) {
	switch word := w.peek(); word {
	case "from":
		w.next()
		c.Ingress, c.from = true, true
		return true, nil
	case "root", "egress":
		w.next()
		return true, c.setParent(qdisc.Root)
	case "ingress":
		w.next()
		c.Ingress = true
		return true, c.setParent(qdisc.Ingress)
	case "clsact":
		return false, errors.New("clsact is not supported, use ingress, or filters of the root qdisc")
	case "parent":
		w.next()
		p, err := value(w, "parent", classOf)
		if err != nil {
			return false, err
		}
		return true, c.setParent(p)
	case "handle", "classid":
		if c.Object == "filter" && c.Verb == "show" || word == "classid" && c.Object != "class" {
			return false, nil
		}
		w.next()
		return true, c.readHandle(w, word)
	}
	if c.Object == "filter" {
		return c.filterPlace(w)
	}
	return false, nil
}

func (c *Command) setParent(p qdisc.Handle) error {
	if c.parent != 0 {
		return errors.New("parent: was given twice")
	}
	c.parent = p
	if p == qdisc.MakeHandle(0xffff, 0) || p == qdisc.Ingress {
		c.parent, c.Ingress = qdisc.Ingress, true
	}
	return nil
}

func (c *Command) readHandle(w *words, word string) error {
	switch c.Object {
	case "qdisc":
		return set(w, word, &c.handle, handleOf)
	case "class":
		return set(w, word, &c.handle, classOf)
	}
	return c.filterHandle(w)
}

// finish reads the kind and its options, and sees that nothing is missing.
func (c *Command) finish(w *words) error {
	if c.Verb == "show" {
		if !w.end() {
			return fmt.Errorf("%q: not expected here", w.peek())
		}
		return nil
	}
	if c.Dev == "" {
		return errors.New("dev: missing")
	}
	var err error
	switch c.Object {
	case "qdisc":
		err = c.qdisc(w)
	case "class":
		err = c.class(w)
	default:
		err = c.filter(w)
	}
	if err == nil && !w.end() {
		err = fmt.Errorf("%q: not expected here", w.peek())
	}
	return err
}

func (c *Command) qdisc(w *words) error {
	c.Qdisc.Parent, c.Qdisc.Handle = c.parent, c.handle
	if c.Ingress && !c.from {
		c.Qdisc.Parent, c.Qdisc.Handle, c.Qdisc.Kind = qdisc.Ingress, qdisc.MakeHandle(0xffff, 0), "ingress"
		return nil
	}
	if c.Verb == "delete" {
		if c.parent == 0 && c.handle == 0 {
			return errors.New("parent: want root, parent or handle")
		}
		w.next()
		w.left = nil // the kind and its options don't matter
		return nil
	}
	if c.Verb != "change" && c.parent == 0 {
		return errors.New("parent: want root, or parent and a class")
	}
	c.Qdisc.Kind = w.next()
	if c.Qdisc.Kind == "" {
		return errors.New("kind: missing")
	}
	return options(&c.Qdisc, w)
}

func (c *Command) class(w *words) error {
	c.Class.Parent, c.Class.Handle = c.parent, c.handle
	if c.handle == 0 || c.handle.Minor() == 0 {
		return errors.New("classid: want a class like 1:10")
	}
	if c.Verb == "delete" {
		return nil
	}
	if c.parent == 0 && c.Verb == "add" {
		return errors.New("parent: missing")
	}
	if c.parent != 0 && c.parent != qdisc.Root && c.parent.Major() != c.handle.Major() {
		return fmt.Errorf("parent: %v is of another qdisc than class %v", c.parent, c.handle)
	}
	c.Class.Kind = w.next()
	switch c.Class.Kind {
	case "htb":
		return htbClass(&c.Class, w)
	case "drr":
		c.Class.DRR = &qdisc.DRRClass{}
		return drrClass(c.Class.DRR, w)
	case "":
		return errors.New("kind: missing")
	}
	return fmt.Errorf("kind: %q has no classes of one's own, want htb or drr", c.Class.Kind)
}
