// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"
	"strings"
	"testing"

	"sluice/packet"
)

// message is something that neighbour n may say, and what becomes of an entry of n
// with MAC a in each state, as "state MAC"; "." means that nothing changes.
// locked: the entry changed a moment ago.
type message struct {
	name   string
	v6     bool
	frame  func(n int) []byte
	locked bool
	// answered: the kernel answers, and so uses the entry if there is one. Here the
	// host stack answers, straight to the MAC that asked.
	answered bool
	want     map[State]string
}

// start are the states from which each message is heard, in the order of the
// columns of outcomes.
var start = []State{None, Incomplete, Reachable, Stale, Delay, Probe, Failed, Permanent}

// outcomes reads one row of columns.
func outcomes(row string) map[State]string {
	m := map[State]string{}
	for i, w := range strings.Fields(row) {
		m[start[i]] = w
	}
	return m
}

const (
	solicited = packet.NAFlagSolicited
	override  = packet.NAFlagOverride
)

// messages are the rules of RFC 826, RFC 4861 and Linux, as a table.
//
// S stale, R reachable, a and b the MACs.
func messages() []message {
	all := packet.Broadcast()
	const req, rep = packet.ARPOpRequest, packet.ARPOpReply
	a4 := func(op uint16, mac func(int) packet.MAC, target, to any) func(int) []byte {
		return func(n int) []byte {
			ip, isIP := target.(netip.Addr)
			tha := packet.MAC{}
			if !isIP { // announces itself
				ip = ip4(n)
				if op == rep && target == "same" {
					tha = mac(n)
				}
			}
			return arp(op, n, mac(n), ip, tha, to.(packet.MAC))
		}
	}
	other := ip4(200)
	none := func(int) packet.MAC { return packet.MAC{} }
	na := func(flags uint8, mac func(int) packet.MAC) func(int) []byte {
		return func(n int) []byte { return advert(n, flags, mac(n)).build() }
	}
	ns := func(target netip.Addr, mac func(int) packet.MAC) func(int) []byte {
		return func(n int) []byte { return solicit(n, target, mac(n)).build() }
	}
	rs := func(mac func(int) packet.MAC) func(int) []byte {
		return func(n int) []byte {
			m := solicit(n, own6, mac(n))
			m.typ, m.target, m.dst, m.to = packet.NDRouterSolicit, netip.Addr{}, allRouters, packet.MAC{0x33, 0x33, 0, 0, 0, 2}
			return m.build()
		}
	}
	//                                             None Inc Reach Stale Delay Probe Failed Perm
	return []message{
		{name: "request for us", frame: a4(req, macA, own4, all), want: outcomes("Sa Sa . . . . Sa .")},
		{name: "request for us, other MAC", frame: a4(req, macB, own4, all), want: outcomes("Sb Sb Sb Sb Sb Sb Sb .")},
		{name: "request for us, other MAC, locked", frame: a4(req, macB, own4, all), locked: true, want: outcomes("Sb Sb Sb Sb Sb Sb Sb .")},
		{name: "unicast request for us", frame: a4(req, macB, own4, ownMAC), want: outcomes("Sb Sb Sb Sb Sb Sb Sb .")},
		{name: "request for another", frame: a4(req, macA, other, all), want: outcomes(". Sa . . . . Sa .")},
		{name: "request for another, other MAC", frame: a4(req, macB, other, all), want: outcomes(". Sb Sb Sb Sb Sb Sb .")},
		{name: "request for another, other MAC, locked", frame: a4(req, macB, other, all), locked: true, want: outcomes(". Sb . . . . Sb .")},
		{name: "reply", frame: a4(rep, macA, own4, ownMAC), want: outcomes(". Ra . Ra Ra Ra Ra .")},
		{name: "reply, other MAC", frame: a4(rep, macB, own4, ownMAC), want: outcomes(". Rb Rb Rb Rb Rb Rb .")},
		{name: "reply, locked", frame: a4(rep, macA, own4, ownMAC), locked: true, want: outcomes(". Ra . Ra Ra Ra Ra .")},
		{name: "reply, other MAC, locked", frame: a4(rep, macB, own4, ownMAC), locked: true, want: outcomes(". Rb . . . . Rb .")},
		{name: "reply to all", frame: a4(rep, macA, own4, all), want: outcomes(". Sa . . . . Sa .")},
		{name: "reply to all, other MAC", frame: a4(rep, macB, own4, all), want: outcomes(". Sb Sb Sb Sb Sb Sb .")},
		{name: "reply to somebody else", frame: a4(rep, macB, other, someone), want: outcomes(". . . . . . . .")},
		{name: "reply to us with another's target", frame: a4(rep, macB, other, ownMAC), want: outcomes(". Rb Rb Rb Rb Rb Rb .")},
		{name: "announced by request", frame: a4(req, macB, "self", all), locked: true, want: outcomes(". Sb Sb Sb Sb Sb Sb .")},
		{name: "announced by reply", frame: a4(rep, macB, "same", all), locked: true, want: outcomes(". Sb Sb Sb Sb Sb Sb .")},
		{name: "announced by reply, no target MAC", frame: a4(rep, macB, "self", all), locked: true, want: outcomes(". Sb . . . . Sb .")},
		{name: "announced by reply to us", frame: a4(rep, macB, "same", ownMAC), locked: true, want: outcomes(". Rb Rb Rb Rb Rb Rb .")},

		{name: "solicited, override", v6: true, frame: na(solicited|override, macA), want: outcomes(". Ra . Ra Ra Ra . .")},
		{name: "solicited, override, other MAC", v6: true, frame: na(solicited|override, macB), want: outcomes(". Rb Rb Rb Rb Rb . .")},
		{name: "solicited", v6: true, frame: na(solicited, macA), want: outcomes(". Ra . Ra Ra Ra . .")},
		{name: "solicited, other MAC", v6: true, frame: na(solicited, macB), want: outcomes(". Rb Sa . . . . .")},
		{name: "unsolicited, override", v6: true, frame: na(override, macA), want: outcomes(". Sa . . . . . .")},
		{name: "unsolicited, override, other MAC", v6: true, frame: na(override, macB), want: outcomes(". Sb Sb Sb Sb Sb . .")},
		{name: "unsolicited", v6: true, frame: na(0, macA), want: outcomes(". Sa . . . . . .")},
		{name: "unsolicited, other MAC", v6: true, frame: na(0, macB), want: outcomes(". Sb Sa . . . . .")},
		{name: "solicited, override, no MAC", v6: true, frame: na(solicited|override, none), want: outcomes(". . . Ra Ra Ra . .")},
		{name: "solicited, no MAC", v6: true, frame: na(solicited, none), want: outcomes(". . . Ra Ra Ra . .")},
		{name: "unsolicited, no MAC", v6: true, frame: na(override, none), want: outcomes(". . . . . . . .")},
		{name: "solicitation of us", v6: true, answered: true, frame: ns(own6, macA), want: outcomes("Sa Sa . . . . Sa .")},
		{name: "solicitation of us, other MAC", v6: true, answered: true, frame: ns(own6, macB), locked: true, want: outcomes("Sb Sb Sb Sb Sb Sb Sb .")},
		{name: "solicitation of us, no MAC", v6: true, answered: true, frame: ns(own6, none), want: outcomes(". . . . . . . .")},
		{name: "solicitation of another", v6: true, frame: ns(ip6(200), macB), want: outcomes(". . . . . . . .")},
		{name: "router solicitation", v6: true, frame: rs(macA), want: outcomes("Sa Sa . . . . Sa .")},
		{name: "router solicitation, other MAC", v6: true, frame: rs(macB), want: outcomes("Sb Sb Sb Sb Sb Sb Sb .")},
	}
}

