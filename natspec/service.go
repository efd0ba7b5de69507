// SPDX-License-Identifier: Apache-2.0

package natspec

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice/nat"
	"sluice/packet"
	"sluice/routing"
)

// Bounds of services.
const (
	MaxListeners = 64
	MaxReal      = 1024
	MaxAffinity  = 24 * 3600 // seconds
)

// Service is a place that connections come to, and the backends that they are
// spread over. Its text is "web tcp 10.96.0.10:80 persistent 300 real 10.50.0.2:8080
// weight 2 real 10.50.0.3:8080 state draining", with ipvsadm(8)'s words.
type Service struct {
	Name   string
	Listen []Listener
	// Persistent is for how many seconds a client comes to the same backend; nil:
	// nothing was said, 0: each connection by itself.
	Persistent *uint32
	Real       []Real
}

// Listener is one place: "tcp 10.96.0.10:80".
type Listener struct {
	Proto uint8
	At    netip.AddrPort
}

// Real is a backend, a "real server": "10.50.0.2:8080 weight 2 state draining".
type Real struct {
	Addr   netip.Addr
	Port   uint16 // 0: the port stays
	Weight uint16 // 0: nothing was said
	State  string // "ready", "draining" or "gone"; empty: nothing was said
}

// ParseService reads the whole text.
func ParseService(text string) (s Service, err error) {
	if len(text) > MaxStatement {
		return s, &routing.ParseError{Reason: "too long"}
	}
	w := &words{list: strings.Fields(text)}
	if s.Name = w.take(); !isName(s.Name) {
		return s, w.wrong("want the name of a service, of letters, digits and - . _")
	}
	for w.more() && err == nil {
		switch w.next() {
		case "persistent":
			w.take()
			err = s.persistent(w)
		case "real":
			w.take()
			err = s.real(w)
		default:
			err = s.listener(w)
		}
	}
	return s, err
}

func isName(word string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
	return word != "" && len(word) <= 63 && strings.Trim(word, letters) == "" && word != "persistent" && word != "real"
}

func (s *Service) persistent(w *words) error {
	n, err := strconv.ParseUint(strings.TrimSuffix(w.take(), "s"), 10, 32)
	switch {
	case w.word == "off":
		n = 0
	case err != nil || n > MaxAffinity:
		return w.wrong("want seconds, at most " + strconv.Itoa(MaxAffinity) + ", or off")
	}
	seconds := uint32(n)
	s.Persistent = &seconds
	return nil
}

func (s *Service) listener(w *words) error {
	l, err := listener(w)
	if err != nil {
		return err
	}
	if slices.Contains(s.Listen, l) {
		return w.wrong("said twice")
	}
	if s.Listen = append(s.Listen, l); len(s.Listen) > MaxListeners {
		return w.wrong("a service has at most " + strconv.Itoa(MaxListeners) + " places")
	}
	return nil
}

func (s *Service) real(w *words) error {
	r, err := backend(w)
	if err != nil {
		return err
	}
	for i := range s.Real {
		if s.Real[i].Same(&r) {
			return &routing.ParseError{Word: r.Place(), Reason: "said twice"}
		}
	}
	if s.Real = append(s.Real, r); len(s.Real) > MaxReal {
		return w.wrong("a service has at most " + strconv.Itoa(MaxReal) + " backends")
	}
	return nil
}

// ParseListener reads "tcp 10.96.0.10:80" or "udp [fd96::10]:53".
func ParseListener(text string) (Listener, error) {
	w := &words{list: strings.Fields(text)}
	l, err := listener(w)
	if err == nil && w.take() != "" {
		err = w.wrong("nothing may follow here")
	}
	return l, err
}

func listener(w *words) (l Listener, err error) {
	proto, ok := protocol(w.take())
	if !ok || proto != packet.ProtoTCP && proto != packet.ProtoUDP && proto != packet.ProtoSCTP {
		return l, w.wrong("want tcp, udp or sctp, persistent or real")
	}
	l.Proto = proto
	if l.At, ok = place(w.take()); !ok || l.At.Port() == 0 {
		return l, w.wrong("want an address and a port, as 10.96.0.10:80 or [fd96::10]:80")
	}
	return l, nil
}

