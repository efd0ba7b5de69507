// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"sluice/conntrack"
	"sluice/packet"
	"sluice/routing"
)

// Request is a command of conntrack(8).
type Request struct {
	// Command is its letter: L, D, E, S, C or F.
	Command byte
	Filter  conntrack.Filter
	Flags   conntrack.ListFlags
	// Kinds are those of events that are asked for, by conntrack.EventKind.
	Kinds [3]bool

	// Stamped says that events are to have the time in front of them.
	Stamped bool

	icmpType, icmpCode bool // which of the two the filter has
}

// option is one of conntrack(8)'s.
type option struct {
	names []string // the short one is a letter
	// argument says that one follows; maybe that one may.
	argument, maybe bool
	set             func(r *Request, arg string) (ok bool)
	want            string // what the argument is
}

// ParseConntrack reads the words behind conntrack(8)'s name.
func ParseConntrack(list []string) (*Request, error) {
	r := &Request{Kinds: [3]bool{true, true, true}}
	w := &words{list: splitOptions(list)}
	for w.more() {
		if err := r.option(w); err != nil {
			return nil, err
		}
	}
	if r.Command == 0 {
		return nil, &routing.ParseError{Reason: "need one of -L, -D, -E, -S, -C and -F"}
	}
	if p := r.Filter.Proto; r.icmpType && p != packet.ProtoICMP && p != packet.ProtoICMPv6 {
		return nil, &routing.ParseError{Reason: "--icmp-type needs -p icmp or -p icmpv6"}
	}
	if r.icmpCode && !r.icmpType {
		return nil, &routing.ParseError{Reason: "--icmp-code needs --icmp-type"}
	}
	return r, nil
}

// splitOptions writes "--sport=80" and "-ptcp" as two words.
func splitOptions(list []string) (out []string) {
	for _, word := range list {
		name, value, given := strings.Cut(word, "=")
		switch {
		case given && strings.HasPrefix(word, "--"):
			out = append(out, name, value)
		case len(word) > 2 && word[0] == '-' && word[1] != '-':
			out = append(out, word[:2], word[2:])
		default:
			out = append(out, word)
		}
	}
	return out
}

func (r *Request) option(w *words) error {
	word := w.take()
	if letter, is := commandLetter(word); is {
		return r.command(w, letter)
	}
	for _, o := range options() {
		for _, name := range o.names {
			if word == dashes(name)+name {
				return r.apply(w, &o)
			}
		}
	}
	return w.wrong("no option that is known here")
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-"
	}
	return "--"
}

func commandLetter(word string) (byte, bool) {
	long := map[string]byte{
		"--dump": 'L', "--delete": 'D', "--event": 'E', "--stats": 'S', "--count": 'C', "--flush": 'F',
		"-L": 'L', "-D": 'D', "-E": 'E', "-S": 'S', "-C": 'C', "-F": 'F',
	}
	letter, is := long[word]
	return letter, is
}

// command notes the command, and takes the name of the table.
func (r *Request) command(w *words, letter byte) error {
	if r.Command != 0 {
		return w.wrong("one command only")
	}
	r.Command = letter
	if next := w.next(); next == "" || next[0] == '-' {
		return nil
	}
	if w.take() != "conntrack" {
		return w.wrong("the only table here is conntrack")
	}
	return nil
}

func (r *Request) apply(w *words, o *option) error {
	name, arg := w.word, ""
	switch {
	case o.argument && !w.more():
		return w.wrong("needs an argument: " + o.want)
	case o.argument, o.maybe && w.more() && w.next()[0] != '-':
		arg = w.take()
	}
	if !o.set(r, arg) {
		if w.word == name {
			return w.wrong(o.want)
		}
		return w.wrong("want " + o.want)
	}
	return nil
}

const (
	wantAddress = "an address or a prefix"
	wantPort    = "a port"
)

