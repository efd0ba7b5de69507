// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

const (
	// tries is how often a question is sent, to one upstream after the other, and
	// tryTime how long each is waited for: together a little less than the 5 s after
	// which a client asks again (resolv.conf(5)).
	tries   = 4
	tryTime = 1100 * time.Millisecond
	// downFor is how long an upstream that did not answer comes last.
	downFor = 10 * time.Second
	// quietFor is the time between two reports of an upstream that does not answer.
	quietFor = 30 * time.Second
)

var (
	errNoUpstream = errors.New("there is no upstream to ask")
	errMismatch   = errors.New("the answer is to another question")
)

// Transport carries a query to an upstream and brings back the answer.
type Transport interface {
	// Exchange sends a query, from a port that is random and nobody else's, and returns
	// the first answer of that upstream that is right. It ends with the context at the
	// latest.
	Exchange(ctx context.Context, up Upstream, tcp bool, query []byte, right func([]byte) bool) ([]byte, error)
}

// flight is a question that is being asked.
type flight struct {
	done   chan struct{}
	answer *wire.Msg // set before done is closed, and not to be changed
}

// flights are those by question, so that each is asked once.
type flights struct {
	mu sync.Mutex
	// +checklocks:mu
	all map[question]*flight
}

// join returns the flight of a question, which begins now if there is none yet.
func (f *flights) join(q question, begin func() *wire.Msg) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.all[q]; fl != nil {
		return fl
	}
	if f.all == nil {
		f.all = make(map[question]*flight)
	}
	fl := &flight{done: make(chan struct{})}
	f.all[q] = fl
	go func() {
		fl.answer = begin()
		f.mu.Lock()
		delete(f.all, q)
		f.mu.Unlock()
		close(fl.done)
	}()
	return fl
}

// forward asks the upstreams, if nobody does so already. The answer is the caller's.
func (s *Server) forward(ctx context.Context, q question) *wire.Msg {
	st := s.state.Load()
	fl := s.flights.join(q, func() *wire.Msg {
		if m := s.cache.get(q, s.opts.Now()); m != nil {
			return m // it came between the look and the flight
		}
		return s.fly(st, q)
	})
	select {
	case <-fl.done:
		return fl.answer.Copy()
	case <-ctx.Done():
		return failure(wire.RcodeServerFailure)
	}
}

// fly gets an answer, whatever it is, and keeps it.
func (s *Server) fly(st *state, q question) *wire.Msg {
	s.count.forwarded.Add(1)
	m, err := s.askAll(st, q)
	if err != nil {
		s.count.failed.Add(1)
		m = failure(wire.RcodeServerFailure)
	}
	if slices.Equal(st.conf.Upstreams, s.state.Load().conf.Upstreams) { // or it is others' word
		s.cache.put(q, m, s.opts.Now())
	}
	return m
}

// askAll asks one upstream after the other.
func (s *Server) askAll(st *state, q question) (last *wire.Msg, err error) {
	ups := s.health.order(st.conf.Upstreams, s.opts.Now())
	if len(ups) == 0 {
		return nil, errNoUpstream
	}
	for range tries {
		if len(ups) == 0 {
			break
		}
		up := ups[0]
		ups = ups[1:]
		if last != nil && s.health.down(up) {
			continue // that it can't say either is not worth the wait
		}
		m, err := s.ask(q, up)
		switch {
		case s.stopped():
			return nil, err
		case errors.Is(err, ErrAbsent):
			continue
		case err != nil:
			ups = append(ups, up) // once more, after the others
		case m.Rcode == wire.RcodeSuccess || m.Rcode == wire.RcodeNameError:
			s.note(up, nil)
			return m, nil
		default: // it can't say; perhaps another can
			last = m
		}
		s.note(up, err)
	}
	if last == nil {
		return nil, errNoUpstream
	}
	return last, nil
}

// note keeps account of an upstream, and reports what an operator should know.
func (s *Server) note(up Upstream, err error) {
	now := s.opts.Now()
	if s.health.note(up, err, now) && s.opts.Report != nil {
		s.opts.Report(up, err)
	}
}

// ask asks one upstream once: by UDP, and again by TCP if the answer is too long for
// that, or if the upstream does not give the name back as it was spelt.
func (s *Server) ask(q question, up Upstream) (*wire.Msg, error) {
	ctx, cancel := context.WithTimeout(s.ctx, tryTime)
	defer cancel()
	m, err := s.exchange(ctx, q, up, false, true)
	if errors.Is(err, errMismatch) || err == nil && m.Truncated {
		s.count.overTCP.Add(1)
		m, err = s.exchange(ctx, q, up, true, true)
	}
	if err == nil && m.Rcode == wire.RcodeFormatError { // RFC 6891 §6.2.2
		m, err = s.exchange(ctx, q, up, false, false)
	}
	if err != nil {
		return nil, err
	}
	return trim(m, q), nil
}

// exchange makes a query up that nobody can guess, and reads the answer.
func (s *Server) exchange(ctx context.Context, q question, up Upstream, tcp, edns bool) (*wire.Msg, error) {
	query := outgoing(q, edns)
	b, err := query.Pack()
	if err != nil {
		return nil, err
	}
	misspelt := false
	s.count.sent.Add(1)
	right := func(b []byte) bool {
		switch fits(b, query) {
		case fit:
			return true
		case respelt:
			misspelt = true
			return true
		case unfit:
		}
		s.count.mismatched.Add(1)
		return false
	}
	got, err := s.opts.Transport.Exchange(ctx, up, tcp, b, right)
	if err != nil {
		return nil, err
	}
	if misspelt && !tcp {
		return nil, errMismatch
	}
	m, err := unpack(got)
	if err != nil {
		return nil, fmt.Errorf("answer of %d bytes: %w", len(got), err)
	}
	return m, nil
}

