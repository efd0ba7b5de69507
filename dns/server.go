// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	wire "github.com/miekg/dns"
)

// Options are what a Server needs from outside.
type Options struct {
	Transport Transport
	// Now is the time since some beginning.
	Now func() time.Duration
	// Report is called when an upstream does not answer, now and then while it doesn't,
	// and with nil when it does again. nil: nobody wants to know.
	Report func(Upstream, error)
}

// Server answers the queries of one namespace. Its methods are safe for any goroutine.
type Server struct {
	opts   Options
	ctx    context.Context //nolint:containedctx // the life of what it has asked
	cancel context.CancelFunc

	state   atomic.Pointer[state]
	cache   cache
	flights flights
	limits  limits
	health  health
	count   counters
}

// state is what it was told last. Immutable.
type state struct {
	conf  Config
	names *Names
}

// counters are Stats while they grow.
type counters struct {
	queries, limited, malformed, refused, local, hits, forwarded, failed atomic.Uint64
	sent, overTCP, mismatched, truncated                                 atomic.Uint64
}

// Stats are what a Server did since it was made, and what it has.
type Stats struct {
	Queries   uint64 `json:"queries"`   // that came, but for the limited
	Limited   uint64 `json:"limited"`   // not answered: their sender had too many
	Malformed uint64 `json:"malformed"` // not understood, or not answered by anybody here
	Refused   uint64 `json:"refused"`   // too many of the sender's wait already
	Local     uint64 `json:"local"`     // answered from the namespace's own names
	Hits      uint64 `json:"hits"`      // answered from the cache
	Forwarded uint64 `json:"forwarded"` // questions that upstreams were asked
	Failed    uint64 `json:"failed"`    // that none of them answered
	Truncated uint64 `json:"truncated"` // answers that were too long for UDP

	Sent       uint64 `json:"sent"`       // queries to upstreams, each try
	OverTCP    uint64 `json:"overTCP"`    // repeated over TCP
	Mismatched uint64 `json:"mismatched"` // answers of upstreams to what was not asked
	Waiting    int    `json:"waiting"`    // queries for an upstream's answer, now

	CacheEntries    int    `json:"cacheEntries"`
	CacheMaxEntries int    `json:"cacheMaxEntries"`
	CacheBytes      int    `json:"cacheBytes"`
	CacheMaxBytes   int    `json:"cacheMaxBytes"`
	CacheEvicted    uint64 `json:"cacheEvicted"`

	Upstreams []UpstreamStats `json:"upstreams"`
}

// UpstreamStats is an upstream and whether it answered when it was asked last.
type UpstreamStats struct {
	Upstream
	Down bool `json:"down,omitempty"`
}

// New makes a Server that knows no name yet, see Set.
func New(o Options) *Server {
	s := &Server{opts: o}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.Set(Config{}, NewNames(new(Config), 1, nil))
	return s
}

// Close gives up what is being asked. Who waits is told that it failed.
func (s *Server) Close() { s.cancel() }

func (s *Server) stopped() bool { return s.ctx.Err() != nil }

// Set replaces configuration and names. What other upstreams said is forgotten.
func (s *Server) Set(c Config, z *Names) {
	old := s.state.Swap(&state{conf: c, names: z})
	s.cache.limit(c.CacheEntries, c.CacheBytes)
	if old != nil && !slices.Equal(old.conf.Upstreams, c.Upstreams) {
		s.cache.flush("")
	}
	s.health.keep(c.Upstreams)
}

// Pending is a query whose answer has to be waited for.
type Pending struct {
	server *Server
	client Client
	req    *request
}

// Query answers a query: at once, or later if the second result is not nil. If both are
// nil there is no answer.
func (s *Server) Query(c Client, b []byte, udp bool) ([]byte, *Pending) {
	now := s.opts.Now()
	if !s.limits.admit(c, now) {
		s.count.limited.Add(1)
		return nil, nil
	}
	s.count.queries.Add(1)
	r, m := read(b, udp)
	if m != nil || r == nil {
		s.count.malformed.Add(1)
		if r == nil {
			return nil, nil
		}
		return r.reply(m), nil
	}
	if m, ok := s.known(r.question, now); ok {
		return s.finish(r, m), nil
	}
	if !s.limits.take(c, now) {
		s.count.refused.Add(1)
		return r.reply(failure(wire.RcodeRefused)), nil
	}
	return nil, &Pending{server: s, client: c, req: r}
}

// Wait gets the answer, and is to be called once. It ends with the context at the
// latest; the answer is then that it failed.
func (p *Pending) Wait(ctx context.Context) []byte {
	s := p.server
	defer s.limits.put(p.client)
	st := s.state.Load()
	m, _ := st.conf.complete(p.req.question, func(q question) (*wire.Msg, bool) {
		if m, ok := st.names.answer(q); ok {
			return m, true
		}
		if m := s.cache.get(q, s.opts.Now()); m != nil {
			return m, true
		}
		return s.forward(ctx, q), true
	})
	return s.finish(p.req, m)
}

// known answers from what is there.
func (s *Server) known(q question, now time.Duration) (*wire.Msg, bool) {
	st, cached := s.state.Load(), false
	m, ok := st.conf.complete(q, func(q question) (*wire.Msg, bool) {
		if m, ok := st.names.answer(q); ok {
			return m, true
		}
		m := s.cache.get(q, now)
		cached = true
		return m, m != nil
	})
	switch {
	case ok && cached:
		s.count.hits.Add(1)
	case ok:
		s.count.local.Add(1)
	}
	return m, ok
}

func (s *Server) finish(r *request, m *wire.Msg) []byte {
	b := r.reply(m)
	if len(b) > 2 && b[2]&2 != 0 {
		s.count.truncated.Add(1)
	}
	return b
}

// Flush forgets what upstreams said of a name, or with "" of all, and says how many
// answers that were.
func (s *Server) Flush(name string) int {
	if name != "" {
		name = wire.CanonicalName(name)
	}
	return s.cache.flush(name)
}

// Stats tell what it did.
func (s *Server) Stats() Stats {
	c := &s.count
	out := Stats{
		Queries: c.queries.Load(), Limited: c.limited.Load(), Malformed: c.malformed.Load(), Refused: c.refused.Load(),
		Local: c.local.Load(), Hits: c.hits.Load(), Forwarded: c.forwarded.Load(), Failed: c.failed.Load(), Truncated: c.truncated.Load(),
		Sent: c.sent.Load(), OverTCP: c.overTCP.Load(), Mismatched: c.mismatched.Load(), Waiting: s.limits.waiting(),
	}
	s.cache.stats(&out)
	for _, u := range s.state.Load().conf.Upstreams {
		out.Upstreams = append(out.Upstreams, UpstreamStats{u, s.health.down(u)})
	}
	return out
}
