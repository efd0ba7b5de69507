// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// dirt is what a change leaves to be looked at again.
type dirt struct {
	pods       map[*podState]bool
	namespaces map[string]bool // all pods in them
}

// checkAddrs refuses an address that two pods would have: which of them a packet
// is of, nobody could say.
func (c *Compiler) checkAddrs(ch *Change) error {
	after := map[netip.Addr]string{} // "": free
	forget := func(id string) {
		if p := c.pod(id); p != nil {
			for _, a := range p.Addrs {
				after[a] = ""
			}
		}
	}
	for _, id := range ch.Gone.Pods {
		forget(id)
	}
	for i := range ch.Pods {
		forget(ch.Pods[i].id())
	}
	for i := range ch.Pods {
		p := &ch.Pods[i]
		if p.HostNetwork {
			continue
		}
		for _, a := range p.Addrs {
			other, told := after[a]
			if !told {
				other = c.owner[a]
			}
			if other != "" && other != p.id() {
				return fmt.Errorf("pod %s: address %s is that of pod %s, too", p.id(), a, other)
			}
			after[a] = p.id()
		}
	}
	return nil
}

// pod finds a pod, nil if there is none.
func (c *Compiler) pod(id string) *podState {
	namespace, name, _ := strings.Cut(id, "/")
	if s := c.spaces[namespace]; s != nil {
		return s.pods[name]
	}
	return nil
}

// takeAway removes what is gone.
func (c *Compiler) takeAway(ch *Change, d *dirt) {
	for _, id := range ch.Gone.Policies {
		namespace, name, _ := strings.Cut(id, "/")
		if s := c.spaces[namespace]; s != nil && s.policies[name] != nil {
			c.dropPolicy(s.policies[name], d)
			delete(s.policies, name)
		}
	}
	for _, id := range ch.Gone.Pods {
		if p := c.pod(id); p != nil {
			c.dropPod(p, d)
		}
	}
	for _, name := range ch.Gone.Namespaces {
		if c.spaces[name] != nil {
			c.setLabels(name, nil, d)
		}
	}
	for _, name := range ch.Gone.Nodes {
		if c.nodes[name] != nil {
			c.setNode(&Node{Name: name}, d)
		}
	}
}

// putIn adds and replaces.
func (c *Compiler) putIn(ch *Change, d *dirt) {
	for i := range ch.Namespaces {
		c.setLabels(ch.Namespaces[i].Name, ch.Namespaces[i].Labels, d)
	}
	for i := range ch.Nodes {
		c.setNode(&ch.Nodes[i], d)
	}
	for i := range ch.Pods {
		c.releaseAddrs(&ch.Pods[i], d) // before any is taken: they may have been exchanged
	}
	for i := range ch.Pods {
		c.setPod(&ch.Pods[i], d)
	}
	for i := range ch.Policies {
		c.setPolicy(&ch.Policies[i], d)
	}
}

func (c *Compiler) setLabels(name string, labels map[string]string, d *dirt) {
	c.space(name).labels = withName(name, labels)
	d.namespaces[name] = true
}

func (c *Compiler) setNode(n *Node, d *dirt) {
	have := c.node(n.Name)
	have.addrs = n.Addrs
	d.all(have)
}

// all marks a node's pods.
func (d *dirt) all(n *node) {
	for _, p := range n.pods {
		d.pods[p] = true
	}
}

// releaseAddrs takes what hangs on a pod's old addresses off them, unless they
// stay.
func (c *Compiler) releaseAddrs(p *Pod, d *dirt) {
	old := c.pod(p.id())
	if old == nil || slices.Equal(old.Addrs, p.Addrs) && old.HostNetwork == p.HostNetwork && old.Node == p.Node {
		return
	}
	c.detach(old, d)
}

// detach takes a pod out of the maps, the own set and its node.
func (c *Compiler) detach(p *podState, d *dirt) {
	for _, dir := range directions() {
		c.leadPod(p, dir, "")
	}
	c.setOwn(p, nil)
	if n := c.nodes[p.Node]; n != nil {
		delete(n.pods, p.id())
		if n.host[p.id()] != nil {
			delete(n.host, p.id())
			d.all(n)
		}
	}
	for _, a := range p.Addrs {
		if c.owner[a] == p.id() {
			delete(c.owner, a)
		}
	}
}

func (c *Compiler) setPod(p *Pod, d *dirt) {
	s := c.space(p.Namespace)
	state := s.pods[p.Name]
	if state == nil {
		state = &podState{}
		s.pods[p.Name] = state
	}
	state.Pod = *p
	d.pods[state] = true
	n := c.node(p.Node)
	if p.HostNetwork {
		n.host[p.id()] = p.Addrs
		d.all(n)
		return
	}
	n.pods[p.id()] = state
	for _, a := range p.Addrs {
		c.owner[a] = p.id()
	}
}

// dropPod removes a pod, which is then in no set.
func (c *Compiler) dropPod(p *podState, d *dirt) {
	c.detach(p, d)
	for _, base := range sorted(c.peers) {
		c.setMember(c.peers[base], p.id(), nil)
	}
	delete(c.spaces[p.Namespace].pods, p.Name)
}

func (c *Compiler) setPolicy(p *Policy, d *dirt) {
	s := c.space(p.Namespace)
	if old := s.policies[p.Name]; old != nil {
		c.dropPolicy(old, d)
	}
	state := &policyState{Policy: *p}
	s.policies[p.Name] = state
	d.selected(s, p)
	for _, dir := range directions() {
		rules, uses := translate(p, dir)
		if !p.Spec.isolates(dir) {
			rules, uses = nil, nil
		}
		for _, base := range sorted(uses) {
			c.use(base, uses[base])
		}
		state.uses[dir] = sorted(uses)
		if p.Spec.isolates(dir) {
			c.prog.put(policyChain(p, dir), rules)
			c.prog.chain(policyChain(p, dir)).users++
		}
	}
}

// dropPolicy takes back what setPolicy did.
func (c *Compiler) dropPolicy(p *policyState, d *dirt) {
	d.selected(c.spaces[p.Namespace], &p.Policy)
	for _, dir := range directions() {
		for _, base := range p.uses[dir] {
			c.peers[base].users--
		}
		if p.Spec.isolates(dir) {
			name := policyChain(&p.Policy, dir)
			c.prog.chain(name).users--
			c.prog.changedChains[name] = true
		}
	}
}

// selected marks the pods that a policy selects.
func (d *dirt) selected(s *space, p *Policy) {
	for _, pod := range s.pods {
		if p.Spec.PodSelector.matches(pod.Labels) {
			d.pods[pod] = true
		}
	}
}

// policyChain is the chain with a policy's rules of one direction.
func policyChain(p *Policy, d direction) string {
	return [...]string{"in/", "out/"}[d] + shortened(p.id(), 100)
}

// use makes sure that the sets of members are there.
func (c *Compiler) use(base string, m members) {
	p := c.peers[base]
	if p == nil {
		p = &peerSet{members: m, has: map[string][]string{}, fresh: true}
		c.peers[base] = p
		for _, f := range families() {
			c.prog.set(f.setName(base), m.decl(f)).users = 1
		}
	}
	p.users++
}
