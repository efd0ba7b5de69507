// SPDX-License-Identifier: Apache-2.0

package router

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/neigh"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/routing"
	kt "sluice/test/kerneltest"
)

// rateRivals are a kernel and a Router with Linux' default rates.
type rateRivals struct {
	t     *testing.T
	k     *kernel
	r     *Router
	devs  []Device
	begin time.Time
}

func newRateRivals(t *testing.T) *rateRivals {
	t.Helper()
	v := &rateRivals{t: t, begin: time.Now()}
	for n := range 2 {
		d := Device{Name: fmt.Sprintf("slt-r%d", n), Index: uint16(10 + n), MAC: packet.MAC{2, 0, 0, 0, 1, byte(n)}, MTU: 1500}
		for _, p := range []string{"10.64.%d.1/20", "fd64:%d::1/64", "fe80::%d1/64"} {
			d.Addrs = append(d.Addrs, netip.MustParsePrefix(fmt.Sprintf(p, 16*n)))
		}
		v.devs = append(v.devs, d)
	}
	v.k = newKernel(t, v.devs)
	kt.Sysctl(v.t, "ipv6/icmp/ratelimit=100")
	set, err := BuildSet(&Spec{Devices: v.devs})
	if err != nil {
		t.Fatal(err)
	}
	if diff := settled(v.k, shown(set)); diff != "" {
		t.Fatal(diff)
	}
	var static []neigh.Static
	for _, a := range []string{"10.64.0.9", "fd64::9", "fe80::9"} {
		static = append(static, neigh.Static{Device: 10, Addr: pt.IP(a), MAC: packet.MAC{2, 0, 0, 0, 0, 9}})
	}
	kt.IP(v.t, "link set slt-r0 arp off", "link set slt-r1 arp off")
	for _, l := range []string{"route add 20.0.0.0/8 via 10.64.0.9", "route add 2001:db8::/32 via fe80::9 dev slt-r0", "route add unreachable 21.0.0.0/8"} {
		kt.IP(v.t, l)
		c, err := (*routing.Names)(nil).Parse(l)
		if err == nil {
			set, err = set.Apply([]routing.Change{c})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	v.r = New(Limits{PortRate: 1 << 20, Neigh: neigh.Limits{Entries: 1 << 14, UnresolvedPerPort: 1 << 14}})
	v.r.Prepare(&Config{Devices: v.devs, Set: set, Neighbours: static}).Commit()
	return v
}

// errors gives both n packets, one every so often, and returns how many errors each
// sends.
func (v *rateRivals) errors(n int, pause time.Duration, make func(i int) []byte) (theirs, ours int) {
	v.t.Helper()
	sink := &recorder{r: v.r}
	for i := range n {
		b := make(i)
		v.k.send(0, b)
		for _, f := range v.k.ends[0].Heard() {
			theirs += b2i(isError(f))
		}
		v.r.Input(&Packet{Frame: pt.Frame(b), Device: 10, Port: 1, Now: 1, Nanos: int64(time.Since(v.begin))}, sink)
		sink.answer()
		time.Sleep(pause)
	}
	for _, e := range sink.said {
		ours += b2i(errorInWords(e))
	}
	return theirs, ours
}

func isError(b []byte) bool {
	f := pt.Frame(b)
	kind := f.View.SrcPort >> 8
	switch f.View.Proto {
	case packet.ProtoICMP:
		return kind == 3 || kind == 5 || kind == 11
	case packet.ProtoICMPv6:
		return kind > 0 && kind < 5 || kind == packet.NDRedirect
	}
	return false
}

func errorInWords(s string) bool {
	for _, kind := range []int{1, 2, 3, 4, 5, 11, 137} {
		if strings.Contains(s, fmt.Sprintf("icmp type %d ", kind)) {
			return true
		}
	}
	return false
}

// Errors come as often as the kernel's: by kind, to one address, after pauses.
func TestSameRatesAsTheKernel(t *testing.T) {
	v := newRateRivals(t)
	mac := v.devs[0].MAC
	times := byte(0) // that it was tried: each time by another source
	make4 := func(src, dst string, ttl uint8, size int) func(int) []byte {
		return func(int) []byte {
			from := pt.IP(src).As4()
			from[2] += times
			return pt.Build(pt.EtherHdr{Dst: mac}, pt.IPv4Hdr{Src: netip.AddrFrom4(from), Dst: pt.IP(dst), TTL: ttl, DF: true}, pt.UDPHdr{}, pt.Bytes(size))
		}
	}
	make6 := func(src, dst string, ttl uint8) func(int) []byte {
		return func(int) []byte {
			from, to := pt.IP(src).As16(), pt.IP(dst).As16() // redirects are limited by destination, too
			from[10] += times
			to[10] += times
			return pt.Build(pt.EtherHdr{Dst: mac}, pt.IPv6Hdr{Src: netip.AddrFrom16(from), Dst: netip.AddrFrom16(to), HopLimit: ttl}, pt.UDPHdr{})
		}
	}
	for _, tc := range []struct {
		name  string
		n     int
		pause time.Duration
		make  func(int) []byte
		slack int // the kernel's clock has steps of 4 ms
	}{
		{"time exceeded at once", 20, 0, make4("10.64.1.1", "20.0.0.1", 1, 10), 0},
		{"time exceeded, slowly", 12, 300 * time.Millisecond, make4("10.64.1.2", "20.0.0.1", 1, 10), 1},
		{"no route", 20, 0, make4("10.64.1.3", "8.8.8.8", 64, 10), 0},
		{"unreachable, slowly", 8, 400 * time.Millisecond, make4("10.64.1.4", "21.0.0.1", 64, 10), 1},
		{"redirect at once", 20, 0, make4("10.64.1.5", "20.0.0.1", 64, 10), 0},
		{"redirect, slowly", 24, 25 * time.Millisecond, make4("10.64.1.6", "20.0.0.1", 64, 10), 1},
		{"IPv6 time exceeded at once", 20, 0, make6("fd64::1:1", "2001:db8::1", 1), 0},
		{"IPv6 time exceeded, slowly", 14, 100 * time.Millisecond, make6("fd64::1:2", "2001:db8::1", 1), 1},
		{"IPv6 time exceeded, fast", 60, 20 * time.Millisecond, make6("fd64::1:5", "2001:db8::1", 1), 2},
		{"IPv6 no route", 20, 0, make6("fd64::1:3", "2001:db9::1", 64), 0},
		{"IPv6 redirect at once", 20, 0, make6("fd64::1:4", "2001:db8::77", 64), 0},
	} {
		// On a busy machine the one may be asked at another time than the other, but not each
		// time.
		theirs, ours := 0, 0
		for times = range byte(5) {
			theirs, ours = v.errors(tc.n, tc.pause, tc.make)
			t.Logf("%s: %d of %d", tc.name, theirs, tc.n)
			time.Sleep(60 * time.Millisecond) // the credit of all is full again
			if theirs > 0 && ours >= theirs-tc.slack && ours <= theirs+tc.slack {
				break
			}
		}
		if theirs == 0 || ours < theirs-tc.slack || ours > theirs+tc.slack {
			t.Errorf("%s: the kernel sends %d, the router %d", tc.name, theirs, ours)
		}
	}
}

// All errors of a namespace together are limited, at random; each has cost 1 on
// average.
func TestSameTotalRateAsTheKernel(t *testing.T) {
	v := newRateRivals(t)
	begin := time.Now()
	theirs, ours := v.errors(400, 0, func(i int) []byte {
		return pt.Build(pt.EtherHdr{Dst: v.devs[0].MAC}, pt.IPv4Hdr{Src: netip.AddrFrom4([4]byte{10, 64, 2, byte(i)}), Dst: pt.IP("20.0.0.1"), TTL: 1}, pt.UDPHdr{})
	})
	t.Logf("of 400: the kernel sends %d, the router %d", theirs, ours)
	most := 150 + int(time.Since(begin).Milliseconds()) // 1000 a second beside the burst
	if ours < theirs-60 || ours > theirs+60 || ours > most {
		t.Errorf("of 400 the kernel sends %d, the router %d, want %d at most", theirs, ours, most)
	}
}
