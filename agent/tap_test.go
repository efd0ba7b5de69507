// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

func TestTapIsDecided(t *testing.T) {
	uid, huge := uint32(1000), uint32(1<<31)
	for name, tc := range map[string]struct {
		r     api.AttachRequest
		field string
	}{
		"without a name": {api.AttachRequest{Tap: &api.Tap{}}, "ifname"},
		"with a table":   {api.AttachRequest{Tap: &api.Tap{}, IfName: "vm0", RouteTable: 7}, "route_table"},
		"large":          {api.AttachRequest{Tap: &api.Tap{}, IfName: "vm0", MTU: 65535}, "mtu"},
		"of nobody":      {api.AttachRequest{Tap: &api.Tap{Owner: &huge}, IfName: "vm0"}, "tap.owner"},
	} {
		err, ok := errors.AsType[*api.Error](decideTap(&tc.r, &attachmentRecord{MTU: 1500}))
		if !ok || err.Field != tc.field {
			t.Errorf("%s: %v", name, err)
		}
	}
	rec := &attachmentRecord{MTU: 65535}
	if err := decideTap(&api.AttachRequest{Tap: &api.Tap{Owner: &uid}, IfName: "vm0"}, rec); err != nil {
		t.Fatal(err)
	}
	if rec.Tap.Owner != 1000 || rec.Tap.Group != -1 || !rec.Bare || rec.MTU != 65521 || !rec.onHost() {
		t.Errorf("%+v", rec)
	}
}

// TestTapIsWholeAfterAnyKill: there is a device if there is an attachment, and none if
// there is none, whenever the agent was killed.
func TestTapIsWholeAfterAnyKill(t *testing.T) {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no tap devices here: %v", err)
	}
	l := newLab(t)
	agent := l.process()
	l.apply(blue)
	netns := l.netns()
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				_, _ = l.api.Attach(ctx, &api.AttachRequest{Netns: netns, IfName: "vm0", Tap: &api.Tap{}})
				_, _ = l.api.Detach(ctx, &api.DetachRequest{Netns: netns})
			}
		}()
		// A sleep that is not awaiting anything: the moment is the input.
		time.Sleep(time.Duration(rand.IntN(40_000)) * time.Microsecond)
		kill(agent)
		cancel()
		<-done
		agent = l.process()
		links := l.links()
		there := strings.Contains(l.sh("ip", "-n", netns, "-br", "link"), "vm0")
		if there != (len(links) == 1) || there && (links[0].State != api.StateReady || !links[0].Tap) {
			t.Fatalf("device %t, attachments %+v", there, links)
		}
	}
	for _, link := range l.links() {
		if _, err := l.api.Detach(t.Context(), &api.DetachRequest{Name: link.ID}); err != nil {
			t.Error(err)
		}
	}
	l.attach(api.AttachRequest{Netns: netns, IfName: "vm0", Tap: &api.Tap{}})
	l.sh("ip", "netns", "del", netns)
	l.eventually("the attachment goes with its namespace", func() bool { return len(l.links()) == 0 })
}
