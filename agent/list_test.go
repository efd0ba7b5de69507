// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/conntrack"
	"sluice/natspec"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

// crowdedShop is a namespace whose zone in the table is 1.
const crowdedShop = `
namespaces: [{name: shop, conntrack: {track: true}}, {name: other, conntrack: {track: true}}]
networks: [{name: web, namespace: shop, subnets: [10.50.0.0/24]}, {name: db, namespace: other, subnets: [10.51.0.0/24]}]
`

// crowd starts an agent, and its dataplane, over a table of so many connections of
// shop, from 10.x.y.z:1000 to port 80; and one of the other namespace.
func (l *lab) crowd(n int) {
	l.t.Helper()
	l.entries = n + 100
	if err := os.MkdirAll(l.run(""), 0o700); err != nil {
		l.t.Fatal(err)
	}
	fillTable(l.t, l.run("connections"), l.entries, n)
	l.config = filepath.Join(l.dir, "networks.yaml")
	if err := os.WriteFile(l.config, []byte(crowdedShop), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.start()
}

func fillTable(tb testing.TB, path string, entries, n int) {
	tb.Helper()
	f, err := conntrack.CreateFile(path, entries)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		tb.Fatal(err)
	}
	now := uint32(ts.Sec)
	table, _, err := conntrack.Open(f, conntrack.Config{}, now)
	if err != nil {
		tb.Fatal(err)
	}
	defer table.Close()
	raw := pt.UDP4(pt.Packet{SrcPort: 1000, DstPort: 80})
	frame := pt.NewFrame()
	frame.Reset(64, len(raw))
	copy(frame.Bytes(), raw)
	frame.View.Parse(raw)
	frame.Vnet.Flags = packet.FlagDataValid
	src := frame.Bytes()[14+12 : 14+16]
	for i := range n + 1 {
		copy(src, []byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		var p conntrack.Pending
		table.Look(&conntrack.Packet{Frame: frame, Now: now, Zone: uint16(1 + i/n)}, &p)
		p.Mark = uint32(i % 1000)
		c, out := table.Confirm(&p, now)
		if out != conntrack.Inserted {
			tb.Fatalf("%d: outcome %d", i, out)
		}
		c.SetTimeout(100_000, now, true)
	}
}

// listed is all of a list, and how many parts it came in.
func (l *lab) listed(q api.PageQuery) (lines []string, parts int) {
	l.t.Helper()
	for {
		p, err := l.api.Connections(l.t.Context(), q)
		if err != nil {
			l.t.Fatal(err)
		}
		got := strings.Split(strings.TrimSuffix(string(p.Body), "\n"), "\n")
		if p.Entries > 0 {
			lines = append(lines, got...)
		}
		if parts++; p.Entries > 0 && p.Entries != len(got) {
			l.t.Fatalf("%d entries, %d lines", p.Entries, len(got))
		}
		if q.From = p.Next; q.From == 0 {
			return lines, parts
		}
	}
}

func (l *lab) count(namespace string, words ...string) int {
	l.t.Helper()
	s, err := l.api.ConnectionStats(l.t.Context(), api.ShowQuery{Namespace: namespace, Words: append([]string{"-C"}, words...)})
	if err != nil {
		l.t.Fatal(err)
	}
	return s.Entries
}

// TestLargeTable lists, counts and deletes in a table that is too large to be held: each
// connection once, of a filter those that match and no others.
func TestLargeTable(t *testing.T) {
	const n = 50_000
	l := newLab(t)
	l.crowd(n)
	all, parts := l.listed(api.PageQuery{ShowQuery: api.ShowQuery{Namespace: "shop", Words: []string{"-L"}}, Lines: true})
	seen := make(map[string]bool)
	for _, line := range all {
		seen[line] = true
	}
	if len(all) != n || len(seen) != n || parts < 10 || !strings.HasPrefix(all[0], "udp      17 ") || !strings.HasSuffix(all[0], " zone=1 use=1") {
		t.Errorf("%d lines, %d of them different, in %d parts: %s", len(all), len(seen), parts, all[0])
	}
	one := api.ShowQuery{Words: []string{"-L", "-s", "10.0.1.0/30", "-p", "udp", "--dport", "80", "-m", "257"}}
	got, parts := l.listed(api.PageQuery{ShowQuery: one})
	if len(got) != 1 || parts != 1 || !strings.Contains(got[0], `"namespace":"shop"`) || !strings.Contains(got[0], `"src":"10.0.1.1"`) {
		t.Errorf("%d parts: %s", parts, got)
	}
	for _, c := range []struct {
		namespace string
		words     string
		want      int
	}{
		{"", "", n + 1},
		{"shop", "", n},
		{"other", "", 1},
		{"shop", "-w 2", 0},
		{"", "-m 257", n / 1000},
		{"", "-s 10.0.1.0/24", 256},
		{"shop", "-s 10.0.1.0/24 --dport 81", 0},
		{"", "-p tcp", 0},
	} {
		if got := l.count(c.namespace, strings.Fields(c.words)...); got != c.want {
			t.Errorf("%q -C %s: %d, want %d", c.namespace, c.words, got, c.want)
		}
	}
	if n := l.deleted("shop", "-D", "-s", "10.0.0.0/17", "-m", "7"); n != 33 {
		t.Errorf("%d deleted", n)
	}
	if left, other := l.count("shop"), l.count("other"); left != n-33 || other != 1 {
		t.Errorf("%d and %d are left", left, other)
	}
	if gone := l.deleted("shop", "-F"); gone != n-33 || l.count("shop") != 0 || l.count("other") != 1 {
		t.Errorf("%d deleted, %d and %d are left", gone, l.count("shop"), l.count("other"))
	}
}

// deleted deletes, and returns how many ended.
func (l *lab) deleted(namespace string, words ...string) (n int) {
	l.t.Helper()
	r := &api.DeleteConnectionsRequest{Namespace: namespace, Words: words, Lines: true}
	for {
		p, err := l.api.DeleteConnections(l.t.Context(), r)
		if err != nil {
			l.t.Fatal(err)
		}
		lines := bytes.Count(p.Body, []byte("\n"))
		if words[0] == "-D" && lines != p.Entries || words[0] == "-F" && lines != 0 {
			l.t.Errorf("%d ended, %d told", p.Entries, lines)
		}
		n += p.Entries
		if r.From = p.Next; r.From == 0 {
			return n
		}
	}
}

// TestListTakesBoundedMemory: what a list of a large table takes of the agent, and of
// who reads it, is a part of it and not all.
func TestListTakesBoundedMemory(t *testing.T) {
	const n = 500_000
	path := filepath.Join(t.TempDir(), "connections")
	fillTable(t, path, n+1, n)
	a, r := overTable(t, path)
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	most, longest, entries := uint64(0), 0, 0
	for from := uint64(0); ; {
		p, err := a.page(r, from)
		if err != nil {
			t.Fatal(err)
		}
		entries += p.Entries
		longest = max(longest, len(p.Body))
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc))
		if from = p.Next; from == 0 {
			break
		}
	}
	t.Logf("%d entries, parts of %d bytes at most, %d bytes of heap at most", entries, longest, most)
	if entries != n+1 || longest > pageBytes+500 || most > 40<<20 { // all of it is 90 MB
		t.Error("it is not bounded")
	}
}

