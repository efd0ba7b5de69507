// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"testing"

	"sluice/conntrack"
	pt "sluice/packet/packettest"
	"sluice/policy/nft"
)

// TestConnectionsAreCounted: `ct count over 2` lets two connections be, and another
// one as soon as one of them is over.
func TestConnectionsAreCounted(t *testing.T) {
	tab, err := conntrack.NewTable(conntrack.Config{Entries: 64})
	if err != nil {
		t.Fatal(err)
	}
	e := New([2]uint64{1, 2})
	commit(t, e, &nft.Ruleset{}, "table ip t { chain f { type filter hook forward priority 0; ct state new ct count over 2 drop; }; }")
	ev := e.Evaluator()
	confirmed := map[conntrack.Tuple]conntrack.Conn{}
	env := &Env{Connection: func(_ uint16, t *conntrack.Tuple) conntrack.Conn { return confirmed[*t] }}
	now := int64(second)
	try := func(port uint16) bool {
		now += second
		var n conntrack.Pending
		f := pt.Frame(pt.UDP4(pt.Packet{SrcPort: port}))
		v := tab.Look(&conntrack.Packet{Frame: f, Now: uint32(now / second)}, &n)
		p := Packet{Frame: f, Env: env, Now: now, Pending: &n, Conn: v.Conn, State: v.State, Tracked: true}
		ev.Pin()
		defer ev.Unpin()
		ev.Begin(nil)
		if ev.Hook(&p, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32).Code != Accept {
			return false
		}
		if n.Active() {
			c, _ := tab.Confirm(&n, uint32(now/second))
			confirmed[n.Original] = c
		}
		return true
	}
	for i, want := range []bool{true, true, false, false} {
		if got := try(uint16(1000 + i)); got != want {
			t.Errorf("connection %d: %v, want %v", i, got, want)
		}
	}
	if !try(1001) {
		t.Error("a connection that counts already was refused")
	}
	for tu, c := range confirmed {
		if tu.SrcPort == 1000 {
			c.Delete(uint32(now / second))
		}
	}
	if !try(1009) {
		t.Error("one is over, but no other may come")
	}
}
