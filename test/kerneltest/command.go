// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// patience is how long a command may run, or the kernel take to notice something.
const patience = 60 * time.Second

// Try runs a command that may fail, with an input, and returns what it printed.
func Try(input string, words ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	var out, bad bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &bad
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s\n%s", strings.Join(words, " "), err, &out, &bad, input)
	}
	return out.String(), nil
}

// Feed is Try for a command that must succeed.
func Feed(tb testing.TB, input string, words ...string) string {
	tb.Helper()
	out, err := Try(input, words...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Run is Feed without an input.
func Run(tb testing.TB, words ...string) string {
	tb.Helper()
	return Feed(tb, "", words...)
}

// RunIn is Run in a namespace.
func RunIn(tb testing.TB, ns netns.NsHandle, words ...string) (out string) {
	tb.Helper()
	inside(tb, ns, func() { out = Run(tb, words...) })
	return out
}

// IP gives lines to ip(8).
func IP(tb testing.TB, lines ...string) {
	tb.Helper()
	Feed(tb, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
}

// NFT gives a ruleset to nft(8). A kernel that lacks something of it skips the test.
func NFT(tb testing.TB, ruleset string) {
	tb.Helper()
	if _, err := Try(ruleset, "nft", "-f", "-"); err != nil {
		tb.Skipf("the kernel here lacks something of nf_tables: %v", err)
	}
}