// place reads an address, IPv6 in brackets, and maybe a port.
func place(word string) (netip.AddrPort, bool) {
	addrs, ports, ok := splitPorts(word)
	a, okAddr := address(unbracket(addrs))
	if !ok || !okAddr || a.IsUnspecified() || a.IsMulticast() || a.Is6() && ports != "" && word[0] != '[' {
		return netip.AddrPort{}, false
	}
	if ports == "" {
		return netip.AddrPortFrom(a, 0), true
	}
	r, ok := portRange(ports)
	return netip.AddrPortFrom(a, r.Min), ok && r.Min == r.Max
}

// ParseReal reads "10.50.0.2:8080 weight 2 state draining".
func ParseReal(text string) (Real, error) {
	w := &words{list: strings.Fields(text)}
	r, err := backend(w)
	if err == nil && w.take() != "" {
		err = w.wrong("want weight or state, or nothing")
	}
	return r, err
}

func backend(w *words) (r Real, err error) {
	at, ok := place(w.take())
	if !ok {
		return r, w.wrong("want the address of a backend, and maybe its port, as 10.50.0.2:8080 or [fd50::2]:8080")
	}
	r.Addr, r.Port = at.Addr(), at.Port()
	for {
		switch {
		case w.accept("weight"):
			n, err := strconv.ParseUint(w.take(), 10, 16)
			if err != nil || n == 0 {
				return r, w.wrong("want a weight from 1 to 65535; who shall have no new connections is in state draining")
			}
			r.Weight = uint16(n)
		case w.accept("state"):
			switch r.State = w.take(); r.State {
			case "ready", "draining", "gone":
			default:
				return r, w.wrong("want ready, draining or gone")
			}
		default:
			return r, nil
		}
	}
}

// Same reports whether two are one backend.
func (r *Real) Same(o *Real) bool { return r.Addr == o.Addr && r.Port == o.Port }

// Place is the address, and the port if there is one.
func (r *Real) Place() string {
	switch {
	case r.Port != 0:
		return netip.AddrPortFrom(r.Addr, r.Port).String()
	case r.Addr.Is6():
		return "[" + r.Addr.String() + "]"
	}
	return r.Addr.String()
}

// Complete says what was not said.
func (r *Real) Complete() {
	r.Weight, r.State = cmp.Or(r.Weight, 1), cmp.Or(r.State, "ready")
}

// String is the text, without what a backend is anyway.
func (r Real) String() string {
	text := r.Place()
	if r.Weight > 1 {
		text += fmt.Sprintf(" weight %d", r.Weight)
	}
	if r.State != "" && r.State != "ready" {
		text += " state " + r.State
	}
	return text
}

// MarshalText is the text.
func (r Real) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the text.
func (r *Real) UnmarshalText(text []byte) (err error) {
	if *r, err = ParseReal(string(text)); err == nil {
		r.Complete()
	}
	return err
}

// String is the text.
func (l Listener) String() string { return ProtocolName(l.Proto) + " " + l.At.String() }

// MarshalText is the text.
func (l Listener) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the text.
func (l *Listener) UnmarshalText(text []byte) (err error) {
	*l, err = ParseListener(string(text))
	return err
}

// String is the text of the service.
func (s Service) String() string {
	parts := []string{s.Name}
	for _, l := range s.Listen {
		parts = append(parts, l.String())
	}
	if s.Persistent != nil && *s.Persistent > 0 {
		parts = append(parts, fmt.Sprintf("persistent %d", *s.Persistent))
	}
	for _, r := range s.Real {
		parts = append(parts, "real "+r.String())
	}
	return strings.Join(parts, " ")
}

// ServiceMap leads from the places of services to their numbers in a NAT: one look-up,
// however many there are.
type ServiceMap map[nat.MapKey]nat.Target

// Add enters a place.
func (m ServiceMap) Add(l Listener, id uint16) {
	m[nat.MapKey{Addr: l.At.Addr(), Port: l.At.Port(), Proto: l.Proto}] = nat.Target{Service: id}
}

// Rules are those that lead to the services, for what comes from elsewhere and what
// the namespace's own stack sends.
func (m ServiceMap) Rules() (out []nat.Rule) {
	for _, hook := range []nat.Hook{nat.Prerouting, nat.Output} {
		out = append(out, nat.Rule{
			Name: "service: " + strconv.Itoa(len(m)) + " places", Hook: hook, Kind: nat.DNAT,
			Map: &nat.Map{By: nat.ByDstAddr | nat.ByDstPort | nat.ByProto, Elements: m},
		})
	}
	return out
}
