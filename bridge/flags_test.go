// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/bridge/guard"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// flagged has ports 1 to 4 and the local port; the flags are those of ports 1, 2
// and so on.
func flagged(flags ...PortFlags) *Bridge {
	all := members(4)
	for i, fl := range flags {
		all[i+1].Flags = fl
	}
	b := New(Options{})
	b.SetPorts(all)
	b.SetStatic([]StaticEntry{{MAC: ownMAC, Port: localPort, Own: true}, {MAC: station(9), Port: 3}})
	return b
}

// sent is what becomes of a frame from a port.
func sent(b *Bridge, in uint16, dst, src packet.MAC) []string {
	v := b.Input(in, newFramer().frame(dst, src, 0), 1)
	return outputsOf(&v)
}

func TestFlags(t *testing.T) {
	type try struct {
		in       uint16
		dst, src packet.MAC
		want     []string
	}
	tests := map[string]struct {
		flags []PortFlags
		tries []try
	}{
		// bridge_port_isolation: ping and flooding between two isolated ports,
		// and each to a third.
		"isolation": {[]PortFlags{Isolated, Isolated}, []try{
			{1, broadcast, station(1), []string{"100", "3", "4"}},
			{2, broadcast, station(2), []string{"100", "3", "4"}},
			{2, station(1), station(2), []string{"isolated"}},
			{3, station(1), station(3), []string{"1"}},
			{2, station(3), station(2), []string{"3"}},
			{3, station(77), station(3), []string{"1", "2", "4"}},
			{2, station(77), station(2), []string{"3", "4"}},
			{2, ownMAC, station(2), []string{"100"}},
			{localPort, broadcast, ownMAC, []string{"1", "2", "3", "4"}},
		}},
		"all isolated": {[]PortFlags{Isolated, Isolated, Isolated, Isolated}, []try{
			{1, station(77), station(1), []string{"isolated"}},
			{1, broadcast, station(1), []string{"100"}},
		}},
		"hairpin": {[]PortFlags{Hairpin}, []try{
			{1, broadcast, station(1), []string{"1", "100", "2", "3", "4"}},
			{1, station(1), station(5), []string{"1"}},
			{1, station(77), station(1), []string{"1", "2", "3", "4"}},
			{2, station(77), station(2), []string{"1", "3", "4"}},
			{2, station(2), station(2), []string{"same_port"}},
		}},
		"isolated hairpin": {[]PortFlags{Hairpin | Isolated}, []try{
			{1, broadcast, station(1), []string{"100", "2", "3", "4"}},
			{1, station(1), station(5), []string{"isolated"}},
		}},
		"no unicast flood": {[]PortFlags{NoUnicastFlood, NoUnicastFlood}, []try{
			{3, station(77), station(3), []string{"4"}},
			{3, broadcast, station(3), []string{"1", "100", "2", "4"}},
			{localPort, station(77), ownMAC, []string{"3", "4"}},
		}},
		"no multicast flood": {[]PortFlags{NoMulticastFlood, NoBroadcastFlood}, []try{
			{3, group, station(3), []string{"100", "2", "4"}},
			{3, broadcast, station(3), []string{"1", "100", "4"}},
			{localPort, group, ownMAC, []string{"1", "2", "3", "4"}},
			{localPort, broadcast, ownMAC, []string{"1", "2", "3", "4"}},
		}},
		"no flood at all": {[]PortFlags{NoUnicastFlood, NoUnicastFlood, NoUnicastFlood, NoUnicastFlood}, []try{
			{1, station(77), station(1), []string{"flood_off"}},
		}},
		"no learning": {[]PortFlags{NoLearning}, []try{
			{1, broadcast, station(1), []string{"100", "2", "3", "4"}},
			{2, station(1), station(2), []string{"1", "3", "4"}},
			{1, station(2), station(1), []string{"2"}},
			{1, broadcast, station(2), []string{"100", "2", "3", "4"}}, // does not move it
			{3, station(2), station(3), []string{"2"}},
		}},
		// bridge_locked_port: only what the control path has put there.
		"locked": {[]PortFlags{Locked, 0, Locked}, []try{
			{1, broadcast, station(1), []string{"locked"}},
			{2, broadcast, station(2), []string{"1", "100", "3", "4"}},
			{1, broadcast, station(2), []string{"locked"}}, // known elsewhere
			{3, broadcast, station(9), []string{"1", "100", "2", "4"}},
			{1, broadcast, station(9), []string{"locked"}},
			{2, station(9), station(2), []string{"3"}},
			{1, broadcast, ownMAC, []string{"source_own_mac"}},
		}},
		// bridge_sticky_fdb: a static entry does not roam.
		"sticky": {nil, []try{
			{1, broadcast, station(9), []string{"100", "2", "3", "4"}},
			{2, station(9), station(2), []string{"3"}},
		}},
		"BPDU filter": {[]PortFlags{FilterBPDU}, []try{
			{1, packet.MAC{1, 0x80, 0xc2}, station(1), []string{"bpdu"}},
			{1, packet.MAC{1, 0x80, 0xc2, 0, 0, 8}, station(1), []string{"bpdu"}},
			{1, packet.MAC{1, 0, 0x0c, 0xcc, 0xcc, 0xcd}, station(1), []string{"bpdu"}},
			{1, reserved, station(1), []string{"reserved_multicast"}},
			{2, packet.MAC{1, 0x80, 0xc2}, station(2), []string{"reserved_multicast"}},
			{2, packet.MAC{1, 0, 0x0c, 0xcc, 0xcc, 0xcd}, station(2), []string{"1", "100", "3", "4"}},
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := flagged(tt.flags...)
			for i, try := range tt.tries {
				if diff := cmp.Diff(try.want, sent(b, try.in, try.dst, try.src)); diff != "" {
					t.Errorf("%d: port %d, %v -> %v (-want +got):\n%s", i, try.in, try.src, try.dst, diff)
				}
			}
		})
	}
}

