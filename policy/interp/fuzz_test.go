// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	pt "sluice/packet/packettest"
)

// chooser lets bytes choose: each one is the answer to one question. So a byte that is
// another changes one thing, of a ruleset or of a packet, and a fuzzer that looks for
// what is new finds its way. A seed would change all at once.
type chooser struct {
	left []byte
	then *rand.PCG // when they are used up
}

// Uint64 implements rand.Source. IntN looks at the highest bits, or at the lowest.
func (c *chooser) Uint64() uint64 {
	if len(c.left) == 0 {
		return c.then.Uint64()
	}
	b := uint64(c.left[0])
	c.left = c.left[1:]
	return b * 0x0101010101010101
}

func choose(by []byte) *rand.Rand { return rand.New(&chooser{by, rand.NewPCG(uint64(len(by)), 1)}) }

// randomBytes begin a corpus.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// FuzzEngineIsTheInterpreter lets bytes choose the ruleset, and others the packets.
func FuzzEngineIsTheInterpreter(f *testing.F) {
	for i := range uint64(8) {
		f.Add(randomBytes(i, 300), randomBytes(i+100, 200), i%2 == 0, i%8 == 7)
	}
	f.Fuzz(func(t *testing.T, rules, packets []byte, cache, long bool) {
		chosen(t, choose(rules), choose(packets), long, 40, cache)
	})
}

// FuzzAnyFrame lets bytes choose the ruleset, and be the frame: as it is, and changed a
// little.
func FuzzAnyFrame(f *testing.F) {
	for i := range uint64(20) {
		f.Add(randomBytes(i, 60), pt.Random(rand.New(rand.NewPCG(i, 8))))
	}
	f.Fuzz(func(t *testing.T, rules, frame []byte) {
		if len(frame) > 2000 {
			return
		}
		r := choose(rules)
		kind := frameKind(r)
		text := frameRuleset(r, kind.family, kind.hook)
		rs := load(t, text)
		b := newBoth(t, rs)
		for range 3 {
			showBoth(t, b, kind.family, rs.Tables[0].Chains[0].Hook, frame, text)
			frame = pt.Mutate(r, bytes.Clone(frame))
		}
		b.compareStates(t, text)
	})
}
