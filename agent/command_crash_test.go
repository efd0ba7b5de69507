// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/api"
)

// crashShop is what TestKillAmongCommands works on.
const crashShop = `
namespaces: [{name: shop, tables: {blue: 100}}, {name: edge}]
networks:
  - {name: web, namespace: shop, subnets: [10.77.0.0/24, "fd77::/64"]}
  - {name: db, namespace: shop, subnets: [10.78.0.0/24]}
`

// trio are changes that belong together: a route of each table, a rule, a VRF, and a
// published port.
func trio(verb string, n int) []api.Command {
	fields := strings.Fields
	return []api.Command{
		{Object: "route", Words: fields(fmt.Sprintf("%s 10.%d.0.0/16 via 10.77.0.9", verb, 100+n))},
		{Object: "route", Words: fields(fmt.Sprintf("%s 10.%d.0.0/16 via 10.78.0.9 table blue", verb, 100+n))},
		{Object: "rule", Words: fields(fmt.Sprintf("%s from 10.%d.0.0/16 lookup blue pref %d", verb, 100+n, 100+n))},
		{Object: "publish", Words: fields(fmt.Sprintf("%s tcp %d %s", verb, 9000+n, map[bool]string{true: "to cart:80"}[verb == "add"]))},
		{Object: "vrf", Words: fields(fmt.Sprintf("%s v%d %s", verb, n, map[bool]string{true: fmt.Sprintf("table %d", 1000+n)}[verb == "add"]))},
	}
}

// TestKillAmongCommands kills the agent with kill -9 while clients change routes,
// rules and VRFs, now and then the dataplane with it. After each start every
// transaction has happened or has not, and the dataplane decides by what is recorded.
func TestKillAmongCommands(t *testing.T) {
	l := newLab(t)
	agent := l.process()
	l.apply(crashShop)
	l.attach(api.AttachRequest{Netns: l.netns(), Network: "web", Name: "cart"})
	var done atomic.Int32
	l.kills(agent, 12, 60*time.Millisecond, 2, func(ctx context.Context, rnd *rand.Rand, _ int) {
		verb := []string{"add", "del"}[rnd.IntN(2)] // refused if the trio is there, or is not
		if _, err := l.api.Command(ctx, &api.CommandRequest{Namespace: "shop", Commands: trio(verb, rnd.IntN(8))}); err == nil {
			done.Add(1)
		}
	}, l.together)
	if done.Load() == 0 {
		t.Error("no command was carried out")
	}
	l.consistent()
}

// together checks that of each trio all is there or nothing, and that the dataplane
// goes by it.
func (l *lab) together() {
	l.t.Helper()
	ctx := l.t.Context()
	routes, err := l.api.Routes(ctx, api.ShowQuery{Namespace: "shop", Words: []string{"table", "all"}})
	if err != nil {
		l.t.Fatal(err)
	}
	rules, err := l.api.Rules(ctx, api.ShowQuery{Namespace: "shop"})
	if err != nil {
		l.t.Fatal(err)
	}
	vrfs, err := l.api.VRFs(ctx, api.ShowQuery{Namespace: "shop"})
	if err != nil {
		l.t.Fatal(err)
	}
	published, err := l.api.Published(ctx, api.ShowQuery{Namespace: "shop"})
	if err != nil {
		l.t.Fatal(err)
	}
	for n := range 8 {
		count, dst := 0, fmt.Sprintf("10.%d.0.0/16", 100+n)
		for _, r := range routes {
			if r.Dst == dst {
				count++
			}
		}
		for _, r := range rules {
			if r.Priority == uint32(100+n) {
				count++
			}
		}
		for _, v := range vrfs {
			if v.Name == fmt.Sprintf("v%d", n) {
				count++
			}
		}
		for _, p := range published {
			if p.Port == uint16(9000+n) {
				count++
			}
		}
		if count != 0 && count != 5 {
			l.t.Errorf("of trio %d there are %d of 5 parts", n, count)
		}
		l.decides(n, count == 5)
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// decides asks the dataplane, by what only it knows: the source.
func (l *lab) decides(n int, there bool) {
	l.t.Helper()
	g, err := l.api.RouteGet(l.t.Context(), api.ShowQuery{Namespace: "shop", Words: []string{fmt.Sprintf("10.%d.0.1", 100+n)}})
	if err != nil {
		l.t.Fatal(err)
	}
	if got := g.Dev == "web" && g.Prefsrc == "10.77.0.1"; got != there {
		l.t.Errorf("trio %d is there: %t, but a packet goes %+v", n, there, g)
	}
}
