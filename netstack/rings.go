// SPDX-License-Identifier: Apache-2.0

package netstack

import "sluice/qdisc"

// rings are the ways between workers; nil if there is only one.
type rings [][]*qdisc.Handover

func newRings(workers int) rings {
	if workers < 2 {
		return nil
	}
	bytes := min(max(handoverAll/(workers-1), leastHandover), greatestHandover)
	r := make(rings, workers)
	for i := range r {
		r[i] = make([]*qdisc.Handover, workers)
		for k := range r[i] {
			if k != i {
				r[i][k] = qdisc.NewHandover(handoverFrames, bytes)
			}
		}
	}
	return r
}

func (r rings) to(worker, from int) *qdisc.Handover {
	if r == nil {
		return nil
	}
	return r[worker][from]
}
