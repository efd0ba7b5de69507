// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/conntrack"
	"sluice/flow"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/interp"
	"sluice/policy/nft"
	"sluice/policy/policytest"
)

// judge is who decides about a packet at a hook: the engine, or the interpreter.
type judge func(p *policy.Packet, family nft.Family, hook nft.Hook, lo, hi int) policy.Verdict

// router is the way of packets between two devices, m0 and m1, with what decides
// about them.
type router struct {
	judge judge
	table *conntrack.Table
	devs  [2]*policy.Device
	env   policy.Env
	now   int64

	frame  *packet.Frame
	ev     *policy.Evaluator
	record *policy.Record // of the packet that is on its way; nil: nothing is
	cache  map[flow.Key]remembered
	hits   int
	resets bool               // what is sent by reject is tracked, too, as the kernel does; ours passes no hooks
	apart  bool               // the packet was not tracked
	seen   *conntrack.Verdict // what conntrack has said of the packet already
}

// remembered is the decision about a flow.
type remembered struct {
	before, after part // the packet is routed
	conn          conntrack.Conn
	dir           conntrack.Dir
	noTrack       bool
	out           *policy.Device
	verdict       outcome
}

// part is what is done, as netstack keeps it: a path, if there is much of it.
type part struct {
	path    *policy.Path
	actions []policy.Action
}

func (x part) hold(p *policy.Packet) bool {
	if x.path != nil {
		return x.path.Hold(p)
	}
	return policy.Hold(x.actions, p)
}

func (x part) replay(p *policy.Packet, bytes uint64) {
	if x.path != nil {
		x.path.Replay(p, 1, bytes)
		return
	}
	policy.Replay(x.actions, p, 1, bytes)
}

// parts are those of the record, before and after the packet was routed.
func (r *router) parts(routed policy.Mark) (before, after part, ok bool) {
	if r.record.Len() > policy.Few {
		before.path, after.path = r.ev.Path(r.record, policy.Mark{}, routed), r.ev.Path(r.record, routed, r.record.Mark())
		return before, after, before.path != nil && after.path != nil
	}
	all := slices.Clone(r.record.Actions())
	return part{actions: all[:routed.Actions]}, part{actions: all[routed.Actions:]}, true
}

func newRouter(t testing.TB, j judge) *router {
	t.Helper()
	tab, err := conntrack.NewTable(conntrack.Config{Entries: 1 << 12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tab.Close() })
	r := &router{judge: j, table: tab, now: 1e9, frame: pt.NewFrame()}
	for i := range r.devs {
		r.devs[i] = policy.NewDevice(fmt.Sprintf("m%d", i), policy.Device{Index: uint32(10 + i), Type: 1})
	}
	r.env.FIB = func(p *policy.Packet, q *policy.FIBQuery) policy.FIBAnswer {
		return policy.FIBAnswer{Device: r.devs[side(q.Addr)], Type: 1}
	}
	return r
}

// side is the device by which an address is reached.
func side(a netip.Addr) int {
	if a.Is4() {
		return int(a.As4()[2]) & 1
	}
	return int(a.As16()[3]) & 1
}

// outcome is what became of a packet.
type outcome struct {
	what string // forward, drop, reject…
	mark uint32
	rule string
	out  []byte // from the network header on
}

func (o outcome) String() string {
	return fmt.Sprintf("%s mark %d by %s: %x", o.what, o.mark, o.rule, o.out)
}

func (o outcome) same(x outcome) bool {
	return o.what == x.what && o.mark == x.mark && o.rule == x.rule && bytes.Equal(o.out, x.out)
}

// ctPrio is where conntrack looks.
const ctPrio = -200

