// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Where a filter finds the network header of a packet (SKF_NET_OFF of linux/filter.h), and
// the source in it. Without an offset, what is
// loaded is of the transport header.
const (
	netOff  = -0x100000
	source4 = netOff + 12
	source6 = netOff + 8
	flags   = 13 // of TCP
)

const synAck = 0x12

// Labels of the programs.
const ipv6, pass, drop = "ipv6", "pass", "drop"

func load(name string, p asm.Instructions) (*ebpf.Program, error) {
	out, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SocketFilter, Instructions: p, License: "Apache-2.0"})
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	return out, nil
}

// program drops packets whose source is behind the fence.
func (f *Fence) program() asm.Instructions {
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), // where loads look for the packet
		asm.LoadAbs(netOff, asm.Byte),
		asm.And.Imm32(asm.R0, 0xf0),
		asm.JNE.Imm32(asm.R0, 0x40, ipv6),
	}
	p = append(p, f.tries(4)...)
	second := f.tries(6)
	second[0] = second[0].WithSymbol(ipv6)
	return append(append(p, second...), ends()...)
}

// tries are the bars of one version of IP, one after the other.
func (f *Fence) tries(version int) (out asm.Instructions) {
	for i := range f.bars {
		if p := f.bars[i].from; p.Addr().Is4() == (version == 4) {
			out = append(out, try(p, fmt.Sprint("bar", i))...)
		}
	}
	return append(out, asm.Ja.Label(pass))
}

// try drops what has a source in a prefix, and goes on after itself with all else.
func try(p netip.Prefix, label string) (out asm.Instructions) {
	offset := int32(source4)
	if p.Addr().Is6() {
		offset = source6
	}
	b := p.Masked().Addr().AsSlice()
	for at := 0; 8*at < p.Bits(); at += 4 {
		mask := uint32(0xffffffff << max(0, 32-(p.Bits()-8*at)))
		out = append(out,
			asm.LoadAbs(offset+int32(at), asm.Word),
			asm.And.Imm32(asm.R0, int32(mask)),
			asm.JNE.Imm32(asm.R0, int32(binary.BigEndian.Uint32(b[at:])), label),
		)
	}
	return append(out, asm.Ja.Label(drop), asm.Mov.Reg(asm.R0, asm.R0).WithSymbol(label))
}

// accepting drops what answers a connection request.
func accepting() asm.Instructions {
	return append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadAbs(flags, asm.Byte),
		asm.And.Imm32(asm.R0, synAck),
		asm.JEq.Imm32(asm.R0, synAck, drop),
		asm.Ja.Label(pass),
	}, ends()...)
}

// ends are those of a filter, which says how much of the packet is taken.
func ends() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm32(asm.R0, -1).WithSymbol(pass),
		asm.Return(),
		asm.Mov.Imm32(asm.R0, 0).WithSymbol(drop),
		asm.Return(),
	}
}
