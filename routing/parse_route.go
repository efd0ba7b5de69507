// SPDX-License-Identifier: Apache-2.0

package routing

import "net/netip"

// ParseRoute reads a change of a route in the words of ip-route(8), without the
// leading `ip route`: "add 10.0.0.0/8 via 10.1.0.1 metric 5 table 7". It knows
// the tables that a nil *Names knows.
func ParseRoute(line string) (Change, error) { return (*Names)(nil).ParseRoute(line) }

// ParseRule is ParseRoute for ip-rule(8).
func ParseRule(line string) (Change, error) { return (*Names)(nil).ParseRule(line) }

// Parse reads a line of a batch file: "route add …" or "rule add …", with -4 or
// -6 before it if the family is not told by an address.
func (n *Names) Parse(line string) (Change, error) {
	w := n.newWords(line)
	switch noun := w.take(); {
	case command(noun, "route") != "" && noun != "ru":
		return w.route()
	case command(noun, "rule") != "":
		return w.rule()
	}
	return Change{}, w.wrong("want route or rule")
}

// ParseRoute is the function of that name, with tables that have names.
func (n *Names) ParseRoute(line string) (Change, error) { return n.newWords(line).route() }

// ParseRule is the function of that name, with tables that have names.
func (n *Names) ParseRule(line string) (Change, error) { return n.newWords(line).rule() }

// ParseFilter reads what follows `ip route show`: "table all proto static dev p1".
// Without a table it is main, as there.
func (n *Names) ParseFilter(line string) (*Filter, error) {
	w := n.newWords(line)
	f := &Filter{}
	if w.fixed {
		f.Families = []Family{w.family}
	}
	return f, w.filter(f)
}

// refusedRouteWords are words of ip-route(8) that this package has no use for.
var refusedRouteWords = []string{
	"tos", "dsfield", "realm", "realms", "window", "rtt", "rttvar", "rto_min", "ssthresh", "cwnd",
	"initcwnd", "initrwnd", "reordering", "hoplimit", "features", "quickack", "congctl", "nhid",
	"encap", "as", "expires", "fastopen_no_cookie", "nat", "ttl-propagate", "mpls", "qos",
}

// routeLine is a route while it is read.
type routeLine struct {
	route *Route
	hop   NextHop // from words outside of nexthop
	dst   bool    // the prefix is there
	any   bool    // the prefix was a word, whose family is that of the line
}

// routeOpNames are the operations, in the order in which ip(8) tries abbreviations.
var routeOpNames = []string{"add", "append", "change", "chg", "delete", "prepend", "replace", "flush"}

func (w *words) route() (Change, error) {
	word := w.take()
	op, ok := map[string]Op{
		"add": OpAdd, "append": OpAppend, "change": OpChange, "chg": OpChange, "delete": OpDelete,
		"prepend": OpPrepend, "replace": OpReplace, "flush": OpFlush,
	}[command(word, routeOpNames...)]
	if !ok {
		return Change{}, w.wrong("want add, append, prepend, change, replace, del or flush")
	}
	if op == OpFlush {
		return w.flush()
	}
	line := routeLine{route: &Route{}}
	if err := line.read(w); err != nil {
		return Change{}, err
	}
	return Change{Op: op, Route: line.route}, nil
}

// flush is refused without arguments: it would empty the main table.
func (w *words) flush() (Change, error) {
	if !w.more() {
		return Change{}, w.wrong("needs arguments")
	}
	f := &Filter{}
	if w.fixed {
		f.Families = []Family{w.family}
	}
	return Change{Op: OpFlush, Filter: f}, w.filter(f)
}

func (l *routeLine) read(w *words) error {
	if err := each(w, l, routeWordsTable, plainRouteWord); err != nil {
		return err
	}
	if !l.dst {
		return w.wrong("needs a destination")
	}
	r := l.route
	if l.any {
		r.Prefix = everything(w.family)
	}
	if l.hop != (NextHop{}) {
		if len(r.NextHops) > 0 {
			return &ParseError{Word: "nexthop", Reason: "not beside via, dev or onlink"}
		}
		r.NextHops = []NextHop{l.hop}
	}
	return nil
}

