// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/conntrack"
	"sluice/conntrack/conntracktest"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// trial is one case: a few dialogues between hosts on both sides, packet by packet
// through both routers. After each packet what came out is compared, and after the
// last one, and now and then, the connections.
type trial struct {
	o       *oracle
	talks   []*dialogue
	chosen  choices
	began   []conntracktest.Tuple    // the kernel's connections
	entered map[conntrack.Tuple]bool // what came to us
	name    string
	history []event
	start   time.Time
	ruled   bool   // by random rulesets: what becomes of a packet is not known before
	failed  string // what differed first
	rejects bool   // there are rules that do
	refused map[netip.Addr]int
	blurred bool // a port was chosen freely that rules know
}

// oracle compares the two routers.
type oracle struct {
	*kernelRouter
	r       *rand.Rand
	packets int
	allowed map[string]int // named differences, and how often they were met
	bad     int
}

// The differences that are allowed. Each is a decision, or not the routers' doing.
const (
	chosenFreely  = "a free port or address: another one of the same range"
	ownAnswer     = "an answer of the router's own stack: its fields that no standard fixes"
	remembered    = "a source whose connection has ended in this second has its mapping again"
	takenAgain    = "the port of a closed connection is chosen for another one, by chance by one of the two"
	tooSlow       = "a case took more than a second: the clocks are apart"
	stoodStill    = "a case took so long that the kernel's clock knows a stream where ours doesn't: played again"
	withheld      = "a refusal: its sender has been told enough in this second"
	madeRight     = "a wrong CRC of SCTP in a packet that is quoted: the kernel makes it right, we leave it"
	countedPieces = "fragments are counted one by one (decision 0012), the kernel counts what it reassembled"
)

// TestTranslationAgreesWithKernel lets random packets through both. ORACLE_CASES says
// how many cases, ORACLE_SEED which,
// ORACLE_FROM from which on.
func TestTranslationAgreesWithKernel(t *testing.T) {
	cases := number(t, "ORACLE_CASES", 1500)
	seed := number(t, "ORACLE_SEED", 0x51)
	if testing.Short() {
		cases = min(cases, 300)
	}
	o := &oracle{kernelRouter: newKernelRouter(t), allowed: map[string]int{}}
	start := time.Now()
	for i := number(t, "ORACLE_FROM", 0); i < cases; i++ {
		o.r = rand.New(rand.NewPCG(uint64(seed), uint64(i)))
		o.lab.pass(1) // the kernel's rates of errors are off
		x := &trial{o: o, start: time.Now(), entered: map[conntrack.Tuple]bool{}}
		x.name = fmt.Sprintf("seed %d case %d", seed, i)
		x.run()
		x.clean()
		if o.bad > 4 {
			t.Fatal("and so on")
		}
	}
	t.Logf("%d cases, %d packets in %.0f s, seed %d", cases, o.packets, time.Since(start).Seconds(), seed)
	for _, name := range slices.Sorted(maps.Keys(o.allowed)) {
		t.Logf("%8d times %s", o.allowed[name], name)
	}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	demand(t, name, err)
	return n
}

func (x *trial) run() {
	r := x.o.r
	for range 1 + r.IntN(3) {
		x.talks = append(x.talks, newDialogue(r))
	}
	steps := make([]int, len(x.talks))
	for range 4 + r.IntN(12) {
		i := r.IntN(len(x.talks))
		if !x.turn(x.talks[i], steps[i]) {
			return
		}
		steps[i]++
		if r.IntN(6) == 0 && !x.sameState() {
			return
		}
	}
	x.sameState()
}

// turn sends the next packet of an dialogue; false if the routers differ.
func (x *trial) turn(e *dialogue, step int) bool {
	r := x.o.r
	d := conntrack.Dir(step % 2)
	if step > 2 || r.IntN(5) == 0 {
		d = conntrack.Dir(r.IntN(2))
	}
	if e.local {
		d = conntrack.Original
	}
	switch kind := r.IntN(12); {
	case kind == 0 && !e.local:
		frames, what, ok := e.complaint(d)
		if !ok {
			return true
		}
		return x.through(e, d, e.sides[1-d], [][2][]byte{frames}, what)
	case kind == 1 && e.proto == packet.ProtoUDP && !e.local:
		frames, what := e.pieces(d)
		return x.through(e, d, e.sides[d], frames, what)
	}
	frames, what := e.packet(d, step)
	return x.through(e, d, e.sides[d], [][2][]byte{frames}, what)
}