// outgoing is the query for an upstream: with a random number, and the letters of the
// name large and small by chance (draft-vixie-dnsext-dns0x20).
func outgoing(q question, edns bool) *wire.Msg {
	m := new(wire.Msg)
	var random [2 + 32]byte
	rand.Read(random[:])
	m.Id, m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = binary.BigEndian.Uint16(random[:]), true, q.cd, true
	m.Question = []wire.Question{{Name: respell(q.name, random[2:]), Qtype: q.qtype, Qclass: wire.ClassINET}}
	if edns {
		m.SetEdns0(udpSize, q.do)
	}
	return m
}

// respell makes letters of a name large, each by a random bit. What stands behind a \
// is a number or no letter.
func respell(name string, random []byte) string {
	b := []byte(name)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && random[i/8%len(random)]>>(i%8)&1 == 1 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

type match uint8

const (
	unfit   match = iota // somebody else's
	respelt              // but for the letters' size
	fit
)

// fits holds an answer against its query.
func fits(b []byte, query *wire.Msg) match {
	if len(b) < headerLen || b[2]&0x80 == 0 || binary.BigEndian.Uint16(b) != query.Id || binary.BigEndian.Uint16(b[4:]) != 1 {
		return unfit
	}
	name, at, err := wire.UnpackDomainName(b, headerLen)
	want := query.Question[0]
	if err != nil || len(b) < at+4 || binary.BigEndian.Uint16(b[at:]) != want.Qtype || binary.BigEndian.Uint16(b[at+2:]) != want.Qclass {
		return unfit
	}
	switch {
	case name == want.Name:
		return fit
	case strings.EqualFold(name, want.Name):
		return respelt
	}
	return unfit
}

// mostAliases bounds the CNAMEs that an answer may be away from its question.
const mostAliases = 16

// trim keeps what the question asked for: the records of the name, and of those that it
// is an alias of, and what proves that there are none. Names are spelt small.
func trim(m *wire.Msg, q question) *wire.Msg {
	out := &wire.Msg{MsgHdr: wire.MsgHdr{Rcode: m.Rcode, AuthenticatedData: m.AuthenticatedData}}
	for _, rr := range records(m) {
		rr.Header().Name = strings.ToLower(rr.Header().Name)
	}
	asked := chain(m.Answer, q)
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Class == wire.ClassINET && (asked[h.Name] || h.Rrtype == wire.TypeDNAME && above(h.Name, asked)) {
			out.Answer = append(out.Answer, rr)
		}
	}
	for _, rr := range m.Ns {
		switch rr.Header().Rrtype {
		case wire.TypeSOA, wire.TypeNSEC, wire.TypeNSEC3, wire.TypeRRSIG:
			out.Ns = append(out.Ns, rr)
		}
	}
	return out
}

// chain are the name that was asked for and those that it is an alias of.
func chain(answer []wire.RR, q question) map[string]bool {
	names := map[string]bool{q.name: true}
	at := q.name
	for range mostAliases {
		next := ""
		for _, rr := range answer {
			if c, ok := rr.(*wire.CNAME); ok && c.Hdr.Name == at && q.qtype != wire.TypeCNAME {
				next = wire.CanonicalName(c.Target)
			}
		}
		if next == "" || names[next] {
			break
		}
		names[next], at = true, next
	}
	return names
}

// above reports whether a name is an ancestor of one of some.
func above(name string, names map[string]bool) bool {
	for n := range names {
		if wire.IsSubDomain(name, n) {
			return true
		}
	}
	return false
}

// health is what is known of the upstreams.
type health struct {
	mu sync.Mutex
	// +checklocks:mu
	downs map[Upstream]*down
}

// down is an upstream that did not answer.
type down struct {
	since    time.Duration // since it was heard last
	until    time.Duration // it comes last
	reported time.Duration
	failures uint64
}

// order are the upstreams, those that are down last.
func (h *health) order(all []Upstream, now time.Duration) []Upstream {
	h.mu.Lock()
	defer h.mu.Unlock()
	var up, last []Upstream
	for _, u := range all {
		if d := h.downs[u]; d != nil && now < d.until {
			last = append(last, u)
		} else {
			up = append(up, u)
		}
	}
	return append(up, last...)
}

// note takes note of an answer, or of none, and says whether to report it: the first
// failure, one now and then, and that it is over.
func (h *health) note(u Upstream, err error, now time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.downs[u]
	if err == nil {
		delete(h.downs, u)
		return d != nil
	}
	if d == nil {
		if h.downs == nil {
			h.downs = make(map[Upstream]*down)
		}
		d = &down{since: now, reported: now - quietFor}
		h.downs[u] = d
	}
	d.failures++
	d.until = now + downFor
	if now-d.reported < quietFor {
		return false
	}
	d.reported = now
	return true
}

// keep forgets upstreams that are asked no more.
func (h *health) keep(all []Upstream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := make(map[Upstream]bool)
	for _, u := range all {
		known[u] = true
	}
	for u := range h.downs {
		if !known[u] {
			delete(h.downs, u)
		}
	}
}

func (h *health) down(u Upstream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.downs[u] != nil
}
