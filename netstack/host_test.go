// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/neigh"
	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestGatewayAnswersARP(t *testing.T) {
	l := stillLab(t, blue(2))
	ask := func(a netip.Addr) {
		l.send(1, pt.ARPRequest(pt.Packet{SrcMAC: mac(1), Src: addr4(1), Dst: a}))
		l.got(2) // gets the broadcast too
	}
	ask(gateway4())
	pt.Check(t, l.got(1), pt.EtherSrc(gatewayMAC()), pt.EtherDst(mac(1)),
		pt.ARP(pt.Op(2), pt.SenderMAC(gatewayMAC()), pt.Src(gateway4()), pt.Dst(addr4(1))))
	ask(pt.IP("10.44.0.77"))
	l.silent(1, 2)
}

func TestGatewayAnswersNeighbourSolicitation(t *testing.T) {
	l := stillLab(t, blue(1))
	m1, target := mac(1), gateway6().As16()
	body := append(target[:], append([]byte{1, 1}, m1[:]...)...) // source link-layer address
	l.send(1, pt.Build(
		pt.EtherHdr{Src: mac(1), Dst: pt.HW("33:33:ff:00:00:01")},
		pt.IPv6Hdr{Src: addr6(1), Dst: pt.IP("ff02::1:ff00:1"), HopLimit: 255},
		pt.ICMPHdr{V6: true, Type: 135}, pt.Payload(body)))
	got := l.got(1)
	pt.Check(t, got, pt.EtherSrc(gatewayMAC()), pt.EtherDst(mac(1)),
		pt.IPv6(pt.Src(gateway6()), pt.Dst(addr6(1)), pt.TTL(255)), pt.ICMPv6(pt.ICMPType(136, 0)))
	if got != nil && !bytes.HasSuffix(got.Bytes(), []byte{2, 1, 2, 0, 0, 0, 0, 1}) {
		t.Errorf("the advertisement %x does not end with the gateway's MAC", got.Bytes())
	}
}

func TestGatewayAnswersPing(t *testing.T) {
	l := stillLab(t, blue(1))
	for name, tc := range map[string]struct {
		build func(pt.Packet) []byte
		dst   netip.Addr
		want  pt.Checker // nil: no answer
	}{
		"IPv4":            {pt.Ping4, gateway4(), pt.ICMP(pt.ICMPType(0, 0), pt.EchoID(7))},
		"IPv6":            {pt.Ping6, gateway6(), pt.ICMPv6(pt.ICMPType(129, 0), pt.EchoID(7))},
		"IPv6 link-local": {pt.Ping6, linkLocal(gatewayMAC()).Addr(), pt.ICMPv6(pt.ICMPType(129, 0))},
		// The router knows that they are on the link, and who asks for them there.
		"another address":  {pt.Ping4, pt.IP("10.44.0.2"), nil},
		"another IPv6 one": {pt.Ping6, pt.IP("fd44::2"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := pt.Packet{SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: tc.dst, ID: 7, Payload: pt.Bytes(1000)}
			if tc.dst.Is6() {
				p.Src = addr6(1)
			}
			l.send(1, tc.build(p))
			got := l.got(1)
			switch {
			case tc.want != nil:
			case tc.dst.Is4():
				pt.Check(t, got, pt.EtherDst(mac(1)), pt.ICMP(pt.ICMPType(5, 1)))
				pt.Check(t, l.got(1), pt.EtherDst(packet.Broadcast()), pt.ARP(pt.Op(1), pt.Dst(tc.dst)))
				l.silent(1)
				return
			default:
				pt.Check(t, got, pt.EtherDst(mac(1)), pt.ICMPv6(pt.ICMPType(137, 0)))
				pt.Check(t, l.got(1), pt.ICMPv6(pt.ICMPType(135, 0)))
				l.silent(1)
				return
			}
			pt.Check(t, got, pt.EtherSrc(gatewayMAC()), pt.EtherDst(mac(1)), tc.want, pt.Data(pt.Bytes(1000)))
		})
	}
}

// TestGatewayTakesAPriorityTag: VID 0 is no VLAN (802.1Q §9.6).
func TestGatewayTakesAPriorityTag(t *testing.T) {
	l := stillLab(t, blue(1))
	ping := pt.Packet{SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: gateway4()}
	for tci, answers := range map[uint16]bool{0xe000: true, 7: false} {
		ping.Tags = []pt.VLANTag{{TCI: tci}}
		l.send(1, pt.Ping4(ping))
		if got := l.got(1); got != nil != answers {
			t.Errorf("TCI %#x: answered is %v, want %v", tci, got != nil, answers)
		}
	}
}

