// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Probe is the first packet of a connection that somebody would like to open.
type Probe struct {
	From, To netip.Addr
	// Protocol is TCP, UDP or SCTP; any other is one that no port can allow.
	Protocol Protocol
	Port     uint16
}

// Verdict says whether a connection is allowed, and why.
type Verdict struct {
	Allowed bool `json:"allowed"`
	// Always says why policies have nothing to say here, if so.
	Always  string `json:"always,omitempty"`
	Egress  Side   `json:"egress"`
	Ingress Side   `json:"ingress"`
}

// Side is what the policies of one of the two pods say.
type Side struct {
	Allowed bool `json:"allowed"`
	// Policies isolate the pod in this direction. If there is none, all is allowed.
	Policies []string `json:"policies"`
	// Rule is the first one that allows it, as NAMESPACE/NAME ingress[0].from[1]
	// ports[0].
	Rule string `json:"rule,omitempty"`
}

// Check asks a cluster, which has to be valid, about a connection. It reads what
// the API says, word by word, for each policy and each rule.
func (cl *Cluster) Check(p Probe) Verdict {
	q := question{Cluster: cl, Probe: p, from: cl.podAt(p.From), to: cl.podAt(p.To)}
	v := Verdict{Always: q.always()}
	v.Egress, v.Ingress = q.side(egress), q.side(ingress)
	v.Allowed = v.Always != "" || v.Egress.Allowed && v.Ingress.Allowed
	return v
}

// question is a probe with the pods at its ends, nil where there is none.
type question struct {
	*Cluster
	Probe
	from, to *Pod
}

// podAt returns the pod that has an address of its own.
func (cl *Cluster) podAt(a netip.Addr) *Pod {
	i := slices.IndexFunc(cl.Pods, func(p Pod) bool { return !p.HostNetwork && slices.Contains(p.Addrs, a) })
	if i < 0 {
		return nil
	}
	return &cl.Pods[i]
}

// always returns the reason why no policy can forbid it.
func (q *question) always() string {
	switch {
	case q.from != nil && q.from == q.to:
		return "a pod reaches itself"
	case q.to != nil && q.isNode(q.From, q.to.Node):
		return "a node reaches its pods"
	case q.from != nil && q.isNode(q.To, q.from.Node):
		return "a pod reaches its node"
	}
	return ""
}

// isNode reports whether an address is that of a node, or of a pod in its network.
func (q *question) isNode(a netip.Addr, node string) bool {
	if node == "" {
		return false
	}
	return slices.ContainsFunc(q.Nodes, func(n Node) bool { return n.Name == node && slices.Contains(n.Addrs, a) }) ||
		slices.ContainsFunc(q.Pods, func(p Pod) bool { return p.HostNetwork && p.Node == node && slices.Contains(p.Addrs, a) })
}

// side asks the policies of one end.
func (q *question) side(d direction) Side {
	pod := q.to
	if d == egress {
		pod = q.from
	}
	s := Side{Allowed: true, Policies: []string{}}
	if pod == nil {
		return s
	}
	for i := range q.Policies {
		p := &q.Policies[i]
		if p.Namespace != pod.Namespace || !p.Spec.isolates(d) || !p.Spec.PodSelector.matches(pod.Labels) {
			continue
		}
		s.Policies = append(s.Policies, p.id())
		if rule := q.rule(p, d); s.Rule == "" && rule != "" {
			s.Rule = p.id() + " " + rule
		}
	}
	slices.Sort(s.Policies)
	s.Allowed = len(s.Policies) == 0 || s.Rule != ""
	return s
}

// rule returns the rule of a policy that allows it, "" if none does.
func (q *question) rule(p *Policy, d direction) string {
	for i, r := range p.Spec.rules(d) {
		place := fmt.Sprintf("%s[%d]", d, i)
		if len(r.peers) == 0 {
			if port, ok := q.portOf(&r, d, nil); ok {
				return place + port
			}
		}
		for j := range r.peers {
			if !q.isPeer(p.Namespace, &r.peers[j], d) {
				continue
			}
			if port, ok := q.portOf(&r, d, &r.peers[j]); ok {
				return fmt.Sprintf("%s.%s[%d]%s", place, d.peers(), j, port)
			}
		}
	}
	return ""
}

