// SPDX-License-Identifier: Apache-2.0

package packet

import "net/netip"

// Sizes of headers in bytes.
const (
	EthernetLen = 14
	VLANLen     = 4
	ARPLen      = 28 // Ethernet/IPv4
	IPv4MinLen  = 20
	IPv6Len     = 40
	TCPMinLen   = 20
	UDPLen      = 8
	ICMPLen     = 8 // also ICMPv6
	SCTPLen     = 12

	macsLen = 12 // both addresses of the Ethernet header
)

// EtherTypes that the parse knows. A type below EtherTypeMin is the length of
// an 802.3 frame.
const (
	EtherTypeMin  = 0x0600
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeVLAN = 0x8100 // 802.1Q
	EtherTypeIPv6 = 0x86dd
	EtherTypeQinQ = 0x88a8 // 802.1ad
)

// Protocol numbers, IANA "Assigned Internet Protocol Numbers".
const (
	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoESP      = 50
	ProtoAH       = 51
	ProtoICMPv6   = 58
	ProtoNoNext   = 59
	ProtoDestOpts = 60
	ProtoSCTP     = 132
)

// ViewFlags says what a frame is. Zero is an Ethernet II frame of a protocol
// that the parse doesn't know.
type ViewFlags uint16

// The flags.
const (
	ViewIPv4      ViewFlags = 1 << iota
	ViewIPv6                // EtherType and version say IPv6
	ViewARP                 // ARP for IPv4 on Ethernet, whole
	ViewLLC                 // 802.3 length instead of an EtherType
	ViewHasL4               // the header at L4 is whole, ports or type are read
	ViewFragFirst           // fragment with offset 0 and more to come
	ViewFragLater           // fragment with another offset: no L4 header
	ViewIPOptions           // IPv4 header longer than 20 bytes
	ViewExtHdrs             // IPv6 extension headers between L3 and L4
	ViewRouted              // IPv6 routing header with segments left (RFC 8200 §4.4)
	ViewTrailer             // bytes after End, as Ethernet padding is

	ViewIP   = ViewIPv4 | ViewIPv6
	ViewFrag = ViewFragFirst | ViewFragLater // never set for an atomic fragment (RFC 6946)
)

// View is what the bounded parse found in a frame. Offsets count from the
// Ethernet header. Zero means: not parsed.
//
// Invariant after Parse returned FaultNone: EthernetLen <= L3 <= L4 <= End <= len.
// After a fault the fields hold what was found before it, within the frame.
type View struct {
	L3  int // first byte after Ethernet header and tags
	L4  int // upper-layer header, after IPv6 extension headers; L3 if not IP
	End int // end of the packet by its own length field; len if it has none

	EtherType uint16 // the innermost, or the length of an LLC frame
	Flags     ViewFlags
	Tags      uint8 // VLAN tags, 0 to 2
	Proto     uint8 // upper-layer protocol after IPv6 extension headers; 0 if not IP

	TPID [maxTags]uint16 // outer tag first
	TCI  [maxTags]uint16 // priority 3 bits, DEI 1 bit, VID 12 bits

	// Ports of TCP, UDP and SCTP. ICMP and ICMPv6: SrcPort is type<<8|code and
	// DstPort the identifier of an echo request or reply, else 0.
	// Zero without ViewHasL4.
	SrcPort, DstPort uint16
}

// Is reports whether any of the flags in fl is set.
func (v *View) Is(fl ViewFlags) bool { return v.Flags&fl != 0 }

// VID is the VLAN of the outer 802.1Q tag; 0 if the frame has none.
func (v *View) VID() uint16 {
	if v.Tags == 0 || v.TPID[0] != EtherTypeVLAN {
		return 0
	}
	return v.TCI[0] & 0xfff
}

// SrcAddr is the source address of the IP packet in b, the frame that v was
// parsed from; the sender's address of an ARP message. The zero Addr if neither.
func (v *View) SrcAddr(b []byte) netip.Addr { return v.addr(b, 12, 8, 14) }

// DstAddr is the destination address of the IP packet in b; the target address
// of an ARP message. The zero Addr if neither.
func (v *View) DstAddr(b []byte) netip.Addr { return v.addr(b, 16, 24, 24) }

// addr reads the address at the offset from L3 that fits the protocol. It asks
// for the length again, since a faulty frame may carry the flag of its type.
func (v *View) addr(b []byte, off4, off6, offARP int) netip.Addr {
	switch {
	case v.Is(ViewIPv4) && len(b) >= v.L3+IPv4MinLen:
		return netip.AddrFrom4([4]byte(b[v.L3+off4:]))
	case v.Is(ViewIPv6) && len(b) >= v.L3+IPv6Len:
		return netip.AddrFrom16([16]byte(b[v.L3+off6:]))
	case v.Is(ViewARP) && len(b) >= v.L3+ARPLen:
		return netip.AddrFrom4([4]byte(b[v.L3+offARP:]))
	}
	return netip.Addr{}
}

// pushTag keeps a parsed view right when a tag was put before the others.
func (v *View) pushTag(tpid, tci uint16) {
	if v.L3 == 0 {
		return // not parsed
	}
	v.TPID = [maxTags]uint16{tpid, v.TPID[0]}
	v.TCI = [maxTags]uint16{tci, v.TCI[0]}
	v.Tags++
	v.move(VLANLen)
}

// popTag keeps a parsed view right when the outer tag was taken away.
func (v *View) popTag() {
	if v.Tags == 0 {
		return // not parsed
	}
	v.TPID = [maxTags]uint16{v.TPID[1]}
	v.TCI = [maxTags]uint16{v.TCI[1]}
	v.Tags--
	v.move(-VLANLen)
}

func (v *View) move(n int) {
	v.L3 += n
	v.L4 += n
	v.End += n
}
