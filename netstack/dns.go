// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/dns"
)

const (
	dnsPort = 53 // RFC 1035 §4.2
	// dnsIdle ends a connection that asks nothing, or does not read its answers (RFC
	// 7766 §6.2.3 leaves it to the server).
	dnsIdle = 10 * time.Second
	// dnsPatience is how long a query waits for an upstream: as long as a client does.
	dnsPatience = 5 * time.Second
	// dnsPipelined is how many queries of one connection may wait at a time.
	dnsPipelined = 16
)

// resolver is the DNS service of a namespace, on the gateways' addresses.
type resolver struct {
	net    *Netstack
	ns     *Namespace
	server *dns.Server
	asking atomic.Pointer[askers]

	// at has a service for each address; guarded by Netstack.mu.
	at map[netip.Addr]*dnsService
}

// askers are who may ask: who is in a network that has the service. Others, beyond an
// uplink or a link, are not answered: the names are not theirs to know, and a server
// that answers everybody is one to attack others by. Immutable.
type askers struct {
	subnets []netip.Prefix
	ports   map[netip.Addr]uint16
}

func (k *askers) client(a netip.Addr) (dns.Client, bool) {
	a = a.Unmap().WithZone("")
	if !slices.ContainsFunc(k.subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return dns.Client{}, false
	}
	return dns.Client{Port: k.ports[a], Addr: a}, true
}

func newResolver(n *Netstack, ns *Namespace) *resolver {
	r := &resolver{net: n, ns: ns, at: make(map[netip.Addr]*dnsService)}
	r.asking.Store(new(askers))
	r.server = dns.New(dns.Options{
		Transport: r, Report: r.report,
		Now: func() time.Duration { return n.since(n.start) },
	})
	return r
}

// report is the log's: one line when an upstream fails, one now and then, and one when
// it is back.
func (r *resolver) report(up dns.Upstream, err error) {
	if err == nil {
		r.net.opts.Log.Info("DNS upstream answers again", "namespace", r.ns.name, "upstream", up.String())
		return
	}
	r.net.opts.Log.Warn("DNS upstream does not answer", "namespace", r.ns.name, "upstream", up.String(), "err", err)
}

func (r *resolver) close() {
	r.server.Close()
	for _, s := range r.at {
		s.stop()
	}
}

// resolve brings the DNS service to its next state: services that are new are started
// now, all else follows when nothing can fail.
func (c *change) resolve(next, was *space) error {
	ns, wanted := next.ns, next.spec.resolvers()
	r := ns.dns.Load()
	if r == nil {
		if len(wanted) == 0 {
			return nil
		}
		r = newResolver(c.net, ns)
		c.undos = append(c.undos, r.close)
		c.retired = append(c.retired, func() { ns.dns.Store(r) })
	}
	for _, a := range wanted {
		if r.at[a] != nil {
			continue
		}
		s, err := r.serve(a)
		if err != nil {
			return err
		}
		r.at[a] = s
		c.undos = append(c.undos, func() {
			s.stop()
			delete(r.at, a)
		})
	}
	generation := c.next.generation
	c.retired = append(c.retired, func() {
		r.set(&next.spec, generation)
		for a, s := range r.at {
			if !slices.Contains(wanted, a) {
				s.stop()
				delete(r.at, a)
			}
		}
	})
	if was == nil {
		r.set(&next.spec, generation) // nobody has asked yet
	}
	return nil
}

// resolvers are the addresses that are to answer DNS.
func (s *NamespaceSpec) resolvers() (out []netip.Addr) {
	for i := range s.Networks {
		if n := &s.Networks[i]; n.DNS && s.DNS != nil {
			for _, p := range n.Addresses {
				out = append(out, p.Addr())
			}
		}
	}
	return out
}

// set takes the names, and who may ask for them, from a snapshot.
func (r *resolver) set(spec *NamespaceSpec, generation uint64) {
	if spec.DNS == nil {
		return
	}
	k := &askers{ports: make(map[netip.Addr]uint16)}
	for i := range spec.Networks {
		n := &spec.Networks[i]
		if !n.DNS {
			continue
		}
		for _, p := range n.Addresses {
			k.subnets = append(k.subnets, p.Masked())
		}
		for j := range n.Ports {
			for _, a := range n.Ports[j].Addresses {
				k.ports[a] = n.Ports[j].Index
			}
		}
	}
	r.server.Set(*spec.DNS, dns.NewNames(spec.DNS, uint32(generation), spec.DNSNetworks()))
	r.asking.Store(k)
}

// DNSNetworks are the networks whose containers have names.
func (s *NamespaceSpec) DNSNetworks() (out []dns.Network) {
	for i := range s.Networks {
		n := &s.Networks[i]
		if !n.DNS {
			continue
		}
		d := dns.Network{Name: n.Name}
		for _, p := range n.Addresses {
			d.Subnets, d.Gateways = append(d.Subnets, p.Masked()), append(d.Gateways, p.Addr())
		}
		for j := range n.Ports {
			p := &n.Ports[j]
			d.Hosts = append(d.Hosts, dns.Host{Name: p.Name, Aliases: p.Aliases, Addrs: p.Addresses})
		}
		out = append(out, d)
	}
	return out
}

// dnsService is DNS on one address.
type dnsService struct {
	r       *resolver
	packets net.PacketConn
	conns   *services

	ctx    context.Context //nolint:containedctx // the life of what waits for an upstream
	cancel context.CancelFunc
}

