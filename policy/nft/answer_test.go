// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func lists() []string {
	return []string{
		"list ruleset", "list ruleset inet", "list tables", "list tables ip", "list table ip t", "list chains", "list chains ip", "list chain ip t c",
		"list sets", "list sets inet", "list set ip t s", "list maps", "list map ip t m", "list counters", "list counters table ip t", "list counter ip t n",
		"list quotas", "list limits", "get element ip t i { 15 }", "list chain ip t none", "list set ip t none", "list table ip none",
		"list counter ip t none", "get element ip t i { 99 }",
	}
}

const listed = `table ip t {
	counter n { packets 5 bytes 6
	}
	set s { type mark; elements = { 1, 2 }; }
	set i { type mark; flags interval; elements = { 10-20, 30 }; }
	map m { type mark : verdict; elements = { 1 : accept }; }
	chain c { type filter hook input priority 0; policy accept;
		meta mark @s counter
	}
	chain d { return; }
}
table inet u {
	chain x { type filter hook forward priority 5; policy drop; }
}
`

func answer(t *testing.T, rs *Ruleset, text string) (string, error) {
	t.Helper()
	cmds, err := Parse("", text+"\n", nil)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return rs.Answer(cmds[0], &ListOptions{Env: testEnv()}, false)
}

func TestListsAreAnsweredAsByNFT(t *testing.T) {
	needKernel(t)
	rs := must(t, &Ruleset{}, listed)
	var script strings.Builder
	script.WriteString("nft -f r.nft\n")
	for _, text := range lists() {
		script.WriteString("echo '=#='; nft '" + text + "' 2>/dev/null || echo refused\n")
	}
	script.WriteString("true\n")
	out, ok := kernelNFT(t, script.String(), map[string]string{"r.nft": listed})
	if !ok {
		t.Fatal(out)
	}
	for i, want := range strings.Split(out, "=#=\n")[1:] {
		got, err := answer(t, rs, lists()[i])
		if err != nil {
			got = "refused\n"
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %v (-nft +ours):\n%s", lists()[i], err, d)
		}
	}
}

func TestResetsBeginAnew(t *testing.T) {
	rs := must(t, &Ruleset{}, listed+"add rule ip t d counter packets 7 bytes 8\n")
	for text, want := range map[string]string{
		"reset counters":         "packets 5 bytes 6",
		"reset counter ip t n":   "packets 5 bytes 6",
		"reset rules":            "packets 7 bytes 8",
		"reset rules table ip t": "packets 7 bytes 8",
		"reset rule ip t d":      "packets 7 bytes 8",
	} {
		cmds, err := Parse("", text+"\n", nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		res, err := rs.Apply(cmds, nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		shown, err := rs.Answer(res.Requests[0], nil, false)
		if err != nil || !strings.Contains(shown, want) {
			t.Errorf("%s shows %q, %v", text, shown, err)
		}
		if after := listing(res.Ruleset, ListOptions{}); strings.Contains(after, want) || len(res.Changes) == 0 {
			t.Errorf("%s: %d changes, then\n%s", text, len(res.Changes), after)
		}
	}
}
