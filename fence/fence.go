// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// bar is what may not be reached, and what who tries is told.
type bar struct {
	from  netip.Prefix
	errno unix.Errno
}

// Fence keeps the sockets that it is around from what they may not reach. A nil one keeps
// them from nothing.
type Fence struct {
	bars    []bar
	program *unix.SockFprog
	loaded  *ebpf.Program // nil: each socket has a program of its own
}

// Local is a fence before what only the host itself has to do with: its loopback, and
// addresses of its links. A group is no peer.
func Local() *Fence {
	return &Fence{bars: []bar{
		{netip.MustParsePrefix("127.0.0.0/8"), unix.EACCES},
		{netip.MustParsePrefix("169.254.0.0/16"), unix.EACCES},
		{netip.MustParsePrefix("0.0.0.0/32"), unix.ENETUNREACH}, // the host itself (ip(7))
		{netip.MustParsePrefix("224.0.0.0/4"), unix.ENETUNREACH},
		{netip.MustParsePrefix("255.255.255.255/32"), unix.ENETUNREACH},
		{netip.MustParsePrefix("::1/128"), unix.EACCES},
		{netip.MustParsePrefix("fe80::/10"), unix.EACCES},
		{netip.MustParsePrefix("::/128"), unix.ENETUNREACH},
		{netip.MustParsePrefix("ff00::/8"), unix.ENETUNREACH},
	}}
}

// Refuses says what who dials an address is told; 0: it is not behind the fence.
func (f *Fence) Refuses(a netip.Addr) unix.Errno {
	if f == nil {
		return 0
	}
	a = a.Unmap() // by a socket of IPv6, IPv4 is reached too
	for i := range f.bars {
		if f.bars[i].from.Contains(a) {
			return f.bars[i].errno
		}
	}
	return 0
}

// Load makes the program, which the kernel is given if it takes one. If not, each socket
// takes some ten microseconds longer to make. It is to be called before Around.
func (f *Fence) Load() (err error) {
	program := f.filter()
	if f.program, err = assemble(program); err != nil {
		return err
	}
	if loaded, err := load(program); err == nil {
		f.loaded = loaded
	}
	return nil
}

// Around puts the fence around a socket, for good.
func (f *Fence) Around(fd int) (err error) {
	switch {
	case f == nil:
		return nil
	case f.loaded == nil:
		return attach(fd, f.program)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, f.loaded.FD()); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return lock(fd)
}

// attach gives a socket a filter, for good.
func attach(fd int, program *unix.SockFprog) error {
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return lock(fd)
}

func lock(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}

func assemble(program []bpf.Instruction) (*unix.SockFprog, error) {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	out := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		out[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(out)), Filter: &out[0]}, nil
}
