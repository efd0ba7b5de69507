// SPDX-License-Identifier: Apache-2.0

package conntrack

import "net/netip"

// TupleFilter matches one direction. Zero fields match anything. A port of an
// ICMP query is its type<<8|code as destination and its identifier as source.
type TupleFilter struct {
	Src, Dst         netip.Prefix
	SrcPort, DstPort uint16
	// SrcBits and DstBits are which bits of a port count, so that a port, a type or an
	// identifier of 0 can be meant. 0: all, of a port that is not 0.
	SrcBits, DstBits uint16
}

func (f *TupleFilter) match(t *Tuple) bool {
	src, dst := f.portBits()
	return within(f.Src, t.Src) && within(f.Dst, t.Dst) && f.SrcPort&src == t.SrcPort&src && f.DstPort&dst == t.DstPort&dst
}

// portBits are the bits that count of both ports.
func (f *TupleFilter) portBits() (src, dst uint16) {
	src, dst = f.SrcBits, f.DstBits
	if src == 0 && f.SrcPort != 0 {
		src = 1<<16 - 1
	}
	if dst == 0 && f.DstPort != 0 {
		dst = 1<<16 - 1
	}
	return src, dst
}

func within(p netip.Prefix, a netip.Addr) bool { return !p.IsValid() || p.Contains(a) }

// Filter chooses connections, as the options of conntrack -L and -D do. Zero
// fields match anything, and so does nil.
type Filter struct {
	Family          uint8 // 4 or 6, of Original
	Proto           uint8
	State           string // of TCP and SCTP
	Original, Reply TupleFilter
	ID              uint32

	HasZone   bool
	Zone      uint16
	HasPort   bool
	Port      uint16
	OutDevice uint16

	Mark, MarkMask uint32 // connections whose mark has these bits, under the mask
	Label          Label  // all of these bits
	With, Without  Status // all of these bits, none of those
	Aux            uint64 // all of these bits
	AnyNAT         bool   // source or destination translated
}

// Match reports whether an entry is chosen.
func (f *Filter) Match(e *Entry) bool {
	if f == nil {
		return true
	}
	return f.matchTuples(e) && f.matchPlace(e) && f.matchRest(e)
}

func (f *Filter) matchTuples(e *Entry) bool {
	switch {
	case f.Family == 4 && !e.Original.Src.Is4(), f.Family == 6 && !e.Original.Src.Is6():
		return false
	case f.Proto != 0 && f.Proto != e.Original.Proto:
		return false
	}
	return f.Original.match(&e.Original) && f.Reply.match(&e.Reply)
}

func (f *Filter) matchPlace(e *Entry) bool {
	return (!f.HasZone || f.Zone == e.Zone) && (!f.HasPort || f.Port == e.Port) &&
		(f.OutDevice == 0 || f.OutDevice == e.OutDevice) && (f.ID == 0 || f.ID == e.ID)
}

func (f *Filter) matchRest(e *Entry) bool {
	for i, want := range f.Label {
		if e.Label[i]&want != want {
			return false
		}
	}
	return (f.State == "" || f.State == e.State) && e.Mark&f.MarkMask == f.Mark&f.MarkMask &&
		e.Status&f.With == f.With && e.Status&f.Without == 0 && e.Aux&f.Aux == f.Aux &&
		(!f.AnyNAT || e.Status&(SrcNAT|DstNAT) != 0)
}

// Entries calls yield for each connection that the filter chooses and that is not
// over, until it returns false. It stops no worker: connections that come or go
// meanwhile may be among them or not. yield may delete.
func (t *Table) Entries(f *Filter, now uint32, yield func(*Entry) bool) {
	t.mu.Lock()
	highest := t.highest
	t.mu.Unlock()
	var e Entry
	s := f.sieve()
	for i := range highest {
		r := &t.recs[i]
		life := r.life.Load()
		if life&phaseMask != phaseLive || r.over(now) || !s.passes(r) {
			continue
		}
		if (Conn{t, i, life}).Entry(&e, now) && f.Match(&e) && !yield(&e) {
			return
		}
	}
}

// Delete ends the connections that the filter chooses, and returns how many.
func (t *Table) Delete(f *Filter, now uint32) (n int) {
	t.Entries(f, now, func(e *Entry) bool {
		if e.Conn.Delete(now) {
			n++
		}
		return true
	})
	return n
}

// DeleteListed ends those of some connections, by their ID, that are there yet and that
// the filter still chooses, and returns which that were: what was chosen from a list may
// have changed since, or be gone and its record another's.
func (t *Table) DeleteListed(f *Filter, ids []uint32, now uint32) (ended []uint32) {
	n := uint32(len(t.recs))
	var e Entry
	for _, id := range ids {
		i := (id - 1) % n
		life := t.recs[i].life.Load()
		if life&phaseMask != phaseLive || idOf(i, life, n) != id {
			continue
		}
		if c := (Conn{t, i, life}); c.Entry(&e, now) && f.Match(&e) && c.Delete(now) {
			ended = append(ended, id)
		}
	}
	return ended
}

// DeleteDevice ends the connections that are bound to a device that is gone, or
// has another address, as masquerading wants it.
func (t *Table) DeleteDevice(device uint16, now uint32) int {
	if device == 0 {
		return 0
	}
	return t.Delete(&Filter{OutDevice: device}, now)
}
