// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"sluice/dns"
	pt "sluice/packet/packettest"
)

// naming is blue with names, whose container is called c, and www.
func naming() NamespaceSpec {
	s := blue(1)
	s.DNS, s.Ports[0].Aliases = true, []string{"www"}
	ns := alone(s)
	ns.DNS = &dns.Config{Upstreams: []dns.Upstream{{Addr: netip.MustParseAddrPort("192.0.2.53:53"), Host: true}}}
	return ns
}

// lookUp asks a server, from a host stack.
func lookUp(t *testing.T, from *Namespace, network, server, name string, qtype uint16) *mdns.Msg {
	t.Helper()
	c, err := from.DialContext(within(t), network, server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	co := mdns.Conn{Conn: c}
	q := new(mdns.Msg).SetQuestion(name, qtype)
	b, _ := q.Pack()
	if network == "tcp" {
		err = writeFramed(c, b)
	} else {
		_, err = c.Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	in := make([]byte, 1<<16)
	var n int
	if network == "tcp" {
		n, err = readFramed(c, in)
	} else {
		n, err = co.Conn.Read(in)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := new(mdns.Msg)
	if err := m.Unpack(in[:n]); err != nil || m.Id != q.Id {
		t.Fatalf("%v: %x", err, in[:n])
	}
	return m
}

// hostDNS is the host of a test: its resolver says of every name that it is at one
// address.
type hostDNS struct{ asked chan dns.Upstream }

func (h *hostDNS) Exchange(_ context.Context, up dns.Upstream, _ bool, query []byte, right func([]byte) bool) ([]byte, error) {
	h.asked <- up
	q := new(mdns.Msg)
	if err := q.Unpack(query); err != nil {
		return nil, err
	}
	m := new(mdns.Msg).SetReply(q)
	m.Answer = []mdns.RR{&mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: net.IPv4(198, 51, 100, 1)}}
	b, err := m.Pack()
	if err == nil && !right(b) {
		err = errors.New("the answer is not right")
	}
	return b, err
}

func TestGatewayAnswersForNames(t *testing.T) {
	j := join(t, blue(1))
	up := &hostDNS{asked: make(chan dns.Upstream, 10)}
	j.blue.net.opts.HostDNS = up
	snap := &Snapshot{Generation: 2, Namespaces: []NamespaceSpec{naming()}}
	if err := j.blue.net.Apply(snap, nil); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, server := range []string{"10.44.0.1:53", "[fd44::1]:53"} {
			if m := lookUp(t, j.inner, network, server, "www.blue.", mdns.TypeAAAA); len(m.Answer) != 1 || !m.Authoritative {
				t.Errorf("%s %s: %v", network, server, m)
			}
			if m := lookUp(t, j.inner, network, server, "a.example.", mdns.TypeA); len(m.Answer) != 1 {
				t.Errorf("%s %s: %v", network, server, m)
			}
		}
	}
	if n := len(up.asked); n != 1 {
		t.Errorf("the host was asked %d times", n)
	}
	if got := <-up.asked; got != naming().DNS.Upstreams[0] {
		t.Errorf("asked %v", got)
	}
	if s, ok := j.blue.DNSStats(); !ok || s.Queries != 8 || s.Local != 4 || s.Hits != 3 || s.Forwarded != 1 {
		t.Errorf("%+v", s)
	}
	if n := j.blue.FlushDNS(""); n != 1 {
		t.Errorf("%d answers flushed", n)
	}

	// A name that is new is known as soon as the snapshot is, and one that is gone is not.
	snap.Generation++
	snap.Namespaces[0].Networks[0].Ports[0].Aliases = []string{"shop"}
	if err := j.blue.net.Apply(snap, nil); err != nil {
		t.Fatal(err)
	}
	if m := lookUp(t, j.inner, "udp", "10.44.0.1:53", "shop.", mdns.TypeA); len(m.Answer) != 1 || m.Answer[0].(*mdns.A).A.String() != addr4(1).String() {
		t.Errorf("%v", m)
	}
	if m := lookUp(t, j.inner, "udp", "10.44.0.1:53", "www.blue.sluice.internal.", mdns.TypeA); m.Rcode != mdns.RcodeNameError {
		t.Errorf("%v", m)
	}
}

// TestDNSComesAndGoesWithTheSnapshot, and leaves no goroutine, see TestMain.
func TestDNSComesAndGoesWithTheSnapshot(t *testing.T) {
	l := stillLab(t, blue(1))
	ns := l.n.Namespace("blue")
	for _, on := range []bool{true, false, true, true, false, true} {
		l.snap.Namespaces[0].DNS = nil
		if l.snap.Namespaces[0].Networks[0].DNS = on; on {
			l.snap.Namespaces[0].DNS = new(dns.Config)
		}
		l.apply()
		sockets := 0
		for _, s := range ns.Sockets() {
			if s.Local.Port() == dnsPort {
				sockets++
			}
		}
		if want := map[bool]int{true: 4}[on]; sockets != want {
			t.Errorf("DNS %v: %d sockets, want %d", on, sockets, want)
		}
	}
}

// TestStrangersAreNotAnswered: who asks from beyond a router is none of the network's.
func TestStrangersAreNotAnswered(t *testing.T) {
	l := stillLab(t, blue(1))
	l.snap.Namespaces[0] = naming()
	l.snap.Namespaces[0].Networks[0].Device.ReversePath = 0
	l.apply()
	q, _ := new(mdns.Msg).SetQuestion("c.", mdns.TypeA).Pack()
	ask := func(src netip.Addr, port uint16) {
		l.send(1, pt.UDP4(pt.Packet{
			SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: src, Dst: gateway4(), SrcPort: port, DstPort: dnsPort, Payload: q,
		}))
	}
	ask(addr4(1), 1000)
	eventually(t, "the answer", func() bool { l.round(); return l.got(1) != nil })
	ask(netip.MustParseAddr("198.51.100.1"), 1000)
	ask(addr4(1), dnsPort) // another server
	time.Sleep(50 * time.Millisecond)
	l.silent(1)
}

func TestDNSIsValidated(t *testing.T) {
	for name, edit := range map[string]func(*NamespaceSpec){
		"domain":  func(s *NamespaceSpec) { s.DNS.Domain = "-" },
		"alias":   func(s *NamespaceSpec) { s.Networks[0].Ports[0].Aliases = []string{"a b"} },
		"aliases": func(s *NamespaceSpec) { s.Networks[0].Ports[0].Aliases = make([]string, maxAliases+1) },
	} {
		s := naming()
		edit(&s)
		if err := (&Snapshot{Namespaces: []NamespaceSpec{s}}).Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
