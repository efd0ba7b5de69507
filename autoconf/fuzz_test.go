// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func everything() Config { return Config{Advert: fullAdvert(), DHCP4: full4(), DHCP6: full6()} }

// questions are frames that are answered.
func questions() map[string][]byte {
	return map[string][]byte{
		"discover": ask4{typ: discover, options: []byte{optParameters, 3, 1, 3, 6, optMaxSize, 2, 5, 0xc0, optClientID, 2, 1, 2}}.bytes(),
		"request":  ask4{typ: request, requested: "10.44.0.20", server: "10.44.0.1"}.bytes(),
		"nak":      ask4{typ: request, requested: "10.44.0.21"}.bytes(),
		"overload": ask4{options: []byte{optOverload, 1, 3}, file: []byte{optType, 1, discover, optEnd}, sname: []byte{12, 1, 'a', optEnd}}.bytes(),
		"solicit":  ask6{typ: solicit6, options: [][]byte{clientID, na(7, "fd44::99"), pd(8), o6(opt6Request, opt6DNS, opt6Search)}}.bytes(),
		"renew":    ask6{typ: renew6, options: [][]byte{clientID, serverID, na(7, "fd44::20", "fd44::21")}}.bytes(),
		"inform":   ask6{typ: information6}.bytes(),
		"confirm":  ask6{typ: confirm6, options: [][]byte{clientID, na(7, "fd44::20")}}.bytes(),
		"rs":       solicit(clientLocal, 1, 1, 2, 0, 0, 0, 0, 0x11),
		"rs all":   solicit("::"),
	}
}

// checkAnswer: an answer is a whole frame with right checksums, goes back to who
// asked or to all nodes, and stays behind what was there.
func checkAnswer(t *testing.T, before, got []byte, f *packet.Frame, v Verdict) {
	t.Helper()
	if !bytes.HasPrefix(got, before) {
		t.Fatal("what was before the answer changed")
	}
	got = got[len(before):]
	if len(got) == 0 {
		return
	}
	g := pt.Frame(got)
	all := packet.MAC{0x33, 0x33, 0, 0, 0, 1}
	if v != Done || len(got) > 1500+packet.EthernetLen || g.View.End != len(got) || !packet.VerifyL3(got, &g.View) || !packet.VerifyL4(got, &g.View) ||
		g.SrcMAC() != mac(gatewayMAC) || g.DstMAC() != f.SrcMAC() && g.DstMAC() != all {
		t.Fatalf("verdict %d, answer %s\n% x", v, pt.Describe(got), got)
	}
}

// FuzzInput gives whole frames to all services.
func FuzzInput(f *testing.F) {
	for _, b := range questions() {
		f.Add(b)
	}
	s := newServer(f, everything())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > packet.MaxFrame {
			return
		}
		fr := pt.NewFrame()
		copy(fr.Buf()[packet.Headroom:], b)
		fr.Received(packet.VnetLen + len(b))
		if fr.View.Parse(fr.Bytes()) != packet.FaultNone {
			return
		}
		before := []byte("before")
		got, v := s.Input(before, fr, testClient(), 5)
		checkAnswer(t, before, got, fr, v)
		if !bytes.Equal(fr.Bytes(), b) {
			t.Fatal("the question changed")
		}
	})
}

// FuzzDHCP4 gives messages with right headers and checksums.
func FuzzDHCP4(f *testing.F) {
	for _, b := range questions() {
		if fr := pt.Frame(b); fr.View.DstPort == serverPort4 {
			f.Add(b[headers4:])
		}
	}
	s := newServer(f, everything())
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) > 9000 {
			return
		}
		b := pt.Build(pt.EtherHdr{Src: mac(clientMAC), Dst: packet.Broadcast()},
			pt.IPv4Hdr{Src: addrs("0.0.0.0")[0], Dst: limitedBroadcast()},
			pt.UDPHdr{SrcPort: clientPort4, DstPort: serverPort4}, pt.Payload(m))
		fr := pt.Frame(b)
		got, v := s.Input(nil, fr, testClient(), 5)
		checkAnswer(t, nil, got, fr, v)
		if len(got) > 0 {
			read4Fuzzed(t, got[headers4:], m)
		}
	})
}

