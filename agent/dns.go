// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/api"
	"sluice/autoconf"
	"sluice/config"
	"sluice/dataplane"
	"sluice/dns"
	"sluice/routing"
)

// resolvConf is where the host's resolvers are, see resolv.conf(5).
const resolvConf = "/etc/resolv.conf"

// answersDNS reports whether a network's gateways answer for names: if it says so, or
// says nothing in a namespace that does.
func (s *state) answersDNS(n *networkRecord) bool {
	if n.DNS != nil {
		return *n.DNS
	}
	return n.Uplink == nil && s.namespace(n.space()).DNS != nil
}

// dnsOf is what was said of a namespace's DNS; nil if none of its networks has it.
func (s *state) dnsOf(name string) *config.DNS {
	if !slices.ContainsFunc(s.in(name), s.answersDNS) {
		return nil
	}
	if d := s.namespace(name).DNS; d != nil {
		return d
	}
	return new(config.DNS)
}

// dnsSpec is what the dataplane is told of it.
func (s *state) dnsSpec(name string) *dns.Config {
	d := s.dnsOf(name)
	if d == nil {
		return nil
	}
	c := &dns.Config{Domain: d.Domain, Prefix64: d.Prefix64, CacheEntries: d.CacheEntries, CacheBytes: d.CacheBytes}
	if n := s.namespace(name).Connections.NAT64; n != nil && !d.Prefix64.IsValid() && !d.NoDNS64 {
		c.Prefix64 = n.Prefix
	}
	for _, a := range d.Upstreams {
		c.Upstreams = append(c.Upstreams, dns.Upstream{Addr: a, Host: d.Via != config.ViaNamespace})
	}
	if len(d.Upstreams) == 0 && d.Via != config.ViaNone {
		if d.Via != config.ViaHost {
			c.Upstreams = s.nicResolvers(name)
		}
		if len(c.Upstreams) == 0 {
			c.Upstreams = dns.OfHost()
		}
	}
	return c
}

// nicResolvers are those of a namespace's uplinks of type nic, stated and learned, which
// are asked from the namespace: they are on its way out.
func (s *state) nicResolvers(name string) (out []dns.Upstream) {
	for _, n := range s.in(name) {
		if n.Uplink == nil || n.Uplink.NIC == nil {
			continue
		}
		for _, a := range n.Uplink.NIC.nameservers() {
			if len(out) < dns.MaxUpstreams {
				out = append(out, dns.Upstream{Addr: netip.AddrPortFrom(a, 53)})
			}
		}
	}
	return out
}

// search are the domains in which the names of a network's containers are looked for.
func (s *state) search(n *networkRecord) []string {
	domain := s.dnsOf(n.space()).Domain
	if domain == "" {
		domain = dns.DefaultDomain
	}
	return []string{n.Name + "." + domain, domain}
}

// services are a network's, which tell of its DNS unless they were told what to tell.
func (s *state) services(n *networkRecord) autoconf.Config {
	c := n.Services
	if !s.answersDNS(n) {
		return c
	}
	servers := func(six bool, said []netip.Addr) []netip.Addr {
		if len(said) > 0 {
			return said
		}
		return slices.DeleteFunc(slices.Clone(n.Gateways), func(a netip.Addr) bool { return a.Is6() != six })
	}
	search := func(said []string) []string {
		if len(said) > 0 {
			return said
		}
		return s.search(n)
	}
	if c.Advert != nil {
		advert := *c.Advert
		advert.DNS, advert.Search = servers(true, advert.DNS), search(advert.Search)
		c.Advert = &advert
	}
	if c.DHCP4 != nil {
		dhcp := *c.DHCP4
		dhcp.DNS, dhcp.Search = servers(false, dhcp.DNS), search(dhcp.Search)
		if dhcp.Domain == "" {
			dhcp.Domain = dhcp.Search[0]
		}
		c.DHCP4 = &dhcp
	}
	if c.DHCP6 != nil {
		dhcp := *c.DHCP6
		dhcp.DNS, dhcp.Search = servers(true, dhcp.DNS), search(dhcp.Search)
		c.DHCP6 = &dhcp
	}
	return c
}

// decideAliases takes the other names of a container.
func decideAliases(r *api.AttachRequest, rec *attachmentRecord) error {
	if n := len(r.Aliases); n > api.MaxAliases {
		return refuse(api.CodeInvalid, "aliases", "%d aliases; at most %d are supported", n, api.MaxAliases)
	}
	for _, name := range r.Aliases {
		if err := dns.CheckName(name); err != nil {
			return refuse(api.CodeInvalid, "aliases", "%s", err)
		}
		if !slices.Contains(rec.Aliases, name) {
			rec.Aliases = append(rec.Aliases, name)
		}
	}
	return nil
}

// aliases are the names of a container beside its own, also those that a runtime gave
// it, as far as they are names.
func (a *attachmentRecord) aliases() []string {
	if a.CNI == nil || len(a.CNI.Aliases) == 0 {
		return a.Aliases
	}
	all := append(slices.Clone(a.Aliases), a.CNI.Aliases...)
	all = slices.DeleteFunc(all, func(name string) bool { return dns.CheckName(name) != nil })
	return all[:min(len(all), api.MaxAliases)]
}

// hostResolvers are the host's, as its file says now. The zero value is ready.
type hostResolvers struct {
	mu sync.Mutex
	// +checklocks:mu
	looked time.Time
	// +checklocks:mu
	list []netip.AddrPort
}

// lookEvery is how often the file may be read.
const lookEvery = time.Second

// at is the resolver at a place of the file.
func (h *hostResolvers) at(file string, place int) (netip.AddrPort, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.Sub(h.looked) >= lookEvery {
		list, err := readResolvConf(file)
		if err != nil {
			return netip.AddrPort{}, err
		}
		h.looked, h.list = now, list
	}
	if place >= len(h.list) {
		return netip.AddrPort{}, dns.ErrAbsent
	}
	return h.list[place], nil
}

