// SPDX-License-Identifier: Apache-2.0

package packet

import "encoding/binary"

// TCP options of RFC 9293 §3.2.
const (
	tcpOptEnd    = 0
	tcpOptNop    = 1
	tcpOptMSS    = 2
	tcpOptMSSLen = 4
)

const tcpSYN = 0x02

// IsSYN reports whether f opens or accepts a TCP connection: SYN is set and the
// header is there. Preconditions: f.View was parsed without fault.
func IsSYN(f *Frame) bool {
	v := &f.View
	return v.Proto == ProtoTCP && v.Is(ViewHasL4) && f.Bytes()[v.L4+13]&tcpSYN != 0
}

// ClampMSS lowers the maximum segment size option (RFC 9293 §3.7.1) of a SYN to
// limit and makes the checksum follow; a partial one covers no option yet. True
// if the frame is a SYN, whether or not anything was changed: an option that is
// lower already stays, and none is added. Of several options each is lowered,
// since it is the receiver who chooses. An option list that contradicts itself is
// read as far as a receiver would.
// Preconditions: f.View was parsed without fault.
func (f *Frame) ClampMSS(limit uint16) bool {
	if !IsSYN(f) {
		return false
	}
	h := f.Bytes()[f.View.L4:]
	h = h[:int(h[12]>>4)*4]
	for i := TCPMinLen; i+tcpOptMSSLen <= len(h); {
		switch {
		case h[i] == tcpOptEnd:
			return true
		case h[i] == tcpOptNop:
			i++
			continue
		case h[i+1] < 2:
			return true
		case h[i] == tcpOptMSS && h[i+1] == tcpOptMSSLen:
			f.lowerMSS(h, i+2, limit)
		}
		i += int(h[i+1])
	}
	return true
}

// lowerMSS puts limit into the TCP header h at i. At an odd place the checksum
// sees the bytes of the field the other way round (RFC 1071 §2 B).
func (f *Frame) lowerMSS(h []byte, i int, limit uint16) {
	before, after := binary.BigEndian.Uint16(h[i:]), limit
	if before <= limit {
		return
	}
	binary.BigEndian.PutUint16(h[i:], limit)
	if f.Vnet.NeedsCsum() {
		return
	}
	if i%2 != 0 {
		before, after = before<<8|before>>8, after<<8|after>>8
	}
	replaceInSum(h[tcpCsumOffset:], before, after)
}
