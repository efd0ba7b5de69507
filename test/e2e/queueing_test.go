// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// TestShaping shapes what goes to a container and what one sends, in the words of tc,
// changes a rate under traffic, and sees that all of it outlives both processes.
//
//	red ---- blue ---- [tbf, htb] green
func TestShaping(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	tc := func(line string) lab.Result { t.Helper(); return d.CLI(strings.Fields(line)...) }
	to, from := green.Name(), red.Name()
	const bytes = 1 << 20

	tc("qdisc add dev " + to + " root handle 1: tbf rate 16mbit burst 64kb latency 200ms").Expect(0)
	shaped(t, red, green, bytes, 2_000_000)
	if out := tc("-s -d qdisc show dev " + to).Out; !strings.Contains(out, "qdisc tbf 1: root refcnt 2 rate 16Mbit burst 64Kb/1 mpu 0b lat 200ms") ||
		strings.Contains(out, "Sent 0 bytes") {
		t.Errorf("qdisc show:\n%s", out)
	}
	tc("qdisc change dev " + to + " root tbf rate 32mbit burst 64kb latency 200ms").Expect(0)
	shaped(t, red, green, bytes, 4_000_000)

	// A mistake names the field and changes nothing.
	if r := tc("qdisc change dev " + to + " root tbf rate fast burst 64kb latency 200ms"); r.Code == 0 || !strings.Contains(r.Err, `rate: "fast"`) {
		t.Errorf("a bad rate: %d, %s", r.Code, r.Err)
	}

	// Classes, a filter, and what the container sends.
	tc("qdisc replace dev " + to + " root handle 2: htb default 20").Expect(0)
	tc("class add dev " + to + " parent 2: classid 2:10 htb rate 8mbit").Expect(0)
	tc("class add dev " + to + " parent 2: classid 2:20 htb rate 800mbit").Expect(0)
	tc("qdisc add dev " + to + " parent 2:10 fq_codel").Expect(0)
	tc("filter add dev " + to + " parent 2: protocol ip flower src_ip " + red.IP(lab.V4).String() + " classid 2:10").Expect(0)
	shaped(t, red, green, bytes/2, 1_000_000)
	tc("qdisc add dev " + from + " from root tbf rate 4mbit burst 32kb latency 200ms").Expect(0)
	shaped(t, red, green, bytes/4, 500_000)

	d.KillBoth()
	d.Start()
	if out := tc("class show dev " + to).Out; !strings.Contains(out, "class htb 2:10 root leaf 8001: prio 0 rate 8Mbit ceil 8Mbit") {
		t.Errorf("class show:\n%s", out)
	}
	shaped(t, red, green, bytes/4, 500_000)
	tc("qdisc del dev " + from + " from root").Expect(0)

	// fq_codel asks filters for a queue; codel has none to ask for.
	tc("qdisc replace dev " + to + " root handle 3: fq_codel").Expect(0)
	tc("filter add dev " + to + " parent 3: protocol ip prio 1 flower ip_proto icmp action drop").Expect(0)
	tc("filter add dev " + to + " parent 3: prio 2 matchall classid 3:5").Expect(0)
	red.NoPing(green.IP(lab.V4))
	red.Ping(green.IP(lab.V6))
	lab.TCP(red, green, lab.V4, bytes)
	tc("qdisc replace dev " + to + " root handle 3: codel").Expect(0)
	if r := tc("filter add dev " + to + " parent 3: matchall action drop"); r.Code == 0 || !strings.Contains(r.Err, "asks no filters") {
		t.Errorf("a filter of codel: %d, %s", r.Code, r.Err)
	}
	tc("qdisc del dev " + to + " root").Expect(0)
	if out := tc("qdisc show").Out; out != "" {
		t.Errorf("there are disciplines left:\n%s", out)
	}
	inTime(t, "without a discipline it takes five seconds at most", func() bool {
		return sending(red, green, bytes) <= 5*time.Second
	})
}