// pass sends a packet through: by what is remembered of its flow, or by the rules.
func (r *router) pass(b []byte, in int) outcome {
	f := r.frame
	f.Reset(packet.Headroom, len(b))
	copy(f.Bytes(), b)
	f.View.Parse(f.Bytes())
	f.InPort = uint16(in + 1)
	r.now += 1_000_000
	var key flow.Key
	known := r.cache != nil && key.Set(f)
	r.seen, r.apart = nil, false
	if m, ok := r.cache[key]; known && ok {
		if o, ok := r.replay(&m, f, in); ok {
			r.hits++
			return o
		}
	}
	var pending conntrack.Pending
	p := &policy.Packet{Frame: f, In: r.devs[in], Now: r.now, Pending: &pending, Env: &r.env}
	var routed policy.Mark
	o := r.evaluate(p, &routed)
	if o.what == resetSent && !mute(b) && !pending.Active() && f.View.Proto == packet.ProtoTCP && packet.VerifyL4(f.Bytes(), &f.View) {
		if p.Conn != (conntrack.Conn{}) {
			p.Conn.CloseTCP(uint32(r.now / 1e9))
		} else if r.resets {
			r.reset(f)
		}
	}
	if pending.Active() && o.what == "forward" {
		p.Conn, _ = r.table.Confirm(&pending, uint32(r.now/1e9))
	}
	delete(r.cache, key)
	if known && r.record.Cacheable() && p.Fault == packet.FaultNone && (r.apart || p.Conn != (conntrack.Conn{})) {
		m := remembered{conn: p.Conn, dir: p.Dir, noTrack: r.apart, out: p.Out, verdict: o}
		var ok bool
		if m.before, m.after, ok = r.parts(routed); ok {
			r.cache[key] = m
		}
	}
	return o
}

// replay treats a packet as the one before of its flow.
func (r *router) replay(m *remembered, f *packet.Frame, in int) (outcome, bool) {
	p := &policy.Packet{
		Frame: f, In: r.devs[in], Now: r.now, Env: &r.env,
		Conn: m.conn, Dir: m.dir, Tracked: true, NoTrack: m.noTrack, State: conntrack.Untracked,
	}
	n := uint64(f.View.End - f.View.L3)
	if !m.noTrack {
		p.State = m.conn.Packet(m.dir, f, uint32(r.now/1e9))
	}
	if p.State == conntrack.Gone || p.State == conntrack.Invalid {
		return outcome{}, false
	}
	if !m.before.hold(p) || !m.after.hold(p) {
		if !m.noTrack { // it is not to see the packet twice
			r.seen = &conntrack.Verdict{State: p.State, Dir: m.dir, Conn: m.conn}
		}
		return outcome{}, false
	}
	m.before.replay(p, n)
	if p.Out = m.out; p.Out != nil {
		f.DecrementTTL()
	}
	m.after.replay(p, n)
	o := m.verdict
	o.mark = p.Mark
	if o.what == "forward" {
		o.out = bytes.Clone(f.Bytes()[f.View.L3:f.View.End])
	}
	return o, true
}

// evaluate shows a packet to all rules.
func (r *router) evaluate(p *policy.Packet, routed *policy.Mark) outcome {
	f := p.Frame
	family := nft.FamilyIP
	if f.View.Is(packet.ViewIPv6) {
		family = nft.FamilyIP6
	}
	if o, ended := r.hook(p, family, nft.HookPrerouting, math.MinInt32, ctPrio); ended {
		return o
	}
	r.track(p)
	if o, ended := r.hook(p, family, nft.HookPrerouting, ctPrio, math.MaxInt32); ended {
		return o
	}
	if r.record != nil {
		*routed = r.record.Mark()
	}
	p.Out = r.devs[side(f.View.DstAddr(f.Bytes()))]
	if f.HopLimit() <= 1 {
		return outcome{what: "expired"}
	}
	f.DecrementTTL()
	for _, h := range []nft.Hook{nft.HookForward, nft.HookPostrouting} {
		if o, ended := r.hook(p, family, h, math.MinInt32, math.MaxInt32); ended {
			return o
		}
	}
	return outcome{what: "forward", mark: p.Mark, out: bytes.Clone(f.Bytes()[f.View.L3:f.View.End])}
}

