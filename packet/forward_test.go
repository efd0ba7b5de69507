// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// forwarded are frames of all that a router forwards, by the TTL that they have.
func forwarded(ttl uint8) map[string]*packet.Frame {
	p := pt.Packet{TTL: ttl, Payload: pt.Bytes(3000), Flags: pt.SYN}
	tagged := pt.Packet{TTL: ttl, Payload: pt.Bytes(3000), Tags: []pt.VLANTag{{TCI: 1}, {TPID: packet.EtherTypeQinQ, TCI: 2}}}
	return map[string]*packet.Frame{
		"ipv4":        pt.Frame(pt.TCP4(p)),
		"ipv6":        pt.Frame(pt.TCP6(p)),
		"partial":     pt.Partial(pt.UDP4(p)),
		"gso":         pt.GSO(pt.TCP4(p), 1000),
		"gso in ipv6": pt.GSO(pt.UDP6(p), 1000),
		"tagged":      pt.Frame(pt.TCP4(tagged)),
		"tagged ipv6": pt.Frame(pt.TCP6(tagged)),
		"tagged gso":  pt.GSO(pt.TCP4(tagged), 1000),
		"options":     pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{TTL: ttl, Options: pt.Bytes(12)}, pt.UDPHdr{}, pt.Bytes(9))),
	}
}

func TestDecrementTTLChangesNothingElse(t *testing.T) {
	for _, ttl := range []uint8{2, 3, 128, 255} {
		want := forwarded(ttl - 1)
		for name, f := range forwarded(ttl) {
			if got := f.HopLimit(); got != ttl {
				t.Errorf("%s: HopLimit %d, want %d", name, got, ttl)
			}
			f.DecrementTTL()
			if !bytes.Equal(f.Bytes(), want[name].Bytes()) || f.Vnet != want[name].Vnet {
				t.Errorf("%s with %d: %x\nwant %x", name, ttl, f.Bytes()[:80], want[name].Bytes()[:80])
			}
			checkReparse(t, f)
		}
	}
}

// TestDecrementTTLKeepsAWrongSumWrong: nobody may get a checksum repaired on the
// way. All sums are tried: 0 and 0xffff are one number to the receiver.
func TestDecrementTTLKeepsAWrongSumWrong(t *testing.T) {
	f := pt.Frame(pt.UDP4(pt.Packet{TTL: 1}))
	for _, ttl := range []uint8{1, 2, 255} {
		h := f.Bytes()[f.View.L3:f.View.L4]
		for sum := range 1 << 16 {
			h[8], h[10], h[11] = ttl, byte(sum>>8), byte(sum)
			was := packet.VerifyL3(f.Bytes(), &f.View)
			f.DecrementTTL()
			if got := packet.VerifyL3(f.Bytes(), &f.View); got != was {
				t.Fatalf("sum %#x at ttl %d: was right: %v, is: %v", sum, ttl, was, got)
			}
		}
	}
}

func TestHopLimitOfOtherProtocols(t *testing.T) {
	if got := pt.Frame(pt.ARPRequest(pt.Packet{})).HopLimit(); got != 0 {
		t.Errorf("ARP has a hop limit of %d", got)
	}
}

func TestSetMACs(t *testing.T) {
	dst, src := pt.HW("02:00:00:00:01:01"), pt.HW("02:00:00:00:01:02")
	for name, f := range forwarded(9) {
		before := bytes.Clone(f.Bytes())
		f.SetMACs(dst, src)
		if f.DstMAC() != dst || f.SrcMAC() != src || !bytes.Equal(f.Bytes()[12:], before[12:]) {
			t.Errorf("%s: %x", name, f.Bytes()[:20])
		}
	}
}

// TestClampMSSAgreesWithTwin: the twin builds the frame with the option as it
// must become. Options stand at odd places too.
func TestClampMSSAgreesWithTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 41))
	for range 3000 {
		mss, limit := uint16(r.Uint32()), uint16(r.Uint32())
		flags := []uint8{pt.SYN, pt.SYN | pt.ACK, pt.ACK, pt.SYN | pt.ECE | pt.CWR}[r.IntN(4)]
		before, after := synOptions(r, mss, min(mss, limit))
		if flags&pt.SYN == 0 {
			after = before
		}
		build := func(options []byte) []byte {
			layers := []pt.Layer{pt.EtherHdr{}}
			for range r.IntN(3) {
				layers = append(layers, pt.VLANTag{TCI: 5})
			}
			if len(options)%3 == 0 {
				layers = append(layers, pt.IPv6Hdr{}, pt.ExtHdr{Proto: packet.ProtoDestOpts})
			} else {
				layers = append(layers, pt.IPv4Hdr{})
			}
			return pt.Build(append(layers, pt.TCPHdr{Flags: flags, Options: options}, pt.Bytes(100))...)
		}
		seed := r.Uint64()
		frame := func(options []byte, kind int) *packet.Frame {
			r = rand.New(rand.NewPCG(seed, 1)) // the same tags for both
			switch b := build(options); kind {
			case 0:
				return pt.Partial(b)
			case 1:
				return pt.GSO(b, 40)
			default:
				return pt.Frame(b)
			}
		}
		kind := r.IntN(3)
		got, want := frame(before, kind), frame(after, kind)
		if syn := got.ClampMSS(limit); syn != (flags&pt.SYN != 0) || syn != packet.IsSYN(got) {
			t.Fatalf("a SYN: %v", syn)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) || got.Vnet != want.Vnet {
			t.Fatalf("options % x, limit %d\ngot  %x\nwant %x", before, limit, got.Bytes(), want.Bytes())
		}
		pt.Check(t, got, pt.TCP())
	}
}

