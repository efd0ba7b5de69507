// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/traffic/report"
)

// ICMP echo, RFC 792 and RFC 4443 §4.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	icmpFilter               = 1 // ICMP_FILTER of raw(7), level SOL_RAW
	solRaw                   = 255
)

// pingAll asks every address once, and again who did not answer, from one
// process: a hundred containers ping one another with a hundred processes.
func pingAll(ctx context.Context, args []string) (any, error) {
	f := flags("pingall")
	file := f.String("targets", "", "file with one address a line")
	long := f.Duration("timeout", 20*time.Second, "when to give up")
	pace := f.Duration("pace", time.Millisecond, "between two requests")
	again := f.Duration("again", time.Second, "until a request is repeated")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	p, err := newPinger(*file)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(ctx, *long)
	defer stop()
	start := time.Now()
	for ctx.Err() == nil && p.left() > 0 {
		p.ask(*pace)
		for end := time.Now().Add(*again); p.left() > 0 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	r := report.Reach{Targets: len(p.targets), Reached: len(p.targets) - p.left(), Sent: p.sent, Seconds: time.Since(start).Seconds()}
	for i, a := range p.targets {
		if !p.done[i].Load() {
			r.Missing = append(r.Missing, a.String())
		}
	}
	if len(r.Missing) > 0 {
		return r, errWrong
	}
	return r, nil
}

type pinger struct {
	fd4, fd6 int
	id       uint16
	targets  []netip.Addr
	done     []atomic.Bool
	sent     int
}

func newPinger(file string) (*pinger, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := &pinger{id: uint16(os.Getpid())}
	for word := range strings.FieldsSeq(string(text)) {
		a, err := netip.ParseAddr(word)
		if err != nil {
			return nil, err
		}
		p.targets = append(p.targets, a)
	}
	p.done = make([]atomic.Bool, len(p.targets))
	return p, p.open()
}

// open makes the two raw sockets; a filter keeps everything but answers out.
func (p *pinger) open() (err error) {
	if p.fd4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP); err != nil {
		return os.NewSyscallError("socket", err)
	}
	if p.fd6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6); err != nil {
		return os.NewSyscallError("socket", err)
	}
	growBuffers(p.fd4)
	growBuffers(p.fd6)
	if err := unix.SetsockoptInt(p.fd4, solRaw, icmpFilter, ^(1 << echoReply4)); err != nil {
		return os.NewSyscallError("ICMP_FILTER", err)
	}
	var only unix.ICMPv6Filter
	for i := range only.Data {
		only.Data[i] = ^uint32(0)
	}
	only.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
	if err := unix.SetsockoptICMPv6Filter(p.fd6, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &only); err != nil {
		return os.NewSyscallError("ICMP6_FILTER", err)
	}
	go p.listen(p.fd4, echoReply4, 20)
	go p.listen(p.fd6, echoReply6, 0)
	return nil
}

// listen takes answers; skip is the IP header that a raw IPv4 socket delivers.
func (p *pinger) listen(fd int, kind byte, skip int) {
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			if err == unix.EINTR {
				continue
			}
			return
		}
		if n < skip+8 || buf[skip] != kind || binary.BigEndian.Uint16(buf[skip+4:]) != p.id {
			continue
		}
		if i := int(binary.BigEndian.Uint16(buf[skip+6:])); i < len(p.done) {
			p.done[i].Store(true)
		}
	}
}

// ask sends one request to each address that has not answered yet.
func (p *pinger) ask(pace time.Duration) {
	for i, to := range p.targets {
		if p.done[i].Load() {
			continue
		}
		p.request(uint16(i), to)
		p.sent++
		time.Sleep(pace)
	}
}

// request sends one echo request. An error is no news: the address stays on
// the list.
func (p *pinger) request(seq uint16, to netip.Addr) {
	b := make([]byte, 40)
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], seq)
	_, sa := sockaddr(netip.AddrPortFrom(to, 0))
	if to.Is4() {
		b[0] = echoRequest4
		binary.BigEndian.PutUint16(b[2:], internetSum(b))
		_ = unix.Sendto(p.fd4, b, 0, sa)
		return
	}
	b[0] = echoRequest6 // the kernel sums ICMPv6, RFC 3542 §3.1
	_ = unix.Sendto(p.fd6, b, 0, sa)
}

// internetSum is the checksum of RFC 1071 over an even number of bytes.
func internetSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func (p *pinger) left() int {
	n := 0
	for i := range p.done {
		if !p.done[i].Load() {
			n++
		}
	}
	return n
}
