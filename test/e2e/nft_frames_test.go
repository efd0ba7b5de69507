// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"sluice/test/lab"
)

// beside starts a daemon with three containers: red and green are neighbours.
//
//	red, green -- web -- shop -- out -- blue
func beside(t *testing.T, ports string) (d *lab.Daemon, red, green, blue *lab.NS) {
	t.Helper()
	l := lab.New(t)
	if ports != "" {
		ports = ", ports: {" + ports + "}"
	}
	d = l.Daemon(`namespaces:
  - name: shop
networks:
  - {name: out, namespace: shop, subnets: [10.51.0.0/24]}
  - {name: web, namespace: shop, subnets: [10.50.0.0/24]` + ports + "}\n")
	red = l.NS("red").Attach("--network", "web", "--name", "red")
	green = l.NS("green").Attach("--network", "web", "--name", "green")
	blue = l.NS("blue").Attach("--network", "out", "--name", "blue")
	return d, red, green, blue
}

// TestNFTFrames: rules of families bridge, arp and netdev for what goes from neighbour to
// neighbour, by MAC, VLAN and protocol, over the end of either process.
func TestNFTFrames(t *testing.T) {
	d, red, green, blue := beside(t, "guard: off") // its VLAN has other addresses
	load := func(text string) {
		t.Helper()
		d.CLI("nft", "-f", d.Lab().File("frames.nft", "flush ruleset\n"+text)).Expect(0)
	}
	red.VLAN("10.77.0.1/24", "-vid", "7") // which the bridge carries as it is
	tagged := green.VLAN("10.77.0.2/24", "-vid", "7").Addr()
	red.Ping(tagged)
	load(`table bridge filter {
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "red" oifname "green" vlan id 7 counter drop
		ether saddr ` + green.MAC() + ` ip protocol udp counter drop
		ether saddr ` + green.MAC() + ` ip protocol icmp counter comment "there"
	}
}
table bridge early {
	chain prerouting {
		type filter hook prerouting priority dstnat; policy accept;
		tcp dport 81 counter reject with tcp reset
	}
}`)
	red.NoPing(tagged)
	red.Try("ping", "-c", "1", "-W", "5", green.IP(lab.V4).String()).Expect(0)
	green.Serve()
	if r := red.Try("python3", "-c", refusals(green.IP(lab.V4).String(), 81)); !strings.Contains(r.Out, "81 ECONNREFUSED") {
		t.Errorf("refused as %s %s", r.Out, r.Err)
	}
	if n := counts(t, d, `"there"`); n != 1 {
		t.Errorf("%d counted, want the one answer", n)
	}
	d.CLI("-s", "link", "show", "red").Expect(0, "nft_drop")

	// ARP between a container and the gateway.
	load(`table arp filter { chain in { type filter hook input priority filter; arp saddr ip ` + red.IP(lab.V4).String() + ` counter drop; }; }`)
	red.Run("ip", "neigh", "flush", "dev", red.If())
	red.NoPing(blue.IP(lab.V4))
	red.Ping(green.IP(lab.V4))

	// A limit at ingress of one port; another's frames, and those to it, pass.
	load(`table netdev ports {
	chain red-in { type filter hook ingress device "red" priority 0; icmp type echo-request limit rate over 1/hour burst 3 packets counter drop comment "over"; }
	chain green-out { type filter hook egress devices = { "green", "later" } priority 0; ip saddr 10.51.0.0/24 counter drop comment "out"; }
}`)
	red.Try("ping", "-c", "10", "-i", "0.01", "-W", "1", green.IP(lab.V4).String()).Expect(0, "10 packets transmitted, 3 received")
	green.Ping(red.IP(lab.V4))
	blue.NoPing(green.IP(lab.V4))
	blue.Ping(red.IP(lab.V4))
	// The device may come later.
	late := d.Lab().NS("late").Attach("--network", "web", "--name", "later")
	blue.NoPing(late.IP(lab.V4))
	green.Ping(late.IP(lab.V4))
	kept(d)
	over := counts(t, d, `"over"`)
	for _, kill := range []func(){func() { d.KillDataplane() }, func() { d.KillBoth(); d.Launch() }} {
		kill()
		d.Lab().Eventually("the way to red is open", patience, func() bool { return blue.TryPing(red.IP(lab.V4), 1).Code == 0 })
		blue.NoPing(late.IP(lab.V4))
		d.Lab().Eventually("the counters are back", patience, func() bool { return counts(t, d, `"over"`) == over })
	}
}

// TestNFTPorts: the ports of a network have a ruleset, and one of them another by
// `sluice nft --port`, which outlives both processes and the file.
func TestNFTPorts(t *testing.T) {
	const chain = `table netdev own { chain in { type filter hook ingress device "port" priority 0; icmp type echo-request ip daddr 10.51.0.0/24 counter drop; }; }`
	d, red, green, blue := beside(t, "nft: '"+chain+"'")
	red.NoPing(blue.IP(lab.V4))
	green.NoPing(blue.IP(lab.V4))
	red.Ping(green.IP(lab.V4))
	blue.Ping(red.IP(lab.V4))
	d.CLI("nft", "--port", "red", "list", "ruleset").Expect(0, `device "port"`, "counter packets 1 bytes 84 drop")
	if out := d.CLI("nft", "list", "ruleset").Out; out != "" {
		t.Errorf("the namespace lists %s", out)
	}
	d.CLI("nft", "--port", "green", "flush", "ruleset").Expect(1)
	d.CLI("nft", "--port", "green", "-f", d.Lab().File("own.nft", `flush ruleset
table netdev mine {
	chain out { type filter hook egress device "port" priority 0; ip saddr `+red.IP(lab.V4).String()+` counter drop; }
}
`)).Expect(0)
	d.CLI("nft", "--port", "nobody", "list", "ruleset").Expect(1)
	check := func() {
		t.Helper()
		d.Lab().Eventually("green has its own", patience, func() bool { return green.TryPing(blue.IP(lab.V4), 1).Code == 0 })
		red.NoPing(green.IP(lab.V4))
		red.NoPing(blue.IP(lab.V4))
	}
	check()
	d.KillBoth()
	d.Launch()
	check()
	d.CLI("nft", "--port", "green", "flush", "ruleset").Expect(0) // the network's is back
	green.NoPing(blue.IP(lab.V4))
	red.Ping(green.IP(lab.V4))
}