// through lets the frames of one packet into both routers.
func (x *trial) through(e *dialogue, d conntrack.Dir, from int, frames [][2][]byte, what string) bool {
	x.o.packets++
	var out [2]sent
	for _, f := range frames {
		came := [2]conntrack.Tuple{tupleOf(viewed(f[0])), tupleOf(viewed(f[1]))}
		if x.entered[came[1]] = true; came[0] == came[1] {
			x.chosen.fix(came[0])
		}
		kernel, own := x.o.pass(from, f[0], f[1])
		for n := range kernel {
			out[0][n] = append(out[0][n], kernel[n]...)
			out[1][n] = append(out[1][n], own[n]...)
		}
	}
	x.history = append(x.history, event{d, from, what, frames[0][0], out})
	if x.hear(); x.blurred {
		return false
	}
	for n := range out[0] {
		out[0][n], out[1][n] = reassembled(out[0][n]), reassembled(out[1][n])
		if !x.note(e, d, n, out[0][n], out[1][n], frames[0]) {
			return false
		}
		if !x.same(e, n, out[0][n], out[1][n], frames) {
			return false
		}
	}
	return true
}

// event is a packet, and what became of it by the kernel and by us.
type event struct {
	d     conntrack.Dir
	from  int
	what  string
	frame []byte
	out   [2]sent
}

// told is what has happened.
func (x *trial) told() string {
	var s strings.Builder
	s.WriteString(x.name)
	for _, e := range x.history {
		fmt.Fprintf(&s, "\n  %v from %d: %s, %s", e.d, e.from, e.what, pt.Describe(e.frame))
		for n := range e.out[0] {
			for _, b := range e.out[0][n] {
				fmt.Fprintf(&s, "\n    kernel to %d: %s", n, pt.Describe(b))
			}
			for _, b := range e.out[1][n] {
				fmt.Fprintf(&s, "\n    we to %d: %s", n, pt.Describe(b))
			}
		}
	}
	return s.String()
}

// note learns from what arrived where its answers go to.
func (x *trial) note(e *dialogue, d conntrack.Dir, n int, kernel, own [][]byte, about [2][]byte) bool {
	if x.ruled && d == conntrack.Original && len(kernel) == 1 && len(own) == 1 && !isAnswer(kernel[0], about) {
		e.sides[1] = n
	}
	if e.local || n != e.sides[1-d] || len(kernel) != 1 || len(own) != 1 {
		return true
	}
	var got [2]conntrack.Tuple
	for who, b := range [][]byte{kernel[0], own[0]} {
		f := viewed(b)
		if f.View.Proto != e.proto || f.View.Is(packet.ViewFrag) {
			return true
		}
		if _, quotes := conntrack.Quoted(f); quotes {
			return true
		}
		got[who] = tupleOf(f)
	}
	for who, b := range [][]byte{kernel[0], own[0]} {
		e.last[who][d] = b
	}
	for _, other := range x.talks { // which may be between the same ends
		if d == conntrack.Original && other.orig == e.orig {
			other.got, other.seen = got, true
		}
	}
	if was := [2]conntrack.Tuple{e.tuple(0, d), e.tuple(1, d)}; got != was {
		return x.bound(e, got, was)
	}
	return true // as it was sent
}

// bound notes what was chosen for a packet that was something else.
func (x *trial) bound(e *dialogue, got, was [2]conntrack.Tuple) bool {
	k, own := got[0], got[1]
	if k == own {
		x.chosen.bind(k, own)
		return true
	}
	x.o.allowed[chosenFreely]++
	if x.blurs(k, own) || x.reuses(e, got) {
		return true
	}
	if same := func(i int) bool { return got[i].Dst == was[i].Dst && got[i].DstPort == was[i].DstPort }; same(0) && same(1) {
		own.Dst, own.DstPort = k.Dst, k.DstPort // it was sent to what had been chosen before
	}
	alike := alike
	if x.ruled {
		alike = alikeByRules
	}
	if !alike(e, was[0].SrcPort, k, own) && x.chosen.known(got[1]) {
		x.o.allowed[remembered]++
		x.chosen.bind(k, got[1])
		return true
	}
	if !alike(e, was[0].SrcPort, k, own) && k != own {
		return x.fail("ports that were chosen: the kernel has %v, we have %v", k, own)
	}
	x.chosen.bind(k, got[1])
	return true
}

