// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"sluice/api"
)

// TestKilledAtEachStep kills the agent, or the dataplane, before each of the agent's system
// calls in an ADD and in a DEL: before some of them, unless SLUICE_LONG is set. Then the
// runtime tries again.
func TestKilledAtEachStep(t *testing.T) {
	stride := 12
	if os.Getenv("SLUICE_LONG") != "" {
		stride = 1
	}
	for _, verb := range []string{"ADD", "DEL"} {
		for _, victim := range []string{"agent", "dataplane"} {
			t.Run(verb+" "+victim, func(t *testing.T) { killAtSteps(t, verb, victim, stride) })
		}
	}
}

func killAtSteps(t *testing.T, verb, victim string, stride int) {
	t.Helper()
	l := newHostedLab(t)
	all := []string{l.netns(), l.netns()}
	moves, stays := addRequest(all[0], 0), addRequest(all[1], 1)
	agent, w := l.watched()
	if _, err := l.api.CNIAdd(t.Context(), stays); err != nil {
		t.Fatal(err)
	}
	add := func() error { _, err := l.api.CNIAdd(t.Context(), moves); return err }
	del := func() error { return l.api.CNIDel(t.Context(), &api.CNIDelRequest{CNIKey: moves.CNIKey}) }
	before, verbs := del, add
	if verb == "DEL" {
		before, verbs = add, del
	}
	kills := 0
	for n := 1 + rand.IntN(stride); ; n += stride {
		if err := before(); err != nil {
			t.Fatalf("before a kill at step %d: %v", n, err)
		}
		pid := agent.Process.Pid
		if victim == "dataplane" {
			pid = l.status().Dataplane.PID
		}
		w.At(n, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		_ = verbs() // it fails, or it has been fast enough
		if w.Seen() < n {
			break
		}
		if kills++; victim == "agent" {
			_ = agent.Wait()
			agent, w = l.watched()
		}
		l.podsWhole(all)
	}
	t.Logf("%d kills", kills)
	if kills == 0 {
		t.Error("it has no steps")
	}
	l.nothingLeft(all)
}
