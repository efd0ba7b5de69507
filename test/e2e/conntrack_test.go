// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// TestConntrackAtARush opens ten thousand connections a second, while conntrack -E
// watches: it shows all that there are. Then they are listed, counted, and deleted by
// filter, and it shows the end of those that are deleted and of no others.
func TestConntrackAtARush(t *testing.T) {
	const rush = 25_000
	d, world, red, _ := toWorld(t)
	to := world.IP(lab.V4).String()
	red.Ping(outside(d, "web", lab.V4))
	via := ""
	fields := strings.Fields(red.Run("ip", "neigh", "show", outside(d, "web", lab.V4).String()))
	for i := range fields[1:] {
		if fields[i] == "lladdr" {
			via = fields[i+1]
		}
	}
	watch := d.Lab().Start(d.Command("-n", "shop", "conntrack", "-E", "-p", "udp")...)
	d.Lab().Eventually("events", patience, func() bool {
		red.Traffic("fan", "-i", red.If(), "-via", via, "-from", red.IP(lab.V4).String(), "-to", to, "-flows", "1").Wait(time.Minute)
		d.CLI("conntrack", "-F").Expect(0)
		return strings.Contains(watch.Output(), "[DESTROY] udp")
	})
	before := inserted(t, d)
	news := strings.Count(watch.Output(), "[NEW]")
	sent := lab.Report[report.Rate](red.Traffic("fan", "-i", red.If(), "-via", via, "-from", red.IP(lab.V4).String(), "-to", to,
		"-flows", strconv.Itoa(rush), "-rate", "10000"), time.Minute)
	began := inserted(t, d) - before
	if began < rush/2 {
		t.Fatalf("%d connections of %+v", began, sent)
	}
	shown := func(kind string) int { return strings.Count(watch.Output(), kind) }
	d.Lab().Eventually("all events", patience, func() bool { return shown("[NEW]")-news >= began })
	if r := d.CLI("conntrack", "-L", "-p", "udp", "-d", to); strings.Count(r.Out, "\n") != began {
		t.Errorf("%d lines of %d connections: %s", strings.Count(r.Out, "\n"), began, r.Err)
	}
	odd := strings.TrimSpace(d.CLI("conntrack", "-C", "-p", "udp", "--sport", "4001").Out)
	ended := shown("[DESTROY]")
	if r := d.CLI("conntrack", "-D", "-p", "udp", "--sport", "4001"); odd != "1" || strings.Count(r.Out, " sport=4001 ") != 1 {
		t.Errorf("%s by -C; deleted: %s%s", odd, r.Out, r.Err)
	}
	d.CLI("conntrack", "-D", "-p", "udp", "-d", to).Expect(0)
	d.CLI("conntrack", "-C", "-p", "udp", "-d", to).Expect(0, "0")
	d.Lab().Eventually("all ends", patience, func() bool { return shown("[DESTROY]")-ended >= began })
	if extra := shown("[DESTROY]") - ended - began; extra != 0 || strings.Contains(watch.Output(), "lost") {
		t.Errorf("%d too many; %s", extra, watch.Output()[:200])
	}
	watch.Kill()
}

// inserted is how many connections have come since the dataplane began.
func inserted(t *testing.T, d *lab.Daemon) int {
	t.Helper()
	var s api.ConnectionStats
	if err := json.Unmarshal([]byte(d.CLI("-j", "conntrack", "-S").Out), &s); err != nil {
		t.Fatal(err)
	}
	return int(s.Insert)
}
