// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/api"
)

// TestABadConfigurationIsServedBeside what is recorded, and what it hinders can
// be put right by the daemon that it was given to.
func TestABadConfigurationIsServedBeside(t *testing.T) {
	l := newLab(t)
	file := filepath.Join(l.dir, "sluice.yaml")
	l.config = file
	stop := l.start() // no such file, no network
	if s := l.status(); !strings.Contains(s.ConfigError, "no such file") || s.Networks != 0 {
		t.Errorf("no file: %+v", s)
	}
	l.apply(blue)
	if s := l.status(); s.ConfigError != "" {
		t.Errorf("after an apply: %+v", s)
	}
	red := l.netns()
	l.attach(api.AttachRequest{Netns: red})
	stop()

	for text, want := range map[string]string{
		"networks: [{name: blue, subnet: x}]":                  "subnet",
		"networks: [{name: green, subnets: [10.78.0.0/24]}]\n": "network blue can't be removed: attached are " + red,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		stop = l.start()
		if s := l.status(); !strings.Contains(s.ConfigError, want) || !strings.HasPrefix(s.ConfigError, file+": ") || s.Networks != 1 {
			t.Errorf("want %q: %+v", want, s)
		}
		l.pings(red, "10.77.0.1")
		stop()
	}
	l.start()
	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Netns: red}); err != nil {
		t.Error(err)
	}
}
