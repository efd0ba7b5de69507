// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mapped creates (or opens) the counters at path and maps them.
func mapped(t *testing.T, path string, slots int) *Counters {
	t.Helper()
	f, err := CreateCounters(path, slots)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := MapCounters(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestCountersSurviveAndAreShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	first := mapped(t, path, 8)
	first.Port(3).AddRx(5, 500)

	second := mapped(t, path, 8)
	second.Port(3).AddRx(1, 60)
	second.Port(3).Drop(SamePort, 2)

	want := PortStats{RxPackets: 6, RxBytes: 560, Drops: map[string]uint64{"same_port": 2}}
	if diff := cmp.Diff(want, first.Port(3).Snapshot()); diff != "" {
		t.Errorf("first mapping (-want +got):\n%s", diff)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, mapped(t, path, 8).Port(3).Snapshot()); diff != "" {
		t.Errorf("after reopening (-want +got):\n%s", diff)
	}
}

func TestUnusableFileIsReplaced(t *testing.T) {
	whole := append(encodeHeader(4), make([]byte, 4*slotSize)...)
	edited := func(at int, v byte) []byte {
		b := append([]byte(nil), whole...)
		b[at] = v
		return b
	}
	tests := map[string][]byte{
		"empty":                {},
		"header cut short":     whole[:100],
		"slots cut short":      whole[:len(whole)-1],
		"too long":             append(append([]byte(nil), whole...), 0),
		"zeroes":               make([]byte, len(whole)),
		"other magic":          edited(0, 'X'),
		"other version":        edited(8, 99),
		"other slot size":      edited(12, 1),
		"no slots":             edited(16, 0),
		"other number of them": append(encodeHeader(5), make([]byte, 5*slotSize)...),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "counters")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			c := mapped(t, path, 4)
			if diff := cmp.Diff(PortStats{}, c.Port(1).Snapshot()); diff != "" || c.Slots() != 4 {
				t.Errorf("%d slots (-want +got):\n%s", c.Slots(), diff)
			}
		})
	}
}

// A creator that was killed leaves a half-written temporary file.
func TestLeftoverOfAKilledCreator(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counters")
	if err := os.WriteFile(path+newSuffix, []byte("half a header, and more than the new file has"), 0o600); err != nil {
		t.Fatal(err)
	}
	mapped(t, path, 2).Port(1).AddTx(1, 1)
	if _, err := os.Lstat(path + newSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("temporary file is left: %v", err)
	}
	if got := mapped(t, path, 2).Port(1).Snapshot().TxPackets; got != 1 {
		t.Errorf("reopened: %d packets, want 1", got)
	}
}

func TestCreateCountersRefuses(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "target"), link); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path  string
		slots int
	}{
		"no slots":       {filepath.Join(dir, "a"), 0},
		"too many slots": {filepath.Join(dir, "b"), MaxSlots + 1},
		"no directory":   {filepath.Join(dir, "none", "c"), 4},
		"a symlink":      {link, 4},
		"a directory":    {dir, 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if f, err := CreateCounters(tt.path, tt.slots); err == nil {
				f.Close()
				t.Error("accepted")
			}
		})
	}
}

func TestMapCountersRefusesAnotherFile(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := MapCounters(f); !errors.Is(err, ErrLayout) {
		t.Errorf("got %v, want ErrLayout", err)
	}
}

func TestPortOutOfRangeIsNobody(t *testing.T) {
	for name, c := range map[string]*Counters{"private": NewCounters(3), "none": NewCounters(0)} {
		c.Port(9).AddRx(1, 1)
		if got := c.Port(0).Snapshot().RxPackets; got != 1 {
			t.Errorf("%s: slot 0 has %d packets, want 1", name, got)
		}
	}
}

