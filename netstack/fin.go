// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"encoding/binary"

	"sluice/packet"
)

// Theory of operation.
//
// gVisor's TCP sends the end of the data as a segment of its own. Where it follows the last
// data at once, as the answer of a server that closes behind it, it goes with them, as a
// kernel's does: that is a frame less for the container, and an acknowledgement less from it.

const (
	flagFIN = 1 << 0
	flagACK = 1 << 4
	flagPSH = 1 << 3
)

// joinEnds lets ends go with the data before them, in frames that an uplink's stack has sent
// one after the other. It returns how many are left: the first ones, in their order.
func joinEnds(taken []waiting, frames []packet.Frame) (n int) {
	for i := range frames {
		if n > 0 && taken[i].kind == kindTCP && taken[n-1].kind == kindTCP && joinEnd(&frames[n-1], &frames[i]) {
			continue
		}
		if i != n {
			frames[n], frames[i] = frames[i], frames[n] // a frame keeps a buffer
			taken[n] = taken[i]
		}
		n++
	}
	return n
}

// joinEnd makes data end if the other frame says no more than that they do, and reports whether
// it was so.
func joinEnd(data, fin *packet.Frame) bool {
	a, b := segmentIn(data), segmentIn(fin)
	const sequence, ack, flags, sum, window = 4, 8, 13, 16, 14
	if b == nil || b[flags] != flagFIN|flagACK || len(b) != headerOf(b) ||
		a == nil || a[flags]&^flagPSH != flagACK || len(a) <= headerOf(a) {
		return false
	}
	same := bytes.Equal(a[:sequence], b[:sequence]) && bytes.Equal(a[ack:ack+4], b[ack:ack+4]) &&
		bytes.Equal(a[window:window+2], b[window:window+2]) &&
		bytes.Equal(ends(data), ends(fin)) &&
		binary.BigEndian.Uint32(b[sequence:]) == binary.BigEndian.Uint32(a[sequence:])+uint32(len(a)-headerOf(a))
	if !same {
		return false
	}
	a[flags] |= flagFIN
	if !data.Vnet.NeedsCsum() { // else it is of the pseudo header only
		c := uint32(^binary.BigEndian.Uint16(a[sum:])) + flagFIN // RFC 1624
		binary.BigEndian.PutUint16(a[sum:], ^uint16(c+c>>16))
	}
	return true
}

// segmentIn is the TCP segment in a frame that gVisor made, whose IP header has no options;
// nil: it is too short.
func segmentIn(f *packet.Frame) []byte {
	b := f.Bytes()
	n := packet.EthernetLen + 20
	if len(b) > packet.EthernetLen && b[packet.EthernetLen]>>4 == 6 {
		n = packet.EthernetLen + 40
	}
	if len(b) < n+packet.TCPMinLen || headerOf(b[n:]) > len(b)-n {
		return nil
	}
	return b[n:]
}

// headerOf is the length of a TCP header, its options included.
func headerOf(tcp []byte) int { return int(tcp[12]>>4) * 4 }

// ends are the addresses of a frame that gVisor made, with its version.
// Preconditions: there is a segment in it.
func ends(f *packet.Frame) []byte {
	b := f.Bytes()[packet.EthernetLen:]
	if b[0]>>4 == 4 {
		return b[12:20]
	}
	return b[8:40]
}