// isPeer reports whether the other end is one of the peer's.
func (q *question) isPeer(namespace string, peer *Peer, d direction) bool {
	addr, pod := q.From, q.from
	if d == egress {
		addr, pod = q.To, q.to
	}
	if peer.IPBlock != nil {
		return peer.IPBlock.has(addr)
	}
	if pod == nil {
		return false
	}
	if peer.NamespaceSelector == nil {
		return pod.Namespace == namespace && peer.PodSelector.matches(pod.Labels)
	}
	return peer.NamespaceSelector.matches(q.labels(pod.Namespace)) && (peer.PodSelector == nil || peer.PodSelector.matches(pod.Labels))
}

// labels returns those of a namespace, declared or not.
func (cl *Cluster) labels(namespace string) map[string]string {
	for i := range cl.Namespaces {
		if cl.Namespaces[i].Name == namespace {
			return withName(namespace, cl.Namespaces[i].Labels)
		}
	}
	return withName(namespace, nil)
}

// has reports whether an address is in the block, and in none of its exceptions.
func (b *IPBlock) has(a netip.Addr) bool {
	return netip.MustParsePrefix(b.CIDR).Contains(a) &&
		!slices.ContainsFunc(b.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(a) })
}

// portOf returns which of a rule's ports the packet goes to.
func (q *question) portOf(r *rule, d direction, peer *Peer) (string, bool) {
	if len(r.ports) == 0 {
		return "", true
	}
	for i := range r.ports {
		if q.isPort(&r.ports[i], d, peer) {
			return fmt.Sprintf(" ports[%d]", i), true
		}
	}
	return "", false
}

func (q *question) isPort(p *Port, d direction, peer *Peer) bool {
	if p.protocol() != q.Protocol {
		return false
	}
	if name := p.name(); name != "" {
		if q.to == nil || d == egress && peer != nil && peer.IPBlock != nil {
			return false // only pods have names for their ports
		}
		port, ok := q.to.port(q.Protocol, name)
		return ok && port == q.Port
	}
	first, last := p.bounds()
	return first <= q.Port && q.Port <= last
}

// String is the verdict in words.
func (v *Verdict) String() string {
	if v.Always != "" {
		return "allowed: " + v.Always + "\n"
	}
	word := map[bool]string{true: "allowed", false: "denied"}
	var b strings.Builder
	fmt.Fprintln(&b, word[v.Allowed])
	v.Egress.print(&b, "egress")
	v.Ingress.print(&b, "ingress")
	return b.String()
}

func (s *Side) print(b *strings.Builder, name string) {
	switch {
	case len(s.Policies) == 0:
		fmt.Fprintf(b, "    %s allowed: not isolated\n", name)
	case s.Allowed:
		fmt.Fprintf(b, "    %s allowed by %s\n", name, s.Rule)
	default:
		fmt.Fprintf(b, "    %s denied: isolated by %s\n", name, strings.Join(s.Policies, ", "))
	}
}

// Probes are the questions for two ends that are named: pods, as NAMESPACE/POD or
// POD in the namespace default, or addresses. There is one for each pair of
// addresses of a family.
func (cl *Cluster) Probes(from, to string, proto Protocol, port uint16) ([]Probe, error) {
	if slices.Contains(protocols(), proto) != (port != 0) {
		return nil, fmt.Errorf("%s, port %d: TCP, UDP and SCTP have a port, from 1 to 65535, and others none", proto, port)
	}
	sources, err := cl.addrsOf(from)
	if err != nil {
		return nil, err
	}
	destinations, err := cl.addrsOf(to)
	if err != nil {
		return nil, err
	}
	var out []Probe
	for _, a := range sources {
		for _, b := range destinations {
			if a.Is4() == b.Is4() {
				out = append(out, Probe{a, b, proto, port})
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s and %s have no addresses of the same family", from, to)
	}
	return out, nil
}

func (cl *Cluster) addrsOf(name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, areAddrs("address", []netip.Addr{a})
	}
	id := name
	if !strings.Contains(name, "/") {
		id = "default/" + name
	}
	i := slices.IndexFunc(cl.Pods, func(p Pod) bool { return p.id() == id })
	if i < 0 {
		return nil, fmt.Errorf("%s: neither an address nor a pod that runs", name)
	}
	if len(cl.Pods[i].Addrs) == 0 {
		return nil, fmt.Errorf("pod %s has no address", id)
	}
	return cl.Pods[i].Addrs, nil
}
