// SPDX-License-Identifier: Apache-2.0

package networkpolicy_test

import (
	"math"
	"testing"

	"sluice/conntrack"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/interp"
	"sluice/policy/networkpolicy"
	"sluice/policy/nft"
)

// judge evaluates a ruleset with the engine, and with its interpreter.
type judge struct {
	engine *policy.Engine
	ev     *policy.Evaluator
	record policy.Record
	world  *interp.World
}

func newJudge(t testing.TB, rs *nft.Ruleset) *judge {
	t.Helper()
	j := &judge{engine: policy.New([2]uint64{1, 2})}
	t.Cleanup(func() {
		if j.ev != nil {
			j.ev.Close()
		}
	})
	j.load(t, rs)
	j.ev = j.engine.Evaluator()
	return j
}

func (j *judge) load(t testing.TB, rs *nft.Ruleset) {
	t.Helper()
	if err := j.engine.Commit(rs, nil, 0); err != nil {
		t.Fatal(err)
	}
	j.world = interp.New(rs)
}

// allows shows the first packet of a connection to both.
func (j *judge) allows(t testing.TB, p networkpolicy.Probe, state conntrack.State) bool {
	t.Helper()
	f := pt.Frame(frameOf(p))
	family := nft.FamilyIP
	if p.From.Is6() {
		family = nft.FamilyIP6
	}
	packet := policy.Packet{Frame: f, Now: 1, Pending: &conntrack.Pending{}, State: state, Tracked: true}
	j.ev.Pin()
	j.ev.Begin(&j.record)
	got := j.ev.Hook(&packet, family, nft.HookForward, math.MinInt32, math.MaxInt32).Code
	j.ev.Unpin()
	packet = policy.Packet{Frame: f, Now: 1, Pending: &conntrack.Pending{}, State: state, Tracked: true}
	if want := j.world.Hook(&packet, family, nft.HookForward, math.MinInt32, math.MaxInt32).Code; got != want {
		t.Fatalf("%+v: engine says %d, interpreter %d", p, got, want)
	}
	return got == policy.Accept
}

func frameOf(p networkpolicy.Probe) []byte {
	of := pt.Packet{Src: p.From, Dst: p.To, SrcPort: 40000, DstPort: p.Port, Flags: pt.SYN}
	four := p.From.Is4()
	switch p.Protocol {
	case networkpolicy.TCP:
		if four {
			return pt.TCP4(of)
		}
		return pt.TCP6(of)
	case networkpolicy.UDP:
		if four {
			return pt.UDP4(of)
		}
		return pt.UDP6(of)
	case networkpolicy.SCTP:
		if four {
			return pt.SCTP4(of)
		}
		return pt.SCTP6(of)
	}
	if four {
		return pt.Ping4(of)
	}
	return pt.Ping6(of)
}
