// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/conntrack"
	"sluice/dataplane"
	"sluice/nat"
	"sluice/natspec"
	"sluice/packet"
)

// pageBytes is when a part of a list is long enough: a few thousand connections, which
// take some milliseconds.
const pageBytes = 1 << 19

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

// connPage is a part of a list of connections.
type connPage struct {
	*connRequest
	api.Page
	lines bool
}

// add adds an entry, and reports whether there is room for more.
func (p *connPage) add(e *conntrack.Entry) bool {
	if p.lines {
		p.Body = append(e.Append(p.Body, p.Flags|conntrack.ListAccount), '\n')
	} else {
		p.Body = appendJSON(p.Body, p.public(e))
	}
	p.Entries++
	return len(p.Body) < pageBytes
}

// appendJSON appends a line of a list.
func appendJSON(dst []byte, v any) []byte {
	if b, err := json.Marshal(v); err == nil { // the types of package api always encode
		dst = append(append(dst, b...), '\n')
	}
	return dst
}

// connections is a part of conntrack -L.
func (a *Agent) connections(_ context.Context, q query) (*api.Page, error) {
	r, err := a.connRequest(q.namespace, q.words)
	if err != nil {
		return nil, err
	}
	return a.page(&connPage{connRequest: r, lines: q.lines}, q.from)
}

// page makes the part of a list that begins at a place.
func (a *Agent) page(of *connPage, from uint64) (_ *api.Page, err error) {
	p := &connPage{connRequest: of.connRequest, lines: of.lines}
	p.Next, err = a.eachConnection(p.connRequest, from, p.add)
	return &p.Page, err
}

// eachConnection calls yield for connections that are chosen, from a place in the table
// on, until it says no, and returns the place to go on from; 0: that was the end. It
// reads the memory that the dataplane keeps them in, and asks it nothing: there need not
// be one. What is there may be anything.
func (a *Agent) eachConnection(r *connRequest, from uint64, yield func(*conntrack.Entry) bool) (next uint64, err error) {
	if r.none || from >= conntrack.MaxEntries {
		return 0, nil
	}
	v, err := conntrack.NewView(a.plane.start.Connections)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("clock: %w", err)
	}
	return uint64(v.Entries(&r.Filter, uint32(from), uint32(now.Sec), yield)), nil
}

// countConnections is how many are chosen.
func (a *Agent) countConnections(ctx context.Context, r *connRequest) (n int, err error) {
	count := func(*conntrack.Entry) bool { n++; return true }
	next, err := a.eachConnection(r, 0, count)
	for next != 0 && err == nil && ctx.Err() == nil {
		next, err = a.eachConnection(r, next, count)
	}
	return n, err
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

// deleteConnections is a part of conntrack -D and -F. What it tells of is what ended: the
// dataplane asks the filter once more, and ends no other connection that has come to the
// same place since.
func (a *Agent) deleteConnections(ctx context.Context, d *api.DeleteConnectionsRequest) (*api.Page, error) {
	r, err := a.connRequest(d.Namespace, d.Words)
	if err != nil {
		return nil, err
	}
	var chosen []conntrack.Entry
	p := &connPage{connRequest: r, lines: d.Lines}
	p.Next, err = a.eachConnection(r, d.From, func(e *conntrack.Entry) bool {
		chosen = append(chosen, *e)
		return len(chosen) < dataplane.MaxDelete
	})
	if err != nil {
		return nil, err
	}
	ended, err := a.endConnections(ctx, r, chosen)
	if err != nil {
		return nil, err
	}
	for i := range chosen {
		switch {
		case !ended[chosen[i].ID]:
		case r.Command == 'F':
			p.Entries++
		default:
			p.add(&chosen[i])
		}
	}
	if p.Entries > 0 {
		a.log.Info("connections deleted", "namespace", d.Namespace, "words", strings.Join(d.Words, " "), "count", p.Entries, "more", p.Next != 0)
	}
	return &p.Page, nil
}

// endConnections ends those that the filter still chooses, and says which.
func (a *Agent) endConnections(ctx context.Context, r *connRequest, chosen []conntrack.Entry) (map[uint32]bool, error) {
	ended := make(map[uint32]bool)
	if len(chosen) == 0 {
		return ended, nil
	}
	ids := make([]uint32, len(chosen))
	for i := range chosen {
		ids[i] = chosen[i].ID
	}
	got, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) ([]uint32, error) {
		return c.DeleteConnections(ctx, &r.Filter, ids)
	})
	for _, id := range got {
		ended[id] = true
	}
	return ended, err
}

// connStats is conntrack -S, and -C.
func (a *Agent) connStats(ctx context.Context, q query) (*api.ConnectionStats, error) {
	words := q.words
	if len(words) == 0 {
		words = []string{"-S"}
	}
	r, err := a.connRequest(q.namespace, words)
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
	if r.Filters() || r.none {
		out.Entries, err = a.countConnections(ctx, r)
	}
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
