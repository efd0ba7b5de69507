// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sluice/api"
	"sluice/dns"
)

const answering = `namespaces: [{name: shop, dns: {domain: shop.example, upstreams: [192.0.2.1]}}]
networks:
  - {name: web, namespace: shop, subnets: [10.77.0.0/24, "fd77::/64"], dhcp: {}, dhcp6: {}, advertise: {dns: ["2001:db8::53"]}}
  - {name: db, namespace: shop, subnets: [10.78.0.0/24], dns: false, dhcp: {}}
  - {name: alone, subnets: [10.79.0.0/24], dns: true}
  - {name: mute, subnets: [10.80.0.0/24]}
`

func TestDNSOfNamespaces(t *testing.T) {
	d := newDesk(t, answering)
	st := mustRead(t, d.store)
	for _, ns := range st.snapshot("").Namespaces {
		got := fmt.Sprint(ns.DNS != nil)
		if ns.DNS != nil {
			got = fmt.Sprint(ns.DNS.Upstreams)
		}
		for i := range ns.Networks {
			n := &ns.Networks[i]
			got += fmt.Sprintf(" %s %v", n.Name, n.DNS)
			if c := n.Autoconf.DHCP4; c != nil {
				got += fmt.Sprintf(" dhcp %v %s %v", c.DNS, c.Domain, c.Search)
			}
			if c := n.Autoconf.DHCP6; c != nil {
				got += fmt.Sprintf(" dhcp6 %v %v", c.DNS, c.Search)
			}
			if c := n.Autoconf.Advert; c != nil {
				got += fmt.Sprintf(" advert %v %v", c.DNS, c.Search)
			}
		}
		want := map[string]string{
			"shop": "[192.0.2.1:53 from the host] db false dhcp []  [] web true dhcp [10.77.0.1] web.shop.example [web.shop.example shop.example] " +
				"dhcp6 [fd77::1] [web.shop.example shop.example] advert [2001:db8::53] [web.shop.example shop.example]",
			"alone": "[nameserver 1 of the host nameserver 2 of the host nameserver 3 of the host] alone true",
			"mute":  "false mute false",
		}[ns.Name]
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", ns.Name, got, want)
		}
	}
	changes := d.declare("namespaces: [{name: shop, dns: {via: none}}]\n" + answering[len("namespaces: [{name: shop, dns: {domain: shop.example, upstreams: [192.0.2.1]}}]\n"):])
	if len(changes) != 2 || changes[1] != `add dns {"via":"none"} in shop` {
		t.Errorf("changes: %q", changes)
	}
	if up := mustRead(t, d.store).dnsSpec("shop").Upstreams; len(up) != 0 {
		t.Errorf("upstreams without a way: %v", up)
	}
}

func TestAliasesAreNames(t *testing.T) {
	rec := new(attachmentRecord)
	if err := decideAliases(&api.AttachRequest{Aliases: []string{"www", "a.b", "www"}}, rec); err != nil || fmt.Sprint(rec.Aliases) != "[www a.b]" {
		t.Errorf("%v, %v", rec.Aliases, err)
	}
	for _, bad := range [][]string{{""}, {"a b"}, {"-a"}, {"a."}, make([]string, api.MaxAliases+1)} {
		if err := decideAliases(&api.AttachRequest{Aliases: bad}, rec); err == nil {
			t.Errorf("%q are taken", bad)
		}
	}
}

func TestResolversOfTheHost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	var h hostResolvers
	if a, err := h.at(file, 0); err != nil || a.String() != "127.0.0.1:53" {
		t.Errorf("without a file: %v, %v", a, err)
	}
	if err := os.WriteFile(file, []byte("# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\nnameserver fe80::1%lo\nnameserver x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.looked = h.looked.Add(-lookEvery) // it is read again after a while
	for place, want := range []string{"192.0.2.1:53", "[fe80::1%lo]:53"} {
		if a, err := h.at(file, place); err != nil || a.String() != want {
			t.Errorf("%d: %v, %v", place, a, err)
		}
	}
	if _, err := h.at(file, 2); !errors.Is(err, dns.ErrAbsent) {
		t.Errorf("a third: %v", err)
	}
}
