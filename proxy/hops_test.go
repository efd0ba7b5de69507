// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"sluice/dial"
	"sluice/trace"
)

// The world of these tests has two routers, and the host's interface is narrower than
// the container's:
//
//	container -(1500)- proxy, host -(1450)- one -(1450)- two -(1300)- far
//	                    .1     .2     .1     .2  .1     .2
const hopsScript = `set -e
for n in host one two far; do
  ip netns add $p$n
  ip netns exec $p$n sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
  ip -n $p$n link set lo up
done
wire() { # from, to, number, MTU
  ip -n $p$1 link add to$2 mtu $4 type veth peer name to$1 mtu $4 netns $p$2
  ip -n $p$1 addr add 198.18.$3.1/24 dev to$2; ip -n $p$1 addr add 2001:db8:$3::1/64 nodad dev to$2
  ip -n $p$2 addr add 198.18.$3.2/24 dev to$1; ip -n $p$2 addr add 2001:db8:$3::2/64 nodad dev to$1
  ip -n $p$1 link set to$2 up; ip -n $p$2 link set to$1 up
}
wire host one 1 1450; wire one two 2 1450; wire two far 3 1300
via() { ip -n $p$1 route add default via 198.18.$2; ip -n $p$1 -6 route add default via 2001:db8:$3; }
via host 1.2 1::2; via one 2.2 2::2; via two 2.1 2::1; via far 3.1 3::1
ip netns exec $p'host' sysctl -qw "net.ipv4.ping_group_range=$group"
`

// hops is that world, for one lab.
type hops struct {
	*lab
	prefix string
}

// newHops makes it; group is the sysctl of who may have ping sockets.
func newHops(t *testing.T, group string) *hops {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	h := &hops{lab: newLab(t), prefix: fmt.Sprintf("slp%d-%d-", os.Getpid(), time.Now().UnixNano()%1e6)}
	t.Cleanup(func() {
		for _, n := range []string{"host", "one", "two", "far"} {
			_ = exec.Command("ip", "netns", "del", h.prefix+n).Run()
		}
	})
	cmd := exec.Command("sh", "-c", hopsScript)
	cmd.Env = append(os.Environ(), "p="+h.prefix, "group="+group)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.open = func(d *dial.Target) (s dial.Socket) {
		h.within("host", func() { s = new(dial.Policy).Open(d) })
		return s
	}
	h.entrance.sent = make(chan []byte, 256)
	return h
}

// within calls f on a thread in one of the namespaces.
func (h *hops) within(ns string, f func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+h.prefix+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		h.Error(err)
	}
}

// probe is what the container sends.
type probe struct {
	six      bool
	echo     bool
	hops     uint8
	class    uint8
	fragment bool   // it may be fragmented (IPv4)
	ident    uint16 // of echo; 0: probeIdent
	seq      uint16
	size     int // of the payload
}

const probeIdent, probePort = 4711, 33434

func (p *probe) addrs() (src, dst tcpip.Address) {
	s, d := "10.44.0.2", "198.18.3.2"
	if p.six {
		s, d = "fd44::2", "2001:db8:3::2"
	}
	return full(netip.AddrPortFrom(netip.MustParseAddr(s), 0).String()).Addr, full(netip.AddrPortFrom(netip.MustParseAddr(d), 0).String()).Addr
}

// packet is the probe, with an IP header.
func (p *probe) packet() []byte {
	src, dst := p.addrs()
	body := make([]byte, 8+p.size)
	for i := range p.size {
		body[8+i] = byte(i * 7)
	}
	proto := header.UDPProtocolNumber
	if p.echo {
		proto = header.ICMPv4ProtocolNumber
		body[0] = byte(header.ICMPv4Echo)
		if p.six {
			proto, body[0] = header.ICMPv6ProtocolNumber, byte(header.ICMPv6EchoRequest)
		}
		binary.BigEndian.PutUint16(body[4:], cmp.Or(p.ident, probeIdent))
		binary.BigEndian.PutUint16(body[6:], p.seq)
	} else {
		header.UDP(body).Encode(&header.UDPFields{SrcPort: probeIdent, DstPort: probePort, Length: uint16(len(body))})
	}
	var sum uint16
	if !p.echo || p.six {
		sum = header.PseudoHeaderChecksum(proto, src, dst, uint16(len(body)))
	}
	at := map[bool]int{false: 6, true: 2}[p.echo]
	binary.BigEndian.PutUint16(body[at:], ^checksum.Checksum(body, sum))
	if p.six {
		ip := make(header.IPv6, header.IPv6MinimumSize)
		ip.Encode(&header.IPv6Fields{
			TrafficClass: p.class, PayloadLength: uint16(len(body)), TransportProtocol: proto, HopLimit: p.hops, SrcAddr: src, DstAddr: dst,
		})
		return append(ip, body...)
	}
	ip := make(header.IPv4, header.IPv4MinimumSize)
	f := header.IPv4Fields{TOS: p.class, TotalLength: uint16(len(ip) + len(body)), TTL: p.hops, Protocol: uint8(proto), SrcAddr: src, DstAddr: dst, Flags: header.IPv4FlagDontFragment}
	if p.fragment {
		f.Flags = 0
	}
	ip.Encode(&f)
	ip.SetChecksum(^ip.CalculateChecksum())
	return append(ip, body...)
}

