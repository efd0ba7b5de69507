// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
)

// given is the ruleset of a network's ports.
const given = `nft: 'table netdev own { chain in { type filter hook ingress device "port" priority 0; udp dport 9 drop; }; }'`

// onPort writes a file of commands for red's ruleset that forbid it to ping at.
func onPort(d *lab.Daemon, at string) (file, rule string) {
	rule = "icmp type echo-request ip daddr " + at + " meta nftrace set 1 counter"
	return d.Lab().File("own.nft", "add rule netdev own in "+rule+" drop\n"+
		`add chain netdev own out { type filter hook egress device "port" priority 0; }`+"\nadd rule netdev own out tcp dport 81 ip saddr "+at+" ip ttl 63 drop\n"), rule
}

// TestNFTPortHistory: a change of a port's ruleset is heard of, explained, traced and
// undone. The namespace's ruleset and other ports' have nothing to do with it.
func TestNFTPortHistory(t *testing.T) {
	d, red, green, blue := beside(t, given)
	l, at := d.Lab(), blue.IP(lab.V4).String()
	heard := func(p *lab.Proc, words string) {
		t.Helper()
		l.Eventually(fmt.Sprintf("%q is heard", words), patience, func() bool { return strings.Contains(p.Output(), words) })
	}
	port := func(words ...string) lab.Result { return d.CLI(append([]string{"nft", "--port", "red"}, words...)...) }
	monitor := l.Start(d.Command("nft", "--port", "red", "monitor")...).Connected()
	others := l.Start(d.Command("nft", "--port", "green", "monitor")...).Connected()
	all := l.Start(d.Command("nft", "monitor")...).Connected()
	time.Sleep(300 * time.Millisecond) // they have asked once
	file, rule := onPort(d, at)
	port("-f", file).Expect(0)
	red.NoPing(blue.IP(lab.V4))
	red.Ping(green.IP(lab.V4))
	green.Ping(blue.IP(lab.V4))
	heard(monitor, "add rule netdev own in "+rule+" packets 0 bytes 0 drop\n")
	heard(monitor, "# new generation 1\n")
	port("explain", "--to", "blue", "--proto", "icmp").Expect(1, "-> "+at+" icmp, in by red", "ingress: netdev own in: "+rule, "=> drop by netdev own in: "+rule+" drop (verdict drop; "+file+":1, handle ")
	port("explain", "--from", "red", "--to", "green", "--proto", "icmp").Expect(0, "=> accept")
	port("explain", "--from", "blue", "--to", "red", "--port", "81").Expect(1, "out by red", "=> drop by netdev own out: tcp dport 81 ip saddr "+at+" ip ttl 63 drop")
	port("explain", "--from", "green", "--to", "red", "--port", "81").Expect(0, "=> accept")
	port("explain", "--from", "green", "--to", "blue").Expect(1, "the ruleset of port red sees what comes from it or goes to it")
	port("list", "ruleset").Expect(0, "counter packets 1 bytes 84 drop")

	port("diff").Expect(0, "+ chain netdev own out")
	port("undo").Expect(0)
	red.Ping(blue.IP(lab.V4))
	port("list", "ruleset").Expect(0, "udp dport 9 drop") // the network's
	heard(monitor, "# new generation 2\n")
	d.CLI("nft", "--port", "green", "add", "table", "netdev", "other").Expect(0)
	heard(others, "add table netdev other\n# new generation 1\n")
	if out := others.Output() + all.Output(); strings.Contains(out, "netdev own") {
		t.Errorf("others hear %s", out)
	}
	for _, p := range []*lab.Proc{monitor, others, all} {
		p.Stop()
	}

	trace := l.Start(d.Command("nft", "--port", "red", "monitor", "trace")...).Connected()
	port("undo", "2").Expect(0) // the undoing
	time.Sleep(300 * time.Millisecond)
	red.NoPing(blue.IP(lab.V4))
	heard(trace, " netdev own in rule "+rule+" packets ")
	trace.Stop()
	d.CLI("-j", "nft", "--port", "red", "history").Expect(0, `"port":"red","commit":3`, `"by":"undo 2"`)
	d.CLI("nft", "history").Expect(0)
	red.Detach()
	late := l.NS("late").Attach("--network", "web", "--name", "red")
	late.Ping(blue.IP(lab.V4))
	if r := port("history"); r.Code != 0 || r.Out != "" {
		t.Errorf("the next one of that name has the history %+v", r)
	}
}

// TestNFTPortConfirm: a change of a port's ruleset that waits to be confirmed goes back by
// itself, although both processes are killed meanwhile; one that is confirmed stays.
func TestNFTPortConfirm(t *testing.T) {
	d, red, _, blue := beside(t, given)
	l := d.Lab()
	port := func(words ...string) lab.Result { return d.CLI(append([]string{"nft", "--port", "red"}, words...)...) }
	file, _ := onPort(d, blue.IP(lab.V4).String())
	port("--confirm", "1s", "-f", file).Expect(0)
	l.Eventually("it is taken back", patience, func() bool { return strings.Contains(port("history").Out, "commit 1 was not confirmed") })
	red.Ping(blue.IP(lab.V4))

	begun := time.Now()
	if r := port("-f", file, "--confirm", "4s"); r.Code != 0 || !strings.Contains(r.Err, `commit 3 is taken back in 4 seconds, unless "sluice nft --port red confirm"`) {
		t.Errorf("%+v", r)
	}
	port("add", "table", "netdev", "other").Expect(1, "commit 3 waits to be confirmed")
	d.CLI("nft", "--port", "green", "add", "table", "netdev", "other").Expect(0)
	d.KillBoth()
	d.Launch()
	red.NoPing(blue.IP(lab.V4))
	l.Eventually("the change is taken back", patience, func() bool { return red.TryPing(blue.IP(lab.V4), 1).Code == 0 })
	if took := time.Since(begun); took < 3*time.Second {
		t.Errorf("taken back after %v", took)
	}
	port("history").Expect(0, "commit 3 was not confirmed")
	port("list", "ruleset").Expect(0, "udp dport 9 drop")
	port("--confirm", "2s", "-f", file).Expect(0)
	port("confirm").Expect(0)
	time.Sleep(2200 * time.Millisecond)
	red.NoPing(blue.IP(lab.V4))
}
