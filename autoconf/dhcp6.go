// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"bytes"
	"net/netip"
	"slices"

	"sluice/packet"
)

// allServers is All_DHCP_Relay_Agents_and_Servers, RFC 8415 §7.1.
func allServers() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 13: 1, 15: 2})
}

// dhcp6 answers a message to the DHCPv6 server.
func (s *Server) dhcp6(dst []byte, sv *service, f *packet.Frame, c *Client) ([]byte, Verdict) {
	b, v := f.Bytes(), &f.View
	to, src := v.DstAddr(b), v.SrcAddr(b)
	multicast := to == allServers()
	if !multicast && !sv.link.owns(to) {
		return dst, Pass // it is on its way through
	}
	var m message6
	if !intact(f) {
		return dst, Malformed
	}
	if p, ok := payload(f); !ok || !m.parse(p) {
		return dst, Malformed
	}
	if f.SrcMAC() != c.MAC || !src.IsLinkLocalUnicast() {
		return dst, Refused
	}
	r := reply6{message: &m, server: sv.v6, link: &sv.link, multicast: multicast}
	if !sv.v6.stateless {
		r.bind(c.Addrs)
	}
	if !r.answers() {
		return dst, Done
	}
	s.count6(&r)
	e := ends{
		fromMAC: sv.link.mac, toMAC: c.MAC, from: sv.link.local, to: src,
		sport: serverPort6, dport: clientPort6,
	}
	return r.append(dst, &e), Done
}

func (s *Server) count6(r *reply6) {
	switch {
	case !r.multicast:
	case r.message.typ == release6:
		s.counts.releases.Add(1)
	case r.message.typ == decline6:
		s.counts.declines.Add(1)
	}
	if r.advertises() {
		s.counts.advertises6.Add(1)
	} else {
		s.counts.replies6.Add(1)
	}
}

// reply6 is an answer in the making.
type reply6 struct {
	message *message6
	server  *server6
	link    *link
	addrs   [maxAddrs]netip.Addr // the client's
	num     int
	bound   bool // the first IA_NA had them

	multicast bool // the message was sent so
}

// bind takes the client's IPv6 addresses, but for link-local ones, which it makes
// itself; as many as fit.
func (r *reply6) bind(addrs []netip.Addr) {
	for _, a := range addrs {
		if is6(a) && !a.IsLinkLocalUnicast() && r.num < maxAddrs {
			r.addrs[r.num] = a
			r.num++
		}
	}
}

func (r *reply6) own() []netip.Addr { return r.addrs[:r.num] }

func (r *reply6) owns(a netip.Addr) bool {
	return slices.Contains(r.own(), a)
}

// answers reports whether there is an answer: not to what is for another server,
// nor to what must not be sent to one address (RFC 8415 §18.4), nor to a Confirm
// without addresses (§18.3.3).
func (r *reply6) answers() bool {
	m := r.message
	if m.serverID != nil && !bytes.Equal(m.serverID, r.server.duid) {
		return false
	}
	switch m.typ {
	case solicit6, rebind6, information6:
		return r.multicast
	case confirm6:
		return r.multicast && m.numAddrs > 0
	}
	return true
}

// advertises reports whether the answer is an Advertise; a Reply if not. What
// can't be given can't be committed either.
func (r *reply6) advertises() bool {
	return r.message.typ == solicit6 && (!r.message.rapid || r.num == 0)
}

// append writes the frame, RFC 8415 §18.3 and §18.4.
func (r *reply6) append(dst []byte, e *ends) []byte {
	begin := len(dst)
	m := r.message
	w := writer6{b: e.udp6(dst), end: begin + packet.EthernetLen + min(r.link.mtu, maxSize4)}
	typ := uint8(reply6Type)
	if r.advertises() {
		typ = advertise6
	}
	w.b = append(w.b, typ)
	w.b = append(w.b, m.xid[:]...)
	if m.clientID != nil {
		w.put(opt6ClientID, m.clientID)
	}
	w.put(opt6ServerID, r.server.duid)
	if !r.multicast {
		w.status(statusUseMulticast)
	} else {
		r.body(&w)
	}
	finishIP6(w.b[begin:])
	return w.b
}

