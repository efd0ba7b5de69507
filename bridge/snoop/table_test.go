// SPDX-License-Identifier: Apache-2.0

package snoop

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// scene is a table with ports 1 to 4 and a clock, of which each second is
// polled.
type scene struct {
	t    *testing.T
	tab  *Table
	now  uint32
	sent []string // queries, as "second: port group"
}

// newScene is past its start-up: 11 s are over, and queriers are trusted.
func newScene(t *testing.T, c Config, special ...Port) *scene {
	t.Helper()
	s := &scene{t: t, tab: New(c)}
	ports := []Port{{Index: 1}, {Index: 2}, {Index: 3}, {Index: 4}}
	for _, p := range special {
		ports[p.Index-1] = p
	}
	s.tab.SetPorts(ports, []uint16{0})
	s.wait(11)
	s.sent = nil
	return s
}

// wait polls each second of the next n.
func (s *scene) wait(n uint32) {
	for range n {
		s.poll()
		s.now++
	}
}

func (s *scene) poll() {
	s.tab.Poll(s.now, func(q Query) {
		f := pt.Frame(q.Frame)
		m, ok := parse(f)
		if !ok {
			s.t.Errorf("query is malformed: %s", pt.Describe(q.Frame))
		}
		to := "v4"
		if m.v6 {
			to = "v6"
		}
		if m.group.IsValid() {
			to = m.group.String()
		}
		s.sent = append(s.sent, fmt.Sprintf("%d: %d %s", s.now, q.Port, to))
	})
}

func (s *scene) hear(port uint16, f *packet.Frame) Target {
	s.t.Helper()
	to, ok := s.tab.Input(port, 0, f, s.now)
	if !ok {
		s.t.Fatalf("malformed: %s", pt.Describe(f.Bytes()))
	}
	return to
}

// gets checks which ports get data for a group: nil is a flood.
func (s *scene) gets(group string, want ...uint16) {
	s.t.Helper()
	to := s.hear(4, stream(group))
	got := slices.Concat(to.Members, to.Routers)
	slices.Sort(got)
	if to.Limited != (want != nil) || !slices.Equal(got, want) {
		s.t.Errorf("second %d: %s goes to %v (limited %v), want %v", s.now, group, got, to.Limited, want)
	}
}

func (s *scene) queries(want ...string) {
	s.t.Helper()
	if diff := gocmp.Diff(want, s.sent); diff != "" {
		s.t.Errorf("queries (-want +got):\n%s", diff)
	}
	s.sent = nil
}

var nobody = []uint16{}

var families = map[string][2]string{ // group and querier
	"v4": {"239.10.10.10", "10.44.0.1"},
	"v6": {"ff15::10", "fe80::1"},
}

// bridge_igmp and bridge_mld: v2report_test, v1 and v2.
func TestReportAndLeave(t *testing.T) {
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			group := family[0]
			s := newScene(t, Config{Querier: true})
			s.gets(group, nobody...)
			if to := s.hear(1, report(group)); !to.Limited || len(to.Routers)+len(to.Members) != 0 {
				t.Errorf("the report goes to %+v, want to no host", to)
			}
			s.gets(group, 1)
			s.hear(2, report(group))
			s.gets(group, 1, 2)
			if to := s.hear(1, done(group)); !to.Due {
				t.Error("the query must wait")
			}
			if to := s.hear(1, done(group)); to.Due {
				t.Error("asked twice")
			}
			s.wait(2)
			s.gets(group, 1, 2)
			s.wait(1)
			s.queries("11: 1 "+group, "12: 1 "+group)
			s.gets(group, 2)
			s.hear(2, done(group))
			s.wait(1)
			s.hear(2, report(group)) // another host behind port 2
			s.wait(5)
			s.queries("14: 2 " + group)
			s.gets(group, 2)
		})
	}
}

func TestMembershipEnds(t *testing.T) {
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, Config{Querier: true})
			s.hear(1, report(family[0]))
			s.wait(259)
			s.hear(2, report(family[0]))
			s.gets(family[0], 1, 2)
			s.wait(2)
			s.gets(family[0], 2)
			s.wait(300)
			s.gets(family[0], nobody...)
			if n := s.tab.Stats().Groups; n != 0 {
				t.Errorf("%d groups", n)
			}
		})
	}
}

