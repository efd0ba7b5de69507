// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"io"
	"iter"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// State has what was counted since a ruleset was loaded; listing asks for it.
type State interface {
	Counter(c *Counter) (packets, bytes uint64)
	Quota(q *Quota) (used uint64)
	Last(l *Last) (ago time.Duration, set bool)
	// Elems are the elements of a set as they are now, nil if they are those of
	// the ruleset.
	Elems(t *Table, s *Set) iter.Seq[*Elem]
}

// ListOptions are those of nft(8) that listing has.
type ListOptions struct {
	Handles        bool // -a
	Stateless      bool // -s
	Terse          bool // -t
	Numeric        bool // -n: the next three
	NumericPrio    bool // -y
	NumericProto   bool // -p
	NumericTime    bool // -T
	Services       bool // -S
	NumericSymbols bool // with -n
	Env            *Env
	State          State
}

// printer writes the language.
type printer struct {
	strings.Builder
	ListOptions
	table  *Table
	indent int
	tight  bool // no empty lines between blocks
}

func newPrinter(o *ListOptions) *printer {
	p := &printer{}
	if o != nil {
		p.ListOptions = *o
	}
	if p.Numeric {
		p.NumericPrio, p.NumericProto, p.NumericTime, p.NumericSymbols = true, true, true, true
	}
	return p
}

// List writes all tables as "nft list ruleset".
func (r *Ruleset) List(w io.Writer, o *ListOptions) error {
	return r.list(w, newPrinter(o))
}

func (r *Ruleset) list(w io.Writer, p *printer) error {
	for _, t := range r.Tables {
		p.tableText(t)
		if _, err := io.WriteString(w, p.String()); err != nil {
			return err
		}
		p.Reset()
	}
	return nil
}

// ListTable writes one table as "nft list table".
func (t *Table) ListTable(o *ListOptions) string {
	p := newPrinter(o)
	p.tableText(t)
	return p.String()
}

// RuleText is a rule as it is listed, without its handle.
func RuleText(f Family, r *Rule, o *ListOptions) string {
	p := newPrinter(o)
	p.table = &Table{Family: f}
	p.Handles = false
	p.rule(r)
	return p.String()
}

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// handleText is the comment with a handle, if handles are asked for.
func (p *printer) handleText(h uint64) string {
	if !p.Handles {
		return ""
	}
	return " # handle " + strconv.FormatUint(h, 10)
}

// tableText writes a table.
func (p *printer) tableText(t *Table) {
	p.table = t
	p.printf("table %s %s {%s\n", t.Family, t.Name, p.handleText(t.Handle))
	if t.Comment != "" {
		p.printf("\tcomment \"%s\"\n", t.Comment)
	}
	if flags := tableFlags(t); flags != nil {
		p.printf("\tflags %s\n", strings.Join(flags, ","))
		if len(t.Objects)+len(t.Sets)+len(t.Chains) > 0 {
			p.WriteString("\n")
		}
	}
	first := true
	between := func() {
		if !first && !p.tight {
			p.WriteString("\n")
		}
		first = false
	}
	for _, o := range t.Objects {
		between()
		p.object(o)
	}
	for _, s := range t.Sets {
		between()
		p.set(s)
	}
	for _, c := range t.Chains {
		between()
		p.chain(c)
	}
	p.WriteString("}\n")
}

func tableFlags(t *Table) []string {
	var flags []string
	for _, f := range []struct {
		on   bool
		name string
	}{{t.Dormant, "dormant"}, {t.Owner, "owner"}, {t.Persist, "persist"}} {
		if f.on {
			flags = append(flags, f.name)
		}
	}
	return flags
}

func (p *printer) object(o *Object) {
	p.printf("\t%s %s {%s\n", o.Kind, o.Name, p.handleText(o.Handle))
	if o.Comment != "" {
		p.printf("\t\tcomment \"%s\"\n", o.Comment)
	}
	if _, ok := o.Stmt.(*Counter); ok && p.Stateless {
		p.WriteString("\t}\n")
		return
	}
	p.WriteString("\t\t")
	switch s := o.Stmt.(type) {
	case *Counter:
		packets, bytes := p.counts(s)
		p.printf("packets %d bytes %d", packets, bytes)
	case *Quota:
		p.quotaText(s)
	case *Limit:
		p.limitText(s)
	}
	p.WriteString("\n\t}\n")
}

