// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// wait calls Tick for each second after from, up to and with to.
func wait(x *Table, from, to Tick, out *tape) {
	for now := from + 1; now <= to; now++ {
		x.Tick(now, out, out.fail)
	}
}

func wantWords(t *testing.T, out *tape, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, words(out.sent)); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	out.sent = nil
}

const askAll4 = "who-has 10.9.0.11 tell 10.9.0.1 to all"

// The life of a neighbour that answers, goes to sleep, is used again, answers
// again, is used on, and is gone at last.
func TestLifeOfANeighbour(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	x.Tick(0, out, out.fail)
	x.conf.Load().devices[dev].reachable4 = 20
	a, answer := ip4(1), parsed(arp(packet.ARPOpReply, 1, macA(1), own4, ownMAC, ownMAC), 3)
	want := func(now Tick, s State) {
		t.Helper()
		if e := entryOf(x, a, now); e.State != s {
			t.Errorf("at %d: %+v, want %v", now, e, s)
		}
	}
	if r := x.Resolve(dev, a, ping(7, 1), 100, out); r.Reason != trace.None || r.Pushed != nil {
		t.Errorf("%+v", r)
	}
	want(100, Incomplete)
	wantWords(t, out, askAll4)
	wait(x, 100, 101, out)
	wantWords(t, out, askAll4)
	x.Input(dev, answer, own, 101, out)
	want(101, Reachable)
	wantWords(t, out, "to "+macA(1).String())

	mac, ref, ok := x.Lookup(dev, a, 102)
	if !ok || mac != macA(1) || ref.MAC() != mac || !ref.Valid() {
		t.Fatalf("%v %v %v", mac, ref, ok)
	}
	wait(x, 101, 120, out)
	want(120, Reachable)
	wait(x, 120, 121, out)
	want(121, Stale) // not used of late
	wait(x, 121, 150, out)
	want(150, Stale)
	if !ref.Valid() {
		t.Error("a stale neighbour is not usable")
	}
	ref.Touch(151)
	want(151, Delay)
	wait(x, 151, 155, out)
	want(155, Delay)
	wantWords(t, out)
	wait(x, 155, 156, out)
	want(156, Probe)
	wantWords(t, out, "who-has 10.9.0.11 tell 10.9.0.1 to "+macA(1).String())
	wait(x, 156, 157, out)
	wantWords(t, out, "who-has 10.9.0.11 tell 10.9.0.1 to "+macA(1).String())
	x.Input(dev, answer, own, 157, out)
	want(157, Reachable)
	for now := Tick(158); now <= 177; now++ { // in use all the time
		ref.Touch(now)
		x.Tick(now, out, out.fail)
	}
	want(177, Delay)
	wait(x, 177, 184, out)
	want(184, Probe)
	if !ref.Valid() {
		t.Error("not usable while it is probed")
	}
	wait(x, 184, 185, out)
	want(185, Failed)
	if ref.Valid() {
		t.Error("usable though it failed")
	}
	if got := len(out.sent); got != 3 || len(out.failed) != 0 {
		t.Errorf("sent %v, failed %v", words(out.sent), out.failed)
	}
	ref.Touch(186) // nothing
	out.sent = nil
	if _, _, ok := x.Lookup(dev, a, 186); ok || x.State(dev, a) != Failed {
		t.Error("usable")
	}
	x.Resolve(dev, a, ping(7, 2), 186, out)
	want(186, Incomplete)
	wantWords(t, out, askAll4)
	checkBooks(t, x)
}

// A neighbour that doesn't answer is asked three times; then those who wait for it
// are told.
func TestNoAnswer(t *testing.T) {
	for _, a := range []netip.Addr{ip4(1), ip6(1)} {
		x, out := newWorld(Limits{}), &tape{}
		x.Resolve(dev, a, ping(7, 1), 100, out)
		x.Resolve(dev, a, ping(8, 2), 101, out)
		wait(x, 100, 102, out)
		q := askAll4
		if a.Is6() {
			q = "ask fd09::b tell fe80::1 to all"
		}
		wantWords(t, out, q, q, q)
		if len(out.failed) != 0 {
			t.Fatalf("%v", out.failed)
		}
		wait(x, 102, 103, out)
		wantWords(t, out)
		if len(out.failed) != 1 {
			t.Fatalf("%v", out.failed)
		}
		f := out.failed[0]
		if f.Device != dev || f.Addr != a || f.Reason != trace.NeighFailed || len(f.Held) != 2 ||
			f.Held[0].Port != 7 || f.Held[1].Port != 8 || !slices.Equal(f.Held[0].Frame, ping(7, 1).Frame) {
			t.Errorf("%+v", f)
		}
		checkBooks(t, x)
		wait(x, 103, 162, out)
		if x.State(dev, a) != Failed {
			t.Errorf("%v is %v", a, x.State(dev, a))
		}
		wait(x, 162, 163, out)
		if x.State(dev, a) != None {
			t.Errorf("%v is %v", a, x.State(dev, a))
		}
		checkBooks(t, x)
	}
}

