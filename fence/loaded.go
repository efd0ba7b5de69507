// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"fmt"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/net/bpf"
)

// load gives the kernel a filter, for any number of sockets.
func load(program []bpf.Instruction) (*ebpf.Program, error) {
	out, err := extended(program)
	if err != nil {
		return nil, err
	}
	return ebpf.NewProgram(&ebpf.ProgramSpec{Name: "sluice_fence", Type: ebpf.SocketFilter, Instructions: out, License: "Apache-2.0"})
}

// extended is a filter of the instructions that block has, as the kernel would translate it
// (convert_filter of net/core/filter.c): what is loaded comes into R0.
func extended(program []bpf.Instruction) (asm.Instructions, error) {
	out := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)} // where loads look for the packet
	for i, in := range program {
		var next asm.Instructions
		switch in := in.(type) {
		case bpf.LoadAbsolute:
			size := asm.Word
			if in.Size == 1 {
				size = asm.Byte
			}
			next = asm.Instructions{asm.LoadAbs(int32(in.Off), size)}
		case bpf.ALUOpConstant:
			next = asm.Instructions{asm.And.Imm32(asm.R0, int32(in.Val))}
		case bpf.JumpIf:
			next = asm.Instructions{asm.JNE.Imm32(asm.R0, int32(in.Val), strconv.Itoa(i+1+int(in.SkipTrue)))}
		case bpf.RetConstant:
			next = asm.Instructions{asm.Mov.Imm32(asm.R0, int32(in.Val)), asm.Return()}
		default:
			return nil, fmt.Errorf("fence: instruction %d is a %T", i, in)
		}
		next[0] = next[0].WithSymbol(strconv.Itoa(i))
		out = append(out, next...)
	}
	return out, nil
}
