// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	wire "github.com/miekg/dns"
)

// DefaultDomain is that of names which have none of their own: "internal" is nobody's
// in public, and never will be (ICANN resolution 2024.07.29.06).
const DefaultDomain = "sluice.internal"

// Bounds of the answers that are kept, if nothing is said, and of what may be said.
const (
	DefaultCacheEntries = 4096
	DefaultCacheBytes   = 4 << 20
	MaxCacheEntries     = 1 << 20
	MaxCacheBytes       = 256 << 20
	// MaxUpstreams is more than any resolv.conf has (MAXNS is 3).
	MaxUpstreams = 8
)

// Config is how a namespace's names are answered. It is inert and travels as JSON.
// The zero value answers the namespace's own names and nothing else.
type Config struct {
	// Domain is what the names of containers end in, in lower case and without a dot at
	// the end. Empty: DefaultDomain.
	Domain string `json:"domain,omitempty"`
	// Upstreams are asked in this order; one that does not answer comes last for a while.
	Upstreams []Upstream `json:"upstreams,omitempty"`
	// Prefix64 is what DNS64 makes IPv6 addresses with: a prefix of a length that RFC
	// 6052 knows. Not valid: there is no DNS64.
	Prefix64 netip.Prefix `json:"prefix64,omitzero"`
	// CacheEntries and CacheBytes bound the cache; 0: the default, less: no cache.
	CacheEntries int `json:"cacheEntries,omitempty"`
	CacheBytes   int `json:"cacheBytes,omitempty"`
}

// Upstream is a resolver that is asked what is not known here.
type Upstream struct {
	// Addr is not valid for one that the host has itself, at Place in its list.
	Addr  netip.AddrPort `json:"addr,omitzero"`
	Place uint8          `json:"place,omitempty"`
	// Host says that it is asked from the host, and not from the namespace.
	Host bool `json:"host,omitempty"`
}

// ErrAbsent is a Transport's error for a place in the host's list where there is none.
var ErrAbsent = errors.New("the host has no such resolver")

// OfHost are those that the host has in its resolv.conf(5), whichever they are.
func OfHost() []Upstream {
	return []Upstream{{Host: true}, {Host: true, Place: 1}, {Host: true, Place: 2}}
}

// String is the address, or how it is found.
func (u Upstream) String() string {
	switch {
	case !u.Addr.IsValid():
		return "nameserver " + strconv.Itoa(int(u.Place)+1) + " of the host"
	case u.Host:
		return u.Addr.String() + " from the host"
	}
	return u.Addr.String()
}

// domain is Domain as the names have it: in lower case and with its last dot.
func (c *Config) domain() string {
	if c.Domain == "" {
		return DefaultDomain + "."
	}
	return wire.CanonicalName(c.Domain)
}

// Clone copies what the caller may change later; nil stays nil.
func (c *Config) Clone() *Config {
	if c == nil {
		return nil
	}
	out := *c
	out.Upstreams = slices.Clone(c.Upstreams)
	return &out
}

// Validate reports the first thing that is wrong.
func (c *Config) Validate() error {
	if err := CheckDomain(c.domain()); err != nil {
		return err
	}
	if n := len(c.Upstreams); n > MaxUpstreams {
		return fmt.Errorf("%d upstreams; at most %d are asked", n, MaxUpstreams)
	}
	for _, u := range c.Upstreams {
		if !u.Addr.IsValid() && u.Host && u.Place < MaxUpstreams {
			continue
		}
		if err := CheckUpstream(u.Addr); err != nil {
			return err
		}
	}
	if c.CacheEntries > MaxCacheEntries || c.CacheBytes > MaxCacheBytes {
		return fmt.Errorf("cache of %d entries and %d bytes; at most %d and %d", c.CacheEntries, c.CacheBytes, MaxCacheEntries, MaxCacheBytes)
	}
	if c.Prefix64.IsValid() {
		return CheckPrefix64(c.Prefix64)
	}
	return nil
}

// CheckDomain wants a domain in which hosts have names (RFC 1123 §2.1).
func CheckDomain(domain string) error {
	d := strings.TrimSuffix(domain, ".")
	if d == "" || len(d) > 200 {
		return fmt.Errorf("domain %q: want 1 to 200 characters, as %s", domain, DefaultDomain)
	}
	for label := range strings.SplitSeq(d, ".") {
		if !isLabel(label) {
			return fmt.Errorf("domain %q: %q is no label of 1 to 63 letters, digits and -, as those of %s", domain, label, DefaultDomain)
		}
	}
	return nil
}

// isLabel reports whether a text is a label of a host's name, or of a name with _, as
// services have it (RFC 2782).
func isLabel(s string) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, odd) && s[0] != '-' && s[len(s)-1] != '-'
}

// CheckName wants a name that a container may be called by: labels as those of a
// domain.
func CheckName(name string) error {
	if len(name) > 128 {
		return fmt.Errorf("%q: longer than 128 characters", name)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return fmt.Errorf("%q: want labels of 1 to 63 letters, digits, - and _, with dots between them", name)
		}
	}
	return nil
}

// CheckUpstream wants an address that a resolver may have.
func CheckUpstream(a netip.AddrPort) error {
	switch {
	case !a.IsValid() || a.Port() == 0:
		return errors.New("upstream without address or port")
	case a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Addr().Is4In6():
		return fmt.Errorf("upstream %s: not the address of a resolver", a)
	}
	return nil
}
