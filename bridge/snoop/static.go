// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"errors"
	"fmt"
	"net/netip"
)

// Static is a port that is in a group because it was told to be, whatever is heard
// there: `bridge mdb add … permanent` of bridge(8). As on Linux, it makes no
// querier: while there is none, the group is flooded like any other.
type Static struct {
	Group netip.Addr `json:"group"`
	VLAN  uint16     `json:"vlan,omitempty"` // 0: none
	Port  uint16     `json:"port"`
}

// ErrGroup says that a group is none that can have members.
var ErrGroup = errors.New("group must be a multicast address that hosts report")

// maxVID is the highest VLAN.
const maxVID = 4094

// Validate reports what is wrong with s.
func (s *Static) Validate() error {
	a := s.Group
	switch {
	case !a.IsMulticast() || a.Is4In6() || a.Zone() != "" || unlisted(a):
		return fmt.Errorf("group %q: %w", a, ErrGroup)
	case s.VLAN > maxVID:
		return fmt.Errorf("group %s: VLAN %d is not in 0..%d", a, s.VLAN, maxVID)
	}
	return nil
}

// SetStatic replaces the static members. They take nothing of what Config gives to
// ports, and have no bound but the caller's. One that is no more is out of its
// group until it is heard, and one of a port that is none is left out.
func (t *Table) SetStatic(all []Static) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.static
	t.static = make(map[Static]struct{}, len(all))
	for _, s := range all {
		delete(old, s)
		t.static[s] = struct{}{}
		t.settle(s)
	}
	for s := range old {
		t.unsettle(s)
	}
}

// settle makes a port a member for good.
//
// +checklocks:t.mu
func (t *Table) settle(s Static) {
	p := t.ports[s.Port]
	if p == nil {
		return
	}
	g := t.find(s.Group, s.VLAN)
	if g == nil {
		g = t.insert(s.Group, s.VLAN)
	}
	i := g.index(s.Port)
	if i < 0 {
		g.members = append(g.members, member{port: s.Port, permanent: true})
		g.publish()
		return
	}
	if m := &g.members[i]; !m.permanent {
		m.permanent = true
		p.groups--
	}
}

// unsettle is the inverse of settle.
//
// +checklocks:t.mu
func (t *Table) unsettle(s Static) {
	if g := t.find(s.Group, s.VLAN); g != nil {
		t.shrink(g, func(m member) bool { return m.port == s.Port && m.permanent })
		t.unlink(g)
	}
}

// ConfiguredAs reports whether New(c) would be configured as t is.
func (t *Table) ConfiguredAs(c Config) bool { return t.config == c.withDefaults() }
