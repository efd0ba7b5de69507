// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"cmp"
	"slices"

	"sluice/conntrack"
)

// BackendStats is what a backend of a service has, and has had since the NAT was
// made. By direction, conntrack.Original is to it.
type BackendStats struct {
	Bind           conntrack.Bind
	Active         int    // connections that it has
	Conns          uint64 // those that it has had, with these
	Packets, Bytes [2]uint64
}

// backendCounts are those of the backends of all services. Bounded by what services
// say: others are not counted. Not safe for concurrent use.
type backendCounts map[conntrack.Bind]*BackendStats

// follow makes room for the backends of a service, and forgets those of the one that
// it replaces, if there is one.
func (c backendCounts) follow(was, is *service) {
	if was != nil {
		for i := range was.spec.Backends {
			if b := was.spec.Backends[i].Bind; is == nil || !is.has(b) {
				delete(c, b)
			}
		}
	}
	if is == nil {
		return
	}
	for i := range is.spec.Backends {
		if b := is.spec.Backends[i].Bind; b.ID != 0 && c[b] == nil {
			c[b] = &BackendStats{Bind: b}
		}
	}
}

func (s *service) has(b conntrack.Bind) bool {
	return slices.ContainsFunc(s.spec.Backends, func(e Backend) bool { return e.Bind == b })
}

// begun counts a connection.
func (c backendCounts) begun(e *conntrack.Entry) {
	if s := c[e.Backend]; s != nil {
		s.Conns++
		s.Active++
	}
}

// ended counts what it has carried.
func (c backendCounts) ended(e *conntrack.Entry) {
	s := c[e.Backend]
	if s == nil {
		return
	}
	s.Active = max(0, s.Active-1)
	s.add(e)
}

func (s *BackendStats) add(e *conntrack.Entry) {
	for d := range e.Packets {
		s.Packets[d] += e.Packets[d]
		s.Bytes[d] += e.Bytes[d]
	}
}

// Backends are the statistics of all backends, by number, with what their connections
// have carried until now.
func (n *NAT) Backends(now uint32) (all []BackendStats) {
	live := make(map[conntrack.Bind]*BackendStats)
	n.table.Entries(&conntrack.Filter{}, now, func(e *conntrack.Entry) bool {
		if e.Backend.ID == 0 {
			return true
		}
		s := live[e.Backend]
		if s == nil {
			s = new(BackendStats)
			live[e.Backend] = s
		}
		s.add(e)
		return true
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	for b, s := range n.memory.backends {
		sum := *s
		if l := live[b]; l != nil {
			for d := range l.Packets {
				sum.Packets[d] += l.Packets[d]
				sum.Bytes[d] += l.Bytes[d]
			}
		}
		all = append(all, sum)
	}
	slices.SortFunc(all, func(a, b BackendStats) int { return cmp.Compare(a.Bind.ID, b.Bind.ID) })
	return all
}
