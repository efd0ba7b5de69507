// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

func realTree(t *testing.T, s *Spec, l Limits) *Tree {
	t.Helper()
	tree := NewTree(NewPool(l), 1)
	if err := tree.Apply(s, 0); err != nil {
		t.Fatal(err)
	}
	return tree
}

func udp(n int, tos uint8) *packet.Frame {
	return parsed(pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{TOS: tos}, pt.UDPHdr{SrcPort: 1, DstPort: 2}, pt.Payload(bytes.Repeat([]byte("x"), n)))))
}

func parsed(f *packet.Frame) *packet.Frame {
	f.View.Parse(f.Bytes())
	return f
}

// A frame that leaves in its turn is never copied; one that waits is, with its
// metadata, and the caller's buffer may change.
func TestLoans(t *testing.T) {
	tree := realTree(t, tbfSpec(mbit, 1000, 1<<20), Limits{})
	a, b := udp(600, 0), udp(700, 0)
	for _, f := range []*packet.Frame{a, b} {
		if !tree.Enqueue(f, MetaOf(f, 1), 0) {
			t.Fatal("dropped")
		}
	}
	r := tree.Dequeue(0)
	if got := tree.pool.Frame(r); got != a {
		t.Error("the first frame was copied")
	}
	tree.Done(r)
	tree.pool.Keep()
	want := bytes.Clone(b.Bytes())
	view := b.View
	clear(b.Buf())
	if r = tree.Dequeue(ms); r != 0 {
		t.Fatal("the second frame left at once")
	}
	r = tree.Dequeue(second)
	f := tree.pool.Frame(r)
	if diff := cmp.Diff(want, f.Bytes()); diff != "" {
		t.Error(diff)
	}
	if f.View != view {
		t.Errorf("view %+v, want %+v", f.View, view)
	}
	tree.Done(r)
	if tree.mem != 0 || tree.pool.Waiting() != 0 {
		t.Error("something is left")
	}
}

// A marked frame has the codepoint and a right checksum, and the caller's own,
// which others may have too, has not.
func TestMark(t *testing.T) {
	for name, f := range map[string]*packet.Frame{
		"IPv4": udp(100, 0xb9), // EF, taking part in ECN
		"IPv6": parsed(pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{TrafficClass: 0xb9}, pt.UDPHdr{}, pt.Payload("y")))),
	} {
		t.Run(name, func(t *testing.T) {
			tree := realTree(t, root("pfifo"), Limits{})
			m := MetaOf(f, 1)
			if m.ECN != ECT1 {
				t.Fatalf("ECN %v", m.ECN)
			}
			tree.Enqueue(f, m, 0)
			r := tree.root.(*fifo).q.head
			if !tree.pool.markCE(r) {
				t.Fatal("not marked")
			}
			got := tree.pool.Frame(r)
			if tos, _ := tosOf(got.Bytes(), &got.View); tos != 0xbb {
				t.Errorf("TOS %#x", tos)
			}
			if !packet.VerifyL3(got.Bytes(), &got.View) {
				t.Error("wrong checksum")
			}
			if tos, _ := tosOf(f.Bytes(), &f.View); tos != 0xb9 {
				t.Error("the caller's frame was changed")
			}
		})
	}
	tree := realTree(t, root("pfifo"), Limits{})
	f := udp(10, 0)
	tree.Enqueue(f, MetaOf(f, 1), 0)
	if tree.pool.markCE(tree.root.(*fifo).q.head) {
		t.Error("marked one that does not take part")
	}
}

