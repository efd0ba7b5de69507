// SPDX-License-Identifier: Apache-2.0

package qdisc

// patience is the part of a burst for which a bucket may fill up before it is looked at
// again, one in so many.
const patience = 4

// Slack is how much later than NextTime the tree may be asked for its next packet
// without that anything is lost: buckets fill up meanwhile. To ask once for several
// packets costs less than for each. 0 if the time matters, as to netem and to what
// paces; ns.
func (t *Tree) Slack() int64 { return t.slack }

// roomOf is what still fits into a bucket of tbf that has tokens for any packet: so full
// it may be at NextTime. Super-frames that take long have been cut.
func roomOf(rate *pace, depth int64) int64 {
	most := min(rate.ticks(70_000), max(wholeTime<<tickShift, rate.ticks(defaultMTU)))
	return max(0, min(depth/patience, depth-most)) >> tickShift
}

// slackOf is that of a discipline and of all below it; never if it makes nobody wait.
func slackOf(d discipline) int64 {
	least := int64(never)
	switch q := d.(type) {
	case *netem, *fq:
		return 0
	case *tbf:
		least = min(roomOf(&q.rate, q.depth), slackOf(q.child))
		if q.peak.on() {
			least = min(least, roomOf(&q.peak, q.pdepth))
		}
	case *htb:
		for _, c := range q.order {
			least = min(least, c.burst>>tickShift/patience, c.cburst>>tickShift/patience)
			if c.leaf != nil {
				least = min(least, slackOf(c.leaf))
			}
		}
	case *prio:
		for _, b := range q.bands {
			least = min(least, slackOf(b))
		}
	case *drr:
		for _, c := range q.order {
			least = min(least, slackOf(c.leaf))
		}
	case *portal:
		if q.tree.root != nil {
			return q.tree.slack
		}
	}
	return least
}
