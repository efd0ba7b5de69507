// SPDX-License-Identifier: Apache-2.0

package iproute

import (
	"net/netip"
	"strconv"
	"strings"

	"sluice/packet"
	"sluice/routing"
)

// words is a command on its way through a parser.
type words struct {
	list []string // still to come
	word string   // the last one taken
	v6   bool     // family option -6
	v4   bool     // family option -4
}

// newWords takes the family options that may lead a command.
func newWords(list []string) *words {
	w := &words{list: list}
	for w.more() && (w.list[0] == "-4" || w.list[0] == "-6") {
		w.v4, w.v6 = w.list[0] == "-4", w.list[0] == "-6"
		w.take()
	}
	return w
}

func (w *words) more() bool { return len(w.list) > 0 }

// take takes the next word; "" at the end.
func (w *words) take() string {
	w.word = ""
	if w.more() {
		w.word, w.list = w.list[0], w.list[1:]
	}
	return w.word
}

// wrong is the error of the last word taken.
func (w *words) wrong(reason string) error { return &routing.ParseError{Word: w.word, Reason: reason} }

// missing is the error of a command that ends too early.
func missing(what string) error { return &routing.ParseError{Reason: "needs " + what} }

// argument takes the argument of the last word.
func (w *words) argument() (string, error) {
	if !w.more() {
		return "", w.wrong("needs an argument")
	}
	return w.take(), nil
}

// number takes an argument between two bounds.
func (w *words) number(low, high uint64) (uint64, error) {
	arg, err := w.argument()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(arg, 0, 64)
	if err != nil || n < low || n > high {
		return 0, w.wrong("want a number from " + strconv.FormatUint(low, 10) + " to " + strconv.FormatUint(high, 10))
	}
	return n, nil
}

// device takes the name of a device or port.
func (w *words) device(to *string) error {
	arg, err := w.argument()
	if err == nil && !IsPortName(arg) {
		err = w.wrong("not a device name")
	}
	*to = arg
	return err
}

// thisAddress reads the word that was just taken.
func (w *words) thisAddress(to *netip.Addr) error {
	a, err := netip.ParseAddr(w.word)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return w.wrong("not an address")
	}
	if w.v4 && a.Is6() || w.v6 && a.Is4() {
		return w.wrong("not of the family of the line")
	}
	*to = a
	return nil
}

func (w *words) prefix(to *netip.Prefix) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	if p, err := netip.ParsePrefix(arg); err == nil && !p.Addr().Is4In6() {
		*to = p
		return nil
	}
	var a netip.Addr
	if err := w.thisAddress(&a); err != nil {
		return err
	}
	*to = netip.PrefixFrom(a, a.BitLen())
	return nil
}

// everything is the prefix of all addresses of the line's family; not valid if it
// said none.
func (w *words) everything() netip.Prefix {
	switch {
	case w.v4:
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	case w.v6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.Prefix{}
}

// thisMAC reads the word that was just taken.
func (w *words) thisMAC(to *packet.MAC) error {
	m, err := packet.ParseMAC(w.word)
	if err != nil || m.IsZero() || m.IsMulticast() {
		return w.wrong("not a unicast link-layer address")
	}
	*to = m
	return nil
}

// command returns the first of several words that the next word abbreviates. As in
// ip(8), any beginning will do.
func (w *words) command(among ...string) (string, error) {
	word := w.take()
	for _, c := range among {
		if word != "" && strings.HasPrefix(c, word) {
			return c, nil
		}
	}
	return "", w.wrong("want " + strings.Join(among, ", "))
}

// operation is command for those that routing has a word for.
func (w *words) operation(among ...string) (routing.Op, error) {
	c, err := w.command(among...)
	if err != nil {
		return 0, err
	}
	if c == "delete" {
		c = "del"
	}
	var op routing.Op
	return op, op.UnmarshalText([]byte(c))
}

// keywords is what each word of a language does.
type keywords[T any] map[string]func(*words, *T) error

// each gives the words that are left to their keywords, and one that is none to
// other.
func (k keywords[T]) each(w *words, to *T, other func(*words, *T) error) error {
	for w.more() {
		read, known := k[w.take()]
		if !known {
			read = other
		}
		if err := read(w, to); err != nil {
			return err
		}
	}
	return nil
}

func unknown[T any](w *words, _ *T) error { return w.wrong("unknown word") }

func nothing[T any](*words, *T) error { return nil }

// IsDeviceName reports whether a device of routing may have the name: dev_valid_name
// of the kernel, less what a terminal shows otherwise than it is.
func IsDeviceName(s string) bool { return len(s) <= 15 && IsPortName(s) && s != "lo" }

// IsPortName reports whether a command may name a port so. Attachments have names
// that are longer than those of devices.
func IsPortName(s string) bool {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }
	return s != "" && len(s) <= 128 && s != "." && s != ".." && !strings.ContainsFunc(s, odd)
}
