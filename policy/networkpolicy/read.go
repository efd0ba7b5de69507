// SPDX-License-Identifier: Apache-2.0

package networkpolicy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Read adds the objects of a text to a cluster: YAML or JSON, as kubectl prints and
// reads it, with Namespaces, Nodes, Pods and NetworkPolicies, also in Lists. Of the
// first three it takes what policies look at; the spec of a policy is read whole,
// and a field in it that isn't known is refused. The result isn't checked yet, see
// Validate.
func Read(cl *Cluster, text []byte) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return inOneLine(err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if err := cl.read(doc.Body, ""); err != nil {
			return err
		}
	}
	return nil
}

// inOneLine takes the picture of the text off an error of the YAML library.
func inOneLine(err error) error {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(line)
}

// head is what all objects have.
type head struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name      string            `yaml:"name"`
		Namespace string            `yaml:"namespace"`
		Labels    map[string]string `yaml:"labels"`
	} `yaml:"metadata"`
}

// read adds one object; the items of a list may leave out their kind.
func (cl *Cluster) read(n ast.Node, kind string) error {
	var h head
	if err := yaml.NodeToValue(n, &h); err != nil {
		return inOneLine(err)
	}
	if h.Kind == "" {
		h.Kind = kind
	}
	if list, ok := strings.CutSuffix(h.Kind, "List"); ok {
		return cl.readList(n, list)
	}
	read := map[string]func(ast.Node, *head) error{
		"Namespace": cl.readNamespace, "Node": cl.readNode, "Pod": cl.readPod, "NetworkPolicy": cl.readPolicy,
	}[h.Kind]
	if read == nil {
		return fmt.Errorf("line %d: kind %q: must be Namespace, Node, Pod, NetworkPolicy or a List of them", lineOf(n), h.Kind)
	}
	want := "v1"
	if h.Kind == "NetworkPolicy" {
		want = "networking.k8s.io/v1"
	}
	if h.APIVersion != want && (h.APIVersion != "" || kind == "") {
		return fmt.Errorf("line %d: apiVersion %q: must be %s for a %s", lineOf(n), h.APIVersion, want, h.Kind)
	}
	return read(n, &h)
}

func lineOf(n ast.Node) int { return n.GetToken().Position.Line }

func (cl *Cluster) readList(n ast.Node, kind string) error {
	items, ok := field(n, "items").(*ast.SequenceNode)
	if !ok {
		return fmt.Errorf("line %d: a %sList must have items", lineOf(n), kind)
	}
	for _, item := range items.Values {
		if err := cl.read(item, kind); err != nil {
			return err
		}
	}
	return nil
}

// pairs returns the fields of a mapping.
func pairs(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

// field returns a field of a mapping, nil if it hasn't any.
func field(n ast.Node, name string) ast.Node {
	for _, p := range pairs(n) {
		if p.Key.GetToken().Value == name {
			return p.Value
		}
	}
	return nil
}

func (cl *Cluster) readNamespace(_ ast.Node, h *head) error {
	cl.Namespaces = append(cl.Namespaces, Namespace{Name: h.Metadata.Name, Labels: h.Metadata.Labels})
	return nil
}

func (cl *Cluster) readNode(n ast.Node, h *head) error {
	var raw struct {
		Status struct {
			Addresses []struct {
				Type    string `yaml:"type"`
				Address string `yaml:"address"`
			} `yaml:"addresses"`
		} `yaml:"status"`
	}
	if err := yaml.NodeToValue(n, &raw); err != nil {
		return inOneLine(err)
	}
	node := Node{Name: h.Metadata.Name}
	for _, a := range raw.Status.Addresses {
		if a.Type == "InternalIP" || a.Type == "ExternalIP" {
			addr, err := address("Node "+node.Name, a.Address)
			if err != nil {
				return err
			}
			node.Addrs = append(node.Addrs, addr)
		}
	}
	cl.Nodes = append(cl.Nodes, node)
	return nil
}

func address(what, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, fmt.Errorf("%s: address %q: must be one of IPv4 or IPv6", what, text)
	}
	return a, nil
}

