// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"testing"

	"golang.org/x/sys/unix"

	"sluice/bridge"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// datagram is one from container i to container j.
func datagram(i, j int, payload string) []byte {
	return pt.UDP4(pt.Packet{
		SrcMAC: mac(i), DstMAC: mac(j), Src: addr4(i), Dst: addr4(j),
		SrcPort: 1000, DstPort: 2000, Payload: []byte(payload),
	})
}

// segment is TCP from container i to container j with so many bytes.
func segment(i, j, n int) []byte {
	return pt.TCP4(pt.Packet{
		SrcMAC: mac(i), DstMAC: mac(j), Src: addr4(i), Dst: addr4(j), Payload: pt.Bytes(n),
	})
}

// whole is a segment that must not be fragmented, as kernels send them.
func whole(i, j, n int) []byte {
	return pt.Build(
		pt.EtherHdr{Src: mac(i), Dst: mac(j)}, pt.IPv4Hdr{Src: addr4(i), Dst: addr4(j), DF: true},
		pt.TCPHdr{SrcPort: 40000, DstPort: 80, Flags: pt.ACK}, pt.Bytes(n))
}

func TestKnownStationGetsTheFrameAlone(t *testing.T) {
	l := stillLab(t, blue(3))
	for n, want := range []trace.PortStats{
		{RxPackets: 1, RxBytes: 47, RxTurns: 1, FlowMisses: 1},
		{RxPackets: 2, RxBytes: 94, RxTurns: 2, FlowMisses: 1, FlowHits: 1},
	} {
		l.send(1, datagram(1, 2, "hello"))
		pt.Check(t, l.got(2), pt.EtherSrc(mac(1)), pt.IPv4(), pt.UDP(), pt.Data("hello"))
		l.silent(1, 2, 3)
		if got := l.stats(1); got.RxPackets != want.RxPackets || got.RxBytes != want.RxBytes ||
			got.RxTurns != want.RxTurns || got.FlowMisses != want.FlowMisses || got.FlowHits != want.FlowHits {
			t.Errorf("frame %d: port 1 has %+v, want %+v", n, got, want)
		}
	}
	if got := l.stats(2); got.TxPackets != 2 || got.TxBytes != 94 || got.TxCalls != 2 {
		t.Errorf("port 2 has %+v, want 2 frames of 94 bytes in 2 calls", got)
	}
}

func TestBroadcastReachesAllOthers(t *testing.T) {
	l := stillLab(t, blue(3))
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: packet.Broadcast(), Dst: pt.IP("255.255.255.255"), Payload: []byte("all")}))
	for _, at := range []uint16{2, 3} {
		pt.Check(t, l.got(at), pt.EtherDst(packet.Broadcast()), pt.Data("all"))
	}
	l.silent(1, 2, 3)
	if got := l.stats(1); got.Flooded != 1 {
		t.Errorf("flooded %d, want 1", got.Flooded)
	}
	if got := l.stats(hostPort); got.TxPackets != 1 {
		t.Errorf("the host stack got %d frames, want 1", got.TxPackets)
	}
}

// TestFloodOfManyFramesKeepsTheirOrder makes more records than there are, so
// that lists are sent early.
func TestFloodOfManyFramesKeepsTheirOrder(t *testing.T) {
	const ports, frames = 300, slice // what such a frame costs is enough for a turn of a slice
	s := manyPorts(ports)
	l := stillLab(t, s)
	for i := range frames {
		b := pt.UDP4(pt.Packet{SrcMAC: s.Ports[0].MAC, DstMAC: packet.Broadcast(), SrcPort: uint16(i + 1)})
		l.wires[s.Ports[0].Index].Inject(packet.Vnet{}, b)
	}
	l.round()
	if got := l.stats(s.Ports[0].Index); got.RxTurns != 1 || (ports-1)*frames <= maxRecords {
		t.Fatalf("%d turns, want 1 with more than %d records", got.RxTurns, maxRecords)
	}
	for _, p := range s.Ports[1:] {
		for i := range frames {
			pt.Check(t, l.got(p.Index), pt.UDP(pt.SrcPort(uint16(i+1))))
		}
		l.silent(p.Index)
	}
	l.silent(s.Ports[0].Index)
}

