// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"sluice/packet"
)

// The times of the client, in seconds; RFC 2131 §4.1 has the first.
const (
	maxBackoff4  = 64
	requestTries = 4
	confirmTries = 3
	declined     = 10 // §3.1, 5: at least ten seconds
	leastLease   = 4
)

// phase4 is a state of RFC 2131 §4.4. Renewing and rebinding are bound.
type phase4 uint8

const (
	off4 phase4 = iota
	init4
	selecting4
	requesting4
	rebooting4
	bound4
)

// client4 is a client of DHCP. lease is in use but in phase requesting.
type client4 struct {
	phase phase4
	xid   uint32
	tries int
	next  int64 // when something is due
	began int64 // of the exchange
	offer *dhcpv4.DHCPv4
	lease *Lease4
}

func (c *client4) set(on, was bool) {
	switch {
	case !on:
		*c = client4{}
	case !was && c.lease != nil:
		c.confirm()
	case !was:
		*c = client4{phase: init4}
	}
}

// confirm asks whether the lease is still good, RFC 2131 §3.2.
func (c *client4) confirm() {
	switch {
	case c.phase == off4 && c.lease == nil:
	case c.lease == nil:
		*c = client4{phase: init4}
	default:
		*c = client4{phase: rebooting4, lease: c.lease}
	}
}

// due4 sends what is due.
//
// +checklocks:l.mu
func (l *Learner) due4(now int64, emit Emit) {
	c := &l.v4
	if c.lease != nil && now >= c.lease.End {
		*c = client4{phase: init4}
	}
	if c.phase == bound4 && l.probes[c.lease.Address.Addr()].isTaken() {
		l.decline(now, emit)
		return
	}
	if c.phase == off4 || now < c.next {
		return
	}
	switch c.phase {
	case init4, selecting4:
		l.discover(now, emit)
	case requesting4:
		if c.tries >= requestTries {
			*c = client4{phase: init4}
			return
		}
		l.request(now, emit)
	case rebooting4:
		l.reboot(now, emit)
	case bound4:
		l.renew(now, emit)
	case off4:
	}
}

// discover looks for servers.
//
// +checklocks:l.mu
func (l *Learner) discover(now int64, emit Emit) {
	c := &l.v4
	if c.phase == init4 {
		*c = client4{phase: selecting4, began: now}
	}
	l.send4(now, emit, dhcpv4.MessageTypeDiscover)
	c.next = now + l.backoff(c.tries, maxBackoff4)
	c.tries++
}

// reboot is INIT-REBOOT; nobody answering, the lease is used until it ends.
//
// +checklocks:l.mu
func (l *Learner) reboot(now int64, emit Emit) {
	c := &l.v4
	if c.tries >= confirmTries {
		*c = client4{phase: bound4, lease: c.lease, next: c.lease.Renew}
		return
	}
	if c.tries == 0 {
		c.began, c.xid = now, 0
	}
	l.send4(now, emit, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ipOf(c.lease.Address.Addr()))))
	c.next = now + l.backoff(c.tries, 4)
	c.tries++
}

// renew asks the server, or after a while any, RFC 2131 §4.4.5.
//
// +checklocks:l.mu
func (l *Learner) renew(now int64, emit Emit) {
	c := &l.v4
	if now < c.lease.Renew {
		c.next = c.lease.Renew
		return
	}
	if c.tries == 0 {
		c.began, c.xid = now, 0
	}
	c.tries++
	until := c.lease.End
	if now < c.lease.Rebind {
		until = c.lease.Rebind
	}
	l.send4(now, emit, dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(ipOf(c.lease.Address.Addr())))
	c.next = now + max(1, (until-now)/2)
}

// request takes an offer.
//
// +checklocks:l.mu
func (l *Learner) request(now int64, emit Emit) {
	c := &l.v4
	l.send4(now, emit, dhcpv4.MessageTypeRequest,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(c.offer.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(c.offer.ServerIdentifier())))
	c.next = now + l.backoff(c.tries, 8)
	c.tries++
}

// decline gives back an address that somebody else has.
//
// +checklocks:l.mu
func (l *Learner) decline(now int64, emit Emit) {
	c := &l.v4
	l.send4(now, emit, dhcpv4.MessageTypeDecline,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ipOf(c.lease.Address.Addr()))),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ipOf(c.lease.Server))))
	*c = client4{phase: init4, next: now + declined}
}

// backoff doubles, up to a limit, with a random second.
//
// +checklocks:l.mu
func (l *Learner) backoff(tries int, most int64) int64 {
	return min(most, 2<<min(tries, 6)) + int64(l.rng.IntN(2))
}

// send4 broadcasts a message, or sends it to the lease's server if that is to be asked
// alone. Answers are asked for as broadcasts: there is no address yet to send them to.
//
// +checklocks:l.mu
func (l *Learner) send4(now int64, emit Emit, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) {
	c := &l.v4
	if c.xid == 0 {
		c.xid = l.rng.Uint32() | 1
	}
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: l.link.mac[:], NumSeconds: uint16(min(now-c.began, 0xffff)),
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		Options: make(dhcpv4.Options),
	}
	binary.BigEndian.PutUint32(m.TransactionID[:], c.xid)
	m.UpdateOption(dhcpv4.OptMessageType(kind))
	m.UpdateOption(dhcpv4.OptClientIdentifier(append([]byte{1}, l.link.mac[:]...)))
	if kind != dhcpv4.MessageTypeDecline {
		m.UpdateOption(dhcpv4.OptParameterRequestList(dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter,
			dhcpv4.OptionDomainNameServer, dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue))
		m.UpdateOption(dhcpv4.OptMaxMessageSize(uint16(min(max(l.link.mtu, minSize4), maxSize4))))
	}
	for _, f := range more {
		f(m)
	}
	e := ends{
		fromMAC: l.link.mac, toMAC: packet.Broadcast(), from: netip.IPv4Unspecified(),
		to: netip.AddrFrom4([4]byte{255, 255, 255, 255}), sport: clientPort4, dport: serverPort4,
	}
	switch {
	case m.ClientIPAddr.Equal(net.IPv4zero):
		m.SetBroadcast()
	default:
		e.from = c.lease.Address.Addr()
		if now < c.lease.Rebind {
			e.to, e.toMAC = c.lease.Server, c.lease.ServerMAC
		}
	}
	frame := append(e.udp4(nil), m.ToBytes()...)
	finishUDP4(frame)
	emit(frame)
}

