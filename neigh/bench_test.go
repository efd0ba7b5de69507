// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"net/netip"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// crowded has a thousand dynamic neighbours and as many permanent ones.
func crowded() (*Table, []netip.Addr) {
	var static []Static
	var addrs []netip.Addr
	for n := range 1000 {
		a := netip.AddrFrom4([4]byte{10, 8, byte(n >> 8), byte(n)})
		static = append(static, Static{dev, a, macA(n), false})
	}
	x := newWorld(Limits{}, static...)
	for n := range 1000 {
		a := netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(n >> 8), 15: byte(n)})
		put(x, a, Reachable, macA(n), 0)
		addrs = append(addrs, a, static[n].Addr)
	}
	return x, addrs
}

func TestHitsDoNotAllocate(t *testing.T) {
	x, addrs := crowded()
	n, now := 0, Tick(0)
	if got := testing.AllocsPerRun(1000, func() {
		n++
		now++
		_, r, ok := x.Lookup(dev, addrs[n%len(addrs)], now)
		if !ok || !r.Valid() {
			t.Fatal("not there")
		}
		r.Touch(now + 1)
		x.State(dev, addrs[n%len(addrs)])
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
	put(x, ip4(1), Stale, macA(1), 0)
	if got := testing.AllocsPerRun(1, func() { x.Lookup(dev, ip4(1), 0) }); got != 0 {
		t.Errorf("%v allocations to wake one", got)
	}
}

func BenchmarkLookup(b *testing.B) {
	x, addrs := crowded()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if _, _, ok := x.Lookup(dev, addrs[n%len(addrs)], 1); !ok {
			b.Fatal("not there")
		}
	}
}

func BenchmarkRef(b *testing.B) {
	x, addrs := crowded()
	_, r, _ := x.Lookup(dev, addrs[0], 1)
	for b.Loop() {
		if !r.Valid() {
			b.Fatal("not valid")
		}
		r.Touch(1)
	}
}

// BenchmarkScan is what each packet of a container costs that scans a subnet and
// has used up its share; BenchmarkFlood, of one that floods an address that
// doesn't answer.
func BenchmarkScan(b *testing.B) {
	x := newWorld(Limits{})
	h := ping(1, 1)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		x.Resolve(dev, netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}), h, 0, &tape{})
	}
}

// BenchmarkFlood is described at BenchmarkScan.
func BenchmarkFlood(b *testing.B) {
	x := newWorld(Limits{})
	h := ping(1, 1)
	b.ReportAllocs()
	for b.Loop() {
		x.Resolve(dev, ip4(1), h, 0, &tape{})
	}
}

// BenchmarkTick is a second's work of a full table.
func BenchmarkTick(b *testing.B) {
	x, _ := crowded()
	now, out := Tick(0), &tape{}
	for b.Loop() {
		x.Tick(now, out, out.fail)
	}
}

// Whatever is heard, the table keeps its bounds and its books, no entry gets a MAC
// that would multiply or return packets, and a permanent one stays.
func FuzzInput(f *testing.F) {
	for n, m := range messages() {
		f.Add(m.frame(n), uint16(n), uint8(n))
	}
	for n, p := range []string{"tagged", "cut"} {
		b := pt.ARPRequest(pt.Packet{SrcMAC: macA(1), Src: ip4(1), Dst: own4, Tags: []pt.VLANTag{{TCI: 5}}})
		f.Add(b[:len(b)-len(p)*n], uint16(1), uint8(3))
	}
	x := newWorld(Limits{Entries: 12, Collect: 4, LearnedPerPort: 4, UnresolvedPerPort: 4}, Static{dev, ip4(9), macA(9), false})
	now, buf := Tick(0), make([]byte, packet.BufLen)
	f.Fuzz(func(t *testing.T, b []byte, port uint16, pass uint8) {
		if len(b) > packet.MaxFrame {
			return
		}
		var fr packet.Frame
		fr.SetBuf(buf)
		copy(buf[packet.Headroom:], b)
		fr.Reset(packet.Headroom, len(b))
		if fr.View.Parse(fr.Bytes()) != packet.FaultNone {
			return
		}
		fr.InPort = port
		out := &tape{}
		now += Tick(pass % 8)
		x.Input(dev, &fr, own, now, out)
		if a := fr.View.SrcAddr(b); a.IsValid() { // answer what asks, and others
			x.Resolve(dev, a, Held{Port: port, Frame: b}, now, out)
			x.Lookup(dev, a, now)
		}
		x.Tick(now, out, out.fail)
		checkBooks(t, x)
		for _, e := range x.Entries(nil, now) {
			if e.MAC.IsMulticast() || e.MAC == ownMAC || e.State.Usable() == e.MAC.IsZero() || own(e.Addr) && e.State.Usable() {
				t.Errorf("%+v", e)
			}
		}
		if mac, _, ok := x.Lookup(dev, ip4(9), now); !ok || mac != macA(9) {
			t.Errorf("the permanent one is at %v", mac)
		}
	})
}

// Whatever order packets and answers come in, and whatever is asked for, what goes
// in comes out once: sent, given up, pushed out or refused.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 250, 251, 252, 16, 17, 18, 255, 254, 254, 254, 254})
	f.Add([]byte{0x10, 0x11, 0xff, 0x12, 0xfe, 0xfe, 0xfe, 0xfe, 0x10})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		x := newWorld(Limits{Entries: 6, UnresolvedPerPort: 3, QueueBytes: 3000, QueueBytesPerPort: 4000})
		now, out := Tick(0), &tape{}
		in, refused := 0, 0
		for _, b := range script {
			n, port := int(b&7), uint16(b>>3&3)
			switch b >> 5 {
			case 7:
				now++
				x.Tick(now, out, out.fail)
			case 6:
				x.Input(dev, parsed(arp(packet.ARPOpReply, n, macA(n), own4, ownMAC, ownMAC), port), own, now, out)
			case 5:
				x.Flush(dev, ip4(n))
			default:
				in++
				r := x.Resolve(dev, ip4(n), Held{Port: port, Frame: pt.Ping4(pt.Packet{ID: uint16(in), Payload: pt.Bytes(int(b>>5) * 300)})}, now, out)
				refused += len(r.Pushed)
				if r.Reason != 0 {
					refused++
				}
			}
		}
		x.Prepare(Config{}).Commit()
		x.Tick(now, out, out.fail)
		out1 := 0
		for _, w := range words(out.sent) {
			if len(w) < 24 { // "to MAC"
				out1++
			}
		}
		for _, l := range out.failed {
			out1 += len(l.Held)
		}
		if in != out1+refused {
			t.Errorf("%d in, %d out, %d refused", in, out1, refused)
		}
		checkBooks(t, x)
	})
}
