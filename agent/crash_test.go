// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
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
	l := newLab(t)
	var all []string
	for range 4 {
		all = append(all, l.netns())
	}
	agent := l.process()
	l.apply(blue)
	agent = l.kills(agent, 12, 60*time.Millisecond, len(all), func(ctx context.Context, rnd *rand.Rand, i int) {
		if rnd.IntN(2) == 0 {
			_, _ = l.api.Attach(ctx, &api.AttachRequest{Netns: all[i]})
		} else {
			_, _ = l.api.Detach(ctx, &api.DetachRequest{Netns: all[i]})
		}
	}, func() { l.whole(all) })
	t.Logf("%d attachments or detachments were interrupted", strings.Count(l.log.String(), "undoing an attachment"))
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

// kills lets so many clients act at random, kills the agent at some moment of at most
// within, now and then the dataplane with it, starts the agent again and checks what is
// there; so many rounds. Errors of clients are what a killed agent gives.
func (l *lab) kills(agent *exec.Cmd, rounds int, within time.Duration, clients int, act func(ctx context.Context, rnd *rand.Rand, i int), check func()) *exec.Cmd {
	l.t.Helper()
	if testing.Short() {
		rounds /= 4
	}
	seed := uint64(time.Now().UnixNano())
	l.t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range rounds {
		stop := l.clients(clients, rnd.Uint64(), act)
		// A sleep that is not awaiting anything: the moment is the input.
		time.Sleep(time.Duration(rnd.Int64N(int64(within))))
		if pid := l.status().Dataplane.PID; pid > 0 && rnd.IntN(3) == 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			time.Sleep(time.Duration(rnd.IntN(20_000)) * time.Microsecond)
		}
		kill(agent)
		stop()
		agent = l.process()
		check()
	}
	return agent
}

// clients act until stop is called, each again and again.
func (l *lab) clients(n int, seed uint64, act func(ctx context.Context, rnd *rand.Rand, i int)) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			for ctx.Err() == nil {
				act(ctx, rnd, i)
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
