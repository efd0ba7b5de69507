// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEvents: as nft 1.0.6 printed it on Linux 6.18, but for what it says of the handles
// of sets, of what type a deleted set is, and of anonymous sets.
func TestEvents(t *testing.T) {
	rs := &Ruleset{}
	var text, handles, json, echoed strings.Builder
	for _, cmds := range []string{
		`add table ip t { comment "c"; }; add chain ip t c { type filter hook forward priority 0; policy drop; }; add chain ip t r; add set ip t s { type ipv4_addr; flags timeout; timeout 1h; }; add set ip t iv { type ipv4_addr; flags interval; }; add map ip t m { type ipv4_addr : verdict; }; add counter ip t n`,
		`add element ip t s { 10.0.0.1 timeout 5m, 10.0.0.2 }; add element ip t iv { 10.0.0.0/8, 11.0.0.1-11.0.0.9 }; add element ip t m { 1.2.3.4 : drop }`,
		`add rule ip t c tcp dport { 22, 23 } counter accept comment "x"; insert rule ip t c ip saddr @s drop`,
		`rename chain ip t r rr`, `add chain ip t c { policy accept; }`, `replace rule ip t c handle 8 tcp dport 24`, `delete element ip t iv { 10.0.0.0/8 }; flush set ip t iv`,
		`flush chain ip t c`, `delete chain ip t c; delete set ip t s; delete counter ip t n; reset counters`, `flush ruleset`,
	} {
		parsed, err := Parse("", cmds, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := rs.Apply(parsed, nil)
		if err != nil {
			t.Fatal(err)
		}
		rs = res.Ruleset
		for i := range res.Changes {
			for _, e := range res.Changes[i].Events(nil) {
				text.WriteString(e.Text + "\n")
				json.WriteString(e.JSON + "\n")
			}
			for _, e := range res.Changes[i].Events(&ListOptions{Handles: true}) {
				handles.WriteString(e.Text + "\n")
			}
			for _, e := range res.Changes[i].Echoed(nil) {
				echoed.WriteString(e.Text + "\n")
			}
		}
	}
	want := `add table ip t
add chain ip t c { type filter hook forward priority filter; policy drop; }
add chain ip t r
add set ip t s { type ipv4_addr; timeout 1h; } 
add set ip t iv { type ipv4_addr; flags interval; } 
add map ip t m { type ipv4_addr : verdict; } 
add counter ip t n { packets 0 bytes 0 } 
add element ip t s { 10.0.0.1 timeout 5m expires 5m }
add element ip t s { 10.0.0.2 expires 1h }
add element ip t iv { 10.0.0.0/8 }
add element ip t iv { 11.0.0.1-11.0.0.9 }
add element ip t m { 1.2.3.4 : drop }
add rule ip t c tcp dport { 22, 23 } counter packets 0 bytes 0 accept comment "x"
insert rule ip t c ip saddr @s drop
add chain ip t rr
add chain ip t c { type filter hook forward priority filter; policy accept; }
delete rule ip t c handle 8
add rule ip t c tcp dport 24
delete element ip t iv { 10.0.0.0/8 }
flush set ip t iv
delete rule ip t c handle 9
delete rule ip t c handle 8
delete chain ip t c
delete set ip t s
delete counter ip t n
delete set ip t iv
delete map ip t m
delete chain ip t rr
delete table ip t
`
	if d := cmp.Diff(want, text.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, line := range []string{
		"add table ip t # handle 1\n", "add chain ip t r # handle 2\n", `accept comment "x" # handle 8` + "\n", "delete rule ip t c handle 9\n", "delete table ip t # handle 1\n",
	} {
		if !strings.Contains(handles.String(), line) {
			t.Errorf("no %q in\n%s", line, handles.String())
		}
	}
	for _, line := range []string{
		`{"add": {"table": {"family": "ip", "name": "t", "handle": 1, "comment": "c"}}}`,
		`{"add": {"chain": {"family": "ip", "table": "t", "name": "c", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}}`,
		`{"add": {"element": {"family": "ip", "table": "t", "name": "s", "elem": {"set": [{"elem": {"val": "10.0.0.1", "timeout": 300, "expires": 300}}]}}}}`,
		`{"add": {"element": {"family": "ip", "table": "t", "name": "m", "elem": {"set": [["1.2.3.4", {"drop": null}]]}}}}`,
		`{"insert": {"rule": {"family": "ip", "table": "t", "chain": "c", "handle": 9, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@s"}}, {"drop": null}]}}}`,
		`{"delete": {"element": {"family": "ip", "table": "t", "name": "iv", "elem": {"set": [{"prefix": {"addr": "10.0.0.0", "len": 8}}]}}}}`,
		`{"delete": {"table": {"family": "ip", "name": "t", "handle": 1, "comment": "c"}}}`,
	} {
		if !strings.Contains(json.String(), line+"\n") {
			t.Errorf("no %s in\n%s", line, json.String())
		}
	}
	checkEchoed(t, echoed.String())
}

// checkEchoed: what is gone is not echoed, but for what is replaced.
func checkEchoed(t *testing.T, e string) {
	t.Helper()
	if strings.Contains(e, "delete chain") || strings.Contains(e, "delete table") || !strings.Contains(e, "delete rule ip t c handle 8\nadd rule ip t c tcp dport 24\n") {
		t.Errorf("echo:\n%s", e)
	}
}

func TestMonitoredWords(t *testing.T) {
	for _, words := range []string{"", "new", "destroy rules", "ruleset", "elements"} {
		if !Monitored(strings.Fields(words)) {
			t.Errorf("%q is refused", words)
		}
	}
	for _, words := range []string{"trace", "rules rules", "new new", "rules new", "frob"} {
		if Monitored(strings.Fields(words)) {
			t.Errorf("%q is accepted", words)
		}
	}
	e := Event{Destroyed: true, About: "rules"}
	if !e.Wanted([]string{"destroy", "rules"}) || e.Wanted([]string{"new"}) || e.Wanted([]string{"sets"}) || !e.Wanted(nil) || !e.Wanted([]string{"destroy", "ruleset"}) {
		t.Error("events are chosen wrongly")
	}
}
