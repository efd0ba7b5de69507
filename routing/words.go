// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseError names the word of a line that is wrong, and why.
type ParseError struct {
	Word   string // as it was written; "" at the end of the line
	Reason string
}

// Error is the fault in one line.
func (e *ParseError) Error() string {
	if e.Word == "" {
		return e.Reason
	}
	return fmt.Sprintf("%q: %s", e.Word, e.Reason)
}

// words is a line on its way through a parser.
type words struct {
	names  *Names
	list   []string // still to come
	word   string   // the last one taken
	family Family
	fixed  bool // the family was said: -4, -6, or an address
}

// newWords splits a line and takes the family options that may lead it.
func (n *Names) newWords(line string) *words {
	w := &words{names: n, list: strings.Fields(line)}
	for w.more() && (w.list[0] == "-4" || w.list[0] == "-6") {
		w.take()
		w.setFamily(w.word == "-6")
	}
	return w
}

func (w *words) setFamily(v6 bool) {
	w.family, w.fixed = IPv4, true
	if v6 {
		w.family = IPv6
	}
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

// peek returns the next word and leaves it.
func (w *words) peek() string {
	if !w.more() {
		return ""
	}
	return w.list[0]
}

// skip takes the next word if it is the given one.
func (w *words) skip(word string) bool {
	if w.peek() != word {
		return false
	}
	w.take()
	return true
}

// wrong is the error of the last word taken.
func (w *words) wrong(reason string) error { return &ParseError{Word: w.word, Reason: reason} }

// argument takes the argument of the last word.
func (w *words) argument() (string, error) {
	if !w.more() {
		return "", w.wrong("needs an argument")
	}
	return w.take(), nil
}

// number takes an argument of so many bits, in base 10, 0x or 0.
func (w *words) number(bits int) (uint64, error) {
	arg, err := w.argument()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(arg, 0, bits)
	if err != nil {
		return 0, w.wrong(fmt.Sprintf("want a number of %d bits", bits))
	}
	return n, nil
}

func (w *words) uint32(to *uint32) error {
	n, err := w.number(32)
	*to = uint32(n)
	return err
}

func (w *words) device(to *string) error {
	arg, err := w.argument()
	if err == nil && !validDevName(arg) {
		err = w.wrong("not a device name")
	}
	*to = arg
	return err
}

// table takes a table that may be "all", which is 0.
func (w *words) table(to *TableID) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	id, ok := w.names.Table(arg)
	if !ok {
		return w.wrong("no such table name")
	}
	*to = id
	return nil
}

// text takes an argument that reads itself.
func (w *words) text(to interface{ UnmarshalText([]byte) error }) error {
	arg, err := w.argument()
	if err == nil {
		if err = to.UnmarshalText([]byte(arg)); err != nil {
			err = w.wrong(err.Error())
		}
	}
	return err
}

// address takes an address and holds the line to its family.
func (w *words) address(to *netip.Addr) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	a, err := netip.ParseAddr(arg)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return w.wrong("not an address")
	}
	*to = a
	return w.agree(a.Is6())
}

// agree holds the line to one family.
func (w *words) agree(v6 bool) error {
	if w.fixed && v6 != (w.family == IPv6) {
		return w.wrong("not of the family of the line")
	}
	w.setFamily(v6)
	return nil
}

// anyWord stands for the prefix of length 0.
func anyWord(word string) bool { return word == "default" || word == "all" || word == "any" }

// prefix takes a prefix or an address, in the forms of ip(8): 10.0.0.0/8, 10/8,
// 10.1.1.1, and default, all or any. What stands for everything is of the line's
// family, as far as it is known.
func (w *words) prefix(to *netip.Prefix) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	return w.parsePrefix(arg, to)
}

func (w *words) parsePrefix(arg string, to *netip.Prefix) error {
	if anyWord(arg) {
		*to = everything(w.family)
		return nil
	}
	addr, length, sliced := strings.Cut(arg, "/")
	a, err := netip.ParseAddr(lengthen(addr))
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return w.wrong("not a prefix")
	}
	n := uint64(a.BitLen())
	if sliced {
		if n, err = strconv.ParseUint(length, 10, 8); err != nil || n > uint64(a.BitLen()) {
			return w.wrong("not a prefix length")
		}
	}
	*to = netip.PrefixFrom(a, int(n))
	return w.agree(a.Is6())
}

// everything is the prefix of length 0 of a family.
func everything(f Family) netip.Prefix {
	if f == IPv6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// lengthen completes an IPv4 address whose last bytes were left out.
func lengthen(addr string) string {
	if addr == "" || strings.Trim(addr, "0123456789.") != "" {
		return addr
	}
	for n := strings.Count(addr, "."); n < 3; n++ {
		addr += ".0"
	}
	return addr
}

// command returns the first of several words that the word abbreviates; "" if it
// abbreviates none. As in ip(8), any beginning will do.
func command(word string, among ...string) string {
	for _, c := range among {
		if word != "" && strings.HasPrefix(c, word) {
			return c
		}
	}
	return ""
}

// keyword is what one word of the language does.
type keyword[T any] func(*words, *T) error

// each gives the words that are left to their keywords, and what is none to other.
func each[T any](w *words, to *T, table map[string]keyword[T], other keyword[T]) error {
	for w.more() {
		read, known := table[w.take()]
		if !known {
			read = other
		}
		if err := read(w, to); err != nil {
			return err
		}
	}
	return nil
}

// unknown is the error for a word of no meaning, or of none here.
func (w *words) unknown(refused []string) error {
	if slices.Contains(refused, w.word) {
		return w.wrong("not supported")
	}
	return w.wrong("unknown word")
}
