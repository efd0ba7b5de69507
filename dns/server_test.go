// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	wire "github.com/miekg/dns"
)

// world is an upstream, and a Transport that leads to it.
type world struct {
	mu      sync.Mutex
	records map[string][]string // by "name TYPE"
	rcodes  map[string]int      // by name
	dead    map[string]bool     // by upstream
	asked   []string            // "name TYPE", in lower case
	spelt   []string            // names as they came
	// alter changes an answer over UDP.
	alter func(*wire.Msg)
	tcp   atomic.Int32
	delay time.Duration
}

func newWorld() *world {
	return &world{records: map[string][]string{}, rcodes: map[string]int{}, dead: map[string]bool{}}
}

func (w *world) has(records ...string) *world {
	for _, text := range records {
		rr, err := wire.NewRR(text)
		if err != nil {
			panic(err)
		}
		k := rr.Header().Name + " " + wire.TypeToString[rr.Header().Rrtype]
		w.records[k] = append(w.records[k], text)
	}
	return w
}

var errTimeout = errors.New("no answer")

func (w *world) Exchange(ctx context.Context, up Upstream, tcp bool, query []byte, right func([]byte) bool) ([]byte, error) {
	w.mu.Lock()
	dead, delay := w.dead[up.String()], w.delay
	w.mu.Unlock()
	if up.Host && up.Place > 0 {
		return nil, ErrAbsent
	}
	if dead {
		<-ctx.Done()
		return nil, errTimeout
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m := w.answer(query)
	if tcp {
		w.tcp.Add(1)
	} else if w.alter != nil {
		w.alter(m)
	}
	b, err := m.Pack()
	if err != nil {
		return nil, err
	}
	if !right(b) {
		return nil, errTimeout
	}
	return b, nil
}

func (w *world) answer(query []byte) *wire.Msg {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := new(wire.Msg)
	if err := q.Unpack(query); err != nil {
		panic(err)
	}
	m := new(wire.Msg).SetReply(q)
	name, qtype := strings.ToLower(q.Question[0].Name), wire.TypeToString[q.Question[0].Qtype]
	w.asked, w.spelt = append(w.asked, name+" "+qtype), append(w.spelt, q.Question[0].Name)
	m.Rcode = w.rcodes[name]
	for _, key := range []string{name + " " + qtype, name + " CNAME"} {
		for _, text := range w.records[key] {
			rr, _ := wire.NewRR(text)
			m.Answer = append(m.Answer, rr)
			if c, ok := rr.(*wire.CNAME); ok {
				for _, text := range w.records[c.Target+" "+qtype] {
					rr, _ := wire.NewRR(text)
					m.Answer = append(m.Answer, rr)
				}
			}
		}
	}
	if !answers(m, q.Question[0].Qtype) {
		for _, text := range w.records["example. SOA"] {
			rr, _ := wire.NewRR(text)
			m.Ns = append(m.Ns, rr)
		}
	}
	return m
}

func (w *world) questions() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.asked...)
}

func upstream(n int) Upstream {
	return Upstream{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 53)}
}

// bench is a server, and the client that asks it.
type bench struct {
	*Server
	t     testing.TB
	world *world
	start time.Time
	late  time.Duration // added to the clock
	log   []string
}

func shop() []Network {
	return []Network{
		{
			Name: "web", Subnets: []netip.Prefix{netip.MustParsePrefix("10.44.0.0/24"), netip.MustParsePrefix("fd44::/64")},
			Gateways: []netip.Addr{netip.MustParseAddr("10.44.0.1"), netip.MustParseAddr("fd44::1")},
			Hosts: []Host{
				{Name: "Red", Aliases: []string{"www"}, Addrs: []netip.Addr{netip.MustParseAddr("10.44.0.10"), netip.MustParseAddr("fd44::10")}},
				{Name: "blue", Aliases: []string{"www", "a.b"}, Addrs: []netip.Addr{netip.MustParseAddr("10.44.0.11")}},
				{Name: "odd..name", Addrs: []netip.Addr{netip.MustParseAddr("10.44.0.12")}},
			},
		},
		{Name: "db", Subnets: []netip.Prefix{netip.MustParsePrefix("10.45.0.0/16")}, Gateways: []netip.Addr{netip.MustParseAddr("10.45.0.1")}},
	}
}

