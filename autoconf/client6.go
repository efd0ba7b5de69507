// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"sluice/packet"
)

// The times of the client, in seconds, RFC 8415 §7.6.
const (
	maxBackoff6 = 120
	requestMax6 = 10 // REQ_MAX_RC
)

// phase6 is what a client is waiting for.
type phase6 uint8

const (
	off6 phase6 = iota
	soliciting6
	requesting6
	bound6
	confirming6 // by a Rebind, which also prolongs
)

// client6 is a client of DHCPv6, of one IA_NA. lease is in use.
type client6 struct {
	phase  phase6
	xid    dhcpv6.TransactionID
	tries  int
	next   int64
	began  int64
	server []byte // of the advertisement that was taken
	offer  *dhcpv6.OptIANA
	lease  *Lease6
}

func (c *client6) set(on, was bool) {
	switch {
	case !on:
		*c = client6{}
	case !was && c.lease != nil:
		c.confirm()
	case !was:
		*c = client6{phase: soliciting6}
	}
}

func (c *client6) confirm() {
	switch {
	case c.phase == off6 && c.lease == nil:
	case c.lease == nil:
		*c = client6{phase: soliciting6}
	default:
		*c = client6{phase: confirming6, lease: c.lease}
	}
}

// due6 sends what is due.
//
// +checklocks:l.mu
func (l *Learner) due6(now int64, emit Emit) {
	c := &l.v6
	if c.lease != nil && now >= c.lease.End {
		*c = client6{phase: soliciting6}
	}
	if c.phase == off6 || now < c.next {
		return
	}
	switch c.phase {
	case soliciting6:
		l.send6(now, emit, dhcpv6.MessageTypeSolicit)
	case requesting6:
		if c.tries >= requestMax6 {
			*c = client6{phase: soliciting6}
			return
		}
		l.send6(now, emit, dhcpv6.MessageTypeRequest)
	case confirming6:
		if c.tries > confirmTries {
			*c = client6{phase: bound6, lease: c.lease, next: c.lease.Renew}
			return
		}
		l.send6(now, emit, dhcpv6.MessageTypeRebind)
	case bound6:
		l.renew6(now, emit)
	case off6:
	}
}

// renew6 asks the server, or after a while any.
//
// +checklocks:l.mu
func (l *Learner) renew6(now int64, emit Emit) {
	switch lease := l.v6.lease; {
	case now < lease.Renew:
		l.v6.next = lease.Renew
	case now < lease.Rebind:
		l.send6(now, emit, dhcpv6.MessageTypeRenew)
	default:
		l.send6(now, emit, dhcpv6.MessageTypeRebind)
	}
}

// send6 sends a message to all servers.
//
// +checklocks:l.mu
func (l *Learner) send6(now int64, emit Emit, kind dhcpv6.MessageType) {
	c := &l.v6
	if c.tries == 0 {
		c.began = now
		x := l.rng.Uint32()
		c.xid = dhcpv6.TransactionID{byte(x), byte(x >> 8), byte(x >> 16)}
	}
	c.next = now + l.backoff(c.tries, maxBackoff6)
	c.tries++
	m := &dhcpv6.Message{MessageType: kind, TransactionID: c.xid}
	m.AddOption(dhcpv6.OptClientID(l.duid()))
	m.AddOption(dhcpv6.OptElapsedTime(time.Duration(min(now-c.began, 600)) * time.Second))
	m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer))
	switch kind {
	case dhcpv6.MessageTypeRequest:
		l.named(m, c.server)
		m.AddOption(&dhcpv6.OptIANA{IaId: l.iaid(), Options: c.offer.Options})
	case dhcpv6.MessageTypeRenew:
		l.named(m, c.lease.Server)
		m.AddOption(l.held6())
	case dhcpv6.MessageTypeRebind:
		m.AddOption(l.held6())
	default:
		m.AddOption(&dhcpv6.OptIANA{IaId: l.iaid()})
	}
	e := ends{
		fromMAC: l.link.mac, toMAC: packet.MAC{0x33, 0x33, 0, 1, 0, 2}, from: l.link.local,
		to: netip.AddrFrom16([16]byte{0xff, 2, 13: 1, 15: 2}), sport: clientPort6, dport: serverPort6,
	}
	frame := append(e.udp6(nil), m.ToBytes()...)
	finishIP6(frame)
	emit(frame)
}

func (l *Learner) named(m *dhcpv6.Message, server []byte) {
	if d, err := dhcpv6.DUIDFromBytes(server); err == nil {
		m.AddOption(dhcpv6.OptServerID(d))
	}
}

