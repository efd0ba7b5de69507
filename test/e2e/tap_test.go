// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// machine is a virtual machine: a monitor, in a namespace of its own or where the
// daemon runs, that has a tap device open, and a guest.
//
//	red ---- blue ---- tap vm0 ==== guest: eth0
//	                   monitor
type machine struct {
	at    api.AttachReply
	guest *lab.NS
	proc  *lab.Proc
}

// boot attaches a tap device, and starts the monitor with the guest behind it, which
// has the addresses that the attachment leases.
func boot(t *testing.T, d *lab.Daemon, monitor *lab.NS, where ...string) *machine {
	t.Helper()
	m := &machine{guest: d.Lab().NS("guest")}
	d.CLI(append(append([]string{"attach"}, where...), "--tap", "vm0", "-o", "json")...).Expect(0).JSON(&m.at)
	m.proc = monitor.Traffic("guest", "-tap", "vm0", "-guest", m.guest.Path()).Ready()
	m.guest.Run("ip", "link", "set", "eth0", "address", m.at.MAC, "mtu", "1500")
	var addrs []netip.Addr
	for _, p := range m.at.Addresses {
		m.guest.Run("ip", "addr", "add", p.String(), "dev", "eth0", "nodad")
		addrs = append(addrs, p.Addr())
	}
	m.guest.Run("ip", "link", "set", "eth0", "up")
	m.guest.Run("ip", "route", "add", "default", "via", "10.44.0.1")
	m.guest.Use(addrs...)
	return m
}

func needTap(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("no tap devices here")
	}
}

func TestTapOfAVirtualMachine(t *testing.T) {
	needTap(t)
	l := lab.New(t)
	d := l.Daemon(lab.Blue)
	monitor := l.NS("monitor")
	red := l.NS("red").Attach("--network", "blue")
	m := boot(t, d, monitor, monitor.Name())
	for _, f := range both() {
		red.Ping(m.guest.IP(f))
		m.guest.Ping(red.IP(f))
		lab.TCP(red, m.guest, f, 32<<20)
		lab.TCP(m.guest, red, f, 32<<20)
		lab.UDP(red, m.guest, f, lab.Datagrams{Bytes: 1 << 20})
		lab.UDP(m.guest, red, f, lab.Datagrams{Bytes: 1 << 20, GSO: true})
		lab.UDP(m.guest, red, f, lab.Datagrams{Bytes: 1 << 20, Size: 9000})
	}
	m.guest.Ping(netip.MustParseAddr("10.44.0.1"))
	// Where the monitor is there is no trace of it all.
	if out := monitor.Run("ip", "addr", "show", "dev", "vm0"); strings.Contains(out, "inet") || !strings.Contains(out, "NOARP") {
		t.Errorf("the kernel between has addresses:\n%s", out)
	}
	var links []api.Link
	d.CLI("-s", "link", "show", "vm0", "-o", "json").JSON(&links)
	if s := links[0].Stats; s.RX.GSO == 0 || s.TX.GSO == 0 {
		t.Errorf("no offload frame came from the guest, or went to it: %+v", s)
	}
	d.CLI("link", "show", "vm0").Expect(0, "tap vm0", "state READY")

	// Whoever is killed, a transfer goes on.
	for _, kill := range []func(){
		func() { d.KillDataplane() },
		func() { d.KillAgent(); d.Start() },
		func() { d.KillBoth(); d.Start() },
	} {
		transfer := lab.StartTCP(m.guest, red, lab.V4, "-bytes", "201326592")
		time.Sleep(100 * time.Millisecond)
		kill()
		if r := lab.Report[report.Stream](transfer, time.Minute); !r.OK {
			t.Errorf("a transfer over a crash: %+v", r)
		}
	}
	// The monitor ends, and the next finds the device.
	m.proc.Stop()
	red.NoPing(m.guest.IP(lab.V4))
	if out := monitor.Run("ip", "-d", "link", "show", "vm0"); !strings.Contains(out, "persist on") {
		t.Errorf("%s", out)
	}
	d.CLI("detach", monitor.Name()).Expect(0)
	if out := monitor.Try("ip", "link", "show", "vm0"); out.Code == 0 {
		t.Errorf("the device is still there:\n%s", out.Out)
	}
}

// TestTapWhereTheDaemonRuns, which is where libvirt looks for it.
func TestTapWhereTheDaemonRuns(t *testing.T) {
	needTap(t)
	l := lab.New(t)
	host := l.NS("host")
	d := l.DaemonIn(host, lab.Blue)
	red := l.NS("red").Attach("--network", "blue")
	m := boot(t, d, host)
	red.Ping(m.guest.IP(lab.V4))
	lab.TCP(m.guest, red, lab.V6, 8<<20)
	d.CLI("attach", "--tap", "vm0").Expect(1, "vm0 in the namespace of sluiced is attached already")
	host.Run("ip", "link", "add", "vm1", "type", "bridge")
	d.CLI("attach", "--tap", "vm1").Expect(1, "interface vm1 exists already")

	// The device is removed by somebody: the attachment is over.
	m.proc.Stop()
	host.Run("ip", "link", "del", "vm0")
	l.Eventually("the attachment is gone", patience, func() bool { return !strings.Contains(d.CLI("link").Out, "vm0") })
	boot2 := d.CLI("attach", "--tap", "vm0", "--owner", "1234")
	boot2.Expect(0, "tap vm0")
	if out := host.Run("ip", "-d", "link", "show", "vm0"); !strings.Contains(out, "user 1234") {
		t.Errorf("%s", out)
	}
	d.CLI("detach", "--name", "vm0").Expect(0)
}