func newBench(t testing.TB, c Config) *bench {
	t.Helper()
	b := &bench{t: t, world: newWorld(), start: time.Now()}
	if c.Upstreams == nil {
		c.Upstreams = []Upstream{upstream(1)}
	}
	b.Server = New(Options{
		Transport: b.world, Now: func() time.Duration { return time.Since(b.start) + b.late },
		Report: func(u Upstream, err error) { b.log = append(b.log, fmt.Sprint(u, " ", err)) },
	})
	b.Set(c, NewNames(&c, 7, shop()))
	t.Cleanup(b.Close)
	return b
}

// query is the message that asks for "name TYPE".
func query(text string, edit ...func(*wire.Msg)) *wire.Msg {
	name, qtype, _ := strings.Cut(text, " ")
	m := new(wire.Msg).SetQuestion(wire.Fqdn(name), wire.StringToType[qtype])
	for _, f := range edit {
		f(m)
	}
	return m
}

func edns(size uint16, do bool) func(*wire.Msg) { return func(m *wire.Msg) { m.SetEdns0(size, do) } }

var asker = Client{Port: 3}

// send sends a message and returns the answer; nil if there is none.
func (b *bench) send(m *wire.Msg, udp bool) *wire.Msg {
	b.t.Helper()
	packed, err := m.Pack()
	if err != nil {
		b.t.Fatal(err)
	}
	answer, later := b.Query(asker, packed, udp)
	if later != nil {
		answer = later.Wait(b.t.Context())
	}
	if answer == nil {
		return nil
	}
	if udp && len(answer) > udpSize {
		b.t.Errorf("answer of %d bytes over UDP", len(answer))
	}
	out := new(wire.Msg)
	if err := out.Unpack(answer); err != nil {
		b.t.Fatalf("%v: %x", err, answer)
	}
	if out.Id != m.Id || !out.Response || len(m.Question) == 1 && (len(out.Question) != 1 || out.Question[0] != m.Question[0]) {
		b.t.Errorf("answer is to another question: %v", out)
	}
	return out
}

// ask asks, and returns the answer in short: code, then the records' data.
func (b *bench) ask(text string, edit ...func(*wire.Msg)) string {
	b.t.Helper()
	return short(b.send(query(text, edit...), true))
}

func short(m *wire.Msg) string {
	if m == nil {
		return "nothing"
	}
	out := wire.RcodeToString[m.Rcode]
	if m.Truncated {
		out += " TC"
	}
	for _, rr := range m.Answer {
		out += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
	}
	return out
}

func (b *bench) wants(want, text string, edit ...func(*wire.Msg)) {
	b.t.Helper()
	if got := b.ask(text, edit...); got != want {
		b.t.Errorf("%s: got %q, want %q", text, got, want)
	}
}