// routeWordsTable are the keywords of a route.
var routeWordsTable = map[string]keyword[routeLine]{
	"via":        func(w *words, l *routeLine) error { return w.via(&l.hop) },
	"dev":        func(w *words, l *routeLine) error { return w.device(&l.hop.Dev) },
	"oif":        func(w *words, l *routeLine) error { return w.device(&l.hop.Dev) },
	"onlink":     func(_ *words, l *routeLine) error { l.hop.Onlink = true; return nil },
	"weight":     func(w *words, l *routeLine) error { return w.weight(&l.hop) },
	"nexthop":    func(w *words, l *routeLine) error { return l.nexthop(w) },
	"table":      func(w *words, l *routeLine) error { return w.table(&l.route.Table) },
	"vrf":        func(w *words, l *routeLine) error { return w.table(&l.route.Table) },
	"metric":     func(w *words, l *routeLine) error { return w.uint32(&l.route.Metric) },
	"preference": func(w *words, l *routeLine) error { return w.uint32(&l.route.Metric) },
	"priority":   func(w *words, l *routeLine) error { return w.uint32(&l.route.Metric) },
	"proto":      func(w *words, l *routeLine) error { return w.text(&l.route.Proto) },
	"protocol":   func(w *words, l *routeLine) error { return w.text(&l.route.Proto) },
	"scope":      func(w *words, l *routeLine) error { return w.scope(&l.route.Scope) },
	"src":        func(w *words, l *routeLine) error { return w.address(&l.route.Src) },
	"advmss":     func(w *words, l *routeLine) error { return w.uint32(&l.route.AdvMSS) },
	"mtu":        func(w *words, l *routeLine) error { return w.mtu(l.route) },
	"pref":       func(w *words, _ *routeLine) error { return w.medium() },
	"to":         func(w *words, l *routeLine) error { w.take(); return l.destination(w) },
	// What the kernel adds of itself when it shows a route.
	"dead":     func(*words, *routeLine) error { return nil },
	"linkdown": func(*words, *routeLine) error { return nil },
}

// plainRouteWord reads a word without keyword: the type, if one stands before the
// destination, or the destination.
func plainRouteWord(w *words, l *routeLine) error {
	if l.dst {
		return w.unknown(refusedRouteWords)
	}
	if n, isType := indexOf(typeNames[:], w.word); isType && n != int(TypeNone) && l.route.Type == TypeNone {
		l.route.Type = Type(n)
		return nil
	}
	return l.destination(w)
}

// destination reads the word that was just taken.
func (l *routeLine) destination(w *words) error {
	if l.dst {
		return w.wrong("second destination")
	}
	l.dst, l.any = true, anyWord(w.word)
	if err := w.parsePrefix(w.word, &l.route.Prefix); err != nil {
		return w.notAPrefix(err)
	}
	return nil
}

// notAPrefix makes a better error of the one for a word that was meant as a
// keyword.
func (w *words) notAPrefix(err error) error {
	if refused := w.unknown(refusedRouteWords); refused.Error() != w.wrong("unknown word").Error() {
		return refused
	}
	return err
}

// nexthop reads one `nexthop via A dev D weight W onlink`.
func (l *routeLine) nexthop(w *words) error {
	var h NextHop
	for {
		read, known := hopWordsTable[w.peek()]
		if !known {
			break
		}
		w.take()
		if err := read(w, &h); err != nil {
			return err
		}
	}
	if h == (NextHop{}) {
		return w.wrong("needs via or dev")
	}
	if len(l.route.NextHops) == maxNextHops {
		return &ParseError{Word: "nexthop", Reason: "too many next hops"}
	}
	l.route.NextHops = append(l.route.NextHops, h)
	return nil
}

