// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/api"
)

// revert is what `sluice nft undo`, or the end of a commit's time, does to the state file.
func (d *desk) revert(choose chosen) error { return d.revertPort("", choose) }

// revertPort is revert for the ruleset of a port.
func (d *desk) revertPort(port string, choose chosen) error {
	a := &Agent{store: d.store}
	return d.store.update(func(t *txn) error {
		e, err := newEditor(t, "shop", &d.sets)
		if err != nil {
			return err
		}
		if _, err := a.revertRules(context.Background(), e, port, choose); err != nil {
			return err
		}
		return e.finish()
	})
}

// commits are the history of shop, a line for each transaction.
func (d *desk) commits() []string { return d.commitsOf("") }

// commitsOf are those of a port's ruleset.
func (d *desk) commitsOf(port string) (out []string) {
	d.t.Helper()
	all, err := (&Agent{store: d.store}).nftHistory(context.Background(), query{namespace: "shop", port: port})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, c := range all {
		if c.Time.IsZero() || c.Port != port {
			d.t.Errorf("without a time, or of another port: %+v", c)
		}
		out = append(out, fmt.Sprintf("%d %s|%s", c.Number, c.By, c.Summary))
	}
	return out
}

// at is the ruleset as a transaction has left it.
func (d *desk) at(number uint64) (text string, err error) { return d.portAt("", number) }

// portAt is at for the ruleset of a port.
func (d *desk) portAt(port string, number uint64) (text string, err error) {
	err = d.store.withHistory("shop", port, func(x *ruled, all []archived) error {
		r, err := x.at(all, number)
		if err == nil {
			text = stateless(r)
		}
		return err
	})
	return text, err
}

// TestHistory: every transaction of a ruleset is remembered, whoever made it, over the
// listing that takes their place and over times without a ruleset; and any can be undone.
func TestHistory(t *testing.T) {
	d := newDesk(t, shopRules(oneRule))
	want := []string{}
	now, _ := d.rules()
	want = append(want, now)
	for i := range 80 { // more than a journal keeps
		if err := d.edit(fmt.Sprintf("add rule inet f forward tcp dport %d accept", i+1)); err != nil {
			t.Fatal(err)
		}
		now, _ = d.rules()
		want = append(want, now)
	}
	d.declare(shop) // no ruleset
	want = append(want, "")
	d.declare(shopRules(oneRule))
	want = append(want, want[0])
	d.store.Close()
	d.open()
	for i, text := range want {
		if got, err := d.at(uint64(i + 1)); err != nil || got != text {
			t.Fatalf("commit %d: %v\n%s\nwant\n%s", i+1, err, got, text)
		}
	}
	all := d.commits()
	if len(all) != 83 || all[0] != "1 apply|table inet f { …" || all[1] != "2 |add rule inet f forward tcp dport 1 accept" || all[81] != "82 apply|flush ruleset" {
		t.Errorf("%d commits: %q", len(all), all)
	}
	if err := d.revert(undone(50)); err != nil {
		t.Fatal(err)
	}
	if now, _ := d.rules(); now != want[48] {
		t.Errorf("undone to\n%s\nwant\n%s", now, want[48])
	}
	if err := d.revert(undone(0)); err != nil { // the undoing
		t.Fatal(err)
	}
	if now, rec := d.rules(); now != want[82] || rec.NFTBefore == 0 {
		t.Errorf("undone to\n%s\nwant\n%s", now, want[82])
	}
	if err := d.revert(undone(1)); err != nil {
		t.Fatal(err)
	}
	if now, rec := d.rules(); now != "" || rec.Connections.tracks() {
		t.Errorf("before the first there was\n%s", now)
	}
	for _, number := range []uint64{87, 1 << 60} {
		if err := d.revert(undone(number)); api.CodeOf(err) != api.CodeNotFound {
			t.Errorf("undo %d: %v", number, err)
		}
	}
}