// read4Fuzzed: whatever was asked, the answer is one of RFC 2131 to this question.
func read4Fuzzed(t *testing.T, m, question []byte) {
	t.Helper()
	if !bytes.Equal(m[xidAt:xidAt+4], question[xidAt:xidAt+4]) || !bytes.Equal(m[chaddrAt:snameAt], question[chaddrAt:snameAt]) {
		t.Fatal("the answer is to another question")
	}
	a := told4{options: map[uint8][]byte{}}
	a.area(t, m[optionsAt:])
	if len(a.options[optType]) != 1 || len(a.options[optServer]) != 4 {
		t.Fatalf("options %v", a.options)
	}
	if y := m[yiaddrAt : yiaddrAt+4]; !bytes.Equal(y, []byte{0, 0, 0, 0}) && !bytes.Equal(y, []byte{10, 44, 0, 20}) {
		t.Fatalf("gives %v", y)
	}
}

// FuzzDHCP6 gives messages with right headers and checksums.
func FuzzDHCP6(f *testing.F) {
	for _, b := range questions() {
		if fr := pt.Frame(b); fr.View.DstPort == serverPort6 {
			f.Add(b[headers6+packet.UDPLen:], true)
		}
	}
	s := newServer(f, everything())
	f.Fuzz(func(t *testing.T, m []byte, multicast bool) {
		if len(m) > 9000 {
			return
		}
		to := allServers()
		if !multicast {
			to = addrs(gatewayLocal)[0]
		}
		fr := pt.Frame(pt.Build(pt.EtherHdr{Src: mac(clientMAC), Dst: mac(gatewayMAC)},
			pt.IPv6Hdr{Src: addrs(clientLocal)[0], Dst: to},
			pt.UDPHdr{SrcPort: clientPort6, DstPort: serverPort6}, pt.Payload(m)))
		got, v := s.Input(nil, fr, testClient(), 5)
		checkAnswer(t, nil, got, fr, v)
		if len(got) > 0 {
			a := got[headers6+packet.UDPLen:]
			if !bytes.Equal(a[1:4], m[1:4]) {
				t.Fatal("the answer is to another question")
			}
			words6(t, a[4:])
		}
	})
}

// TestHostileFrames: what packettest can think of, and accidents of questions.
func TestHostileFrames(t *testing.T) {
	s, r := newServer(t, everything()), rand.New(rand.NewPCG(1, 2))
	var good [][]byte
	for _, b := range questions() {
		good = append(good, b)
	}
	for i := range 5_000 {
		b := pt.Random(r)
		if i%2 == 0 {
			b = pt.Mutate(r, good[r.IntN(len(good))])
		}
		f := pt.Frame(b)
		f.Vnet = pt.RandomVnet(r, len(b))
		if f.View.Parse(f.Bytes()) != packet.FaultNone || !f.CheckVnet() {
			continue
		}
		got, v := s.Input(nil, f, testClient(), uint32(i))
		checkAnswer(t, nil, got, f, v)
	}
}

// TestAnswersDoNotAllocate: a container can't make work for the collector.
func TestAnswersDoNotAllocate(t *testing.T) {
	s, c, buf := newServer(t, everything()), testClient(), make([]byte, 0, 2048)
	for name, b := range questions() {
		f := pt.Frame(b)
		now := uint32(0)
		if n := testing.AllocsPerRun(100, func() {
			now += 10
			if got, v := s.Input(buf, f, c, now); v != Done || len(got) == 0 {
				t.Fatalf("%s: verdict %d", name, v)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestManyWorkers: questions, ticks and changes at the same time.
func TestManyWorkers(t *testing.T) {
	s := newServer(t, everything())
	var wg sync.WaitGroup
	for range 4 {
		var frames []*packet.Frame
		for _, b := range questions() {
			frames = append(frames, pt.Frame(b))
		}
		wg.Go(func() {
			for now := range uint32(200) {
				for _, f := range frames {
					if _, v := s.Input(nil, f, testClient(), now); v == Malformed || v == Refused {
						t.Errorf("verdict %d", v)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for now := range uint32(1000) {
			s.Tick(nil, now)
			s.Stats()
			c := everything()
			if now%3 == 0 {
				c.Advert = nil
			}
			apply(t, s, testLink(), c)
		}
	})
	wg.Wait()
}