// joined are two Netstacks with a wire between them: in the lab's container 1
// there is another Netstack, whose host stack is the container's.
//
//	blue: 10.44.0.1 fd44::1 ── port 100 ── bridge ── port 1 ── wire ── port 1 ── bridge ── port 100 ── 10.44.0.11 fd44::b: inner
type joined struct{ blue, inner *Namespace }

func join(t testing.TB, s NetworkSpec) joined {
	t.Helper()
	outside, inside := newEmpty(t), newEmpty(t)
	far, near := socketPairs(t, 1)
	if err := outside.Apply(&Snapshot{Namespaces: []NamespaceSpec{alone(s)}}, near); err != nil {
		t.Fatal(err)
	}
	own, err := unix.Dup(far[0])
	if err != nil {
		t.Fatal(err)
	}
	in := NetworkSpec{
		Name:      "inner",
		Bridge:    BridgeSpec{Index: hostPort, MAC: mac(1), MTU: s.Ports[0].MTU},
		Addresses: []netip.Prefix{netip.PrefixFrom(addr4(1), 24), netip.PrefixFrom(addr6(1), 64)},
		Ports: []PortSpec{{
			Index: 1, MAC: gatewayMAC(), MTU: 65535, Offload: true,
			Addresses: []netip.Addr{gateway4(), gateway6()},
		}},
	}
	if err := inside.Apply(&Snapshot{Namespaces: []NamespaceSpec{alone(in)}}, map[uint16]int{1: own}); err != nil {
		t.Fatal(err)
	}
	return joined{outside.Namespace("blue"), inside.Namespace("inner")}
}

func newEmpty(t testing.TB) *Netstack {
	t.Helper()
	n, err := New(Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// dialler and server are what a Namespace and the kernel have in common.
type dialler interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}
type server interface {
	Listen(network, address string) (net.Listener, error)
}

// transfer sends n random bytes each way over a connection, at the same time, and
// compares them by hash.
func transfer(t *testing.T, from dialler, to server, address string, n int) {
	t.Helper()
	transferTo(t, from, to, address, address, n)
}

// transferTo is transfer to a server whose address is translated to at.
func transferTo(t *testing.T, from dialler, to server, address, at string, n int) {
	t.Helper()
	l, err := to.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sums := make(chan [2][32]byte, 2)
	serve := func(c net.Conn, seed uint64) {
		c.SetDeadline(time.Now().Add(2 * patience))
		sums <- exchange(t, c, seed, n)
		c.Close()
	}
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			sums <- [2][32]byte{}
			return
		}
		serve(c, 1)
	}()
	c, err := from.DialContext(within(t), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go serve(c, 2)
	a, b := <-sums, <-sums
	if a[0] != b[1] || b[0] != a[1] {
		t.Errorf("what came is not what was sent, through %s", address)
	}
}

type halfCloser interface{ CloseWrite() error }

// exchange sends n bytes and reads to the end: the sums of what went and came.
func exchange(t *testing.T, c net.Conn, seed uint64, n int) (sums [2][32]byte) {
	t.Helper()
	sent := make(chan [32]byte)
	go func() {
		h := sha256.New()
		src := io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), int64(n))
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(h, c)}, src, make([]byte, 256<<10)); err != nil {
			t.Errorf("send: %v", err)
		}
		c.(halfCloser).CloseWrite()
		sent <- [32]byte(h.Sum(nil))
	}()
	h := sha256.New()
	if got, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{c}, make([]byte, 256<<10)); err != nil || got != int64(n) {
		t.Errorf("received %d bytes of %d: %v", got, n, err)
	}
	return [2][32]byte{<-sent, [32]byte(h.Sum(nil))}
}

