// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
)

// datagrams is a program that sends n datagrams from port 9000 to port 9001, says so, and
// prints what comes to port 9000 within some seconds.
func datagrams(to string, n, seconds int) string {
	return fmt.Sprintf(`import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9000))
for i in range(%d):
    s.sendto(b"x" * 100, (%q, 9001))
print("sent", flush=True)
s.settimeout(%d)
try:
    print(s.recv(2000))
except OSError: pass
`, n, to, seconds)
}

// hitsOf are the hits and misses of the flow cache by what came from a container.
func hitsOf(t *testing.T, d *lab.Daemon, name string) (hits, misses uint64) {
	t.Helper()
	for _, l := range d.Links() {
		if l.Name == name {
			return l.Stats.FlowHits, l.Stats.FlowMisses
		}
	}
	t.Fatalf("no link %q", name)
	return 0, 0
}

// TestNFTDropsAreRemembered: who sends what policy forbids does it by hits of the flow
// cache; each packet is counted, none begins a connection, and it ends at once when the
// other side opens the connection, an element of a set goes, or the rule does.
func TestNFTDropsAreRemembered(t *testing.T) {
	d, red, blue := apart(t, `table inet filter {
	set bad {
		type ipv4_addr
		flags timeout
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established counter accept comment "answers"
		ip saddr @bad counter drop comment "bad"
		iifname "web" udp dport 9001 counter drop comment "udp"
	}
	chain input {
		type filter hook input priority filter; policy accept;
		icmp type echo-request counter drop comment "own"
	}
}`)
	to, from := blue.IP(lab.V4).String(), red.IP(lab.V4).String()
	blue.Ping(red.IP(lab.V4)) // so that the gateway knows them
	red.Ping(blue.IP(lab.V4))
	d.CLI("conntrack", "-F").Expect(0)
	hits, misses := hitsOf(t, d, "red")
	red.Try("python3", "-c", datagrams(to, 300, 0)).Expect(0)
	red.Try("ping", "-c", "100", "-i", "0.002", "-W", "1", outside(d, "web", lab.V4).String()).Expect(1, "100 packets transmitted, 0 received")
	h, m := hitsOf(t, d, "red")
	if h-hits < 390 || m-misses > 20 {
		t.Errorf("%d hits and %d misses of 400 packets of two flows", h-hits, m-misses)
	}
	if udp, own := counts(t, d, `"udp"`), counts(t, d, `"own"`); udp != 300 || own != 100 {
		t.Errorf("%d datagrams and %d pings are counted, want 300 and 100", udp, own)
	}
	d.CLI("-s", "link", "show", "red").Expect(0, "nft_drop")
	if out := d.CLI("conntrack", "-L").Out; strings.Contains(out, "9001") {
		t.Errorf("connections of what was dropped: %s", out)
	}

	// The same tuple, when blue has begun.
	p := red.Start("python3", "-c", datagrams(to, 100, 20))
	d.Lab().Eventually("all is sent", patience, func() bool { return strings.Contains(p.Output(), "sent") })
	blue.Try("python3", "-c", fmt.Sprintf(`import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9001))
s.sendto(b"begins", (%q, 9000))
`, from)).Expect(0)
	p.Wait(patience).Expect(0, "begins")
	before := counts(t, d, `"answers"`)
	red.Try("python3", "-c", datagrams(to, 100, 0)).Expect(0)
	if n := counts(t, d, `"answers"`) - before; n != 100 {
		t.Errorf("%d answers pass, want 100", n)
	}

	// As long as an element lives.
	d.CLI("nft", "add", "element", "inet", "filter", "bad", "{", from, "timeout", "2s", "}").Expect(0)
	pings := red.Start("ping", "-c", "300", "-i", "0.01", "-W", "1", to)
	if r := pings.Wait(20 * time.Second); !strings.Contains(r.Out, "300 packets transmitted") || strings.Contains(r.Out, " 0 received") || strings.Contains(r.Out, " 300 received") {
		t.Errorf("the element stays, or was not there: %s", r.Out)
	}
	d.CLI("nft", "add", "rule", "inet", "filter", "forward", "icmp", "type", "echo-request", "counter", "drop").Expect(0)
	red.NoPing(blue.IP(lab.V4))
	d.CLI("nft", "flush", "ruleset").Expect(0)
	red.Ping(blue.IP(lab.V4))
}
