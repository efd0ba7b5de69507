// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/test/lab"
)

// snooped is a network that listens to IGMP and MLD, and asks quickly.
const snooped = lab.Blue + `    snooping: {querier: true, queryInterval: 2s, responseInterval: 1s, lastMember: 200ms, igmpVersion: 3, mldVersion: 2}
    ports: {mcastFlood: true}
`

// TestBridgeGroups has kernels join and leave groups (bridge_igmp, bridge_mld): what
// is for a group goes to its members and to nobody else.
//
//	red: member      .
//	green: member    +-- blue -- brown: sends
//	pink: no member  '
func TestBridgeGroups(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(snooped)
	var all []*lab.NS
	for _, name := range []string{"red", "green", "pink", "brown"} {
		all = append(all, l.NS(name).Attach("--network", "blue"))
	}
	red, green, pink, brown := all[0], all[1], all[2], all[3]
	// As in Linux all is flooded until everybody has had the time to answer.
	time.Sleep(2500 * time.Millisecond)
	for f, group := range map[lab.Family]string{lab.V4: "239.1.2.3", lab.V6: "ff15::1:2:3"} {
		t.Run(f.String(), func(t *testing.T) {
			x := groupTest{t: t, d: d, group: netip.MustParseAddr(group), from: brown}
			x.join(red)
			x.join(green)
			x.listed(red, true)
			x.listed(green, true)
			x.reaches("members only", hearing{red, green}, hearing{pink})
			x.leave(green)
			x.listed(green, false)
			x.reaches("one that is left", hearing{red}, hearing{pink, green})
			// A static member stays without ever having asked.
			d.CLI("mdb", "add", "dev", "blue", "port", pink.Name(), "grp", group, "permanent").Expect(0)
			x.reaches("a static member", hearing{red, pink}, hearing{green})
			d.CLI("mdb", "del", "dev", "blue", "port", pink.Name(), "grp", group).Expect(0)
			x.leave(red)
			x.listed(red, false)
		})
	}
}

// groupTest is the test of one group.
type groupTest struct {
	t     *testing.T
	d     *lab.Daemon
	group netip.Addr
	from  *lab.NS
}

func (x *groupTest) addr() string {
	if x.group.Is4() {
		return x.group.String() + "/32"
	}
	return x.group.String() + "/128"
}

func (x *groupTest) join(n *lab.NS)  { n.Run("ip", "addr", "add", x.addr(), "dev", "eth0", "autojoin") }
func (x *groupTest) leave(n *lab.NS) { n.Run("ip", "addr", "del", x.addr(), "dev", "eth0") }

// listed waits until `sluice mdb` has, or no longer has, a member.
func (x *groupTest) listed(n *lab.NS, want bool) {
	x.t.Helper()
	x.d.Lab().Eventually("membership of "+n.Name(), patience, func() bool {
		for line := range strings.Lines(x.d.CLI("mdb").Out) {
			if strings.Contains(line, "port "+n.Name()+" ") && strings.Contains(line, "grp "+x.group.String()) {
				return want
			}
		}
		return !want
	})
}

// hearing are those who do, or do not.
type hearing []*lab.NS

// reaches sends to the group, and looks who hears of it.
func (x *groupTest) reaches(text string, those, others hearing) {
	x.t.Helper()
	var recs []*lab.Recording
	for _, n := range append(append(hearing{}, those...), others...) {
		recs = append(recs, n.Record())
	}
	x.from.Send(x.datagram(text))
	for i, r := range recs {
		want := 0
		if i < len(those) {
			want = 1
		}
		r.Expect(text, want, saying(text))
		r.Stop()
	}
}

// datagram is one to the group (RFC 2464 §7, and its like for IPv4).
func (x *groupTest) datagram(text string) []byte {
	p := pt.Packet{SrcMAC: pt.HW(x.from.MAC()), Dst: x.group, DstPort: 5555, Payload: []byte(text)}
	if x.group.Is4() {
		g := x.group.As4()
		p.Src, p.DstMAC = x.from.IP(lab.V4), packet.MAC{1, 0, 0x5e, g[1] & 0x7f, g[2], g[3]}
		return pt.UDP4(p)
	}
	g := x.group.As16()
	p.Src, p.DstMAC = x.from.IP(lab.V6), packet.MAC{0x33, 0x33, g[12], g[13], g[14], g[15]}
	return pt.UDP6(p)
}