// send gives the uplink's stack a packet, as the container's.
func (h *hops) send(b []byte) { h.sendBy(7, b) }

func (h *hops) sendBy(port uint16, b []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	defer pkt.DecRef()
	pkt.Hash = Mark(port, 0)
	proto := header.IPv4ProtocolNumber
	if b[0]>>4 == 6 {
		proto = header.IPv6ProtocolNumber
	}
	h.entrance.DeliverNetworkPacket(proto, pkt)
}

// heard is an ICMP error that came to the container.
type heard struct {
	from       string
	hops       uint8
	kind, code byte
	mtu        uint32
	quoted     []byte
}

// hear waits for one.
func (h *hops) hear() (e heard) {
	h.Helper()
	for {
		select {
		case b := <-h.entrance.sent:
			if e, ok := h.parse(b); ok {
				return e
			}
		case <-time.After(patience):
			h.Fatalf("nothing came; %v", h.proxy.Entries())
		}
	}
}

func (h *hops) parse(b []byte) (e heard, ok bool) {
	var icmp []byte
	var sum uint16
	if ip := header.IPv4(b); b[0]>>4 == 4 {
		if ip.Protocol() != uint8(header.ICMPv4ProtocolNumber) || ip.CalculateChecksum() != 0xffff || int(ip.TotalLength()) != len(b) {
			return e, false
		}
		e.from, e.hops, icmp = ip.SourceAddress().String(), ip.TTL(), ip.Payload()
		e.mtu = uint32(binary.BigEndian.Uint16(icmp[6:]))
	} else {
		ip := header.IPv6(b)
		if ip.NextHeader() != uint8(header.ICMPv6ProtocolNumber) || int(ip.PayloadLength()) != len(b)-header.IPv6MinimumSize {
			return e, false
		}
		e.from, e.hops, icmp = ip.SourceAddress().String(), ip.HopLimit(), ip.Payload()
		e.mtu = binary.BigEndian.Uint32(icmp[4:])
		sum = header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(icmp)))
	}
	if checksum.Checksum(icmp, sum) != 0xffff {
		h.Errorf("a wrong checksum: %x", b)
	}
	e.kind, e.code, e.quoted = icmp[0], icmp[1], icmp[8:]
	if e.kind == byte(header.ICMPv4EchoReply) || e.kind == byte(header.ICMPv6EchoReply) {
		return e, false
	}
	return e, true
}

// want compares an error, which quotes the probe.
func (h *hops) want(p *probe, from string, left uint8, kind, code byte, mtu uint32) {
	h.Helper()
	e := h.hear()
	if e.from != from || e.hops != left || e.kind != kind || e.code != code || e.mtu != mtu {
		h.Errorf("%+v: from %s with %d hops: type %d, code %d, MTU %d; want %s, %d: %d, %d, %d", *p, e.from, e.hops, e.kind, e.code, e.mtu, from, left, kind, code, mtu)
	}
	sent := p.packet()
	if n := len(e.quoted); n < 28 || n > len(sent) || !bytes.Equal(e.quoted, sent[:n]) {
		h.Errorf("%+v: quoted %d bytes, %x of\n%x", *p, n, e.quoted[:min(n, 80)], sent[:min(n, 80)])
	}
}

// TestHops is about what the outside hears of containers' IP headers, and they of it.
func TestHops(t *testing.T) {
	for name, group := range map[string]string{"ping sockets": "0 2147483647", "raw sockets": "1 0"} {
		t.Run(name, func(t *testing.T) {
			h := newHops(t, group)
			h.trace(false, false)
			h.trace(false, true)
			h.trace(true, false)
			h.trace(true, true)
			if n := len(h.proxy.Entries()); n != 4 {
				t.Errorf("%d flows", n)
			}
			h.errorsWait()
			h.othersErrors()
			h.headersArrive()
			h.pathMTU()
			h.fragmentsArrive()
		})
	}
}

