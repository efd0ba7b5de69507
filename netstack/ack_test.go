// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// TestOutdone: an acknowledgement is left out only if the one behind it says all that it
// says.
func TestOutdone(t *testing.T) {
	stamps := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	later := []byte{1, 1, 8, 10, 0, 0, 0, 3, 0, 0, 0, 4}
	sack := []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	both := append(append([]byte{}, stamps...), sack...)
	ack := func(n uint32, change func(*pt.TCPHdr)) *packet.Frame {
		h := pt.TCPHdr{SrcPort: 1, DstPort: 2, Seq: 5, Ack: n, Flags: pt.ACK, Window: uint16(n)}
		if change != nil {
			change(&h)
		}
		return pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, h))
	}
	options := func(o []byte) func(*pt.TCPHdr) { return func(h *pt.TCPHdr) { h.Options = o } }
	six := func(n uint32) *packet.Frame {
		return pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.TCPHdr{SrcPort: 1, DstPort: 2, Seq: 5, Ack: n, Flags: pt.ACK}))
	}
	from := func(a string) *packet.Frame {
		return pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: pt.IP(a)}, pt.TCPHdr{SrcPort: 1, DstPort: 2, Seq: 5, Ack: 20, Flags: pt.ACK}))
	}
	const wraps = 1<<32 - 5
	for name, tc := range map[string]struct {
		a, b *packet.Frame
		want bool
	}{
		"of more":               {ack(10, nil), ack(11, nil), true},
		"across zero":           {ack(wraps, nil), ack(10, nil), true},
		"with timestamps":       {ack(10, options(stamps)), ack(11, options(later)), true},
		"of IPv6":               {six(10), six(11), true},
		"of as much":            {ack(10, nil), ack(10, nil), false},
		"of less":               {ack(11, nil), ack(10, nil), false},
		"of less, across zero":  {ack(10, nil), ack(wraps, nil), false},
		"one has timestamps":    {ack(10, nil), ack(11, options(stamps)), false},
		"the first has blocks":  {ack(10, options(sack)), ack(11, options(stamps)), false},
		"the second has blocks": {ack(10, options(stamps)), ack(11, options(sack)), false},
		"both have blocks":      {ack(10, options(both)), ack(11, options(both)), false},
		"of another port":       {ack(10, nil), ack(11, func(h *pt.TCPHdr) { h.SrcPort = 9 }), false},
		"of another server":     {ack(10, nil), ack(11, func(h *pt.TCPHdr) { h.DstPort = 9 }), false},
		"of another address":    {from("10.44.0.77"), ack(21, nil), false},
		"of the other family":   {ack(10, nil), six(11), false},
		"a keepalive":           {ack(10, func(h *pt.TCPHdr) { h.Seq-- }), ack(11, nil), false},
		"the end":               {ack(10, nil), ack(11, func(h *pt.TCPHdr) { h.Flags |= pt.FIN }), false},
		"a reset":               {ack(10, nil), ack(11, func(h *pt.TCPHdr) { h.Flags |= pt.RST }), false},
		"of congestion":         {ack(10, func(h *pt.TCPHdr) { h.Flags |= pt.ECE }), ack(11, nil), false},
		"with data":             {pt.Frame(segment(1, 2, 10)), pt.Frame(segment(1, 2, 10)), false},
		"a datagram":            {pt.Frame(pt.UDP4(pt.Packet{})), pt.Frame(pt.UDP4(pt.Packet{})), false},
	} {
		if got := outdone(tc.a, tc.b); got != tc.want {
			t.Errorf("an acknowledgement %s: %v", name, got)
		}
	}
	a, b := six(1), six(2)
	if n := testing.AllocsPerRun(100, func() { outdone(a, b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
