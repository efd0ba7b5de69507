// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// bytesOf is record i in the mapping.
func bytesOf(tab *Table, i uint32) []byte {
	return tab.mem[headerSize+int(i)*recordSize:][:recordSize]
}

// TestTwoRecordsOfOneConnection: a copy that was made while connections went and came
// may have one twice, anywhere. One of them goes on.
func TestTwoRecordsOfOneConnection(t *testing.T) {
	for _, far := range []uint32{1, shardSize + 5, 3*shardSize - 1} {
		f, err := CreateFile(filepath.Join(t.TempDir(), "table"), 3*shardSize)
		must(t, err)
		defer f.Close()
		tab, _, err := Open(f, Config{}, 1000)
		must(t, err)
		begin(tab, 1, datagram(1, 7), 1000)
		copy(bytesOf(tab, far), bytesOf(tab, 0))
		must(t, tab.Close())
		tab, rep, err := Open(f, Config{}, 1000)
		must(t, err)
		if rep != (Report{Kept: 1, Bad: 1}) || tab.Len() != 1 || tab.PortUse(1) != 1 {
			t.Errorf("record %d: %+v, %d connections, %d of the port", far, rep, tab.Len(), tab.PortUse(1))
		}
		sound(t, tab)
		if n := tab.Delete(nil, 1000); n != 1 {
			t.Errorf("record %d: %d were found", far, n)
		}
		sound(t, tab)
		must(t, tab.Close())
	}
}

// TestManyShards opens a large table with holes, torn records, and some that are over,
// and uses it up.
func TestManyShards(t *testing.T) {
	const n = 5*shardSize + 17
	f, err := CreateFile(filepath.Join(t.TempDir(), "table"), n)
	must(t, err)
	defer f.Close()
	tab, _, err := Open(f, Config{}, 1000)
	must(t, err)
	filled(t, tab, 4*shardSize+99)
	r := rand.New(rand.NewPCG(rand.Uint64(), 7))
	var want Report
	for i := range uint32(4*shardSize + 99) {
		rec := &tab.recs[i]
		switch r.IntN(8) {
		case 0:
			rec.life.Store(rec.life.Load()&^phaseMask | phaseDying)
			want.Torn++
		case 1:
			rec.expiry.Store(900)
			want.Expired++
		case 2:
			rec.hash[r.IntN(2)]++
			want.Bad++
		case 3:
			rec.life.Store(0) // never used, between such that were
		case 4:
			rec.lock.Store(1)
			if i%2 == 0 { // of TCP
				want.Repaired++
			}
			want.Kept++
		default:
			want.Kept++
		}
	}
	tab.recs[n-1].life.Store(phaseFresh) // one that stands far from the others
	want.Torn++
	must(t, tab.Close())
	tab, rep, err := Open(f, Config{}, 1000)
	must(t, err)
	defer tab.Close()
	if rep != want || tab.Len() != want.Kept {
		t.Errorf("%+v, want %+v, %d connections", rep, want, tab.Len())
	}
	sound(t, tab)
	more := 0
	for ; more < 2*n; more++ {
		if _, out := begin(tab, 999, datagram(uint16(200+more>>12), more&0xfff), 1000); out != Inserted {
			break
		}
	}
	if tab.Len() > n || tab.Len() < n-1 {
		t.Errorf("%d begun after it, and there are %d of %d", more, tab.Len(), n)
	}
	sound(t, tab)
	if ended := tab.Expire(1000 + 4000); tab.Len() != 0 {
		t.Errorf("%d ended, %d are left", ended, tab.Len())
	}
	sound(t, tab)
}