// trace: what a traceroute sends is answered by the routers, one after the other, and by
// the far end, in one flow.
func (h *hops) trace(six, echo bool) {
	h.Helper()
	one, two, far := "198.18.1.2", "198.18.2.2", "198.18.3.2"
	exceeded, refused := byte(header.ICMPv4TimeExceeded), [2]byte{byte(header.ICMPv4DstUnreachable), byte(header.ICMPv4PortUnreachable)}
	if six {
		one, two, far = "2001:db8:1::2", "2001:db8:2::2", "2001:db8:3::2"
		exceeded, refused = byte(header.ICMPv6TimeExceeded), [2]byte{byte(header.ICMPv6DstUnreachable), byte(header.ICMPv6PortUnreachable)}
	}
	for n := range uint16(8) { // there and back: terms change with each one
		p := &probe{six: six, echo: echo, hops: 1, seq: n, size: 40}
		h.send(p.packet())
		h.want(p, one, 64, exceeded, 0, 0)
		p.hops, p.seq = 2, n+100
		h.send(p.packet())
		h.want(p, two, 63, exceeded, 0, 0)
	}
	if echo {
		return
	}
	p := &probe{six: six, hops: 63, size: 40}
	h.send(p.packet())
	h.want(p, far, 62, refused[0], refused[1], 0)
}

// flow is that of a probe.
func (h *hops) flow(p *probe) *flow {
	h.Helper()
	src, dst := p.addrs()
	k := flowKey{dial.UDP, addrPort(src, probeIdent), addrPort(dst, probePort)}
	if p.echo {
		k = flowKey{map[bool]uint8{false: dial.Echo4, true: dial.Echo6}[p.six], addrPort(src, cmp.Or(p.ident, probeIdent)), addrPort(dst, 0)}
	}
	h.proxy.mu.Lock()
	defer h.proxy.mu.Unlock()
	f := h.proxy.flows[k]
	if f == nil {
		h.Fatalf("%+v has no flow", *p)
	}
	return f
}

// failed waits until a socket has an error, and then puts a probe into it.
//
// +checklocks:f.mu
func (h *hops) failed(f *flow, p *probe) {
	h.Helper()
	poll := []unix.PollFd{{Fd: int32(f.fd)}}
	h.eventually("an error", func() bool { // a signal ends the call as well
		n, _ := unix.Poll(poll, 100)
		return n == 1 && poll[0].Revents&unix.POLLERR != 0
	})
	f.agree(terms{hops: 63, whole: true})
	b := p.packet()[f.quote.ip:]
	if f.key.proto == dial.UDP {
		b = b[8:]
	}
	if errno := f.put(b, 0); errno != 0 {
		h.Errorf("%+v: %v", *p, errno)
	}
}

// errorsWait: an error that waits in the socket is not that of the next message, which is
// sent.
func (h *hops) errorsWait() {
	h.Helper()
	for _, p := range []*probe{{echo: true, seq: 500, size: 40}, {echo: true, six: true, seq: 500, size: 40}} {
		f := h.flow(p)
		f.mu.Lock()
		f.agree(terms{hops: 1, whole: true})
		if errno := f.putOnce(p.packet()[f.quote.ip:], 0); errno != 0 {
			h.Error(errno)
		}
		h.failed(f, p)
		ip := f.quote.ip
		f.mu.Unlock()
		if e := h.hear(); e.kind != byte(header.ICMPv4TimeExceeded) && e.kind != byte(header.ICMPv6TimeExceeded) || !bytes.Equal(e.quoted[ip:], p.packet()[ip:]) {
			h.Errorf("%+v", e)
		}
		h.answered()
	}
}

// othersErrors: what one flow of pings hears of is not told to another's sender, whose
// raw socket has heard of it, too.
func (h *hops) othersErrors() {
	h.Helper()
	for _, six := range []bool{false, true} {
		bystander, p := &probe{six: six, echo: true, hops: 63, ident: 99, size: 40}, &probe{six: six, echo: true, hops: 1, size: 40}
		h.sendBy(8, bystander.packet())
		h.answered()
		f := h.flow(bystander)
		if !f.isRaw {
			return
		}
		f.mu.Lock()
		h.send(p.packet())
		h.failed(f, bystander)
		f.mu.Unlock()
		seen := [2]int{} // the error, and the answer
		for range seen {
			select {
			case b := <-h.entrance.sent:
				e, isError := h.parse(b)
				if isError && !bytes.Equal(e.quoted, p.packet()) {
					h.Errorf("an error about %x", e.quoted)
				}
				seen[map[bool]int{true: 0, false: 1}[isError]]++
			case <-time.After(patience):
			}
		}
		if seen != [2]int{1, 1} {
			h.Errorf("%d errors, %d answers", seen[0], seen[1])
		}
	}
}

