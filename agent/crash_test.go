// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/api"
)

// TestKillAtAnyMoment kills the agent with kill -9 while clients attach and
// detach, now and then the dataplane with it, and starts it again. After each
// start nothing may be half there: no pair without a record and no record
// without a pair, no lease without an attachment, no interface in a container
// that is not attached, and whatever is attached reaches the gateway.
func TestKillAtAnyMoment(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	l := newLab(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var all []string
	for range 4 {
		all = append(all, l.netns())
	}
	agent := l.process()
	l.apply(blue)
	for range rounds {
		stop := l.churn(all, rnd.Uint64())
		// A sleep that is not awaiting anything: the moment is the input.
		time.Sleep(time.Duration(rnd.IntN(60_000)) * time.Microsecond)
		if pid := l.status().Dataplane.PID; pid > 0 && rnd.IntN(3) == 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			time.Sleep(time.Duration(rnd.IntN(20_000)) * time.Microsecond)
		}
		kill(agent)
		stop()
		agent = l.process()
		l.whole(all)
	}
	t.Logf("%d kills interrupted %d attachments or detachments", rounds, strings.Count(l.log.String(), "undoing an attachment"))
	for _, link := range l.links() {
		if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Name: link.ID}); err != nil {
			t.Error(err)
		}
	}
	l.whole(all)
	if n := openFiles(t, agent.Process.Pid); n > 40 {
		t.Errorf("the agent has %d open files with nothing attached", n)
	}
}

// churn attaches and detaches at random, one client for each container, until
// stop is called. Errors are what a killed agent gives.
func (l *lab) churn(all []string, seed uint64) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var wg sync.WaitGroup
	for i, netns := range all {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			for ctx.Err() == nil {
				if rnd.IntN(2) == 0 {
					_, _ = l.api.Attach(ctx, &api.AttachRequest{Netns: netns})
				} else {
					_, _ = l.api.Detach(ctx, &api.DetachRequest{Netns: netns})
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// whole checks the invariants of a running agent, from outside.
func (l *lab) whole(all []string) {
	l.t.Helper()
	l.consistent()
	links := l.links()
	leases, err := l.api.Addresses(l.t.Context(), "")
	if err != nil {
		l.t.Fatal(err)
	}
	if want := 2 + 2*len(links); len(leases) != want { // of both families, and the gateway's
		l.t.Errorf("%d addresses are taken, want %d", len(leases), want)
	}
	for _, netns := range all {
		attached := slices.ContainsFunc(links, func(k api.Link) bool { return k.Netns == "/run/netns/"+netns })
		there := strings.Contains(l.sh("ip", "-n", netns, "-br", "link"), "eth0")
		if attached != there {
			l.t.Errorf("%s: attached %t, but has eth0 %t", netns, attached, there)
		}
		if attached && there {
			l.pings(netns, "10.77.0.1")
		}
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// openFiles counts the descriptors of a process.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