// readResolvConf reads the name servers of a resolv.conf(5); without one it is that of
// the host itself.
func readResolvConf(file string) (out []netip.AddrPort, err error) {
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("resolvers of the host: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil && len(out) < dns.MaxUpstreams {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	if len(out) == 0 {
		out = append(out, netip.MustParseAddrPort("127.0.0.1:53"))
	}
	return out, lines.Err()
}

// relay asks resolvers for a dataplane, until it is gone.
func (a *Agent) relay(c *dataplane.Client) {
	if err := c.Relay(context.Background(), a.resolver); err != nil {
		a.log.Warn("DNS of the host is not relayed to the dataplane", "pid", c.PID(), "err", err)
	}
}

// resolver is where a query goes that the dataplane wants to be asked: to what it was
// told, and nowhere else.
func (a *Agent) resolver(u dns.Upstream) (netip.AddrPort, error) {
	if !u.Addr.IsValid() {
		return a.resolvers.at(a.opts.ResolvConf, int(u.Place))
	}
	if !a.plane.mayAsk(u) {
		return netip.AddrPort{}, fmt.Errorf("%s is no upstream", u.Addr)
	}
	return u.Addr, nil
}

// mayAsk reports whether an upstream is one that the dataplane was told.
func (p *plane) mayAsk(u dns.Upstream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.want == nil {
		return false
	}
	for i := range p.want.Namespaces {
		if d := p.want.Namespaces[i].DNS; d != nil && slices.ContainsFunc(d.Upstreams, func(o dns.Upstream) bool { return o.Host && o.Addr == u.Addr }) {
			return true
		}
	}
	return false
}

// dnsNames are those of namespaces, with their addresses.
func (a *Agent) dnsNames(q query) ([]api.DNSName, error) {
	st, spaces, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.DNSName{}
	for _, space := range spaces {
		spec := st.namespaceSpec(space, "")
		if spec.DNS == nil {
			continue
		}
		for _, n := range dns.NewNames(spec.DNS, 1, spec.DNSNetworks()).All() {
			out = append(out, api.DNSName{Namespace: space, Name: n.Name, Addresses: n.Addrs, Line: n.Name + " " + words(n.Addrs)})
		}
	}
	return out, nil
}

// dnsStats are what the DNS of namespaces did.
func (a *Agent) dnsStats(ctx context.Context, q query) ([]api.DNSStats, error) {
	st, spaces, err := a.spacesOf(q)
	if err != nil {
		return nil, err
	}
	out := []api.DNSStats{}
	for _, space := range spaces {
		d := st.dnsSpec(space)
		if d == nil {
			continue
		}
		s, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (dns.Stats, error) { return c.DNS(ctx, space) })
		if err != nil {
			return nil, err
		}
		out = append(out, a.publicDNS(space, d, &s))
	}
	return out, nil
}

// publicDNS believes of the dataplane's answer the numbers.
func (a *Agent) publicDNS(space string, d *dns.Config, s *dns.Stats) api.DNSStats {
	out := api.DNSStats{
		Namespace: space, Domain: d.Domain, Queries: s.Queries, Limited: s.Limited, Malformed: s.Malformed, Refused: s.Refused,
		Local: s.Local, Hits: s.Hits, Forwarded: s.Forwarded, Failed: s.Failed, Truncated: s.Truncated, Sent: s.Sent, OverTCP: s.OverTCP,
		Mismatched: s.Mismatched, Waiting: s.Waiting, CacheEntries: s.CacheEntries, CacheMaxEntries: s.CacheMaxEntries,
		CacheBytes: s.CacheBytes, CacheMaxBytes: s.CacheMaxBytes, CacheEvicted: s.CacheEvicted, Upstreams: []api.DNSUpstream{},
	}
	if out.Domain == "" {
		out.Domain = dns.DefaultDomain
	}
	if d.Prefix64.IsValid() {
		out.DNS64 = d.Prefix64.String()
	}
	down := make(map[dns.Upstream]bool)
	for _, u := range s.Upstreams {
		down[u.Upstream] = u.Down
	}
	for _, u := range d.Upstreams {
		pub := api.DNSUpstream{Via: config.ViaNamespace, Down: down[u]}
		if u.Host {
			pub.Via = config.ViaHost
		}
		to, err := u.Addr, error(nil)
		if !to.IsValid() {
			to, err = a.resolvers.at(a.opts.ResolvConf, int(u.Place))
		}
		if err == nil {
			pub.Address = to.String()
			out.Upstreams = append(out.Upstreams, pub)
		}
	}
	return out
}

// dns is `dns flush [ NAME ]`.
func (e *editor) dns(words []string) error {
	switch {
	case len(words) == 0 || words[0] != "flush":
		return &routing.ParseError{Word: strings.Join(words, " "), Reason: "want flush"}
	case len(words) > 2:
		return &routing.ParseError{Word: words[2], Reason: "want one name"}
	case e.st.dnsOf(e.space) == nil:
		return errNoDNS
	}
	e.flushed = append(e.flushed, strings.Join(words[1:], ""))
	return nil
}

var errNoDNS = fmt.Errorf("the namespace has no DNS: %w", errNotSupported)

// flushDNS forgets what was cached of names.
func (a *Agent) flushDNS(ctx context.Context, space string, names []string) error {
	for _, name := range names {
		n, err := asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (int, error) { return c.FlushDNS(ctx, space, name) })
		if err != nil {
			return err
		}
		a.log.Info("DNS answers forgotten", "namespace", space, "name", name, "count", n)
	}
	return nil
}
