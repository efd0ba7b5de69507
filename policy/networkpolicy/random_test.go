// SPDX-License-Identifier: Apache-2.0

package networkpolicy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/conntrack"
	"sluice/policy/networkpolicy"
	"sluice/policy/nft"
)

// gen makes clusters so small and so alike that policies meet pods, and each other.
type gen struct{ *rand.Rand }

func pick[T any](g gen, of ...T) T { return of[g.IntN(len(of))] }

func (g gen) namespace() string { return pick(g, "x", "y", "z") }
func (g gen) podName() string   { return pick(g, "a", "b", "c", "d", "e", "f") }
func (g gen) node() string      { return pick(g, "n1", "n2", "") }

func (g gen) labels() map[string]string {
	out := map[string]string{}
	for range g.IntN(3) {
		out[pick(g, "app", "role")] = pick(g, "web", "db", "")
	}
	return out
}

func (g gen) cluster() *networkpolicy.Cluster {
	cl := &networkpolicy.Cluster{}
	for _, name := range []string{"x", "y", "z"} {
		if g.IntN(4) != 0 {
			cl.Namespaces = append(cl.Namespaces, networkpolicy.Namespace{Name: name, Labels: g.labels()})
		}
	}
	for i, name := range []string{"n1", "n2"} {
		if g.IntN(4) != 0 {
			cl.Nodes = append(cl.Nodes, g.nodeOf(name, i))
		}
	}
	taken := map[string]bool{}
	for range 4 + g.IntN(8) {
		if p := g.pod(); !taken[p.Namespace+p.Name] {
			taken[p.Namespace+p.Name] = true
			cl.Pods = append(cl.Pods, p)
		}
	}
	for i := range 1 + g.IntN(5) {
		cl.Policies = append(cl.Policies, g.policy(fmt.Sprintf("p%d", i)))
	}
	return cl
}

func (g gen) nodeOf(name string, i int) networkpolicy.Node {
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{192, 168, byte(i), 1}), netip.MustParseAddr(fmt.Sprintf("fd00:ffff::%d", i+1))}
	return networkpolicy.Node{Name: name, Addrs: addrs[:1+g.IntN(2)]}
}

// pod has addresses that its name tells, so that no two have the same.
func (g gen) pod() networkpolicy.Pod {
	p := networkpolicy.Pod{Namespace: g.namespace(), Name: g.podName(), Labels: g.labels(), Node: g.node()}
	space, host := p.Namespace[0]-'x', p.Name[0]-'a'+1
	p.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, space, host}), netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", space, host))}
	switch g.IntN(8) {
	case 0:
		p.Addrs = p.Addrs[:1]
	case 1:
		p.Addrs = p.Addrs[1:]
	case 2:
		p.Addrs = append(p.Addrs, netip.AddrFrom4([4]byte{10, 1, space, host}))
	case 3:
		p.HostNetwork = true
		p.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{192, 168, byte(g.IntN(3)), 1})}
	}
	for range g.IntN(3) {
		p.Ports = append(p.Ports, networkpolicy.NamedPort{
			Name: pick(g, "http", "dns"), Protocol: pick(g, networkpolicy.TCP, networkpolicy.UDP), Port: g.number(),
		})
	}
	return p
}

func (g gen) number() uint16 { return pick[uint16](g, 79, 80, 81, 82, 8080) }

func (g gen) policy(name string) networkpolicy.Policy {
	p := networkpolicy.Policy{Namespace: g.namespace(), Name: name}
	p.Spec.PodSelector = g.selector()
	p.Spec.PolicyTypes = pick(g, nil, []string{}, []string{"Ingress"}, []string{"Egress"}, []string{"Ingress", "Egress"}, []string{"Ingress", "Egress"})
	for range g.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkpolicy.IngressRule{Ports: g.ports(), From: g.peers()})
	}
	for range g.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, networkpolicy.EgressRule{Ports: g.ports(), To: g.peers()})
	}
	return p
}

func (g gen) selector() networkpolicy.Selector {
	s := networkpolicy.Selector{}
	if g.IntN(3) == 0 {
		s.MatchLabels = g.labels()
	}
	for range g.IntN(5) / 3 {
		r := networkpolicy.Requirement{Key: pick(g, "app", "role"), Operator: pick(g, "In", "NotIn", "Exists", "DoesNotExist")}
		if strings.HasSuffix(r.Operator, "In") {
			r.Values = pick(g, []string{"web"}, []string{"db", "web"}, []string{""})
		}
		s.MatchExpressions = append(s.MatchExpressions, r)
	}
	return s
}

func (g gen) spaces() networkpolicy.Selector {
	if g.IntN(3) == 0 {
		return networkpolicy.Selector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": g.namespace()}}
	}
	return g.selector()
}

func (g gen) peers() []networkpolicy.Peer {
	var out []networkpolicy.Peer
	for range g.IntN(4) {
		var p networkpolicy.Peer
		pods, spaces := g.selector(), g.spaces()
		switch g.IntN(4) {
		case 0:
			p.PodSelector = &pods
		case 1:
			p.NamespaceSelector = &spaces
		case 2:
			p.PodSelector, p.NamespaceSelector = &pods, &spaces
		case 3:
			p.IPBlock = g.block()
		}
		out = append(out, p)
	}
	return out
}

