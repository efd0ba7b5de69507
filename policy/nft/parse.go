// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Bounds on what a text may ask for.
const (
	maxText     = 64 << 20 // bytes, with all that is included
	maxIncludes = 16       // one within another
	maxFiles    = 1024     // in all
	maxDepth    = 32       // of blocks, sets and parentheses
	maxOps      = 128      // of the same operation on bits, in a row
)

// Options are what Parse is told besides the text.
type Options struct {
	// FS is where "include" looks; nil: nothing can be included.
	FS fs.FS
	// Dirs are the folders of FS that a relative name is looked for in, in order.
	Dirs []string
	// Defines are variables, as by "nft -D name=value".
	Defines map[string]string
}

// parser reads commands. It looks ahead as far as it must.
type parser struct {
	lex       *lexer
	stack     []*lexer // those that the current one was included from
	ahead     []token
	last      token
	opts      *Options
	scope     *scope
	files     int
	bytes     int
	depth     int
	texts     map[string]string
	spans     spans
	stmts     map[string]func(*parser, token) Stmt
	selectors map[string]func(*parser, token) Expr
}

// scope has the variables of a file or of a block.
type scope struct {
	vars  map[string]Expr
	outer *scope
}

// Parse reads a text as "nft -f" does. file is its name, for errors and for
// "include".
func Parse(file, text string, o *Options) (cmds []*Command, err error) {
	p := newParser(o)
	defer caught(&err, p.line)
	p.open(file, text)
	p.define(o)
	for p.skipLines(); p.peek(0).kind != tokEOF; p.skipLines() {
		cmds = append(cmds, p.command()...)
	}
	return cmds, nil
}

func newParser(o *Options) *parser {
	if o == nil {
		o = &Options{}
	}
	p := &parser{opts: o, texts: map[string]string{}, scope: &scope{vars: map[string]Expr{}}, spans: spans{}}
	p.stmts, p.selectors = stmtParsers(), selectorParsers()
	return p
}

// line is the line that pos points into.
func (p *parser) line(pos Pos) string { return lineOf(p.texts[pos.File], pos) }

