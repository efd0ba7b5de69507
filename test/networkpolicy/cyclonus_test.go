// SPDX-License-Identifier: Apache-2.0

package networkpolicy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"sluice/conntrack"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/networkpolicy"
	"sluice/policy/nft"
)

// state is what a case of cyclonus has made of its cluster, and what it is here.
type state struct {
	resources *probe.Resources
	policies  []*networkingv1.NetworkPolicy

	compiler *networkpolicy.Compiler
	rs       *nft.Ruleset
	engine   *policy.Engine
	cluster  networkpolicy.Cluster // as it was compiled last
}

// TestCyclonus plays all cases of cyclonus, each step as a change, and asks for each
// pair of pods, port and protocol.
func TestCyclonus(t *testing.T) {
	names := []string{"x", "y", "z"}
	cases := generator.NewTestCaseGenerator(true, "10.0.2.3", names, nil, nil).GenerateTestCases()
	steps, verdicts, allowed, itself := 0, 0, 0, 0
	for i, c := range cases {
		s := newState(names)
		for j, step := range c.Steps {
			for _, a := range step.Actions {
				if err := s.do(a); err != nil {
					t.Fatal(err)
				}
			}
			s.change(t)
			n := s.compare(t, fmt.Sprintf("case %d (%s), step %d", i, c.Description, j), step.Probe)
			steps, verdicts, allowed, itself = steps+1, verdicts+n.asked, allowed+n.allowed, itself+n.itself
		}
	}
	t.Logf("%d cases, %d steps, %d verdicts, of which %d allowed; %d are of a pod to itself, which ours always allows",
		len(cases), steps, verdicts, allowed, itself)
	if verdicts < 100000 {
		t.Errorf("only %d verdicts were compared", verdicts)
	}
}

func newState(names []string) *state {
	s := &state{
		resources: &probe.Resources{Namespaces: map[string]map[string]string{}},
		compiler:  networkpolicy.New(networkpolicy.Options{}), rs: new(nft.Ruleset), engine: policy.New([2]uint64{1, 2}),
	}
	for i, ns := range names {
		s.resources.Namespaces[ns] = map[string]string{"ns": ns}
		for j, name := range []string{"a", "b", "c"} {
			p := probe.NewDefaultPod(ns, name, []int{80, 81}, []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP}, false, "")
			p.IP = fmt.Sprintf("10.0.%d.%d", i, j+1)
			s.resources.Pods = append(s.resources.Pods, p)
		}
	}
	return s
}

// do does an action of cyclonus to the state.
func (s *state) do(a *generator.Action) (err error) {
	r := s.resources
	switch {
	case a.CreatePolicy != nil:
		s.policies = append(s.policies, a.CreatePolicy.Policy)
	case a.UpdatePolicy != nil:
		s.dropPolicy(a.UpdatePolicy.Policy.Namespace, a.UpdatePolicy.Policy.Name)
		s.policies = append(s.policies, a.UpdatePolicy.Policy)
	case a.DeletePolicy != nil:
		s.dropPolicy(a.DeletePolicy.Namespace, a.DeletePolicy.Name)
	case a.CreateNamespace != nil:
		s.resources, err = r.CreateNamespace(a.CreateNamespace.Namespace, a.CreateNamespace.Labels)
	case a.SetNamespaceLabels != nil:
		s.resources, err = r.UpdateNamespaceLabels(a.SetNamespaceLabels.Namespace, a.SetNamespaceLabels.Labels)
	case a.DeleteNamespace != nil:
		s.resources, err = r.DeleteNamespace(a.DeleteNamespace.Namespace)
	case a.CreatePod != nil:
		s.resources, err = r.CreatePod(a.CreatePod.Namespace, a.CreatePod.Pod, a.CreatePod.Labels)
		if err == nil {
			s.resources.Pods[len(s.resources.Pods)-1].IP = fmt.Sprintf("10.0.9.%d", len(s.resources.Pods))
		}
	case a.SetPodLabels != nil:
		s.resources, err = r.SetPodLabels(a.SetPodLabels.Namespace, a.SetPodLabels.Pod, a.SetPodLabels.Labels)
	case a.DeletePod != nil:
		s.resources, err = r.DeletePod(a.DeletePod.Namespace, a.DeletePod.Pod)
	case a.ReadNetworkPolicies != nil: // they are all known
	default:
		err = fmt.Errorf("unknown action %+v", a)
	}
	return err
}

func (s *state) dropPolicy(namespace, name string) {
	s.policies = slices.DeleteFunc(s.policies, func(p *networkingv1.NetworkPolicy) bool { return p.Namespace == namespace && p.Name == name })
}

