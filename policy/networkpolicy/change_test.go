// SPDX-License-Identifier: Apache-2.0

package networkpolicy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/policy/networkpolicy"
	"sluice/policy/nft"
)

// TestChangesLeadWhereCompilingDoes makes random changes, applies their commands,
// and compares with the ruleset that is compiled from scratch.
func TestChangesLeadWhereCompilingDoes(t *testing.T) {
	for i := range rounds(t, 10) {
		g := gen{rand.New(rand.NewPCG(uint64(i), 2))}
		cl := g.cluster()
		o := networkpolicy.Options{Node: pick(g, "", "", "n1")}
		c := networkpolicy.New(o)
		rs := change(t, c, new(nft.Ruleset), &networkpolicy.Change{Cluster: *cl})
		for step := range 20 {
			ch := g.change(cl)
			rs = change(t, c, rs, ch)
			follow(cl, ch)
			scratch, err := networkpolicy.Compile(cl, o)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(inOrder(ruleset(t, scratch)), inOrder(rs)); diff != "" {
				t.Fatalf("cluster %d, step %d: %+v\n-from scratch +changed\n%s", i, step, ch, diff)
			}
			if diff := cmp.Diff(inOrder(ruleset(t, c)), inOrder(rs)); diff != "" {
				t.Fatalf("cluster %d, step %d: %+v\n-by itself +changed\n%s", i, step, ch, diff)
			}
		}
	}
}

func change(t testing.TB, c *networkpolicy.Compiler, rs *nft.Ruleset, ch *networkpolicy.Change) *nft.Ruleset {
	t.Helper()
	commands, err := c.Change(ch)
	if err != nil {
		t.Fatal(err)
	}
	rs, err = networkpolicy.Apply(rs, commands)
	if err != nil {
		t.Fatalf("%v\n%q", err, commands)
	}
	return rs
}

// change is a few things that come, go or change.
func (g gen) change(cl *networkpolicy.Cluster) *networkpolicy.Change {
	ch := &networkpolicy.Change{}
	taken := map[string]bool{}
	for range 1 + g.IntN(3) {
		switch g.IntN(7) {
		case 0, 1:
			if p := g.pod(); !taken[p.Namespace+p.Name] {
				taken[p.Namespace+p.Name] = true
				ch.Pods = append(ch.Pods, p)
			}
		case 2:
			ch.Gone.Pods = append(ch.Gone.Pods, g.namespace()+"/"+g.podName())
		case 3:
			ch.Policies = []networkpolicy.Policy{g.policy(pick(g, "p0", "p1", "p2", "p3"))}
		case 4:
			if len(cl.Policies) > 0 {
				p := pick(g, cl.Policies...)
				ch.Gone.Policies = append(ch.Gone.Policies, p.Namespace+"/"+p.Name)
			}
		case 5:
			if g.IntN(4) == 0 {
				ch.Gone.Namespaces = append(ch.Gone.Namespaces, g.namespace())
			} else {
				ch.Namespaces = []networkpolicy.Namespace{{Name: g.namespace(), Labels: g.labels()}}
			}
		case 6:
			i := g.IntN(2)
			if name := []string{"n1", "n2"}[i]; g.IntN(3) == 0 {
				ch.Gone.Nodes = append(ch.Gone.Nodes, name)
			} else {
				ch.Nodes = []networkpolicy.Node{g.nodeOf(name, i)}
			}
		}
	}
	return ch
}

// follow does to a cluster what a change says.
func follow(cl *networkpolicy.Cluster, ch *networkpolicy.Change) {
	pod := func(p networkpolicy.Pod) string { return p.Namespace + "/" + p.Name }
	policy := func(p networkpolicy.Policy) string { return p.Namespace + "/" + p.Name }
	cl.Pods = replaced(cl.Pods, ch.Pods, ch.Gone.Pods, pod)
	cl.Policies = replaced(cl.Policies, ch.Policies, ch.Gone.Policies, policy)
	cl.Namespaces = replaced(cl.Namespaces, ch.Namespaces, ch.Gone.Namespaces, func(n networkpolicy.Namespace) string { return n.Name })
	cl.Nodes = replaced(cl.Nodes, ch.Nodes, ch.Gone.Nodes, func(n networkpolicy.Node) string { return n.Name })
}

