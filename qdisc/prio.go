// SPDX-License-Identifier: Apache-2.0

package qdisc

import "fmt"

// maxBands bounds the bands of prio, TCQ_PRIO_BANDS.
const maxBands = 16

// prio has a discipline for each band, and takes from the lowest that has a
// packet. Its classes are the bands, counted from 1.
type prio struct {
	node
	bands []discipline
	chart [16]uint8 // priority to band
}

func (p *prio) enqueue(r Ref, now int64) bool {
	b, verdict := p.band(r, now)
	if verdict != accepted {
		return p.judge(r, verdict)
	}
	return p.offer(p.bands[b], r, now)
}

// band is where a packet goes: by its priority if that names a class, by the
// filters, or by the map.
func (p *prio) band(r Ref, now int64) (int, verdict) {
	priority := p.t.pool.at(r).Priority
	class := Handle(priority)
	if class.Major() != p.handle.Major() {
		v := verdict(0)
		if class, v = p.classify(r, now); v != accepted {
			return 0, v
		}
		if class == 0 {
			return int(p.chart[p.t.pool.at(r).Priority&0xf]), accepted
		}
	}
	if b := int(class.Minor()) - 1; b >= 0 && b < len(p.bands) {
		return b, accepted
	}
	return int(p.chart[0]), accepted
}

func (p *prio) dequeue(now int64) Ref {
	for _, b := range p.bands {
		if b.base().qlen == 0 {
			continue
		}
		if r := take(b, now); r != 0 {
			p.sent(r)
			return r
		}
	}
	return 0
}

func (p *prio) look(now int64) (Ref, bool) {
	for _, b := range p.bands {
		if b.base().qlen == 0 {
			continue
		}
		if r := peek(b, now); r != 0 {
			return r, true
		}
	}
	return 0, true
}

func (p *prio) next(now int64) int64 {
	at := int64(never)
	for _, b := range p.bands {
		at = min(at, due(b, now))
	}
	return at
}

func (p *prio) drain(out *list) {
	for _, b := range p.bands {
		drain(b, out)
	}
}

// change sets the number of bands and the map. Packets of bands that go are taken
// over by the last one that stays.
func (p *prio) change(q *Qdisc, now int64) error {
	n, chart := bands, prioMapTable
	if q.Prio != nil && q.Prio.Bands != 0 {
		n = q.Prio.Bands
	}
	if q.Prio != nil && q.Prio.Map != nil {
		if len(q.Prio.Map) > len(chart) {
			return fmt.Errorf("priomap: %d entries, want at most %d", len(q.Prio.Map), len(chart))
		}
		copy(chart[:], q.Prio.Map)
	}
	if n < 2 || n > maxBands {
		return fmt.Errorf("bands: %d, want 2 to %d", n, maxBands)
	}
	for i, b := range chart {
		if int(b) >= n {
			return fmt.Errorf("priomap: entry %d is band %d, want below %d", i, b, n)
		}
	}
	p.chart = chart
	p.resize(n, now)
	return nil
}

func (p *prio) resize(n int, now int64) {
	for len(p.bands) < n {
		p.bands = append(p.bands, p.adopt(newFIFO(defaultFrames), 0))
	}
	for len(p.bands) > n {
		last := p.bands[len(p.bands)-1]
		p.bands = p.bands[:len(p.bands)-1]
		p.inherit(last, p.bands[len(p.bands)-1], now)
	}
}

func (p *prio) slot(class Handle) *discipline {
	if b := int(class.Minor()) - 1; b >= 0 && b < len(p.bands) {
		return &p.bands[b]
	}
	return nil
}

func (p *prio) grafted(Handle) {}

func (p *prio) xstats(rep *Report, _ int64) {
	for i, b := range p.bands {
		c := ClassReport{Kind: "prio", Handle: MakeHandle(p.handle.Major(), uint16(i+1)), Parent: p.handle}
		c.Leaf = b.base().handle
		c.Stats = b.base().report()
		rep.Classes = append(rep.Classes, c)
	}
}
