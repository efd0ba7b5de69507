// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"strings"
)

// tokenKind is a kind of token.
type tokenKind uint8

const (
	tokEOF     tokenKind = iota
	tokNewline           // a line's end, or ";"
	tokWord              // letters first: a keyword, a name
	tokNumber            // 12, 0x1f
	tokTime              // 1h30m
	tokAddr              // of IPv4, IPv6 or Ethernet
	tokQuoted            // "…": text is what is inside
	tokPunct             // what is left
)

// token is a token of the text.
type token struct {
	kind tokenKind
	text string
	pos  Pos
}

// describe names a token for an error.
func (t token) describe() string {
	switch t.kind {
	case tokEOF:
		return "end of file"
	case tokNewline:
		if t.text == ";" {
			return "semicolon"
		}
		return "newline"
	case tokQuoted:
		return "quoted string \"" + t.text + "\""
	default:
		return "'" + t.text + "'"
	}
}

// lexer takes one text apart.
type lexer struct {
	file  string
	text  string
	off   int
	line  int
	start int // of the line
}

// next is the next token.
func (l *lexer) next() token {
	l.space()
	if l.off >= len(l.text) {
		return l.token(tokEOF, l.off, l.off)
	}
	at := l.off
	switch c := l.text[at]; {
	case c == '\n':
		t := l.token(tokNewline, at, at+1)
		l.line++
		l.start = l.off
		return t
	case c == ';':
		return l.token(tokNewline, at, at+1)
	case c == '"':
		return l.quoted()
	case isHex(c) || c == ':':
		if t, ok := l.numeric(); ok {
			return t
		}
	}
	if c := l.text[at]; isLetter(c) || c == '.' && at+1 < len(l.text) && isLetter(l.text[at+1]) {
		return l.word()
	}
	return l.punct()
}

// numeric reads what begins with a digit: an address, a class, a number.
func (l *lexer) numeric() (token, bool) {
	at := l.off
	if n := addrLen(l.text[at:]); n > 0 {
		return l.token(tokAddr, at, at+n), true
	}
	if n := classLen(l.text[at:]); n > 0 {
		return l.token(tokWord, at, at+n), true
	}
	if isDigit(l.text[at]) {
		return l.number(), true
	}
	return token{}, false
}

// space skips what is between tokens: blanks, comments, continued lines.
func (l *lexer) space() {
	for l.off < len(l.text) {
		switch c := l.text[l.off]; {
		case c == ' ' || c == '\t' || c == '\r':
			l.off++
		case c == '#':
			end := strings.IndexByte(l.text[l.off:], '\n')
			if end < 0 {
				end = len(l.text) - l.off
			}
			l.off += end
		case c == '\\' && strings.HasPrefix(l.text[l.off+1:], "\n"):
			l.off += 2
			l.line++
			l.start = l.off
		default:
			return
		}
	}
}

// token makes one of what is between two offsets, and goes on behind it.
func (l *lexer) token(kind tokenKind, from, to int) token {
	l.off = to
	pos := Pos{File: l.file, Line: l.line, Col: from - l.start + 1, End: max(to-l.start, from-l.start+1)}
	return token{kind: kind, text: l.text[from:to], pos: pos}
}

func (l *lexer) quoted() token {
	at := l.off
	end := strings.IndexAny(l.text[at+1:], "\"\n")
	if end < 0 || l.text[at+1+end] == '\n' {
		t := l.token(tokQuoted, at, at+1)
		fail(t.pos, "syntax error, the string is not closed")
	}
	t := l.token(tokQuoted, at, at+end+2)
	if strings.ContainsFunc(t.text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		fail(t.pos, "syntax error, control characters in a string")
	}
	t.text = t.text[1 : len(t.text)-1]
	return t
}

// number reads a number or a time.
func (l *lexer) number() token {
	at, i := l.off, l.off
	if strings.HasPrefix(l.text[i:], "0x") || strings.HasPrefix(l.text[i:], "0X") {
		for i += 2; i < len(l.text) && isHex(l.text[i]); {
			i++
		}
		return l.token(tokNumber, at, i)
	}
	for i < len(l.text) && isDigit(l.text[i]) {
		i++
	}
	if n := timeLen(l.text[at:]); n > i-at {
		return l.token(tokTime, at, at+n)
	}
	if i < len(l.text) && isLetter(l.text[i]) {
		return l.word() // 8021q
	}
	return l.token(tokNumber, at, i)
}

