// SPDX-License-Identifier: Apache-2.0

package fragment

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// piece is a fragment in the test's own terms.
type piece struct {
	v6   bool
	id   uint16
	at   int
	data []byte
	more bool
}

// frame is the piece on the wire. Its data begins with a UDP header if at is 0.
func (p piece) frame() *packet.Frame {
	proto := uint8(packet.ProtoUDP)
	if p.v6 {
		return pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{},
			pt.FragHdr{ID: uint32(p.id), Offset: uint16(p.at), More: p.more, Next: &proto}, pt.Payload(p.data)))
	}
	return pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{ID: p.id, Offset: uint16(p.at), MF: p.more, Proto: &proto}, pt.Payload(p.data)))
}

// datagramData is a UDP header and n bytes; a source port says which it is.
func datagramData(port uint16, n int) []byte {
	b := pt.Build(pt.UDPHdr{SrcPort: port, DstPort: 53}, pt.Bytes(n))
	return b
}

// cut is the datagram in pieces of at most size bytes, a multiple of 8.
func cut(v6 bool, id uint16, data []byte, size int) []piece {
	var all []piece
	for at := 0; at < len(data); at += size {
		end := min(at+size, len(data))
		all = append(all, piece{v6, id, at, data[at:end], end < len(data)})
	}
	return all
}

// roomy are limits that no test reaches.
func roomy() Limits {
	const many = 1 << 30
	return Limits{many, many, many, many, many, many, many, 30, 60}
}

// expect tracks a piece and compares what becomes of it.
func expect(t *testing.T, tab *Table, in uint16, p piece, now uint32, outcome Outcome, why trace.Reason) Verdict {
	t.Helper()
	_, v := tab.Track(in, 1, p.frame(), now)
	if v.Outcome != outcome || v.Reason != why {
		t.Fatalf("piece at %d: outcome %d, %v; want %d, %v", p.at, v.Outcome, v.Reason, outcome, why)
	}
	audit(t, tab)
	return v
}

// audit counts again what the table has counted, and holds it to its bounds.
func audit(t *testing.T, tab *Table) {
	t.Helper()
	tab.mu.Lock()
	defer tab.mu.Unlock()
	var total use
	perPort := map[uint16]use{}
	for k, d := range tab.datagrams {
		u := perPort[k.in]
		u.datagrams++
		u.addHeld(len(d.held), d.bytes)
		perPort[k.in] = u
		total.datagrams++
		total.addHeld(len(d.held), d.bytes)
		cost := 0
		for _, h := range d.held {
			cost += len(h.Frame) + heldCost
		}
		p := tab.ports[k.in]
		if cost != d.bytes || d.key != k || len(d.held) > 0 != (d.in == &p.waiting) || d.fragments > tab.limits.Fragments {
			t.Fatalf("datagram %+v: holds %d bytes", d, cost)
		}
	}
	if total != tab.total || len(perPort) != len(tab.ports) {
		t.Fatalf("total %+v, counted %+v; %d ports, counted %d", total, tab.total, len(perPort), len(tab.ports))
	}
	for in, p := range tab.ports {
		n := 0
		for _, l := range []*list{&p.waiting, &p.passing} {
			for d := l.head; d != nil; d = d.next {
				n++
			}
		}
		if p.use != perPort[in] || n != p.datagrams {
			t.Fatalf("port %d: %+v, counted %+v, %d in lists", in, p.use, perPort[in], n)
		}
		withinBounds(t, p.use, tab.limits.DatagramsPerPort, tab.limits.HeldPerPort, tab.limits.BytesPerPort)
	}
	withinBounds(t, total, tab.limits.Datagrams, tab.limits.Held, tab.limits.Bytes)
}

func withinBounds(t *testing.T, u use, datagrams, held, bytes int) {
	t.Helper()
	if u.datagrams > datagrams || u.held > held || u.bytes > bytes {
		t.Fatalf("%+v is beyond %d, %d, %d", u, datagrams, held, bytes)
	}
}

