// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"fmt"
	"math"
	"reflect"

	"sluice/qdisc"
)

// Theory of operation.
//
// A tree across ports is one htb, whose classes are the node, its namespaces and their
// ports. Below a port's class hangs the port's own discipline. What is enqueued at the
// port waits there, and leaves when the classes above have tokens for it.
//
//	node ── namespace ── port ── discipline of the port
//
// Tokens are to be counted at one place, so a tree belongs to one worker, and so do the
// sockets of its ports: what they receive needs no way to it, and for what others send
// to them there are the rings that any port's queue has. If the node has shares there is
// one tree for all; else one for each namespace that has some, and they are spread over
// the workers. Ports without shares are where they always were.

// nodeIndex is the number of the node in a tree; other members have their own: a port's,
// and of a namespace the least of its bridges.
const nodeIndex = 0

// NodeClass is the minor number of the node's class in a tree, no index.
const NodeClass = 0xffff

// sharing is one direction of a tree across ports.
type sharing struct {
	dir   int
	root  uint16 // nodeIndex, or that of a namespace
	spec  *qdisc.Spec
	ports []sharer
}

// sharer is a port of a tree.
type sharer struct {
	index uint16
	class *qdisc.HTBClass
}

func (s *sharing) id() uint32 { return treeID(s.root, s.dir) }

// shareClass is the class of a member.
func shareClass(index uint16) qdisc.Handle {
	if index == nodeIndex {
		index = NodeClass
	}
	return qdisc.MakeHandle(1, index)
}

// home is the number of a namespace in trees; 0 if it has no network.
func (s *NamespaceSpec) home() uint16 {
	least := uint16(math.MaxUint16)
	for i := range s.Networks {
		least = min(least, s.Networks[i].Bridge.Index)
	}
	if len(s.Networks) == 0 {
		return 0
	}
	return least
}

// sharings are the trees that a snapshot wants.
func (s *Snapshot) sharings() (all []*sharing) {
	for _, dir := range []int{egress, ingress} {
		node := s.Shares.Of(dir == ingress)
		var whole *sharing
		if node != nil {
			whole = newSharing(dir, nodeIndex)
			whole.add(nodeIndex, qdisc.Root, node)
		}
		for i := range s.Namespaces {
			n := &s.Namespaces[i]
			share := n.Shares.Of(dir == ingress)
			if share == nil {
				continue
			}
			t, parent := whole, shareClass(nodeIndex)
			if t == nil {
				t, parent = newSharing(dir, n.home()), qdisc.Root
			}
			if n.join(t, parent, share) && t != whole {
				all = append(all, t)
			}
		}
		if whole != nil && len(whole.ports) > 0 {
			all = append(all, whole)
		}
	}
	return all
}

func newSharing(dir int, root uint16) *sharing {
	t := &sharing{dir: dir, root: root, spec: &qdisc.Spec{}}
	t.spec.Qdiscs = []qdisc.Qdisc{{Kind: "htb", Handle: qdisc.MakeHandle(1, 0), Parent: qdisc.Root, HTB: &qdisc.HTB{}}}
	return t
}

func (s *sharing) add(index uint16, parent qdisc.Handle, c *qdisc.HTBClass) {
	s.spec.Classes = append(s.spec.Classes, qdisc.Class{Kind: "htb", Handle: shareClass(index), Parent: parent, HTB: c})
}

// join adds the ports of a namespace that share, and if there are any, the namespace.
func (s *NamespaceSpec) join(t *sharing, parent qdisc.Handle, share *qdisc.HTBClass) bool {
	first := true
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			p := &s.Networks[i].Ports[j]
			c := p.Shares.Of(t.dir == ingress)
			if c == nil {
				continue
			}
			if first {
				t.add(s.home(), parent, share)
				first = false
			}
			t.add(p.Index, shareClass(s.home()), c)
			t.ports = append(t.ports, sharer{p.Index, c})
		}
	}
	return !first
}

// validateShares checks the trees. Ports that have no part in one were a mistake.
func (s *Snapshot) validateShares() error {
	for i := range s.Namespaces {
		if err := s.Namespaces[i].validateShares(); err != nil {
			return fmt.Errorf("%w: namespace %q: %w", ErrInvalid, s.Namespaces[i].Name, err)
		}
	}
	for _, t := range s.sharings() {
		if err := qdisc.Check(t.spec); err != nil {
			return fmt.Errorf("%w: shares: %w", ErrInvalid, err)
		}
	}
	return nil
}

func (s *NamespaceSpec) validateShares() error {
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			p := &s.Networks[i].Ports[j]
			if p.Shares.Egress != nil && s.Shares.Egress == nil || p.Shares.Ingress != nil && s.Shares.Ingress == nil {
				return fmt.Errorf("port %d (%s): shares of a namespace that has none", p.Index, p.Name)
			}
		}
	}
	return nil
}

// owners says which worker a port of a tree is of, by the number of its tree's root.
// Both directions of a port are of one worker: if the node shares anything, it is the
// node's.
func (s *Snapshot) owners(trees []*sharing) map[uint16]uint16 {
	owner := make(map[uint16]uint16)
	for _, t := range trees {
		root := t.root
		if !s.Shares.None() {
			root = nodeIndex
		}
		for _, p := range t.ports {
			owner[p.index] = root
		}
	}
	return owner
}