// track is conntrack's turn.
func (r *router) track(p *policy.Packet) {
	p.Tracked = true
	if r.apart = p.NoTrack; r.apart {
		p.State = conntrack.Untracked
		return
	}
	v := r.seen
	if v == nil {
		w := r.table.Look(&conntrack.Packet{Frame: p.Frame, Now: uint32(r.now / 1e9)}, p.Pending)
		v = &w
	}
	p.State, p.Dir, p.Conn = v.State, v.Dir, v.Conn
}

// hook asks at one hook.
func (r *router) hook(p *policy.Packet, family nft.Family, h nft.Hook, lo, hi int) (outcome, bool) {
	v := r.judge(p, family, h, lo, hi)
	o := outcome{mark: p.Mark}
	if v.Why.Rule != nil {
		o.rule = fmt.Sprintf("%s %d", v.Why.Chain.Name, v.Why.Rule.Handle)
	} else if v.Why.Chain != nil {
		o.rule = "policy of " + v.Why.Chain.Name
	}
	switch v.Code {
	case policy.Drop:
		o.what = "drop"
	case policy.Reject:
		o.what = fmt.Sprintf("reject %d %d/%d", v.Reject, v.Type, v.ICMP)
	case policy.Accept, policy.Translate:
		return o, false
	}
	return o, true
}

// conversations are packets of a few flows, both ways, in some order.
type conversations struct {
	r     *rand.Rand
	v4    bool
	v6    bool
	first int // of the clients' ports, which no other ruleset uses
	flows []flowOf
}

type flowOf struct {
	src, dst netip.Addr
	in       int
	sport    uint16
	dport    uint16
	proto    uint8
	step     int
}

func newConversations(r *rand.Rand, family string, first int) *conversations {
	c := &conversations{r: r, v4: family != "ip6", v6: family != "ip", first: first}
	for i := range 10 {
		c.flows = append(c.flows, c.flow(i))
	}
	return c
}

func (c *conversations) flow(i int) flowOf {
	in := c.r.IntN(2)
	f := flowOf{in: in, sport: uint16(c.first + i), proto: []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP}[c.r.IntN(5)]}
	fmt.Sscan(policytest.Ports()[c.r.IntN(len(policytest.Ports()))], &f.dport)
	if f.proto != packet.ProtoICMP && c.r.IntN(3) == 0 { // so that rules about source ports see some, too
		f.sport, f.dport = f.dport, f.sport
	}
	g := &policytest.Gen{R: c.r}
	six := c.v6 && (!c.v4 || c.r.IntN(2) == 0)
	for side(f.src) == side(f.dst) || side(f.src) != in {
		f.src, f.dst = pt.IP(g.Addr(six)), pt.IP(g.Addr(six))
		if !f.src.IsValid() {
			continue
		}
	}
	return f
}

// next is another packet, and the device that it comes by.
func (c *conversations) next() ([]byte, int) {
	f := &c.flows[c.r.IntN(len(c.flows))]
	reply := f.step > 0 && c.r.IntN(2) == 0
	f.step++
	src, dst, sport, dport, in := f.src, f.dst, f.sport, f.dport, f.in
	if reply {
		src, dst, sport, dport, in = dst, src, dport, sport, 1-in
	}
	tos := []uint8{0, 0, 46 << 2, 8 << 2}[c.r.IntN(4)]
	var ip pt.Layer = pt.IPv4Hdr{Src: src, Dst: dst, TTL: 64, TOS: tos, ID: uint16(c.r.Uint32()), DF: true}
	if src.Is6() {
		ip = pt.IPv6Hdr{Src: src, Dst: dst, HopLimit: 64, TrafficClass: tos}
	}
	data := pt.Bytes([]int{0, 5, 20, 60}[c.r.IntN(4)])
	switch f.proto {
	case packet.ProtoTCP:
		flags := []uint8{pt.SYN, pt.SYN | pt.ACK, pt.ACK, pt.ACK | pt.PSH, pt.RST, pt.FIN | pt.ACK}[c.r.IntN(6)]
		if f.step == 1 {
			flags = pt.SYN
		}
		if flags&pt.SYN != 0 {
			data = nil
		}
		return pt.Build(pt.EtherHdr{}, ip, pt.TCPHdr{SrcPort: sport, DstPort: dport, Seq: 1000, Ack: 1000, Flags: flags}, data), in
	case packet.ProtoUDP:
		return pt.Build(pt.EtherHdr{}, ip, pt.UDPHdr{SrcPort: sport, DstPort: dport}, data), in
	}
	h := pt.ICMPHdr{V6: src.Is6(), Type: 8, ID: f.sport, Seq: uint16(f.step)}
	if h.V6 {
		h.Type = 128
	}
	if reply && h.V6 {
		h.Type = 129
	} else if reply {
		h.Type = 0
	}
	return pt.Build(pt.EtherHdr{}, ip, h, data), in
}