// A verdict about a port without learning may be remembered until the control
// path sets something, and its touches keep nobody in the table.
func TestRefWithoutLearning(t *testing.T) {
	changes := map[string]func(*Bridge){
		"ports":  func(b *Bridge) { b.SetPorts(members(4)) },
		"static": func(b *Bridge) { b.SetStatic(nil) },
	}
	for name, change := range changes {
		b := flagged(NoLearning)
		hear(t, b, 2, station(2), 0)
		v := b.Input(1, newFramer().frame(station(2), station(1), 0), 0)
		if v.Action != Forward || !v.Src.Valid() || !v.Dst.Valid() || v.Learned {
			t.Fatalf("%+v", v)
		}
		v.Src.Touch(50)
		b.Flush(0)
		if !v.Src.Valid() || v.Dst.Valid() {
			t.Error("a flush is not about the source")
		}
		change(b)
		if v.Src.Valid() {
			t.Errorf("%s: still valid", name)
		}
		if again := hear(t, b, 3, station(5), 0); !again.Learned {
			t.Error("port 3 does not learn")
		}
	}
}

// The entry by which a station passes a locked port ends its verdicts with it.
func TestRefOnALockedPort(t *testing.T) {
	for _, fl := range []PortFlags{Locked, Locked | NoLearning} {
		b := flagged()
		hear(t, b, 1, station(1), 0)
		hear(t, b, 2, station(2), 0)
		all := members(4)
		all[1].Flags = fl
		b.SetPorts(all)
		v := b.Input(1, newFramer().frame(station(2), station(1), 0), 5)
		if v.Action != Forward || !v.Src.Valid() {
			t.Fatalf("%v", outputsOf(&v))
		}
		b.Flush(1)
		if v.Src.Valid() {
			t.Error("valid without its entry")
		}
		if got := sent(b, 1, station(2), station(1)); got[0] != "locked" {
			t.Errorf("got %v", got)
		}
	}
}

func TestMirror(t *testing.T) {
	b := New(Options{})
	b.SetPorts([]PortConfig{
		{Index: 1, MirrorIn: 4, MirrorOut: 4, Flags: FilterBPDU}, {Index: 2}, {Index: 3, MirrorIn: 3, MirrorOut: 77}, {Index: 4},
	})
	hear(t, b, 1, station(1), 0)
	hear(t, b, 2, station(2), 0)
	fr := newFramer()
	tests := []struct {
		in       uint16
		dst      packet.MAC
		mirrorIn uint16
		want     []string
	}{
		{1, station(2), 4, []string{"2"}},
		{1, broadcast, 4, []string{"2", "3", "4"}},
		{1, packet.MAC{1, 0x80, 0xc2}, 4, []string{"bpdu"}},
		{2, station(1), 0, []string{"1 mirror 4"}},
		{2, broadcast, 0, []string{"1 mirror 4", "3", "4"}},
		{3, station(2), 0, []string{"2"}},
	}
	for _, tt := range tests {
		v := b.Input(tt.in, fr.frame(tt.dst, station(int(tt.in)), 0), 0)
		if diff := cmp.Diff(tt.want, outputsOf(&v)); diff != "" || v.MirrorIn != tt.mirrorIn {
			t.Errorf("from %d to %v: copy of input to %d (-want +got):\n%s", tt.in, tt.dst, v.MirrorIn, diff)
		}
	}
}

