// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

const testSecond = 1000

// flagsOf are flags for each class of segments.
func flagsOf(c class) uint8 {
	return [...]uint8{flagSYN, flagSYN | flagACK, flagFIN | flagACK, flagACK, flagRST, 0}[c]
}

// TestTCPTableAgainstTheKernel goes through the 120 cells: an entry in each state,
// made without any packet, meets one segment of each class from each side. Windows
// are liberal, so that the table alone decides.
func TestTCPTableAgainstTheKernel(t *testing.T) {
	k := newKernelTracker(t)
	tab := table(t, Config{Entries: 1024})
	port := uint16(10000)
	cells := 0
	for _, status := range []Status{Confirmed | SeenReply | Assured, Confirmed | SeenReply, Confirmed} {
		for state := uint32(tcpSynSent); state < numTCPStates; state++ {
			for d := Original; d <= Reply; d++ {
				for c := classSYN; c <= classNone; c++ {
					port++
					cells++
					compareCell(t, k, tab, port, state, d, c, status)
				}
			}
		}
	}
	t.Logf("%d cells", cells)
}

func compareCell(t *testing.T, k *kernelTracker, tab *Table, port uint16, state uint32, d Dir, c class, status Status) {
	t.Helper()
	tu := Tuple{Src: ends(false)[0], Dst: ends(false)[1], SrcPort: port, DstPort: 80, Proto: packet.ProtoTCP}
	flags := [2]uint8{liberal, liberal}
	k.create(tu, uint8(state), status, flags, 200)
	place(t, tab, tu, state, status, flags, 200)
	b := segmentFrom(d, tu, pt.TCPHdr{Seq: 5000, Ack: 6000, Flags: flagsOf(c)}, nil)
	want := k.send(d, b)
	got := own(t, tab, d, b)
	name := fmt.Sprintf("state %s, %s, class %d, status %#x", tcpStateName(state), d, c, status)
	if got != want {
		t.Errorf("%s: %v, the kernel says %v", name, got, want)
	}
	if diff := differ(k.get(tu), ours(tab, tu, testSecond)); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
	k.remove(tu)
	tab.Delete(nil, testSecond)
}

// place enters a connection into the table as ctnetlink does: without history.
func place(t *testing.T, tab *Table, tu Tuple, state uint32, status Status, flags [2]uint8, timeout uint32) {
	t.Helper()
	n := Pending{active: true, Original: tu, state: state, Status: status, timeout: timeout}
	n.Reply, _ = tu.Inverse()
	for d, f := range flags {
		n.track.peer[d].flags = f
	}
	c, out := tab.Confirm(&n, testSecond)
	if out != Inserted {
		t.Fatalf("outcome %d", out)
	}
	c.record().acct[Original].packets.Store(0)
}

// own lets the table see a frame.
func own(t *testing.T, tab *Table, _ Dir, b []byte) State {
	t.Helper()
	f := pt.Frame(b)
	var n Pending
	v := tab.Look(&Packet{Frame: f, Now: testSecond}, &n)
	if n.Active() {
		if _, out := tab.Confirm(&n, testSecond); out != Inserted {
			t.Fatalf("outcome %d", out)
		}
	}
	return v.State
}

// segmentFrom is a frame of the connection tu, in direction d.
func segmentFrom(d Dir, tu Tuple, h pt.TCPHdr, data []byte) []byte {
	if d == Reply {
		tu, _ = tu.Inverse()
	}
	h.SrcPort, h.DstPort = tu.SrcPort, tu.DstPort
	return pt.Build(pt.EtherHdr{}, ipHdr(tu), h, pt.Payload(data))
}

func ipHdr(tu Tuple) pt.Layer {
	if tu.Src.Is6() {
		return pt.IPv6Hdr{Src: tu.Src, Dst: tu.Dst}
	}
	return pt.IPv4Hdr{Src: tu.Src, Dst: tu.Dst}
}

// talk is a random conversation: it makes frames that mostly fit, and often don't.
type talk struct {
	r        *rand.Rand
	tu       Tuple
	next     [2]uint32 // sequence number of each side
	tag      [2]uint32 // of SCTP
	lastACK  [2]uint32
	sent     [2][]byte // last frame of each side
	describe string
}

