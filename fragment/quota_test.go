// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"math/rand/v2"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// tight are limits that a few fragments reach.
func tight() Limits {
	return Limits{
		Datagrams: 16, DatagramsPerPort: 8, Held: 20, HeldPerPort: 10, Bytes: 8000, BytesPerPort: 4000, Fragments: 8,
	}
}

// first and later are pieces of datagram id.
func first(id uint16) piece { return piece{false, id, 0, datagramData(id, 0), true} }

func later(id uint16, n int) piece {
	return piece{false, id, 80, make([]byte, n), false}
}

func TestAPortLosesItsOwnOldest(t *testing.T) {
	tab := New(tight())
	for id := range uint16(20) {
		expect(t, tab, 1, first(id), 0, Known, trace.None)
	}
	if c := tab.Counts(); c.Datagrams != 8 || c.Evicted != 12 {
		t.Errorf("%+v", c)
	}
	expect(t, tab, 1, later(19, 8), 0, Known, trace.None)
	expect(t, tab, 1, later(0, 8), 0, Hold, trace.None) // it is forgotten: it would have to begin again
}

// TestALateComerFindsRoom: however many ports fill the table, they shrink for
// the next one, until all have a little.
func TestALateComerFindsRoom(t *testing.T) {
	tab, id := New(tight()), uint16(0)
	for in := range uint16(12) {
		for range 60 { // all that came before keep on
			for other := range in {
				id++
				expect(t, tab, other, first(id), 0, Known, trace.None)
			}
		}
		expect(t, tab, in, first(0), 0, Known, trace.None)
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for in := range uint16(12) {
		if n := tab.ports[in].datagrams; n < 1 || n > 3 {
			t.Errorf("port %d has %d datagrams of 16 for 12 ports", in, n)
		}
	}
}

func TestAFullTableRefusesANewPort(t *testing.T) {
	tab := New(Limits{Datagrams: 4})
	for in := range uint16(4) {
		expect(t, tab, in, first(1), 0, Known, trace.None)
	}
	expect(t, tab, 9, first(1), 0, Refused, trace.FragLimit)
	expect(t, tab, 2, first(2), 0, Known, trace.None) // in the place of its own
}

func TestHeldFragmentsAreBounded(t *testing.T) {
	tab, lost := New(tight()), 0
	for id := range uint16(40) {
		v := expect(t, tab, 1, later(id, 8), 0, Hold, trace.None)
		lost += v.Lost
		if v.Lost > 0 && v.LostFor != trace.FragLimit {
			t.Errorf("lost for %v", v.LostFor)
		}
	}
	if c := tab.Counts(); c.Held+lost != 40 || c.Held != 8 { // DatagramsPerPort
		t.Errorf("%+v, lost %d", c, lost)
	}
	// Large ones: the bytes are the bound, and the oldest go for the new.
	tab = New(tight())
	for id := range uint16(6) {
		expect(t, tab, 1, later(id, 1000), 0, Hold, trace.None)
	}
	if c := tab.Counts(); c.Held != 3 || c.Bytes > 4000 {
		t.Errorf("%+v", c)
	}
	// One that is larger than all the room ends its datagram.
	expect(t, tab, 1, later(9, 4000), 0, Refused, trace.FragLimit)
	expect(t, tab, 1, first(9), 0, Refused, trace.FragLimit)
}

// TestOneDatagramCannotHoldAll: it makes no room for itself at its own cost.
func TestOneDatagramCannotHoldAll(t *testing.T) {
	tab := New(Limits{HeldPerPort: 4})
	for i := range 4 {
		expect(t, tab, 1, piece{false, 1, 8 + 16*i, make([]byte, 8), true}, 0, Hold, trace.None)
	}
	v := expect(t, tab, 1, piece{false, 1, 200, make([]byte, 8), true}, 0, Refused, trace.FragLimit)
	if v.Lost != 4 || v.LostFor != trace.FragLimit {
		t.Errorf("%+v", v)
	}
}

func TestFragmentsOfOneDatagramAreBounded(t *testing.T) {
	tab := New(tight())
	expect(t, tab, 1, first(1), 0, Known, trace.None)
	for i := range 7 {
		expect(t, tab, 1, piece{false, 1, 8 + 16*i, make([]byte, 8), true}, 0, Known, trace.None)
	}
	expect(t, tab, 1, piece{false, 1, 200, make([]byte, 8), true}, 0, Refused, trace.FragLimit)
	expect(t, tab, 1, piece{false, 1, 300, make([]byte, 8), true}, 0, Refused, trace.FragLimit)
}

// TestBoundsHoldUnderFire: all ports send what they like; each frame that was
// held is released, or lost with a count, once.
func TestBoundsHoldUnderFire(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 20 {
		tab, balance := New(tight()), 0
		lost := func(_ uint16, frames int) { balance -= frames }
		for i := range 2000 {
			p := randomPiece(r)
			p.id = uint16(r.IntN(30))
			in, now := uint16(r.IntN(5)), uint32(i/20)
			_, v := tab.Track(in, 1, p.frame(), now)
			if v.Outcome == Hold {
				balance++
			}
			balance -= v.Lost + len(v.Held)
			switch r.IntN(50) {
			case 0:
				tab.Expire(now, lost)
			case 1:
				balance -= tab.RemovePort(in)
			}
			audit(t, tab)
			if c := tab.Counts(); c.Held != balance {
				t.Fatalf("%d are held, %d were to be", c.Held, balance)
			}
		}
	}
}

// FuzzTrack feeds frames that are made of the input, fragment after fragment:
// nothing panics, the counts stay right and the bounds hold.
func FuzzTrack(f *testing.F) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 20 {
		var script []byte
		for range 10 {
			script = append(script, byte(r.Uint32()), byte(r.IntN(20)), byte(r.IntN(60)), byte(r.Uint32()))
		}
		f.Add(script, pt.Random(r))
	}
	f.Fuzz(func(t *testing.T, script, raw []byte) {
		tab := New(tight())
		if len(raw) <= packet.MaxFrame && (&packet.View{}).Parse(raw) == packet.FaultNone {
			tab.Track(1, 1, pt.Frame(raw), 0)
			audit(t, tab)
		}
		now := uint32(0)
		for len(script) >= 4 && now < 4000 {
			what, at, n := script[0], 8*int(script[1]), int(script[2])
			now += uint32(script[3] >> 5)
			p := piece{what&1 != 0, uint16(what>>1) & 7, at, datagramData(7, at+n)[at : at+n], script[3]&1 != 0}
			fr := p.frame()
			if fr.View.Parse(fr.Bytes()) == packet.FaultNone {
				tab.Track(uint16(what>>4), 1, fr, now)
				audit(t, tab)
			}
			script = script[4:]
		}
		tab.Expire(now+60, nil)
		if tab.Counts().Datagrams != 0 {
			t.Fatal("something stays for ever")
		}
	})
}

func BenchmarkTrack(b *testing.B) {
	tab := New(Limits{})
	data := datagramData(7, 3000)
	var frames []*packet.Frame
	for _, p := range cut(false, 1, data, 1480) {
		frames = append(frames, p.frame())
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, f := range frames {
			tab.Track(1, 1, f, 0)
		}
	}
}
