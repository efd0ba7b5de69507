// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// BenchmarkQuery is a query that is answered at once: of an own name, and out of the
// cache.
func BenchmarkQuery(b *testing.B) {
	for name, text := range map[string]string{"own": "red.web.sluice.internal A", "cached": "www.example A"} {
		b.Run(name, func(b *testing.B) {
			s := newBench(b, Config{})
			s.world.has("www.example. 300 IN A 198.51.100.7")
			s.ask(text)
			now := s.opts.Now()
			s.opts.Now = func() time.Duration { now += time.Second / rate; return now } // within the limit
			packed, err := query(text, func(m *wire.Msg) { m.SetEdns0(1232, false) }).Pack()
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				now -= time.Second / rate // the answer is not to grow old
				s.limits.mu.Lock()
				s.limits.clients = nil
				s.limits.mu.Unlock()
				if got, _ := s.Query(asker, packed, true); got == nil {
					b.Fatal("no answer")
				}
			}
		})
	}
}
