// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sluice/conntrack"
)

// Rules are checked rules, by hook, in their order: the first that matches
// decides. They are immutable, for any number of readers.
type Rules struct {
	hooks [numHooks][]Rule
}

// Compile checks rules. The error names the first that is wrong.
func Compile(rules []Rule) (*Rules, error) {
	c := &Rules{}
	for i := range rules {
		r := rules[i]
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("rule %d %q: %w", i, r.Name, err)
		}
		c.hooks[r.Hook] = append(c.hooks[r.Hook], r)
	}
	return c, nil
}

func (r *Rule) check() error {
	if r.Hook >= numHooks || r.Kind >= numKinds {
		return errors.New("no such hook or kind")
	}
	return errors.Join(r.checkHook(), r.checkTarget(), r.checkPrefix(), r.Match.check())
}

// checkHook: a source is translated after routing, a destination before.
func (r *Rule) checkHook() error {
	wrong := false
	switch r.Kind {
	case SNAT:
		wrong = !r.Hook.source()
	case Masquerade:
		wrong = r.Hook != Postrouting
	case DNAT, Redirect:
		wrong = r.Hook.source()
	case NAT64:
		wrong = r.Hook != Prerouting
	case Accept, Netmap, numKinds:
	}
	if wrong {
		return fmt.Errorf("%v in %v", r.Kind, r.Hook)
	}
	if r.Shift && (r.Kind != DNAT || len(r.Match.DstPorts) != 1 || !r.Target.Ports.given()) {
		return errors.New("shifted ports want a range to shift, and one to shift to")
	}
	return nil
}

func (r *Rule) checkTarget() error {
	if r.Map != nil {
		return r.checkMap()
	}
	if err := r.Target.check(); err != nil {
		return err
	}
	if r.Target.Service != 0 && r.Kind != DNAT {
		return errors.New("a service is a destination")
	}
	if r.Kind == Redirect || r.Kind == Masquerade {
		if r.Target.Addrs.given() {
			return fmt.Errorf("%v takes no address", r.Kind)
		}
	}
	needs := r.Kind == SNAT || r.Kind == DNAT || r.Kind == NAT64 && r.Device == 0
	if needs && r.Target == (Target{}) {
		return fmt.Errorf("%v to nothing", r.Kind)
	}
	return nil
}

func (r *Rule) checkMap() error {
	if r.Kind != DNAT && r.Kind != SNAT {
		return fmt.Errorf("%v takes no map", r.Kind)
	}
	const addrs, ports = BySrcAddr | ByDstAddr, BySrcPort | ByDstPort
	if by := r.Map.By; by == 0 || by&addrs == addrs || by&ports == ports {
		return errors.New("key of the map has no field, or two of a kind")
	}
	for k, t := range r.Map.Elements {
		if err := t.check(); err != nil {
			return fmt.Errorf("element %v: %w", k, err)
		}
		if t == (Target{}) || t.Service != 0 && r.Kind != DNAT {
			return fmt.Errorf("element %v leads nowhere", k)
		}
	}
	return nil
}

func (t *Target) check() error {
	a := t.Addrs
	if a.Min.Is4() != a.Max.Is4() || a.Min.IsValid() != a.Max.IsValid() || a.Max.Less(a.Min) {
		return errors.New("no range of addresses")
	}
	if a.Min.Zone() != "" || a.Max.Zone() != "" || a.Min.Is4In6() || a.Max.Is4In6() {
		return errors.New("address has a zone, or is IPv4 in IPv6")
	}
	if t.Ports.Max < t.Ports.Min || t.Ports.given() && t.Ports.Min == 0 {
		return errors.New("no range of ports")
	}
	return nil
}

func (r *Rule) checkPrefix() error {
	switch r.Kind {
	case Netmap:
		if !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked() {
			return errors.New("no prefix")
		}
	case NAT64:
		if !r.Prefix.IsValid() || !validPrefix64(r.Prefix) {
			return errors.New("the prefix of RFC 6052 has 32, 40, 48, 56, 64 or 96 bits")
		}
		if r.Device != 0 && r.Target != (Target{}) {
			return errors.New("the source is a device's, or what it is translated to")
		}
		if r.Device == 0 && !r.Target.Addrs.Min.Is4() {
			return errors.New("the source becomes IPv4")
		}
	case Accept, SNAT, DNAT, Masquerade, Redirect, numKinds:
		if r.Prefix.IsValid() {
			return fmt.Errorf("%v takes no prefix", r.Kind)
		}
	}
	return nil
}

