// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"net/netip"
	"sync"
	"testing"

	"sluice/bridge/guard"
	"sluice/bridge/snoop"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// everything is a bridge of four ports with every feature on some of them.
func everything() *Bridge {
	all := members(4)
	for i := range all {
		all[i].VLAN = VLAN{PVID: 10, Tagged: []VIDRange{{20, 30}}, QinQ: i == 4}
		all[i].Storm = Storm{Unknown: Rate{PPS: 1000}}
	}
	all[1].Flags = Suppress | FilterBPDU | FastLeave
	all[2].Flags = Hairpin | Isolated | NoMulticastFlood
	all[3].Flags = NoLearning | Isolated
	all[4].Flags = Locked
	all[1].MirrorIn, all[2].MirrorOut = 4, 4
	all[2].Guard = guard.Config{Checks: guard.All &^ guard.MAC, Addrs: []netip.Prefix{netip.MustParsePrefix("10.44.0.0/24")}}
	b := New(Options{MaxEntries: 16})
	b.SetSnooping(&snoop.Config{Querier: true, MaxGroups: 8})
	b.SetPorts(all)
	b.SetStatic([]StaticEntry{{MAC: ownMAC, VLAN: 10, Port: localPort, Own: true}, {MAC: station(4), VLAN: 10, Port: 4}})
	b.SetNeighbours([]Neighbour{{Addr: pt.IP("10.44.0.11"), VLAN: 10, MAC: ownMAC}, {Addr: pt.IP("fd44::b"), VLAN: 10, MAC: station(4)}})
	return b
}

// Whatever the bytes are and whatever is set, a verdict is one of those that
// Verdict describes, and what it says can be done.
func FuzzSettings(f *testing.F) {
	f.Add(pt.TCP4(pt.Packet{}), uint16(1))
	f.Add(pt.ARPRequest(pt.Packet{}), uint16(1))
	f.Add(solicit("fd44::a", "fd44::b", 255).Bytes(), uint16(1))
	f.Add(joins(1).Bytes(), uint16(2))
	f.Add(tagged(broadcast, 0x88a8, 20, 0x8100, 5).Bytes(), uint16(4))
	b := everything()
	now := Tick(0)
	fr := newFramer()
	f.Fuzz(func(t *testing.T, frame []byte, in uint16) {
		if len(frame) > packet.MaxFrame {
			return
		}
		now++
		b.Poll(now, func(uint16, []byte) {})
		in = in%5 + 1
		if in == 5 {
			in = localPort
		}
		v := b.Input(in, fr.parse(frame), now)
		if (v.Action == Drop || v.Action == Answer) != (v.Reason != trace.None) {
			t.Errorf("%v with reason %v", v.Action, v.Reason)
		}
		if answer := v.AppendAnswer(nil, &fr.f); (v.Action == Answer) != (len(answer) > 0) {
			t.Errorf("%v with an answer of %d bytes", v.Action, len(answer))
		}
		checkOutputs(t, &v, frame)
	})
}

// checkOutputs does what a verdict says.
func checkOutputs(t *testing.T, v *Verdict, frame []byte) {
	t.Helper()
	seen := map[uint16]bool{}
	check := func(o Output) {
		if seen[o.Port] || !o.Tag.Apply(pt.Frame(frame)) {
			t.Errorf("to %d twice, or %+v can't be applied", o.Port, o.Tag)
		}
		seen[o.Port] = true
	}
	switch v.Action {
	case Forward:
		check(Output{v.Port, v.Mirror, v.Tag})
	case Flood:
		var c Cursor
		for o, ok := v.Next(&c); ok; o, ok = v.Next(&c) {
			check(o)
		}
		if len(seen) == 0 || seen[localPort] != v.Local {
			t.Errorf("flooded to %v, local %v", seen, v.Local)
		}
	default:
	}
}

// Frames are decided while all settings change, and what was remembered before a
// change is not valid after it.
func TestSettingsChangeUnderway(t *testing.T) {
	b := everything()
	frames := [][]byte{joins(1).Bytes(), streams(2).Bytes(), tagged(broadcast).Bytes(), tagged(station(4)).Bytes(), tagged(station(9), 0x8100, 20).Bytes()}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for worker := range 3 {
		wg.Go(func() {
			fr := newFramer()
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				frame := frames[i%len(frames)]
				v := b.InputAt(uint16(1+(i+worker)%4), fr.parse(frame), Tick(i/100), int64(i)*1e6)
				checkOutputs(t, &v, frame)
			}
		})
	}
	all := members(4)
	for i := range 150 {
		all[3].Flags = NoLearning << (i % 2)
		all[1].VLAN.PVID = uint16(i % 3)
		b.SetPorts(all[:3+i%3])
		v := b.Input(3, newFramer().frame(ownMAC, station(3), 0), 0)
		b.SetStatic([]StaticEntry{{MAC: ownMAC, VLAN: uint16(i % 3), Port: localPort, Own: true}})
		if i%2 == 0 && v.Src.Valid() {
			t.Error("a Ref of another epoch is valid")
		}
		if i%10 == 0 {
			b.SetSnooping(&snoop.Config{Querier: true})
		}
		b.Poll(Tick(i), func(uint16, []byte) {})
	}
	close(done)
	wg.Wait()
}

// BenchmarkSettings is what the features cost a frame that passes them.
func BenchmarkSettings(b *testing.B) {
	with := func(change func(*PortConfig)) *Bridge {
		all := members(4)
		for i := range all {
			change(&all[i])
		}
		br := New(Options{})
		br.SetPorts(all)
		vlan := all[1].VLAN.PVID
		br.SetStatic([]StaticEntry{{MAC: station(1), VLAN: vlan, Port: 1}, {MAC: station(2), VLAN: vlan, Port: 2}})
		return br
	}
	for name, change := range map[string]func(*PortConfig){
		"none":  func(*PortConfig) {},
		"VLAN":  func(c *PortConfig) { c.VLAN.PVID = 10 },
		"trunk": func(c *PortConfig) { c.VLAN = VLAN{PVID: 10, Tagged: []VIDRange{{1, MaxVID}}} },
		"guard": func(c *PortConfig) {
			c.Guard = guard.Config{Checks: guard.All, MACs: []packet.MAC{station(1)}, Addrs: []netip.Prefix{netip.MustParsePrefix("10.44.0.10/32")}}
		},
		"storm": func(c *PortConfig) { c.Storm.Broadcast.PPS = 1000 },
	} {
		b.Run(name, func(b *testing.B) {
			br := with(change)
			f := pt.Frame(pt.TCP4(pt.Packet{SrcMAC: station(1), DstMAC: station(2)}))
			b.ReportAllocs()
			for b.Loop() {
				if v := br.Input(1, f, 1); v.Action != Forward {
					b.Fatal(v.Reason)
				}
			}
		})
	}
}

// BenchmarkFlood is a flood to a hundred ports, and the walk over them.
func BenchmarkFlood(b *testing.B) {
	for name, fl := range map[string]PortFlags{"plain": 0, "isolated": Isolated} {
		b.Run(name, func(b *testing.B) {
			all := members(100)
			all[1].Flags = fl
			br := New(Options{})
			br.SetPorts(all[1:]) // 100 is a port like others here
			f := newFramer().frame(broadcast, station(1), 0)
			b.ReportAllocs()
			for b.Loop() {
				v := br.Input(1, f, 1)
				n := 0
				var c Cursor
				for _, ok := v.Next(&c); ok; _, ok = v.Next(&c) {
					n++
				}
				if n != 99 {
					b.Fatal(n)
				}
			}
		})
	}
}
