// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/veth"
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

func TestDirectoriesOfOthersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a directory away")
	}
	tests := map[string]struct {
		prepare func(dir string) error
		want    string // empty: accepted
	}{
		"made":           {func(string) error { return nil }, ""},
		"there":          {func(dir string) error { return os.Mkdir(dir, 0o755) }, ""},
		"somebody's":     {func(dir string) error { return orChown(os.Mkdir(dir, 0o700), dir) }, "belongs to user 65534"},
		"group-writable": {func(dir string) error { return orChmod(os.Mkdir(dir, 0o700), dir, 0o770) }, "mode 0770 lets others write"},
		"world-writable": {func(dir string) error { return orChmod(os.Mkdir(dir, 0o700), dir, 0o777|os.ModeSticky) }, "mode 1777 lets others write"},
		"symbolic link":  {func(dir string) error { return os.Symlink(t.TempDir(), dir) }, "no symbolic link"},
		"file":           {func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "not a directory"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			if err := tt.prepare(dir); err != nil {
				t.Fatal(err)
			}
			f, err := runDir(dir).lock()
			if f != nil {
				f.Close()
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("run directory: %v, want %q", err, tt.want)
			}
			a, err := open(Options{RunDir: filepath.Join(t.TempDir(), "run"), StateDir: dir, Log: testLog(t.Output())})
			if err == nil {
				a.close()
				removeHostNS(t, a)
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("state directory: %v, want %q", err, tt.want)
			}
		})
	}
}

func removeHostNS(t *testing.T, a *Agent) {
	t.Helper()
	if err := veth.DeleteNetNS(a.dir.hostNS()); err != nil {
		t.Error(err)
	}
}

func orChown(err error, dir string) error {
	if err != nil {
		return err
	}
	return os.Chown(dir, 65534, 65534)
}

func orChmod(err error, dir string, mode os.FileMode) error {
	if err != nil {
		return err
	}
	return os.Chmod(dir, mode)
}

func TestLockFollowsNoLink(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	if err := os.Symlink(other, filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if f, err := runDir(dir).lock(); err == nil {
		f.Close()
		t.Error("locked through a symbolic link")
	}
	if _, err := os.Lstat(other); !os.IsNotExist(err) {
		t.Errorf("made what the link says: %v", err)
	}
}
