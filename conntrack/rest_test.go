// SPDX-License-Identifier: Apache-2.0

package conntrack

import "testing"

// TestExpiryRests: who ends very many connections rests between, without a lock, makes
// no garbage, and tells of each one.
func TestExpiryRests(t *testing.T) {
	const n = 20_000
	var tab *Table
	rests, removed := 0, map[Tuple]bool{}
	tab = table(t, Config{
		Entries: n, Removed: func(e *Entry) { removed[e.Original] = true },
		Rest: func() {
			rests++
			if c, out := begin(tab, 9, datagram(99, 1), 9000); out == Inserted {
				c.Delete(9000)
			}
		},
	})
	filled(t, tab, n-10)
	if ended := tab.Expire(1000 + 3600); ended != n-10 || len(removed) != n-10+1 {
		t.Errorf("%d ended, of %d it was told", ended, len(removed))
	}
	if want := n / batch / restAfter; rests < want {
		t.Errorf("%d rests, want %d", rests, want)
	}
	sound(t, tab)
}
