// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/bridge/snoop"
	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// igmp is an IGMPv2 message of a type about a group, with tags or without.
func igmp(typ uint8, src packet.MAC, from, to string, g packet.MAC, tags ...pt.VLANTag) *packet.Frame {
	body := append([]byte{typ, 0, 0, 0}, pt.IP(to).AsSlice()...)
	sum := ^packet.Sum(body, 0)
	body[2], body[3] = byte(sum>>8), byte(sum)
	layers := []pt.Layer{pt.EtherHdr{Src: src, Dst: g}}
	for _, t := range tags {
		layers = append(layers, t)
	}
	proto := uint8(2)
	return pt.Frame(pt.Build(append(layers, pt.IPv4Hdr{Src: pt.IP(from), Dst: pt.IP(to), Proto: &proto}, pt.Payload(body))...))
}

var groupMAC = packet.MAC{1, 0, 0x5e, 1, 1, 1} // of 239.1.1.1

func joins(n int, tags ...pt.VLANTag) *packet.Frame {
	return igmp(0x16, station(n), "10.44.0.10", "239.1.1.1", groupMAC, tags...)
}

func streams(n int, tags ...pt.VLANTag) *packet.Frame {
	return pt.Frame(pt.UDP4(pt.Packet{SrcMAC: station(n), DstMAC: groupMAC, Dst: pt.IP("239.1.1.1"), Tags: tags}))
}

// polled lets seconds pass and returns who got queries, and how many tags they
// have.
func polled(t *testing.T, b *Bridge, from, to Tick) (got []string) {
	t.Helper()
	for now := from; now < to; now++ {
		b.Poll(now, func(port uint16, frame []byte) {
			f := pt.Frame(frame)
			pt.Check(t, f, pt.Fault(packet.FaultNone))
			got = append(got, fmt.Sprintf("%d %v %v", port, f.View.VID(), f.View.Is(packet.ViewIPv6)))
		})
	}
	slices.Sort(got)
	return got
}

func TestSnooping(t *testing.T) {
	all := members(4)
	all[3].Flags = Isolated
	all[4].Flags = Isolated | NoMulticastFlood
	all[2].Flags = FastLeave
	b := New(Options{})
	b.SetSnooping(&snoop.Config{Querier: true, MAC: ownMAC})
	b.SetPorts(all)
	want := []string{"1 0 false", "1 0 true", "2 0 false", "2 0 true", "3 0 false", "3 0 true", "4 0 false", "4 0 true"}
	if diff := cmp.Diff(want, polled(t, b, 0, 11)); diff != "" {
		t.Errorf("queries (-want +got):\n%s", diff)
	}
	check := func(what string, in uint16, f *packet.Frame, want ...string) {
		t.Helper()
		v := b.Input(in, f, 11)
		if diff := cmp.Diff(want, outputsOf(&v)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if v.Local != slices.Contains(want, "100") {
			t.Errorf("%s: local %v", what, v.Local)
		}
	}
	check("nobody but the host stack", 3, streams(3), "100")
	check("a report", 4, joins(4), "100")
	check("isolated from the member", 3, streams(3), "100")
	check("to the member, flooding off", 1, streams(1), "100", "4")
	check("another report", 2, joins(2), "100")
	check("to both", 1, streams(1), "100", "2", "4")
	check("from a member", 4, streams(4), "100", "2")
	check("from the host stack", localPort, streams(50), "2", "4")
	check("fast leave", 2, igmp(0x17, station(2), "10.44.0.10", "239.1.1.1", groupMAC), "100")
	check("without it", 1, streams(1), "100", "4")
	check("broadcast", 1, newFramer().frame(broadcast, station(1), 0), "100", "2", "3", "4")
	check("a group that isn't IP", 1, newFramer().frame(group, station(1), 0), "100", "2", "3")

	bad := joins(1)
	bad.Bytes()[bad.View.L4+2] ^= 1
	check("a wrong checksum", 1, bad, "malformed_group")

	v := b.Input(4, igmp(0x17, station(4), "10.44.0.10", "239.1.1.1", groupMAC), 11)
	if !v.Due {
		t.Error("no query is due after a leave")
	}
	if got := polled(t, b, 11, 12); !slices.Equal(got, []string{"4 0 false"}) {
		t.Errorf("asked %v", got)
	}
	if got := b.Snooping().Groups(nil, 12); len(got) != 1 || got[0].Port != 4 {
		t.Errorf("groups %v", got)
	}
	b.SetSnooping(nil)
	check("off", 1, streams(1), "100", "2", "3")
	if b.Snooping() != nil || polled(t, b, 0, 200) != nil {
		t.Error("not off")
	}
}

// Nobody wants it, and there is no router: it is dropped, with its reason.
func TestNoMember(t *testing.T) {
	all := members(2)
	all[0].Router = snoop.RouterNever
	b := New(Options{})
	b.SetPorts(all)
	b.SetSnooping(&snoop.Config{Querier: true})
	polled(t, b, 0, 11)
	if v := b.Input(1, streams(1), 11); v.Reason != trace.NoMember || v.Action != Drop {
		t.Errorf("%+v", v)
	}
	b.Input(1, joins(1), 11)
	if v := b.Input(1, streams(1), 11); v.Reason != trace.NoMember {
		t.Errorf("to itself: %+v", v)
	}
}

func TestSnoopingInVLANs(t *testing.T) {
	b := vlanBridge()
	b.SetSnooping(&snoop.Config{Querier: true, MAC: ownMAC})
	want := []string{"1 10 false", "2 10 false"}
	got := polled(t, b, 0, 11)
	for _, w := range []string{"1 0 false", "2 0 false", "3 0 false", "4 10 false", "4 20 true", "5 0 true", "5 20 true", "6 0 false"} {
		if !slices.Contains(got, w) {
			t.Errorf("no query %q", w)
		}
	}
	for _, w := range append(want, "100 0 false", "4 30 false") {
		if slices.Contains(got, w) {
			t.Errorf("query %q", w)
		}
	}
	b.Input(4, joins(1, pt.VLANTag{TCI: 20}), 11)
	b.Input(1, joins(2), 11)
	for _, tt := range []struct {
		in   uint16
		tags []pt.VLANTag
		want []string
	}{
		{3, nil, []string{"4 push 8100:20"}},
		{2, nil, []string{"1", "100"}},
		{5, []pt.VLANTag{{TCI: 20}}, []string{"4"}},
	} {
		v := b.Input(tt.in, streams(3, tt.tags...), 11)
		if diff := cmp.Diff(tt.want, outputsOf(&v)); diff != "" {
			t.Errorf("from %d (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestFeaturesAllocateNothing(t *testing.T) {
	b := vlanBridge()
	b.SetSnooping(&snoop.Config{Querier: true, MAC: ownMAC})
	polled(t, b, 0, 11)
	for name, f := range map[string]*packet.Frame{
		"report": joins(1), "data": streams(1), "broadcast": tagged(broadcast), "unknown": tagged(station(77)),
	} {
		b.Input(1, f, 11)
		n := testing.AllocsPerRun(100, func() {
			v := b.InputAt(1, f, 11, 11e9)
			var c Cursor
			for _, ok := v.Next(&c); ok; _, ok = v.Next(&c) {
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
