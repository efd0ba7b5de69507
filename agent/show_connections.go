// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"sluice/api"
	"sluice/conntrack"
	"sluice/dataplane"
	"sluice/nat"
	"sluice/natspec"
	"sluice/packet"
)

// maxConnections bounds the connections of one answer.
const maxConnections = 1 << 18

// connRequest is a request about connections, understood.
type connRequest struct {
	*natspec.Request
	st     *state
	spaces map[uint16]string // by zone
	links  map[uint16]string // attachments, by port
	none   bool              // the namespace tracks no connections
}

// connRequest reads the words of conntrack(8).
func (a *Agent) connRequest(namespace string, words []string) (*connRequest, error) {
	st, names, err := a.spacesOf(query{namespace: namespace})
	if err != nil {
		return nil, err
	}
	r, err := natspec.ParseConntrack(words)
	if err != nil {
		return nil, badWords(err)
	}
	out := &connRequest{Request: r, st: st, spaces: st.zones(), links: st.portNames()}
	if namespace == "" {
		return out, nil
	}
	zone := st.namespace(names[0]).Connections.Zone
	out.none = zone == 0 || r.Filter.HasZone && r.Filter.Zone != zone
	r.Filter.HasZone, r.Filter.Zone = true, zone
	return out, nil
}

// zones are the namespaces that have one.
func (s *state) zones() map[uint16]string {
	out := make(map[uint16]string)
	for i := range s.namespaces {
		if zone := s.namespaces[i].Connections.Zone; zone != 0 {
			out[zone] = s.namespaces[i].Name
		}
	}
	return out
}

func (a *Agent) connections(ctx context.Context, q query) ([]api.Connection, error) {
	r, err := a.connRequest(q.namespace, q.words)
	if err != nil {
		return nil, err
	}
	out := []api.Connection{}
	err = a.eachConnection(ctx, r, func(e *conntrack.Entry) bool {
		out = append(out, r.public(e))
		return len(out) <= maxConnections
	})
	if len(out) > maxConnections {
		return nil, refuse(api.CodeOutOfRange, "words", "there are more than %d connections; choose some, by -p, -s, -d, --state or a namespace", maxConnections)
	}
	return out, err
}

// eachConnection asks the dataplane, page by page, until yield returns false.
func (a *Agent) eachConnection(ctx context.Context, r *connRequest, yield func(*conntrack.Entry) bool) error {
	from, pages := uint32(0), 0
	for !r.none {
		page, err := connPage(ctx, a.plane, &r.Filter, from)
		if err != nil {
			return err
		}
		for i := range page.Entries {
			if tellable(&page.Entries[i]) && !yield(&page.Entries[i]) {
				return nil
			}
		}
		// What the sandbox says of the next page is believed only if it leads on.
		if pages++; page.Next <= from || pages > conntrack.MaxEntries {
			return nil
		}
		from = page.Next
	}
	return nil
}

func connPage(ctx context.Context, p *plane, f *conntrack.Filter, from uint32) (dataplane.ConnPage, error) {
	return asked(ctx, p, func(ctx context.Context, c *dataplane.Client) (dataplane.ConnPage, error) {
		return c.Connections(ctx, f, from)
	})
}

// asked asks the dataplane one thing.
func asked[Out any](ctx context.Context, p *plane, f func(context.Context, *dataplane.Client) (Out, error)) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	c := p.client.Load()
	if c == nil {
		var none Out
		return none, unavailable(errPlaneDown)
	}
	out, err := f(ctx, c)
	if err != nil {
		return out, unavailable(err)
	}
	return out, nil
}

// tellable reports whether an entry is one that a table can have, and takes out of it
// what could be any text.
func tellable(e *conntrack.Entry) bool {
	for _, t := range []*conntrack.Tuple{&e.Original, &e.Reply} {
		if !t.Src.IsValid() || !t.Dst.IsValid() {
			return false
		}
		t.Src, t.Dst = t.Src.WithZone(""), t.Dst.WithZone("")
	}
	if len(e.State) > 32 || strings.Trim(e.State, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") != "" {
		e.State = strings.ToUpper(unknownWord)
	}
	return true
}

