// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	kt "sluice/test/kerneltest"
)

// kernelWords are the flags that the kernel has too, in the words of bridge(8),
// with what sets them.
func kernelWords() []kernelWord {
	return []kernelWord{
		{Isolated, "isolated", "on", "off"},
		{Hairpin, "hairpin", "on", "off"},
		{NoLearning, "learning", "off", "on"},
		{Locked, "locked", "on", "off"},
		{NoUnicastFlood, "flood", "off", "on"},
		{NoMulticastFlood, "mcast_flood", "off", "on"},
		{NoBroadcastFlood, "bcast_flood", "off", "on"},
	}
}

type kernelWord struct {
	flag             PortFlags
	word, set, unset string
}

// fence is the static station of a port by which the end of a batch is told: it
// is reached from the host whatever the flags are, and reaches the host.
func fence(port uint16) StaticEntry { return StaticEntry{MAC: station(500 + int(port)), Port: port} }

// setFlags gives every port random flags in both bridges.
func (r *rivals) setFlags() {
	r.t.Helper()
	all := members(kernelPorts)
	for i := range all[1:] {
		c := &all[1+i]
		args := []string{"bridge", "link", "set", "dev", fmt.Sprintf("slt-b%d", c.Index)}
		for _, w := range kernelWords() {
			value := w.unset
			if r.rnd.IntN(4) == 0 {
				c.Flags |= w.flag
				value = w.set
			}
			args = append(args, w.word, value)
		}
		kt.Run(r.t, args...)
	}
	r.b.SetPorts(all)
}

// flagged sends some frames without tags and compares, for each, the ports that
// got it.
func (r *rivals) flagged(frames int) {
	r.t.Helper()
	got, want, fences := outputs{}, outputs{}, outputs{}
	first := r.number + 1
	for range frames {
		in, src := r.source(r.rnd.IntN(hosts))
		r.number++
		r.send(in, r.destination(in, 0), src, 0, r.number, want)
	}
	last := firstBarrier + first
	for port := uint16(1); port <= kernelPorts; port++ {
		r.send(localPort, fence(port).MAC, ownMAC, 0, last, fences)
	}
	r.send(1, ownMAC, fence(1).MAC, 0, last, fences)
	for port := range r.k.ends {
		r.k.collect(port, last, got)
	}
	for n := first; n <= r.number; n++ {
		if diff := cmp.Diff(got[n], want[n]); diff != "" {
			r.t.Fatalf("frame %d, %s: output ports (-kernel +bridge):\n%s", n, r.sent[n], diff)
		}
	}
}

// The same frames reach the same ports with the same flags: isolation, hairpin,
// learning, locked ports and flood control.
func TestFlagsSameAsTheKernel(t *testing.T) {
	r := &rivals{
		t: t, rnd: rand.New(rand.NewPCG(13, 14)), k: newKernelBridge(t),
		b: New(Options{}), fr: newFramer(), sent: map[uint64]string{},
	}
	set := []StaticEntry{{MAC: ownMAC, Port: localPort, Own: true}}
	for port := uint16(1); port <= kernelPorts; port++ {
		set = append(set, fence(port))
		r.k.setStatic(fence(port))
	}
	r.b.SetPorts(members(kernelPorts))
	r.b.SetStatic(set)
	for n := range 120 {
		r.setFlags()
		for range 4 {
			r.flagged(kernelBatch)
		}
		if n%8 == 0 {
			r.compareFDB()
			port := uint16(1 + r.rnd.IntN(kernelPorts))
			r.k.flush(port)
			r.b.Flush(port)
		}
	}
	t.Logf("%d frames; %+v", r.number, r.b.Stats())
}