func TestFastLeave(t *testing.T) {
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, Config{Querier: true}, Port{Index: 1, FastLeave: true})
			s.hear(1, report(family[0]))
			s.hear(2, report(family[0]))
			s.hear(1, done(family[0]))
			s.gets(family[0], 2)
			s.hear(1, done(family[0]))
			s.wait(5)
			s.queries()
			s.hear(1, report(family[0]))
			s.gets(family[0], 1, 2)
		})
	}
}

// bridge_igmp: v3include_test, v3exclude_test and so on, as far as the group as
// a whole is concerned.
func TestRecordsOfNewReports(t *testing.T) {
	for name, family := range families {
		group := family[0]
		tests := []struct {
			name string
			says []rec
			want bool
		}{
			{"include sources", []rec{{isInclude, group, 3}}, true},
			{"exclude sources", []rec{{isExclude, group, 2}}, true},
			{"exclude nothing", []rec{{toExclude, group, 0}}, true},
			{"to include sources", []rec{{toInclude, group, 2}}, true},
			{"allow a source", []rec{{allowNew, group, 1}}, true},
			{"allow nothing", []rec{{allowNew, group, 0}}, false},
			{"block alone", []rec{{blockOld, group, 1}}, false},
			{"join, then to include nothing", []rec{{toExclude, group, 0}, {toInclude, group, 0}}, false},
			{"join, then block", []rec{{toInclude, group, 1}, {blockOld, group, 1}}, false},
			{"other first", []rec{{toExclude, "239.1.1.1", 0}, {toExclude, "239.1.1.2", 0}}, false},
		}
		for _, tt := range tests {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				if name == "v6" && tt.name == "other first" {
					tt.says = []rec{{toExclude, "ff05::1", 0}, {toExclude, "ff05::2", 0}}
				}
				s := newScene(t, Config{Querier: true})
				s.hear(1, reports(tt.says...))
				s.wait(4) // the last member's time
				want := nobody
				if tt.want {
					want = []uint16{1}
				}
				s.gets(group, want...)
			})
		}
	}
}

func TestWhatIsNotLimited(t *testing.T) {
	s := newScene(t, Config{Querier: true})
	for _, group := range []string{"224.0.0.1", "224.0.0.251", "ff02::1", "ff02::1:ff00:1", "ff02::fb"} {
		s.gets(group)
		s.hear(1, report(group))
	}
	s.gets("224.0.0.251")
	s.gets("ff02::1")
	s.gets("ff02::1:ff00:1", 1) // joined
	f := pt.Frame(pt.ARPRequest(pt.Packet{}))
	if to := s.hear(1, f); to.Limited {
		t.Error("ARP is limited")
	}
	if to := s.hear(1, pt.Frame(pt.UDP4(pt.Packet{DstMAC: packet.MAC{1, 0, 0x5e}}))); to.Limited {
		t.Error("unicast IP to a group's MAC is limited")
	}
}

// Without a querier memberships can't be known: everything is flooded, reports
// too.
func TestNobodyQueries(t *testing.T) {
	s := newScene(t, Config{})
	s.hear(1, report("239.1.1.1"))
	s.gets("239.1.1.1")
	if to := s.hear(1, report("239.1.1.1")); to.Limited {
		t.Error("a report is limited")
	}
	s.queries()
}

// A querier that is heard is trusted when hosts have had their time to answer,
// and no longer than it is heard.
func TestOtherQuerier(t *testing.T) {
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, Config{})
			s.hear(3, asked(family[1], ""))
			s.hear(1, report(family[0]))
			s.wait(10)
			s.gets(family[0])
			s.wait(1)
			s.gets(family[0], 1, 3) // port 3: a router is there
			if to := s.hear(1, report(family[0])); !slices.Equal(to.Routers, []uint16{3}) {
				t.Errorf("a report goes to %+v", to)
			}
			s.wait(243)
			s.gets(family[0], 1, 3)
			s.wait(2)
			s.gets(family[0])
			s.queries()
		})
	}
}

