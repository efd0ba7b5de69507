// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sluice/config"
)

// FuzzParse: any text gives either an *Error or values that keep every rule the
// type promises. The named corpus is under testdata/fuzz/FuzzParse.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "reference.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.ParseWith(text, func(name string) (*config.Ruleset, error) { return &config.Ruleset{File: name}, nil })
		if err != nil {
			if _, ok := errors.AsType[*config.Error](err); !ok {
				t.Fatalf("error is %T: %v", err, err)
			}
			return
		}
		names := make(map[string]bool)
		for _, n := range c.Networks {
			if names[n.Name] || n.Name == "" {
				t.Fatalf("name %q twice or empty", n.Name)
			}
			names[n.Name] = true
			checkNetwork(t, &n)
		}
		for i := range c.Namespaces {
			checkNamespace(t, &c.Namespaces[i])
		}
	})
}

func checkNetwork(t *testing.T, n *config.Network) {
	t.Helper()
	if len(n.Subnets) < 1 || len(n.Subnets) > 2 || len(n.Gateways) != len(n.Subnets) {
		t.Fatalf("subnets %v with gateways %v", n.Subnets, n.Gateways)
	}
	for i, s := range n.Subnets {
		if g := n.Gateways[i]; s != s.Masked() || !s.Contains(g) || g == s.Addr() {
			t.Fatalf("subnet %s with gateway %s", s, g)
		}
	}
	if n.MTU < config.MinMTU || n.MTU > config.MaxMTU || n.Ageing < config.MinAgeing || n.Ageing > config.MaxAgeing {
		t.Fatalf("MTU %d, ageing %s", n.MTU, n.Ageing)
	}
	if n.FDBMax < config.MinFDBMax || n.FDBMaxPerPort < 1 || n.FDBMaxPerPort > n.FDBMax {
		t.Fatalf("FDB %d, %d", n.FDBMax, n.FDBMaxPerPort)
	}
}

func checkNamespace(t *testing.T, n *config.Namespace) {
	t.Helper()
	vrfs := make(map[string]bool)
	for _, v := range n.VRFs {
		if v.Table == 0 || vrfs[v.Name] {
			t.Fatalf("VRF %+v", v)
		}
		vrfs[v.Name] = true
	}
	for _, l := range n.Links {
		if l.VRF != "" && !vrfs[l.VRF] || l.MTU < config.MinMTU6 || l.PeerNamespace == n.Name {
			t.Fatalf("link %+v", l)
		}
	}
	for _, r := range n.Routes {
		if !r.Prefix.IsValid() {
			t.Fatalf("route %+v", r)
		}
	}
}
