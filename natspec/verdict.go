// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"net/netip"
	"strings"

	"sluice/nat"
)

// verdict reads what is done, if the next word says that.
func (s *Statement) verdict(w *words) (done bool, err error) {
	r := &s.rule
	switch w.next() {
	case "accept":
		w.take()
		return true, nil
	case "masquerade":
		r.Kind = nat.Masquerade
	case "redirect":
		r.Kind = nat.Redirect
	case "snat":
		r.Kind = nat.SNAT
	case "dnat":
		r.Kind = nat.DNAT
	default:
		return false, nil
	}
	w.take()
	if r.Kind == nat.SNAT || r.Kind == nat.DNAT {
		err = s.translated(w, r)
	} else if w.accept("to") {
		err = portTarget(w, r)
	}
	if err != nil {
		return true, err
	}
	return true, flags(w, r)
}

// portTarget reads ":80" or ":1024-65535".
func portTarget(w *words, r *nat.Rule) error {
	text, colon := strings.CutPrefix(w.take(), ":")
	ports, ok := portRange(text)
	if !colon || !ok {
		return w.wrong("want ports, as :80 or :1024-65535")
	}
	r.Target.Ports = ports
	return nil
}

// translated reads what follows snat or dnat.
func (s *Statement) translated(w *words, r *nat.Rule) error {
	said := w.next()
	if said == "ip" || said == "ip6" {
		w.take()
	}
	network := w.accept("prefix")
	if err := w.expect("to"); err != nil {
		return err
	}
	if network {
		p, ok := prefix(w.take())
		if !ok {
			return w.wrong("want a prefix, as 10.9.0.0/24")
		}
		r.Kind, r.Prefix = nat.Netmap, p
		return nil
	}
	if isSelector(w.next()) {
		return s.mapped(w)
	}
	if err := target(w, r); err != nil {
		return err
	}
	if v4 := r.Target.Addrs.Min.Is4(); said == "ip" && !v4 || said == "ip6" && v4 {
		return w.wrong("want an address of the family that was said before")
	}
	return nil
}

// target reads an address or a range of them, and ports: "192.0.2.1-192.0.2.4:1024-65535",
// "[fd00::1]:80", "fd00::1-fd00::9" or ":80".
func target(w *words, r *nat.Rule) error {
	text := w.take()
	if strings.HasPrefix(text, ":") && !strings.HasPrefix(text, "::") {
		w.list = append([]string{text}, w.list...)
		return portTarget(w, r)
	}
	addrs, ports, ok := splitPorts(text)
	if !ok {
		return w.wrong("want an address, as 192.0.2.1 or [fd00::1], or a range of them, and maybe ports behind a colon")
	}
	if r.Target.Addrs, ok = addrRange(addrs); !ok {
		return w.wrong("want an address, as 192.0.2.1 or [fd00::1], or a range of them of one family")
	}
	if ports == "" {
		return nil
	}
	if r.Target.Ports, ok = portRange(ports); !ok {
		return w.wrong("want ports behind the colon, as 80 or 8000-8010")
	}
	return nil
}

// splitPorts cuts the ports off. IPv6 addresses have them only behind a bracket.
func splitPorts(text string) (addrs, ports string, ok bool) {
	if i := strings.LastIndexByte(text, ']'); i >= 0 {
		addrs, ports = text[:i+1], text[i+1:]
		if ports == "" {
			return addrs, "", true
		}
		ports, ok = strings.CutPrefix(ports, ":")
		return addrs, ports, ok && ports != ""
	}
	if strings.Count(text, ":") > 1 {
		return text, "", true
	}
	addrs, ports, colon := strings.Cut(text, ":")
	return addrs, ports, !colon || ports != ""
}

func addrRange(text string) (r nat.AddrRange, ok bool) {
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		last = first
	}
	var okMin, okMax bool
	r.Min, okMin = address(unbracket(first))
	r.Max, okMax = address(unbracket(last))
	return r, okMin && okMax && r.Min.Is4() == r.Max.Is4() && !r.Max.Less(r.Min)
}

func unbracket(text string) string {
	inner, open := strings.CutPrefix(text, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if open != closed {
		return ""
	}
	return inner
}

func flags(w *words, r *nat.Rule) error {
	for w.more() {
		switch w.take() {
		case ",":
		case "random", "fully-random":
			r.Random = true
		case "persistent":
			r.Persistent = true
		default:
			return w.wrong("want random, fully-random or persistent, or nothing")
		}
	}
	return nil
}

// verdictWords is what verdict reads.
func (s *Statement) verdictWords(r *nat.Rule) (out []string) {
	if r.Kind == nat.Netmap {
		word := "dnat"
		if r.Hook == nat.Postrouting || r.Hook == nat.Input {
			word = "snat"
		}
		return flagWords([]string{word, "prefix to", r.Prefix.String()}, r)
	}
	out = []string{r.Kind.String()}
	if s.uses.given() {
		return flagWords(append(out, "to", s.uses.words(r.Map)), r)
	}
	if r.Target != (nat.Target{}) {
		out = append(out, "to", targetText(&r.Target))
	}
	return flagWords(out, r)
}

func flagWords(out []string, r *nat.Rule) []string {
	var flags []string
	if r.Random {
		flags = append(flags, "random")
	}
	if r.Persistent {
		flags = append(flags, "persistent")
	}
	if len(flags) == 0 {
		return out
	}
	return append(out, strings.Join(flags, ","))
}

func targetText(t *nat.Target) string {
	text := ""
	bracket := func(a netip.Addr) string {
		if a.Is6() {
			return "[" + a.String() + "]"
		}
		return a.String()
	}
	if a := t.Addrs; a.Min.IsValid() {
		if text = bracket(a.Min); a.Min != a.Max {
			text += "-" + bracket(a.Max)
		}
	}
	if t.Ports != (nat.PortRange{}) {
		text += ":" + portsText(t.Ports)
	}
	return text
}
