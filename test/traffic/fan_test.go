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
	for _, raw := range [][]byte{packettest.UDP4(p), packettest.TCP4(p)} {
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
