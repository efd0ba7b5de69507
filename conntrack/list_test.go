// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"bytes"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
	kt "sluice/test/kerneltest"
)

// TestListingIsThatOfConntrack compares lines with those of conntrack(8), of
// connections of all protocols.
func TestListingIsThatOfConntrack(t *testing.T) {
	if _, err := exec.LookPath("conntrack"); err != nil {
		t.Skip("needs conntrack(8)")
	}
	k := newKernelTracker(t)
	kt.Sysctl(t, "netfilter/nf_conntrack_timestamp=1")
	tab := table(t, Config{Entries: 64})
	for _, v6 := range []bool{false, true} {
		a := ends(v6)
		tu := Tuple{Src: a[0], Dst: a[1], SrcPort: 1000, DstPort: 80, Proto: packet.ProtoTCP}
		both := func(d Dir, b []byte) { k.send(d, b); own(t, tab, d, b) }
		both(Original, segmentFrom(Original, tu, pt.TCPHdr{Seq: 1, Flags: flagSYN}, nil))
		both(Reply, segmentFrom(Reply, tu, pt.TCPHdr{Seq: 9, Ack: 2, Flags: flagSYN | flagACK}, nil))
		both(Original, segmentFrom(Original, tu, pt.TCPHdr{Seq: 2, Ack: 10, Flags: flagACK}, nil))
		both(Original, pt.Build(pt.EtherHdr{}, ipHdr(tu), pt.UDPHdr{SrcPort: 5, DstPort: 6}))
		both(Original, pt.Build(pt.EtherHdr{}, ipHdr(tu), pt.ICMPHdr{V6: v6, Type: map[bool]uint8{false: 8, true: 128}[v6], ID: 77}))
		init := append([]byte{chunkInit, 0, 0, 20, 0, 0, 0, 7}, make([]byte, 12)...)
		both(Original, pt.Build(pt.EtherHdr{}, ipHdr(tu), pt.SCTPHdr{SrcPort: 7, DstPort: 8}, pt.Payload(init)))
	}
	for name, tc := range map[string]struct {
		args  []string
		flags ListFlags
	}{
		"plain":    {nil, ListAccount | ListTimestamp},
		"extended": {[]string{"-o", "extended"}, ListAccount | ListTimestamp | ListExtended},
	} {
		want := linesOf(t, tc.args)
		var got []string
		tab.Entries(nil, testSecond, func(e *Entry) bool {
			got = append(got, canonical(string(e.Append(nil, tc.flags))))
			return true
		})
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", name, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
}

// linesOf are the lines of conntrack -L of both families.
func linesOf(t *testing.T, args []string) (lines []string) {
	t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := exec.Command("conntrack", append([]string{"-L", "-f", family}, args...)...).Output()
		must(t, err)
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "10.71.") || strings.Contains(line, "fd71:") {
				lines = append(lines, canonical(line))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// canonical takes out what time changes.
func canonical(line string) string {
	line = regexp.MustCompile(`^((?:ipv\d +\d+ )?\w+ +\d+) \d+ `).ReplaceAllString(strings.TrimSpace(line), "$1 T ")
	return regexp.MustCompile(`delta-time=\d+`).ReplaceAllString(line, "delta-time=T")
}

func TestFilters(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	tcp := look(t, tab, there(pt.SYN, 100, 0, ""), 1000).Conn
	udp := look(t, tab, pt.UDP6(pt.Packet{SrcPort: 5, DstPort: 53}), 1000).Conn
	tcp.SetMark(0x10)
	udp.SetLabel(Label{15: 1})
	udp.AddStatus(SrcNAT)
	for name, tc := range map[string]struct {
		f        Filter
		tcp, udp bool
	}{
		"all":        {Filter{}, true, true},
		"family 4":   {Filter{Family: 4}, true, false},
		"family 6":   {Filter{Family: 6}, false, true},
		"protocol":   {Filter{Proto: packet.ProtoUDP}, false, true},
		"state":      {Filter{State: "SYN_SENT"}, true, false},
		"source":     {Filter{Original: TupleFilter{Src: netip.MustParsePrefix("10.44.0.0/24")}}, true, false},
		"reply":      {Filter{Reply: TupleFilter{Src: netip.MustParsePrefix("fd44::b/128")}}, false, true},
		"port":       {Filter{Original: TupleFilter{DstPort: 53}}, false, true},
		"port 0":     {Filter{Original: TupleFilter{DstBits: 1<<16 - 1}}, false, false},
		"bits":       {Filter{Original: TupleFilter{DstPort: 0x0f30, DstBits: 0xff}}, false, false},
		"low bits":   {Filter{Original: TupleFilter{DstPort: 0x0f35, DstBits: 0xff}}, false, true},
		"from port":  {Filter{Reply: TupleFilter{DstPort: 1000}}, true, false},
		"all of 4":   {Filter{Original: TupleFilter{Src: netip.MustParsePrefix("0.0.0.0/0")}}, true, false},
		"all of 6":   {Filter{Original: TupleFilter{Dst: netip.MustParsePrefix("::/0")}}, false, true},
		"half of 6":  {Filter{Original: TupleFilter{Dst: netip.MustParsePrefix("fd00::/7")}}, false, true},
		"other 6":    {Filter{Original: TupleFilter{Dst: netip.MustParsePrefix("fd44::b:0/112")}}, false, false},
		"4 in 6":     {Filter{Original: TupleFilter{Src: netip.MustParsePrefix("::ffff:0:0/96")}}, false, false},
		"mark":       {Filter{Mark: 0x10, MarkMask: 0xff}, true, false},
		"no mark":    {Filter{Mark: 0, MarkMask: 0xff}, false, true},
		"label":      {Filter{Label: Label{15: 1}}, false, true},
		"translated": {Filter{AnyNAT: true}, false, true},
		"unreplied":  {Filter{Without: SeenReply}, true, true},
		"assured":    {Filter{With: Assured}, false, false},
		"zone":       {Filter{HasZone: true, Zone: 1}, false, false},
		"port of":    {Filter{HasPort: true, Port: 0}, true, true},
		"id":         {Filter{ID: udp.ID()}, false, true},
	} {
		found := map[Conn]bool{}
		tab.Entries(&tc.f, 1000, func(e *Entry) bool { found[e.Conn] = true; return true })
		if found[tcp] != tc.tcp || found[udp] != tc.udp {
			t.Errorf("%s: tcp %v, udp %v", name, found[tcp], found[udp])
		}
		view := View{recs: tab.recs}
		seen := map[uint32]bool{}
		view.Entries(&tc.f, 0, 1000, func(e *Entry) bool { seen[e.ID] = true; return true })
		if seen[tcp.ID()] != tc.tcp || seen[udp.ID()] != tc.udp {
			t.Errorf("%s, in view: tcp %v, udp %v", name, seen[tcp.ID()], seen[udp.ID()])
		}
	}
	if n := tab.Delete(&Filter{Family: 6}, 1000); n != 1 || udp.Valid() || !tcp.Valid() {
		t.Errorf("%d deleted", n)
	}
}

func TestEvents(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	w := tab.Watch()
	defer w.Close()
	look(t, tab, there(pt.SYN, 100, 0, ""), 1000)
	look(t, tab, back(pt.SYN|pt.ACK, 500, 101, ""), 1000)
	look(t, tab, there(pt.ACK, 101, 501, ""), 1000)
	look(t, tab, there(pt.ACK, 101, 501, "data"), 1000) // changes nothing that is told
	tab.Delete(nil, 1000)
	const tuples = "src=10.44.0.10 dst=10.44.0.11 sport=1000 dport=80 src=10.44.0.11 dst=10.44.0.10 sport=80 dport=1000"
	want := []string{
		"    [NEW] tcp      6 120 SYN_SENT src=10.44.0.10 dst=10.44.0.11 sport=1000 dport=80 [UNREPLIED] src=10.44.0.11",
		" [UPDATE] tcp      6 60 SYN_RECV " + tuples,
		" [UPDATE] tcp      6 432000 ESTABLISHED " + tuples + " [ASSURED]",
		"[DESTROY] tcp      6 ESTABLISHED " + tuples + " [ASSURED]",
	}
	events, lost := readEvents(w, 10)
	if len(events) != len(want) || lost != 0 {
		t.Fatalf("%d events, %d lost", len(events), lost)
	}
	for i := range want {
		if got := string(events[i].Append(nil, 0)); !strings.HasPrefix(got, want[i]) {
			t.Errorf(" got %s\nwant %s", got, want[i])
		}
	}
	for range eventRing + 5 {
		tab.publish(EventUpdate, &events[0].Entry)
	}
	if events, lost := readEvents(w, 10); len(events) != 10 || lost != 5 {
		t.Errorf("%d events, %d lost", len(events), lost)
	}
	if events, lost := readEvents(w, eventRing); len(events) != eventRing-10 || lost != 0 {
		t.Errorf("then %d events, %d lost", len(events), lost)
	}
}

func readEvents(w *Watch, most int) (events []Event, lost uint64) {
	b, lost := w.Read(nil, most)
	DecodeEvents(b, func(e *Event) { events = append(events, *e) })
	return events, lost
}

// TestEventsTravel: an event is the same at the other end, but for what only the table
// itself knows.
func TestEventsTravel(t *testing.T) {
	a, b := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("192.0.2.1")
	for _, want := range []Entry{
		{
			ID: 7, Zone: 9, Port: 3, OutDevice: 4, Status: SeenReply | Assured, State: "TIME_WAIT", Timeout: 5, Age: 6, Mark: 1 << 31,
			Original: Tuple{Src: a, Dst: a.Next(), SrcPort: 1, DstPort: 2, Proto: packet.ProtoTCP},
			Reply:    Tuple{Src: b, Dst: b.Next(), SrcPort: 3, DstPort: 4, Proto: packet.ProtoTCP},
			Label:    Label{1, 15: 2}, Packets: [2]uint64{1 << 40, 2}, Bytes: [2]uint64{3, 1 << 50},
		},
		{State: "HEARTBEAT_SENT", Original: Tuple{Src: b, Dst: b, Proto: packet.ProtoSCTP}, Reply: Tuple{Src: b, Dst: b, Proto: packet.ProtoSCTP}},
		{Original: Tuple{Src: b, Dst: b, DstPort: 8 << 8, Proto: packet.ProtoICMP}, Reply: Tuple{Src: b, Dst: b, Proto: packet.ProtoICMP}},
	} {
		var whole eventBytes
		whole.encode(EventDestroy, &want)
		var got []Event
		DecodeEvents(append(whole[:], 1, 2, 3), func(e *Event) { got = append(got, *e) })
		if len(got) != 1 || got[0].Kind != EventDestroy || got[0].Entry != want {
			t.Errorf(" got %+v\nwant %+v", got, want)
		}
	}
}

// FuzzDecodeEvents: any bytes give events that can be shown, or none.
func FuzzDecodeEvents(f *testing.F) {
	a := netip.MustParseAddr("192.0.2.1")
	for kind := range EventKind(4) {
		var b eventBytes
		b.encode(kind, &Entry{State: "CLOSE", Original: Tuple{Src: a, Dst: a, Proto: 6}, Reply: Tuple{Src: a, Dst: a, Proto: 6}})
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		DecodeEvents(b, func(e *Event) { printable(t, e.Append(nil, 255), &e.Entry) })
	})
}

// printable is what all lines of a list have to be.
func printable(t *testing.T, line []byte, e *Entry) {
	t.Helper()
	if !e.Original.Dst.IsValid() || !e.Reply.Dst.IsValid() || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("%q of %+v", line, e)
	}
}