// public is a connection as the API shows it.
func (r *connRequest) public(e *conntrack.Entry) api.Connection {
	out := api.Connection{
		Namespace: r.spaces[e.Zone], Family: "ipv4", Proto: natspec.ProtocolName(e.Original.Proto), ProtoNum: e.Original.Proto,
		Timeout: e.Timeout, Age: e.Age, State: e.State, Status: statusWords(e.Status), Mark: e.Mark, Zone: e.Zone, ID: e.ID,
		Original: publicWay(e, conntrack.Original), Reply: publicWay(e, conntrack.Reply), Link: r.links[e.Port],
		Line: string(e.Append(nil, r.Flags|conntrack.ListAccount)),
	}
	if e.Original.Src.Is6() {
		out.Family = "ipv6"
	}
	if e.Label != (conntrack.Label{}) {
		out.Labels = "0x" + hex.EncodeToString(e.Label[:])
	}
	return out
}

func publicWay(e *conntrack.Entry, d conntrack.Dir) api.ConnectionWay {
	t := &e.Original
	if d == conntrack.Reply {
		t = &e.Reply
	}
	out := api.ConnectionWay{Src: t.Src, Dst: t.Dst, Packets: e.Packets[d], Bytes: e.Bytes[d]}
	if t.Proto == packet.ProtoICMP || t.Proto == packet.ProtoICMPv6 {
		out.ICMP = &api.ICMPQuery{Type: uint8(t.DstPort >> 8), Code: uint8(t.DstPort), ID: t.SrcPort}
		return out
	}
	out.Sport, out.Dport = t.SrcPort, t.DstPort
	return out
}

// statusWords are libnetfilter_conntrack's.
func statusWords(s conntrack.Status) []string {
	out := []string{}
	for _, b := range []struct {
		bit  conntrack.Status
		word string
	}{
		{conntrack.Expected, "EXPECTED"},
		{conntrack.SeenReply, "SEEN_REPLY"},
		{conntrack.Assured, "ASSURED"},
		{conntrack.Confirmed, "CONFIRMED"},
		{conntrack.SrcNAT, "SRC_NAT"},
		{conntrack.DstNAT, "DST_NAT"},
		{conntrack.FixedTimeout, "FIXED_TIMEOUT"},
		{conntrack.Dying, "DYING"},
	} {
		if s&b.bit != 0 {
			out = append(out, b.word)
		}
	}
	return out
}

// deleteConnections is conntrack -D and -F.
func (a *Agent) deleteConnections(ctx context.Context, d *api.DeleteConnectionsRequest) (*api.DeleteConnectionsReply, error) {
	r, err := a.connRequest(d.Namespace, d.Words)
	if err != nil {
		return nil, err
	}
	out := &api.DeleteConnectionsReply{Connections: []api.Connection{}}
	if r.none {
		return out, nil
	}
	if r.Command == 'D' {
		err = a.eachConnection(ctx, r, func(e *conntrack.Entry) bool {
			out.Connections = append(out.Connections, r.public(e))
			return len(out.Connections) <= maxConnections
		})
		if len(out.Connections) > maxConnections {
			out.Connections = []api.Connection{}
		}
		if err != nil {
			return nil, err
		}
	}
	out.Deleted, err = asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (int, error) {
		return c.DeleteConnections(ctx, &r.Filter)
	})
	a.log.Info("connections deleted", "namespace", d.Namespace, "words", strings.Join(d.Words, " "), "count", out.Deleted)
	return out, err
}