// What is sent when it is resolved: as it came but for the MAC, in order, with what
// rules said of it.
func TestHeldPackets(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	vnet := packet.Vnet{GSOType: packet.GSOTCP4, GSOSize: 1448}
	big := pt.TCP4(pt.Packet{Payload: pt.Bytes(60_000)})
	label := packet.Label{Mark: 7, Priority: 0x10020}
	x.Resolve(dev, ip6(1), Held{Port: 7, Vnet: vnet, Label: label, Frame: big}, 100, out)
	x.Resolve(dev, ip6(1), ping(7, 2), 100, out)
	clear(big[:6])
	clear(big[20:]) // the table has its own copy
	out.take()
	x.Input(dev, parsed(advert(1, 0, macA(1)).build(), 3), own, 100, out)
	if len(out.sent) != 2 || out.sent[0].vnet != vnet || out.sent[0].label != label || out.sent[0].dev != dev || out.sent[1].label != (packet.Label{}) {
		t.Fatalf("%v", words(out.sent))
	}
	for i, b := range [][]byte{pt.TCP4(pt.Packet{Payload: pt.Bytes(60_000), DstMAC: macA(1)}), pt.Ping4(pt.Packet{ID: 2, DstMAC: macA(1)})} {
		if !slices.Equal(out.sent[i].frame, b) {
			t.Errorf("frame %d is %v", i, pt.Describe(out.sent[i].frame))
		}
	}
	// Only heard, but there was something to send.
	if e := entryOf(x, ip6(1), 100); e.State != Delay {
		t.Errorf("%+v", e)
	}
	// Resolved between look-up and Resolve.
	out.take()
	frame := ping(7, 3)
	frame.Label.Mark = 8
	if r := x.Resolve(dev, ip6(1), frame, 101, out); r.Reason != trace.None {
		t.Errorf("%+v", r)
	}
	if len(out.sent) != 1 || out.sent[0].label.Mark != 8 {
		t.Errorf("sent %+v", out.sent)
	}
	wantWords(t, out, "to "+macA(1).String())
	if !slices.Equal(frame.Frame, ping(7, 3).Frame) {
		t.Error("the caller's frame was changed")
	}
	checkBooks(t, x)
}

