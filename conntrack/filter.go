// SPDX-License-Identifier: Apache-2.0

package conntrack

import "net/netip"

// TupleFilter matches one direction. Zero fields match anything. A port of an
// ICMP query is its type<<8|code as destination and its identifier as source.
type TupleFilter struct {
	Src, Dst         netip.Prefix
	SrcPort, DstPort uint16
}

func (f *TupleFilter) match(t *Tuple) bool {
	return within(f.Src, t.Src) && within(f.Dst, t.Dst) &&
		(f.SrcPort == 0 || f.SrcPort == t.SrcPort) && (f.DstPort == 0 || f.DstPort == t.DstPort)
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
	aux := uint64(0) // asked for before the entry is described: few have it
	if f != nil {
		aux = f.Aux
	}
	for i := range highest {
		r := &t.recs[i]
		life := r.life.Load()
		if life&phaseMask != phaseLive || r.over(now) || r.aux.Load()&aux != aux {
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

// DeleteDevice ends the connections that are bound to a device that is gone, or
// has another address, as masquerading wants it.
func (t *Table) DeleteDevice(device uint16, now uint32) int {
	if device == 0 {
		return 0
	}
	return t.Delete(&Filter{OutDevice: device}, now)
}
