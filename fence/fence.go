// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// bar is what may not be reached, and what who tries is told.
type bar struct {
	from  netip.Prefix
	errno unix.Errno
}

// Fence keeps the sockets that it is around from what they may not reach. A nil one keeps
// nobody from anything. It is safe for concurrent use once it was loaded.
type Fence struct {
	bars      []bar
	around    *ebpf.Program
	accepting *ebpf.Program
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

// Load gives the kernel the programs, for which it takes CAP_BPF or CAP_SYS_ADMIN. Without
// it, a fence only refuses.
func (f *Fence) Load() (err error) {
	if f.around, err = load("sluice_fence", f.program()); err != nil {
		return err
	}
	if f.accepting, err = load("sluice_accept", accepting()); err != nil {
		_ = f.around.Close()
		f.around = nil
	}
	return err
}

// Loaded reports whether sockets can have the fence around them.
func (f *Fence) Loaded() bool { return f != nil && f.around != nil }

// Around puts the fence around a socket, for good. Preconditions: it is loaded.
func (f *Fence) Around(fd int) error { return attach(fd, f.around) }

// Accepting lets a socket that is to listen, and whatever it accepts, be nothing else: what
// answers a connection request is dropped (RFC 9293 §3.5), so that none of them can ever be
// connected to anybody. It is to be called before listen(2). Preconditions: f is loaded.
func (f *Fence) Accepting(fd int) error { return attach(fd, f.accepting) }

// attach gives a socket a filter that stays.
func attach(fd int, p *ebpf.Program) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, p.FD())
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
	}
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	return nil
}
