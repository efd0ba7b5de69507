// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/policy"
	"sluice/policy/nft"
	"sluice/routing"
	"sluice/trace"
)

// Theory of operation.
//
// A packet that nobody has sent is shown to the hooks, with an engine, and a table of
// connections, that are made for it: the same program as the workers', with what rules
// and sets remember now. So it is judged as a packet would be, and leaves no trace.

// RuleQuestion is a packet about which a ruleset is asked.
type RuleQuestion struct {
	// Port is whose ruleset is asked; 0: the namespace's. Of a port, Leaves says that the
	// packet leaves by it, and does not come; Routed that a router has passed it before that,
	// Tracked that its connection is known by then.
	Port    uint16 `json:"port,omitempty"`
	Leaves  bool   `json:"leaves,omitempty"`
	Routed  bool   `json:"routed,omitempty"`
	Tracked bool   `json:"tracked,omitempty"`
	// In is the number of the device that it comes by; 0: the namespace sends it.
	In       uint16     `json:"in,omitempty"`
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	Proto    uint8      `json:"proto"`
	SrcPort  uint16     `json:"src_port,omitempty"` // of ICMP: the identifier
	DstPort  uint16     `json:"dst_port,omitempty"` // of ICMP: type<<8|code
	SrcMAC   packet.MAC `json:"src_mac"`
	DstMAC   packet.MAC `json:"dst_mac"`
	Mark     uint32     `json:"mark,omitempty"`
	Answered bool       `json:"answered,omitempty"` // its connection is established

	answers bool // it is the first answer
}

// RuleStep is one thing on the packet's way.
type RuleStep struct {
	// Hook is nft's word.
	Hook string `json:"hook"`
	// Table and Chain are where, Rule what has matched, Handle its number and Pos the place
	// in its file if that is known. Without Rule it is the end of a base chain.
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Rule    string `json:"rule,omitempty"`
	Handle  uint64 `json:"handle,omitempty"`
	Pos     string `json:"pos,omitempty"`
	Verdict string `json:"verdict"`
}

// RuleAnswer is what becomes of the packet.
type RuleAnswer struct {
	Steps []RuleStep `json:"steps"`
	// Verdict is "accept", "drop" or "reject"; Reason is why it is dropped where no rule
	// says so, as a drop reason.
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
	// By is the step that decided; nil: none did.
	By *RuleStep `json:"by,omitempty"`
	// Out is the device by which it leaves; 0: the namespace has its destination.
	Out uint16 `json:"out,omitempty"`
	// To is where it is sent instead, From where it seems to come from.
	To   string `json:"to,omitempty"`
	From string `json:"from,omitempty"`
}

// ruleProbe is one packet on its way.
type ruleProbe struct {
	s      *space
	rules  *rules
	q      *RuleQuestion
	eval   *policy.Evaluator
	table  *conntrack.Table
	pend   conntrack.Pending
	packet policy.Packet
	family nft.Family
	hook   nft.Hook
	record policy.Record
	answer RuleAnswer
}

// explainEntries is the size of the table of connections of one question.
const explainEntries = 64

// ExplainRules says what becomes of a packet, and which rules match on its way.
func (ns *Namespace) ExplainRules(q *RuleQuestion) (*RuleAnswer, error) {
	s := ns.space()
	r := s.ruleset(q.Port)
	switch {
	case s == nil:
		return nil, ErrClosed
	case r == nil && q.Port != 0:
		return nil, ErrNoPortRules
	case r == nil:
		return nil, ErrNoRules
	case !q.Src.IsValid() || !q.Dst.IsValid() || q.Src.Is4() != q.Dst.Is4():
		return nil, errors.New("source and destination are addresses of one family")
	}
	p := &ruleProbe{s: s, rules: r, q: q}
	now := int64(ns.net.elapsed())
	engine := policy.New([2]uint64{1, 2})
	if err := engine.Commit(r.state.Ruleset, nil, now); err != nil {
		return nil, err
	}
	engine.Import(r.engine.Export(now), now)
	var err error
	if p.table, err = conntrack.NewTable(conntrack.Config{Entries: explainEntries}); err != nil {
		return nil, err
	}
	defer p.table.Close()
	p.eval = engine.Evaluator()
	defer p.eval.Close()
	p.eval.SetTracer(p.take)
	p.eval.Pin()
	defer p.eval.Unpin()
	if err := p.prepare(now, ns.net.start.UnixNano()+now); err != nil {
		return nil, err
	}
	if q.Port != 0 {
		p.cross()
	} else {
		p.walk()
	}
	return &p.answer, nil
}