func (p *printer) chain(c *Chain) {
	p.printf("\tchain %s {%s\n", c.Name, p.handleText(c.Handle))
	if c.Comment != "" {
		p.printf("\t\tcomment \"%s\"\n", c.Comment)
	}
	if c.Base {
		policy := "accept"
		if c.Drop {
			policy = "drop"
		}
		p.printf("\t\ttype %s hook %s%s priority %s; policy %s;\n", c.Type, c.Hook, devicesText(c.Devices), p.priority(c), policy)
	}
	for _, r := range c.Rules {
		p.WriteString("\t\t")
		p.indent = 2
		p.rule(r)
		p.WriteString(p.handleText(r.Handle))
		p.WriteString("\n")
	}
	p.WriteString("\t}\n")
}

func devicesText(list []string) string {
	switch len(list) {
	case 0:
		return ""
	case 1:
		return " device \"" + list[0] + "\""
	default:
		return " devices = { " + strings.Join(list, ", ") + " }"
	}
}

// priority is a priority by the nearest name.
func (p *printer) priority(c *Chain) string {
	n := int64(c.Prio)
	if p.NumericPrio {
		return strconv.FormatInt(n, 10)
	}
	table := priorityTable[0]
	if p.table.Family == FamilyBridge {
		table = priorityTable[1]
	}
	for name, number := range table {
		if off := n - number; off >= -10 && off <= 10 && priorityHook(p.table.Family, c.Hook, name) {
			switch {
			case off == 0:
				return name
			case off > 0:
				return name + " + " + strconv.FormatInt(off, 10)
			default:
				return name + " - " + strconv.FormatInt(-off, 10)
			}
		}
	}
	return strconv.FormatInt(n, 10)
}

// rule writes a rule and its comment.
func (p *printer) rule(r *Rule) {
	p.stmts(r.Stmts)
	if r.Comment != "" {
		p.printf(" comment \"%s\"", r.Comment)
	}
}

// stmts writes statements, without those that are implied.
func (p *printer) stmts(list []Stmt) {
	between := ""
	for _, s := range list {
		if m, ok := s.(*Match); ok && m.Implied {
			continue
		}
		p.WriteString(between)
		s.print(p)
		between = " "
	}
}

// value writes a constant.
func (p *printer) value(v *Value) {
	switch {
	case v.Type.stringy():
		p.printf("\"%s\"", v.text())
	case v.Type.info().flag && v.Type != TypeCTLabel:
		p.flagValue(v, " | ")
	default:
		p.WriteString(p.constant(v))
	}
}

// constant is the text of a number.
func (p *printer) constant(v *Value) string {
	if write := p.writerOf(v); write != "" {
		return write
	}
	if name, ok := nameOf(symbolTable[v.Type], v.Uint()); ok && len(v.Data) <= 8 && !p.NumericSymbols && v.Type != TypeInetProto {
		if v.Type == TypeTimeDay {
			return "\"" + name + "\""
		}
		return name
	}
	return numberText(v)
}

// numberText is a number in the way of its type.
func numberText(v *Value) string {
	n := big.NewInt(0).SetBytes([]byte(v.Data))
	switch hex := v.Type.info().hex; hex {
	case 0:
		return n.String()
	case -1:
		return "0x" + n.Text(16)
	default:
		return fmt.Sprintf("0x%0*x", hex, n)
	}
}

// flagValue writes the names of bits; what has no name, as a number.
func (p *printer) flagValue(v *Value, between string) {
	n := v.Uint()
	if n == 0 {
		p.WriteString(numberText(v))
		return
	}
	first := true
	for bit := uint64(1); bit != 0 && bit <= n; bit <<= 1 {
		if n&bit == 0 {
			continue
		}
		if !first {
			p.WriteString(between)
		}
		first = false
		if name, ok := nameOf(symbolTable[v.Type], bit); ok && !p.NumericSymbols {
			p.WriteString(name)
		} else {
			p.printf("0x%x", bit)
		}
	}
}