// held6 is the IA_NA of the lease.
//
// +checklocks:l.mu
func (l *Learner) held6() *dhcpv6.OptIANA {
	ia := &dhcpv6.OptIANA{IaId: l.iaid()}
	for _, s := range l.v6.lease.Addrs {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: s.Addr.AsSlice()})
	}
	return ia
}

// duid is a DUID-LL, RFC 8415 §11.4.
//
// +checklocks:l.mu
func (l *Learner) duid() dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: l.link.mac[:]}
}

// +checklocks:l.mu
func (l *Learner) iaid() [4]byte { return [4]byte(l.link.mac[2:]) }

// answer6 takes an answer of a server.
//
// +checklocks:l.mu
func (l *Learner) answer6(f *packet.Frame, now int64, emit Emit) {
	c := &l.v6
	m := l.reply6(f)
	if m == nil {
		return
	}
	server := m.Options.ServerID().ToBytes()
	switch {
	case m.MessageType == dhcpv6.MessageTypeAdvertise && c.phase == soliciting6:
		if ia := l.given(m); ia != nil {
			*c = client6{phase: requesting6, server: server, offer: ia}
			l.send6(now, emit, dhcpv6.MessageTypeRequest)
		}
	case m.MessageType == dhcpv6.MessageTypeReply && c.phase >= requesting6:
		l.granted(m, server, now)
	}
}

// reply6 is the message of a frame; nil if it is no answer to what was asked last.
//
// +checklocks:l.mu
func (l *Learner) reply6(f *packet.Frame) *dhcpv6.Message {
	p, ok := payload(f)
	if !ok || len(p) < 4 || l.v6.tries == 0 || !bytes.Equal(p[1:4], l.v6.xid[:]) || !intact(f) {
		return nil
	}
	m, err := dhcpv6.MessageFromBytes(p)
	if err != nil || m.Options.ClientID() == nil || !m.Options.ClientID().Equal(l.duid()) || m.Options.ServerID() == nil {
		return nil
	}
	return m
}

// given is the IA_NA of a message, if it has addresses.
//
// +checklocks:l.mu
func (l *Learner) given(m *dhcpv6.Message) *dhcpv6.OptIANA {
	if s := m.Options.Status(); s != nil && s.StatusCode != iana.StatusSuccess {
		return nil
	}
	for _, ia := range m.Options.IANA() {
		if s := ia.Options.Status(); ia.IaId == l.iaid() && len(ia.Options.Addresses()) > 0 && (s == nil || s.StatusCode == iana.StatusSuccess) {
			return ia
		}
	}
	return nil
}

// granted takes a Reply. One that grants nothing ends what is held.
//
// +checklocks:l.mu
func (l *Learner) granted(m *dhcpv6.Message, server []byte, now int64) {
	c := &l.v6
	ia := l.given(m)
	if ia == nil {
		*c = client6{phase: soliciting6, next: now + 10}
		return
	}
	lease := &Lease6{Server: server, End: now}
	lease.take(ia, now)
	if len(lease.Addrs) == 0 {
		*c = client6{phase: soliciting6, next: now + 10}
		return
	}
	for _, ip := range m.Options.DNS() {
		if a, ok := netip.AddrFromSlice(ip); ok && is6(a) && isHost(a) && len(lease.DNS) < maxDNS {
			lease.DNS = append(lease.DNS, a)
		}
	}
	*c = client6{phase: bound6, lease: lease, next: lease.Renew}
}

// take reads addresses and times; a server that leaves the times to the client, or
// gives some that make no sense, gets those of RFC 8415 §21.4.
func (lease *Lease6) take(ia *dhcpv6.OptIANA, now int64) {
	least := int64(forever)
	for _, o := range ia.Options.Addresses() {
		a, ok := netip.AddrFromSlice(o.IPv6Addr)
		valid := uint32(min(o.ValidLifetime/time.Second, Forever))
		if !ok || !is6(a) || unfit(netip.PrefixFrom(a, 128)) || valid == 0 || len(lease.Addrs) == maxPrefixes {
			continue
		}
		end := lasts(now, valid)
		lease.Addrs = append(lease.Addrs, LearnedServer{Addr: a, End: end})
		lease.End, least = max(lease.End, end), min(least, end)
	}
	lease.Renew, lease.Rebind = now+int64(ia.T1/time.Second), now+int64(ia.T2/time.Second)
	if lease.Renew <= now || lease.Rebind <= lease.Renew || lease.Rebind >= least {
		lease.Renew, lease.Rebind = now+(least-now)/2, now+(least-now)*4/5
	}
}
