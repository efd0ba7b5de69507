// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"container/list"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

// How long answers are kept.
const (
	// maxTTL bounds what an upstream may ask for (RFC 8767 §4 names a week).
	maxTTL = 24 * time.Hour
	// maxNegativeTTL is for what is not there (RFC 2308 §5 names one to three hours).
	maxNegativeTTL = time.Hour
	// failureTTL is for what could not be found out (RFC 9520 §3.2 wants a second at
	// least).
	failureTTL = time.Second
	// overhead is what an entry takes beside its bytes.
	overhead = 256
)

// question is what an answer is kept by: a name in lower case with its last dot, and
// what changes the answer of an upstream.
type question struct {
	name   string
	qtype  uint16
	do, cd bool // RFC 3225, RFC 4035 §3.2.2
}

// cache are answers of upstreams, least recently used last. The methods are safe for
// any goroutine.
type cache struct {
	mu sync.Mutex
	// +checklocks:mu
	entries map[question]*list.Element
	// +checklocks:mu
	used list.List // of *entry
	// +checklocks:mu
	size int
	// +checklocks:mu
	maxEntries int
	// +checklocks:mu
	maxSize int
	// +checklocks:mu
	evicted uint64
}

// entry is an answer as it travels, so that its size is known.
type entry struct {
	question
	packed         []byte
	since, expires time.Duration
}

func (e *entry) size() int { return len(e.packed) + len(e.name) + overhead }

// limit changes the bounds.
func (c *cache) limit(entries, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.maxEntries, c.maxSize = bound(entries, DefaultCacheEntries), bound(size, DefaultCacheBytes)
	c.shrink()
}

func bound(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return max(n, 0)
}

// get returns an answer that is still good, with what is left of its times; it is the
// caller's.
func (c *cache) get(q question, now time.Duration) *wire.Msg {
	e := c.find(q, now)
	if e == nil {
		return nil
	}
	m := new(wire.Msg)
	if m.Unpack(e.packed) != nil { // it was packed by put
		return nil
	}
	age, left := uint32((now-e.since)/time.Second), uint32(max(e.expires-now, 0)/time.Second)
	for _, rr := range records(m) {
		h := rr.Header()
		h.Ttl = min(h.Ttl-min(h.Ttl, age), left)
	}
	return m
}

func (c *cache) find(q question, now time.Duration) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.entries[q]
	if at == nil {
		return nil
	}
	e := at.Value.(*entry) //nolint:forcetypeassert // the list has no other
	if e.expires <= now {
		c.drop(at)
		return nil
	}
	c.used.MoveToFront(at)
	return e
}

// put keeps an answer for as long as it says, if it says so.
func (c *cache) put(q question, m *wire.Msg, now time.Duration) {
	ttl := lifetime(m, q)
	if ttl <= 0 {
		return
	}
	packed, err := m.Pack()
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.entries[q]; at != nil {
		c.drop(at)
	}
	e := &entry{question: q, packed: packed, since: now, expires: now + ttl}
	if e.size() > c.maxSize/8 {
		return // one answer is not to push out all others
	}
	if c.entries == nil {
		c.entries = make(map[question]*list.Element)
	}
	c.entries[q] = c.used.PushFront(e)
	c.size += e.size()
	c.shrink()
}

// +checklocks:c.mu
func (c *cache) shrink() {
	for c.used.Len() > c.maxEntries || c.size > c.maxSize {
		c.drop(c.used.Back())
		c.evicted++
	}
}

// +checklocks:c.mu
func (c *cache) drop(at *list.Element) {
	e := c.used.Remove(at).(*entry) //nolint:forcetypeassert // the list has no other
	delete(c.entries, e.question)
	c.size -= e.size()
}

// flush forgets a name, or with "" all, and says how many answers that were.
func (c *cache) flush(name string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for q, at := range c.entries {
		if name == "" || q.name == name {
			c.drop(at)
			n++
		}
	}
	return n
}

func (c *cache) stats(s *Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.CacheEntries, s.CacheBytes, s.CacheEvicted = c.used.Len(), c.size, c.evicted
	s.CacheMaxEntries, s.CacheMaxBytes = c.maxEntries, c.maxSize
}

// lifetime is for how long an answer may be kept; 0: not at all.
func lifetime(m *wire.Msg, q question) time.Duration {
	switch {
	case m.Rcode != wire.RcodeSuccess && m.Rcode != wire.RcodeNameError:
		return failureTTL
	case m.Rcode == wire.RcodeNameError || !answers(m, q.qtype):
		return negative(m)
	}
	ttl := uint32(maxTTL / time.Second)
	for _, rr := range m.Answer {
		ttl = min(ttl, rr.Header().Ttl)
	}
	return time.Duration(ttl) * time.Second
}

// negative is RFC 2308 §5: without a SOA nothing says for how long.
func negative(m *wire.Msg) time.Duration {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*wire.SOA); ok {
			ttl := time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
			for _, alias := range m.Answer {
				ttl = min(ttl, time.Duration(alias.Header().Ttl)*time.Second)
			}
			return min(ttl, maxNegativeTTL)
		}
	}
	return 0
}

// answers reports whether an answer has a record of the type that was asked for.
func answers(m *wire.Msg, qtype uint16) bool {
	for _, rr := range m.Answer {
		if rr.Header().Rrtype == qtype || qtype == wire.TypeANY {
			return true
		}
	}
	return false
}

// records are all of a message, but for OPT, whose TTL is none.
func records(m *wire.Msg) (out []wire.RR) {
	out = append(append(out, m.Answer...), m.Ns...)
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != wire.TypeOPT {
			out = append(out, rr)
		}
	}
	return out
}
