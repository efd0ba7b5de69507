// SPDX-License-Identifier: Apache-2.0

package uplink_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"sluice/uplink"
	"sluice/veth"
)

func TestPublishedPortsAreInTheTable(t *testing.T) {
	h, c := newHost(t), out()
	h.pair(c)
	c.Published = []uplink.Published{
		{Proto: "tcp", First: 8080, Last: 8080, To: netip.MustParseAddr("10.44.0.5"), ToFirst: 80},
		{Proto: "udp", First: 5000, Last: 5002, To: netip.MustParseAddr("10.44.0.5"), ToFirst: 5000},
		{Proto: "tcp", First: 7000, Last: 7001, To: netip.MustParseAddr("10.44.0.6"), ToFirst: 9000, Addr: netip.MustParseAddr("192.0.2.1")},
		{Proto: "tcp", First: 443, Last: 443, To: netip.MustParseAddr("fd44::5"), ToFirst: 8443},
		{Proto: "tcp", First: 22, Last: 22, To: netip.MustParseAddr("10.44.0.6"), ToFirst: 2222, Addr: netip.MustParseAddr("127.0.0.1")},
	}
	if err := h.Apply(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	table := h.run("nft", "list", "table", "inet", c.IfName)
	for _, want := range []string{
		"fib daddr type local tcp dport 8080 dnat ip to 10.44.0.5:80", "udp dport 5000-5002 dnat ip to 10.44.0.5\n",
		"ip daddr 192.0.2.1 tcp dport 7000-7001 dnat ip to 10.44.0.6:tcp dport map { 7000 : 9000, 7001 : 9001 }",
		"ip6 daddr != ::1 tcp dport 443 dnat ip6 to [fd44::5]:8443", "ip daddr 127.0.0.1 tcp dport 22 dnat ip to 10.44.0.6:2222",
		`iifname "sluice-x" ip daddr 127.0.0.0/8 counter`, `iifname "sluice-x" oifname "sluice-x" ct status dnat masquerade`,
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if n := strings.Count(table, "127.0.0.1 tcp dport 22"); n != 1 {
		t.Errorf("%d rules of the loopback; it is for the host's own packets only", n)
	}
	if got := h.run("cat", "/proc/sys/net/ipv4/conf/"+c.IfName+"/route_localnet"); got != "1\n" {
		t.Errorf("route_localnet: %s", got)
	}
	if got := h.run("cat", "/proc/sys/net/ipv4/conf/all/route_localnet"); got != "0\n" {
		t.Errorf("route_localnet of all: %s", got)
	}
	c.Published = c.Published[2:4] // none of them is reached by the loopback
	if err := h.Apply(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if got := h.run("cat", "/proc/sys/net/ipv4/conf/"+c.IfName+"/route_localnet"); got != "0\n" {
		t.Errorf("route_localnet: %s", got)
	}
}

func TestHold(t *testing.T) {
	h := newHost(t)
	var listener net.Listener
	err := veth.Do(h.ns, func() (err error) {
		var lc net.ListenConfig
		listener, err = lc.Listen(context.Background(), "tcp", "192.0.2.1:80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	own := uplink.Port{Proto: "tcp", Addr: netip.MustParseAddr("192.0.2.1"), Number: 80}
	for _, p := range []uplink.Port{own, {Proto: "tcp", Number: 80}} {
		_, err := h.Hold(p)
		if !errors.Is(err, uplink.ErrInUse) || !strings.Contains(err.Error(), "uplink.test (process ") {
			t.Errorf("%v: %v", p, err)
		}
	}
	for _, p := range []uplink.Port{
		{Proto: "tcp", Addr: netip.MustParseAddr("192.0.2.7"), Number: 80}, // not there yet
		{Proto: "udp", Number: 80},
		{Proto: "tcp", Addr: netip.MustParseAddr("2001:db8::1"), Number: 80},
		{Proto: "tcp", Number: 81},
	} {
		f, err := h.Hold(p)
		if err != nil {
			t.Errorf("%v: %v", p, err)
			continue
		}
		if _, err := h.Hold(p); !errors.Is(err, uplink.ErrInUse) {
			t.Errorf("%v is held, and once more: %v", p, err)
		}
		f.Close()
	}
	listener.Close()
	f, err := h.Hold(own)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
