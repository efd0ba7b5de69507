// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"sluice/test/lab"
)

// TestShaping shapes what goes to a container and what one sends, in the words of tc,
// changes a rate under traffic, and sees that all of it outlives both processes.
//
//	red ---- blue ---- [tbf, htb] green
func TestShaping(t *testing.T) {
	d, red, green := pairOn(t, lab.Blue)
	tc := func(line string) lab.Result { t.Helper(); return d.CLI(strings.Fields(line)...) }
	to, from := green.Name(), red.Name()
	const bytes = 1 << 20

	tc("qdisc add dev " + to + " root handle 1: tbf rate 16mbit burst 64kb latency 200ms").Expect(0)
	shaped(t, red, green, bytes, 2_000_000)
	if out := tc("-s -d qdisc show dev " + to).Out; !strings.Contains(out, "qdisc tbf 1: root refcnt 2 rate 16Mbit burst 64Kb/1 mpu 0b lat 200ms") ||
		strings.Contains(out, "Sent 0 bytes") {
		t.Errorf("qdisc show:\n%s", out)
	}
	tc("qdisc change dev " + to + " root tbf rate 32mbit burst 64kb latency 200ms").Expect(0)
	shaped(t, red, green, bytes, 4_000_000)

	// A mistake names the field and changes nothing.
	if r := tc("qdisc change dev " + to + " root tbf rate fast burst 64kb latency 200ms"); r.Code == 0 || !strings.Contains(r.Err, `rate: "fast"`) {
		t.Errorf("a bad rate: %d, %s", r.Code, r.Err)
	}

	// Classes, a filter, and what the container sends.
	tc("qdisc replace dev " + to + " root handle 2: htb default 20").Expect(0)
	tc("class add dev " + to + " parent 2: classid 2:10 htb rate 8mbit").Expect(0)
	tc("class add dev " + to + " parent 2: classid 2:20 htb rate 800mbit").Expect(0)
	tc("qdisc add dev " + to + " parent 2:10 fq_codel").Expect(0)
	tc("filter add dev " + to + " parent 2: protocol ip flower src_ip " + red.IP(lab.V4).String() + " classid 2:10").Expect(0)
	shaped(t, red, green, bytes/2, 1_000_000)
	tc("qdisc add dev " + from + " from root tbf rate 4mbit burst 32kb latency 200ms").Expect(0)
	shaped(t, red, green, bytes/4, 500_000)

	d.KillBoth()
	d.Start()
	if out := tc("class show dev " + to).Out; !strings.Contains(out, "class htb 2:10 root leaf 8001: prio 0 rate 8Mbit ceil 8Mbit") {
		t.Errorf("class show:\n%s", out)
	}
	shaped(t, red, green, bytes/4, 500_000)
	tc("qdisc del dev " + from + " from root").Expect(0)
	tc("qdisc del dev " + to + " root").Expect(0)
	if out := tc("qdisc show").Out; out != "" {
		t.Errorf("there are disciplines left:\n%s", out)
	}
	start := time.Now()
	lab.TCP(red, green, lab.V4, bytes)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("without a discipline it took %v", took)
	}
}

// shaped sends bytes, both ways, and wants it to take as long as the rate says at
// least, but for what a burst saves; a busy machine may be slower.
func shaped(t *testing.T, from, to *lab.NS, bytes uint64, rate float64) {
	t.Helper()
	start := time.Now()
	lab.TCP(from, to, lab.V4, bytes)
	took := time.Since(start)
	least := time.Duration((float64(bytes) - 64<<10) / rate * float64(time.Second))
	if took < least {
		t.Errorf("%d bytes in %v, want at least %v", bytes, took, least)
	}
	if took > 4*least+3*time.Second {
		t.Errorf("%d bytes took %v, want about %v", bytes, took, least)
	}
}
