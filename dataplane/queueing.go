// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"

	"sluice/qdisc"
)

// Queueing is the state of the disciplines and filters of one direction of a port.
type Queueing struct {
	Qdiscs  []qdisc.Report       `json:"qdiscs"`
	Filters []qdisc.FilterReport `json:"filters"`
}

// ingressWord is the direction from the container in a query; the other one is empty.
const ingressWord = "ingress"

// Queueing tells the state of a port's queueing disciplines: of what leaves by it, or
// of what the container sends. Empty if there are none.
func (c *Client) Queueing(ctx context.Context, port uint16, ingress bool) (Queueing, error) {
	q := query{What: queryQueueing, From: uint32(port)}
	if ingress {
		q.Words = ingressWord
	}
	return table[Queueing](ctx, c, q)
}

// Tree tells the state of a tree across ports, see netstack.Netstack.Tree. Empty if there
// is none.
func (c *Client) Tree(ctx context.Context, root uint16, ingress bool) (Queueing, error) {
	q := query{What: queryTree, From: uint32(root)}
	if ingress {
		q.Words = ingressWord
	}
	return table[Queueing](ctx, c, q)
}

// tree answers Client.Tree.
func (s *session) tree(q *query) message {
	var out Queueing
	out.Qdiscs, _ = s.srv.stack.Tree(uint16(q.From), q.Words == ingressWord)
	return message{body: encode(out)}
}

// queueing answers Client.Queueing. A port without a discipline has an empty state.
func (s *session) queueing(q *query) message {
	var out Queueing
	out.Qdiscs, out.Filters, _ = s.srv.stack.Queue(uint16(q.From), q.Words == ingressWord)
	return message{body: encode(out)}
}