func TestEveryWordHasItsPlace(t *testing.T) {
	p := NewCounters(1).Port(0)
	p.AddRx(1, 2)
	p.AddTx(3, 4)
	for i, w := range []Word{RxTurns, RxGSO, TxCalls, TxGSO, FlowHits, FlowMisses, Flooded, Learned} {
		p.Add(w, uint64(5+i))
	}
	want := PortStats{
		RxPackets: 1, RxBytes: 2, TxPackets: 3, TxBytes: 4, RxTurns: 5, RxGSO: 6,
		TxCalls: 7, TxGSO: 8, FlowHits: 9, FlowMisses: 10, Flooded: 11, Learned: 12,
	}
	if diff := cmp.Diff(want, p.Snapshot()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, r := range Reasons() {
		p.Drop(r, uint64(r))
	}
	for _, r := range Reasons() {
		if got := p.Snapshot().Drops[r.String()]; got != uint64(r) {
			t.Errorf("%v: %d, want %d", r, got, r)
		}
	}
	if got := p.Snapshot().Dropped(); got != uint64(NumReasons*(NumReasons-1)/2) {
		t.Errorf("dropped %d in all", got)
	}
	p.Reset()
	if diff := cmp.Diff(PortStats{}, p.Snapshot()); diff != "" {
		t.Errorf("after reset (-want +got):\n%s", diff)
	}
}

func TestNonsenseIsNotCounted(t *testing.T) {
	p := NewCounters(1).Port(0)
	p.Drop(None, 1)
	p.Drop(Reason(255), 1)
	p.Add(dropBase, 1)
	p.Add(Word(255), 1)
	if diff := cmp.Diff(PortStats{}, p.Snapshot()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSnapshotAsJSON(t *testing.T) {
	p := NewCounters(1).Port(0)
	p.Drop(TxFull, 7)
	got, err := json.Marshal(p.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"rx_packets":0,"rx_bytes":0,"rx_turns":0,"rx_gso":0,"tx_packets":0,"tx_bytes":0,"tx_calls":0,"tx_gso":0,` +
		`"flow_hits":0,"flow_misses":0,"flooded":0,"learned":0,"drops":{"tx_full":7}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// childEnv names the counter file for the second process of the next test.
const childEnv = "SLUICE_TRACE_TEST_COUNTERS"

// Two processes add to one slot at the same time, and no addition is lost.
func TestTwoProcessesAdd(t *testing.T) {
	const n = 100_000
	if path := os.Getenv(childEnv); path != "" {
		addMany(mapped(t, path, 2), n)
		return
	}
	path := filepath.Join(t.TempDir(), "counters")
	c := mapped(t, path, 2)
	child := exec.Command(os.Args[0], "-test.run=^TestTwoProcessesAdd$")
	child.Env = append(os.Environ(), childEnv+"="+path)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { addMany(c, n) })
	}
	wg.Wait()
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := c.Port(1).Snapshot(); got.RxPackets != 3*n || got.Drops["tx_full"] != 3*n {
		t.Errorf("%d packets and %v, want %d of each", got.RxPackets, got.Drops, 3*n)
	}
}

func addMany(c *Counters, n int) {
	for range n {
		c.Port(1).AddRx(1, 1)
		c.Port(1).Drop(TxFull, 1)
	}
}

func TestCloseTwice(t *testing.T) {
	c := mapped(t, filepath.Join(t.TempDir(), "counters"), 2)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	c.Port(1).AddRx(1, 1) // must not touch the unmapped memory
}

func TestCountingAllocatesNothing(t *testing.T) {
	c := NewCounters(4)
	allocs := testing.AllocsPerRun(100, func() {
		p := c.Port(2)
		p.AddRx(64, 6400)
		p.AddTx(64, 6400)
		p.Add(FlowHits, 64)
		p.Drop(TxFull, 1)
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

// The header comes from a file that another process, perhaps of another
// version, has written.
func FuzzHeader(f *testing.F) {
	f.Add(encodeHeader(1))
	f.Add([]byte(countersMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		slots, ok := decodeHeader(b)
		if ok && (slots < 1 || slots > MaxSlots) {
			t.Errorf("accepted %d slots", slots)
		}
	})
}

func BenchmarkBatchOfCounters(b *testing.B) {
	p := NewCounters(2).Port(1)
	b.ReportAllocs()
	for b.Loop() {
		p.AddRx(64, 6400)
		p.Add(RxTurns, 1)
		p.Add(FlowHits, 64)
	}
}
