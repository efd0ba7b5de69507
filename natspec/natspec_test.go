// SPDX-License-Identifier: Apache-2.0

package natspec_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/conntrack"
	"sluice/nat"
	"sluice/natspec"
	"sluice/routing"
)

// statements are some, and their one spelling if that is another.
func statements() map[string]string {
	return map[string]string{
		"postrouting oifname wan masquerade":                                                         "",
		"postrouting oifname wan masquerade to :1024-65535 fully-random,persistent":                  "postrouting oifname wan masquerade to :1024-65535 random,persistent",
		"postrouting ip saddr 10.44.0.7/24 oifname wan snat to 192.0.2.1-192.0.2.4":                  "postrouting oifname wan ip saddr 10.44.0.0/24 snat to 192.0.2.1-192.0.2.4",
		"postrouting ip6 saddr != { fd00::/64,fd01::1 } snat ip6 to fd02::1":                         "postrouting ip6 saddr != { fd00::/64, fd01::1 } snat to [fd02::1]",
		"prerouting iifname wan tcp dport 8080 dnat to 10.44.0.5:80":                                 "",
		"prerouting iif { wan, lan } udp dport { 53, 100-200 } dnat to [fd00::5]:53":                 "prerouting iifname { wan, lan } udp dport { 53, 100-200 } dnat to [fd00::5]:53",
		"prerouting tcp dport 80 redirect to :8080":                                                  "",
		"prerouting ip daddr 10.9.0.0/24 dnat prefix to 10.8.0.0/24":                                 "",
		"postrouting ip saddr 10.8.0.0/24 snat ip prefix to 10.9.0.0/24":                             "postrouting ip saddr 10.8.0.0/24 snat prefix to 10.9.0.0/24",
		"prerouting meta l4proto { tcp, udp } th dport 53 fib daddr type local dnat to :5353":        "prerouting fib daddr type local meta l4proto { tcp, udp } th dport 53 dnat to :5353",
		"output ip protocol icmp dnat to 10.0.0.1":                                                   "output meta l4proto icmp dnat to 10.0.0.1",
		"postrouting meta mark & 0xff == 0x1 masquerade random":                                      "postrouting meta mark and 0xff == 0x1 masquerade random",
		"postrouting iifname lan oifname != lan meta mark 7 tcp sport 1-9 tcp dport 80 accept":       "postrouting iifname lan oifname != lan tcp sport 1-9 tcp dport 80 meta mark 0x7 accept",
		"prerouting tcp dport 80 dnat to fd00::5":                                                    "prerouting tcp dport 80 dnat to [fd00::5]",
		"postrouting ip saddr 10.0.0.1 snat to 192.0.2.1:1024-2047 persistent":                       "",
		"postrouting fib daddr type != local oifname wan ip daddr 10.0.0.0/8 snat to 192.0.2.1:7-7 ": "postrouting oifname wan ip daddr 10.0.0.0/8 fib daddr type != local snat to 192.0.2.1:7",
		"prerouting dnat to tcp dport map { 80 : 10.0.0.1 . 8080, 443 : 10.0.0.2 . 8443 }":           "prerouting dnat to tcp dport map { 443 : 10.0.0.2 . 8443, 80 : 10.0.0.1 . 8080 }",
		"postrouting oifname wan snat to ip saddr map { 10.44.0.2 : 192.0.2.2 } persistent":          "",
		"prerouting iifname wan dnat to ip daddr . udp dport map { 192.0.2.1 . 53 : 10.0.0.1 . 53 }": "",
		"prerouting dnat to ip6 daddr . meta l4proto map { fd00::1 . tcp : fd00::2 }":                "",
		"prerouting dnat to ip daddr . tcp dport map @ports":                                         "",
	}
}

func TestStatements(t *testing.T) {
	for text, want := range statements() {
		if want == "" {
			want = text
		}
		s, err := natspec.Parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := s.String(); got != want {
			t.Errorf("%q\n is %q\nnot %q", text, got, want)
		}
	}
}

// TestNftReadsStatements has nft(8) read what String writes: the words are its own. It
// wants a protocol where a port is translated, which Sluice does not.
func TestNftReadsStatements(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and nft")
	}
	for text := range statements() {
		s, err := natspec.Parse(text)
		if err != nil {
			continue // TestStatements says so
		}
		hook, rule, _ := strings.Cut(s.String(), " ")
		family, priority := "ip", "-100"
		if strings.Contains(rule, "fd0") {
			family = "ip6"
		}
		if hook == "postrouting" || hook == "input" {
			priority = "100"
		}
		named := ""
		if s.MapName() != "" {
			named = "map " + s.MapName() + " {\ntype ipv4_addr . inet_service : ipv4_addr . inet_service;\nelements = { 192.0.2.1 . 80 : 10.0.0.1 . 8080 }\n}\n"
		}
		chain := fmt.Sprintf("table %s t {\n"+named+"chain c {\ntype nat hook %s priority %s;\n%s\n}\n}\n", family, hook, priority, rule)
		cmd := exec.Command("nft", "-c", "-f", "-")
		cmd.Stdin = strings.NewReader(chain)
		if out, err := cmd.CombinedOutput(); err != nil && !strings.Contains(string(out), "transport protocol mapping is only valid") {
			t.Errorf("%s%s", chain, out)
		}
	}
}

