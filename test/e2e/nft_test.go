// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
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
		red.PingBy(3, blue.IP(f), "-i", "0.3") // answered before the next one: that is counted no more
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
    s.settimeout(10)
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
		d.Lab().Eventually("the way on is open", patience, func() bool { return red.TryPing(blue.IP(lab.V4), 1).Code == 0 })
	}
}

// counts are the packets that the rules with these words in their listing have seen.
func counts(t *testing.T, d *lab.Daemon, words string) (packets int) {
	t.Helper()
	for line := range strings.Lines(d.CLI("nft", "list", "ruleset").Out) {
		if strings.Contains(line, words) {
			_, rest, _ := strings.Cut(line, "counter packets ")
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			packets += n
		}
	}
	return packets
}

// kept waits until what was counted by now is in the agent's file, which is written every
// five seconds, if there is something new. Only then it outlives the dataplane.
func kept(d *lab.Daemon) {
	now := time.Now()
	d.Lab().Eventually("what was counted is kept", patience, func() bool {
		info, err := os.Stat(filepath.Join(d.RunDir(), "counted"))
		return err == nil && info.ModTime().After(now) || time.Since(now) > 11*time.Second
	})
}

// TestNFTCounts: counters count each packet, of established flows, too; a limit lets
// through what it says, a set learns of whom it has seen, and gives its elements up.
func TestNFTCounts(t *testing.T) {
	d, red, blue := apart(t, `table ip t {
	set seen {
		type ipv4_addr
		size 100
		flags dynamic,timeout
		timeout 30s
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		ip saddr 10.50.0.0/24 counter comment "there"
		ip daddr 10.50.0.0/24 counter comment "back"
		icmp type echo-request ip length 128 limit rate over 1/hour burst 3 packets drop
		icmp type echo-request add @seen { ip saddr counter }
	}
}`)
	red.PingBy(10, blue.IP(lab.V4), "-i", "0.1")
	if there, back := counts(t, d, `"there"`), counts(t, d, `"back"`); there != 10 || back != 10 {
		t.Errorf("%d there, %d back, want 10 and 10", there, back)
	}
	d.CLI("nft", "list", "set", "ip", "t", "seen").Expect(0, red.IP(lab.V4).String()+" counter packets 10 bytes 840 expires")
	red.Try("ping", "-c", "10", "-i", "0.01", "-W", "1", "-s", "100", blue.IP(lab.V4).String()).Expect(0, "10 packets transmitted, 3 received")
	// By TCP, offloaded: a counter counts what came from the container, as the kernel's would.
	d.CLI("nft", "reset", "counters").Expect(0)
	d.CLI("nft", "delete", "element", "ip", "t", "seen", "{", red.IP(lab.V4).String(), "}").Expect(0)
	if out := d.CLI("nft", "list", "set", "ip", "t", "seen").Out; strings.Contains(out, red.IP(lab.V4).String()) {
		t.Errorf("deleted element is there: %s", out)
	}
	// Over the end of the dataplane.
	there := counts(t, d, `"there"`)
	kept(d)
	d.KillDataplane()
	d.Lab().Eventually("the counters are back", patience, func() bool { return counts(t, d, `"there"`) == there })
}

// TestNFTNAT: a port is published by a map, and sources are masqueraded, by chains of
// type nat.
func TestNFTNAT(t *testing.T) {
	d, red, blue := apart(t, `table ip nat {
	map published {
		type inet_service : ipv4_addr . inet_service
		elements = { 8080 : 10.50.0.2 . 7000 }
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "out" fib daddr type local dnat to tcp dport map @published
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "out" masquerade
	}
}`)
	red.Serve()
	blue.Serve()
	gw := outside(d, "out", lab.V4)
	send(t, blue, netip.AddrPortFrom(gw, 8080))
	send(t, red, netip.AddrPortFrom(blue.IP(lab.V4), 7000))
	d.CLI("conntrack", "-L", "-n").Expect(0, "dst="+gw.String())
	if r := d.CLI("conntrack", "-L", "-g"); !strings.Contains(r.Out, "dport=8080") || !strings.Contains(r.Out, " src="+red.IP(lab.V4).String()) {
		t.Errorf("not published: %s", r.Out)
	}
}

// TestNFTReload: rules are replaced a hundred times under traffic, and no packet is lost.
func TestNFTReload(t *testing.T) {
	d, red, blue := apart(t, stateful)
	file := d.Lab().File("again.nft", "flush ruleset\n"+stateful)
	p := red.StartPing(400, blue.IP(lab.V4), "-i", "0.005")
	for range 30 {
		d.CLI("nft", "-f", file).Expect(0)
	}
	p.Answered()
}
