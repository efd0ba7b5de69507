// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"os"

	"golang.org/x/sys/unix"
)

// reporting makes a socket of datagrams tell what the network says of them, to who has
// the descriptor: its error queue (ip(7), ipv6(7)) has each ICMP error, with who sent it
// and how far that came. None is fragmented until he says so: DF, and what is longer
// than the device allows is an error. What the host believes of the path's MTU is not
// asked; whoever sent the datagram has to know it himself.
func reporting(fd, family int) error {
	level, options := unix.IPPROTO_IP, [...]struct{ name, value int }{
		{unix.IP_RECVERR, 1}, {unix.IP_RECVTTL, 1}, {unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
	}
	if family == unix.AF_INET6 {
		level, options = unix.IPPROTO_IPV6, [...]struct{ name, value int }{
			{unix.IPV6_RECVERR, 1}, {unix.IPV6_RECVHOPLIMIT, 1}, {unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
		}
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}
