// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"

	"sluice/api"
	"sluice/dataplane"
	"sluice/netstack"
	"sluice/packet"
)

// explainedPort is the source port of a packet of which none is said.
const explainedPort = 40000

// maxSteps bounds what is told of the way of a packet.
const maxSteps = 1 << 16

// end is one end of a packet's way.
type end struct {
	addr netip.Addr
	link *attachmentRecord // nil: of nobody here
}

// nftExplain asks a ruleset about packets that nobody has sent.
func (a *Agent) nftExplain(ctx context.Context, r *api.NFTExplainRequest) (*api.NFTExplainReply, error) {
	st, err := a.store.read()
	if err != nil {
		return nil, err
	}
	x, err := st.ruled(r.Namespace, r.Of)
	if err != nil {
		return nil, err
	}
	e, err := st.explainer(x, r)
	if err != nil {
		return nil, err
	}
	rs, err := a.rulesets.of(x.key, x.inForce())
	if err != nil {
		return nil, err
	}
	e.frames = netstack.SeesFrames(rs.Ruleset)
	reply := &api.NFTExplainReply{Explanations: []api.NFTExplanation{}}
	for _, to := range e.to {
		for _, from := range e.from {
			if from.addr.IsValid() && from.addr.Is4() != to.addr.Is4() {
				continue
			}
			x, err := a.explained(ctx, e, from, to)
			if err != nil {
				return nil, err
			}
			reply.Explanations = append(reply.Explanations, *x)
		}
	}
	if len(reply.Explanations) == 0 {
		return nil, refuse(api.CodeInvalid, "to", "%s and %s have no addresses of one family", r.From, r.To)
	}
	return reply, nil
}

// explainer is a request with its names looked up.
type explainer struct {
	st       *state
	space    string
	of       *attachmentRecord // whose port's ruleset it is; nil: the namespace's
	from, to []end
	devices  map[string]uint32
	names    map[uint32]string
	question netstack.RuleQuestion
	device   string
	proto    string
	frames   bool // the ruleset sees those, too
}

// ruled reports whether a port has a ruleset of its own.
func (e *explainer) ruled(x end) bool {
	return x.link != nil && x.link.rules(e.st.network(x.link.Network)) != nil
}

func (s *state) explainer(x *ruled, r *api.NFTExplainRequest) (*explainer, error) {
	space := x.space
	spec := s.namespaceSpec(space, "")
	e := &explainer{st: s, space: space, of: x.port, devices: spec.RuleDevices(), names: make(map[uint32]string), device: r.Device, proto: r.Proto}
	for name, index := range e.devices {
		e.names[index] = name
	}
	var err error
	if e.to, err = s.ends(space, "to", r.To); err != nil {
		return nil, err
	}
	e.from = []end{{}}
	switch {
	case r.From != "":
		e.from, err = s.ends(space, "from", r.From)
	case x.port != nil && !slices.ContainsFunc(e.to, e.isOf):
		e.from, err = s.ends(space, "from", x.port.Name)
	}
	if err != nil {
		return nil, err
	}
	if r.Device != "" && e.devices[r.Device] == 0 {
		return nil, refuse(api.CodeNotFound, "device", "the namespace has no network, link or uplink %q", r.Device)
	}
	e.question = netstack.RuleQuestion{SrcPort: r.SourcePort, DstPort: r.Port, Answered: r.Established}
	if e.question.SrcPort == 0 {
		e.question.SrcPort = explainedPort
	}
	return e, nil
}