// answered waits for an echo reply, before which there may be no error.
func (h *hops) answered() {
	h.Helper()
	select {
	case b := <-h.entrance.sent:
		if e, ok := h.parse(b); ok {
			h.Errorf("%+v", e)
		}
	case <-time.After(patience):
		h.Fatal("no answer")
	}
}

// pathMTU: who forbids to fragment hears of the narrow router's MTU, and of the host's
// own.
func (h *hops) pathMTU() {
	h.Helper()
	for _, p := range []probe{{}, {echo: true}, {six: true}, {six: true, echo: true}} {
		own, two, kind, code := "198.18.1.1", "198.18.2.2", byte(header.ICMPv4DstUnreachable), byte(header.ICMPv4FragmentationNeeded)
		if p.six {
			own, two, kind, code = "2001:db8:1::1", "2001:db8:2::2", byte(header.ICMPv6PacketTooBig), 0
		}
		p.hops = 63
		before := h.dropped(trace.FragNeeded)
		p.size = 1440
		h.send(p.packet())
		h.want(&p, own, 64, kind, code, 1450)
		h.eventually("it is counted", func() bool { return h.dropped(trace.FragNeeded) == before+1 })
		for range 2 { // also when the host knows it
			p.size = 1350
			h.send(p.packet())
			h.want(&p, two, 63, kind, code, 1300)
		}
	}
}

// headersArrive: hop limit and class are those of the container's header, and what may be
// fragmented is.
func (h *hops) headersArrive() {
	h.Helper()
	for _, p := range []probe{
		{hops: 63, size: 10},
		{hops: 10, class: 0xb8, size: 10},
		{hops: 200, class: 0x02, size: 1400, fragment: true},
		{hops: 63, size: 10, six: true},
		{hops: 10, class: 0xb8, size: 10, six: true},
		{hops: 200, class: 0x02, size: 1200, six: true},
	} {
		b := p.packet()
		ttl, class, n := h.arrives(p.six, func() { h.send(b) })
		if ttl != p.hops-2 || class != p.class || n != p.size {
			h.Errorf("%+v: %d bytes with %d hops, class %#x", p, n, ttl, class)
		}
	}
}

// fragmentsArrive: what comes in fragments of IPv6 is put together, and taken apart again
// as the host has to, which has to hear of the narrow link first.
func (h *hops) fragmentsArrive() {
	h.Helper()
	p := probe{six: true, hops: 63, size: 1380}
	whole := p.packet()
	pieces := func() {
		h.send(fragment6(whole, 0, 800))
		h.send(fragment6(whole, 800, len(whole)-40))
	}
	if _, _, n := h.arrives(true, pieces); n != p.size {
		h.Errorf("of a fragmented one %d bytes arrived", n)
	}
}

// fragment6 is a part of a packet without extension headers (RFC 8200 §4.5).
func fragment6(whole []byte, from, to int) []byte {
	b := bytes.Clone(whole[:40])
	more := uint16(0)
	if 40+to < len(whole) {
		more = 1
	}
	frag := []byte{b[6], 0, 0, 0, 0, 0, 0, 9}
	binary.BigEndian.PutUint16(frag[2:], uint16(from)|more)
	b[6] = 44
	binary.BigEndian.PutUint16(b[4:], uint16(8+to-from))
	return append(append(b, frag...), whole[40+from:40+to]...)
}

// arrives receives at the far end what send sends.
func (h *hops) arrives(six bool, send func()) (ttl, class uint8, n int) {
	h.Helper()
	var c net.PacketConn
	var err error
	h.within("far", func() {
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
			})
		}}
		c, err = lc.ListenPacket(h.Context(), map[bool]string{false: "udp4", true: "udp6"}[six], fmt.Sprintf(":%d", probePort))
	})
	if err != nil {
		h.Fatal(err)
	}
	defer c.Close()
	send()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	oob := make([]byte, 256)
	n, oobn, _, _, err := c.(*net.UDPConn).ReadMsgUDP(make([]byte, 2000), oob)
	if err != nil {
		h.Fatal(err)
	}
	all, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range all {
		switch [2]int32{m.Header.Level, m.Header.Type} {
		case [2]int32{unix.IPPROTO_IP, unix.IP_TTL}, [2]int32{unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT}:
			ttl = uint8(binary.NativeEndian.Uint32(m.Data))
		case [2]int32{unix.IPPROTO_IP, unix.IP_TOS}, [2]int32{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:
			class = m.Data[0]
		}
	}
	return ttl, class, n
}

