// SPDX-License-Identifier: Apache-2.0

package nft_test

import (
	"strings"
	"testing"

	"sluice/policy/nft"
)

func listed(r *nft.Ruleset) string {
	var b strings.Builder
	_ = r.List(&b, nil)
	return b.String()
}

// TestCompareSaysWhatChanged: by what things say, not by their handles.
func TestCompareSaysWhatChanged(t *testing.T) {
	load := func(text string) *nft.Ruleset {
		cmds, err := nft.Parse("x", text, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := new(nft.Ruleset).Apply(cmds, nil)
		if err != nil {
			t.Fatal(err)
		}
		return res.Ruleset
	}
	was := load("table ip gone { }\ntable inet f {\n set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }\n chain c { type filter hook forward priority 0; tcp dport 1; tcp dport 2; tcp dport 3; } }")
	is := load("table inet f {\n counter n { }\n set s { type ipv4_addr; elements = { 10.0.0.2, 10.0.0.3 }; }\n chain c { type filter hook forward priority 0; policy drop; tcp dport 1; tcp dport 4; tcp dport 3; } }")
	want := `- table ip gone
+ counter inet f n
- element inet f s { 10.0.0.1 }
+ element inet f s { 10.0.0.3 }
- chain inet f c { type filter hook forward priority filter; policy accept; }
+ chain inet f c { type filter hook forward priority filter; policy drop; }
- rule inet f c tcp dport 2 # handle 4
+ rule inet f c tcp dport 4 # handle 5
`
	if got := nft.Compare(was, is, nil); got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	if got := nft.Compare(was, was, nil) + nft.Compare(is, load(listed(is)), nil); got != "" {
		t.Errorf("nothing has changed: %s", got)
	}
}
