// SPDX-License-Identifier: Apache-2.0

package interp

import (
	"sluice/policy"
	"sluice/policy/nft"
)

// Holds reports whether a comparison is true of a packet, whatever led to it.
func (w *World) Holds(p *policy.Packet, family nft.Family, t *nft.Table, m *nft.Match) bool {
	r := &run{w: w, p: p, family: family, table: t, last: p.Frame.View.End}
	return r.matches(m)
}

// Says is what a verdict map has for a packet; nil: nothing.
func (w *World) Says(p *policy.Packet, family nft.Family, t *nft.Table, v *nft.VMap) *nft.Verdict {
	r := &run{w: w, p: p, family: family, table: t, last: p.Frame.View.End}
	if e := r.lookup(r.set(v.Of), v.Key); e != nil {
		return e.tree.Verdict
	}
	return nil
}

// Watch lets f be told of each statement that a packet comes to.
func (w *World) Watch(f func(*nft.Rule, nft.Stmt)) { w.met = f }
