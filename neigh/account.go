// SPDX-License-Identifier: Apache-2.0

package neigh

// account is what one ingress port has of the table's bounded things. It is there
// while anything in it is not zero.
type account struct {
	owed  [numDebts]int // entries, by what they are owed for
	dead  int           // those of owed[unresolved] that failed
	bytes int           // of held packets
}

// debtKind is what an entry is on a port's account for.
type debtKind uint8

const (
	settled    debtKind = iota // on nobody's
	unresolved                 // a packet of the port wants it
	learned                    // somebody behind the port spoke first
	answered                   // it was wanted, and somebody behind the port answered

	numDebts
)

// debt says on whose account an entry is.
type debt struct {
	kind debtKind
	port uint16
}

// account is that of a port.
//
// +checklocks:t.mu
func (t *Table) account(port uint16) *account {
	a := t.accounts[port]
	if a == nil {
		a = new(account)
		t.accounts[port] = a
	}
	return a
}

// settle closes the account of a port that has nothing.
//
// +checklocks:t.mu
func (t *Table) settle(port uint16) {
	if a := t.accounts[port]; a != nil && *a == (account{}) {
		delete(t.accounts, port)
	}
}

// charge puts an entry on an account, away from the one on which it is.
//
// +checklocks:t.mu
func (t *Table) charge(e *entry, d debt) {
	old := e.debt
	e.debt = d
	if d.kind != settled {
		t.account(d.port).owed[d.kind]++
	}
	if old.kind != settled {
		t.account(old.port).owed[old.kind]--
		t.settle(old.port)
	}
}

// died notes that an entry failed, or that a failed one no longer is that; n is 1
// or -1.
//
// +checklocks:t.mu
func (t *Table) died(e *entry, n int) {
	if e.debt.kind == unresolved {
		t.account(e.debt.port).dead += n
		t.settle(e.debt.port)
	}
}

// room makes sure that a port may have one more entry, at the cost of one of its
// own that failed if need be.
//
// +checklocks:t.mu
func (t *Table) room(d debt) bool {
	a := t.accounts[d.port]
	if a == nil || a.owed[d.kind] < t.limit(d.kind) {
		return true
	}
	if d.kind != unresolved || a.dead == 0 {
		return false
	}
	var oldest *entry
	for _, e := range t.all {
		if e.debt == d && e.state() == Failed && (oldest == nil || int32(e.updated-oldest.updated) < 0) {
			oldest = e
		}
	}
	t.remove(oldest)
	return true
}

// answer puts an entry on the account of the port that it answered by, so that a
// container which plays all the hosts that it asks for has its share too. If that
// port has as many already, the entry stays where it is.
//
// +checklocks:t.mu
func (t *Table) answer(e *entry, port uint16) {
	if d := (debt{answered, port}); e.debt != d && t.room(d) {
		t.charge(e, d)
	}
}

// limit is how many entries of a kind a port may have.
func (t *Table) limit(k debtKind) int {
	switch k {
	case learned:
		return t.limits.LearnedPerPort
	case answered:
		return t.limits.AnsweredPerPort
	case settled, unresolved, numDebts:
	}
	return t.limits.UnresolvedPerPort
}
