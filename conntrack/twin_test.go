// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	pt "sluice/packet/packettest"
)

func addr4(a [4]byte) netip.Addr { return netip.AddrFrom4(a) }

// twin is the table as a list: slow, and without anything to get wrong.
type twin struct{ conns []*twinConn }

type twinConn struct {
	zone            uint16
	original, reply Tuple
	start, expiry   uint32
	replied         bool
	assured         bool
}

func (t *twin) find(zone uint16, tu Tuple, now uint32) (*twinConn, Dir) {
	for _, c := range t.conns {
		if c.zone != zone || c.expiry <= now {
			continue
		}
		switch tu {
		case c.reply: // the same, of who speaks with itself
			return c, Reply
		case c.original:
			return c, Original
		}
	}
	return nil, Original
}

// see is what UDP does.
func (c *twinConn) see(d Dir, now uint32) State {
	state := New
	if d == Reply || c.replied {
		state = Established
	}
	timeout := uint32(30)
	if c.replied && now-c.start > 2 {
		timeout, c.assured = 120, true
	}
	c.replied = c.replied || d == Reply
	c.expiry = now + timeout
	return state
}

func (t *twin) remove(c *twinConn) {
	for i := range t.conns {
		if t.conns[i] == c {
			t.conns = append(t.conns[:i], t.conns[i+1:]...)
			return
		}
	}
}

// alive is how many are not over.
func (t *twin) alive(now uint32) (n int) {
	for _, c := range t.conns {
		if c.expiry > now {
			n++
		}
	}
	return n
}

// TestAgainstTheTwin lets datagrams of few addresses, translated at random, meet
// the table and its twin.
func TestAgainstTheTwin(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	tab, tw, now := table(t, Config{Entries: 2000}), &twin{}, uint32(5000)
	for step := range 60000 {
		if r.IntN(20) == 0 {
			now += uint32(r.IntN(4))
		}
		if r.IntN(500) == 0 {
			now += uint32(r.IntN(700))
		}
		zone, tu := uint16(r.IntN(2)), randomTuple(r)
		switch r.IntN(12) {
		case 0:
			tab.Expire(now)
		case 1:
			c, _ := tab.Find(zone, tu)
			if k, _ := tw.find(zone, tu, now); k != nil {
				tw.remove(k)
				c.Delete(now)
			}
		default:
			oneOfBoth(t, r, tab, tw, zone, tu, now)
		}
		if step%5000 == 0 {
			n := 0
			tab.Entries(nil, now, func(*Entry) bool { n++; return true })
			if n != tw.alive(now) {
				t.Fatalf("step %d: %d entries, the twin has %d", step, n, tw.alive(now))
			}
			sound(t, tab)
		}
		if t.Failed() {
			t.Fatalf("step %d", step)
		}
	}
	now += 1000
	if tab.Expire(now); tab.Len() != 0 {
		t.Errorf("%d are left", tab.Len())
	}
	sound(t, tab)
}

func randomTuple(r *rand.Rand) Tuple {
	return Tuple{
		Src: addr4([4]byte{10, 0, 0, byte(r.IntN(3))}), Dst: addr4([4]byte{10, 0, 0, byte(r.IntN(3))}),
		SrcPort: uint16(1 + r.IntN(4)), DstPort: uint16(1 + r.IntN(4)), Proto: 17,
	}
}

func oneOfBoth(t *testing.T, r *rand.Rand, tab *Table, tw *twin, zone uint16, tu Tuple, now uint32) {
	t.Helper()
	var n Pending
	f := pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: tu.Src, Dst: tu.Dst}, pt.UDPHdr{SrcPort: tu.SrcPort, DstPort: tu.DstPort}))
	v := tab.Look(&Packet{Frame: f, Zone: zone, Now: now}, &n)
	if c, d := tw.find(zone, tu, now); c != nil {
		if want := c.see(d, now); v.State != want || v.Dir != d || v.Conn.Status()&Assured != 0 != c.assured {
			t.Errorf("%v: %+v, the twin says %v %v", tu, v, want, d)
		}
		return
	}
	if v.State != New || !n.Active() {
		t.Errorf("%v: %+v, the twin knows none", tu, v)
		return
	}
	if r.IntN(2) == 0 {
		n.Reply = randomTuple(r)
	}
	_, out := tab.Confirm(&n, now)
	want := Inserted
	if c, _ := tw.find(zone, n.Reply, now); c != nil {
		want = Clash
	} else {
		tw.conns = append(tw.conns, &twinConn{zone: zone, original: tu, reply: n.Reply, start: now, expiry: now + 30})
	}
	if out != want {
		t.Errorf("%v -> %v: outcome %d, the twin says %d", tu, n.Reply, out, want)
	}
}

// TestManyAtOnce lets workers, housekeeping and listeners loose on a small table.
func TestManyAtOnce(t *testing.T) {
	var gone, come sync.Map
	tab := table(t, Config{
		Entries: 200, Quota: 120,
		Confirmed: func(e *Entry) { come.Store(e.ID, true) }, Removed: func(e *Entry) { gone.Store(e.ID, true) },
	})
	w := tab.Watch()
	defer w.Close()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() { churn(tab, uint16(g), 4000) })
	}
	wg.Go(func() {
		var events []byte
		for n := range uint32(300) {
			tab.Expire(1000 + n)
			events, _ = w.Read(events[:0], 64)
			tab.Entries(&Filter{Proto: 17}, 1000+n, func(e *Entry) bool { return len(e.Append(nil, 0xff)) > 0 })
			tab.SetZone(uint16(n%3), Kernel())
		}
	})
	wg.Wait()
	sound(t, tab)
	tab.Delete(nil, 1300)
	tab.Expire(1e6)
	sound(t, tab)
	s := tab.Stats()
	if s.Insert != s.Delete || tab.Len() != 0 {
		t.Errorf("%d came, %d went, %d are left", s.Insert, s.Delete, tab.Len())
	}
}

func churn(tab *Table, g uint16, steps int) {
	r := rand.New(rand.NewPCG(uint64(g), 7))
	var n Pending
	var kept []Conn
	f := pt.NewFrame()
	for i := range steps {
		tu := randomTuple(r)
		tu.Src = addr4([4]byte{10, 0, byte(r.IntN(8)), byte(r.IntN(2))})
		b := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: tu.Src, Dst: tu.Dst}, pt.UDPHdr{SrcPort: tu.SrcPort, DstPort: tu.DstPort})
		f.Reset(64, len(b))
		copy(f.Bytes(), b)
		f.View.Parse(b)
		now := 1000 + uint32(i/20)
		v := tab.Look(&Packet{Frame: f, Now: now, Port: g}, &n)
		if n.Active() {
			v.Conn, _ = tab.Confirm(&n, now)
		}
		kept = append(kept[max(0, len(kept)-20):], v.Conn)
		for _, c := range kept {
			switch r.IntN(10) {
			case 0:
				c.Delete(now)
			case 1:
				c.Packet(Reply, f, now)
				c.SetMark(uint32(i))
			case 2:
				c.Touch(Original, 1, 100, now)
			}
		}
	}
}
