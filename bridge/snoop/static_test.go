// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	pt "sluice/packet/packettest"
)

// bridge_igmp and bridge_mld begin with entries that bridge(8) made: no leave, no
// query and no time ends them.
func TestStatic(t *testing.T) {
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			group := family[0]
			s := newScene(t, Config{Querier: true, MaxGroups: 1, MaxPerPort: 1}, Port{Index: 1, FastLeave: true})
			s.hear(2, report(group))
			s.tab.SetStatic([]Static{{pt.IP(group), 0, 1}, {pt.IP(group), 0, 2}, {pt.IP(group), 7, 3}, {pt.IP(group), 0, 99}})
			s.gets(group, 1, 2)
			s.hear(1, done(group))
			s.hear(2, done(group))
			s.hear(2, reports(rec{3, group, 0}))
			s.hear(3, asked(family[1], group))
			s.hear(1, report(group))
			s.wait(600)
			s.gets(group, 1, 2)
			want := []Entry{
				{Group: pt.IP(group), Port: 1, Permanent: true},
				{Group: pt.IP(group), Port: 2, Permanent: true},
				{Group: pt.IP(group), VLAN: 7, Port: 3, Permanent: true},
			}
			got := s.tab.Groups(nil, s.now)
			slices.SortFunc(got, byGroup)
			if diff := gocmp.Diff(want, got, gocmp.Comparer(func(a, b Entry) bool { return a == b })); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
			if n := s.tab.Stats().Groups; n != 2 {
				t.Errorf("%d groups, want 2", n)
			}
			s.tab.SetStatic([]Static{{pt.IP(group), 0, 2}})
			s.gets(group, 2)
			s.hear(1, report(group)) // by itself
			s.tab.SetStatic(nil)
			s.gets(group, 1)
			s.tab.SetPorts([]Port{{Index: 2}}, []uint16{0})
			if n := s.tab.Stats().Groups; n != 0 {
				t.Errorf("%d groups are left", n)
			}
		})
	}
}

// What a port holds by static membership costs it nothing of its own.
func TestStaticTakesNoQuota(t *testing.T) {
	s := newScene(t, Config{Querier: true, MaxPerPort: 1})
	s.hear(1, report("239.1.1.1"))
	s.tab.SetStatic([]Static{{pt.IP("239.1.1.1"), 0, 1}, {pt.IP("239.1.1.2"), 0, 1}})
	s.hear(1, report("239.1.1.3"))
	s.gets("239.1.1.3", 1)
	s.hear(1, report("239.1.1.4"))
	s.gets("239.1.1.4", nobody...)
	s.tab.SetStatic(nil)
	s.gets("239.1.1.1", nobody...)
	s.hear(1, report("239.1.1.4"))
	s.gets("239.1.1.4", nobody...)
}

func TestValidateStatic(t *testing.T) {
	for _, s := range []string{"239.1.1.1", "ff05::1", "ff02::1:3", "224.0.1.1"} {
		if err := (&Static{Group: pt.IP(s), VLAN: 4094}).Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"10.0.0.1", "224.0.0.5", "ff02::1", "ff01::2", "fd00::1", "::ffff:239.1.1.1", "ff05::1%eth0"} {
		if err := (&Static{Group: pt.IP(s)}).Validate(); !errors.Is(err, ErrGroup) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if (&Static{Group: pt.IP("239.1.1.1"), VLAN: 4095}).Validate() == nil || (&Static{Group: netip.Addr{}}).Validate() == nil {
		t.Error("VLAN 4095, or no group, is valid")
	}
}
