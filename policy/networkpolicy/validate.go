// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Validate refuses what the API server would: one error, which names the field and
// says what it may have. What comes from there has passed already; what people
// write into files has not, and nothing unchecked may get into the ruleset's text.
func (cl *Cluster) Validate() error {
	seen := map[string]bool{}
	once := func(kind, name string) error {
		if seen[kind+name] {
			return fmt.Errorf("%s %s is there twice", kind, name)
		}
		seen[kind+name] = true
		return nil
	}
	for i := range cl.Namespaces {
		n := &cl.Namespaces[i]
		if err := first(once("Namespace", n.Name), isLabel("Namespace", n.Name), areLabels("Namespace "+n.Name, n.Labels)); err != nil {
			return err
		}
	}
	for i := range cl.Nodes {
		n := &cl.Nodes[i]
		if err := first(once("Node", n.Name), isName("Node", n.Name), areAddrs("Node "+n.Name, n.Addrs)); err != nil {
			return err
		}
	}
	for i := range cl.Pods {
		if err := first(once("Pod", cl.Pods[i].id()), cl.Pods[i].validate()); err != nil {
			return err
		}
	}
	for i := range cl.Policies {
		if err := first(once("NetworkPolicy", cl.Policies[i].id()), cl.Policies[i].validate()); err != nil {
			return err
		}
	}
	return New(Options{}).checkAddrs(&Change{Cluster: *cl})
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// patterns of the API: names of namespaces, of most other things, keys and values
// of labels, and names of ports.
const (
	labelPattern = `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`
	namePattern  = labelPattern + `(\.` + labelPattern + `)*`
	wordPattern  = `[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?`
	keyPattern   = `(` + namePattern + `/)?` + wordPattern
)

// fits reports whether the whole text is of the pattern.
func fits(pattern, text string) bool {
	return regexp.MustCompile(`^(?:` + pattern + `)$`).MatchString(text)
}

func isLabel(what, name string) error {
	if !fits(labelPattern, name) {
		return fmt.Errorf("%s: name %q: must be at most 63 small letters, digits and -", what, name)
	}
	return nil
}

func isName(what, name string) error {
	if !fits(namePattern, name) || len(name) > 253 {
		return fmt.Errorf("%s: name %q: must be at most 253 small letters, digits, - and .", what, name)
	}
	return nil
}

func areLabels(what string, labels map[string]string) error {
	for _, key := range sorted(labels) {
		if err := isKey(what+": label", key); err != nil {
			return err
		}
		if err := isValue(what+": label "+key, labels[key]); err != nil {
			return err
		}
	}
	return nil
}

func isKey(what, key string) error {
	if !fits(keyPattern, key) {
		return fmt.Errorf("%s: key %q: must be at most 63 letters, digits, -, _ and ., with a domain and / in front if need be", what, key)
	}
	return nil
}

func isValue(what, value string) error {
	if value != "" && !fits(wordPattern, value) {
		return fmt.Errorf("%s: value %q: must be at most 63 letters, digits, -, _ and .", what, value)
	}
	return nil
}

func areAddrs(what string, addrs []netip.Addr) error {
	for _, a := range addrs {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("%s: address %s: must be one of IPv4 or IPv6", what, a)
		}
	}
	return nil
}

func (p *Pod) validate() error {
	what := "Pod " + p.id()
	err := first(isLabel(what+": namespace", p.Namespace), isName("Pod", p.Name), areLabels(what, p.Labels), areAddrs(what, p.Addrs))
	if err == nil && p.Node != "" {
		err = isName(what+": node", p.Node)
	}
	for _, port := range p.Ports {
		err = first(err, isPortName(what+": port", port.Name), isProtocol(what+": port "+port.Name, string(port.Protocol)),
			isPort(what+": port "+port.Name, int(port.Port)))
	}
	return err
}

func isPortName(what, name string) error {
	if len(name) > 15 || !fits(`[a-z0-9]+(-[a-z0-9]+)*`, name) || !strings.ContainsAny(name, "abcdefghijklmnopqrstuvwxyz") {
		return fmt.Errorf("%s: name %q: must be at most 15 small letters, digits and -, with a letter among them", what, name)
	}
	return nil
}

func isProtocol(what, name string) error {
	if !slices.Contains(protocols(), Protocol(name)) {
		return fmt.Errorf("%s: protocol %q: must be TCP, UDP or SCTP", what, name)
	}
	return nil
}

