// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
)

// setShape is what a set must be to be used somewhere.
type setShape struct {
	isMap bool
	// data are the types of the values; nil: any.
	data []Spec
	obj  ObjectKind
	// dataInterval: values may be ranges.
	dataInterval bool
}

// setOf checks a set that a rule uses: one with a name, or one of its own.
func (c *checker) setOf(x, key Expr, shape *setShape) *SetRef {
	switch x := x.(type) {
	case *setName:
		return c.namedSet(x, key, shape)
	case *setLit:
		return &SetRef{Set: c.anonymousSet(x, key, shape)}
	default:
		fail(c.at(x), "Expression is not a %s", map[bool]string{true: "map", false: "set"}[shape.isMap])
		return nil
	}
}

func (c *checker) namedSet(x *setName, key Expr, shape *setShape) *SetRef {
	set := c.table.set(x.name)
	if set == nil {
		refuse(x.pos, NotFound, "No such file or directory")
	}
	if shape.isMap && !set.IsMap {
		fail(x.pos, "Expression is not a %s", map[bool]string{true: "map", false: "set"}[shape.isMap])
	}
	if shape.isMap && shape.obj != set.ObjKind {
		fail(x.pos, "Expression is not a map with objects of kind %s", shape.obj)
	}
	c.sameTypes(x, key, set.Key)
	if shape.data != nil {
		c.sameData(x, set, shape.data)
	}
	return &SetRef{Name: x.name}
}

func (c *checker) sameData(x *setName, set *Set, want []Spec) {
	if len(set.Data) != len(want) {
		fail(x.pos, "datatype mismatch: expected %s, map has %s", describe(want), describe(set.Data))
	}
	for i, spec := range want {
		if (spec.Type == TypeVerdict) != (set.Data[i].Type == TypeVerdict) {
			fail(x.pos, "datatype mismatch: expected %s, map has %s", describe(want), describe(set.Data))
		}
		c.compatible(x, set.Data[i], spec)
	}
}

// anonymousSet checks a set that is written in a rule.
func (c *checker) anonymousSet(x *setLit, key Expr, shape *setShape) *Set {
	set := &Set{Key: specs(key), IsMap: shape.isMap, Data: shape.data, ObjKind: shape.obj, Constant: true, Pos: x.pos}
	if f, ok := key.(*FIB); ok && f.Result != "type" {
		set.Key[0] = f.Spec
	}
	if shape.isMap && shape.data == nil && shape.obj == ObjNone {
		set.Data = []Spec{{Type: TypeInteger, Bits: 32, Host: true}}
	}
	c.fill(x, set, shape)
	return set
}

// fill puts the elements into a set that is written in a rule.
func (c *checker) fill(x *setLit, set *Set, shape *setShape) {
	if len(x.elems) == 0 {
		fail(x.pos, "Set is empty")
	}
	var list []*Elem
	for _, lit := range x.elems {
		e := c.element(lit, set, shape.dataInterval)
		set.Interval = set.Interval || e.Key != e.End
		list = append(list, e)
	}
	set.AutoMerge = !set.IsMap
	for i, e := range list {
		if err := set.insert(e, insertQuiet); err != nil {
			fail(x.elems[i].pos, "%s", err.what)
		}
	}
	set.AutoMerge = false
}

// element checks an element of a set.
func (c *checker) element(lit *elemLit, set *Set, dataInterval bool) *Elem {
	e := &Elem{Timeout: lit.timeout, Expires: lit.expires, Comment: lit.comment}
	if (lit.hasTimeout || lit.expires > 0) && !set.HasTimeout {
		refuse(lit.pos, Invalid, "Could not process rule: %s", Invalid)
	}
	if _, ok := lit.key.(*starLit); !ok {
		c.elementKey(lit, set, e)
	}
	for _, s := range set.inOrder(lit.stmts) {
		e.Stmts = append(e.Stmts, copyState(s))
	}
	if len(lit.stmts) == 0 {
		for _, s := range set.Stmts {
			e.Stmts = append(e.Stmts, copyState(s))
		}
	}
	if set.IsMap != (lit.data != nil) {
		fail(lit.pos, "%s", map[bool]string{true: "Object mapping data should be a value: expecting key : value", false: "a set has no values, expecting a key alone"}[set.IsMap])
	}
	if lit.data != nil {
		c.elementData(lit, set, e, dataInterval || set.DataInterval)
	}
	return e
}

