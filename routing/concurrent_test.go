// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// Readers look up in whatever version is current while a writer makes new ones.
// What they find is of one version: the route that stands for the number of the
// version has the metric that says so. Meant for -race.
func TestReadersAndAWriter(t *testing.T) {
	var current atomic.Pointer[Set]
	current.Store(must(t, newWorld(t), "add 10.9.0.0/16 via 10.1.0.1 metric 1\nadd 10.9.1.0/24 via 10.2.0.1 metric 1"))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				s := current.Load()
				a := s.Lookup(&Query{Dst: ip("10.9.0.1")})
				b := s.Lookup(&Query{Dst: ip("10.9.1.1")})
				if a.Route == nil || b.Route == nil || a.Route.Metric != b.Route.Metric {
					t.Errorf("%v and %v in one version", a.Route, b.Route)
					return
				}
			}
		})
	}
	m := &maker{Rand: rand.New(rand.NewPCG(51, 52))}
	for n := uint32(1); n < 400; n++ {
		var list []Change
		for _, p := range []string{"10.9.0.0/16", "10.9.1.0/24"} {
			hop := []NextHop{{Via: ip("10.1.0.1")}}
			list = append(list, Change{Op: OpDelete, Route: &Route{Prefix: mustPrefix(p), Metric: n}},
				Change{Route: &Route{Prefix: mustPrefix(p), Metric: n + 1, NextHops: hop}},
				Change{Op: OpReplace, Route: &Route{Prefix: m.prefix(), NextHops: hop}})
		}
		s, err := current.Load().Apply(list)
		if err != nil {
			t.Error(err)
			break
		}
		current.Store(s)
	}
	close(done)
	readers.Wait()
}