func (m *Match) check() error {
	for _, p := range slices.Concat(m.SrcPorts, m.DstPorts) {
		if p.Max < p.Min {
			return errors.New("no range of ports")
		}
	}
	for _, p := range slices.Concat(m.Src, m.Dst) {
		if !p.IsValid() {
			return errors.New("no prefix")
		}
	}
	if m.Mark&^m.MarkMask != 0 {
		return errors.New("mark outside its mask")
	}
	return nil
}

// first is the rule that decides about a connection, and what it says; nil: none.
func (c *Rules) first(hook Hook, f *Flow, t *conntrack.Tuple) (*Rule, Target) {
	for i := range c.hooks[hook] {
		r := &c.hooks[hook][i]
		if !r.Match.matches(f, t) {
			continue
		}
		if to, ok := r.target(f, t); ok {
			return r, to
		}
	}
	return nil, Target{}
}

// target is what the rule makes of a packet that it matches; false if it has
// nothing for it: no element, or an address of the other family.
func (r *Rule) target(f *Flow, t *conntrack.Tuple) (Target, bool) {
	to := r.Target
	if r.Map != nil {
		var ok bool
		if to, ok = r.Map.Elements[r.Map.key(t)]; !ok {
			return to, false
		}
	}
	switch r.Kind {
	case Masquerade:
		to.Addrs = One(f.OutAddr)
		return to, true
	case Redirect:
		to.Addrs = One(f.InAddr)
		return to, true
	case Netmap:
		a := t.Dst
		if r.Hook.source() {
			a = t.Src
		}
		if a.Is4() != r.Prefix.Addr().Is4() {
			return to, false
		}
		to.Addrs = One(sameHost(r.Prefix, a))
		return to, true
	case NAT64:
		return to, t.Src.Is6() && r.Prefix.Contains(t.Dst)
	case Accept, SNAT, DNAT, numKinds:
	}
	return to, !to.Addrs.given() || to.Addrs.Min.Is4() == t.Src.Is4()
}

// sameHost is the address in p that has the host bits of a.
func sameHost(p netip.Prefix, a netip.Addr) netip.Addr {
	net, host := p.Addr().As16(), a.As16()
	bits := p.Bits()
	if a.Is4() {
		bits += 96
	}
	for i := range net {
		mask := byte(0xff)
		if keep := bits - 8*i; keep >= 8 {
			mask = 0
		} else if keep > 0 {
			mask = 0xff >> keep
		}
		net[i] = net[i]&^mask | host[i]&mask
	}
	if a.Is4() {
		return netip.AddrFrom16(net).Unmap()
	}
	return netip.AddrFrom16(net)
}

// publishes reports whether some rule takes what comes for this end from outside,
// so that no connection may begin there.
func (c *Rules) publishes(proto uint8, end netip.AddrPort) bool {
	for i := range c.hooks[Prerouting] {
		r := &c.hooks[Prerouting][i]
		m := &r.Match
		if r.Kind == Accept || r.Kind == NAT64 || len(m.Protos) > 0 && !slices.Contains(m.Protos, proto) {
			continue
		}
		t := conntrack.Tuple{Dst: end.Addr(), DstPort: end.Port(), Proto: proto}
		if r.Map != nil {
			if _, ok := r.Map.Elements[r.Map.key(&t)]; ok {
				return true
			}
			continue
		}
		if len(m.DstPorts) > 0 && ports(m.DstPorts, end.Port()) && prefixes(m.Dst, m.NotDst, end.Addr()) {
			return true
		}
	}
	return false
}

// translating is the rule that would translate the source of a packet that didn't
// come from outside, if it left by the rule's device; nil if there is none, so that
// the source is one from outside.
func (c *Rules) translating(f *Flow, t *conntrack.Tuple) *Rule {
	for i := range c.hooks[Postrouting] {
		r := &c.hooks[Postrouting][i]
		m := &r.Match
		if r.Kind != SNAT && r.Kind != Masquerade || len(m.Out) > 0 && slices.Contains(m.Out, f.In) != m.NotOut {
			continue
		}
		g := *f
		if g.Out = 0; len(m.Out) > 0 && !m.NotOut {
			g.Out = m.Out[0]
		}
		source := Match{In: m.In, NotIn: m.NotIn, Out: m.Out, NotOut: m.NotOut, Src: m.Src, NotSrc: m.NotSrc, Protos: m.Protos}
		if source.matches(&g, t) {
			return r
		}
	}
	return nil
}
