// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sluice/policy/nft"
)

// Names in the ruleset, which docs/networkpolicy.md explains.
const (
	table        = "inet networkpolicy"
	ingressChain = "ingress"
	ownSet       = "own"
)

// mapName is the map from pods to what isolates them.
func (d direction) mapName() string { return [...]string{"to", "from"}[d] }

// Options say for whom the ruleset is.
type Options struct {
	// Node is the one on which the ruleset works: only its pods are isolated, since
	// the others are where they run. "" is all nodes.
	Node string
}

// Change is what changed in a cluster. What it has replaces what had its name.
type Change struct {
	Cluster
	// Gone are names of what is deleted: of namespaces and nodes as they are, of pods
	// and policies as NAMESPACE/NAME.
	Gone struct{ Namespaces, Nodes, Pods, Policies []string }
}

// Compiler holds a cluster, and the ruleset that it means.
type Compiler struct {
	opt    Options
	prog   *program
	begun  bool
	spaces map[string]*space
	nodes  map[string]*node
	owner  map[netip.Addr]string // of the pods' addresses
	peers  map[string]*peerSet   // by base
}

// space is a namespace with what is in it.
type space struct {
	labels   map[string]string
	pods     map[string]*podState
	policies map[string]*policyState
}

type node struct {
	addrs []netip.Addr            // as declared
	host  map[string][]netip.Addr // of pods in its network
	pods  map[string]*podState    // the others
}

type podState struct {
	Pod
	chains [2]string // of each direction, "" if it isn't isolated
	own    []string  // its elements of the own set
}

type policyState struct {
	Policy
	uses [2][]string // bases of the sets in use, by direction
}

type peerSet struct {
	members
	has   map[string][]string // by pod: its elements
	fresh bool                // no pod has been asked yet
	users int
}

// New returns a compiler for a cluster in which nothing is.
func New(o Options) *Compiler {
	return &Compiler{
		opt: o, prog: newProgram(), spaces: map[string]*space{}, nodes: map[string]*node{},
		owner: map[netip.Addr]string{}, peers: map[string]*peerSet{},
	}
}

// Compile returns a compiler that has seen a cluster.
func Compile(cl *Cluster, o Options) (*Compiler, error) {
	c := New(o)
	_, err := c.Change(&Change{Cluster: *cl})
	return c, err
}

// Ruleset returns the ruleset, by itself.
func (c *Compiler) Ruleset() (*nft.Ruleset, error) {
	return Apply(new(nft.Ruleset), c.whole())
}

// List writes the ruleset as nft(8) lists it.
func (c *Compiler) List(w io.Writer) error {
	rs, err := c.Ruleset()
	if err == nil {
		rs.List(w, &nft.ListOptions{})
	}
	return err
}

// ListJSON writes it as libnftables-json(5).
func (c *Compiler) ListJSON(w io.Writer) error {
	rs, err := c.Ruleset()
	if err != nil {
		return err
	}
	_, err = w.Write(rs.ListJSON(&nft.ListOptions{}))
	return err
}

// Apply applies commands to a ruleset, in one transaction.
func Apply(rs *nft.Ruleset, commands []string) (*nft.Ruleset, error) {
	parsed, err := nft.Parse("networkpolicy", strings.Join(commands, "\n")+"\n", nil)
	if err != nil {
		return nil, err
	}
	res, err := rs.Apply(parsed, nil)
	if err != nil {
		return nil, err
	}
	return res.Ruleset, nil
}

// whole returns the commands that make the ruleset from nothing.
func (c *Compiler) whole() []string {
	p := newProgram()
	for name, s := range c.prog.sets {
		to := p.set(name, s.decl)
		to.users, to.known = s.users, s.decl == "" // begin has declared it
		for key, e := range s.elems {
			p.remember(name, key)
			to.elems[key] = e
		}
	}
	for name, ch := range c.prog.chains {
		p.put(name, ch.rules)
		p.chains[name].users = ch.users
	}
	return append(begin(), p.commands()...)
}

// begin is what is there without a pod.
func begin() []string {
	out := []string{"add table " + table}
	for _, f := range families() {
		out = append(out, fmt.Sprintf("add set %s %s { type %s . %s; }", table, f.setName(ownSet), f.typ(), f.typ()))
		for _, d := range directions() {
			out = append(out, fmt.Sprintf("add map %s %s { type %s : verdict; }", table, f.setName(d.mapName()), f.typ()))
		}
	}
	out = append(out, "add chain "+table+" "+ingressChain,
		"add chain "+table+" forward { type filter hook forward priority filter; policy accept; }")
	rule := func(chain, text string) { out = append(out, "add rule "+table+" "+chain+" "+text) }
	rule("forward", "ct state established,related accept")
	for _, f := range families() {
		rule("forward", fmt.Sprintf("%s saddr . %s daddr @%s accept", f.header(), f.header(), f.setName(ownSet)))
	}
	for _, f := range families() {
		rule("forward", fmt.Sprintf("%s saddr vmap @%s", f.header(), f.setName(egress.mapName())))
	}
	rule("forward", "goto "+ingressChain)
	for _, f := range families() {
		rule(ingressChain, fmt.Sprintf("%s daddr vmap @%s", f.header(), f.setName(ingress.mapName())))
	}
	rule(ingressChain, "accept")
	return out
}

// start makes the program know of what begin made.
func (c *Compiler) start() []string {
	c.begun = true
	for _, f := range families() {
		for _, base := range []string{ownSet, ingress.mapName(), egress.mapName()} {
			s := c.prog.set(f.setName(base), "")
			s.known, s.users = true, 1
		}
	}
	return begin()
}

// Change brings the compiler to a new state of the cluster, and returns the
// commands of nft that do the same to the ruleset, to be applied in one
// transaction. If it is refused, nothing has changed.
func (c *Compiler) Change(ch *Change) ([]string, error) {
	if err := first(ch.Validate(), c.checkAddrs(ch)); err != nil {
		return nil, err
	}
	var out []string
	if !c.begun {
		out = c.start()
	}
	d := &dirt{pods: map[*podState]bool{}, namespaces: map[string]bool{}}
	c.takeAway(ch, d)
	c.putIn(ch, d)
	c.settle(d)
	return append(out, c.prog.commands()...), nil
}

// space returns a namespace, which is made if there is none.
func (c *Compiler) space(name string) *space {
	s := c.spaces[name]
	if s == nil {
		s = &space{labels: withName(name, nil), pods: map[string]*podState{}, policies: map[string]*policyState{}}
		c.spaces[name] = s
	}
	return s
}

func (c *Compiler) node(name string) *node {
	n := c.nodes[name]
	if n == nil {
		n = &node{host: map[string][]netip.Addr{}, pods: map[string]*podState{}}
		c.nodes[name] = n
	}
	return n
}

// sorted are the keys of a map in order, so that the same change makes the same
// commands.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
