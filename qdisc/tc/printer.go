// SPDX-License-Identifier: Apache-2.0

package tc

import (
	"encoding/json"
	"fmt"
	"strings"
)

// printer writes what tc prints, as text or as JSON, from one list of fields: each
// call says a field's key in JSON, and its words in text. An empty key or empty
// words leave it out.
type printer struct {
	b       strings.Builder
	asJSON  bool
	started []bool // for each open object or array: it has a member
}

func (p *printer) comma() {
	if n := len(p.started); n > 0 {
		if p.started[n-1] {
			p.b.WriteByte(',')
		}
		p.started[n-1] = true
	}
}

// open begins an object or an array, with a key if it is in an object.
func (p *printer) open(key string, bracket byte) {
	if !p.asJSON {
		return
	}
	p.comma()
	p.key(key)
	p.b.WriteByte(bracket)
	p.started = append(p.started, false)
}

func (p *printer) close(bracket byte) {
	if p.asJSON {
		p.b.WriteByte(bracket)
		p.started = p.started[:len(p.started)-1]
	}
}

func (p *printer) key(key string) {
	if key != "" {
		fmt.Fprintf(&p.b, "%q:", key)
	}
}

// field is a value with the words that show it in text.
func (p *printer) field(key string, v any, format string, args ...any) {
	if !p.asJSON {
		fmt.Fprintf(&p.b, format, args...)
		return
	}
	if key == "" {
		return
	}
	p.comma()
	p.key(key)
	text, err := json.Marshal(v)
	if err != nil {
		text = []byte("null")
	}
	p.b.Write(text)
}

// text is for text only.
func (p *printer) text(format string, args ...any) {
	if !p.asJSON {
		fmt.Fprintf(&p.b, format, args...)
	}
}

// num is field for a number that is shown by a format of its own.
func (p *printer) num(key, format string, v any) { p.field(key, v, format, v) }

// json is for JSON only.
func (p *printer) json(key string, v any) {
	if p.asJSON {
		p.field(key, v, "")
	}
}
