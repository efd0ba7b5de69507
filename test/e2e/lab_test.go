// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// The lab's words are tried on the kernel's bridge, which is right: what the
// tools report of it is what a network that works looks like.
//
//	red ---- kernel bridge ---- green
func pair(t *testing.T, mtu int) (l *lab.Lab, red, green *lab.NS) {
	t.Helper()
	l = lab.New(t)
	b := l.Bridge(mtu)
	red, green = l.NS("red"), l.NS("green")
	b.Connect(red)
	b.Connect(green)
	return l, red, green
}

func TestPingsAndHashes(t *testing.T) {
	_, red, green := pair(t, 0)
	for _, f := range []lab.Family{lab.V4, lab.V6} {
		red.Ping(green.IP(f))
		cap := green.Capture()
		lab.TCP(red, green, f, 8<<20)
		lab.UDP(red, green, f, lab.Datagrams{Bytes: 2 << 20})
		lab.UDP(red, green, f, lab.Datagrams{Bytes: 2 << 20, GSO: true})
		lab.UDP(red, green, f, lab.Datagrams{Bytes: 1 << 20, Size: 9000}) // in fragments
		if r := cap.ExpectClean(); r.GSO == 0 || r.Partial == 0 {
			t.Errorf("%v: no offload frame between two veths: %+v", f, r)
		}
	}
}

func TestCaptureSeesSegments(t *testing.T) {
	_, red, green := pair(t, 0)
	red.Offload(false)
	green.Offload(false)
	cap := green.Capture("-complete", "-in", "-largest", "1500")
	lab.TCP(red, green, lab.V4, 4<<20)
	if r := cap.ExpectClean(); r.GSO != 0 || r.Partial != 0 {
		t.Errorf("offload frames although all is off: %+v", r)
	}
}

func TestProberSeesAGap(t *testing.T) {
	_, red, green := pair(t, 0)
	p := lab.Probe(red, green, lab.V4)
	time.Sleep(200 * time.Millisecond)
	green.Run("ip", "link", "set", "eth0", "down")
	time.Sleep(300 * time.Millisecond)
	green.Run("ip", "link", "set", "eth0", "up")
	time.Sleep(500 * time.Millisecond)
	if r := p.Stop(); r.MaxGapMS < 250 || r.MaxGapMS > 5000 || r.Lost == 0 {
		t.Errorf("a link that was down for 300 ms: %+v", r)
	}
}

func TestRates(t *testing.T) {
	_, red, green := pair(t, 0)
	green.Serve()
	for _, args := range [][]string{
		{"pingpong", "-seconds", "0.3"},
		{"pingpong", "-udp", "-seconds", "0.3"},
	} {
		red.Lab().Eventually("a hundred round trips", patience, func() bool { // what is late on a busy machine counts as lost
			r := lab.Report[report.RoundTrips](red.Traffic(append(args, "-to", green.At(lab.V4))...), time.Minute)
			return r.Count >= 100 && r.P50US > 0 && r.P99US >= r.P50US && r.Lost == 0
		})
	}
	crr := lab.Report[report.Rate](red.Traffic("crr", "-seconds", "1", "-to", green.At(lab.V4)), time.Minute)
	if crr.Count < 100 || crr.Errors > 0 {
		t.Errorf("crr: %+v", crr)
	}
	sink := green.Traffic("sink", "-seconds", "1.5").Ready()
	flood := red.Traffic("flood", "-seconds", "2", "-to", fmt.Sprintf("%v:7001", green.IP(lab.V4)))
	if r := lab.Report[report.Rate](sink, time.Minute); r.PerSecond < 1000 {
		t.Errorf("sink: %+v", r)
	}
	lab.Report[report.Rate](flood, time.Minute)
}

func TestPingAll(t *testing.T) {
	l := lab.New(t)
	b := l.Bridge(0)
	var all []*lab.NS
	for i := range 5 {
		n := l.NS(fmt.Sprintf("c%d", i))
		b.Connect(n)
		all = append(all, n)
	}
	lab.PingAll(all, 10*time.Second)
}

// TestVLAN tries the sub-interface that the traffic tool makes on a kernel
// bridge without filtering, which passes tags through.
func TestVLAN(t *testing.T) {
	_, red, green := pair(t, 0)
	for _, tags := range [][]string{{"-vid", "5"}, {"-outer", "9", "-vid", "5"}} {
		a := red.VLAN("172.20.5.1/24", tags...)
		b := green.VLAN("172.20.5.2/24", tags...)
		red.Ping(b.Addr())
		a.Stop()
		b.Stop()
	}
}

// failures is a lab.T that remembers what went wrong.
type failures struct {
	*testing.T
	said     []string
	cleanups []func()
}

func (f *failures) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}
func (f *failures) Cleanup(do func()) { f.cleanups = append(f.cleanups, do) }

func (f *failures) finish() {
	for _, do := range slices.Backward(f.cleanups) {
		do()
	}
}

// TestLeaksAreFound leaves three things behind, and wants to hear of each.
func TestLeaksAreFound(t *testing.T) {
	f := &failures{T: t}
	l := lab.New(f)
	link := "vethleak0"
	l.Run("ip", "link", "add", link, "type", "veth", "peer", "name", "vethleak1")
	t.Cleanup(func() { l.Run("ip", "link", "del", link) })
	file, err := os.Open("/etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f.finish()
	all := strings.Join(f.said, "\n")
	for _, want := range []string{"interface " + link, "files of this process"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q among:\n%s", want, all)
		}
	}
}

// TestWrongResultsFail holds Expect and the counts to failing when they should.
func TestWrongResultsFail(t *testing.T) {
	f := &failures{T: t}
	defer f.finish()
	l := lab.New(f)
	red := l.NS("red")
	red.Try("false").Expect(0)
	red.Try("echo", "hello").Expect(0, "goodbye")
	red.Try("sh", "-c", "kill -9 $$").Expect(137)
	if len(f.said) != 2 {
		t.Errorf("want two failures, got %q", f.said)
	}
}

// TestHostileIsRepeatable sends the same frames twice over a kernel bridge.
func TestHostileIsRepeatable(t *testing.T) {
	_, red, green := pair(t, 0)
	var runs [2]report.Hostile
	for i := range runs {
		p := red.Traffic("hostile", "-frames", "20000", "-seed", "7", "-known", green.MAC())
		runs[i] = lab.Report[report.Hostile](p.Ready(), time.Minute)
		runs[i].Seconds, runs[i].Retried = 0, 0
	}
	if runs[0] != runs[1] || runs[0].Sent < 20000 {
		t.Errorf("the same seed made %+v and %+v", runs[0], runs[1])
	}
}