// prepare makes the packet.
func (p *ruleProbe) prepare(now, wall int64) error {
	f, err := p.q.frame()
	if err != nil {
		return err
	}
	p.family = familyOf(f)
	p.packet = policy.Packet{
		Frame: f, Env: p.rules.env, Now: now, Wall: wall, Pending: &p.pend, PktType: pktType(f, false), Mark: p.q.Mark, RouteMark: p.q.Mark, Trace: true,
	}
	if p.packet.In = p.rules.device(p.q.In); p.packet.In == nil && p.q.In != 0 {
		return fmt.Errorf("there is no device %d", p.q.In)
	}
	p.eval.Begin(&p.record)
	p.eval.NextTrace()
	return nil
}

// take notes what the engine tells.
func (p *ruleProbe) take(e *policy.TraceEvent) {
	if e.Kind == policy.TracePacket {
		return
	}
	step := RuleStep{
		Hook: p.hook.String(), Table: e.Why.Table.Family.String() + " " + e.Why.Table.Name, Chain: e.Why.Chain.Name, Verdict: e.VerdictText(),
	}
	if r := e.Why.Rule; r != nil && e.Kind == policy.TraceRule {
		step.Rule, step.Handle = nft.RuleText(e.Why.Table.Family, r, &nft.ListOptions{Stateless: true}), r.Handle
		if r.Pos.File != "" {
			step.Pos = fmt.Sprintf("%s:%d", r.Pos.File, r.Pos.Line)
		}
	}
	p.answer.Steps = append(p.answer.Steps, step)
}

// walk takes the packet through the hooks, in the order of passing.
func (p *ruleProbe) walk() {
	begin := nft.HookPrerouting
	if p.q.In == 0 {
		begin = nft.HookOutput
	}
	if !p.ask(begin, first, atTrack) {
		return
	}
	p.track()
	if !p.ask(begin, atTrack, atDstNAT) || !p.translate(begin) || !p.ask(begin, atDstNAT, last) {
		return
	}
	out, local, ok := p.route()
	if !ok {
		return
	}
	if local {
		p.leave(nft.HookInput)
		return
	}
	p.packet.Out, p.answer.Out = p.rules.device(out), out
	if p.q.In != 0 {
		p.packet.Frame.DecrementTTL()
		if !p.ask(nft.HookForward, first, last) {
			return
		}
	}
	p.leave(nft.HookPostrouting)
}

// cross shows the packet to the one hook of a port that it passes, as framing does.
func (p *ruleProbe) cross() {
	at, q := nft.HookIngress, &p.packet
	p.family = nft.FamilyNetdev
	q.In, q.Out, q.PktType = p.rules.self, nil, addressedAs(q.Frame)
	if p.q.Leaves {
		at, q.In, q.Out = nft.HookEgress, nil, p.rules.self
		if p.q.Routed {
			q.Frame.DecrementTTL()
			q.PktType = policy.PacketHost
		}
		if p.q.Tracked {
			p.track()
		}
	}
	if p.ask(at, first, last) {
		p.answer.Verdict = "accept"
	}
}

// leave is the last hook, input or postrouting.
func (p *ruleProbe) leave(at nft.Hook) {
	if p.ask(at, first, atSrcNAT) && p.translate(at) && p.ask(at, atSrcNAT, last) {
		p.answer.Verdict = "accept"
	}
}

// ask shows the packet to chains; false: it has come to its end.
func (p *ruleProbe) ask(at nft.Hook, lo, hi int) bool {
	p.hook = at
	v := p.eval.Hook(&p.packet, p.family, at, lo, hi)
	if p.packet.Fault != packet.FaultNone {
		p.answer.Verdict, p.answer.Reason = "drop", trace.NFTFault.String()
		return false
	}
	return p.obey(v)
}