func TestUnknownStationIsFloodedThenLearned(t *testing.T) {
	l := stillLab(t, blue(3))
	guest := pt.HW("02:00:00:00:09:09") // a second MAC behind port 3
	to := pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: guest})
	l.send(1, to)
	if l.got(2) == nil || l.got(3) == nil {
		t.Fatal("a frame to a station that nobody knows was not flooded")
	}
	l.send(3, pt.UDP4(pt.Packet{SrcMAC: guest, DstMAC: mac(1)}))
	if l.got(1) == nil {
		t.Fatal("no answer")
	}
	l.send(1, to)
	if l.got(3) == nil {
		t.Fatal("a learned station got nothing")
	}
	l.silent(1, 2, 3)
	if got := l.stats(3).Learned; got != 1 {
		t.Errorf("learned %d, want 1", got)
	}
}

func TestMovedStationTakesItsFlowAlong(t *testing.T) {
	l := stillLab(t, blue(3))
	guest := pt.HW("02:00:00:00:09:09")
	hello := pt.UDP4(pt.Packet{SrcMAC: guest, DstMAC: packet.Broadcast()})
	to := pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: guest})
	for _, at := range []uint16{3, 2, 3} {
		l.send(at, hello)
		for _, p := range []uint16{1, 2, 3} {
			for l.got(p) != nil {
			}
		}
		for range 3 { // the second and the third are hits
			l.send(1, to)
			if l.got(at) == nil {
				t.Fatalf("the station has moved to port %d, its frames have not", at)
			}
		}
		l.silent(1, 2, 3)
	}
	if got := l.stats(1); got.FlowHits != 6 {
		t.Errorf("%d hits, want 6", got.FlowHits)
	}
}

// TestContainerCannotTakeAnothersAddress: static entries do not move.
func TestContainerCannotTakeAnothersAddress(t *testing.T) {
	l := stillLab(t, blue(3))
	l.send(3, datagram(2, 1, "spoofed"))
	if l.got(1) == nil {
		t.Error("a frame with a foreign source is forwarded, as by a Linux bridge")
	}
	l.send(1, datagram(1, 2, "to the real one"))
	pt.Check(t, l.got(2), pt.Data("to the real one"))
	l.silent(1, 2, 3)
}