func TestWrongStatements(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "want prerouting, output, input or postrouting at the end",
		"forward":                           `"forward": want prerouting`,
		"prerouting":                        "want iifname, oifname",
		"postrouting oifname wan masqerade": `"masqerade": want iifname`,
		"postrouting oifname wan masquerade to 80":                          `"80": want ports`,
		"postrouting ip saddr fd00::1 masquerade":                           `"fd00::1": want an IPv4 address`,
		"postrouting snat to 192.0.2.4-192.0.2.1":                           "of one family",
		"postrouting snat to 192.0.2.4:0":                                   "want ports behind the colon",
		"postrouting dnat to 192.0.2.4":                                     "dnat in postrouting",
		"prerouting masquerade":                                             "masquerade in prerouting",
		"prerouting oifname wan dnat to 10.0.0.1":                           "knows no such device",
		"prerouting tcp dport 80 udp dport 80 dnat to 10.0.0.1":             "another protocol",
		"prerouting tcp dport 90-80 dnat to 10.0.0.1":                       "want a port or a range",
		"prerouting dnat to 10.0.0.1 quickly":                               `"quickly": want random`,
		"prerouting dnat ip6 to 10.0.0.1":                                   "family",
		"prerouting accept twice":                                           "nothing may follow",
		"prerouting iifname { a b } accept":                                 `"b": want ,`,
		"prerouting dnat prefix to 10.0.0.1:80":                             "want a prefix",
		"prerouting fib saddr type local accept":                            "want daddr",
		"prerouting dnat to ip daddr . ip saddr map @m":                     "at most one address",
		"prerouting dnat to tcp dport @m":                                   "want map",
		"prerouting dnat to tcp dport map m":                                "want @",
		"prerouting dnat to tcp flags map @m":                               "want ip saddr or daddr",
		"prerouting dnat to tcp dport map { 80 : }":                         "want what it becomes",
		"prerouting dnat to tcp dport map { 80 : 10.0.0.1, 80 : 10.0.0.2 }": "twice",
		"prerouting udp sport 1 dnat to tcp dport map @m":                   "another protocol",
		"prerouting snat to ip saddr map @m":                                "snat in prerouting",
		"prerouting dnat to ip daddr map { fd00::1 : 10.0.0.1 }":            "type ipv4_addr",
	} {
		_, err := natspec.Parse(text)
		if _, ok := errors.AsType[*routing.ParseError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}

func TestRule(t *testing.T) {
	s, err := natspec.Parse("postrouting iifname != lan oifname wan ip saddr 10.0.0.0/8 snat to 192.0.2.1:1024-2047 random")
	if err != nil {
		t.Fatal(err)
	}
	index := func(name string) (uint16, bool) {
		n, ok := map[string]uint16{"lan": 1, "wan": 2}[name]
		return n, ok
	}
	got, ok := s.Rule(index, nil)
	want := nat.Rule{
		Name: s.String(), Hook: nat.Postrouting, Kind: nat.SNAT, Random: true,
		Match:  nat.Match{In: []uint16{1}, NotIn: true, Out: []uint16{2}, Src: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		Target: nat.Target{Addrs: nat.One(netip.MustParseAddr("192.0.2.1")), Ports: nat.PortRange{Min: 1024, Max: 2047}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || !ok {
		t.Errorf("%v (-want +got):\n%s", ok, diff)
	}
	if _, ok := s.Rule(func(string) (uint16, bool) { return 0, false }, nil); ok {
		t.Error("a rule of devices that are not there")
	}
}

func TestPublished(t *testing.T) {
	for text, want := range map[string]string{
		"tcp 8080 to web:80":                    "tcp 8080 to web:80",
		"udp 5000-5010 to game":                 "udp 5000-5010 to game:5000-5010",
		"tcp 192.0.2.1:443 to web:8443":         "tcp 192.0.2.1:443 to web:8443",
		"sctp [fd00::1]:1-3 to web:11-13":       "sctp [fd00::1]:1-3 to web:11-13",
		"icmp 8 to web":                         "! want tcp",
		"tcp 80":                                "! want to",
		"tcp 80-90 to web:1-2":                  "! want as many",
		"tcp 0 to web":                          "! want a port",
		"tcp fd00::1:80 to web":                 "! want an address",
		"tcp 80 to web:80 udp":                  "! nothing",
		"tcp 80 to :80":                         "! want the name",
		"tcp " + strings.Repeat("1", 9) + " to": "! want a port",
	} {
		p, err := natspec.ParsePublish(text)
		reason, wrong := strings.CutPrefix(want, "! ")
		switch {
		case wrong && (err == nil || !strings.Contains(err.Error(), reason)):
			t.Errorf("%q: %v, want %q", text, err, reason)
		case !wrong && (err != nil || p.String() != want):
			t.Errorf("%q: %q, %v", text, p, err)
		}
	}
}

func TestPublishedRules(t *testing.T) {
	p, err := natspec.ParsePublish("tcp 8080-8081 to web:80-81")
	if err != nil {
		t.Fatal(err)
	}
	rules := p.Rules([]netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("10.0.0.3")})
	if len(rules) != 4 {
		t.Fatalf("%d rules, want one for each family and hook", len(rules))
	}
	if _, err := nat.Compile(append(rules, natspec.Hairpin())); err != nil {
		t.Error(err)
	}
	if p.Addr = netip.MustParseAddr("fd00::1"); len(p.Rules([]netip.Addr{netip.MustParseAddr("10.0.0.2")})) != 0 {
		t.Error("an IPv6 address is published for IPv4")
	}
}

func TestOverlaps(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"tcp 80 to a", "tcp 80 to b", true},
		{"tcp 80 to a", "udp 80 to b", false},
		{"tcp 80-90 to a", "tcp 90-99 to b", true},
		{"tcp 80-90 to a", "tcp 91 to b", false},
		{"tcp 10.0.0.1:80 to a", "tcp 10.0.0.2:80 to b", false},
		{"tcp 10.0.0.1:80 to a", "tcp 80 to b", true},
	} {
		a, _ := natspec.ParsePublish(tt.a)
		b, _ := natspec.ParsePublish(tt.b)
		if a.Overlaps(b) != tt.want || b.Overlaps(a) != tt.want {
			t.Errorf("%s, %s: want %v", tt.a, tt.b, tt.want)
		}
	}
}

func TestConntrackOptions(t *testing.T) {
	for line, want := range map[string]natspec.Request{
		"-L": {Command: 'L'},
		"-L conntrack -p tcp --dport 80 -s 10.0.0.0/8 -o extended,id": {Command: 'L', Flags: conntrack.ListExtended | conntrack.ListID, Filter: conntrack.Filter{
			Proto: 6, Original: conntrack.TupleFilter{Src: netip.MustParsePrefix("10.0.0.0/8"), DstPort: 80},
		}},
		"-ptcp --sport=7 -D -m 0x1/0xff": {Command: 'D', Filter: conntrack.Filter{Proto: 6, Original: conntrack.TupleFilter{SrcPort: 7}, Mark: 1, MarkMask: 255}},
		"-L -n -g fd00::1 -f ipv6 -u ASSURED": {Command: 'L', Filter: conntrack.Filter{
			Family: 6, With: conntrack.SrcNAT | conntrack.DstNAT | conntrack.Assured, Reply: conntrack.TupleFilter{Src: netip.MustParsePrefix("fd00::1/128")},
		}},
		"-L -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 9": {Command: 'L', Filter: conntrack.Filter{Proto: 1, Original: conntrack.TupleFilter{SrcPort: 9, SrcBits: 0xffff, DstPort: 0x800, DstBits: 0xffff}}},
		"-D -p icmp --icmp-type 0 --icmp-id 0":               {Command: 'D', Filter: conntrack.Filter{Proto: 1, Original: conntrack.TupleFilter{SrcBits: 0xffff, DstBits: 0xff00}}},
		"--dump --state established -w 3 -q 10.0.0.1 -i 5 -j": {Command: 'L', Filter: conntrack.Filter{
			State: "ESTABLISHED", HasZone: true, Zone: 3, ID: 5, AnyNAT: true, Reply: conntrack.TupleFilter{Dst: netip.MustParsePrefix("10.0.0.1/32")},
		}},
	} {
		got, err := natspec.ParseConntrack(strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if got.Command != want.Command || got.Filter != want.Filter || got.Flags != want.Flags {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
	}
	for line, want := range map[string]string{
		"": "need one of", "-L -D": "one command", "-L expect": "the only table", "-L -p frob": "want a protocol", "-L -z": "counters", "-L --dport": "needs an argument",
		"-L --icmp-type 8": "needs -p icmp", "-L --frob": "no option", "-E -e NEW,OLD": "want NEW", "-L --sport 1-2": "want a port",
	} {
		if _, err := natspec.ParseConntrack(strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

// FuzzWords: any words are refused, or understood again when they are written out.
func FuzzWords(f *testing.F) {
	for _, text := range []string{
		"postrouting ip saddr { 10.0.0.0/8, 10.1.0.0/16 } oifname != wan snat to 192.0.2.1-192.0.2.4:1-9 random",
		"prerouting fib daddr type local meta mark and 0xff == 1 tcp dport 80 dnat to [fd00::1]:80",
		"prerouting ip daddr 10.9.0.0/24 dnat prefix to 10.8.0.0/24", "tcp [fd00::1]:80-90 to web:1-11", "udp 5 to a", "-L -p tcp --dport 80 -m 1/2 -o id",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := natspec.Parse(text); err == nil {
			again, err := natspec.Parse(s.String())
			if err != nil || again.String() != s.String() {
				t.Fatalf("%q is written %q: %v", text, s, err)
			}
		}
		_, _ = natspec.ParseConntrack(strings.Fields(text))
		if p, err := natspec.ParsePublish(text); err == nil {
			if again, err := natspec.ParsePublish(p.String()); err != nil || again != p {
				t.Fatalf("%q is written %q: %v", text, p, err)
			}
		}
	})
}
