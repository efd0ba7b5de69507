// SPDX-License-Identifier: Apache-2.0

package nat_test

import (
	"net/netip"
	"testing"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/packet"
	"sluice/trace"
)

// TestTranslateByAChosenRule: a rule that another engine has found does what it would
// do in the list of its zone, and the hook isn't asked again.
func TestTranslateByAChosenRule(t *testing.T) {
	rules := map[nat.Hook]nat.Rule{
		nat.Prerouting: {
			Hook: nat.Prerouting, Kind: nat.DNAT,
			Target: nat.Target{Addrs: nat.One(netip.MustParseAddr("10.1.0.4")), Ports: nat.PortRange{Min: 8080, Max: 8080}},
		},
		nat.Postrouting: {Hook: nat.Postrouting, Kind: nat.SNAT, Target: nat.Target{Addrs: nat.One(netip.MustParseAddr("203.0.113.9"))}},
	}
	for hook, rule := range rules {
		listed, chosen := newWorld(t, nat.ZoneConfig{}, rule), newWorld(t, nat.ZoneConfig{})
		tu := tuple(packet.ProtoTCP, "192.0.2.1:4000", "203.0.113.1:80")
		f, v := listed.begin(tu)
		if v.Reason != trace.None {
			t.Fatal(v)
		}
		g := &nat.Flow{Pending: new(conntrack.Pending), In: device(tu.Src), Out: device(tu.Dst), Now: chosen.now}
		chosen.table.Look(&conntrack.Packet{Frame: firstPacket(tu), Zone: zone, Now: chosen.now}, g.Pending)
		if v := chosen.n.TranslateBy(hook, g, &rule); v.Reason != trace.None {
			t.Fatal(v)
		}
		if f.Pending.Out() != g.Pending.Out() {
			t.Errorf("%v: %v, in the list %v", hook, g.Pending.Out(), f.Pending.Out())
		}
		other := rule
		other.Target.Addrs = nat.One(netip.MustParseAddr("203.0.113.77"))
		if chosen.n.TranslateBy(hook, g, &other); g.Pending.Out() != f.Pending.Out() {
			t.Errorf("%v was asked twice", hook)
		}
	}
}