func lineOf(text string, pos Pos) string {
	for n := 1; n < pos.Line; n++ {
		i := strings.IndexByte(text, '\n')
		if i < 0 {
			return ""
		}
		text = text[i+1:]
	}
	if pos.Line == 0 {
		return ""
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// open goes on with another text.
func (p *parser) open(file, text string) {
	p.files++
	p.bytes += len(text)
	if p.bytes > maxText || p.files > maxFiles {
		fail(p.last.pos, "too much is included: at most %d files and %d bytes", maxFiles, maxText)
	}
	if p.lex != nil {
		p.stack = append(p.stack, p.lex)
	}
	p.texts[file] = text
	p.lex = &lexer{file: file, text: text, line: 1}
}

// define sets the variables of the caller.
func (p *parser) define(o *Options) {
	if o == nil {
		return
	}
	for name, value := range o.Defines {
		q := newParser(nil)
		q.open("", value)
		p.scope.vars[name] = q.initializer()
	}
}

// fetch is the next token of the texts.
func (p *parser) fetch() token {
	t := p.lex.next()
	for t.kind == tokEOF && len(p.stack) > 0 {
		p.lex = p.stack[len(p.stack)-1]
		p.stack = p.stack[:len(p.stack)-1]
		t.kind, t.text = tokNewline, ""
		return t
	}
	return t
}

// peek is the token n ahead.
func (p *parser) peek(n int) token {
	for len(p.ahead) <= n {
		p.ahead = append(p.ahead, p.fetch())
	}
	return p.ahead[n]
}

// next takes a token.
func (p *parser) next() token {
	p.last = p.peek(0)
	p.ahead = p.ahead[:copy(p.ahead, p.ahead[1:])]
	return p.last
}

// is says whether the next token is that word or sign.
func (p *parser) is(text string) bool { return p.peekIs(0, text) }

func (p *parser) peekIs(n int, text string) bool {
	t := p.peek(n)
	return t.text == text && (t.kind == tokWord || t.kind == tokPunct)
}

// accept takes the next token if it is that word or sign.
func (p *parser) accept(text string) bool {
	if p.is(text) {
		p.next()
		return true
	}
	return false
}

// expect takes that word or sign.
func (p *parser) expect(text string) token {
	if !p.is(text) {
		p.unexpected("'" + text + "'")
	}
	return p.next()
}

// unexpected fails at the next token.
func (p *parser) unexpected(want string) {
	t := p.peek(0)
	fail(t.pos, "syntax error, unexpected %s, expecting %s", t.describe(), want)
}

// skipLines skips newlines and semicolons.
func (p *parser) skipLines() {
	for p.peek(0).kind == tokNewline {
		p.next()
	}
}

// skipNewlines skips newlines only, where they mean nothing.
func (p *parser) skipNewlines() {
	for t := p.peek(0); t.kind == tokNewline && t.text != ";"; t = p.peek(0) {
		p.next()
	}
}

// endOfLine takes the end of a statement; a closing brace ends it too.
func (p *parser) endOfLine() {
	switch t := p.peek(0); {
	case t.kind == tokNewline:
		p.skipLines()
	case t.kind == tokEOF || p.is("}"):
	default:
		p.unexpected("newline or semicolon")
	}
}

// enter bounds how deep things nest.
func (p *parser) enter() func() {
	p.depth++
	if p.depth > maxDepth {
		fail(p.peek(0).pos, "nested too deep: at most %d levels", maxDepth)
	}
	return func() { p.depth-- }
}

// word takes a word.
func (p *parser) word(want string) token {
	if p.peek(0).kind != tokWord {
		p.unexpected(want)
	}
	return p.next()
}

// name takes the name of something; a variable may stand for it.
func (p *parser) name(want string) *symbol {
	if p.is("$") {
		s, ok := p.variable().(*symbol)
		if !ok {
			fail(p.last.pos, "the variable has no single word, expecting %s", want)
		}
		return s
	}
	t := p.peek(0)
	if t.kind != tokWord || strings.HasSuffix(t.text, "*") {
		p.unexpected(want)
	}
	p.next()
	return &symbol{text: t.text, pos: t.pos}
}

// quoted takes a string in quotes.
func (p *parser) quoted() string {
	if p.peek(0).kind != tokQuoted && p.peek(0).kind != tokWord {
		p.unexpected("string")
	}
	return p.next().text
}

// comment takes the string of a comment behind that word; nothing has two.
func (p *parser) comment(word token, of *string) {
	s := p.quoted()
	switch {
	case len(s) > 128:
		fail(p.last.pos, "comment too long, 128 characters maximum allowed")
	case *of != "":
		fail(word.pos.join(p.last.pos), "You can only specify this once. This statement is duplicated.")
	}
	*of = s
}

// number takes a number of up to bits bits.
func (p *parser) number(bits int) uint64 {
	t := p.peek(0)
	if p.is("$") {
		if s, ok := p.variable().(*symbol); ok {
			t = token{kind: tokNumber, text: s.text, pos: s.pos}
		}
	} else if t.kind == tokNumber {
		p.next()
	} else {
		p.unexpected("number")
	}
	n, ok := parseNumber(t.text)
	if !ok || n.BitLen() > bits {
		fail(t.pos, "number %s does not fit in %d bits", t.text, bits)
	}
	return n.Uint64()
}

// time takes a time.
func (p *parser) time() duration {
	t := p.peek(0)
	if p.is("$") {
		if s, ok := p.variable().(*symbol); ok {
			t = token{kind: tokTime, text: s.text, pos: s.pos}
		}
	} else if t.kind == tokNumber || t.kind == tokTime {
		p.next()
	} else {
		p.unexpected("time")
	}
	d, ok := parseTime(t.text)
	if !ok {
		fail(t.pos, "%q is not a time, expecting something as 1h30m", t.text)
	}
	return d
}

// variable takes "$name".
func (p *parser) variable() Expr {
	at := p.expect("$").pos
	t := p.word("name of a variable")
	for s := p.scope; s != nil; s = s.outer {
		if x, ok := s.vars[t.text]; ok {
			return p.relocate(x, at.join(t.pos))
		}
	}
	fail(t.pos, "unknown identifier '%s'", t.text)
	return nil
}

// relocate copies a symbol to where its variable is used.
func (p *parser) relocate(x Expr, pos Pos) Expr {
	if s, ok := x.(*symbol); ok {
		c := *s
		c.pos = pos
		return &c
	}
	return x
}

// block reads what is in braces, line by line.
func (p *parser) block(line func()) {
	defer p.enter()()
	p.expect("{")
	p.scope = &scope{vars: map[string]Expr{}, outer: p.scope}
	for p.skipLines(); !p.is("}"); p.skipLines() {
		if p.peek(0).kind == tokEOF {
			p.unexpected("'}'")
		}
		if !p.common() {
			line()
		}
		p.endOfLine()
	}
	p.scope = p.scope.outer
	p.next()
}

// common reads what may stand in every block: include and define.
func (p *parser) common() bool {
	t := p.peek(0)
	if t.kind != tokWord {
		return false
	}
	switch t.text {
	case "include":
		p.include()
	case "define":
		p.defineVar(false)
	case "redefine":
		p.defineVar(true)
	case "undefine":
		p.next()
		name := p.word("name of a variable")
		if _, ok := p.scope.vars[name.text]; !ok {
			fail(name.pos, "undefined symbol '%s'", name.text)
		}
		delete(p.scope.vars, name.text)
	default:
		return false
	}
	return true
}

// defineVar reads "define x = …".
func (p *parser) defineVar(again bool) {
	p.next()
	name := p.word("name of a variable")
	if _, ok := p.scope.vars[name.text]; ok && !again {
		fail(name.pos, "redefinition of symbol '%s'", name.text)
	}
	p.expect("=")
	p.scope.vars[name.text] = p.initializer()
}

// initializer reads the value of a variable.
func (p *parser) initializer() Expr {
	if p.is("{") {
		return p.setLiteral()
	}
	if p.is("-") {
		at := p.next().pos
		t := p.next()
		return &symbol{text: "-" + t.text, pos: at.join(t.pos)}
	}
	return p.rhs()
}

// include reads "include "file"" and goes on in it.
func (p *parser) include() {
	p.next()
	if p.peek(0).kind != tokQuoted {
		p.unexpected("quoted string")
	}
	name := p.next()
	p.endOfInclude()
	if len(p.stack) >= maxIncludes {
		fail(name.pos, "include nested too deep, at most %d levels", maxIncludes)
	}
	files := p.findFiles(name)
	if len(p.ahead) > 0 {
		panic("looked past an include")
	}
	for _, f := range slices.Backward(files) {
		text, err := fs.ReadFile(p.opts.FS, f)
		if err != nil {
			fail(name.pos, "Could not open file %q: %v", name.text, err)
		}
		p.open(f, string(text))
	}
	p.ahead = append(p.ahead, token{kind: tokNewline, pos: name.pos})
}

// endOfInclude sees that nothing follows on the line, without a look at the next.
func (p *parser) endOfInclude() {
	if t := p.peek(0); t.kind != tokNewline && t.kind != tokEOF {
		p.unexpected("newline or semicolon")
	}
	p.next()
}

// findFiles are the files that an include means, in the order of their names.
func (p *parser) findFiles(name token) []string {
	if p.opts.FS == nil {
		fail(name.pos, "Could not open file %q: nothing can be included here", name.text)
	}
	dirs := p.opts.Dirs
	switch {
	case path.IsAbs(name.text):
		dirs = []string{"/"}
	case strings.HasPrefix(name.text, "./"):
		dirs = []string{path.Dir(name.pos.File)}
	case len(dirs) == 0:
		dirs = []string{"."}
	}
	for _, dir := range dirs {
		pattern := strings.TrimPrefix(path.Join(dir, name.text), "/")
		found, err := fs.Glob(p.opts.FS, pattern)
		if err != nil {
			fail(name.pos, "Could not open file %q: %v", name.text, err)
		}
		found = slices.DeleteFunc(found, func(f string) bool {
			info, err := fs.Stat(p.opts.FS, f)
			return err != nil || info.IsDir()
		})
		if len(found) > 0 {
			slices.Sort(found)
			return found
		}
	}
	if strings.ContainsAny(name.text, "*?[") {
		return nil
	}
	fail(name.pos, "File not found: %s", name.text)
	return nil
}