// TestHistoryIsBounded: the oldest go, and what is left is as it was.
func TestHistoryIsBounded(t *testing.T) {
	d := newDesk(t, shopRules(oneRule))
	big := strings.Repeat("10.9.9.9, ", 30_000)
	for i := range 60 {
		text := fmt.Sprintf("add table inet t%d; delete table inet t%d # %s", i, i, big)
		if err := d.edit(text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.at(1); err == nil || !strings.Contains(err.Error(), "not kept any more") {
		t.Errorf("the first one: %v", err)
	}
	if text, err := d.at(60); err != nil || !strings.Contains(text, "table inet f") {
		t.Errorf("the last but one: %v %s", err, text)
	}
	// Of a namespace that is no more nothing stays.
	d.declare(strings.ReplaceAll(strings.ReplaceAll(shop, "shop", "other"), "peer: shop", "peer: other"))
	err := d.store.update(func(t *txn) error {
		if keys := archiveKeys(t.tx, "shop"); len(keys) > 0 {
			return fmt.Errorf("%d journals are left", len(keys))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestUndoKeepsTheRest: what is the same before and after keeps its handles, and so what
// was counted.
func TestUndoKeepsTheRest(t *testing.T) {
	d := newDesk(t, shopRules(oneRule))
	for _, text := range []string{"add table ip a; add chain ip a c { type filter hook forward priority 5; }", "add rule ip a c drop"} {
		if err := d.edit(text); err != nil {
			t.Fatal(err)
		}
	}
	handles := func() (out map[string]uint64) {
		out = map[string]uint64{}
		s, _, err := mustRead(t, d.store).namespace("shop").NFT.Follow(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range s.Ruleset.Tables {
			out[x.Name] = x.Handle
		}
		return out
	}
	was := handles()
	if err := d.revert(undone(0)); err != nil {
		t.Fatal(err)
	}
	if is := handles(); is["f"] != was["f"] || is["a"] == was["a"] {
		t.Errorf("handles %v, were %v", is, was)
	}
}

// TestConfirm: a commit that waits to be confirmed is taken back when its time is over,
// by whichever agent there is; of another boot it is over.
func TestConfirm(t *testing.T) {
	d := newDesk(t, shopRules(oneRule))
	was, _ := d.rules()
	pending := func(until api.Moment) {
		t.Helper()
		if err := d.edit("add rule inet f forward drop"); err != nil {
			t.Fatal(err)
		}
		err := d.store.update(func(tx *txn) error {
			n := *tx.state.namespace("shop")
			n.NFTConfirm = &pendingCommit{Number: 2, Until: until}
			return tx.putNamespace(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	later := api.Now()
	later.At += time.Minute
	pending(later)
	p := mustRead(t, d.store).namespace("shop").NFTConfirm
	if p.over(api.Now()) || p.left(api.Now()) > time.Minute || !p.over(api.Moment{Boot: "another", At: 1}) || !p.over(api.Moment{Boot: later.Boot, At: later.At}) {
		t.Errorf("%+v", p)
	}
	d.store.Close()
	d.open()
	if err := d.revert(notConfirmed); err != nil {
		t.Fatal(err)
	}
	if now, rec := d.rules(); now != was || rec.NFTConfirm != nil {
		t.Errorf("%s\nwant\n%s", now, was)
	}
	if all := d.commits(); all[len(all)-1] != "3 commit 2 was not confirmed|delete table inet f …" {
		t.Errorf("%q", all)
	}
	// The file ends the waiting.
	if err := d.edit("add rule inet f forward drop"); err != nil {
		t.Fatal(err)
	}
	pending(later)
	if changes := strings.Join(d.declare(shopRules(oneRule)), "\n"); !strings.Contains(changes, "confirm nft commit 2 in shop") {
		t.Errorf("changes %s", changes)
	}
	if now, rec := d.rules(); now != was || rec.NFTConfirm != nil {
		t.Errorf("%s %+v", now, rec.NFTConfirm)
	}
}

func TestSummary(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "# only\n": "", "#!/usr/sbin/nft -f\n\nflush ruleset\ntable ip t\n": "flush ruleset …", "add table ip t": "add table ip t",
		strings.Repeat("ä", 100): strings.Repeat("ä", 60) + "…",
	} {
		if got := summary(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