func TestTCPWithTheHostStack(t *testing.T) {
	const size = 16 << 20
	for name, offload := range map[string]bool{"with offload": true, "without offload": false} {
		t.Run(name, func(t *testing.T) {
			s := blue(1)
			s.Ports[0].Offload = offload
			j := join(t, s)
			transfer(t, j.inner, j.blue, "10.44.0.1:8080", size)
			transfer(t, j.blue, j.inner, "[fd44::b]:8080", size)
			st := j.blue.net.opts.Counters.Port(1).Snapshot()
			if offload != (st.TxGSO > 0) {
				t.Errorf("%d offload frames sent to the container: offload is %v", st.TxGSO, offload)
			}
			if st.RxGSO == 0 {
				t.Error("no offload frame came from the container")
			}
			if st.Drops["bad_offload"] != 0 || j.blue.net.opts.Counters.Port(hostPort).Snapshot().Drops["local_checksum"] != 0 {
				t.Errorf("drops %v", st.Drops)
			}
		})
	}
}

// TestUDPWithTheHostStack sends datagrams up to those that are fragmented.
func TestUDPWithTheHostStack(t *testing.T) {
	j := join(t, blue(1))
	for _, address := range []string{"10.44.0.1:5353", "[fd44::1]:5353"} {
		c, err := j.blue.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go datagrams(c, true)
		d, err := j.inner.DialContext(within(t), "udp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		d.SetDeadline(time.Now().Add(patience))
		for _, n := range []int{0, 1, 1000, 1472, 1473, 9000, 60_000} {
			want, got := pt.Bytes(n), make([]byte, 65536)
			if _, err := d.Write(want); err != nil {
				t.Fatal(err)
			}
			k, err := d.Read(got)
			if err != nil || !bytes.Equal(got[:k], want) {
				t.Errorf("%s: %d bytes came back as %d: %v", address, n, k, err)
			}
		}
	}
}

// TestFragmentsAreSummedByTheStack: nobody vouches for a fragment's sum.
func TestFragmentsAreSummedByTheStack(t *testing.T) {
	l := stillLab(t, blue(1))
	c, err := l.n.Namespace("blue").ListenPacket("udp", ":2000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for sum, want := range map[uint16]int{0: 16, 1: 0} { // 0 is no sum, 1 a wrong one
		ip := pt.IPv4Hdr{Src: addr4(1), Dst: gateway4(), ID: 5 + sum, Proto: new(uint8(packet.ProtoUDP))}
		u := pt.Build(pt.UDPHdr{SrcPort: 1, DstPort: 2000, Checksum: &sum}, pt.Bytes(16))
		for off := 0; off < len(u); off += 8 {
			ip.Offset, ip.MF = uint16(off), off+8 < len(u)
			l.send(1, pt.Build(pt.EtherHdr{Src: mac(1), Dst: gatewayMAC()}, ip, pt.Payload(u[off:off+8])))
		}
		wait := time.Millisecond
		if want > 0 {
			wait = patience
		}
		c.SetReadDeadline(time.Now().Add(wait))
		if n, _, _ := c.ReadFrom(make([]byte, 100)); n != want {
			t.Errorf("sum %#x: received %d bytes, want %d", sum, n, want)
		}
	}
}

func TestDialErrorsAreThoseOfNet(t *testing.T) {
	j := join(t, blue(1))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for name, tc := range map[string]struct {
		ctx              context.Context
		network, address string
		want             error // nil: any
	}{
		"nobody listens":   {t.Context(), "tcp", "10.44.0.11:9999", unix.ECONNREFUSED},
		"IPv6 too":         {t.Context(), "tcp6", "[fd44::b]:9999", unix.ECONNREFUSED},
		"no route":         {t.Context(), "tcp", "192.0.2.1:80", unix.ENETUNREACH},
		"cancelled":        {cancelled, "tcp", "10.44.0.11:80", context.Canceled},
		"no answer":        {soon, "tcp", "10.44.0.99:80", context.DeadlineExceeded},
		"network":          {t.Context(), "sctp", "10.44.0.11:80", net.UnknownNetworkError("sctp")},
		"name":             {t.Context(), "tcp", "localhost:80", nil},
		"no port":          {t.Context(), "tcp", "10.44.0.11", nil},
		"port out of band": {t.Context(), "tcp", "10.44.0.11:65536", nil},
		"no host":          {t.Context(), "tcp", ":80", nil},
		"other family":     {t.Context(), "tcp4", "[fd44::b]:80", nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := j.blue.DialContext(tc.ctx, tc.network, tc.address)
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			var op *net.OpError
			if !errors.As(err, &op) || op.Op != "dial" || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %#v (%v), want an OpError of %v", err, err, tc.want)
			}
		})
	}
}

