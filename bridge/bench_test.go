// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"fmt"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// BenchmarkInput is the decision on the slow path: both stations are learned,
// or one is static as an attached container's is.
func BenchmarkInput(b *testing.B) {
	for _, bb := range []struct {
		name   string
		static []StaticEntry
	}{
		{"learned", nil},
		{"static", []StaticEntry{{MAC: station(1), Port: 1}, {MAC: station(2), Port: 2}}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			br := testBridge(4, Options{})
			for n := range 100 {
				hear(b, br, uint16(1+(n+3)%4), station(n), 0)
			}
			br.SetStatic(bb.static)
			f := newFramer().frame(station(2), station(1), 0)
			br.Input(1, f, 0)
			br.Input(2, newFramer().frame(station(1), station(2), 0), 0)
			b.ReportAllocs()
			for b.Loop() {
				if br.Input(1, f, 1).Action != Forward {
					b.Fatal("not forwarded")
				}
			}
		})
	}
}

// BenchmarkStations is the same with tables of growing size: to one pair of
// stations, and to all of them in turn, which is what the processor's caches make
// of a large table.
func BenchmarkStations(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000, 64_000} {
		br := testBridge(4, Options{MaxEntries: 64_000, MaxPerPort: 64_000})
		for i := range n {
			hear(b, br, uint16(1+i%4), station(i), 0)
		}
		f := newFramer().frame(station(1), station(0), 0)
		step := 0
		for _, bb := range []struct {
			name string
			next func()
		}{
			{"pair", func() {}},
			{"all", func() {
				step = (step + 4*7919) % (n / 4 * 4) // stays on the port of station 1
				dst := station(step + 1)
				copy(f.Bytes(), dst[:])
			}},
		} {
			b.Run(fmt.Sprintf("%s/%d", bb.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					bb.next()
					if br.Input(1, f, 1).Action != Forward {
						b.Fatal("not forwarded")
					}
				}
			})
		}
	}
}

// BenchmarkForgedSources is what each frame of a container costs that has used
// up its quota and goes on with new sources.
func BenchmarkForgedSources(b *testing.B) {
	br := testBridge(4, Options{})
	fr := newFramer()
	f := fr.frame(station(1), station(2), 0)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		src := station(n)
		copy(f.Bytes()[6:], src[:])
		br.Input(1, f, 0)
	}
}

// BenchmarkRef is what a hit of the flow cache asks of the bridge.
func BenchmarkRef(b *testing.B) {
	br := testBridge(2, Options{})
	r := hear(b, br, 1, station(1), 0).Src
	b.ReportAllocs()
	for b.Loop() {
		if !r.Valid() {
			b.Fatal("not valid")
		}
		r.Touch(1)
	}
}

func BenchmarkExpire(b *testing.B) {
	br := testBridge(4, Options{MaxPerPort: 4096})
	for n := range 4096 {
		hear(b, br, 1, station(n), 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		br.Expire(1)
	}
}

// Whatever the bytes are, a verdict is one of those that Verdict describes.
func FuzzInput(f *testing.F) {
	f.Add(pt.TCP4(pt.Packet{}), uint16(1))
	f.Add(pt.ARPRequest(pt.Packet{Dst: pt.IP("10.44.0.1"), SrcMAC: ownMAC}), uint16(localPort))
	b := testBridge(3, Options{MaxEntries: 8, MaxPerPort: 4})
	fr := newFramer()
	f.Fuzz(func(t *testing.T, frame []byte, in uint16) {
		if len(frame) > packet.MaxFrame {
			return
		}
		in %= localPort + 1
		v := b.Input(in, fr.parse(frame), 0)
		if (v.Action == Drop) != (v.Reason != trace.None) {
			t.Errorf("%v with reason %v", v.Action, v.Reason)
		}
		if v.Action == Forward && (v.Port == in || !v.Dst.Valid() || v.Dst.Port() != v.Port) {
			t.Errorf("from %d forwarded to %d, ref of %d", in, v.Port, v.Dst.Port())
		}
		if v.Action != Forward && v.Port != 0 {
			t.Errorf("%v to port %d", v.Action, v.Port)
		}
		if v.Action == Flood && v.Dst != (Ref{}) || v.Local && in == localPort {
			t.Errorf("from %d: %+v", in, v)
		}
		if s := b.Stats(); s.Entries > 8 {
			t.Errorf("%d entries", s.Entries)
		}
	})
}