func (p *ruleProbe) obey(v *policy.Verdict) bool {
	switch v.Code {
	case policy.Drop:
		p.answer.Verdict = "drop"
	case policy.Reject:
		p.answer.Verdict = "reject"
	default:
		return true
	}
	if n := len(p.answer.Steps); n > 0 {
		by := p.answer.Steps[n-1]
		p.answer.By = &by
	}
	return false
}

// track begins the packet's connection, or finds it where it was answered.
func (p *ruleProbe) track() {
	q := &p.packet
	if q.NoTrack {
		return
	}
	look := func(f *packet.Frame) conntrack.Verdict {
		return p.table.Look(&conntrack.Packet{Frame: f, Zone: 1, Now: 1}, &p.pend)
	}
	if p.q.Answered {
		p.converse(look)
	}
	v := look(q.Frame)
	q.Tracked, q.Conn, q.Dir, q.State = true, v.Conn, v.Dir, v.State
}

// converse lets the packets go by that come before one of an established connection.
func (p *ruleProbe) converse(look func(*packet.Frame) conntrack.Verdict) {
	opening, back := *p.q, *p.q
	opening.Answered = false
	back.Src, back.Dst, back.SrcPort, back.DstPort = p.q.Dst, p.q.Src, p.q.DstPort, p.q.SrcPort
	f, err := opening.frame()
	if err != nil || look(f).State != conntrack.New {
		return
	}
	if _, how := p.table.Confirm(&p.pend, 1); how != conntrack.Inserted {
		return
	}
	if f, err = back.answer(p.q); err == nil {
		look(f)
	}
}

// translate asks the chains of type nat about a new connection.
func (p *ruleProbe) translate(at nft.Hook) bool {
	if !p.pend.Active() || p.packet.NoTrack {
		return true
	}
	p.hook = at
	v := p.eval.NAT(&p.packet, p.family, at)
	if v.Code != policy.Translate {
		return p.obey(v)
	}
	addr, port := v.NAT.MinAddr, v.NAT.MinPort
	text := "the device's address"
	if addr.IsValid() {
		text = addr.String()
	}
	if port != 0 {
		text += fmt.Sprintf(" port %d", port)
	}
	if at == nft.HookPostrouting || at == nft.HookInput {
		p.answer.From = text
		return true
	}
	p.answer.To = text
	p.redirect(v, addr, port)
	return true
}

// redirect gives the packet another destination.
func (p *ruleProbe) redirect(v *policy.Verdict, addr netip.Addr, port uint16) {
	next := *p.q
	if addr.IsValid() {
		next.Dst = addr
	} else if own := p.s.router.Address(p.q.In, netip.Addr{}, p.q.Src); v.NAT.Kind == nft.Redirect && own.IsValid() {
		next.Dst = own
	}
	if port != 0 {
		next.DstPort = port
	}
	if f, err := next.frame(); err == nil && next.Dst.Is4() == p.q.Dst.Is4() {
		p.q, p.packet.Frame = &next, f
	}
}

// route is where the packet goes.
func (p *ruleProbe) route() (out uint16, local, ok bool) {
	mark := p.packet.Mark
	if p.q.In == 0 {
		mark = p.packet.RouteMark
	}
	a, err := p.s.router.Ask(&routing.Question{Query: routing.Query{
		Dst: p.q.Dst, Src: p.q.Src, IIF: p.q.In, Mark: mark, Proto: p.q.Proto, Sport: p.q.SrcPort, Dport: p.q.DstPort,
	}})
	switch {
	case err != nil:
		p.answer.Verdict, p.answer.Reason = "drop", trace.NoRoute.String()
		return 0, false, false
	case a.Reason != trace.None:
		p.answer.Verdict, p.answer.Reason = "drop", a.Reason.String()
		return 0, false, false
	case a.Result.Type == routing.Local || a.Result.NextHop == nil:
		return 0, true, true
	}
	return a.Result.NextHop.Index, false, true
}

