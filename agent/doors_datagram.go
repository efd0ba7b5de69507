// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"sluice/dial"
)

// Theory of operation.
//
// A socket of datagrams sends to wherever sendto(2) says, connected or not, so the
// dataplane gets none. Each client has a flow, a pair of AF_UNIX: one end is the
// dataplane's, whose messages are the datagrams; what comes by the other, this process
// sends to the client, from the address that the client has sent to. The dataplane ends
// flows that are idle. They end with this process as well: the next datagram of the
// client begins another one by the next process, which looks the same to the container.

// Bounds of the flows of datagrams: of one container, and of all.
const (
	maxMemberFlows = 512
	maxFlows       = 2048
)

// relayKey is a client, and the address of the host that it sends to (not valid: the
// door's only one).
type relayKey struct {
	client netip.AddrPort
	local  netip.Addr
}

// relay is one flow.
type relay struct {
	key    relayKey
	member uint16
	file   *os.File // this end of the pair
	raw    syscall.RawConn
}

// maxDatagram is the longest of UDP.
const maxDatagram = 1 << 16

// receive serves a door of datagrams until it is closed.
func (d *doors) receive(one *door) {
	b, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var err error
		if one.raw.Read(func(fd uintptr) bool {
			n, oobn, _, from, err = unix.Recvmsg(int(fd), b, oob, unix.MSG_DONTWAIT)
			return !errors.Is(err, unix.EAGAIN)
		}) != nil {
			return
		}
		if err != nil {
			continue // an ICMP error of what was sent
		}
		k := relayKey{addrPortOf(from), localOf(oob[:oobn])}
		if r := d.relayOf(one, k); r != nil {
			r.write(b[:n])
		}
	}
}

// write gives the dataplane a datagram. What does not fit is lost, as in any network.
func (r *relay) write(b []byte) {
	_ = r.raw.Control(func(fd uintptr) {
		_ = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	})
}

// relayOf is the flow of a client, which it begins if need be; nil: there is no room for
// another, or nobody to have it.
func (d *doors) relayOf(one *door, k relayKey) *relay {
	d.mu.Lock()
	r, server := one.relays[k], d.server
	if r != nil || server == nil || one.closed || !one.to.there() || d.allFlows >= maxFlows || d.flows[one.to.member] >= maxMemberFlows {
		d.mu.Unlock()
		return r
	}
	a := one.accepted(k.client)
	d.allFlows++
	d.flows[a.Member]++
	d.mu.Unlock()
	r, theirs, err := newRelay(k, a.Member)
	if err != nil {
		d.endFlow(a.Member)
		return nil
	}
	defer unix.Close(theirs)
	a.Proto, a.FD = dial.UDP, theirs
	d.mu.Lock()
	one.relays[k] = r
	d.mu.Unlock()
	go d.answer(one, r)
	if err := server.Pass(a, 0); err != nil {
		d.lose(server)
	}
	return r
}

// newRelay makes a flow, and the dataplane's end of it.
func newRelay(k relayKey, member uint16) (*relay, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, -1, err
	}
	f := os.NewFile(uintptr(fds[0]), "flow")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		unix.Close(fds[1])
		return nil, -1, err
	}
	return &relay{key: k, member: member, file: f, raw: raw}, fds[1], nil
}

func (d *doors) endFlow(member uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.allFlows--
	if d.flows[member]--; d.flows[member] <= 0 {
		delete(d.flows, member)
	}
}

// answer sends the client what the container does, until the flow ends.
func (d *doors) answer(one *door, r *relay) {
	for {
		b := r.read()
		if b == nil {
			break
		}
		one.send(r.key, b)
	}
	d.mu.Lock()
	if one.relays[r.key] == r {
		delete(one.relays, r.key)
	}
	d.mu.Unlock()
	r.file.Close()
	d.endFlow(r.member)
}

// read waits for a message; nil: the flow has ended. There is no buffer while it waits.
func (r *relay) read() (b []byte) {
	err := r.raw.Read(func(fd uintptr) bool {
		size, _, err := unix.Recvfrom(int(fd), nil, unix.MSG_DONTWAIT|unix.MSG_PEEK|unix.MSG_TRUNC)
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		if err != nil || size == 0 && hungUp(int(fd)) {
			return true
		}
		b = make([]byte, min(size, maxDatagram))
		_, _, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
		if err != nil {
			b = nil
		}
		return true
	})
	if err != nil {
		return nil
	}
	return b
}

// hungUp reports whether the other end of a pair is closed: a message of no length looks
// as the end does.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err != nil || n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) != 0
}

// endRelays ends all flows of a door.
func (d *doors) endRelays(one *door) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, r := range one.relays {
		delete(one.relays, k)
		_ = r.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// send sends a datagram to a client, from the address that the client knows. What can't
// be sent is lost, as in any network.
func (d *door) send(k relayKey, b []byte) {
	_ = d.raw.Control(func(fd uintptr) {
		v6, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return
		}
		var to unix.Sockaddr
		var oob []byte
		if v6 == unix.AF_INET6 {
			to = &unix.SockaddrInet6{Port: int(k.client.Port()), Addr: k.client.Addr().As16(), ZoneId: zoneOf(k.client.Addr())}
			if k.local.IsValid() {
				oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: k.local.As16()})
			}
		} else {
			to = &unix.SockaddrInet4{Port: int(k.client.Port()), Addr: k.client.Addr().As4()}
			if k.local.IsValid() {
				oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: k.local.As4()})
			}
		}
		_, _ = unix.SendmsgN(int(fd), b, oob, to, unix.MSG_DONTWAIT)
	})
}

// localOf is the address that a datagram was sent to; not valid: it does not say.
func localOf(oob []byte) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			return netip.AddrFrom16([16]byte(m.Data[:16])).Unmap()
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[8:12]))
		}
	}
	return netip.Addr{}
}
