// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"sluice/api"
)

// gc removes the attachments of this configuration that the runtime does not name. What
// was attached since this program began is spared: the runtime made its list before.
func (p *plugin) gc(args *skel.CmdArgs) error {
	c, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	if c.Valid == nil && c.Attachments == nil {
		// cnitool says nothing, after a DEL for each attachment that it remembered. That
		// is no word on those that it does not.
		return nil
	}
	r := &api.CNIGCRequest{Config: c.Name, Began: p.began}
	if r.Valid, err = c.valid(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := api.NewClient(c.Socket)
	defer client.Close()
	if _, err := client.CNIGC(ctx, r); err != nil {
		return daemonError(err)
	}
	if c.embedded() {
		return nil
	}
	return invoke.DelegateGC(context.Background(), c.IPAM.Type, args.StdinData, nil)
}

// valid are the attachments that the runtime names: cni.dev/valid-attachments is the
// specification's key, cni.dev/attachments one that was in use before it.
func (c *conf) valid() (out []api.CNIKey, err error) {
	said, field := c.Valid, "cni.dev/valid-attachments"
	if said == nil {
		said, field = c.Attachments, "cni.dev/attachments"
	}
	var list []json.RawMessage
	if err := json.Unmarshal(said, &list); err != nil {
		return nil, refuse(types.ErrInvalidNetworkConfig, field, "want a list, got "+compact(said))
	}
	for i, text := range list {
		var a types.GCAttachment
		if err := json.Unmarshal(text, &a); err != nil || a.ContainerID == "" || a.IfName == "" {
			return nil, refuse(types.ErrInvalidNetworkConfig, fmt.Sprintf("%s[%d]", field, i), "want containerID and ifname, got "+compact(text))
		}
		out = append(out, api.CNIKey{Config: c.Name, Container: a.ContainerID, IfName: a.IfName})
	}
	return out, nil
}
