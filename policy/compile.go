// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"sluice/policy/nft"
)

// The compiler turns the rules of one chain into a program. An expression is
// computed into registers, of which a rule begins with the first again; a match of
// one field with a constant is one instruction that needs no register.

// ruleRun is what a rule remembers as long as it is there, over all programs that
// it is compiled into. The keys are the nodes of its tree.
type ruleRun struct {
	states map[nft.Stmt]*state
	counts map[*nft.Numgen]*atomic.Uint32
	sets   map[*nft.Set]*set
	chains map[*nft.Verdict]*chain
	inner  []*ruleRun // of the rules of those chains
}

// compiler compiles one chain.
type compiler struct {
	table *tableRun
	code  *code
	run   *ruleRun
	rule  *nft.Rule
	reg   int
	start int // of the rule
	stage *stage
	seen  map[*set]uint32
}

// errTooLong is a rule with more instructions than a rule may have.
var errTooLong = errors.New("rule is too long")

// compile makes the program of a chain. runs has what its rules remember.
func compile(stage *stage, table *tableRun, tree *nft.Chain, runs func(*nft.Rule) *ruleRun) (*code, error) {
	c := &compiler{
		stage: stage, table: table, seen: map[*set]uint32{},
		code: &code{gen: stage.gen, chain: tree, table: table.tree},
	}
	c.code.rules = make([]ruleCode, 0, len(tree.Rules))
	c.code.insts = make([]inst, 0, 2*len(tree.Rules)+1)
	for _, r := range tree.Rules {
		c.rule, c.run = r, runs(r)
		if err := c.compileRule(r); err != nil {
			return nil, fmt.Errorf("%s %s, rule %d: %w", table.tree.Name, tree.Name, r.Handle, err)
		}
	}
	c.emit(inst{op: opEnd})
	c.code.index()
	return c.code, nil
}

func (c *compiler) compileRule(r *nft.Rule) error {
	c.start, c.reg = len(c.code.insts), 1
	c.code.rules = append(c.code.rules, ruleCode{r, uint32(c.start)})
	ends := false
	for _, s := range r.Stmts {
		c.reg = 1
		if err := c.stmt(s); err != nil {
			return err
		}
		ends = final(s)
	}
	if !ends {
		c.emit(inst{op: opRuleEnd})
	}
	end := len(c.code.insts)
	if end-c.start > math.MaxUint16 {
		return errTooLong
	}
	for i := c.start; i < end; i++ {
		in := &c.code.insts[i]
		if in.rest = uint16(end - i); in.op <= opMatchBig && in.src >= srcLink && in.src <= srcTransport {
			in.flag = in.keyedFlags()
		}
	}
	return nil
}

// final reports whether nothing of a rule comes after the statement.
func final(s nft.Stmt) bool {
	switch s := s.(type) {
	case *nft.Verdict:
		return s.Kind != nft.Continue
	case *nft.Reject:
		return true
	case *nft.NAT: // to an address of one family: packets of the other go on
		return s.Family == nft.FamilyNone
	}
	return false
}

func (c *compiler) emit(in inst) { c.code.insts = append(c.code.insts, in) }

// take reserves registers.
func (c *compiler) take(n int) (uint8, error) {
	r := c.reg
	if c.reg += n; c.reg > numRegs {
		return 0, errors.New("rule needs more than 64 registers")
	}
	return uint8(r), nil
}

func (c *compiler) stmt(s nft.Stmt) error {
	switch s := s.(type) {
	case *nft.Match:
		return c.match(s)
	case *nft.VMap:
		return c.lookup(opVMap, s.Key, s.Of, 0)
	case *nft.Verdict:
		return c.verdict(s)
	case *nft.ObjectRef:
		return c.object(s)
	case *nft.NAT:
		return c.nat(s)
	case *nft.Mangle:
		return c.mangle(s)
	case *nft.SetStmt:
		return c.setStmt(s)
	}
	return c.simple(s)
}

