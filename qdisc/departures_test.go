// SPDX-License-Identifier: Apache-2.0

package qdisc_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/qdisc"
	"sluice/qdisc/tc"
)

// load is the packets that a trial offers: n, of flows by turns at random, in groups that
// come at once, at a mean rate.
type load struct {
	n          int
	rate       int64 // bytes/s; 0: every gap ns
	gap        int64
	group      int // 0: 1
	sizes      [2]int
	flows      int
	priorities []uint32 // of the flows; nil: none
	marks      bool     // a flow's number is its mark
	ecn        int      // flows below take part in ECN
	super      int      // of TCP, in segments of so many bytes: super-frames; 0: datagrams
	seed       uint64
}

// offer is one packet of a load.
type offer struct {
	at             int64 // ns since the first one
	flow           int
	ecn            bool
	priority, mark uint32
	bytes          []byte
	vnet           packet.Vnet
}

// offers are the same ones each time.
func (l *load) offers(name string) []offer {
	sum := fnv.New64()
	sum.Write([]byte(name))
	r := rand.New(rand.NewPCG(sum.Sum64(), l.seed))
	at, out := int64(0), make([]offer, 0, l.n)
	group := max(l.group, 1)
	for i := range l.n {
		o := offer{at: at, flow: r.IntN(max(l.flows, 1))}
		o.ecn = o.flow < l.ecn
		size := l.sizes[0] + r.IntN(l.sizes[1]-l.sizes[0]+1)
		if l.super > 0 {
			o.bytes, o.vnet = segments(i, size, l.super, &o)
		} else {
			o.bytes = datagram(i, size, &o)
		}
		if l.priorities != nil {
			o.priority = l.priorities[o.flow]
		}
		if l.marks {
			o.mark = uint32(o.flow)
		}
		out = append(out, o)
		mean := l.gap
		if l.rate > 0 {
			mean = int64(group) * int64(size) * 1e9 / l.rate
		}
		if i%group == group-1 {
			if at += mean; l.rate > 0 {
				at += r.Int64N(2*mean) - mean
			}
		}
	}
	return out
}

// datagram has its number in it.
func datagram(i, size int, o *offer) []byte {
	payload := make([]byte, size-42)
	binary.BigEndian.PutUint16(payload, uint16(i))
	ip := pt.IPv4Hdr{}
	if o.ecn {
		ip.TOS = 2
	}
	return pt.Build(pt.EtherHdr{}, ip, pt.UDPHdr{SrcPort: 7, DstPort: uint16(1000 + o.flow)}, pt.Payload(payload))
}

// segments is a super-frame, or a single segment if it is small; the number is in all of
// its sequence numbers.
func segments(i, size, segment int, o *offer) ([]byte, packet.Vnet) {
	tcp := pt.TCPHdr{SrcPort: 7, DstPort: uint16(1000 + o.flow), Seq: uint32(i) << 16, Flags: pt.ACK, Window: 1000}
	b := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{DF: true}, tcp, pt.Payload(make([]byte, size-54)))
	if size-54 <= segment {
		return b, packet.Vnet{}
	}
	f := pt.GSO(b, segment)
	return slices.Clone(f.Bytes()), f.Vnet
}

// leaving is a packet that left: its number, when, and whether it was marked.
type leaving struct {
	number int
	at     int64
	marked bool
}

// tick is the unit of times in records, ns.
const tick = 1000

// departures is the record of a trial: what was offered to a kernel's discipline, and what
// left it. All but Lost are differences to what is likely, which makes them short.
type departures struct {
	Name   string
	Late   []int64 // how much after the load's time a packet was offered, ticks
	Who    []int   // the number of the packet that left, less one more than the last one's
	When   []int64 // ticks after the last one
	Marked []int   `json:",omitempty"` // the places in Who of packets that were marked
}

func (d *departures) add(l leaving) {
	number, at := -1, int64(0)
	for i := range d.Who {
		number += 1 + d.Who[i]
		at += d.When[i]
	}
	if l.marked {
		d.Marked = append(d.Marked, len(d.Who))
	}
	d.Who = append(d.Who, l.number-number-1)
	d.When = append(d.When, l.at/tick-at)
}

func (d *departures) left() (out []leaving) {
	number, at := -1, int64(0)
	for i := range d.Who {
		number += 1 + d.Who[i]
		at += d.When[i]
		out = append(out, leaving{number, at * tick, slices.Contains(d.Marked, i)})
	}
	return out
}

// comparison is how a kernel's departures differ from ours.
type comparison struct {
	packets, dropped, marked int
	lateness                 []int64 // of the kernel's, sorted
	otherDrops, otherMarks   []int   // packets that only one of both dropped, or marked
}

// compared takes packets by their numbers; one that leaves twice, by its turns.
func compared(n int, theirs, ours []leaving) (c comparison) {
	c.packets = n
	a, b := byNumber(n, theirs), byNumber(n, ours)
	for i := range n {
		if len(a[i]) == 0 {
			c.dropped++
		}
		if len(a[i]) != len(b[i]) {
			c.otherDrops = append(c.otherDrops, i)
			continue
		}
		for k := range a[i] {
			if a[i][k].marked {
				c.marked++
			}
			if a[i][k].marked != b[i][k].marked {
				c.otherMarks = append(c.otherMarks, i)
			}
			c.lateness = append(c.lateness, a[i][k].at-b[i][k].at)
		}
	}
	slices.Sort(c.lateness)
	return c
}

