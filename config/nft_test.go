// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/config"
)

func TestRulesetNeedsConnections(t *testing.T) {
	const networks = "networks: [{name: a, subnets: [10.0.0.0/24]}]\n"
	_, err := config.Parse([]byte("namespaces: [{name: a, conntrack: {track: false}, nft: table ip t}]\n" + networks))
	if err == nil || !strings.Contains(err.Error(), "namespaces[0].conntrack.track: false, but nft needs it") {
		t.Errorf("error %v", err)
	}
	c, err := config.Parse([]byte("namespaces: [{name: a, nft: table ip t}]\n" + networks))
	if err != nil || c.Namespaces[0].NFT == nil || *c.Namespaces[0].NFT != "table ip t" {
		t.Errorf("%v, %v", c, err)
	}
}

// TestRulesetFile: a ruleset's file is looked for beside the file of networks, with what
// it includes; what is wrong with it is told by the field.
func TestRulesetFile(t *testing.T) {
	c, err := config.Load(filepath.Join("testdata", "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	edge := c.Namespaces[1]
	inner := filepath.Join(filepath.Dir(edge.NFTFile), "edge-ports.nft")
	if edge.NFT == nil || !strings.Contains(*edge.NFT, "$ports accept") || !filepath.IsAbs(edge.NFTFile) || filepath.Base(edge.NFTFile) != "edge.nft" ||
		!strings.HasPrefix(edge.NFTIncluded[inner], "define ports") {
		t.Errorf("%+v", edge)
	}
	dir := t.TempDir()
	const networks = "networks: [{name: a, subnets: [10.0.0.0/24]}]\n"
	for file, want := range map[string]string{
		"nftFile: none.nft":                         "namespaces[0].nftFile: none.nft: open ",
		"nftFile: ''":                               "namespaces[0].nftFile: want the path of a file",
		"nftFile: x.nft, nft: table ip t":           "namespaces[0].nftFile: nft says the whole ruleset already",
		"nftFile: x.nft, conntrack: {track: false}": "namespaces[0].conntrack.track: false, but nft needs it",
		"nftFile: deep.nft":                         "include each other too deeply",
	} {
		for name, text := range map[string]string{
			"c.yaml": "namespaces: [{name: a, " + file + "}]\n" + networks, "x.nft": "table ip t\n", "deep.nft": "include \"./0\"\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 20 {
			text := "include \"./" + strings.Repeat("0", i+2) + "\"\n"
			if err := os.WriteFile(filepath.Join(dir, strings.Repeat("0", i+1)), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := config.Load(filepath.Join(dir, "c.yaml")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", file, err, want)
		}
	}
	if _, err := config.Parse([]byte("namespaces: [{name: a, nftFile: x.nft}]\n" + networks)); err == nil || !strings.Contains(err.Error(), "no file can be named here") {
		t.Errorf("error %v", err)
	}
}
