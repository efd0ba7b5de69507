// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"

	"sluice/netstack"
)

// shopPorts is shop, whose ports of web have a ruleset.
func shopPorts(text string) string {
	return strings.Replace(shop, "snooping: {}}", "snooping: {}, ports: {nft: \""+strings.ReplaceAll(strings.ReplaceAll(text, `"`, `\"`), "\n", `\n`)+"\"}}", 1)
}

// portSpec is what the dataplane is told of a port.
func (d *desk) portSpec(name string) (found netstack.PortSpec) {
	d.t.Helper()
	for p := range mustRead(d.t, d.store).snapshot("").Ports() {
		if p.Name == name {
			found = *p
		}
	}
	return found
}

// portRules is a port's ruleset.
func (d *desk) portRules(name string) string {
	return strings.Join(rulesetLines(d.portSpec(name).Rules), "\n")
}

const portText = "table netdev f {\n  chain in { type filter hook ingress device \"port\" priority 0; counter; }\n}"

func TestRulesetsOfPorts(t *testing.T) {
	d := newDesk(t, shopPorts(portText))
	d.attach("web", "cart")
	d.attach("web", "till")
	d.attach("db", "data")
	first := d.portRules("cart")
	if !strings.Contains(first, "hook ingress device \"port\"") || d.portRules("till") != first || d.portRules("data") != "" {
		t.Errorf("cart %s\ntill %s\ndata %s", first, d.portRules("till"), d.portRules("data"))
	}
	serial := func(name string) uint64 { n, _ := d.portSpec(name).Rules.Last(); return n }
	if changes := d.declare(shopPorts("# the same\n" + portText)); len(changes) != 0 || serial("cart") != 1 {
		t.Errorf("the same ruleset changes %q", changes)
	}
	// By a command it is the port's own, and goes on from the network's.
	if err := d.editPort("cart", "add rule netdev f in udp dport 7 drop"); err != nil {
		t.Fatal(err)
	}
	if err := d.editPort("id-data", portText); err != nil {
		t.Fatal(err)
	}
	d.store.Close()
	d.open()
	own := d.portRules("cart")
	if !strings.Contains(own, "udp dport 7 drop") || serial("cart") != 2 || d.portRules("till") != first || d.portRules("data") != first {
		t.Errorf("cart %s\ntill %s\ndata %s", own, d.portRules("till"), d.portRules("data"))
	}
	changes := d.declare(shopPorts(strings.ReplaceAll(portText, "counter", "udp dport 8 drop")))
	if len(changes) != 1 || !strings.Contains(changes[0], "ports.nft") {
		t.Errorf("changes %q", changes)
	}
	if d.portRules("cart") != own || !strings.Contains(d.portRules("till"), "udp dport 8 drop") {
		t.Errorf("cart %s\ntill %s", d.portRules("cart"), d.portRules("till"))
	}
	for _, name := range []string{"cart", "data"} { // without tables: the network's, or none
		if err := d.editPort(name, "flush ruleset"); err != nil {
			t.Fatal(err)
		}
	}
	if d.portRules("cart") != d.portRules("till") || d.portSpec("data").Rules != nil {
		t.Errorf("cart %s\ndata %s", d.portRules("cart"), d.portRules("data"))
	}
	// What is wrong changes nothing.
	was := d.portRules("till")
	for text, want := range map[string]string{
		"flush ruleset": "is the network's", "add tabel": "x.nft:1:5", "table ip t": "family netdev only",
		"table netdev g { chain c { type filter hook ingress device \"till\" priority 0; }; }": "its device is called \"port\"",
		"table netdev g { chain c { iif port accept; }; }":                                     "Interface does not exist",
	} {
		if err := d.editPort("till", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
	if err := d.editPort("nobody", portText); err == nil || !strings.Contains(err.Error(), `no port "nobody"`) {
		t.Errorf("error %v", err)
	}
	if _, err := d.tryDeclare(shopPorts("table bridge t")); err == nil || !strings.Contains(err.Error(), "networks[0].ports.nft") {
		t.Errorf("error %v", err)
	}
	if d.portRules("till") != was {
		t.Errorf("changed: %s", d.portRules("till"))
	}
	d.declare(shop)
	if d.portSpec("till").Rules != nil {
		t.Errorf("it stays though the file has none: %s", d.portRules("till"))
	}
}

// TestRulesForWhoIsNotThere: a device may be attached later.
func TestRulesForWhoIsNotThere(t *testing.T) {
	text := "table netdev t {\n  chain c {\n    type filter hook ingress device \"later\" priority 0;\n    counter\n  }\n}"
	d := newDesk(t, shopRules(text))
	d.attach("web", "later")
	if spec := d.portSpec("later"); spec.Device != "later" || spec.Rules != nil {
		t.Errorf("%+v", spec)
	}
}

func TestCountedKeys(t *testing.T) {
	if space, port, tenure := countedOf(countedKey("shop", 7, 9)); space != "shop" || port != 7 || tenure != 9 {
		t.Errorf("%s %d %d", space, port, tenure)
	}
	if space, port, _ := countedOf("shop"); space != "shop" || port != 0 {
		t.Errorf("%s %d", space, port)
	}
}
