// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/api"
)

// trees is what the trees are, a line for each class.
func (l *lab) trees() []string {
	l.t.Helper()
	all, err := l.api.Trees(l.t.Context(), api.ShowQuery{})
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for _, s := range all {
		text := fmt.Sprintf("%d %s %s %d/%d", s.Depth, s.Of, s.Name, s.Rate/1000, s.Ceil/1000)
		if s.From {
			text = "from " + text
		}
		out = append(out, text)
	}
	return out
}

// TestTrees is what a file, an attach and commands say of shares, and that it lasts.
func TestTrees(t *testing.T) {
	l := newHostedLab(t)
	stop := l.start()
	with := func(node, shop, web string) string {
		text := site("{name: out, namespace: shop, tree: [rate 50kbit]}")
		text = strings.Replace(text, "{name: shop", "{name: shop, tree: ["+shop+"]", 1)
		text = strings.Replace(text, "{name: web, ", "{name: web, ports: {tree: ["+web+"]}, ", 1)
		return "node: {tree: [" + node + "]}\n" + text
	}
	l.apply(with("rate 10mbit", "rate 3mbit ceil 8mbit, from rate 2mbit", "rate 100kbit ceil 5mbit"))
	one := l.attach(api.AttachRequest{Netns: l.netns(), Network: "web"}).Name
	two := l.attach(api.AttachRequest{Netns: l.netns(), Network: "web", Shares: []string{"rate 200kbit ceil 4mbit", "from rate 300kbit"}}).Name
	plain := l.attach(api.AttachRequest{Netns: l.netns(), Network: "db"}).Name
	want := func(lines ...string) {
		t.Helper()
		got := l.trees()
		slices.Sort(got)
		slices.Sort(lines)
		if !slices.Equal(got, lines) {
			t.Errorf("trees:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
		}
	}
	to := []string{
		"0 node node 10000/10000", "1 namespace shop 3000/8000", "2 container " + one + " 100/5000", "2 container " + two + " 200/4000",
		"2 container " + plain + " 8/8000", "2 uplink out 50/50",
	}
	from := []string{"from 0 namespace shop 2000/2000", "from 1 container " + one + " 8/2000", "from 1 container " + two + " 300/300", "from 1 container " + plain + " 8/2000"}
	want(append(to, from...)...)
	stop()
	l.start()
	want(append(to, from...)...)

	l.commands("tree del node", "tree set dev "+one+" rate 150kbit ceil 6mbit", "tree del from", "tree set rate 4mbit")
	to = []string{
		"0 namespace shop 4000/4000", "1 container " + one + " 150/6000", "1 container " + two + " 200/4000",
		"1 container " + plain + " 8/4000", "1 uplink out 50/50",
	}
	want(to...)
	l.killPlane()
	l.eventually("the trees are there again", func() bool {
		all, err := l.api.Trees(t.Context(), api.ShowQuery{})
		return err == nil && len(all) == len(to)
	})
	want(to...)
	l.faults(one)
	changes := l.apply(with("rate 10mbit", "rate 3mbit", "rate 100kbit"))
	if len(changes) == 0 || changes[0].Field != "ports.tree" {
		t.Errorf("changes are %v", changes)
	}
	want("0 node node 10000/10000", "1 namespace shop 3000/3000", "2 container "+one+" 150/6000", "2 container "+two+" 200/4000",
		"2 container "+plain+" 8/3000", "2 uplink out 50/50")
	l.commands("tree del dev " + one)
	l.apply(site("{name: out, namespace: shop}"))
	want()
}

// faults sees that what can't be is refused, with the reason.
func (l *lab) faults(one string) {
	l.t.Helper()
	for words, want := range map[string]string{
		"set":                             `the "rate" parameter is required`,
		"set dev nobody rate 1mbit":       "nobody",
		"set dev":                         "a name is missing",
		"set node rate 1mbit":             "promised 4000000 bit/s in all, and the node has 1000000",
		"del from":                        "amespace shop has no shares in that direction",
		"del dev " + one + " more":        `hat is "more"?`,
		"frob":                            "want set or del",
		"set rate 1mbit ceil 5kbit":       "is below the rate",
		"set dev " + one + " rate x":      `rate: "x"`,
		"set dev " + one + " from rate x": `rate: "x"`,
	} {
		_, err := l.api.Command(l.t.Context(), &api.CommandRequest{Namespace: "shop", Commands: []api.Command{{Object: "tree", Words: strings.Fields(words)}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			l.t.Errorf("tree %s: %v, want %q", words, err, want)
		}
	}
	_, err := l.api.Attach(l.t.Context(), &api.AttachRequest{Netns: l.netns(), Network: "web", Shares: []string{"from rate 1mbit"}})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Field != "tree" || !strings.Contains(e.Message, "neither the namespace nor the node") {
		l.t.Errorf("a part of no tree: %v", err)
	}
}
