// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestInstall: plugin and configuration come, an edited configuration stays, and both go.
func TestInstall(t *testing.T) {
	root := t.TempDir()
	plugin, list := filepath.Join(root, "opt/cni/bin/sluice"), filepath.Join(root, "etc/cni/net.d", conflistName)
	do := func(args ...string) {
		t.Helper()
		if err := setup(append(args, "--root", root), io.Discard); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	do("uninstall") // nothing is there
	do("install")
	info, err := os.Stat(plugin)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Fatalf("the plugin: %v, %v", info, err)
	}
	if text, err := os.ReadFile(list); err != nil || !bytes.Equal(text, firstConflist) {
		t.Fatalf("the configuration: %s, %v", text, err)
	}
	if err := os.WriteFile(list, []byte("edited"), 0o600); err != nil {
		t.Fatal(err)
	}
	do("install")
	if text, _ := os.ReadFile(list); string(text) != "edited" {
		t.Errorf("an edited configuration became %s", text)
	}
	other := filepath.Join(root, "other")
	if err := os.WriteFile(other, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	do("install", "--conflist", other)
	if text, _ := os.ReadFile(list); string(text) != "other" {
		t.Errorf("a given configuration became %s", text)
	}
	do("uninstall")
	for _, path := range []string{plugin, list} {
		if left, err := filepath.Glob(filepath.Dir(path) + "/*"); err != nil || len(left) > 0 {
			t.Errorf("left are %q, %v", left, err)
		}
	}
}

// TestFirstConflist: what is installed is a list that the plugin takes.
func TestFirstConflist(t *testing.T) {
	var list struct {
		Name    string           `json:"name"`
		Plugins []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(firstConflist, &list); err != nil {
		t.Fatal(err)
	}
	one := list.Plugins[0]
	one["name"], one["cniVersion"] = list.Name, "1.0.0"
	text, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseConf(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.subnets(); err != nil {
		t.Error(err)
	}
}