// simple is for statements without expressions.
func (c *compiler) simple(s nft.Stmt) error {
	switch s := s.(type) {
	case *nft.Log:
		c.code.logs = append(c.code.logs, s)
		c.emit(inst{op: opLog, arg: uint32(len(c.code.logs) - 1), imm: uint64(len(c.code.insts))})
	case *nft.Reject:
		c.emit(inst{op: opReject, aux: uint8(s.Kind), flag: s.Code})
	case *nft.Notrack:
		c.emit(inst{op: opNotrack})
	default:
		spec, err := specOf(s)
		if err != nil {
			return err
		}
		st := c.run.states[s]
		if st == nil {
			st = newState(&spec)
			if c.run.states == nil {
				c.run.states = map[nft.Stmt]*state{}
			}
			c.run.states[s] = st
		}
		c.stateful(st)
	}
	return nil
}

func (c *compiler) stateful(st *state) {
	c.code.states = append(c.code.states, st)
	c.emit(inst{op: opState, arg: uint32(len(c.code.states) - 1)})
}

// specOf is a statement that remembers something, as it is written.
func specOf(s nft.Stmt) (StateSpec, error) {
	switch s := s.(type) {
	case *nft.Counter:
		return StateSpec{Kind: CounterState, Packets: s.Packets, Bytes: s.Bytes}, nil
	case *nft.Quota:
		return StateSpec{Kind: QuotaState, Quota: s.Bytes, Bytes: s.Used, Invert: s.Over}, nil
	case *nft.Limit:
		return StateSpec{
			Kind: LimitState, Rate: s.Rate, Unit: int64(s.Per) * second, Burst: s.Burst,
			ByBytes: s.Bytes, Invert: s.Over,
		}, nil
	case *nft.Last:
		return StateSpec{Kind: LastState}, nil
	case *nft.CTCount:
		return StateSpec{Kind: ConnCountState, Conns: s.Count, Invert: s.Over}, nil
	}
	return StateSpec{}, fmt.Errorf("statement %T is not supported", s)
}

