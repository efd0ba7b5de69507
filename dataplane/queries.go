// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"runtime"

	"sluice/bridge/snoop"
	"sluice/netstack"
	"sluice/routing"
	"sluice/trace"
)

// query answers a question about one namespace, or about the process.
func (s *session) query(body []byte) (message, error) {
	var q query
	if err := decode(body, &q); err != nil {
		return message{}, refuse("query", err)
	}
	switch q.What {
	case queryStatus:
		return message{body: encode(s.srv.status())}, nil
	case queryRuleLogs:
		var l RuleLogs
		l.Lines, l.Suppressed = s.srv.stack.RuleLogs()
		return whole(l)
	case queryRuleDrops:
		return whole(s.srv.stack.RuleDrops())
	}
	if m, known, err := s.connQuery(&q); known {
		return m, err
	}
	ns := s.srv.stack.Namespace(q.Namespace)
	if ns == nil {
		return message{}, refuse("namespace", fmt.Errorf("there is no %q", clip(q.Namespace)))
	}
	return spaceQuery(ns, &q)
}

// spaceQuery answers a question about a namespace.
func spaceQuery(ns *netstack.Namespace, q *query) (message, error) {
	switch q.What {
	case queryFDB:
		return list(fdb(ns, q.Network))
	case queryNeighbours:
		return list(neighbours(ns, q.Network))
	case querySockets:
		return list(sockets(ns, q.Network))
	case queryGroups:
		return list(groups(ns, q.Network))
	case queryLearned:
		return message{body: encode(ns.Learned(q.Network))}, nil
	case queryForget:
		return message{body: encode(forget(ns, q))}, nil
	case queryRoute:
		return route(ns, q.Words)
	default:
		return dnsQuery(ns, q)
	}
}

// dnsQuery answers the questions about a namespace's DNS.
func dnsQuery(ns *netstack.Namespace, q *query) (message, error) {
	switch q.What {
	case queryDNS:
		stats, _ := ns.DNSStats()
		return message{body: encode(stats)}, nil
	case queryFlushDNS:
		return message{body: encode(ns.FlushDNS(q.Words))}, nil
	default:
		if m, known, err := ruleQuery(ns, q); known {
			return m, err
		}
		return message{}, refuse("query", fmt.Errorf("unknown table %q", clip(q.What)))
	}
}

// list encodes a table. One that does not fit into a body is refused, since half
// a table looks like a whole one.
func list[T any](rows []T) (message, error) {
	return whole(rows)
}

// whole encodes an answer, or refuses it if it is too large.
func whole(v any) (message, error) {
	b := encode(v)
	if len(b) > MaxBody {
		return message{}, refuse("query", fmt.Errorf("table of %d bytes is too large", len(b)))
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
		Goroutines: runtime.NumGoroutine(),

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

func sockets(ns *netstack.Namespace, uplink string) []Socket {
	entries := ns.Proxied(uplink)
	if entries == nil {
		entries = ns.Sockets()
	}
	rows := make([]Socket, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, Socket{Proto: e.Proto, State: e.State, Local: e.Local, Remote: e.Remote, RecvQ: e.RecvQ, Port: e.Port})
	}
	return rows
}

// groups lists the members of groups, and then the ports of multicast routers.
func groups(ns *netstack.Namespace, network string) []Group {
	members, routers := ns.Groups(network)
	rows := make([]Group, 0, len(members)+len(routers))
	for _, all := range [][]snoop.Entry{members, routers} {
		for _, e := range all {
			rows = append(rows, Group{Group: e.Group, VLAN: e.VLAN, Port: e.Port, LeftSeconds: int(e.Left)})
		}
	}
	return rows
}

// forget forgets dynamic neighbours and returns how many.
func forget(ns *netstack.Namespace, q *query) int {
	index := ns.Index(q.Network)
	if index == 0 {
		return 0
	}
	return ns.FlushNeighbours(index, q.Addr)
}

func route(ns *netstack.Namespace, words string) (message, error) {
	q, err := routing.ParseQuestion(words)
	if err != nil {
		return message{}, refuse("words", err)
	}
	a, err := ns.Ask(q)
	if err != nil {
		return message{}, refuse("words", err)
	}
	out := Route{Gateway: a.Gateway, Src: a.Src, MTU: a.MTU, Neighbour: a.Neighbour.String()}
	if h := a.Result.NextHop; h != nil {
		out.Device = h.Index
	}
	if a.Reason != trace.None {
		out.Reason = a.Reason.String()
	}
	return message{body: encode(out)}, nil
}
