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

// slackOf is that of a discipline and of all below it; never if it makes nobody wait.
func slackOf(d discipline) int64 {
	least := int64(never)
	switch q := d.(type) {
	case *netem, *fq:
		return 0
	case *tbf:
		least = q.depth
		if q.peak.on() {
			least = min(least, q.pdepth)
		}
		return min(least>>tickShift/patience, slackOf(q.child))
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
