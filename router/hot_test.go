// SPDX-License-Identifier: Apache-2.0

package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
)

// A packet to a known neighbour, or to the namespace itself, costs no memory.
func TestInputAllocatesNothing(t *testing.T) {
	several := "route add 10.9.0.0/16 nexthop via 10.2.0.2 nexthop via 10.2.0.3\nrule add dport 99 lookup 7"
	for name, tc := range map[string]struct {
		conf  string
		frame []byte
		want  Action
	}{
		"IPv4":            {"", from4("10.2.0.2", 64, 100), Forward},
		"IPv6":            {"", from6("fd02::2", 64, 100), Forward},
		"next hops":       {several, from4("10.9.0.1", 64, 100), Forward},
		"own address":     {"", from4("10.2.0.1", 64, 100), Deliver},
		"dropped":         {"route add blackhole 10.9.0.0/16", from4("10.9.0.1", 64, 100), Drop},
		"martian":         {"", from4("127.0.0.1", 64, 100), Drop},
		"no error, rates": {"", from4("8.8.8.8", 64, 100, src4("10.1.0.1")), Drop},
	} {
		l := newLab(t, tc.conf, func(l *lab) { strict(l); l.spec.Devices[0].ClampMSS = 1 })
		p := Packet{Frame: pt.Frame(tc.frame), Device: 1, Port: 100}
		if n := testing.AllocsPerRun(100, func() {
			if v := l.r.Input(&p, l.sink); v.Action != tc.want {
				t.Fatal(name, words(v))
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// quiet is a Sink of no interest that workers share.
type quiet struct{ recorder }

func (*quiet) Emit(uint16, packet.Vnet, packet.Label, []byte) {}
func (*quiet) Local(uint16, packet.Vnet, []byte)              {}

// Workers judge, errors are sent and next hops die while the configuration changes.
func TestManyAtOnce(t *testing.T) {
	l := newLab(t, "route add 10.9.0.0/16 nexthop via 10.2.0.2 nexthop via 10.2.0.50", func(l *lab) { l.conf.ICMP.Off = false })
	frames := [][]byte{
		from4("10.2.0.2", 64, 100), from4("10.9.0.1", 64, 100), from4("10.2.0.77", 64, 100), from4("8.8.8.8", 64, 100),
		from4("10.2.0.2", 64, 1500, mayFragment), from6("fd02::2", 1, 100), from4("10.1.0.1", 64, 100),
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(worker)))
			for n := range 2000 {
				p := Packet{Frame: pt.Frame(frames[rnd.IntN(len(frames))]), Device: 1, Port: uint16(100 + worker), Now: 1, Nanos: int64(n) * 1e6}
				if v := l.r.Input(&p, &quiet{}); v.Action == Forward && v.Device != 2 {
					t.Error(words(v))
				}
			}
		})
	}
	wg.Go(func() {
		for now := range 50 {
			l.r.Prepare(&l.conf).Commit()
			l.r.Tick(1, int64(now)*1e9, &loose{})
		}
	})
	wg.Wait()
}

// loose is a Sink that loses all.
type loose struct{ quiet }

// Whatever a container sends, the router says something sensible and leaves the
// frame alone.
func FuzzInput(f *testing.F) {
	for _, s := range steps() {
		f.Add(s.frame, uint8(0), uint16(0))
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		f.Add(pt.Random(rnd), uint8(1), uint16(1000))
	}
	l := newLab(f, "route add default via 10.2.0.3\nroute add 10.9.0.0/16 nexthop via 10.2.0.2 nexthop via 10.2.0.50\n"+
		"route add 2001:db8::/32 dev b\nroute add 10.8.0.0/16 dev l mtu 600\nrule add dport 53 lookup 7")
	f.Fuzz(func(t *testing.T, b []byte, gso uint8, size uint16) {
		if len(b) > packet.MaxFrame {
			return
		}
		fr := pt.Frame(b)
		fr.Vnet.GSOType, fr.Vnet.GSOSize = gso, size
		if fr.View.Parse(fr.Bytes()) != packet.FaultNone || !fr.View.Is(packet.ViewIP) || fr.View.Tags > 0 || !fr.CheckVnet() {
			return
		}
		for _, p := range []Packet{{Device: 1, Port: 100}, {Device: 2, Local: true}, {Device: 3}} {
			p.Frame = fr
			before := slices.Clone(fr.Bytes())
			v := l.r.Input(&p, l.sink)
			if !slices.Equal(before, fr.Bytes()) {
				t.Fatal("the frame was changed")
			}
			if v.Action == Drop && v.Reason == 0 || v.Action == Forward && v.MTU < fr.L3Len() {
				t.Fatalf("%+v", v)
			}
			l.sink.take()
		}
		l.r.TooBig(&Packet{Frame: fr, Device: 1, Port: 100}, 600, l.sink)
		l.r.Neigh().Flush(0, netip.Addr{})
		l.sink.take()
		l.sink.asked, l.sink.devs = nil, nil
	})
}

// benchLab has that many routes to one of two gateways, and some destinations.
func benchLab(b *testing.B, v6 bool, routes int) (*lab, []*packet.Frame) {
	b.Helper()
	rnd := rand.New(rand.NewPCG(41, uint64(routes)))
	seen := map[netip.Prefix]bool{}
	var dsts []netip.Addr
	l := newLab(b, "", func(l *lab) {
		for len(seen) < routes {
			p, via := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(16 + rnd.IntN(64)), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}), 12+rnd.IntN(21)).Masked(), pt.IP("10.2.0.3")
			if v6 {
				a := [16]byte{0x20, 1, 0xd, 0xb8, byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())}
				p, via = netip.PrefixFrom(netip.AddrFrom16(a), 40+rnd.IntN(25)).Masked(), pt.IP("fd02::3")
			}
			if seen[p] {
				continue
			}
			seen[p] = true
			dsts = append(dsts, p.Addr())
			l.spec.Routes = append(l.spec.Routes, routing.Route{Prefix: p, NextHops: []routing.NextHop{{Via: via}}})
		}
	})
	rnd.Shuffle(len(dsts), func(i, j int) { dsts[i], dsts[j] = dsts[j], dsts[i] })
	var frames []*packet.Frame
	for _, d := range dsts[:min(len(dsts), 64)] {
		if v6 {
			frames = append(frames, pt.Frame(from6(d.String(), 64, 100)))
		} else {
			frames = append(frames, pt.Frame(from4(d.String(), 64, 100)))
		}
	}
	return l, frames
}

// BenchmarkInput is the whole decision for a packet that no flow cache knows: flat
// from 10 to 100,000 routes, but for the caches of the CPU.
func BenchmarkInput(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		for _, routes := range []int{10, 1000, 100000} {
			b.Run(fmt.Sprintf("IPv%d/%d", 4+2*b2i(v6), routes), func(b *testing.B) {
				l, frames := benchLab(b, v6, routes)
				b.ReportAllocs()
				p := Packet{Device: 1, Port: 100}
				for i := 0; b.Loop(); i++ {
					p.Frame = frames[i%len(frames)]
					if v := l.r.Input(&p, l.sink); v.Action != Forward {
						b.Fatal(words(v))
					}
				}
			})
		}
	}
}

// BenchmarkBuildSet is a namespace of 100,000 routes made from nothing.
func BenchmarkBuildSet(b *testing.B) {
	l, _ := benchLab(b, false, 100000)
	for b.Loop() {
		if _, err := BuildSet(&l.spec); err != nil {
			b.Fatal(err)
		}
	}
}
