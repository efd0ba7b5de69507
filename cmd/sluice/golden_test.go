// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the commands print now into testdata")

// session runs one command line and returns it as a terminal would show it:
// the line, what it printed, what it complained about, and its exit code.
func session(t *testing.T, socket, line, stdin string) string {
	t.Helper()
	var out, errs bytes.Buffer
	c := &cli{out: &out, err: &errs, in: strings.NewReader(stdin), now: clock}
	args := append([]string{"--socket", socket}, strings.Fields(line)...)
	code := c.run(t.Context(), args)
	errors := strings.ReplaceAll(errs.String(), socket, "SOCKET")
	return fmt.Sprintf("$ sluice %s\n%s%s[%d]\n", line, out.String(), errors, code)
}

// TestOutput compares every text that the commands print with testdata. Each
// file is one word of the command line; -update writes them anew, and the diff
// is then read by a person.
func TestOutput(t *testing.T) {
	for name, tc := range map[string]struct {
		answers answers
		stdin   string
		lines   []string
	}{
		"link":    {lines: []string{"link", "-s link", "link -s show red", "l show green", "link --network black", "link show nosuch", "link set red up"}},
		"addr":    {lines: []string{"addr", "address show", "addr --network black"}},
		"neigh":   {lines: []string{"neigh", "neigh show --network black"}},
		"fdb":     {lines: []string{"fdb", "fdb show --network black", "fdb show red"}},
		"ss":      {lines: []string{"ss"}},
		"network": {lines: []string{"network", "-s network show blue", "network show nosuch"}},
		"status":  {answers: answers{status: statusRunning()}, lines: []string{"status"}},
		"down":    {answers: answers{status: statusDown()}, lines: []string{"status", "-j status"}},
		"attach": {lines: []string{
			"attach red",
			"attach /run/netns/red --ifname eth1 --name red-eth1 --mtu 1400 --mac 02:00:00:00:00:55 --offload off",
			"attach red --ip 10.44.0.2", "attach red --network nosuch",
			"attach", "attach red green", "attach red --ip 10.44.0.0/24", "attach red --ip fd44::7", "attach red --ip6 red",
			"attach red --offload maybe", "attach red --mtu big", "attach red --mtu -1",
		}},
		"detach":     {lines: []string{"detach red", "detach --name red", "detach green", "detach", "detach red --name red"}},
		"apply":      {stdin: "networks: [{}]\n", lines: []string{"apply -f -", "apply -f - --dry-run", "apply", "apply -f /nonexistent.yaml"}},
		"same":       {stdin: "networks: []\n", lines: []string{"apply -f -", "apply -f - --dry-run", "apply -f - -j"}},
		"strict":     {stdin: "networs: []\n", lines: []string{"apply -f -"}},
		"shutdown":   {lines: []string{"shutdown", "shutdown --dataplane"}},
		"version":    {lines: []string{"version", "version -j"}},
		"json":       {answers: answers{status: statusRunning()}, lines: []string{"-o json link -s", "-j fdb", "neigh -j", "-j addr", "-j ss", "-j network", "-j status", "-j attach red", "-j detach red"}},
		"empty":      {answers: answers{empty: true}, lines: []string{"link", "-j link", "fdb", "-j fdb", "neigh", "addr", "ss", "network", "-j network"}},
		"usage":      {lines: []string{"lnk", "linkk", "--bogus", "-o xml status", "status now", "version 2"}},
		"first-time": {lines: []string{"", "help attach", "help link"}},
	} {
		t.Run(name, func(t *testing.T) {
			socket := tc.answers.listen(t)
			var got strings.Builder
			for _, line := range tc.lines {
				got.WriteString(session(t, socket, line, tc.stdin))
			}
			compare(t, filepath.Join("testdata", name+".txt"), got.String())
		})
	}
}

// compare checks got against a file, or writes the file with -update.
func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}