// options are in the order of conntrack(8).
func options() []option {
	return append(tupleOptions(), []option{
		{names: []string{"p", "proto"}, argument: true, set: (*Request).proto, want: "a protocol, as tcp or 17"},
		{names: []string{"f", "family"}, argument: true, set: (*Request).family, want: "ipv4 or ipv6"},
		{names: []string{"u", "status"}, argument: true, set: (*Request).status, want: "ASSURED, SEEN_REPLY, FIXED_TIMEOUT, EXPECTED or UNSET"},
		{names: []string{"n", "src-nat"}, maybe: true, set: (*Request).srcNAT, want: wantAddress},
		{names: []string{"g", "dst-nat"}, maybe: true, set: (*Request).dstNAT, want: wantAddress},
		{names: []string{"j", "any-nat"}, set: func(r *Request, _ string) bool { r.Filter.AnyNAT = true; return true }},
		{names: []string{"m", "mark"}, argument: true, set: (*Request).mark, want: "a mark, or MARK/MASK"},
		{names: []string{"l", "label"}, argument: true, set: (*Request).label, want: "bits, as 0x1"},
		{names: []string{"w", "zone"}, argument: true, set: (*Request).zone, want: "the number of a zone"},
		{names: []string{"i", "id"}, argument: true, set: (*Request).id, want: "an identifier, as -o id shows it"},
		{names: []string{"state"}, argument: true, set: (*Request).state, want: "a state of TCP or SCTP, as ESTABLISHED"},
		{names: []string{"e", "event-mask"}, argument: true, set: (*Request).events, want: "NEW, UPDATES, DESTROY or ALL"},
		{names: []string{"o", "output"}, argument: true, set: (*Request).output, want: "extended, id, timestamp, ktimestamp, labels, json or text"},
		{names: []string{"b", "buffer-size"}, argument: true, set: func(*Request, string) bool { return true }},
		{names: []string{"z", "zero"}, set: func(*Request, string) bool { return false }, want: "counters can't be set to zero"},
	}...)
}

func tupleOptions() []option {
	addr := func(field func(*conntrack.Filter) *netip.Prefix, names ...string) option {
		return option{names: names, argument: true, want: wantAddress, set: func(r *Request, arg string) (ok bool) {
			*field(&r.Filter), ok = prefix(arg)
			return ok
		}}
	}
	port := func(field func(*conntrack.Filter) *uint16, names ...string) option {
		return option{names: names, argument: true, want: wantPort, set: func(r *Request, arg string) bool {
			p, ok := portRange(arg)
			*field(&r.Filter) = p.Min
			return ok && p.Min == p.Max
		}}
	}
	type f = conntrack.Filter
	return []option{
		addr(func(f *f) *netip.Prefix { return &f.Original.Src }, "s", "src", "orig-src"),
		addr(func(f *f) *netip.Prefix { return &f.Original.Dst }, "d", "dst", "orig-dst"),
		addr(func(f *f) *netip.Prefix { return &f.Reply.Src }, "r", "reply-src"),
		addr(func(f *f) *netip.Prefix { return &f.Reply.Dst }, "q", "reply-dst"),
		port(func(f *f) *uint16 { return &f.Original.SrcPort }, "sport", "orig-port-src"),
		port(func(f *f) *uint16 { return &f.Original.DstPort }, "dport", "orig-port-dst"),
		port(func(f *f) *uint16 { return &f.Reply.SrcPort }, "reply-port-src"),
		port(func(f *f) *uint16 { return &f.Reply.DstPort }, "reply-port-dst"),
		{names: []string{"icmp-type", "icmpv6-type"}, argument: true, want: "a type", set: (*Request).setICMPType},
		{names: []string{"icmp-code", "icmpv6-code"}, argument: true, want: "a code", set: (*Request).setICMPCode},
		{names: []string{"icmp-id", "icmpv6-id"}, argument: true, want: "an identifier", set: (*Request).setICMPID},
	}
}

func (r *Request) setICMPType(arg string) bool {
	n, err := strconv.ParseUint(arg, 10, 8)
	r.icmpType = true
	r.Filter.Original.DstPort |= uint16(n) << 8
	r.Filter.Original.DstBits |= 0xff00
	return err == nil
}

func (r *Request) setICMPCode(arg string) bool {
	n, err := strconv.ParseUint(arg, 10, 8)
	r.icmpCode = true
	r.Filter.Original.DstPort |= uint16(n)
	r.Filter.Original.DstBits |= 0xff
	return err == nil
}