// load parses a ruleset.
func load(t testing.TB, text string) *nft.Ruleset {
	t.Helper()
	cmds, err := nft.Parse("test", text, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	res, err := new(nft.Ruleset).Apply(cmds, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return res.Ruleset
}

// both are a ruleset in the engine and in the interpreter.
type both struct {
	rs     *nft.Ruleset
	engine *policy.Engine
	ev     *policy.Evaluator
	world  *interp.World
	ours   *router
	plain  *router
	record policy.Record
}

// remember lets the engine's side remember its decisions about flows.
func (b *both) remember() {
	b.ours.ev, b.ours.record, b.ours.cache = b.ev, &b.record, map[flow.Key]remembered{}
}

func newBoth(t testing.TB, rs *nft.Ruleset) *both {
	t.Helper()
	b := &both{rs: rs, engine: policy.New([2]uint64{7, 11}), world: interp.New(rs)}
	if err := b.engine.Commit(rs, nil, 0); err != nil {
		t.Fatal(err)
	}
	b.ev = b.engine.Evaluator()
	b.ours = newRouter(t, func(p *policy.Packet, family nft.Family, hook nft.Hook, lo, hi int) policy.Verdict {
		return *b.ev.Hook(p, family, hook, lo, hi)
	})
	b.plain = newRouter(t, b.world.Hook)
	return b
}

// resetSent is what becomes of a segment that is refused by a reset.
const resetSent = "reject 2 0/0"

// reset lets conntrack see the reset that answers a segment of no connection: it may
// be of the one that the segment is no good for.
func (r *router) reset(f *packet.Frame) {
	v, b := &f.View, f.Bytes()
	src, dst := v.SrcAddr(b), v.DstAddr(b)
	h := b[v.L4:]
	tcp := pt.TCPHdr{SrcPort: v.DstPort, DstPort: v.SrcPort, Seq: binary.BigEndian.Uint32(h[8:]), Flags: pt.RST}
	if h[13]&pt.ACK == 0 {
		n := uint32(v.End-v.L4) - uint32(h[12]>>4)*4 + uint32(h[13]&1) + uint32(h[13]>>1&1)
		tcp.Seq, tcp.Ack, tcp.Flags = 0, binary.BigEndian.Uint32(h[4:])+n, pt.RST|pt.ACK
	}
	var ip pt.Layer = pt.IPv4Hdr{Src: dst, Dst: src, TTL: 64}
	if src.Is6() {
		ip = pt.IPv6Hdr{Src: dst, Dst: src, HopLimit: 64}
	}
	var none conntrack.Pending
	r.table.Look(&conntrack.Packet{Frame: pt.Frame(pt.Build(pt.EtherHdr{}, ip, tcp)), Now: uint32(r.now / 1e9)}, &none)
}

// marks are the marks of all connections, by their tuples.
func marks(r *router) string {
	var all []string
	r.table.Entries(nil, uint32(r.now/1e9), func(e *conntrack.Entry) bool {
		all = append(all, fmt.Sprintf("%v mark %d", e.Original, e.Mark))
		return true
	})
	slices.Sort(all)
	return strings.Join(all, "\n")
}