// TestShapedDevices: what goes over a link, and what is routed into a network, whoever
// sends it, is shaped by the file and by commands; it outlives both processes, and a
// change under way loses nothing, and keeps the order.
//
//	red ── left ── core ==[tbf]== edge ──[tbf] right ── green
func TestShapedDevices(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(`networks:
  - {name: left, namespace: core, subnets: [10.45.1.0/24, "fd45:1::/64"]}
  - {name: right, namespace: edge, subnets: [10.45.2.0/24, "fd45:2::/64"]}
namespaces:
  - name: core
    links: [{name: over, peer: {namespace: edge, link: back}, qdisc: ["root tbf rate 16mbit burst 64kb latency 200ms"]}]
    routes: [10.45.2.0/24 dev over, "fd45:2::/64 dev over"]
  - name: edge
    links: [{name: back, peer: {namespace: core, link: over}}]
    routes: [10.45.1.0/24 dev back, "fd45:1::/64 dev back"]
`)
	red, green := l.NS("red").Attach("--network", "left"), l.NS("green").Attach("--network", "right")
	const bytes = 1 << 20
	shaped(t, red, green, bytes, 2_000_000)
	lab.UDP(red, green, lab.V6, lab.Datagrams{Bytes: 64 << 10, Size: 4000}) // in fragments
	d.CLI("-n", "core", "-s", "qdisc", "show", "dev", "over").Expect(0, "qdisc tbf 8001: root refcnt 2 rate 16Mbit burst 64Kb")

	tc := func(space, line string) {
		t.Helper()
		d.CLI(append([]string{"-n", space}, strings.Fields(line)...)...).Expect(0)
	}
	tc("edge", "qdisc add dev right root tbf rate 8mbit burst 64kb latency 200ms")
	tc("core", "qdisc replace dev over root pfifo")
	shaped(t, red, green, bytes/2, 1_000_000)
	d.KillBoth()
	d.Start()
	shaped(t, red, green, bytes/2, 1_000_000)
	if r := d.CLI("-n", "core", "qdisc", "add", "dev", "over", "from", "root", "pfifo"); r.Code == 0 || !strings.Contains(r.Err, "hat comes by over has no discipline") {
		t.Errorf("from of a link: %d, %s", r.Code, r.Err)
	}

	// A train that waits goes on when the rate is another, and when there is none.
	tc("edge", "qdisc replace dev right root tbf rate 1mbit burst 64kb limit 10mb")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		lab.UDP(red, green, lab.V4, lab.Datagrams{Bytes: 1 << 20})
	}()
	time.Sleep(300 * time.Millisecond)
	tc("edge", "qdisc change dev right root tbf rate 4mbit burst 64kb limit 10mb")
	time.Sleep(300 * time.Millisecond)
	tc("edge", "qdisc del dev right root")
	<-sent
	tc("core", "qdisc del dev over root")
	if out := d.CLI("-n", "core", "qdisc", "show", "dev", "over").Out; !strings.Contains(out, "rate 16Mbit") { // the file's
		t.Errorf("qdisc show:\n%s", out)
	}
}

// TestShapedSocketUplink: what containers send by a socket uplink.
func TestShapedSocketUplink(t *testing.T) {
	w := newWay(t, 1500, "{name: out, type: socket, qdisc: [root tbf rate 16mbit burst 64kb latency 200ms]}")
	const bytes = 1 << 20
	shaped(t, w.red, w.world, bytes, 2_000_000)
	lab.UDPTo(w.red, w.world, lab.V6, lab.Datagrams{Bytes: 256 << 10})
	w.red.Ping(w.world.IP(lab.V4))
	w.d.CLI("qdisc", "del", "dev", "out", "root").Expect(1)
	w.d.CLI("qdisc", "replace", "dev", "out", "root", "fq_codel").Expect(0)
	inTime(t, "without a rate it takes five seconds at most", func() bool {
		return sending(w.red, w.world, bytes) <= 5*time.Second
	})
}

