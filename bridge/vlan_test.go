// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// outputsOf is what a verdict sends, by port, in short: "1", "2 pop", "3 push
// 8100:5"; a drop is its reason.
func outputsOf(v *Verdict) []string {
	var all []string
	add := func(o Output) {
		s := fmt.Sprint(o.Port)
		switch o.Tag.Op {
		case TagPop:
			s += " pop"
		case TagPush:
			s += fmt.Sprintf(" push %04x:%d", o.Tag.TPID, o.Tag.TCI)
		case TagSet:
			s += fmt.Sprintf(" set %04x:%d", o.Tag.TPID, o.Tag.TCI)
		case TagKeep:
		}
		if o.Mirror != 0 {
			s += fmt.Sprintf(" mirror %d", o.Mirror)
		}
		all = append(all, s)
	}
	switch v.Action {
	case Drop:
		return []string{v.Reason.String()}
	case Forward:
		add(Output{v.Port, v.Mirror, v.Tag})
	case Flood:
		var c Cursor
		for o, ok := v.Next(&c); ok; o, ok = v.Next(&c) {
			add(o)
		}
	case Answer:
		return []string{"answer"}
	}
	slices.Sort(all)
	return all
}

// vlanBridge has
//
//	1, 2  access ports of VLAN 10
//	3     an access port of VLAN 20
//	4     a trunk of VLANs 10 to 30
//	5     a trunk of 20 with native VLAN 10
//	6     untagged in 20 and 10, its PVID
//	7     a provider's trunk of 10 and 20 (802.1ad)
//	100   the local port, VLAN 10
func vlanBridge() *Bridge {
	b := New(Options{})
	r := func(first, last uint16) []VIDRange { return []VIDRange{{first, last}} }
	b.SetPorts([]PortConfig{
		{Index: 1, VLAN: VLAN{PVID: 10}},
		{Index: 2, VLAN: VLAN{PVID: 10}},
		{Index: 3, VLAN: VLAN{PVID: 20}},
		{Index: 4, VLAN: VLAN{Tagged: r(10, 30)}},
		{Index: 5, VLAN: VLAN{PVID: 10, Tagged: r(20, 20)}},
		{Index: 6, VLAN: VLAN{PVID: 10, Untagged: r(20, 20)}},
		{Index: 7, VLAN: VLAN{Tagged: append(r(10, 10), r(20, 20)...), QinQ: true}},
		{Index: localPort, Local: true, VLAN: VLAN{PVID: 10}},
	})
	b.SetStatic([]StaticEntry{{MAC: ownMAC, VLAN: 10, Port: localPort, Own: true}})
	return b
}

// tagged is a broadcast, or a frame to dst, with tags as TPID and TCI.
func tagged(dst packet.MAC, tags ...uint16) *packet.Frame {
	var list []pt.VLANTag
	for i := 0; i < len(tags); i += 2 {
		list = append(list, pt.VLANTag{TPID: tags[i], TCI: tags[i+1]})
	}
	return pt.Frame(pt.TCP4(pt.Packet{SrcMAC: station(1), DstMAC: dst, Tags: list}))
}