// The guards are tested in their own package; here it is that they are asked,
// and before anything is learned.
func TestGuardedPort(t *testing.T) {
	all := members(2)
	all[1].Guard = guard.Config{Checks: guard.All, MACs: []packet.MAC{station(1)}}
	b := New(Options{})
	b.SetPorts(all)
	if got := sent(b, 1, broadcast, station(2)); got[0] != "guard_mac" {
		t.Errorf("got %v", got)
	}
	v := b.Input(1, pt.Frame(pt.TCP4(pt.Packet{SrcMAC: station(1), DstMAC: broadcast})), 0)
	if v.Reason != trace.GuardIP || v.Learned {
		t.Errorf("got %+v", v)
	}
	if got := sent(b, 2, broadcast, station(2)); got[0] == "guard_mac" {
		t.Error("port 2 is guarded")
	}
	if n := b.Stats().Entries; n != 1 {
		t.Errorf("%d stations learned, want 1", n)
	}
}

// A unicast IGMP message has been read by the guard: the next may say otherwise.
func TestIGMPIsNotRemembered(t *testing.T) {
	all := members(2)
	all[1].Guard = guard.Config{Checks: guard.Query}
	b := New(Options{})
	b.SetPorts(all)
	hear(t, b, 2, station(2), 0)
	igmp := uint8(2)
	for _, proto := range []*uint8{&igmp, nil} {
		f := pt.Frame(pt.Build(pt.EtherHdr{Src: station(1), Dst: station(2)}, pt.IPv4Hdr{Proto: proto}, pt.Payload("\x16\x00\x00\x00\x00\x00\x00\x00")))
		v := b.Input(1, f, 0)
		if v.Action != Forward || v.Src.Valid() != (proto == nil) {
			t.Errorf("%+v", v)
		}
	}
}

func TestStorm(t *testing.T) {
	const ms = 1e6
	all := members(2)
	all[1].Storm = Storm{Broadcast: Rate{PPS: 100, Burst: 3}, Multicast: Rate{PPS: 1000}, Unknown: Rate{PPS: 10, Burst: 1}}
	b := New(Options{})
	b.SetPorts(all)
	hear(t, b, 2, station(2), 0)
	fr := newFramer()
	passed := func(in uint16, dst packet.MAC, frames int, from, to int64) (n int) {
		for i := range frames {
			at := from + (to-from)*int64(i)/int64(frames)
			v := b.InputAt(in, fr.frame(dst, station(int(in)), 0), Tick(at/1e9), at)
			switch {
			case v.Reason == trace.None:
				n++
			case v.Reason != trace.Storm:
				t.Fatalf("%v", v.Reason)
			}
		}
		return n
	}
	const second = 1000 * ms
	for _, tt := range []struct {
		name   string
		in     uint16
		dst    packet.MAC
		frames int
		from   int64
		to     int64
		want   int
	}{
		{"a burst of broadcasts", 1, broadcast, 50, second, second, 4}, // a full bucket, and one more
		{"a storm of them", 1, broadcast, 5000, 2 * second, 3 * second, 103},
		{"as many as are allowed", 1, broadcast, 99, 4 * second, 5 * second, 99},
		{"multicast has its own", 1, group, 50, 2 * second, 2 * second, 50},
		{"a storm of multicast", 1, group, 5000, 6 * second, 7 * second, 1100},
		{"unknown unicast", 1, station(77), 1000, 6 * second, 7 * second, 11},
		{"known unicast", 1, station(2), 1000, 7 * second, 7 * second, 1000},
		{"another port", 2, broadcast, 1000, 8 * second, 8 * second, 1000},
	} {
		if got := passed(tt.in, tt.dst, tt.frames, tt.from, tt.to); got < tt.want-1 || got > tt.want+1 {
			t.Errorf("%s: %d passed, want %d", tt.name, got, tt.want)
		}
	}
	// A change of the membership doesn't fill the buckets.
	passed(1, broadcast, 50, 9*second, 9*second)
	b.SetPorts(all)
	if n := passed(1, broadcast, 50, 9*second, 9*second); n != 0 {
		t.Errorf("%d passed after SetPorts", n)
	}
}

// An offload frame counts as its segments, and one that is larger than a bucket
// gets through when that is full.
func TestStormCountsSegments(t *testing.T) {
	all := members(2)
	all[1].Storm = Storm{Broadcast: Rate{PPS: 10, Burst: 5}}
	b := New(Options{})
	b.SetPorts(all)
	f := pt.GSO(pt.TCP4(pt.Packet{SrcMAC: station(1), DstMAC: broadcast, Payload: make([]byte, 20_000)}), 1000)
	at := int64(1e9)
	if v := b.InputAt(1, f, 1, at); v.Action != Flood {
		t.Fatalf("%v", v.Reason)
	}
	for _, tt := range []struct {
		after int64
		want  Action
	}{{1e9, Drop}, {1_600e6, Flood}} {
		v := b.InputAt(1, newFramer().frame(broadcast, station(1), 0), 1, at+tt.after)
		if v.Action != tt.want {
			t.Errorf("after %d ms: %v", tt.after/1e6, v.Action)
		}
	}
}
