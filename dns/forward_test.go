// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAnswerWhileNamesChange: what an upstream says is kept if a container comes
// meanwhile, and not if other upstreams do.
func TestAnswerWhileNamesChange(t *testing.T) {
	for _, tt := range []struct {
		next Upstream
		kept int
	}{{upstream(1), 1}, {upstream(2), 0}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, Config{})
			b.world.has("a.example. 60 IN A 198.51.100.1")
			b.world.delay = 10 * time.Millisecond
			go func() {
				time.Sleep(time.Millisecond)
				b.Set(Config{Upstreams: []Upstream{tt.next}}, NewNames(&Config{}, 8, nil))
			}()
			b.ask("a.example A")
			if s := b.Stats(); s.CacheEntries != tt.kept {
				t.Errorf("with %v next, %d answers are kept, want %d", tt.next, s.CacheEntries, tt.kept)
			}
		})
	}
}