func TestOwnNames(t *testing.T) {
	b := newBench(t, Config{})
	for text, want := range map[string]string{
		"red A":                                   "NOERROR 10.44.0.10",
		"RED.web A":                               "NOERROR 10.44.0.10",
		"red.web.sluice.internal AAAA":            "NOERROR fd44::10",
		"red.sluice.internal A":                   "NOERROR 10.44.0.10",
		"www A":                                   "NOERROR 10.44.0.10 10.44.0.11",
		"a.b.web.sluice.internal A":               "NOERROR 10.44.0.11",
		"b.web.sluice.internal A":                 "NOERROR", // there is something below
		"gateway.db.sluice.internal A":            "NOERROR 10.45.0.1",
		"web.sluice.internal A":                   "NOERROR",
		"blue AAAA":                               "NOERROR", // no such type
		"blue MX":                                 "NOERROR",
		"nobody.sluice.internal A":                "NXDOMAIN",
		"x.red.web.sluice.internal A":             "NXDOMAIN",
		"sluice.internal NS":                      "NOERROR ns.sluice.internal.",
		"10.0.44.10.in-addr.arpa PTR":             "NXDOMAIN",
		"10.0.44.10.in-addr.arpa. PTR":            "NXDOMAIN",
		"11.0.44.10.in-addr.arpa PTR":             "NXDOMAIN",
		"localhost A":                             "NOERROR 127.0.0.1",
		"x.localhost AAAA":                        "NOERROR ::1",
		"x.invalid A":                             "NXDOMAIN",
		"1.0.45.10.in-addr.arpa PTR":              "NOERROR gateway.db.sluice.internal.",
		"45.10.in-addr.arpa PTR":                  "NOERROR", // the whole subnet
		"9.9.45.10.in-addr.arpa PTR":              "NXDOMAIN",
		reverse6("fd44::10") + " PTR":             "NOERROR red.web.sluice.internal.",
		reverse6("fd44::11") + " PTR":             "NXDOMAIN",
		reverse6("fd44::10") + " A":               "NOERROR",
		"10.0.44.10.in-addr.arpa A":               "NXDOMAIN",
		strings.Repeat("a.", 60) + "internal SOA": "NOERROR",
	} {
		switch text {
		case "10.0.44.10.in-addr.arpa PTR", "10.0.44.10.in-addr.arpa. PTR":
			want = "NOERROR red.web.sluice.internal."
		case "11.0.44.10.in-addr.arpa PTR":
			want = "NOERROR blue.web.sluice.internal."
		case "10.0.44.10.in-addr.arpa A":
			want = "NOERROR"
		}
		b.wants(want, text)
	}
	m := b.send(query("nobody.sluice.internal A"), true)
	if !m.Authoritative || len(m.Ns) != 1 || m.Ns[0].Header().Name != "sluice.internal." {
		t.Errorf("a name that is not there: %v", m)
	}
	if got := b.world.questions(); len(got) != 1 { // that of the 60 labels
		t.Errorf("forwarded: %q", got)
	}
}

func reverse6(a string) string {
	name, err := wire.ReverseAddr(a)
	if err != nil {
		panic(err)
	}
	return name
}

func TestForwardAndCache(t *testing.T) {
	b := newBench(t, Config{})
	b.world.has("www.example. 300 IN A 198.51.100.7", "www.example. 20 IN A 198.51.100.8", "example. 3600 IN SOA ns. root. 1 2 3 4 60",
		"alias.example. 10 IN CNAME www.example.", "zero.example. 0 IN A 198.51.100.9")
	b.wants("NOERROR 198.51.100.7 198.51.100.8", "wWw.eXample A")
	b.late += 5 * time.Second
	m := b.send(query("www.example A"), true)
	if ttl := m.Answer[0].Header().Ttl; ttl > 15 { // the shortest record ends the answer
		t.Errorf("cached for %d s", ttl)
	}
	b.wants("NOERROR www.example. 198.51.100.7 198.51.100.8", "alias.example A")
	b.wants("NOERROR", "www.example TXT")
	b.wants("NOERROR", "www.example TXT")
	for range 2 {
		b.wants("NOERROR 198.51.100.9", "zero.example A")
	}
	want := []string{"www.example. A", "alias.example. A", "www.example. TXT", "zero.example. A", "zero.example. A"}
	if got := b.world.questions(); strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("asked %q, want %q", got, want)
	}
	b.late += 16 * time.Second
	b.wants("NOERROR 198.51.100.7 198.51.100.8", "www.example A")
	if n := len(b.world.questions()); n != len(want)+1 {
		t.Errorf("%d questions after the TTL", n)
	}
	if s := b.Stats(); s.Hits != 2 || s.Forwarded != 6 || s.CacheEntries == 0 {
		t.Errorf("%+v", s)
	}
	if n := b.Flush("WWW.example"); n != 2 {
		t.Errorf("flushed %d", n)
	}
	if n := b.Flush(""); n != 1 || b.Stats().CacheBytes != 0 {
		t.Errorf("flushed %d, %d bytes left", n, b.Stats().CacheBytes)
	}
}