// Who asks: the sender of the packet, if that is us; else the address of the link,
// or of the subnet; a device without addresses asks as a probe does.
func TestSourceOfQuestions(t *testing.T) {
	from := func(src string) Held {
		a := pt.IP(src)
		if a.Is6() {
			return Held{Frame: pt.Ping6(pt.Packet{Src: a})}
		}
		return Held{Frame: pt.Ping4(pt.Packet{Src: a})}
	}
	prefixes := func(all ...string) (p []netip.Prefix) {
		for _, s := range all {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	for _, tt := range []struct {
		addrs  []netip.Prefix
		held   Held
		target string
		want   string // "": no question
	}{
		{prefixes("10.9.0.1/24"), from("10.44.0.9"), "10.9.0.7", "10.9.0.1"},
		{prefixes("10.8.0.1/24", "10.9.0.1/24"), from("10.44.0.9"), "10.9.0.7", "10.9.0.1"},
		{prefixes("10.8.0.1/24", "10.9.0.1/24"), from("10.8.0.1"), "10.9.0.7", "10.8.0.1"},
		{prefixes("10.8.0.1/24", "10.9.0.1/24"), from("10.44.0.9"), "10.7.0.7", "10.8.0.1"},
		{prefixes("fe80::1/64"), from("10.44.0.9"), "10.9.0.7", "0.0.0.0"},
		{prefixes("fd09::1/64", "fe80::1/64"), from("fd44::9"), "fd09::7", "fe80::1"},
		{prefixes("fd09::1/64", "fe80::1/64"), from("fd09::1"), "fd09::7", "fd09::1"},
		{prefixes("fd08::1/64", "fd09::1/64"), from("fd44::9"), "fd09::7", "fd09::1"},
		{prefixes("fd08::1/64"), from("fd44::9"), "fd09::7", "fd08::1"},
		{prefixes("10.9.0.1/24"), from("fd44::9"), "fd09::7", ""},
	} {
		x, out := newTable(Limits{}, 1), &tape{}
		x.Prepare(Config{Devices: []Device{{dev, ownMAC, tt.addrs}}}).Commit()
		x.Resolve(dev, pt.IP(tt.target), tt.held, 0, out)
		got := ""
		if len(out.sent) > 0 {
			f := pt.Frame(out.sent[0].frame)
			got = f.View.SrcAddr(f.Bytes()).String()
		}
		if got != tt.want {
			t.Errorf("%v asks for %v from %q, want %q", tt.addrs, tt.target, got, tt.want)
		}
	}
}

// A next hop that failed can be tried without a packet.
func TestAskOnly(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	for range 3 {
		if r := x.Resolve(dev, ip4(1), Held{}, 0, out); r.Reason != trace.None {
			t.Errorf("%+v", r)
		}
	}
	wantWords(t, out, askAll4)
	wait(x, 0, 3, out)
	if len(out.failed) != 0 || x.State(dev, ip4(1)) != Failed {
		t.Errorf("%v, %v", out.failed, x.State(dev, ip4(1)))
	}
	out.take()
	x.Resolve(dev, ip4(1), Held{}, 4, out)
	x.Input(dev, parsed(arp(packet.ARPOpReply, 1, macA(1), own4, ownMAC, ownMAC), 3), own, 4, out)
	wantWords(t, out, askAll4)
	x.Resolve(dev, ip4(1), Held{}, 5, out)
	wantWords(t, out)
	checkBooks(t, x)
}

func TestNobodysAddress(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	for _, s := range []string{"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "255.255.255.255", "10.9.0.255", "::", "::1", "ff02::1", "::ffff:10.9.0.7"} {
		if r := x.Resolve(dev, pt.IP(s), ping(1, 1), 0, out); r.Reason != trace.NeighFailed {
			t.Errorf("%v: %+v", s, r)
		}
	}
	if r := x.Resolve(dev+1, ip4(1), ping(1, 1), 0, out); r.Reason != trace.NeighFailed {
		t.Errorf("no device: %+v", r)
	}
	if r := x.Resolve(dev, netip.Addr{}, ping(1, 1), 0, out); r.Reason != trace.NeighFailed {
		t.Errorf("no address: %+v", r)
	}
	if len(out.sent) != 0 || x.Stats().Entries != 0 {
		t.Errorf("sent %v; %+v", words(out.sent), x.Stats())
	}
}

// One container that scans a subnet has its share, and nobody else's.
func TestScan(t *testing.T) {
	x, out := newWorld(Limits{Entries: 40, UnresolvedPerPort: 8}), &tape{}
	now := Tick(0)
	at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}) }
	full := 0
	for n := range 2000 {
		if n%100 == 99 {
			now++
			x.Tick(now, out, out.fail)
		}
		switch x.Resolve(dev, at(1000+n), ping(1, n), now, out).Reason {
		case trace.NeighFull:
			full++
		case trace.None:
		default:
			t.Fatal("another reason")
		}
		if n%50 == 0 { // the neighbour of another port finds what it wants
			if r := x.Resolve(dev, at(10+n/50), ping(2, n), now, out); r.Reason != trace.None {
				t.Fatalf("port 2: %+v at %d", r, n)
			}
			x.Input(dev, parsed(pt.ARPReply(pt.Packet{Src: at(10 + n/50), Dst: own4, SrcMAC: macA(1), DstMAC: ownMAC}), 2), own, now, out)
		}
		if n%200 == 0 {
			checkBooks(t, x)
		}
	}
	if s := x.Stats(); full < 1500 || s.Failed == 0 || s.Forced == 0 {
		t.Errorf("%d refused; %+v", full, s)
	}
	checkBooks(t, x)
}

