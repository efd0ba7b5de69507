// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sluice/packet"
	"sluice/packet/packettest"
)

func TestFanHasRightChecksums(t *testing.T) {
	p := packettest.Packet{SrcPort: 1, DstPort: 1, Seq: 1000, Ack: 1000, Flags: packettest.ACK}
	syn := packettest.Packet{SrcPort: 1, DstPort: 1, Seq: 1000, Flags: packettest.SYN}
	for _, raw := range [][]byte{packettest.UDP4(p), packettest.TCP4(p), packettest.TCP4(syn)} {
		for range 1000 {
			b := append([]byte(nil), raw...)
			src, dst := uint16(rand.Uint32()), uint16(rand.Uint32())
			setPorts(b, raw, src, dst)
			f := packettest.Frame(b)
			if !packet.VerifyL4(f.Bytes(), &f.View) || f.View.SrcPort != src || f.View.DstPort != dst {
				t.Fatalf("%s", packettest.Describe(b))
			}
		}
	}
}

func TestFlowsOfAFanDiffer(t *testing.T) {
	for _, turned := range []bool{false, true} {
		s := spreading{ports: 100, turned: turned}
		seen := map[[2]uint16]bool{}
		var most [2]int
		for n := range 1000 {
			src, dst := s.of(n)
			seen[[2]uint16{src, dst}] = true
			most[0], most[1] = max(most[0], int(src)-1023), max(most[1], int(dst)-1023)
		}
		if turned {
			most[0], most[1] = most[1], most[0]
		}
		if len(seen) != 1000 || most != [2]int{100, 10} {
			t.Errorf("turned %v: %d flows of %v ports", turned, len(seen), most)
		}
	}
}

func TestMeterNotesSilence(t *testing.T) {
	at := time.Unix(1000, 0)
	m := metering{above: 10 * time.Millisecond, sources: map[netip.AddrPort]bool{}}
	from := netip.MustParseAddrPort("192.0.2.1:5")
	m.hear(at, 7, from)
	m.hear(at.Add(5*time.Millisecond), 8, from)
	m.hear(at.Add(105*time.Millisecond), 18, from)
	r := m.report()
	if r.Count != 3 || r.Lost != 9 || len(r.Sources) != 1 || len(r.Silences) != 1 || r.Silences[0].MS != 100 ||
		r.Silences[0].From != at.Add(5*time.Millisecond).UnixNano() {
		t.Errorf("%+v", r)
	}
}