var hopWordsTable = map[string]keyword[NextHop]{
	"via":      (*words).via,
	"dev":      func(w *words, h *NextHop) error { return w.device(&h.Dev) },
	"weight":   (*words).weight,
	"onlink":   func(_ *words, h *NextHop) error { h.Onlink = true; return nil },
	"dead":     func(*words, *NextHop) error { return nil },
	"linkdown": func(*words, *NextHop) error { return nil },
}

// via reads the gateway, which is of the line's family unless it says its own.
func (w *words) via(h *NextHop) error {
	if !w.skip("inet") && !w.skip("inet6") {
		return w.address(&h.Via)
	}
	v6 := w.word == "inet6"
	other := &words{names: w.names, list: w.list, word: w.word}
	other.setFamily(v6)
	err := other.address(&h.Via)
	w.list, w.word = other.list, other.word
	return err
}

func (w *words) weight(h *NextHop) error {
	n, err := w.number(16)
	if err == nil && (n == 0 || n > maxWeight) {
		err = w.wrong("want a weight of 1 to 256")
	}
	h.Weight = uint16(n)
	return err
}

// scope reads a scope's word or the kernel's number for it.
func (w *words) scope(to *Scope) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	if s, ok := scopeNumbersTable[arg]; ok {
		*to = s
		return nil
	}
	if err := to.UnmarshalText([]byte(arg)); err != nil || *to == ScopeNone {
		return w.wrong("unknown scope")
	}
	return nil
}

var scopeNumbersTable = map[string]Scope{
	"0": ScopeGlobal, "universe": ScopeGlobal, "200": ScopeSite, "253": ScopeLink, "254": ScopeHost, "255": ScopeNowhere,
}

func (w *words) mtu(r *Route) error {
	r.MTULock = w.skip("lock")
	return w.uint32(&r.MTU)
}

// medium accepts the only router preference (RFC 4191) that there is.
func (w *words) medium() error {
	if w.skip("medium") {
		return nil
	}
	w.take()
	return w.wrong("no preference but medium is supported")
}

// filterWordsTable are the keywords of `ip route show`.
var filterWordsTable = map[string]keyword[Filter]{
	"table":    (*words).filterTable,
	"vrf":      (*words).filterTable,
	"proto":    func(w *words, f *Filter) error { return w.text(&f.Proto) },
	"protocol": func(w *words, f *Filter) error { return w.text(&f.Proto) },
	"scope":    func(w *words, f *Filter) error { return w.scope(&f.Scope) },
	"type":     func(w *words, f *Filter) error { return w.text(&f.Type) },
	"metric":   func(w *words, f *Filter) error { return w.uint32(&f.Metric) },
	"dev":      func(w *words, f *Filter) error { return w.device(&f.Dev) },
	"via":      func(w *words, f *Filter) error { return w.address(&f.Via) },
	"src":      func(w *words, f *Filter) error { return w.address(&f.Src) },
	"root":     func(w *words, f *Filter) error { return w.prefix(&f.Root) },
	"match":    func(w *words, f *Filter) error { return w.prefix(&f.Match) },
	"exact":    func(w *words, f *Filter) error { return w.prefix(&f.Exact) },
}

func (w *words) filter(f *Filter) error {
	f.Table = TableMain
	err := each(w, f, filterWordsTable, func(w *words, f *Filter) error {
		if f.Exact.IsValid() {
			return w.unknown(refusedRouteWords)
		}
		if err := w.parsePrefix(w.word, &f.Exact); err != nil {
			return w.notAPrefix(err)
		}
		return nil
	})
	if err == nil && len(f.Families) == 0 && w.fixed {
		f.Families = []Family{w.family}
	}
	f.mask()
	return err
}

// mask cuts what is beside the prefixes.
func (f *Filter) mask() {
	for _, p := range []*netip.Prefix{&f.Root, &f.Match, &f.Exact} {
		if p.IsValid() {
			*p = p.Masked()
		}
	}
}

// filterTable reads a table, or all of them.
func (w *words) filterTable(f *Filter) error {
	if w.skip("all") {
		f.Table = 0
		return nil
	}
	return w.table(&f.Table)
}