func newTalk(r *rand.Rand, proto uint8, port uint16, v6 bool) *talk {
	a := ends(v6)
	tu := Tuple{Src: a[0], Dst: a[1], SrcPort: port, DstPort: 1 + uint16(r.IntN(60000)), Proto: proto}
	switch proto {
	case packet.ProtoICMP:
		tu.DstPort = 8 << 8
	case packet.ProtoICMPv6:
		tu.DstPort = 128 << 8
	case protoGRE, 99:
		tu.SrcPort, tu.DstPort = 0, 0
	}
	return &talk{r: r, tu: tu, next: [2]uint32{r.Uint32(), r.Uint32()}, tag: [2]uint32{r.Uint32(), r.Uint32()}}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// frame is the next frame, and the side that sends it.
func (k *talk) frame(step int) (Dir, []byte) {
	d := Dir(k.r.IntN(2))
	if step < 4 && k.r.IntN(4) != 0 {
		d = Dir(step % 2)
	}
	if k.r.IntN(12) == 0 && k.sent[d.Other()] != nil {
		return d, k.icmpError(d)
	}
	b := k.plain(d, step)
	k.sent[d] = b
	return d, b
}

func (k *talk) plain(d Dir, step int) []byte {
	switch k.tu.Proto {
	case packet.ProtoTCP:
		return k.tcp(d, step)
	case packet.ProtoSCTP:
		return k.sctp(d, step)
	case protoGRE, 99:
		k.describe = fmt.Sprintf("protocol %d %v", k.tu.Proto, d)
		body := pt.Payload{0, 0, 8, 0, 1, 2, 3, 4}
		if tu := k.from(d); tu.Src.Is6() {
			return pt.Build(pt.EtherHdr{}, pt.IPv6Hdr{Src: tu.Src, Dst: tu.Dst, Next: &k.tu.Proto}, body)
		}
		return pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Src: k.from(d).Src, Dst: k.from(d).Dst, Proto: &k.tu.Proto}, body)
	case packet.ProtoUDP:
		tu := k.from(d)
		h := pt.UDPHdr{SrcPort: tu.SrcPort, DstPort: tu.DstPort}
		k.describe = fmt.Sprintf("udp %v", d)
		if k.r.IntN(10) == 0 {
			bad := uint16(0x1234)
			h.Checksum = &bad
		}
		return pt.Build(pt.EtherHdr{}, ipHdr(tu), h, pt.Bytes(k.r.IntN(50)))
	}
	return k.query(d)
}

// icmpError is an error, or a redirect of IPv4, about the last frame of the other
// side: sometimes to somebody else, or with too little of it.
func (k *talk) icmpError(d Dir) []byte {
	tu := k.from(d)
	quoted := append([]byte(nil), k.sent[d.Other()][packet.EthernetLen:]...)
	h := pt.ICMPHdr{Type: pick[uint8](k.r, 3, 4, 5, 11, 12), Code: 1}
	if tu.Src.Is6() {
		h = pt.ICMPHdr{V6: true, Type: pick[uint8](k.r, 1, 2, 3, 4, 100)}
	}
	damage := k.r.IntN(5)
	if tu.Proto == protoGRE && damage == 1 {
		damage = 2 // GRE of version 1 is PPTP, of which the kernel knows more
	}
	switch damage {
	case 0:
		quoted = quoted[:k.r.IntN(len(quoted))]
	case 1:
		// Not of the first byte: the kernel takes a header of less than 20 bytes for
		// one, and so its end for ports.
		quoted[1+k.r.IntN(len(quoted)-1)] ^= 1 << k.r.IntN(8)
	case 2:
		quoted = quoted[:min(len(quoted), 28)]
	}
	k.describe = fmt.Sprintf("icmp error %v type %d about %x", d, h.Type, quoted)
	return pt.Build(pt.EtherHdr{}, ipHdr(Tuple{Src: tu.Src, Dst: tu.Dst}), h, pt.Payload(quoted))
}

func (k *talk) from(d Dir) Tuple {
	if d == Original {
		return k.tu
	}
	tu, _ := k.tu.Inverse()
	return tu
}

// query is a message of ICMP: mostly the right one for its direction.
func (k *talk) query(d Dir) []byte {
	tu := k.from(d)
	h := pt.ICMPHdr{V6: tu.Proto == packet.ProtoICMPv6, Type: uint8(tu.DstPort >> 8), ID: tu.SrcPort, Seq: uint16(k.r.IntN(4))}
	if k.r.IntN(10) == 0 {
		h.Type = pick[uint8](k.r, 8, 0, 13, 14, 15, 17)
		if h.V6 {
			h.Type = pick[uint8](k.r, 128, 129, 139, 140)
		}
	}
	k.describe = fmt.Sprintf("icmp %v type %d", d, h.Type)
	return pt.Build(pt.EtherHdr{}, ipHdr(tu), h, pt.Bytes(k.r.IntN(50)))
}