func (r *Request) setICMPID(arg string) bool {
	n, err := strconv.ParseUint(arg, 10, 16)
	r.Filter.Original.SrcPort, r.Filter.Original.SrcBits = uint16(n), 1<<16-1
	return err == nil
}

func (r *Request) proto(arg string) (ok bool) {
	r.Filter.Proto, ok = conntrack.ParseProto(strings.ToLower(arg))
	return ok && r.Filter.Proto != 0
}

func (r *Request) family(arg string) bool {
	switch arg {
	case "ipv4", "inet":
		r.Filter.Family = 4
	case "ipv6", "inet6":
		r.Filter.Family = 6
	}
	return r.Filter.Family != 0
}

func (r *Request) status(arg string) bool {
	for word := range strings.SplitSeq(arg, ",") {
		switch word {
		case "ASSURED":
			r.Filter.With |= conntrack.Assured
		case "SEEN_REPLY":
			r.Filter.With |= conntrack.SeenReply
		case "FIXED_TIMEOUT":
			r.Filter.With |= conntrack.FixedTimeout
		case "EXPECTED":
			r.Filter.With |= conntrack.Expected
		case "UNSET":
			r.Filter.Without |= conntrack.SeenReply | conntrack.Assured
		default:
			return false
		}
	}
	return true
}

func (r *Request) srcNAT(arg string) (ok bool) {
	r.Filter.With |= conntrack.SrcNAT
	if arg == "" {
		return true
	}
	r.Filter.Reply.Dst, ok = prefix(arg)
	return ok
}

func (r *Request) dstNAT(arg string) (ok bool) {
	r.Filter.With |= conntrack.DstNAT
	if arg == "" {
		return true
	}
	r.Filter.Reply.Src, ok = prefix(arg)
	return ok
}

func (r *Request) mark(arg string) bool {
	value, mask, masked := strings.Cut(arg, "/")
	m := uint64(1<<32 - 1)
	v, err := strconv.ParseUint(value, 0, 32)
	if masked && err == nil {
		m, err = strconv.ParseUint(mask, 0, 32)
	}
	r.Filter.Mark, r.Filter.MarkMask = uint32(v), uint32(m)
	return err == nil
}

func (r *Request) label(arg string) bool {
	digits, _ := strings.CutPrefix(arg, "0x")
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 || len(b) > len(r.Filter.Label) {
		return false
	}
	copy(r.Filter.Label[len(r.Filter.Label)-len(b):], b)
	return true
}

func (r *Request) zone(arg string) bool {
	n, err := strconv.ParseUint(arg, 0, 16)
	r.Filter.HasZone, r.Filter.Zone = true, uint16(n)
	return err == nil
}

func (r *Request) id(arg string) bool {
	n, err := strconv.ParseUint(arg, 0, 32)
	r.Filter.ID = uint32(n)
	return err == nil && n != 0
}

func (r *Request) state(arg string) bool {
	r.Filter.State = strings.ToUpper(arg)
	return strings.Trim(r.Filter.State, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == "" && arg != ""
}

func (r *Request) events(arg string) bool {
	r.Kinds = [3]bool{}
	for word := range strings.SplitSeq(arg, ",") {
		switch word {
		case "ALL":
			r.Kinds = [3]bool{true, true, true}
		case "NEW":
			r.Kinds[conntrack.EventNew] = true
		case "UPDATES", "UPDATE":
			r.Kinds[conntrack.EventUpdate] = true
		case "DESTROY":
			r.Kinds[conntrack.EventDestroy] = true
		default:
			return false
		}
	}
	return true
}

func (r *Request) output(arg string) bool {
	for word := range strings.SplitSeq(arg, ",") {
		switch word {
		case "extended":
			r.Flags |= conntrack.ListExtended
		case "id":
			r.Flags |= conntrack.ListID
		case "labels":
			r.Flags |= conntrack.ListLabels
		case "timestamp", "ktimestamp":
			r.Flags |= conntrack.ListTimestamp
			r.Stamped = r.Stamped || word == "timestamp"
		case "json", "text": // whoever prints it knows
		default:
			return false
		}
	}
	return true
}

// Filters reports whether the request chooses some connections of all.
func (r *Request) Filters() bool { return r.Filter != conntrack.Filter{} }
