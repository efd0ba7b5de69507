// SPDX-License-Identifier: Apache-2.0

package iproute

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice/bridge"
	"sluice/bridge/guard"
	"sluice/bridge/snoop"
	"sluice/routing"
)

// Settings are what was said of a port or a device: words of ip(8), bridge(8) and
// our own with their values, in one spelling. A word that is not there is not said.
type Settings map[string]string

// Default is the value of a change that takes back what was said.
const Default = "default"

// With returns the settings after a change.
func (s Settings) With(change Settings) Settings {
	n := maps.Clone(s)
	if n == nil {
		n = Settings{}
	}
	for word, value := range change {
		if value == Default {
			delete(n, word)
			continue
		}
		n[word] = value
	}
	if len(n) == 0 {
		return nil
	}
	return n
}

// Words are the settings as they were said, sorted.
func (s Settings) Words() []string {
	var out []string
	for _, word := range slices.Sorted(maps.Keys(s)) {
		out = append(out, word, s[word])
	}
	return out
}

// Kind is what settings are of.
type Kind uint8

// The kinds.
const (
	OfPort   Kind = iota // a container's port
	OfDevice             // a network or a link, as a device of routing
)

// respell checks a value and returns its one spelling; "" if it is none.
type respell func(value string, names *routing.Names) string

// Check adds a word with its value, in its one spelling.
func (s Settings) Check(k Kind, word, value string, names *routing.Names) error {
	words := spellings(k)
	if word == "mcast_fast_leave" {
		word = "fastleave"
	}
	f, known := words[word]
	if !known {
		return &routing.ParseError{Word: word, Reason: "unknown word"}
	}
	if value != Default {
		text := f(value, names)
		if text == "" {
			return &routing.ParseError{Word: value, Reason: "no value of " + word + wants(word)}
		}
		value = text
	}
	s[word] = value
	return nil
}

// IsWord reports whether settings of a kind have a word.
func IsWord(k Kind, word string) bool {
	_, known := spellings(k)[word]
	return known || k == OfPort && word == "mcast_fast_leave"
}

func spellings(k Kind) map[string]respell {
	if k == OfDevice {
		return map[string]respell{
			"forwarding": onOff, "redirects": onOff, "rp_filter": reversePath, "clamp_mss": clampMSS,
		}
	}
	out := map[string]respell{
		"guard": guards, "guard_allow": prefixes, "mcast_router": router, "clamp_mss": clampMSS,
		"storm_broadcast": rate, "storm_multicast": rate, "storm_unknown": rate,
		"mirror_in": portOrOff, "mirror_out": portOrOff, "table": tableOrOff,
	}
	for word := range flags() {
		out[word] = onOff
	}
	return out
}

// wants says what a word's values are.
func wants(word string) string {
	switch word {
	case "guard":
		return ": want on, off or a list of " + strings.Join(guardNames(), ",")
	case "rp_filter":
		return ": want off, strict or loose"
	case "clamp_mss":
		return ": want off, pmtu or 88 to 65495"
	case "mcast_router":
		return ": want 0 (never), 1 (if one is heard) or 2 (always)"
	case "storm_broadcast", "storm_multicast", "storm_unknown":
		return ": want off, or frames in a second, as 100 or 100/50 with a burst"
	case "mirror_in", "mirror_out":
		return ": want a port or off"
	case "table":
		return ": want a table or off"
	case "guard_allow":
		return ": want prefixes, as 10.9.0.0/16,fd09::/64, or off"
	}
	return ": want on or off"
}

func onOff(v string, _ *routing.Names) string {
	switch v {
	case "on", "true", "1":
		return "on"
	case "off", "false", "0":
		return "off"
	}
	return ""
}

func reversePath(v string, _ *routing.Names) string {
	for i, mode := range []string{"off", "strict", "loose"} { // the numbers are those of net.ipv4.conf.*.rp_filter
		if v == mode || v == strconv.Itoa(i) {
			return mode
		}
	}
	return ""
}

// The least MSS is TCP_MIN_MSS of Linux.
const minMSS, maxMSS = 88, 65495