// tcp is a segment: a likely one for the conversation, or one that is not.
func (k *talk) tcp(d Dir, step int) []byte {
	h := pt.TCPHdr{Seq: k.next[d], Ack: k.next[d.Other()], Window: uint16(k.r.IntN(1 << 16))}
	h.Flags = k.flags(step)
	if step < 3 && k.r.IntN(4) != 0 {
		h.Flags = [...]uint8{flagSYN, flagSYN | flagACK, flagACK}[step]
	}
	if k.r.IntN(6) == 0 {
		h.Window = pick[uint16](k.r, 0, 1, 100)
	}
	if k.r.IntN(4) == 0 {
		h.Seq += k.jump()
	}
	if k.r.IntN(4) == 0 {
		h.Ack += k.jump()
	}
	if k.r.IntN(20) == 0 {
		h.Seq = 0
	}
	if k.r.IntN(20) == 0 {
		h.Ack = pick(k.r, 0, k.lastACK[d])
	}
	h.Options = k.options(h)
	data := make([]byte, pick(k.r, 0, 0, 0, 1, 100, 1000))
	if h.Flags&(flagSYN|flagRST) != 0 && k.r.IntN(10) != 0 {
		data = nil
	}
	if k.r.IntN(5) != 0 && int32(h.Seq-k.next[d]) <= 0 {
		end := h.Seq + uint32(len(data))
		if h.Flags&(flagSYN|flagFIN) != 0 {
			end++
		}
		k.next[d] = end
	}
	k.lastACK[d] = h.Ack
	k.describe = fmt.Sprintf("tcp %v flags %#x seq %d ack %d win %d opts %x data %d", d, h.Flags, h.Seq, h.Ack, h.Window, h.Options, len(data))
	return segmentFrom(d, k.tu, h, data)
}

func (k *talk) flags(step int) uint8 {
	f := pick[uint8](k.r,
		flagACK, flagACK, flagACK, flagACK|flagPSH, flagACK|flagPSH, flagFIN|flagACK, flagSYN, flagSYN|flagACK, flagRST, flagRST|flagACK)
	if step > 3 && k.r.IntN(2) == 0 {
		f = flagACK
	}
	if k.r.IntN(50) == 0 {
		f = uint8(k.r.IntN(256))
	}
	return f
}

func (k *talk) jump() uint32 {
	n := pick[uint32](k.r, 1, 2, 1000, 65000, 66001, 70000, 200000, 1<<20, 1<<30)
	if k.r.IntN(2) == 0 {
		return -n
	}
	return n
}

func (k *talk) options(h pt.TCPHdr) []byte {
	switch {
	case h.Flags&flagSYN != 0:
		opts := []byte{2, 4, 5, 0xb4}
		if k.r.IntN(2) == 0 {
			opts = append(opts, 1, 3, 3, uint8(k.r.IntN(18)))
		}
		if k.r.IntN(2) == 0 {
			opts = append(opts, 4, 2)
		}
		return opts[k.r.IntN(2)*0 : len(opts)-k.r.IntN(8)/7*len(opts)]
	case k.r.IntN(4) == 0:
		opts := []byte{1, 1, 5, 10}
		opts = binary.BigEndian.AppendUint32(opts, h.Ack+100)
		return binary.BigEndian.AppendUint32(opts, h.Ack+pick[uint32](k.r, 200, 5000, 100000))
	case k.r.IntN(4) == 0:
		return []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	case k.r.IntN(20) == 0:
		return []byte{5, 40, 1, 1}
	}
	return nil
}

// sctp is a packet of one chunk, or of two.
func (k *talk) sctp(d Dir, step int) []byte {
	typ := pick[uint8](k.r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14)
	if step < 4 && d == Dir(step%2) && k.r.IntN(3) != 0 {
		typ = [...]uint8{chunkInit, chunkInitAck, chunkCookieEcho, chunkCookieAck}[step]
	}
	tag := k.tag[d]
	if typ == chunkInit && k.r.IntN(6) != 0 {
		tag = 0
	}
	if k.r.IntN(10) == 0 {
		tag = pick(k.r, 0, k.tag[d.Other()], 77)
	}
	body := k.chunk(d, typ)
	if k.r.IntN(6) == 0 {
		body = append(body, k.chunk(d, pick[uint8](k.r, 0, 3, 4, 9, 11))...)
	}
	k.describe = fmt.Sprintf("sctp %v tag %x chunks %x", d, tag, body)
	tu := k.from(d)
	return pt.Build(pt.EtherHdr{}, ipHdr(tu), pt.SCTPHdr{SrcPort: tu.SrcPort, DstPort: tu.DstPort, Tag: tag}, pt.Payload(body))
}