// answer4 takes an answer of a server.
//
// +checklocks:l.mu
func (l *Learner) answer4(f *packet.Frame, now int64, emit Emit) {
	c := &l.v4
	m := l.reply4(f)
	if m == nil {
		return
	}
	switch kind := m.MessageType(); {
	case kind == dhcpv4.MessageTypeOffer && c.phase == selecting4 && l.leaseOf(m, f, now) != nil:
		c.phase, c.offer, c.tries = requesting4, m, 0
		l.request(now, emit)
	case kind == dhcpv4.MessageTypeAck && c.phase >= requesting4:
		if lease := l.leaseOf(m, f, now); lease != nil {
			*c = client4{phase: bound4, lease: lease, next: lease.Renew}
		}
	case kind == dhcpv4.MessageTypeNak && c.phase >= requesting4 && (c.phase != bound4 || c.tries > 0):
		*c = client4{phase: init4, next: now + 1}
	}
}

// reply4 is the message of a frame; nil if it is no answer to what was asked last.
//
// +checklocks:l.mu
func (l *Learner) reply4(f *packet.Frame) *dhcpv4.DHCPv4 {
	p, ok := payload(f)
	if !ok || len(p) < optionsAt || l.v4.xid == 0 || binary.BigEndian.Uint32(p[xidAt:]) != l.v4.xid || packet.MAC(p[chaddrAt:]) != l.link.mac {
		return nil
	}
	m, err := dhcpv4.FromBytes(p)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.ServerIdentifier().To4() == nil || !intact(f) {
		return nil
	}
	return m
}

// leaseOf reads a lease; nil if it is none that can be used.
//
// +checklocks:l.mu
func (l *Learner) leaseOf(m *dhcpv4.DHCPv4, f *packet.Frame, now int64) *Lease4 {
	a, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
	seconds := int64(m.IPAddressLeaseTime(0) / time.Second)
	if !ok || !isHost(a) || seconds == 0 {
		return nil
	}
	lease := &Lease4{Address: netip.PrefixFrom(a, maskOf(m.SubnetMask(), a)), ServerMAC: f.SrcMAC()}
	lease.Server, _ = netip.AddrFromSlice(m.ServerIdentifier().To4())
	lease.times(m, now, max(seconds, leastLease))
	lease.routes(m)
	for _, ip := range m.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && isHost(a) && len(lease.DNS) < maxDNS {
			lease.DNS = append(lease.DNS, a)
		}
	}
	return lease
}

// times are those of RFC 2131 §4.4.5, if the message has none that make sense.
func (lease *Lease4) times(m *dhcpv4.DHCPv4, now, seconds int64) {
	if seconds == Forever {
		lease.Renew, lease.Rebind, lease.End = forever, forever, forever
		return
	}
	t1 := int64(m.IPAddressRenewalTime(0) / time.Second)
	t2 := int64(m.IPAddressRebindingTime(0) / time.Second)
	if t1 <= 0 || t1 >= t2 || t2 >= seconds {
		t1, t2 = seconds/2, seconds*7/8
	}
	lease.Renew, lease.Rebind, lease.End = now+t1, now+t2, now+seconds
}

// routes are those of RFC 3442, or the default one by the first router.
func (lease *Lease4) routes(m *dhcpv4.DHCPv4) {
	for _, r := range m.ClasslessStaticRoute() {
		bits, _ := r.Dest.Mask.Size()
		dst, ok := netip.AddrFromSlice(r.Dest.IP.To4())
		via, _ := netip.AddrFromSlice(r.Router.To4())
		if !ok || len(lease.Routes) == maxLearnedRoutes {
			continue
		}
		if via.IsUnspecified() {
			via = netip.Addr{}
		}
		lease.Routes = append(lease.Routes, LearnedRoute{Dst: netip.PrefixFrom(dst, bits).Masked(), Via: via, DHCP: true})
	}
	if len(lease.Routes) > 0 {
		return // then routers are to be ignored
	}
	for _, ip := range m.Router() {
		if via, ok := netip.AddrFromSlice(ip.To4()); ok && !via.IsUnspecified() {
			lease.Routes = []LearnedRoute{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: via, DHCP: true}}
			return
		}
	}
}

const maxLearnedRoutes = 64

// maskOf is the length of a mask; without one, that of the address's class.
func maskOf(mask net.IPMask, a netip.Addr) int {
	if bits, size := mask.Size(); size == 32 && bits > 0 {
		return bits
	}
	b := a.As4()
	switch {
	case b[0] < 128:
		return 8
	case b[0] < 192:
		return 16
	}
	return 24
}

func ipOf(a netip.Addr) net.IP { return a.AsSlice() }
