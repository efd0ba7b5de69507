// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// named is a namespace whose containers have names, and a network with a resolver of
// the world, of which they are not told.
const named = `namespaces:
  - name: shop
    nat: [postrouting oifname wan masquerade]
    nat64: {masquerade: wan}
    routes: [198.51.100.0/24 via 192.0.2.99]
    dns: {domain: shop.example, upstreams: [192.0.2.99, "fd02::99"], via: namespace}
networks:
  - {name: wan, namespace: shop, subnets: [192.0.2.0/24, "fd02::/64"], dns: false}
  - {name: web, namespace: shop, subnets: [10.50.0.0/24, "fd50::/64"]}
  - {name: db, namespace: shop, subnets: [10.51.0.0/24]}
`

// digger asks the gateway of a container.
type digger struct {
	ns      *lab.NS
	gateway string
}

// dig is the answer in short, or the status and the flags if there is none.
func (g digger) dig(args ...string) string {
	out := g.ns.Try(append([]string{"dig", "+time=5", "+tries=1", "@" + g.gateway, "+nosearch"}, args...)...).Out
	var answers []string
	section := false
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch words := strings.Fields(line); {
		case strings.Contains(line, "status: ") && !strings.Contains(line, "NOERROR"):
			_, status, _ := strings.Cut(line, "status: ")
			status, _, _ = strings.Cut(status, ",")
			answers = append(answers, status)
		case strings.HasSuffix(line, "ANSWER SECTION:"):
			section = true
		case line == "":
			section = false
		case section && len(words) > 4:
			answers = append(answers, strings.Join(words[4:], " "))
		case strings.Contains(line, "timed out"), strings.Contains(line, "no servers could be reached"):
			return "nothing"
		}
	}
	return strings.Join(answers, " ")
}

func (g digger) wants(t *testing.T, want string, args ...string) {
	t.Helper()
	if got := g.dig(args...); got != want {
		t.Errorf("dig %s: got %q, want %q", strings.Join(args, " "), got, want)
	}
}

func dnsStats(d *lab.Daemon) api.DNSStats {
	var all []api.DNSStats
	d.CLI("dns", "stats", "-o", "json").JSON(&all)
	if len(all) == 0 {
		return api.DNSStats{}
	}
	return all[0]
}

func TestDNSOfTheNamespace(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(named)
	world := l.NS("world").Attach("--network", "wan", "--ip", "192.0.2.99", "--ip6", "fd02::99", "--set", "guard off")
	resolver := world.Traffic("resolver", "-listen", "192.0.2.99:53").Ready()
	red := l.NS("red").Attach("--network", "web", "--name", "red", "--alias", "www")
	l.NS("green").Attach("--network", "db", "--name", "green")
	four, six := digger{red, "10.50.0.1"}, digger{red, "fd50::1"}

	for _, g := range []digger{four, six} {
		for _, over := range []string{"+notcp", "+tcp"} {
			g.wants(t, "10.50.0.2", over, "red")
			g.wants(t, "fd50::2", over, "AAAA", "www.web.shop.example")
			g.wants(t, "10.51.0.2", over, "green.db")
			g.wants(t, "green.db.shop.example.", over, "-x", "10.51.0.2")
			g.wants(t, "NXDOMAIN", over, "nobody.shop.example")
			g.wants(t, "", over, "MX", "green") // there is a green, without MX
			g.wants(t, "198.51.100.7", over, "a.world.test")
			g.wants(t, "NXDOMAIN", over, "none-a.world.test")
			g.wants(t, "64:ff9b::c633:6407", over, "AAAA", "a.world.test")
			g.wants(t, "2001:db8::7", over, "AAAA", "both-a.world.test")
			g.wants(t, "SERVFAIL", over, "fail-a.world.test")
			g.wants(t, "198.51.100.7", over, "small-a-name-of-many-letters.world.test")
		}
	}
	for range 2 { // the second time out of the cache
		if out := red.Run("dig", "@10.50.0.1", "TXT", "big-a.world.test", "+ignore"); !strings.Contains(out, " tc") {
			t.Errorf("a long answer over UDP is not truncated:\n%s", out)
		}
		if got := four.dig("TXT", "big-a.world.test"); strings.Count(got, "xxx\"") != 30 {
			t.Errorf("a long answer: %q", got)
		}
	}
	four.wants(t, "64:ff9b::c633:6407", "AAAA", "a.world.test", "+dnssec")
	four.wants(t, "", "AAAA", "a.world.test", "+dnssec", "+cdflag")
	// The address that was made leads to who has the IPv4 one.
	world.Run("ip", "addr", "add", "198.51.100.7/32", "dev", "lo")
	world.Run("ip", "link", "set", "lo", "up")
	red.Ping(netip.MustParseAddr("64:ff9b::c633:6407"))
	world.Serve()
	send := red.Traffic("send", "-both", "-bytes", "4000000", "-to", netip.AddrPortFrom(netip.MustParseAddr("64:ff9b::c633:6407"), lab.Port).String())
	if r := lab.Report[report.Stream](send, time.Minute); !r.OK {
		t.Errorf("TCP to a made address: %+v", r)
	}
	s := dnsStats(d)
	var r report.Answers
	resolver.Stop().JSON(&r)
	if s.Hits < 20 || s.Forwarded > 16 || s.OverTCP < 2 || s.Failed > 0 || r.Questions > s.Sent {
		t.Errorf("of %d questions %d reached the world: %+v", s.Queries, r.Questions, s)
	}
	four.wants(t, "198.51.100.7", "a.world.test") // the world is gone, the cache is not
	if got := d.CLI("dns").Out; !strings.Contains(got, "www.web.shop.example 10.50.0.2, fd50::2") || strings.Contains(got, "world") {
		t.Errorf("names:\n%s", got)
	}
	d.CLI("dns", "flush").Expect(0)
	four.wants(t, "SERVFAIL", "a.world.test")
	four.wants(t, "10.51.0.2", "green")
	if n := strings.Count(d.Log(), "DNS upstream does not answer"); n < 1 || n > 3 {
		t.Errorf("%d lines say that an upstream does not answer", n)
	}
	if got := (digger{world, "10.50.0.1"}).dig("+time=1", "green"); got != "nothing" {
		t.Errorf("who is in no network with DNS was told %q", got)
	}

	d.KillDataplane()
	l.Eventually("names after a crash", patience, func() bool { return four.dig("green") == "10.51.0.2" })
	d.KillAgent()
	four.wants(t, "10.51.0.2", "green")
	d.Start()
	four.wants(t, "10.51.0.2", "green")
}

