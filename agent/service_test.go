// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/api"
	"sluice/conntrack"
	"sluice/nat"
)

// binds are the numbers of a service's backends, by place.
func binds(s *state, namespace, service string) map[string]conntrack.Bind {
	c := &s.namespace(namespace).Connections
	out := make(map[string]conntrack.Bind)
	if i := c.service(service); i >= 0 {
		for j := range c.Services[i].Real {
			out[c.Services[i].Real[j].Place()] = c.Services[i].Binds[j]
		}
	}
	return out
}

func TestServiceCommands(t *testing.T) {
	d := newDesk(t, shop)
	d.must("service add web tcp 10.96.0.10:80 tcp [fd96::10]:80 real 10.50.0.2:8080 real [fd50::2]:8080 persistent 60",
		"service add dns udp 10.96.0.10:53", "service add web real 10.50.0.3:8080 weight 3")
	for line, want := range map[string]struct {
		code api.Code
		text string
	}{
		"service add new real 10.50.0.2:80":              {api.CodeNotFound, "Error: There is no service new; a new one needs a place, as tcp 10.96.0.10:80."},
		"service add other udp 10.96.0.10:53":            {api.CodeExists, "Error: udp 10.96.0.10:53 is where service dns is already."},
		"service add web real 10.50.0.3:8080":            {api.CodeExists, "Error: Service web has backend 10.50.0.3:8080 already; see service set."},
		"service add web tcp 10.96.0.10:80":              {api.CodeExists, "Error: Service web is at tcp 10.96.0.10:80 already."},
		"service set web real 10.50.0.4:8080 state gone": {api.CodeNotFound, "Error: Service web has no backend 10.50.0.4:8080."},
		"service set none persistent 5":                  {api.CodeNotFound, "Error: There is no service none."},
		"service del web real 10.50.0.4:8080":            {api.CodeNotFound, "Error: Service web has no backend 10.50.0.4:8080."},
		"service del none":                               {api.CodeNotFound, "Error: There is no service none."},
		"service del web persistent 3":                   {api.CodeInvalid, "Error: Want the name of a service, and maybe real and backends."},
		"service set web real 10.50.0.3:8080 weight 0":   {api.CodeInvalid, `Error: argument "0" is wrong: want a weight from 1 to 65535; who shall have no new connections is in state draining`},
		"service frob":                                   {api.CodeInvalid, `Error: argument "frob" is wrong: want add, set or del`},
	} {
		_, err := d.do(false, line)
		e, ok := errors.AsType[*api.Error](err)
		if !ok || e.Code != want.code || !strings.EqualFold(e.Message, want.text) {
			t.Errorf("%s: %+v, want %+v", line, err, want)
		}
	}
	first := binds(mustRead(t, d.store), "shop", "web")
	d.must("service set web persistent off real 10.50.0.3:8080 state draining", "service set web real 10.50.0.2:8080 weight 2")
	st := mustRead(t, d.store)
	if diff := cmp.Diff(first, binds(st, "shop", "web")); diff != "" {
		t.Errorf("backends that stay have other numbers:\n%s", diff)
	}
	if got := st.namespace("shop").Connections.Services[0].String(); got != "web tcp 10.96.0.10:80 tcp [fd96::10]:80 real 10.50.0.2:8080 weight 2 real [fd50::2]:8080 real 10.50.0.3:8080 weight 3 state draining" {
		t.Errorf("web is %q", got)
	}
	spec := st.connectionsSpec(st.namespace("shop"), "")
	a := netip.MustParseAddr
	want := []nat.Service{
		{ID: 1, Backends: []nat.Backend{
			{Bind: first["10.50.0.2:8080"], Addr: a("10.50.0.2"), Port: 8080, Weight: 2},
			{Bind: first["10.50.0.3:8080"], Addr: a("10.50.0.3"), Port: 8080, Weight: 3, State: nat.Draining},
		}},
		{ID: 2, Backends: []nat.Backend{{Bind: first["[fd50::2]:8080"], Addr: a("fd50::2"), Port: 8080, Weight: 1}}},
		{ID: 3},
		{ID: 4},
	}
	if diff := cmp.Diff(want, spec.Services, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if len(spec.Rules) != 3 || spec.Rules[0].Map.Elements[nat.MapKey{Addr: a("fd96::10"), Port: 80, Proto: 6}].Service != 2 || !spec.Track {
		t.Errorf("%+v", spec)
	}
	if err := st.snapshot("").Validate(); err != nil {
		t.Error(err)
	}
	// Who was gone comes back as another one.
	d.must("service set web real 10.50.0.2:8080 state gone", "service set web real 10.50.0.2:8080 state ready", "service del web real 10.50.0.3:8080")
	if now := binds(mustRead(t, d.store), "shop", "web"); now["10.50.0.2:8080"].Gen == first["10.50.0.2:8080"].Gen || now["[fd50::2]:8080"] != first["[fd50::2]:8080"] || len(now) != 2 {
		t.Errorf("had %v, has %v", first, now)
	}
	d.must("service del dns")
	if got := d.declare(shop); !slices.Contains(got, "remove service web tcp 10.96.0.10:80 tcp [fd96::10]:80 real 10.50.0.2:8080 weight 2 real [fd50::2]:8080 in shop") {
		t.Errorf("the file changes %q", got)
	}
}

// TestServicesAreDeclared, with maps and NAT64, and keep their numbers.
func TestServicesAreDeclared(t *testing.T) {
	text := strings.Replace(shop, "tables: {blue: 100}", `tables: {blue: 100}
    conntrack: {bridged: true}
    maps:
      - {name: ports, type: "ipv4_addr . inet_service : ipv4_addr . inet_service", elements: ["10.50.0.1 . 81 : 10.50.0.9 . 8081"]}
    nat:
      - prerouting dnat to ip daddr . tcp dport map @ports
    nat64: {masquerade: web}
    services:
      - {name: web, listen: ["tcp 10.96.0.10:80"], backends: ["10.50.0.2:80", "10.50.0.3:80 state draining"]}`, 1)
	d := newDesk(t, text)
	st := mustRead(t, d.store)
	first := binds(st, "shop", "web")
	want := []string{
		"prerouting prerouting dnat to ip daddr . tcp dport map @ports",
		"prerouting ip6 daddr 64:ff9b::/96 nat64 masquerade web",
		"prerouting service: 1 places", "output service: 1 places", "postrouting publish: hairpin",
	}
	if diff := cmp.Diff(want, ruleTexts(st, "shop")); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	spec := st.connectionsSpec(st.namespace("shop"), "")
	if len(spec.Rules[0].Map.Elements) != 1 || !spec.Bridged {
		t.Errorf("%+v", spec)
	}
	if err := st.snapshot("").Validate(); err != nil {
		t.Error(err)
	}
	if again := d.declare(text); len(again) != 0 {
		t.Errorf("the same file changes %v", again)
	}
	got := d.declare(strings.NewReplacer("10.50.0.3:80 state draining", "10.50.0.4:80", "8081", "8082").Replace(text))
	for _, line := range []string{
		"remove service web tcp 10.96.0.10:80 real 10.50.0.2:80 real 10.50.0.3:80 state draining in shop",
		"add service web tcp 10.96.0.10:80 real 10.50.0.2:80 real 10.50.0.4:80 in shop",
		"add map ports { 10.50.0.1 . 81 : 10.50.0.9 . 8082 } in shop",
	} {
		if !slices.Contains(got, line) {
			t.Errorf("%q is not in %q", line, got)
		}
	}
	now := binds(mustRead(t, d.store), "shop", "web")
	if now["10.50.0.2:80"] != first["10.50.0.2:80"] || now["10.50.0.4:80"].ID == 0 {
		t.Errorf("had %v, has %v", first, now)
	}
}