// TestShapedPortsMove: ports become parts of a tree while packets wait at them, by which
// they may get another worker, and leave it: nothing is lost, and the rate holds.
func TestShapedPortsMove(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	tc := func(line string) { t.Helper(); d.CLI(strings.Fields(line)...).Expect(0) }
	// Each way go one's bytes and the other's echoes: that must not wait for longer than who
	// sends waits for the last of his.
	const bytes, rate, burst = 256 << 10, 500_000, 32 << 10
	for _, n := range []*lab.NS{red, green} {
		tc("qdisc add dev " + n.Name() + " root tbf rate 4mbit burst 32kb limit 10mb")
	}
	send := func(from, to *lab.NS, f lab.Family) *lab.Proc {
		return from.Traffic("udp", "-to", to.At(f), "-bytes", strconv.Itoa(bytes), "-size", "1400")
	}
	for _, f := range []lab.Family{lab.V4, lab.V6} {
		red.Serve()
		green.Serve()
		red.Ping(green.IP(f)) // not behind what waits: ping(8) has no patience with its last answer
	}
	start := time.Now()
	both := []*lab.Proc{send(red, green, lab.V4), send(green, red, lab.V6)}
	for _, line := range []string{"tree set rate 1gbit", "tree del", "tree set rate 1gbit", "tree del"} {
		time.Sleep(150 * time.Millisecond)
		tc(line)
	}
	for _, p := range both {
		if r := lab.Report[report.Datagrams](p, time.Minute); r.Lost+r.Bad > 0 || r.Bytes < bytes {
			t.Errorf("%+v", r)
		}
	}
	least := time.Duration(float64(bytes-burst) / rate * float64(time.Second))
	if took := time.Since(start); took < least {
		t.Errorf("%d bytes in %v, want at least %v", bytes, took, least)
	}
	if out := d.CLI("-s", "qdisc", "show").Out; strings.Count(out, "dropped 0,") != 2 {
		t.Errorf("qdisc show:\n%s", out)
	}
}

// TestUpgradeUnderShaping: what waits at a port when a dataplane of another build takes
// over leaves as its discipline says, and the next one goes on with it: what that one
// sends meanwhile may come first.
func TestUpgradeUnderShaping(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	d.CLI("qdisc", "add", "dev", green.Name(), "root", "tbf", "rate", "1mbit", "burst", "16kb", "limit", "10mb").Expect(0)
	old := d.Status().Dataplane.PID
	const bytes, rate, burst = 170_000, 125_000, 16 << 10
	start, done := time.Now(), make(chan struct{})
	go func() {
		defer close(done)
		lab.UDPTo(red, green, lab.V4, lab.Datagrams{Bytes: bytes, Mixed: true})
	}()
	time.Sleep(400 * time.Millisecond) // the rest is 1 s at most
	d.Upgrade()
	<-done
	if took, least := time.Since(start), time.Duration(float64(bytes-burst)/rate*float64(time.Second)); took < least {
		t.Errorf("%d bytes in %v, want at least %v", bytes, took, least)
	}
	if d.Status().Dataplane.PID == old {
		t.Error("it is the old dataplane: this shows nothing")
	}
	shaped(t, red, green, 100_000, rate)
}

// TestMarksOfWhatWaits: what rules say of packets that wait until somebody answers for
// their destination chooses their class all the same.
//
//	red ---- left (core) right ---- [htb] green, which gets 10.45.2.77 later
func TestMarksOfWhatWaits(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon("networks:\n" + lab.Routed)
	red, green := l.NS("red").Attach("--network", "left"), l.NS("green").Attach("--network", "right", "--set", "guard off")
	d.CLI("-n", "core", "nft", "-f", l.File("marks.nft", `table inet marks {
	chain forward {
		type filter hook forward priority filter
		icmp type echo-request icmp sequence < 3 meta mark set 7
		icmp type echo-request icmp sequence >= 3 meta priority set 1:20
	}
}
`)).Expect(0)
	tc := func(line string) { t.Helper(); d.CLI(strings.Fields(line)...).Expect(0) }
	to := green.Name()
	tc("qdisc add dev " + to + " root handle 1: htb default 30")
	for _, class := range []string{"1:10", "1:20", "1:30"} {
		tc("class add dev " + to + " parent 1: classid " + class + " htb rate 100mbit")
	}
	tc("filter add dev " + to + " parent 1: handle 7 fw classid 1:10")
	ping := red.Start("ping", "-n", "-c", "6", "-i", "0.2", "-W", "20", "10.45.2.77") // no more than six: they are counted
	l.Eventually("packets that wait", patience, func() bool {
		return strings.Contains(d.CLI("-n", "core", "neigh", "show").Out, "10.45.2.77 dev right INCOMPLETE")
	})
	time.Sleep(300 * time.Millisecond) // for some more
	green.Run("ip", "address", "add", "10.45.2.77/24", "dev", green.If())
	if out := ping.Wait(time.Minute).Out; !strings.Contains(out, " 0% packet loss") {
		t.Errorf("ping:\n%s", out)
	}
	out := d.CLI("-s", "class", "show", "dev", to).Out
	for class, sent := range map[string]string{"1:10": "196 bytes 2 pkt", "1:20": "392 bytes 4 pkt"} {
		if _, after, _ := strings.Cut(out, "class htb "+class+" "); !strings.Contains(strings.Join(strings.Split(after, "\n")[:2], " "), "Sent "+sent) {
			t.Errorf("class %s: want %s:\n%s", class, sent, out)
		}
	}
}

