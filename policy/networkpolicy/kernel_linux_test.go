// SPDX-License-Identifier: Apache-2.0

package networkpolicy_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/policy/networkpolicy"
	"sluice/policy/nft"
)

// TestKernelTakesTheSameCommands gives the commands of random changes to nft and a
// kernel too, in a network namespace of its own, and compares the listings.
func TestKernelTakesTheSameCommands(t *testing.T) {
	tool, err := exec.LookPath("nft")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs root and nft")
	}
	for i := range rounds(t, 10) {
		g := gen{rand.New(rand.NewPCG(uint64(i), 4))}
		cl, c, dir := g.cluster(), networkpolicy.New(networkpolicy.Options{}), t.TempDir()
		rs, script := new(nft.Ruleset), ""
		ch := &networkpolicy.Change{Cluster: *cl}
		for step := range 10 {
			commands, err := c.Change(ch)
			if err != nil {
				t.Fatal(err)
			}
			if rs, err = networkpolicy.Apply(rs, commands); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, fmt.Sprint(step))
			if err := os.WriteFile(file, []byte(strings.Join(commands, "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			script += tool + " -f " + file + " && "
			follow(cl, ch)
			ch = g.change(cl)
		}
		out, err := exec.CommandContext(t.Context(), "unshare", "-n", "sh", "-c", script+tool+" list ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("cluster %d: %v\n%s", i, err, out)
		}
		if diff := cmp.Diff(string(out), listing(rs)); diff != "" {
			t.Fatalf("cluster %d: -kernel +ours\n%s", i, diff)
		}
	}
}