func TestListenErrorsAreThoseOfNet(t *testing.T) {
	ns := stillLab(t, blue(1)).n.Namespace("blue")
	l, err := ns.Listen("tcp", "10.44.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		listen func() error
		want   error
	}{
		"in use":      {func() error { _, err := ns.Listen("tcp", "10.44.0.1:80"); return err }, unix.EADDRINUSE},
		"not ours":    {func() error { _, err := ns.Listen("tcp", "10.44.0.2:80"); return err }, unix.EADDRNOTAVAIL},
		"not TCP":     {func() error { _, err := ns.Listen("udp", ":80"); return err }, net.UnknownNetworkError("udp")},
		"not UDP":     {func() error { _, err := ns.ListenPacket("tcp", ":80"); return err }, net.UnknownNetworkError("tcp")},
		"UDP, theirs": {func() error { _, err := ns.ListenPacket("udp", "10.44.0.2:80"); return err }, unix.EADDRNOTAVAIL},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tc.listen(); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	done := make(chan error)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept gives %v after Close, want %v", err, net.ErrClosed)
	}
}

// TestListenWithoutHostServesBothFamilies unless the network says one.
func TestListenWithoutHostServesBothFamilies(t *testing.T) {
	j := join(t, blue(1))
	for network, want := range map[string][2]bool{"tcp": {true, true}, "tcp4": {true, false}, "tcp6": {false, true}} {
		l, err := j.blue.Listen(network, ":8000")
		if err != nil {
			t.Fatal(err)
		}
		for i, address := range []string{"10.44.0.1:8000", "[fd44::1]:8000"} {
			c, err := j.inner.DialContext(within(t), "tcp", address)
			if err == nil {
				c.Close()
			}
			if got := err == nil; got != want[i] {
				t.Errorf("Listen on %s: dial %s gives %v", network, address, err)
			}
		}
		l.Close()
	}
}

func TestNamespaceDialsItself(t *testing.T) {
	ns := newLab(t, Options{Workers: 1}, blue(1)).n.Namespace("blue")
	transfer(t, ns, ns, "10.44.0.1:80", 1<<20)
	transfer(t, ns, ns, "[fd44::1]:80", 1<<20)
}

func TestPacketConnTakesAnyFormOfAddress(t *testing.T) {
	j := join(t, blue(1))
	to, err := j.inner.ListenPacket("udp", ":700")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	four := net.IP{10, 44, 0, 11}
	for _, tc := range []struct {
		network string
		ip      net.IP
		ok      bool
	}{
		{"udp4", four, true},
		{"udp4", four.To16(), true},
		{"udp4", net.ParseIP("fd44::b"), false},
		{"udp", four, true},
		{"udp", four.To16(), true},
		{"udp", net.ParseIP("fd44::b"), true},
		{"udp6", net.ParseIP("fd44::b"), true},
		{"udp6", four, false},
	} {
		from, err := j.blue.ListenPacket(tc.network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		_, err = from.WriteTo([]byte("hello"), &net.UDPAddr{IP: tc.ip, Port: 700})
		if (err == nil) != tc.ok {
			t.Errorf("%s to %d bytes of %v: %v", tc.network, len(tc.ip), tc.ip, err)
		}
		if err == nil {
			to.SetReadDeadline(time.Now().Add(patience))
			if n, _, err := to.ReadFrom(make([]byte, 10)); n != 5 || err != nil {
				t.Errorf("%s to %v: received %d bytes, %v", tc.network, tc.ip, n, err)
			}
		}
		if _, err := from.WriteTo(nil, &net.TCPAddr{}); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a TCP address gives %v", err)
		}
		from.Close()
	}
}

func TestFullRingIsCountedAndNotWaitedFor(t *testing.T) {
	l := stillLab(t, blue(1))
	c, err := l.n.Namespace("blue").DialContext(t.Context(), "udp", "10.44.0.11:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range kindDatagram.room() + 10 {
		_, _ = c.Write([]byte("x"))
	}
	if got := l.stats(hostPort).Drops["local_full"]; got != 10 {
		t.Errorf("%d dropped, want 10", got)
	}
	l.round()
	for i := range kindDatagram.room() {
		if l.got(1) == nil {
			t.Fatalf("packet %d is missing", i)
		}
	}
	l.silent(1)
}