// shaped sends bytes, both ways, and wants it to take as long as the rate says at
// least, but for what a burst saves; a busy machine may be slower.
func shaped(t *testing.T, from, to *lab.NS, bytes uint64, rate float64) {
	t.Helper()
	least := time.Duration((float64(bytes) - 64<<10) / rate * float64(time.Second))
	inTime(t, fmt.Sprintf("%d bytes in about %v", bytes, least), func() bool {
		took := sending(from, to, bytes)
		if took < least {
			t.Errorf("%d bytes in %v, want at least %v", bytes, took, least)
		}
		return took <= 4*least+3*time.Second
	})
}

// sending is how long it takes to send bytes, both ways.
func sending(from, to *lab.NS, bytes uint64) time.Duration {
	start := time.Now()
	lab.TCP(from, to, lab.V4, bytes)
	return time.Since(start)
}

// TestFairQueue: TCP flows that share a fq_codel have equal parts of all that the rate
// lets through, and a ping beside them does not wait for what they have queued.
//
//	red ---- blue ---- [htb 50 Mbit/s, fq_codel] green
func TestFairQueue(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	tc := func(line string) { t.Helper(); d.CLI(strings.Fields(line)...).Expect(0) }
	tc("qdisc add dev " + green.Name() + " root handle 1: htb default 10")
	tc("class add dev " + green.Name() + " parent 1: classid 1:10 htb rate 50mbit burst 100kb cburst 100kb")
	tc("qdisc add dev " + green.Name() + " parent 1:10 fq_codel flows 65536") // so that hardly two ever share one
	green.Start("iperf3", "-s")
	to := green.IP(lab.V4).String()
	d.Lab().Eventually("a server", patience, func() bool { return red.Try("iperf3", "-c", to, "-n", "1").Code == 0 })
	for _, n := range []int{2, 10, 50} {
		inTime(t, fmt.Sprintf("%d flows have equal parts of the rate, and a ping its answers", n), func() bool {
			ping := red.StartPing(200, green.IP(lab.V4), "-i", "0.02")
			parts := rivals(t, red, to, n)
			var sum, squares float64
			for _, x := range parts {
				sum, squares = sum+x, squares+x*x
			}
			if sum > 1.05*50e6 { // what iperf3 omits has queued
				t.Errorf("%d flows: %.1f Mbit/s in all", n, sum/1e6)
			}
			// A full queue of 10,240 packets were 2.5 s, and CoDel's of one flow is some 10 ms.
			jain, waits := sum*sum/(float64(n)*squares), median(t, ping.Answered().Out)
			t.Logf("%d flows: %.1f Mbit/s in all, Jain's index %.4f, of %.0f, a ping takes %.2f ms", n, sum/1e6, jain, parts, waits)
			return (jain >= 0.99 || n > 10) && sum >= 0.93*50e6 && waits <= 5 // TCP's own headers are four hundredths
		})
	}
	if out := d.CLI("-s", "qdisc", "show", "dev", green.Name()).Out; !strings.Contains(out, "new_flow_count") || strings.Contains(out, "drop_overlimit 0 new_flow_count 0") {
		t.Errorf("qdisc show:\n%s", out)
	}
}

// rivals runs n flows for some seconds, and returns what each had, in bits a second.
func rivals(t *testing.T, from *lab.NS, to string, n int) (parts []float64) {
	t.Helper()
	r, err := from.Iperf(to, "-t", "5", "-O", "1", "-P", strconv.Itoa(n))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.End.Streams {
		parts = append(parts, s.Receiver.Rate)
	}
	if len(parts) != n {
		t.Fatalf("%d flows of %d: %+v", len(parts), n, r)
	}
	return parts
}

// median is that of ping's times, in ms.
func median(t *testing.T, out string) float64 {
	t.Helper()
	var all []float64
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, " time="); ok {
			ms, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, ms)
		}
	}
	slices.Sort(all)
	return all[len(all)/2]
}