func TestNegativeAnswersAreKeptAsLongAsTheSOASays(t *testing.T) {
	b := newBench(t, Config{})
	b.world.has("example. 3600 IN SOA ns. root. 1 2 3 4 60")
	b.world.rcodes["none.example."] = wire.RcodeNameError
	b.wants("NXDOMAIN", "none.example A")
	b.late += 59 * time.Second
	b.wants("NXDOMAIN", "none.example A")
	if n := len(b.world.questions()); n != 1 {
		t.Errorf("%d questions", n)
	}
	b.late += 2 * time.Second
	b.wants("NXDOMAIN", "none.example A")
	if n := len(b.world.questions()); n != 2 {
		t.Errorf("%d questions", n)
	}
	delete(b.world.records, "example. SOA")
	for range 2 {
		b.wants("NOERROR", "nosoa.example A")
	}
	if n := len(b.world.questions()); n != 4 {
		t.Errorf("%d questions: kept what nothing says how long to keep", n)
	}
}

func TestLongAnswersAreTruncatedAndGoByTCP(t *testing.T) {
	b := newBench(t, Config{})
	for i := range 100 {
		b.world.has(fmt.Sprintf("big.example. 60 IN A 198.51.100.%d", i))
	}
	b.world.alter = func(m *wire.Msg) { m.Truncate(512) }
	for _, tc := range []struct {
		edit []func(*wire.Msg)
		most int
	}{{nil, 512}, {[]func(*wire.Msg){edns(100, false)}, 512}, {[]func(*wire.Msg){edns(1000, false)}, 1000}, {[]func(*wire.Msg){edns(65535, false)}, 1232}} {
		m := b.send(query("big.example A", tc.edit...), true)
		if got := length(m); !m.Truncated || got > tc.most || len(m.Answer) == 0 {
			t.Errorf("%d bytes, %d records, truncated %v; at most %d", got, len(m.Answer), m.Truncated, tc.most)
		}
		if (m.IsEdns0() != nil) != (tc.edit != nil) {
			t.Error("OPT where none was asked for, or none")
		}
	}
	if m := b.send(query("big.example A"), false); m.Truncated || len(m.Answer) != 100 {
		t.Errorf("over TCP: %d records", len(m.Answer))
	}
	if n := b.world.tcp.Load(); n != 1 {
		t.Errorf("%d questions over TCP", n)
	}
}

// length is that of a message as it travelled.
func length(m *wire.Msg) int {
	m.Compress = true
	return m.Len()
}

func TestQueriesThatAreNoQuestions(t *testing.T) {
	b := newBench(t, Config{})
	raw := func(edit func([]byte) []byte) []byte {
		p, _ := query("red A").Pack()
		return edit(p)
	}
	for name, tc := range map[string]struct {
		b    []byte
		want int // -1: no answer
	}{
		"short":         {[]byte("0123456789a"), -1},
		"an answer":     {raw(func(p []byte) []byte { p[2] |= 0x80; return p }), -1},
		"an update":     {raw(func(p []byte) []byte { p[2] |= 5 << 3; return p }), wire.RcodeNotImplemented},
		"no question":   {raw(func(p []byte) []byte { p[5] = 0; return p }), wire.RcodeFormatError},
		"two questions": {raw(func(p []byte) []byte { p[5] = 2; return p }), wire.RcodeFormatError},
		"with answers":  {raw(func(p []byte) []byte { p[7] = 1; return p }), wire.RcodeFormatError},
		"a header":      {raw(func(p []byte) []byte { return p[:12] }), wire.RcodeFormatError},
		"cut":           {raw(func(p []byte) []byte { return p[:len(p)-1] }), wire.RcodeFormatError},
		"loop of names": {raw(func(p []byte) []byte { return append(p[:12], 0xc0, 12, 0, 1, 0, 1) }), wire.RcodeFormatError},
		"too long":      {append(raw(func(p []byte) []byte { return p }), make([]byte, MaxQuery)...), wire.RcodeFormatError},
	} {
		got, later := b.Query(asker, tc.b, true)
		switch {
		case later != nil:
			t.Errorf("%s: forwarded", name)
		case tc.want < 0 && got != nil:
			t.Errorf("%s: answered", name)
		case tc.want >= 0 && (len(got) < 12 || int(got[3]&15) != tc.want):
			t.Errorf("%s: got %x, want code %d", name, got, tc.want)
		}
	}
	b.wants("REFUSED", "example AXFR")
	b.wants("REFUSED", "version.bind TXT", func(m *wire.Msg) { m.Question[0].Qclass = wire.ClassCHAOS })
	b.wants("BADSIG", // which is 16, too
		"red A", edns(1232, false), func(m *wire.Msg) { m.IsEdns0().SetVersion(1) })
}

