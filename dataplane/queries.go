// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"

	"sluice/netstack"
)

// query answers a question about one namespace, or about the process.
func (s *session) query(body []byte) (message, error) {
	var q query
	if err := decode(body, &q); err != nil {
		return message{}, refuse("query", err)
	}
	if q.What == queryStatus {
		return message{body: encode(s.srv.status())}, nil
	}
	ns := s.srv.stack.Namespace(q.Namespace)
	if ns == nil {
		return message{}, refuse("namespace", fmt.Errorf("there is no %q", clip(q.Namespace)))
	}
	switch q.What {
	case queryFDB:
		return list(fdb(ns, q.Network))
	case queryNeighbours:
		return list(neighbours(ns, q.Network))
	case querySockets:
		return list(sockets(ns))
	default:
		return message{}, refuse("query", fmt.Errorf("unknown table %q", clip(q.What)))
	}
}

// list encodes a table. One that does not fit into a body is refused, since half
// a table looks like a whole one.
func list[T any](rows []T) (message, error) {
	b := encode(rows)
	if len(b) > MaxBody {
		return message{}, refuse("query", fmt.Errorf("table of %d lines is too large", len(rows)))
	}
	return message{body: b}, nil
}

func (s *server) status() Status {
	workers := s.stack.WorkerStats()
	return Status{
		Protocol:   Protocol,
		Build:      s.opts.build,
		Started:    s.started,
		Generation: s.stack.Generation(),
		Workers:    len(workers),
		Namespaces: s.shape.namespaces,
		Ports:      s.shape.ports,

		WorkerStats: workers,
	}
}

func fdb(ns *netstack.Namespace, network string) []FDBEntry {
	entries := ns.FDB(network)
	rows := make([]FDBEntry, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, FDBEntry{
			MAC: e.MAC.String(), VLAN: e.VLAN, Port: e.Port, Kind: e.Kind.String(), AgeSeconds: int(e.Age),
		})
	}
	return rows
}

func neighbours(ns *netstack.Namespace, network string) []Neighbour {
	entries := ns.Neighbours(network)
	rows := make([]Neighbour, 0, len(entries))
	for _, e := range entries {
		n := Neighbour{Addr: e.Addr, State: e.State.String()}
		if !e.MAC.IsZero() {
			n.MAC = e.MAC.String()
		}
		rows = append(rows, n)
	}
	return rows
}

func sockets(ns *netstack.Namespace) []Socket {
	entries := ns.Sockets()
	rows := make([]Socket, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, Socket{Proto: e.Proto, State: e.State, Local: e.Local, Remote: e.Remote, RecvQ: e.RecvQ})
	}
	return rows
}