func TestDropsHaveAReason(t *testing.T) {
	tag := func(vids ...uint16) (tags []pt.VLANTag) {
		for _, v := range vids {
			tags = append(tags, pt.VLANTag{TCI: v})
		}
		return tags
	}
	gso := func(f *packet.Frame, size uint16) *packet.Frame {
		f.Vnet.GSOSize = size
		return f
	}
	for name, tc := range map[string]struct {
		frame *packet.Frame
		want  trace.Reason
	}{
		"short":                  {pt.Frame([]byte{1, 2, 3}), trace.MalformedEthernet},
		"three tags":             {pt.Frame(pt.UDP4(pt.Packet{Tags: tag(1, 2, 3)})), trace.MalformedVLAN},
		"ARP cut off":            {pt.Frame(pt.ARPRequest(pt.Packet{})[:30]), trace.MalformedARP},
		"IPv4 cut off":           {pt.Frame(datagram(1, 2, "")[:20]), trace.MalformedIPv4},
		"IPv6 cut off":           {pt.Frame(pt.UDP6(pt.Packet{})[:30]), trace.MalformedIPv6},
		"TCP cut off":            {pt.Frame(pt.Build(pt.EtherHdr{}, pt.IPv4Hdr{Proto: new(uint8(6))}, pt.Payload("xy"))), trace.MalformedL4},
		"segments of no size":    {gso(pt.GSO(segment(1, 2, 3000), 1000), 0), trace.BadOffload},
		"group source":           {pt.Frame(pt.UDP4(pt.Packet{SrcMAC: pt.HW("03:00:00:00:00:01")})), trace.SourceMulticast},
		"gateway's source":       {pt.Frame(pt.UDP4(pt.Packet{SrcMAC: gatewayMAC()})), trace.SourceOwnMAC},
		"spanning tree":          {pt.Frame(pt.UDP4(pt.Packet{DstMAC: pt.HW("01:80:c2:00:00:00")})), trace.ReservedMulticast},
		"to itself":              {pt.Frame(datagram(1, 1, "")), trace.SamePort},
		"too long":               {pt.Frame(whole(1, 2, 1500)), trace.TooBig},
		"segments too long":      {pt.GSO(whole(1, 2, 4000), 1480), trace.TooBig},
		"too long and not IP":    {pt.Frame(pt.Build(pt.EtherHdr{Dst: mac(2), Type: new(uint16(0x88b5))}, pt.Bytes(1501))), trace.TooBig},
		"to the host, not IP":    {pt.Frame(pt.Build(pt.EtherHdr{Dst: gatewayMAC(), Type: new(uint16(0x88b5))}, pt.Bytes(50))), trace.LocalProtocol},
		"to the host, wrong sum": {wrongSum(pt.UDP4(pt.Packet{DstMAC: gatewayMAC(), Dst: gateway4()})), trace.LocalChecksum},
		"to the host, wrong header sum": {
			pt.Frame(pt.Build(pt.EtherHdr{Dst: gatewayMAC()}, pt.IPv4Hdr{Dst: gateway4(), Checksum: new(uint16(1))}, pt.UDPHdr{})),
			trace.IPChecksum,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := stillLab(t, blue(2))
			l.sendFrame(1, tc.frame)
			if tc.want == trace.TooBig && tc.frame.View.Is(packet.ViewIP) {
				pt.Check(t, l.got(1), pt.EtherSrc(gatewayMAC()), pt.IPv4(pt.Src(gateway4())), pt.ICMP(pt.ICMPType(3, 4)))
			}
			l.silent(1, 2)
			at := uint16(1)
			if tc.want == trace.LocalProtocol || tc.want == trace.LocalChecksum {
				at = hostPort
			}
			if got := l.stats(at).Drops; len(got) != 1 || got[tc.want.String()] != 1 {
				t.Errorf("port %d has drops %v, want one for %v", at, got, tc.want)
			}
		})
	}
}

// wrongSum breaks the last byte of a datagram.
func wrongSum(b []byte) *packet.Frame {
	b[len(b)-1] ^= 1
	return pt.Frame(b)
}

func TestLonelyContainerHasNobodyToFloodTo(t *testing.T) {
	l := stillLab(t, blue(1))
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: mac(9)}))
	if got := l.drops(1, trace.NoPort); got != 1 {
		t.Errorf("%d drops, want 1", got)
	}
}

func TestFullContainerLosesItsOwnFramesOnly(t *testing.T) {
	l := stillLab(t, blue(3))
	for range 40_000 {
		l.wires[1].Inject(packet.Vnet{}, segment(1, 2, 1400))
		l.wires[3].Inject(packet.Vnet{}, segment(3, 1, 10))
		l.round()
		if l.got(1) == nil {
			t.Fatal("another container lost a frame")
		}
		if l.drops(2, trace.TxFull) > 0 {
			return
		}
	}
	t.Error("a container that does not read never got full")
}

func TestOffloadFramePassesUnchanged(t *testing.T) {
	l := stillLab(t, blue(2))
	f := pt.GSO(segment(1, 2, 60_000), 1448)
	l.sendFrame(1, f)
	got := l.got(2)
	if got == nil || got.Vnet != f.Vnet {
		t.Fatalf("got %+v, want the same metadata %+v", got, f.Vnet)
	}
	if string(got.Bytes()) != string(f.Bytes()) {
		t.Error("the frame was changed")
	}
	n, bytes := f.Segments()
	if s := l.stats(1); s.RxGSO != 1 || s.RxPackets != uint64(n) || s.RxBytes != uint64(bytes) {
		t.Errorf("port 1 counted %+v, want %d packets of %d bytes in one offload frame", s, n, bytes)
	}
	if s := l.stats(2); s.TxGSO != 1 || s.TxPackets != uint64(n) || s.TxBytes != uint64(bytes) {
		t.Errorf("port 2 counted %+v, want %d packets of %d bytes in one offload frame", s, n, bytes)
	}
}

