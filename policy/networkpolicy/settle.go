// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// settle looks again at what a change touched.
func (c *Compiler) settle(d *dirt) {
	for name := range d.namespaces {
		for _, p := range c.spaces[name].pods {
			d.pods[p] = true
		}
	}
	for p := range d.pods {
		if c.pod(p.id()) != p {
			delete(d.pods, p) // it has gone meanwhile
		}
	}
	for base, set := range c.peers {
		if set.users == 0 {
			c.forget(base)
			continue
		}
		c.settleMembers(set, d)
	}
	for p := range d.pods {
		c.setOwn(p, c.ownOf(p))
		for _, dir := range directions() {
			c.leadPod(p, dir, c.chainOf(p, dir))
		}
	}
}

// forget drops the sets that no rule looks into.
func (c *Compiler) forget(base string) {
	delete(c.peers, base)
	for _, f := range families() {
		name := f.setName(base)
		c.prog.set(name, "").users = 0
		c.prog.changedSets[name] = true
	}
}

// settleMembers asks the pods that changed, and of a new set all.
func (c *Compiler) settleMembers(set *peerSet, d *dirt) {
	ask := func(p *podState) {
		var elements []string
		if set.group.has(&p.Pod, c.spaces[p.Namespace].labels) {
			elements = set.elements(&p.Pod)
		}
		c.setMember(set, p.id(), elements)
	}
	if !set.fresh {
		for p := range d.pods {
			ask(p)
		}
		return
	}
	set.fresh = false
	for name, s := range c.spaces {
		if set.group.namespaces == nil && name != set.group.namespace {
			continue
		}
		for _, p := range s.pods {
			ask(p)
		}
	}
}

// setMember sets what a pod has in a set of peers.
func (c *Compiler) setMember(set *peerSet, id string, elements []string) {
	if slices.Equal(set.has[id], elements) {
		return
	}
	base := set.base()
	for _, e := range set.has[id] {
		c.prog.remove(familyOfElement(e).setName(base), e)
	}
	for _, e := range elements {
		c.prog.add(familyOfElement(e).setName(base), e)
	}
	set.has[id] = elements
	if len(elements) == 0 {
		delete(set.has, id)
	}
}

// familyOfElement tells the set of an element: only addresses of IPv6 have colons.
func familyOfElement(e string) family {
	if strings.Contains(e, ":") {
		return v6
	}
	return v4
}

// ownOf are the pairs of addresses between which a pod's traffic is always allowed:
// its own, and those of it and its node.
func (c *Compiler) ownOf(p *podState) []string {
	if p.HostNetwork || !c.here(p) {
		return nil
	}
	var out []string
	pair := func(a, b netip.Addr) {
		if a.Is4() == b.Is4() {
			out = append(out, fmt.Sprintf("%s . %s", a, b))
		}
	}
	var nodes []netip.Addr
	if p.Node != "" {
		nodes = c.nodes[p.Node].all()
	}
	for _, a := range p.Addrs {
		for _, b := range p.Addrs {
			pair(a, b)
		}
		for _, b := range nodes {
			pair(a, b)
			pair(b, a)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// all are the node's addresses, declared or known from a pod in its network.
func (n *node) all() []netip.Addr {
	out := slices.Clone(n.addrs)
	for _, id := range sorted(n.host) {
		out = append(out, n.host[id]...)
	}
	return out
}

// setOwn sets a pod's elements of the own set.
func (c *Compiler) setOwn(p *podState, own []string) {
	if slices.Equal(p.own, own) {
		return
	}
	for _, e := range p.own {
		c.prog.remove(familyOfElement(e).setName(ownSet), e)
	}
	for _, e := range own {
		c.prog.add(familyOfElement(e).setName(ownSet), e)
	}
	p.own = own
}

// here reports whether the ruleset works where the pod runs.
func (c *Compiler) here(p *podState) bool { return c.opt.Node == "" || p.Node == c.opt.Node }

// chainOf returns the chain of all policies that isolate a pod, which it shares
// with all pods for which they are the same; "" if there is none.
func (c *Compiler) chainOf(p *podState, d direction) string {
	if p.HostNetwork || !c.here(p) {
		return ""
	}
	s := c.spaces[p.Namespace]
	var names []string
	for name, policy := range s.policies {
		if policy.Spec.isolates(d) && policy.Spec.PodSelector.matches(p.Labels) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	chain := [...]string{"to/", "from/"}[d] + p.Namespace + "/" + digest(strings.Join(names, " "))
	if c.prog.chains[chain] == nil {
		var rules []string
		for _, name := range names {
			rules = append(rules, "jump "+policyChain(&s.policies[name].Policy, d))
		}
		c.prog.put(chain, append(rules, fmt.Sprintf("drop comment %q", d.String()+" is allowed by no policy")))
	}
	return chain
}

// leadPod makes a pod's addresses lead to a chain.
func (c *Compiler) leadPod(p *podState, d direction, chain string) {
	if p.chains[d] == chain {
		return
	}
	if old := p.chains[d]; old != "" {
		c.prog.chain(old).users--
		c.prog.changedChains[old] = true
	}
	if chain != "" {
		c.prog.chain(chain).users++
		c.prog.changedChains[chain] = c.prog.changedChains[chain] || c.prog.chains[chain].users == 1
	}
	for _, a := range p.Addrs {
		c.prog.lead(familyOf(a).setName(d.mapName()), a.String(), chain)
	}
	p.chains[d] = chain
}
