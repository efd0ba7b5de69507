// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
)

const talkative = `table inet told {
	chain pre {
		type filter hook prerouting priority raw; policy accept;
		udp dport 9 meta nftrace set 1
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		icmp type echo-request log prefix "ping: " level info flags ether
		icmpv6 type echo-request log group 3 prefix "ping6: "
		udp dport 9 counter drop
	}
}
`

// TestNFTTold: who listens hears of transactions as by nft monitor, of traced packets as
// by nft monitor trace, and of log statements, which the daemon's log has too; a flood
// is bounded, and what was too much is counted.
func TestNFTTold(t *testing.T) {
	d, red, blue := apart(t, "")
	l := d.Lab()
	monitor := l.Start(d.Command("nft", "monitor")...).Connected()
	rules := l.Start(d.Command("nft", "-j", "monitor", "new", "rules")...).Connected()
	time.Sleep(300 * time.Millisecond) // they have asked once
	d.CLI("nft", "-f", l.File("told.nft", talkative)).Expect(0)
	heard := func(p *lab.Proc, words string) {
		t.Helper()
		l.Eventually(fmt.Sprintf("%q is heard", words), patience, func() bool { return strings.Contains(p.Output(), words) })
	}
	heard(monitor, "add chain inet told pre { type filter hook prerouting priority raw; policy accept; }\n")
	heard(monitor, "add rule inet told forward udp dport 9 counter packets 0 bytes 0 drop\n")
	heard(monitor, "# new generation 1\n")
	heard(rules, `{"add": {"rule": {"family": "inet", "table": "told", "chain": "forward", "handle": `)
	if out := rules.Output(); strings.Contains(out, "generation") || strings.Contains(out, `"table": {"family"`) {
		t.Errorf("more than rules: %s", out)
	}
	d.CLI("nft", "-e", "add", "set", "inet", "told", "s", "{ type ipv4_addr; }").Expect(0, "add set inet told s { type ipv4_addr; }")
	monitor.Stop()
	rules.Stop()

	trace := l.Start(d.Command("nft", "monitor", "trace")...).Connected()
	logs := l.Start(d.Command("nft", "log")...).Connected()
	time.Sleep(300 * time.Millisecond)
	red.Run("python3", "-c", fmt.Sprintf("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (%q, 9))", blue.IP(lab.V4)))
	heard(trace, fmt.Sprintf(`inet told pre packet: iif "web" ether saddr %v ether daddr `, red.MAC()))
	heard(trace, "ip saddr "+red.IP(lab.V4).String()+" ip daddr "+blue.IP(lab.V4).String())
	heard(trace, "inet told pre rule udp dport 9 meta nftrace set 1 (verdict continue)\n")
	heard(trace, "inet told pre policy accept \n")
	heard(trace, "inet told forward rule udp dport 9 counter packets 0 bytes 0 drop (verdict drop)\n")
	red.Ping(blue.IP(lab.V4))
	red.Ping(blue.IP(lab.V6))
	line := fmt.Sprintf("ping: IN=web OUT=out MACSRC=%v MACDST=", red.MAC())
	heard(logs, "info: "+line)
	heard(logs, fmt.Sprintf(" SRC=%v DST=%v LEN=84 TOS=0x00 PREC=0x00 TTL=63 ID=", red.IP(lab.V4), blue.IP(lab.V4)))
	heard(logs, "PROTO=ICMP TYPE=8 CODE=0 ID=")
	heard(logs, "group 3: ping6: IN=web OUT=out MAC=")
	if text := d.Log(); !strings.Contains(text, line) || strings.Contains(text, "ping6: ") {
		t.Errorf("the daemon's log:\n%s", text)
	}
	red.Try("ping", "-c", "1000", "-i", "0.001", "-q", blue.IP(lab.V4).String())
	heard(logs, "were lost.")
	l.Eventually("the log says how many were too many", patience, func() bool { return strings.Contains(d.Log(), "suppressed=") })
	if n := strings.Count(logs.Output(), " SRC="); n > 600 {
		t.Errorf("%d lines of a flood", n)
	}
	trace.Stop()
	logs.Stop()
}
