// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

func sixtyFour(t *testing.T, prefix string) *bench {
	t.Helper()
	b := newBench(t, Config{Prefix64: netip.MustParsePrefix(prefix)})
	b.world.has("example. 3600 IN SOA ns. root. 1 2 3 4 60",
		"four.example. 900 IN A 192.0.2.33", "both.example. 60 IN A 192.0.2.34", "both.example. 60 IN AAAA 2001:db8::34",
		"mapped.example. 60 IN A 192.0.2.35", "mapped.example. 60 IN AAAA ::ffff:192.0.2.35",
		"alias.example. 60 IN CNAME four.example.", "loop.example. 60 IN A 127.0.0.1")
	return b
}

// TestDNS64OfAllLengths is the table of RFC 6052 §2.4.
func TestDNS64OfAllLengths(t *testing.T) {
	for prefix, want := range map[string]string{
		"2001:db8::/32":         "2001:db8:c000:221::",
		"2001:db8:100::/40":     "2001:db8:1c0:2:21::",
		"2001:db8:122::/48":     "2001:db8:122:c000:2:2100::",
		"2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::",
		"2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100:0",
		"2001:db8:122:344::/96": "2001:db8:122:344::c000:221",
		"64:ff9b::/96":          "64:ff9b::c000:221",
	} {
		b := sixtyFour(t, prefix)
		got := b.send(query("four.example AAAA"), true)
		if a, ok := got.Answer[0].(*wire.AAAA); !ok || a.AAAA.String() != netip.MustParseAddr(want).String() {
			t.Errorf("%s: got %v, want %s", prefix, got.Answer, want)
		}
		b.world.has("33.2.0.192.in-addr.arpa. 60 IN PTR four.example.")
		if name := reverse6(want); b.ask(name+" PTR") != "NOERROR 33.2.0.192.in-addr.arpa. four.example." {
			t.Errorf("%s: the name of %s: %s", prefix, want, b.ask(name+" PTR"))
		}
	}
}

func TestDNS64(t *testing.T) {
	b := sixtyFour(t, "64:ff9b::/96")
	b.world.rcodes["none.example."] = wire.RcodeNameError
	b.wants("NOERROR 64:ff9b::c000:221", "four.example AAAA")
	b.wants("NOERROR 192.0.2.33", "four.example A")
	b.wants("NOERROR 2001:db8::34", "both.example AAAA")
	b.wants("NOERROR 64:ff9b::c000:223", "mapped.example AAAA")              // RFC 6147 §5.1.4
	b.wants("NOERROR four.example. 64:ff9b::c000:221", "alias.example AAAA") // §5.1.5
	b.wants("NXDOMAIN", "none.example AAAA")                                 // §5.1.2
	b.wants("NOERROR", "empty.example AAAA")
	b.wants("NOERROR", "loop.example AAAA")
	b.wants("NOERROR 64:ff9b::a2c:b", "blue AAAA") // a container without IPv6
	b.wants("NOERROR fd44::10", "red AAAA")
	b.wants("NXDOMAIN", "nobody.sluice.internal AAAA")
	// RFC 6147 §5.5: who checks signatures makes the addresses himself.
	checks := func(m *wire.Msg) { m.CheckingDisabled = true }
	b.wants("NOERROR", "four.example AAAA", edns(1232, true), checks)
	b.wants("NOERROR 64:ff9b::c000:221", "four.example AAAA", edns(1232, true))
	b.wants("NOERROR 64:ff9b::c000:221", "four.example AAAA", checks)
	if m := b.send(query("four.example AAAA", edns(1232, true)), true); m.AuthenticatedData {
		t.Error("what was made here is no authentic data")
	}
}

// TestDNS64Lives as long as the shorter of both answers, RFC 6147 §5.1.7.
func TestDNS64Lives(t *testing.T) {
	b := sixtyFour(t, "64:ff9b::/96")
	ttl := func() uint32 {
		return b.send(query("four.example AAAA"), true).Answer[0].Header().Ttl
	}
	if got := ttl(); got != 900 {
		t.Errorf("TTL %d, want that of the A record", got)
	}
	b.late += 30 * time.Second
	if got := ttl(); got > 870 {
		t.Errorf("TTL %d after 30 s", got)
	}
	b.Flush("")
	delete(b.world.records, "example. SOA")
	if got := ttl(); got != mostSynthesised {
		t.Errorf("TTL %d without a SOA", got)
	}
}

// TestPrefixIsDiscovered: RFC 7050 §3, without asking anybody.
func TestPrefixIsDiscovered(t *testing.T) {
	b := sixtyFour(t, "64:ff9b::/96")
	b.wants("NOERROR 64:ff9b::c000:aa 64:ff9b::c000:ab", "ipv4only.arpa AAAA")
	b.wants("NOERROR 192.0.0.170 192.0.0.171", "ipv4only.arpa A")
	b.wants("NOERROR", "ipv4only.arpa MX")
	if got := b.world.questions(); len(got) > 0 {
		t.Errorf("asked %q", got)
	}
}
