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
		"link": {lines: []string{
			"link", "-s link", "link -s show red", "l show green", "link --network black", "link show nosuch", "link set red up",
			"-d link show red", "-br link", "-o link show red", "l sh type vrf", "l sh type veth", "-n shop l show type bridge", "l show dev red vrf", "l show red green", "-n shop l", "link show to-shop", "link add x", "link help", "link save",
		}},
		"addr":  {lines: []string{"addr", "address show", "addr --network black", "a sh dev red", "-6 a", "-br a", "-n shop a", "addr show to 10.44.0.0/30", "addr show nosuch", "addr flush dev x"}},
		"neigh": {lines: []string{"neigh", "neigh show --network black", "nei get 10.44.0.3 dev blue", "neigh get 10.44.0.4 dev blue", "neigh get 10.44.0.3", "n"}},
		"fdb":   {lines: []string{"fdb", "fdb show --network black", "fdb show red", "fdb get 02:00:00:00:00:99", "fdb get 02:00:00:00:00:98", "fdb get"}},
		"route": {lines: []string{
			"route", "ro sh", "r l table all", "-n shop route", "-o -n default route", "-6 r", "-j -n shop r", "-j -p -n shop r",
			"r get 10.9.0.1", "r get 10.9.0.2", "r get 10.9.0.3", "route get", "-j ro g 10.9.0.1", "route add 10.0.0.0/8 via 10.1.0.1 metric 5 table blue",
			"route add taken", "route save", "r frob", "route help", "route --help", "help route",
		}},
		"rule":      {lines: []string{"rule", "ru l", "rule add from 10.9.0.0/16 lookup blue", "rule add taken", "rule help", "rule x"}},
		"vrf":       {lines: []string{"vrf", "v show red", "vrf exec red ls", "vrf add red table 100"}},
		"vlan":      {lines: []string{"vlan", "vlan show dev red", "vl add dev red vid 10", "vlan tunnelshow"}},
		"mdb":       {lines: []string{"mdb", "m sh", "mdb replace dev blue port red grp 239.1.1.1"}},
		"qdisc":     {lines: []string{"qdisc", "-s -d qdisc show dev red", "-j q sh dev red from", "class show dev red", "filter show dev red", "qdisc add dev red root fq_codel", "class del dev red classid 1:10", "qdisc frob", "qdisc help", "filter --help"}},
		"tree":      {lines: []string{"tree", "-s tree show", "-j tree", "tree set node from rate 1gbit", "tree del dev red", "tree show x", "tree help"}},
		"uplink":    {lines: []string{"uplink", "-s up sh out", "-o uplink", "-j uplink", "uplink add x", "uplink help"}},
		"namespace": {lines: []string{"namespace", "netns list", "names show shop", "-n default netns", "namespace show nosuch", "-j namespace", "namespace add x"}},
		"conntrack": {lines: []string{
			"conntrack -L", "conntrack -L -o json", "-j -p conntrack --dump", "conntrack -L -p frob", "conntrack -D -p tcp", "conntrack -F", "conntrack -C", "conntrack -S", "-j conntrack -S",
			"conntrack -E", "conntrack -E -o timestamp,extended", "conntrack", "conntrack --help", "help conntrack",
		}},
		"nat":     {lines: []string{"nat", "nat show", "nat bindings", "-j nat", "-j nat bind", "nat add x", "nat show x", "nat help"}},
		"publish": {lines: []string{"publish", "pub", "publish add tcp 8080 to web:80", "publish add taken", "publish del tcp 8080", "-j publish show", "publish help"}},
		"dns":     {lines: []string{"dns", "dns show", "dns stats", "-j dns", "-j dns st", "dns flush", "dns flush www.example.com", "dns show x", "dns help"}},
		"service": {lines: []string{"service", "ser list", "service add web tcp 10.96.0.10:80 real 10.44.0.3:8080", "service add taken", "service set web real 10.44.0.3:8080 state draining", "service del web", "-j service", "service show x", "service help"}},
		"ss":      {lines: []string{"ss", "-6 ss", "ss -n shop", "ss sh"}},
		"policy": {lines: []string{
			with("policy check %s --from shop/web --to shop/db --port 5432"), with("policy check %s --from shop/web --to shop/db --port 80"),
			with("policy check %s --from other --to shop/db --port 5432"), with("-j policy check %s --from other --to shop/db --port 5432"),
			with("policy check %s --from shop/web --to 198.51.100.1 --port 8005 --proto udp"), with("policy check %s --from shop/web --to 10.0.0.9 --proto icmp"),
			with("policy check %s --from 192.0.2.2 --to shop/db --port 5432"), with("policy check %s --from shop/web --to nobody --port 1"),
			with("policy check %s --from shop/web --to shop/db"), with("policy check %s --to shop/db"), "policy check --from a --to b --port 1",
			"policy compile -f testdata/policy/wrong.yaml --pods testdata/policy/pods.yaml", "policy compile -f testdata/policy/unknown.yaml --pods testdata/policy/pods.yaml",
			with("policy compile %s --node one"), with("-j policy compile %s --node three"), "policy frob", "policy", "policy check --help",
		}},
		"network": {lines: []string{"network", "-s network show blue", "network show nosuch", "network del pods", "net delete blue", "network del", "network help"}},
		"status":  {answers: answers{status: statusRunning()}, lines: []string{"status"}},
		"down":    {answers: answers{status: statusDown()}, lines: []string{"status", "-j status"}},
		"attach": {lines: []string{
			"attach red",
			"attach /run/netns/red --ifname eth1 --name red-eth1 --mtu 1400 --mac 02:00:00:00:00:55 --offload off",
			"attach red --ip 10.44.0.2", "attach red --network nosuch", "attach red --set isolated=on --table blue --route-table 7 --configure none",
			"attach", "attach red green", "attach red --ip 10.44.0.0/24", "attach red --ip fd44::7", "attach red --ip6 red",
			"attach red --offload maybe", "attach red --mtu big", "attach red --mtu -1", "attach red --configure dhcp",
			"attach --tap vm1", "attach red --tap vm1 --owner 1000 --group 5", "attach --tap vm1 --ifname eth0", "attach red --owner 1000", "attach --tap vm1 --owner me", "attach red --alias www",
		}},
		"detach":     {lines: []string{"detach red", "detach --name red", "detach green", "detach", "detach red --name red"}},
		"apply":      {stdin: "networks: [{}]\n", lines: []string{"apply -f -", "apply -f - --dry-run", "apply", "apply -f /nonexistent.yaml"}},
		"same":       {stdin: "networks: []\n", lines: []string{"apply -f -", "apply -f - --dry-run", "apply -f - -j"}},
		"strict":     {stdin: "networs: []\n", lines: []string{"apply -f -"}},
		"shutdown":   {lines: []string{"shutdown", "shutdown --dataplane"}},
		"version":    {lines: []string{"version", "version -j"}},
		"json":       {answers: answers{status: statusRunning()}, lines: []string{"-o json link -s", "-j fdb", "neigh -j", "-j addr", "-j ss", "-j network", "-j status", "-j attach red", "-j detach red"}},
		"empty":      {answers: answers{empty: true}, lines: []string{"link", "-j link", "fdb", "-j fdb", "route", "-j route", "vlan", "namespace", "neigh", "addr", "ss", "network", "-j network", "conntrack -L", "-j conntrack -L", "conntrack -D", "nat", "publish", "-j publish", "service", "-j service"}},
		"usage":      {lines: []string{"lnk", "linkk", "--bogus", "-o xml status", "-output xml status", "-f bridge route", "-n blue status", "-n", "status now", "version 2"}},
		"first-time": {lines: []string{"", "help attach", "help link", "link --help"}},
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

// with puts the files of testdata/policy into a command line.
func with(line string) string {
	return fmt.Sprintf(line, "-f testdata/policy/policies.yaml --pods testdata/policy/pods.yaml")
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
