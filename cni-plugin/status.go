// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"

	"sluice/api"
)

// status says whether an ADD could work now.
func (p *plugin) status(args *skel.CmdArgs) error {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := api.NewClient(c.Socket)
	defer client.Close()
	s, err := client.CNIStatus(ctx, c.network())
	switch {
	case errors.Is(err, api.ErrDaemonDown):
		return refuse(errNotAvailable, "", err.Error())
	case err != nil:
		return refuse(errNotAvailable, "", "the daemon can't be asked: "+err.Error())
	case !s.Dataplane:
		return refuse(errLimited, "", "the dataplane is not running: nothing is forwarded now")
	case c.Network != "" && !s.Network:
		return refuse(errNotAvailable, "network", c.Network+" is not declared by the daemon's file")
	case s.Network && c.embedded() && !s.Free:
		return refuse(errNotAvailable, "", "no address or no port number is left in network "+c.network())
	case c.embedded():
		return nil
	}
	return invoke.DelegateStatus(context.Background(), c.IPAM.Type, args.StdinData, nil)
}
