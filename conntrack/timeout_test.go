// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"os"
	"strconv"
	"strings"
	"testing"

	pt "sluice/packet/packettest"
)

// TestTimeoutsOfTheKernel compares the profile with the sysctls of a fresh
// namespace.
func TestTimeoutsOfTheKernel(t *testing.T) {
	newKernelTracker(t)
	c := Kernel()
	c.Timeouts.Each(func(name string, seconds uint32) {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
		if err != nil {
			t.Logf("%s: this kernel has none", name)
			return
		}
		if got, _ := strconv.Atoi(strings.TrimSpace(string(text))); got != int(seconds) {
			t.Errorf("%s: %d, the kernel has %d", name, seconds, got)
		}
	})
}

func TestTimeoutsOfTheRFCs(t *testing.T) {
	to := RFC().Timeouts
	for name, tc := range map[string]struct{ got, least uint32 }{
		"RFC 4787 REQ-5: UDP two minutes, five recommended": {to.UDP, 300},
		"RFC 4787 REQ-5: the same once answered":            {to.UDPStream, 300},
		"RFC 5382 REQ-5: established 2 hours 4 minutes":     {to.TCP[tcpEstablished], 7440},
		"RFC 5382 REQ-5: also if not acknowledged":          {min(to.TCPUnack, to.TCPRetrans), 7440},
		"RFC 5508 REQ-2: queries 60 seconds":                {min(to.ICMP, to.ICMPv6), 60},
		"RFC 7857 section 2.2: after a reset four minutes":  {to.TCP[tcpClose], 240},
	} {
		if tc.got < tc.least {
			t.Errorf("%s: %d", name, tc.got)
		}
	}
	for state := tcpSynSent; state < numTCPStates; state++ {
		if to.TCP[state] < 240 {
			t.Errorf("RFC 5382 REQ-5: %s %d", tcpStateName(uint32(state)), to.TCP[state])
		}
	}
}

// TestProfiles lets time pass: at the last second a packet of the other side still
// finds the connection, and later it does not.
func TestProfiles(t *testing.T) {
	handshake := [][]byte{there(pt.SYN, 100, 0, ""), back(pt.SYN|pt.ACK, 500, 101, ""), there(pt.ACK, 101, 501, "")}
	reset := append(handshake[:3:3], back(pt.RST, 501, 0, ""))
	ask, echo := pt.UDP4(pt.Packet{}), pt.Ping4(pt.Packet{ID: 5})
	for name, tc := range map[string]struct {
		config  ZoneConfig
		packets [][]byte
		timeout uint32
	}{
		"kernel syn sent":    {Kernel(), handshake[:1], 120},
		"kernel established": {Kernel(), handshake, 432000},
		"kernel reset":       {Kernel(), reset, 10},
		"kernel udp":         {Kernel(), [][]byte{ask}, 30},
		"kernel icmp":        {Kernel(), [][]byte{echo}, 30},
		"kernel refused":     {Kernel(), [][]byte{handshake[0], back(pt.RST|pt.ACK, 0, 101, "")}, 0},
		"rfc syn sent":       {RFC(), handshake[:1], 240},
		"rfc established":    {RFC(), handshake, 7440},
		"rfc reset":          {RFC(), reset, 240},
		"rfc udp":            {RFC(), [][]byte{ask}, 300},
		"rfc icmp":           {RFC(), [][]byte{echo}, 60},
		"rfc refused":        {RFC(), [][]byte{handshake[0], back(pt.RST|pt.ACK, 0, 101, "")}, 240},
	} {
		t.Run(name, func(t *testing.T) {
			tab := table(t, Config{Entries: 64, Zone: &tc.config})
			var c Conn
			for _, b := range tc.packets {
				c = look(t, tab, b, 1000).Conn
			}
			if tc.timeout > 0 {
				if tab.Expire(1000 + tc.timeout - 1); !c.Valid() {
					t.Fatal("gone before its time")
				}
			}
			if tab.Expire(1000 + tc.timeout); c.Valid() {
				t.Fatal("outlived its time")
			}
		})
	}
}

func TestTimeoutsByName(t *testing.T) {
	c := Kernel()
	n := 0
	c.Timeouts.Each(func(name string, _ uint32) {
		n++
		if err := c.Timeouts.Set(name, 7); err != nil {
			t.Error(err)
		}
	})
	c.Timeouts.Each(func(name string, s uint32) {
		if s != 7 {
			t.Errorf("%s: %d", name, s)
		}
	})
	if err := c.Timeouts.Set("tea_timeout", 1); err == nil || n != 25 {
		t.Errorf("%d names, %v", n, err)
	}
}

// TestUDPStreams: an answer within two seconds is an answer, later it is a stream.
func TestUDPStreams(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	ask := datagram(1, 1)
	c := look(t, tab, ask, 1000).Conn
	for _, tc := range []struct {
		at      uint32
		frame   []byte
		timeout uint32
		assured bool
	}{
		{1001, answer(ask), 30, false},
		{1002, ask, 30, false},
		{1003, answer(ask), 120, true},
		{1100, ask, 120, true},
	} {
		look(t, tab, tc.frame, tc.at)
		var e Entry
		if !c.Entry(&e, tc.at) || e.Timeout != tc.timeout || e.Status&Assured != 0 != tc.assured {
			t.Errorf("at %d: %+v", tc.at, e)
		}
	}
}

func TestFixedTimeout(t *testing.T) {
	tab := table(t, Config{Entries: 64})
	c := look(t, tab, datagram(1, 1), 1000).Conn
	c.SetTimeout(100, 1000, true)
	look(t, tab, datagram(1, 1), 1050)
	if tab.Expire(1099); !c.Valid() {
		t.Error("gone too early")
	}
	if tab.Expire(1100); c.Valid() {
		t.Error("a packet gave it more time")
	}
}
