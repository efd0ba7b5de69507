// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"net/netip"
)

// The operations of an ARP message, RFC 826.
const (
	ARPOpRequest = arpRequest
	ARPOpReply   = arpReply
)

// ARP is an ARP message for IPv4 on Ethernet. Zero is none.
type ARP struct {
	Op                   uint16 // ARPOpRequest, ARPOpReply or another
	SenderMAC, TargetMAC MAC
	Sender, Target       netip.Addr
}

// ARP reads the ARP message in b, the frame that v was parsed from; false if it
// is none.
func (v *View) ARP(b []byte) (m ARP, ok bool) {
	if !v.Is(ViewARP) || len(b) < v.L3+ARPLen {
		return ARP{}, false
	}
	a := b[v.L3:]
	return ARP{
		Op:        binary.BigEndian.Uint16(a[6:]),
		SenderMAC: MAC(a[8:14]), Sender: netip.AddrFrom4([4]byte(a[14:18])),
		TargetMAC: MAC(a[18:24]), Target: netip.AddrFrom4([4]byte(a[24:28])),
	}, true
}
