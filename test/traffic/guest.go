// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/test/traffic/report"
	"sluice/veth"
)

// guest is what a virtual machine is to the network: it opens a tap device by name, as
// a monitor does, and carries frames with their virtio-net headers between it and the
// guest's own card, which is another tap device, in the guest's namespace. The kernel
// there is the guest's.
func guest(ctx context.Context, args []string) (any, error) {
	f := flags("guest")
	tap := f.String("tap", "", "device of the monitor, which is there")
	in := f.String("guest", "", "network namespace that is the guest")
	card := f.String("card", "eth0", "device in the guest, which is made")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	ns, err := veth.OpenNetNS(*in)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	outer, err := openTap(netns.None(), *tap)
	if err != nil {
		return nil, err
	}
	defer outer.Close()
	inner, err := openTap(ns, *card)
	if err != nil {
		return nil, err
	}
	defer inner.Close()
	ready()
	var sent, received atomic.Uint64
	ended := make(chan error, 2)
	go func() { ended <- carry(inner, outer, &sent) }()
	go func() { ended <- carry(outer, inner, &received) }()
	select {
	case <-ctx.Done():
	case err := <-ended:
		return nil, err
	}
	return report.Guest{Sent: sent.Load(), Received: received.Load()}, nil
}

// openTap opens or makes a tap device, with all offloads that a guest takes.
func openTap(ns netns.NsHandle, name string) (*os.File, error) {
	fd := -1
	attach := func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return fmt.Errorf("TUNSETIFF %s: %w", name, err)
		}
		const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
		return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
	}
	open := attach
	if ns.IsOpen() {
		open = func() error { return veth.Do(ns, attach) }
	}
	if err := open(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil // non-blocking: of Go's poller
}

// carry copies frames until one end is closed. A frame that the other side does not
// take, as before it is up, is lost.
func carry(from, to *os.File, count *atomic.Uint64) error {
	b := make([]byte, 1<<17)
	for {
		n, err := from.Read(b)
		if err != nil {
			return err
		}
		if _, err := to.Write(b[:n]); err == nil {
			count.Add(1)
		} else if errors.Is(err, os.ErrClosed) {
			return err
		}
	}
}
