// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"sluice/api"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/trace"
)

// queryTimeout bounds what the dataplane is asked for one request.
const queryTimeout = pingTimeout

// links lists the attachments of a network (empty: all), by name.
func (a *Agent) links(ctx context.Context, q query) ([]api.Link, error) {
	st, _, err := a.look(q)
	if err != nil {
		return nil, err
	}
	if q.stats {
		a.plane.sockets.countOverruns(a.counters)
	}
	out, devices := []api.Link{}, make(map[string]map[string]string)
	for i := range st.attachments {
		rec := &st.attachments[i]
		if q.network != "" && rec.Network != q.network || rec.Uplink {
			continue
		}
		link := api.Link{Attachment: st.publicBut(rec)}
		if devices[link.Namespace] == nil {
			devices[link.Namespace] = st.portDevices(link.Namespace)
		}
		link.Device = devices[link.Namespace][rec.ID]
		if q.stats {
			link.Stats = a.stats(rec.Port)
		}
		out = append(out, link)
	}
	ports := make(map[uint16]*api.Stats)
	for i := range out {
		ports[out[i].Port] = out[i].Stats
	}
	a.blame(ctx, ports)
	// As `ip link` does it: in the order of the numbers.
	slices.SortFunc(out, func(x, y api.Link) int { return cmp.Compare(x.Port, y.Port) })
	return out, nil
}

// blame adds to statistics of ports, as far as there are some, which rules have dropped
// their frames. What can't be told now is left out: the counters are there without it.
func (a *Agent) blame(ctx context.Context, ports map[uint16]*api.Stats) {
	none := true
	for _, s := range ports {
		none = none && (s == nil || s.Drops[trace.NFTDrop.String()]+s.Drops[trace.NFTReject.String()] == 0)
	}
	if none {
		return
	}
	drops, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) ([]netstack.RuleDrop, error) { return c.RuleDrops(ctx) })
	if err != nil {
		return
	}
	for _, d := range drops {
		s := ports[d.Port]
		if s == nil || s.Drops[d.Reason] == 0 {
			continue
		}
		if s.DroppedBy == nil {
			s.DroppedBy = make(map[string]api.RuleDrop)
		}
		s.DroppedBy[d.Reason] = api.RuleDrop{
			Namespace: d.Namespace, Port: d.Own, Table: d.Table, Chain: d.Chain, Handle: d.Handle, Rule: d.Rule, Pos: d.Pos,
		}
	}
}

// look reads the state and returns the networks that a query is about.
func (a *Agent) look(q query) (*state, []*networkRecord, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, nil, err
	}
	if q.network != "" {
		n := st.network(q.network)
		if n == nil {
			return nil, nil, refuse(api.CodeNotFound, "network", "no network %q", q.network)
		}
		return st, []*networkRecord{n}, nil
	}
	if q.namespace != "" {
		if st.namespace(q.namespace) == nil {
			return nil, nil, refuse(api.CodeNotFound, "namespace", "no namespace %q", q.namespace)
		}
		return st, st.in(q.namespace), nil
	}
	var all []*networkRecord
	for i := range st.networks {
		all = append(all, &st.networks[i])
	}
	return st, all, nil
}

// stats reads the counters of a port.
func (a *Agent) stats(port uint16) *api.Stats { return publicStats(a.counters.Port(port).Snapshot()) }

func publicStats(s trace.PortStats) *api.Stats {
	if s.Drops == nil {
		s.Drops = map[string]uint64{}
	}
	return &api.Stats{
		RX:       api.Direction{Packets: s.RxPackets, Bytes: s.RxBytes, Batches: s.RxTurns, GSO: s.RxGSO},
		TX:       api.Direction{Packets: s.TxPackets, Bytes: s.TxBytes, Batches: s.TxCalls, GSO: s.TxGSO},
		FlowHits: s.FlowHits, FlowMisses: s.FlowMisses, Flooded: s.Flooded, Learned: s.Learned, Drops: s.Drops,
	}
}