// synOptions is an option list with an MSS among others, before and after.
func synOptions(r *rand.Rand, mss, clamped uint16) (before, after []byte) {
	for range r.IntN(5) {
		before = append(before, [][]byte{{1}, {3, 3, 7}, {4, 2}, {254, 5, 2, 4, 5}}[r.IntN(4)]...)
	}
	after = append(after, before...)
	before = append(before, 2, 4, byte(mss>>8), byte(mss))
	after = append(after, 2, 4, byte(clamped>>8), byte(clamped))
	tail := pt.Bytes(r.IntN(8))[:]
	return append(append(before, 0), tail...), append(append(after, 0), tail...)
}

func TestClampMSSLeavesWhatContradictsItself(t *testing.T) {
	for name, options := range map[string][]byte{
		"end before it":      {0, 0, 0, 0, 2, 4, 9, 9},
		"length zero":        {3, 0, 2, 4, 9, 9, 0, 0},
		"length one":         {3, 1, 2, 4, 9, 9, 0, 0},
		"jumps over the end": {3, 40, 2, 4, 9, 9, 0, 0},
		"another length":     {2, 3, 9, 2, 3, 9, 1, 1},
		"cut off":            {1, 1, 1, 1, 1, 2, 4, 9},
		"none":               {},
	} {
		b := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{Flags: pt.SYN, Options: options}, pt.Payload{2, 4, 9, 9})
		f := pt.Frame(b)
		if !f.ClampMSS(100) || !bytes.Equal(f.Bytes(), b) {
			t.Errorf("%s: %x, want %x", name, f.Bytes(), b)
		}
	}
	if pt.Frame(pt.UDP4(pt.Packet{})).ClampMSS(1) || pt.Frame(pt.ARPRequest(pt.Packet{})).ClampMSS(1) {
		t.Error("a SYN of another protocol")
	}
}

func TestForwardingDoesNotAllocate(t *testing.T) {
	frames := forwarded(255)
	syn := pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{}, pt.TCPHdr{Flags: pt.SYN, Options: []byte{2, 4, 200, 200}})
	frames["syn"] = pt.Frame(syn)
	for name, f := range frames {
		before := bytes.Clone(f.Bytes())
		if n := testing.AllocsPerRun(100, func() {
			copy(f.Bytes(), before)
			if f.HopLimit() > 1 {
				f.DecrementTTL()
			}
			f.SetMACs(packet.MAC{2}, packet.MAC{4})
			f.ClampMSS(1000)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkForward(b *testing.B) {
	f := pt.Frame(pt.TCP4(pt.Packet{Payload: pt.Bytes(1400)}))
	b.ReportAllocs()
	for b.Loop() {
		if f.HopLimit() <= 1 {
			f.Bytes()[f.View.L3+8] = 255
		}
		f.DecrementTTL()
		f.SetMACs(packet.MAC{2}, packet.MAC{4})
		f.ClampMSS(1000)
	}
}

// FuzzForward: whatever the bytes are, the rewriting keeps the parse, the
// lengths, and right checksums right.
func FuzzForward(f *testing.F) {
	r := rand.New(rand.NewPCG(43, 43))
	for range 50 {
		f.Add(pt.Random(r), uint16(r.Uint32()))
	}
	f.Fuzz(func(t *testing.T, b []byte, limit uint16) {
		if len(b) > packet.MaxFrame {
			t.Skip("longer than a buffer")
		}
		frame := pt.Frame(b)
		if (&packet.View{}).Parse(b) != packet.FaultNone {
			return
		}
		l3, l4 := packet.VerifyL3(b, &frame.View), packet.VerifyL4(b, &frame.View)
		view := frame.View
		if hops := frame.HopLimit(); hops > 1 {
			frame.DecrementTTL()
			if frame.HopLimit() != hops-1 {
				t.Fatal("not one less")
			}
		}
		frame.ClampMSS(limit)
		frame.SetMACs(packet.MAC{2}, packet.MAC{4})
		if frame.View != view || packet.VerifyL3(frame.Bytes(), &view) != l3 || packet.VerifyL4(frame.Bytes(), &view) != l4 {
			t.Fatalf("%x\nbecame %x", b, frame.Bytes())
		}
		checkReparse(t, frame)
	})
}