// overTable is an agent that has nothing but a table, and a request for all of it.
func overTable(tb testing.TB, path string) (*Agent, *connPage) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	a := &Agent{plane: new(plane)}
	a.plane.start.Connections = f
	r := &connRequest{Request: &natspec.Request{Command: 'L'}, spaces: map[uint16]string{1: "shop", 2: "other"}}
	return a, &connPage{connRequest: r, lines: true}
}

// TestClientThatStopsReading: many who ask and never read hold up nobody, and are left
// with what they asked for when they go.
func TestClientThatStopsReading(t *testing.T) {
	l := newLab(t)
	l.crowd(20_000)
	before := served(t)
	var idle []net.Conn
	for range 20 {
		c, err := net.Dial("unix", l.run("sluiced.sock"))
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
		if _, err := io.WriteString(c, "GET "+api.PathConnections+"?words=-L HTTP/1.1\r\nHost: sluiced\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if got, _ := l.listed(api.PageQuery{ShowQuery: api.ShowQuery{Words: []string{"-L"}}}); len(got) != 20_001 {
		t.Errorf("%d connections beside those who don't read", len(got))
	}
	t.Logf("listed beside them in %v", time.Since(began))
	for _, c := range idle {
		c.Close()
	}
	l.eventually("those who don't read are left", func() bool { return served(t) <= before+1 }) // the list's client
}

// served is how many clients' connections this process serves.
func served(t *testing.T) int {
	t.Helper()
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 2); err != nil {
		t.Fatal(err)
	}
	return strings.Count(all.String(), "net/http.(*conn).serve(")
}

// BenchmarkListPages makes all parts of a list of 510,000 connections.
//
//	go test -run '^$' -bench ListPages ./agent
func BenchmarkListPages(b *testing.B) {
	const n = 510_000
	path := filepath.Join(b.TempDir(), "connections")
	fillTable(b, path, n+1, n)
	for _, lines := range []bool{true, false} {
		b.Run(fmt.Sprintf("lines=%v/entries=%d", lines, n), func(b *testing.B) {
			a, r := overTable(b, path)
			r.lines = lines
			b.ReportAllocs()
			for b.Loop() {
				size := 0
				for from, more := uint64(0), true; more; more = from != 0 {
					p, err := a.page(r, from)
					if err != nil {
						b.Fatal(err)
					}
					size, from = size+len(p.Body), p.Next
				}
				b.SetBytes(int64(size))
			}
		})
	}
}
