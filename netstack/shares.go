// SPDX-License-Identifier: Apache-2.0

package netstack

// shares divides places among ports: a port may have as many as are still free.
// One alone comes to half of them, n that want all to one in n+1 each, and as much
// stays free for the others; so neither one port nor many can shut out the rest,
// and no number must be chosen for each port (dynamic thresholds, Choudhury and
// Hahne, 1998). It is not safe for concurrent use.
type shares struct {
	free int
	by   map[uint16]int // places that each port has; none is absent
}

func newShares(places int) shares { return shares{free: places, by: make(map[uint16]int)} }

// take gives a port a place, or reports false.
func (s *shares) take(port uint16) bool { return s.takeMany(port, 1) }

// takeMany gives a port n places, or none.
func (s *shares) takeMany(port uint16, n int) bool {
	if s.by[port]+n > s.free {
		return false
	}
	s.by[port] += n
	s.free -= n
	return true
}

// put takes back a place that the port has.
func (s *shares) put(port uint16) { s.putMany(port, 1) }

// putMany takes back n places that the port has.
func (s *shares) putMany(port uint16, n int) {
	if s.by[port] -= n; s.by[port] == 0 {
		delete(s.by, port)
	}
	s.free += n
}