// A super-frame that has to wait is cut into what the segmenter makes of it.
func TestCut(t *testing.T) {
	for _, tag := range []bool{false, true} {
		layers := []pt.Layer{pt.EtherHdr{}}
		if tag {
			layers = append(layers, pt.VLANTag{TCI: 5})
		}
		data := make([]byte, 40_000)
		for i := range data {
			data[i] = byte(i * 7)
		}
		f := parsed(pt.GSO(pt.Build(append(layers, pt.IPv4Hdr{}, pt.TCPHdr{Flags: pt.ACK}, pt.Payload(data))...), 1448))
		tree := realTree(t, tbfSpec(10*mbit, 3000, 1<<20), Limits{})
		m := MetaOf(f, 1)
		if !tree.Enqueue(f, m, 0) {
			t.Fatal("dropped")
		}
		tree.pool.Keep()
		var seg packet.Segmenter
		seg.Init(f)
		now, sent := int64(0), uint32(0)
		want := pt.NewFrame()
		for seg.Next(want) {
			r := tree.Dequeue(now)
			for ; r == 0; r = tree.Dequeue(now) {
				now = tree.NextTime(now)
			}
			got := tree.pool.Frame(r)
			if !bytes.Equal(got.Bytes(), want.Bytes()) || got.View != want.View || got.Vnet != want.Vnet {
				t.Fatal("another segment")
			}
			sent += tree.pool.Meta(r).Wire
			tree.Done(r)
		}
		if sent != m.Wire || tree.Len() != 0 || tree.mem != 0 || tree.pool.Waiting() != 0 {
			t.Errorf("sent %d bytes of %d; %d, %d, %d are left", sent, m.Wire, tree.Len(), tree.mem, tree.pool.Waiting())
		}
	}
}

// netem turns one bit, in a copy.
func TestCorrupt(t *testing.T) {
	tree := realTree(t, netemSpec(Netem{Corrupt: percent(100)}), Limits{})
	f := udp(200, 0)
	before := bytes.Clone(f.Bytes())
	tree.Enqueue(f, MetaOf(f, 1), 0)
	got := tree.pool.Frame(tree.Dequeue(0)).Bytes()
	turned := 0
	for i := range got {
		for x := got[i] ^ before[i]; x != 0; x &= x - 1 {
			turned++
		}
	}
	if turned != 1 || !bytes.Equal(before, f.Bytes()) {
		t.Errorf("%d bits differ", turned)
	}
}

// When there is no memory for frames that have to wait, they are dropped with a
// reason, and nothing else suffers.
func TestPoolIsFull(t *testing.T) {
	tree := realTree(t, tbfSpec(mbit, 2000, 1<<30), Limits{Packets: 100, Bytes: slabLen})
	tree.maxMem = 1 << 40
	taken := 0
	for range 200 {
		f := udp(1000, 0)
		if tree.Enqueue(f, MetaOf(f, 1), 0) {
			taken++
		}
	}
	tree.pool.Keep()
	if taken != 89 {
		t.Errorf("%d taken, want 8 of 9 in 100", taken)
	}
	left := 0
	for now := int64(0); tree.Len() > 0; now = tree.NextTime(now) {
		for r := tree.Dequeue(now); r != 0; r = tree.Dequeue(now) {
			left++
			tree.Done(r)
		}
	}
	var n [trace.NumReasons]uint64
	tree.TakeDrops(&n)
	if int(n[trace.QdiscMemory])+left != 200 || left < 50 {
		t.Errorf("%d left, %d dropped", left, n[trace.QdiscMemory])
	}
}

// Who floods leaves room in the pool for the others.
func TestPoolIsShared(t *testing.T) {
	flood := realTree(t, tbfSpec(mbit, 2000, 1<<40), Limits{Packets: 10_000, Bytes: 10 * slabLen})
	for _, tree := range []*Tree{flood, NewTree(flood.pool, 2), NewTree(flood.pool, 3)} {
		if tree.Apply(tbfSpec(mbit, 2000, 1<<40), 0) != nil {
			t.Fatal("no discipline")
		}
		tree.maxMem = 1 << 40
		taken := 0
		for range 6000 {
			if f := udp(1000, 0); tree.Enqueue(f, MetaOf(f, 1), 0) {
				taken++
			}
			flood.pool.Keep()
		}
		var n [trace.NumReasons]uint64
		if tree.TakeDrops(&n); n[trace.QdiscMemory] == 0 || int(n[trace.QdiscMemory])+taken != 6000 {
			t.Errorf("%d dropped, %d taken", n[trace.QdiscMemory], taken)
		}
		if t.Log(taken); taken < 400 {
			t.Errorf("%d taken", taken)
		}
	}
	for _, r := range flood.pool.items[1:] {
		if r.lost {
			t.Fatal("a packet that was taken lost its bytes")
		}
	}
}

