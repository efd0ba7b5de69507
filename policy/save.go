// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/hex"
	"fmt"

	"sluice/policy/nft"
)

// Saved is what rules, objects and elements remember, to be kept over a restart. It
// goes with the ruleset that it was exported with, whose handles it refers to.
type Saved struct {
	Tables []SavedTable `json:"tables"`
}

// SavedTable is that of one table. The keys of States are "chain handle/rule handle/n"
// for the n-th statement of a rule, and "object/kind/name".
type SavedTable struct {
	Family nft.Family            `json:"family"`
	Name   string                `json:"name"`
	States map[string]StateValue `json:"states,omitempty"`
	Sets   []SavedSet            `json:"sets,omitempty"`
}

// SavedSet are elements that packets have added, that expire, or that have statements
// of their own.
type SavedSet struct {
	Name     string         `json:"name"`
	Elements []SavedElement `json:"elements"`
}

// SavedElement is one of them. Key and Data are in hexadecimal.
type SavedElement struct {
	Key     string          `json:"key"`
	Data    string          `json:"data,omitempty"`
	Verdict nft.VerdictKind `json:"verdict,omitempty"`
	Chain   string          `json:"chain,omitempty"`
	Dynamic bool            `json:"dynamic,omitempty"` // a packet has added it
	Timeout int64           `json:"timeout,omitempty"`
	Expires int64           `json:"expires,omitempty"` // nanoseconds left
	States  []StateValue    `json:"states,omitempty"`
	Specs   []StateSpec     `json:"specs,omitempty"` // of a dynamic one
}

// Export is what there is to be kept.
func (e *Engine) Export(now int64) *Saved {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settle()
	s := &Saved{}
	for _, tree := range e.tree.Tables {
		t := e.tables[tree.Handle]
		st := SavedTable{Family: tree.Family, Name: tree.Name, States: map[string]StateValue{}}
		t.eachState(func(key string, x *state) { st.States[key] = x.value(now) })
		for _, set := range tree.Sets {
			if all := t.sets[set.Name].set.export(e.current.Load().gen, now); len(all) > 0 {
				st.Sets = append(st.Sets, SavedSet{set.Name, all})
			}
		}
		s.Tables = append(s.Tables, st)
	}
	return s
}

// eachState goes through what rules and objects remember; rules of anonymous chains
// are left out.
func (t *tableRun) eachState(yield func(key string, s *state)) {
	for k, o := range t.objects {
		yield(fmt.Sprintf("object/%d/%s", k.kind, k.name), o.state)
	}
	for _, c := range t.chains {
		for r, run := range c.rules {
			for i, stmt := range r.Stmts {
				if s := run.states[stmt]; s != nil {
					yield(fmt.Sprintf("%d/%d/%d", c.chain.handle, r.Handle, i), s)
				}
			}
		}
	}
}

func (s *set) export(gen uint64, now int64) (all []SavedElement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.each(gen, now, func(e *elem) bool {
		d := s.describe(e, now)
		if d.Default || e.source != nil && d.Expires == 0 && len(d.States) == 0 {
			return true
		}
		x := SavedElement{
			Key: hex.EncodeToString([]byte(d.Key)), Data: hex.EncodeToString([]byte(d.Data)),
			Verdict: d.Verdict.Kind, Chain: d.Verdict.Chain,
			Dynamic: e.source == nil, Timeout: d.Timeout, Expires: d.Expires, States: d.States,
		}
		if x.Dynamic {
			for i := range e.states {
				x.Specs = append(x.Specs, e.states[i].StateSpec)
			}
		}
		all = append(all, x)
		return true
	})
	return all
}

// Import restores what was exported, after the same ruleset was committed. What it
// doesn't find any more is left out.
func (e *Engine) Import(saved *Saved, now int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range saved.Tables {
		st := &saved.Tables[i]
		for _, t := range e.tables {
			if t.tree.Family == st.Family && t.tree.Name == st.Name {
				t.restore(st, e.current.Load().gen, now)
			}
		}
	}
}

func (t *tableRun) restore(st *SavedTable, gen uint64, now int64) {
	t.eachState(func(key string, s *state) {
		if v, ok := st.States[key]; ok {
			s.restore(&v, now)
		}
	})
	for i := range st.Sets {
		run := t.sets[st.Sets[i].Name]
		if run == nil || run.set.ranges {
			continue
		}
		for j := range st.Sets[i].Elements {
			run.set.restore(t, &st.Sets[i].Elements[j], gen, now)
		}
	}
}

// restore brings one element back, or its numbers.
func (s *set) restore(t *tableRun, x *SavedElement, gen uint64, now int64) {
	raw, err := hex.DecodeString(x.Key)
	data, err2 := hex.DecodeString(x.Data)
	if err != nil || err2 != nil || len(raw) != packedLen(s.fields) || len(data) != 0 && len(data) != packedLen(s.dfields) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.lively(unpack(string(raw), s.fields, s.width), gen, now)
	switch {
	case e == nil:
		e = s.revive(t, x, raw, data, now)
	case x.Expires != 0:
		e.expires.Store(now + x.Expires)
	}
	if e == nil {
		return
	}
	for i := range min(len(e.states), len(x.States)) {
		e.states[i].restore(&x.States[i], now)
	}
}

// revive adds an element that a packet had added; nil if it can't.
// +checklocks:s.mu
func (s *set) revive(t *tableRun, x *SavedElement, key, data []byte, now int64) *elem {
	if !x.Dynamic || !s.dynamic {
		return nil
	}
	a := arrival{
		key: unpack(string(key), s.fields, s.width), data: unpack(string(data), s.dfields, s.dwidth),
		verdict: verdict{kind: x.Verdict}, timeout: x.Timeout, lasts: x.Expires, specs: x.Specs, stmts: s.stmts,
	}
	if x.Chain != "" {
		var err error
		if a.verdict.to, err = t.chain(x.Chain); err != nil {
			return nil
		}
	}
	return s.begin(&a, now)
}

func packedLen(fields []field) (n int) {
	for _, f := range fields {
		n += f.bytes
	}
	return n
}
