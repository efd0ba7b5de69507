// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/policy"
	"sluice/policy/nft"
)

// TestIngressIsTheKernel sends frames that nobody would send into a device with a
// chain at ingress, and compares what the rules count.
func TestIngressIsTheKernel(t *testing.T) {
	k := newKernel(t)
	for i := range many(t, 5, 10) {
		r := rand.New(rand.NewPCG(uint64(i), 12))
		k.ingress(r, frameRuleset(r, "netdev", "ingress device m0"))
	}
}

func (k *kernel) ingress(r *rand.Rand, text string) {
	k.t.Helper()
	var rules []string
	for l := range strings.Lines(text) {
		if !strings.Contains(l, "pkttype") && !strings.Contains(l, "reject") && !strings.Contains(l, "ct ") {
			rules = append(rules, l)
		}
	}
	text = strings.Join(rules, "")
	k.nft.Do(text)
	defer k.nft.Do("flush ruleset")
	b := newBoth(k.t, load(k.t, text))
	for range 60 {
		frame := pt.Random(r)
		if r.IntN(3) == 0 {
			frame = pt.Mutate(r, frame)
		}
		f := pt.Frame(frame)
		if f.View.Parse(f.Bytes()) != packet.FaultNone || len(frame) > 1500 || len(frame) < 20 {
			continue
		}
		if f.View.Is(packet.ViewFragLater) {
			continue // the kernel takes its data for a transport header, if it reads up to four bytes
		}
		if _, err := unix.Write(k.ends[0].FD, f.Bytes()); err != nil {
			continue // the kernel doesn't send everything
		}
		p := policy.Packet{Frame: f, In: b.ours.devs[0], Now: 1}
		b.ev.Pin()
		b.ev.Begin(nil)
		b.ev.Hook(&p, nft.FamilyNetdev, nft.HookIngress, math.MinInt32, math.MaxInt32)
		b.ev.Unpin()
	}
	for _, end := range k.ends {
		end.Heard()
	}
	for _, what := range b.beside(k.t, k.nft.Do("list ruleset")) {
		k.t.Errorf("%s\n%s", what, text)
	}
}