// inOrder puts statements into the order of the set's own.
func (s *Set) inOrder(stmts []Stmt) []Stmt {
	if len(stmts) < 2 {
		return stmts
	}
	rank := func(st Stmt) int {
		return slices.IndexFunc(s.Stmts, func(x Stmt) bool { return reflect.TypeOf(x) == reflect.TypeOf(st) })
	}
	out := slices.Clone(stmts)
	slices.SortStableFunc(out, func(a, b Stmt) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}

// elementKey fills in what an element is found by.
func (c *checker) elementKey(lit *elemLit, set *Set, e *Elem) {
	e.Key, e.End = c.keyBytes(lit.key, set.Key)
	if e.Key != e.End && !set.Interval && !set.Constant {
		fail(c.at(lit.key).join(lit.pos), "You must add 'flags interval' to your set declaration if you want to add range elements")
	}
}

// keyBytes are the first and the last key that an expression stands for.
func (c *checker) keyBytes(x Expr, specs []Spec) (from, to string) {
	parts := []Expr{x}
	if lit, ok := x.(*Concat); ok {
		parts = lit.Parts
	}
	if len(parts) != len(specs) {
		fail(c.at(x), "datatype mismatch, expected %s, expression has %d parts", describe(specs), len(parts))
	}
	var a, b strings.Builder
	for i, part := range parts {
		lo, hi := bounds(c.constant(part, booleanBits(specs[i])))
		a.WriteString(lo)
		b.WriteString(hi)
	}
	return a.String(), b.String()
}

// booleanBits makes room for a boolean in a byte.
func booleanBits(s Spec) Spec {
	if s.Type == TypeBoolean {
		s.Bits = 8
	}
	return s
}

// bounds are the first and the last value of a constant.
func bounds(x Expr) (lo, hi string) {
	switch x := x.(type) {
	case *Range:
		return x.From.Data, x.To.Data
	case *Prefix:
		rest := xorBits(prefixMask(x.Addr.Spec, x.Len), allOnes(x.Addr.Spec))
		return x.Addr.Data, orBits(x.Addr.Data, rest)
	case *Value:
		if x.Wildcard {
			name := strings.TrimRight(x.Data, "\x00")
			return x.Data, name + strings.Repeat("\xff", len(x.Data)-len(name))
		}
		return x.Data, x.Data
	default:
		return "", ""
	}
}

// elementData fills in the value of a map's element.
func (c *checker) elementData(lit *elemLit, set *Set, e *Elem, interval bool) {
	v, isVerdict := lit.data.(*verdictLit)
	switch {
	case set.ObjKind != ObjNone:
		s, ok := lit.data.(*symbol)
		if !ok {
			fail(lit.pos, "expecting the name of a %s", set.ObjKind)
		}
		if c.table.object(set.ObjKind, s.text) == nil {
			refuse(s.pos, NotFound, "Could not process rule: %s", NotFound)
		}
		e.Object = s.text
		return
	case isVerdict != (set.Data[0].Type == TypeVerdict):
		fail(c.at(lit.data).join(lit.pos), "datatype mismatch: map expects %s", describe(set.Data))
	case isVerdict:
		e.Verdict = c.verdict(v)
		return
	}
	e.Data, e.DataEnd = c.keyBytes(lit.data, set.Data)
	if e.Data != e.DataEnd && !interval {
		fail(c.at(lit.data).join(lit.pos), "expecting one value, not a range")
	}
	if e.Data != e.DataEnd {
		set.DataInterval = true
	}
}

// setErr is why an element can't be put into a set.
type setErr struct {
	what string
	code Code
}

// insertMode says what becomes of an element that is there.
type insertMode uint8

const (
	insertQuiet  insertMode = iota // add: nothing, if it is the same
	insertCreate                   // create: an error
)

// insert puts an element into a set.
func (s *Set) insert(e *Elem, mode insertMode) *setErr {
	if e.Key == "" {
		return s.insertDefault(e, mode)
	}
	old := s.Elems.Find(e.Key)
	if old != nil && old.End == e.End {
		if mode == insertCreate || !sameData(old, e) {
			return &setErr{"Could not process rule: " + Exists.String(), Exists}
		}
		if e.Timeout != 0 && e.Timeout != old.Timeout {
			s.Elems = s.Elems.With(e)
		}
		return nil
	}
	if s.Interval {
		if err := s.fit(e); err != nil || e.Key == "" {
			return err
		}
	}
	if s.Size > 0 && s.Elems.Len() >= int(s.Size) {
		return &setErr{"Could not process rule: " + TooMany.String(), TooMany}
	}
	s.Elems = s.Elems.With(e)
	return nil
}

func (s *Set) insertDefault(e *Elem, mode insertMode) *setErr {
	if s.Default != nil && (mode == insertCreate || !sameData(s.Default, e)) {
		return &setErr{"Could not process rule: " + Exists.String(), Exists}
	}
	if s.Default == nil {
		s.Default = e
	}
	return nil
}

func sameData(a, b *Elem) bool {
	if (a.Verdict == nil) != (b.Verdict == nil) || a.Verdict != nil && (a.Verdict.Kind != b.Verdict.Kind || a.Verdict.Chain != b.Verdict.Chain) {
		return false
	}
	return a.Data == b.Data && a.DataEnd == b.DataEnd && a.Object == b.Object
}

// fit sees to it that intervals don't overlap; merged ones may.
func (s *Set) fit(e *Elem) *setErr {
	if len(s.Key) > 1 {
		return s.fitConcat(e)
	}
	if s.AutoMerge {
		s.absorb(e)
		return nil
	}
	before := s.Elems.Floor(e.Key)
	after := s.Elems.Ceil(e.Key)
	if before != nil && before.End >= e.Key || after != nil && after.Key <= e.End {
		return &setErr{"conflicting intervals specified", Exists}
	}
	return nil
}

// absorb takes the neighbours of e out of the set, and into e.
func (s *Set) absorb(e *Elem) {
	if n := s.Elems.Floor(e.Key); n != nil && (n.End >= e.Key || next(n.End) == e.Key) {
		e.Key, e.End = n.Key, max(n.End, e.End)
		s.Elems = s.Elems.Without(n.Key)
	}
	for {
		n := s.Elems.Ceil(e.Key)
		if n == nil || n.Key > e.End && n.Key != next(e.End) {
			return
		}
		e.End = max(n.End, e.End)
		s.Elems = s.Elems.Without(n.Key)
	}
}

// next is the number behind that of data, "" behind the last.
func next(data string) string {
	b := []byte(data)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b)
		}
	}
	return ""
}