// frame is the first packet of a connection.
func (q *RuleQuestion) frame() (*packet.Frame, error) {
	upper := q.upper()
	b := make([]byte, packet.EthernetLen, packet.EthernetLen+packet.IPv6Len+len(upper))
	copy(b, q.DstMAC[:])
	copy(b[6:], q.SrcMAC[:])
	be := binary.BigEndian
	if q.Src.Is4() {
		be.PutUint16(b[12:], packet.EtherTypeIPv4)
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, q.Proto, 0, 0)
		b = append(append(b, q.Src.AsSlice()...), q.Dst.AsSlice()...)
		be.PutUint16(b[packet.EthernetLen+2:], uint16(packet.IPv4MinLen+len(upper)))
		be.PutUint16(b[packet.EthernetLen+10:], ^packet.Sum(b[packet.EthernetLen:], 0))
	} else {
		be.PutUint16(b[12:], packet.EtherTypeIPv6)
		b = append(b, 0x60, 0, 0, 0, byte(len(upper)>>8), byte(len(upper)), q.Proto, 64)
		b = append(append(b, q.Src.AsSlice()...), q.Dst.AsSlice()...)
	}
	q.sum(upper)
	b = append(b, upper...)
	f := new(packet.Frame)
	f.SetBuf(make([]byte, packet.BufLen))
	f.Reset(packet.Headroom, len(b))
	copy(f.Bytes(), b)
	if fault := f.View.Parse(f.Bytes()); fault != packet.FaultNone {
		return nil, fmt.Errorf("no packet of protocol %d can be made of that", q.Proto)
	}
	return f, nil
}

// sum completes the checksum of what is behind the IP header, without which conntrack
// finds it invalid.
func (q *RuleQuestion) sum(upper []byte) {
	if q.Proto == packet.ProtoSCTP {
		binary.LittleEndian.PutUint32(upper[8:], crc32.Checksum(upper, crc32.MakeTable(crc32.Castagnoli)))
		return
	}
	at := map[uint8]int{packet.ProtoTCP: 16, packet.ProtoUDP: 6, packet.ProtoICMP: 2, packet.ProtoICMPv6: 2}[q.Proto]
	if at == 0 {
		return
	}
	pseudo := uint16(0)
	if q.Proto != packet.ProtoICMP {
		head := append(append(q.Src.AsSlice(), q.Dst.AsSlice()...), byte(len(upper)>>8), byte(len(upper)), 0, q.Proto)
		pseudo = packet.Sum(head, 0)
	}
	binary.BigEndian.PutUint16(upper[at:], 0)
	binary.BigEndian.PutUint16(upper[at:], ^packet.Sum(upper, pseudo))
}

// The flags of TCP's first two segments.
const tcpSYN, tcpACK = 0x02, 0x10

// upper is what is behind the IP header.
func (q *RuleQuestion) upper() []byte {
	be := binary.BigEndian
	var b []byte
	switch q.Proto {
	case packet.ProtoTCP:
		b = make([]byte, packet.TCPMinLen)
		b[12], b[13] = 0x50, tcpSYN
		switch {
		case q.answers:
			b[11], b[13] = 1, tcpSYN|tcpACK
		case q.Answered:
			b[7], b[11], b[13] = 1, 1, tcpACK
		}
		be.PutUint16(b[14:], 0xffff)
	case packet.ProtoUDP:
		b = make([]byte, packet.UDPLen)
		be.PutUint16(b[4:], packet.UDPLen)
	case packet.ProtoSCTP:
		b = append(make([]byte, 12), 1, 0, 0, 20) // INIT
		b = append(b, make([]byte, 16)...)
		be.PutUint32(b[16:], 1)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		b = make([]byte, 8)
		be.PutUint16(b, q.DstPort)
		be.PutUint16(b[4:], q.SrcPort)
		return b
	default:
		return make([]byte, 8)
	}
	be.PutUint16(b, q.SrcPort)
	be.PutUint16(b[2:], q.DstPort)
	return b
}

// answer is the packet that answers another question's.
func (q *RuleQuestion) answer(to *RuleQuestion) (*packet.Frame, error) {
	if q.Proto == packet.ProtoICMP || q.Proto == packet.ProtoICMPv6 {
		q.SrcPort, q.DstPort = to.SrcPort, to.DstPort
		switch to.DstPort >> 8 {
		case 8:
			q.DstPort = 0
		case 128:
			q.DstPort = 129 << 8
		}
	}
	q.answers = true
	return q.frame()
}
