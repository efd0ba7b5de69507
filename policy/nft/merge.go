// SPDX-License-Identifier: Apache-2.0

package nft

// mergeLoads puts comparisons of fields that lie side by side into the order of
// the header: the kernel gets them as one load, so that is how nft lists them.
func mergeLoads(in []Stmt) []Stmt {
	var out []Stmt
	for i := 0; i < len(in); {
		group, n := loadGroup(in[i:])
		for _, m := range group {
			out = append(out, m)
		}
		i += n
		if n == 0 {
			out = append(out, in[i])
			i++
		}
	}
	return out
}

// loadGroup are the comparisons at the start of list that are one load.
func loadGroup(list []Stmt) (group []*Match, n int) {
	lo, hi := 0, 0
	for _, s := range list {
		p := loadOf(s)
		if p == nil {
			break
		}
		from, to := p.Offset, p.Offset+int(p.Bits)
		m, _ := s.(*Match)
		switch first := n == 0; {
		case first:
			group, lo, hi = []*Match{m}, from, to
		case loadOf(group[0]).Proto != p.Proto || max(hi, to)-min(lo, from) > 128:
			return group, n
		case from == hi:
			group, hi = append(group, m), to
		case to == lo:
			group, lo = append([]*Match{m}, group...), from
		default:
			return group, n
		}
		n++
	}
	return group, n
}

// loadOf is the field that a statement compares with one value, nil if it does not.
func loadOf(s Stmt) *Payload {
	m, ok := s.(*Match)
	if !ok || m.Op != Eq || m.Implied {
		return nil
	}
	p, ok := m.Left.(*Payload)
	if _, isValue := m.Right.(*Value); !ok || !isValue || p.Proto == "" || p.Offset%8 != 0 || p.Bits%8 != 0 {
		return nil
	}
	return p
}