func replaced[T any](have, come []T, gone []string, name func(T) string) []T {
	have = slices.DeleteFunc(slices.Clone(have), func(t T) bool {
		return slices.Contains(gone, name(t)) || slices.ContainsFunc(come, func(c T) bool { return name(c) == name(t) })
	})
	return append(have, come...)
}

// TestCostIsThatOfTheChange counts commands: in a namespace with a thousand pods and
// fifty policies, one pod, or one policy, costs what it itself has.
func TestCostIsThatOfTheChange(t *testing.T) {
	g := gen{rand.New(rand.NewPCG(1, 3))}
	cl := &networkpolicy.Cluster{}
	for i := range 1000 {
		cl.Pods = append(cl.Pods, simplePod(i))
	}
	all := networkpolicy.Selector{}
	for i := range 50 {
		p := networkpolicy.Policy{Namespace: "x", Name: fmt.Sprintf("p%d", i)}
		p.Spec.Ingress = []networkpolicy.IngressRule{{From: []networkpolicy.Peer{{PodSelector: &all}}, Ports: g.ports()}}
		cl.Policies = append(cl.Policies, p)
	}
	c := networkpolicy.New(networkpolicy.Options{})
	commands, err := c.Change(&networkpolicy.Change{Cluster: *cl})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commands for 1,000 pods and 50 policies", len(commands))
	if len(commands) > 1000 {
		t.Errorf("%d commands at first: the pods don't share their rules", len(commands))
	}
	pod, policy := simplePod(1000), cl.Policies[7]
	policy.Spec.Ingress = append(slices.Clone(policy.Spec.Ingress), networkpolicy.IngressRule{})
	for name, tc := range map[string]struct {
		change   networkpolicy.Change
		commands int
	}{
		"a pod comes":             {networkpolicy.Change{Cluster: networkpolicy.Cluster{Pods: []networkpolicy.Pod{pod}}}, 3},
		"a pod is as it was":      {networkpolicy.Change{Cluster: networkpolicy.Cluster{Pods: cl.Pods[:1]}}, 0},
		"a policy is as it was":   {networkpolicy.Change{Cluster: networkpolicy.Cluster{Policies: cl.Policies[:1]}}, 0},
		"a policy has a new rule": {networkpolicy.Change{Cluster: networkpolicy.Cluster{Policies: []networkpolicy.Policy{policy}}}, 12},
	} {
		commands, err := c.Change(&tc.change)
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, line := range commands {
			size += len(line)
		}
		if len(commands) > tc.commands || size > 200*tc.commands {
			t.Errorf("%s: %d commands of %d bytes, want %d\n%.3000q", name, len(commands), size, tc.commands, commands)
		}
	}
}

func simplePod(i int) networkpolicy.Pod {
	return networkpolicy.Pod{
		Namespace: "x", Name: fmt.Sprintf("pod%d", i), Labels: map[string]string{"app": "web"},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i)})},
	}
}

func TestRefusedChangeChangesNothing(t *testing.T) {
	c := networkpolicy.New(networkpolicy.Options{})
	rs := change(t, c, new(nft.Ruleset), &networkpolicy.Change{Cluster: networkpolicy.Cluster{Pods: []networkpolicy.Pod{simplePod(1)}}})
	twin := simplePod(1)
	twin.Name = "twin"
	bad := &networkpolicy.Change{Cluster: networkpolicy.Cluster{Pods: []networkpolicy.Pod{simplePod(2), twin}}}
	if _, err := c.Change(bad); err == nil || err.Error() != "pod x/twin: address 10.0.0.1 is that of pod x/pod1, too" {
		t.Fatalf("two pods with one address: %v", err)
	}
	if diff := cmp.Diff(listing(rs), listing(ruleset(t, c))); diff != "" {
		t.Error(diff)
	}
	bad.Gone.Pods = []string{"x/pod1"} // then it is free, also for exchanging
	rs = change(t, c, rs, bad)
	a, b := simplePod(2), twin
	a.Addrs, b.Addrs = b.Addrs, a.Addrs
	rs = change(t, c, rs, &networkpolicy.Change{Cluster: networkpolicy.Cluster{Pods: []networkpolicy.Pod{a, b}}})
	if diff := cmp.Diff(inOrder(rs), inOrder(ruleset(t, c))); diff != "" {
		t.Error(diff)
	}
}