// blurs reports whether rules can tell two choices from each other: the rest of the case
// is not compared then.
func (x *trial) blurs(a, b conntrack.Tuple) bool {
	told := a.SrcPort != b.SrcPort && min(a.SrcPort, b.SrcPort) < 1024 && !isICMP(a.Proto)
	x.blurred = x.blurred || x.ruled && told && alikeByRules(nil, 0, a, b)
	return x.blurred
}

// reuses reports whether one of the routers has by chance taken the port that another
// dialogue's connection had, which is closed: what that dialogue still says is of this
// one there, and not by the other router. The rest of the case is not compared then.
func (x *trial) reuses(e *dialogue, got [2]conntrack.Tuple) bool {
	for _, other := range x.talks {
		if x.ruled && other.seen && other.orig != e.orig && (other.got[0] == got[0]) != (other.got[1] == got[1]) {
			x.o.allowed[takenAgain]++
			x.blurred = true
		}
	}
	return x.blurred
}

// shows notes a choice that shows where none was awaited; true if it blurs all.
func (x *trial) shows(k, own conntrack.Tuple) bool {
	if mapped := x.chosen.tuple(k); mapped != own && k.Proto == own.Proto && alikeByRules(nil, 0, mapped, own) {
		x.o.allowed[chosenFreely]++
		x.chosen.bind(k, own)
		return x.blurs(k, own)
	}
	return false
}

// tupleOf is what a frame looks like.
func tupleOf(f *packet.Frame) conntrack.Tuple {
	v, b := &f.View, f.Bytes()
	t := conntrack.Tuple{Src: v.SrcAddr(b), Dst: v.DstAddr(b), SrcPort: v.SrcPort, DstPort: v.DstPort, Proto: v.Proto}
	if t.Proto == packet.ProtoICMP || t.Proto == packet.ProtoICMPv6 {
		t.SrcPort, t.DstPort = uint16(b[v.L4+4])<<8|uint16(b[v.L4+5]), v.SrcPort
	}
	return t
}

// alike reports whether two choices are of one range, and neither is what was there.
func alike(e *dialogue, was uint16, a, b conntrack.Tuple) bool {
	kept := func(x uint16) bool { return x == was }
	class := func(x uint16) int {
		switch {
		case isICMP(e.proto):
			return 0
		case x < 512:
			return 1
		case x < 1024:
			return 2
		}
		return 3
	}
	if a.Dst != b.Dst || a.DstPort != b.DstPort || class(a.SrcPort) != class(b.SrcPort) {
		return false
	}
	pool := func(x netip.Addr) bool { return x == at(e.v6, far, 20) || x == at(e.v6, far, 21) }
	if pool(a.Src) && pool(b.Src) {
		return kept(a.SrcPort) == kept(b.SrcPort)
	}
	few := func(x uint16) bool { return x >= 5000 && x <= 5063 }
	return a.Src == b.Src && !kept(a.SrcPort) && !kept(b.SrcPort) && (a.Src != at(e.v6, far, 30) || isICMP(e.proto) || few(a.SrcPort) && few(b.SrcPort))
}

// same compares what the routers sent to the stations of a side.
func (x *trial) same(e *dialogue, n int, kernel, own [][]byte, about [][2][]byte) bool {
	spoiled := false
	if f := viewed(about[0][0]); f.View.Is(packet.ViewHasL4) && !f.View.Is(packet.ViewFrag) {
		spoiled = !packet.VerifyL4(f.Bytes(), &f.View)
	}
	if len(own) == 0 && spoiled && fromOwn(kernel) { // the kernel has no SCTP to look at a CRC
		x.o.allowed[ownAnswer]++
		return true
	}
	if x.rejects && len(kernel) == 0 && len(own) == 0 { // a refusal may have been for the router itself
		x.refused[viewed(about[0][1]).View.SrcAddr(about[0][1])]++
	}
	if x.ruled && len(kernel) == 1 && refusal(kernel[0]) && !passedOn(kernel[0], about[0][0]) && x.withholds(viewed(about[0][1]), len(own)) {
		x.o.allowed[withheld]++
		return true
	}
	if len(kernel) != len(own) {
		return x.fail("to side %d:\n kernel sends%s\n we send%s", n, words(kernel), words(own))
	}
	for i := range kernel {
		if bytes.Equal(kernel[i], own[i]) && x.ruled {
			continue // whatever was chosen, before, by other connections
		}
		if x.ruled && x.shows(tupleOf(viewed(kernel[i])), tupleOf(viewed(own[i]))) {
			return true
		}
		differ := mended(kernel[i], own[i])
		if differ {
			x.o.allowed[madeRight]++
		}
		a, b, err := x.chosen.of(e).plain(kernel[i], own[i], spoiled, differ || !bytes.Equal(about[0][0], about[0][1]))
		if err != nil {
			return x.fail("%v", err)
		}
		mine := e.local || fromOwn([][]byte{a}) || x.ruled && isAnswer(a, about[0]) // or whom it was for before a rule brought it here
		if !bytes.Equal(a, b) && mine && sameAnswer(e, a, b) {
			x.o.allowed[ownAnswer]++
			for who := range e.last { // what quotes them differs too
				e.last[who] = [2][]byte{}
			}
			continue
		}
		if !bytes.Equal(a, b) {
			return x.fail("to side %d:\n kernel sends%s\n we send%s", n, words(kernel), words(own))
		}
		x.keep(viewed(kernel[i]), viewed(own[i]))
	}
	return true
}

