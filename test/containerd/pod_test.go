// SPDX-License-Identifier: Apache-2.0

package containerd

import (
	"fmt"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pod is a sandbox with its containers.
type pod struct {
	n      *node
	name   string
	id     string
	config *cri.PodSandboxConfig
}

// pod makes a sandbox, as a kubelet does. Ports are "HOST:CONTAINER".
func (n *node) pod(name string, ports ...string) *pod {
	n.t.Helper()
	p, err := n.tryPod(name, ports...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(p.remove)
	return p
}

func (n *node) tryPod(name string, ports ...string) (*pod, error) {
	p := &pod{n: n, name: name, config: &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Uid: name + "-uid", Namespace: "shop"},
		Hostname: name, LogDirectory: "/var/log/pods/" + name, Linux: &cri.LinuxPodSandboxConfig{},
	}}
	for _, text := range ports {
		m := &cri.PortMapping{Protocol: cri.Protocol_TCP}
		if _, err := fmt.Sscanf(text, "%d:%d", &m.HostPort, &m.ContainerPort); err != nil {
			return nil, err
		}
		p.config.PortMappings = append(p.config.PortMappings, m)
	}
	r, err := n.cri.RunPodSandbox(n.context(), &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		return nil, err
	}
	p.id = r.PodSandboxId
	return p, nil
}

// remove stops and removes the pod: two DELs for the plugin, the second without a
// namespace.
func (p *pod) remove() {
	ctx := p.n.context()
	if _, err := p.n.cri.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.n.t.Errorf("stop %s: %v", p.name, err)
	}
	if _, err := p.n.cri.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.n.t.Errorf("remove %s: %v", p.name, err)
	}
}

// ips are the pod's addresses: the first, and the others.
func (p *pod) ips() (out []string) {
	p.n.t.Helper()
	s, err := p.n.cri.PodSandboxStatus(p.n.context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id})
	p.n.check(err)
	out = append(out, s.Status.Network.Ip)
	for _, more := range s.Status.Network.AdditionalIps {
		out = append(out, more.Ip)
	}
	return out
}

// container is one of a pod's.
type container struct {
	p  *pod
	id string
}

// start starts a container with a command.
func (p *pod) start(name string, command ...string) *container {
	p.n.t.Helper()
	ctx := p.n.context()
	c, err := p.n.cri.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: image}, Command: command,
			LogPath: name + ".log", Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{}},
		},
	})
	p.n.check(err)
	_, err = p.n.cri.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.ContainerId})
	p.n.check(err)
	return &container{p, c.ContainerId}
}

// run runs a command in the container and returns what it prints; it must succeed.
func (c *container) run(command ...string) string {
	c.p.n.t.Helper()
	r, err := c.p.n.cri.ExecSync(c.p.n.context(), &cri.ExecSyncRequest{ContainerId: c.id, Cmd: command, Timeout: 20})
	c.p.n.check(err)
	if r.ExitCode != 0 {
		c.p.n.t.Fatalf("%s: %s: exit code %d\n%s%s", c.p.name, strings.Join(command, " "), r.ExitCode, r.Stdout, r.Stderr)
	}
	return string(r.Stdout)
}