// ends are those that a name means: all addresses of an attachment, or an address.
func (s *state) ends(space, field, name string) (out []end, err error) {
	addr, err := netip.ParseAddr(name)
	for _, rec := range s.attachedIn(space) {
		for _, x := range rec.addrs() {
			if rec.Name == name || err == nil && x == addr {
				out = append(out, end{x, rec})
			}
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case err != nil || addr.Zone() != "":
		return nil, refuse(api.CodeNotFound, field, "%q is neither an address nor an attachment of the namespace with addresses", name)
	}
	return []end{{addr: addr.Unmap()}}, nil
}

// comes notes how a packet comes from a container.
func (e *explainer) comes(from end, q *netstack.RuleQuestion, x *api.NFTExplanation) {
	if from.link == nil {
		return
	}
	q.SrcMAC = from.link.MAC
	if n := e.st.network(from.link.Network); n != nil {
		q.DstMAC = n.MAC
		if x.Device == "" {
			x.Device = n.Name
		}
	}
}

// beside reports whether both ends are in one network.
func (e *explainer) beside(from, to end) bool {
	return from.link != nil && to.link != nil && from.link.Network == to.link.Network
}

// explained asks the ruleset that is meant about one packet.
func (a *Agent) explained(ctx context.Context, e *explainer, from, to end) (*api.NFTExplanation, error) {
	if e.of != nil {
		return a.explainAt(ctx, e, from, to)
	}
	return a.explain(ctx, e, from, to)
}

// isOf reports whether an end is behind the port whose ruleset is asked. Behind an uplink
// is whoever is not attached here, and who comes by it.
func (e *explainer) isOf(x end) bool {
	if x.link == nil {
		return e.of.Uplink && (e.device == "" || e.device == e.of.Network)
	}
	return x.link.ID == e.of.ID
}

// explainAt asks a port's ruleset about one packet, which comes by the port or leaves by it.
func (a *Agent) explainAt(ctx context.Context, e *explainer, from, to end) (*api.NFTExplanation, error) {
	q, x := e.question, &api.NFTExplanation{Steps: []api.NFTStep{}}
	q.Port, q.Src, q.Dst = e.of.Port, from.addr, to.addr
	if !from.addr.IsValid() {
		q.Src = e.st.ownAddress(e.space, to.addr.Is4())
	}
	if err := protocol(e.proto, &q); err != nil {
		return nil, err
	}
	switch {
	case from.addr.IsValid() && e.isOf(from):
		x.Device = e.of.Name
	case e.isOf(to):
		x.Out, q.Leaves = e.of.Name, true
	default:
		return nil, refuse(api.CodeInvalid, "from", "the ruleset of port %s sees what comes from it or goes to it: %v to %v doesn't", e.of.Name, q.Src, q.Dst)
	}
	e.links(from, to, &q)
	x.From, x.To = q.Src, q.Dst
	answer, err := a.askExplanation(ctx, e.space, &q)
	if err != nil {
		return nil, err
	}
	e.public(answer, x)
	return x, nil
}

// links notes whose MAC addresses a packet has at a port, and who has passed it by then.
func (e *explainer) links(from, to end, q *netstack.RuleQuestion) {
	c := &e.st.namespace(e.space).Connections
	q.Routed = !e.beside(from, to)
	q.Tracked = c.tracks() && (q.Routed || c.Bridged)
	var gateway packet.MAC
	if n := e.st.network(e.of.Network); n != nil {
		gateway = n.MAC
	}
	switch {
	case !q.Routed:
	case q.Leaves:
		from.link, q.SrcMAC = nil, gateway
	default:
		to.link, q.DstMAC = nil, gateway
	}
	if from.link != nil {
		q.SrcMAC = from.link.MAC
	}
	if to.link != nil {
		q.DstMAC = to.link.MAC
	}
}

// explain asks the namespace's ruleset about one packet.
func (a *Agent) explain(ctx context.Context, e *explainer, from, to end) (*api.NFTExplanation, error) {
	q := e.question
	q.Src, q.Dst = from.addr, to.addr
	if err := protocol(e.proto, &q); err != nil {
		return nil, err
	}
	x := &api.NFTExplanation{Device: e.device, Steps: []api.NFTStep{}, Frames: e.frames || e.ruled(from) || e.ruled(to)}
	e.comes(from, &q, x)
	if from.addr.IsValid() && x.Device == "" {
		return nil, refuse(api.CodeInvalid, "device", "%s is not attached here: say by which device it comes", from.addr)
	}
	if !from.addr.IsValid() {
		q.Src = e.st.ownAddress(e.space, to.addr.Is4())
	}
	q.In = uint16(e.devices[x.Device])
	x.From, x.To = q.Src, q.Dst
	if e.beside(from, to) && !e.st.namespace(e.space).Connections.Bridged {
		x.Unseen, x.Verdict = true, "accept"
		return x, nil
	}
	answer, err := a.askExplanation(ctx, e.space, &q)
	if err != nil {
		return nil, err
	}
	e.public(answer, x)
	return x, nil
}

func (a *Agent) askExplanation(ctx context.Context, space string, q *netstack.RuleQuestion) (*netstack.RuleAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	c := a.plane.client.Load()
	if c == nil {
		return nil, unavailable(errPlaneDown)
	}
	answer, err := c.ExplainRules(ctx, space, q)
	no, refused := errors.AsType[*dataplane.RefusedError](err)
	switch {
	case refused:
		return nil, nftErr(errors.New(no.Message))
	case err != nil:
		return nil, unavailable(err)
	case answer == nil:
		return nil, unavailable(errPlaneDown)
	}
	return answer, nil
}

// public is the answer as the API shows it.
func (e *explainer) public(a *netstack.RuleAnswer, x *api.NFTExplanation) {
	for i := range a.Steps[:min(len(a.Steps), maxSteps)] {
		x.Steps = append(x.Steps, publicStep(&a.Steps[i]))
	}
	if a.By != nil {
		by := publicStep(a.By)
		x.By = &by
	}
	x.Verdict, x.Reason = word(a.Verdict, []string{"accept", "drop", "reject"}), api.Printable(a.Reason)
	x.Destination, x.Source = api.Printable(a.To), api.Printable(a.From)
	if a.Out != 0 {
		x.Out = e.names[uint32(a.Out)]
	}
}

func publicStep(s *netstack.RuleStep) api.NFTStep {
	return api.NFTStep{
		Hook: api.Printable(s.Hook), Table: api.Printable(s.Table), Chain: api.Printable(s.Chain), Rule: api.Printable(s.Rule),
		Handle: s.Handle, Pos: api.Printable(s.Pos), Verdict: api.Printable(s.Verdict),
	}
}

// ownAddress is some address of the namespace's own.
func (s *state) ownAddress(space string, four bool) netip.Addr {
	for _, n := range s.in(space) {
		for _, g := range n.Gateways {
			if g.Is4() == four {
				return g
			}
		}
	}
	if four {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// protocol notes a protocol by its name or number. A ping has no ports.
func protocol(name string, q *netstack.RuleQuestion) error {
	switch name {
	case "", "tcp":
		q.Proto = packet.ProtoTCP
	case "udp":
		q.Proto = packet.ProtoUDP
	case "sctp":
		q.Proto = packet.ProtoSCTP
	case "icmp", "icmpv6":
		q.Proto, q.DstPort = packet.ProtoICMP, 8<<8
		if q.Dst.Is6() {
			q.Proto, q.DstPort = packet.ProtoICMPv6, 128<<8
		}
	default:
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil {
			return refuse(api.CodeInvalid, "proto", "%q: want tcp, udp, sctp, icmp or a number below 256", name)
		}
		q.Proto = uint8(n)
	}
	return nil
}