// TestReportsAreBounded: more than a port's errors of a second are not made.
func TestReportsAreBounded(t *testing.T) {
	l := newLab(t)
	for range reportsPerSecondAndPort {
		if !l.proxy.mayReport(7) {
			t.Fatal("too few")
		}
	}
	if l.proxy.mayReport(7) || !l.proxy.mayReport(8) {
		t.Error("one port has what is the other's")
	}
	l.proxy.Tick(1)
	if !l.proxy.mayReport(7) {
		t.Error("nothing in the next second")
	}
}

// TestDatagramsAllocateNothing: a flow that goes on as it did costs no memory, and its
// socket is not changed.
func TestDatagramsAllocateNothing(t *testing.T) {
	l := newLab(t)
	at, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	p := probe{hops: 63, class: 0x10, size: 100}
	b := p.packet()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	defer pkt.DecRef()
	pkt.NetworkProtocolNumber, pkt.RXChecksumValidated = header.IPv4ProtocolNumber, true
	pkt.NetworkHeader().Consume(header.IPv4MinimumSize)
	pkt.TransportHeader().Consume(header.UDPMinimumSize)
	src, dst := p.addrs()
	id := stack.TransportEndpointID{
		LocalAddress: dst, LocalPort: uint16(at.LocalAddr().(*net.UDPAddr).Port), RemoteAddress: src, RemotePort: probeIdent,
	}
	l.proxy.handleUDP(id, pkt)
	_, _, err = at.ReadFrom(make([]byte, 200))
	if err != nil {
		t.Fatal(err)
	}
	l.proxy.mu.Lock()
	f := l.proxy.flows[flowKey{dial.UDP, addrPort(src, probeIdent), addrPort(dst, id.LocalPort)}]
	l.proxy.mu.Unlock()
	f.mu.Lock()
	same := f.terms
	_ = unix.SetsockoptInt(f.fd, unix.IPPROTO_IP, unix.IP_TTL, 99)
	f.mu.Unlock()
	if want := (terms{hops: 63, class: 0x10, whole: true}); same != want {
		t.Errorf("%+v, want %+v", same, want)
	}
	if n := testing.AllocsPerRun(100, func() { l.proxy.handleUDP(id, pkt) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ttl, _ := unix.GetsockoptInt(f.fd, unix.IPPROTO_IP, unix.IP_TTL); ttl != 99 {
		t.Errorf("the socket's hop limit was set, to %d", ttl)
	}
}

// FuzzReport: whatever an error queue has, what is made of it is no longer than it may be.
func FuzzReport(f *testing.F) {
	ext := make([]byte, unix.CmsgSpace(32))
	binary.NativeEndian.PutUint64(ext, uint64(unix.CmsgLen(32)))
	binary.NativeEndian.PutUint32(ext[8:], unix.IPPROTO_IP)
	binary.NativeEndian.PutUint32(ext[12:], unix.IP_RECVERR)
	copy(ext[unix.CmsgLen(0):], []byte{113, 0, 0, 0, unix.SO_EE_ORIGIN_ICMP, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, unix.AF_INET, 0, 0, 0, 198, 18, 1, 2})
	f.Add(ext, bytes.Repeat([]byte{1}, 2000), false, false)
	f.Add(ext, []byte{8, 0, 0, 0, 1, 2, 3, 4, 5}, true, true)
	f.Fuzz(func(t *testing.T, oob, about []byte, six, echo bool) {
		p := probe{six: six, echo: echo, size: 4}
		src, dst := p.addrs()
		k := &flow{fd: -1, isRaw: echo, id: stack.TransportEndpointID{LocalAddress: dst, RemoteAddress: src, RemotePort: probeIdent}}
		k.key = flowKey{dial.UDP, addrPort(src, probeIdent), addrPort(dst, probePort)}
		if echo {
			k.key.proto = dial.Echo4
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		b := p.packet()
		k.quote.ip = map[bool]int{false: 20, true: 40}[six]
		k.quote.n = copy(k.quote.b[:], b[:k.quote.ip+8])
		var r report
		if !r.decode(oob) || k.ofAnother(&r, about) || !k.readable(&r) {
			return
		}
		q := k.quoteWith(nil, about)
		if len(q) > maxQuoted6 || !six && len(q) > maxQuoted4 || len(q) < k.quote.n || !strings.HasPrefix(string(q), string(b[:2])) {
			t.Errorf("%x", q)
		}
	})
}