func TestUpstreamsTakeTurnsWhenOneIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Config{Upstreams: []Upstream{upstream(1), upstream(2)}})
		b.world.has("a.example. 60 IN A 198.51.100.1", "b.example. 60 IN A 198.51.100.2")
		b.world.dead[upstream(1).String()] = true
		began := time.Now()
		b.wants("NOERROR 198.51.100.1", "a.example A")
		if took := time.Since(began); took != tryTime {
			t.Errorf("the first took %s", took)
		}
		began = time.Now()
		b.wants("NOERROR 198.51.100.2", "b.example A") // the second is asked at once
		if took := time.Since(began); took != 0 {
			t.Errorf("the second took %s", took)
		}
		b.world.dead[upstream(2).String()] = true
		began = time.Now()
		b.wants("SERVFAIL", "c.example A")
		if took := time.Since(began); took > dnsTime {
			t.Errorf("failure took %s", took)
		}
		b.wants("SERVFAIL", "c.example A")
		if n := b.Stats().Failed; n != 1 {
			t.Errorf("%d failures: the first was not kept for a moment", n)
		}
		if len(b.log) != 2 || !strings.Contains(b.log[0], "192.0.2.1:53 no answer") {
			t.Errorf("log: %q", b.log)
		}
		clear(b.world.dead)
		time.Sleep(downFor)
		b.wants("NOERROR", "d.example A")
		if got := b.log[len(b.log)-1]; got != "192.0.2.1:53 <nil>" {
			t.Errorf("log: %q", b.log)
		}
	})
}

// dnsTime is how long a client waits.
const dnsTime = 5 * time.Second

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Config{})
		b.world.has("a.example. 60 IN A 198.51.100.1")
		b.world.delay = time.Second
		var wg sync.WaitGroup
		for range maxClientOpen {
			wg.Go(func() { b.wants("NOERROR 198.51.100.1", "a.example A") })
		}
		synctest.Wait()
		b.wants("REFUSED", "b.example A") // the container has enough open
		wg.Wait()
		if got := b.world.questions(); len(got) != 1 {
			t.Errorf("asked %q", got)
		}
		if s := b.Stats(); s.Refused != 1 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestOnlyTheRightAnswerIsBelieved(t *testing.T) {
	for name, tc := range map[string]struct {
		alter func(*wire.Msg)
		want  string
		tcp   int32
	}{
		"another number": {func(m *wire.Msg) { m.Id++ }, "SERVFAIL", 0},
		"another name":   {func(m *wire.Msg) { m.Question[0].Name = "b.example." }, "SERVFAIL", 0},
		"another type":   {func(m *wire.Msg) { m.Question[0].Qtype = wire.TypeMX }, "SERVFAIL", 0},
		"a query":        {func(m *wire.Msg) { m.Response = false }, "SERVFAIL", 0},
		"other letters":  {func(m *wire.Msg) { m.Question[0].Name = strings.ToLower(m.Question[0].Name) }, "NOERROR 198.51.100.1", 1},
		"about another, too": {func(m *wire.Msg) {
			rr, _ := wire.NewRR("bank.example. 60 IN A 203.0.113.66")
			m.Answer = append(m.Answer, rr)
			m.Extra = append(m.Extra, rr)
			m.Ns = append(m.Ns, rr)
		}, "NOERROR 198.51.100.1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Config{})
			long := "a-name-of-many-letters-that-is-hardly-spelt-small-by-chance.example."
			b.world.has(long + " 60 IN A 198.51.100.1")
			b.world.alter = tc.alter
			b.wants(tc.want, long+" A")
			if n := b.world.tcp.Load(); n != tc.tcp {
				t.Errorf("%d questions over TCP", n)
			}
			if m := b.send(query(long+" A"), true); len(m.Ns)+len(m.Extra) > 0 {
				t.Errorf("more than was asked for: %v", m)
			}
		})
	}
}