// previous is the number before that of data.
func previous(data string) string {
	b := []byte(data)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return string(b)
}

// scanConcat is up to how many elements a new one is compared with all.
const scanConcat = 4096

// fitConcat sees that neither end of a new element lies in an old one, as the
// kernel does. In a big set only its neighbours are looked at.
func (s *Set) fitConcat(e *Elem) *setErr {
	conflict := func(old *Elem) bool { return s.covers(old, e.Key) || s.covers(old, e.End) }
	var bad bool
	if s.Elems.Len() <= scanConcat {
		for old := range s.Elems.All() {
			bad = bad || conflict(old)
		}
	} else {
		list := []*Elem{s.Elems.Floor(e.Key), s.Elems.Ceil(e.Key), s.Elems.Floor(e.End)}
		bad = slices.ContainsFunc(list, func(old *Elem) bool { return old != nil && conflict(old) })
	}
	if bad {
		return &setErr{"Could not process rule: " + Exists.String(), Exists}
	}
	s.Orders++
	e.Order = s.Orders
	return nil
}

// covers says whether a key lies within an element, part by part.
func (s *Set) covers(e *Elem, key string) bool {
	at := 0
	for _, spec := range s.Key {
		to := at + spec.Bytes()
		if key[at:to] < e.Key[at:to] || key[at:to] > e.End[at:to] {
			return false
		}
		at = to
	}
	return true
}

// remove takes an element out of a set, and says whether it was there.
func (s *Set) remove(e *Elem) bool {
	if e.Key == "" {
		had := s.Default != nil
		s.Default = nil
		return had
	}
	old := s.Elems.Find(e.Key)
	if old != nil && old.End == e.End {
		s.Elems = s.Elems.Without(e.Key)
		return true
	}
	if s.AutoMerge {
		return s.cut(e)
	}
	return false
}

// cut takes a part out of a merged interval.
func (s *Set) cut(e *Elem) bool {
	n := s.Elems.Floor(e.Key)
	if n == nil || n.End < e.End {
		return false
	}
	s.Elems = s.Elems.Without(n.Key)
	if n.Key < e.Key {
		left := *n
		left.End = previous(e.Key)
		s.Elems = s.Elems.With(&left)
	}
	if n.End > e.End {
		right := *n
		right.Key = next(e.End)
		s.Elems = s.Elems.With(&right)
	}
	return true
}