func TestStartupAndInterval(t *testing.T) {
	s := newScene(t, Config{})
	s.tab = New(Config{Querier: true})
	s.tab.SetPorts([]Port{{Index: 1}, {Index: 2}}, []uint16{0})
	s.now = 0
	s.wait(300)
	s.queries("0: 0 v4", "0: 0 v6", "32: 0 v4", "32: 0 v6", "157: 0 v4", "157: 0 v6", "282: 0 v4", "282: 0 v6")
	s.tab.SetPorts([]Port{{Index: 1}, {Index: 2}, {Index: 9}}, []uint16{0})
	s.wait(5)
	s.queries("300: 9 v4", "300: 9 v6")
}

// RFC 2236 §3: the lowest address queries; 0.0.0.0 is none.
func TestElection(t *testing.T) {
	tests := []struct {
		name   string
		own    string
		heard  string
		yields bool
	}{
		{"lower", "10.44.0.5", "10.44.0.1", true},
		{"higher", "10.44.0.5", "10.44.0.9", false},
		{"any against none", "0.0.0.0", "10.44.0.9", true},
		{"none against us", "10.44.0.5", "0.0.0.0", false},
		{"none against none", "0.0.0.0", "0.0.0.0", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, Config{Querier: true, Addr4: pt.IP(tt.own), QueryInterval: 20 * time.Second, ResponseInterval: 5 * time.Second})
			s.hear(3, asked(tt.heard, ""))
			s.wait(42)
			v4 := slices.ContainsFunc(s.sent, func(q string) bool { return q[len(q)-1] == '4' })
			if v4 == tt.yields {
				t.Errorf("queries %v", s.sent)
			}
			s.sent = nil
			s.wait(25) // 43 s after the other was heard it is forgotten
			if !slices.ContainsFunc(s.sent, func(q string) bool { return q[len(q)-1] == '4' }) {
				t.Error("does not take over")
			}
		})
	}
}

func TestElectionAmongOthers(t *testing.T) {
	s := newScene(t, Config{})
	s.hear(1, asked("10.44.0.7", ""))
	s.wait(200)
	s.hear(2, asked("10.44.0.3", "")) // takes over
	s.wait(100)
	s.hear(1, asked("10.44.0.7", "")) // does not know it yet
	s.wait(140)
	s.gets("239.1.1.1", 1, 2)
	s.wait(20) // 260 s after 10.44.0.3 spoke
	s.gets("239.1.1.1")
}

// Who is asked by another querier has until then to answer.
func TestQueryOfAnotherShortens(t *testing.T) {
	s := newScene(t, Config{})
	s.hear(3, asked("10.44.0.1", ""))
	s.wait(11)
	s.hear(1, report("239.1.1.1"))
	s.hear(2, report("239.1.1.1"))
	s.hear(1, done("239.1.1.1"))
	s.wait(5)
	s.gets("239.1.1.1", 1, 2, 3) // the other querier's business
	s.hear(3, asked("10.44.0.1", "239.1.1.1"))
	s.hear(2, report("239.1.1.1"))
	s.wait(22)
	s.gets("239.1.1.1", 2, 3)
	s.queries()
}

func TestRouterModes(t *testing.T) {
	s := newScene(t, Config{Querier: true}, Port{Index: 1, Router: RouterNever}, Port{Index: 2, Router: RouterAlways})
	s.hear(1, asked("10.44.0.1", ""))
	s.gets("239.1.1.1", 2)
	s.wait(130)
	if len(s.sent) == 0 {
		t.Error("port 1 has won the election")
	}
	s.hear(3, pt.Frame(pt.Build(pt.EtherHdr{Dst: packet.MAC{1, 0, 0x5e, 0, 0, 13}},
		pt.IPv4Hdr{Dst: pt.IP("224.0.0.13"), Proto: new(uint8(protoPIM))}, pt.Payload("\x20\x00\x00\x00"))))
	s.gets("239.1.1.1", 2, 3)
	want := []Entry{{Port: 2, Permanent: true}, {Port: 3, Left: 255}}
	if diff := gocmp.Diff(want, s.tab.Routers(nil, s.now), gocmp.Comparer(func(a, b Entry) bool { return a == b })); diff != "" {
		t.Errorf("routers (-want +got):\n%s", diff)
	}
	s.tab.SetPorts([]Port{{Index: 1}, {Index: 2}, {Index: 4}}, []uint16{0})
	s.gets("239.1.1.1", nobody...)
}