func TestNamesAreSpeltByChance(t *testing.T) {
	b := newBench(t, Config{})
	for i := range 20 {
		b.ask(fmt.Sprintf("abcdefghijklmnopqrstuvwxyz%d.example A", i))
	}
	spelt := make(map[string]bool)
	for _, s := range b.world.spelt {
		spelt[s[:26]] = true
	}
	if len(spelt) != 20 {
		t.Errorf("%d spellings of 20", len(spelt))
	}
}

func TestQueriesAreLimitedForEachClient(t *testing.T) {
	b := newBench(t, Config{})
	b.start = time.Now().Add(-time.Hour)
	p, _ := query("red A").Pack()
	answered := 0
	for range 3 * rate {
		if a, _ := b.Query(asker, p, true); a != nil {
			answered++
		}
	}
	if answered < rate || answered > 2*rate {
		t.Errorf("%d answers at once, want about %d", answered, rate)
	}
	if a, _ := b.Query(Client{Port: 4}, p, true); a == nil {
		t.Error("another client has to wait")
	}
	for i := range 2 * maxClients {
		b.Query(Client{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, p, true)
	}
	b.limits.mu.Lock()
	defer b.limits.mu.Unlock()
	if n := len(b.limits.clients); n > maxClients {
		t.Errorf("%d clients are remembered", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	b := newBench(t, Config{CacheEntries: 10})
	for i := range 30 {
		b.world.has(fmt.Sprintf("h%d.example. 60 IN A 198.51.100.%d", i, i))
		b.ask(fmt.Sprintf("h%d.example A", i))
		b.ask("h0.example A") // is used all the time
	}
	if s := b.Stats(); s.CacheEntries != 10 || s.CacheEvicted != 20 {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(strings.Join(b.world.questions(), ","), "h0.example. A"); n != 1 {
		t.Errorf("what is used was asked for %d times", n)
	}
	b.Set(Config{CacheBytes: 1000, Upstreams: []Upstream{upstream(1)}}, NewNames(&Config{}, 8, nil))
	if s := b.Stats(); s.CacheBytes > 1000 || s.CacheEntries > 4 {
		t.Errorf("%+v", s)
	}
	b.Set(Config{CacheEntries: -1, Upstreams: []Upstream{upstream(1)}}, NewNames(&Config{}, 8, nil))
	b.ask("h1.example A")
	if s := b.Stats(); s.CacheEntries != 0 {
		t.Errorf("%+v", s)
	}
}

func TestSignaturesAreForWhoAsksForThem(t *testing.T) {
	b := newBench(t, Config{})
	b.world.has("a.example. 60 IN A 198.51.100.1")
	b.world.alter = func(m *wire.Msg) {
		m.AuthenticatedData = true
		if opt := m.IsEdns0(); opt == nil {
			sig, _ := wire.NewRR("a.example. 60 IN RRSIG A 8 2 60 20300101000000 20200101000000 1 example. AAAA")
			m.Answer = append(m.Answer, sig)
		}
	}
	if m := b.send(query("a.example A"), true); m.AuthenticatedData || len(m.Answer) != 1 {
		t.Errorf("%v", m)
	}
	if m := b.send(query("a.example A", func(m *wire.Msg) { m.AuthenticatedData = true }), true); !m.AuthenticatedData {
		t.Errorf("%v", m)
	}
	m := b.send(query("a.example A", edns(1232, true)), true)
	if !m.AuthenticatedData || len(m.Answer) != 2 || !m.IsEdns0().Do() {
		t.Errorf("%v", m)
	}
	if n := len(b.world.questions()); n != 2 {
		t.Errorf("%d questions: one with DO and one without", n)
	}
}

func TestResolversOfTheHost(t *testing.T) {
	b := newBench(t, Config{Upstreams: OfHost()})
	b.world.has("a.example. 60 IN A 198.51.100.1")
	b.world.rcodes["b.example."] = wire.RcodeServerFailure
	b.wants("NOERROR 198.51.100.1", "a.example A")
	b.wants("SERVFAIL", "b.example A")
	if len(b.log) > 0 {
		t.Errorf("log: %q", b.log)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := []Config{{}, {Domain: "x"}, {Upstreams: OfHost()}, {Prefix64: netip.MustParsePrefix("64:ff9b::/96")}}
	bad := []Config{
		{Domain: "a..b"},
		{Domain: "-a"},
		{Domain: strings.Repeat("a", 64)},
		{Upstreams: []Upstream{{}}},
		{Upstreams: []Upstream{{Addr: netip.MustParseAddrPort("224.0.0.1:53")}}},
		{Prefix64: netip.MustParsePrefix("64:ff9b::/95")},
		{Prefix64: netip.MustParsePrefix("10.0.0.0/32")},
		{CacheEntries: MaxCacheEntries + 1},
		{Upstreams: make([]Upstream, 9)},
		{Prefix64: netip.MustParsePrefix("2001:db8:0:0:ff00::/96")},
	}
	for _, c := range good {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, c := range bad {
		if c.Validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// FuzzQuery: whatever a container sends, the answer is a message of that number, or
// none, and nothing longer than UDP takes.
func FuzzQuery(f *testing.F) {
	for _, text := range []string{"red A", "www.example AAAA", "1.0.45.10.in-addr.arpa PTR", "sluice.internal ANY", reverse6("64:ff9b::102:304") + " PTR"} {
		for _, edit := range []func(*wire.Msg){func(*wire.Msg) {}, edns(4096, true)} {
			p, _ := query(text, edit).Pack()
			f.Add(p)
		}
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	b := newBench(f, Config{Prefix64: netip.MustParsePrefix("64:ff9b::/96")})
	b.world.has("www.example. 60 IN A 198.51.100.1")
	f.Fuzz(func(t *testing.T, in []byte) {
		b.late += time.Second
		got, later := b.Query(asker, in, true)
		if later != nil {
			got = later.Wait(context.Background())
		}
		switch m := new(wire.Msg); {
		case got == nil:
		case m.Unpack(got) != nil || !m.Response || len(got) > udpSize:
			t.Errorf("%x is answered by %x", in, got)
		}
	})
}

// FuzzAnswer: whatever an upstream sends, it is an answer to the question or none.
func FuzzAnswer(f *testing.F) {
	q := question{name: "www.example.", qtype: wire.TypeA}
	out := outgoing(q, true)
	reply := new(wire.Msg).SetReply(out)
	rr, _ := wire.NewRR("www.example. 60 IN A 198.51.100.1")
	reply.Answer = []wire.RR{rr}
	p, _ := reply.Pack()
	f.Add(p[12:])
	f.Fuzz(func(t *testing.T, in []byte) {
		b := append(append([]byte(nil), p[:12]...), in...)
		m := new(wire.Msg)
		if fits(b, out) == unfit || m.Unpack(b) != nil {
			return
		}
		for _, rr := range trim(m, q).Answer {
			if rr.Header().Class != wire.ClassINET {
				t.Errorf("kept %v", rr)
			}
		}
	})
}
