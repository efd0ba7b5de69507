// SPDX-License-Identifier: Apache-2.0

package packettest

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"sluice/packet"
)

// Layer is one header, or the payload, of a frame under construction. In all
// layers a nil pointer field stands for the right value, a set one for whatever
// the test wants instead.
type Layer interface {
	// id is what the layer before calls this one; 0 where it has no number.
	id() (etherType uint16, proto uint8)
	// wrap returns the layer and body, all layers after it. up is the IP layer
	// around it, if there is one; next is the layer after it or nil.
	wrap(up ipLayer, next Layer, body []byte) []byte
}

// ipLayer is a layer with addresses for the pseudo-header.
type ipLayer interface {
	Layer
	pseudo(proto uint8, n int) uint16
}

// Build puts the layers together, outermost first.
func Build(layers ...Layer) []byte {
	var body []byte
	for i, l := range slices.Backward(layers) {
		var next Layer
		if i+1 < len(layers) {
			next = layers[i+1]
		}
		body = l.wrap(enclosing(layers[:i]), next, body)
	}
	return body
}

// enclosing is the last IP layer of those before a layer.
func enclosing(before []Layer) ipLayer {
	for _, l := range slices.Backward(before) {
		if ip, ok := l.(ipLayer); ok {
			return ip
		}
	}
	return nil
}

// IP parses an address and panics if it isn't one.
func IP(s string) netip.Addr { return netip.MustParseAddr(s) }

// HW parses a MAC address and panics if it isn't one.
func HW(s string) packet.MAC {
	m, err := packet.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// The stations that frames are from and to if the test doesn't say.
func defaultSrcMAC() packet.MAC { return packet.MAC{0x02, 0, 0, 0, 0, 0x0a} }
func defaultDstMAC() packet.MAC { return packet.MAC{0x02, 0, 0, 0, 0, 0x0b} }
func defaultSrc4() netip.Addr   { return netip.AddrFrom4([4]byte{10, 44, 0, 10}) }
func defaultDst4() netip.Addr   { return netip.AddrFrom4([4]byte{10, 44, 0, 11}) }
func defaultSrc6() netip.Addr   { return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x44, 15: 0x0a}) }
func defaultDst6() netip.Addr   { return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x44, 15: 0x0b}) }

// or is v, or the default if v is zero.
func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// orElse is what p points to, or the right value.
func orElse[T any](p *T, right T) T {
	if p != nil {
		return *p
	}
	return right
}

// EtherHdr is an Ethernet header. Zero addresses stand for the default
// stations, 02:00:00:00:00:0a to :0b.
type EtherHdr struct {
	Src, Dst packet.MAC
	Type     *uint16 // nil: what the next layer is
}

func (EtherHdr) id() (uint16, uint8) { return 0, 0 }

func (e EtherHdr) wrap(_ ipLayer, next Layer, body []byte) []byte {
	src, dst := or(e.Src, defaultSrcMAC()), or(e.Dst, defaultDstMAC())
	b := append(append([]byte(nil), dst[:]...), src[:]...)
	return append(binary.BigEndian.AppendUint16(b, nextType(e.Type, next, len(body))), body...)
}

// nextType is the EtherType of the next layer; for one without, as a Payload is,
// the length of an 802.3 frame.
func nextType(knob *uint16, next Layer, n int) uint16 {
	if next == nil {
		return orElse(knob, 0)
	}
	t, _ := next.id()
	return orElse(knob, or(t, uint16(n)))
}

// VLANTag is an 802.1Q tag. TPID 0 stands for 0x8100.
type VLANTag struct {
	TPID uint16
	TCI  uint16  // priority, DEI, VID
	Type *uint16 // nil: what the next layer is
}

func (v VLANTag) id() (uint16, uint8) { return or(v.TPID, packet.EtherTypeVLAN), 0 }

func (v VLANTag) wrap(_ ipLayer, next Layer, body []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, v.TCI)
	return append(binary.BigEndian.AppendUint16(b, nextType(v.Type, next, len(body))), body...)
}

// ARPMsg is an ARP message for IPv4 on Ethernet. Op 0 stands for a request.
// A zero TargetMAC is sent as it is, since a request has none.
type ARPMsg struct {
	Op                   uint16
	SenderMAC, TargetMAC packet.MAC
	SenderIP, TargetIP   netip.Addr
	Hardware, Protocol   *uint16
	HardwareLen          *uint8
}

func (ARPMsg) id() (uint16, uint8) { return packet.EtherTypeARP, 0 }

func (a ARPMsg) wrap(_ ipLayer, _ Layer, body []byte) []byte {
	smac := or(a.SenderMAC, defaultSrcMAC())
	sip, tip := or(a.SenderIP, defaultSrc4()).As4(), or(a.TargetIP, defaultDst4()).As4()
	b := binary.BigEndian.AppendUint16(nil, orElse(a.Hardware, 1))
	b = binary.BigEndian.AppendUint16(b, orElse(a.Protocol, packet.EtherTypeIPv4))
	b = append(b, orElse(a.HardwareLen, 6), 4)
	b = binary.BigEndian.AppendUint16(b, or(a.Op, 1))
	b = append(append(b, smac[:]...), sip[:]...)
	b = append(append(b, a.TargetMAC[:]...), tip[:]...)
	return append(b, body...)
}

// Payload is opaque bytes: the data of a protocol, or a header that has no layer.
type Payload []byte

func (Payload) id() (uint16, uint8) { return 0, 0 }

func (p Payload) wrap(_ ipLayer, _ Layer, body []byte) []byte {
	return append(slices.Clone(p), body...)
}

// Bytes is a payload of n bytes that differ, so that a wrong offset is seen.
func Bytes(n int) Payload {
	p := make(Payload, n)
	for i := range p {
		p[i] = byte(i + i>>8)
	}
	return p
}