func TestVLANsAreApart(t *testing.T) {
	s := newScene(t, Config{Querier: true})
	s.tab.SetPorts([]Port{{Index: 1}, {Index: 2}}, []uint16{10, 20})
	s.wait(20)
	s.tab.Input(1, 10, report("239.1.1.1"), s.now)
	for vlan, want := range map[uint16]int{10: 1, 20: 0} {
		if to, _ := s.tab.Input(2, vlan, stream("239.1.1.1"), s.now); !to.Limited || len(to.Members) != want {
			t.Errorf("VLAN %d: %+v", vlan, to)
		}
	}
	s.gets("239.1.1.1") // VLAN 0 has no querier any more
	want := []Entry{{Group: pt.IP("239.1.1.1"), VLAN: 10, Port: 1, Left: 260}}
	if got := s.tab.Groups(nil, s.now); !slices.Equal(got, want) {
		t.Errorf("groups %v, want %v", got, want)
	}
}

func TestManyVLANsBeginSpread(t *testing.T) {
	s := newScene(t, Config{})
	s.tab = New(Config{Querier: true})
	var vids []uint16
	for v := range uint16(200) {
		vids = append(vids, v+1)
	}
	s.tab.SetPorts([]Port{{Index: 1}, {Index: 2}}, vids)
	s.now = 0
	for _, want := range []int{128, 128, 128, 16, 0} {
		s.sent = nil
		s.wait(1)
		if len(s.sent) != want {
			t.Errorf("second %d: %d queries, want %d", s.now-1, len(s.sent), want)
		}
	}
}

