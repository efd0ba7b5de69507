// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/api"
)

// TestKillAmongPortRules kills the agent with kill -9 while a client changes and undoes
// the ruleset of a port, now and then the dataplane with it. After each start every
// commit that was told of is in the history, and the dataplane goes by the last one.
func TestKillAmongPortRules(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	l := newLab(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	agent := l.process()
	l.apply(shopPorts(portText))
	l.attach(api.AttachRequest{Netns: l.netns(), Network: "web", Name: "cart"})
	h := portHistory{lab: l, states: map[uint64][]string{0: nil}}
	for range rounds {
		stop := l.editPorts(rnd.Uint64())
		time.Sleep(time.Duration(rnd.IntN(150_000)) * time.Microsecond) // the moment is the input
		if pid := l.status().Dataplane.PID; pid > 0 && rnd.IntN(3) == 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			time.Sleep(time.Duration(rnd.IntN(20_000)) * time.Microsecond)
		}
		kill(agent)
		told := stop()
		agent = l.process()
		h.check(told)
	}
	if h.last == 0 {
		t.Error("nothing was committed")
	}
	t.Logf("%d commits", h.last)
	l.consistent()
}

// TestPortRulesKilledAtEachStep kills the agent, or the dataplane, before each of the
// agent's system calls in a commit that waits to be confirmed: it is there with its
// deadline, or it is not, and the dataplane goes by what there is.
func TestPortRulesKilledAtEachStep(t *testing.T) {
	for _, victim := range []string{"agent", "dataplane"} {
		t.Run(victim, func(t *testing.T) {
			l := newLab(t)
			agent, w := l.watched()
			l.apply(shopPorts(portText))
			l.attach(api.AttachRequest{Netns: l.netns(), Network: "web", Name: "cart"})
			h, kills, stride := portHistory{lab: l, states: map[uint64][]string{0: nil}}, 0, 1
			if victim == "dataplane" { // the more often it ends the longer it is waited
				stride = 2
			}
			for n := 1; ; n += stride {
				pid := agent.Process.Pid
				if victim == "dataplane" {
					pid = l.status().Dataplane.PID
				}
				w.At(n, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
				text := fmt.Sprintf("add rule netdev f in udp dport %d drop", n)
				r, err := l.api.NFT(t.Context(), &api.NFTRequest{Namespace: "shop", Port: "cart", Text: text, Confirm: 600})
				if w.Seen() < n {
					break
				}
				if kills++; victim == "agent" {
					_ = agent.Wait()
					agent, w = l.watched()
				}
				was, told := h.last, uint64(0)
				if err == nil {
					told = r.Commit
				}
				all := h.check(told)
				if there := h.last > was; !there {
					continue
				}
				if last := &all[len(all)-1]; !last.Unconfirmed || last.SecondsLeft < 500 {
					t.Fatalf("killed before step %d: %+v", n, last)
				}
				if _, err := l.api.NFTUndo(t.Context(), &api.NFTUndoRequest{Namespace: "shop", Port: "cart"}); err != nil {
					t.Fatal(err)
				}
				h.check(h.last + 1)
			}
			t.Logf("%d kills", kills)
			if kills == 0 {
				t.Error("a commit has no steps")
			}
			l.consistent()
		})
	}
}

// editPorts changes cart's ruleset at random, until stop is called, which says what the
// last commit was that was told of.
func (l *lab) editPorts(seed uint64) (stop func() uint64) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var told atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		rnd := rand.New(rand.NewPCG(seed, 2))
		for ctx.Err() == nil {
			var r *api.NFTReply
			var err error
			switch rnd.IntN(8) {
			case 0:
				r, err = l.api.NFTUndo(ctx, &api.NFTUndoRequest{Namespace: "shop", Port: "cart"})
			case 1:
				r, err = l.api.NFT(ctx, &api.NFTRequest{Namespace: "shop", Port: "cart", Text: "flush ruleset"})
			default:
				r, err = l.api.NFT(ctx, &api.NFTRequest{Namespace: "shop", Port: "cart", Text: fmt.Sprintf("add rule netdev f in udp dport %d drop", 1+rnd.IntN(60_000))})
			}
			if err == nil {
				told.Store(r.Commit)
			}
		}
	}()
	return func() uint64 {
		cancel()
		<-done
		return told.Load()
	}
}

// portHistory is what cart's ruleset was after each commit: the ports of its rules.
type portHistory struct {
	*lab
	states map[uint64][]string
	last   uint64
}

// check follows the history, up to a commit at least that was told of, and compares what
// it leads to with what the dataplane has.
func (h *portHistory) check(told uint64) []api.NFTCommit {
	h.t.Helper()
	all, err := h.api.NFTHistory(h.t.Context(), api.ShowQuery{Namespace: "shop", Port: "cart"})
	if err != nil {
		h.t.Fatal(err)
	}
	dports := regexp.MustCompile(`udp dport (\d+)`)
	for i := range all {
		c, undone := &all[i], uint64(0)
		if i > 0 && c.Number != all[i-1].Number+1 {
			h.t.Fatalf("commit %d comes after %d", c.Number, all[i-1].Number)
		}
		if c.Number <= h.last {
			continue
		}
		if _, err := fmt.Sscanf(c.By, "undo %d", &undone); err == nil {
			h.states[c.Number] = h.states[undone-1]
		} else if m := dports.FindStringSubmatch(c.Summary); m != nil {
			h.states[c.Number] = append(slices.Clip(h.states[c.Number-1]), m[1])
		}
		h.last = c.Number
	}
	if h.last < told {
		h.t.Fatalf("commit %d was told of, the last one is %d", told, h.last)
	}
	r, err := h.listed()
	if err != nil {
		h.t.Fatal(err)
	}
	var is []string
	for _, m := range dports.FindAllStringSubmatch(r.Output, -1) {
		is = append(is, m[1])
	}
	if want := h.states[h.last]; !slices.Equal(is, want) {
		h.t.Fatalf("after commit %d the dataplane has %v, want %v", h.last, is, want)
	}
	return all
}

// listed is what the dataplane lists, as soon as there is one.
func (h *portHistory) listed() (r *api.NFTReply, err error) {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		r, err = h.api.NFT(h.t.Context(), &api.NFTRequest{Namespace: "shop", Port: "cart", Text: "list ruleset"})
		if api.CodeOf(err) != api.CodeUnavailable || time.Now().After(end) {
			return r, err
		}
	}
}
