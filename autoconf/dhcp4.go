// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice/packet"
)

// dhcp4 answers a message to the DHCP server.
func (s *Server) dhcp4(dst []byte, sv *service, f *packet.Frame, c *Client) ([]byte, Verdict) {
	b, v := f.Bytes(), &f.View
	to := v.DstAddr(b)
	if to != limitedBroadcast() && !sv.link.owns(to) {
		return dst, Pass // it is on its way through
	}
	var m message4
	if !intact(f) {
		return dst, Malformed
	}
	if p, ok := payload(f); !ok || !m.parse(p) {
		return dst, Malformed
	}
	// A relay would speak for clients that are not the container.
	if m.chaddr() != c.MAC || f.SrcMAC() != c.MAC || !m.giaddr().IsUnspecified() {
		return dst, Refused
	}
	r := reply4{message: &m, client: c, server: sv.v4, link: &sv.link}
	if !r.bind() {
		return dst, Refused
	}
	r.decide()
	s.count4(&r)
	if r.typ == 0 {
		return dst, Done
	}
	return r.append(dst), Done
}

func limitedBroadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

func (s *Server) count4(r *reply4) {
	switch {
	case r.typ == offer:
		s.counts.offers.Add(1)
	case r.typ == ack:
		s.counts.acks.Add(1)
	case r.typ == nak:
		s.counts.naks.Add(1)
	case r.message.typ == decline && r.forUs():
		s.counts.declines.Add(1)
	case r.message.typ == release && r.forUs():
		s.counts.releases.Add(1)
	}
}

// reply4 is an answer in the making.
type reply4 struct {
	message *message4
	client  *Client
	server  *server4
	link    *link
	addr    netip.Addr // that the client has
	subnet  *subnet4   // of addr
	typ     uint8      // 0: none
	rapid   bool
}

// bind finds the client's address: the one that it speaks of if it is the
// container's, else the container's first. False if it has none of a subnet here.
func (r *reply4) bind() bool {
	for _, a := range [2]netip.Addr{r.message.ciaddr(), r.message.requested} {
		if slices.Contains(r.client.Addrs, a) && r.bindTo(a) {
			return true
		}
	}
	return slices.ContainsFunc(r.client.Addrs, r.bindTo)
}

func (r *reply4) bindTo(a netip.Addr) bool {
	for i := range r.server.subnets {
		if sub := &r.server.subnets[i]; sub.gateway.Contains(a) && sub.gateway.Addr() != a {
			r.addr, r.subnet = a, sub
			return true
		}
	}
	return false
}

// forUs reports whether the message names this server, or none.
func (r *reply4) forUs() bool {
	return !r.message.server.IsValid() || r.link.owns(r.message.server)
}

// decide finds the kind of the answer, RFC 2131 §4.3.
func (r *reply4) decide() {
	switch r.message.typ {
	case discover:
		r.typ = offer
		if r.message.rapid { // RFC 4039 §3.1: nothing else could be given anyway
			r.typ, r.rapid = ack, true
		}
	case request:
		r.typ = r.request()
	case inform:
		if r.message.ciaddr() == r.addr {
			r.typ = ack
		}
	}
}

// request is RFC 2131 §4.3.2. The states are told apart as its table 4 says.
func (r *reply4) request() uint8 {
	m, asked := r.message, r.message.ciaddr()
	if asked.IsUnspecified() { // SELECTING, INIT-REBOOT
		asked = m.requested
	}
	switch {
	case !r.forUs(), !asked.IsValid():
		return 0 // it chose another server, or says nothing
	case asked != r.addr:
		return nak
	}
	return ack
}

// gives reports whether the answer gives an address, or confirms one.
func (r *reply4) gives() bool { return r.typ == offer || r.typ == ack && r.message.typ != inform }

// append writes the frame.
func (r *reply4) append(dst []byte) []byte {
	begin := len(dst)
	e := r.ends()
	dst = e.udp4(dst)
	at := len(dst)
	dst = r.header(dst)
	var w writer4
	w.init(r.size())
	r.options(&w)
	dst = w.finish(dst, at)
	finishUDP4(dst[begin:])
	return dst
}

// ends is RFC 2131 §4.1, but for the MAC, which is always the client's.
func (r *reply4) ends() ends {
	e := ends{
		fromMAC: r.link.mac, toMAC: r.client.MAC,
		from: r.subnet.gateway.Addr(), to: r.addr,
		sport: serverPort4, dport: clientPort4,
	}
	if r.typ == nak || r.message.ciaddr() != r.addr && r.message.broadcast() {
		e.to = limitedBroadcast()
	}
	return e
}

// header is RFC 2131 §4.3.1, table 3.
func (r *reply4) header(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, optionsAt)...)
	h, q := dst[at:], r.message.raw
	h[opAt], h[htypeAt], h[hlenAt] = opReply, htypeEthernet, 6
	copy(h[xidAt:xidAt+4], q[xidAt:])
	copy(h[flagsAt:flagsAt+2], q[flagsAt:])
	if r.typ == ack {
		copy(h[ciaddrAt:ciaddrAt+4], q[ciaddrAt:])
	}
	if r.gives() {
		a := r.addr.As4()
		copy(h[yiaddrAt:], a[:])
	}
	copy(h[chaddrAt:snameAt], q[chaddrAt:])
	binary.BigEndian.PutUint32(h[magicAt:], magic)
	return dst
}

// size is how long the datagram may be.
func (r *reply4) size() int {
	return max(minSize4, min(int(r.message.maxSize), r.link.mtu, maxSize4))
}

func (r *reply4) options(w *writer4) {
	w.byte(optType, r.typ)
	w.addr(optServer, r.subnet.gateway.Addr())
	if len(r.message.clientID) > 0 {
		w.put(optClientID, r.message.clientID) // RFC 6842
	}
	if r.typ == nak {
		return
	}
	if r.gives() {
		lease := r.server.lease
		w.seconds(optLease, lease)
		w.seconds(optT1, part(lease, 1, 2)) // RFC 2131 §4.4.5
		w.seconds(optT2, part(lease, 7, 8))
	}
	if r.rapid {
		w.put(optRapidCommit4, nil)
	}
	for i := range r.subnet.options {
		if o := &r.subnet.options[i]; r.wants(o.code) {
			w.put(o.code, o.data)
		}
	}
	if r.server.hostName && r.wants(optHostName) && validName(r.client.Name) {
		w.put(optHostName, []byte(r.client.Name))
	}
}

// wants reports whether the client asked for an option; one without a list takes
// all, and nobody can do without the mask.
func (r *reply4) wants(code uint8) bool {
	return !r.message.asks || code == optMask || r.message.wants.has(code)
}

// part is a fraction of a time; no part of Forever ends.
func part(t, n, of uint32) uint32 {
	if t == Forever {
		return Forever
	}
	return uint32(uint64(t) * uint64(n) / uint64(of))
}
