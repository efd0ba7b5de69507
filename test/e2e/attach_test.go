// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/lab"
)

// TestAttachConfigures looks at what attach has made of a container, with the
// tools that its owner would use.
//
//	red ---- blue, gateway 10.44.0.1 and fd44::1
func TestAttachConfigures(t *testing.T) {
	l := lab.New(t)
	l.Daemon(lab.Blue)
	red := l.NS("red").Attach("--network", "blue", "--ip", "10.44.0.77", "--ip6", "fd44::77",
		"--mac", "02:00:00:aa:bb:cc", "--mtu", "1400", "--ifname", "net0")
	red.Try("ip", "addr", "show", "dev", "net0").Expect(0,
		"mtu 1400", "link/ether 02:00:00:aa:bb:cc", "inet 10.44.0.77/24", "inet6 fd44::77/64", "state UP")
	red.Try("ip", "route").Expect(0, "default via 10.44.0.1 dev net0", "10.44.0.0/24 dev net0")
	red.Try("ip", "-6", "route").Expect(0, "default via fd44::1 dev net0", "fd44::/64 dev net0")
	// An address that waits for duplicate detection can't be used at once.
	if out := red.Run("ip", "-6", "addr", "show", "dev", "net0"); strings.Contains(out, "tentative") {
		t.Errorf("addresses are tentative:\n%s", out)
	}
}

// TestAttachRefusals asks for what can't be, and wants a clear message, the
// right exit code, and nothing left behind by the attempt.
//
//	red ---- blue (10.44.0.2)        green: the one who asks
func TestAttachRefusals(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	red := l.NS("red").Attach("--network", "blue")
	green := l.NS("green")
	green.Run("ip", "link", "add", "busy0", "type", "veth", "peer", "name", "busy1")
	before := hostEnds(l, d)
	tests := map[string]struct {
		args []string
		code int
		says string
	}{
		"same interface again":     {[]string{red.Name()}, 1, "attached already"},
		"name taken":               {[]string{green.Name(), "--name", red.Name()}, 1, "is taken"},
		"interface name taken":     {[]string{green.Name(), "--ifname", "busy0"}, 1, "busy0 exists already"},
		"interface name too long":  {[]string{green.Name(), "--ifname", "sixteen-bytes-00"}, 1, "not an interface name"},
		"address outside":          {[]string{green.Name(), "--ip", "10.45.0.2"}, 1, "10.45.0.2"},
		"address in use":           {[]string{green.Name(), "--ip", "10.44.0.2"}, 1, "10.44.0.2"},
		"IPv6 address in use":      {[]string{green.Name(), "--ip6", red.IP(lab.V6).String()}, 1, "in use"},
		"the gateway's address":    {[]string{green.Name(), "--ip", "10.44.0.1"}, 1, "10.44.0.1"},
		"the broadcast address":    {[]string{green.Name(), "--ip", "10.44.0.255"}, 1, "10.44.0.255"},
		"MAC in use":               {[]string{green.Name(), "--mac", red.MAC()}, 1, "in use"},
		"group MAC":                {[]string{green.Name(), "--mac", "01:00:5e:00:00:01"}, 1, "unicast"},
		"MTU above the network's":  {[]string{green.Name(), "--mtu", "9000"}, 1, "1500"},
		"MTU too small for IPv6":   {[]string{green.Name(), "--mtu", "1279"}, 1, "1280"},
		"no such network":          {[]string{green.Name(), "--network", "pink"}, 1, "pink"},
		"no such namespace":        {[]string{"slt-nosuch"}, 1, "slt-nosuch"},
		"a file, not a namespace":  {[]string{"/etc/hostname"}, 1, "/etc/hostname"},
		"address with a prefix":    {[]string{green.Name(), "--ip", "10.44.0.9/24"}, 2, "without a prefix length"},
		"two namespaces":           {[]string{green.Name(), red.Name()}, 2, "give one NETNS"},
		"an option it has not got": {[]string{green.Name(), "--colour", "red"}, 2, "--colour"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d.CLI(append([]string{"attach"}, tt.args...)...).Expect(tt.code, tt.says)
		})
	}
	if after := hostEnds(l, d); after != before {
		t.Errorf("refused attempts left host ends: before\n%s\nafter\n%s", before, after)
	}
	if r := green.Try("ip", "link", "show", "eth0"); r.Code == 0 {
		t.Errorf("a refused attempt left an interface in the container:\n%s", r.Out)
	}
}

// hostEnds are the interfaces of the daemon's own namespace, by name.
func hostEnds(l *lab.Lab, d *lab.Daemon) string {
	out := l.Run("nsenter", "--net="+filepath.Join(d.RunDir(), "netns", "sluice"), "ip", "-o", "link")
	var names []string
	for line := range strings.Lines(out) {
		names = append(names, strings.Fields(line)[1])
	}
	return strings.Join(names, " ")
}

