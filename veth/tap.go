// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Theory of operation.
//
// A virtual machine's network card is a tap device: the monitor (QEMU, Firecracker,
// Cloud Hypervisor) opens it by name in the network namespace that it runs in, and what
// the guest sends comes out of the device as out of a card. The port of Sluice is a
// packet socket on the device, as it is on the host end of a veth: it reads and writes
// batches with virtio-net headers, so that the guest's segmentation offload goes all
// the way. The fd of the device is the monitor's alone: neither a dead agent nor a dead
// dataplane has anything to do with it, and the device is persistent, so that the
// monitor's end changes nothing either.
//
// The device is in a namespace where a kernel has a stack, perhaps the host's own. It
// must not see the guest, nor be seen: a classifier drops every frame, in both
// directions, behind where packet sockets get theirs (tc-bpf(8), clsact) and before the
// stack. What the port sends does not pass it (PACKET_QDISC_BYPASS).

// TapConfig describes a tap device.
type TapConfig struct {
	Name string         // at most 15 bytes
	NS   netns.NsHandle // where it is; stays the caller's
	MTU  int            // MinMTU to MaxTapMTU
	// Owner and Group may open it beside root (TUNSETOWNER, TUNSETGROUP); less than 0:
	// nobody.
	Owner, Group int
	Alias        string // shown by ip-link(8)
}

// MaxTapMTU is the driver's: 65535 less the Ethernet header.
const MaxTapMTU = 65521

// CreateTap makes a persistent tap device that is up, and that the kernel's stack is
// cut off from. Whatever goes wrong, it leaves nothing behind. Errors: ErrExist,
// ErrConfig.
func CreateTap(c TapConfig) error {
	if !validName(c.Name) || c.MTU < MinMTU || c.MTU > MaxTapMTU {
		return fmt.Errorf("%w: tap %q with MTU %d; at most %d", ErrConfig, c.Name, c.MTU, MaxTapMTU)
	}
	h, err := netlinkAt(c.NS)
	if err != nil {
		return err
	}
	defer h.Close()
	fd := -1
	err = Do(c.NS, func() (err error) {
		fd, err = c.create()
		return err
	})
	if err != nil {
		return fmt.Errorf("tap %s: %w", c.Name, err)
	}
	defer unix.Close(fd) // and with it the device, unless it was made persistent
	link, err := h.LinkByName(c.Name)
	if err == nil {
		err = c.configure(h, link)
	}
	if err == nil {
		err = os.NewSyscallError("TUNSETPERSIST", unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1))
	}
	if err != nil {
		return fmt.Errorf("tap %s: %w", c.Name, err)
	}
	return nil
}

// create makes the device, in the thread's namespace. It lives as long as the fd.
func (c *TapConfig) create() (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	if err := c.attach(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (c *TapConfig) attach(fd int) error {
	req, err := unix.NewIfreq(c.Name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: %s", ErrExist, c.Name)
	} else if err != nil {
		return os.NewSyscallError("TUNSETIFF", err)
	}
	for _, o := range []struct {
		name  string
		req   uint
		value int
	}{{"TUNSETOWNER", unix.TUNSETOWNER, c.Owner}, {"TUNSETGROUP", unix.TUNSETGROUP, c.Group}} {
		if o.value < 0 {
			continue
		}
		if err := unix.IoctlSetInt(fd, o.req, o.value); err != nil {
			return os.NewSyscallError(o.name, err)
		}
	}
	return nil
}

// configure cuts the stack off before the device comes up.
func (c *TapConfig) configure(h *netlink.Handle, link netlink.Link) error {
	if err := h.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("switch ARP off: %w", err)
	}
	if err := h.LinkSetMTU(link, c.MTU); err != nil {
		return fmt.Errorf("MTU %d: %w", c.MTU, err)
	}
	if err := h.LinkSetAlias(link, c.Alias); err != nil {
		return fmt.Errorf("set alias: %w", err)
	}
	if err := Do(c.NS, func() error { return muteIPv6(c.Name, link.Attrs().Index) }); err != nil {
		return err
	}
	if err := cutOff(h, link); err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// cutOff drops what the stack would get of an interface, and what it would send.
func cutOff(h *netlink.Handle, link netlink.Link) error {
	fd, err := loadDrop()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	index := link.Attrs().Index
	attrs := netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	if err := h.QdiscReplace(&netlink.Clsact{QdiscAttrs: attrs}); err != nil {
		return fmt.Errorf("clsact: %w", err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		f := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
			Fd:          fd, Name: "sluice", DirectAction: true,
		}
		if err := h.FilterReplace(f); err != nil {
			return fmt.Errorf("classifier: %w", err)
		}
	}
	return nil
}

// TapEnd is a tap device as the kernel knows it.
type TapEnd struct {
	Index int
	Alias string // what TapConfig.Alias was
}

// FindTap looks a tap device up. Errors: ErrNotExist, also if it is something else.
func FindTap(ns netns.NsHandle, name string) (TapEnd, error) {
	h, err := netlinkAt(ns)
	if err != nil {
		return TapEnd{}, err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if isNoLink(err) || err == nil && link.Type() != "tuntap" {
		return TapEnd{}, fmt.Errorf("tap %s: %w", name, ErrNotExist)
	}
	if err != nil {
		return TapEnd{}, fmt.Errorf("tap %s: %w", name, err)
	}
	return TapEnd{Index: link.Attrs().Index, Alias: link.Attrs().Alias}, nil
}

// DeleteTap removes a tap device, if it is there and has the alias: whoever has it open
// reads an end.
func DeleteTap(ns netns.NsHandle, name, alias string) error {
	h, err := netlinkAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	switch {
	case isNoLink(err):
		return nil
	case err != nil:
		return fmt.Errorf("tap %s: %w", name, err)
	case link.Type() != "tuntap" || link.Attrs().Alias != alias:
		return nil // somebody else's, who has the name now
	}
	return deleteLink(h, link)
}
