// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"sluice/api"
)

// TestDetachTakesTheNamespaceOfToday: a name was given to another namespace,
// while a process keeps the first one.
func TestDetachTakesTheNamespaceOfToday(t *testing.T) {
	l := newLab(t)
	l.start()
	l.apply(blue)
	red := l.netns()
	keeper := exec.Command("ip", "netns", "exec", red, "cat")
	in, err := keeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = keeper.Wait() })
	if _, err := in.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is inside
		t.Fatal(err)
	}
	old := l.attach(api.AttachRequest{Netns: red})
	l.sh("ip", "netns", "del", red)
	l.sh("ip", "netns", "add", red)

	_, err = l.api.Detach(t.Context(), &api.DetachRequest{Netns: red})
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != api.CodeNotFound || e.Field != "netns" || !strings.Contains(e.Message, red) {
		t.Errorf("before anything is attached to the new one: %v", err)
	}
	fresh := l.attach(api.AttachRequest{Netns: red})
	was, err := l.api.Detach(t.Context(), &api.DetachRequest{Netns: red, IfName: "eth0"})
	if err != nil || was.ID != fresh.ID {
		t.Errorf("detached %+v, %v; want %s", was, err, fresh.Name)
	}
	if links := l.links(); len(links) != 1 || links[0].ID != old.ID {
		t.Errorf("left are %+v", links)
	}
	if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Name: old.Name}); err != nil {
		t.Error(err)
	}
}
