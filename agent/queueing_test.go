// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"sluice/api"
	"sluice/qdisc"
)

// queues is what `qdisc show` says of a port.
func (l *lab) queues(words ...string) string {
	l.t.Helper()
	out, err := l.api.Queueing(l.t.Context(), api.ShowQuery{Namespace: "shop", Words: append([]string{"qdisc", "show"}, words...)})
	if err != nil {
		l.t.Fatal(err)
	}
	return out.Text
}

// TestQueueingOfNetworks is what a file says, over it what an attach says, and what the
// commands of tc make of both.
func TestQueueingOfNetworks(t *testing.T) {
	l := newHostedLab(t)
	stop := l.start()
	with := func(lines string) string {
		return strings.Replace(site("{name: out, namespace: shop, qdisc: [root pfifo limit 77]}"), "{name: web, ", "{name: web, ports: {qdisc: ["+lines+"]}, ", 1)
	}
	if ch := l.apply(with("root tbf rate 8mbit burst 16kb latency 50ms, from root pfifo limit 10")); len(ch) == 0 {
		t.Fatal("nothing changed")
	}
	one := l.attach(api.AttachRequest{Netns: l.netns(), Network: "web"}).Name
	two := l.attach(api.AttachRequest{Netns: l.netns(), Network: "web", Qdisc: []string{"root handle 7: fq_codel"}}).Name
	plain := l.attach(api.AttachRequest{Netns: l.netns(), Network: "db"}).Name
	want := func(words, text string) {
		t.Helper()
		if got := l.queues(strings.Fields(words)...); !strings.Contains(got, text) || text == "" && got != "" {
			t.Errorf("show %s: %q, want %q", words, got, text)
		}
	}
	want("dev "+one, "tbf 8001: root refcnt 2 rate 8Mbit")
	want("dev "+one+" from", "pfifo 8001: root refcnt 2 limit 10p")
	want("dev "+two, "fq_codel 7: root")
	want("dev "+two+" from", "pfifo 8001:")
	want("dev "+plain, "")
	want("dev out", "limit 77p")

	// A change of a part is the port's own; a delete brings the network's back.
	l.commands("qdisc change dev "+one+" root tbf rate 4mbit burst 16kb latency 50ms", "qdisc add dev "+plain+" root sfq",
		"qdisc replace dev out root pfifo limit 78")
	want("dev "+one, "rate 4Mbit")
	want("dev "+one+" from", "limit 10p")
	changes := l.apply(with("root tbf rate 2mbit burst 16kb latency 50ms"))
	if len(changes) != 1 || changes[0].Field != "ports.qdisc" || !strings.HasPrefix(changes[0].To, "root tbf rate 2mbit") {
		t.Errorf("changes are %v", changes)
	}
	want("dev "+one, "rate 4Mbit")
	want("dev "+one+" from", "")
	stop()
	l.start()
	want("dev "+one, "rate 4Mbit")
	l.commands("qdisc del dev "+one+" root", "qdisc add dev "+two+" from root netem delay 1ms")
	want("dev "+one, "rate 2Mbit")
	want("dev "+two+" from", "netem")
	want("dev out", "limit 78p")

	_, err := l.api.Command(t.Context(), &api.CommandRequest{Namespace: "shop", Commands: []api.Command{{Object: "qdisc", Words: strings.Fields("del dev " + one + " root")}}})
	if err == nil || !strings.Contains(err.Error(), "he discipline is the network's") {
		t.Errorf("delete of the network's: %v", err)
	}
	l.commands("qdisc add dev " + one + " root pfifo limit 5")
	want("dev "+one, "limit 5p")
	_, err = l.api.Attach(t.Context(), &api.AttachRequest{Netns: l.netns(), Network: "web", Qdisc: []string{"root tbf rate x"}})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Field != "qdisc" || !strings.Contains(e.Message, `rate: "x"`) {
		t.Errorf("a bad discipline: %v", err)
	}
	_, err = l.api.Apply(t.Context(), &api.ApplyRequest{YAML: with("root pfifo, root pfifo")})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Field != "networks[0].ports.qdisc[1]" {
		t.Errorf("a bad line: %v", err)
	}
	l.apply(site("{name: out, namespace: shop}"))
	l.commands("qdisc del dev out root", "qdisc del dev "+one+" root", "qdisc del dev "+two+" root", "qdisc del dev "+two+" from root",
		"qdisc del dev "+plain+" root")
	want("", "")
}