// TestDatagramsArriveWhole sends datagrams in pieces, in any order, mixed, with
// pieces twice; whoever reassembles what is let through has each datagram once
// and unchanged, and each of its pieces had the ports of its first.
func TestDatagramsArriveWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		tab, got := New(roomy()), map[uint16][]piece{}
		var sent []piece
		whole, left := map[uint16][]byte{}, map[uint16]int{}
		for id := range uint16(1 + r.IntN(8)) {
			whole[id] = datagramData(1000+id, r.IntN(4000))
			pieces := cut(id%2 == 1, id, whole[id], 8*(1+r.IntN(100)))
			left[id] = len(pieces)
			sent = append(sent, pieces...)
		}
		r.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
		held := map[string]piece{} // by frame
		for _, p := range sent {
			f := p.frame()
			ports, v := tab.Track(3, 1, f, 100)
			audit(t, tab)
			if v.Outcome == Hold {
				held[string(f.Bytes())] = p
			} else {
				got[p.id] = append(got[p.id], p)
			}
			if v.Lost != 0 || v.Outcome == Known && ports != (Ports{1000 + p.id, 53}) {
				t.Fatalf("piece at %d of %d: ports %v, %+v", p.at, p.id, ports, v)
			}
			for _, h := range v.Held {
				got[p.id] = append(got[p.id], held[string(h.Frame)])
			}
			if left[p.id]--; left[p.id] > 0 && r.IntN(3) == 0 {
				expect(t, tab, 3, p, 100, Refused, trace.FragOverlap) // once more
			}
		}
		for id, data := range whole {
			if !complete(got[id], data) {
				t.Fatalf("datagram %d of %d bytes is not whole: %d pieces", id, len(data), len(got[id]))
			}
		}
		if tab.Counts() != (Counts{}) {
			t.Fatalf("%+v are left", tab.Counts())
		}
	}
}

// complete is real reassembly.
func complete(pieces []piece, data []byte) bool {
	b, n := make([]byte, len(data)), 0
	for _, p := range pieces {
		n += copy(b[p.at:], p.data)
	}
	return n == len(data) && bytes.Equal(b, data)
}

// twin is the table without bounds, in the slow way: a byte for each byte.
type twin struct{ datagrams map[uint64]*twinDatagram }

type twinDatagram struct {
	deadline    uint32
	seen        [1 << 16]bool
	high, total int
	known, dead bool
	ports       Ports
	held        int
}

// track is Track of a piece, of which no byte is looked at. lost are the held
// ones that go with it.
func (w *twin) track(in, dev uint16, p piece, now uint32) (o Outcome, ports Ports, released, lost int) {
	end := p.at + len(p.data)
	if p.at == 0 && !p.more { // whole
		return Known, Ports{uint16(p.data[0])<<8 | uint16(p.data[1]), 53}, 0, 0
	}
	if len(p.data) == 0 || p.more && len(p.data)%8 != 0 {
		return Refused, Ports{}, 0, 0
	}
	k := uint64(in)<<48 | uint64(dev)<<32 | uint64(p.id)<<1
	timeout := uint32(30)
	if p.v6 {
		k |= 1
		timeout = 60
	}
	d := w.datagrams[k]
	if d != nil && int32(now-d.deadline) >= 0 {
		lost += d.held
		d = nil
	}
	if d == nil {
		d = &twinDatagram{deadline: now + timeout}
		w.datagrams[k] = d
	}
	if d.dead {
		return Refused, Ports{}, 0, lost
	}
	n := 0
	for _, s := range d.seen[p.at:end] {
		if s {
			n++
		}
	}
	wrong := p.more && d.total > 0 && end > d.total || !p.more && (end < d.high || d.total > 0 && end != d.total)
	if wrong || n > 0 {
		if wrong || n < len(p.data) {
			lost += d.held
			*d = twinDatagram{deadline: d.deadline, dead: true}
		}
		return Refused, Ports{}, 0, lost
	}
	for i := p.at; i < end; i++ {
		d.seen[i] = true
	}
	if d.high = max(d.high, end); !p.more {
		d.total = end
	}
	if p.at == 0 {
		d.known, d.ports, released, d.held = true, Ports{uint16(p.data[0])<<8 | uint16(p.data[1]), 53}, d.held, 0
	}
	if !d.known {
		d.held++
		return Hold, Ports{}, 0, lost
	}
	whole := d.total > 0
	for _, s := range d.seen[:d.total] {
		whole = whole && s
	}
	if whole {
		delete(w.datagrams, k)
	}
	return Known, d.ports, released, lost
}

