// SPDX-License-Identifier: Apache-2.0

package netstack

import "sluice/proxy"

// Theory of operation.
//
// A proxy may owe acknowledgements, which the answers that it waits for would carry. The
// worker that it owes them by pays when it has had nothing to do for as long as it rests,
// a fifth of a millisecond, and at the latest after some rounds.

// debtRounds is how many rounds in a row a worker that finds something to do each time may
// put off what is owed.
const debtRounds = 16

// debt is what a worker knows of such a proxy.
type debt struct {
	proxy  *proxy.Proxy // nil: nothing is owed
	rounds int
}

// take takes note of a proxy that owes something. There is one of them mostly: who was
// there before pays.
func (d *debt) take(p *proxy.Proxy) {
	if d.proxy == p {
		return
	}
	d.pay()
	d.proxy, d.rounds = p, debtRounds
}

func (d *debt) owed() bool { return d.proxy != nil }

// hold is called before a round that has something to do.
func (d *debt) hold() {
	if d.proxy == nil {
		return
	}
	if d.rounds--; d.rounds <= 0 {
		d.pay()
	}
}

// pay reports whether anything was owed.
func (d *debt) pay() bool {
	if d.proxy == nil {
		return false
	}
	d.proxy.Pay()
	d.proxy = nil
	return true
}