func TestPortWithoutOffloadGetsSegmentsAndSums(t *testing.T) {
	s := blue(3)
	s.Ports[1].Offload = false
	l := stillLab(t, s)
	big := pt.GSO(segment(1, 2, 60_000), 1448)
	for _, f := range []*packet.Frame{big, pt.Partial(segment(1, 2, 100)), pt.Frame(segment(1, 2, 100))} {
		want, _ := f.Segments()
		payload := append([]byte(nil), f.Bytes()[54:]...)
		l.sendFrame(1, f)
		var data []byte
		for i := range want {
			got := l.got(2)
			if got == nil {
				t.Fatalf("segment %d of %d is missing", i, want)
			}
			if got.Vnet.NeedsCsum() || got.Vnet.IsGSO() || got.L3Len() > 1500 {
				t.Fatalf("segment %d has %+v and %d bytes of IP", i, got.Vnet, got.L3Len())
			}
			pt.Check(t, got, pt.IPv4(), pt.TCP())
			data = append(data, got.Bytes()[54:]...)
		}
		if string(data) != string(payload) {
			t.Error("the segments together are not the frame")
		}
	}
	l.silent(1, 2, 3)
}

// TestFloodToBothKinds: the copy for the port with offload stays whole though the
// other one is cut from the same buffer.
func TestFloodToBothKinds(t *testing.T) {
	s := blue(3)
	s.Ports[1].Offload = false
	l := stillLab(t, s)
	b := pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: packet.Broadcast(), Payload: pt.Bytes(4000)})
	f := pt.GSO(b, 1000)
	l.sendFrame(1, f)
	for i := range 4 {
		pt.Check(t, l.got(2), pt.UDP(), pt.Data(pt.Bytes(4000)[1000*i:1000*(i+1)]))
	}
	got := l.got(3)
	if got == nil || got.Vnet != f.Vnet || string(got.Bytes()) != string(f.Bytes()) {
		t.Error("the port with offload did not get the frame as it was")
	}
	l.silent(1, 2, 3)
}

func TestVLANsAreApart(t *testing.T) {
	l := stillLab(t, blue(3))
	guest := pt.HW("02:00:00:00:09:09")
	red := []pt.VLANTag{{TCI: 7}}
	l.send(2, pt.UDP4(pt.Packet{SrcMAC: guest, DstMAC: mac(1), Tags: red})) // mac(1) is not known in VLAN 7
	pt.Check(t, l.got(1), pt.VLAN(7))
	pt.Check(t, l.got(3), pt.VLAN(7))
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: guest, Tags: red}))
	pt.Check(t, l.got(2), pt.VLAN(7))
	l.silent(1, 2, 3)
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: guest}))
	if l.got(2) == nil || l.got(3) == nil {
		t.Error("a station of VLAN 7 is known without a tag")
	}
}

func TestAgedStationIsForgotten(t *testing.T) {
	s := blue(2)
	s.Bridge.AgeingSeconds = 10
	l := stillLab(t, s)
	guest := pt.HW("02:00:00:00:09:09")
	l.send(2, pt.UDP4(pt.Packet{SrcMAC: guest, DstMAC: mac(1)}))
	for _, tc := range []struct {
		after bridge.Tick
		want  int
	}{{9, 1}, {10, 0}} {
		l.n.view.Load().spaces["blue"].networks[0].bridge.Expire(tc.after)
		if got := l.n.Namespace("blue").FDBStats("blue").Entries; got != tc.want {
			t.Errorf("after %d s: %d stations, want %d", tc.after, got, tc.want)
		}
	}
}

