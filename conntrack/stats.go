// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"sync/atomic"
)

// counts are the table's statistics. None of them is touched by a packet of a
// known connection that is valid.
type counts struct {
	found, searched, invalid, insert, insertFailed, drop, earlyDrop atomic.Uint64
	icmpError, restart, clashResolve, chainTooLong, deleted         atomic.Uint64
}

// Stats is what the table has counted since it was made, by the kernel's names
// (struct ip_conntrack_stat).
type Stats struct {
	Entries       int
	Found         uint64 // tuples that were asked for by address translation, and taken
	Invalid       uint64 // packets
	Insert        uint64
	InsertFailed  uint64 // a tuple was taken
	Drop          uint64 // connections that did not come to be, for want of room
	EarlyDrop     uint64 // connections that gave way
	Error         uint64 // ICMP errors about nothing
	SearchRestart uint64 // look-ups that met a change
	ClashResolve  uint64 // a packet was there first
	ChainTooLong  uint64
	Delete        uint64 // connections that ended, for whatever reason
}

// Stats reads the statistics.
func (t *Table) Stats() Stats {
	c := &t.stats
	return Stats{
		Entries: t.Len(), Found: c.found.Load(), Invalid: c.invalid.Load(), Insert: c.insert.Load(),
		InsertFailed: c.insertFailed.Load(), Drop: c.drop.Load(), EarlyDrop: c.earlyDrop.Load(),
		Error: c.icmpError.Load(), SearchRestart: c.restart.Load(), ClashResolve: c.clashResolve.Load(),
		ChainTooLong: c.chainTooLong.Load(), Delete: c.deleted.Load(),
	}
}

// String is a line of conntrack -S, without the number of a CPU.
func (s Stats) String() string {
	return fmt.Sprintf("found=%d invalid=%d insert=%d insert_failed=%d drop=%d early_drop=%d error=%d search_restart=%d clash_resolve=%d chaintoolong=%d",
		s.Found, s.Invalid, s.Insert, s.InsertFailed, s.Drop, s.EarlyDrop, s.Error, s.SearchRestart, s.ClashResolve, s.ChainTooLong)
}