// Buffers of all sizes come and go; none is given out twice.
func TestBuffers(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	b := newBuffers(8 * slabLen)
	type held struct {
		x    buffer
		fill byte
		n    int
	}
	var all []held
	for i := range 20_000 {
		if rng.IntN(2) == 0 || len(all) == 0 {
			n := 1 + rng.IntN(packet.BufLen)
			if rng.IntN(3) > 0 {
				n = 1 + rng.IntN(2000)
			}
			if x := b.take(n); x != 0 {
				m := b.bytes(x)[:n]
				for k := range m {
					m[k] = byte(i)
				}
				all = append(all, held{x, byte(i), n})
			}
			continue
		}
		k := rng.IntN(len(all))
		h := all[k]
		for _, c := range b.bytes(h.x)[:h.n] {
			if c != h.fill {
				t.Fatal("a buffer was given out twice")
			}
		}
		b.free(h.x)
		all[k] = all[len(all)-1]
		all = all[:len(all)-1]
	}
	for _, h := range all {
		b.free(h.x)
	}
	for i := 1; i < len(b.slabs); i++ {
		if b.slabs[i].used != 0 {
			t.Error("a slab is in use")
		}
	}
	for n, x := 0, b.take(packet.BufLen); x != 0; x = b.take(packet.BufLen) {
		if n++; n > 8*slabLen/packet.BufLen {
			t.Fatal("more buffers than memory")
		}
	}
}

// Nothing on the way of a packet allocates, in any discipline.
func TestNoAllocation(t *testing.T) {
	htbs := htbSpec(1000*mbit, HTBClass{Rate: Rate{Bytes: 100 * mbit}, Ceil: Rate{Bytes: 1000 * mbit}})
	htbs.Filters = []Filter{{Parent: h1, Kind: "flower", Class: h1 + 10, Flower: &Flower{DstIP: netip.MustParsePrefix("0.0.0.0/0")}, Police: &Police{Rate: Rate{Bytes: 1 << 30}, Burst: 1 << 20}}}
	specs := map[string]*Spec{
		"tbf":   tbfSpec(100*mbit, 10_000, 1<<20),
		"htb":   htbs,
		"netem": netemSpec(Netem{Delay: ms, Jitter: ms / 2, Loss: percent(1), Duplicate: percent(1), Corrupt: percent(1), Reorder: percent(5), Gap: 3}),
	}
	for _, kind := range []string{"pfifo", "bfifo", "pfifo_fast", "prio", "codel", "fq_codel", "fq", "sfq"} {
		specs[kind] = root(kind)
	}
	frames := []*packet.Frame{udp(100, 2), udp(1400, 0), parsed(pt.GSO(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{}, pt.Payload(make([]byte, 20_000))), 1448))}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			tree := realTree(t, spec, Limits{})
			now := int64(0)
			turn := func() {
				for _, f := range frames {
					tree.Enqueue(f, MetaOf(f, 1), now)
				}
				tree.pool.Keep()
				now += 300_000
				for r := tree.Dequeue(now); r != 0; r = tree.Dequeue(now) {
					tree.pool.Frame(r)
					tree.Done(r)
				}
				tree.NextTime(now)
			}
			for range 2000 {
				turn()
			}
			if n := testing.AllocsPerRun(500, turn); n != 0 {
				t.Errorf("%g allocations in a turn", n)
			}
		})
	}
}

func TestHandover(t *testing.T) {
	h := NewHandover(64, 1<<18)
	const n = 20_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		rng := rand.New(rand.NewPCG(1, 1))
		f := pt.NewFrame()
		for i := 0; i < n; {
			size := 60 + rng.IntN(1400)
			f.Reset(packet.Headroom, size)
			b := f.Bytes()
			for k := range b {
				b[k] = byte(i)
			}
			for {
				if _, ok := h.Push(f, Meta{Mark: uint32(i), Len: uint32(size)}); ok {
					break
				}
			}
			i++
		}
	}()
	for next := 0; next < n; {
		k := h.Len()
		for i := range k {
			f, m := h.Frame(i)
			b := f.Bytes()
			if int(m.Mark) != next || len(b) != int(m.Len) || b[0] != byte(next) || b[len(b)-1] != byte(next) {
				t.Fatalf("frame %d: mark %d, %d bytes of %d", next, m.Mark, m.Len, b[0])
			}
			next++
		}
		h.Release(k)
	}
	<-done
}
