// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
)

// pageWriter prints a list that comes in parts, as print would print all of it at once:
// what has been printed is kept nowhere. The entries of a part are lines.
type pageWriter struct {
	c     *cli
	begun bool // an entry was printed
}

func (w *pageWriter) write(entries []byte) error {
	if len(entries) == 0 {
		return nil
	}
	if w.c.format == "json" {
		var err error
		if entries, err = w.elements(entries); err != nil {
			return err
		}
	}
	w.begun = true
	_, err := w.c.out.Write(entries)
	return err
}

// elements makes lines of JSON the next elements of one array.
func (w *pageWriter) elements(entries []byte) ([]byte, error) {
	var b bytes.Buffer
	first, next := "[", ","
	if w.c.pretty {
		first, next = "[\n    ", ",\n    "
	}
	for entry := range bytes.Lines(entries) {
		if !w.begun {
			b.WriteString(first)
		} else {
			b.WriteString(next)
		}
		w.begun = true
		entry = bytes.TrimSuffix(entry, []byte("\n"))
		if !w.c.pretty {
			b.Write(entry)
		} else if err := json.Indent(&b, entry, "    ", "    "); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// end ends the list.
func (w *pageWriter) end() error {
	if w.c.format != "json" {
		return nil
	}
	last := "]\n"
	switch {
	case !w.begun:
		last = "[]\n"
	case w.c.pretty:
		last = "\n]\n"
	}
	_, err := io.WriteString(w.c.out, last)
	return err
}
