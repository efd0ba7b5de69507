// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"
	"testing"
	"time"

	"sluice/neigh"
	pt "sluice/packet/packettest"
)

// strangers sends n packets without a route from as many sources by a port, and
// returns how many errors they make.
func (l *lab) strangers(port uint16, n int, at time.Duration) (errors int) {
	for i := range n {
		b := from4("8.8.8.8", 64, 100, func(h *pt.IPv4Hdr) {
			h.Src = netip.AddrFrom4([4]byte{10, 5, byte(i >> 8), byte(i)})
		})
		l.inputAs(pt.Frame(b), Packet{Device: 1, Port: port, Nanos: int64(time.Hour + at)})
	}
	return len(l.sink.take())
}

// One port that asks for errors leaves some of the credit to the others.
func TestPortQuota(t *testing.T) {
	l := newLab(t, "route add 10.5.0.0/16 via 10.1.0.3", func(l *lab) {
		l.conf.ICMP.Off, l.conf.ICMP.Burst = false, 200
	})
	if n := l.strangers(100, 500, 0); n != portBurst {
		t.Errorf("%d errors for a port, want %d", n, portBurst)
	}
	if n := l.strangers(101, 500, 0); n != portBurst {
		t.Errorf("%d errors for another port, want %d", n, portBurst)
	}
	if n := l.strangers(100, 500, time.Second/10); n != defaultPortRate/10 {
		t.Errorf("%d errors for the first one a moment later, want %d", n, defaultPortRate/10)
	}
	l.r.RemovePort(100)
	if n := l.strangers(100, 500, time.Second/10); n != portBurst {
		t.Errorf("%d errors for a new port of its number, want %d", n, portBurst)
	}
}

// Who lies about its source can make no more accounts than there may be.
func TestAccountsAreBounded(t *testing.T) {
	l := newLab(t, "route add 10.5.0.0/16 via 10.1.0.3", func(l *lab) {
		l.r = New(Limits{Peers: 32, Neigh: neigh.Limits{}})
		l.sink.r = l.r
		l.conf.ICMP.Off = false
	})
	l.strangers(100, 3000, 0)
	if n := len(l.r.rates.peers); n != 32 {
		t.Errorf("%d accounts, want 32", n)
	}
}

// What discovers the MTU of a path is never limited.
func TestTooBigIsNotLimited(t *testing.T) {
	l := newLab(t, "", func(l *lab) { l.conf.ICMP.Off = false })
	for range 300 {
		l.input(from4("10.2.0.2", 64, 1500))
		l.input(from6("fd02::2", 64, 1500))
	}
	if n := len(l.sink.take()); n != 600 {
		t.Errorf("%d errors, want 600", n)
	}
}
