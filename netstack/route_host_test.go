// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/routing"
	"sluice/trace"
)

// world is a Netstack that runs, in whose containers there are others: the host
// stack of each is the container's.
type world struct {
	t       *testing.T
	outside *Netstack
	inside  map[party]*Namespace
}

// newWorld has such a container for each port.
func newWorld(t *testing.T, spaces ...NamespaceSpec) *world {
	t.Helper()
	n, err := New(Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	w := &world{t: t, outside: n, inside: make(map[party]*Namespace)}
	snap := Snapshot{Namespaces: spaces}
	fds := make(map[uint16]int)
	for p := range snap.Ports() {
		far, near := socketPairs(t, 1)
		fds[p.Index] = near[1]
		s := party{int(p.Index) / 10, int(p.Index) % 10}
		w.inside[s] = newContainer(t, s, far[0])
	}
	if err := n.Apply(&snap, fds); err != nil {
		t.Fatal(err)
	}
	return w
}

// newContainer is one at the far end of a wire.
func newContainer(t *testing.T, s party, far int) *Namespace {
	t.Helper()
	own, err := unix.Dup(far)
	if err != nil {
		t.Fatal(err)
	}
	g, in := gate(s.site), newEmpty(t)
	spec := sites("inner", NetworkSpec{
		Name:      "eth0",
		Bridge:    BridgeSpec{Index: 1, MAC: s.mac(), MTU: 1500},
		Addresses: []netip.Prefix{netip.PrefixFrom(s.addr4(), 24), netip.PrefixFrom(s.addr6(), 64)},
		Ports:     []PortSpec{{Index: 2, MAC: g.mac(), MTU: 65535, Offload: true}},
	})
	spec.Routing.Routes = []routing.Route{via("0.0.0.0/0", "eth0", g.addr4()), via("::/0", "eth0", g.addr6())}
	if err := in.Apply(&Snapshot{Namespaces: []NamespaceSpec{spec}}, map[uint16]int{2: own}); err != nil {
		t.Fatal(err)
	}
	return in.Namespace("inner")
}

// TestTCPOverRouters carries bytes between containers, and between them and host
// stacks, over networks and links.
func TestTCPOverRouters(t *testing.T) {
	const size = 4 << 20
	spaces := chain(2)
	spaces[0].Networks = append(spaces[0].Networks, site(3, 1))
	spaces[0].Networks[1].Ports[0].Offload = false
	spaces[1].Routing.Routes = append(spaces[1].Routing.Routes, via("10.44.3.0/24", "to1"), via("fd44:3::/64", "to1"))
	w := newWorld(t, spaces...)
	carol := party{3, 1}
	one, two := w.outside.Namespace("ns1"), w.outside.Namespace("ns2")
	for name, tc := range map[string]struct {
		from    dialler
		to      server
		address string
	}{
		"next network":               {w.inside[alice], w.inside[carol], "10.44.3.11:80"},
		"next network, IPv6":         {w.inside[carol], w.inside[alice], "[fd44:1::b]:80"},
		"over a link":                {w.inside[alice], w.inside[bob], "10.44.2.11:80"},
		"over a link, IPv6":          {w.inside[bob], w.inside[carol], "[fd44:3::b]:80"},
		"gateway of another network": {w.inside[alice], one, "10.44.3.1:80"},
		"gateway behind a link":      {w.inside[alice], two, "10.44.2.1:80"},
		"address of a link":          {w.inside[alice], two, "[fd99::c:2]:80"},
		"host stack to a container":  {one, w.inside[carol], "10.44.3.11:80"},
		"host stack over a link":     {one, w.inside[bob], "[fd44:2::b]:80"},
		"host stack to another":      {one, two, "10.44.2.1:80"},
		"host stack to itself":       {one, one, "10.44.3.1:80"},
	} {
		t.Run(name, func(t *testing.T) { transfer(t, tc.from, tc.to, tc.address, size) })
	}
}

// TestSourceOfTheHostStack is that of the device by which it sends, or the route's.
func TestSourceOfTheHostStack(t *testing.T) {
	s := twoSites()
	extra := netip.MustParsePrefix("10.44.2.9/24")
	s.Networks[1].Addresses = append(s.Networks[1].Addresses, extra, netip.MustParsePrefix("10.55.0.1/24"))
	preferred := via("10.44.2.12/32", "site2")
	preferred.Src = extra.Addr()
	elsewhere := via("10.77.0.0/16", "site2", bob.addr4())
	elsewhere.Src = gate(1).addr4()
	s.Routing.Routes = []routing.Route{preferred, elsewhere, via("10.78.0.0/16", "site2", bob.addr4()), via("::/0", "site2", bob.addr6())}
	w := newWorld(t, s)
	ns := w.outside.Namespace("lab")
	u, err := ns.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for to, want := range map[string]string{
		"10.44.1.11": "10.44.1.1", "10.44.2.11": "10.44.2.1", "10.44.2.12": "10.44.2.9",
		"10.55.0.7": "10.55.0.1", "10.77.0.1": "10.44.1.1", "10.78.0.1": "10.44.2.1",
		"fd44:1::b": "fd44:1::1", "fd44:2::b": "fd44:2::1", "fd77::1": "fd44:2::1",
	} {
		c, err := ns.DialContext(within(t), "udp", net.JoinHostPort(to, "9"))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); got != netip.MustParseAddr(want) {
			t.Errorf("to %s: source %s, want %s", to, got, want)
		}
		c.Close()
	}
	// A socket without a source gets one with each datagram.
	for _, at := range []party{alice, bob, {2, 2}} {
		in, err := w.inside[at].ListenPacket("udp", net.JoinHostPort(at.addr4().String(), "53"))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := u.WriteTo([]byte("hello"), in.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		in.SetDeadline(time.Now().Add(patience))
		_, from, err := in.ReadFrom(make([]byte, 100))
		want := map[party]netip.Addr{alice: gate(1).addr4(), bob: gate(2).addr4(), {2, 2}: extra.Addr()}[at]
		if err != nil || from.(*net.UDPAddr).AddrPort().Addr().Unmap() != want {
			t.Errorf("%v: from %v (%v), want %v", at, from, err, want)
		}
	}
}

// TestDialOfWhatIsNotThere fails as the kernel does.
func TestDialOfWhatIsNotThere(t *testing.T) {
	s := twoSites()
	for prefix, kind := range map[string]routing.Type{
		"10.1.0.0/16": routing.Unreachable, "10.2.0.0/16": routing.Prohibit, "10.3.0.0/16": routing.Blackhole,
		"fd01::/16": routing.Unreachable,
	} {
		s.Routing.Routes = append(s.Routing.Routes, routing.Route{Prefix: netip.MustParsePrefix(prefix), Type: kind})
	}
	ns := newWorld(t, s).outside.Namespace("lab")
	for to, want := range map[string]unix.Errno{
		"10.1.0.1": unix.EHOSTUNREACH, "10.2.0.1": unix.EACCES, "10.3.0.1": unix.EINVAL, "10.4.0.1": unix.ENETUNREACH,
		"fd01::1": unix.EHOSTUNREACH, "fd02::1": unix.ENETUNREACH,
		"10.44.2.99": unix.EHOSTUNREACH, "fd44:2::99": unix.EHOSTUNREACH, // nobody answers
		"10.44.2.11": unix.ECONNREFUSED, "fd44:2::b": unix.ECONNREFUSED,
	} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			c, err := ns.DialContext(within(t), "tcp", net.JoinHostPort(to, "80"))
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
}

// TestPathMTUOfTheHostStack: behind a container's port fits less than its device
// says, and nobody's MSS tells of it.
func TestPathMTUOfTheHostStack(t *testing.T) {
	spaces := chain(2)
	spaces[1].Networks[0].Ports[0].MTU = 1300
	w := newWorld(t, spaces...)
	transfer(t, w.outside.Namespace("ns2"), w.inside[bob], "10.44.2.11:80", 1<<20)
	transfer(t, w.outside.Namespace("ns1"), w.inside[bob], "10.44.2.11:80", 1<<20)
	transfer(t, w.outside.Namespace("ns1"), w.inside[bob], "[fd44:2::b]:80", 1<<20)
	transfer(t, w.inside[alice], w.inside[bob], "10.44.2.11:80", 1<<20)
	if w.outside.opts.Counters.Port(alice.port()).Snapshot().Drops[trace.FragNeeded.String()] == 0 {
		t.Error("nothing was too big")
	}
}

// TestEchoOfOtherNetworks: the services answer at each address, whoever asks.
func TestEchoOfOtherNetworks(t *testing.T) {
	spaces := chain(2)
	spaces[0].Networks[0].Echo, spaces[1].Networks[0].Echo = true, true
	w := newWorld(t, spaces...)
	for _, from := range []dialler{w.inside[alice], w.inside[bob], w.outside.Namespace("ns1"), w.outside.Namespace("ns2")} {
		for _, network := range []string{"tcp", "udp"} {
			for _, to := range []string{"10.44.1.1:7", "10.44.2.1:7", "[fd44:1::1]:7", "[fd44:2::1]:7"} {
				echoed(t, from, network, to)
			}
		}
	}
}

func echoed(t *testing.T, from dialler, network, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := from.DialContext(ctx, network, to)
	if err != nil {
		t.Errorf("%s %s: %v", network, to, err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Errorf("%s %s: %v", network, to, err)
	}
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
		t.Errorf("%s %s: %q, %v", network, to, buf, err)
	}
}