// TestTwoNamespacesShareNothing though they use the same addresses and MACs.
func TestTwoNamespacesShareNothing(t *testing.T) {
	red := blue(2)
	red.Name, red.Bridge.Index = "red", 200
	red.Ports[0].Index, red.Ports[1].Index = 11, 12
	l := stillLab(t, blue(2), red)
	l.send(1, datagram(1, 2, "blue"))
	l.send(11, datagram(1, 2, "red"))
	l.send(1, pt.UDP4(pt.Packet{SrcMAC: mac(1), DstMAC: packet.Broadcast(), Payload: []byte("blue too")}))
	pt.Check(t, l.got(2), pt.Data("blue"))
	pt.Check(t, l.got(2), pt.Data("blue too"))
	pt.Check(t, l.got(12), pt.Data("red"))
	l.silent(1, 2, 11, 12)
}

func TestHitPathAllocatesNothing(t *testing.T) {
	s := blue(3)
	s.Ports[2].Offload = false
	for name, frame := range map[string]*packet.Frame{
		"small UDP":            pt.Frame(datagram(1, 2, "hello")),
		"full TCP":             pt.Frame(segment(1, 2, 1400)),
		"partial sum":          pt.Partial(segment(1, 2, 1400)),
		"64 KB offload":        pt.GSO(segment(1, 2, 64_000), 1448),
		"64 KB to no offload":  pt.GSO(segment(1, 3, 64_000), 1448),
		"sum for no offload":   pt.Partial(segment(1, 3, 1400)),
		"IPv6":                 pt.Frame(pt.UDP6(pt.Packet{SrcMAC: mac(1), DstMAC: mac(2)})),
		"broadcast, slow path": pt.Frame(pt.UDP6(pt.Packet{SrcMAC: mac(1), DstMAC: mac(9)})),
	} {
		t.Run(name, func(t *testing.T) {
			n, err := build(Options{Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			far, fds := socketPairs(t, 3)
			if err := n.Apply(&Snapshot{Namespaces: []NamespaceSpec{alone(s)}}, fds); err != nil {
				t.Fatal(err)
			}
			w, msg, buf := n.workers[0], frame.Wire(), make([]byte, packet.BufLen)
			turn := func() {
				if _, err := unix.Write(far[0], msg); err != nil {
					t.Fatal(err)
				}
				w.round(w.poll.now())
				drain(far[1], buf)
				drain(far[2], buf)
			}
			turn() // the first one takes the slow path
			if got := testing.AllocsPerRun(200, turn); got != 0 {
				t.Errorf("%v allocations for a turn, want 0", got)
			}
			if st := n.opts.Counters.Port(1).Snapshot(); st.RxTurns < 200 || st.Dropped() != 0 {
				t.Errorf("the frames did not pass: %+v", st)
			}
		})
	}
}

// socketPairs makes n wires: their far ends, and the near ones as ports 1 to n.
func socketPairs(t testing.TB, n int) (far []int, near map[uint16]int) {
	t.Helper()
	near = make(map[uint16]int)
	for i := range n {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range p {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<22); err != nil {
				t.Fatal(err)
			}
		}
		far, near[uint16(i+1)] = append(far, p[0]), p[1]
		t.Cleanup(func() { _ = unix.Close(p[0]) })
	}
	return far, near
}

// pairs takes the ends of socket pairs in place of the lab's wires, and returns the far
// ones by port.
func (l *lab) pairs() map[uint16]int {
	l.t.Helper()
	all, near := make(map[uint16]int), make(map[uint16]int)
	for i := range l.wires {
		far, one := socketPairs(l.t, 1)
		all[i], near[i] = far[0], one[1]
	}
	if err := l.n.Apply(&l.snap, near); err != nil {
		l.t.Fatal(err)
	}
	return all
}

func drain(fd int, buf []byte) {
	for {
		if _, err := unix.Read(fd, buf); err != nil {
			return
		}
	}
}
