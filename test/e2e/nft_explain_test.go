// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"sluice/test/lab"
)

// TestNFTExplain: what is said of a packet that nobody has sent is what becomes of one
// that is sent.
func TestNFTExplain(t *testing.T) {
	d, red, blue := apart(t, "")
	file := d.Lab().File("filter.nft", stateful)
	d.CLI("nft", "explain", "--from", "red", "--to", "blue").Expect(1, "the namespace has no ruleset")
	d.CLI("nft", "-f", file).Expect(0)
	red.Ping(blue.IP(lab.V4))
	blue.NoPing(red.IP(lab.V4))
	d.CLI("nft", "explain", "--from", "red", "--to", "blue", "--proto", "icmp").Expect(0,
		"10.50.0.2 -> 10.51.0.2 icmp, in by web, out by out", `forward: inet filter forward: ip saddr @clients icmp type echo-request counter accept (verdict accept; `+file+":")
	d.CLI("nft", "explain", "--from", "blue", "--to", red.IP(lab.V4).String(), "--proto", "icmp").Expect(1, "=> drop by inet filter forward policy drop")
	d.CLI("nft", "explain", "--from", "red", "--to", "blue", "--port", "7002").Expect(1, "=> drop by inet filter forward: iifname \"web\" meta l4proto . th dport vmap @ports (verdict drop; "+file+":")
	d.CLI("nft", "explain", "--from", "red", "--to", "blue", "--port", "81").Expect(1, "=> reject by inet filter forward: tcp dport 81 counter reject with tcp reset")
	d.CLI("nft", "explain", "--from", "blue", "--to", "red", "--port", "9", "--established").Expect(0, "ct state vmap")
	d.CLI("nft", "explain", "--to", "red", "--port", "9").Expect(0, "=> accept")
	if r := d.CLI("-j", "nft", "explain", "--from", "red", "--to", blue.IP(lab.V6).String(), "--proto", "udp", "--port", "83"); r.Code != 1 || !strings.Contains(r.Out, `"verdict":"reject"`) || !strings.Contains(r.Out, `"handle":`) {
		t.Errorf("%+v", r)
	}
	d.CLI("nft", "explain", "--from", "203.0.113.7", "--to", "red").Expect(1, "say by which device it comes")
	d.CLI("nft", "explain", "--from", "203.0.113.7", "--iif", "out", "--to", "red", "--port", "81").Expect(1, "=> drop: rp_filter")
	d.CLI("nft", "explain", "--from", "nobody", "--to", "red").Expect(1, "neither an address nor an attachment")
	d.CLI("nft", "list", "chain", "inet", "filter", "forward").Expect(0, "dport 81 counter packets 0 bytes 0")

	// Of what is sent, the counters of the port tell which rule has dropped it last.
	red.Try("python3", "-c", refusals(blue.IP(lab.V4).String(), 81))
	d.CLI("-s", "link", "show", "blue").Expect(0, "nft_drop", "last by inet filter forward: policy")
	d.CLI("-s", "link", "show", "red").Expect(0, "nft_reject", "last by inet filter forward: tcp dport 81 counter reject with tcp reset ("+file+":")
	d.CLI("nft", "--port", "blue", "add table netdev own; add chain netdev own in { type filter hook ingress device port priority 0; }; add rule netdev own in icmp type echo-request drop").Expect(0)
	blue.NoPing(red.IP(lab.V4))
	d.CLI("-s", "link", "show", "blue").Expect(0, "last by the port's netdev own in: icmp type echo-request drop (handle 2)")
	d.CLI("nft", "flush", "ruleset").Expect(0)
	d.CLI("-s", "link", "show", "red").Expect(0, "nft_reject 1\n")
}
