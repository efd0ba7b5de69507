// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"testing"

	"sluice/bridge/snoop"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// Neighbours, snooping and static groups come with the Commit too, and the groups
// that were learned stay while snooping is configured in the same way.
func TestChangeOfSnoopingAndNeighbours(t *testing.T) {
	all := members(3)
	all[1].Flags = Suppress
	setup := Setup{
		Ports:      all,
		Static:     []StaticEntry{{MAC: station(2), Port: 2}},
		Neighbours: []Neighbour{{Addr: pt.IP("10.44.0.2"), MAC: station(2)}},
		Snooping:   &snoop.Config{Querier: true, MAC: ownMAC},
		Groups:     []snoop.Static{{Group: pt.IP("239.1.1.1"), Port: 2}},
	}
	b := New(Options{})
	c := b.Prepare(setup)
	if b.Snooping() != nil || b.Input(1, who("10.44.0.1", "10.44.0.2"), 0).Action == Answer {
		t.Fatal("changed before Commit")
	}
	c.Commit()
	if v := b.Input(1, who("10.44.0.1", "10.44.0.2"), 0); v.Reason != trace.Suppressed {
		t.Errorf("%+v", v)
	}
	polled(t, b, 0, 11)
	b.Input(3, joins(3), 11)
	table := b.Snooping()
	expect := func(what string, groups int, same bool) {
		t.Helper()
		if got := b.Snooping().Groups(nil, 11); len(got) != groups || same != (b.Snooping() == table) {
			t.Errorf("%s: groups %v, same table %v", what, got, b.Snooping() == table)
		}
	}
	expect("learned", 2, true)

	b.Prepare(setup).Commit()
	expect("nothing changed", 2, true)
	b.SetPorts(all)
	b.SetStatic(setup.Static)
	expect("set one by one", 2, true)

	setup.Ports, setup.Groups, setup.Neighbours = all[:4], nil, nil
	setup.Snooping = &snoop.Config{Querier: true, MAC: ownMAC, Robustness: snoop.DefaultRobustness}
	b.Prepare(setup).Commit()
	expect("spelt out", 1, true)
	if v := b.Input(1, who("10.44.0.1", "10.44.0.2"), 0); v.Action == Answer {
		t.Errorf("a neighbour that is none: %+v", v)
	}

	setup.Snooping = &snoop.Config{Querier: true, MAC: ownMAC, Version4: 3}
	b.Prepare(setup).Commit()
	expect("another configuration", 0, false)

	setup.Snooping = nil
	b.Prepare(setup).Commit()
	if b.Snooping() != nil {
		t.Error("not off")
	}
}
