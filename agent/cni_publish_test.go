// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"path/filepath"
	"testing"

	"sluice/api"
	"sluice/config"
)

// What an attachment was made with is published as long as it is there, whatever is
// declared meanwhile, of its namespace or without it.
func TestPortsOfAttachmentsOutliveDeclarations(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := oneNetwork()
	rec := &before.attachments[0]
	rec.CNI = &cniRecord{Publish: []api.CNIPort{{Proto: "tcp", Host: 8080, To: 80}}}
	if err := s.update(func(tx *txn) error {
		if err := tx.putNetwork(&before.networks[0]); err != nil {
			return err
		}
		tx.state.networks = before.networks
		if err := tx.putAttachment(rec); err != nil {
			return err
		}
		return tx.publish(rec, new(sets))
	}); err != nil {
		t.Fatal(err)
	}
	declare := func(text string) error {
		t.Helper()
		c, err := config.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return s.update(func(tx *txn) error {
			_, err := tx.declare(c, origin{}, new(sets))
			return err
		})
	}
	const networks = `networks: [{name: blue, subnets: [10.44.0.0/29, "fd44::/64"]}]` + "\n"
	for _, text := range []string{networks, networks + "namespaces: [{name: blue, publish: [tcp 9090 to other:90]}]\n", networks} {
		if err := declare(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		found := false
		for _, p := range mustRead(t, s).namespace("blue").Connections.Published {
			found = found || p.To == rec.Name && p.Ports.Min == 8080
		}
		if !found {
			t.Errorf("after %s it is not published", text)
		}
	}
	if declare(networks+"namespaces: [{name: blue, publish: [tcp 8080 to other:90]}]\n") == nil {
		t.Error("a port of an attachment's was published for another")
	}
	if err := s.update(func(tx *txn) error { return tx.drop([]*attachmentRecord{rec}) }); err != nil {
		t.Fatal(err)
	}
	if left := mustRead(t, s).namespace("blue").Connections.Published; len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}
