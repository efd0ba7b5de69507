// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"sluice/api"
)

// patience bounds a request to the daemon: longer than the daemon needs to restart its
// dataplane, shorter than what runtimes wait.
const patience = 30 * time.Second

// add attaches a container.
func (p *plugin) add(args *skel.CmdArgs) error {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	if len(c.PrevResult) > 0 && string(c.PrevResult) != "null" {
		return refuse(types.ErrInvalidNetworkConfig, "prevResult", "sluice makes the interface, and must be the first plugin of the list")
	}
	env, err := parseEnv(args.Args)
	if err != nil {
		return err
	}
	r, err := c.request(args, env)
	if err != nil {
		return err
	}
	l, err := c.lease(r, args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := api.NewClient(c.Socket)
	defer client.Close()
	reply, err := client.CNIAdd(ctx, r)
	if err != nil {
		if _, refused := errors.AsType[*api.Error](err); l != nil && !refused {
			// Nobody knows how far it came; addresses that are in use are no others'.
			err = errors.Join(err, p.detach(c, r.CNIKey))
		}
		l.release()
		return daemonError(err)
	}
	return types.PrintResult(c.result(r, reply, l), c.CNIVersion)
}

// request is what the daemon is asked for.
func (c *conf) request(args *skel.CmdArgs, env *environment) (*api.CNIAddRequest, error) {
	r := &api.CNIAddRequest{
		CNIKey: c.key(args), Netns: args.Netns, Network: c.network(),
		MAC: c.mac(env), Set: c.settings(), VLAN: c.vlans(), Table: c.Table, Offload: c.Offload,
		Aliases: c.RuntimeConfig.Aliases.of(c.Name), Labels: c.labels(env), Bandwidth: c.bounds(),
	}
	if c.Network != "" {
		r.MTU = c.MTU // of the interface; the network's own is what the file says
	}
	var err error
	if r.Addresses, err = c.wishes(env); err != nil {
		return nil, err
	}
	r.PortsHeld = c.HoldPorts != nil && !*c.HoldPorts
	if r.Publish, err = c.publish(); err != nil {
		return nil, err
	}
	if r.Routes, err = c.routes(); err != nil {
		return nil, err
	}
	if r.DefaultRoute = c.defaultRoute(); r.DefaultRoute { // which need not be said twice
		r.Routes = slices.DeleteFunc(r.Routes, func(o api.CNIRoute) bool { return o == api.CNIRoute{Dst: o.Dst} && o.Dst.Bits() == 0 })
	}
	if c.Network != "" || !c.embedded() {
		return r, nil
	}
	subnets, err := c.subnets()
	if err == nil {
		r.Declare, err = c.declaration(subnets)
	}
	return r, err
}

func (c *conf) key(args *skel.CmdArgs) api.CNIKey {
	return api.CNIKey{Config: c.Name, Container: args.ContainerID, IfName: args.IfName}
}

// settings are those of the port, in the words of `sluice link set`.
func (c *conf) settings() (out []string) {
	if c.HairpinMode {
		out = append(out, "hairpin", "on")
	}
	if c.PortIsolation {
		out = append(out, "isolated", "on")
	}
	switch {
	case c.Guard != "":
		out = append(out, "guard", c.Guard)
	case c.MACSpoofChk != nil && !*c.MACSpoofChk: // all but who the sender may be
		out = append(out, "guard", "ra,dhcp,dhcp6,query")
	}
	return out
}

// vlans are those of the port, in the words of `bridge vlan add`.
func (c *conf) vlans() (out []string) {
	if c.VLAN != 0 {
		out = append(out, fmt.Sprintf("vid %d pvid untagged", c.VLAN))
	}
	for i := range c.VLANTrunk {
		low, high, _ := c.VLANTrunk[i].bounds()
		if low == high {
			out = append(out, fmt.Sprintf("vid %d", low))
		} else {
			out = append(out, fmt.Sprintf("vid %d-%d", low, high))
		}
	}
	if len(out) > 0 && c.VLAN == 0 && (c.PreserveDefaultVLAN == nil || *c.PreserveDefaultVLAN) {
		out = append([]string{"vid 1 pvid untagged"}, out...)
	}
	return out
}

// labels are shown beside the attachment.
func (c *conf) labels(env *environment) map[string]string {
	out := maps.Clone(env.labels)
	for _, l := range c.Args.CNI.Labels {
		out[l.Key] = l.Value
	}
	return out
}

// defaultRoute says whether the gateways are the container's default routes. It is so
// unless something else is said: by isDefaultGateway, or by a list of routes, which is
// then all of them.
func (c *conf) defaultRoute() bool {
	if c.IsDefaultGateway != nil {
		return *c.IsDefaultGateway
	}
	return len(c.IPAM.Routes) == 0 && (c.IsGateway == nil || *c.IsGateway)
}

// routes are those of ipam.routes.
func (c *conf) routes() (out []api.CNIRoute, err error) {
	if !c.embedded() {
		return nil, nil // they come with the lease
	}
	for i, r := range c.IPAM.Routes {
		field := fmt.Sprintf("ipam.routes[%d]", i)
		to, err := netip.ParsePrefix(r.Dst)
		if err != nil {
			return nil, refuse(types.ErrInvalidNetworkConfig, field+".dst", fmt.Sprintf("%q is not a prefix, as 0.0.0.0/0", r.Dst))
		}
		route := api.CNIRoute{Dst: to.Masked(), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority}
		if r.GW != "" {
			if route.GW, err = netip.ParseAddr(r.GW); err != nil || route.GW.Is4() != to.Addr().Is4() {
				return nil, refuse(types.ErrInvalidNetworkConfig, field+".gw", fmt.Sprintf("%q is not an address of the family of %s", r.GW, to))
			}
		}
		if r.Table != nil {
			route.Table = *r.Table
		}
		if r.Scope != nil && *r.Scope != 0 {
			return nil, refuse(types.ErrInvalidNetworkConfig, field+".scope", "not supported, but for 0 (universe)")
		}
		out = append(out, route)
	}
	return out, nil
}

// publish are the port mappings. Those without a port of the host are none, as in portmap.
func (c *conf) publish() (out []api.CNIPort, err error) {
	for i, m := range c.RuntimeConfig.PortMappings {
		field := fmt.Sprintf("runtimeConfig.portMappings[%d]", i)
		port := api.CNIPort{Proto: strings.ToLower(m.Protocol), Host: uint16(m.HostPort), To: uint16(m.ContainerPort)}
		if m.HostPort == 0 {
			continue
		}
		if port.Proto == "" {
			port.Proto = "tcp"
		}
		switch {
		case !slices.Contains([]string{"tcp", "udp", "sctp"}, port.Proto):
			return nil, refuse(types.ErrInvalidNetworkConfig, field+".protocol", fmt.Sprintf("%q: want tcp, udp or sctp", m.Protocol))
		case m.HostPort < 0 || m.HostPort > 65535:
			return nil, refuse(types.ErrInvalidNetworkConfig, field+".hostPort", fmt.Sprintf("%d: want 1 to 65535", m.HostPort))
		case m.ContainerPort < 1 || m.ContainerPort > 65535:
			return nil, refuse(types.ErrInvalidNetworkConfig, field+".containerPort", fmt.Sprintf("%d: want 1 to 65535", m.ContainerPort))
		}
		if m.HostIP != "" {
			a, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				return nil, refuse(types.ErrInvalidNetworkConfig, field+".hostIP", fmt.Sprintf("%q is not an IP address", m.HostIP))
			}
			port.HostIP = a.Unmap()
		}
		out = append(out, port)
	}
	return out, nil
}