// bridge_vlan_aware: membership, PVID, what is tagged and what is not.
func TestVLANAware(t *testing.T) {
	const (
		q  = packet.EtherTypeVLAN
		ad = packet.EtherTypeQinQ
	)
	tests := []struct {
		name string
		in   uint16
		f    *packet.Frame
		want []string
	}{
		{"untagged to access", 1, tagged(broadcast), []string{"100", "2", "4 push 8100:10", "5", "6", "7 push 88a8:10"}},
		{"tagged to access, of its VLAN", 1, tagged(broadcast, q, 10), []string{"100 pop", "2 pop", "4", "5 pop", "6 pop", "7 set 88a8:10"}},
		{"tagged to access, of another VLAN", 1, tagged(broadcast, q, 20), []string{"vlan_ingress"}},
		{"VLAN 0 to access, priority 5", 1, tagged(broadcast, q, 5<<13), []string{
			"100 pop", "2 pop", fmt.Sprintf("4 set 8100:%d", 5<<13|10), "5 pop", "6 pop", fmt.Sprintf("7 set 88a8:%d", 5<<13|10),
		}},
		{"VLAN 4095", 4, tagged(broadcast, q, 4095), []string{"vlan_ingress"}},
		{"access of 20", 3, tagged(broadcast), []string{"4 push 8100:20", "5 push 8100:20", "6", "7 push 88a8:20"}},
		{"trunk", 4, tagged(broadcast, q, 20), []string{"3 pop", "5", "6 pop", "7 set 88a8:20"}},
		{"trunk keeps the priority", 4, tagged(broadcast, q, 3<<13|20), []string{"3 pop", "5", "6 pop", fmt.Sprintf("7 set 88a8:%d", 3<<13|20)}},
		{"trunk without tag", 4, tagged(broadcast), []string{"vlan_ingress"}},
		{"trunk, VLAN 0", 4, tagged(broadcast, q, 0), []string{"vlan_ingress"}},
		{"trunk, no member", 4, tagged(broadcast, q, 31), []string{"vlan_ingress"}},
		{"trunk, member, but nobody else", 4, tagged(broadcast, q, 30), []string{"vlan_egress"}},
		{"native VLAN", 5, tagged(broadcast), []string{"1", "100", "2", "4 push 8100:10", "6", "7 push 88a8:10"}},
		{"untagged in two", 6, tagged(broadcast, q, 20), []string{"3 pop", "4", "5", "7 set 88a8:20"}},
		{"two tags, inner kept", 4, tagged(broadcast, q, 20, q, 7), []string{"3 pop", "5", "6 pop", "7 set 88a8:20"}},
		{"provider's tag", 7, tagged(broadcast, ad, 20, q, 7), []string{"3 pop", "4 set 8100:20", "5 set 8100:20", "6 pop"}},
		{"customer's tag at the provider's port", 7, tagged(broadcast, q, 20), []string{"vlan_ingress"}},
		{"provider's tag at an access port is payload", 1, tagged(broadcast, ad, 20), []string{
			"100", "2", "4 push 8100:10", "5", "6", "7 push 88a8:10",
		}},
		{"a third tag can't be pushed", 1, tagged(broadcast, ad, 20, q, 7), []string{"100", "2", "5", "6"}},
		{"from the host stack", localPort, pt.Frame(pt.TCP4(pt.Packet{SrcMAC: ownMAC, DstMAC: broadcast})), []string{
			"1", "2", "4 push 8100:10", "5", "6", "7 push 88a8:10",
		}},
		{"to the host stack", 4, tagged(ownMAC, q, 10), []string{"100 pop"}},
		{"to the host stack in another VLAN", 4, tagged(ownMAC, q, 20), []string{"3 pop", "5", "6 pop", "7 set 88a8:20"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := vlanBridge()
			v := b.Input(tt.in, tt.f, 0)
			if diff := cmp.Diff(tt.want, outputsOf(&v)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			checkTags(t, tt.f.Bytes(), &v, b)
		})
	}
}

// checkTags applies what the verdict says and looks at the result: an access port
// never gets a tag of the bridge, a trunk always does.
func checkTags(t *testing.T, frame []byte, v *Verdict, b *Bridge) {
	t.Helper()
	var c Cursor
	for o, ok := v.Next(&c); ok && v.Action == Flood; o, ok = v.Next(&c) {
		f := pt.Frame(frame)
		before := int(f.View.Tags)
		if !o.Tag.Apply(f) {
			t.Errorf("port %d: tag can't be applied", o.Port)
			continue
		}
		var again packet.View
		if fault := again.Parse(f.Bytes()); fault != packet.FaultNone || again != f.View {
			t.Errorf("port %d: %v; view is %+v, want %+v", o.Port, fault, f.View, again)
		}
		cfg, _ := b.Port(o.Port)
		switch want := cfg.VLAN.compile(); {
		case want == nil:
		case want.untagged.has(v.tags.vid):
			if v.tags.tpid != 0 {
				before--
			}
			if int(f.View.Tags) != before {
				t.Errorf("port %d: %d tags", o.Port, f.View.Tags)
			}
		case f.View.TPID[0] != want.tpid || f.View.TCI[0]&0xfff != v.tags.vid:
			t.Errorf("port %d: tag %04x:%d", o.Port, f.View.TPID[0], f.View.TCI[0])
		}
	}
}

// A station is learned in the VLAN that the port gave its frame, and found there
// from every port.
func TestLearningInVLANs(t *testing.T) {
	b := vlanBridge()
	b.Input(1, tagged(broadcast), 0)
	v := b.Input(4, pt.Frame(pt.TCP4(pt.Packet{SrcMAC: station(2), DstMAC: station(1), Tags: []pt.VLANTag{{TCI: 10}}})), 0)
	if diff := cmp.Diff([]string{"1 pop"}, outputsOf(&v)); diff != "" || !v.Src.Valid() || !v.Dst.Valid() {
		t.Errorf("%+v (-want +got):\n%s", v, diff)
	}
	want := []Entry{{MAC: station(1), VLAN: 10, Port: 1, Kind: Dynamic}, {MAC: station(2), VLAN: 10, Port: 4, Kind: Dynamic}}
	got := slices.DeleteFunc(b.Entries(nil, 0), func(e Entry) bool { return e.Kind == Own })
	slices.SortFunc(got, func(a, b Entry) int { return int(a.Port) - int(b.Port) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Known, but in a VLAN that the port has left meanwhile: static entries of
	// another VLAN are such.
	b.SetStatic([]StaticEntry{{MAC: station(9), VLAN: 20, Port: 1}})
	v = b.Input(3, pt.Frame(pt.TCP4(pt.Packet{SrcMAC: station(3), DstMAC: station(9)})), 0)
	if v.Reason != trace.VLANEgress || !v.Dst.Valid() {
		t.Errorf("got %v", outputsOf(&v))
	}
}

// bridge_vlan_unaware, and unaware ports beside aware ones: they are a trunk of
// everything, and VLAN 0 is theirs alone.
func TestVLANUnaware(t *testing.T) {
	b := New(Options{})
	b.SetPorts([]PortConfig{{Index: 1}, {Index: 2}, {Index: 3, VLAN: VLAN{PVID: 10}}})
	tests := []struct {
		name string
		in   uint16
		f    *packet.Frame
		want []string
	}{
		{"untagged", 1, tagged(broadcast), []string{"2"}},
		{"tagged", 1, tagged(broadcast, 0x8100, 10), []string{"2", "3 pop"}},
		{"other VLAN", 1, tagged(broadcast, 0x8100, 11), []string{"2"}},
		{"VLAN 0", 1, tagged(broadcast, 0x8100, 1<<13), []string{"2"}},
		{"provider's tag", 1, tagged(broadcast, 0x88a8, 10), []string{"2"}},
		{"from the access port", 3, tagged(broadcast), []string{"1 push 8100:10", "2 push 8100:10"}},
		{"tagged from the access port", 3, tagged(broadcast, 0x8100, 10), []string{"1", "2"}},
		{"VLAN 0 from the access port", 3, tagged(broadcast, 0x8100, 0), []string{"1 set 8100:10", "2 set 8100:10"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := b.Input(tt.in, tt.f, 0)
			if diff := cmp.Diff(tt.want, outputsOf(&v)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateVLAN(t *testing.T) {
	tests := map[string]struct {
		v  VLAN
		ok bool
	}{
		"zero":             {VLAN{}, true},
		"access":           {VLAN{PVID: 4094}, true},
		"trunk":            {VLAN{Tagged: []VIDRange{{1, 4094}}}, true},
		"PVID 4095":        {VLAN{PVID: 4095}, false},
		"VLAN 0":           {VLAN{Tagged: []VIDRange{{0, 5}}}, false},
		"VLAN 4095":        {VLAN{Untagged: []VIDRange{{1, 4095}}}, false},
		"a range reversed": {VLAN{Tagged: []VIDRange{{5, 4}}}, false},
	}
	for name, tt := range tests {
		if err := tt.v.Validate(); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrVLAN) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVIDSet(t *testing.T) {
	var s vidSet
	s.add(VIDRange{0, 2}, VIDRange{63, 65}, VIDRange{4090, 5000}, VIDRange{9, 8})
	want := []uint16{1, 2, 63, 64, 65, 4090, 4091, 4092, 4093, 4094}
	if got := s.list(false); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for vid := range uint16(4096) {
		if s.has(vid) != slices.Contains(want, vid) {
			t.Errorf("VLAN %d", vid)
		}
	}
}

func TestTagThatDoesNotFit(t *testing.T) {
	for name, tag := range map[string]Tag{"pop": {Op: TagPop}, "set": {Op: TagSet, TPID: 0x8100, TCI: 1}} {
		if tag.Apply(tagged(broadcast)) {
			t.Errorf("%s without a tag", name)
		}
	}
	if (Tag{Op: TagPush, TPID: 0x8100}).Apply(tagged(broadcast, 0x8100, 1, 0x8100, 2)) {
		t.Error("a third tag")
	}
}

// bridge_locked_port, with VLANs: an entry opens the port in its VLAN only.
func TestLockedPortInVLANs(t *testing.T) {
	b := New(Options{})
	trunk := []VIDRange{{10, 20}}
	b.SetPorts([]PortConfig{{Index: 1, Flags: Locked, VLAN: VLAN{Tagged: trunk}}, {Index: 2, VLAN: VLAN{Tagged: trunk}}})
	from := func(vid uint16) []string {
		v := b.Input(1, tagged(broadcast, packet.EtherTypeVLAN, vid), 0)
		return outputsOf(&v)
	}
	for _, tt := range []struct {
		static []StaticEntry
		vid    uint16
		want   string
	}{
		{nil, 10, "locked"},
		{[]StaticEntry{{MAC: station(1), VLAN: 10, Port: 1}}, 10, "2"},
		{[]StaticEntry{{MAC: station(1), VLAN: 10, Port: 1}}, 20, "locked"},
		{[]StaticEntry{{MAC: station(1), VLAN: 10, Port: 2}}, 10, "locked"},
		{[]StaticEntry{{MAC: station(1), Port: 1}}, 10, "locked"}, // that is not its VLAN
	} {
		b.SetStatic(tt.static)
		if got := from(tt.vid); !slices.Equal(got, []string{tt.want}) {
			t.Errorf("%+v, VLAN %d: %v, want %s", tt.static, tt.vid, got, tt.want)
		}
	}
}
