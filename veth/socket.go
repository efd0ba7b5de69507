// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// DefaultSocketBuffer is the size of a port's receive and send buffer in bytes,
// as charged by the kernel: about 100 frames of 64 KB.
const DefaultSocketBuffer = 8 << 20

// ErrNotExist says that an interface is not in the namespace.
var ErrNotExist = errors.New("no such interface")

// SocketOptions are the settings of a port's socket. The zero value is usable.
type SocketOptions struct {
	// RcvBuf and SndBuf are SO_RCVBUFFORCE and SO_SNDBUFFORCE in bytes, or without the
	// privilege SO_RCVBUF and SO_SNDBUF.
	// 0 means DefaultSocketBuffer. They are limits and not reservations: an
	// idle port costs no memory.
	RcvBuf, SndBuf int
	// Queued sends by the interface's queueing discipline, as a device of hardware
	// needs it, whose own ring may be full.
	Queued bool
}

// OpenSocket opens the port on an interface of namespace ns: an AF_PACKET socket
// (packet(7)) that carries virtio-net headers, tells the VLAN tag of a received
// frame and never returns what was sent. The caller owns the file.
//
// The socket exists with protocol 0, which receives nothing, until the bind that
// names both the interface and ETH_P_ALL: no frame of another interface and no
// frame without a virtio-net header is ever queued.
//
// The file is non-blocking but not registered with Go's poller, which would
// wake up for each frame: use its Fd with Batch.Recv and Sender.Flush.
func OpenSocket(ns netns.NsHandle, ifname string, o SocketOptions) (*os.File, error) {
	fd := -1
	err := Do(ns, func() (err error) {
		fd, err = openSocket(ifname, o)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("port on %s: %w", ifname, err)
	}
	// os.NewFile gives a descriptor to the poller if it is non-blocking at that
	// moment, hence the order.
	f := os.NewFile(uintptr(fd), ifname)
	if err := unix.SetNonblock(fd, true); err != nil {
		f.Close()
		return nil, fmt.Errorf("port on %s: %w", ifname, err)
	}
	return f, nil
}

// openSocket runs in the interface's namespace.
func openSocket(ifname string, o SocketOptions) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := setUp(fd, ifname, o); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// setUp sets all options and binds last.
func setUp(fd int, ifname string, o SocketOptions) error {
	index, err := ifIndex(fd, ifname)
	if err != nil {
		return err
	}
	bypass := 1
	if o.Queued {
		bypass = 0
	}
	for _, s := range [...]struct {
		name              string
		level, opt, value int
	}{
		{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{"PACKET_AUXDATA", unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
		{"PACKET_IGNORE_OUTGOING", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		// A veth has no queueing discipline: what is bypassed is only the way to
		// find that out (and the taps of other packet sockets on the host end).
		{"PACKET_QDISC_BYPASS", unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, bypass},
		{"SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize(o.RcvBuf)},
		{"SO_SNDBUFFORCE", unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bufferSize(o.SndBuf)},
	} {
		err := unix.SetsockoptInt(fd, s.level, s.opt, s.value)
		if errors.Is(err, unix.EPERM) { // root of a user namespace: as much as sysctl allows all
			err = unix.SetsockoptInt(fd, s.level, unforced(s.opt), s.value)
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ethPAll(), Ifindex: index})
}

// unforced is the option that is bounded by net.core.rmem_max or wmem_max (socket(7)).
func unforced(opt int) int {
	switch opt {
	case unix.SO_RCVBUFFORCE:
		return unix.SO_RCVBUF
	case unix.SO_SNDBUFFORCE:
		return unix.SO_SNDBUF
	}
	return opt
}

func bufferSize(n int) int {
	if n == 0 {
		return DefaultSocketBuffer
	}
	return n
}

// ethPAll is ETH_P_ALL in network byte order, as sockaddr_ll wants it.
func ethPAll() uint16 { return unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 }

// ifIndex looks an interface up in the namespace of a socket, see netdevice(7).
func ifIndex(fd int, ifname string) (int, error) {
	req, err := unix.NewIfreq(ifname)
	if err != nil {
		return 0, fmt.Errorf("interface name %q: %w", ifname, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		if errors.Is(err, unix.ENODEV) {
			err = ErrNotExist
		}
		return 0, fmt.Errorf("interface %s: %w", ifname, err)
	}
	return int(req.Uint32()), nil
}

// Stats reads the kernel's counters of a port (PACKET_STATISTICS of packet(7))
// since the last reading, which resets them: frames that arrived, the dropped
// ones included, and frames dropped because the receive buffer was full.
func Stats(fd int) (packets, drops uint32, err error) {
	st, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, 0, fmt.Errorf("packet statistics: %w", err)
	}
	return st.Packets, st.Drops, nil
}