// connStats is conntrack -S, and -C.
func (a *Agent) connStats(ctx context.Context, q query) (*api.ConnectionStats, error) {
	r, err := a.connRequest(q.namespace, []string{"-S"})
	if err != nil {
		return nil, err
	}
	s, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (dataplane.ConnStats, error) { return c.ConnStats(ctx) })
	if err != nil {
		return nil, err
	}
	t := &s.Table
	out := &api.ConnectionStats{
		Entries: t.Entries, Max: s.Cap, Found: t.Found, Invalid: t.Invalid, Insert: t.Insert, InsertFailed: t.InsertFailed, Drop: t.Drop,
		EarlyDrop: t.EarlyDrop, Error: t.Error, SearchRestart: t.SearchRestart, ClashResolve: t.ClashResolve, ChainTooLong: t.ChainTooLong,
		Delete: t.Delete, Exhausted: s.NAT.Exhausted, NoAddress: s.NAT.NoAddress, NoBackend: s.NAT.NoBackend, Bindings: s.NAT.Bindings,
		Line: "cpu=0   \t" + t.String(),
	}
	if q.namespace == "" {
		return out, nil
	}
	out.Entries = 0
	err = a.eachConnection(ctx, r, func(*conntrack.Entry) bool { out.Entries++; return true })
	return out, err
}

// natList are the rules of address translation.
func (a *Agent) natList(q query) ([]api.NATRule, error) {
	st, names, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.NATRule{}
	for _, name := range names {
		rec := st.namespace(name)
		for i, r := range st.natRules(rec, "") {
			pub := api.NATRule{
				Namespace: name, Hook: r.Hook.String(), Rule: r.text, Published: i >= len(rec.Connections.NAT), Active: r.active, Line: r.line(),
			}
			out = append(out, pub)
		}
	}
	return out, nil
}

func (r *natRule) line() string {
	line := r.text
	if strings.HasPrefix(line, "publish") {
		line = r.Hook.String() + " " + line
		if r.Target.Addrs.Min.IsValid() {
			line += " at " + r.Target.Addrs.Min.String()
		}
	}
	if !r.active {
		line += " (inactive: a device is not there)"
	}
	return line
}

func (a *Agent) publishedList(q query) ([]api.Published, error) {
	st, names, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.Published{}
	for _, name := range names {
		there := make(map[string][]netip.Addr)
		for _, rec := range st.attachedIn(name) {
			if rec.forwards("") {
				there[rec.Name] = rec.addrs()
			}
		}
		for _, p := range st.namespace(name).Connections.Published {
			out = append(out, publicPublished(name, &p, there[p.To]))
		}
	}
	return out, nil
}

func publicPublished(namespace string, p *natspec.Publish, there []netip.Addr) api.Published {
	out := api.Published{
		Namespace: namespace, Proto: natspec.ProtocolName(p.Proto), Addr: p.Addr, Port: p.Ports.Min, To: p.To, ToPort: p.ToPorts.Min,
		Addresses: []netip.Addr{}, Line: p.String(),
	}
	if p.Ports.Max != p.Ports.Min {
		out.PortEnd = p.Ports.Max
	}
	for _, r := range p.Rules(there) {
		if to := r.Target.Addrs.Min; len(out.Addresses) == 0 || out.Addresses[len(out.Addresses)-1] != to {
			out.Addresses = append(out.Addresses, to)
		}
	}
	if len(out.Addresses) == 0 {
		out.Line += " (inactive: nothing of that name is attached)"
	} else {
		out.Line += " at " + words(out.Addresses)
	}
	return out
}

// bindingList are the mappings of the profile rfc.
func (a *Agent) bindingList(ctx context.Context, q query) ([]api.Binding, error) {
	r, err := a.connRequest(q.namespace, []string{"-L"})
	if err != nil {
		return nil, err
	}
	all, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) ([]nat.Binding, error) { return c.Bindings(ctx) })
	if err != nil {
		return nil, err
	}
	out := []api.Binding{}
	for _, b := range all {
		if r.none || r.Filter.HasZone && b.Zone != r.Filter.Zone {
			continue
		}
		pub := api.Binding{
			Namespace: r.spaces[b.Zone], Proto: natspec.ProtocolName(b.Proto), Inside: addrPort(b.Inside), Outside: addrPort(b.Outside), Connections: b.Connections,
		}
		pub.Line = fmt.Sprintf("%s %s -> %s connections=%d", pub.Proto, pub.Inside, pub.Outside, pub.Connections)
		out = append(out, pub)
	}
	return out, nil
}
