// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"

	"sluice/config"
)

// declareBy is tryDeclare by a configuration of that name.
func (d *desk) declareBy(name, yaml string) error {
	d.t.Helper()
	c, err := config.Parse([]byte(yaml))
	if err != nil {
		d.t.Fatal(err)
	}
	return d.store.update(func(t *txn) error {
		t.host = d.host
		_, err := t.declare(c, origin{name, yaml}, &d.sets)
		return err
	})
}

// TestOrigins: what a configuration declares is its own, and nobody declares what
// another one has, or what could not live beside it on the host.
func TestOrigins(t *testing.T) {
	const file = `networks: [{name: shop, subnets: [10.50.0.0/24]}, {name: blue, subnets: [10.51.0.0/24]}]
uplinks: [{name: out, namespace: shop, addresses: [10.255.0.0/31]}]
`
	d := newDesk(t, file)
	d.ready()
	pods := func(network, more string) string {
		return "networks: [{name: " + network + `}]
uplinks: [{name: up-` + strings.Split(network, ",")[0] + ", namespace: " + more + "}]\n"
	}
	if err := d.declareBy("pods", pods("pods, subnets: [10.85.0.0/24]", "pods")); err != nil {
		t.Fatal(err)
	}
	d.ready()
	for _, tt := range []struct{ by, text, want string }{
		{"other", pods("pods, subnets: [10.86.0.0/24]", "pods"), "network pods is declared by the network configuration pods"},
		{"other", pods("shop, subnets: [10.86.0.0/24]", "shop"), "network shop is declared by the daemon's file"},
		{"other", pods("more, subnets: [10.86.0.0/24], namespace: blue", "blue") + "namespaces: [{name: blue}]\n", "blue is declared by the daemon's file"},
		{"pods", pods("pods, subnets: [10.85.0.0/24], namespace: blue", "blue") + "namespaces: [{name: blue}]\n", "namespace blue is declared by the daemon's file"},
		{"other", pods("more, subnets: [10.85.0.128/25]", "more"), "10.85.0.128/25 overlaps 10.85.0.0/24 of uplink up-pods, which is declared by the network configuration pods"},
		{"other", pods("more, subnets: [10.50.0.0/16]", "more"), "10.50.0.0/16 overlaps 10.50.0.0/24 of uplink out, which is declared by the daemon's file"},
		{"other", pods("more, subnets: [10.86.0.0/24]", "more, ifname: sluice-out"), "ifname sluice-out is that of uplink out"},
		{"", strings.TrimSuffix(file, "]\n") + ", {name: further, namespace: blue, addresses: [10.85.0.2/31]}]\n", "10.85.0.2/31 overlaps 10.85.0.0/24 of uplink up-pods"},
		{"", file + "namespaces: [{name: pods}]\n", "namespace pods is declared by the network configuration pods"},
	} {
		err := d.declareBy(tt.by, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s declares %s: got %v, want %q in it", tt.by, tt.text, err, tt.want)
		}
	}
	d.declare(`networks: []`)
	st := mustRead(t, d.store)
	if st.network("pods") == nil || st.network("up-pods") == nil || st.network("shop") != nil {
		t.Errorf("an empty file leaves %v", st.networks)
	}
	if err := d.declareBy("pods", "networks: []"); err != nil {
		t.Fatal(err)
	}
	if st := mustRead(t, d.store); len(st.networks)+len(st.namespaces) != 0 {
		t.Errorf("left are %+v", st)
	}
}
