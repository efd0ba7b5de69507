// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"encoding/binary"
	"slices"

	"sluice/packet"
	"sluice/trace"
)

// Ports of DHCP, RFC 2131 §4.1.
const (
	dhcpServer = 67
	dhcpClient = 68
)

const (
	protoIGMP = 2
	protoPIM  = 103

	igmpQuery = 0x11 // RFC 2236 §2.1
	mrdAdvert = 0x30 // RFC 4286 §3.2

	arpRequest = 1
)

// arp checks who speaks in an ARP message (RFC 826). With a zero sender address
// it is a probe (RFC 5227 §2.1.1): to probe for another's address would make
// that one give it up.
func (p *Profile) arp(b []byte, v *packet.View) trace.Reason {
	if p.checks&ARP == 0 {
		return trace.None
	}
	a := b[v.L3 : v.L3+packet.ARPLen]
	sender := packet.MAC(a[8:14])
	if sender != packet.MAC(b[6:12]) || !slices.Contains(p.macs, sender) {
		return trace.GuardARP
	}
	addr := a[14:18]
	if isZero(addr) && binary.BigEndian.Uint16(a[6:]) == arpRequest {
		addr = a[24:28]
	}
	if !p.has4(addr) {
		return trace.GuardARP
	}
	return trace.None
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func (p *Profile) ipv4(b []byte, v *packet.View) trace.Reason {
	switch {
	case p.refuses(IP, p.has4(b[v.L3+12:]) || addressless4(b, v)):
		return trace.GuardIP
	case p.refuses(DHCP, !serves(v, dhcpServer, dhcpClient)):
		return trace.GuardDHCP
	case p.refuses(Query, !queries4(b, v)):
		return trace.GuardQuery
	}
	return trace.None
}

// addressless4 reports whether the packet is one that a host without an address
// may send from 0.0.0.0: to a DHCP server, or to join a group (RFC 4541 §2.1.1).
func addressless4(b []byte, v *packet.View) bool {
	if !isZero(b[v.L3+12 : v.L3+16]) {
		return false
	}
	return v.Proto == protoIGMP || v.Proto == packet.ProtoUDP && v.Is(packet.ViewHasL4) &&
		v.SrcPort == dhcpClient && v.DstPort == dhcpServer
}

// serves reports whether a datagram comes from a server, or goes to a client,
// which would believe it whatever port it came from.
func serves(v *packet.View, server, client uint16) bool {
	return v.Proto == packet.ProtoUDP && v.Is(packet.ViewHasL4) && (v.SrcPort == server || v.DstPort == client)
}

// queries4 reports whether the packet is what only a multicast router sends.
func queries4(b []byte, v *packet.View) bool {
	switch v.Proto {
	case protoPIM:
		return true
	case protoIGMP:
		return !v.Is(packet.ViewFragLater) && v.L4 < v.End && (b[v.L4] == igmpQuery || b[v.L4] == mrdAdvert)
	}
	return false
}
