// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// filtered is a namespace of two networks with a ruleset.
const filtered = `namespaces:
  - name: shop
%snetworks:
  - {name: out, namespace: shop, subnets: [10.51.0.0/24, "fd51::/64"]}
  - {name: web, namespace: shop, subnets: [10.50.0.0/24, "fd50::/64"]}
`

// apart starts a daemon with a container in each network.
//
//	red -- web -- shop (ruleset) -- out -- blue
func apart(t *testing.T, rules string) (d *lab.Daemon, red, blue *lab.NS) {
	t.Helper()
	l := lab.New(t)
	if rules != "" {
		rules = "    nft: |\n      " + strings.ReplaceAll(strings.TrimSpace(rules), "\n", "\n      ") + "\n"
	}
	d = l.Daemon(fmt.Sprintf(filtered, rules))
	red = l.NS("red").Attach("--network", "web", "--name", "red")
	blue = l.NS("blue").Attach("--network", "out", "--name", "blue")
	return d, red, blue
}

const stateful = `table inet filter {
	set clients {
		type ipv4_addr
		flags interval
		elements = { 10.50.0.0/24 }
	}

	map ports {
		type inet_proto . inet_service : verdict
		elements = { tcp . 7000 : accept,
			     udp . 7000 : accept,
			     tcp . 7002 : drop }
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		ip saddr @clients icmp type echo-request counter accept
		iifname "web" meta nfproto ipv6 icmpv6 type echo-request counter accept
		iifname "web" meta l4proto . th dport vmap @ports
		tcp dport 81 counter reject with tcp reset
		udp dport 82 counter reject
		udp dport 83 counter reject with icmpx admin-prohibited
	}
}
`

// TestNFTForward: a stateful filter with sets and a verdict map, loaded by `nft -f`,
// between two networks: what it lets through, and who is told what.
func TestNFTForward(t *testing.T) {
	d, red, blue := apart(t, "")
	red.Ping(blue.IP(lab.V4))
	d.CLI("nft", "-f", d.Lab().File("filter.nft", stateful)).Expect(0)
	for _, f := range both() {
		red.Ping(blue.IP(f))
		blue.NoPing(red.IP(f))
	}
	blue.Serve()
	r := lab.Report[report.Stream](red.Traffic("send", "-both", "-bytes", "4000000", "-to", blue.At(lab.V4)), time.Minute)
	if !r.OK {
		t.Errorf("TCP: %+v", r)
	}
	d.CLI("nft", "list", "chain", "inet", "filter", "forward").Expect(0, "echo-request counter packets 1 bytes 84 accept")
	// What a client is told.
	red.Try("python3", "-c", refusals(blue.IP(lab.V4).String(), 81, 82, 83)).Expect(0, "81 ECONNREFUSED", "82 ECONNREFUSED", "83 EHOSTUNREACH")
	d.CLI("-s", "link", "show", "red").Expect(0, "nft_reject")
	d.CLI("-s", "link", "show", "blue").Expect(0, "nft_drop")
	// All is as before when one line is wrong, and the error says which.
	before := d.CLI("nft", "-a", "list", "ruleset").Out
	bad := d.CLI("nft", "-f", d.Lab().File("bad.nft", "table inet filter {\n\tchain forward {\n\t\ttcp dport { 22, 80x } accept\n\t}\n}\n"))
	bad.Expect(1)
	if !strings.Contains(bad.Err, "bad.nft:3:") {
		t.Errorf("error %q", bad.Err)
	}
	if after := d.CLI("nft", "-a", "list", "ruleset").Out; after != before {
		t.Errorf("changed:\n%s\nwas\n%s", after, before)
	}
	d.CLI("nft", "-c", "flush", "ruleset").Expect(0)
	blue.NoPing(red.IP(lab.V4))
	d.CLI("nft", "flush", "ruleset").Expect(0)
	blue.Ping(red.IP(lab.V4))
}

// refusals is a program that tells how TCP to the first port and UDP to the others are
// refused.
func refusals(to string, tcp int, udp ...int) string {
	p := `import socket, errno
def tell(kind, port):
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(3)
    try:
        s.connect(("` + to + `", port))
        s.send(b"x")
        s.recv(1)
        print(port, "open")
    except OSError as e:
        print(port, errno.errorcode.get(e.errno, e))
`
	p += fmt.Sprintf("tell(socket.SOCK_STREAM, %d)\n", tcp)
	for _, port := range udp {
		p += fmt.Sprintf("tell(socket.SOCK_DGRAM, %d)\n", port)
	}
	return p
}

// TestNFTListsAsKernel loads one file here and into a kernel's namespace: both list it
// in the same words.
func TestNFTListsAsKernel(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("no nft(8) to compare with")
	}
	d, red, _ := apart(t, "")
	file := d.Lab().File("filter.nft", stateful)
	d.CLI("nft", "-f", file).Expect(0)
	red.Try("nft", "-f", file).Expect(0)
	for _, options := range []string{"", "-a", "-s", "-t", "-n", "-y"} {
		args := append(strings.Fields("nft "+options), "list", "ruleset")
		ours, kernels := d.CLI(args...), red.Try(args...)
		if ours.Out != kernels.Out || ours.Out == "" {
			t.Errorf("nft %s: %s\nwant\n%s", options, ours.Out, kernels.Out)
		}
	}
}

// TestNFTSurvives: the ruleset is in force before the first packet passes, whoever was
// killed; a reload under traffic loses none.
func TestNFTSurvives(t *testing.T) {
	d, red, blue := apart(t, stateful)
	red.Ping(blue.IP(lab.V4))
	for _, kill := range []func(){func() { d.KillDataplane() }, func() { d.KillAgent(); d.Launch() }, func() { d.KillBoth(); d.Launch() }} {
		p := blue.Start("ping", "-i", "0.01", "-c", "150", "-W", "1", red.IP(lab.V4).String())
		time.Sleep(100 * time.Millisecond)
		kill()
		if r := p.Wait(20 * time.Second); !strings.Contains(r.Out, " 0 received") {
			t.Errorf("a packet passed: %s", r.Out)
		}
		d.Lab().Eventually("the way on is open", 10*time.Second, func() bool { return red.TryPing(blue.IP(lab.V4), 1).Code == 0 })
	}
}
