// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"sluice/api"
)

// lease is what another plugin has given, nil if the daemon gives the addresses.
type lease struct {
	plugin string
	conf   []byte
	dns    types.DNS
}

// lease asks the plugin that `ipam.type` names for addresses, and puts them and what
// belongs to them into the request.
func (c *conf) lease(r *api.CNIAddRequest, stdin []byte) (*lease, error) {
	if c.embedded() {
		return nil, nil
	}
	if c.IPAM.Type == "dhcp" {
		return nil, refuse(types.ErrInvalidNetworkConfig, "ipam.type", "dhcp is not supported: it wants an interface before there are addresses")
	}
	answer, err := invoke.DelegateAdd(context.Background(), c.IPAM.Type, stdin, nil)
	if err != nil {
		return nil, err
	}
	l := &lease{plugin: c.IPAM.Type, conf: stdin}
	result, err := current.NewResultFromResult(answer)
	if err == nil {
		l.dns = result.DNS
		err = c.take(r, result)
	}
	if err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// release gives the addresses back, when the rest of an ADD has failed. That it could
// not be done is said by the next GC or DEL.
func (l *lease) release() {
	if l != nil {
		_ = invoke.DelegateDel(context.Background(), l.plugin, l.conf, nil)
	}
}

// take puts a lease into the request.
func (c *conf) take(r *api.CNIAddRequest, result *current.Result) error {
	var subnets []subnet
	r.Addresses, r.Fixed = nil, true
	for _, ip := range result.IPs {
		prefix, ok := prefixOf(&ip.Address)
		if !ok {
			return refuse(types.ErrInternal, "ipam", fmt.Sprintf("%s gave %v, which is no address", c.IPAM.Type, ip.Address))
		}
		s := subnet{prefix: prefix.Masked(), gateway: prefix.Masked().Addr().Next()}
		if gw, ok := netip.AddrFromSlice(ip.Gateway); ok {
			s.gateway = gw.Unmap()
		}
		subnets = append(subnets, s)
		r.Addresses = append(r.Addresses, prefix.Addr())
	}
	if len(r.Addresses) == 0 {
		return refuse(types.ErrInternal, "ipam", c.IPAM.Type+" gave no address")
	}
	for _, route := range result.Routes {
		to, ok := prefixOf(&route.Dst)
		if !ok {
			return refuse(types.ErrInternal, "ipam", fmt.Sprintf("%s gave a route to %v", c.IPAM.Type, route.Dst))
		}
		one := api.CNIRoute{Dst: to.Masked(), MTU: route.MTU, AdvMSS: route.AdvMSS, Priority: route.Priority}
		if gw, ok := netip.AddrFromSlice(route.GW); ok {
			one.GW = gw.Unmap()
		}
		r.Routes = append(r.Routes, one)
	}
	if c.IsDefaultGateway == nil {
		r.DefaultRoute = len(result.Routes) == 0
	}
	if c.Network != "" {
		return nil
	}
	text, err := c.declaration(subnets)
	r.Declare = text
	return err
}

// prefixOf is an address with its length, as package netip has it.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	if a = a.Unmap(); a.Is4() && bits == 128 {
		ones -= 96
	}
	p := netip.PrefixFrom(a, ones)
	return p, p.IsValid()
}