// rawPod is what a Pod has of interest.
type rawPod struct {
	Spec struct {
		NodeName       string         `yaml:"nodeName"`
		HostNetwork    bool           `yaml:"hostNetwork"`
		Containers     []rawContainer `yaml:"containers"`
		InitContainers []rawContainer `yaml:"initContainers"`
	} `yaml:"spec"`
	Status struct {
		Phase  string `yaml:"phase"`
		PodIP  string `yaml:"podIP"`
		PodIPs []struct {
			IP string `yaml:"ip"`
		} `yaml:"podIPs"`
	} `yaml:"status"`
}

type rawContainer struct {
	RestartPolicy string `yaml:"restartPolicy"`
	Ports         []struct {
		Name          string `yaml:"name"`
		Protocol      string `yaml:"protocol"`
		ContainerPort int    `yaml:"containerPort"`
	} `yaml:"ports"`
}

// readPod adds a pod. One that has ended isn't one any more: its address may be
// another's already.
func (cl *Cluster) readPod(n ast.Node, h *head) error {
	var raw rawPod
	if err := yaml.NodeToValue(n, &raw); err != nil {
		return inOneLine(err)
	}
	if raw.Status.Phase == "Succeeded" || raw.Status.Phase == "Failed" {
		return nil
	}
	p := Pod{
		Namespace: h.namespace(), Name: h.Metadata.Name, Labels: h.Metadata.Labels,
		Node: raw.Spec.NodeName, HostNetwork: raw.Spec.HostNetwork,
	}
	if err := raw.ports(&p); err != nil {
		return err
	}
	texts := []string{}
	for _, ip := range raw.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	if len(texts) == 0 && raw.Status.PodIP != "" {
		texts = []string{raw.Status.PodIP}
	}
	for _, text := range texts {
		a, err := address("Pod "+p.id(), text)
		if err != nil {
			return err
		}
		if !slices.Contains(p.Addrs, a) {
			p.Addrs = append(p.Addrs, a)
		}
	}
	cl.Pods = append(cl.Pods, p)
	return nil
}

// ports are those of the containers that run beside each other.
func (raw *rawPod) ports(p *Pod) error {
	containers := slices.DeleteFunc(raw.Spec.InitContainers, func(c rawContainer) bool { return c.RestartPolicy != "Always" })
	for _, c := range slices.Concat(raw.Spec.Containers, containers) {
		for _, port := range c.Ports {
			if port.Name == "" {
				continue
			}
			if port.Protocol == "" {
				port.Protocol = string(TCP)
			}
			if err := isPort("Pod "+p.id()+": port "+port.Name, port.ContainerPort); err != nil {
				return err
			}
			p.Ports = append(p.Ports, NamedPort{port.Name, Protocol(port.Protocol), uint16(port.ContainerPort)})
		}
	}
	return nil
}

// namespace is the object's; default if it says none, as for kubectl.
func (h *head) namespace() string {
	if h.Metadata.Namespace == "" {
		return "default"
	}
	return h.Metadata.Namespace
}

func (cl *Cluster) readPolicy(n ast.Node, h *head) error {
	for _, p := range pairs(n) {
		name := p.Key.GetToken().Value
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "spec", "status"}, name) {
			return fmt.Errorf("line %d: unknown field %q of a NetworkPolicy", lineOf(p.Key), name)
		}
	}
	policy := Policy{Namespace: h.namespace(), Name: h.Metadata.Name}
	if spec := field(n, "spec"); spec != nil && spec.Type() != ast.NullType {
		if err := yaml.NodeToValue(spec, &policy.Spec, yaml.Strict()); err != nil {
			return fmt.Errorf("NetworkPolicy %s: %w", policy.id(), inOneLine(err))
		}
	}
	cl.Policies = append(cl.Policies, policy)
	return nil
}
