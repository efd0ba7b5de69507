// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"sluice/packet"
)

// The options of a router advertisement.
const (
	optSourceLink = 1  // RFC 4861 §4.6.1
	optPrefix     = 3  // RFC 4861 §4.6.2
	optMTU        = 5  // RFC 4861 §4.6.4
	optRoute      = 24 // RFC 4191 §2.3
	optRDNSS      = 25 // RFC 8106 §5.1
	optDNSSL      = 31 // RFC 8106 §5.2
)

// Flags of a router advertisement and of a prefix information option.
const (
	flagManaged    = 0x80
	flagOther      = 0x40
	flagOnLink     = 0x80
	flagAutonomous = 0x40
)

const (
	advertLen     = 16
	lifetimeAt    = 6 // in a router advertisement
	prefixLen     = 32
	maxDNS        = 8
	minInterval   = 3 // MinRtrAdvInterval, RFC 4861 §6.2.1
	leastMax      = 4 // MaxRtrAdvInterval, RFC 4861 §6.2.1
	autonomousLen = 64
)

// advert is a compiled Advert: messages from the ICMPv6 type on, with a checksum
// of zero, which finishIP6 fills in.
type advert struct {
	link     link
	min, max uint32 // seconds
	head     []byte // header, source link-layer address and MTU
	options  []option
	message  []byte
	final    []byte // router lifetime zero, nothing is good any more
}

// option is one option of neighbour discovery.
type option []byte

func in(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }

func (a *Advert) compile(l *link) (*advert, error) {
	c := &advert{link: *l, max: uint32(cmp.Or(a.MaxInterval, DefaultMaxInterval))}
	c.min = uint32(a.MinInterval)
	if c.min == 0 {
		c.min = max(minInterval, c.max/3)
	}
	lifetime, err := a.times(c)
	if err != nil {
		return nil, err
	}
	if c.head, err = a.header(l, lifetime); err != nil {
		return nil, err
	}
	for _, add := range []func(*link, uint32) ([]option, error){a.prefixes, a.routes, a.resolvers} {
		opts, err := add(l, uint32(lifetime))
		if err != nil {
			return nil, err
		}
		c.options = append(c.options, opts...)
	}
	c.compose()
	if packet.IPv6Len+len(c.message) > minMTU6 {
		return nil, fmt.Errorf("more options than fit into %d bytes", minMTU6)
	}
	return c, nil
}

// times checks the times and returns the lifetime of what has none of its own.
func (a *Advert) times(c *advert) (uint16, error) {
	switch {
	case c.max < leastMax:
		return 0, fmt.Errorf("maxInterval %d: less than %d", c.max, leastMax)
	case c.min < minInterval || c.min > max(minInterval, c.max*3/4):
		return 0, fmt.Errorf("minInterval %d: not within %d and three quarters of maxInterval", c.min, minInterval)
	case a.Lifetime != 0 && uint32(a.Lifetime) < c.max:
		return 0, fmt.Errorf("lifetime %d: less than maxInterval", a.Lifetime)
	}
	return cmp.Or(a.Lifetime, uint16(min(3*c.max, 0xffff))), nil
}

// header is the message up to the options that every router has.
func (a *Advert) header(l *link, lifetime uint16) ([]byte, error) {
	mtu := cmp.Or(a.MTU, uint32(l.mtu))
	switch {
	case mtu < minMTU6 || mtu > uint32(l.mtu):
		return nil, fmt.Errorf("mtu %d: not within %d and the network's, %d", mtu, minMTU6, l.mtu)
	case a.Preference < Low || a.Preference > High:
		return nil, fmt.Errorf("preference %d: unknown", a.Preference)
	}
	flags := a.Preference.bits()
	if a.NoDefault {
		lifetime, flags = 0, 0 // RFC 4191 §2.2
	}
	if a.Managed {
		flags |= flagManaged
	}
	if a.Other {
		flags |= flagOther
	}
	b := []byte{packet.NDRouterAdvert, 0, 0, 0, cmp.Or(a.HopLimit, DefaultHopLimit), flags}
	b = binary.BigEndian.AppendUint16(b, lifetime)
	b = binary.BigEndian.AppendUint32(b, a.ReachableMillis)
	b = binary.BigEndian.AppendUint32(b, a.RetransMillis)
	b = append(append(b, optSourceLink, 1), l.mac[:]...)
	b = append(b, optMTU, 1, 0, 0)
	return binary.BigEndian.AppendUint32(b, mtu), nil
}

// compose puts the messages together.
func (c *advert) compose() {
	c.message = bytes.Clone(c.head)
	c.final = bytes.Clone(c.head)
	for _, o := range c.options {
		c.message = append(c.message, o...)
		if o[0] != optPrefix { // a subnet goes on without its router
			c.final = append(c.final, o.withdrawn()...)
		}
	}
	c.final[lifetimeAt-1] &^= High.bits() | Low.bits() // RFC 4191 §2.2
	c.final[lifetimeAt], c.final[lifetimeAt+1] = 0, 0
}

// withdrawn is the option with lifetimes of zero.
func (o option) withdrawn() option {
	w := option(bytes.Clone(o))
	clear(w[4:8])
	if o[0] == optPrefix {
		clear(w[8:12])
	}
	return w
}

