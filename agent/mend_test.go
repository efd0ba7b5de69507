// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netns"

	"sluice/api"
	"sluice/veth"
)

// link returns the attachment of that name.
func (l *lab) link(name string) *api.Link {
	l.t.Helper()
	for _, link := range l.links() {
		if link.Name == name {
			return &link
		}
	}
	l.t.Fatalf("no attachment %s", name)
	return nil
}

// TestAPassingErrorDropsNothing restores, with the pair gone, containers whose
// namespace can't be opened for now, or can't take the interface for now.
func TestAPassingErrorDropsNothing(t *testing.T) {
	l := newLab(t)
	stop := l.start()
	l.apply(blue)
	hidden, taken, lost := l.netns(), l.netns(), l.netns()
	place := filepath.Join(l.dir, "place")
	point := func(to string) {
		t.Helper()
		if err := os.Remove(place); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.Symlink(to, place); err != nil {
			t.Fatal(err)
		}
	}
	point("/run/netns/" + hidden)
	was := l.attach(api.AttachRequest{Netns: place})
	l.attach(api.AttachRequest{Netns: taken})
	l.attach(api.AttachRequest{Netns: lost})
	stop()

	for _, ns := range []string{hidden, taken, lost} {
		l.sh("ip", "-n", ns, "link", "del", "eth0")
		if ns != hidden {
			l.sh("ip", "-n", ns, "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
		}
	}
	point(place) // ELOOP
	l.start()
	for _, name := range []string{"place", taken, lost} {
		if link := l.link(name); link.State != api.StateFailed || link.Fault == "" {
			t.Errorf("%s is %+v", name, link)
		}
	}
	if s := l.status(); s.Failed != 3 || s.Attachments != 3 {
		t.Errorf("status %+v", s)
	}

	point("/run/netns/" + hidden)
	l.sh("ip", "-n", taken, "link", "del", "eth0")
	l.sh("ip", "netns", "del", lost)
	l.eventually("two are ready and one is gone", func() bool { s := l.status(); return s.Failed == 0 && s.Attachments == 2 })
	if link := l.link("place"); link.MAC != was.MAC || link.Port != was.Port || link.Fault != "" {
		t.Errorf("was %+v, is %+v", was, link)
	}
	if n := len(l.links()); n != 2 {
		t.Errorf("%d attachments are left", n)
	}
	l.consistent()
	l.pings(hidden, "10.77.0.1", "fd77::1")
	l.pings(taken, "10.77.0.1", was.Addresses[0].Addr().String())
}

// TestAPairInUseIsKept: the socket of a pair that is there can't be opened.
func TestAPairInUseIsKept(t *testing.T) {
	rec := &oneNetwork().attachments[0]
	r := &restorer{
		a:    &Agent{hostNS: netns.None(), log: slog.New(slog.DiscardHandler)},
		ends: map[string]veth.HostEnd{rec.hostIfName(): {Name: rec.hostIfName(), Alias: rec.ID}},
	}
	if !r.attachment(rec) || rec.State != api.StateFailed || rec.Fault == "" {
		t.Errorf("record is now %+v", rec)
	}
}