// Stations that speak without being asked have their share of the port.
func TestForgedSpeakers(t *testing.T) {
	x, out := newWorld(Limits{Entries: 100, LearnedPerPort: 5}), &tape{}
	for port := uint16(1); port <= 3; port++ {
		for n := range 40 {
			x.Input(dev, parsed(arp(packet.ARPOpRequest, n+int(port)*40, macA(n), own4, packet.MAC{}, packet.Broadcast()), port), own, 0, out)
		}
	}
	if s := x.Stats(); s.Entries != 15 || s.Refused != 3*35 {
		t.Errorf("%+v", s)
	}
	// One that answers is on nobody's account any more.
	x.Lookup(dev, ip4(40), 1)
	wait(x, 1, 6, out)
	x.Input(dev, parsed(arp(packet.ARPOpReply, 40, macA(0), own4, ownMAC, ownMAC), 1), own, 6, out)
	x.Input(dev, parsed(arp(packet.ARPOpRequest, 1, macA(0), own4, packet.MAC{}, packet.Broadcast()), 1), own, 6, out)
	if s := x.Stats(); s.Entries != 16 {
		t.Errorf("%+v", s)
	}
	checkBooks(t, x)
}

// A container that asks for hosts which it then plays itself, and keeps them in use,
// has its share of the table too.
func TestForgedAnswers(t *testing.T) {
	l := Limits{Entries: 60, UnresolvedPerPort: 8, LearnedPerPort: 8, AnsweredPerPort: 16}
	x, out := newWorld(l), &tape{}
	at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}) }
	answer := func(n int, port uint16, now Tick) {
		x.Input(dev, parsed(pt.ARPReply(pt.Packet{Src: at(n), Dst: own4, SrcMAC: macA(1), DstMAC: ownMAC}), port), own, now, out)
	}
	for now := Tick(1); now < 20; now++ {
		for n := range 100 {
			x.Input(dev, parsed(arp(packet.ARPOpRequest, n, macA(n), own4, packet.MAC{}, packet.Broadcast()), 1), own, now, out)
			x.Resolve(dev, at(1000+n), ping(1, n), now, out)
			x.Lookup(dev, at(1000+n), now)
			answer(1000+n, 1, now)
			answer(10+n, 1, now)
		}
		x.Tick(now, out, out.fail)
		checkBooks(t, x)
	}
	if s := x.Stats(); s.Entries > 8+8+16 {
		t.Errorf("one port has %d entries", s.Entries)
	}
	for n := range 20 {
		if r := x.Resolve(dev, at(2000+n), ping(2, n), 20, out); r.Reason != trace.None {
			t.Fatalf("another port's neighbour: %v", r.Reason)
		}
		answer(2000+n, 3, 20)
		if _, _, ok := x.Lookup(dev, at(2000+n), 20); !ok {
			t.Error("another port's neighbour is not known")
		}
	}
	checkBooks(t, x)
	x.RemovePort(1)
	if s := x.Stats(); s.Entries != 20 {
		t.Errorf("%d entries are left", s.Entries)
	}
	checkBooks(t, x)
}

