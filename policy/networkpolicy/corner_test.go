// SPDX-License-Identifier: Apache-2.0

package networkpolicy_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice/conntrack"
	"sluice/policy/networkpolicy"
)

// world is the cluster of the table below: three namespaces, and what else there is.
const world = `
{apiVersion: v1, kind: NamespaceList, items: [
  {metadata: {name: x, labels: {team: one}}}, {metadata: {name: y, labels: {team: two}}}]}
---
{apiVersion: v1, kind: NodeList, items: [
  {metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}},
  {metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}}]}
---
{apiVersion: v1, kind: PodList, items: [
  {metadata: {name: a, namespace: x, labels: {pod: a}}, spec: {nodeName: n1, containers: [
    {name: c, ports: [{name: web, containerPort: 80}, {name: web, containerPort: 80, protocol: UDP}]}]}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}},
  {metadata: {name: b, namespace: x, labels: {pod: b}}, spec: {nodeName: n2, containers: [
    {name: c, ports: [{name: web, containerPort: 81}]}]}, status: {podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}},
  {metadata: {name: a, namespace: y, labels: {pod: a}}, spec: {nodeName: n1}, status: {podIP: 10.0.1.1}},
  {metadata: {name: b, namespace: y, labels: {pod: b}}, spec: {nodeName: n2}, status: {podIP: 10.0.1.2}},
  {metadata: {name: a, namespace: z, labels: {pod: a}}, spec: {nodeName: n2}, status: {podIP: 10.0.2.1}},
  {metadata: {name: host, namespace: x, labels: {pod: a}}, spec: {nodeName: n2, hostNetwork: true}, status: {podIP: 192.168.0.2}},
  {metadata: {name: done, namespace: x, labels: {pod: a}}, status: {podIP: 10.0.0.2, phase: Succeeded}}]}
`

// corner is one row of the semantics: policies, each a spec in namespace x, and what
// is asked: "FROM TO [proto/]port", with "!" in front if it is denied.
type corner struct {
	specs []string
	asked []string
}

