// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"math/rand/v2"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// FuzzLook shows a table any frames of one connection and its surroundings. It
// must neither panic nor break, and what it says must hold together.
func FuzzLook(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 4))
	for range 40 {
		f.Add(pt.Random(r), pt.Mutate(r, pt.Random(r)))
	}
	f.Add(there(pt.SYN, 1, 0, ""), back(pt.SYN|pt.ACK, 5, 2, ""))
	for _, proto := range []uint8{packet.ProtoSCTP, packet.ProtoTCP, packet.ProtoICMPv6, packet.ProtoICMP} {
		k := newTalk(r, proto, 1000, proto == packet.ProtoICMPv6)
		for step := range 8 {
			_, a := k.frame(step)
			_, b := k.frame(step + 1)
			f.Add(a, b)
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		cfg := Kernel()
		cfg.NoChecksum = true
		tab := table(t, Config{Entries: 16, Zone: &cfg})
		for now, frame := range [][]byte{a, b, a, b} {
			if len(frame) > packet.MaxFrame {
				return
			}
			fr := pt.Frame(frame)
			var v packet.View
			if v.Parse(frame) != packet.FaultNone {
				return
			}
			lookAtAny(t, tab, fr, uint32(now))
		}
		sound(t, tab)
	})
}

func lookAtAny(t *testing.T, tab *Table, f *packet.Frame, now uint32) {
	t.Helper()
	var n Pending
	v := tab.Look(&Packet{Frame: f, Now: now, SrcPort: 8 << 8, DstPort: 7}, &n)
	if n.Active() != (v.State == New && v.Conn == Conn{}) {
		t.Fatalf("%+v, active %v", v, n.Active())
	}
	if n.Active() {
		if inv, ok := n.Original.Inverse(); !ok || inv != n.Reply || n.Out() != n.Original {
			t.Fatalf("%v and %v", n.Original, n.Reply)
		}
		c, out := tab.Confirm(&n, now)
		if out == Inserted && c.Tuple(Original) != n.Original {
			t.Fatalf("%v entered as %v", n.Original, c.Tuple(Original))
		}
	}
	if q, ok := Quoted(f); ok && (q.L3 < f.View.L4 || q.L4 <= q.L3 || q.L4 > q.End || q.End > f.Len()) {
		t.Fatalf("quote %+v of a frame of %d bytes", q, f.Len())
	}
}

// FuzzHeader reads any bytes as the header of a file.
func FuzzHeader(f *testing.F) {
	f.Add([]byte(magic))
	f.Add(make([]byte, headerSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, ok := decodeHeader(b); ok && (h.entries < 1 || h.entries > MaxEntries) {
			t.Fatalf("%d entries", h.entries)
		}
	})
}
