// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"sluice/test/lab"
)

// both are the families that a test goes through.
func both() []lab.Family { return []lab.Family{lab.V4, lab.V6} }

// pairOn starts a daemon with the networks and attaches two containers to the
// one called blue; args are flags of `sluice attach` for both.
//
//	red ---- Sluice, network blue ---- green
func pairOn(t *testing.T, networks string, args ...string) (d *lab.Daemon, red, green *lab.NS) {
	t.Helper()
	l := lab.New(t)
	d = l.Daemon(networks)
	args = append([]string{"--network", "blue"}, args...)
	return d, l.NS("red").Attach(args...), l.NS("green").Attach(args...)
}

// TestPing pings between two containers and their gateway.
//
//	red ----.
//	        +-- blue, gateway 10.44.0.1 and fd44::1
//	green --'
func TestPing(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	for _, f := range both() {
		red.Ping(green.IP(f))
		green.Ping(red.IP(f))
		red.Ping(d.Gateway(f))
		green.Ping(d.Gateway(f))
	}
}
