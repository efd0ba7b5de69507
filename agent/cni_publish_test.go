// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"sluice/api"
	"sluice/config"
	"sluice/veth"
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

// TestPortsHeldElsewhere: a runtime that holds a port itself gets it published, before and
// after the agent is started again; one that does not is told who has it.
func TestPortsHeldElsewhere(t *testing.T) {
	l := newHostedLab(t)
	agent := l.process()
	red := l.netns()
	host, err := veth.OpenNetNS(l.inside)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	var runtime net.Listener
	if err := veth.Do(host, func() error { runtime, err = net.Listen("tcp", ":8000"); return err }); err != nil {
		t.Fatal(err)
	}
	defer runtime.Close()
	r := addRequest(red, 0)
	r.Publish = r.Publish[:1]
	if _, err := l.api.CNIAdd(t.Context(), r); err == nil || !strings.Contains(err.Error(), "in use on the host") {
		t.Errorf("of somebody else: %v", err)
	}
	r.PortsHeld = true
	if _, err := l.api.CNIAdd(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	kill(agent)
	l.process()
	l.pings(red, "10.85.0.1")
	if all, err := l.api.Published(t.Context(), api.ShowQuery{Namespace: "pods"}); err != nil || len(all) != 1 {
		t.Errorf("published are %v, %v", all, err)
	}
	if err := l.api.CNIDel(t.Context(), &api.CNIDelRequest{CNIKey: r.CNIKey}); err != nil {
		t.Error(err)
	}
	_ = runtime.Close()
	l.nothingLeft([]string{red})
}