// without is the message with what old had and c hasn't, withdrawn, as far as it
// fits; before what there is, so that a host that meets an old form of an option
// and then the new one keeps the new.
func (c *advert) without(old *advert) []byte {
	have := map[string]bool{}
	for _, o := range c.options {
		have[string(o.withdrawn())] = true
	}
	b := bytes.Clone(c.head)
	room := minMTU6 - packet.IPv6Len - len(c.message)
	for _, o := range old.options {
		if gone := o.withdrawn(); !have[string(gone)] && len(gone) <= room {
			room -= len(gone)
			b = append(b, gone...)
		}
	}
	return append(b, c.message[len(c.head):]...)
}

func (a *Advert) prefixes(l *link, _ uint32) ([]option, error) {
	list := a.Prefixes
	if list == nil {
		for _, p := range l.addrs {
			if is6(p.Addr()) && !p.Addr().IsLinkLocalUnicast() {
				list = append(list, Prefix{Prefix: p.Masked()})
			}
		}
	}
	var opts []option
	for _, p := range list {
		o, err := p.option()
		if err != nil {
			return nil, fmt.Errorf("prefix %v: %w", p.Prefix, err)
		}
		opts = append(opts, o)
	}
	return opts, nil
}

func (p *Prefix) option() (option, error) {
	valid := cmp.Or(p.Valid, DefaultValid)
	preferred := cmp.Or(p.Preferred, min(DefaultPreferred, valid))
	if p.Deprecated {
		preferred = 0
	}
	switch a := p.Prefix.Addr(); {
	case !p.Prefix.IsValid() || !is6(a) || a.IsMulticast() || a.IsLinkLocalUnicast():
		return nil, errors.New("not an IPv6 prefix of hosts")
	case p.Autonomous && p.Prefix.Bits() != autonomousLen:
		return nil, errors.New("autonomous, but not of 64 bits")
	case preferred > valid: // RFC 4861 §4.6.2
		return nil, fmt.Errorf("preferred for %d s, valid for %d", preferred, valid)
	}
	flags := uint8(flagOnLink)
	if p.OffLink {
		flags = 0
	}
	if p.Autonomous {
		flags |= flagAutonomous
	}
	o := option{optPrefix, prefixLen / 8, byte(p.Prefix.Bits()), flags}
	o = binary.BigEndian.AppendUint32(o, valid)
	o = binary.BigEndian.AppendUint32(o, preferred)
	o = append(o, 0, 0, 0, 0)
	return append(o, p.Prefix.Masked().Addr().AsSlice()...), nil
}

func (a *Advert) routes(_ *link, lifetime uint32) ([]option, error) {
	var opts []option
	for _, r := range a.Routes {
		if !r.Dst.IsValid() || !is6(r.Dst.Addr()) {
			return nil, fmt.Errorf("route %v: not an IPv6 prefix", r.Dst)
		}
		if r.Preference < Low || r.Preference > High {
			return nil, fmt.Errorf("route %v: preference %d: unknown", r.Dst, r.Preference)
		}
		bits := r.Dst.Bits()
		octets := (bits + 63) / 64 * 8 // RFC 4191 §2.3: as many as the prefix needs
		o := option{optRoute, byte(1 + octets/8), byte(bits), r.Preference.bits()}
		o = binary.BigEndian.AppendUint32(o, cmp.Or(r.Lifetime, lifetime))
		opts = append(opts, append(o, r.Dst.Masked().Addr().AsSlice()[:octets]...))
	}
	return opts, nil
}

func (a *Advert) resolvers(_ *link, _ uint32) ([]option, error) {
	// RFC 8106 §5.1: three times MaxRtrAdvInterval, whatever the router's lifetime.
	lifetime := cmp.Or(a.DNSLifetime, 3*uint32(cmp.Or(a.MaxInterval, DefaultMaxInterval)))
	names, err := search(a.Search)
	if err != nil {
		return nil, err
	}
	servers, err := servers6("dns", a.DNS)
	if err != nil {
		return nil, err
	}
	var opts []option
	if len(servers) > 0 {
		o := option{optRDNSS, byte(1 + len(servers)/8), 0, 0}
		opts = append(opts, append(binary.BigEndian.AppendUint32(o, lifetime), servers...))
	}
	if len(names) > 0 {
		names = append(names, make([]byte, -len(names)&7)...)
		o := option{optDNSSL, byte(1 + len(names)/8), 0, 0}
		opts = append(opts, append(binary.BigEndian.AppendUint32(o, lifetime), names...))
	}
	return opts, nil
}

// servers6 is a list of addresses, one after the other.
func servers6(what string, list []netip.Addr) ([]byte, error) {
	var b []byte
	for _, a := range list {
		if !is6(a) || a.IsMulticast() || a.IsUnspecified() || a.Zone() != "" {
			return nil, fmt.Errorf("%s: %v is no IPv6 address of a server", what, a)
		}
		b = append(b, a.AsSlice()...)
	}
	if len(list) > maxDNS {
		return nil, fmt.Errorf("%s: more than %d", what, maxDNS)
	}
	return b, nil
}
