// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"sluice/api"
)

// check compares what the runtime remembers, what the daemon has, and what is in the
// container, and names all that differs.
func (p *plugin) check(args *skel.CmdArgs) error {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	r := &api.CNICheckRequest{CNIKey: c.key(args), Netns: args.Netns}
	if err := c.remember(r); err != nil {
		return err
	}
	if !c.embedded() {
		if err := invoke.DelegateCheck(context.Background(), c.IPAM.Type, args.StdinData, nil); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := api.NewClient(c.Socket)
	defer client.Close()
	reply, err := client.CNICheck(ctx, r)
	if err != nil {
		return daemonError(err)
	}
	if len(reply.Differences) > 0 {
		return refuse(errDiffers, "", strings.Join(reply.Differences, "; "))
	}
	return nil
}

// remember puts what the runtime knows from ADD into the request.
func (c *conf) remember(r *api.CNICheckRequest) error {
	prev, err := c.previous()
	if err != nil {
		return err
	}
	mine := -1
	for i, f := range prev.Interfaces {
		if f.Name == r.IfName && f.Sandbox != "" {
			mine, r.MAC = i, f.Mac
		}
	}
	if mine < 0 {
		return refuse(types.ErrInvalidNetworkConfig, "prevResult", "it has no interface "+r.IfName+" in a container")
	}
	for _, ip := range prev.IPs {
		p, ok := prefixOf(&ip.Address)
		if ok && ip.Interface != nil && *ip.Interface == mine {
			r.Addresses = append(r.Addresses, p)
		}
	}
	for _, route := range prev.Routes {
		if to, ok := prefixOf(&route.Dst); ok {
			gw, _ := netip.AddrFromSlice(route.GW)
			r.Routes = append(r.Routes, api.CNIRoute{Dst: to.Masked(), GW: gw.Unmap(), Priority: route.Priority})
		}
	}
	return nil
}

// previous is the result of ADD.
func (c *conf) previous() (*current.Result, error) {
	if len(c.PrevResult) == 0 || string(c.PrevResult) == "null" {
		return nil, refuse(types.ErrInvalidNetworkConfig, "prevResult", "missing: CHECK needs the result of ADD")
	}
	pc := types.PluginConf{CNIVersion: c.CNIVersion}
	if err := json.Unmarshal(c.PrevResult, &pc.RawPrevResult); err != nil {
		return nil, refuse(types.ErrDecodingFailure, "prevResult", err.Error())
	}
	if err := version.ParsePrevResult(&pc); err != nil {
		return nil, refuse(types.ErrDecodingFailure, "prevResult", err.Error())
	}
	return current.NewResultFromResult(pc.PrevResult)
}