// TestDNSByTheHost: the resolver is one that only the host reaches, and the namespace
// has no way out.
func TestDNSByTheHost(t *testing.T) {
	l := lab.New(t)
	host := l.NS("host")
	host.Run("ip", "link", "set", "lo", "up")
	resolver := host.Traffic("resolver", "-listen", "127.0.0.53:53").Ready()
	d := l.DaemonIn(host, `namespaces: [{name: blue, dns: {upstreams: [127.0.0.53]}}]
networks:
  - {name: blue, subnets: [10.44.0.0/24, "fd44::/64"], dhcp: {}, advertise: {}}
`)
	red := l.NS("red").Attach("--network", "blue", "--name", "red")
	red.TryAttach("--ifname", "eth1", "-o", "json", "--network", "blue").Expect(0, `"dns":["10.44.0.1","fd44::1"]`, `"search":["blue.sluice.internal","sluice.internal"]`)
	g := digger{red, "10.44.0.1"}
	g.wants(t, "198.51.100.7", "a.world.test")
	g.wants(t, "198.51.100.7", "+tcp", "b.world.test")
	if got := g.dig("TXT", "big-a.world.test"); strings.Count(got, "xxx\"") != 30 {
		t.Errorf("a long answer: %q", got)
	}
	if out := red.Run("rdisc6", "-1", "eth0"); !strings.Contains(out, "fd44::1") || !strings.Contains(out, "DNS server") {
		t.Errorf("the advertisement does not tell of the DNS:\n%s", out)
	}

	d.KillDataplane()
	l.Eventually("an answer after a crash", patience, func() bool { return g.dig("c.world.test") == "198.51.100.7" })
	d.KillAgent()
	g.wants(t, "198.51.100.7", "c.world.test") // is in the cache
	d.Start()
	l.Eventually("an answer by the next agent", patience, func() bool { return g.dig("d.world.test") == "198.51.100.7" })

	resolver.Kill()
	g.wants(t, "SERVFAIL", "e.world.test")
	d.CLI("dns", "stats").Expect(0, "upstream 127.0.0.53:53 via host state down")
	host.Traffic("resolver", "-listen", "127.0.0.53:53").Ready()
	l.Eventually("an answer of a resolver that is back", patience, func() bool { return g.dig("e.world.test") == "198.51.100.7" })
}
