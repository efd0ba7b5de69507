// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"time"

	"sluice/natspec"
)

// Bounds of what is said of connections. A first packet is held against the
// statements one after another.
const (
	MaxStatements = 4096
	MaxPublished  = 4096
	MaxQuota      = 1 << 24
	MaxLinger     = time.Hour
	MaxServices   = 1024
	MaxMaps       = 256
)

// Connections is how a namespace tracks connections, and what it translates.
type Connections struct {
	// Track is on if anything is translated or published; nil: nothing was said.
	Track *bool
	// Profile is "kernel" or "rfc"; empty: nothing was said, which is kernel.
	Profile string
	// Filtering and LingerSeconds are rfc's: who may come in by a mapping, and how long
	// a mapping without connections keeps its port.
	Filtering     string
	LingerSeconds uint32
	// QuotaPerPort is how many connections a container may have; 0: no limit.
	QuotaPerPort int
	// NAT are statements in their order, Published ports no two of which overlap.
	NAT       []natspec.Statement
	Published []natspec.Publish
	// NAT64 is nil if there is none. Services have names of their own, and no two have
	// a place in common; what was not said of them is completed. Maps are those that
	// statements name.
	NAT64    *natspec.NAT64
	Services []natspec.Service
	Maps     []natspec.Map
	// Bridged: what stays in one network is tracked, too.
	Bridged bool
}

// Translates reports whether anything of it needs connections.
func (c *Connections) Translates() bool {
	return len(c.NAT)+len(c.Published)+len(c.Services) > 0 || c.NAT64 != nil
}

type rawConntrack struct {
	Track        *bool   `yaml:"track"`
	Profile      *string `yaml:"profile"`
	Filtering    *string `yaml:"filtering"`
	Linger       *string `yaml:"linger"`
	QuotaPerPort *int    `yaml:"quotaPerPort"`
	Bridged      *bool   `yaml:"bridged"`
}

// connections checks what a namespace says of connections.
func (v *validator) connections(field string, r *rawNamespace, s *scope) Connections {
	c := v.conntrack(field+".conntrack", r.Conntrack)
	c.Maps = v.maps(field+".maps", r.Maps)
	c.NAT = v.nat(field+".nat", r.NAT, s)
	v.fits(field+".nat", c.NAT, c.Maps)
	c.Published = v.published(field+".publish", r.Publish)
	c.NAT64 = v.nat64(field+".nat64", r.NAT64, s)
	c.Services = v.balanced(field+".services", r.Services)
	if c.Track != nil && !*c.Track && c.Translates() {
		v.fault(field+".conntrack.track", "false, but nat, publish, services and nat64 need it: leave it out, or them")
	}
	return c
}

func (v *validator) conntrack(field string, r *rawConntrack) (c Connections) {
	if r == nil {
		return c
	}
	c.Track = r.Track
	if c.Bridged = r.Bridged != nil && *r.Bridged; c.Bridged && c.Track != nil && !*c.Track {
		v.fault(field+".bridged", "needs track")
	}
	c.Profile = v.oneOf(field+".profile", r.Profile, "kernel", "rfc")
	c.Filtering = v.oneOf(field+".filtering", r.Filtering, "address-and-port", "address", "endpoint")
	if c.LingerSeconds = uint32(v.linger(field+".linger", r.Linger) / time.Second); c.Profile != "rfc" {
		if r.Filtering != nil {
			v.fault(field+".filtering", "is of the profile rfc")
		}
		if r.Linger != nil {
			v.fault(field+".linger", "is of the profile rfc")
		}
	}
	if r.QuotaPerPort != nil {
		c.QuotaPerPort = v.between(field+".quotaPerPort", r.QuotaPerPort, 1, MaxQuota)
	}
	return c
}

func (v *validator) oneOf(field string, word *string, want ...string) string {
	if word == nil {
		return ""
	}
	if !slices.Contains(want, *word) {
		v.fault(field, "%q: want one of %q", *word, want)
	}
	return *word
}

func (v *validator) linger(field string, raw *string) time.Duration {
	if raw == nil {
		return 0
	}
	d, err := time.ParseDuration(*raw)
	if err != nil || d < 0 || d > MaxLinger || d%time.Second != 0 {
		v.fault(field, "%q: want whole seconds, as 120s, at most %s", *raw, MaxLinger)
	}
	return d
}

// nat reads nft's words.
func (v *validator) nat(field string, raw []string, s *scope) []natspec.Statement {
	if n := len(raw); n > MaxStatements {
		v.fault(field, "%d statements; at most %d are supported", n, MaxStatements)
		return nil
	}
	var out []natspec.Statement
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		st, err := natspec.Parse(text)
		if err != nil {
			v.fault(at, "%q: %s", text, err)
			break
		}
		for _, name := range st.Devices() {
			if !s.routes(name) {
				v.fault(at, "%q: no network or link %q in the namespace", text, name)
			}
		}
		out = append(out, *st)
	}
	return out
}

// routes reports whether a device of the namespace is one that packets come and
// leave by.
func (s *scope) routes(name string) bool {
	_, known := s.devices[name]
	_, isVRF := s.vrfs[name]
	return known && !isVRF
}

func (v *validator) published(field string, raw []string) []natspec.Publish {
	if n := len(raw); n > MaxPublished {
		v.fault(field, "%d published ports; at most %d are supported", n, MaxPublished)
		return nil
	}
	var out []natspec.Publish
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		p, err := natspec.ParsePublish(text)
		if err != nil {
			v.fault(at, "%q: %s", text, err)
			break
		}
		if j := slices.IndexFunc(out, p.Overlaps); j >= 0 {
			v.fault(at, "%q: %s is published for %s already, see publish[%d]", text, out[j].Outside(), out[j].To, j)
		}
		out = append(out, p)
	}
	return out
}
