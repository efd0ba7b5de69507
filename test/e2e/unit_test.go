// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"sluice/test/lab"
)

// bounding is the capability bounding set of the systemd unit, in the words of setpriv(1).
func bounding(t *testing.T) string {
	t.Helper()
	unit, err := os.ReadFile("../../dist/sluiced.service")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindStringSubmatch(string(unit))
	if line == nil {
		t.Fatal("the unit says no CapabilityBoundingSet")
	}
	set := "-all"
	for name := range strings.FieldsSeq(strings.ToLower(line[1])) {
		set += ",+" + strings.TrimPrefix(name, "cap_")
	}
	return set
}

// TestAsTheUnitHasIt runs the daemon with no more than the systemd unit leaves it: it
// attaches, masquerades, and publishes ports below 1024, by a veth to the host and by
// sockets.
func TestAsTheUnitHasIt(t *testing.T) {
	w := newWay(t, 1500, "{name: out, masquerade: true, forward: true}")
	w.d.StopAll()
	w.d.Under("setpriv", "--no-new-privs", "--bounding-set="+bounding(t), "--")
	w.d.Start()
	w.red.Detach()
	w.red.Attach("--network", "web")
	w.red.Serve()
	w.world.Serve()
	for _, uplink := range []string{"", socketUplink} {
		if uplink != "" {
			w.d.Apply(shopYAML(uplink))
		}
		w.publish("tcp", "80", "to", w.red.Name()+":7000").Expect(0)
		w.publish("udp", "53", "to", w.red.Name()+":7000").Expect(0)
		send(t, w.world, netip.MustParseAddrPort("192.0.2.1:80"))
		trips(t, w.world, "192.0.2.1:53")
		send(t, w.red, netip.AddrPortFrom(w.world.IP(lab.V4), 7000))
	}
}
