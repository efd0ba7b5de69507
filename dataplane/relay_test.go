// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/dns"
)

// relayed are both ends of a relay, whose agent's end knows one resolver.
func relayed(t *testing.T, known netip.AddrPort) (*relay, *asks) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	own, err := fileConn(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay()
	if err := r.use(pair[1]); err != nil {
		t.Fatal(err)
	}
	a := &asks{sock: own.sock, open: make(map[uint32]context.CancelFunc), of: func(u dns.Upstream) (netip.AddrPort, error) {
		switch {
		case !u.Addr.IsValid() && u.Place == 0, u.Addr == known:
			return known, nil
		case !u.Addr.IsValid():
			return known, dns.ErrAbsent
		}
		return known, errors.New("no upstream")
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		own.close()
		<-done
	})
	return r, a
}

// echoing is a resolver that says twice what it hears, the first time wrongly, and
// over TCP once.
func echoing(t *testing.T) netip.AddrPort {
	t.Helper()
	var l net.Listener
	var u *net.UDPConn
	for range 20 { // somebody else may have the port of the other protocol
		var err error
		if l, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		to := l.Addr().(*net.TCPAddr)
		if u, err = net.ListenUDP("udp4", &net.UDPAddr{IP: to.IP, Port: to.Port}); err == nil {
			break
		}
		l.Close()
	}
	if u == nil {
		t.Fatal("no port is free")
	}
	at := u.LocalAddr().(*net.UDPAddr).AddrPort()
	t.Cleanup(func() { u.Close(); l.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte("wrong"), from)
			_, _ = u.WriteTo(b[:n], from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 1<<16)
			n, _ := c.Read(b)
			_, _ = c.Write(b[:n])
			c.Close()
		}
	}()
	return at
}

func TestRelayCarriesQueries(t *testing.T) {
	at := echoing(t)
	r, _ := relayed(t, at)
	right := func(b []byte) bool { return string(b) != "wrong" }
	for _, tcp := range []bool{false, true} {
		for _, up := range []dns.Upstream{{Addr: at, Host: true}, {Host: true}} {
			got, err := r.Exchange(soon(t), up, tcp, []byte("who is it?"), right)
			if err != nil || string(got) != "who is it?" {
				t.Errorf("TCP %v: %q, %v", tcp, got, err)
			}
		}
	}
	if _, err := r.Exchange(soon(t), dns.Upstream{Host: true, Place: 1}, false, nil, right); !errors.Is(err, dns.ErrAbsent) {
		t.Errorf("a resolver that is not there: %v", err)
	}
	stranger := dns.Upstream{Addr: netip.MustParseAddrPort("192.0.2.1:22"), Host: true}
	if _, err := r.Exchange(soon(t), stranger, true, nil, right); err == nil || !strings.Contains(err.Error(), "no upstream") {
		t.Errorf("somebody who is no resolver: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Exchange(ctx, dns.Upstream{Host: true}, false, []byte("x"), func([]byte) bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no right answer: %v", err)
	}
}

// TestRelayWaitsForAnAgent, and goes on with the next.
func TestRelayWaitsForAnAgent(t *testing.T) {
	r := newRelay()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Exchange(ctx, dns.Upstream{Host: true}, false, nil, nil); err == nil {
		t.Error("asked nobody")
	}
}

// TestRelayBelievesNoSandbox: whatever is written, the agent's end goes on, and has no
// more open than it may.
func TestRelayBelievesNoSandbox(t *testing.T) {
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	at := silent.LocalAddr().(*net.UDPAddr).AddrPort()
	r, a := relayed(t, at)
	sock, err := r.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{{1}, make([]byte, askLen), bytes.Repeat([]byte{'u'}, askLen+dns.MaxQuery+1), bytes.Repeat([]byte{'t'}, askLen)} {
		if _, err := sock.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for id := range uint32(maxAsks + 100) {
		q := ask{id: id, op: askUDP, up: dns.Upstream{Addr: at, Host: true}}
		if _, err := sock.Write(q.bytes()); err != nil {
			t.Fatal(err)
		}
	}
	eventually := time.Now().Add(wait)
	for open := 0; open < maxAsks; time.Sleep(10 * time.Millisecond) {
		a.mu.Lock()
		open = len(a.open)
		a.mu.Unlock()
		if open > maxAsks || time.Now().After(eventually) {
			t.Fatalf("%d are open", open)
		}
	}
	for id := range uint32(maxAsks) {
		q := ask{id: id, op: giveUp}
		_, _ = sock.Write(q.bytes())
	}
}

func FuzzAsk(f *testing.F) {
	q := ask{id: 7, op: askTCP, up: dns.Upstream{Addr: netip.MustParseAddrPort("192.0.2.1:53"), Host: true}, query: []byte("q")}
	f.Add(q.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := decodeAsk(b)
		if ok && !bytes.Equal(got.bytes(), b) && got.up.Addr.IsValid() && got.up.Addr.Addr().Is6() {
			t.Errorf("%x is read as %x", b, got.bytes())
		}
	})
}

// TestRelayIsGivenToTheSandbox: seccomp lets the process use it.
func TestRelayIsGivenToTheSandbox(t *testing.T) {
	c := starts(t, StartConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Relay(ctx, func(dns.Upstream) (netip.AddrPort, error) { return netip.AddrPort{}, dns.ErrAbsent })
	}()
	time.Sleep(50 * time.Millisecond)
	if err := c.Ping(soon(t)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