func (r *resolver) serve(a netip.Addr) (*dnsService, error) {
	t := endpoint{ns: r.ns, addr: netip.AddrPortFrom(a, dnsPort), network: "tcp"}
	u := t
	u.network = "udp"
	s := &dnsService{r: r, conns: &services{conns: make(map[*tcpConn]struct{})}}
	l, err := t.listen()
	if err != nil {
		return nil, err
	}
	if s.packets, err = u.listenPacket(); err != nil {
		_ = l.Close()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.conns.closers = []io.Closer{l, s.packets}
	s.conns.wg.Go(func() { s.conns.accept(l, s.converse) })
	s.conns.wg.Go(s.datagrams)
	return s, nil
}

func (s *dnsService) stop() {
	s.cancel()
	s.conns.stop()
}

// datagrams answers over UDP until the socket is closed.
func (s *dnsService) datagrams() {
	b := make([]byte, 1<<16)
	for {
		n, from, err := s.packets.ReadFrom(b)
		if err != nil {
			return
		}
		u, ok := from.(*net.UDPAddr)
		if !ok || u.Port == dnsPort || u.Port == 0 { // another server would answer for ever
			continue
		}
		client, ok := s.r.asking.Load().client(u.AddrPort().Addr())
		if !ok {
			continue
		}
		answer, later := s.r.server.Query(client, b[:n], true)
		if later != nil {
			s.conns.wg.Go(func() { s.send(s.await(later), from) })
			continue
		}
		s.send(answer, from)
	}
}

func (s *dnsService) send(answer []byte, to net.Addr) {
	if answer != nil {
		_, _ = s.packets.WriteTo(answer, to)
	}
}

func (s *dnsService) await(p *dns.Pending) []byte {
	ctx, cancel := context.WithTimeout(s.ctx, dnsPatience)
	defer cancel()
	return p.Wait(ctx)
}

// converse answers the queries of one connection, each when its answer is there (RFC
// 7766 §7).
func (s *dnsService) converse(c *tcpConn) {
	defer c.Close()
	idle := time.AfterFunc(dnsIdle, c.abort)
	defer idle.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	room := make(chan struct{}, dnsPipelined)
	from, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return
	}
	write := func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		if b == nil || writeFramed(c, b) != nil {
			c.abort()
		}
	}
	b := make([]byte, dns.MaxQuery+1)
	for {
		n, err := readFramed(c, b)
		if err != nil {
			return
		}
		idle.Reset(dnsIdle)
		client, ok := s.r.asking.Load().client(from.AddrPort().Addr())
		if !ok {
			c.abort()
			return
		}
		answer, later := s.r.server.Query(client, b[:n], false)
		if later == nil {
			write(answer)
			continue
		}
		room <- struct{}{}
		wg.Go(func() {
			write(s.await(later))
			<-room
		})
	}
}

var errLong = errors.New("message is too long")

// readFramed reads one message with its length before it (RFC 1035 §4.2.2).
func readFramed(r io.Reader, b []byte) (int, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > len(b) {
		return 0, errLong
	}
	return io.ReadFull(r, b[:n])
}

func writeFramed(w io.Writer, b []byte) error {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b)))
	_, err := w.Write(append(framed, b...))
	return err
}

// Exchange implements dns.Transport: from the namespace, as its gateway, or by whoever
// asks from the host.
func (r *resolver) Exchange(ctx context.Context, up dns.Upstream, tcp bool, query []byte, right func([]byte) bool) ([]byte, error) {
	if up.Host {
		if r.net.opts.HostDNS == nil {
			return nil, errNoHost
		}
		return r.net.opts.HostDNS.Exchange(ctx, up, tcp, query, right)
	}
	network := "udp"
	if tcp {
		network = "tcp"
	}
	c, err := r.ns.DialContext(ctx, network, up.Addr.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	return carry(c, tcp, query, right)
}

var errNoHost = errors.New("nobody asks from the host here")

// carry sends a query over a connection, and waits for the answer to it.
func carry(c net.Conn, tcp bool, query []byte, right func([]byte) bool) ([]byte, error) {
	b := make([]byte, 1<<16)
	if tcp {
		if err := writeFramed(c, query); err != nil {
			return nil, err
		}
		n, err := readFramed(c, b)
		if err == nil && !right(b[:n]) {
			err = errOther
		}
		return b[:n], err
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if right(b[:n]) {
			return b[:n], nil
		}
	}
}

var errOther = errors.New("the answer is to another query")

// maxAliases bounds the names of a container, beside its first.
const maxAliases = 64

func (s *NamespaceSpec) validateDNS() error {
	if s.DNS == nil {
		return nil
	}
	if err := s.DNS.Validate(); err != nil {
		return err
	}
	for i := range s.Networks {
		for j := range s.Networks[i].Ports {
			p := &s.Networks[i].Ports[j]
			if len(p.Aliases) > maxAliases {
				return fmt.Errorf("port %d: %d aliases; at most %d", p.Index, len(p.Aliases), maxAliases)
			}
			for _, a := range p.Aliases {
				if err := dns.CheckName(a); err != nil {
					return fmt.Errorf("port %d: %w", p.Index, err)
				}
			}
		}
	}
	return nil
}

// DNSStats tell what the namespace's DNS did; false if there is none.
func (ns *Namespace) DNSStats() (dns.Stats, bool) {
	r := ns.dns.Load()
	if r == nil {
		return dns.Stats{}, false
	}
	return r.server.Stats(), true
}

// FlushDNS forgets what upstreams said of a name, or with "" of all, and says how many
// answers that were.
func (ns *Namespace) FlushDNS(name string) int {
	r := ns.dns.Load()
	if r == nil {
		return 0
	}
	return r.server.Flush(name)
}
