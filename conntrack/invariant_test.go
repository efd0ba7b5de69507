// SPDX-License-Identifier: Apache-2.0

package conntrack

import "testing"

// sound checks that all that leads to records leads to the right ones. Nobody may
// use the table meanwhile.
func sound(tb testing.TB, t *Table) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make([]int, 2*len(t.recs))
	for b := range t.heads {
		length := 0
		l := t.heads[b].Load()
		for ; l&endOfChain == 0; l = t.next[nodeOf(l)].Load() {
			n := nodeOf(l)
			seen[n]++
			if length++; length > 2*len(t.recs) {
				tb.Fatalf("bucket %d: the chain has a loop", b)
			}
			if h := t.recs[n>>1].hash[n&1]; h&t.mask != uint32(b) || h != hashOf(l) {
				tb.Errorf("bucket %d has record %d of bucket %d", b, n>>1, h&t.mask)
			}
		}
		if l != uint64(b)|endOfChain {
			tb.Errorf("bucket %d ends in %#x", b, l)
		}
	}
	for port := range maxPorts {
		if t.refusing[port/32].Load()>>(port%32)&1 == 0 {
			continue
		}
		if u := t.ports[uint16(port)]; u == nil || u.limits.Quota == 0 || u.used < u.limits.Quota || t.young.linked(u.young) {
			tb.Errorf("port %d is refused, and has %+v", port, u)
		}
	}
	live, free := 0, 0
	ports := map[uint16]int{}
	for i := range t.highest {
		r := &t.recs[i]
		want := 0
		switch r.life.Load() & phaseMask {
		case phaseLive:
			live, want = live+1, 1
			ports[r.port]++
		case phaseFree:
			free++
		default:
			tb.Errorf("record %d: life %#x at rest", i, r.life.Load())
		}
		if seen[2*i] != want || seen[2*i+1] != want {
			tb.Errorf("record %d, life %#x: %d and %d times in the chains", i, r.life.Load(), seen[2*i], seen[2*i+1])
		}
		if r.lock.Load()&1 != 0 {
			tb.Errorf("record %d is locked", i)
		}
	}
	if live != t.used || free != t.numFree {
		tb.Errorf("%d live, %d free; counted %d, %d", live, free, t.used, t.numFree)
	}
	hung := 0
	for s := range uint32(slots) {
		for i := t.wheel.first(t.slotAt(s)); i < uint32(len(t.recs)); i = t.wheel.next[i] {
			hung++
		}
	}
	if hung != live {
		tb.Errorf("%d live, %d in the wheel", live, hung)
	}
	soundPorts(tb, t, ports)
}

// +checklocks:t.mu
func soundPorts(tb testing.TB, t *Table, ports map[uint16]int) {
	tb.Helper()
	unmet := 0
	for port, u := range t.ports {
		if u.used != ports[port] {
			tb.Errorf("port %d: %d connections, counted %d", port, ports[port], u.used)
		}
		unmet += u.unmet()
		if t.byUse[u.order] != u {
			tb.Errorf("port %d is not at its place", port)
		}
	}
	if unmet != t.unmet || len(t.byUse) != len(t.ports) {
		tb.Errorf("unmet %d, counted %d; %d ports, %d by use", unmet, t.unmet, len(t.ports), len(t.byUse))
	}
	if t.used+t.unmet > len(t.recs) {
		tb.Errorf("%d used and %d promised of %d", t.used, t.unmet, len(t.recs))
	}
}
