// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"math"
	"slices"
	"strings"
	"testing"

	pt "sluice/packet/packettest"
)

// sent are the seconds from begin to end in which there is an advert.
func sent(t *testing.T, s *Server, begin, end uint32) []uint32 {
	t.Helper()
	var at []uint32
	for now := begin; now != end; now++ {
		if len(s.Tick(nil, now)) > 0 {
			at = append(at, now)
		}
	}
	return at
}

// TestIntervals is RFC 4861 §6.2.4: three soon after one another, then at random.
func TestIntervals(t *testing.T) {
	for _, begin := range []uint32{1, math.MaxUint32 - 100, math.MaxUint32 / 2} {
		s := newServer(t, Config{Advert: &Advert{MinInterval: 100, MaxInterval: 200}})
		at := sent(t, s, begin, begin+100_000)
		var gaps []uint32
		for i := 1; i < len(at); i++ {
			gaps = append(gaps, at[i]-at[i-1])
		}
		if at[0] != begin || !slices.Equal(gaps[:3], []uint32{16, 16, 16}) {
			t.Errorf("first at %d, then after %v", at[0], gaps[:3])
		}
		gaps = gaps[3:]
		if lo, hi := slices.Min(gaps), slices.Max(gaps); lo < 100 || lo > 103 || hi > 200 || hi < 197 {
			t.Errorf("intervals from %d to %d", lo, hi)
		}
		sum := uint32(0)
		for _, g := range gaps {
			sum += g
		}
		if mean := float64(sum) / float64(len(gaps)); mean < 145 || mean > 155 {
			t.Errorf("intervals of %v in the mean", mean)
		}
	}
}

// TestSeeds: another seed gives other times, the same one the same.
func TestSeeds(t *testing.T) {
	times := func(seed uint64) []uint32 {
		s := New(seed)
		apply(t, s, testLink(), Config{Advert: &Advert{}})
		return sent(t, s, 1, 20_000)
	}
	if !slices.Equal(times(1), times(1)) || slices.Equal(times(1), times(2)) {
		t.Error("the seed does not decide")
	}
}

// TestAskedByNobody is RFC 4861 §6.2.6 for solicitations without an address: not
// more than one multicast advert in three seconds, and the interval begins anew.
func TestAskedByNobody(t *testing.T) {
	s := newServer(t, Config{Advert: &Advert{MinInterval: 1000, MaxInterval: 1400}})
	sent(t, s, 1, 5000)
	b, _ := s.Input(nil, pt.Frame(solicit("::")), testClient(), 5000)
	readAdvert(t, b, "ff02::1")
	for now := uint32(5000); now < 5003; now++ {
		for range 100 {
			if b, v := s.Input(nil, pt.Frame(solicit("::")), testClient(), now); len(b) != 0 || v != Done {
				t.Fatalf("second %d: another advert, verdict %d", now, v)
			}
		}
		if now > 5000 && len(s.Tick(nil, now)) != 0 {
			t.Fatalf("second %d: an advert by the clock", now)
		}
	}
	if at := sent(t, s, 5003, 6404); len(at) != 2 || at[0] != 5003 || at[1] < 6003 {
		t.Errorf("adverts at %v, want 5003 and one a whole interval later", at)
	}
}

// TestAskedByAddress: each gets its answer, and nobody's time changes.
func TestAskedByAddress(t *testing.T) {
	s, quiet := newServer(t, Config{Advert: &Advert{}}), newServer(t, Config{Advert: &Advert{}})
	for range 100 {
		b, _ := s.Input(nil, pt.Frame(solicit(clientLocal)), testClient(), 1)
		readAdvert(t, b, clientLocal)
	}
	if got, want := sent(t, s, 1, 5000), sent(t, quiet, 1, 5000); !slices.Equal(got, want) {
		t.Errorf("adverts at %v, without solicitations at %v", got, want)
	}
}

// TestChanges: what changes is said three times soon, and what does not isn't.
func TestChanges(t *testing.T) {
	s := newServer(t, Config{Advert: fullAdvert()})
	sent(t, s, 1, 1000)
	same := Config{Advert: fullAdvert(), DHCP4: full4()}
	apply(t, s, testLink(), same)
	if at := sent(t, s, 1000, 1003); len(at) > 1 {
		t.Errorf("nothing new, and adverts at %v", at)
	}

	less := fullAdvert()
	less.Routes, less.DNS = nil, addrs("fd44::54")
	less.Prefixes[0].Autonomous = false
	apply(t, s, testLink(), Config{Advert: less})
	at := sent(t, s, 2000, 2001)
	if len(at) != 1 {
		t.Fatalf("adverts at %v", at)
	}
	_, options := readAdvert(t, s.Tick(nil, 2016), "ff02::1")
	got := strings.Join(options[2:], "\n")
	want := strings.Join([]string{
		"030440c0000000000000000000000000fd440000000000000000000000000000", // with its old flags
		"180230180000000020010db800010000",
		"1903000000000000fd440000000000000000000000000053",
		"0304408000000e100000070800000000fd440000000000000000000000000000",
		"1903000000000708fd440000000000000000000000000054",
		"1f03000000000708" + "04626c7565076578616d706c65000000",
	}, "\n")
	if got != want {
		t.Errorf("options\n%s, want\n%s", got, want)
	}
	if b := s.Tick(nil, 2032); len(b) == 0 {
		t.Error("no third one")
	}
	b := s.Tick(nil, 2048)
	if _, options := readAdvert(t, b, "ff02::1"); len(options) != 5 {
		t.Errorf("what is gone is still said: %v", options)
	}
}

// TestEnd is RFC 4861 §6.2.5: at most three, not too soon after one another.
func TestEnd(t *testing.T) {
	s := newServer(t, Config{Advert: fullAdvert()})
	s.Tick(nil, 99)
	final := s.Final(nil)
	apply(t, s, testLink(), Config{})
	if at := sent(t, s, 100, 101); len(at) != 0 {
		t.Error("too soon after the last")
	}
	b := s.Tick(nil, 102)
	header, options := readAdvert(t, b, "ff02::1")
	if header != "3f40"+"0000"+"00004e20000001f4" {
		t.Errorf("header %s", header)
	}
	if got, want := strings.Join(options[2:], "\n"), "180230180000000020010db800010000\n"+
		"1903000000000000fd440000000000000000000000000053\n"+"1f0300000000000004626c7565076578616d706c65000000"; got != want {
		t.Errorf("options\n%s, want\n%s", got, want)
	}
	if string(b) != string(final) {
		t.Error("Final is another one")
	}
	if at := sent(t, s, 103, 1000); !slices.Equal(at, []uint32{105, 108}) {
		t.Errorf("after the first at 102: %v", at)
	}
	apply(t, s, testLink(), Config{Advert: fullAdvert()})
	if at := sent(t, s, 2000, 2017); !slices.Equal(at, []uint32{2000, 2016}) {
		t.Errorf("on again: %v", at)
	}
}
