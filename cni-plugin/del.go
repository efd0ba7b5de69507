// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"

	"sluice/api"
)

// defaultStateDir is where sluiced keeps its state unless it is told otherwise.
const defaultStateDir = "/var/lib/sluice"

func (c *conf) stateDir() string {
	if c.StateDir == "" {
		return defaultStateDir
	}
	return c.StateDir
}

// del takes a container's interface away. It succeeds if there is none, and when the
// daemon isn't there, which will do it when it starts; the container's namespace is not
// needed. The addresses of another plugin go last: they are in use until then.
func (p *plugin) del(args *skel.CmdArgs) error {
	c, err := parseLenient(args.StdinData)
	if err != nil {
		return err
	}
	if err := p.detach(c, c.key(args)); err != nil {
		return err
	}
	if c.embedded() || c.IPAM.Type == "dhcp" { // which ADD refuses
		return nil
	}
	return invoke.DelegateDel(context.Background(), c.IPAM.Type, args.StdinData, nil)
}

func (p *plugin) detach(c *conf, key api.CNIKey) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := api.NewClient(c.Socket)
	defer client.Close()
	err := client.CNIDel(ctx, &api.CNIDelRequest{CNIKey: key})
	if err == nil {
		return nil
	}
	if _, refused := errors.AsType[*api.Error](err); refused {
		return daemonError(err)
	}
	if errors.Is(err, api.ErrPermission) {
		return daemonError(err)
	}
	if left := api.LeaveCNIDel(c.stateDir(), api.CNILeftDel{CNIKey: key, Came: api.Now()}); left != nil {
		return daemonError(errors.Join(err, left))
	}
	return nil
}