// TestTrackAgreesWithTwin: few datagrams, many pieces, most of which contradict
// each other; time passes.
func TestTrackAgreesWithTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 60 {
		tab, w := New(roomy()), &twin{map[uint64]*twinDatagram{}}
		now := uint32(r.Uint64()) // it wraps too
		for range 400 {
			p := randomPiece(r)
			in, dev := uint16(1+r.IntN(2)), uint16(1+r.IntN(2))
			if r.IntN(50) == 0 {
				now += uint32(r.IntN(40))
			}
			ports, v := tab.Track(in, dev, p.frame(), now)
			audit(t, tab)
			o, wantPorts, released, lost := w.track(in, dev, p, now)
			if v.Outcome != o || ports != wantPorts || len(v.Held) != released || v.Lost != lost {
				t.Fatalf("piece at %d, %d bytes, more %v: %d %v, %d released, %d lost; want %d %v, %d, %d",
					p.at, len(p.data), p.more, v.Outcome, ports, len(v.Held), v.Lost, o, wantPorts, released, lost)
			}
			if (v.Outcome == Refused) != (v.Reason != trace.None) || (v.Lost > 0) != (v.LostFor != trace.None) {
				t.Fatalf("%+v", v)
			}
		}
	}
}

// randomPiece is a piece of a datagram of 160 bytes, or of another of that name.
func randomPiece(r *rand.Rand) piece {
	at := 8 * r.IntN(20)
	end := min(160, at+8*(1+r.IntN(6)))
	p := piece{v6: r.IntN(2) == 0, id: uint16(r.IntN(2)), at: at, more: end < 160}
	switch r.IntN(40) {
	case 0:
		end = at
	case 1:
		end -= r.IntN(8)
	case 2:
		p.more = !p.more
	}
	p.data = datagramData(uint16(100+r.IntN(3)), 200)[at:end]
	if at == 0 && len(p.data) < 8 { // the parse would not let it come here
		p.data = datagramData(99, 0)
	}
	return p
}

func TestHeldAreGivenBackInOrder(t *testing.T) {
	tab, all := New(Limits{}), cut(false, 1, datagramData(7, 100), 32)
	var want [][]byte
	for _, p := range []piece{all[3], all[1], all[2]} {
		f := p.frame()
		f.Vnet.Flags, f.Label = packet.FlagDataValid, packet.Label{Mark: uint32(len(want)), Priority: 6}
		want = append(want, bytes.Clone(f.Bytes()))
		if _, v := tab.Track(1, 1, f, 0); v.Outcome != Hold {
			t.Fatalf("outcome %d", v.Outcome)
		}
		clear(f.Bytes()) // the buffer is the caller's again
	}
	v := expect(t, tab, 1, all[0], 1, Known, trace.None)
	for i, h := range v.Held {
		if !bytes.Equal(h.Frame, want[i]) || h.Vnet.Flags != packet.FlagDataValid || h.Label != (packet.Label{Mark: uint32(i), Priority: 6}) {
			t.Errorf("held %d is another: %x", i, h.Frame)
		}
	}
	if len(v.Held) != 3 || tab.Counts() != (Counts{}) {
		t.Errorf("%d held, %+v left", len(v.Held), tab.Counts())
	}
}