func TestBounds(t *testing.T) {
	s := newScene(t, Config{Querier: true, MaxGroups: 5, MaxPerPort: 3})
	group := func(i int) string { return fmt.Sprintf("239.1.1.%d", i) }
	for i := range 6 {
		s.hear(1, report(group(i)))
	}
	s.gets(group(2), 1)
	s.gets(group(3), nobody...)
	for i := 10; i < 13; i++ {
		s.hear(2, report(group(i)))
	}
	s.gets(group(11), 2)
	s.gets(group(12)) // no room: flooded
	s.gets(group(99))
	s.hear(3, report(group(0)))
	s.gets(group(0), 1, 3)
	want := Stats{Groups: 5, MaxGroups: 5, RefusedFull: 1, RefusedQuota: 3, Queries: s.tab.Stats().Queries}
	if diff := gocmp.Diff(want, s.tab.Stats()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.tab.SetPorts([]Port{{Index: 2}, {Index: 3}, {Index: 4}}, []uint16{0})
	if n := s.tab.Stats().Groups; n != 3 {
		t.Errorf("%d groups after port 1 left, want 3", n)
	}
	s.wait(300)
	s.gets(group(99), nobody...)
	for i := range 3 { // the quota was given back
		s.hear(2, report(group(i)))
	}
	s.gets(group(2), 2)
}

// Whoever leaves what nobody has joined makes nothing of a VLAN: each of them costs
// every Poll and every change of the ports something.
func TestLeavesMakeNoVLANs(t *testing.T) {
	s := newScene(t, Config{Querier: true})
	for vid := range uint16(4000) {
		s.tab.Input(1, vid, done("239.1.1.1"), s.now)
		s.tab.Input(1, vid, done("ff15::10"), s.now)
	}
	n := 0
	for i := range s.tab.vlans {
		if s.tab.vlans[i].Load() != nil {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d VLANs, want that of the ports", n)
	}
}

func TestNotAMember(t *testing.T) {
	s := newScene(t, Config{Querier: true})
	s.hear(77, report("239.1.1.1"))
	s.gets("239.1.1.1", nobody...)
}

// Only a join that is new may allocate.
func TestInputAllocatesNothing(t *testing.T) {
	s := newScene(t, Config{Querier: true})
	frames := map[string]*packet.Frame{
		"data": stream("239.1.1.1"), "unknown": stream("239.9.9.9"), "v6": stream("ff15::1"), "report": report("239.1.1.1"),
		"MLD": report("ff15::1"), "reports": reports(rec{toExclude, "239.1.1.1", 0}), "query": asked("10.0.0.1", ""),
	}
	for name, f := range frames {
		s.hear(1, f)
		if n := testing.AllocsPerRun(100, func() { s.tab.Input(1, 0, f, s.now) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Readers walk chains while writers change them.
func TestConcurrent(t *testing.T) {
	tab := New(Config{Querier: true, MaxGroups: 16})
	ports := []Port{{Index: 1}, {Index: 2}, {Index: 3, FastLeave: true}}
	tab.SetPorts(ports, []uint16{0})
	tab.Poll(0, func(Query) {})
	var wg sync.WaitGroup
	for port := uint16(1); port <= 3; port++ {
		wg.Go(func() {
			for i := range 2000 {
				group := fmt.Sprintf("239.1.1.%d", i%20)
				tab.Input(port, 0, report(group), uint32(i/100))
				to, _ := tab.Input(port, 0, stream(group), uint32(i/100))
				if slices.Max(append(to.Members, 0)) > 3 {
					t.Errorf("members %v", to.Members)
				}
				tab.Input(port, 0, done(group), uint32(i/100))
			}
		})
	}
	for i := range 200 {
		tab.Poll(uint32(i/10), func(Query) {})
		tab.SetPorts(ports[:1+i%3], []uint16{0, uint16(i % 5)}[:1+min(i%5, 1)])
	}
	wg.Wait()
}

func TestConfigIsBounded(t *testing.T) {
	c := Config{QueryInterval: time.Nanosecond, ResponseInterval: time.Hour, LastMember: -1, Robustness: 99, Version4: 9, Version6: 9}.withDefaults()
	if c.QueryInterval != time.Second || c.ResponseInterval != time.Second || c.LastMember != 100*time.Millisecond ||
		c.Robustness != 7 || c.Version4 != 3 || c.Version6 != 2 {
		t.Errorf("%+v", c)
	}
	d := Config{}.withDefaults()
	if d.membership() != 260 || d.otherQuerier() != 255 || d.startup() != 32 || d.lastMember() != 2 {
		t.Errorf("%d, %d, %d, %d", d.membership(), d.otherQuerier(), d.startup(), d.lastMember())
	}
}

func TestValidateConfig(t *testing.T) {
	good := Config{Version4: 3, Version6: 2, Robustness: 7, QueryInterval: time.Minute, Addr4: pt.IP("10.44.0.1"), Addr6: pt.IP("fe80::1")}
	for name, c := range map[string]Config{"zero": {}, "all": good} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]Config{
		"mac": {MAC: packet.Broadcast()}, "addr4": {Addr4: pt.IP("fe80::1")}, "addr6": {Addr6: pt.IP("fd44::1")},
		"version4": {Version4: 1}, "version6": {Version6: 3}, "queryInterval": {QueryInterval: 2 * time.Hour},
		"responseInterval": {ResponseInterval: time.Minute}, "lastMember": {LastMember: 1}, "robustness": {Robustness: 8},
		"maxGroups": {MaxGroups: -1}, "maxPerPort": {MaxPerPort: 1 << 30},
	} {
		if err := c.Validate(); !errors.Is(err, ErrConfig) || !strings.HasPrefix(err.Error(), name+":") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	tab := New(Config{Querier: true})
	tab.SetPorts([]Port{{Index: 1}, {Index: 2}}, []uint16{0})
	for now := range uint32(12) {
		tab.Poll(now, func(Query) {})
	}
	for i := range 200 {
		tab.Input(1, 0, report(fmt.Sprintf("239.1.1.%d", i)), 12)
	}
	f := stream("239.1.1.7")
	b.ReportAllocs()
	for b.Loop() {
		if to, _ := tab.Input(2, 0, f, 12); len(to.Members) != 1 {
			b.Fatal("not found")
		}
	}
}

// byGroup orders entries for comparison.
func byGroup(a, b Entry) int {
	return cmp.Or(a.Group.Compare(b.Group), cmp.Compare(a.VLAN, b.VLAN), cmp.Compare(a.Port, b.Port))
}
