// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"fmt"
	"net/netip"
	"strings"

	"sigs.k8s.io/knftables"
)

// Published is a port of the host, or a range of them, that leads to a container behind
// an uplink.
type Published struct {
	Proto string // tcp, udp or sctp
	// Addr is the host's; not valid: any of them.
	Addr        netip.Addr
	First, Last uint16
	// To is the container's address. Addr, if it is valid, is of the same family.
	To      netip.Addr
	ToFirst uint16
}

// Theory of operation.
//
// What comes to an address of the host, or is sent to one by the host itself, has its
// destination translated, once: what leaves by the uplink is for the container. The
// source stays as it is, but where the answer would not come back:
//
//   - a container that reaches itself or a neighbour by an address of the host would be
//     answered directly (hairpin);
//   - 127.0.0.1 means another host in the container.
//
// For the latter the kernel must let 127.0.0.0/8 out by the uplink's interface, and its
// answers in: route_localnet of that interface, and of no other. Whoever is at its other
// end could then reach services of the host's loopback (CVE-2020-8558), were it not for
// two rules before all translation: from there nothing is for such an address, or from
// one. IPv6 has no such switch: ::1 is never translated.

// rule translates the destination. local is whether the host's own packets are meant.
func (p *Published) rule(local bool) []string {
	var match string
	switch {
	case p.Addr.IsValid() && p.Addr.IsLoopback() && (!local || p.Addr.Is6()):
		return nil
	case p.Addr.IsValid():
		match = ip(p.Addr) + " daddr " + p.Addr.String()
	case p.To.Is4():
		match = "meta nfproto ipv4 fib daddr type local"
	default:
		match = "fib daddr type local ip6 daddr != ::1"
	}
	ports := fmt.Sprint(p.First)
	if p.First != p.Last {
		ports = fmt.Sprintf("%d-%d", p.First, p.Last)
	}
	return []string{fmt.Sprintf("%s %s dport %s dnat %s to %s", match, p.Proto, ports, ip(p.To), p.target())}
}

// target is what the destination becomes. The kernel takes any port of a range that is
// free, so one that is shifted is a map.
func (p *Published) target() string {
	switch {
	case p.First == p.ToFirst:
		return p.To.String()
	case p.First == p.Last && p.To.Is4():
		return fmt.Sprintf("%s:%d", p.To, p.ToFirst)
	case p.First == p.Last:
		return fmt.Sprintf("[%s]:%d", p.To, p.ToFirst)
	}
	var b strings.Builder
	for i := range int(p.Last-p.First) + 1 {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d : %d", int(p.First)+i, int(p.ToFirst)+i)
	}
	return fmt.Sprintf("%s : %s dport map { %s }", p.To, p.Proto, b.String())
}

// loopback reports whether 127.0.0.1 leads to it.
func (p *Published) loopback() bool {
	return p.To.Is4() && (!p.Addr.IsValid() || p.Addr.IsLoopback())
}

// localnet reports whether the interface has to let 127.0.0.0/8 through.
func (c *Config) localnet() bool {
	for i := range c.Published {
		if c.Published[i].loopback() {
			return true
		}
	}
	return false
}

// publishing are the chains of what is published, none if nothing is.
func publishing(c *Config) []chain {
	if len(c.Published) == 0 {
		return nil
	}
	in := chain{name: chainIn, kind: knftables.NATType, hook: knftables.PreroutingHook, priority: knftables.DNATPriority}
	own := chain{name: chainOut, kind: knftables.NATType, hook: knftables.OutputHook, priority: knftables.DNATPriority}
	for i := range c.Published {
		in.rules = append(in.rules, c.Published[i].rule(false)...)
		own.rules = append(own.rules, c.Published[i].rule(true)...)
	}
	all := []chain{in, own}
	if c.localnet() {
		from := fmt.Sprintf("iifname %q", c.IfName)
		all = append(all, chain{
			name: chainMartians, kind: knftables.FilterType, hook: knftables.PreroutingHook, priority: knftables.RawPriority,
			rules: []string{from + " ip daddr 127.0.0.0/8 counter drop", from + " ip saddr 127.0.0.0/8 counter drop"},
		})
	}
	return all
}

// homeward are the rules that translate the source where the answer would not come
// back.
func homeward(c *Config) (rules []string) {
	if len(c.Published) == 0 {
		return nil
	}
	rules = append(rules, fmt.Sprintf("iifname %q oifname %q ct status dnat masquerade", c.IfName, c.IfName))
	if c.localnet() {
		rules = append(rules, fmt.Sprintf("ip saddr 127.0.0.0/8 oifname %q masquerade", c.IfName))
	}
	return rules
}

// localnet lets 127.0.0.0/8 out by the interface and in again, or ends that. It comes
// after the table that guards it, and ends before.
func localnet(c *Config) error {
	name := "ipv4/conf/" + c.IfName + "/route_localnet"
	want := "0"
	if c.localnet() {
		want = "1"
	}
	if readSysctl(name) == want {
		return nil
	}
	return writeSysctl(name, want)
}

// ip is nft's word for a family.
func ip(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}
