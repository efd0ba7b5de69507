// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"

	"sluice/api"
	"sluice/natspec"
	"sluice/uplink"
)

// bySocketOf reports whether what is published is for addresses of the host, too, and
// sockets are how they are reached: no uplink to the host is.
func (s *state) bySocketOf(space string, p natspec.Publish) bool {
	in := s.in(space)
	return slices.ContainsFunc(in, (*networkRecord).bySocket) && !s.ofHost(space, p) &&
		!slices.ContainsFunc(in, func(n *networkRecord) bool { return slices.Contains(n.Gateways, p.Addr) })
}

// aims are where the doors of all namespaces lead to.
func (s *state) aims() map[uplink.Port]behind {
	out := make(map[uplink.Port]behind)
	for _, p := range s.onHost() {
		if !p.socket {
			continue
		}
		to := s.behindSocket(p.space, p.To)
		if !to.there() {
			continue
		}
		for i := range int(p.Ports.Max-p.Ports.Min) + 1 {
			port := p.port
			port.Proto, port.Addr, port.Number = natspec.ProtocolName(p.Proto), p.Addr, p.Ports.Min+uint16(i)
			out[port] = to.at(p.ToPorts.Min + uint16(i))
		}
	}
	return out
}

// at is the container's port, which is not known before.
func (b behind) at(port uint16) behind {
	for _, a := range []*netip.AddrPort{&b.v4, &b.v6} {
		if a.IsValid() {
			*a = netip.AddrPortFrom(a.Addr(), port)
		}
	}
	return b
}

// behindSocket is the attachment of a name, if it is on a network whose VRF has a socket
// uplink.
func (s *state) behindSocket(space, name string) (b behind) {
	for _, a := range s.attachedIn(space) {
		of := s.network(a.Network)
		if a.Name != name || a.State != api.StateReady || a.Uplink || of == nil {
			continue
		}
		for _, n := range s.in(space) {
			if n.bySocket() && n.VRF == of.VRF {
				b.uplink, b.member = n.Port, a.Port
				break
			}
		}
		if b.uplink == 0 {
			continue
		}
		for _, addr := range firstOfEach(a.addrs()) {
			if addr.Is4() {
				b.v4 = netip.AddrPortFrom(addr, 0)
			} else {
				b.v6 = netip.AddrPortFrom(addr, 0)
			}
		}
		return b
	}
	return behind{}
}

// aim lets the doors lead to the containers that there are.
func (a *Agent) aim(st *state) {
	if a.plane != nil && len(a.plane.doors.ports()) > 0 {
		a.plane.doors.aim(st.aims())
	}
}