func TestNeighboursFollowTheSnapshot(t *testing.T) {
	l := stillLab(t, blue(2))
	ns := l.n.Namespace("blue")
	type neighbour struct {
		addr  netip.Addr
		mac   packet.MAC
		state neigh.State
	}
	known := func() (all []neighbour) {
		for _, e := range ns.Neighbours("blue") {
			all = append(all, neighbour{e.Addr, e.MAC, e.State})
		}
		return all
	}
	check := func(want ...neighbour) {
		t.Helper()
		if got := known(); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	n := func(a netip.Addr, m packet.MAC) neighbour { return neighbour{a, m, neigh.Permanent} }
	check(n(addr4(1), mac(1)), n(addr4(2), mac(2)), n(addr6(1), mac(1)), n(addr6(2), mac(2)))
	l.snap.Namespaces[0].Networks[0].Ports[0].MAC = mac(7)
	l.snap.Namespaces[0].Networks[0].Ports[1].Addresses = []netip.Addr{addr4(3)}
	l.apply()
	check(n(addr4(1), mac(7)), n(addr4(3), mac(2)), n(addr6(1), mac(7)))

	l.send(2, pt.ARPRequest(pt.Packet{SrcMAC: mac(2), Src: addr4(9), Dst: gateway4()}))
	want := neighbour{addr4(9), mac(2), neigh.Stale}
	if got := known(); !slices.Contains(got, want) {
		t.Errorf("a station that asked is not known: %v", got)
	}
	l.send(2, pt.ARPRequest(pt.Packet{SrcMAC: mac(2), Src: addr4(1), Dst: gateway4()}))
	if got := known(); !slices.Contains(got, n(addr4(1), mac(7))) {
		t.Errorf("a container took another's address: %v", got)
	}
}

func TestAddressesFollowTheSnapshot(t *testing.T) {
	l := stillLab(t, blue(1))
	ping := func(a string) bool {
		l.send(1, pt.Ping4(pt.Packet{SrcMAC: mac(1), DstMAC: gatewayMAC(), Src: addr4(1), Dst: pt.IP(a)}))
		answered := false
		for f := l.got(1); f != nil; f = l.got(1) {
			answered = answered || f.View.Proto == packet.ProtoICMP && f.View.SrcPort == 0 // an echo reply, and no error
		}
		return answered
	}
	for _, tc := range []struct {
		addrs     []string
		one, five bool
	}{
		{[]string{"10.44.0.1/16"}, true, false},
		{[]string{"10.44.0.5/24", "10.44.0.1/24"}, true, true},
		{[]string{"10.44.0.5/24"}, false, true},
		{nil, false, false},
		{[]string{"10.44.0.1/24", "fd44::1/64"}, true, false},
	} {
		s := &l.snap.Namespaces[0].Networks[0]
		s.Addresses = nil
		for _, a := range tc.addrs {
			s.Addresses = append(s.Addresses, netip.MustParsePrefix(a))
		}
		l.apply()
		if one, five := ping("10.44.0.1"), ping("10.44.0.5"); one != tc.one || five != tc.five {
			t.Errorf("with %v: 10.44.0.1 answers %v, 10.44.0.5 answers %v", tc.addrs, one, five)
		}
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.44.0.1/24"), netip.MustParsePrefix("fd44::1/64"), linkLocal(gatewayMAC())}
	if got := l.n.Namespace("blue").Addresses("blue"); !slices.Equal(got, want) {
		t.Errorf("addresses %v, want %v", got, want)
	}
}

func TestSocketsAreShown(t *testing.T) {
	j := join(t, blue(1))
	l, err := j.blue.Listen("tcp", "10.44.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := j.blue.ListenPacket("udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	c, err := j.inner.DialContext(within(t), "tcp", "10.44.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	want := []Socket{
		{Proto: "tcp", State: "LISTEN", Local: netip.MustParseAddrPort("10.44.0.1:80")},
		{
			Proto: "tcp", State: "ESTAB", Local: netip.MustParseAddrPort("10.44.0.1:80"), RecvQ: 6,
			Remote: c.LocalAddr().(*net.TCPAddr).AddrPort(),
		},
		{Proto: "udp", State: "UNCONN", Local: netip.MustParseAddrPort("[::]:53")},
	}
	var got []Socket
	eventually(t, "the bytes have arrived", func() bool {
		got = j.blue.Sockets()
		return len(got) == 3 && got[1].RecvQ == 6
	})
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