// keep binds what a packet was made that was found the same: its connection is of these
// ends, though other choices have one of them too.
func (x *trial) keep(kernel, own *packet.Frame) {
	if _, quotes := conntrack.Quoted(kernel); quotes || kernel.View.Is(packet.ViewFrag) {
		return
	}
	k, o := tupleOf(kernel), tupleOf(own)
	if k == o {
		x.chosen.fix(k)
	}
	if x.chosen.tuple(k) != o {
		x.chosen.bind(k, o)
	}
}

// isAnswer reports whether a frame goes to who has sent the one that it is because of.
func isAnswer(b []byte, about [2][]byte) bool {
	to := viewed(b).View.DstAddr(b)
	return slices.ContainsFunc(about[:], func(sent []byte) bool { return viewed(sent).View.SrcAddr(sent) == to })
}

// passedOn reports whether a refusal is one that was sent.
func passedOn(b, sent []byte) bool {
	return refusal(sent) && viewed(b).View.Proto == viewed(sent).View.Proto
}

// withholds reports whether the refusal of a packet may be withheld, and has been: six are
// told to an address at once, and fifty of what comes by a port.
func (x *trial) withholds(f *packet.Frame, sent int) bool {
	to := f.View.SrcAddr(f.Bytes())
	x.refused[to] += sent
	x.refused[netip.Addr{}] += sent
	return sent == 0 && (x.refused[to] >= 6 || x.refused[netip.Addr{}] >= 40)
}

// refusal reports whether a frame says that something is unreachable, or is a reset.
func refusal(b []byte) bool {
	f := viewed(b)
	v := &f.View
	return packet.IsReset(f) || v.Proto == packet.ProtoICMP && v.SrcPort>>8 == packet.ICMPUnreach || v.Proto == packet.ProtoICMPv6 && v.SrcPort>>8 == packet.ICMP6Unreach
}

// fromOwn reports whether all frames are from the router's own addresses.
func fromOwn(frames [][]byte) bool {
	for _, b := range frames {
		if !ofRouter(tupleOf(viewed(b)).Src) {
			return false
		}
	}
	return true
}

// sameAnswer compares answers of the routers' own stacks by what they say, not how:
// identification and type of service are theirs.
func sameAnswer(e *dialogue, a, b []byte) bool {
	f, g := viewed(a), viewed(b)
	t := tupleOf(f)
	if t != tupleOf(g) || f.View.Is(packet.ViewIPv6) != g.View.Is(packet.ViewIPv6) {
		return false
	}
	if f.View.Proto == packet.ProtoTCP && a[f.View.L4+13]&pt.RST == 0 {
		return false
	}
	if e.cut && !isQuery(&f.View) { // the kernel quotes what it has reassembled
		return true
	}
	for _, x := range [][]byte{a, b} {
		clearSum(x[f.View.L4:], f.View.Proto) // it is right, and may be 0 or ffff
		if f.View.Is(packet.ViewIPv4) {
			x[f.View.L3+1] = 0
			clear(x[f.View.L3+4 : f.View.L3+8]) // and DF
			clear(x[f.View.L3+10 : f.View.L3+12])
		}
	}
	return bytes.Equal(a, b)
}

// fail says what differs, and after what.
func (x *trial) fail(format string, args ...any) bool {
	x.o.t.Helper()
	x.failed = fmt.Sprintf("%s\nafter %s", fmt.Sprintf(format, args...), x.told())
	if !x.ruled {
		x.o.bad++
		x.o.t.Error(x.failed)
	}
	return false
}

