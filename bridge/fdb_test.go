// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
)

func TestKeyAndEntryRoundTrip(t *testing.T) {
	want := Entry{MAC: packet.MAC{2, 0xab, 0xcd, 0xef, 1, 0xff}, VLAN: 4095, Port: 65535, Kind: Static, Age: 7}
	state := staticState(StaticEntry{Port: want.Port})
	if diff := cmp.Diff(want, entry(key(want.MAC, want.VLAN), state, 7)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if key(packet.MAC{}, 0) == 0 {
		t.Error("the zero address has the key of an empty slot")
	}
}

func TestSlotSize(t *testing.T) {
	if got := reflect.TypeFor[slot]().Size(); got != 32 {
		t.Errorf("a slot is %d bytes; Options.MaxEntries and the cache lines count on 32", got)
	}
}

// Every size of table takes all the entries that it was made for, for any
// stations, before two buckets of a station are full.
func TestTableFillsToItsBound(t *testing.T) {
	for _, entries := range []int{1, 4, 16, 100, 1024, 4096} {
		for try := range max(2, 20_000/entries) {
			rnd := rand.New(rand.NewPCG(uint64(try), 1))
			table := newTable(entries)
			for n := range entries {
				k := rnd.Uint64() | keyValid
				s := table.vacant(k)
				if s == nil {
					t.Fatalf("table of %d: no room after %d", entries, n)
				}
				s.put(k, 1, 0)
			}
		}
	}
}

func TestStateNeverComesBack(t *testing.T) {
	var s slot
	seen := map[uint64]bool{0: true}
	for n := range 1000 {
		s.put(keyValid|1, uint16(n%2), 0)
		if st := s.state.Load(); seen[st] || portOf(st) != uint16(n%2) || kindOf(st) != Dynamic {
			t.Fatalf("put %d: state %#x", n, st)
		}
		seen[s.state.Load()] = true
		s.drop()
		if st := s.state.Load(); seen[st] || kindOf(st) != kindNone {
			t.Fatalf("drop %d: state %#x", n, st)
		}
		seen[s.state.Load()] = true
	}
}

func TestTouchNeverGoesBack(t *testing.T) {
	var s slot
	for _, tt := range []struct{ now, want Tick }{
		{10, 10}, {9, 10}, {11, 11}, {0xffffffff, 11}, // a worker behind by a lot
	} {
		s.touch(tt.now)
		if got := Tick(s.seen.Load()); got != tt.want {
			t.Errorf("touch(%d): seen %d, want %d", tt.now, got, tt.want)
		}
	}
	s.seen.Store(0xfffffffe)
	s.touch(1) // past the wrap
	if got := s.idle(3); got != 2 {
		t.Errorf("idle %d across the wrap, want 2", got)
	}
	if got := s.idle(0); got != 0 {
		t.Errorf("idle %d for a scan that is behind, want 0", got)
	}
}

func TestKindsRoundTripAsText(t *testing.T) {
	for _, k := range []Kind{Dynamic, Static, Own} {
		text, _ := k.MarshalText()
		var back Kind
		if err := back.UnmarshalText(text); err != nil || back != k {
			t.Errorf("%v: back as %v, %v", k, back, err)
		}
	}
	var k Kind
	if err := k.UnmarshalText([]byte("permanent")); err == nil {
		t.Errorf("accepted as %v", k)
	}
	if got := Kind(99).String(); got != "unknown" {
		t.Errorf("Kind(99) is %q", got)
	}
}
