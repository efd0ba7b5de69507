// SPDX-License-Identifier: Apache-2.0

package proxy

// Limits bound what containers may have of an uplink. Zero takes the default.
type Limits struct {
	// Conns are TCP connections in all states, Dials those of them that are not
	// connected yet, Flows are those of UDP and pings: each for all containers
	// together, and for one.
	Conns, ConnsPerPort int
	Dials, DialsPerPort int
	Flows, FlowsPerPort int
}

// Defaults of Limits.
const (
	DefaultConns        = 16384
	DefaultConnsPerPort = 4096
	DefaultDials        = 1024
	DefaultDialsPerPort = 256
	DefaultFlows        = 8192
	DefaultFlowsPerPort = 1024
)

func (l *Limits) setDefaults() {
	for _, d := range []struct {
		to    *int
		value int
	}{
		{&l.Conns, DefaultConns},
		{&l.ConnsPerPort, DefaultConnsPerPort},
		{&l.Dials, DefaultDials},
		{&l.DialsPerPort, DefaultDialsPerPort},
		{&l.Flows, DefaultFlows},
		{&l.FlowsPerPort, DefaultFlowsPerPort},
	} {
		if *d.to <= 0 {
			*d.to = d.value
		}
	}
}

// quota counts what ports have of one thing. It is not safe for concurrent use.
type quota struct {
	total, each int
	used        int
	by          map[uint16]int
}

func newQuota(total, each int) quota {
	return quota{total: total, each: each, by: make(map[uint16]int)}
}

// take gives a port one more, or reports false.
func (q *quota) take(port uint16) bool {
	if q.used >= q.total || q.by[port] >= q.each {
		return false
	}
	q.used++
	q.by[port]++
	return true
}

// put takes back one that the port has.
func (q *quota) put(port uint16) {
	q.used--
	if q.by[port]--; q.by[port] == 0 {
		delete(q.by, port)
	}
}

// reset takes back all.
func (q *quota) reset() {
	q.used = 0
	clear(q.by)
}