func TestOverlapEndsTheDatagram(t *testing.T) {
	all := cut(true, 1, datagramData(7, 100), 32)
	for name, bad := range map[string]piece{
		"into the next":    {true, 1, 16, make([]byte, 32), true},
		"over all":         {true, 1, 0, datagramData(8, 56), true},
		"another length":   {true, 1, 64, make([]byte, 9), false},
		"beyond the last":  {true, 1, 112, make([]byte, 8), true},
		"a second last":    {true, 1, 112, make([]byte, 8), false},
		"the last, longer": {true, 1, 96, make([]byte, 13), false},
	} {
		t.Run(name, func(t *testing.T) {
			tab := New(Limits{})
			expect(t, tab, 1, all[3], 0, Hold, trace.None) // 96 to 108, the last
			expect(t, tab, 1, all[0], 0, Known, trace.None)
			expect(t, tab, 1, bad, 1, Refused, trace.FragOverlap)
			expect(t, tab, 1, all[1], 2, Refused, trace.FragOverlap)
			expect(t, tab, 1, all[0], 59, Refused, trace.FragOverlap)
			expect(t, tab, 1, all[0], 60, Known, trace.None) // its time is over
		})
	}
	tab := New(Limits{})
	expect(t, tab, 1, all[1], 0, Hold, trace.None)
	expect(t, tab, 1, all[2], 0, Hold, trace.None)
	expect(t, tab, 1, piece{true, 1, 48, make([]byte, 32), true}, 0, Refused, trace.FragOverlap) // nothing new
	v := expect(t, tab, 1, piece{true, 1, 72, make([]byte, 32), true}, 0, Refused, trace.FragOverlap)
	if v.Lost != 2 || v.LostFor != trace.FragOverlap {
		t.Errorf("lost %d for %v", v.Lost, v.LostFor)
	}
}

func TestMalformedFragments(t *testing.T) {
	tab := New(Limits{})
	expect(t, tab, 1, piece{false, 1, 80, nil, true}, 0, Refused, trace.FragMalformed)
	expect(t, tab, 1, piece{false, 1, 80, nil, false}, 0, Refused, trace.FragMalformed)
	expect(t, tab, 1, piece{true, 1, 80, make([]byte, 9), true}, 0, Refused, trace.FragMalformed)
	if c := tab.Counts(); c.Datagrams != 0 {
		t.Errorf("%+v", c)
	}
}

// TestTinyFirstFragment: what the attack of RFC 1858 §3 needs never gets a way:
// the parse refuses a first fragment without its ports, and a second one that
// brings them overlaps the header that the first must have.
func TestTinyFirstFragment(t *testing.T) {
	proto, tcp := uint8(packet.ProtoTCP), pt.Build(pt.TCPHdr{}, pt.Bytes(100))
	tiny := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{ID: 9, MF: true, Proto: &proto}, pt.Payload(tcp[:16])))
	if fault := tiny.View.Parse(tiny.Bytes()); fault != packet.FaultL4 {
		t.Fatalf("fault %v", fault)
	}
	first := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{ID: 9, MF: true, Proto: &proto}, pt.Payload(tcp[:24])))
	second := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{ID: 9, Offset: 8, Proto: &proto}, pt.Payload(tcp[8:])))
	for _, order := range [][]*packet.Frame{{first, second}, {second, first}} {
		tab := New(Limits{})
		_, v0 := tab.Track(1, 1, order[0], 0)
		_, v1 := tab.Track(1, 1, order[1], 0)
		if v0.Outcome == Refused || v1.Reason != trace.FragOverlap || len(v1.Held) != 0 {
			t.Errorf("%+v, %+v", v0, v1)
		}
	}
}

