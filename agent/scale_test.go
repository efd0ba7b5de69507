// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"
	"testing"

	"sluice/api"
)

// BenchmarkSnapshot is what each attach and detach pays on a node that is full: 1,000
// networks, each its own namespace, and 3,000 attachments.
func BenchmarkSnapshot(b *testing.B) {
	st := crowded()
	b.ResetTimer()
	for b.Loop() {
		st.snapshot("")
	}
}

func crowded() *state {
	st := new(state)
	for i := range 1000 {
		st.networks = append(st.networks, networkRecord{Name: fmt.Sprintf("n%03d", i), Port: uint16(1 + i)})
	}
	for i := range 3000 {
		name := fmt.Sprintf("c%04d", i)
		st.attachments = append(st.attachments, attachmentRecord{
			ID: name, Name: name, Network: st.networks[i%1000].Name, Port: uint16(1001 + i), State: api.StateReady,
		})
	}
	return st
}

// TestMembers: attachments are found by network, in the order of their names, also
// after the state was given others.
func TestMembers(t *testing.T) {
	st := crowded()
	names := func(network string) string {
		var out []string
		for _, a := range st.of(network) {
			out = append(out, a.Name)
		}
		return strings.Join(out, " ")
	}
	if got := names("n007"); got != "c0007 c1007 c2007" {
		t.Errorf("got %s", got)
	}
	st.attachments = append(st.attachments[:8:8], attachmentRecord{Name: "new", Network: "n007"})
	if got := names("n007"); got != "c0007 new" {
		t.Errorf("got %s", got)
	}
	if got := st.attachedIn("n007"); len(got) != 2 || got[0] != &st.attachments[7] {
		t.Errorf("got %v", got)
	}
	if st.attachments = nil; names("n007") != "" {
		t.Error("some are left")
	}
}
