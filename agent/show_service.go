// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"

	"sluice/api"
	"sluice/conntrack"
	"sluice/dataplane"
	"sluice/nat"
)

// serviceList are the services, with what their backends have. Without a dataplane
// they have nothing.
func (a *Agent) serviceList(ctx context.Context, q query) ([]api.Service, error) {
	st, names, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	counts := make(map[conntrack.Bind]nat.BackendStats)
	all, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) ([]nat.BackendStats, error) { return c.Backends(ctx) })
	if err == nil {
		for _, s := range all {
			counts[s.Bind] = s
		}
	}
	out := []api.Service{}
	for _, name := range names {
		rec := st.namespace(name)
		for i := range rec.Connections.Services {
			out = append(out, publicService(name, &rec.Connections.Services[i], counts))
		}
	}
	return out, nil
}

func publicService(namespace string, r *serviceRecord, counts map[conntrack.Bind]nat.BackendStats) api.Service {
	out := api.Service{Namespace: namespace, Name: r.Name, Listen: []string{}, Backends: []api.ServiceBackend{}}
	text := []string{r.Name}
	for _, l := range r.Listen {
		out.Listen = append(out.Listen, l.String())
		text = append(text, l.String())
	}
	if r.Persistent != nil && *r.Persistent > 0 {
		out.Persistent = *r.Persistent
		text = append(text, fmt.Sprintf("persistent %d", out.Persistent))
	}
	lines := []string{strings.Join(text, " ")}
	for i := range r.Real {
		b, c := &r.Real[i], counts[r.Binds[i]]
		out.Backends = append(out.Backends, api.ServiceBackend{
			Addr: b.Addr, Port: b.Port, Weight: b.Weight, State: b.State, Active: c.Active, Conns: c.Conns,
			InPackets: c.Packets[conntrack.Original], OutPackets: c.Packets[conntrack.Reply],
			InBytes: c.Bytes[conntrack.Original], OutBytes: c.Bytes[conntrack.Reply],
		})
		lines = append(lines, fmt.Sprintf("    -> %s weight %d state %s active %d conns %d in %d packets %d bytes out %d packets %d bytes", b.Place(), b.Weight, b.State,
			c.Active, c.Conns, c.Packets[conntrack.Original], c.Bytes[conntrack.Original], c.Packets[conntrack.Reply], c.Bytes[conntrack.Reply]))
	}
	out.Line = strings.Join(lines, "\n")
	return out
}