// TestWhoMayNot runs the tools without a daemon, and as nobody.
func TestWhoMayNot(t *testing.T) {
	l := lab.New(t)
	d := l.NewDaemon()
	d.CLI("status").Expect(3, "sluiced is not running", d.Socket())
	d.CLI("attach", "red").Expect(3, "sluiced is not running")
	d.Start()
	nobody := []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"}
	for _, name := range []string{"sluice", "sluiced"} { // where nobody can read them
		text, err := os.ReadFile(l.Binary(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l.Dir(), name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(l.Dir(), 0o711); err != nil {
		t.Fatal(err)
	}
	l.Try(append(nobody, filepath.Join(l.Dir(), "sluice"), "--socket", d.Socket(), "status")...).Expect(4, "permission denied")
	l.Try(append(nobody, filepath.Join(l.Dir(), "sluiced"), "run", "--run-dir", "/tmp/x", "--state-dir", "/tmp/y")...).Expect(4, "root")
	l.Try(l.Binary("sluiced"), "run", "--run-dir", d.RunDir(), "--state-dir", l.Dir()).Expect(3, "running")
}

// TestDetachLeavesNothing attaches, detaches and attaches again.
//
//	red ---- blue ---- green
func TestDetachLeavesNothing(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	before := hostEnds(l, d)
	red := l.NS("red").Attach("--network", "blue", "--ip", "10.44.0.50")
	green := l.NS("green").Attach("--network", "blue")
	green.Ping(red.IP(lab.V4))
	for range 3 {
		red.Detach()
		red.Try("ip", "link", "show", "eth0").Expect(1, "does not exist")
		if r := green.TryPing(red.IP(lab.V4), 1); r.Code == 0 {
			t.Error("a detached container answers")
		}
		d.CLI("detach", red.Name()).Expect(1, "nothing is attached")
		red.Attach("--network", "blue", "--ip", "10.44.0.50")
		green.Ping(red.IP(lab.V4))
	}
	red.Detach()
	green.Detach()
	if after := hostEnds(l, d); after != before {
		t.Errorf("host ends: before %q, after %q", before, after)
	}
	if n := len(d.Links()); n > 0 {
		t.Errorf("%d links are left", n)
	}
	for _, e := range d.FDB() {
		if e.Kind != "own" {
			t.Errorf("the forwarding table still has %+v", e)
		}
	}
}

// TestNamespaceDeleted deletes a namespace that is attached: its interface goes
// with it, and the daemon finds out, and gives the address to somebody else.
//
//	red (deleted) ---- blue ---- green
func TestNamespaceDeleted(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	before := hostEnds(l, d)
	red := l.NS("red").Attach("--network", "blue")
	red.Ping(d.Gateway(lab.V4))
	red.Delete()
	l.Eventually("the attachment is reaped", patience, func() bool { return len(d.Links()) == 0 })
	if after := hostEnds(l, d); after != before {
		t.Errorf("host ends: before %q, after %q", before, after)
	}
	green := l.NS("green").Attach("--network", "blue", "--ip", red.IP(lab.V4).String(), "--mac", red.MAC())
	green.Ping(d.Gateway(lab.V4))
}

// TestManyInterfaces gives one container two interfaces on two networks with
// the same addresses: networks do not know of one another.
//
//	      ,-- eth0 -- blue  10.44.0.0/24 -- green
//	red --+
//	      `-- eth1 -- twin  10.44.0.0/24 -- brown
func TestManyInterfaces(t *testing.T) {
	l := lab.New(t)
	d := l.Daemon(lab.Blue + strings.Replace(strings.TrimPrefix(lab.Blue, "networks:\n"), "blue", "twin", 1))
	red := l.NS("red").Attach("--network", "blue")
	red.Attach("--network", "twin", "--ifname", "eth1", "--ip", "10.44.0.9")
	green := l.NS("green").Attach("--network", "blue", "--ip", "10.44.0.20")
	brown := l.NS("brown").Attach("--network", "twin", "--ip", "10.44.0.21")
	red.Try("ping", "-n", "-c", "1", "-W", "5", "-I", "eth0", green.IP(lab.V4).String()).Expect(0)
	red.Try("ping", "-n", "-c", "1", "-W", "1", "-I", "eth0", brown.IP(lab.V4).String()).Expect(1)
	if r := green.TryPing(brown.IP(lab.V4), 1); r.Code == 0 {
		t.Error("two networks are one")
	}
	d.CLI("detach", red.Name()).Expect(1, "2 attachments")
	d.CLI("detach", red.Name(), "--ifname", "eth1").Expect(0, "detached from twin")
	red.Ping(green.IP(lab.V4))
}