// timeLen is how long the time at the start of s is.
func timeLen(s string) int {
	n := 0
	for {
		i := n
		for i < len(s) && isDigit(s[i]) {
			i++
		}
		j := i + unitLen(s[i:])
		if i == n || j == i || j < len(s) && isLetter(s[j]) {
			return n
		}
		n = j
	}
}

// unitLen is how long the unit of time at the start of s is.
func unitLen(s string) int {
	switch {
	case strings.HasPrefix(s, "ms"):
		return 2
	case s != "" && strings.IndexByte("wdhms", s[0]) >= 0:
		return 1
	}
	return 0
}

func (l *lexer) word() token {
	at, i := l.off, l.off+1
	for i < len(l.text) && (isLetter(l.text[i]) || isDigit(l.text[i]) || strings.IndexByte("/-.", l.text[i]) >= 0) {
		i++
	}
	if strings.HasPrefix(l.text[i:], "\\*") {
		i++
	}
	if i < len(l.text) && l.text[i] == '*' {
		i++
	}
	return l.token(tokWord, at, i)
}

// punct reads a sign of one or two characters.
func (l *lexer) punct() token {
	at := l.off
	if at+1 < len(l.text) {
		switch l.text[at : at+2] {
		case "==", "!=", "<=", ">=", "<<", ">>", "\\*":
			return l.token(tokPunct, at, at+2)
		}
	}
	t := l.token(tokPunct, at, at+1)
	if strings.IndexByte("{}()[]<>=!&|^,:./-+*$@", l.text[at]) < 0 {
		fail(t.pos, "syntax error, unexpected character %q", l.text[at])
	}
	return t
}

// addrLen is how long the address at the start of s is, 0 if there is none.
func addrLen(s string) int {
	n := 0
	for n < len(s) && n < 46 && (isHex(s[n]) || s[n] == ':' || s[n] == '.') {
		n++
	}
	if strings.Count(s[:n], ":") < 2 && (strings.Count(s[:n], ".") < 3 || !isDigit(s[0])) {
		return 0
	}
	for ; n >= 2; n-- {
		if isAddr(s[:n]) {
			return n
		}
	}
	return 0
}

// classLen is how long the class "1:2" at the start of s is, 0 if there is none.
func classLen(s string) int {
	n := hexLen(s)
	if n == 0 || n >= len(s) || s[n] != ':' {
		return 0
	}
	m := hexLen(s[n+1:])
	end := n + 1 + m
	if m == 0 || end < len(s) && (isLetter(s[end]) || isDigit(s[end]) || s[end] == ':' || s[end] == '.') {
		return 0
	}
	return end
}

// hexLen is how many of up to four digits s begins with.
func hexLen(s string) int {
	n := 0
	for n < len(s) && n < 4 && isHex(s[n]) {
		n++
	}
	return n
}

func isAddr(s string) bool {
	colons := strings.Count(s, ":")
	if colons == 0 && (strings.Count(s, ".") != 3 || !isDigit(s[0])) {
		return false
	}
	if colons == 1 {
		return false
	}
	_, err := netip.ParseAddr(s)
	return err == nil || colons == 5 && parseMAC(s) != ""
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

// parseMAC reads six numbers of one or two hexadecimal digits, "" if they are not.
func parseMAC(s string) string {
	var mac []byte
	for part := range strings.SplitSeq(s, ":") {
		if len(part) == 0 || len(part) > 2 || !isHex(part[0]) || !isHex(part[len(part)-1]) {
			return ""
		}
		b := unhex(part[len(part)-1])
		if len(part) == 2 {
			b |= unhex(part[0]) << 4
		}
		mac = append(mac, b)
	}
	if len(mac) != 6 {
		return ""
	}
	return string(mac)
}

func unhex(c byte) byte {
	switch {
	case isDigit(c):
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}