func byNumber(n int, all []leaving) [][]leaving {
	out := make([][]leaving, n)
	for _, l := range all {
		out[l.number] = append(out[l.number], l)
	}
	return out
}

// row is the comparison as docs/departures.md has it: times in µs.
func (c *comparison) row(t *trial) string {
	us := func(ns int64) int64 { return (ns + 500) / 1000 }
	return fmt.Sprintf("| `%s` | %d | %d | %d | %d / %d / %d |", t.name(), c.packets, c.dropped, c.marked,
		us(c.lateness[0]), us(c.lateness[len(c.lateness)/2]), us(c.lateness[len(c.lateness)-1]))
}

// TestSameDeparturesAsRecorded: the same packets, offered at the same times, leave at the
// same times as they leave a kernel's discipline; the same ones are dropped, and marked.
func TestSameDeparturesAsRecorded(t *testing.T) {
	docs, err := os.ReadFile("../docs/departures.md")
	if err != nil {
		t.Fatal(err)
	}
	records := recordsOf[departures](t, "testdata/departures.jsonl", func(d departures) string { return d.Name })
	for _, c := range trials() {
		t.Run(c.name(), func(t *testing.T) {
			d, ok := records[c.name()]
			if !ok {
				t.Fatal("no record of it: make oracle-qdisc")
			}
			offers := c.load.offers(c.name())
			for i := range offers {
				offers[i].at += d.Late[i] * tick
			}
			result := compared(len(offers), d.left(), ourDepartures(t, c.lines, offers))
			c.check(t, &result)
			if !strings.Contains(string(docs), result.row(&c)) {
				t.Errorf("docs/departures.md lacks the row\n%s", result.row(&c))
			}
		})
	}
}

func (c *trial) check(t *testing.T, r *comparison) {
	t.Helper()
	if len(r.otherDrops) > 0 || len(r.otherMarks) > 0 {
		t.Errorf("dropped by one only: %v, marked by one only: %v", r.otherDrops, r.otherMarks)
	}
	first, last := r.lateness[0], r.lateness[len(r.lateness)-1]
	if most := either(c.late, late); first < 0 || last > most {
		t.Errorf("the kernel's times less ours are %v to %v, want 0 to %v", time.Duration(first), time.Duration(last), time.Duration(most))
	}
}

func either(x, def int64) int64 {
	if x == 0 {
		return def
	}
	return x
}

// recordsOf reads a file of records, by their names.
func recordsOf[T any](t *testing.T, path string, name func(T) string) map[string]T {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]T{}
	for line := range strings.Lines(string(text)) {
		var r T
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		out[name(r)] = r
	}
	return out
}

// ourDepartures is what leaves our discipline.
func ourDepartures(t *testing.T, lines []string, offers []offer) (left []leaving) {
	t.Helper()
	ours(t, lines, offers, func(b []byte, at int64) {
		if i := numberOf(b); i >= 0 {
			left = append(left, leaving{i, at, b[15]&3 == 3})
		}
	})
	return left
}

// ours offers packets to our discipline, and calls do for those that leave; the line
// below it takes any at once.
func ours(t *testing.T, lines []string, offers []offer, do func(b []byte, at int64)) {
	t.Helper()
	pool := qdisc.NewPool(qdisc.Limits{})
	tree := qdisc.NewTree(pool, 1)
	if err := tree.Apply(spec(t, lines), 0); err != nil {
		t.Fatal(err)
	}
	tree.LinuxLaw()
	f := pt.NewFrame()
	const start = 1e9 // buckets are full by then
	take := func(now int64) {
		for r := tree.Dequeue(now); r != 0; r = tree.Dequeue(now) {
			do(pool.Frame(r).Bytes(), now-start)
			tree.Done(r)
		}
		pool.Keep()
	}
	for _, o := range offers {
		for at := tree.NextTime(0); tree.Len() > 0 && at < start+o.at; at = max(at+1, tree.NextTime(at)) {
			take(at)
		}
		f.Reset(packet.Headroom, len(o.bytes))
		copy(f.Bytes(), o.bytes)
		f.Vnet = o.vnet
		f.View.Parse(f.Bytes())
		f.Priority, f.Mark = o.priority, o.mark
		tree.Enqueue(f, qdisc.MetaOf(f, 1), start+o.at)
		take(start + o.at)
	}
	for at := int64(start); tree.Len() > 0 && at < 1e12; {
		at = max(at+1, tree.NextTime(at))
		take(at)
	}
}

// spec is what lines of tc make.
func spec(t *testing.T, lines []string) *qdisc.Spec {
	t.Helper()
	s := &qdisc.Spec{}
	for _, line := range lines {
		c, err := tc.Parse(strings.Fields(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if s, err = c.Apply(s); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return s
}

// numberOf is that of a packet, -1 if it is another's.
func numberOf(b []byte) int {
	switch {
	case len(b) < 44 || binary.BigEndian.Uint16(b[12:]) != 0x800:
	case b[23] == packet.ProtoUDP:
		return int(binary.BigEndian.Uint16(b[42:]))
	case b[23] == packet.ProtoTCP:
		return int(binary.BigEndian.Uint16(b[38:]))
	}
	return -1
}
