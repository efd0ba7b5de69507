// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"strconv"
	"testing"
	"time"

	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// hostileFrames is how many frames the hostile container sends, unless
// SLUICE_HOSTILE_FRAMES says otherwise: ten million take some minutes.
const hostileFrames = 200_000

// TestHostile has one container send frames that no honest one would, while two
// others transfer, and a prober looks whether the network stands still.
func TestHostile(t *testing.T) {
	frames := uint64(hostileFrames)
	if text := os.Getenv("SLUICE_HOSTILE_FRAMES"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		frames = n
	}
	t.Run("guarded", func(t *testing.T) { hostileGuarded(t, frames) })
	t.Run("unguarded", func(t *testing.T) { hostileUnguarded(t, frames) })
}

// hostileGuarded leaves it to the guards that nobody answers for somebody else.
//
//	mallory ---- random and mutated frames, foreign addresses, lying metadata
//	   |
//	  blue ---- red ==== TCP and UDP, hashed ==== green
func hostileGuarded(t *testing.T, frames uint64) {
	t.Helper()
	d, red, green := pairOn(t, lab.Blue)
	mallory := d.Lab().NS("mallory").Attach("--network", "blue")
	underAttack(t, d, mallory, red, green, d.Networks()[0].MAC, frames)
}

// hostileUnguarded lets all that passes for a frame into the bridge and the router.
// Red knows its gateway for certain.
//
//	mallory, red -- left -- router -- right -- green
func hostileUnguarded(t *testing.T, frames uint64) {
	t.Helper()
	// The frames are from and to 10.44.0.0/24 and fd44::/64, and go on to green.
	d, red, green := routedPair(t, "    routes: [10.44.0.0/24 via 10.71.0.10, fd44::/64 via fd71::10]\n", "    rpFilter: \"off\"\n")
	mallory := d.Lab().NS("mallory").Attach("--network", "left", "--set", "guard off")
	gateway := gatewayOf(d, "left")
	for _, a := range []string{"10.70.0.1", "fd70::1"} {
		red.Run("ip", "neigh", "replace", a, "lladdr", gateway, "dev", "eth0", "nud", "permanent")
	}
	underAttack(t, d, mallory, red, green, gateway, frames)
}

// underAttack transfers while mallory attacks, and looks at what becomes of it.
func underAttack(t *testing.T, d *lab.Daemon, mallory, red, green *lab.NS, gateway string, frames uint64) {
	t.Helper()
	before := d.Status()
	probe, control := lab.Probe(red, green, lab.V4), d.Lab().Control()
	seed := uint64(time.Now().UnixNano())
	attack := mallory.Traffic("hostile", "-frames", strconv.FormatUint(frames, 10), "-seed", strconv.FormatUint(seed, 10),
		"-known", red.MAC()+","+green.MAC()+","+gateway).Ready()
	for !attack.Ended() {
		for _, f := range both() {
			lab.TCP(red, green, f, 32<<20)
			green.Try("ping", "-n", "-c", "1", "-W", "5", d.Gateway(f).String()).Expect(0)
		}
		withinBounds(t, d)
	}
	h := lab.Report[report.Hostile](attack, time.Minute)
	p, c := probe.Stop(), control.Stop()
	t.Logf("hostile: %+v; prober: longest gap %.1f ms (control %.1f ms), %d lost of %d, p99 %.0f µs",
		h, p.MaxGapMS, c.MaxGapMS, p.Lost, p.Count, p.P99US)
	t.Logf("drops of mallory's port: %v", dropsOf(d, mallory))
	s := d.Status()
	if s.PID != before.PID || s.Dataplane.PID != before.Dataplane.PID || s.Dataplane.Restarts != 0 {
		t.Errorf("somebody has crashed: before %+v, after %+v (seed %d)\n%s", before, s, seed, d.Log())
	}
	if h.Sent < frames || p.MaxGapMS > 1000+c.MaxGapMS {
		t.Errorf("%d frames sent, the network stood still for %.0f ms (seed %d)", h.Sent, p.MaxGapMS, seed)
	}
	lab.UDP(red, green, lab.V6, lab.Datagrams{Bytes: 1 << 20})
	withinBounds(t, d)
}

// withinBounds holds the tables and the memory to their limits.
func withinBounds(t *testing.T, d *lab.Daemon) {
	t.Helper()
	n := d.Networks()[0]
	perPort := map[uint16]int{}
	fdb := d.FDB()
	for _, e := range fdb {
		perPort[e.Port]++
	}
	if len(fdb) > n.FDBMax {
		t.Errorf("%d stations, at most %d", len(fdb), n.FDBMax)
	}
	for port, stations := range perPort {
		if stations > n.FDBMaxPerPort+1 { // and the static one
			t.Errorf("%d stations behind port %d, at most %d", stations, port, n.FDBMaxPerPort)
		}
	}
	if u := lab.UsageOf(d.Status().Dataplane.PID); u.RSS > maxPlaneRSS {
		t.Errorf("dataplane %v", u)
	}
}

// dropsOf are the counted drops of a container's port.
func dropsOf(d *lab.Daemon, n *lab.NS) map[string]uint64 {
	for _, l := range d.Links() {
		if l.Netns == n.Path() {
			return l.Stats.Drops
		}
	}
	return nil
}
