// SPDX-License-Identifier: Apache-2.0

package uplink_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"sluice/packet"
	kt "sluice/test/kerneltest"
	"sluice/uplink"
	"sluice/veth"
)

// host is a network namespace that is nobody's, with an interface of its own and one
// end of a pair.
type host struct {
	t  *testing.T
	ns netns.NsHandle
	*uplink.Host
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, ns: kt.NewNS(t)}
	h.Host = uplink.NewHost(h.ns)
	h.run("ip", "link", "add", "wan", "type", "bridge")
	h.run("ip", "addr", "add", "192.0.2.1/24", "dev", "wan")
	h.run("ip", "link", "set", "wan", "up")
	h.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.9", "proto", "83") // another's, of the same protocol
	return h
}

// pair makes the interface of the config.
func (h *host) pair(c *uplink.Config) {
	h.t.Helper()
	err := veth.CreatePair(veth.PairConfig{
		HostName: "sl1", HostNS: kt.NewNS(h.t), HostIndex: 1 << 20, Name: c.IfName, NS: h.ns, MTU: 1500, Addresses: c.Addresses,
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// run runs a command on the host.
func (h *host) run(args ...string) string {
	h.t.Helper()
	return kt.RunIn(h.t, h.ns, args...)
}

// apply must succeed.
func (h *host) apply(c *uplink.Config) {
	h.t.Helper()
	if err := h.Apply(h.t.Context(), c); err != nil {
		h.t.Fatal(err)
	}
}

// ours are the routes by the interface that have our protocol.
func (h *host) ours() string {
	h.t.Helper()
	var out []string
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(h.run("ip", family, "route", "show", "dev", "sluice-x", "proto", "83")) {
			out = append(out, strings.Fields(line)[0])
		}
	}
	return strings.Join(out, " ")
}

func out() *uplink.Config {
	return &uplink.Config{
		IfName: "sluice-x", Comment: "a test's", MAC: packet.MAC{2, 0, 0, 0, 0, 9},
		Addresses: prefixes("10.255.0.1/31", "fd00:ff::1/127"),
		Ends:      []netip.Addr{netip.MustParseAddr("10.255.0.0"), netip.MustParseAddr("fd00:ff::")},
		Subnets:   prefixes("10.50.0.0/24", "fd50::/64"), Routes: true,
	}
}

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestApply makes everything, twice, and again after it was taken away in part.
func TestApply(t *testing.T) {
	h, c := newHost(t), out()
	c.Masquerade, c.Forward = true, true
	h.pair(c)
	before := h.run("ip", "route", "show", "dev", "wan")
	check := func(when string) {
		t.Helper()
		h.apply(c)
		if got := h.ours(); got != "10.50.0.0/24 fd50::/64" {
			t.Errorf("%s: routes are %q", when, got)
		}
		rules := h.run("nft", "list", "table", "inet", "sluice-x")
		for _, want := range []string{
			`ip saddr { 10.50.0.0/24, 10.255.0.0 } oifname != "sluice-x" masquerade`, `ip6 saddr { fd00:ff::, fd50::/64 } oifname != "sluice-x" masquerade`,
			`oifname "sluice-x" ct state established,related accept`, `oifname "sluice-x" ct status dnat accept`, "drop",
		} {
			if !strings.Contains(rules, want) {
				t.Errorf("%s: no %q in\n%s", when, want, rules)
			}
		}
		if got := h.run("ip", "neigh", "show", "dev", "sluice-x", "nud", "permanent"); strings.Count(got, "02:00:00:00:00:09") != 2 {
			t.Errorf("%s: neighbours are %s", when, got)
		}
		if v4, v6, err := h.Forwards(); !v4 || !v6 || err != nil {
			t.Errorf("%s: forwards %t, %t, %v", when, v4, v6, err)
		}
	}
	check("at first")
	h.run("nft", "add", "rule", "inet", "sluice-x", "uplink-forward", "counter") // it would be gone if the table was made anew
	check("again")
	if !strings.Contains(h.run("nft", "list", "table", "inet", "sluice-x"), "counter packets 0 bytes 0\n") {
		t.Error("a table that is as it was has been replaced")
	}
	h.run("nft", "flush", "ruleset")
	check("after a flush")
	h.run("ip", "link", "set", "sluice-x", "down") // IPv6 addresses and all routes go
	check("after it was down")
	h.run("ip", "route", "del", "10.50.0.0/24")
	h.run("ip", "neigh", "flush", "dev", "sluice-x", "nud", "permanent")
	check("without a route and neighbours")
	if after := h.run("ip", "route", "show", "dev", "wan"); after != before {
		t.Errorf("the host's own routes were\n%s, are\n%s", before, after)
	}
}

// TestApplyLess takes away what is not wanted any more, and nothing else.
func TestApplyLess(t *testing.T) {
	h, c := newHost(t), out()
	c.Masquerade = true
	h.pair(c)
	h.apply(c)
	h.run("ip", "route", "add", "10.99.0.0/24", "via", "10.255.0.0") // a user's
	c.Subnets, c.Masquerade = prefixes("10.51.0.0/24"), false
	h.apply(c)
	if got := h.ours(); got != "10.51.0.0/24" {
		t.Errorf("routes are %q", got)
	}
	if got := h.run("nft", "list", "tables"); got != "" {
		t.Errorf("tables are %s", got)
	}
	c.Routes = false
	h.apply(c)
	if got := h.ours(); got != "" {
		t.Errorf("routes are %q", got)
	}
	if got := h.run("ip", "route", "show"); !strings.Contains(got, "10.99.0.0/24") || !strings.Contains(got, "198.51.100.0/24") {
		t.Errorf("routes of others are gone:\n%s", got)
	}
	if v4, v6, _ := h.Forwards(); v4 || v6 {
		t.Error("forwarding was switched on though nobody asked")
	}
}

// TestAnothersTable is neither filled nor removed.
func TestAnothersTable(t *testing.T) {
	h, c := newHost(t), out()
	c.Masquerade = true
	h.pair(c)
	h.run("nft", "add", "table", "inet", "sluice-x")
	h.run("nft", "add", "chain", "inet", "sluice-x", "mine")
	if err := h.TableConflict(t.Context(), c.IfName); !errors.Is(err, uplink.ErrConflict) {
		t.Errorf("no conflict: %v", err)
	}
	if err := h.Apply(t.Context(), c); !errors.Is(err, uplink.ErrConflict) {
		t.Errorf("applied: %v", err)
	}
	if err := h.Remove(t.Context(), c.IfName); err != nil {
		t.Error(err)
	}
	h.run("nft", "list", "chain", "inet", "sluice-x", "mine")
	h.run("nft", "delete", "table", "inet", "sluice-x")
	if err := h.TableConflict(t.Context(), c.IfName); err != nil {
		t.Error(err)
	}
	h.apply(c)
	for range 2 {
		if err := h.Remove(t.Context(), c.IfName); err != nil {
			t.Error(err)
		}
	}
	if got := h.run("nft", "list", "tables"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestWithoutTheProgram says so where a table is needed, and there only.
func TestWithoutTheProgram(t *testing.T) {
	h, c := newHost(t), out()
	h.pair(c)
	t.Setenv("PATH", t.TempDir())
	h.apply(c)
	if err := h.Remove(t.Context(), c.IfName); err != nil {
		t.Error(err)
	}
	c.Masquerade = true
	if err := h.Apply(t.Context(), c); !errors.Is(err, uplink.ErrNoProgram) {
		t.Errorf("with masquerade: %v", err)
	}
	if err := h.TableConflict(t.Context(), c.IfName); !errors.Is(err, uplink.ErrNoProgram) {
		t.Errorf("asked: %v", err)
	}
}

// TestAHostThatListensToRouters keeps its default route.
func TestAHostThatListensToRouters(t *testing.T) {
	h, c := newHost(t), out()
	h.pair(c)
	c.Forward = true
	h.run("ip", "-6", "route", "add", "default", "via", "fe80::9", "dev", "wan", "proto", "ra")
	h.run("sysctl", "-q", "-w", "net.ipv6.conf.wan.accept_ra=1")
	if err := h.Apply(t.Context(), c); err == nil || !strings.Contains(err.Error(), "net.ipv6.conf.wan.accept_ra=2") {
		t.Errorf("error is %v", err)
	}
	if s, err := h.Survey(); err != nil || !errors.Is(s.Without([]string{"sluice-x"}).Conflict(c), uplink.ErrConflict) {
		t.Errorf("%+v sees no conflict (%v)", s, err)
	}
	if _, v6, _ := h.Forwards(); v6 {
		t.Error("it forwards IPv6")
	}
	h.run("sysctl", "-q", "-w", "net.ipv6.conf.wan.accept_ra=2")
	h.apply(c)
	if _, v6, _ := h.Forwards(); !v6 || !strings.Contains(h.run("ip", "-6", "route"), "default via fe80::9") {
		t.Error("no forwarding, or no default route")
	}
}

func TestSurvey(t *testing.T) {
	h, c := newHost(t), out()
	h.run("ip", "addr", "add", "10.77.0.7/16", "dev", "wan")
	h.run("ip", "route", "add", "10.60.1.0/24", "via", "192.0.2.9")
	h.run("ip", "route", "add", "default", "via", "192.0.2.9")
	s, err := h.Survey()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*uplink.Config)
		want   string
	}{
		"nothing":                {func(*uplink.Config) {}, ""},
		"interface":              {func(c *uplink.Config) { c.IfName = "wan" }, "it has an interface wan"},
		"end in a subnet":        {func(c *uplink.Config) { c.Addresses = prefixes("192.0.2.8/31") }, "192.0.2.8/31 overlaps its address 192.0.2.1/24 on wan"},
		"end in a route":         {func(c *uplink.Config) { c.Addresses = prefixes("10.60.1.8/31") }, "10.60.1.8/31 overlaps its route to 10.60.1.0/24 by wan"},
		"address in a subnet":    {func(c *uplink.Config) { c.Subnets = prefixes("10.77.0.0/24") }, "its address 10.77.0.7 on wan is in 10.77.0.0/24"},
		"route in a subnet":      {func(c *uplink.Config) { c.Subnets = prefixes("10.60.0.0/16") }, "its route to 10.60.1.0/24 by wan is in 10.60.0.0/16"},
		"same route":             {func(c *uplink.Config) { c.Subnets = prefixes("10.60.1.0/24") }, "its route to 10.60.1.0/24 by wan is in 10.60.1.0/24"},
		"no routes":              {func(c *uplink.Config) { c.Subnets, c.Routes = prefixes("10.60.1.0/24"), false }, ""},
		"subnet of a wide route": {func(c *uplink.Config) { c.Subnets = prefixes("10.77.5.0/24", "10.60.1.128/25") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			tt.change(&c)
			want := ""
			if tt.want != "" {
				want = "in the way on the host: " + tt.want
			}
			got := ""
			if err := s.Conflict(&c); err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	for p, want := range map[string]bool{"10.60.1.0/31": false, "192.0.2.4/31": false, "100.127.0.0/31": true, "10.61.0.0/31": true} {
		if got := s.Free(netip.MustParsePrefix(p)); got != want {
			t.Errorf("%s is free: %t", p, got)
		}
	}
	mine := s.Without([]string{"wan"})
	if !mine.Free(netip.MustParsePrefix("192.0.2.4/31")) || fmt.Sprint(mine.Links) != "[lo]" {
		t.Errorf("without wan there is %+v", mine)
	}
}

func TestHas(t *testing.T) {
	h, c := newHost(t), out()
	h.pair(c)
	for _, tt := range []struct {
		name string
		peer int
		want bool
	}{{"sluice-x", 1 << 20, true}, {"sluice-x", 7, false}, {"wan", 1 << 20, false}, {"nosuch", 1 << 20, false}} {
		if got, err := h.Has(tt.name, tt.peer); got != tt.want || err != nil {
			t.Errorf("%s, %d: %t, %v", tt.name, tt.peer, got, err)
		}
	}
}
