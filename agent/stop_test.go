// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/api"
)

// TestStopWithAnotherStateDirectory must not take the pairs for unused, whether
// the agent's note is there or not.
func TestStopWithAnotherStateDirectory(t *testing.T) {
	l := newLab(t)
	agent := l.process()
	l.apply(blue)
	red := l.netns()
	l.attach(api.AttachRequest{Netns: red})

	wrong := optionsIn(l.dir)
	wrong.StateDir = filepath.Join(l.dir, "wrong")
	mistaken := func(what string) {
		t.Helper()
		if err := Stop(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "--state-dir") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(wrong.StateDir); !os.IsNotExist(err) {
			t.Errorf("%s: made %s (%v)", what, wrong.StateDir, err)
		}
		if n := len(l.hostEnds()); n != 1 {
			t.Errorf("%s: %d pairs are left", what, n)
		}
	}
	mistaken("with a note")
	l.pings(red, "10.77.0.1") // nothing was ended

	forgotten := optionsIn(l.dir)
	forgotten.StateDir = ""
	if err := Stop(t.Context(), forgotten); err != nil {
		t.Errorf("without the flag: %v", err)
	}
	_ = agent.Wait()
	if err := Run(t.Context(), wrong); err == nil || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("a start: %v", err)
	}
	mistaken("after a start")
	if err := os.Remove(l.run("state-dir")); err != nil {
		t.Fatal(err)
	}
	mistaken("without a note")

	agent = l.process()
	l.pings(red, "10.77.0.1")
	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Netns: red}); err != nil {
		t.Fatal(err)
	}
	if err := Stop(t.Context(), forgotten); err != nil {
		t.Error(err)
	}
	_ = agent.Wait()
	if _, err := os.Stat(l.run("netns/sluice")); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}
}