// TestQueueingOfDevices is of gateways, links and socket uplinks: by the file, and by
// commands.
func TestQueueingOfDevices(t *testing.T) {
	l := newLab(t)
	stop := l.start()
	with := func(network, link, uplink string) string {
		return `namespaces:
  - {name: shop, links: [{name: out, peer: {namespace: mall, link: in}, qdisc: [` + link + `]}]}
  - {name: mall, links: [{name: in, peer: {namespace: shop, link: out}}]}
networks: [{name: web, namespace: shop, subnets: [10.77.0.0/24], qdisc: [` + network + `]}]
uplinks: [{name: wan, namespace: shop, type: socket, qdisc: [` + uplink + `]}]`
	}
	want := func(words, text string) {
		t.Helper()
		if got := l.queues(strings.Fields(words)...); !strings.Contains(got, text) || text == "" && got != "" {
			t.Errorf("show %s: %q, want %q", words, got, text)
		}
	}
	l.apply(with("root pfifo limit 11", "root pfifo limit 12", "root pfifo limit 13"))
	want("dev web", "limit 11p")
	want("dev out", "limit 12p")
	want("dev wan", "limit 13p")
	changes := l.apply(with("root pfifo limit 21", "root pfifo limit 22", "root pfifo limit 23"))
	if len(changes) != 5 || !strings.Contains(fmt.Sprint(changes), "qdisc root pfifo limit 11 to root pfifo limit 21") {
		t.Errorf("changes are %+v", changes)
	}
	l.commands("qdisc add dev web root tbf rate 8mbit burst 16kb latency 50ms", "qdisc change dev out root pfifo limit 32",
		"qdisc replace dev wan root handle 3: htb", "class add dev wan parent 3: classid 3:1 htb rate 8mbit")
	l.apply(with("root pfifo limit 41", "root pfifo limit 42", ""))
	stop()
	l.start()
	want("dev web", "rate 8Mbit")
	want("dev out", "limit 32p")
	want("dev wan", "htb 3:")
	want("", "web")
	l.commands("qdisc del dev web root", "qdisc del dev out root", "qdisc del dev wan root")
	want("dev web", "limit 41p")
	want("dev out", "limit 42p")
	want("dev wan", "")
	for words, fault := range map[string]string{
		"add dev out from root pfifo":   "hat comes by out has no discipline",
		"add dev web ingress":           "hat comes by web has no discipline",
		"add dev nobody root pfifo":     `"nobody"`,
		"del dev web root":              "he discipline is the network's",
		"add dev out root tbf rate x":   `rate: "x"`,
		"add dev in root pfifo limit 5": `"in"`, // of the other namespace
	} {
		_, err := l.api.Command(t.Context(), &api.CommandRequest{Namespace: "shop", Commands: []api.Command{{Object: "qdisc", Words: strings.Fields(words)}}})
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: error %v, want %s", words, err, fault)
		}
	}
	if _, err := l.api.Queueing(t.Context(), api.ShowQuery{Namespace: "shop", Words: strings.Fields("qdisc show dev out from")}); err == nil {
		t.Error("show of what comes by a link: no error")
	}
	for yaml, field := range map[string]string{
		with("from root pfifo", "", ""): "networks[0].qdisc",
		with("", "from root pfifo", ""): "namespaces[0].links[0].qdisc",
		with("", "", "from root pfifo"): "uplinks[0].qdisc",
		with("", "root pfifo, x", ""):   "namespaces[0].links[0].qdisc[1]",
	} {
		_, err := l.api.Apply(t.Context(), &api.ApplyRequest{YAML: yaml})
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Field != field {
			t.Errorf("error %v, want one of %s", err, field)
		}
	}
}

// TestBounded looks at the numbers that a bandwidth means.
func TestBounded(t *testing.T) {
	const mbit = 1_000_000 / 8
	for _, tt := range []struct {
		rate, burst     uint64
		wantBurst, wait uint64
	}{
		{1 * mbit, 0, 1522, 16 * 1522},
		{1 * mbit, 1, 1522, 16 * 1522},
		{100 * mbit, math.MaxUint32 / 8, 125_000, 312_500},
		{100 * mbit, 64_000, 64_000, 312_500},
		{5000 * mbit, 0, 6_250_000, 15_625_000},
		{math.MaxUint64 / 8, math.MaxUint64 / 8, maxBurst, 1<<40 - maxBurst},
		{1, 0, 1522, 16 * 1522},
	} {
		s := bounded(tt.rate, tt.burst, 1500)
		q := s.Qdiscs[0].TBF
		if q.Rate.Bytes != tt.rate || q.Burst != tt.wantBurst || q.Limit != int64(tt.wait+tt.wantBurst) {
			t.Errorf("%d, %d: %+v", tt.rate, tt.burst, q)
		}
		if err := qdisc.Check(s); err != nil {
			t.Errorf("%d, %d: %v", tt.rate, tt.burst, err)
		}
		// What the first second may let through: the rate, 1 % and two frames.
		if s := tt.rate + q.Burst; s > tt.rate+tt.rate/100+1522 {
			t.Errorf("%d: %d bytes in the first second", tt.rate, s)
		}
	}
}

// TestCNIBandwidth is shown by `qdisc`, and a runtime that says nothing gets what the
// network has.
func TestCNIBandwidth(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(`namespaces: [{name: shop}]
networks: [{name: pods, namespace: shop, subnets: [10.77.0.0/24], ports: {qdisc: [from root pfifo limit 9]}}]`)
	add := func(i int, b *api.CNIBandwidth) (string, error) {
		r := &api.CNIAddRequest{
			CNIKey: api.CNIKey{Config: "c", Container: strings.Repeat("0", i+1), IfName: "eth0"}, Netns: "/run/netns/" + l.netns(), Network: "pods", Bandwidth: b,
		}
		reply, err := l.api.CNIAdd(t.Context(), r)
		if err != nil {
			return "", err
		}
		return reply.Name, nil
	}
	name, err := add(0, &api.CNIBandwidth{IngressRate: 8_000_000, IngressBurst: math.MaxUint32})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.queues("dev", name); !strings.Contains(got, "tbf 1: root refcnt 2 rate 8Mbit burst 10000b") {
		t.Errorf("towards the container: %s", got)
	}
	if got := l.queues("dev", name, "from"); !strings.Contains(got, "limit 9p") {
		t.Errorf("from the container: %s", got)
	}
	if name, err = add(1, &api.CNIBandwidth{EgressRate: 8_000_000}); err != nil {
		t.Fatal(err)
	}
	if got := l.queues("dev", name, "from"); !strings.Contains(got, "tbf 1: root refcnt 2 rate 8Mbit") {
		t.Errorf("from the container: %s", got)
	}
	_, err = add(2, &api.CNIBandwidth{EgressRate: 7})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Field != "bandwidth.egressRate" {
		t.Errorf("less than a byte: %v", err)
	}
}