func TestWholePacketsPass(t *testing.T) {
	tab := New(Limits{})
	tab.mu.Lock() // and don't need the lock
	defer tab.mu.Unlock()
	for name, b := range map[string][]byte{
		"udp":    pt.UDP4(pt.Packet{SrcPort: 7, DstPort: 53}),
		"atomic": pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{}, pt.FragHdr{ID: 4}, pt.UDPHdr{SrcPort: 7, DstPort: 53}),
	} {
		ports, v := tab.Track(1, 1, pt.Frame(b), 0)
		if v.Outcome != Known || ports != (Ports{7, 53}) {
			t.Errorf("%s: %+v, %v", name, v, ports)
		}
	}
	f := pt.Frame(pt.TCP6(pt.Packet{}))
	if n := testing.AllocsPerRun(100, func() { tab.Track(1, 1, f, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNobodyBreaksTheDatagramsOfAnother(t *testing.T) {
	tab, all := New(Limits{}), cut(false, 1, datagramData(7, 100), 56)
	expect(t, tab, 1, all[0], 0, Known, trace.None)
	expect(t, tab, 2, piece{false, 1, 8, make([]byte, 48), true}, 0, Hold, trace.None)
	expect(t, tab, 2, piece{false, 1, 16, make([]byte, 48), true}, 0, Refused, trace.FragOverlap)
	expect(t, tab, 1, all[1], 0, Known, trace.None)
}

func TestExpire(t *testing.T) {
	tab := New(Limits{})
	four, six := cut(false, 1, datagramData(7, 100), 56), cut(true, 1, datagramData(7, 100), 56)
	start := ^uint32(0) - 10 // the clock wraps on the way
	expect(t, tab, 1, four[1], start, Hold, trace.None)
	expect(t, tab, 2, six[1], start, Hold, trace.None)
	lost := map[uint16]int{}
	tell := func(in uint16, frames int) { lost[in] += frames }
	for _, step := range []struct {
		after     uint32
		datagrams int
	}{{29, 2}, {30, 1}, {59, 1}, {60, 0}} {
		tab.Expire(start+step.after, tell)
		audit(t, tab)
		if c := tab.Counts(); c.Datagrams != step.datagrams {
			t.Errorf("after %d s: %+v", step.after, c)
		}
	}
	if lost[1] != 1 || lost[2] != 1 {
		t.Errorf("lost %v", lost)
	}
	expect(t, tab, 1, four[1], 500, Hold, trace.None)
	tab.Expire(1000, nil)
}

func TestRemovePort(t *testing.T) {
	tab, all := New(Limits{}), cut(false, 1, datagramData(7, 100), 32)
	for in := range uint16(3) {
		expect(t, tab, in, all[1], 0, Hold, trace.None)
		expect(t, tab, in, all[2], 0, Hold, trace.None)
	}
	expect(t, tab, 1, piece{false, 2, 0, datagramData(7, 0), true}, 0, Known, trace.None)
	if lost := tab.RemovePort(1); lost != 2 {
		t.Errorf("lost %d", lost)
	}
	audit(t, tab)
	if lost := tab.RemovePort(1); lost != 0 {
		t.Errorf("lost %d more", lost)
	}
	if c := tab.Counts(); c.Datagrams != 2 || c.Held != 4 {
		t.Errorf("%+v", c)
	}
}

// TestConcurrentUse: each worker has its own port, one shares it; nothing is
// lost or counted twice.
func TestConcurrentUse(t *testing.T) {
	tab := New(Limits{Datagrams: 40, Held: 60})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for i := range 3000 {
				tab.Track(uint16(w/2), 1, randomPiece(r).frame(), uint32(i/10))
				switch r.IntN(100) {
				case 0:
					tab.Expire(uint32(i/10), func(uint16, int) {})
				case 1:
					tab.RemovePort(uint16(w / 2))
				case 2:
					tab.Counts()
				}
			}
		})
	}
	wg.Wait()
	audit(t, tab)
}
