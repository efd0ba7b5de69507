// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kernelNFT is nft(8) in a network namespace of its own; the test is skipped
// where there is none.
func kernelNFT(t *testing.T, script string, files map[string]string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "-n", "sh", "-c", script)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return errs.String(), false
	}
	return out.String(), true
}

// needKernel skips without nft 1.0.6, whose listings these tests expect, or
// without the privilege to make a namespace.
func needKernel(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs nft(8)")
	}
	if out, err := exec.Command("nft", "--version").Output(); err != nil || !bytes.Contains(out, []byte("v1.0.6")) {
		t.Skip("needs nft 1.0.6")
	}
	if _, ok := kernelNFT(t, "nft add table t", nil); !ok {
		t.Skip("needs to make a network namespace with nf_tables")
	}
}

// withoutTableHandles takes out of a listing what no two agree in.
func withoutTableHandles(s string) string {
	return regexp.MustCompile(`(table \S+ \S+ \{ # handle) \d+`).ReplaceAllString(s, "$1")
}

func TestTheCorpusIsListedAsByNFT(t *testing.T) {
	needKernel(t)
	for file, text := range corpus(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, ok := kernelNFT(t, "ip link set lo up; nft -f r.nft && nft -a list ruleset", map[string]string{"r.nft": text})
			if !ok {
				t.Skipf("this kernel does not load it: %s", want)
			}
			if d := cmp.Diff(withoutTableHandles(want), withoutTableHandles(listing(must(t, &Ruleset{}, text), ListOptions{Handles: true}))); d != "" {
				t.Errorf("(-nft +ours):\n%s", d)
			}
		})
	}
}

// TestRandomRulesetsAreListedAsByNFT compares also what is refused.
func TestRandomRulesetsAreListedAsByNFT(t *testing.T) {
	needKernel(t)
	n := 40
	if s := os.Getenv("NFT_RULESETS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	files := map[string]string{}
	for seed := range n {
		files[fmt.Sprintf("%06d.nft", seed)] = randomRuleset(uint64(seed))
	}
	script := `for f in *.nft; do echo "=#= $f"; nft flush ruleset; if nft -f $f 2>/dev/null; then nft -a list ruleset; else echo refused; fi; done`
	out, ok := kernelNFT(t, script, files)
	if !ok {
		t.Fatal(out)
	}
	results := map[string]string{}
	for part := range strings.SplitSeq(out, "=#= ") {
		name, text, _ := strings.Cut(part, "\n")
		results[name] = text
	}
	same, refused := 0, 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		want, got := withoutTableHandles(results[name]), "refused\n"
		rs, err := loadText(&Ruleset{}, files[name])
		if err == nil {
			got = withoutTableHandles(listing(rs, ListOptions{Handles: true}))
		}
		if want == "refused\n" {
			refused++
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-nft +ours): %v\n%s\n%s", name, err, d, files[name])
		}
		same++
	}
	t.Logf("%d rulesets, %d of them refused by both", same, refused)
}