// change tells the compiler what is there now, and gives its commands to the engine.
func (s *state) change(t *testing.T) {
	t.Helper()
	now := s.read(t)
	ch := &networkpolicy.Change{Cluster: now}
	ch.Gone.Namespaces = gone(s.cluster.Namespaces, now.Namespaces, func(n networkpolicy.Namespace) string { return n.Name })
	ch.Gone.Pods = gone(s.cluster.Pods, now.Pods, func(p networkpolicy.Pod) string { return p.Namespace + "/" + p.Name })
	ch.Gone.Policies = gone(s.cluster.Policies, now.Policies, func(p networkpolicy.Policy) string { return p.Namespace + "/" + p.Name })
	commands, err := s.compiler.Change(ch)
	if err != nil {
		t.Fatal(err)
	}
	if s.rs, err = networkpolicy.Apply(s.rs, commands); err != nil {
		t.Fatal(err)
	}
	if err := s.engine.Commit(s.rs, nil, 0); err != nil {
		t.Fatal(err)
	}
	s.cluster = now
}

func gone[T any](was, is []T, name func(T) string) []string {
	var out []string
	for _, w := range was {
		if !slices.ContainsFunc(is, func(i T) bool { return name(i) == name(w) }) {
			out = append(out, name(w))
		}
	}
	return out
}

// read makes our cluster of cyclonus's: the policies by way of their JSON, as an API
// server would send them.
func (s *state) read(t *testing.T) networkpolicy.Cluster {
	t.Helper()
	var cl networkpolicy.Cluster
	for _, name := range slices.Sorted(maps.Keys(s.resources.Namespaces)) {
		cl.Namespaces = append(cl.Namespaces, networkpolicy.Namespace{Name: name, Labels: s.resources.Namespaces[name]})
	}
	for _, p := range s.resources.Pods {
		pod := networkpolicy.Pod{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Addrs: []netip.Addr{netip.MustParseAddr(p.IP)}}
		for _, c := range p.Containers {
			pod.Ports = append(pod.Ports, networkpolicy.NamedPort{Name: c.PortName, Protocol: networkpolicy.Protocol(c.Protocol), Port: uint16(c.Port)})
		}
		cl.Pods = append(cl.Pods, pod)
	}
	for _, p := range s.policies {
		p := p.DeepCopy()
		p.APIVersion, p.Kind = "networking.k8s.io/v1", "NetworkPolicy"
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := networkpolicy.Read(&cl, text); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	return cl
}

// tally is what was compared.
type tally struct{ asked, allowed, itself int }

// compare asks cyclonus and the engine for all that the step probes.
func (s *state) compare(t *testing.T, what string, config *generator.ProbeConfig) (n tally) {
	t.Helper()
	ev := s.engine.Evaluator()
	defer ev.Close()
	theirs := matcher.BuildNetworkPolicies(true, s.policies)
	for _, job := range (&probe.JobBuilder{}).GetJobsForProbeConfig(s.resources, config).Valid {
		want := theirs.IsTrafficAllowed(job.Traffic()).IsAllowed()
		p := networkpolicy.Probe{
			From: netip.MustParseAddr(job.FromIP), To: netip.MustParseAddr(job.ToIP),
			Protocol: networkpolicy.Protocol(job.Protocol), Port: uint16(job.ResolvedPort),
		}
		n.asked++
		if want {
			n.allowed++
		}
		if job.FromKey == job.ToKey {
			n.itself++
			want = true // nobody can keep a pod from itself, which cyclonus leaves out of its comparisons
		}
		if got := allows(ev, p); got != want {
			t.Errorf("%s: %+v: cyclonus says %v, the ruleset %v", what, p, want, got)
		}
		if v := s.cluster.Check(p); v.Allowed != want {
			t.Errorf("%s: %+v: cyclonus says %v, Check %s", what, p, want, v.String())
		}
	}
	return n
}

// allows shows the first packet of a connection to the engine.
func allows(ev *policy.Evaluator, p networkpolicy.Probe) bool {
	of := pt.Packet{Src: p.From, Dst: p.To, SrcPort: 40000, DstPort: p.Port, Flags: pt.SYN}
	frame := pt.TCP4(of)
	switch p.Protocol {
	case networkpolicy.UDP:
		frame = pt.UDP4(of)
	case networkpolicy.SCTP:
		frame = pt.SCTP4(of)
	}
	packet := policy.Packet{Frame: pt.Frame(frame), Now: 1, Pending: &conntrack.Pending{}, State: conntrack.New, Tracked: true}
	var record policy.Record
	ev.Pin()
	defer ev.Unpin()
	ev.Begin(&record)
	return ev.Hook(&packet, nft.FamilyIP, nft.HookForward, math.MinInt32, math.MaxInt32).Code == policy.Accept
}
