// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"reflect"
	"testing"
)

// TestRecordsAreCopies: who changes a record that was read changes nobody else's, and
// what was not committed is not seen.
func TestRecordsAreCopies(t *testing.T) {
	d := newDesk(t, shop)
	d.attach("web", "cart")
	rec := func() *attachmentRecord {
		return mustRead(t, d.store).find(func(a *attachmentRecord) bool { return a.Name == "cart" })
	}
	was, mine := rec(), rec()
	for i := range mine.Addresses {
		mine.Addresses[i] = mine.Addresses[i].Masked()
	}
	mine.State = "nonsense"
	if !reflect.DeepEqual(was, rec()) {
		t.Errorf("the next reader has %+v, want %+v", rec(), was)
	}
	failed := errors.New("failed")
	err := d.store.update(func(t *txn) error {
		if err := t.putAttachment(mine); err != nil {
			return err
		}
		return failed
	})
	if !errors.Is(err, failed) || !reflect.DeepEqual(was, rec()) {
		t.Errorf("%v; the next reader has %+v, want %+v", err, rec(), was)
	}
	if err := d.store.update(func(t *txn) error { return t.putAttachment(mine) }); err != nil {
		t.Fatal(err)
	}
	if rec().State != "nonsense" {
		t.Errorf("what was committed is not seen: %+v", rec())
	}
}