func TestQueueBounds(t *testing.T) {
	packetOf := func(port uint16, id, n int) Held {
		return Held{Port: port, Frame: pt.Ping4(pt.Packet{ID: uint16(id), Payload: pt.Bytes(n - 42)})}
	}
	type step struct {
		to     int
		h      Held
		reason trace.Reason
		pushed []uint16
	}
	const room = 3 * (1000 + queueOverhead)
	for name, tt := range map[string]struct {
		l     Limits
		steps []step
		left  []string // "port/id" of entry 1
	}{
		"the oldest goes": {Limits{QueueBytes: room}, []step{
			{1, packetOf(1, 1, 1000), trace.None, nil},
			{1, packetOf(1, 2, 1000), trace.None, nil},
			{1, packetOf(1, 3, 1000), trace.None, nil},
			{1, packetOf(1, 4, 1000), trace.None, []uint16{1}},
			{1, packetOf(1, 5, 1000), trace.None, []uint16{1}},
		}, []string{"1/3", "1/4", "1/5"}},
		"a large one takes several": {Limits{QueueBytes: room}, []step{
			{1, packetOf(1, 1, 1000), trace.None, nil},
			{1, packetOf(1, 2, 1000), trace.None, nil},
			{1, packetOf(1, 3, 1000), trace.None, nil},
			{1, packetOf(1, 4, 2000), trace.None, []uint16{1, 1}},
		}, []string{"1/3", "1/4"}},
		"larger than any queue": {Limits{QueueBytes: room}, []step{
			{1, packetOf(1, 1, 1000), trace.None, nil},
			{1, packetOf(1, 2, room), trace.NeighQueue, nil},
		}, []string{"1/1"}},
		"a flood spares the others": {Limits{QueueBytes: room}, []step{
			{1, packetOf(2, 1, 1000), trace.None, nil},
			{1, packetOf(1, 2, 1000), trace.None, nil},
			{1, packetOf(1, 3, 1000), trace.None, nil},
			{1, packetOf(1, 4, 1000), trace.None, []uint16{1}},
			{1, packetOf(2, 5, 1000), trace.None, []uint16{2}},
			{1, packetOf(3, 6, 1000), trace.None, []uint16{1}},
		}, []string{"1/4", "2/5", "3/6"}},
		"share of the port": {Limits{QueueBytesPerPort: 2 * (1000 + queueOverhead)}, []step{
			{1, packetOf(1, 1, 1000), trace.None, nil},
			{2, packetOf(1, 2, 1000), trace.None, nil},
			{1, packetOf(1, 3, 1000), trace.None, []uint16{1}},
			{3, packetOf(1, 4, 1000), trace.NeighQueue, nil},
			{1, packetOf(2, 5, 1000), trace.None, nil},
		}, []string{"1/3", "2/5"}},
	} {
		t.Run(name, func(t *testing.T) {
			x, out := newWorld(tt.l), &tape{}
			for i, s := range tt.steps {
				r := x.Resolve(dev, ip4(s.to), s.h, 0, out)
				if r.Reason != s.reason || !slices.Equal(r.Pushed, s.pushed) {
					t.Errorf("step %d: %+v", i, r)
				}
				checkBooks(t, x)
			}
			wait(x, 0, 3, out)
			var left []string
			for _, f := range out.failed {
				for _, h := range f.Held {
					if v := pt.Frame(h.Frame).View; f.Addr == ip4(1) {
						left = append(left, fmt.Sprintf("%d/%d", h.Port, v.DstPort))
					}
				}
			}
			if !slices.Equal(left, tt.left) {
				t.Errorf("left %v, want %v", left, tt.left)
			}
			checkBooks(t, x)
		})
	}
}

// A flood to a neighbour that doesn't answer makes no garbage but for the first
// packets.
func TestFloodReusesBuffers(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	h := Held{Port: 1, Frame: pt.TCP4(pt.Packet{Payload: pt.Bytes(60_000)})}
	for range 10 {
		x.Resolve(dev, ip4(1), h, 0, out)
	}
	if n := testing.AllocsPerRun(100, func() { x.Resolve(dev, ip4(1), h, 0, out) }); n > 1 { // Pushed
		t.Errorf("%v allocations", n)
	}
}

func TestCollection(t *testing.T) {
	x, out := newWorld(Limits{Collect: 4}), &tape{}
	for n := range 3 {
		put(x, ip4(n), Stale, macA(n), 0)
	}
	wait(x, 0, 100, out)
	if x.Stats().Entries != 3 {
		t.Errorf("%+v", x.Stats())
	}
	put(x, ip4(9), Stale, macA(9), 100)
	x.Lookup(dev, ip4(2), 70) // is Delay then
	x.Tick(101, out, out.fail)
	if a, b, c := x.State(dev, ip4(0)), x.State(dev, ip4(2)), x.State(dev, ip4(9)); a != None || b == None || c != Stale {
		t.Errorf("%v %v %v", a, b, c)
	}
}

// Reachable times are between half of the base and one and a half, and are thrown
// anew.
func TestReachableTimes(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	seen := map[uint32]bool{}
	for now := Tick(0); now < 300*200; now += 300 {
		x.Tick(now, out, out.fail)
		c := x.conf.Load().devices[dev].clock
		for _, r := range []uint32{c.reachable4, c.reachable6} {
			if r < 15 || r > 45 {
				t.Errorf("reachable time %d", r)
			}
			seen[r] = true
		}
		x.Tick(now+299, out, out.fail)
		if d := x.conf.Load().devices[dev]; *d.clock != *c {
			t.Error("thrown too soon")
		}
	}
	if len(seen) < 25 {
		t.Errorf("only %d values", len(seen))
	}
}

// Time goes past its end.
func TestTickWraps(t *testing.T) {
	x, out := newWorld(Limits{}), &tape{}
	from := ^Tick(0) - 2
	x.Tick(from, out, out.fail)
	x.Resolve(dev, ip4(1), ping(1, 1), from, out)
	for i := range Tick(6) {
		x.Tick(from+i, out, out.fail)
	}
	if x.State(dev, ip4(1)) != Failed || len(out.failed) != 1 {
		t.Errorf("%v", x.State(dev, ip4(1)))
	}
}