// The bytes that may wait by default for a port in a tree: what its ceiling lets through
// in 50 ms, but within bounds.
const (
	leafPart  = 20 // of a second
	leastLeaf = 256 << 10
	mostLeaf  = 16 << 20
)

// defaultLeaf is the discipline of a port in a tree that has none of its own: with it no
// flow of a container keeps out the others.
func defaultLeaf(c *qdisc.HTBClass) *qdisc.Spec {
	bytes := min(max(max(c.Ceil.Bytes, c.Rate.Bytes)/leafPart, leastLeaf), mostLeaf)
	return &qdisc.Spec{Qdiscs: []qdisc.Qdisc{{
		Kind: "fq_codel", Handle: qdisc.MakeHandle(1, 0), Parent: qdisc.Root, FQCodel: &qdisc.FQCodel{MemoryLimit: int64(bytes)},
	}}}
}

// share notes in the view which ports are in which tree. Preconditions: all namespaces
// are compiled.
func (v *view) share(trees []*sharing) {
	if v.trees = trees; len(trees) == 0 {
		return
	}
	v.queued = true
	for _, t := range trees {
		for _, member := range t.ports {
			p := v.port(member.index)
			p.trees[t.dir] = t
			if p.queues[t.dir] == nil {
				p.queues[t.dir] = defaultLeaf(member.class)
			}
		}
	}
}

// worker is whose the tree is.
func (v *view) worker(t *sharing) *worker { return v.port(t.ports[0].index).sock.worker }

// part takes those queues out of their trees that are in another one now, or in none. What
// waits in one is due at once: nobody asked its own discipline so far.
func (t *turn) part() {
	for _, q := range t.out.queues.all {
		if q.group == nil {
			continue
		}
		p := t.view.port(q.port)
		if !q.of(p) || p.trees[q.dir] == nil || p.trees[q.dir].id() != q.group.id() {
			q.leave()
			t.out.queues.wheel.Set(q.id(), 0)
		}
	}
}

// leave takes a queue out of its tree, with what waits in it.
func (q *queue) leave() {
	if q.group != nil {
		q.tree.Leave(0)
		q.group = nil
	}
}

// regroup makes the trees that are this worker's, and ends those that are gone.
// Preconditions: the queues of ports are those of the view.
func (t *turn) regroup() {
	s := t.out.queues
	here := make(map[uint32]bool)
	for _, want := range t.view.trees {
		if t.view.worker(want) == t.out.worker {
			here[want.id()] = true
			t.group(want)
		}
	}
	for id, g := range s.all {
		if g.shared() && !here[id] {
			t.serve(g) // what was on its way between two classes
			g.tree.Close()
			s.wheel.Clear(id)
			delete(s.all, id)
		}
	}
}

// group makes a tree what it is to be, and hangs its ports' below it.
func (t *turn) group(want *sharing) {
	s := t.out.queues
	g := s.all[want.id()]
	if g == nil {
		g = &queue{port: want.root, dir: want.dir, tree: qdisc.NewTree(s.pool, s.seed+uint64(want.id()))}
		s.all[g.id()] = g
	}
	now := t.out.now()
	if g.spec == nil || !reflect.DeepEqual(g.spec, want.spec) {
		if g.tree.Apply(want.spec, now) != nil {
			return // Snapshot.Validate has seen that it is possible
		}
		g.spec = want.spec
	}
	for _, p := range want.ports {
		q := s.all[queueID(p.index, want.dir)]
		if q == nil || q.group == g && q.tree.Grouped() {
			continue
		}
		if q.tree.Under(g.tree, shareClass(p.index), now) == nil {
			q.group = g
			s.wheel.Clear(q.id())
		}
	}
	s.wheel.Set(g.id(), 0) // served in this round, when all queues are in their trees
}

// reportTree is the state of a tree. What ports' disciplines dropped while it waited is
// the ports' classes' too.
func (s *queues) reportTree(t *sharing, now int64) []qdisc.Report {
	all := s.all[t.id()].tree.Report(now)
	for i := range all[0].Classes {
		c := &all[0].Classes[i]
		if q := s.all[queueID(c.Handle.Minor(), t.dir)]; q != nil {
			c.Stats.Drops = q.tree.Dropped()
		}
	}
	return all
}

// errNoTree is for a tree that isn't there.
var errNoTree = errors.New("no such tree")

// Tree is the state of a tree across ports, of what leaves by them or, with in, of what
// comes in: of the node, if root is 0, or of the namespace of whose bridges it is the
// least index. The minor numbers of its classes are indices: of ports, and of namespaces;
// 0xffff is the node.
func (n *Netstack) Tree(root uint16, in bool) ([]qdisc.Report, error) {
	v := n.view.Load()
	for _, t := range v.trees {
		if t.root != root || t.dir == ingress != in {
			continue
		}
		w := v.worker(t)
		w.catchUp(v)
		w.mu.Lock()
		defer w.mu.Unlock()
		if s := w.turn.out.queues; s != nil && s.all[t.id()] != nil {
			return s.reportTree(t, w.turn.out.now()), nil
		}
	}
	return nil, fmt.Errorf("%d: %w", root, errNoTree)
}
