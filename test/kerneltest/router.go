// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/packet"
)

// Side is one side of a router: its far end, p1 or p2.
type Side struct {
	*End
	Router  packet.MAC // of r1 or r2
	Station packet.MAC // who all hosts of the side are, for the router
}

// Router makes of the namespace a router between two links, in whose ends stations are
// played that are not there, so that the kernel leaves their frames alone:
//
//	sides[0] -- p1 ==== r1   router   r2 ==== p2 -- sides[1]
//	      10.71.1.0/24, fd71:1::/64   10.71.2.0/24, fd71:2::/64
//
// The router is .1 and ::1; hosts are the numbers of others that it knows on each side,
// 40 for .40 and ::40. Settings of devices are to be made before, as defaults.
func Router(tb testing.TB, mtu int, hosts ...int) (sides [2]Side) {
	tb.Helper()
	Forward(tb)
	for n := 1; n <= 2; n++ {
		station := packet.MAC{0x02, 0x71, 0, 0, byte(n), 2}
		IP(tb, fmt.Sprintf("link add r%d mtu %d type veth peer name p%d mtu %d", n, mtu, n, mtu))
		Sysctl(tb, fmt.Sprintf("ipv6/conf/p%d/disable_ipv6=1", n))
		lines := []string{
			fmt.Sprintf("link set r%d up", n), fmt.Sprintf("link set p%d arp off up", n),
			fmt.Sprintf("addr add 10.71.%d.1/24 dev r%d", n, n), fmt.Sprintf("addr add fd71:%d::1/64 dev r%d nodad", n, n),
		}
		for _, host := range hosts {
			lines = append(lines,
				fmt.Sprintf("neigh add 10.71.%d.%d lladdr %v dev r%d", n, host, station, n),
				fmt.Sprintf("neigh add fd71:%d::%d lladdr %v dev r%d", n, host, station, n))
		}
		IP(tb, lines...)
		AwaitUp(tb, fmt.Sprint("r", n), fmt.Sprint("p", n))
		r, err := netlink.LinkByName(fmt.Sprint("r", n))
		must(tb, "router's end", err)
		sides[n-1] = Side{End: Open(tb, fmt.Sprint("p", n)), Router: packet.MAC(r.Attrs().HardwareAddr), Station: station}
	}
	return sides
}
