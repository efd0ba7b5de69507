// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"sluice/api"
	"sluice/policy/journal"
)

// shopRules is shop with a ruleset.
func shopRules(text string) string {
	return strings.Replace(shop, "tables: {blue: 100}", "tables: {blue: 100}\n    nft: |\n      "+strings.ReplaceAll(text, "\n", "\n      "), 1)
}

// TestRulesetIsOneLineOfTheLog: who declares one wants to find what else has changed.
func TestRulesetIsOneLineOfTheLog(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(shop)
	before := l.log.String()
	if changes := l.apply(shopRules("table ip t {\n\tchain c {\n\t\taccept\n\t\tdrop\n\t}\n}") + "  - {name: new, subnets: [10.60.0.0/24]}\n"); len(changes) < 5 {
		t.Errorf("changes: %v", changes)
	}
	var got []string
	for line := range strings.Lines(strings.TrimPrefix(l.log.String(), before)) {
		if _, line, _ = strings.Cut(line, "msg="); !strings.HasPrefix(line, `"dataplane says"`) {
			got = append(got, line)
		}
	}
	want := []string{"\"ruleset changed\" namespace=shop port=\"\" commit=1 changes=4\n", "declared change=\"add new\"\n"}
	if !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}

// listing is the ruleset of shop, with handles.
func (d *desk) rules() (string, *namespaceRecord) {
	d.t.Helper()
	rec := mustRead(d.t, d.store).namespace("shop")
	if rec.NFT == nil {
		return "", rec
	}
	s, _, err := rec.NFT.Follow(nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return stateless(s.Ruleset), rec
}

// edit is what `sluice nft` does to the state file.
func (d *desk) edit(text string) error { return d.editPort("", text) }

// editPort is what `sluice nft --port` does to the state file; "" is the namespace.
func (d *desk) editPort(port, text string) error {
	return d.editUntil(port, text, 0)
}

// editUntil is editPort with so many seconds to confirm it; 0: it needs not be.
func (d *desk) editUntil(port, text string, seconds uint32) error {
	a := &Agent{store: d.store}
	return d.store.update(func(t *txn) error {
		e, err := newEditor(t, "shop", &d.sets)
		if err != nil {
			return err
		}
		x, err := e.ruleset(port)
		if err != nil {
			return err
		}
		done, err := a.editAsked(context.Background(), e, x, &api.NFTRequest{}, &journal.Step{File: "x.nft", Text: text})
		if err != nil {
			return err
		}
		x.await(done.number, seconds)
		return e.finish()
	})
}

const oneRule = "table inet f {\n  chain forward {\n    type filter hook forward priority filter; policy drop;\n    iif \"web\" counter accept\n  }\n}"

func TestRulesetOfTheFile(t *testing.T) {
	d := newDesk(t, shop)
	if changes := d.declare(shopRules(oneRule)); len(changes) == 0 || !strings.Contains(strings.Join(changes, "\n"), "add nft") {
		t.Errorf("changes %q", changes)
	}
	first, rec := d.rules()
	if !rec.Connections.tracks() || rec.Connections.Zone == 0 || !strings.Contains(first, "counter accept") {
		t.Errorf("%s\n%+v", first, rec.Connections)
	}
	if changes := d.declare(shopRules("# the same\n" + oneRule)); len(changes) != 0 {
		t.Errorf("the same ruleset changes %q", changes)
	}
	spec := mustRead(t, d.store).snapshot("").Namespaces
	if len(spec) != 3 || spec[2].Rules == nil && spec[1].Rules == nil && spec[0].Rules == nil {
		t.Errorf("the dataplane isn't told: %+v", spec)
	}
	// By a command, which the file takes back.
	if err := d.edit("add rule inet f forward tcp dport 22 accept"); err != nil {
		t.Fatal(err)
	}
	d.store.Close()
	d.open()
	if now, _ := d.rules(); !strings.Contains(now, "tcp dport 22 accept") {
		t.Errorf("the command is lost: %s", now)
	}
	d.declare(shopRules(oneRule))
	if now, _ := d.rules(); now != first {
		t.Errorf("ruleset\n%s\nwant\n%s", now, first)
	}
	if changes := d.declare(shop); len(changes) == 0 {
		t.Error("the ruleset stays though the file has none")
	}
	if now, rec := d.rules(); now != "" || rec.Connections.tracks() {
		t.Errorf("left: %s %+v", now, rec.Connections)
	}
}

func TestWrongRulesets(t *testing.T) {
	d := newDesk(t, shopRules(oneRule))
	was, _ := d.rules()
	for text, want := range map[string]string{
		"table ip t {\n\tchain c {\n\t\ttcp dport x80\n\t}\n}":                                          "nft:3:",
		"table ip t { chain c { iif \"nobody\" accept; }; }":                                            "nft:1:",
		"table bridge t { chain c { type filter hook forward priority 0; ct state new; }; }":            "needs conntrack.bridged",
		"table bridge t { chain c { type filter hook input priority 0; ct mark set 1; }; }":             "at hook input, nothing is known of connections",
		"table inet t { chain c { type filter hook ingress device web priority 0; }; }":                 "no container's port",
		"table netdev t { chain c { type filter hook egress device to-edge priority 0; }; }":            "no container's port",
		"table bridge t { chain c { type nat hook prerouting priority 0; }; }":                          "Operation not supported",
		"table bridge t { chain c { type filter hook forward priority 0; ip saddr 1.2.3.4 reject; }; }": "Operation not supported",
		"include \"/etc/passwd\"": "Could not open file",
	} {
		if _, err := d.tryDeclare(shopRules(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"add rule inet f nowhere accept": "x.nft:1:", "\nadd tabel": "x.nft:2:", "add rule inet f forward iif nobody accept": "Interface does not exist",
	} {
		if err := d.edit(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	if now, _ := d.rules(); now != was {
		t.Errorf("changed: %s", now)
	}
}

// TestErrorsOfRulesets: what is wrong is told as nft tells it, and nothing else.
func TestErrorsOfRulesets(t *testing.T) {
	d := newDesk(t, shop)
	a := &Agent{store: d.store}
	for _, check := range []bool{false, true} {
		_, err := a.nft(context.Background(), &api.NFTRequest{Namespace: "shop", Text: "flush chain inet none c", Check: check})
		if err == nil || !strings.HasSuffix(err.Error(), "\nflush chain inet none c\n                      ^") {
			t.Errorf("check %v: %v", check, err)
		}
	}
}

func TestCountedIsKept(t *testing.T) {
	k := counted{path: t.TempDir() + "/counted"}
	k.load()
	if err := k.keep(map[string]json.RawMessage{"shop": json.RawMessage(`{"tables":[]}`)}); err != nil {
		t.Fatal(err)
	}
	again := counted{path: k.path}
	again.load()
	if string(again.all["shop"]) != `{"tables":[]}` {
		t.Errorf("%s", again.all)
	}
	if err := again.keep(nil); err != nil {
		t.Fatal(err)
	}
	third := counted{path: k.path}
	if third.load(); len(third.all) != 0 {
		t.Errorf("%s", third.all)
	}
}