// bits of the status that both have.
const bits = conntrack.SeenReply | conntrack.Assured | conntrack.Confirmed | conntrack.SrcNAT | conntrack.DstNAT

// hear notes the kernel's new connections. Of one whose source has got another port, which
// rules may know, what follows is not compared, unless we have chosen the same: it need
// not show, as when it is translated at input, and the answer to its first packet may
// have ended it.
func (x *trial) hear() {
	for _, b := range x.o.watch.Began() {
		x.began = append(x.began, b.Original)
		orig, out := conntrack.Tuple(b.Original), turned(conntrack.Tuple(b.Reply))
		if !x.ruled || isICMP(orig.Proto) || out.SrcPort == orig.SrcPort || out.SrcPort >= 1024 {
			continue
		}
		conn, _ := x.o.lab.n.Connections().Table().Find(1, x.chosen.tuple(orig))
		if own := conn.Out(conntrack.Original); conn.Valid() {
			x.blurs(out, own)
		} else if _, there := x.o.ct.Get(b.Original); !there {
			x.o.allowed[chosenFreely]++
			x.blurred = true
		}
	}
}

// sameState compares the connections.
func (x *trial) sameState() bool {
	if !x.ruled && time.Since(x.start) > time.Second {
		x.o.allowed[tooSlow]++
		return true
	}
	kernel := map[conntrack.Tuple]conntracktest.Entry{}
	x.hear()
	for _, t := range x.began {
		if e, ok := x.o.ct.Get(t); ok && e.Original == t {
			kernel[x.chosen.tuple(conntrack.Tuple(t))] = e
		}
	}
	var wrong string
	c := x.o.lab.n.Connections()
	c.setTime()
	c.Table().Entries(nil, c.Now(), func(own *conntrack.Entry) bool {
		e, ok := kernel[own.Original]
		delete(kernel, own.Original)
		if !ok {
			wrong += fmt.Sprintf("\n we have %s, the kernel has not", own.Append(nil, conntrack.ListAccount))
		} else if diff := x.differ(&e, own); diff != "" {
			wrong += fmt.Sprintf("\n of %v: %s", own.Original, diff)
		}
		return true
	})
	for _, e := range kernel {
		wrong += fmt.Sprintf("\n the kernel has %+v, we have not", e)
	}
	return wrong == "" || x.fail("connections:%s", wrong)
}

// differ says what two entries of one connection differ in. The kernel's clock goes on.
func (x *trial) differ(k *conntracktest.Entry, own *conntrack.Entry) string {
	if reply := x.chosen.tuple(conntrack.Tuple(k.Reply)); reply != own.Reply && x.ruled && alikeByRules(nil, 0, turned(reply), turned(own.Reply)) {
		x.blurs(turned(reply), turned(own.Reply))
		x.o.allowed[chosenFreely]++ // and never shown
	} else if reply != own.Reply {
		return fmt.Sprintf("reply %v, the kernel has %v", own.Reply, reply)
	}
	if a, b := conntrack.Status(k.Status)&bits, own.Status&bits; a != b {
		return fmt.Sprintf("status %v, the kernel has %v", b, a)
	}
	if name := k.StateName(); name != own.State {
		return fmt.Sprintf("state %s, the kernel has %s", own.State, name)
	}
	if k.Mark != own.Mark {
		return fmt.Sprintf("mark %d, the kernel has %d", own.Mark, k.Mark)
	}
	if d := int32(own.Timeout - k.Timeout); !x.ruled && (d < -2 || d > 2) {
		return fmt.Sprintf("timeout %d, the kernel has %d", own.Timeout, k.Timeout)
	}
	if k.Packets == own.Packets && k.Bytes == own.Bytes {
		return ""
	}
	for _, e := range x.talks {
		if e.cut {
			x.o.allowed[countedPieces]++
			return ""
		}
	}
	return fmt.Sprintf("counted %d, %d, the kernel %d, %d", own.Packets, own.Bytes, k.Packets, k.Bytes)
}

// clean ends all connections.
func (x *trial) clean() {
	x.hear()
	for _, t := range x.began {
		x.o.ct.Delete(t)
	}
	c := x.o.lab.n.Connections()
	c.Table().Delete(nil, c.Now())
	for t := range x.entered { // what has ended by itself, and was not looked at yet
		if conn, _ := c.Table().Find(1, t); conn.Valid() {
			conn.Delete(c.Now())
		}
	}
}