func isPort(what string, number int) error {
	if number < 1 || number > 65535 {
		return fmt.Errorf("%s: %d: must be 1 to 65535", what, number)
	}
	return nil
}

func (p *Policy) validate() error {
	what := "NetworkPolicy " + p.id() + ": "
	err := first(isLabel("NetworkPolicy: namespace", p.Namespace), isName("NetworkPolicy", p.Name),
		p.Spec.PodSelector.validate(what+"spec.podSelector"))
	if err != nil {
		return err
	}
	for _, t := range p.Spec.PolicyTypes {
		if t != "Ingress" && t != "Egress" {
			return fmt.Errorf("%sspec.policyTypes: %q: must be Ingress or Egress", what, t)
		}
	}
	for _, d := range directions() {
		for i, r := range p.Spec.rules(d) {
			if err := r.validate(fmt.Sprintf("%sspec.%s[%d]", what, d, i), d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *rule) validate(what string, d direction) error {
	for i := range r.ports {
		if err := r.ports[i].validate(fmt.Sprintf("%s.ports[%d]", what, i)); err != nil {
			return err
		}
	}
	for i := range r.peers {
		if err := r.peers[i].validate(fmt.Sprintf("%s.%s[%d]", what, d.peers(), i)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Port) validate(what string) error {
	if p.Protocol != nil {
		if err := isProtocol(what, *p.Protocol); err != nil {
			return err
		}
	}
	if p.Port != nil {
		err := isPort(what+".port", p.Port.Number)
		if p.Port.Name != "" {
			err = isPortName(what+".port", p.Port.Name)
		}
		if err != nil {
			return err
		}
	}
	if p.EndPort == nil {
		return nil
	}
	if p.Port == nil || p.Port.Name != "" {
		return fmt.Errorf("%s.endPort: needs a port that is a number", what)
	}
	if *p.EndPort < p.Port.Number || *p.EndPort > 65535 {
		return fmt.Errorf("%s.endPort: %d: must be %d, the port, to 65535", what, *p.EndPort, p.Port.Number)
	}
	return nil
}

func (p *Peer) validate(what string) error {
	selects := p.PodSelector != nil || p.NamespaceSelector != nil
	if p.IPBlock != nil {
		if selects {
			return fmt.Errorf("%s: ipBlock excludes podSelector and namespaceSelector", what)
		}
		return p.IPBlock.validate(what + ".ipBlock")
	}
	if !selects {
		return fmt.Errorf("%s: must have a podSelector, a namespaceSelector or an ipBlock", what)
	}
	for name, s := range map[string]*Selector{"podSelector": p.PodSelector, "namespaceSelector": p.NamespaceSelector} {
		if s != nil {
			if err := s.validate(what + "." + name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *IPBlock) validate(what string) error {
	all, err := prefix(what+".cidr", b.CIDR)
	if err != nil {
		return err
	}
	for i, e := range b.Except {
		part, err := prefix(fmt.Sprintf("%s.except[%d]", what, i), e)
		if err != nil {
			return err
		}
		if part.Bits() <= all.Bits() || !all.Contains(part.Addr()) {
			return fmt.Errorf("%s.except[%d]: %s: must be a part of %s", what, i, e, b.CIDR)
		}
	}
	return nil
}

func prefix(what, text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s: %q: must be a prefix, as 10.0.0.0/8", what, text)
	}
	return p, nil
}

func (s *Selector) validate(what string) error {
	if err := areLabels(what+".matchLabels", s.MatchLabels); err != nil {
		return err
	}
	for i := range s.MatchExpressions {
		if err := s.MatchExpressions[i].validate(fmt.Sprintf("%s.matchExpressions[%d]", what, i)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Requirement) validate(what string) error {
	if err := isKey(what, r.Key); err != nil {
		return err
	}
	switch r.Operator {
	case "In", "NotIn":
		if len(r.Values) == 0 {
			return fmt.Errorf("%s: %s needs values", what, r.Operator)
		}
	case "Exists", "DoesNotExist":
		if len(r.Values) > 0 {
			return fmt.Errorf("%s: %s takes no values", what, r.Operator)
		}
	default:
		return fmt.Errorf("%s.operator: %q: must be In, NotIn, Exists or DoesNotExist", what, r.Operator)
	}
	for _, v := range r.Values {
		if err := isValue(what, v); err != nil {
			return err
		}
	}
	return nil
}
