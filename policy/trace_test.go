// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"math"
	"strings"
	"testing"

	pt "sluice/packet/packettest"
	"sluice/policy/nft"
)

// TestTrace: as `nft monitor trace` of the kernel printed the same rules about the
// same packet.
func TestTrace(t *testing.T) {
	e := New([2]uint64{1, 2})
	commit(t, e, &nft.Ruleset{}, `
		table ip t {
			map m { type inet_service : verdict; elements = { 80 : drop, 81 : goto sub }; }
			chain sub { counter; }
			chain p { type filter hook prerouting priority 0; meta nftrace set 1; }
			chain f { type filter hook forward priority 0; policy drop; ip daddr 10.8.0.2 counter limit rate 5/second tcp dport vmap @m; reject with tcp reset; }
		}`)
	ev := e.Evaluator()
	var lines []string
	ev.SetTracer(func(x *TraceEvent) { lines = append(lines, TraceText(x, &nft.ListOptions{})) })
	in, out := NewDevice("a0", Device{Index: 1}), NewDevice("b0", Device{Index: 2})
	f := pt.Frame(pt.TCP4(pt.Packet{Src: pt.IP("10.9.0.2"), Dst: pt.IP("10.8.0.2"), SrcPort: 44468, DstPort: 81, Flags: pt.SYN, ID: 2721}))
	f.Bytes()[f.View.L3+1] = 3 // congestion experienced
	p := Packet{Frame: f, In: in, Now: 1}
	var r Record
	ev.Pin()
	ev.Begin(&r)
	ev.NextTrace()
	ev.Hook(&p, nft.FamilyIP, nft.HookPrerouting, math.MinInt32, math.MaxInt32)
	f.DecrementTTL()
	p.Out = out
	if v := ev.Hook(&p, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32); v.Code != Drop || v.Why.Chain.Name != "f" || v.Why.Rule != nil {
		t.Errorf("%+v", v)
	}
	ev.Unpin()
	macs := "ether saddr " + f.SrcMAC().String() + " ether daddr " + f.DstMAC().String()
	want := []string{
		`trace id 00000001 ip t p packet: iif "a0" ` + macs + ` ip saddr 10.9.0.2 ip daddr 10.8.0.2 ip dscp cs0 ip ecn ce ip ttl 64 ip id 2721 ip length 40 tcp sport 44468 tcp dport 81 tcp flags == syn tcp window 65535 `,
		`trace id 00000001 ip t p rule meta nftrace set 1 (verdict continue)`,
		`trace id 00000001 ip t p policy accept `,
		`trace id 00000001 ip t f packet: iif "a0" oif "b0" ` + macs + ` ip saddr 10.9.0.2 ip daddr 10.8.0.2 ip dscp cs0 ip ecn ce ip ttl 63 ip id 2721 ip length 40 tcp sport 44468 tcp dport 81 tcp flags == syn tcp window 65535 `,
		`trace id 00000001 ip t f rule ip daddr 10.8.0.2 counter packets 0 bytes 0 limit rate 5/second tcp dport vmap @m (verdict goto sub)`,
		`trace id 00000001 ip t sub rule counter packets 0 bytes 0 (verdict continue)`,
		`trace id 00000001 ip t f policy drop `,
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	if r.Cacheable() {
		t.Error("a traced packet's verdict may be remembered")
	}
}
