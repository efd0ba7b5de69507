// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/api"
	"sluice/config"
	"sluice/netstack"
)

// keptOf are the journals of a port that are in the archive.
func (d *desk) keptOf(id string) (n int) {
	d.t.Helper()
	err := d.store.update(func(t *txn) error {
		n = len(archiveKeys(t.tx, portKey(id)))
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// cartHistory makes 82 commits of cart's ruleset, with the listing that takes the place of
// many, and with one that leaves it its network's. They are what it was after each.
func (d *desk) cartHistory() (want []string) {
	d.t.Helper()
	networks := d.portRules("cart")
	for i := range 80 { // more than a journal keeps
		if err := d.editPort("cart", fmt.Sprintf("add rule netdev f in udp dport %d drop", i+1)); err != nil {
			d.t.Fatal(err)
		}
		want = append(want, d.portRules("cart"))
	}
	if err := d.editPort("cart", "flush ruleset"); err != nil {
		d.t.Fatal(err)
	}
	if want = append(want, networks); d.portRules("cart") != networks || networks == "" {
		d.t.Errorf("cart has\n%s", d.portRules("cart"))
	}
	if err := d.editPort("cart", "add rule netdev f in udp dport 99 drop"); err != nil {
		d.t.Fatal(err)
	}
	return append(want, d.portRules("cart"))
}

// TestHistoryOfPorts: the transactions of a port's ruleset are numbered and remembered as
// a namespace's, beside those, as long as its attachment is there. What the file says of
// its network's ports is none of them.
func TestHistoryOfPorts(t *testing.T) {
	d := newDesk(t, shopPorts(portText))
	d.attach("web", "cart")
	d.attach("web", "till")
	if all := d.commitsOf("cart"); len(all) != 0 {
		t.Errorf("the network's has commits: %q", all)
	}
	want := d.cartHistory()
	if err := d.edit("add table inet own"); err != nil {
		t.Fatal(err)
	}
	d.store.Close()
	d.open()
	for i, text := range want {
		if got, err := d.portAt("cart", uint64(i+1)); err != nil || strings.TrimSpace(got) != text {
			t.Fatalf("commit %d: %v\n%s\nwant\n%s", i+1, err, got, text)
		}
	}
	all := d.commitsOf("cart")
	if len(all) != 82 || all[0] != "1 |add rule netdev f in udp dport 1 drop" || all[80] != "81 |flush ruleset" || all[81] != "82 |add rule netdev f in udp dport 99 drop" {
		t.Errorf("%d commits: %q", len(all), all)
	}
	if others := d.commitsOf("till"); len(others) != 0 {
		t.Errorf("another port has %q", others)
	}
	d.declare(shop) // which also takes the namespace's
	if d.portRules("cart") != want[81] || len(d.commitsOf("cart")) != 82 || len(d.commits()) != 2 {
		t.Errorf("cart has\n%s\n%q, the namespace %q", d.portRules("cart"), d.commitsOf("cart"), d.commits())
	}
	if d.keptOf("id-cart") == 0 {
		t.Error("nothing is in the archive")
	}
	if err := d.store.update(func(t *txn) error { return errors.Join(t.dropAttachment("id-cart"), t.dropAttachment("id-till")) }); err != nil {
		t.Fatal(err)
	}
	if n := d.keptOf("id-cart"); n != 0 {
		t.Errorf("%d journals are left", n)
	}
	d.attach("web", "cart")
	if all := d.commitsOf("cart"); len(all) != 0 {
		t.Errorf("the next one of that name has %q", all)
	}
}

// TestUndoOfPorts: any commit can be undone; what was before the first is the network's,
// as that is now.
func TestUndoOfPorts(t *testing.T) {
	d := newDesk(t, shopPorts(portText))
	d.attach("web", "cart")
	d.attach("web", "till")
	if err := d.revertPort("cart", undone(0)); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("undone: %v", err)
	}
	want := d.cartHistory()
	d.declare(shopPorts(strings.ReplaceAll(portText, "counter", "udp dport 8 drop")))
	networks := d.portRules("till")
	for _, step := range []struct {
		undo uint64
		want string
	}{{50, want[48]}, {0, want[81]}, {1, networks}} {
		if err := d.revertPort("cart", undone(step.undo)); err != nil {
			t.Fatal(err)
		}
		if now := d.portRules("cart"); now != step.want {
			t.Errorf("%d undone to\n%s\nwant\n%s", step.undo, now, step.want)
		}
	}
	if !strings.Contains(networks, "udp dport 8") {
		t.Errorf("the network's is %s", networks)
	}
	if err := d.revertPort("cart", undone(1)); err == nil || !strings.Contains(err.Error(), "is the network's") {
		t.Errorf("undone twice: %v", err)
	}
	if err := d.revertPort("cart", undone(0)); err != nil { // so it has its own again
		t.Fatal(err)
	}
	if now := d.portRules("cart"); now != want[81] {
		t.Errorf("undone to\n%s\nwant\n%s", now, want[81])
	}
	if all := d.commitsOf("cart"); all[len(all)-1] != "86 undo 85|delete table netdev f …" {
		t.Errorf("%q", all)
	}
}

// TestRulesetsThatWereRead: of who is gone none is kept.
func TestRulesetsThatWereRead(t *testing.T) {
	d := newDesk(t, shopPorts(portText))
	d.attach("web", "cart")
	st := mustRead(t, d.store)
	var r rulesets
	for _, key := range []string{"shop", "gone", portKey("id-cart"), portKey("id-gone")} {
		if _, err := r.of(key, st.network("web").PortNFT); err != nil {
			t.Fatal(err)
		}
	}
	if r.keep(st); len(r.states) != 2 || r.states["shop"] == nil || r.states[portKey("id-cart")] == nil {
		t.Errorf("kept are %v", r.states)
	}
}

// TestAttachmentWithAnUplinksName: the name is the attachment's, whichever of both comes
// first in the file; so it is for queueing disciplines.
func TestAttachmentWithAnUplinksName(t *testing.T) {
	d := newDesk(t, site("{name: out, namespace: shop}"))
	d.ready()
	d.attach("web", "out")
	st := mustRead(t, d.store)
	for range 2 {
		if x, err := st.ruled("shop", "out"); err != nil || x.port.ID != "id-out" {
			t.Errorf("out is %+v, %v", x, err)
		}
		slices.Reverse(st.attachments) // they are in the order of their identities
	}
}

// TestUplinkPortKeepsItsHistory: an uplink that is made anew has a port with another
// identity, and the same ruleset.
func TestUplinkPortKeepsItsHistory(t *testing.T) {
	d := newDesk(t, site("{name: out, namespace: shop}"))
	d.ready()
	for _, text := range []string{portText, "flush ruleset", strings.ReplaceAll(portText, "counter", "accept")} {
		if err := d.editPort("out", text); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.editUntil("out", "add rule netdev f in drop", 60); err != nil {
		t.Fatal(err)
	}
	was := d.commitsOf("host:out")
	old := mustRead(t, d.store).uplinkPort("out").ID
	d.declare(site("{name: out, namespace: shop, mtu: 9000}"))
	st := mustRead(t, d.store)
	if now := st.uplinkPort("out"); now.ID == old || d.keptOf(old) != 0 || d.keptOf(now.ID) == 0 {
		t.Errorf("%s has %d journals, %s has %d", old, d.keptOf(old), now.ID, d.keptOf(now.ID))
	}
	if is := d.commitsOf("host:out"); !slices.Equal(is, was) || len(is) != 4 {
		t.Errorf("commits %q, were %q", is, was)
	}
	if waits := st.unconfirmed(); len(waits) != 1 || waits[0].port.ID == old || waits[0].NFTConfirm.Number != 4 {
		t.Errorf("%+v wait to be confirmed", waits)
	}
	d.ready()
	if err := d.revertPort("out", undone(2)); err != nil {
		t.Fatal(err)
	}
	if now := d.portRules("host:out"); !strings.Contains(now, "counter") || strings.Contains(now, "drop") {
		t.Errorf("undone to %s", now)
	}
}

// TestConfirmOfPorts: a commit of a port's ruleset that waits to be confirmed keeps others
// of that port waiting, is taken back by whichever agent there is, and confirmed as a
// namespace's.
func TestConfirmOfPorts(t *testing.T) {
	d := newDesk(t, shopPorts(portText))
	d.attach("web", "cart")
	d.attach("web", "till")
	networks := d.portRules("cart")
	if err := d.editUntil("cart", "add rule netdev f in drop", 60); err != nil {
		t.Fatal(err)
	}
	if err := d.editPort("cart", "add table netdev g"); err == nil || !strings.Contains(err.Error(), "commit 1 waits to be confirmed: sluice nft --port cart confirm, or") {
		t.Errorf("another change meanwhile: %v", err)
	}
	for _, other := range []string{"till", ""} {
		if err := d.editPort(other, "add table netdev g"); err != nil {
			t.Errorf("of %q: %v", other, err)
		}
	}
	d.declare(shopPorts(portText)) // it has nothing to say of that
	d.store.Close()
	d.open()
	a := &Agent{store: d.store}
	all, err := a.nftHistory(context.Background(), query{namespace: "shop", port: "cart"})
	if err != nil || len(all) != 1 || !all[0].Unconfirmed || all[0].SecondsLeft < 50 {
		t.Errorf("%+v, %v", all, err)
	}
	waits := mustRead(t, d.store).unconfirmed()
	if len(waits) != 1 || waits[0].name() != "cart" || waits[0].space != "shop" || waits[0].NFTConfirm.over(api.Now()) {
		t.Fatalf("%+v", waits)
	}
	if err := d.revertPort(waits[0].port.ID, notConfirmed); err != nil {
		t.Fatal(err)
	}
	if now := d.portRules("cart"); now != networks || len(mustRead(t, d.store).unconfirmed()) != 0 {
		t.Errorf("taken back to\n%s", now)
	}
	if all := d.commitsOf("cart"); len(all) != 2 || !strings.HasPrefix(all[1], "2 commit 1 was not confirmed|") {
		t.Errorf("%q", all)
	}
	// That a port has no ruleset any more can wait to be confirmed, too.
	if err := d.editUntil("till", "flush ruleset", 60); err != nil {
		t.Fatal(err)
	}
	if err := d.revertPort("till", notConfirmed); err != nil {
		t.Fatal(err)
	}
	if now := d.portRules("till"); !strings.Contains(now, "table netdev g") {
		t.Errorf("taken back to\n%s", now)
	}
}

// TestConfirmedPort: it stays, and that is said of the port that is meant.
func TestConfirmedPort(t *testing.T) {
	d := newDesk(t, shop)
	d.attach("web", "cart")
	if err := d.editUntil("cart", portText, 60); err != nil {
		t.Fatal(err)
	}
	a := &Agent{store: d.store, log: slog.New(slog.DiscardHandler)}
	ask := func(port string) (uint64, error) {
		r, err := a.nftConfirm(context.Background(), &api.NFTConfirmRequest{Namespace: "shop", Port: port})
		if err != nil {
			return 0, err
		}
		return r.Commit, nil
	}
	if _, err := ask(""); err == nil || !strings.Contains(err.Error(), "no commit waits") {
		t.Errorf("the namespace's: %v", err)
	}
	if _, err := ask("nobody"); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("nobody's: %v", err)
	}
	if n, err := ask("cart"); n != 1 || err != nil || len(mustRead(t, d.store).unconfirmed()) != 0 || d.portRules("cart") == "" {
		t.Errorf("commit %d, %v; left: %s", n, err, d.portRules("cart"))
	}
	if _, err := ask("cart"); err == nil {
		t.Error("confirmed twice")
	}
}

// TestWhoHearsOfPorts: changes of a port's ruleset are its own, and its network's as long
// as it has that.
func TestWhoHearsOfPorts(t *testing.T) {
	d := newDesk(t, shopPorts(portText))
	d.attach("web", "cart")
	d.attach("web", "till")
	if err := d.editPort("cart", "add rule netdev f in drop"); err != nil {
		t.Fatal(err)
	}
	a := &Agent{}
	of := func(port string) *ruled { t.Helper(); return d.ruled(t, port) }
	heard := func(port string, after uint64) (string, uint64) {
		out := &api.NFTEvents{Next: after}
		o, words, asJSON := monitorWords(nil)
		a.ruleWatch.monitored(of(port).heard(), words, o, asJSON, out)
		return strings.Join(out.Lines, "|"), out.Next
	}
	_, since := heard("", 0)
	commit := func(do func(t *txn) error) {
		t.Helper()
		var edits []*edit
		if err := d.store.update(func(t *txn) error { defer func() { edits = t.edits }(); return do(t) }); err != nil {
			t.Fatal(err)
		}
		for _, e := range edits {
			a.committed(e)
		}
	}
	declare := func(text string) {
		t.Helper()
		commit(func(t *txn) error {
			c, err := config.Parse([]byte(shopPorts(text)))
			if err == nil {
				_, err = t.declare(c, origin{}, &d.sets)
			}
			return err
		})
	}
	commit(func(t *txn) error {
		e, err := newEditor(t, "shop", &d.sets)
		if err == nil {
			_, err = (&Agent{store: d.store}).revertRules(context.Background(), e, "cart", undone(0))
		}
		return errors.Join(err, e.finish())
	})
	const back = "|delete table netdev f|add table netdev f|"
	const other = "delete rule netdev f in handle 2|delete chain netdev f in|delete table netdev f|add table netdev g|# new ruleset of the network's ports"
	if got, _ := heard("cart", since); !strings.Contains(got, back) || !strings.HasSuffix(got, "|# new generation 2") {
		t.Errorf("cart hears %s", got)
	}
	declare("table netdev g")
	if got, _ := heard("till", since); got != other {
		t.Errorf("till hears %s", got)
	}
	if got, _ := heard("cart", since); !strings.HasSuffix(got, "|# new generation 2|"+other) {
		t.Errorf("cart hears %s", got)
	}
	if err := d.editPort("cart", "add table netdev own"); err != nil {
		t.Fatal(err)
	}
	declare("table netdev h")
	if got, _ := heard("cart", since); strings.Contains(got, "network's") || !strings.Contains(got, back) {
		t.Errorf("cart hears %s", got)
	}
	if got, _ := heard("", since); got != "" {
		t.Errorf("the namespace hears %s", got)
	}
}

// ruled is a port of shop's, or for "" shop itself, as it is recorded.
func (d *desk) ruled(t *testing.T, port string) *ruled {
	t.Helper()
	x, err := mustRead(t, d.store).ruled("shop", port)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestWhoIsToldByPorts: what a port's rules say of packets is its own and the namespace's.
func TestWhoIsToldByPorts(t *testing.T) {
	d := newDesk(t, shopPorts(portText))
	d.attach("web", "cart")
	d.attach("web", "till")
	a := &Agent{}
	of := func(port string) *ruled { t.Helper(); return d.ruled(t, port) }
	cart, till := of("cart"), of("till")
	a.ruleWatch.logs.add(10, netstack.RuleLog{Namespace: "shop", Text: "1"}, netstack.RuleLog{Namespace: "shop", Port: cart.number(), Text: "2"})
	for port, want := range map[string]int{"": 2, "cart": 1, "till": 0} {
		out := &api.NFTEvents{Next: 1}
		if a.ruleWatch.logged(of(port), out); len(out.Lines) != want {
			t.Errorf("%q hears %q", port, out.Lines)
		}
	}
	if cart.tells(0) || cart.tells(till.number()) || !cart.tells(cart.number()) || !of("").tells(7) {
		t.Error("who is told what")
	}
}

// TestExplainedAtAPort: a packet comes by the port or leaves by it, with the addresses of
// who has passed it.
func TestExplainedAtAPort(t *testing.T) {
	d := newDesk(t, shopPorts(portText))
	for _, name := range []string{"cart", "till"} {
		d.attach("web", name)
	}
	d.attach("db", "data")
	st := mustRead(t, d.store)
	x, err := st.ruled("shop", "cart")
	if err != nil {
		t.Fatal(err)
	}
	gateway := st.network("web").MAC
	mac := func(name string) string {
		if name == "" {
			return gateway.String()
		}
		return st.find(func(a *attachmentRecord) bool { return a.Name == name }).MAC.String()
	}
	for _, c := range []struct {
		from, to, src, dst string
		leaves, routed     bool
	}{
		{"cart", "data", "cart", "", false, true},
		{"", "203.0.113.9", "cart", "", false, true}, // the port's, if nobody is said
		{"cart", "till", "cart", "till", false, false},
		{"till", "cart", "till", "cart", true, false},
		{"data", "cart", "", "cart", true, true},
		{"203.0.113.9", "cart", "", "cart", true, true},
		{"", "cart", "", "cart", true, true},
	} {
		e, err := st.explainer(x, &api.NFTExplainRequest{From: c.from, To: c.to})
		if err != nil {
			t.Fatal(err)
		}
		from, to := e.from[0], e.to[0]
		q := netstack.RuleQuestion{Leaves: !from.addr.IsValid() || !e.isOf(from)}
		if e.links(from, to, &q); q.Leaves != c.leaves || q.Routed != c.routed || q.SrcMAC.String() != mac(c.src) || q.DstMAC.String() != mac(c.dst) || q.Tracked {
			t.Errorf("%s to %s: %+v", c.from, c.to, q)
		}
		if q.Leaves && !e.isOf(to) {
			t.Errorf("%s to %s is none of the port's", c.from, c.to)
		}
	}
	a := &Agent{store: d.store}
	_, err = a.nftExplain(context.Background(), &api.NFTExplainRequest{Namespace: "shop", Of: "cart", From: "till", To: "data"})
	if err == nil || !strings.Contains(err.Error(), "the ruleset of port cart sees what comes from it or goes to it") {
		t.Errorf("error %v", err)
	}
	up := newDesk(t, site("{name: out, namespace: shop}"))
	st = mustRead(t, up.store)
	if x, err = st.ruled("shop", "out"); err != nil {
		t.Fatal(err)
	}
	for device, want := range map[string]bool{"": true, "out": true, "web": false} {
		e, err := st.explainer(x, &api.NFTExplainRequest{From: "203.0.113.9", To: "10.77.0.1", Device: device})
		if err != nil {
			t.Fatal(err)
		}
		if got := e.isOf(end{addr: netip.MustParseAddr("203.0.113.9")}); got != want {
			t.Errorf("behind the uplink, by %q: %v", device, got)
		}
	}
}