func corners() map[string]corner {
	one := func(spec string, asked ...string) corner { return corner{[]string{spec}, asked} }
	return map[string]corner{
		"no policy": {nil, []string{"x/a x/b 80", "198.51.100.1 x/a 80", "x/a y/a icmp"}},
		"isolation is for a direction": one(`{podSelector: {matchLabels: {pod: a}}}`,
			"!x/b x/a 80", "x/a x/b 80", "x/a 198.51.100.1 80", "!198.51.100.1 x/a 80", "y/a y/b 80", "x/b y/a 80"),
		"both ends have their say": {
			[]string{`{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}`, `{podSelector: {matchLabels: {pod: b}}, ingress: []}`},
			[]string{"!x/a x/b 80", "!x/a y/a 80", "!x/a 198.51.100.1 80", "x/b x/a 80"},
		},
		"union of policies": {
			[]string{`{podSelector: {}}`, `{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}`, `{podSelector: {}, ingress: [{ports: [{port: 81}]}]}`},
			[]string{"y/a x/a 80", "y/a x/a 81", "!y/a x/a 82", "!y/a x/b 80", "y/a x/b 81"},
		},
		"types: egress rules without types": one(`{podSelector: {matchLabels: {pod: a}}, egress: [{to: [{podSelector: {}}]}]}`,
			"!x/b x/a 80", "x/a x/b 80", "!x/a y/a 80"),
		"types: none, no egress rules": one(`{podSelector: {matchLabels: {pod: a}}, egress: []}`, "!x/b x/a 80", "x/a y/a 80"),
		"types: an empty list":         one(`{podSelector: {matchLabels: {pod: a}}, policyTypes: []}`, "!x/b x/a 80", "x/a y/a 80"),
		"types: egress only":           one(`{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}`, "x/b x/a 80", "!x/a y/a 80"),
		"types: rules of another type": one(`{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], ingress: [{ports: [{port: 1}]}]}`, "x/b x/a 80", "!x/a y/a 80"),
		"spec is missing":              one(`{}`, "!x/b x/a 80", "!y/a x/b 80", "x/a y/a 80", "y/a y/b 80"),
		"ingress is [{}]":              one(`{podSelector: {}, ingress: [{}]}`, "y/a x/a 80", "198.51.100.1 x/a udp/5", "y/a x/a icmp", "y/a x/a sctp/1"),
		"from is empty":                one(`{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}`, "y/a x/a 80", "198.51.100.1 x/b 80", "!y/a x/a 81"),
		"podSelector {}":               one(`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, "x/a x/b 80", "!y/a x/b 80", "!198.51.100.1 x/a 80"),
		"podSelector of the namespace": one(`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}`, "x/a x/b 80", "!y/a x/b 80"),
		"podSelector null, namespaceSelector": one(`{podSelector: {}, ingress: [{from: [{podSelector: null, namespaceSelector: {matchLabels: {team: two}}}]}]}`,
			"y/a x/b 80", "y/b x/b 80", "!x/a x/b 80", "!z/a x/b 80"),
		"namespaceSelector {}": one(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`,
			"y/a x/b 80", "z/a x/b 80", "x/a x/b 80", "!198.51.100.1 x/b 80"),
		"both selectors in one peer": one(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: two}}, podSelector: {matchLabels: {pod: a}}}]}]}`,
			"y/a x/b 80", "!y/b x/b 80", "!x/a x/b 80", "!z/a x/b 80"),
		"both selectors in two peers": one(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: two}}}, {podSelector: {matchLabels: {pod: a}}}]}]}`,
			"y/a x/b 80", "y/b x/b 80", "x/a x/b 80", "!z/a x/b 80", "!x/b x/a 80"),
		"the name of a namespace": one(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}`, "z/a x/b 80", "!y/a x/b 80"),
		"NotIn selects what has no such label": one(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [one]}]}}]}]}`,
			"z/a x/b 80", "y/a x/b 80", "!x/a x/b 80"),
		"DoesNotExist, Exists": one(`{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}, podSelector: {matchExpressions: [{key: pod, operator: Exists}]}}]}]}`,
			"z/a x/b 80", "!y/a x/b 80"),
		"ipBlock of the outside": one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}]}]}`,
			"198.51.100.1 x/a 80", "198.51.100.127 x/a 80", "!198.51.100.128 x/a 80", "!198.51.101.1 x/a 80", "!y/a x/a 80"),
		"ipBlock has pods":                       one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.1.0/24, except: [10.0.1.2/32]}}]}]}`, "y/a x/b 80", "!y/b x/b 80"),
		"except, and another peer":               one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}, {ipBlock: {cidr: 10.0.1.2/32}}]}]}`, "!y/a x/b 80", "y/b x/b 80"),
		"except, and another rule":               one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}]}, {from: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}]}]}`, "y/a x/b 80", "!y/b x/b 80"),
		"except, and another policy":             {[]string{`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}]}]}`, `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}`}, []string{"y/a x/b 80"}},
		"ipBlock of a family":                    one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`, "y/a x/b 80", "!fd00::1 fd00::2 80", "!2001:db8::1 fd00::1 80"),
		"ipBlock of IPv6":                        one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "2001:db8::/32", except: ["2001:db8:1::/48"]}}]}]}`, "2001:db8::1 fd00::1 80", "!2001:db8:1::1 fd00::1 80", "!198.51.100.1 x/a 80"),
		"all of IPv4 but a half":                 one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1, 255.255.255.255/32]}}]}]}`, "198.51.100.1 x/a 80", "!127.255.255.255 x/a 80", "!255.255.255.255 x/a 80", "255.255.255.254 x/a 80"),
		"the protocol is TCP":                    one(`{podSelector: {}, ingress: [{ports: [{port: 80}]}]}`, "y/a x/a 80", "!y/a x/a udp/80", "!y/a x/a sctp/80", "!y/a x/a icmp"),
		"a protocol without port":                one(`{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`, "y/a x/a udp/80", "y/a x/a udp/65535", "!y/a x/a 80", "!y/a x/a icmp"),
		"SCTP is not TCP":                        one(`{podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 80}]}]}`, "y/a x/a sctp/80", "!y/a x/a 80", "!y/a x/a sctp/81"),
		"a named port of each pod":               one(`{podSelector: {}, ingress: [{ports: [{port: web}]}]}`, "y/a x/a 80", "!y/a x/a 81", "y/a x/b 81", "!y/a x/b 80", "!y/a x/a udp/80"),
		"a named port of UDP":                    one(`{podSelector: {}, ingress: [{ports: [{port: web, protocol: UDP}]}]}`, "y/a x/a udp/80", "!y/a x/a 80", "!y/a x/b udp/81"),
		"a named port nobody has":                one(`{podSelector: {}, ingress: [{ports: [{port: sql}]}]}`, "!y/a x/a 80", "!y/a x/a 5432"),
		"egress to a named port":                 one(`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: web}]}]}`, "x/b x/a 80", "!x/b x/a 81", "x/a x/b 81", "!x/a x/b 80", "!x/a y/a 80"),
		"egress to anybody's named port":         one(`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}`, "x/b x/a 80", "!x/a y/a 80", "!x/a 198.51.100.1 80"),
		"egress to an ipBlock's named port":      one(`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: web}]}]}`, "!x/b x/a 80", "!x/b 198.51.100.1 80"),
		"ingress from an ipBlock, by named port": one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24}}], ports: [{port: web}]}]}`, "198.51.100.1 x/a 80", "198.51.100.1 x/b 81", "!198.51.100.1 x/b 80", "!y/a x/a 80"),
		"endPort":                                one(`{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 82}]}]}`, "!y/a x/a 79", "y/a x/a 80", "y/a x/a 82", "!y/a x/a 83", "!y/a x/a udp/81"),
		"ports overlap":                          one(`{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}, {port: 85, endPort: 95}, {port: 96}, {port: 65535}, {port: 65000, endPort: 65535}]}]}`, "y/a x/a 80", "y/a x/a 96", "!y/a x/a 97", "y/a x/a 65535"),
		"a node and its pods":                    one(`{podSelector: {}, policyTypes: [Ingress, Egress]}`, "192.168.0.1 x/a 80", "!192.168.0.2 x/a 80", "192.168.0.2 x/b icmp", "x/a 192.168.0.1 53", "!x/a 192.168.0.2 53"),
		"a pod and itself":                       one(`{podSelector: {}, policyTypes: [Ingress, Egress]}`, "x/a x/a 80", "x/a x/a icmp", "fd00::1 fd00::1 80", "!x/a x/b 80"),
		"hostNetwork":                            one(`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}`, "!192.168.0.2 x/a 80", "x/a x/b 80", "y/a 192.168.0.2 80"),
		"hostNetwork, ipBlock":                   one(`{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.2/32}}]}]}`, "192.168.0.2 x/a 80", "!192.168.0.3 x/a 80"),
		"ICMP":                                   one(`{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, "x/a x/b icmp", "!y/a x/b icmp", "fd00::1 fd00::2 icmp"),
	}
}

func TestCorners(t *testing.T) {
	for name, c := range corners() {
		t.Run(name, func(t *testing.T) {
			cl := &networkpolicy.Cluster{}
			read(t, cl, world)
			for i, spec := range c.specs {
				read(t, cl, fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p%d, namespace: x}, spec: {%s}}", i, strings.TrimSuffix(strings.TrimPrefix(spec, "{"), "}")))
			}
			compiled, err := networkpolicy.Compile(cl, networkpolicy.Options{})
			if err != nil {
				t.Fatal(err)
			}
			rs := ruleset(t, compiled)
			j := newJudge(t, rs)
			for _, asked := range c.asked {
				ask(t, cl, j, asked)
			}
			if t.Failed() {
				t.Log(listing(rs))
			}
		})
	}
}

func read(t testing.TB, cl *networkpolicy.Cluster, text string) {
	t.Helper()
	if err := networkpolicy.Read(cl, []byte(text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

func ask(t *testing.T, cl *networkpolicy.Cluster, j *judge, asked string) {
	t.Helper()
	words := strings.Fields(strings.TrimPrefix(asked, "!"))
	proto, number, _ := strings.Cut(words[2], "/")
	if number == "" && proto != "icmp" {
		proto, number = "tcp", proto
	}
	var port uint16
	fmt.Sscan(number, &port)
	probes, err := cl.Probes(words[0], words[1], networkpolicy.Protocol(strings.ToUpper(proto)), port)
	if err != nil {
		t.Fatal(err)
	}
	p, want := probes[0], !strings.HasPrefix(asked, "!")
	if v := cl.Check(p); v.Allowed != want {
		t.Errorf("%s: Check says %v", asked, v.String())
	}
	if got := j.allows(t, p, conntrack.New); got != want {
		t.Errorf("%s: the ruleset says %v", asked, got)
	}
	// What was allowed comes back, and errors about it: also if a policy of the other
	// direction, or a change of them, forbids a new connection that way.
	back := networkpolicy.Probe{From: p.To, To: p.From, Protocol: p.Protocol, Port: 40000}
	if !j.allows(t, back, conntrack.Established) || !j.allows(t, back, conntrack.Related) {
		t.Errorf("%s: the reply is dropped", asked)
	}
}

// TestWhatTheAPIRefuses: nothing that an API server would refuse gets into a ruleset,
// and the error names the field.
func TestWhatTheAPIRefuses(t *testing.T) {
	for spec, want := range map[string]string{
		`policyTypes: [Both]`:     `spec.policyTypes: "Both"`,
		`ingress: [{from: [{}]}]`: "spec.ingress[0].from[0]: must have",
		`egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]`:           "spec.egress[0].to[0]: ipBlock excludes",
		`egress: [{to: [{ipBlock: {cidr: 10.0.0.0}}]}]`:                              `spec.egress[0].to[0].ipBlock.cidr: "10.0.0.0"`,
		`egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}]`:      "except[0]: 11.0.0.0/9: must be a part",
		`egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]`:      "except[0]: 10.0.0.0/8: must be a part",
		`egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: ["fd00::/16"]}}]}]`:     "except[0]: fd00::/16: must be a part",
		`ingress: [{ports: [{port: 0}]}]`:                                            "spec.ingress[0].ports[0].port: 0: must be 1 to 65535",
		`ingress: [{ports: [{port: 65536}]}]`:                                        "65536: must be 1 to 65535",
		`ingress: [{ports: [{port: "80"}]}]`:                                         `name "80"`,
		`ingress: [{ports: [{port: Web}]}]`:                                          `name "Web"`,
		`ingress: [{ports: [{port: web, endPort: 90}]}]`:                             "endPort: needs a port that is a number",
		`ingress: [{ports: [{endPort: 90}]}]`:                                        "endPort: needs a port that is a number",
		`ingress: [{ports: [{port: 80, endPort: 79}]}]`:                              "endPort: 79: must be 80",
		`ingress: [{ports: [{port: 80, protocol: tcp}]}]`:                            `protocol "tcp": must be TCP, UDP or SCTP`,
		`podSelector: {matchExpressions: [{key: a, operator: In}]}`:                  "spec.podSelector.matchExpressions[0]: In needs values",
		`podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}`: "takes no values",
		`podSelector: {matchExpressions: [{key: a, operator: Gt, values: ["1"]}]}`:   `operator: "Gt"`,
		`podSelector: {matchLabels: {"a b": c}}`:                                     `key "a b"`,
		`podSelector: {matchLabels: {a: "c\" drop"}}`:                                "value",
		`ingress: [{from: [{namespaceSelector: {matchLabels: {"/x": y}}}]}]`:         "spec.ingress[0].from[0].namespaceSelector",
		`ingress: [{form: []}]`:                                                      `unknown field "form"`,
		`podSelector: {matchLabel: {a: b}}`:                                          `unknown field "matchLabel"`,
	} {
		cl := &networkpolicy.Cluster{}
		err := networkpolicy.Read(cl, []byte("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {"+spec+"}}"))
		if err == nil {
			err = cl.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "NetworkPolicy x/p: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", spec, err, want)
		}
	}
}

func TestWhatIsNoCluster(t *testing.T) {
	pod := func(name, rest string) string {
		return "{apiVersion: v1, kind: Pod, metadata: {name: " + name + "}, " + rest + "}"
	}
	for text, want := range map[string]string{
		"a: [":                        "",
		"kind: Service":               `kind "Service"`,
		"{kind: Pod, apiVersion: v2}": `apiVersion "v2"`,
		"{kind: NetworkPolicy, apiVersion: extensions/v1beta1}": `must be networking.k8s.io/v1`,
		"{kind: List}":                          "must have items",
		pod("A", "status: {}"):                  `name "A"`,
		pod("a", "status: {podIP: 10.0.0.256}"): `address "10.0.0.256"`,
		pod("a", "status: {podIP: 10.0.0.1}") + "\n---\n" + pod("a", "status: {}"):                "Pod default/a is there twice",
		pod("a", "status: {podIP: 10.0.0.1}") + "\n---\n" + pod("b", "status: {podIP: 10.0.0.1}"): "address 10.0.0.1 is that of pod default/a, too",
		pod("a", "spec: {containers: [{ports: [{name: x, containerPort: 0}]}]}"):                  "must be 1 to 65535",
		"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spce: {}}":  `unknown field "spce"`,
	} {
		cl := &networkpolicy.Cluster{}
		err := networkpolicy.Read(cl, []byte(text))
		if err == nil {
			err = cl.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
