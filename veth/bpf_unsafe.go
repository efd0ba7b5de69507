// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bpfInsn is struct bpf_insn of linux/bpf.h.
type bpfInsn struct {
	code uint8
	regs uint8 // destination in the lower half
	off  int16
	imm  int32
}

// actShot is TC_ACT_SHOT of linux/pkt_cls.h.
const actShot = 2

// progLoad is the beginning of union bpf_attr for BPF_PROG_LOAD.
type progLoad struct {
	progType, insns uint32
	code            unsafe.Pointer
	license         unsafe.Pointer
	logLevel        uint32
	logSize         uint32
	logBuf          uint64
	kernVersion     uint32
	flags           uint32
}

// loadDrop loads a classifier of tc-bpf(8) that drops every frame (TC_ACT_SHOT). The
// caller closes the fd; whoever uses the program keeps it.
func loadDrop() (int, error) {
	code := [...]bpfInsn{
		{code: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, imm: actShot},
		{code: unix.BPF_JMP | unix.BPF_EXIT},
	}
	license := []byte("Apache-2.0\x00")
	attr := progLoad{
		progType: unix.BPF_PROG_TYPE_SCHED_CLS, insns: uint32(len(code)),
		code: unsafe.Pointer(&code[0]), license: unsafe.Pointer(&license[0]),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&code)
	runtime.KeepAlive(license)
	if errno != 0 {
		return -1, fmt.Errorf("bpf: %w", errno)
	}
	return int(fd), nil
}