func clampMSS(v string, _ *routing.Names) string {
	if v == "off" || v == "pmtu" {
		return v
	}
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n < minMSS || n > maxMSS {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func router(v string, _ *routing.Names) string {
	for i, mode := range []string{"never", "auto", "always"} {
		if v == mode || v == strconv.Itoa(i) {
			return strconv.Itoa(i)
		}
	}
	return ""
}

// maxRate bounds what a storm limit can be, which is more than any port's speed.
const maxRate = 1 << 30

func rate(v string, _ *routing.Names) string {
	if v == "off" {
		return v
	}
	r, ok := parseRate(v)
	if !ok {
		return ""
	}
	text := strconv.Itoa(int(r.PPS))
	if r.Burst != 0 {
		text += "/" + strconv.Itoa(int(r.Burst))
	}
	return text
}

func parseRate(v string) (bridge.Rate, bool) {
	pps, burst, both := strings.Cut(v, "/")
	if !both {
		burst = "0"
	}
	p, errP := strconv.ParseUint(pps, 10, 32)
	b, errB := strconv.ParseUint(burst, 10, 32)
	ok := errP == nil && errB == nil && p > 0 && p <= maxRate && b <= maxRate && (!both || b > 0)
	return bridge.Rate{PPS: uint32(p), Burst: uint32(b)}, ok
}

func portOrOff(v string, _ *routing.Names) string {
	if !IsPortName(v) {
		return ""
	}
	return v
}

func tableOrOff(v string, names *routing.Names) string {
	if v == "off" {
		return v
	}
	id, ok := names.Table(v)
	if !ok || id == routing.TableLocal {
		return ""
	}
	return strconv.FormatUint(uint64(id), 10)
}

// maxAllowed bounds what a port may send from beside its own addresses.
const maxAllowed = 64

func prefixes(v string, _ *routing.Names) string {
	if v == "off" {
		return v
	}
	all, ok := parsePrefixes(v)
	if !ok {
		return ""
	}
	var out []string
	for _, p := range all {
		out = append(out, p.String())
	}
	return strings.Join(out, ",")
}

func parsePrefixes(v string) (out []netip.Prefix, ok bool) {
	for part := range strings.SplitSeq(v, ",") {
		var p netip.Prefix
		if err := newWords([]string{"", part}).afterFirst().prefix(&p); err != nil {
			return nil, false
		}
		out = append(out, p.Masked())
	}
	return out, len(out) <= maxAllowed
}

// afterFirst takes a word and returns what is left, to chain.
func (w *words) afterFirst() *words {
	w.take()
	return w
}

// flag is a switch of a port.
type flag struct {
	bit      bridge.PortFlags
	inverted bool // the bit is set if the switch is off
	on       bool // unless said otherwise
}

func flags() map[string]flag {
	return map[string]flag{
		"isolated":       {bit: bridge.Isolated},
		"hairpin":        {bit: bridge.Hairpin},
		"learning":       {bit: bridge.NoLearning, inverted: true, on: true},
		"locked":         {bit: bridge.Locked},
		"flood":          {bit: bridge.NoUnicastFlood, inverted: true, on: true},
		"mcast_flood":    {bit: bridge.NoMulticastFlood, inverted: true, on: true},
		"bcast_flood":    {bit: bridge.NoBroadcastFlood, inverted: true, on: true},
		"fastleave":      {bit: bridge.FastLeave},
		"neigh_suppress": {bit: bridge.Suppress},
		"bpdu_filter":    {bit: bridge.FilterBPDU, on: true},
	}
}

// Is reports whether a switch is on, said or by default.
func (s Settings) Is(word string) bool {
	if v, said := s[word]; said {
		return v == "on"
	}
	return flags()[word].on
}

// Flags are the switches of a port.
func (s Settings) Flags() bridge.PortFlags {
	var out bridge.PortFlags
	for word, f := range flags() {
		if s.Is(word) != f.inverted {
			out |= f.bit
		}
	}
	return out
}

// guardNames are the guards in the order of their bits.
func guardNames() []string { return []string{"mac", "ip", "arp", "nd", "ra", "dhcp", "dhcp6", "query"} }

func guards(v string, _ *routing.Names) string {
	switch v {
	case "on", "true", "all":
		return "on"
	case "off", "false", "none":
		return "off"
	}
	var c guard.Checks
	for name := range strings.SplitSeq(v, ",") {
		i := slices.Index(guardNames(), name)
		if i < 0 {
			return ""
		}
		c |= 1 << i
	}
	if c == guard.All {
		return "on"
	}
	return strings.Join(guardsOf(c), ",")
}

func guardsOf(c guard.Checks) []string {
	var out []string
	for i, name := range guardNames() {
		if c&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// Guard is what is checked of a port: everything, unless said otherwise.
func (s Settings) Guard() guard.Checks {
	switch v := s["guard"]; v {
	case "", "on":
		return guard.All
	case "off":
		return 0
	default:
		var c guard.Checks
		for name := range strings.SplitSeq(v, ",") {
			if i := slices.Index(guardNames(), name); i >= 0 {
				c |= 1 << i
			}
		}
		return c
	}
}

// GuardNames are the names of the guards of a port.
func (s Settings) GuardNames() []string { return guardsOf(s.Guard()) }

// Allowed is what a port may send from beside its own addresses.
func (s Settings) Allowed() []netip.Prefix {
	if v := s["guard_allow"]; v != "" && v != "off" {
		all, _ := parsePrefixes(v)
		return all
	}
	return nil
}

// Storm is the limits of what a port may have flooded.
func (s Settings) Storm() bridge.Storm {
	one := func(word string) bridge.Rate {
		r, ok := parseRate(s[word])
		if !ok {
			return bridge.Rate{}
		}
		return r
	}
	return bridge.Storm{Broadcast: one("storm_broadcast"), Multicast: one("storm_multicast"), Unknown: one("storm_unknown")}
}

// Router is mcast_router.
func (s Settings) Router() snoop.RouterMode {
	switch s["mcast_router"] {
	case "0":
		return snoop.RouterNever
	case "2":
		return snoop.RouterAlways
	}
	return snoop.RouterAuto
}

// MSS is clamp_mss as netstack has it: 0 off, 1 by the path's MTU, else bytes.
func (s Settings) MSS() uint16 {
	switch v := s["clamp_mss"]; v {
	case "", "off":
		return 0
	case "pmtu":
		return 1
	default:
		n, _ := strconv.ParseUint(v, 10, 16)
		return uint16(n)
	}
}

// Mirror is the port that gets copies, by mirror_in or mirror_out; "" for none.
func (s Settings) Mirror(word string) string {
	if v := s[word]; v != "off" {
		return v
	}
	return ""
}

// Table is the table that the port's packets are looked up in; 0: none of its own.
func (s Settings) Table() routing.TableID {
	n, _ := strconv.ParseUint(s["table"], 10, 32)
	return routing.TableID(n)
}
