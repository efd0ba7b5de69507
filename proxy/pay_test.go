// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// TestPayAtOnce: workers pay at the same time, and meanwhile others owe: nobody is
// forgotten, and nothing is paid that nobody owes.
func TestPayAtOnce(t *testing.T) {
	p := new(Proxy)
	var all []*conn
	var wg sync.WaitGroup
	for range 4 {
		var own []*conn
		for range 8 {
			c := &conn{fd: -1}
			c.shown.Store(new(tcpip.Endpoint))
			own = append(own, c)
		}
		all = append(all, own...)
		wg.Go(func() {
			for range 20_000 {
				for _, c := range own {
					p.owe(c)
				}
				p.Pay()
			}
		})
	}
	wg.Wait()
	p.Pay()
	for i, c := range all {
		if c.debtor.Load() {
			t.Errorf("connection %d is a debtor for ever", i)
		}
	}
}