func (g gen) block() *networkpolicy.IPBlock {
	return pick(g,
		&networkpolicy.IPBlock{CIDR: "10.0.0.0/8"},
		&networkpolicy.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.0.0.0/24"}},
		&networkpolicy.IPBlock{CIDR: "10.0.0.0/16", Except: []string{"10.0.0.0/29", "10.0.1.2/31", "10.0.0.3/32"}},
		&networkpolicy.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.0.0.0/15", "0.0.0.0/1", "255.255.255.255/32"}},
		&networkpolicy.IPBlock{CIDR: "192.0.2.7/24"},
		&networkpolicy.IPBlock{CIDR: "::/0", Except: []string{"fd00:1::/32"}},
		&networkpolicy.IPBlock{CIDR: "fd00::/16", Except: []string{"fd00::/127", "fd00:2::4/126"}},
	)
}

func (g gen) ports() []networkpolicy.Port {
	var out []networkpolicy.Port
	for range g.IntN(4) {
		var p networkpolicy.Port
		if g.IntN(3) != 0 {
			p.Protocol = new(pick(g, "TCP", "UDP", "SCTP"))
		}
		switch g.IntN(4) {
		case 0, 1:
			p.Port = &networkpolicy.PortRef{Number: int(g.number())}
			if g.IntN(3) == 0 {
				p.EndPort = new(p.Port.Number + g.IntN(4))
			}
		case 2:
			p.Port = &networkpolicy.PortRef{Name: pick(g, "http", "dns", "none")}
		}
		out = append(out, p)
	}
	return out
}

// probe asks mostly about pods.
func (g gen) probe(cl *networkpolicy.Cluster) networkpolicy.Probe {
	p := networkpolicy.Probe{From: g.addr(cl), To: g.addr(cl), Port: g.number()}
	for p.From.Is4() != p.To.Is4() {
		p.To = g.addr(cl)
	}
	p.Protocol = pick(g, networkpolicy.TCP, networkpolicy.TCP, networkpolicy.UDP, networkpolicy.SCTP, "ICMP")
	return p
}

func (g gen) addr(cl *networkpolicy.Cluster) netip.Addr {
	if g.IntN(6) != 0 {
		for range 5 {
			if p := pick(g, cl.Pods...); len(p.Addrs) > 0 {
				return pick(g, p.Addrs...)
			}
		}
	}
	text := pick(g, "192.0.2.9", "10.0.0.9", "198.51.100.1", "192.168.0.1", "192.168.1.1", "fd00:ffff::1", "2001:db8::1", "fd00:1::99", "fd00::1", "10.0.1.1")
	return netip.MustParseAddr(text)
}

// rounds is how many clusters a test makes: few, or as many as the environment says.
func rounds(t *testing.T, usual int) int {
	t.Helper()
	if s := os.Getenv("NETPOL_CLUSTERS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return usual / 10
	}
	return usual
}

// TestRulesetSaysWhatTheAPISays compares the compiled ruleset, in the engine and in
// the interpreter, with what Check reads in the policies themselves.
func TestRulesetSaysWhatTheAPISays(t *testing.T) {
	allowed, denied := 0, 0
	for i := range rounds(t, 60) {
		g := gen{rand.New(rand.NewPCG(uint64(i), 1))}
		cl := g.cluster()
		c, err := networkpolicy.Compile(cl, networkpolicy.Options{})
		if err != nil {
			t.Fatalf("cluster %d: %v", i, err)
		}
		rs := ruleset(t, c)
		j := newJudge(t, rs)
		for range 200 {
			p := g.probe(cl)
			want := cl.Check(p)
			if got := j.allows(t, p, conntrack.New); got != want.Allowed {
				t.Fatalf("cluster %d, %+v: ruleset says %v, want %+v\n%s\n%+v", i, p, got, want, listing(rs), cl)
			}
			if want.Allowed {
				allowed++
			} else {
				denied++
			}
			if !j.allows(t, p, conntrack.Established) || !j.allows(t, p, conntrack.Related) {
				t.Fatalf("cluster %d, %+v: a reply, or an error about it, is dropped", i, p)
			}
		}
		j.ev.Close()
		j.ev = nil
	}
	t.Logf("%d verdicts, %d allowed", allowed+denied, allowed)
	if denied*10 < allowed || allowed*10 < denied {
		t.Errorf("%d allowed, %d denied: the clusters are too simple", allowed, denied)
	}
}

func ruleset(t testing.TB, c *networkpolicy.Compiler) *nft.Ruleset {
	t.Helper()
	rs, err := c.Ruleset()
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func listing(rs *nft.Ruleset) string {
	var b strings.Builder
	rs.List(&b, &nft.ListOptions{})
	return b.String()
}

// inOrder is a listing whose chains and sets don't stand in the order in which they
// came.
func inOrder(rs *nft.Ruleset) string {
	parts := strings.Split(strings.TrimSuffix(listing(rs), "}\n"), "\n\t}\n")
	for i := range parts {
		parts[i] = strings.TrimPrefix(strings.TrimSpace(parts[i]), "table inet networkpolicy {\n\t")
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}
