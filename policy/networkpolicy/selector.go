// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"maps"
	"slices"
	"strings"
)

// nameLabel is a label that the API server gives to each namespace.
const nameLabel = "kubernetes.io/metadata.name"

// matches reports whether labels are what the selector asks for.
func (s *Selector) matches(labels map[string]string) bool {
	for key, want := range s.MatchLabels {
		if got, ok := labels[key]; !ok || got != want {
			return false
		}
	}
	for i := range s.MatchExpressions {
		if !s.MatchExpressions[i].matches(labels) {
			return false
		}
	}
	return true
}

func (r *Requirement) matches(labels map[string]string) bool {
	value, has := labels[r.Key]
	switch r.Operator {
	case "In":
		return has && slices.Contains(r.Values, value)
	case "NotIn":
		return !has || !slices.Contains(r.Values, value) // what isn't there is not in
	case "Exists":
		return has
	}
	return !has // DoesNotExist
}

// String is the selector as kubectl prints it, the same for all that mean the same
// but for requirements that say a thing twice.
func (s *Selector) String() string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		parts = append(parts, key+"="+s.MatchLabels[key])
	}
	var more []string
	for _, r := range s.MatchExpressions {
		more = append(more, r.String())
	}
	slices.Sort(more)
	return strings.Join(append(parts, more...), ",")
}

func (r *Requirement) String() string {
	values := "(" + strings.Join(slices.Sorted(slices.Values(r.Values)), ",") + ")"
	switch r.Operator {
	case "In":
		return r.Key + " in " + values
	case "NotIn":
		return r.Key + " notin " + values
	case "Exists":
		return r.Key
	}
	return "!" + r.Key
}

// group are pods that a peer, or a policy, selects: of one namespace, or of those
// that a selector names.
type group struct {
	namespace  string
	namespaces *Selector // nil: namespace
	pods       *Selector // nil: all
}

// of returns the group that a peer of a policy in a namespace means.
func (p *Peer) group(namespace string) group {
	if p.NamespaceSelector == nil {
		return group{namespace: namespace, pods: p.PodSelector}
	}
	return group{namespaces: p.NamespaceSelector, pods: p.PodSelector}
}

// has reports whether a pod is in the group, whose namespace has those labels. One
// in the node's network is in none.
func (g *group) has(p *Pod, labels map[string]string) bool {
	if p.HostNetwork {
		return false
	}
	if g.namespaces == nil && p.Namespace != g.namespace {
		return false
	}
	if g.namespaces != nil && !g.namespaces.matches(labels) {
		return false
	}
	return g.pods == nil || g.pods.matches(p.Labels)
}

// String says who is in it, the same for the same group.
func (g *group) String() string {
	where := "namespace " + g.namespace
	if g.namespaces != nil {
		where = "namespaces [" + g.namespaces.String() + "]"
	}
	pods := ""
	if g.pods != nil {
		pods = g.pods.String()
	}
	return where + " pods [" + pods + "]"
}

// withName adds the label that the API server adds.
func withName(name string, labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	out[nameLabel] = name
	return out
}