func (k *talk) chunk(d Dir, typ uint8) []byte {
	b := []byte{typ, uint8(k.r.IntN(2)), 0, 4}
	if typ == chunkInit || typ == chunkInitAck {
		b[3] = 20
		tag := k.tag[d.Other()]
		if k.r.IntN(10) == 0 {
			tag = 99
		}
		b = binary.BigEndian.AppendUint32(b, tag)
		b = append(b, make([]byte, 12)...)
	}
	if k.r.IntN(40) == 0 {
		b[3] = uint8(k.r.IntN(6))
	}
	return b
}

// TestConversationsAgainstTheKernel compares after each packet what it was taken
// for, and the entry: direction, status, state, timeout, counters.
func TestConversationsAgainstTheKernel(t *testing.T) {
	k := newKernelTracker(t)
	tab := table(t, Config{Entries: 1 << 12})
	talks, steps := 1600, 24
	if testing.Short() {
		talks = 200
	}
	profiles := settings()
	protos := []uint8{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoSCTP, protoGRE, 99}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	packets, bad := 0, 0
	for n := range talks {
		if every := talks / len(profiles); n%every == 0 && n/every < len(profiles) {
			p := profiles[n/every]
			p.apply(t, tab)
			t.Logf("from %d: %v", n, p.sysctls)
		}
		v6 := r.IntN(4) == 0
		proto := protos[n%len(protos)]
		if v6 && proto == packet.ProtoICMP {
			proto = packet.ProtoICMPv6
		}
		c := newTalk(r, proto, uint16(1024+n%60000), v6)
		history := ""
		for step := range steps {
			d, b := c.frame(step)
			packets++
			history += "\n  " + c.describe
			want, got := k.send(d, b), own(t, tab, d, b)
			diff := differ(k.get(c.tu), ours(tab, c.tu, testSecond))
			if got != want || diff != "" {
				t.Errorf("talk %d step %d: %v, the kernel says %v %s after%s", n, step, got, want, diff, history)
				bad++
				break
			}
		}
		k.remove(c.tu)
		tab.Delete(nil, testSecond)
		if bad > 5 {
			t.FailNow()
		}
	}
	t.Logf("%d conversations, %d packets", talks, packets)
}

// setting is one way to track, of both trackers.
type setting struct {
	sysctls map[string]string
	config  func(*ZoneConfig)
}

func settings() []setting {
	return []setting{
		{map[string]string{"nf_conntrack_tcp_loose": "1"}, func(*ZoneConfig) {}},
		{map[string]string{"nf_conntrack_tcp_loose": "0"}, func(c *ZoneConfig) { c.NoLoose = true }},
		{
			map[string]string{"nf_conntrack_tcp_loose": "1", "nf_conntrack_tcp_be_liberal": "1"},
			func(c *ZoneConfig) { c.Liberal = true },
		},
		{
			map[string]string{"nf_conntrack_tcp_be_liberal": "0", "nf_conntrack_tcp_ignore_invalid_rst": "1", "nf_conntrack_checksum": "0"},
			func(c *ZoneConfig) { c.IgnoreInvalidRST, c.NoChecksum = true, true },
		},
	}
}

func (s setting) apply(t *testing.T, tab *Table) {
	t.Helper()
	for name, value := range s.sysctls {
		kt.Sysctl(t, "netfilter/"+name+"="+value)
	}
	c := Kernel()
	s.config(&c)
	tab.SetZone(0, c)
}

// TestStreamsAgainstTheKernel waits until a conversation is older than two seconds.
func TestStreamsAgainstTheKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("waits two seconds")
	}
	k := newKernelTracker(t)
	tab := table(t, Config{Entries: 64})
	tu := Tuple{Src: ends(false)[0], Dst: ends(false)[1], SrcPort: 9, DstPort: 53, Proto: packet.ProtoUDP}
	back, _ := tu.Inverse()
	frames := [2][]byte{}
	for d, of := range []Tuple{tu, back} {
		frames[d] = pt.Build(pt.EtherHdr{}, ipHdr(of), pt.UDPHdr{SrcPort: of.SrcPort, DstPort: of.DstPort})
	}
	now := uint32(testSecond)
	for step, wait := range []int{0, 0, 1, 2, 0} {
		time.Sleep(time.Duration(wait*1050) * time.Millisecond)
		now += uint32(wait)
		d := Dir(step % 2)
		want := k.send(d, frames[d])
		if v := look(t, tab, frames[d], now); v.State != want {
			t.Errorf("step %d: %v, the kernel says %v", step, v.State, want)
		}
		if diff := differ(k.get(tu), ours(tab, tu, now)); diff != "" {
			t.Errorf("step %d: %s", step, diff)
		}
	}
}
