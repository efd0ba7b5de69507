// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"path/filepath"
	"testing"
)

func TestDirectoriesAreMadeAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	o := Options{RunDir: "run/", StateDir: "./state"}
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	if o.RunDir != filepath.Join(dir, "run") || o.StateDir != filepath.Join(dir, "state") {
		t.Errorf("run %s, state %s", o.RunDir, o.StateDir)
	}
	o = Options{}
	if err := o.setDefaults(); err != nil || o.RunDir != "/run/sluice" || o.StateDir != "/var/lib/sluice" {
		t.Errorf("defaults: %+v, %v", o, err)
	}
}

// TestRelativeDirectories runs an agent where a shell's user would.
func TestRelativeDirectories(t *testing.T) {
	l := newLab(t)
	t.Chdir(l.dir)
	l.relative = true
	l.start()
	if s := l.status(); s.RunDir != filepath.Join(l.dir, "run") || s.StateDir != filepath.Join(l.dir, "state") {
		t.Errorf("status %+v", s)
	}
}
