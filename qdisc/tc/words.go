// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"fmt"
	"strconv"
	"strings"

	"sluice/qdisc"
)

// words are what is left of a command line.
type words struct{ left []string }

// next is the next word; the empty one at the end.
func (w *words) next() string {
	if len(w.left) == 0 {
		return ""
	}
	word := w.left[0]
	w.left = w.left[1:]
	return word
}

func (w *words) peek() string {
	if len(w.left) == 0 {
		return ""
	}
	return w.left[0]
}

func (w *words) end() bool { return len(w.left) == 0 }

// is takes the next word if it is that one.
func (w *words) is(word string) bool {
	if w.peek() != word {
		return false
	}
	w.next()
	return true
}

// value reads the word that follows a keyword, by read; the error names both.
func value[T any](w *words, field string, read func(string) (T, error)) (T, error) {
	var zero T
	if w.end() {
		return zero, fmt.Errorf("%s: a value is missing", field)
	}
	word := w.next()
	v, err := read(word)
	if err != nil {
		return zero, fmt.Errorf("%s: %q: %w", field, word, err)
	}
	return v, nil
}

// set is value into *to.
func set[T any](w *words, field string, to *T, read func(string) (T, error)) error {
	v, err := value(w, field, read)
	if err == nil {
		*to = v
	}
	return err
}

// number reads an unsigned number, decimal, or with 0x.
func number[T int | int64 | uint8 | uint16 | uint32 | uint64](word string) (T, error) {
	x, err := strconv.ParseUint(word, 0, 63)
	if err != nil {
		return 0, fmt.Errorf("want a number")
	}
	if v := T(x); v >= 0 && uint64(v) == x {
		return v, nil
	}
	return 0, fmt.Errorf("want a smaller number")
}

func signed(word string) (int32, error) {
	x, err := strconv.ParseInt(word, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("want a number")
	}
	return int32(x), nil
}

// handleOf reads the handle of a discipline, "1:".
func handleOf(word string) (qdisc.Handle, error) {
	text, colon := strings.CutSuffix(word, ":")
	x, err := strconv.ParseUint(text, 16, 16)
	if err != nil || !colon && strings.Contains(word, ":") {
		return 0, fmt.Errorf("want a handle like 1:, hexadecimal up to ffff")
	}
	return qdisc.MakeHandle(uint16(x), 0), nil
}

// classOf reads a class, "1:10", or a discipline, "1:". "root" is qdisc.Root.
func classOf(word string) (qdisc.Handle, error) {
	if word == "root" {
		return qdisc.Root, nil
	}
	major, minor, colon := strings.Cut(word, ":")
	if !colon {
		return 0, fmt.Errorf("want a class like 1:10")
	}
	a, err := hex16(major)
	if err != nil {
		return 0, err
	}
	b, err := hex16(minor)
	return qdisc.MakeHandle(a, b), err
}

func hex16(word string) (uint16, error) {
	if word == "" {
		return 0, nil
	}
	x, err := strconv.ParseUint(word, 16, 16)
	if err != nil {
		return 0, fmt.Errorf("want a class like 1:10, hexadecimal up to ffff")
	}
	return uint16(x), nil
}
