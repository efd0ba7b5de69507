// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
)

const shut = "table inet shut {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n"

// TestNFTConfirm: a change that locks everybody out goes back by itself, although agent
// and dataplane are killed meanwhile; one that is confirmed stays. Then it is undone.
func TestNFTConfirm(t *testing.T) {
	d, red, blue := apart(t, "")
	to := blue.IP(lab.V4)
	d.CLI("nft", "add", "table", "inet", "open").Expect(0)
	file := d.Lab().File("shut.nft", shut)
	begun := time.Now()
	r := d.CLI("nft", "-f", file, "--confirm", "4s")
	r.Expect(0)
	if !strings.Contains(r.Err, "commit 2 is taken back in 4 seconds") {
		t.Errorf("told %q", r.Err)
	}
	red.NoPing(to)
	if r := d.CLI("nft", "add", "table", "ip", "other"); r.Code == 0 || !strings.Contains(r.Err, "commit 2 waits to be confirmed") {
		t.Errorf("another change meanwhile: %+v", r)
	}
	d.KillDataplane()
	d.KillAgent()
	d.Launch()
	d.Lab().Eventually("the change is taken back", patience, func() bool { return red.TryPing(to, 1).Code == 0 })
	if took := time.Since(begun); took < 3*time.Second {
		t.Errorf("taken back after %v", took)
	}
	d.CLI("nft", "list", "ruleset").Expect(0, "table inet open")
	d.CLI("nft", "history").Expect(0, "commit 2 was not confirmed")
	if r := d.CLI("nft", "confirm"); r.Code == 0 || !strings.Contains(r.Err, "no commit waits") {
		t.Errorf("late confirmation: %+v", r)
	}

	d.CLI("nft", "commit", "--confirm", "2s", "-f", file).Expect(0)
	d.CLI("nft", "confirm").Expect(0)
	time.Sleep(2500 * time.Millisecond)
	red.NoPing(to)
	d.CLI("nft", "diff").Expect(0, "+ chain inet shut forward { type filter hook forward priority filter; policy drop; }")
	d.CLI("nft", "diff", "4", "2").Expect(0)
	d.CLI("nft", "undo").Expect(0)
	red.Ping(to)
	d.CLI("nft", "undo", "3").Expect(0) // and so the first change that was not confirmed is back
	red.NoPing(to)
	d.CLI("-j", "nft", "history").Expect(0, `"commit":6`)
}

// TestNFTFile: the ruleset of a namespace is in a file of its own, with what that
// includes; an error has its place there, and changes nothing.
func TestNFTFile(t *testing.T) {
	d, red, blue := apart(t, "")
	l := d.Lab()
	l.File("policy.nft", "define policy = drop\n")
	l.File("shut.nft", "include \"./policy.nft\"\n"+strings.ReplaceAll(shut, "policy drop", "policy $policy"))
	yaml := fmt.Sprintf(filtered, "    nftFile: shut.nft\n")
	file := l.File("sluice.yaml", yaml)
	d.CLI("apply", "-f", file).Expect(0, "add nft")
	red.NoPing(blue.IP(lab.V4))
	d.CLI("apply", "-f", file).Expect(0, "no change")
	l.File("policy.nft", "define policy = accept\n")
	d.CLI("apply", "-f", file).Expect(0)
	red.Ping(blue.IP(lab.V4))
	l.File("shut.nft", "table inet shut {\n\tchain forward {\n\t\ttcp dport frob drop\n\t}\n}\n")
	d.CLI("apply", "-f", file).Expect(1, "namespaces[0].nftFile", "shut.nft:3:13-16: Error")
	d.CLI("apply", "-f", l.File("gone.yaml", fmt.Sprintf(filtered, "    nftFile: gone.nft\n"))).Expect(1, "namespaces[0].nftFile: gone.nft: file does not exist")
	red.Ping(blue.IP(lab.V4))
	d.CLI("nft", "diff").Expect(0, "policy accept")
}
