// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"sluice/test/lab"
)

// TestNFTErrorsAreSeen: what the router says because of a packet passes output and
// postrouting: it is counted there, related to the connection, and may be dropped.
func TestNFTErrorsAreSeen(t *testing.T) {
	d, red, blue := apart(t, `table inet filter {
	set mute {
		type ipv4_addr
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		tcp dport 81 reject with tcp reset
		tcp dport 82 reject with icmpx admin-prohibited
	}
	chain output {
		type filter hook output priority filter; policy accept;
		ct state related icmp type time-exceeded counter comment "hops out"
		ct state related icmpv6 type time-exceeded counter comment "hops6 out"
		ip daddr @mute icmp type { time-exceeded, destination-unreachable } counter drop comment "muted"
		tcp flags rst counter comment "reset out"
	}
	chain postrouting {
		type filter hook postrouting priority filter; policy accept;
		oifname "web" icmp type time-exceeded counter comment "hops post"
		oifname "web" icmp type destination-unreachable counter comment "refused post"
		oifname "web" tcp flags rst counter comment "reset post"
	}
}`)
	to4, to6 := blue.IP(lab.V4).String(), blue.IP(lab.V6).String()
	red.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "-t", "1", to4).Expect(1, "Time to live exceeded")
	red.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "-t", "1", to6).Expect(1, "Hop limit")
	connect := func(port string) lab.Result {
		return red.Try("python3", "-c", "import socket; socket.create_connection(("+`"`+to4+`", `+port+"), 10)")
	}
	connect("81").Expect(1, "ConnectionRefusedError")
	connect("82").Expect(1, "No route to host")
	for words, want := range map[string]int{
		`"hops out"`: 2, `"hops6 out"`: 2, `"hops post"`: 2, `"refused post"`: 1, `"reset out"`: 1, `"reset post"`: 1, `"muted"`: 0,
	} {
		if n := counts(t, d, words); n != want {
			t.Errorf("%s: %d, want %d", words, n, want)
		}
	}
	d.CLI("nft", "add", "element", "inet", "filter", "mute", "{", red.IP(lab.V4).String(), "}").Expect(0)
	red.Try("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "-t", "1", to4).Expect(1, "100% packet loss")
	if n, post := counts(t, d, `"muted"`), counts(t, d, `"hops post"`); n != 2 || post != 2 {
		t.Errorf("%d muted, %d came to postrouting, want 2 and the 2 from before", n, post)
	}
	blue.Ping(red.IP(lab.V4))
}
