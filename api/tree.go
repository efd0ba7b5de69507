// SPDX-License-Identifier: Apache-2.0

package api

import "context"

// Share is a class of a tree across ports: what the node, a namespace or a container
// gets of what is above it, and what it has got. Those below it follow it.
type Share struct {
	// From says that it is of what containers send, and not of what they get.
	From bool `json:"from"`
	// Of is "node", "namespace", "container" or "uplink".
	Of        string `json:"of"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`  // of the node: "node"
	Depth     int    `json:"depth"` // 0 at the root of the tree

	// Rate is guaranteed, Ceil as much as it may ever have; bits a second. Burst and
	// CBurst are bytes. Line is all that was said, in the words of tc(8).
	Rate    uint64 `json:"rate"`
	Ceil    uint64 `json:"ceil"`
	Burst   uint64 `json:"burst"`
	CBurst  uint64 `json:"cburst"`
	Prio    uint32 `json:"prio"`
	Quantum uint32 `json:"quantum"`
	Line    string `json:"line"`

	// What has left, as on the wire; what was dropped; how often it had to wait; what
	// waits now. Lent is packets on its own account, or of those below it on its;
	// Borrowed on account of those above.
	Bytes      uint64 `json:"bytes"`
	Packets    uint64 `json:"packets"`
	Drops      uint64 `json:"drops"`
	Overlimits uint64 `json:"overlimits"`
	Backlog    int64  `json:"backlog"`
	Qlen       int    `json:"qlen"`
	Lent       uint64 `json:"lended"`
	Borrowed   uint64 `json:"borrowed"`
}

// Trees lists the classes of all trees across ports, of a namespace or of all.
func (c *Client) Trees(ctx context.Context, q ShowQuery) ([]Share, error) {
	return list[Share](ctx, c, PathTrees, q.values())
}
