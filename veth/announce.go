// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
)

// Announce sends, from a container's own interface, one gratuitous ARP request
// for each IPv4 address (RFC 5227 §2.3) and one unsolicited neighbour
// advertisement for each IPv6 address (RFC 4861 §7.2.6). The bridge learns the
// container's port from them, and neighbours that knew the address with another
// MAC take the new one. Once is enough: the way to the bridge loses nothing at
// rest, and whoever misses it asks.
func Announce(ns netns.NsHandle, ifname string, mac packet.MAC, addrs []netip.Addr) error {
	err := Do(ns, func() error { return announce(ifname, mac, addrs) })
	if err != nil {
		return fmt.Errorf("announce %s: %w", ifname, err)
	}
	return nil
}

// announce runs in the container's namespace. The socket's protocol is 0: it
// sends and never receives.
func announce(ifname string, mac packet.MAC, addrs []netip.Addr) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// The kernel lets all processors pass before a packet socket is closed, which takes
	// longer than all the rest of an attachment; nobody has to wait for it.
	defer func() { go unix.Close(fd) }()
	index, err := ifIndex(fd, ifname)
	if err != nil {
		return err
	}
	to := &unix.SockaddrLinklayer{Ifindex: index}
	var buf [128]byte
	for _, a := range addrs {
		if err := unix.Sendto(fd, announcement(buf[:0], mac, a.Unmap()), 0, to); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return nil
}

func announcement(dst []byte, mac packet.MAC, a netip.Addr) []byte {
	if a.Is4() {
		return packet.GratuitousARP(dst, mac, a)
	}
	return packet.UnsolicitedNA(dst, mac, a)
}
