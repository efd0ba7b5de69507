// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	"sluice/trace"
)

// outcome is a Verdict without its Refs.
type outcome struct {
	Action  Action
	Port    uint16
	Reason  trace.Reason
	Local   bool
	Learned bool
}

func (v Verdict) outcome() outcome {
	return outcome{v.Action, v.Port, v.Reason, v.Local, v.Learned}
}

// The bridge has ports 1 to 3; station 1 is known on port 1, station 2 on port
// 2, station 9 is static on port 3.
func TestInput(t *testing.T) {
	tests := []struct {
		name     string
		in       uint16
		dst, src packet.MAC
		vlan     uint16
		want     outcome
	}{
		{"known unicast", 1, station(2), station(1), 0, outcome{Action: Forward, Port: 2}},
		{"new source", 3, station(2), station(3), 0, outcome{Action: Forward, Port: 2, Learned: true}},
		{"moved source", 3, station(2), station(1), 0, outcome{Action: Forward, Port: 2, Learned: true}},
		{"unknown unicast", 1, station(7), station(1), 0, outcome{Action: Flood}},
		{"broadcast", 1, broadcast, station(1), 0, outcome{Action: Flood, Local: true}},
		{"multicast", 1, group, station(1), 0, outcome{Action: Flood, Local: true}},
		{"own MAC", 1, ownMAC, station(1), 0, outcome{Action: Forward, Port: localPort}},
		{"static station", 1, station(9), station(1), 0, outcome{Action: Forward, Port: 3}},
		{"same port", 2, station(2), station(2), 0, outcome{Reason: trace.SamePort}},
		{"from the host stack", localPort, station(2), ownMAC, 0, outcome{Action: Forward, Port: 2}},
		{"broadcast of the host stack", localPort, broadcast, ownMAC, 0, outcome{Action: Flood}},
		{"static source on its port", 3, station(1), station(9), 0, outcome{Action: Forward, Port: 1}},
		{"static source elsewhere", 1, station(2), station(9), 0, outcome{Action: Forward, Port: 2}},
		{"own MAC as source", 1, station(2), ownMAC, 0, outcome{Reason: trace.SourceOwnMAC}},
		{"own MAC as source in a VLAN", 1, station(2), ownMAC, 5, outcome{Reason: trace.SourceOwnMAC}},
		{"static source in a VLAN elsewhere", 1, station(2), station(9), 5, outcome{Action: Flood}},
		{"static source in a VLAN on its port", 3, station(2), station(9), 5, outcome{Action: Flood, Learned: true}},
		{"multicast source", 1, station(2), group, 0, outcome{Reason: trace.SourceMulticast}},
		{"zero source", 1, station(2), packet.MAC{}, 0, outcome{Reason: trace.SourceMulticast}},
		{"reserved group", 1, reserved, station(1), 0, outcome{Reason: trace.ReservedMulticast}},
		{"bridge group address", 1, packet.MAC{1, 0x80, 0xc2}, station(1), 0, outcome{Reason: trace.ReservedMulticast}},
		{"group after the reserved", 1, packet.MAC{1, 0x80, 0xc2, 0, 0, 0x10}, station(1), 0, outcome{Action: Flood, Local: true}},
		{"known, but in another VLAN", 1, station(2), station(1), 5, outcome{Action: Flood, Learned: true}},
		{"from no member", 50, station(2), station(1), 0, outcome{Reason: trace.PortRemoved}},
		{"to the zero address", 1, packet.MAC{}, station(1), 0, outcome{Action: Flood}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := testBridge(3, Options{})
			b.SetStatic([]StaticEntry{{MAC: ownMAC, Port: localPort, Own: true}, {MAC: station(9), Port: 3}})
			hear(t, b, 1, station(1), 0)
			hear(t, b, 2, station(2), 0)
			got := b.Input(tt.in, newFramer().frame(tt.dst, tt.src, tt.vlan), 1)
			if diff := cmp.Diff(tt.want, got.outcome()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestShortFrame(t *testing.T) {
	b := testBridge(2, Options{})
	got := b.Input(1, newFramer().parse(make([]byte, 13)), 0)
	if got.Reason != trace.MalformedEthernet {
		t.Errorf("got %+v", got)
	}
}

func TestNobodyToFloodTo(t *testing.T) {
	fr := newFramer()
	b := New(Options{})
	b.SetPorts([]PortConfig{{Index: 1}})
	if got := b.Input(1, fr.frame(broadcast, station(1), 0), 0); got.Reason != trace.NoPort || got.Action != Drop {
		t.Errorf("one port: %+v, want a drop with no_port", got)
	}
	b = testBridge(1, Options{})
	if got := b.Input(1, fr.frame(broadcast, station(1), 0), 0); got.Action != Flood || !got.Local {
		t.Errorf("broadcast to the local port: %+v, want flooded", got)
	}
	if got := b.Input(1, fr.frame(station(7), station(1), 0), 0); got.Reason != trace.NoPort {
		t.Errorf("unknown unicast: %+v, want no_port", got)
	}
	if got := b.Input(localPort, fr.frame(station(7), ownMAC, 0), 0); got.Action != Flood {
		t.Errorf("from the local port: %+v, want flooded", got)
	}
}

func TestAgeing(t *testing.T) {
	b := testBridge(2, Options{Ageing: 9500 * time.Millisecond})
	v := hear(t, b, 1, station(1), 100)
	v.Src.Touch(104)
	if n := b.Expire(113); n != 0 || !v.Src.Valid() {
		t.Fatalf("expired %d after 9 s, want 0", n)
	}
	if n := b.Expire(114); n != 1 || v.Src.Valid() {
		t.Fatalf("expired %d after 10 s, want 1", n)
	}
	if _, _, ok := b.Lookup(station(1), 0); ok {
		t.Error("still there")
	}
	if again := hear(t, b, 1, station(1), 115); !again.Learned || v.Src.Valid() {
		t.Errorf("relearned %v, old ref valid %v; want true, false", again.Learned, v.Src.Valid())
	}
	if _, _, ok := b.Lookup(ownMAC, 0); !ok {
		t.Error("the own entry aged")
	}
}

func TestQuotaIsPerPort(t *testing.T) {
	b := testBridge(3, Options{MaxEntries: 64, MaxPerPort: 4})
	for n := range 10 {
		hear(t, b, 1, station(n), 0)
	}
	if v := hear(t, b, 2, station(20), 0); !v.Learned {
		t.Error("another port cannot learn")
	}
	if v := hear(t, b, 1, station(50), 0); v.Learned || v.Action != Flood || v.Src != (Ref{}) {
		t.Errorf("over the quota: %+v, want flooded and not learned", v)
	}
	want := Stats{Entries: 5, MaxEntries: 64, Static: 1, Learned: 5, RefusedQuota: 7}
	if diff := cmp.Diff(want, b.Stats()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Flush(1)
	if v := hear(t, b, 1, station(50), 0); !v.Learned {
		t.Error("the flush gave no room")
	}
}

func TestTableBound(t *testing.T) {
	b := testBridge(2, Options{MaxEntries: 100, MaxPerPort: 1000})
	for n := range 150 {
		hear(t, b, 1, station(n), 0)
	}
	want := Stats{Entries: 100, MaxEntries: 100, Static: 1, Learned: 100, RefusedFull: 50}
	if diff := cmp.Diff(want, b.Stats()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if v := hear(t, b, 2, station(0), 0); !v.Learned {
		t.Error("a known station cannot move in a full table")
	}
}

// A move to a port at its quota cannot be learned, but the old entry is wrong:
// frames to the station must be flooded and not go where it was.
func TestMoveToAPortAtItsQuota(t *testing.T) {
	b := testBridge(2, Options{MaxPerPort: 1})
	v := hear(t, b, 1, station(1), 0)
	hear(t, b, 2, station(2), 0)
	if m := hear(t, b, 2, station(1), 0); m.Learned || v.Src.Valid() {
		t.Errorf("moved %v, old ref valid %v; want neither", m.Learned, v.Src.Valid())
	}
	if _, _, ok := b.Lookup(station(1), 0); ok {
		t.Error("the station is still on its old port")
	}
	if v := hear(t, b, 1, station(3), 0); !v.Learned {
		t.Error("the old port's quota was not given back")
	}
}

// What makes a Ref false, each for good: also when the station comes back to
// the port and the slot that it had.
func TestRefIsFalseForGood(t *testing.T) {
	tests := map[string]func(b *Bridge){
		"move":     func(b *Bridge) { hear(t, b, 2, station(1), 0) },
		"expiry":   func(b *Bridge) { b.Expire(1000) },
		"flush":    func(b *Bridge) { b.Flush(1) },
		"removal":  func(b *Bridge) { b.SetPorts(members(0)); b.SetPorts(members(2)) },
		"made own": func(b *Bridge) { b.SetStatic([]StaticEntry{{MAC: station(1), Port: 1}}); b.SetStatic(nil) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			b := testBridge(2, Options{MaxEntries: 1})
			ref := hear(t, b, 1, station(1), 0).Src
			if !ref.Valid() || ref.Port() != 1 {
				t.Fatalf("valid %v, port %d before", ref.Valid(), ref.Port())
			}
			change(b)
			for range 3 {
				if ref.Valid() {
					t.Fatal("valid again")
				}
				hear(t, b, 1, station(1), 0)
			}
			if _, now, ok := b.Lookup(station(1), 0); !ok || !now.Valid() || now == ref {
				t.Errorf("station is not back: %v, %v", now, ok)
			}
		})
	}
}

func TestRefOfAStaticEntry(t *testing.T) {
	own := StaticEntry{MAC: ownMAC, Port: localPort, Own: true}
	one := StaticEntry{MAC: station(1), Port: 1}
	tests := []struct {
		name   string
		change func(b *Bridge)
		valid  bool
	}{
		{"same set", func(b *Bridge) { b.SetStatic([]StaticEntry{one, own}) }, true},
		{"one more", func(b *Bridge) { b.SetStatic([]StaticEntry{own, one, {MAC: station(2), Port: 2}}) }, true},
		{"heard elsewhere", func(b *Bridge) { hear(t, b, 2, station(1), 0) }, true},
		{"expiry", func(b *Bridge) { b.Expire(100_000) }, true},
		{"flush of all", func(b *Bridge) { b.Flush(0) }, true},
		{"another port leaves", func(b *Bridge) { b.SetPorts(members(1)) }, true},
		{"left out", func(b *Bridge) { b.SetStatic([]StaticEntry{own}); b.SetStatic([]StaticEntry{own, one}) }, false},
		{"other port", func(b *Bridge) { b.SetStatic([]StaticEntry{{MAC: station(1), Port: 2}}) }, false},
		{"own instead", func(b *Bridge) { b.SetStatic([]StaticEntry{{MAC: station(1), Port: 1, Own: true}}) }, false},
		{"its port leaves", func(b *Bridge) { b.SetPorts(nil); b.SetPorts(members(2)) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := testBridge(2, Options{})
			b.SetStatic([]StaticEntry{own, one})
			_, ref, _ := b.Lookup(station(1), 0)
			if !ref.Valid() {
				t.Fatal("not valid before")
			}
			tt.change(b)
			if ref.Valid() != tt.valid {
				t.Errorf("valid %v, want %v", ref.Valid(), tt.valid)
			}
		})
	}
}

func TestZeroRef(t *testing.T) {
	var r Ref
	r.Touch(1)
	if r.Valid() || r.Port() != 0 {
		t.Errorf("valid %v, port %d", r.Valid(), r.Port())
	}
}

// A learned entry gives way to a static one, and comes back after it.
func TestStaticTakesOverALearnedStation(t *testing.T) {
	b := testBridge(2, Options{})
	hear(t, b, 1, station(1), 0)
	b.SetStatic([]StaticEntry{{MAC: station(1), Port: 2}})
	if port, _, _ := b.Lookup(station(1), 0); port != 2 || b.Stats().Entries != 0 {
		t.Errorf("on port %d with %d learned entries, want 2 and 0", port, b.Stats().Entries)
	}
	b.SetStatic(nil)
	if v := hear(t, b, 1, station(1), 0); !v.Learned {
		t.Error("not learned after the static entry left")
	}
}

// An attached container's MAC is its own in every VLAN: what another port said of it
// before is forgotten, and what it says itself stays.
func TestStaticEntryHoldsInEveryVLAN(t *testing.T) {
	b := testBridge(2, Options{})
	tagged := func(in uint16) { b.Input(in, newFramer().frame(broadcast, station(1), 7), 0) }
	tagged(2)
	b.SetStatic([]StaticEntry{{MAC: station(1), Port: 1}})
	if _, _, known := b.Lookup(station(1), 7); known {
		t.Error("what was learned in a VLAN before is still there")
	}
	tagged(2)
	if _, _, known := b.Lookup(station(1), 7); known {
		t.Error("another port took a static station in a VLAN")
	}
	tagged(1)
	tagged(2)
	if port, _, _ := b.Lookup(station(1), 7); port != 1 {
		t.Errorf("the station is on port %d in the VLAN, want 1", port)
	}
}

// Prepare changes nothing, and Commit is SetPorts and SetStatic in one.
func TestChangeIsMadeByCommit(t *testing.T) {
	b := testBridge(3, Options{})
	hear(t, b, 1, station(1), 0)
	hear(t, b, 3, station(3), 0)
	before := b.Stats()
	c := b.Prepare(Setup{Ports: members(2), Static: []StaticEntry{{MAC: station(1), Port: 2}}})
	if diff := cmp.Diff(before, b.Stats()); diff != "" || len(b.FloodPorts()) != 3 {
		t.Fatalf("changed before Commit:\n%s", diff)
	}
	c.Commit()
	if port, _, _ := b.Lookup(station(1), 0); port != 2 {
		t.Errorf("the static entry says port %d", port)
	}
	if _, _, known := b.Lookup(station(3), 0); known || len(b.FloodPorts()) != 2 {
		t.Error("the port that left is still known")
	}
	if _, _, known := b.Lookup(ownMAC, 0); known || b.Stats().Entries != 0 {
		t.Errorf("entries that were left out: %+v", b.Stats())
	}
}

// A static entry may be set before its port is a member.
func TestStaticEntryAheadOfItsPort(t *testing.T) {
	b := testBridge(2, Options{})
	b.SetStatic([]StaticEntry{{MAC: station(7), Port: 3}})
	fr := newFramer()
	v := b.Input(1, fr.frame(station(7), station(1), 0), 0)
	if v.Reason != trace.PortRemoved || v.Dst.Valid() {
		t.Errorf("before: %+v, want a drop that is not remembered", v)
	}
	b.SetPorts(members(3))
	if v = b.Input(1, fr.frame(station(7), station(1), 0), 0); v.Action != Forward || v.Port != 3 {
		t.Errorf("after: %+v, want forwarded to 3", v)
	}
}

func TestPorts(t *testing.T) {
	b := testBridge(3, Options{})
	if got := b.FloodPorts(); !slices.Equal(got, []uint16{1, 2, 3}) {
		t.Errorf("flood reaches %v", got)
	}
	if c, ok := b.Port(2); !ok || c.MTU != 1500 || b.Local() != localPort {
		t.Errorf("port 2 is %+v, %v; local is %d", c, ok, b.Local())
	}
	if _, ok := b.Port(4); ok {
		t.Error("port 4 is a member")
	}
	if e := New(Options{}); len(e.FloodPorts()) != 0 || e.Local() != 0 {
		t.Error("a new bridge has ports")
	}
}

func TestEntries(t *testing.T) {
	b := testBridge(2, Options{})
	b.Input(2, newFramer().frame(broadcast, station(1), 7), 10)
	want := []Entry{
		{MAC: ownMAC, Port: localPort, Kind: Own},
		{MAC: station(1), VLAN: 7, Port: 2, Kind: Dynamic, Age: 5},
	}
	if diff := cmp.Diff(want, b.Entries(nil, 15)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestActionWords(t *testing.T) {
	for a, want := range map[Action]string{Drop: "drop", Forward: "forward", Flood: "flood", 9: "unknown"} {
		if a.String() != want {
			t.Errorf("Action %d is %q, want %q", a, a.String(), want)
		}
	}
}

func TestInputAllocatesNothing(t *testing.T) {
	b := testBridge(4, Options{MaxEntries: 512, MaxPerPort: 200})
	fr, rnd := newFramer(), rand.New(rand.NewPCG(5, 6))
	now := Tick(0)
	allocs := testing.AllocsPerRun(5000, func() {
		f := fr.f.Bytes()
		if len(f) == 0 {
			f = fr.frame(station(1), station(2), 0).Bytes()
		}
		f[11], f[5], f[4] = byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32()&1) // new, moved, known
		v := b.Input(uint16(1+rnd.IntN(4)), &fr.f, now)
		v.Src.Touch(now)
		b.Lookup(station(3), 0)
		now++
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
	if s := b.Stats(); s.Learned == 0 || s.Moved == 0 {
		t.Errorf("nothing learned or moved: %+v", s)
	}
}