// addr is that of neighbour n in the message's family.
func (m message) addr(n int) netip.Addr {
	if m.v6 {
		return ip6(n)
	}
	return ip4(n)
}

// after is what an entry of n is to be that was in a state.
func (m message) after(n int, s State) (State, packet.MAC) {
	mac := packet.MAC{}
	if s.Usable() {
		mac = macA(n)
	}
	want := m.want[s]
	if want == "." {
		return s, mac
	}
	mac = macA(n)
	if want[1] == 'b' {
		mac = macB(n)
	}
	if want[0] == 'R' {
		return Reachable, mac
	}
	return Stale, mac
}

// put makes an entry of n in a state, without the way there.
func put(x *Table, a netip.Addr, s State, mac packet.MAC, now Tick) {
	if s == None {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.create(keyOf(dev, a), debt{}, now)
	if !s.Usable() {
		mac = packet.MAC{}
	}
	e.become(s, mac, now)
	e.due = now + 100
}

func TestWhatAMessageSays(t *testing.T) {
	for _, m := range messages() {
		for n, s := range start {
			t.Run(m.name+"/"+s.String(), func(t *testing.T) {
				var x *Table
				if s == Permanent {
					x = newWorld(Limits{}, Static{dev, m.addr(n), macA(n), false})
				} else {
					x = newWorld(Limits{})
					put(x, m.addr(n), s, macA(n), 100)
				}
				now := Tick(102)
				if m.locked {
					now = 101
				}
				var out tape
				x.Input(dev, parsed(m.frame(n), 3), own, now, &out)
				state, mac := m.after(n, s)
				got := entryOf(x, m.addr(n), now)
				if got.State != state || got.MAC != mac || len(out.sent) != 0 {
					t.Errorf("%v %v, want %v %v; sent %v", got.State, got.MAC, state, mac, words(out.sent))
				}
				checkBooks(t, x)
			})
		}
	}
}

// The router flag, RFC 4861 §7.2.5: said by advertisements that are believed, by
// router advertisements and, in the other sense, by router solicitations.
func TestRouterFlag(t *testing.T) {
	x := newWorld(Limits{})
	put(x, ip6(1), Reachable, macA(1), 0)
	say := func(m nd6, want bool) {
		t.Helper()
		x.Input(dev, parsed(m.build(), 3), own, 10, &tape{})
		if got := entryOf(x, ip6(1), 10).Router; got != want {
			t.Errorf("router %v, want %v", got, want)
		}
	}
	say(advert(1, packet.NAFlagRouter|solicited|override, macA(1)), true)
	say(advert(1, 0, macB(1)), true) // not believed
	say(solicit(1, own6, macA(1)), true)
	say(advert(1, solicited, macA(1)), false)
	say(advert(1, packet.NAFlagRouter|solicited, packet.MAC{}), true)
	rs := nd6{typ: packet.NDRouterSolicit, src: ip6(1), dst: allRouters, to: allNodesMAC}
	say(rs, false)

	ra := nd6{typ: packet.NDRouterAdvert, src: link6(1), dst: allNodes, to: allNodesMAC, opt: packet.NDSourceLink, link: macA(1), head: 8}
	x.Input(dev, parsed(ra.build(), 3), own, 10, &tape{})
	if e := entryOf(x, link6(1), 10); e.State != Stale || !e.Router || e.MAC != macA(1) {
		t.Errorf("after a router advertisement: %+v", e)
	}
	ra.src = ip6(2) // not of the link
	x.Input(dev, parsed(ra.build(), 3), own, 10, &tape{})
	if e := entryOf(x, ip6(2), 10); e.State != None {
		t.Errorf("after a false router advertisement: %+v", e)
	}
}

// What is malformed, forged from afar or absurd says nothing.
func TestNothingIsSaid(t *testing.T) {
	wrong := uint16(0x1234)
	change := func(m nd6, f func(*nd6)) []byte { f(&m); return m.build() }
	yes := func() nd6 { return advert(1, solicited|override, macB(1)) }
	q := func() nd6 { return solicit(1, own6, macB(1)) }
	all := packet.Broadcast()
	for name, b := range map[string][]byte{
		"hop limit":             change(yes(), func(m *nd6) { m.hops = 254 }),
		"code":                  change(yes(), func(m *nd6) { m.code = 1 }),
		"checksum":              change(yes(), func(m *nd6) { m.sum = &wrong }),
		"solicited to a group":  change(yes(), func(m *nd6) { m.dst, m.to = allNodes, allNodesMAC }),
		"to somebody else":      change(yes(), func(m *nd6) { m.dst = ip6(77) }),
		"in search of another":  change(yes(), func(m *nd6) { m.to = someone }),
		"own target":            change(yes(), func(m *nd6) { m.target = own6 }),
		"IPv4-mapped target":    change(yes(), func(m *nd6) { m.target = netip.AddrFrom16(ip4(1).As16()) }),
		"group target":          change(yes(), func(m *nd6) { m.target = allNodes }),
		"group MAC":             change(yes(), func(m *nd6) { m.link = allNodesMAC }),
		"own MAC":               change(yes(), func(m *nd6) { m.link = ownMAC }),
		"zero MAC":              change(yes(), func(m *nd6) { m.link = packet.MAC{} }),
		"the other option":      change(yes(), func(m *nd6) { m.opt, m.flags = packet.NDSourceLink, override; m.dst, m.to = allNodes, allNodesMAC }),
		"question of nobody":    change(q(), func(m *nd6) { m.src = pt0() }),
		"question of a group":   change(q(), func(m *nd6) { m.src = allNodes }),
		"question of ours":      change(q(), func(m *nd6) { m.src = ownLink }),
		"question, group MAC":   change(q(), func(m *nd6) { m.link = all }),
		"question, target link": change(q(), func(m *nd6) { m.opt = packet.NDTargetLink }),
		"redirect": change(q(), func(m *nd6) {
			m.typ, m.head = packet.NDRedirect, 16
			m.opt = packet.NDTargetLink
			m.dst = own6
			m.to = ownMAC
		}),
		"ARP of a group MAC": arp(1, 1, all, own4, packet.MAC{}, all),
		"ARP of our MAC":     arp(1, 1, ownMAC, own4, packet.MAC{}, all),
		"ARP of zero MAC":    zeroSender(arp(1, 1, macB(1), own4, packet.MAC{}, all), 22, 6),
		"RARP":               arp(3, 1, macB(1), own4, packet.MAC{}, all),
		"ARP for a group":    arp(1, 1, macB(1), netip.MustParseAddr("224.0.0.1"), packet.MAC{}, all),
		"ARP for loopback":   arp(1, 1, macB(1), netip.MustParseAddr("127.0.0.1"), packet.MAC{}, all),
		"ARP probe":          zeroSender(arp(1, 1, macB(1), own4, packet.MAC{}, all), 28, 4),
	} {
		t.Run(name, func(t *testing.T) {
			x := newWorld(Limits{})
			put(x, ip4(1), Reachable, macA(1), 0)
			put(x, ip6(1), Reachable, macA(1), 0)
			x.Input(dev, parsed(b, 3), own, 10, &tape{})
			for _, e := range x.Entries(nil, 10) {
				// fd09::… and 10.9.0.0 has no other entry, and these are as they were.
				if e.State != Reachable || e.MAC != macA(1) {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

// zeroSender clears n bytes of an ARP message.
func zeroSender(b []byte, at, n int) []byte {
	clear(b[at : at+n])
	return b
}

func pt0() netip.Addr { return netip.IPv6Unspecified() }