// body is what each message asks for.
func (r *reply6) body(w *writer6) {
	switch r.message.typ {
	case solicit6:
		if r.advertises() {
			w.byte(opt6Preference, 255) // RFC 8415 §18.2.1: no need to wait for others
		} else {
			w.put(opt6RapidCommit, nil)
		}
		r.assign(w)
	case request6, renew6, rebind6:
		r.assign(w)
	case confirm6:
		w.status(r.confirm())
		return
	case release6, decline6:
		r.giveBack(w)
		return
	case information6:
		if r.message.requests(opt6Refresh) {
			w.put(opt6Refresh, r.server.refresh[:])
		}
	}
	r.tell(w)
}

// tell is what every client is told, if it wants to know.
func (r *reply6) tell(w *writer6) {
	for i := range r.server.options {
		if o := &r.server.options[i]; r.message.requests(o.code) {
			w.put(o.code, o.data)
		}
	}
}

// confirm is RFC 8415 §18.3.3.
func (r *reply6) confirm() uint16 {
	m := r.message
	for i := range m.numIAs {
		for a := range m.ias[i].all() {
			if !r.owns(a) {
				return statusNotOnLink
			}
		}
	}
	return statusSuccess
}

// assign answers each IA, RFC 8415 §18.3.1, §18.3.2, §18.3.4 and §18.3.5.
func (r *reply6) assign(w *writer6) {
	m := r.message
	for i := range m.numIAs {
		switch a := &m.ias[i]; {
		case a.code == opt6PD:
			r.deny(w, a, r.without(statusNoPrefixAvail))
		case r.num == 0 || r.bound:
			r.deny(w, a, r.without(statusNoAddrs))
		case m.typ == request6 && r.strange(a):
			r.deny(w, a, statusNotOnLink)
		default:
			r.bound = true
			r.give(w, a)
		}
	}
}

// without is the status of an IA that gets nothing: to whoever believes to have
// something, that it is not so.
func (r *reply6) without(fresh uint16) uint16 {
	if r.message.typ == renew6 || r.message.typ == rebind6 {
		return statusNoBinding
	}
	return fresh
}

// strange reports whether an IA has an address of another link.
func (r *reply6) strange(a *ia) bool {
	for addr := range a.all() {
		if !r.owns(addr) && !r.link.onLink(addr) {
			return true
		}
	}
	return false
}

func (*reply6) deny(w *writer6, a *ia, status uint16) {
	begin := w.ia(a, 0, 0)
	w.status(status)
	w.endIA(begin)
}

// give appends the client's addresses, and takes away those that it believes to
// have: lifetimes of zero, RFC 8415 §18.3.4.
func (r *reply6) give(w *writer6, a *ia) {
	preferred := r.server.preferred
	begin := w.ia(a, part(preferred, 1, 2), part(preferred, 4, 5)) // RFC 8415 §21.4
	for _, own := range r.own() {
		w.addr(own, preferred, r.server.valid)
	}
	if r.message.typ == renew6 || r.message.typ == rebind6 {
		for addr := range a.all() {
			if !r.owns(addr) {
				w.addr(addr, 0, 0)
			}
		}
	}
	w.endIA(begin)
}

// giveBack answers a release or a decline, RFC 8415 §18.3.7 and §18.3.8.
func (r *reply6) giveBack(w *writer6) {
	m := r.message
	for i := range m.numIAs {
		if a := &m.ias[i]; a.code == opt6PD || !r.holds(a) {
			r.deny(w, a, statusNoBinding)
		}
	}
	w.status(statusSuccess)
}

// holds reports whether an IA has an address of the client.
func (r *reply6) holds(a *ia) bool {
	for addr := range a.all() {
		if r.owns(addr) {
			return true
		}
	}
	return false
}
