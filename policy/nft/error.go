// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"strconv"
	"strings"
)

// Error is what is wrong with a text, and where.
type Error struct {
	Pos  Pos
	Msg  string
	Line string // of the text that Pos points into, or ""
	// Code is the kernel's errno of a command that it would refuse, or 0.
	Code Code
}

// Code is an error of the kernel's.
type Code int

// The codes.
const (
	CodeNone     Code = 0
	NotFound     Code = 2  // ENOENT
	Busy         Code = 16 // EBUSY
	Exists       Code = 17 // EEXIST
	Invalid      Code = 22 // EINVAL
	TooManyLinks Code = 31 // EMLINK
	NotSupported Code = 95 // EOPNOTSUPP
	TooMany      Code = 23 // ENFILE
)

// String is what strerror(3) says.
func (c Code) String() string {
	switch c {
	case NotFound:
		return "No such file or directory"
	case Busy:
		return "Device or resource busy"
	case Exists:
		return "File exists"
	case TooManyLinks:
		return "Too many links"
	case NotSupported:
		return "Operation not supported"
	case TooMany:
		return "Too many open files in system"
	default:
		return "Invalid argument"
	}
}

// Error is the message as nft prints it: place, what, the line, carets.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Pos.File != "" {
		b.WriteString(e.Pos.File + ":")
		if e.Pos.Line == 0 {
			b.WriteString(" ")
		}
	}
	if e.Pos.Line > 0 {
		if e.Pos.File != "" {
			b.WriteString(strconv.Itoa(e.Pos.Line) + ":" + strconv.Itoa(e.Pos.Col) + "-" + strconv.Itoa(e.Pos.End) + ": ")
		}
	}
	b.WriteString("Error: " + e.Msg)
	if e.Line != "" && e.Pos.Col > 0 {
		b.WriteString("\n" + e.Line + "\n" + carets(e.Line, e.Pos))
	}
	return b.String()
}

// carets marks the columns of pos below line; tabs stay tabs, so that the marks
// stand where they should.
func carets(line string, pos Pos) string {
	var b strings.Builder
	for i := 1; i < pos.Col; i++ {
		if i <= len(line) && line[i-1] == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	n := max(pos.End-pos.Col+1, 1)
	if n > len(line)+1 {
		n = 1
	}
	b.WriteString(strings.Repeat("^", n))
	return b.String()
}

// fail gives up: parsers and checks are deep, and there is one error to tell.
func fail(pos Pos, format string, args ...any) {
	panic(&Error{Pos: pos, Msg: fmt.Sprintf(format, args...)})
}

// refuse gives up with an error of the kernel's.
func refuse(pos Pos, code Code, format string, args ...any) {
	panic(&Error{Pos: pos, Code: code, Msg: fmt.Sprintf(format, args...)})
}

// caught turns what fail threw into an error.
func caught(err *error, line func(Pos) string) {
	switch e := recover().(type) {
	case nil:
	case *Error:
		if e.Line == "" && line != nil {
			e.Line = line(e.Pos)
		}
		*err = e
	default:
		panic(e)
	}
}

// join is p to q, as far as they are on one line.
func (p Pos) join(q Pos) Pos {
	if p.Line == 0 {
		return q
	}
	if q.Line == p.Line && q.File == p.File && q.End > p.End {
		p.End = q.End
	}
	return p
}