func specsOf(stmts []nft.Stmt) ([]StateSpec, error) {
	var specs []StateSpec
	for _, s := range stmts {
		spec, err := specOf(s)
		if err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// verdict is a verdict of a rule.
func (c *compiler) verdict(v *nft.Verdict) error {
	if v.Kind == nft.Continue {
		return nil
	}
	in := inst{op: opVerdict, aux: uint8(v.Kind)}
	if v.Kind == nft.Jump || v.Kind == nft.Goto {
		to, err := c.target(v)
		if err != nil {
			return err
		}
		in.flag, in.arg = flagOnly, uint32(len(c.code.chains))
		c.code.chains = append(c.code.chains, to)
	}
	c.emit(in)
	return nil
}

// target is the chain that a verdict leads to.
func (c *compiler) target(v *nft.Verdict) (*chain, error) {
	if v.Body == nil {
		return c.table.chain(v.Chain)
	}
	to := c.run.chains[v]
	if to != nil {
		return to, nil
	}
	to = &chain{name: v.Chain}
	tree := &nft.Chain{Name: v.Chain, Rules: v.Body, Anonymous: true}
	k, err := compile(c.stage, c.table, tree, func(*nft.Rule) *ruleRun {
		r := &ruleRun{}
		c.run.inner = append(c.run.inner, r)
		return r
	})
	if err != nil {
		return nil, err
	}
	to.code.Store(k)
	if c.run.chains == nil {
		c.run.chains = map[*nft.Verdict]*chain{}
	}
	c.run.chains[v] = to
	return to, nil
}

// verdictOf is a verdict of a map's element.
func (t *tableRun) verdictOf(v *nft.Verdict) (verdict, error) {
	if v.Kind != nft.Jump && v.Kind != nft.Goto {
		return verdict{kind: v.Kind}, nil
	}
	to, err := t.chain(v.Chain)
	return verdict{v.Kind, to}, err
}

// object is a named object, or one that a map has.
func (c *compiler) object(s *nft.ObjectRef) error {
	if s.Map != nil {
		return c.lookup(opObject, s.Map.Key, s.Map.Of, 0)
	}
	st, err := c.table.object(s.Kind, s.Name)
	if err != nil {
		return err
	}
	c.stateful(st)
	return nil
}

// lookup computes a key and looks it up; a map's value goes to register to.
func (c *compiler) lookup(op op, key nft.Expr, of *nft.SetRef, to uint8) error {
	s, err := c.set(of)
	if err != nil {
		return err
	}
	r, err := c.key(key, s)
	if err != nil {
		return err
	}
	c.emit(inst{op: op, dst: r, aux: to, arg: c.setIndex(s)})
	return nil
}

func (c *compiler) setIndex(s *set) uint32 {
	i, ok := c.seen[s]
	if !ok {
		i = uint32(len(c.code.sets))
		c.code.sets = append(c.code.sets, s)
		c.seen[s] = i
	}
	return i
}

// set is the set that a rule refers to.
func (c *compiler) set(ref *nft.SetRef) (*set, error) {
	if ref.Set == nil {
		return c.table.set(ref.Name)
	}
	if s := c.run.sets[ref.Set]; s != nil {
		return s, nil
	}
	s := newSet(ref.Set, c.stage.seed, c.stage.grace)
	if err := s.fill(c.table, ref.Set, c.stage); err != nil {
		return nil, err
	}
	if c.run.sets == nil {
		c.run.sets = map[*nft.Set]*set{}
	}
	c.run.sets[ref.Set] = s
	return s, nil
}

// key computes a key of a set.
func (c *compiler) key(key nft.Expr, s *set) (uint8, error) {
	parts := []nft.Expr{key}
	if k, ok := key.(*nft.Concat); ok {
		parts = k.Parts
	}
	if len(parts) != len(s.fields) {
		return 0, fmt.Errorf("key has %d parts, the set's has %d", len(parts), len(s.fields))
	}
	r, err := c.take(s.width)
	if err != nil {
		return 0, err
	}
	for i, part := range parts {
		if err := c.value(part, r+uint8(s.fields[i].at), s.fields[i].words); err != nil {
			return 0, err
		}
	}
	return r, nil
}

// setStmt is add, update and delete of an element.
func (c *compiler) setStmt(s *nft.SetStmt) error {
	to, err := c.table.set(s.Set)
	if err != nil {
		return err
	}
	if to.ranges {
		return fmt.Errorf("set %s has intervals: packets can't change it", s.Set)
	}
	d := dynamic{op: s.Op, set: to, timeout: int64(s.Timeout), lasts: int64(s.Expires)}
	stmts := s.Stmts
	if len(stmts) == 0 {
		stmts = to.stmts
	}
	d.stmts = stmts
	if d.specs, err = specsOf(stmts); err != nil {
		return err
	}
	if d.key, err = c.key(s.Key, to); err != nil {
		return err
	}
	if err := c.setData(&d, s, to); err != nil {
		return err
	}
	c.code.dyns = append(c.code.dyns, d)
	c.emit(inst{op: opDynamic, arg: uint32(len(c.code.dyns) - 1)})
	return nil
}

func (c *compiler) setData(d *dynamic, s *nft.SetStmt, to *set) (err error) {
	if v, ok := s.Data.(*nft.Verdict); ok {
		d.verdict, err = c.table.verdictOf(v)
		return err
	}
	if s.Data == nil {
		return nil
	}
	parts := []nft.Expr{s.Data}
	if k, ok := s.Data.(*nft.Concat); ok {
		parts = k.Parts
	}
	if len(parts) != len(to.dfields) {
		return errors.New("value has not as many parts as the map's")
	}
	if d.data, err = c.take(to.dwidth); err != nil {
		return err
	}
	for i, part := range parts {
		if err := c.value(part, d.data+uint8(to.dfields[i].at), to.dfields[i].words); err != nil {
			return err
		}
	}
	return nil
}
