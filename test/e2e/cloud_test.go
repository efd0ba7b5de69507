// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"sluice/test/lab"
)

// TestCloudServices: what docs/security.md says to keep containers from the services of
// a cloud keeps them from these, and from nothing else.
func TestCloudServices(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	services := []netip.Addr{netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("fd00:ec2::254")}
	for i, f := range []lab.Family{lab.V4, lab.V6} {
		w.world.Run("ip", "addr", "add", services[i].String(), "dev", "lo")
		w.host.Run("ip", "route", "add", services[i].String(), "via", w.world.IP(f).String())
		w.red.Ping(services[i])
	}
	w.d.CLI("nft", "-f", w.File("cloud.nft", documented(t, "table inet cloud {"))).Expect(0)
	for i, f := range []lab.Family{lab.V4, lab.V6} {
		w.red.NoPing(services[i])
		w.red.Ping(w.world.IP(f))
	}
}

// documented is the block of docs/security.md that begins with a line.
func documented(t *testing.T, first string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), first)
	if !found {
		t.Fatalf("docs/security.md has no %q", first)
	}
	block, _, _ = strings.Cut(block, "\n\n")
	return first + block + "\n"
}
