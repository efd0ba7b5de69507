// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// TestErrorsPassOutput: rules of output and postrouting see what the router says, as
// related to what it is about, and may drop it.
func TestErrorsPassOutput(t *testing.T) {
	l := stillSites(t, ruledSites(`table ip t {
	chain out { type filter hook output priority 0; icmp type time-exceeded ct state related ct direction reply counter; tcp flags rst counter drop; }
	chain post { type filter hook postrouting priority 0; oifname "site1" icmp type time-exceeded counter; ip saddr 10.44.1.12 drop; }
	chain f { type filter hook forward priority 0; tcp dport 99 reject with tcp reset; }
}
`))
	l.freeze()
	p := alice.to(bob)
	p.TTL = 1
	const sent = 40
	heard := 0
	for i := range sent {
		p.SrcPort = uint16(1000 + i)
		l.send(alice.port(), pt.UDP4(p))
		l.round()
		if f := l.got(alice.port()); f != nil {
			heard++
			pt.Check(t, f, pt.IPv4(pt.Src(gate(1).addr4()), pt.Dst(alice.addr4())))
			if f.View.SrcPort>>8 != packet.ICMPTimeExceeded || f.DstMAC() != alice.mac() {
				t.Errorf("%v", f.View)
			}
		}
	}
	if heard != 6 { // icmp_ratelimit comes first: what isn't said costs no rule
		t.Errorf("%d errors about %d packets", heard, sent)
	}
	l.wantListed(fmt.Sprintf("\t\ticmp type time-exceeded ct state related ct direction reply counter packets %d bytes %d", heard, heard*76),
		fmt.Sprintf("\t\toifname \"site1\" icmp type time-exceeded counter packets %d bytes %d", heard, heard*76))
	l.pass(10)
	syn := alice.to(bob)
	syn.DstPort, syn.Flags, syn.Payload = 99, pt.SYN, nil
	l.send(alice.port(), pt.TCP4(syn))
	l.round()
	l.silent(alice.port())
	l.wantListed("\t\ttcp flags rst counter packets 1 bytes 40 drop")
	if n := l.drops(gate(1).port(), trace.NFTDrop); n != 1 {
		t.Errorf("%d dropped on account of the gateway", n)
	}
}

// TestMasqueradedIsToldOfItsNextHop: that a neighbour doesn't answer is found out when
// the packet has the namespace's own source already; who has sent it hears of it.
func TestMasqueradedIsToldOfItsNextHop(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			l := stillSites(t, translating(2))
			guest := party{2, 9}
			p, frame, ip := alice.to(guest), pt.UDP4, pt.IPv4(pt.Dst(alice.addr4()))
			if v6 {
				p, frame, ip = alice.to6(guest), pt.UDP6, pt.IPv6(pt.Dst(alice.addr6()))
			}
			l.send(alice.port(), frame(p))
			l.pass(6)
			f := l.got(alice.port())
			if f == nil {
				t.Fatal("nothing was said")
			}
			pt.Check(t, f, ip)
			q := pt.Frame(quoteIn(f))
			if q.View.SrcAddr(q.Bytes()) != p.Src || q.View.DstAddr(q.Bytes()) != p.Dst || q.View.SrcPort != p.SrcPort {
				t.Errorf("quotes %s", pt.Describe(q.Bytes()))
			}
			if n := l.drops(alice.port(), trace.NeighFailed); n != 1 {
				t.Errorf("%d counted as lost", n)
			}
		})
	}
}

// quoteIn is what an error quotes, as a frame.
func quoteIn(f *packet.Frame) []byte {
	return append(append([]byte{}, f.Bytes()[:packet.EthernetLen]...), f.Bytes()[f.View.L4+packet.ICMPLen:f.View.End]...)
}
