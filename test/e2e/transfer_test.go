// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// TestTransfers moves hashed bytes both ways, with every combination of what
// changes the form of a frame, while captures in both containers verify each
// checksum.
//
//	red ---- blue, MTU 1500 / 9000 / 65535 ---- green
//	  capture                              capture
func TestTransfers(t *testing.T) {
	for _, mtu := range []int{1500, 9000, 65535} {
		t.Run(fmt.Sprintf("MTU %d", mtu), func(t *testing.T) {
			_, red, green := pairOn(t, lab.BlueMTU(mtu))
			for _, offload := range []bool{true, false} {
				red.Offload(offload)
				green.Offload(offload)
				for _, f := range both() {
					transfers(t, red, green, f, mtu)
				}
			}
		})
	}
}

// transfers runs every kind of transfer between two containers.
func transfers(t *testing.T, red, green *lab.NS, f lab.Family, mtu int) {
	t.Helper()
	caps := []*lab.Capture{red.Capture(), green.Capture()}
	lab.TCP(red, green, f, 16<<20)
	lab.UDP(red, green, f, lab.Datagrams{Bytes: 4 << 20, Size: mtu - 48})
	lab.UDP(red, green, f, lab.Datagrams{Bytes: 4 << 20, Size: 1400, GSO: true})
	if mtu < 65535 {
		lab.UDP(red, green, f, lab.Datagrams{Bytes: 1 << 20, Size: 4 * mtu}) // leaves in fragments
	}
	for _, c := range caps {
		if r := c.ExpectClean(); r.LargestL3 < mtu-48 {
			t.Errorf("%v: the largest packet had %d bytes, with MTU %d", f, r.LargestL3, mtu)
		}
	}
}

// TestOneSideOffload sends from a container with offloads to one without, and
// the other way round: 64 KB frames meet a receiver that never asked for any.
func TestOneSideOffload(t *testing.T) {
	_, red, green := pairOn(t, lab.Blue)
	green.Offload(false)
	for _, f := range both() {
		caps := []*lab.Capture{red.Capture(), green.Capture()}
		lab.TCP(red, green, f, 16<<20)
		lab.TCP(green, red, f, 16<<20)
		for _, c := range caps {
			c.ExpectClean()
		}
	}
}

// TestPlainPort attaches a container that can't take offload frames: what
// arrives has complete checksums and fits the MTU, also for tcpdump(8), which
// knows nothing of offload metadata.
//
//	red ---- blue ---- green (--offload off, MTU 1400)
func TestPlainPort(t *testing.T) {
	l := lab.New(t)
	l.Daemon(lab.Blue)
	red := l.NS("red").Attach("--network", "blue", "--mtu", "1400")
	green := l.NS("green").Attach("--network", "blue", "--mtu", "1400", "--offload", "off")
	for _, f := range both() {
		capt := green.Capture("-in", "-complete", "-largest", "1400")
		dump := green.Start("tcpdump", "-i", "eth0", "-Q", "in", "-nn", "-vv", "-c", "2000", "tcp or udp")
		l.Eventually("tcpdump listens", time.Minute, func() bool { return strings.Contains(dump.Output(), "listening on") })
		lab.TCP(red, green, f, 8<<20)
		lab.UDP(red, green, f, lab.Datagrams{Bytes: 2 << 20, Size: 1300})
		lab.UDP(red, green, f, lab.Datagrams{Bytes: 2 << 20, Size: 1300, GSO: true})
		if r := capt.ExpectClean(); r.GSO+r.Partial > 0 || r.Complete < 5000 {
			t.Errorf("%v: %+v", f, r)
		}
		text := dump.Wait(time.Minute).Out
		if strings.Contains(text, "incorrect") || strings.Count(text, "(correct)")+strings.Count(text, "sum ok") < 1000 {
			t.Errorf("%v: tcpdump saw a wrong checksum, or not enough right ones:\n%.2000s", f, text)
		}
	}
}

// TestVLANBetweenContainers runs traffic over sub-interfaces of two containers, with
// one tag and with two. A container with another tag hears nothing of it.
//
//	red  eth0.5 ----.                ,---- eth0.5 green
//	                +-- blue (tags pass) --+
//	                                 `---- eth0.6 brown
func TestVLANBetweenContainers(t *testing.T) {
	l := lab.New(t)
	l.Daemon(lab.Blue)
	var spaces []*lab.NS
	for _, name := range []string{"red", "green", "brown"} {
		spaces = append(spaces, l.NS(name).Attach("--network", "blue", "--set", "guard_allow 172.20.5.0/24"))
	}
	red, green, brown := spaces[0], spaces[1], spaces[2]
	for name, tags := range map[string][][]string{
		"one tag":  {{"-vid", "5"}, {"-vid", "6"}},
		"two tags": {{"-outer", "9", "-vid", "5"}, {"-outer", "9", "-vid", "6"}},
	} {
		a := red.VLAN("172.20.5.1/24", tags[0]...)
		b := green.VLAN("172.20.5.2/24", tags[0]...)
		c := brown.VLAN("172.20.5.3/24", tags[1]...)
		red.Ping(b.Addr())
		if r := red.TryPing(c.Addr(), 1); r.Code == 0 {
			t.Errorf("%s: a container with another tag answers", name)
		}
		capt := green.Capture("-in")
		green.Serve()
		s := lab.Report[report.Stream](red.Traffic("send", "-both", "-bytes", "4000000", "-to", b.Addr().String()+":7000"), time.Minute)
		if r := capt.ExpectClean(); !s.OK || r.Tagged < 1000 {
			t.Errorf("%s: TCP %+v, capture %+v", name, s, r)
		}
		for _, v := range []*lab.VLAN{a, b, c} {
			v.Stop()
		}
	}
}

// TestEcho talks to the echo service of the gateway; a network without one
// refuses the connection.
func TestEcho(t *testing.T) {
	d, red, _ := pairOn(t, lab.Blue)
	for _, f := range both() {
		capt := red.Capture()
		to := fmt.Sprintf("[%v]:7", d.Gateway(f))
		lab.Report[report.Stream](red.Traffic("echo", "-to", to, "-bytes", "4000000"), time.Minute)
		lab.Report[report.Stream](red.Traffic("echo", "-to", to, "-udp", "-bytes", "1400"), time.Minute)
		capt.ExpectClean()
	}
	d.Apply(strings.Replace(lab.Blue, "echo: true", "echo: false", 1))
	r := red.Traffic("echo", "-to", fmt.Sprintf("%v:7", d.Gateway(lab.V4))).Wait(time.Minute)
	r.Expect(1, "connection refused")
}
