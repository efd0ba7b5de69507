// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"net/netip"
	"slices"
)

// Cluster is what policies are about, as far as they see it.
type Cluster struct {
	Namespaces []Namespace
	Nodes      []Node
	Pods       []Pod
	Policies   []Policy
}

// Namespace has the labels that namespaceSelector looks at. A namespace that pods
// or policies are in, and that isn't declared, has its name as its only label.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Node is a machine. Traffic between it and its own pods is always allowed.
type Node struct {
	Name  string
	Addrs []netip.Addr
}

// Pod is a pod that runs. One of the node's network isn't selected by anything:
// its addresses are the node's.
type Pod struct {
	Namespace, Name string
	Labels          map[string]string
	Node            string
	HostNetwork     bool
	Addrs           []netip.Addr
	Ports           []NamedPort
}

// id is the pod's name in messages, and in maps.
func (p *Pod) id() string { return p.Namespace + "/" + p.Name }

// port returns the port of that name, which may differ between protocols. Of two,
// the first one counts, as for a Service.
func (p *Pod) port(proto Protocol, name string) (uint16, bool) {
	i := slices.IndexFunc(p.Ports, func(n NamedPort) bool { return n.Name == name && n.Protocol == proto })
	if i < 0 {
		return 0, false
	}
	return p.Ports[i].Port, true
}

// NamedPort is a port of a container that has a name.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Protocol is TCP, UDP or SCTP in policies; Check takes others, too.
type Protocol string

// The protocols that policies know.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// protocols are in the order in which their rules are written.
func protocols() []Protocol { return []Protocol{TCP, UDP, SCTP} }

// Policy is a NetworkPolicy.
type Policy struct {
	Namespace, Name string
	Spec            Spec
}

func (p *Policy) id() string { return p.Namespace + "/" + p.Name }

// Spec is the spec of a NetworkPolicy, with the names and the meaning of the API's.
type Spec struct {
	PodSelector Selector      `yaml:"podSelector"`
	Ingress     []IngressRule `yaml:"ingress"`
	Egress      []EgressRule  `yaml:"egress"`
	PolicyTypes []string      `yaml:"policyTypes"`
}

// IngressRule allows what comes from any of the peers to any of the ports.
type IngressRule struct {
	Ports []Port `yaml:"ports"`
	From  []Peer `yaml:"from"`
}

// EgressRule allows what goes to any of the peers at any of the ports.
type EgressRule struct {
	Ports []Port `yaml:"ports"`
	To    []Peer `yaml:"to"`
}

// Selector is a LabelSelector. An empty one selects everything.
type Selector struct {
	MatchLabels      map[string]string `yaml:"matchLabels"`
	MatchExpressions []Requirement     `yaml:"matchExpressions"`
}

// Requirement is one of a selector's matchExpressions.
type Requirement struct {
	Key      string   `yaml:"key"`
	Operator string   `yaml:"operator"`
	Values   []string `yaml:"values"`
}

// Peer is whom a rule allows. A nil selector and an empty one differ.
type Peer struct {
	PodSelector       *Selector `yaml:"podSelector"`
	NamespaceSelector *Selector `yaml:"namespaceSelector"`
	IPBlock           *IPBlock  `yaml:"ipBlock"`
}

// IPBlock is a prefix without some of its parts.
type IPBlock struct {
	CIDR   string   `yaml:"cidr"`
	Except []string `yaml:"except"`
}

// Port is a port of the destination, by number or name, or a range of them. A nil
// one is all ports of the protocol.
type Port struct {
	Protocol *string  `yaml:"protocol"`
	Port     *PortRef `yaml:"port"`
	EndPort  *int     `yaml:"endPort"`
}

// PortRef is a number, or else a name.
type PortRef struct {
	Number int
	Name   string
}

// UnmarshalYAML tells numbers from names: "80" in quotes is a name.
func (r *PortRef) UnmarshalYAML(unmarshal func(any) error) error {
	var number int
	if unmarshal(&number) == nil {
		var text any
		if err := unmarshal(&text); err != nil {
			return err
		}
		if _, quoted := text.(string); !quoted {
			r.Number = number
			return nil
		}
	}
	return unmarshal(&r.Name)
}

// direction is one of the two that a policy isolates.
type direction uint8

const (
	ingress direction = iota
	egress
)

func directions() []direction { return []direction{ingress, egress} }

func (d direction) String() string { return [...]string{"ingress", "egress"}[d] }

// peers is the name of a rule's field with the peers.
func (d direction) peers() string { return [...]string{"from", "to"}[d] }

// rule is a rule of either direction.
type rule struct {
	ports []Port
	peers []Peer
}

// rules returns the rules of one direction.
func (s *Spec) rules(d direction) []rule {
	var out []rule
	if d == ingress {
		for i := range s.Ingress {
			out = append(out, rule{s.Ingress[i].Ports, s.Ingress[i].From})
		}
		return out
	}
	for i := range s.Egress {
		out = append(out, rule{s.Egress[i].Ports, s.Egress[i].To})
	}
	return out
}

// isolates reports whether the pods that the policy selects are isolated in that
// direction. Without policyTypes ingress always is, and egress if there are rules.
func (s *Spec) isolates(d direction) bool {
	if len(s.PolicyTypes) > 0 {
		return slices.Contains(s.PolicyTypes, [...]string{"Ingress", "Egress"}[d])
	}
	return d == ingress || len(s.Egress) > 0
}

// protocol of a port; TCP if none is said.
func (p *Port) protocol() Protocol {
	if p.Protocol == nil {
		return TCP
	}
	return Protocol(*p.Protocol)
}

// bounds are the numbers that a port without a name stands for.
func (p *Port) bounds() (first, last uint16) {
	switch {
	case p.Port == nil:
		return 0, 65535
	case p.EndPort == nil:
		return uint16(p.Port.Number), uint16(p.Port.Number)
	}
	return uint16(p.Port.Number), uint16(*p.EndPort)
}

// name is the port's name, if it has one.
func (p *Port) name() string {
	if p.Port == nil {
		return ""
	}
	return p.Port.Name
}