func (a *Agent) networks(ctx context.Context, q query) ([]api.Network, error) {
	st, all, err := a.look(q)
	if err != nil {
		return nil, err
	}
	out, ports := []api.Network{}, make(map[uint16]*api.Stats)
	for _, n := range all {
		if n.Uplink != nil {
			continue
		}
		pub := api.Network{
			Name: n.Name, Subnets: n.Subnets, Gateways: n.Gateways, Port: n.Port, MAC: n.MAC.String(), MTU: n.MTU,
			AgeingSeconds: n.AgeingSeconds, FDBMax: n.FDBMax, FDBMaxPerPort: n.FDBMaxPerPort, Echo: n.Echo,
			Attachments: len(st.of(n.Name)), Namespace: n.space(), VRF: n.VRF, Config: n.Origin,
		}
		if q.stats {
			pub.Stats = a.stats(n.Port)
			ports[n.Port] = pub.Stats
		}
		out = append(out, pub)
	}
	a.blame(ctx, ports)
	return out, nil
}

func (a *Agent) addresses(q query) ([]api.Address, error) {
	st, all, err := a.look(q)
	if err != nil {
		return nil, err
	}
	out := []api.Address{}
	for _, n := range all {
		for i, g := range n.Gateways {
			out = append(out, api.Address{
				Network: n.Name, Prefix: netip.PrefixFrom(g, n.Subnets[i].Bits()), Kind: "gateway", Link: n.Name, MAC: n.MAC.String(),
			})
		}
		for _, rec := range st.of(n.Name) {
			for _, p := range rec.Addresses {
				out = append(out, api.Address{Network: n.Name, Prefix: p, Kind: "attachment", Link: rec.Name, MAC: rec.MAC.String()})
			}
		}
	}
	return out, nil
}

// portNames says who has which port: an attachment, or a network for the local
// port of its bridge.
func (s *state) portNames() map[uint16]string {
	out := make(map[uint16]string)
	for i := range s.networks {
		out[s.networks[i].Port] = s.networks[i].Name
	}
	for i := range s.attachments {
		out[s.attachments[i].Port] = s.attachments[i].Name
	}
	return out
}

func atMostTold(*networkRecord) int { return maxTold }

// ask collects one kind of list from the dataplane, of each network. A list that
// is longer than most allows is no honest one.
func ask[In, Out any](ctx context.Context, p *plane, all []*networkRecord, most func(*networkRecord) int,
	list func(c *dataplane.Client, ctx context.Context, namespace, network string) ([]In, error), public func(n *networkRecord, e *In) Out,
) ([]Out, error) {
	out := []Out{}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	c := p.client.Load()
	if c == nil {
		return nil, unavailable(errPlaneDown)
	}
	for _, n := range all {
		entries, err := list(c, ctx, n.space(), n.Name)
		if err != nil {
			return nil, askError(n.Name, err)
		}
		if len(entries) > most(n) {
			return nil, refuse(api.CodeInternal, "", "network %s: the dataplane lists %d entries, more than there can be", n.Name, len(entries))
		}
		for i := range entries {
			out = append(out, public(n, &entries[i]))
		}
	}
	return out, nil
}

func askError(network string, err error) error {
	if _, ok := errors.AsType[*dataplane.RefusedError](err); ok {
		return refuse(api.CodeInternal, "", "network %s: %s", network, err.Error())
	}
	return unavailable(err)
}

// status answers also when the dataplane does not: it is then down.
func (a *Agent) status(ctx context.Context) (*api.Status, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	out := &api.Status{
		Version: a.opts.Version, Build: dataplane.BuildID(), PID: os.Getpid(), Started: a.started,
		RunDir: a.opts.RunDir, StateDir: a.opts.StateDir,
		Networks: len(st.attachable()), Attachments: st.containers(), Uplinks: len(st.uplinks()) + len(st.bySocket()), Failed: len(st.failed()),
		Dataplane: a.plane.status(ctx), Goroutines: runtime.NumGoroutine(),
	}
	if text := a.configErr.Load(); text != nil {
		out.ConfigError = *text
	}
	return out, nil
}

func (p *plane) status(ctx context.Context) api.DataplaneStatus {
	out := api.DataplaneStatus{State: "down", Spare: int(p.sparePID.Load())}
	if info := p.info.Load(); info != nil {
		out.Adopted, out.Restarts, out.LastGapMicros = info.adopted, info.restarts, info.gap.Microseconds()
		if info.backoff {
			out.State = "backoff"
		}
	}
	c := p.client.Load()
	if !alive(c) {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	s, err := c.Status(ctx)
	if err != nil {
		return out
	}
	out.State, out.PID, out.Build, out.Workers, out.Generation = "running", c.PID(), build(c.Build()), s.Workers, s.Generation
	out.Goroutines = s.Goroutines
	return out
}
