// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
)

// Where the addresses of a packet begin, from its network header on (SKF_NET_OFF of
// linux/filter.h), and what a filter returns.
const (
	netOff  = 0xfff00000
	source4 = 12
	source6 = 8
	all     = 1<<32 - 1
)

// filter drops packets whose source is behind the fence.
func (f *Fence) filter() []bpf.Instruction {
	of4, of6 := f.blocks(4), f.blocks(6)
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: netOff, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x40, SkipTrue: uint8(len(of4))},
	}
	return append(append(out, of4...), of6...)
}

// blocks tries the bars of one version of IP, one after the other, and lets pass what is
// behind none.
func (f *Fence) blocks(version int) (out []bpf.Instruction) {
	for i := range f.bars {
		if p := f.bars[i].from; p.Addr().Is4() == (version == 4) {
			out = append(out, block(p)...)
		}
	}
	return append(out, bpf.RetConstant{Val: all})
}

// block drops what has a source in a prefix, and goes on after itself with all else.
func block(p netip.Prefix) []bpf.Instruction {
	offset := uint32(netOff + source4)
	if p.Addr().Is6() {
		offset = netOff + source6
	}
	out := []bpf.Instruction{bpf.RetConstant{Val: 0}}
	b := p.Masked().Addr().AsSlice()
	for at := (p.Bits() - 1) / 32 * 4; at >= 0; at -= 4 { // the last word first: each has to know how far it is to the end
		mask := uint32(all << max(0, 32-(p.Bits()-8*at)))
		out = append([]bpf.Instruction{
			bpf.LoadAbsolute{Off: offset + uint32(at), Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(b[at:]), SkipTrue: uint8(len(out))},
		}, out...)
	}
	return out
}

// Accepting lets a socket that is to listen, and whatever it accepts, be nothing else: what
// answers a connection request is dropped (RFC 9293 §3.5), so that none of them can ever be
// connected to somebody. It is to be called before listen(2).
func Accepting(fd int) error {
	const flags, synAck = 13, 0x12
	program, err := assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: flags, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: synAck},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: synAck, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: all},
	})
	if err != nil {
		return err
	}
	return attach(fd, program)
}
